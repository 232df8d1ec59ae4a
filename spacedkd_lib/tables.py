"""Records -> data frames -> CSV and Markdown. Nothing here is typed by hand, and nothing needs torch.

`runs` and `epochs` are tidy frames for computing; `summary` is the table of results, one line an arm;
`formatted` is what people see of it.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Callable, Iterable, Iterator, Mapping

import numpy as np
import pandas as pd

from . import claims, records, study
from .deviations import DEVIATIONS
from .recipes import InputError, Recipe, nearest
from .records import Record
from .statistics import FEWEST, Interval, correlation, holm, mean_interval, paired_by_seed

KEYS = ["notebook", "setting", "arm", "seed", "run_id"]
PROVENANCE = ["dataset", "data_sha256", "device", "threads", "seconds"]
REFERENCE, DISTILLED = "baseline", ("online KD", "self KD")  # what the other arms are compared with
MATCHED = ("baseline, equal compute", "baseline, twice the epochs")
BY_SIZE = ("paper", "core", "study", "cifar100-slice", "quick")  # profiles with results, the largest first
ACCURACY, SD = "Test accuracy (%)", "sd"
MEANS = {"ensemble_test_accuracy": "Ensemble (%)", "teacher_test_accuracy": "Teacher (%)",
         "best_on_val_accuracy": "Best on val (%)", "best_on_test_accuracy": "Best on test (%)",
         "teacher_updates": "Teacher updates", "student_updates": "Student updates",
         "train_gmacs": "Training GMACs"}


COSTS = {name: MEANS[name] for name in ("teacher_updates", "student_updates", "train_gmacs")}


def _keys(row: study.Row) -> dict:
    return {"notebook": row.notebook, "setting": row.setting, "arm": row.arm, "seed": row.seed,
            "run_id": row.recipe.run_id}


REPORTS = {  # what is called a run's test accuracy: name -> of its record (A5, A22)
    "last": lambda record: record.summary["test_accuracy"],  # ours: the headline everywhere
    "best_on_val": lambda record: record.summary["best_on_val_accuracy"],
    "best_on_test": lambda record: record.summary["best_on_test_accuracy"],  # released online program
    "last_ensemble": lambda record: record.summary["ensemble_test_accuracy"],
    "best_ensemble_on_test": lambda record: max(row["ensemble_test_accuracy"] for row in record.epochs
                                                if "ensemble_test_accuracy" in row),  # released self-KD program
}


def runs(rows: list[study.Row], found: dict[str, Record], report: str = "last") -> pd.DataFrame:
    """One line for each grid row whose record exists, in grid order: its keys, all summary numbers (see
    `train.summarise`), and data set, device, threads and seconds from its provenance.

    Args:
        rows: of a grid.
        found: run id -> record.
        report: one of `REPORTS`, which becomes the column test_accuracy that all comparisons read. Runs that do not
            have it (no validation images, a single exit) are left out.

    Raises:
        InputError: an unknown report.
    """
    if report not in REPORTS:
        raise InputError(nearest("report", report, REPORTS))
    have = [(row, found[row.recipe.run_id]) for row in rows if row.recipe.run_id in found]
    numbers = list(dict.fromkeys(["test_accuracy", *(name for _, record in have for name in record.summary)]))
    lines = []
    for row, record in have:
        with suppress(KeyError, ValueError):  # ValueError: the maximum of no epoch
            reported = {"test_accuracy": REPORTS[report](record)}
            lines.append(_keys(row) | record.summary | reported
                         | {name: record.provenance.get(name) for name in PROVENANCE})
    return pd.DataFrame(lines, columns=KEYS + numbers + PROVENANCE)


def epochs(rows: list[study.Row], found: dict[str, Record]) -> pd.DataFrame:
    """One line for each epoch of each grid row whose record exists; NaN where an epoch was not evaluated."""
    lines = [_keys(row) | epoch for row in rows if row.recipe.run_id in found
             for epoch in found[row.recipe.run_id].epochs]
    names = dict.fromkeys([*KEYS, "epoch", *(name for line in lines for name in line)])
    return pd.DataFrame(lines, columns=list(names))


def summary(frame: pd.DataFrame, reference: str = REFERENCE) -> pd.DataFrame:
    """The table of results: one line an arm of a setting, in grid order, means over seeds.

    "Test accuracy" is that of the last epoch. "Best on val" is the test accuracy of the epoch with the best
    validation accuracy; "Best on test" takes the epoch by its test accuracy, as the released programs do, and
    is optimistic. "vs ..." columns hold paired differences in percentage points with 95% t intervals, the
    number of pairs, and p-values after Holm's correction; a family is all comparisons with one reference in
    one setting of one notebook.

    Args:
        frame: from `runs`.
        reference: arm that the others are compared with; all but this one are compared with "online KD" and
            "self KD" too, where they exist.
    """
    others = [name for name in DISTILLED if name != reference and name in set(frame["arm"])]
    lines = []
    for (notebook, setting), part in frame.groupby(["notebook", "setting"], sort=False):
        names = list(dict.fromkeys(part["arm"]))
        against = [_against(part, names, name, reference) for name in (reference, *others)]
        for arm in names:
            of_arm = part[part["arm"] == arm]
            mean = mean_interval(of_arm["test_accuracy"])
            line = {"Notebook": notebook, "Setting": setting, "Arm": arm, "n": mean.n, ACCURACY: mean.mean,
                    SD: mean.sd}
            for columns in against:
                line |= columns[arm]
            lines.append(line | {MEANS[name]: of_arm[name].mean() for name in MEANS if name in frame})
    table = pd.DataFrame(lines, columns=None if lines else ["Notebook", "Setting", "Arm", "n", ACCURACY, SD])
    counts = [name for name in ("Teacher updates", "Student updates") if name in table]
    table[counts] = table[counts].round().astype(int)
    return table if frame["notebook"].nunique() > 1 else table.drop(columns="Notebook")


def _against(part: pd.DataFrame, names: list[str], reference: str, first: str) -> dict[str, dict]:
    """arm -> its columns of the comparison with a reference; NaN for the reference itself, or without it, and for the
    first reference, with which the others are compared already."""
    found = {arm: paired_by_seed(part, arm, reference) for arm in names if arm not in (reference, first)}
    adjusted = dict(zip(found, holm([interval.p for interval in found.values()])))
    columns = {}
    for arm in names:
        i = found.get(arm, mean_interval([]))
        columns[arm] = {f"vs {reference} (points)": i.mean, f"vs {reference}: low": i.low,
                        f"vs {reference}: high": i.high, f"vs {reference}: pairs": i.n,
                        f"vs {reference}: p (Holm)": adjusted.get(arm, math.nan)}
    return columns


def differences(frame: pd.DataFrame, pairs: Iterable[tuple[dict, str, str]]) -> pd.DataFrame:
    """Chosen comparisons, one a line: paired by seed, a 95% t interval, p after Holm's correction over the lines of a
    setting.

    Args:
        frame: from `runs`, of one notebook.
        pairs: columns that name the line, the arm, and the arm that is subtracted; in each setting that has both.
    """
    lines, pairs = [], list(pairs)
    for setting, part in frame.groupby("setting", sort=False):
        there = set(part["arm"])
        found = [(names, paired_by_seed(part, arm, other)) for names, arm, other in pairs if {arm, other} <= there]
        for (names, i), p in zip(found, holm([i.p for _, i in found])):
            lines.append([setting, *names.values(), i.n, i.mean, i.low, i.high, i.n, p])
    return pd.DataFrame(lines, columns=["Setting", *(pairs[0][0] if pairs else []), "n", "Difference (points)", *(
        f"Difference: {part}" for part in ("low", "high", "pairs", "p (Holm)"))])


def against_controls(frame: pd.DataFrame, arm: str, controls: Iterable[str]) -> pd.DataFrame:
    """An arm minus each of its controls, beside what each control costs in a run.

    Args:
        frame: from `runs`, of one notebook.
    """
    table = differences(frame, [({"Control": control}, arm, control) for control in controls])
    if table.empty:
        return table
    cost = frame.groupby(["setting", "arm"])[["test_accuracy", *COSTS]].mean()
    for name, shown in {"test_accuracy": "Its accuracy (%)", **COSTS}.items():
        values = [cost.loc[(line.Setting, line.Control), name] for line in table.itertuples()]
        table[shown] = [round(value) for value in values] if name.endswith("updates") else values
    return table


def audit(frame: pd.DataFrame) -> pd.DataFrame:
    """What each deviation of the released programs is worth in test accuracy: with it minus without it, all else as in
    the clean preset, and all else as in the released one. Online and self KD are a family of comparisons each.

    Args:
        frame: from `runs`, of 09_released_code_audit.
    """
    parts = []
    for program in ("", "self: "):
        pairs = []
        for id, deviation in DEVIATIONS.items():
            at = ", s=0" if id == "A7" else ""
            names = {"Id": id, "Deviation": deviation.title, "Program": "self KD" if program else "online KD"}
            pairs += [(names | {"Within": "clean"}, f"{program}clean + {id}{at}", f"{program}clean{at}"),
                      (names | {"Within": "released"}, f"{program}released{at}", f"{program}released - {id}{at}")]
        parts.append(differences(frame, pairs))
    return pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)


# Measures of finished runs (`measures`)

def measured(frame: pd.DataFrame, found: dict[str, dict]) -> pd.DataFrame:
    """The runs of a frame that were measured, with each single number of a measure as a column.

    Args:
        frame: from `runs`.
        found: run id -> name -> array, as from `notebook.Session.measures`.
    """
    lines = [{"run_id": run_id, **{name: float(value) for name, value in values.items() if value.ndim == 0}}
             for run_id, values in found.items()]
    return frame.merge(pd.DataFrame(lines, columns=lines[0] if lines else ["run_id"]), on="run_id")


def conditions(frame: pd.DataFrame, found: dict[str, dict]) -> pd.DataFrame:
    """One line for each run and condition under which it was scored (measure "robustness"): the run's keys, then kind,
    name, severity, radius, accuracy, nll, ece and agreement."""
    lines = [{**run, **{name: values[name][i] for name in values}}
             for run in frame[KEYS].to_dict("records") if (values := found.get(run["run_id"]))
             for i in range(len(values["kind"]))]
    return pd.DataFrame(lines)


def paired(frame: pd.DataFrame, pairs: Iterable[tuple[str, str]], columns: Mapping[str, str],
           ratio: bool = False) -> pd.DataFrame:
    """Several measures of arms beside those of others, paired by seed: mean difference and 95% t interval, with a star
    where p < 0.05 after Holm's correction over the cells of a setting.

    Args:
        frame: a line a run, with setting, arm, seed and the measures; of one notebook.
        pairs: arm, and the arm that it is compared with.
        columns: measure -> label.
        ratio: quotients instead of differences, by means of logarithms; the measures are positive.
    """
    lines, pairs = [], list(pairs)
    for setting, part in frame.groupby("setting", sort=False):
        part = part.assign(**{name: np.log(part[name]) for name in columns if ratio})
        found = {(*pair, label): paired_by_seed(part, *pair, name) for pair in pairs for name, label in columns.items()}
        adjusted = dict(zip(found, holm([i.p for i in found.values()])))
        for pair in pairs:
            cells = {label: found[*pair, label] for label in columns.values()}
            if n := min(i.n for i in cells.values()):
                lines.append({"Setting": setting, "Arm": pair[0], "Beside": pair[1], "n": n, **{
                    label: ("{:.2f} [{:.2f}, {:.2f}]" if ratio else "{:+.2f} [{:.2f}, {:.2f}]").format(
                        *(np.exp(i[:3]) if ratio else i[:3])) + "*" * (adjusted[*pair, label] < 0.05)
                    for label, i in cells.items()}})
    return pd.DataFrame(lines, columns=["Setting", "Arm", "Beside", "n", *columns.values()])


def predicts(frame: pd.DataFrame, columns: Mapping[str, str], given: str = "") -> pd.DataFrame:
    """Does a measure predict test accuracy? Correlations of its logarithm with it; below zero, the flatter is the
    better. Over all runs; over the arms of each seed (mean over seeds, t interval); over the seeds of each arm (mean
    over arms). All arms share their seeds, so the first and the last have the interval of a bootstrap of whole seeds,
    from ten seeds on.

    Args:
        frame: from `measured`, of one notebook; the measures are positive. Seeds that lack an arm are left out.
        columns: measure -> label.
        given: a measure; then also the partial correlation over the arms of a seed at equal values of it.
    """
    lines = []
    for setting, part in frame.groupby("setting", sort=False):
        needed = list({"test_accuracy", *columns, given} - {""})
        wide = part.pivot(index="seed", columns="arm", values=needed).dropna()
        y, z = (np.array(wide[name]) for name in ("test_accuracy", given or "test_accuracy"))  # [seeds, arms]
        for name, label in columns.items():
            x = np.log(np.array(wide[name]))
            line = {"Setting": setting, "Measure": label, "Seeds": len(x),
                    "r, all runs": _with_interval(x, y, _all_runs),
                    "r over the arms of a seed": _said(mean_interval(_finite(correlation(x, y)))),
                    "r over the seeds of an arm": _with_interval(x, y, _over_seeds)}
            if given:
                xy, xz, yz = correlation(x, y), correlation(x, np.log(z)), correlation(y, np.log(z))
                with np.errstate(invalid="ignore", divide="ignore"):
                    partial = (xy - xz * yz) / np.sqrt((1 - xz ** 2) * (1 - yz ** 2))
                line[f"given {columns[given].lower()}"] = _said(mean_interval(_finite(partial))) * (name != given)
            lines.append(line)
    return pd.DataFrame(lines)


def _finite(values: np.ndarray) -> np.ndarray:
    return values[np.isfinite(values)]


def _all_runs(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Correlation over all runs of [..., seeds, arms]."""
    return correlation(x.reshape(*x.shape[:-2], -1), y.reshape(*y.shape[:-2], -1))


