"""The grid of a profile: recipes x seeds, by notebook, setting and arm. Several notebooks may need one run."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Iterable

from ..errors import InputError, nearest
from ..recipes import Recipe, distinct
from . import tuning
from .arms import ARMS, MAIN, Setting, arms_of
from .profiles import NOTEBOOKS, Profile, profile


@dataclass(frozen=True)
class Row:
    """One run of a grid. arm, family: see `arms.Arm`."""

    notebook: str
    setting: str
    arm: str
    seed: int
    recipe: Recipe
    family: str = ""


def grid(profile_name: str, notebook: str | None = None, seeds: int = 0) -> list[Row]:
    """Return the runs of a profile, or of one of its notebooks.

    Args:
        profile_name: one of `PROFILES`.
        notebook: e.g. "05_spaced_kd"; None for all.
        seeds: how many seeds; 0 for the profile's own number.

    Raises:
        InputError: unknown profile or notebook, or seeds that are no number of at least 0.
    """
    chosen = profile(profile_name)
    if notebook is not None and notebook not in NOTEBOOKS:
        raise InputError(nearest("notebook", notebook, NOTEBOOKS))
    if not hasattr(seeds, "__index__") or seeds < 0:
        raise InputError(f"seeds = {seeds!r} is out of range: give a positive count, or 0 for the profile's "
                         f"{chosen.seeds}.")
    return [Row(name, setting.label, arm.name, seed, replace(arm.recipe, seed=seed), arm.family)
            for name in ARMS if notebook in (None, name)
            for setting in chosen.settings
            for arm in arms_of(setting, name)
            for seed in map(tuning.check_seed, seeds_of(chosen, setting, name, seeds))]


def tuned_grid(profile_name: str, notebook: str | None = None) -> list[Row]:
    """Return the runs of `grid`, without the notebooks that need values which are not tuned yet."""
    rows = []
    for name in [notebook] if notebook else ARMS:
        with suppress(tuning.NotTuned):
            rows += grid(profile_name, name)
    return rows


def seeds_of(chosen: Profile, setting: Setting, notebook: str, seeds: int = 0) -> range:
    """Return the seeds of a setting's arms in a notebook; `seeds`: another number of them."""
    count = seeds or notebook in MAIN and setting.seeds or chosen.seeds
    return range(chosen.first, chosen.first + count)


def unique(rows: Iterable[Row]) -> list[Recipe]:
    """Return the recipes of a grid, each once, in order."""
    return distinct(row.recipe for row in rows)


def folder(profile_name: str, seeds: int = 0) -> str:
    """Folder under results/ and figures/: the profile's own, or one apart for other numbers of seeds."""
    chosen = profile(profile_name)
    own = not seeds or seeds == chosen.seeds and not any(setting.seeds for setting in chosen.settings)
    return profile_name if own else f"{profile_name}-{seeds}-seeds"
