"""Judge a recipe of one's own against an arm of ours, seed by seed, in one call. No torch here."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from ..errors import InputError, nearest
from ..recipes import Recipe, baseline, foreign, online_kd, plugins
from ..statistics import paired_interval
from .arms import FAMILIES
from .profiles import PROFILES
from .running import run_all

FIRST = 400  # ours: seeds that no result of ours uses


def judge(mine: Recipe | str, against: Recipe | str = "online KD", seeds: int = 10, workers: int | str = 0
          ) -> pd.DataFrame:
    """Train an arm of yours and another one with the same seeds, side by side, and compare the test accuracies.

    Args:
        mine: a recipe; or the name of a registered loss, for online KD with it on the letters of profile quick, ten
            epochs, without a feature loss.
        against: a recipe; or an arm of ours (`arms.FAMILIES`), with alpha, temperature, beta and training of `mine`.
        seeds: pairs, from seed 400 on; both arms of a pair share pictures, weights and batches.
        workers: as `run_all`.

    Returns:
        A line: n, the difference in percentage points with its 95% t interval (low, high) and p, the mean accuracies,
        and the updates and training GMACs of both. It is exploration: nothing is corrected, and no value is tuned.

    Raises:
        InputError: an unknown loss or arm, or fewer than two seeds.
    """
    if isinstance(mine, str):
        if mine not in plugins.names("soft_loss"):
            raise InputError(nearest("registered loss", mine, plugins.names("soft_loss")))
        mine = online_kd(PROFILES["quick"].settings[0].base, soft_loss=mine, beta=0.0)
    if isinstance(against, str):
        if against not in FAMILIES:
            raise InputError(nearest("arm", against, FAMILIES))
        against = FAMILIES[against](baseline(mine))
        both = {"alpha", "temperature", "beta", "teacher_lr"} - foreign(against.method).keys()
        against = replace(against, **{name: getattr(mine, name) for name in both - foreign(mine.method).keys()})
    if seeds < 2:
        raise InputError(f"seeds = {seeds} has no interval: give at least 2.")
    pairs = [[replace(arm, seed=seed) for seed in range(FIRST, FIRST + seeds)] for arm in (mine, against)]
    found = run_all([recipe for arm in pairs for recipe in arm], workers)
    own, other = ([record.summary for record in found[k * seeds:(k + 1) * seeds]] for k in (0, 1))
    i = paired_interval([s["test_accuracy"] for s in own], [s["test_accuracy"] for s in other])
    line = {"n": i.n, "Difference (points)": i.mean, "low": i.low, "high": i.high, "p": i.p}
    for name, summaries in (("mine", own), ("against", other)):
        mean = pd.DataFrame(summaries).mean(numeric_only=True)
        line |= {f"Accuracy, {name} (%)": mean["test_accuracy"], f"Updates, {name}": round(mean["student_updates"]),
                 f"Training GMACs, {name}": mean["train_gmacs"]}
    return pd.DataFrame([line])
