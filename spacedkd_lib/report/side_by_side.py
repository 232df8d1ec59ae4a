"""All methods with and without spacing, side by side: accuracy, updates, cost. No torch here."""

from __future__ import annotations

from typing import Callable, Iterator

import pandas as pd

from ..lab import grids
from ..lab.arms import CONTROL_INTERVAL
from ..recipes import Recipe, one_network
from ..statistics import mean_interval
from ..store.records import Record
from .comparisons import MEANS, REFERENCE
from .frames import runs
from .text import ACCURACY, SD

COSTS = {name: MEANS[name] for name in ("teacher_updates", "student_updates", "train_gmacs")}
SIDE_BY_SIDE = {  # notebook -> families of its arms
    "05_spaced_kd": ("baseline", "offline KD", "online KD", "spaced KD"),
    "04_self_kd": ("baseline", "self KD", "spaced self KD"),
    "10_ie_kd": ("baseline", "DML", "spaced DML", "offline IE-KD", "IE-KD", "spaced IE-KD"),
    "11_education_distillation": ("baseline", "offline ED", "online ED", "spaced ED")}


def side_by_side(rows: list[grids.Row], found: dict[str, Record], size: Callable[[Recipe], object]) -> pd.DataFrame:
    """Set all methods with and without spacing side by side: accuracy, updates, cost.

    Of several intervals the one nearest to `arms.CONTROL_INTERVAL`; methods without records are left out.

    Args:
        rows: of a grid, of all notebooks.
        found: run id -> record.
        size: of the network that is used after training, from its recipe; a column "Parameters".
    """
    frame = _chosen(runs(rows, found))
    if frame.empty:
        return pd.DataFrame()
    usual = frame[frame["arm"] == REFERENCE].groupby(["setting", "notebook"])["student_updates"].first()
    recipes, lines = {row.recipe.run_id: row.recipe for row in rows}, []
    once = frame.drop_duplicates(["setting", "run_id"])  # a run that several notebooks need
    for setting in dict.fromkeys(row.setting for row in rows):
        for (notebook, arm), part in once[once["setting"] == setting].groupby(["notebook", "arm"], sort=False):
            recipe, accuracy = recipes[part["run_id"].iloc[0]], mean_interval(part["test_accuracy"])
            costs = {label: part[name].mean() for name, label in COSTS.items()}
            lines.append({"Setting": setting, "Network": network(recipe), "Method": arm,
                          "Epochs": recipe.epochs, "n": accuracy.n, ACCURACY: accuracy.mean, SD: accuracy.sd}
                         | {label: round(value) if "updates" in label else value for label, value in costs.items()}
                         | {"Parameters": size(recipe),
                            "Note": _note(recipe, part["student_updates"].iloc[0], usual.get((setting, notebook)))})
    return pd.DataFrame(lines)


def _chosen(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the runs of `SIDE_BY_SIDE`, notebook by notebook, family by family."""
    parts = []
    for notebook, families in SIDE_BY_SIDE.items():
        for family in families:
            part = frame[(frame["notebook"] == notebook) & (frame["family"] == family)]
            apart = (part["interval"] - CONTROL_INTERVAL).abs()
            parts.append(part[apart == apart.groupby(part["setting"]).transform("min")])
    return pd.concat(parts)


def network(recipe: Recipe) -> str:
    """Name a recipe's network in words."""
    return recipe.model + (f", width {recipe.width}" if recipe.width else "")


def _note(recipe: Recipe, updates: int, usual: int | None) -> str:
    """Say what qualifies a method's number of student updates."""
    if one_network(recipe):
        return "teacher and student are one network, which makes both kinds of update"
    if not usual:
        return "no baseline to count against"
    ratio = updates / usual
    return "" if abs(ratio - 1) < 0.005 else f"student updates: {ratio:.2f} times the baseline's"


def absent(rows: list[grids.Row], found: dict[str, Record]) -> Iterator[str]:
    """Yield a sentence for each setting whose methods of `side_by_side` have no records."""
    for setting in dict.fromkeys(row.setting for row in rows):
        here = [row for row in rows if row.setting == setting]
        planned, there = {(row.notebook, row.family) for row in here}, set(_chosen(runs(here, found))["family"])
        missing = dict.fromkeys(family for notebook, families in SIDE_BY_SIDE.items() for family in families
                                if (notebook, family) in planned and family not in there)
        if missing:
            yield f"{setting}: no finished runs of {', '.join(missing)}."
