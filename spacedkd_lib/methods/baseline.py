"""Baseline: training on labels alone, the reference of every other method."""

from __future__ import annotations

from typing import Iterator

import torch.nn.functional as F
from torch import Tensor, nn

from ..models.layers import Outputs, in_mode, macs
from ..recipes import Recipe
from ..schedule import Course, Event
from .base import Method


class Baseline(Method):
    """Cross-entropy on the student; there is no teacher.

    With `start` = "teacher" in the recipe the network is online KD's teacher, trained on the teacher's turns.
    """

    tallied = {"teach": "learn", "learn": "learn"}
    stackable = True

    def __init__(self, recipe: Recipe, student: nn.Module, channels: int, size: int):
        super().__init__(recipe)
        self.student = student
        self.teaches: Method | None = None  # whose teacher it is, if it shares one
        self.modules = {"student": student}
        self.trained = {"teach": [student], "learn": [student]}
        passes = 6 if recipe.optimizer == "sam" else 3
        self.cost = {"learn": passes * macs(student, channels, size)}

    @classmethod
    def events(cls, recipe: Recipe, course: Course) -> Iterator[Event]:
        other = "teach" if recipe.start == "student" else "learn"
        return (event for event in super().events(recipe, course) if event.kind != other)

    def learn(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        return learn_labels(in_mode(self.student)(x), y, self.recipe.label_smoothing)

    def teach(self, x: Tensor, y: Tensor) -> dict[str, Tensor] | None:
        return self.teaches.teach(x, y) if self.teaches else self.learn(x, y)

    def adopt(self, first) -> None:
        """Become the teacher of another method."""
        self.student = self.modules["student"] = first.teacher
        self.trained = dict.fromkeys(self.trained, first.trained["teach"])  # with a paraphraser, if there is one
        self.teaches, self.views = first, first.views

    def recorded(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the terms of a run alone: the labels' loss, whatever else the update serves."""
        return {"loss": terms.get("_labels", terms["loss"]), "correct": terms["correct"]}

    def predict(self, x: Tensor, memo: dict | None = None) -> dict[str, Tensor]:
        return {"student": once(memo, self.student, x)}


def learn_labels(outputs: Outputs, y: Tensor, smoothing: float = 0.0) -> dict[str, Tensor]:
    """Compute cross-entropy, the mean over class and distillation tokens' heads, since tests use both."""
    loss = F.cross_entropy(outputs.logits, y, label_smoothing=smoothing)
    if outputs.distilled is not None:
        loss = (loss + F.cross_entropy(outputs.distilled, y, label_smoothing=smoothing)) / 2
    return {"loss": loss, "correct": (outputs.logits.argmax(1) == y).sum()}


def once(memo: dict | None, net: nn.Module, x: Tensor) -> Tensor:
    """Return a network's logits [B, K] on x, from `memo` if a method that shares the network left them there."""
    memo = {} if memo is None else memo
    if net not in memo:
        memo[net] = net(x).logits
    return memo[net]
