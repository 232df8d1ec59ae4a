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

from ..errors import InputError, nearest
from ..lab import claims, study
from ..lab.arms import CONTROL_INTERVAL
from ..recipes import Recipe, deviations_of
from ..statistics import FEWEST, Interval, correlation, mean_interval, paired_by_seed
from ..store import records
from ..store.records import Record

KEYS = ["notebook", "setting", "arm", "seed", "run_id"]
PROVENANCE = ["dataset", "data_sha256", "device", "threads", "seconds"]
REFERENCE, DISTILLED = "baseline", ("online KD", "self KD")  # what the other arms are compared with
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
    is optimistic. "vs ..." columns hold paired differences in percentage points with 95% t intervals and the
    number of pairs.

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
    columns = {}
    for arm in names:
        alone = arm in (reference, first) or reference not in names
        i = mean_interval([]) if alone else paired_by_seed(part, arm, reference)
        columns[arm] = {f"vs {reference} (points)": i.mean, f"vs {reference}: low": i.low,
                        f"vs {reference}: high": i.high, f"vs {reference}: pairs": i.n}
    return columns


def differences(frame: pd.DataFrame, pairs: Iterable[tuple[dict, str, str]]) -> pd.DataFrame:
    """Chosen comparisons, one a line: paired by seed, with a 95% t interval.

    Args:
        frame: from `runs`, of one notebook.
        pairs: columns that name the line, the arm, and the arm that is subtracted; in each setting that has both.
    """
    lines, pairs = [], list(pairs)
    for setting, part in frame.groupby("setting", sort=False):
        there = set(part["arm"])
        for names, arm, other in pairs:
            if {arm, other} <= there:
                i = paired_by_seed(part, arm, other)
                lines.append([setting, *names.values(), i.n, i.mean, i.low, i.high, i.n])
    return pd.DataFrame(lines, columns=["Setting", *(pairs[0][0] if pairs else []), "n", "Difference (points)", *(
        f"Difference: {part}" for part in ("low", "high", "pairs"))])


def audit(frame: pd.DataFrame) -> pd.DataFrame:
    """What each deviation of the released programs is worth in test accuracy: with it minus without it, all else as in
    the clean preset.

    Args:
        frame: from `runs`, of 09_released_code_audit.
    """
    pairs = []
    for program, prefix in (("online KD", ""), ("self KD", "self: ")):
        for deviation in deviations_of("A"):
            id = deviation.id
            at = ", s=0" if id == "A7" else ""
            pairs.append(({"Id": id, "Deviation": deviation.title, "Program": program},
                          f"{prefix}clean + {id}{at}", f"{prefix}clean{at}"))
    return differences(frame, pairs)


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
    """Several measures of arms beside those of others, paired by seed: mean difference and 95% t interval.

    Args:
        frame: a line a run, with setting, arm, seed and the measures; of one notebook.
        pairs: arm, and the arm that it is compared with.
        columns: measure -> label.
        ratio: quotients instead of differences, by means of logarithms; the measures are positive.
    """
    lines, pairs = [], list(pairs)
    for setting, part in frame.groupby("setting", sort=False):
        part = part.assign(**{name: np.log(part[name]) for name in columns if ratio})
        for pair in pairs:
            cells = {label: paired_by_seed(part, *pair, name) for name, label in columns.items()}
            if n := min(i.n for i in cells.values()):
                lines.append({"Setting": setting, "Arm": pair[0], "Beside": pair[1], "n": n, **{
                    label: "{:.2f} [{:.2f}, {:.2f}]".format(*np.exp(i[:3])) if ratio else
                    "{:+.2f} [{:.2f}, {:.2f}]".format(*i[:3]) for label, i in cells.items()}})
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
    """What each group lost from the end of its own grade to the end of the run, in points, paired by seed.

    Args:
        grades: from `by_grade`.
    """
    lines = []
    for setting, runs in grades.groupby("setting", sort=False):
        for (arm, k), part in runs.groupby(["arm", "group"], sort=False):
            wide = part.pivot(index="seed", columns="grade", values="accuracy")
            own, end = wide[k], wide[wide.columns.max()]
            if k < wide.columns.max():
                i = mean_interval(own - end)
                lines.append([setting, arm, k, i.n, own.mean(), end.mean(), i.mean, i.low, i.high, i.n])
    return pd.DataFrame(lines, columns=["Setting", "Arm", "Group", "n", "After its grade (%)", "At the end (%)", *(
        f"Forgotten{part}" for part in (" (points)", ": low", ": high", ": pairs"))])


