"""Inheritance and exploration (IE-KD, Huang et al., CVPR 2021), made of factor transfer.

A paraphraser, an auto-encoder of the teacher's last map, gives the teacher's factor. One half of the student's last map
is drawn towards it (inheritance), the other half is pushed away from it (exploration), each through its own encoder.
Teacher and paraphraser learn beside the student, as in online KD; spacing lets both run ahead.
Taught in notebooks/10_ie_kd.ipynb.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from ..models.heads import Coder, Paraphraser
from ..models.layers import Outputs, macs
from ..recipes import Recipe
from . import losses
from .baseline import learn_labels
from .online_kd import OnlineKD


class MapLoss(nn.Module):
    """Losses of a student's last map against a teacher's factor: halves, encoders, distances.

    Raises:
        InputError: halves of an odd number of channels.
    """

    def __init__(self, recipe: Recipe, student_channels: int, factor_channels: int):
        super().__init__()
        if student_channels % 2:
            raise InputError(f"{student_channels} channels of {recipe.model} (width {recipe.width}) cannot be split "
                             "into halves: choose a network with an even number.")
        self.recipe, half = recipe, student_channels // 2
        for name, channels in zip(("inherit", "explore"), torch.arange(student_channels).split(half)):
            self.register_buffer(f"{name}_channels", channels)
        self.inherit, self.explore = Coder(half, factor_channels), Coder(half, factor_channels)

    def halves(self, last: Tensor) -> dict[str, Tensor]:
        """Return the encoded parts of a student's map for the losses: "inherit" and "explore"."""
        return {name: getattr(self, name)(self.part(last, name)) for name in ("inherit", "explore")}

    def part(self, last: Tensor, name: str) -> Tensor:
        return last.index_select(1, getattr(self, f"{name}_channels"))

    def forward(self, last: Tensor, factor: Tensor) -> dict[str, Tensor]:
        """Terms "inherit" and "explore", without their weights; those of weight 0 are left out."""
        r, seen = self.recipe, self.halves(last)
        terms = {"inherit": losses.factor_distance(seen["inherit"], factor)} if r.inherit_weight else {}
        if r.explore_weight:
            terms["explore"] = -losses.factor_distance(seen["explore"], factor)
        return terms

    def weighted(self, last: Tensor, factor: Tensor, epoch: float) -> tuple[dict[str, Tensor], Tensor | float]:
        """Return the terms, and their weighted sum after `epoch` epochs of the student's data (ramp)."""
        r = self.recipe
        past = epoch - r.distil_start
        ramp = min(max(past / r.ramp_epochs, 0.0), 1.0) if r.ramp_epochs else past >= 0
        weights = {"inherit": r.inherit_weight, "explore": r.explore_weight}
        if not ramp or not any(weights.values()):
            return {}, 0.0
        terms = self(last, factor)
        return terms, sum(ramp * weights[name] * value for name, value in terms.items())


def factor_channels(channels: int) -> int:
    """Return the factor's channels: half of those of the teacher's last map (released IE-KD program)."""
    return max(round(0.5 * channels), 1)


class FactorTransfer(OnlineKD):
    """Teacher: cross-entropy, and its paraphraser's mean absolute error, from the same forward pass.

    Student: online KD's loss + inherit_weight inheritance + explore_weight exploration. With both weights 0 it is
    online KD, bit for bit.
    """

    stackable = False
    whole_batch = "the loss of factors"

    def __init__(self, recipe: Recipe, teacher: nn.Module, student: nn.Module, projector: nn.Module, channels: int,
                 size: int, map_loss: MapLoss, paraphraser: Paraphraser):
        super().__init__(recipe, teacher, student, projector, channels, size)
        self.looks = self.looks or bool(recipe.inherit_weight or recipe.explore_weight)
        self.map_loss, self.paraphraser = map_loss, paraphraser
        self.modules |= {"map_loss": map_loss, "paraphraser": paraphraser}
        self.trained = {"teach": [teacher, paraphraser], "learn": [student, self.projector, map_loss]}
        forward, high = macs(teacher, channels, size), last_map(student, channels, size)[1]
        self.cost = {"teach": 3 * (forward + coders_macs(paraphraser, high)),
                     "learn": 3 * (macs(student, channels, size) + coders_macs(map_loss, high))
                     + forward * self.looks + coders_macs(paraphraser.encoder, high)}

    def teach(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        outputs = self.teacher.train()(x)
        hard = F.cross_entropy(outputs.logits, y)
        error = losses.reconstruction_l1(self.paraphraser.train()(outputs.map.detach()), outputs.map)
        return {"loss": hard + error, "correct": (outputs.logits.argmax(1) == y).sum(), "reconstruction": error,
                "_labels": hard}

    def learn(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        if self.epoch < self.recipe.distil_start:
            return learn_labels(self.student.train()(x), y)
        seen = self.teacher_outputs(x) if self.looks else None
        outputs = self.student.train()(x)
        terms = self.student_loss(outputs, seen, y)
        with torch.no_grad():
            factor = self.paraphraser.eval().encoder(seen.map) if seen else None
        more, weighted = self.map_loss.train().weighted(outputs.map, factor, self.epoch)
        return terms | more | {"loss": terms["loss"] + weighted}

    def diagnose(self, x: Tensor) -> dict[str, float]:
        """Measure how near the halves are to the teacher on pictures x, in eval mode: cosine and linear CKA.

        The cosine is of the encoded half and the factor; an exploration encoder can move it without the student (I21).
        CKA (Kornblith et al. 2019) is of the maps, without encoders. Unrelated maps have CKA above zero too, and more
        so the more elements a picture's map has. So compare it between arms, not with zero.
        """
        with self.own_statistics():
            mine, theirs = self.student(x).map, self.teacher(x).map
        factor = self.paraphraser.eval().encoder(theirs)
        row = {}
        for name, half in self.map_loss.halves(mine).items():
            row[f"probe_{name}_cosine"] = F.cosine_similarity(half.flatten(1), factor.flatten(1)).mean()
            row[f"probe_{name}_cka"] = losses.linear_cka(self.map_loss.part(mine, name), theirs)
        halves = [self.map_loss.part(mine, name) for name in ("inherit", "explore")]
        row["probe_halves_cka"] = losses.linear_cka(*halves)
        row["probe_reconstruction"] = F.l1_loss(self.paraphraser(theirs), theirs) / theirs.abs().mean()
        return dict(zip(row, torch.stack([*row.values()]).tolist()))  # a GPU waits once

    def adopt(self, first: FactorTransfer) -> None:
        super().adopt(first)
        self.paraphraser = self.modules["paraphraser"] = first.paraphraser
        self.trained["teach"] = [first.teacher, first.paraphraser]


def coders_macs(module: nn.Module, size: int) -> int:
    """Count the multiply-accumulates of one map of size x size through each `Coder` of a module."""
    return sum(macs(coder, coder[1].in_channels, size) for coder in module.modules() if isinstance(coder, Coder))


def last_map(net: nn.Module, channels: int, size: int) -> tuple[int, int, int]:
    """Return C, H and W of a network's last map, for images of so many channels and pixels.

    Raises:
        InputError: a network that ends in something else.
    """
    was_training, weight = net.training, next(net.parameters())
    with torch.no_grad():
        seen: Outputs = net.eval()(torch.zeros(1, channels, size, size, dtype=weight.dtype, device=weight.device))
    net.train(was_training)
    if seen.map is None:
        raise InputError(f"{net.name} does not end in a map [C, H, W], which factors "
                         "compare: choose a ResNet, or a transformer with maps, as timm/pvt_v2_b0.")
    return tuple(seen.map.shape[1:])