def _over_seeds(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Mean over arms of the correlation over seeds, of [..., seeds, arms]."""
    found = correlation(x.swapaxes(-1, -2), y.swapaxes(-1, -2))
    there = np.isfinite(found)
    with np.errstate(invalid="ignore"):
        return np.where(there, found, 0).sum(axis=-1) / there.sum(axis=-1)


def _with_interval(x: np.ndarray, y: np.ndarray, statistic, repeats: int = 1000) -> str:
    """A statistic of [seeds, arms] with a bootstrap interval over seeds, where there are enough."""
    low = high = math.nan
    if len(x) >= FEWEST:
        picked = np.random.default_rng(0).integers(len(x), size=(repeats, len(x)))
        low, high = np.nanquantile(statistic(x[picked], y[picked]), [0.025, 0.975])
    return _said(Interval(float(statistic(x, y)), low, high, math.nan, len(x), math.nan)) if x.size else ""


def _said(i: Interval) -> str:
    return "" if i.mean != i.mean else f"{i.mean:.2f}" + f" [{i.low:.2f}, {i.high:.2f}]" * bool(i.low == i.low)


# Grades of Education Distillation, and all methods side by side

def by_grade(frame: pd.DataFrame) -> pd.DataFrame:
    """Test accuracy of each group of classes at the end of each grade from its own on: a line a run, grade and group,
    of the runs whose student grows; in percent.

    Args:
        frame: from `runs`.
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


def forgetting(grades: pd.DataFrame) -> pd.DataFrame:
    """What each group lost from the end of its own grade to the end of the run, in points, paired by seed; Holm's
    correction over the lines of a setting.

    Args:
        grades: from `by_grade`.
    """
    lines = []
    for setting, runs in grades.groupby("setting", sort=False):
        here = []
        for (arm, k), part in runs.groupby(["arm", "group"], sort=False):
            wide = part.pivot(index="seed", columns="grade", values="accuracy")
            own, end = wide[k], wide[wide.columns.max()]
            if k < wide.columns.max():
                here.append(([setting, arm, k, len(own), own.mean(), end.mean()], mean_interval(own - end)))
        for (line, i), p in zip(here, holm([i.p for _, i in here])):
            lines.append([*line, i.mean, i.low, i.high, i.n, p])
    return pd.DataFrame(lines, columns=["Setting", "Arm", "Group", "n", "After its grade (%)", "At the end (%)", *(
        f"Forgotten{part}" for part in (" (points)", ": low", ": high", ": pairs", ": p (Holm)"))])


SIDE_BY_SIDE = {  # notebook -> its methods, without their intervals
    "05_spaced_kd": ("baseline", "offline KD", "online KD", "spaced KD"),
    "04_self_kd": ("baseline", "self KD", "spaced self KD"),
    "10_ie_kd": ("baseline", "DML", "spaced DML", "offline IE-KD", "IE-KD", "spaced IE-KD"),
    "11_education_distillation": ("baseline", "offline ED", "online ED", "spaced ED", "offline ED, equal images",
                                  "spaced ED, equal images")}


def side_by_side(rows: list[study.Row], found: dict[str, Record],
                 size: Callable[[Recipe], object] | None = None) -> pd.DataFrame:
    """All methods with and without spacing: accuracy, updates, cost. Of several intervals the one nearest to
    `study.CONTROL_INTERVAL`; methods without records are left out.

    Args:
        rows: of a grid, of all notebooks.
        found: run id -> record.
        size: of the network that is used after training, from its recipe; a column "Parameters".
    """
    chosen: dict[tuple, dict[str, Record]] = {}  # a run that several notebooks need is one line, of the first
    usual: dict[tuple, int] = {}  # the baseline's updates, which are the same for all its seeds
    for row in _side_by_side_rows(rows, found):
        record = found[row.recipe.run_id]
        chosen.setdefault((row.setting, row.arm, _seedless(row.recipe)), {})[row.recipe.run_id] = (row.notebook, record)
        if row.arm == REFERENCE:
            usual[row.setting, row.notebook] = record.summary["student_updates"]
    lines, place = [], {setting: k for k, setting in enumerate(dict.fromkeys(row.setting for row in rows))}
    for (setting, arm, _), runs_of in sorted(chosen.items(), key=lambda item: place[item[0][0]]):
        (notebook, first), summaries = next(iter(runs_of.values())), [record.summary for _, record in runs_of.values()]
        accuracy = mean_interval([summary["test_accuracy"] for summary in summaries])
        costs = {shown: np.mean([summary[name] for summary in summaries]) for name, shown in COSTS.items()}
        lines.append({"Setting": setting, "Network": _network(first.recipe), "Method": arm,
                      "Epochs": first.recipe.epochs, "n": accuracy.n, ACCURACY: accuracy.mean, SD: accuracy.sd}
                     | {name: round(value) if "updates" in name else value for name, value in costs.items()}
                     | ({"Parameters": size(first.recipe)} if size else {})
                     | {"Note": _updates_in_words(first, usual.get((setting, notebook)))})
    return pd.DataFrame(lines)


def _network(recipe: Recipe) -> str:
    return recipe.model + (f", width {recipe.width}" if recipe.width else "")


def _updates_in_words(record: Record, usual: int | None) -> str:
    if record.recipe.method == "self_kd":
        return "teacher and student are one network, which makes both kinds of update"
    if not usual:
        return "no baseline to count against"
    ratio = record.summary["student_updates"] / usual
    return "" if abs(ratio - 1) < 0.005 else f"student updates: {ratio:.2f} times the baseline's"


def absent(rows: list[study.Row], found: dict[str, Record]) -> Iterator[str]:
    """A sentence for each setting whose methods of `side_by_side` have no records."""
    for setting in dict.fromkeys(row.setting for row in rows):
        here = [row for row in rows if row.setting == setting]
        planned = {(row.notebook, _plain(row.arm)) for row in here}
        wanted = dict.fromkeys(arm for notebook, arms in SIDE_BY_SIDE.items() for arm in arms
                               if (notebook, arm) in planned)
        there = {_plain(row.arm) for row in _side_by_side_rows(here, found)}
        if missing := [arm for arm in wanted if arm not in there]:
            yield f"{setting}: no finished runs of {', '.join(missing)}."


def _plain(arm: str) -> str:
    return re.sub(r" s=[\d.]+$", "", arm)


def _side_by_side_rows(rows: list[study.Row], found: dict[str, Record]) -> Iterator[study.Row]:
    """The rows with records, notebook by notebook, method by method."""
    for notebook, methods in SIDE_BY_SIDE.items():
        for method in methods:
            here = [row for row in rows if row.notebook == notebook and _plain(row.arm) == method
                    and row.recipe.run_id in found]
            nearest_to = {setting: min((row.recipe.interval for row in here if row.setting == setting),
                                       key=lambda s: abs(s - study.CONTROL_INTERVAL))
                          for setting in {row.setting for row in here}}
            yield from (row for row in here if row.recipe.interval == nearest_to[row.setting])


# For people

def formatted(table: pd.DataFrame) -> pd.DataFrame:
    """A table as text: "71.20 ± 0.74" for a mean with its sd over seeds, "+1.54 [0.80, 2.28] p=0.012" for a
    paired difference, its interval and Holm's p; empty for NaN. What is text already comes back as it is."""
    shown, consumed = {}, set()
    for name in table:
        stem = name.removesuffix(" (points)")
        if name == ACCURACY and SD in table:
            consumed.add(SD)
            shown[f"{name} ± sd"] = [f"{mean:.2f}" + (f" ± {sd:.2f}" if sd == sd else "")
                                     for mean, sd in zip(table[name], table[SD])]
        elif f"{stem}: low" in table:
            parts = [f"{stem}: {part}" for part in ("low", "high", "pairs", "p (Holm)")]
            consumed.update(parts)
            columns = [table[part] for part in (name, *parts, "n")]
            shown[f"{stem} [95% t], Holm p"] = [_difference(*cells) for cells in zip(*columns)]
        elif name not in consumed:
            shown[name] = [_text(value) for value in table[name]]
    return pd.DataFrame(shown, index=table.index, dtype=object)


def _text(value) -> str:
    if isinstance(value, float):
        return "" if value != value else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.2f}"
    return f"{value:,}" if type(value) is int else "" if value is None else str(value)


