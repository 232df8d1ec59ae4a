"""What is claimed, written down before the first run that judges it, and judged by one fixed rule.

**The primary family**: three claims a setting, each "one arm reaches a higher test accuracy than another". Student's
paired test by seed, two-sided, corrected by Holm over the three; interval and verdict are corrected alike, as the
k-th smallest p has the interval of level 1 - 0.05 / (3 - k + 1), and after a first claim that is not shown all others
keep its level. A claim is

- supported, if its interval lies above zero, however small the gain;
- otherwise refuted, if its interval lies below `MIN_EFFECT`: whatever gain there is, it is smaller;
- otherwise inconclusive, also with fewer than two seeds.

Everything else in this package is exploration: intervals of 95%, not corrected. `judging.judge` names its
result by the same rule, and corrects nothing.

**The lead-lag law**: pairs of arms with the sign that each theory predicts. Not judged one by one: the page counts how
many signs each theory has right, and how many its intervals contradict.

What was known when: the first protocol's records, which the commit named in results/README.md holds; there spaced KD
was 0.1 points below online KD as released on letters, and 0.0 on CIFAR-100 pictures. Of the lead-lag law a pilot of
seeds 100 and 101 was known (20 epochs, alpha 0.1 and 0.5): where the teacher weighed enough to matter, behind gained
over offset 0 what ahead gained. Trials of one seed chose batch size, width and epochs. No seed from 200 on had been
trained. When the four predictions at spaced KD's values were added, the primary family was judged. Without a start from
labels alone, spaced KD at s = 0.5, 1.5 and 4 was known to be 1.0, 1.9 and 2.4 points above online KD at these values.
Ten seeds of the law were known when ten more were trained. All other runs of the law were known when the
prediction of teachers that move at spaced KD's values was added.
tests/test_claims.py reads git: the line of a claim is older than the first run that judges it.

Told in notebooks/14_register_of_claims.ipynb; rendered in results/README.md. No torch here.
"""

from __future__ import annotations

from typing import Callable, NamedTuple

import pandas as pd

from ..statistics import (LEVEL, Interval, holm, mean_interval, paired_by_seed, paired_interval, power as power_of,
                          seeds_needed)

MIN_EFFECT = 0.5  # percentage points (ours): less than a quarter of the largest published gains, 2.31 and 3.34
JUDGED = ("glyphs", "CIFAR-100, 5,000 images")  # settings whose seeds are fresh and whose arms are tuned


class Claim(NamedTuple):
    """arm is claimed to be better than reference, both arms of notebook 05."""

    id: str
    statement: str
    arm: str
    reference: str


AHEAD = "spaced KD s=1.5"
PRIMARY = (
    Claim("P1", "Spaced KD beats online KD that asks as released.", AHEAD, "online KD, asked before"),
    Claim("P2", "Spaced KD beats label smoothing.", AHEAD, "label smoothing"),
    Claim("P3", "Spaced KD beats labels alone for equal compute.", AHEAD, "baseline, equal compute"),
)
STRICTEST = 1 - (1 - LEVEL) / len(PRIMARY)  # the level of the smallest p-value of a family
# Of P1 with one set of tuned values on both sides, which is exploration: whose values -> arm, reference
SAME_VALUES = {"spaced KD's": (AHEAD, "online KD, asked before, at spaced KD's values"),
               "online KD's": ("spaced KD, at its rival's values", PRIMARY[0].reference)}
NO_SPACE = AHEAD, "online KD, at spaced KD's values"
# How much of NO_SPACE comes from the first epochs, when a teacher beside the student knows nothing yet.
# Predicted before these runs: at least half. Known by then, of ten of the twenty seeds: four epochs of labels alone
# give online KD 1.05 points.
LATE_START = {"the late start": ("online KD from epoch 1.5, at spaced KD's values", NO_SPACE[1]),
              "the lead": (AHEAD, "online KD from epoch 1.5, at spaced KD's values")}


class Prediction(NamedTuple):
    """The sign of arm - reference by each theory: +1, -1, 0 (no difference), or None where it says nothing.

    ahead: the paper's (a teacher ahead helps). frozen: targets help that stay the same between updates, whatever their
    age (arXiv:2606.03532). linear: the model of notebook 08 at rest, with eta lambda = 0.02 and glyphs' 32 batches an
    epoch, at alpha 0.9, or where it is tuned as at 0.1 and 0.3, at spaced KD's values as at 0.5: the student with less
    variance wins.
    """

    arm: str
    reference: str
    ahead: int | None
    frozen: int | None
    linear: int | None


