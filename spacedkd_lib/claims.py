"""What the paper claims and what we ask, each judged by one fixed rule.

A claim says: one arm reaches a higher test accuracy than another. It is

- supported, if Student's paired test rejects "no gain" and the mean is positive;
- refuted, if it rejects, one-sided, "a gain of `SMALLEST` or more": whatever gain there is, it is smaller;
- inconclusive otherwise, also with fewer than two seeds. (Both: a gain is shown, and shown to be small: supported.)

Both p-values carry Holm's correction over the claims of one family (P, Q, X, O, S, T, U, F or N) in one setting, at 5%.

What was known when. P are claims of the paper, as its abstract and README make them, Q questions of ours. Both were
written down before the runs of the profile study began, but after those of quick and of the CIFAR-100 slice: of P1 to
P3, P5 to P7 and Q1, letters (10 epochs) and digits of seeds 0 to 4 and all of the slice were known; notebook 09
therefore judges the seeds from 5 on apart. The rule first corrected over all claims of a setting and called refuted
what has its 95% interval below `SMALLEST`; it got its present form when 609 of study's runs (letters and
digits, 82 with random crops, none of 30 epochs) were there. Under the first form P2 at 30 epochs would be inconclusive (p = 0.052), and P2,
Q7 (letters, 10 epochs), P4, Q9 (30 epochs) and P7 (CIFAR-100) refuted. The 30 epochs were planned as 60 and cut before
their first run, to save time. X were added when the first ten-epoch runs had shown that it matters how the teacher is
asked: for those they explore; for the runs of 30 epochs, and of batch statistics on CIFAR-100, they were written down
before. P8, P9 and Q12 once said "in the released program"; it is that program's switches at our learning rate, batch
and length.

O are claims of IE-KD, mutual learning and Education Distillation as their abstracts make them, S our questions to
spacing these. Both were written down before the first run of notebooks 10 and 11, when there were only trials of the
code (200 pictures of digits, three epochs); the weight of IE-KD's losses was then chosen on validation pictures of seed
100. O4 and O5 got "for as many epochs" when it was seen that ED makes fewer updates. O5 first took the arm of equal
images, whose teachers learn for longer too; it got its present one, with the very same teachers, when two seeds of each
were seen, and both below.

T are the paper's claims of transformers, U our questions to the idle updates of its transformer programs. Both were
written down before the first run of notebook 12, when there were trials of the network's size (labels alone); its
learning rate was then chosen on validation pictures of seeds 100 to 102. U5 was added when a reader missed it; the five
seeds of profile quick of all other arms were known then. The released spaced arms were trained anew after that, on the
student's own clock (V21), as another reader asked. The setting of a quarter of the rate was added when quick's runs had
shown that idle updates harm at the tuned one, to ask whether they help where the rate is too low. That labels alone do
worse there was known from the trials; none of the runs that are judged there had been made. The claims are the same.

F are claims of the released follow-up on spaced dropout and spaced EMA (we had its programs and README, not its
article), as described and with its switches; N our questions to them. Both were written down before the first run of
notebook 13. Known were trials of seed 100, which no result uses: without dropout and with constant and spaced dropout
at five rates, where accuracy fell with the rate and spaced dropout fell less than constant dropout of its peak; no EMA
had been scored beyond 36 pictures of noise. F4 first took averages of a network whose learning rate falls (-15.5
points, refuted), until a reader saw that the released program's does not (M5); it got the arms of the very preset then,
and all averages at a constant rate were trained anew with them. N6 says "at equal decay" since the same reader.

Rendered in notebooks/09_released_code_audit.ipynb and in results/README.md. No torch here.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import pandas as pd

from .statistics import Interval, holm, one_sided, paired_by_seed, probability_of_improvement, seeds_needed

SMALLEST = 0.5  # percentage points (ours): less than a quarter of the largest published gains, 2.31 and 3.34


class Claim(NamedTuple):
    """arm is claimed to be better than reference, both arms of one notebook; in each setting that has them."""

    id: str
    statement: str
    source: str
    notebook: str
    arm: str
    reference: str


_ONLINE, _SELF, _AUDIT = "05_spaced_kd", "04_self_kd", "09_released_code_audit"
_SPACED = "spaced KD s=1.5"
_IE, _ED = "10_ie_kd", "11_education_distillation"
_VIT, _VITS_PAPER, _VITS_OURS = "12_vision_transformers", "paper, transformers", "ours, transformers"
_RELEASED = "released spaced KD s=1.5"
_OTHERS, _NEW = "other papers", "ours, later"
_BEYOND, _FOLLOW_UP, _ALONE = "13_spacing_beyond_kd", "follow-up", "ours, beyond KD"
REGISTER = (
    Claim("P1", "Spaced online KD beats online KD.", "paper", _ONLINE, _SPACED, "online KD"),
    Claim("P2", "Spaced online KD beats training on labels alone.", "paper", _ONLINE, _SPACED, "baseline"),
    Claim("P3", "Online KD beats training on labels alone.", "paper", _ONLINE, "online KD", "baseline"),
    Claim("P4", "A longer interval than the recommended one is worse.", "paper", _ONLINE, _SPACED, "spaced KD s=4"),
    Claim("P5", "A shorter interval than the recommended one is worse.", "paper", _ONLINE, _SPACED, "spaced KD s=0.5"),
    Claim("P6", "Spaced self KD beats self KD.", "paper", _SELF, "spaced self KD s=2", "self KD"),
    Claim("P7", "Self KD beats training on labels alone.", "paper", _SELF, "self KD", "baseline"),
    Claim("P8", "Spaced online KD beats online KD with the released program's switches.", "paper", _AUDIT, "released",
          "released, s=0"),
    Claim("P9", "Spaced self KD beats self KD with the released program's switches.", "paper", _AUDIT, "self: released",
          "self: released, s=0"),
    Claim("Q1", "Spaced KD is better than offline KD.", "ours", _ONLINE, _SPACED,
          "offline KD"),
    Claim("Q2", "The sawtooth is better than a constant lead of its mean.", "ours", _ONLINE, _SPACED,
          "constant lead s=0.75"),
    Claim("Q3", "The sawtooth is better than a constant lead of its height.", "ours", _ONLINE, _SPACED,
          "constant lead s=1.5"),
    Claim("Q4", "Spaced KD is better than online KD with a head start of its teacher.", "ours", _ONLINE, _SPACED,
          "teacher head start s=1.5"),
    Claim("Q5", "The teacher's batches are better than fresh ones.", "ours", _ONLINE, _SPACED,
          "fresh batches s=1.5"),
    Claim("Q6", "Spaced KD is better than a smaller weight of the labels, without a teacher.", "ours", _ONLINE, _SPACED,
          "smaller CE weight"),
    Claim("Q7", "Spaced KD is better than label smoothing of equal strength.", "ours", _ONLINE, _SPACED,
          "label smoothing"),
    Claim("Q8", "Expanding intervals are better than fixed ones of equal mean.", "ours", _ONLINE,
          "expanding intervals, mean 1.5", _SPACED),
    Claim("Q9", "Regular intervals are better than random ones of equal mean.", "ours", _ONLINE, _SPACED,
          "random intervals, mean 1.5"),
    Claim("Q10", "Spaced online KD beats labels alone at equal compute.", "ours", _ONLINE, _SPACED,
          "baseline, equal compute"),
    Claim("Q11", "Spaced self KD beats labels alone with as many updates.", "ours", _SELF, "spaced self KD s=2",
          "baseline, twice the epochs"),
    Claim("Q12", "Spaced self KD with the released program's switches beats labels alone with as many updates.", "ours",
          _AUDIT, "self: released", "self: released baseline, twice the epochs"),
    Claim("Q13", "The teacher's pixels are better than the same pictures augmented anew.", "ours", _ONLINE,
          _SPACED, "fresh augmentation s=1.5"),
    Claim("X1", "Spaced online KD beats online KD that asks its teacher before the update.", "after first runs",
          _ONLINE, _SPACED, "online KD, asked before"),
    Claim("X2", "Spaced online KD beats online KD, if teachers answer by the statistics of the batch.",
          "after first runs", _ONLINE, "batch statistics, s=1.5", "batch statistics, s=0"),
    Claim("O1", "IE-KD beats training on labels alone.", _OTHERS, _IE, "offline IE-KD", "baseline"),
    Claim("O2", "IE-KD beats factor transfer, which has no exploration.", _OTHERS, _IE, "offline IE-KD",
          "offline factor transfer"),
    Claim("O3", "Mutual learning beats training on labels alone.", _OTHERS, _IE, "DML", "baseline"),
    Claim("O4", "Education Distillation beats training on labels alone for as many epochs.", _OTHERS, _ED, "offline ED",
          "baseline"),
    Claim("O5", "Growth is better than the same teachers without it, for as many epochs.", _OTHERS, _ED, "offline ED",
          "offline schools"),
    Claim("S1", "Spaced IE-KD beats IE-KD with a teacher that learns beside it.", _NEW, _IE, "spaced IE-KD s=1.5",
          "IE-KD"),
    Claim("S2", "Spaced IE-KD beats spaced KD.", _NEW, _IE, "spaced IE-KD s=1.5", "spaced KD s=1.5"),
    Claim("S3", "Exploration adds to spaced inheritance.", _NEW, _IE, "spaced IE-KD s=1.5", "spaced inheritance s=1.5"),
    Claim("S4", "Spaced IE-KD beats IE-KD that begins when its paraphraser is as old.", _NEW, _IE, "spaced IE-KD s=1.5",
          "IE-KD, from epoch 1.5"),
    Claim("S5", "Spaced mutual learning beats mutual learning.", _NEW, _IE, "spaced DML s=1.5", "DML"),
    Claim("S6", "Spaced Education Distillation beats that of teachers who learn beside it.", _NEW, _ED,
          "spaced ED s=1.5", "online ED"),
    Claim("S7", "Spaced Education Distillation beats that of finished teachers.", _NEW, _ED, "spaced ED s=1.5",
          "offline ED"),
    Claim("S8", "Without growth, spacing helps several teachers too.", _NEW, _ED, "spaced schools s=1.5",
          "online schools"),
    Claim("T1", "Spaced online KD of transformers beats online KD.", _VITS_PAPER, _VIT, _SPACED, "online KD"),
    Claim("T2", "Spaced online KD of transformers beats training on labels alone.", _VITS_PAPER, _VIT, _SPACED,
          "baseline"),
    Claim("T3", "Online KD of transformers beats training on labels alone.", _VITS_PAPER, _VIT, "online KD",
          "baseline"),
    Claim("T4", "With the released transformer program's switches, spaced online KD beats online KD.", _VITS_PAPER,
          _VIT, _RELEASED, "released online KD"),
    Claim("U1", "Idle updates add to released spaced KD.", _VITS_OURS, _VIT, _RELEASED,
          "released, no idle updates s=1.5"),
    Claim("U2", "Idle updates help without any KD.", _VITS_OURS, _VIT, "idle updates, no KD s=1.5", "baseline"),
    Claim("U3", "A learning rate and a weight decay 1.41 times as high help without any KD.", _VITS_OURS, _VIT,
          "baseline, 1.41 x rate and decay", "baseline"),
    Claim("U4", "Released spaced KD without idle updates still beats released online KD.", _VITS_OURS, _VIT,
          "released, no idle updates s=1.5", "released online KD"),
    Claim("U5", "Released spaced KD beats released online KD of 1.41 times the learning rate and weight decay.",
          _VITS_OURS, _VIT, _RELEASED, "released online KD, 1.41 x rate and decay"),
    Claim("F1", "Spaced dropout beats dropout.", _FOLLOW_UP, _BEYOND, "spaced dropout", "dropout"),
    Claim("F2", "Spaced EMA beats EMA.", _FOLLOW_UP, _BEYOND, "spaced EMA s=0.1", "EMA"),
    Claim("F3", "Spaced dropout beats dropout with the released program's switches.", _FOLLOW_UP, _BEYOND,
          "released spaced dropout", "released dropout"),
    Claim("F4", "Spaced EMA beats EMA with the released program's switches.", _FOLLOW_UP, _BEYOND,
          "released spaced EMA s=0.1", "released EMA"),
    Claim("F5", "Spaced EMA with a memory of an epoch beats EMA at a constant learning rate.", _FOLLOW_UP, _BEYOND,
          "constant lr: spaced EMA a=0.9 s=0.1", "constant lr: EMA a=0.9"),
    Claim("N1", "Spaced dropout beats constant dropout of equal mean.", _ALONE, _BEYOND, "spaced dropout",
          "dropout, equal mean"),
    Claim("N2", "Spaced dropout beats random rates of equal mean.", _ALONE, _BEYOND, "spaced dropout",
          "random dropout, equal mean"),
    Claim("N3", "Spaced dropout beats training without dropout.", _ALONE, _BEYOND, "spaced dropout", "baseline"),
    Claim("N4", "Spaced EMA beats EMA of equal horizon.", _ALONE, _BEYOND, "spaced EMA s=0.1", "EMA, equal horizon"),
    Claim("N5", "Spaced EMA beats the network that it averages.", _ALONE, _BEYOND, "spaced EMA s=0.1",
          "EMA's network"),
    Claim("N6", "A longer interval of the average, at equal decay, is worse.", _ALONE, _BEYOND, "spaced EMA s=0.1",
          "spaced EMA s=1"),
    Claim("N7", "Spaced EMA with a memory of an epoch beats EMA of equal horizon at a constant learning rate.", _ALONE,
          _BEYOND, "constant lr: spaced EMA a=0.9 s=0.1", "constant lr: EMA a=0.9, equal horizon"),
    Claim("N8", "Spaced EMA with a memory of an epoch beats EMA.", _ALONE, _BEYOND, "spaced EMA a=0.9 s=0.1",
          "EMA a=0.9"),
)


LARGE = f"p of a gain of {SMALLEST:g} or more (Holm)"
COLUMNS = ["Claim", "Statement", "Source", "Setting", "Arm", "Against", "n", "Difference (points)", "Difference: low",
           "Difference: high", "Difference: pairs", "Difference: p (Holm)", LARGE, "Result", "Seeds for 1 point",
           "Runs"]


def judged(frame: pd.DataFrame, register=REGISTER) -> pd.DataFrame:
    """A line for each claim and setting that has runs of both arms.

    Args:
        frame: from `tables.runs`, of all notebooks.

    Returns:
        Columns Claim, Statement, Source, Setting, Arm, Against, n, the paired difference in percentage points with its
        interval and Holm's p, Holm's p of a gain of `SMALLEST` or more, Result, and "Seeds for 1 point": how many
        would show a gain of one point with a power of 80%, given the spread seen here and before any correction; and
        the run ids.
    """
    lines = []
    for setting, part in frame.groupby("setting", sort=False):
        here = []
        for claim in register:
            arms = part[part["notebook"] == claim.notebook]
            pairs = arms[arms["arm"].isin((claim.arm, claim.reference))]
            if pairs["arm"].nunique() == 2:
                here.append((claim, paired_by_seed(arms, claim.arm, claim.reference), pairs["run_id"]))
        adjusted, smaller = {}, {}  # claim -> Holm's p that there is no gain, and that there is one of SMALLEST
        for source in {claim.source for claim in register}:
            family = {claim: i for claim, i, _ in here if claim.source == source}
            adjusted |= zip(family, holm([i.p for i in family.values()]))
            smaller |= zip(family, holm([one_sided(i, SMALLEST) for i in family.values()]))
        for claim, i, ids in here:
            seeds = seeds_needed(1.0, i.sd) if i.n > 1 else math.nan
            lines.append([claim.id, claim.statement, claim.source, setting, claim.arm, claim.reference, i.n, i.mean,
                          i.low, i.high, i.n, adjusted[claim], smaller[claim],
                          result(i.mean, adjusted[claim], smaller[claim]), seeds, " ".join(sorted(set(ids)))])
    return pd.DataFrame(lines, columns=COLUMNS)


def across_settings(frame: pd.DataFrame, register=REGISTER) -> pd.DataFrame:
    """For each claim the probability that a run of the arm beats a run of the reference, mean over the settings that
    have both; with a bootstrap interval where each has ten seeds (`statistics.probability_of_improvement`)."""
    lines = []
    for claim in register:
        arms = frame[(frame["notebook"] == claim.notebook)]
        pairs = {setting: tuple(part.loc[part["arm"] == arm, "test_accuracy"].tolist()
                                for arm in (claim.arm, claim.reference))
                 for setting, part in arms.groupby("setting", sort=False)}
        pairs = {setting: pair for setting, pair in pairs.items() if all(pair)}
        if pairs:
            i = probability_of_improvement(pairs)
            lines.append({"Claim": claim.id, "Statement": claim.statement, "Settings": len(pairs),
                          "P(improvement)": i.mean, "low": i.low, "high": i.high, "n": i.n})
    return pd.DataFrame(lines, columns=["Claim", "Statement", "Settings", "P(improvement)", "low", "high", "n"])


def say(line: pd.Series, suffix: str = "") -> str:
    """A line of `judged` in words: its result, and the difference with its interval. suffix: of its columns."""
    mean, low, high = (round(line[f"Difference{part}{suffix}"], 1) + 0.0 for part in (" (points)", ": low", ": high"))
    found = f": {mean:+.1f} [{low:.1f}, {high:.1f}]" if line[f"n{suffix}"] > 1 else " (n = 1)"
    return line[f"Result{suffix}"] + found


def matrix(table: pd.DataFrame, register=REGISTER) -> pd.DataFrame:
    """The lines of `judged` as people read them: a line a claim, in the register's order, a column a setting, in each
    cell the result and the difference with its interval."""
    said = [say(line) for _, line in table.iterrows()]
    keys = ["Claim", "Statement"]
    wide = table[[*keys, "Setting"]].assign(said=said).pivot_table(index=keys, columns="Setting", values="said",
                                                                   aggfunc="first", sort=False)
    wide = wide.fillna("").reset_index().rename_axis(columns=None)
    order = [claim.id for claim in register]  # the first setting may lack some
    return wide.sort_values("Claim", key=lambda ids: ids.map(order.index), ignore_index=True)


def result(mean: float, gain: float, smaller: float) -> str:
    """supported, refuted or inconclusive, by the rule above.

    Args:
        mean: of the paired differences.
        gain: Holm's two-sided p of "no gain".
        smaller: Holm's one-sided p of "a gain of SMALLEST or more".

    >>> result(1.2, gain=0.03, smaller=0.9), result(0.0, gain=0.99, smaller=0.01), result(0.4, gain=0.2, smaller=0.3)
    ('supported', 'refuted', 'inconclusive')
    """
    return "supported" if mean > 0 and gain < 0.05 else "refuted" if smaller < 0.05 else "inconclusive"
