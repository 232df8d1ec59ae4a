"""Judge a recipe of one's own against an arm of ours, seed by seed, in one call. No torch here."""

from __future__ import annotations

from dataclasses import replace
from typing import Callable

import pandas as pd

from ..errors import InputError, nearest
from ..recipes import Recipe, baseline, foreign, online_kd, plugins
from ..statistics import paired_interval
from .arms import FAMILIES
from .claims import result
from .profiles import PROFILES
from .running import run_all

FIRST = 400  # ours: seeds that no result of ours uses


def judge(mine: Recipe | str | Callable, against: Recipe | str = "online KD", seeds: int = 10,
          workers: int | str = 0, data: str = "") -> pd.DataFrame:
    """Train an arm of yours and another one with the same seeds, side by side, and compare the test accuracies.

    Args:
        mine: a recipe; or a registered loss or its name, for online KD with it as profile quick trains letters,
            without a feature loss.
        against: a recipe; or an arm of ours (`arms.FAMILIES`), with alpha, temperature, beta and training of `mine`.
        seeds: pairs, from seed 400 on; both arms of a pair share pictures, weights and batches.
        workers: as `run_all`.
        data: a data set in place of the one of `mine`, with all its training images.

    Returns:
        A line: n, the difference in percentage points with its 95% t interval (low, high) and p, the result by
        `claims.result`, the mean accuracies, and the updates and training GMACs of both. It is exploration: nothing is
        corrected, and no value is tuned.

    Raises:
        InputError: an unknown loss or arm, fewer than two seeds, or arms that are one, or differ in pictures or seed.
    """
    if type(seeds) is not int or seeds < 2:
        raise InputError(f"seeds = {seeds!r} gives no interval: give a whole number of at least 2.")
    mine = mine if isinstance(mine, Recipe) else _with_loss(mine)
    if data not in ("", mine.dataset):
        mine = replace(mine, dataset=data, train_images=0)
    if not isinstance(against, Recipe):
        if against not in list(FAMILIES):
            raise InputError(nearest("arm", against, FAMILIES))
        against = FAMILIES[against](baseline(mine))
        both = {"alpha", "temperature", "beta", "teacher_lr"} - foreign(against.method).keys()
        against = replace(against, **{name: getattr(mine, name) for name in both - foreign(mine.method).keys()})
    for name in ("dataset", "train_images", "val_fraction", "seed"):
        if getattr(mine, name) != getattr(against, name):
            raise InputError(f"The arms cannot be paired: {name} = {getattr(mine, name)!r} and "
                             f"{getattr(against, name)!r}. Give both the same.")
    if mine == against:
        raise InputError(f"Both arms are {mine.in_words()}, equal in every field: give two that differ.")
    pairs = [[replace(arm, seed=seed) for seed in range(FIRST, FIRST + seeds)] for arm in (mine, against)]
    found = run_all([recipe for arm in pairs for recipe in arm], workers)
    own, other = ([record.summary for record in found[k * seeds:(k + 1) * seeds]] for k in (0, 1))
    i = paired_interval([s["test_accuracy"] for s in own], [s["test_accuracy"] for s in other])
    line = {"n": i.n, "Difference (points)": i.mean, "low": i.low, "high": i.high, "p": i.p,
            "Result": result(i.low, i.high)}
    for name, summaries in (("mine", own), ("against", other)):
        mean = pd.DataFrame(summaries).mean(numeric_only=True)
        line |= {f"Accuracy, {name} (%)": mean["test_accuracy"], f"Updates, {name}": round(mean["student_updates"]),
                 f"Training GMACs, {name}": mean["train_gmacs"]}
    return pd.DataFrame([line])


def _with_loss(loss: str | Callable) -> Recipe:
    """Return online KD with a registered loss, on the letters of profile quick."""
    known = plugins.names("soft_loss")
    name = next((name for name in known if loss in (name, plugins.made("loss", name))), None)
    if name is None:
        raise InputError(nearest("registered loss", getattr(loss, "__name__", loss), known)
                         + " One of your own: skd.register_loss.")
    return online_kd(PROFILES["quick"].settings[0].base, soft_loss=name, beta=0.0)