def _points(x: float, sign: str = "") -> str:
    return f"{round(x, 2) + 0.0:{sign}.2f}"  # adding zero turns -0.00 into 0.00


def _difference(mean: float, low: float, high: float, pairs: int, p: float, n: int) -> str:
    if pairs < 2:
        return f"{_points(mean, '+')} (one pair)" if pairs else ""
    chance = "" if p != p else " p<0.001" if p < 0.001 else f" p={p:.3f}"
    text = f"{_points(mean, '+')} [{_points(low)}, {_points(high)}]{chance}"
    return text + f" ({pairs} pairs)" * (pairs != n)


def verdict(interval: Interval, adjusted: float = math.nan) -> str:
    """What a paired difference in percentage points says, and no more.

    Args:
        interval: of the difference.
        adjusted: its p-value after Holm's correction; NaN if it is the only comparison.

    >>> verdict(Interval(1.54, 0.80, 2.28, 0.6, 5, 0.005))
    'higher by 1.54 points [0.80, 2.28], n = 5'
    >>> verdict(Interval(-0.2, -1.1, 0.7, 0.7, 5, 0.57))
    'no difference shown: -0.20 points [-1.10, 0.70], n = 5'
    >>> verdict(Interval(1.6, 0.4, 2.9, 1.0, 5, 0.035), adjusted=0.14)
    'no difference shown after correction (Holm p = 0.140): +1.60 points [0.40, 2.90], n = 5'
    """
    mean, low, high, _, n, _ = interval
    if n == 0 or mean != mean:
        return "not measured"
    if n == 1:
        return f"one seed shows nothing: {_points(mean, '+')} points, n = 1"
    if low == high == 0:
        return f"no difference: equal in every seed, n = {n}"
    if (low > 0 or high < 0) and adjusted >= 0.05:
        return (f"no difference shown after correction (Holm p = {adjusted:.3f}): {_points(mean, '+')} points "
                f"[{_points(low)}, {_points(high)}], n = {n}")
    if low > 0:
        return f"higher by {_points(mean)} points [{_points(low)}, {_points(high)}], n = {n}"
    if high < 0:
        return f"lower by {_points(-mean)} points [{_points(-high)}, {_points(-low)}], n = {n}"
    return f"no difference shown: {_points(mean, '+')} points [{_points(low)}, {_points(high)}], n = {n}"


