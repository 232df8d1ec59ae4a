"""Data frames -> tables of paired comparisons, one line an arm, a pair or a measure. No torch here.

A `frame` is from `frames.runs`, of one notebook, unless its function says otherwise.
"""

from __future__ import annotations

import math
from typing import Callable, Iterable, Mapping

import numpy as np
import pandas as pd

from ..lab.arms import audited
from ..lab.claims import late_start_minus_lead
from ..recipes import deviations_of
from ..statistics import MIN_BOOTSTRAP_N, Interval, correlation, mean_interval, paired_by_seed
from .text import ACCURACY, SD, difference_in_words

REFERENCE, DISTILLED = "baseline", ("online KD", "self KD")  # what the other arms are compared with
MEANS = {"ensemble_test_accuracy": "Ensemble (%)", "teacher_test_accuracy": "Teacher (%)",
         "best_on_val_accuracy": "Best on val (%)", "best_on_test_accuracy": "Best on test (%)",
         "teacher_updates": "Teacher updates", "student_updates": "Student updates",
         "train_gmacs": "Training GMACs"}


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """Make the table of results: one line an arm of a setting, in grid order, means over seeds.

    "Test accuracy" is that of the last epoch. "Best on val" is the test accuracy of the epoch with the best
    validation accuracy; "Best on test" takes the epoch by its test accuracy, as the released programs do, and
    is optimistic. "vs ..." columns hold paired differences in percentage points with 95% t intervals and the
    number of pairs, to the baseline and, where they exist, "online KD" and "self KD".
    """
    others = [name for name in DISTILLED if name in set(frame["arm"])]
    lines = []
    for setting, part in frame.groupby("setting", sort=False):
        for arm, of_arm in part.groupby("arm", sort=False):
            mean = mean_interval(of_arm["test_accuracy"])
            line = {"Setting": setting, "Arm": arm, "n": mean.n, ACCURACY: mean.mean, SD: mean.sd}
            for name in (REFERENCE, *others):
                alone = arm in (name, REFERENCE)  # the others are compared with the baseline already
                i = mean_interval([]) if alone else paired_by_seed(part, arm, name)
                line |= {f"vs {name} (points)": i.mean, f"vs {name}: low": i.low, f"vs {name}: high": i.high,
                         f"vs {name}: pairs": i.n}
            lines.append(line | {MEANS[name]: of_arm[name].mean() for name in MEANS if name in frame})
    table = pd.DataFrame(lines, columns=None if lines else ["Setting", "Arm", "n", ACCURACY, SD])
    counts = [name for name in ("Teacher updates", "Student updates") if name in table]
    return table.assign(**{name: table[name].round().astype(int) for name in counts})


