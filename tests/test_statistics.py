"""Intervals against SciPy, closed forms and a simulation."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from spacedkd_lib.recipes import InputError
from spacedkd_lib.statistics import Interval, holm, mean_interval, paired_by_seed, paired_difference

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("n", [2, 3, 5, 10])
@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_mean_interval_equals_scipy(n, level):
    values = RNG.normal(1, 2, n)
    got, test = mean_interval(values, level), stats.ttest_1samp(values, 0.0)
    wanted = test.confidence_interval(level)
    sd = values.std(ddof=1)
    assert got == pytest.approx(Interval(values.mean(), wanted.low, wanted.high, sd, n, test.pvalue))


def test_paired_difference_equals_scipy():
    treatment, control = RNG.normal(71, 1, 6), RNG.normal(70, 1, 6)
    got, test = paired_difference(treatment, control), stats.ttest_rel(treatment, control)
    wanted = test.confidence_interval(0.95)
    assert got[:3] == pytest.approx((treatment.mean() - control.mean(), wanted.low, wanted.high))
    assert got.p == pytest.approx(test.pvalue) and got.n == 6
    back = paired_difference(control, treatment)
    assert (back.mean, back.low, back.high) == pytest.approx((-got.mean, -got.high, -got.low))


def test_two_values_have_a_closed_form():
    """With one degree of freedom t is a Cauchy variable: its 97.5% point is tan(0.475 pi)."""
    got = mean_interval([1.0, 3.0])
    half = math.tan(0.475 * math.pi)  # sd / sqrt(n) = 1
    assert got[:5] == pytest.approx((2, 2 - half, 2 + half, math.sqrt(2), 2))
    assert got.p == pytest.approx(1 - 2 * math.atan(2) / math.pi)


def test_too_few_seeds_never_crash():
    none, one = mean_interval([]), paired_difference([71.5], [70.0])
    assert none.n == 0 and all(math.isnan(x) for x in (none.mean, none.low, none.high, none.sd, none.p))
    assert (one.mean, one.n) == (1.5, 1) and all(math.isnan(x) for x in (one.low, one.high, one.sd, one.p))


def test_equal_differences():
    assert paired_difference([70.1, 71.3, 69.9], [70.1, 71.3, 69.9]) == Interval(0, 0, 0, 0, 3, 1)
    same = pytest.approx(0.1)
    assert mean_interval([0.1] * 3) == Interval(same, same, same, 0, 3, 0)


def test_a_missing_number_is_not_hidden():
    assert math.isnan(mean_interval([1.0, math.nan, 2.0]).mean)


def test_bad_input_is_refused():
    with pytest.raises(InputError, match="2 and 3 values cannot be paired"):
        paired_difference([1, 2], [1, 2, 3])
    for level in (0, 1, 95, math.nan):
        with pytest.raises(InputError, match="out of range"):
            mean_interval([1, 2], level)


def test_coverage_at_five_seeds():
    """The t interval holds the true difference in 95% of experiments; a normal one would in 88%."""
    rng = np.random.default_rng(1)
    seeds = rng.normal(70, 3, (4000, 5))  # what a seed does to both arms falls out of the difference
    treatment, control = seeds + rng.normal(1.2, 0.7, seeds.shape), seeds + rng.normal(0, 0.7, seeds.shape)
    found = [paired_difference(t, c) for t, c in zip(treatment, control)]
    coverage = np.mean([i.low <= 1.2 <= i.high for i in found])
    assert 0.93 < coverage < 0.97
    too_short = np.mean([abs(i.mean - 1.2) <= 1.96 * i.sd / math.sqrt(5) for i in found])
    assert too_short < 0.90


def test_paired_by_seed_uses_the_seeds_that_both_have():
    frame = pd.DataFrame({"arm": ["a"] * 3 + ["b"] * 3, "seed": [0, 1, 2, 3, 2, 1],
                          "test_accuracy": [9.0, 2.0, 3.0, 9.0, 1.0, 1.0]})
    got = paired_by_seed(frame, "a", "b")
    assert (got.mean, got.n) == (1.5, 2)
    assert paired_by_seed(frame, "a", "absent").n == 0


def test_holm_closed_forms():
    assert holm([0.01, 0.01, 0.01]) == pytest.approx([0.03, 0.03, 0.03])
    assert holm([0.04, 0.001, 0.03, 0.5]) == pytest.approx([0.09, 0.004, 0.09, 0.5])
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02] and holm([]) == []
    got = holm([0.03, math.nan, 0.02])
    assert math.isnan(got[1]) and got[::2] == pytest.approx([0.04, 0.04])


def test_holm_keeps_the_family_error():
    """Without any true difference, a family of four rejects anything in at most 5% of experiments."""
    p = np.random.default_rng(2).uniform(size=(4000, 4))
    assert np.mean([min(holm(row)) < 0.05 for row in p]) < 0.06 < np.mean(p.min(axis=1) < 0.05)
