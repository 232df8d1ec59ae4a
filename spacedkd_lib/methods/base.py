"""What a method is to the loop, which knows nothing else of it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Iterator

from torch import Tensor, nn

from ..models.scoring import named_scores
from ..recipes import Recipe
from ..schedule import Course, Event, spaced_schedule


class Method:
    """The networks of a recipe, and what an update of teacher and student is. Whole once it is constructed.

    A subclass sets `modules` (name -> module, what a record keeps of the run), `trained` (for "teach" and "learn", the
    modules that the update changes) and `cost` (for both, multiply-accumulates per image, a backward pass counted as
    two forward ones), and defines `teach`, `learn` and `predict`. All other methods are hooks.
    """

    modules: dict[str, nn.Module]
    trained: dict[str, list[nn.Module]]
    cost: dict[str, int]
    epoch = 0.0  # of the student's data before the present update; set by the loop
    block = 0  # of the present update; set by the loop
    view_before_update = False  # whether `learn` uses them (A7)
    tallied = {"teach": "teach", "learn": "learn"}  # under which role an update is counted
    ramped = ("learn",)  # updates whose losses change their weights with the epoch
    irregular = ""  # why an update is not the same work each time, if it is not
    whole_batch = ""  # what needs a whole batch in one process, if something does
    stackable = False  # whether several seeds can make one update, see training/stacked.py

    def __init__(self, recipe: Recipe):
        self.recipe = recipe
        self.views: dict[str, Tensor] = {}  # the teacher's outputs from before its last update; all who share it do

    @classmethod
    def events(cls, recipe: Recipe, course: int | Course) -> Iterator[Event]:
        """When it trains whom, for so many batches an epoch."""
        return spaced_schedule(recipe.epochs, course, recipe.interval, rule=recipe.rule, tail=recipe.tail,
                               counter=recipe.counter, extra_step=recipe.extra_step, seed=recipe.seed)

    @classmethod
    def batches(cls, recipe: Recipe, batches, classes: int):
        """What its teachers learn from; `.learned(recipe)` gives what its student does."""
        return batches

    def teach(self, x: Tensor, y: Tensor) -> dict[str, Tensor] | None:
        """The teacher's loss on images x [B, C, H, W] and labels y [B]: named scalars with "loss", to be minimised, and
        "correct", the hits among the B images. None: the batch was only looked at."""
        raise NotImplementedError

    def learn(self, x: Tensor, y: Tensor) -> dict[str, Tensor] | None:
        """The student's loss, as `teach`."""
        raise NotImplementedError

    def predict(self, x: Tensor, memo: dict | None = None) -> dict[str, Tensor]:
        """Name -> logits [B, K], what is scored; the first name is the headline. memo: what other methods have got from
        a shared network on the same x."""
        raise NotImplementedError

    def adopt(self, first: Method) -> None:
        """Use another method's equal teacher, which then serves both students."""
        raise NotImplementedError

    def own_statistics(self) -> AbstractContextManager:
        """A context in which `modules` hold what a run alone would have."""
        return nullcontext()

    def before_update(self, sizes: list[int] | None) -> None:
        """sizes: how many pictures of each group the next batch has, where it has groups."""

    def recorded(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        """The terms of an update that a record tells; those with an underscore are for others who share it."""
        return {name: value for name, value in terms.items() if not name.startswith("_")}

    def grow(self) -> None:
        """Enter the next grade."""

    def before_scores(self) -> None:
        """Get ready to be scored."""

    def scored(self, split: str, outputs: dict[str, Tensor], labels: Tensor) -> dict[str, float]:
        """Scores of what `predict` gave for a whole set."""
        return named_scores(split, outputs, labels)

    def diagnose(self, x: Tensor) -> dict[str, float]:
        """Numbers for an epoch's row, from some test images."""
        return {}

    def summary(self, rows: list[dict]) -> dict[str, float]:
        """Numbers for the whole run."""
        return {}