THEORIES = ("Ahead helps", "Frozen helps", "Linear model")  # the last three fields of a `Prediction`
LAG_SETTING = "glyphs, lead and lag"
PREDICTIONS = (
    Prediction("teacher +1.5, alpha tuned", "teacher +0, alpha tuned", 1, 1, -1),
    Prediction("teacher -1.5, alpha tuned", "teacher +0, alpha tuned", -1, 1, 1),
    Prediction("teacher +1.5, alpha tuned", "teacher -1.5, alpha tuned", 1, 0, -1),
    Prediction("teacher +1.5, at spaced KD's values", "teacher +0, at spaced KD's values", 1, 1, -1),
    Prediction("teacher -1.5, at spaced KD's values", "teacher +0, at spaced KD's values", -1, 1, 1),
    Prediction("teacher +1.5, at spaced KD's values", "teacher -1.5, at spaced KD's values", 1, 0, -1),
    Prediction("teacher +4, at spaced KD's values", "teacher -4, at spaced KD's values", 1, 0, -1),
    Prediction("teacher +1.5", "teacher +0", 1, 1, -1),
    Prediction("teacher -1.5", "teacher +0", -1, 1, -1),
    Prediction("teacher +1.5", "teacher -1.5", 1, 0, -1),
    Prediction("teacher +4", "teacher -4", 1, 0, -1),
    Prediction("teacher +1.5", "teacher +1.5, moving", None, 1, -1),
    Prediction("teacher -1.5", "teacher -1.5, moving", None, 1, -1),
    Prediction("teacher +1.5, moving", "teacher -1.5, moving", 1, 0, -1),
    Prediction("teacher +0, other batches", "teacher +0", None, None, 1),
    Prediction("teacher +1.5, other batches", "teacher +0, other batches", 1, 1, -1),
    Prediction("teacher +0.75, moving, at spaced KD's values", "teacher -0.75, moving, at spaced KD's values",
               1, 0, -1),
)
# What a teacher ahead or behind has that online KD's has not: words -> arm, reference
PARTS = {
    "ahead minus behind, both frozen, at α = 0.9": ("teacher +1.5", "teacher -1.5"),
    "frozen minus moving, both ahead, at α = 0.9": ("teacher +1.5", "teacher +1.5, moving"),
    "ahead minus behind, both frozen, at spaced KD's values":
        ("teacher +1.5, at spaced KD's values", "teacher -1.5, at spaced KD's values"),
    "4 epochs ahead minus 4 behind, at spaced KD's values":
        ("teacher +4, at spaced KD's values", "teacher -4, at spaced KD's values"),
    "frozen minus moving, both ahead, as far on average, at spaced KD's values":
        ("teacher +1.5, at spaced KD's values", "teacher +0.75, moving, at spaced KD's values"),
    "frozen minus moving, both behind, as far on average, at spaced KD's values":
        ("teacher -1.5, at spaced KD's values", "teacher -0.75, moving, at spaced KD's values"),
    "ahead minus online KD, at spaced KD's values":
        ("teacher +1.5, at spaced KD's values", "teacher +0, at spaced KD's values"),
    "behind minus online KD, at spaced KD's values":
        ("teacher -1.5, at spaced KD's values", "teacher +0, at spaced KD's values")}


def judged(frame: pd.DataFrame, register: tuple[Claim, ...] = PRIMARY) -> pd.DataFrame:
    """Judge each claim in each setting of `JUDGED` that has runs of both arms: one line each.

    Args:
        frame: from `tables.runs`, of notebook 05 at least.

    Returns:
        Columns Claim, Statement, Setting, Arm, Against, n, Difference (points) with its corrected interval (low, high)
        and its level in percent, p (Holm), Result, and the run ids.
    """
    lines = []
    for setting, part in frame[frame["notebook"] == "05_spaced_kd"].groupby("setting", sort=False):
        pairs = {claim: part[part["arm"].isin((claim.arm, claim.reference))] for claim in register}
        here = {claim: paired_by_seed(part, claim.arm, claim.reference) for claim, runs in pairs.items()
                if setting in JUDGED and runs["arm"].nunique() == 2}
        for claim, i, level, p in _corrected(part, here, len(register)):
            ids = " ".join(sorted(set(pairs[claim]["run_id"])))
            lines.append([claim.id, claim.statement, setting, claim.arm, claim.reference, i.n, i.mean, i.low, i.high,
                          100 * level, p, result(i.low, i.high), ids])
    columns = ["Claim", "Statement", "Setting", "Arm", "Against", "n", "Difference (points)", "Difference: low",
               "Difference: high", "Level (%)", "p (Holm)", "Result", "Runs"]
    return pd.DataFrame(lines, columns=columns).sort_values(["Setting", "Claim"], ignore_index=True)


def late_start_minus_lead(frame: pd.DataFrame) -> Interval:
    """Compute by how much the late start makes more of spaced KD's gain than the lead does, in points.

    The prediction, at least half of the gain, says that it is not negative.

    Args:
        frame: as from `tables.runs`, of one setting in notebook 05.
    """
    late, together = LATE_START["the late start"]
    runs = frame[frame["arm"].isin((AHEAD, late, together))]
    wide = runs.pivot(index="seed", columns="arm", values="test_accuracy").reindex(columns=[AHEAD, late, together])
    return mean_interval((2 * wide[late] - wide[together] - wide[AHEAD]).dropna())