def differences(frame: pd.DataFrame, pairs: Iterable[tuple[dict, str, str]]) -> pd.DataFrame:
    """Chosen comparisons, one a line: paired by seed, with a 95% t interval.

    Args:
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


def in_words(frame: pd.DataFrame, arm: str, other: str, column: str = "test_accuracy") -> str:
    """Say what the paired interval of arm - other shows, in points, two sentences a setting."""
    return _each_setting(frame, arm, other, column, 0, lambda i: (
        f"*{arm}* minus *{other}* is {difference_in_words(*i[:3], i.n, i.n)} points"))


def times_in_words(frame: pd.DataFrame, arm: str, other: str, column: str, label: str) -> str:
    """Say what the paired interval of the quotient arm / other shows, two sentences a setting."""
    def told(i: Interval) -> str:
        return f"*{arm}* has {quotient_in_words(i)} times the {label} of *{other}*"
    return _each_setting(frame.assign(log=np.log(frame[column])), arm, other, "log", 1, told)


def quotient_in_words(i: Interval) -> str:
    """Say an interval of logarithms as a quotient.

    >>> quotient_in_words(Interval(0.0, math.log(0.5), math.log(2), 0.3, 3, p=1.0))
    '1.00 [0.50, 2.00]'
    """
    mean, low, high = (f"{value:.2f}" for value in np.exp(i[:3]))
    return mean + f" [{low}, {high}]" * (i.n > 1)


def late_start_in_words(frame: pd.DataFrame) -> tuple[str, str]:
    """Say by how many points the late start makes more of the gain than the lead, and what becomes of the prediction.

    Args:
        frame: of one setting in notebook 05.
    """
    i = late_start_minus_lead(frame)
    told = "holds" if i.low > 0 else "is wrong" if i.high < 0 else "stays open"
    return difference_in_words(*i[:3], i.n, i.n), told


def _each_setting(frame: pd.DataFrame, arm: str, other: str, column: str, equal: int,
                  told: Callable[[Interval], str]) -> str:
    """Say of each setting what the paired interval is, and on which side of equality it lies."""
    said, where = [], ("zero", "1")[equal]
    for setting, part in frame.groupby("setting", sort=False):
        if {arm, other} <= set(part["arm"]):
            i = paired_by_seed(part, arm, other, column)
            reading = ("One pair shows nothing" if i.n < 2 else
                       "A value is missing, so nothing is shown" if i.mean != i.mean else
                       f"The interval lies above {where}" if i.low > 0 else
                       f"The interval lies below {where}" if i.high < 0 else
                       f"The interval holds {where}: no difference is shown")
            said.append(f"On {setting}, {told(i)} (n = {i.n}). {reading}.")
    return " ".join(said) or f"No pair of *{arm}* and *{other}* is published or finished here."


def audit(frame: pd.DataFrame) -> pd.DataFrame:
    """Compare each deviation of the released programs with the clean preset, in test accuracy: with minus without."""
    pairs = []
    for program, prefix in (("online KD", ""), ("self KD", "self: ")):
        for deviation in deviations_of("A"):
            pairs.append(({"Id": deviation.id, "Deviation": deviation.title, "Program": program},
                          *audited(prefix, deviation.id)))
    return differences(frame, pairs)


# Measures of finished runs, see `measures`

def paired(frame: pd.DataFrame, pairs: Iterable[tuple[str, str]], columns: Mapping[str, str],
           ratio: bool = False) -> pd.DataFrame:
    """Several measures of arms beside those of others, paired by seed: mean difference and 95% t interval.

    Args:
        pairs: arm, and the arm that it is compared with.
        columns: measure -> label.
        ratio: quotients instead of differences, by means of logarithms; the measures are positive.
    """
    lines, pairs = [], list(pairs)
    frame = frame.assign(**{name: np.log(frame[name]) for name in columns if ratio})
    for setting, part in frame.groupby("setting", sort=False):
        for pair in pairs:
            cells = {label: paired_by_seed(part, *pair, name) for name, label in columns.items()}
            if n := min(i.n for i in cells.values()):
                lines.append({"Setting": setting, "Arm": pair[0], "Beside": pair[1], "n": n, **{
                    label: "{:.2f} [{:.2f}, {:.2f}]".format(*np.exp(i[:3])) if ratio else
                    "{:+.2f} [{:.2f}, {:.2f}]".format(*i[:3]) for label, i in cells.items()}})
    return pd.DataFrame(lines, columns=["Setting", "Arm", "Beside", "n", *columns.values()])


def predicts(frame: pd.DataFrame, columns: Mapping[str, str], given: str = "") -> pd.DataFrame:
    """Correlate the logarithm of measures with test accuracy; below zero, the flatter is the better.

    Over all runs; over the arms of each seed (mean over seeds, t interval); over the seeds of each arm (mean over
    arms). All arms share their seeds, so the first and the last have the interval of a bootstrap of whole seeds, from
    ten seeds on.

    Args:
        frame: from `measured`, of one notebook; the measures are positive. Seeds that lack an arm are left out.
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


def _with_interval(x: np.ndarray, y: np.ndarray, statistic) -> str:
    """Format a statistic of [seeds, arms] with a bootstrap interval over seeds, where there are enough."""
    low = high = math.nan
    if len(x) >= MIN_BOOTSTRAP_N:
        picked = np.random.default_rng(0).integers(len(x), size=(1000, len(x)))
        low, high = np.nanquantile(statistic(x[picked], y[picked]), [0.025, 0.975])
    return _said(Interval(float(statistic(x, y)), low, high, math.nan, len(x), math.nan)) if x.size else ""


def _said(i: Interval) -> str:
    """Show a correlation with its interval, cut where no correlation can be."""
    cut = f" [{max(i.low, -1):.2f}, {min(i.high, 1):.2f}]" * bool(i.low == i.low)
    return "" if i.mean != i.mean else f"{i.mean:.2f}" + cut


def forgetting(grades: pd.DataFrame) -> pd.DataFrame:
    """Compute what each group lost from the end of its own grade to the end of the run, in points, paired by seed."""
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
