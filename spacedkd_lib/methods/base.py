"""Interface of a method, all that the loop knows of it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Iterator

from torch import Tensor, nn

from ..models.scoring import named_scores
from ..recipes import Recipe
from ..schedule import Course, Event, spaced_schedule


class Method:
    """The networks of a recipe, and the updates of teacher and student; complete once it is constructed.

    A subclass sets `modules` (name -> module, kept by the run's record), `trained` ("teach" and "learn" -> the modules
    that the update changes) and `cost` (for both, multiply-accumulates per image; a backward pass counts as two forward
    ones), and defines `teach`, `learn` and `predict`. All other methods are hooks.
    """

    modules: dict[str, nn.Module]
    trained: dict[str, list[nn.Module]]
    cost: dict[str, int]
    epoch = 0.0  # of the student's data before the present update; set by the loop
    block = 0  # of the present update; set by the loop
    view_before_update = False  # whether `learn` uses them (A7)
    tallied = {"teach": "teach", "learn": "learn"}  # under which role an update is counted
    ramped: tuple[str, ...] = ("learn",)  # updates whose losses change their weights with the epoch
    irregular = ""  # why an update is not the same work each time, if it is not
    whole_batch = ""  # what needs a whole batch in one process, if something does
    stackable = False  # whether several seeds can make one update, see training/stacked.py

    def __init__(self, recipe: Recipe):
        self.recipe = recipe
        self.views: dict[str, Tensor] = {}  # the teacher's outputs from before its last update; all who share it do

    @classmethod
    def events(cls, recipe: Recipe, course: Course) -> Iterator[Event]:
        """Schedule the updates; only Education Distillation has a course of several grades."""
        return spaced_schedule(*course.grades[0], recipe.interval, rule=recipe.rule, tail=recipe.tail,
                               counter=recipe.counter, teach_last=recipe.self_update != "everything",
                               extra_step=recipe.extra_step, seed=recipe.seed)

    @classmethod
    def batches(cls, recipe: Recipe, batches, classes: int):
        """Return the teachers' batches; their `.learned(recipe)` returns the student's."""
        return batches

    def teach(self, x: Tensor, y: Tensor) -> dict[str, Tensor] | None:
        """Compute the teacher's terms on images x [B, C, H, W], labels y [B]; None if the batch was only looked at.

        The terms are named scalars: "loss", to be minimised, and "correct", the hits among the B images.
        """
        raise NotImplementedError

    def learn(self, x: Tensor, y: Tensor) -> dict[str, Tensor] | None:
        """Compute the student's terms, as `teach` does."""
        raise NotImplementedError

    def predict(self, x: Tensor, memo: dict | None = None) -> dict[str, Tensor]:
        """Return name -> logits [B, K] to score, headline first; memo: others' outputs of a shared network on x."""
        raise NotImplementedError

    def adopt(self, first: Any) -> None:
        """Use another method's equal teacher, which then serves both students."""
        raise NotImplementedError

    def own_statistics(self) -> AbstractContextManager:
        """Let `modules` hold, within this context, the statistics of a run alone."""
        return nullcontext()

    def before_update(self, sizes: list[int] | None) -> None:
        """Prepare the next update; sizes: its batch's pictures of each group, if there are groups."""

    def recorded(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return an update's terms for the record, without the underscored ones, which are for others who share it."""
        return {name: value for name, value in terms.items() if not name.startswith("_")}

    def grow(self) -> None:
        """Enter the next grade."""

    def before_scores(self) -> None:
        """Prepare for scoring."""

    def scored(self, split: str, outputs: dict[str, Tensor], labels: Tensor) -> dict[str, float]:
        """Score the outputs of `predict` on a whole set."""
        return named_scores(split, outputs, labels)

    def diagnose(self, x: Tensor) -> dict[str, float]:
        """Return numbers for an epoch's row, from some test images."""
        return {}

    def summary(self, rows: list[dict]) -> dict[str, float]:
        """Return numbers for the whole run."""
        return {}
