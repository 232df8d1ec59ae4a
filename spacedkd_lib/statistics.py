"""Differences between arms, paired by seed: Student t intervals, Holm's correction, power. No torch here.

Arms of one seed share initial weights and data order, so arms are compared seed by seed. A bootstrap's 95% percentile
interval of a mean of normal values covers about 75% at n = 3, 84% at n = 5 and 90% at n = 10. It is refused below ten.
Student's interval is right from n = 2 (`coverage`) and serves means at any n. A Wilcoxon test cannot go below
p = 0.0625 at n = 5, so it is not used.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from typing import Callable, NamedTuple, Sequence

import numpy as np
from scipy.special import nctdtr, stdtr, stdtrit  # Student's t; importing scipy.stats takes three times as long

from .errors import InputError

LEVEL = 0.95  # ours: coverage of every interval unless said otherwise
MIN_BOOTSTRAP_N, MAX_SEEDS = 10, 10_000  # ours: values for a bootstrap (see above); seeds that may be needed


class Interval(NamedTuple):
    """A mean over seeds with its confidence interval, standard deviation and p-value.

    mean, low, high, sd: in the unit of the values; low and high are NaN at n = 1, everything but n at n = 0.
    n: values, one a seed. p: two-sided p-value of Student's test that the mean is zero.
    """

    mean: float
    low: float
    high: float
    sd: float
    n: int
    p: float


def mean_interval(values: Sequence[float], level: float = LEVEL) -> Interval:
    """Compute the mean of independent values with its Student t interval.

    Equal values have sd 0. Then the interval is one point, and p is 1 for zeros, else 0: the limits of the formula.

    Args:
        values: one number a seed; may be empty.
        level: coverage of the interval, in (0, 1).

    Raises:
        InputError: level out of range.

    >>> "{:.2f} [{:.2f}, {:.2f}]".format(*mean_interval([1.0, 2.0, 3.0]))
    '2.00 [-0.48, 4.48]'
    """
    _check_shares(level=level)
    x = np.asarray(values, dtype=float)
    n, nan = x.size, math.nan
    if n < 2:
        return Interval(float(x[0]) if n else nan, nan, nan, nan, n, nan)
    mean, sd = float(x.mean()), float(x.std(ddof=1)) if np.ptp(x) else 0.0  # no rounding noise in a 0
    error = sd / math.sqrt(n)
    half = float(stdtrit(n - 1, (1 + level) / 2)) * error
    p = 2 * float(stdtr(n - 1, -abs(mean) / error)) if error else float(mean == 0)
    return Interval(mean, mean - half, mean + half, sd, n, p)


def paired_interval(treatment: Sequence[float], control: Sequence[float], level: float = LEVEL) -> Interval:
    """Compute the mean of treatment - control over pairs, with its Student t interval.

    Args:
        treatment, control: one number a seed each, in the same order of seeds.
        level: coverage of the interval.

    Raises:
        InputError: unequal numbers of values, or level out of range.
    """
    if np.ndim(treatment) != 1 or np.shape(treatment) != np.shape(control):
        raise InputError(f"Values of shapes {np.shape(treatment)} and {np.shape(control)} cannot be paired: give one "
                         "number of each for every seed, in the same order.")
    return mean_interval(np.asarray(treatment, dtype=float) - np.asarray(control, dtype=float), level)


def correlation(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Compute Pearson's correlation along the last axis, [...]; NaN where one side does not vary.

    >>> round(float(correlation([1, 2, 3, 5], [2, 1, 4, 5])), 2)
    0.86
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    still = (x == x[..., :1]).all(axis=-1) | (y == y[..., :1]).all(axis=-1)  # their mean may differ by rounding
    x, y = (v - v.mean(axis=-1, keepdims=True) for v in (x, y))
    with np.errstate(invalid="ignore", divide="ignore"):
        found = (x * y).sum(axis=-1) / np.sqrt((x ** 2).sum(axis=-1) * (y ** 2).sum(axis=-1))
    return np.where(still, math.nan, found)[()]


def paired_by_seed(frame, arm: str, reference: str, column: str = "test_accuracy", level: float = LEVEL) -> Interval:
    """Compute the paired difference arm - reference over the seeds that both have.

    Args:
        frame: as from `tables.runs`, of one setting in one notebook.
        column: the number to compare.

    Raises:
        InputError: two runs of one arm and seed; or one run of a seed was trained on a CPU, the other on a GPU.
    """
    one, other = (frame[frame["arm"] == name].set_index("seed") for name in (arm, reference))
    for name, runs in ((arm, one), (reference, other)):
        if not runs.index.is_unique:
            raise InputError(f"Seed {runs.index[runs.index.duplicated()][0]} of {name} stands there more than once: "
                             "give the runs of one setting in one notebook.")
    both = sorted(set(one.index) & set(other.index))
    if "device" in frame and frame["device"].nunique() > 1:
        _check_devices(one.loc[both], other.loc[both])
    return paired_interval(one[column][both], other[column][both], level)


def _check_devices(one, other) -> None:
    """Refuse pairs of two devices: a device's effect would count as the arm's."""
    for a, b in zip(one.itertuples(), other.itertuples()):
        if a.device != b.device:
            raise InputError(f"Seed {a.Index} of {a.arm} (run {a.run_id}) was trained on {a.device} and that of "
                             f"{b.arm} (run {b.run_id}) on {b.device}, which is no pair: delete one of them from runs/ "
                             "and run it again on the other's device; CUDA_VISIBLE_DEVICES= hides a GPU.")


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values in the order given: the k-th smallest of m times m - k + 1, monotone, at most 1.

    NaN stands for a test that could not be made: it stays NaN and does not count in the family.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted, highest = [math.nan] * len(p_values), 0.0
    made = sorted((p, i) for i, p in enumerate(p_values) if not math.isnan(p))
    for rank, (p, i) in enumerate(made):
        highest = max(highest, min((len(made) - rank) * p, 1.0))
        adjusted[i] = highest
    return adjusted


def power(effect: float, sd: float, n: int, level: float = LEVEL) -> float:
    """Compute the power of the two-sided paired t test: the chance of p < 1 - level.

    As in `mean_interval`, n < 2 never rejects; at sd 0 every effect but 0 is found.

    Args:
        effect, sd: true mean and standard deviation of the paired differences, same unit; finite, else InputError.
        n: pairs.

    >>> [round(power(1.0, 1.0, n), 2) for n in (1, 2, 5, 10)]
    [0.0, 0.09, 0.4, 0.8]
    """
    _check_shares(level=level)
    if not (math.isfinite(effect) and 0 <= sd < math.inf):
        raise InputError(f"effect = {effect!r} with sd = {sd!r} has no power: give finite numbers, sd at least 0.")
    if n < 2 or sd == 0:
        return float(n >= 2 and effect != 0)
    shift, critical = abs(effect) / sd * math.sqrt(n), float(stdtrit(n - 1, (1 + level) / 2))
    accepted, wrong_side = np.nan_to_num(nctdtr(n - 1, shift, [critical, -critical]))  # SciPy: NaN where < 1e-16
    return float(np.clip(1 - accepted + wrong_side, 0, 1))


def seeds_needed(effect: float, sd: float, chance: float = 0.8, level: float = LEVEL) -> int | float:
    """Return the smallest n, at least 2, whose `power` is `chance` (0.8: Cohen's convention).

    The result is math.inf above `MAX_SEEDS`, as for effect 0. Other arguments and errors are those of `power`.

    >>> seeds_needed(1.0, sd=1.0), seeds_needed(0.5, sd=1.0, chance=0.9), seeds_needed(0.0, sd=1.0)
    (10, 44, inf)
    """
    _check_shares(chance=chance)
    n = bisect_left(range(MAX_SEEDS + 1), chance, key=lambda n: power(effect, sd, n, level))
    return n if n <= MAX_SEEDS else math.inf


def coverage(n: int, level: float = LEVEL, draws: int = 20_000,
             sample: Callable = np.random.Generator.standard_normal, seed: int = 0) -> float:
    """Simulate the share of data sets whose Student interval covers the true mean: `level` if assumptions hold.

    Args:
        n: values in a data set, at least 2; else InputError.
        draws: data sets (20 000, ours: the share is right to 0.003).
        sample: (generator, shape) -> values with true mean 0.

    >>> round(coverage(5), 2), round(coverage(5, sample=lambda rng, shape: rng.exponential(size=shape) - 1), 2)
    (0.95, 0.88)
    """
    _check_shares(level=level)
    if n < 2:
        raise InputError(f"n = {n!r} gives no interval: give at least 2.")
    x = np.asarray(sample(np.random.default_rng(seed), (draws, n)), dtype=float)
    half = stdtrit(n - 1, (1 + level) / 2) * x.std(axis=1, ddof=1) / math.sqrt(n)
    return float(np.mean(np.abs(x.mean(axis=1)) <= half))


def _check_shares(**given: float) -> None:
    for name, value in given.items():
        if not 0 < value < 1:
            raise InputError(f"{name} = {value!r} is out of range: give a number between 0 and 1, such as 0.95.")
