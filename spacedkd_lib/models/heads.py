"""Attachments of a ResNet: projectors, coders of maps, heads of lower grades."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from .resnet import Separable, conv


def projector(student_features: int, teacher_features: int) -> nn.Sequential:
    """Map student features [B, Ds] to the teacher's [B, Dt]; only the feature loss reads them (released program)."""
    hidden = (student_features + teacher_features) // 2
    return nn.Sequential(nn.Linear(student_features, hidden), nn.ReLU(), nn.Linear(hidden, teacher_features))


class Coder(nn.Sequential):
    """Three 3x3 convolutions that keep a map's size: [B, Ci, H, W] -> [B, Co, H, W] (released IE-KD program).

    It serves as the paraphraser's encoder and decoder, as a factor transfer's translator, and as each half's encoder.
    """

    def __init__(self, inputs: int, outputs: int):
        layers = [nn.LeakyReLU(0.1)]
        for before, after in ((inputs, inputs), (inputs, outputs), (outputs, outputs)):
            layers += [conv(before, after, 3), nn.BatchNorm2d(after), nn.LeakyReLU(0.1)]
            nn.init.normal_(layers[-3].weight, std=(2 / (9 * after)) ** 0.5)
        super().__init__(*layers)


class Paraphraser(nn.Module):
    """An auto-encoder of a teacher's last map; its code is the factor (Kim et al. 2018).

    >>> import torch
    >>> Paraphraser(64, 32)(torch.zeros(2, 64, 8, 8)).shape
    torch.Size([2, 64, 8, 8])
    """

    def __init__(self, channels: int, factor_channels: int):
        super().__init__()
        self.encoder, self.decoder = Coder(channels, factor_channels), Coder(factor_channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x))


class Pool(Separable):
    """Means of `points` x `points` parts of a map, as `nn.AdaptiveAvgPool2d` cuts it."""

    def __init__(self, points: int):
        super().__init__(F.adaptive_avg_pool2d)
        self.size = points, points

    def forward(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        return super().forward(x, size or self.size)


def reference_head(inputs: int, outputs: int, classes: int, points: int) -> nn.Sequential:
    """Make the head of a student without all its stages ("teaching reference"; released ED program).

    A 1x1 convolution to the last stage's channels, pooling to `points` x `points`, a linear layer.
    """
    return nn.Sequential(conv(inputs, outputs, 1), nn.BatchNorm2d(outputs), nn.Identity(),
                         Pool(points), nn.Flatten(), nn.Linear(outputs * points**2, classes))