def verdicts(frame: pd.DataFrame, reference: str, among: str = "") -> Iterator[str]:
    """One line for each arm whose name begins with `among`, against a reference arm of its setting; Holm's family
    is the lines of a setting.

    Args:
        frame: from `runs`, of one notebook.
        reference: name of an arm; a setting without it gives no line.
    """
    for setting, part in frame.groupby("setting", sort=False):
        names = [arm for arm in part["arm"].unique() if arm.startswith(among) and arm != reference]
        if reference not in set(part["arm"]):
            continue
        intervals = [paired_by_seed(part, arm, reference) for arm in names]
        for arm, interval, p in zip(names, intervals, holm([interval.p for interval in intervals])):
            yield f"{setting}: {arm} against {reference}: {verdict(interval, p)}"


def sentences(table: pd.DataFrame) -> Iterator[str]:
    """One line for each line of a table of `differences`: what names it, and its `verdict`."""
    for line in table.to_dict("records"):
        values = {name.removeprefix("Difference"): line.pop(name) for name in list(line) if "Difference" in name}
        interval = Interval(values[" (points)"], values[": low"], values[": high"], math.nan, line.pop("n"), math.nan)
        yield ": ".join([*map(str, line.values()), verdict(interval, values[": p (Holm)"])])


# Files

