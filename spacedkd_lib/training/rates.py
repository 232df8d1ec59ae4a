"""Learning rates of a moment of training, and of each event of a run."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Iterable

from ..recipes import Recipe
from ..schedule import Course, Event


def learning_rate(recipe: Recipe, done: int, total: int) -> float:
    """Return the rate after `done` of `total` batches.

    "cosine" falls to zero. "multistep" falls to a fifth after 30, 60 and 80% of the run, as unread settings in the
    released programs say (A9). "late_steps" falls to a tenth after 62.5, 75 and 87.5% (released ED program).
    "warmup_cosine" changes each epoch, from a thousandth of `lr` to `lr`, then to a hundredth (released transformer
    programs: timm's schedule, lr 5e-4).
    """
    if recipe.lr_schedule == "warmup_cosine":
        epoch, warm = done * recipe.epochs // total, recipe.warmup_epochs
        if epoch < warm:
            return recipe.lr * (0.001 + 0.999 * epoch / warm)
        return recipe.lr * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * epoch / recipe.epochs)))
    if recipe.lr_schedule == "late_steps":
        return recipe.lr * 0.1 ** sum(8 * done >= eighths * total for eighths in (5, 6, 7))
    if recipe.lr_schedule == "multistep":
        return recipe.lr * 0.2 ** sum(10 * done >= tenths * total for tenths in (3, 6, 8))
    return recipe.lr * (1 if recipe.lr_schedule == "constant" else 0.5 * (1 + math.cos(math.pi * done / total)))


class Clock:
    """Progress of a run's teacher and student, for their learning rates.

    Each follows its own progress through the data, so that a batch has the same rate for both, but for `teacher_lr`.
    With `student_clock` = "teacher" the student follows the teacher's progress (A9).
    """

    def __init__(self, recipe: Recipe, course: Course, past: Iterable[Event]):
        self.recipe, self.course = recipe, course
        self.teaching = replace(recipe, lr=recipe.teacher_lr or recipe.lr)
        self.taught: tuple[int, int] | None = None  # the teacher's progress: batches done, and all of them
        for event in past:
            self.rate(event)

    def rate(self, event: Event) -> float:
        """Return the learning rate of an event's update."""
        if event.kind == "learn" and self.recipe.student_clock == "own":
            restart = self.recipe.lr_on_growth == "restart"
            return learning_rate(self.recipe, *self.course.progress(event.index, restart))
        if event.kind == "teach":
            self.taught = ((event.index, self.course.lessons * self.course.epochs) if self.course.lessons else
                           self.course.progress(event.index, restart=False))
        recipe = self.teaching if event.kind == "teach" else self.recipe
        return learning_rate(recipe, *self.taught) if self.taught else 0.0

    def epoch(self, event: Event) -> float:
        """Return the epochs of the student's data before an event's batch."""
        done, total = self.course.progress(event.index, restart=False)
        return done * self.recipe.epochs / total  # one rounding, so that whole epochs are whole numbers
