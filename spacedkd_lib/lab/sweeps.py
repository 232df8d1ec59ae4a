"""Runs that share a teacher are trained together: how a grid is cut into sweeps."""

from __future__ import annotations

import hashlib
import json
import shutil
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Iterable

from ..errors import InputError, reading
from ..recipes import Recipe, forward_passes, from_dict, teacher_of
from ..store import records


@dataclass(frozen=True)
class Sweep:
    """Recipes that are trained together because they share a teacher; or a single one.

    folder: of its members' list, checkpoints and log.
    """

    recipes: tuple[Recipe, ...]
    folder: Path

    @property
    def log(self) -> Path:
        """Return the file of all that its training prints."""
        return self.folder / "log.txt"

    @property
    def cost(self) -> float:
        """Count forward passes through a network, up to a factor: an update is three, a look one.

        For order and progress only; `plan` measures.
        """
        each = sum(forward_passes(recipe, self.recipes) for recipe in self.recipes)
        shared = 3 * any(teacher_of(r) not in (None, r) for r in self.recipes)
        return (each + shared) * self.recipes[0].epochs * (self.recipes[0].train_images or 50_000)


def sweeps(missing: list[Recipe], workers: int = 1) -> list[Sweep]:
    """Form sweeps of the recipes that are still to be run, the costliest first.

    A sweep that was interrupted goes on as it was, but for one of several seeds of which some are done. The rest is
    grouped by teacher, and large groups are split while there are fewer sweeps than workers.
    """
    begun, taken = [], set()
    for path in sorted((records.runs_folder() / ".sweeps").glob("*/members.json")):
        listed = _members(path)
        members = [recipe for recipe in listed if records.load(recipe) is None]
        ids = {recipe.run_id for recipe in members}
        if listed and not ids:  # killed after its last record
            forget(path.parent)
        broken = len({recipe.seed for recipe in members}) > 1 and len(members) < len(listed)
        if ids & {recipe.run_id for recipe in missing} and not ids & taken and not broken:
            begun.append(Sweep(tuple(members), path.parent))
            taken |= ids
    groups: dict[str, list[Recipe]] = {}
    for recipe in missing:
        if recipe.run_id not in taken:
            groups.setdefault((teacher_of(recipe) or recipe).run_id, []).append(recipe)
    new = [sweep_of(group) for group in groups.values()]
    while len(begun) + len(new) < workers and max((len(sweep.recipes) for sweep in new), default=0) > 1:
        largest = max(new, key=lambda sweep: len(sweep.recipes))
        new.remove(largest)
        new += [sweep_of(largest.recipes[::2]), sweep_of(largest.recipes[1::2])]
    return sorted(begun + new, key=lambda sweep: sweep.cost, reverse=True)


def of_several_seeds(planned: list[Sweep]) -> list[Sweep]:
    """Join sweeps that are equal but for the seed, learn from the same pictures and can be trained together.

    See training/stacked.py. A sweep that was begun goes on as it was.
    """
    from ..data import datasets
    from ..training import stacked
    groups: dict[object, list[Sweep]] = {}
    for sweep in planned:
        alike = tuple(replace(recipe, seed=datasets.fold(recipe.dataset, recipe.seed)) for recipe in sweep.recipes)
        fits = stacked.fits(alike) and not (sweep.folder / "members.json").exists()
        groups.setdefault(alike if fits else sweep.folder, []).append(sweep)
    return [sweep_of(recipe for sweep in group for recipe in sweep.recipes) if len(group) > 1 else group[0]
            for group in groups.values()]


def sweep_of(recipes: Iterable[Recipe]) -> Sweep:
    """Make the sweep of recipes that share a teacher; its folder is named by their run ids, in any order."""
    recipes = tuple(recipes)
    name = hashlib.sha256(" ".join(sorted(recipe.run_id for recipe in recipes)).encode()).hexdigest()[:12]
    return Sweep(recipes, records.runs_folder() / ".sweeps" / name)


def _members(path: Path) -> list[Recipe]:
    with suppress(InputError), reading(path, ""):  # damaged, of another version, or just removed by another process
        return [from_dict(values) for values in json.loads(path.read_bytes())]
    return []


def forget(folder: Path) -> None:
    """Remove a finished sweep's checkpoints and log; the list of members last, so that what a kill leaves is found."""
    for path in sorted(folder.glob("*"), key=lambda path: path.name == "members.json"):
        with suppress(OSError):  # a folder, which goes with the rest
            path.unlink()
    shutil.rmtree(folder, ignore_errors=True)