def write(table: pd.DataFrame, path: Path) -> None:
    """Keep a table as CSV, with every digit.

    Raises:
        InputError: the folder cannot be written to.
    """
    records.write_atomically(path, table.to_csv(index=False, lineterminator="\n"))


def markdown(table: pd.DataFrame) -> str:
    """A table in GitHub's Markdown, columns padded so that its source is legible too."""
    shown = formatted(table)
    numeric = [all(re.match(r"[-+]?\d|$", cell) for cell in shown[name]) for name in shown]
    lines = [list(shown.columns), *shown.values.tolist()]
    lines = [[cell.replace("|", r"\|") for cell in line] for line in lines]
    widths = [max(3, *map(len, column)) for column in zip(*lines)]
    lines.insert(1, ["-" * (w - 1) + ":" if right else "-" * w for w, right in zip(widths, numeric)])
    padded = ([cell.rjust(w) if right else cell.ljust(w) for cell, w, right in zip(line, widths, numeric)]
              for line in lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in padded)


# This machine's records, and the published ones

def local_records(rows: Iterable[study.Row]) -> dict[str, Record]:
    """Run id -> finished local record of these rows."""
    found = {recipe.run_id: records.load(recipe) for recipe in study.unique(rows)}
    return {run_id: record for run_id, record in found.items() if record}


