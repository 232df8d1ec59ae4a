"""Intervals against SciPy, closed forms and a simulation."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from spacedkd_lib.errors import InputError
from spacedkd_lib.statistics import (
    MAX_SEEDS, Interval, correlation, coverage, holm, mean_interval, paired_by_seed, paired_interval, power, seeds_needed,
)

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("n", [2, 3, 5, 10])
@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_mean_interval_equals_scipy(n, level):
    values = RNG.normal(1, 2, n)
    got, test = mean_interval(values, level), stats.ttest_1samp(values, 0.0)
    wanted = test.confidence_interval(level)
    sd = values.std(ddof=1)
    assert got == pytest.approx(Interval(values.mean(), wanted.low, wanted.high, sd, n, test.pvalue))


def test_paired_interval_equals_scipy():
    treatment, control = RNG.normal(71, 1, 6), RNG.normal(70, 1, 6)
    got, test = paired_interval(treatment, control), stats.ttest_rel(treatment, control)
    wanted = test.confidence_interval(0.95)
    assert got[:3] == pytest.approx((treatment.mean() - control.mean(), wanted.low, wanted.high))
    assert got.p == pytest.approx(test.pvalue) and got.n == 6
    back = paired_interval(control, treatment)
    assert (back.mean, back.low, back.high) == pytest.approx((-got.mean, -got.high, -got.low))


def test_too_few_seeds_never_crash():
    none, one = mean_interval([]), paired_interval([71.5], [70.0])
    assert none.n == 0 and all(math.isnan(x) for x in (none.mean, none.low, none.high, none.sd, none.p))
    assert (one.mean, one.n) == (1.5, 1) and all(math.isnan(x) for x in (one.low, one.high, one.sd, one.p))


def test_equal_differences():
    assert paired_interval([70.1, 71.3, 69.9], [70.1, 71.3, 69.9]) == Interval(0, 0, 0, 0, 3, 1)
    same = pytest.approx(0.1)
    assert mean_interval([0.1] * 3) == Interval(same, same, same, 0, 3, 0)


def test_a_missing_number_is_not_hidden():
    assert math.isnan(mean_interval([1.0, math.nan, 2.0]).mean)


def test_bad_input_is_refused():
    with pytest.raises(InputError, match="cannot be paired"):
        paired_interval([1, 2], [1, 2, 3])
    with pytest.raises(InputError, match="cannot be paired"):
        paired_interval(np.array([[3.0], [4.0]]), [1, 2])  # a frame of one column
    for level in (0, 1, 95, math.nan):
        with pytest.raises(InputError, match="out of range"):
            mean_interval([1, 2], level)


@pytest.mark.parametrize("still", [[0.1] * 3, [0.5] * 3, []])
def test_what_does_not_vary_has_no_correlation(still):
    assert math.isnan(correlation(still, still)) and math.isnan(correlation(still, range(len(still))))


def test_a_seed_that_stands_twice_is_refused():
    frame = pd.DataFrame({"arm": ["a", "a", "b"], "seed": [0, 0, 0], "test_accuracy": [1.0, 1.0, 2.0]})
    with pytest.raises(InputError, match="Seed 0 of a"):
        paired_by_seed(frame, "a", "b")


def test_paired_by_seed_uses_the_seeds_that_both_have():
    frame = pd.DataFrame({"arm": ["a"] * 3 + ["b"] * 3, "seed": [0, 1, 2, 3, 2, 1],
                          "test_accuracy": [9.0, 2.0, 3.0, 9.0, 1.0, 1.0]})
    got = paired_by_seed(frame, "a", "b")
    assert (got.mean, got.n) == (1.5, 2)
    assert paired_by_seed(frame, "a", "absent").n == 0
    alike = frame.assign(run_id="x", device=["cuda", "cpu", "cuda", "cpu", "cuda", "cpu"])
    assert paired_by_seed(alike, "a", "b") == got
    alike.loc[1, "device"] = "cuda"
    with pytest.raises(InputError, match="Seed 1 of a .*on cuda and that of b .*on cpu"):
        paired_by_seed(alike, "a", "b")


def test_holm_closed_forms():
    assert holm([0.01, 0.01, 0.01]) == pytest.approx([0.03, 0.03, 0.03])
    assert holm([0.04, 0.001, 0.03, 0.5]) == pytest.approx([0.09, 0.004, 0.09, 0.5])
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02] and holm([]) == []
    got = holm([0.03, math.nan, 0.02])
    assert math.isnan(got[1]) and got[::2] == pytest.approx([0.04, 0.04])


@pytest.mark.parametrize("n", [2, 3, 5, 10, 50])
@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_power_equals_the_noncentral_distribution(n, level):
    critical = stats.t.ppf((1 + level) / 2, n - 1)
    for effect, sd in [(0.3, 1.0), (-1.2, 0.8), (2.0, 1.5)]:
        shift = effect / sd * math.sqrt(n)
        t = stats.nct(n - 1, shift)
        got = power(effect, sd, n, level)
        assert got == pytest.approx(t.sf(critical) + np.nan_to_num(t.cdf(-critical)), abs=1e-6)


def test_power_at_the_limits():
    assert power(1.0, 1.0, 1) == power(1.0, 1.0, 0) == 0
    assert power(0.0, 1.0, 5) == pytest.approx(0.05) and power(0.0, 1.0, 5, level=0.9) == pytest.approx(0.1)
    assert power(1.0, 0.0, 2) == 1 and power(0.0, 0.0, 5) == power(1.0, 0.0, 1) == 0  # as mean_interval's p
    assert power(1e-9, 1.0, 2) == pytest.approx(0.05)


@pytest.mark.parametrize("n", [2, 3, 5, 10, 100, 10_000])
def test_power_grows_with_the_effect_up_to_one(n):
    """Also where SciPy's noncentral t has no number, from a shift of about 8 (lower tail) and 36 (upper) on."""
    found = [power(effect / math.sqrt(n), 1.0, n) for effect in [*np.arange(0, 60, 0.25), 1e2, 1e4, 1e6]]
    assert 0.0499 < found[0] and found[-1] == 1 and min(np.diff(found)) > -1e-6


