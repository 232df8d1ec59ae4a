"""The arms of the lead-lag law: a teacher ahead or behind, at rest or moving. No torch here."""

from __future__ import annotations

from dataclasses import replace

from ..recipes import baseline, spaced
from .arms import Arm, Setting, named, of_family

LABELS_FIRST = 4.0  # epochs of labels alone in all these arms: the longest lag
# Family -> what its arms change. At the tuned weight of online KD, which favours no offset; the others at 0.9, where
# the teacher weighs most.
LAGS: dict[str, dict] = {
    "lag, alpha tuned": {}, "lag": dict(alpha=0.9), "lag, moving": dict(alpha=0.9, rule="constant"),
    "lag, eval mode": dict(alpha=0.9, teacher_mode="eval"), "lag, other batches": dict(alpha=0.9, replay="fresh_batch")}
# Where they are tuned: there the teacher has a share by tuning. One that moves, 0.75 epochs away, is as far on average
# as one that rests in blocks of 1.5, so that only rest and motion differ.
LAG_OWN, LAG_OWN_MOVING = "lag, at spaced KD's values", "lag, moving, at spaced KD's values"
OFFSETS = (-4.0, -1.5, -0.5, 0.0, 0.5, 1.5, 4.0)  # epochs
FEW = {"lag, moving": (-1.5, 1.5), LAG_OWN_MOVING: (-0.75, 0.75),  # at offset 0 they equal a teacher that rests
       **dict.fromkeys(("lag, eval mode", "lag, other batches"), (-1.5, 0.0, 1.5))}


def lag_arms(setting: Setting) -> list[Arm]:
    """Make the arms of the lead-lag law: accuracy against the teacher's offset, negative where it is behind.

    All of them learn from labels alone at first.
    """
    start = min(LABELS_FIRST, setting.base.epochs / 2)
    online = replace(of_family(setting, "online KD"), distil_start=start)
    families = {family: replace(online, **changes) for family, changes in LAGS.items()}
    if setting.tuned:
        own = replace(of_family(setting, "spaced KD"), distil_start=start)
        families |= {LAG_OWN: own, LAG_OWN_MOVING: replace(own, rule="constant")}
    return [*named({"baseline": baseline(online)}), *(
        Arm(lag_name(family, s), family, spaced(recipe, s))
        for family, recipe in families.items() for s in FEW.get(family, OFFSETS) if abs(s) <= start)]


def lag_name(family: str, offset: float) -> str:
    """Name an arm of the lead-lag law.

    >>> lag_name("lag, moving", 1.5)
    'teacher +1.5, moving'
    """
    return f"teacher {offset:+g}" + family.removeprefix("lag")