def published_profiles() -> list[str]:
    """Profiles with published records, the largest first."""
    return [name for name in BY_SIZE if records.published_file(name).exists()]


def write_runs(rows: list[study.Row], found: dict[str, Record], folder: Path) -> None:
    """All records of a profile as runs.csv, a line a run; epochs and times stay in the records. Notebooks 06 and 07
    measure runs of 05, which are not told again."""
    rows = [row for row in rows if row.notebook not in study.MEASURING]
    write(runs(rows, found).drop(columns="seconds").drop_duplicates(), folder / "runs.csv")


def compare(rows: list[study.Row], local: dict[str, Record], published: dict[str, Record]) -> pd.DataFrame:
    """This machine's numbers beside the published ones: a line for each setting and arm.

    "bit for bit": every epoch of every local run equals the published one. "within the interval": the mean
    paired difference to the baseline (for the baseline its mean) lies in the published 95% t interval;
    "differs": it does not, which independent runs do by chance in one line of eight at n = 5. All published
    seeds count, however few are run here.
    """
    references = {(r.notebook, r.setting): _seedless(r.recipe) for r in rows if r.arm == REFERENCE}
    groups: dict[tuple, list[str]] = {}  # a run that several notebooks need is one line
    for row in rows:
        groups.setdefault((row.setting, row.arm, _seedless(row.recipe)), []).append(row.notebook)
    here, there = _by_seed(local.values()), _by_seed(published.values())
    lines = []
    for (setting, arm, key), notebooks in groups.items():
        reference = references.get((notebooks[0], setting), key)
        lines.append({"Notebooks": " ".join(dict.fromkeys(name[:2] for name in notebooks)),
                      "Setting": setting, "Arm": arm, "Here (%)": _accuracy(here.get(key)),
                      "Published (%)": _accuracy(there.get(key)),
                      "Agreement": _agreement(here, there, key, reference)})
    return pd.DataFrame(lines)


def compare_claims(rows: list[study.Row], local: dict[str, Record], published: dict[str, Record]) -> pd.DataFrame:
    """The claims that both this machine's runs and the published ones judge, in words. "Verdicts": "the same"; "one is
    inconclusive"; "contradict" (supported and refuted)."""
    here, there = (claims.judged(runs(rows, found)) for found in (local, published))
    lines = []
    for _, line in here.merge(there, on=["Claim", "Statement", "Setting"], suffixes=(None, " there")).iterrows():
        verdicts = {line["Result"], line["Result there"]}
        agreement = ("the same" if len(verdicts) == 1 else "one is inconclusive" if "inconclusive" in verdicts else
                     "contradict")
        lines.append({name: line[name] for name in ("Claim", "Statement", "Setting")} | {
            "Here": claims.say(line), "Published": claims.say(line, " there"), "Verdicts": agreement})
    return pd.DataFrame(lines, columns=["Claim", "Statement", "Setting", "Here", "Published", "Verdicts"])


def certificate(local: dict[str, Record], published: dict[str, Record]) -> str:
    """How many of the published runs this machine repeated to the last bit, and what excuses the others."""
    both = sorted(local.keys() & published.keys())
    hashes = [{run: _bits(found[run]) for run in both} for found in (local, published)]
    equal = [run for run in both if hashes[0][run] == hashes[1][run]]
    digest = hashlib.sha256("".join(hashes[0][run] for run in both).encode()).hexdigest()
    said = (f"{len(equal)} of {len(published)} records equal the published ones, hash by hash: the numbers of every epoch "
            f"and the final weights. SHA-256 of the hashes here: {digest}.")
    if len(equal) == len(both):
        return said
    torches = [{found[run].provenance["torch"] for run in both} for found in (local, published)]
    if torches[0] != torches[1]:
        said += (f" Bits are promised for one version of torch, which is {', '.join(sorted(torches[0]))} here and "
                 f"{', '.join(sorted(torches[1]))} there.")
    if inexact := sum(not found[run].provenance.get("exact") for found in (local, published) for run in both):
        said += f" {inexact} of these records, here and there, were made without the caps of exact.py."
    return said + " The tables compare the numbers instead."


