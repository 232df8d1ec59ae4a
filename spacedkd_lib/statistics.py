"""Differences between arms, paired by seed: Student t intervals, and Holm's correction for families of them.

Same seed means same initial weights and same data order in every arm, so arms are compared seed by seed.
Bootstrap intervals cover only about 70% at n = 3 and 84% at n = 5, and a Wilcoxon test cannot go below p =
0.0625 at n = 5: neither is used. No torch here.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Sequence

import numpy as np
from scipy.special import stdtr, stdtrit  # Student's t; importing scipy.stats takes three times as long

from .recipes import InputError

LEVEL = 0.95  # ours: coverage of every interval unless said otherwise


class Interval(NamedTuple):
    """A mean over seeds and what is known about it.

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
    """Mean of independent values with its Student t interval.

    Equal values have sd 0, so the interval is one point, and p is 1 for zeros and 0 for anything else: the
    limits of Student's formula.

    Args:
        values: one number a seed, at least none.
        level: coverage of the interval, in (0, 1).

    Raises:
        InputError: level out of range.

    >>> "{:.2f} [{:.2f}, {:.2f}]".format(*mean_interval([1.0, 2.0, 3.0]))
    '2.00 [-0.48, 4.48]'
    """
    if not 0 < level < 1:
        raise InputError(f"level = {level!r} is out of range: give a number between 0 and 1, such as 0.95.")
    x = np.asarray(values, dtype=float)
    n, nan = x.size, math.nan
    if n < 2:
        return Interval(float(x[0]) if n else nan, nan, nan, nan, n, nan)
    mean, sd = float(x.mean()), float(x.std(ddof=1)) if np.ptp(x) else 0.0  # no rounding noise in a 0
    error = sd / math.sqrt(n)
    half = float(stdtrit(n - 1, (1 + level) / 2)) * error
    p = 2 * float(stdtr(n - 1, -abs(mean) / error)) if error else float(mean == 0)
    return Interval(mean, mean - half, mean + half, sd, n, p)


def paired_difference(treatment: Sequence[float], control: Sequence[float], level: float = LEVEL) -> Interval:
    """Mean of treatment - control, paired.

    Args:
        treatment, control: one number a seed each, in the same order of seeds.
        level: coverage of the interval.

    Raises:
        InputError: unequal numbers of values, or level out of range.
    """
    if len(treatment) != len(control):
        raise InputError(f"{len(treatment)} and {len(control)} values cannot be paired: give one of each for "
                         "every seed, in the same order.")
    return mean_interval(np.asarray(treatment, dtype=float) - np.asarray(control, dtype=float), level)


def paired_by_seed(frame, arm: str, reference: str, column: str = "test_accuracy") -> Interval:
    """Paired difference arm - reference over the seeds that both have.

    Args:
        frame: as from `tables.runs`, of one setting in one notebook.
        column: the number that is compared.
    """
    one, other = (frame[frame["arm"] == name].set_index("seed")[column] for name in (arm, reference))
    both = sorted(set(one.index) & set(other.index))
    return paired_difference(one[both], other[both])


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given: the k-th smallest of m times m - k + 1, made monotone, at
    most 1.

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
