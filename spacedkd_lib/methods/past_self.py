"""A student taught by its own past: comparators of spaced KD without a second network that learns.

Taught in notebooks/05_spaced_kd.ipynb.
"""

from __future__ import annotations

import copy
from typing import Iterator

import torch
from torch import Tensor, nn

from ..recipes import Recipe
from ..schedule import Course, Event, snapshots
from .online_kd import OnlineKD


class PastSelf(OnlineKD):
    """Teacher: an average of the student's weights, stepped at the end of each block; decay 0 copies."""

    stackable = False

    def __init__(self, recipe: Recipe, student: nn.Module, projector: nn.Module, channels: int, size: int):
        super().__init__(recipe, copy.deepcopy(student), student, projector, channels, size)
        self.teacher.requires_grad_(False)
        self.trained = {"learn": [student, projector]}
        self.cost = {"learn": self.cost["learn"]}

    @classmethod
    def events(cls, recipe: Recipe, course: Course) -> Iterator[Event]:
        return snapshots(*course.grades[0], recipe.interval)

    @torch.no_grad()
    def teach(self, x: Tensor, y: Tensor) -> None:
        """Step the average; the batch is not used."""
        share = 1 - self.recipe.ema_decay
        torch._foreach_lerp_(list(self.teacher.parameters()), list(self.student.parameters()), share)
        for own, new in zip(self.teacher.buffers(), self.student.buffers()):
            own.copy_(new)