def _bits(record: Record) -> str:
    """A hash of what equal runs have in common: numbers without times, and weights."""
    numbers = json.dumps([record.numbers(), record.provenance.get("weights_sha256")], sort_keys=True)
    return hashlib.sha256(numbers.encode()).hexdigest()


def comparison(local: dict[str, Record], published: dict[str, Record], accuracies: pd.DataFrame,
               verdicts: pd.DataFrame) -> str:
    """The `certificate`, and what `compare` and `compare_claims` found, as a page in Markdown."""
    both = sorted(local.keys() & published.keys())
    here, there = (hardware_and_versions(found[run].provenance for run in both) for found in (local, published))
    return (f"# Numbers of two machines\n\n{certificate(local, published)}\n\nHere: {here}.\nPublished: {there}.\n\n"
            '"Within the interval": the mean paired difference to the baseline (its mean where it is one, or its '
            'notebook has none) lies in the published 95% t interval; "differs": it does not, which independent runs do '
            f"by chance in one line of eight at n = 5.\n\n{markdown(accuracies)}\n{markdown(verdicts)}")


def _seedless(recipe: Recipe) -> str:
    return replace(recipe, seed=0).run_id


def _by_seed(found: Iterable[Record]) -> dict[str, dict[int, Record]]:
    """Recipe but for its seed -> seed -> record."""
    by_recipe: dict[str, dict[int, Record]] = {}
    for record in found:
        by_recipe.setdefault(_seedless(record.recipe), {})[record.recipe.seed] = record
    return by_recipe


def _accuracy(by_seed: dict[int, Record] | None) -> str:
    if not by_seed:
        return ""
    i = mean_interval([record.summary["test_accuracy"] for record in by_seed.values()])
    return f"{i.mean:.2f} (n = {i.n})"


def _agreement(here: dict, there: dict, key: str, reference: str) -> str:
    mine, theirs = here.get(key, {}), there.get(key, {})
    if not mine or not theirs:
        return "not published" if mine else "not run"
    if all(seed in theirs and mine[seed].numbers() == theirs[seed].numbers() for seed in mine):
        return "bit for bit"
    new, old = _gain(here, key, reference), _gain(there, key, reference)
    if old.n < 2 or new.n < 1:
        return "too few seeds to say"
    return "within the interval" if old.low <= new.mean <= old.high else "differs"


def _gain(found: dict[str, dict[int, Record]], key: str, reference: str) -> Interval:
    """Paired difference of one recipe to another; the mean where the two are one."""
    values, base = ({seed: record.summary["test_accuracy"] for seed, record in found.get(k, {}).items()}
                    for k in (key, reference))
    both = sorted(set(values) & set(base))
    return mean_interval([values[seed] - (base[seed] if key != reference else 0) for seed in both])


# What README.md and results/README.md show

START, END = "<!-- results:start -->", "<!-- results:end -->"
HEADLINE = ("P1", "P2", "P3", "P6", "P7", "Q1", "Q10", "T1", "T2", "T4")  # claims that the README shows
RULE = (f"Supported: a gain is shown (two-sided, 5%). Refuted: a gain of {claims.SMALLEST:g} points or more is "
        "excluded (one-sided, 5%). Inconclusive: neither. Then the difference in points, paired by seed, and its 95% "
        "t interval. Verdicts are after Holm's correction, intervals are not, so one that excludes zero may still be "
        "inconclusive.")
LEGEND = ("P: claims of the paper; Q: questions to it; X: added after first results, so exploring; O: claims of the "
          "papers of IE-KD, mutual learning and Education Distillation; S: questions to spacing these; T: claims of "
          "the paper on transformers; U: questions to their idle updates; F: claims of the released follow-up on "
          f"dropout and EMA; N: questions to these. {RULE} The correction is over the claims of one letter in one "
          "setting, not over settings, and settings on the same letters share seeds. What was known when: "
          "spacedkd_lib/claims.py.")


def readme_block(profiles: Iterable[str]) -> str:
    """The claims of HEADLINE in all settings of published profiles, in Markdown, and what their numbers come from.
    Empty if none of them has published records."""
    parts, sources = [], []
    for name in _shown(profiles):
        judged, used = _judged(name, records.read_published(name), HEADLINE)
        if used:
            parts.append(judged)
            sources.append(f"{_said_of(name)}: {hardware_and_versions(r.provenance for r in used)}.")
    return f"{RULE}\n\n{markdown(claims.matrix(pd.concat(parts)))}\n{' '.join(sources)}\n" if parts else ""


def results_block(profiles: Iterable[str]) -> str:
    """All claims, and the measured table of each published profile, with what its numbers come from; links start in
    results/. Empty if no profile has published records."""
    parts = list(filter(None, map(_results_of, _shown(profiles))))
    return "\n".join([LEGEND + "\n", *parts]) if parts else ""