SIDE_BY_SIDE = {  # notebook -> its methods, without their intervals
    "05_spaced_kd": ("baseline", "offline KD", "online KD", "spaced KD"),
    "04_self_kd": ("baseline", "self KD", "spaced self KD"),
    "10_ie_kd": ("baseline", "DML", "spaced DML", "offline IE-KD", "IE-KD", "spaced IE-KD"),
    "11_education_distillation": ("baseline", "offline ED", "online ED", "spaced ED")}


def side_by_side(rows: list[study.Row], found: dict[str, Record],
                 size: Callable[[Recipe], object] | None = None) -> pd.DataFrame:
    """All methods with and without spacing: accuracy, updates, cost. Of several intervals the one nearest to
    `arms.CONTROL_INTERVAL`; methods without records are left out.

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
                                       key=lambda s: abs(s - CONTROL_INTERVAL))
                          for setting in {row.setting for row in here}}
            yield from (row for row in here if row.recipe.interval == nearest_to[row.setting])


# For people

def formatted(table: pd.DataFrame) -> pd.DataFrame:
    """A table as text: "71.20 ± 0.74" for a mean with its sd over seeds, "+1.54 [0.80, 2.28]" for a paired difference
    and its interval; empty for NaN. What is text already comes back as it is."""
    shown, consumed = {}, set()
    interval = "corrected" if "Level (%)" in table else "95% t"
    for name in table:
        stem = name.removesuffix(" (points)")
        if name == ACCURACY and SD in table:
            consumed.add(SD)
            shown[f"{name} ± sd"] = [f"{mean:.2f}" + (f" ± {sd:.2f}" if sd == sd else "")
                                     for mean, sd in zip(table[name], table[SD])]
        elif f"{stem}: low" in table:
            parts = [f"{stem}: low", f"{stem}: high", f"{stem}: pairs"]
            consumed.update(parts)
            columns = [table.get(part, table["n"]) for part in (name, *parts, "n")]
            shown[f"{stem} [{interval}]"] = [_difference(*cells) for cells in zip(*columns)]
        elif name not in consumed:
            shown[name] = [_chance(value) if name.startswith("p (") else _text(value) for value in table[name]]
    return pd.DataFrame(shown, index=table.index, dtype=object)


def _chance(p: float | str) -> str:
    return p if isinstance(p, str) else "" if p != p else "<0.001" if p < 0.001 else f"{p:.3f}"


def _text(value) -> str:
    if isinstance(value, float):
        return "" if value != value else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.2f}"
    return f"{value:,}" if type(value) is int else "" if value is None else str(value)


def _points(x: float, sign: str = "") -> str:
    return f"{round(x, 2) + 0.0:{sign}.2f}"  # adding zero turns -0.00 into 0.00


def _difference(mean: float, low: float, high: float, pairs: int, n: int) -> str:
    if pairs < 2:
        return f"{_points(mean, '+')} (one pair)" if pairs else ""
    return f"{_points(mean, '+')} [{_points(low)}, {_points(high)}]" + f" ({pairs} pairs)" * (pairs != n)


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


def comparison(local: dict[str, Record], published: dict[str, Record], accuracies: pd.DataFrame) -> str:
    """The `certificate`, and what `compare` found, as a page in Markdown."""
    both = sorted(local.keys() & published.keys())
    here, there = (hardware_and_versions(found[run].provenance for run in both) for found in (local, published))
    return (f"# Numbers of two machines\n\n{certificate(local, published)}\n\nHere: {here}.\nPublished: {there}.\n\n"
            '"Within the interval": the mean paired difference to the baseline (its mean where it is one, or its '
            'notebook has none) lies in the published 95% t interval; "differs": it does not, which independent runs '
            f"do by chance in one line of eight at n = 5.\n\n{markdown(accuracies)}")


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
NOTHING = "No results are published yet.\n"
RULE = (f"A claim is supported if its interval lies above zero, refuted if it lies below {claims.MIN_EFFECT:g} points, "
        "and inconclusive otherwise. Intervals and verdicts are corrected over the three claims of a setting. "
        "Differences are in points of test accuracy, paired by seed.\n")
PAPER = (  # method, largest gain on Tiny-ImageNet in points, recommended s in epochs; and the arms here
    ("online KD", 2.31, 1.5, "spaced KD s=", "online KD, asked before"),  # as the released program asks
    ("self KD", 3.34, 4.0, "spaced self KD s=", "self KD"))
NEAREST = ("tiny-imagenet", "cifar100", "glyphs", "digits")  # data sets, by how near they are to the paper's
READ = ("Of the paper we read the abstract, the README and the programs, not the full text. Ours is the published "
        "setting nearest to its data, with a 95% interval over seeds. Online KD asks its teacher as the released "
        "program does.\n")


def readme_block(profiles: Iterable[str]) -> str:
    """What is public of the paper beside ours, the primary family, and what the numbers come from, in Markdown."""
    shown = list(_published(profiles))
    if not shown:
        return NOTHING
    frame = pd.concat([frame for *_, frame in shown])
    parts, judged = [READ, markdown(paper_and_ours(frame))], claims.judged(frame)
    if len(judged):
        parts += [RULE, markdown(claims.matrix(judged))]
    sources = [f"Profile {name}, {len(found):,} runs: {hardware_and_versions(r.provenance for r in found.values())}."
               for name, found, _ in shown]
    return "\n".join([*parts, " ".join(sources) + "\n"])


def results_block(profiles: Iterable[str]) -> str:
    """The primary family, the lead-lag law, and each published profile's arms of notebooks 05 and 04 with what their
    numbers come from; links start in results/."""
    shown = list(_published(profiles))
    if not shown:
        return NOTHING
    frame, parts = pd.concat([frame for *_, frame in shown]), []
    judged, predicted = claims.judged(frame), claims.predictions(frame)
    if len(judged):
        parts += ["### The primary family\n", RULE, markdown(judged.drop(columns=["Arm", "Against", "Runs"]))]
    if len(predicted):
        parts += ["### The lead-lag law\n", markdown(predicted), markdown(claims.score(predicted))]
    for name, found, _ in shown:
        parts += [f"### Profile {name}\n", _arms(name, found), _sources(name, found.values())]
    return "\n".join(filter(None, parts))


def _published(profiles: Iterable[str]) -> Iterator[tuple[str, dict[str, Record], pd.DataFrame]]:
    """Each profile with its published records and their runs; of quick only what study, the same data at length, does
    not show better."""
    names = list(profiles)
    for name in names:
        found = records.read_published(name) if name != "quick" or "study" not in names else {}
        if found:
            yield name, found, runs(study.grid(name), found)


def paper_and_ours(frame: pd.DataFrame) -> pd.DataFrame:
    """The paper's gains by spacing beside those of our setting that is nearest to its data; of several intervals the
    one nearest to its recommendation. Empty where nothing was run.

    Args:
        frame: from `runs`.
    """
    lines = []
    for method, gain, s, spaced, plain in PAPER:
        ours = _nearest_gain(frame, spaced, plain, s)
        lines.append({"Gain of spacing over": method, "Paper, Tiny-ImageNet (points)": f"up to {gain}",
                      "Its s (epochs)": f"{s:g}", **dict(zip(("Ours (points)", "n", "Our s (epochs)", "Data"), ours))})
    return pd.DataFrame(lines)


def _nearest_gain(frame: pd.DataFrame, spaced: str, plain: str, s: float) -> tuple[str, str, str, str]:
    """Difference, pairs, interval and setting."""
    ahead = frame[frame["arm"].str.startswith(spaced) & frame["notebook"].isin(("04_self_kd", "05_spaced_kd"))]
    for dataset in NEAREST:
        for setting, part in ahead[ahead["dataset"] == dataset].groupby("setting", sort=False):
            arm = min(part["arm"].unique(), key=lambda arm: abs(float(arm.removeprefix(spaced)) - s))
            own = frame[(frame["setting"] == setting) & (frame["notebook"] == part["notebook"].iloc[0])]
            i = paired_by_seed(own, arm, plain)
            if i.n:
                return _difference(*i[:3], i.n, i.n), str(i.n), arm.removeprefix(spaced), setting
    return "", "", "", ""


def _arms(name: str, published: dict[str, Record]) -> str:
    """Every published arm of notebooks 05 and 04, in Markdown."""
    parts = []
    for notebook, distilled in zip(("05_spaced_kd", "04_self_kd"), DISTILLED):
        if rows := [row for row in study.grid(name, notebook) if row.recipe.run_id in published]:
            of = {(row.setting, row.arm): row.recipe for row in rows}
            shown = formatted(summary(runs(rows, published)))
            recipes = [of[key] for key in zip(shown["Setting"], shown["Arm"])]
            parts.append(pd.DataFrame({
                "Data": shown["Setting"], "Network": [_network(recipe) for recipe in recipes],
                "Epochs": [recipe.epochs for recipe in recipes], "Method": shown["Arm"], "n": shown["n"],
                f"{ACCURACY} ± sd": shown[f"{ACCURACY} ± sd"],
                f"vs {REFERENCE}": shown[f"vs {REFERENCE} [95% t]"],
                "vs online or self KD": shown.get(f"vs {distilled} [95% t]", "")}))
    return markdown(pd.concat(parts).drop_duplicates(["Data", "Network", "Method"])) if parts else ""


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
    return ("Last epoch, n seeds; paired differences in points and their 95% t intervals. "
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
    records.write_atomically(path, f"{before}{start}\n\n{block(published_profiles())}\n{end}{after}")