def test_seeds_needed_is_the_smallest():
    for effect, sd, wanted in [(0.5, 1.0, 0.8), (-1.0, 0.7, 0.9), (0.2, 2.0, 0.5), (9.0, 0.5, 0.8)]:
        n = seeds_needed(effect, sd, wanted)
        assert isinstance(n, int) and power(effect, sd, n) >= wanted > power(effect, sd, n - 1)
    assert seeds_needed(0.5, 1.0) == 34  # Cohen 1988 and G*Power
    assert seeds_needed(0.5, 1.0, level=0.99) > 34
    assert seeds_needed(1.0, 0.0) == 2
    assert seeds_needed(0.0, 1.0) == seeds_needed(0.0, 0.0) == math.inf
    enough = math.sqrt(8 / MAX_SEEDS)  # needs about 7.85 sd^2 / effect^2
    assert 0.9 * MAX_SEEDS < seeds_needed(enough, 1.0) <= MAX_SEEDS and seeds_needed(0.9 * enough, 1.0) == math.inf


def test_power_refuses_bad_input():
    for effect, sd in [(math.nan, 1.0), (math.inf, 1.0), (1.0, math.nan), (1.0, -1.0), (1.0, math.inf)]:
        for call in (lambda: power(effect, sd, 5), lambda: seeds_needed(effect, sd)):
            with pytest.raises(InputError, match="has no power"):
                call()
    with pytest.raises(InputError, match="level = 95 is out of range"):
        power(1.0, 1.0, 5, level=95)
    with pytest.raises(InputError, match="chance = 80 is out of range"):
        seeds_needed(1.0, 1.0, chance=80)


def test_correlation_equals_scipy():
    x, noise = np.random.default_rng(0).standard_normal((2, 5, 7))
    y = x + noise
    assert correlation(x, y) == pytest.approx([stats.pearsonr(*pair).statistic for pair in zip(x, y)])
    assert correlation(x[0], 2 * x[0]) == pytest.approx(1) and math.isnan(correlation(x[0], np.ones(7)))


def accuracy(rng, shape):
    """Test accuracy in % of 1000 images, less its mean: multiples of 0.1, in [0, 100] before."""
    return rng.binomial(1000, 0.71, shape) / 10 - 71


@pytest.mark.parametrize("sample", [
    np.random.Generator.standard_normal, lambda rng, shape: rng.standard_t(5, shape),
    lambda rng, shape: rng.uniform(-1, 1, shape), accuracy,
    lambda rng, shape: np.clip(np.round(rng.normal(0, 0.1, shape), 1), -0.2, 0.2)])  # five values in all
def test_student_covers_at_five_seeds(sample):
    assert 0.93 < coverage(5, sample=sample) < 0.97


def test_coverage_counts_mean_intervals():
    def sample(rng, shape):
        return np.round(rng.normal(0, 0.05, shape), 1)  # often equal: intervals of one point

    found = [mean_interval(values, 0.9) for values in sample(np.random.default_rng(4), (500, 3))]
    assert any(i.sd == 0 for i in found)
    assert coverage(3, 0.9, 500, sample, seed=4) == np.mean([i.low <= 0 <= i.high for i in found])
    assert coverage(5, level=0.8) == pytest.approx(0.8, abs=0.01)
    with pytest.raises(InputError, match="n = 1 gives no interval"):
        coverage(1)


