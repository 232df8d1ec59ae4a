"""EMA: the student is the exponential moving average of a network's weights, and never gets a gradient.

The network is trained on labels, like a teacher; spaced, its average makes one step at the end of each interval. So the
network of one seed serves all averages. Taught in notebooks/13_spacing_beyond_kd.ipynb.
"""

from __future__ import annotations

import copy
from typing import Any, Iterator

import torch
from torch import Tensor, nn

from ..models.transformers import combine_heads
from ..recipes import Recipe
from ..schedule import Course, Event, one_a_block
from .baseline import once
from .dropout_ema import average_step
from .online_kd import BatchNorm, OnlineKD, batch_statistics

RECALIBRATION_BATCHES = 20  # training batches from which an average's running statistics are computed (ours)


class Average(OnlineKD):
    """Teacher: cross-entropy. Student: student + share (teacher - student), see `dropout_ema.average_step`.

    The student starts as a copy of the initial network. Its running statistics: "recalibrate" computes them before
    scoring, "stale" keeps the first ones, "batch" needs none: each test batch's own statistics score both networks.
    """

    stackable = False
    whole_batch = "the average of running statistics"

    def __init__(self, recipe: Recipe, network: nn.Module, channels: int, size: int, batches: Any):
        super().__init__(recipe, network, copy.deepcopy(network), nn.Identity(), channels, size)
        del self.modules["projector"]
        self.recalibration = batches and batches.of(torch.arange(len(batches.images)), "statistics of the average")
        self.student.requires_grad_(False)
        self.own, self.followed = list(self.student.parameters()), list(network.parameters())
        self.trained = {"teach": [network]}
        self.cost = {"teach": self.cost["teach"]}

    @classmethod
    def events(cls, recipe: Recipe, course: Course) -> Iterator[Event]:
        return one_a_block(super().events(recipe, course))

    @torch.no_grad()
    def learn(self, x: Tensor, y: Tensor) -> None:
        """Step the average; the batch is not used."""
        share = average_step(self.recipe.ema_decay, self.recipe.ema_debias, self.block + 1)
        torch._foreach_lerp_(self.own, self.followed, share)

    def adopt(self, first: OnlineKD) -> None:
        super().adopt(first)
        self.followed = list(self.teacher.parameters())

    @torch.no_grad()
    def before_scores(self) -> None:
        """Recompute the running statistics of "recalibrate": plain means over the batches' own."""
        if self.recipe.ema_statistics != "recalibrate":
            return
        layers = [layer.train() for layer in self.student.eval().modules() if isinstance(layer, BatchNorm)]
        if not layers:
            return  # nothing to compute
        momenta = [layer.momentum for layer in layers]
        for layer in layers:
            layer.reset_running_stats()
        for i in range(RECALIBRATION_BATCHES):
            for layer in layers:
                layer.momentum = 1 / (i + 1)  # what torch makes of None, for which it reads a number from the device
            self.student(self.recalibration.pictures(self.recalibration.indices(i), i)[0])  # and keep none
        for layer, momentum in zip(layers, momenta):
            layer.momentum = momentum

    def predict(self, x: Tensor, memo: dict | None = None) -> dict[str, Tensor]:
        if self.recipe.ema_statistics != "batch":
            return {"student": self.student(x).logits, "teacher": once(memo, self.teacher, x)}
        both = nn.ModuleDict({"student": self.student, "teacher": self.teacher}).train()
        with batch_statistics(both):
            seen = {name: net(x) for name, net in both.items()}
        both.eval()  # the network may serve other averages
        return {name: combine_heads(of.logits, of.distilled) for name, of in seen.items()}
