"""Networks for small images: CIFAR ResNets, and the multi-exit ResNet of self KD.

A call ``net(x)`` takes images x [B, C, H, W] and returns `Outputs`: logits [B, K] before the softmax and features
[B, D] after pooling. The multi-exit network returns one `Outputs` an exit, deepest first.

Two families: `resnet10/18/34/50/101` with four stages (the released programs; `resnet10` is ours, one block a
stage) and the small `resnet8/14/20/32/56/110` with three (He et al. 2016, section 4.2). Neither has a max-pool.
Taught in notebooks/02_baselines.ipynb (networks) and notebooks/04_self_kd.ipynb (exits).
"""

from __future__ import annotations

from functools import partial
from typing import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError, nearest
from ..recipes import RESNETS
from .layers import Dropout, Outputs, outputs_of


class NarrowShortcut(nn.Conv2d):
    """A strided 1x1 convolution, computed without stride on every stride-th pixel: the same sums.

    With fewer input channels than a vector register holds, the backward pass of oneDNN's strided kernel writes past its
    workspace (its issue 6035; torch 2.15 and earlier on CPUs): wrong gradients, or a crash.
    """

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x[:, :, ::self.stride[0], ::self.stride[1]], self.weight)


def conv(inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    if size == 1 and stride > 1 and inputs < 16:
        return NarrowShortcut(inputs, outputs, 1, stride, bias=False)
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, groups=groups, bias=False)


class Block(nn.Module):
    """Residual block: two 3x3 convolutions, or 1x1, 3x3, 1x1 with four times the channels at its end."""

    def __init__(self, inputs: int, width: int, stride: int, bottleneck: bool):
        super().__init__()
        outputs = width * (4 if bottleneck else 1)
        if bottleneck:
            self.residual = nn.Sequential(
                conv(inputs, width, 1), nn.BatchNorm2d(width), nn.ReLU(inplace=True),
                conv(width, width, 3, stride), nn.BatchNorm2d(width), nn.ReLU(inplace=True),
                conv(width, outputs, 1), nn.BatchNorm2d(outputs))
        else:
            self.residual = nn.Sequential(
                conv(inputs, width, 3, stride), nn.BatchNorm2d(width), nn.ReLU(inplace=True),
                conv(width, outputs, 3), nn.BatchNorm2d(outputs))
        if stride == 1 and inputs == outputs:
            self.shortcut = nn.Identity()
        else:
            self.shortcut = nn.Sequential(conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.residual(x) + self.shortcut(x))


# name: (blocks of each stage, width of the first stage, bottleneck blocks)
ARCHITECTURES = {f"resnet{6 * n + 2}": ((n, n, n), 16, False) for n in (1, 2, 3, 5, 9, 18)} | {
    "resnet10": ((1, 1, 1, 1), 64, False), "resnet18": ((2, 2, 2, 2), 64, False),
    "resnet34": ((3, 4, 6, 3), 64, False), "resnet50": ((3, 4, 6, 3), 64, True),
    "resnet101": ((3, 4, 23, 3), 64, True)}


assert set(ARCHITECTURES) == set(RESNETS)