def _shown(profiles: Iterable[str]) -> list[str]:
    """Of quick only what study, the same data at length, does not show better."""
    names = list(profiles)
    return [name for name in names if name != "quick" or "study" not in names]


def _said_of(name: str) -> str:
    return f"Profile {name}, {study.profile(name).seeds} seeds"


def _judged(name: str, published: dict[str, Record], ids: Iterable[str] | None = None
            ) -> tuple[pd.DataFrame, list[Record]]:
    """The claims of a published profile, all or those of some ids, and the records that judge them."""
    judged = claims.judged(runs(study.grid(name), published))
    judged = judged if ids is None else judged[judged["Claim"].isin(ids)]
    return judged, [published[run] for run in dict.fromkeys(" ".join(judged["Runs"]).split())]


def _results_of(name: str) -> str:
    published, parts = records.read_published(name), []
    judged, used = _judged(name, published)
    used = {record.run_id: record for record in used}
    for setting in study.profile(name).settings:
        for notebook, distilled in zip(("05_spaced_kd", "04_self_kd"), DISTILLED):
            rows = [row for row in study.grid(name, notebook)
                    if row.setting == setting.label and row.recipe.run_id in published]
            if rows:
                parts.append(_results_part(rows, published, distilled))
                used |= {row.recipe.run_id: published[row.recipe.run_id] for row in rows}
    if not used:
        return ""
    table = markdown(pd.concat(parts).drop_duplicates(["Data", "Network", "Method"])) if parts else ""
    claimed = "" if judged.empty else markdown(claims.matrix(judged)) + "\n"
    return f"### {_said_of(name)}\n\n{claimed}{table}\n{_sources(name, used.values())}"


def _results_part(rows: list[study.Row], published: dict[str, Record], distilled: str) -> pd.DataFrame:
    """The arms that the paper compares: no distillation, none ahead, and the teacher ahead by its recommended 1.5
    epochs (self KD: every interval); and the baseline of equal cost. Intervals alone: verdicts are those of the
    claims."""
    rows = [row for row in rows if row.arm in MATCHED or row.arm not in study.CONTROLS]
    table, recipe = summary(runs(rows, published)), rows[0].recipe
    shown = formatted(table.assign(**{name: math.nan for name in table if name.endswith("p (Holm)")}))
    epochs = {row.arm: row.recipe.epochs for row in rows}  # matched baselines train longer
    shown = shown[[arm in (REFERENCE, *DISTILLED, "spaced KD s=1.5", "offline KD", *MATCHED)
                   or arm.startswith("spaced self KD") for arm in shown["Arm"]]]
    against = shown.get(f"vs {distilled} [95% t], Holm p", pd.Series("", shown.index))
    return pd.DataFrame({"Data": shown["Setting"], "Epochs": shown["Arm"].map(epochs), "Method": shown["Arm"],
                         "n": shown["n"], "Network": _network(recipe),
                         f"{ACCURACY} ± sd": shown[f"{ACCURACY} ± sd"],
                         f"vs {REFERENCE}": shown[f"vs {REFERENCE} [95% t], Holm p"],
                         "vs online or self KD": against})


def hardware_and_versions(provenance: Iterable[dict]) -> str:
    """Hardware, versions and commit of some records, every distinct one of each."""
    of = list(provenance)

    def each(say) -> str:
        return ", ".join(dict.fromkeys(map(say, of)))
    hardware = each(lambda p: p["device_name"] + f" (TF32: {p.get('tf32')}; updates: {p.get('engine')})"
                    if p["device"] == "cuda" else f"{p['cpu']}, {p['threads']} thread a run")
    changed = {True: " with changes", False: "", None: " (changes unknown)"}
    commit = each(lambda p: p["git_commit"][:8] + changed[p["git_dirty"]] if p["git_commit"] else "unknown")
    return f"{hardware}; torch {each(lambda p: p['torch'])}, Python {each(lambda p: p['python'])}; commit {commit}"


def _sources(name: str, used: Iterable[Record]) -> str:
    """What the numbers of a table mean, and where they come from."""
    of = [record.provenance for record in used]
    data = ", ".join(dict.fromkeys(f"{p['dataset']} {p['data_sha256'][:12]}" for p in of))
    tables = f"{name}/tables"
    return (f"Profile {name}: last epoch, n seeds; paired differences in percentage points and their 95% t intervals. "
            f"{hardware_and_versions(of)}; data SHA-256: {data}."
            + f" All arms and what qualifies them: [tables]({tables})."
            * (records.ROOT / "results" / tables).exists() + "\n")


def update_readme(path: Path, block: Callable[[Iterable[str]], str]) -> None:
    """Set what stands between the two result marks of a file to what `block` says of the published profiles.

    Raises:
        InputError: there is no such file, or it lacks a mark.
    """
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not end:
        raise InputError(f"{path.name} lacks the marks {START} and {END}: put both where the results belong.")
    said = block(published_profiles()) or "No results are published yet.\n"
    records.write_atomically(path, f"{before}{start}\n\n{said}\n{end}{after}")