def _corrected(part: pd.DataFrame, intervals: dict, size: int) -> list[tuple]:
    """Return (claim, interval, level, Holm's p), from the smallest p on.

    The size of the family is fixed beforehand: a claim without runs or with one pair counts, with p = 1.
    """
    p_values = {claim: i.p if i.n > 1 else 1.0 for claim, i in intervals.items()}
    ordered = sorted(p_values, key=p_values.get)
    adjusted = holm([*map(p_values.get, ordered), *[1.0] * (size - len(ordered))])
    shown, lines = sum(p < 1 - LEVEL for p in adjusted), []
    for k, (claim, p) in enumerate(zip(ordered, adjusted)):
        level = 1 - (1 - LEVEL) / (size - min(k, shown))
        lines.append((claim, paired_by_seed(part, claim.arm, claim.reference, level=level), level, p))
    return lines


def power(scores: Callable[[str], list[float]], n: int) -> pd.DataFrame:
    """Compute what n seeds can show of each claim, before any of them is trained.

    Args:
        scores: validation accuracy by tuning seed, percent, of an arm.
        n: seeds.

    Returns:
        Columns Claim, "sd (points)" of the paired differences over the tuning seeds, which are few; "Seeds for 0.5
        points", the n that shows `MIN_EFFECT` with a power of 80% at the strictest level of the family; and the
        power that n seeds have.
    """
    lines = []
    for claim in PRIMARY:
        sd = paired_interval(scores(claim.arm), scores(claim.reference)).sd
        lines.append([claim.id, sd, seeds_needed(MIN_EFFECT, sd, level=STRICTEST),
                      power_of(MIN_EFFECT, sd, n, STRICTEST)])
    return pd.DataFrame(lines, columns=["Claim", "sd (points)", f"Seeds for {MIN_EFFECT:g} points",
                                        f"Power of {n} seeds"])


def result(low: float, high: float) -> str:
    """supported, refuted or inconclusive, by the rule above, from a corrected interval in points.

    >>> result(0.1, 2.0), result(-1.0, 0.4), result(-1.0, 0.6)
    ('supported', 'refuted', 'inconclusive')
    """
    return "supported" if low > 0 else "refuted" if high < MIN_EFFECT else "inconclusive"


def say(line: pd.Series) -> str:
    """Put a line of `judged` into words: its result, and the difference with its interval."""
    mean, low, high = (round(line[f"Difference{part}"], 1) + 0.0 for part in (" (points)", ": low", ": high"))
    found = f": {mean:+.1f} [{low:.1f}, {high:.1f}]" if line["n"] > 1 else " (n = 1)"
    return line["Result"] + found


def matrix(table: pd.DataFrame) -> pd.DataFrame:
    """Turn a table of `judged` into one for people: a line a claim, a column a setting."""
    said = table.assign(said=[say(line) for _, line in table.iterrows()])
    wide = said.pivot(index=["Claim", "Statement"], columns="Setting", values="said").fillna("")
    return wide.reset_index().rename_axis(columns=None)


def predictions(frame: pd.DataFrame) -> pd.DataFrame:
    """Set each theory's sign beside the measured difference, for each pair of the lead-lag law that has runs.

    The difference is in points, with its 95% interval, not corrected.
    """
    part = frame[frame["setting"] == LAG_SETTING]
    signs = {1: "+", -1: "-", 0: "0", None: ""}
    lines = []
    for of in PREDICTIONS:
        if {of.arm, of.reference} <= set(part["arm"]):
            i = paired_by_seed(part, of.arm, of.reference)
            lines.append([of.arm, of.reference, *(signs[sign] for sign in of[2:]), i.n, i.mean, i.low, i.high])
    return pd.DataFrame(lines, columns=["Arm", "Minus", *THEORIES, "n", "Difference (points)", "Difference: low",
                                        "Difference: high"])


def score(table: pd.DataFrame) -> pd.DataFrame:
    """Count the signs that each theory has right, and those that an interval contradicts.

    The mean difference has a sign; a predicted zero is right where the interval holds it, and contradicted where it
    does not.

    Args:
        table: from `predictions`.
    """
    lines = []
    for theory in THEORIES:
        of = table[table[theory] != ""]
        sign = of[theory].map({"+": 1, "-": -1, "0": 0})
        below, above = of["Difference: high"] < 0, of["Difference: low"] > 0
        right = (sign * of["Difference (points)"] > 0) | ((sign == 0) & ~below & ~above)
        against = (below & (sign >= 0)) | (above & (sign <= 0))
        lines.append([theory, len(of), right.sum(), against.sum()])
    return pd.DataFrame(lines, columns=["Theory", "Predictions", "Right", "Contradicted"])