class Trunk(nn.Module):
    """Stem and stages: x [B, C, H, W] -> one map a stage, each half as large and twice as wide as the one before."""

    def __init__(self, name: str, channels: int, width: int):
        super().__init__()
        if name not in ARCHITECTURES:
            raise InputError(nearest("model", name, ARCHITECTURES))
        blocks, own_width, bottleneck = ARCHITECTURES[name]
        width = width or own_width
        self.stem = nn.Sequential(conv(channels, width, 3), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        self.stages, inputs = nn.ModuleList(), width
        for stage, count in enumerate(blocks):
            layers = []
            for block in range(count):
                stride = 2 if stage > 0 and block == 0 else 1
                layers.append(Block(inputs, width << stage, stride, bottleneck))
                inputs = (width << stage) * (4 if bottleneck else 1)
            self.stages.append(nn.Sequential(*layers))
        self.dropouts = nn.ModuleList(Dropout() for _ in blocks)  # idle unless a recipe sets their rate
        self.out_channels = inputs

    def forward(self, x: Tensor) -> list[Tensor]:
        x, maps = self.stem(x), []
        for stage, dropout in zip(self.stages, self.dropouts):
            x = dropout(stage(x))
            maps.append(x)
        return maps


class ResNet(nn.Module):
    """CIFAR ResNet: trunk, global average pooling, linear head. Width 0 is the architecture's own.

    Raises:
        InputError: an unknown name.

    >>> ResNet("resnet8", classes=10, width=4)(torch.zeros(2, 3, 32, 32)).features.shape
    torch.Size([2, 16])
    """

    def __init__(self, name: str, classes: int, channels: int = 3, width: int = 0):
        super().__init__()
        self.trunk = Trunk(name, channels, width)
        self.head = nn.Linear(self.trunk.out_channels, classes)
        self.feature_size = self.head.in_features  # D

    def forward(self, x: Tensor) -> Outputs:
        last = self.trunk(x)[-1]
        return outputs_of(self.head, last.mean(dim=(2, 3)), last)


class Separable(nn.Module):
    """A linear operation on the rows and on the columns of a map [B, C, H, W], such as enlarging or pooling.

    On the CPU it is torch's own. On a GPU torch's backward pass is not deterministic, or sorts indices; so there it is
    a product with one matrix a side, made by applying the operation to unit vectors, once a length.

    Args:
        operation: (x, (rows, columns)) -> x of so many rows and columns.
    """

    def __init__(self, operation: Callable[[Tensor, tuple[int, int]], Tensor]):
        super().__init__()
        self.operation = operation

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        return self.operation(x, size) if x.device.type == "cpu" else self.by_matrices(x, size)

    def by_matrices(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Compute the operation as matrix products, in channels_last and, under autocast too, in the type of x."""
        rows, columns = (self._matrix(*lengths, x.device).to(x.dtype) for lengths in zip(x.shape[2:], size))
        channels = x.shape[1]
        with torch.autocast(x.device.type, enabled=False):
            x = rows @ x.permute(0, 2, 3, 1).flatten(2)  # [B, rows, W C]
            return (columns @ x.unflatten(2, (-1, channels))).permute(0, 3, 1, 2)

    def _matrix(self, before: int, after: int, device: torch.device) -> Tensor:
        """Return the operation's matrix [after, before], in double precision."""
        name = f"from_{before}_to_{after}"
        if name in self._buffers:
            return self._buffers[name]
        unit = torch.eye(before, dtype=torch.float64, device=device)[None, :, None]
        matrix = self.operation(unit, (1, after))[0, :, 0].T.contiguous()
        if not torch._C._functorch.is_functorch_wrapped_tensor(matrix):  # what torch.func wraps ends with its call
            self.register_buffer(name, matrix, persistent=False)
        return matrix


class SepConv(nn.Sequential):
    """Two depthwise-separable convolutions; the first halves the image."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(
            conv(inputs, inputs, 3, stride=2, groups=inputs), conv(inputs, inputs, 1),
            nn.BatchNorm2d(inputs), nn.ReLU(inplace=True),
            conv(inputs, inputs, 3, groups=inputs), conv(inputs, outputs, 1),
            nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class MultiExitResNet(nn.Module):
    """A four-stage ResNet with an exit after each stage ("Be your own teacher", Zhang et al. 2019).

    Exits 1 to 3 pass their stage's map through an attention gate, then shrink it to the deepest stage's shape with
    `SepConv`s. The next stage receives the map without the gate.

    Args:
        gate: "signed" feeds the sigmoid a batch-normalised map (ours); "rectified" puts a ReLU before it, which
            keeps the gate at 1/2 or above (released program, A16).

    Returns (forward): four `Outputs`, deepest exit first, features [B, D] of equal D.

    Raises:
        InputError: an architecture without four stages, or an unknown name.
    """

    def __init__(self, name: str, classes: int, channels: int = 3, width: int = 0, gate: str = "signed"):
        super().__init__()
        self.trunk = Trunk(name, channels, width)
        if len(self.trunk.stages) != 4:
            raise InputError(f'"{name}" has three stages and self KD needs the four of a multi-exit network: choose '
                             "resnet10, resnet18, resnet34, resnet50 or resnet101.")
        deepest = self.trunk.out_channels
        widths = [deepest >> 3, deepest >> 2, deepest >> 1]
        self.scale = nn.ModuleList(
            nn.Sequential(*(SepConv(w, 2 * w) for w in (deepest >> k for k in range(3 - exit, 0, -1))))
            for exit in range(3))
        self.gates = nn.ModuleList(nn.Sequential(SepConv(w, w), nn.BatchNorm2d(w)) for w in widths)
        self.enlarge = Separable(partial(F.interpolate, mode="bilinear"))
        self.rectified = gate == "rectified"
        self.heads = nn.ModuleList(nn.Linear(deepest, classes) for _ in range(4))  # shallowest first

    def gate(self, exit: int, x: Tensor) -> Tensor:
        """Compute the attention map of exit 0, 1 or 2 (shallowest first), in (0, 1), shaped like its stage's map."""
        logit = self.gates[exit](x)
        if self.rectified:
            logit = F.relu(logit)
        return torch.sigmoid(self.enlarge(logit, x.shape[2:]))

    def forward(self, x: Tensor) -> tuple[Outputs, ...]:
        maps, x = [], self.trunk.stem(x)
        for k, stage in enumerate(self.trunk.stages):
            x = stage(x)
            # Gated as the stage comes, as in the released program: autograd then adds a map's gradients in its
            # order, and a recorded run is met to the last bit.
            maps.append(self.gate(k, x) * x if k < 3 else x)
        shallow = [scale(x) for scale, x in zip(self.scale, maps)]
        features = [m.mean(dim=(2, 3)) for m in (*shallow, maps[3])]
        return tuple(outputs_of(head, f) for head, f in zip(self.heads, features))[::-1]

    def deepest(self, x: Tensor) -> Outputs:
        """Run the trunk and its own head alone: the network after training, with the cost of the plain ResNet."""
        features = self.trunk(x)[-1].mean(dim=(2, 3))
        return outputs_of(self.heads[3], features)
