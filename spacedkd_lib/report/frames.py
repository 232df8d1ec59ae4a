"""Records -> tidy data frames: a line a run, an epoch, a condition or a grade. No torch here.

A `frame` is from `runs`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Iterable

import pandas as pd

from ..lab import claims, grids, profiles
from ..store import records
from ..store.records import Record
from .text import write

KEYS = ["notebook", "setting", "arm", "seed", "run_id"]
OF_ARM = ["family", "interval"]  # see `arms.Arm`; epochs
PROVENANCE = ["dataset", "data_sha256", "device", "threads", "seconds"]
BY_SIZE = ("paper", "core", "study", "cifar100-slice", "quick")  # profiles with results, the largest first


def _keys(row: grids.Row) -> dict:
    values = row.notebook, row.setting, row.arm, row.seed, row.recipe.run_id, row.family, row.recipe.interval
    return dict(zip(KEYS + OF_ARM, values))


def runs(rows: list[grids.Row], found: dict[str, Record]) -> pd.DataFrame:
    """Return one line for each grid row whose record exists, in grid order.

    It has the row's keys, all summary numbers (see `train.summarise`), data set, device, threads and seconds from its
    provenance, and family and interval of its arm. found: run id -> record.
    """
    have = [(row, found[row.recipe.run_id]) for row in rows if row.recipe.run_id in found]
    numbers = list(dict.fromkeys(["test_accuracy", *(name for _, record in have for name in record.summary)]))
    lines = [_keys(row) | record.summary | {name: record.provenance.get(name) for name in PROVENANCE}
             for row, record in have]
    return pd.DataFrame(lines, columns=KEYS + numbers + PROVENANCE + OF_ARM)


def epochs(rows: list[grids.Row], found: dict[str, Record]) -> pd.DataFrame:
    """Return one line for each epoch of each grid row whose record exists; NaN where an epoch was not evaluated."""
    lines = [_keys(row) | epoch for row in rows if row.recipe.run_id in found
             for epoch in found[row.recipe.run_id].epochs]
    names = dict.fromkeys([*KEYS, *OF_ARM, "epoch", *(name for line in lines for name in line)])
    return pd.DataFrame(lines, columns=list(names))


def measured(frame: pd.DataFrame, found: dict[str, dict]) -> pd.DataFrame:
    """Return the runs of a frame that were measured, with each single number of a measure as a column.

    found: run id -> name -> array, as from `notebook.Session.measures`.
    """
    lines = [{"run_id": run_id, **{name: float(value) for name, value in values.items() if value.ndim == 0}}
             for run_id, values in found.items()]
    return frame.merge(pd.DataFrame(lines, columns=lines[0] if lines else ["run_id"]), on="run_id")


def conditions(frame: pd.DataFrame, found: dict[str, dict]) -> pd.DataFrame:
    """Return one line for each run and condition under which it was scored (measure "robustness").

    Columns: the run's keys, then kind, name, severity, radius, accuracy, nll, ece and agreement.
    """
    lines = [{**run, **{name: values[name][i] for name in values}}
             for run in frame[KEYS].to_dict("records") if (values := found.get(run["run_id"]))
             for i in range(len(values["kind"]))]
    return pd.DataFrame(lines)


def by_grade(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the test accuracy of each group of classes at the end of each grade from its own on, in percent.

    There is a line a run, grade and group, of the runs whose student grows.
    """
    pattern, lines = re.compile(r"grade(\d+)_test_group(\d+)_accuracy"), []
    columns = {name: tuple(map(int, found.groups())) for name in frame if (found := pattern.fullmatch(name))}
    for run in frame.to_dict("records"):
        cells = {place: run[name] for name, place in columns.items() if run[name] == run[name]}
        if cells:
            last = max(grade for grade, _ in cells) + 1
            cells |= {(last, k): run[f"test_group{k}_accuracy"] for k in range(1, last + 1)}
        lines += [[*(run[key] for key in ("setting", "arm", "seed")), grade, k, accuracy]
                  for (grade, k), accuracy in sorted(cells.items()) if k <= grade]
    return pd.DataFrame(lines, columns=["setting", "arm", "seed", "grade", "group", "accuracy"])


# This machine's records, and the published ones

def local_records(rows: Iterable[grids.Row]) -> dict[str, Record]:
    """Run id -> finished local record of these rows."""
    found = {recipe.run_id: records.load(recipe) for recipe in grids.unique(rows)}
    return {run_id: record for run_id, record in found.items() if record}


def published_profiles() -> list[str]:
    """Profiles with published records, the largest first."""
    return [name for name in BY_SIZE if records.published_file(name).exists()]


def published(names: Iterable[str],
              notebook: str | None = None) -> dict[str, tuple[list[grids.Row], dict[str, Record]]]:
    """Return the published runs of these profiles: name -> grid rows, and run id -> record.

    A notebook shows its miniature, quick, until study has all the arms of it; what is judged is always shown.
    notebook: None for all.
    """
    found = {name: records.read_published(name) for name in names}
    rows = {name: [row for row in grids.tuned_grid(name, notebook) if row.recipe.run_id in found[name]]
            for name in found}
    if {"study", "quick"} <= rows.keys():
        there = {_arm(row) for row in rows["study"]}
        lacking = {row.notebook for row in rows["quick"] if _arm(row) not in there}
        rows["quick"] = [row for row in rows["quick"] if row.notebook in lacking]
        rows["study"] = [row for row in rows["study"] if row.notebook not in lacking - {"05_spaced_kd"}]
    return {name: (of, {row.recipe.run_id: found[name][row.recipe.run_id] for row in of})
            for name, of in rows.items() if of}


def _arm(row: grids.Row) -> tuple[str, str, bool]:
    return row.notebook, row.arm, row.setting == claims.LAG_SETTING  # which has a baseline of its own


def write_runs(rows: list[grids.Row], found: dict[str, Record], folder: Path) -> None:
    """Write all records of a profile as runs.csv, a line a run; epochs and times stay in the records.

    Notebooks 06 and 07 measure runs of 05, which are not told again.
    """
    rows = [row for row in rows if row.notebook not in profiles.MEASURING]
    write(runs(rows, found).drop(columns=["seconds", *OF_ARM]).drop_duplicates(), folder / "runs.csv")
