"""Whether a stored record is what today's code would make. No torch here.

A record names the hash of the engine that made it. Where only that differs, a few updates of the run are made again and
compared with its fingerprint (training/fingerprint.py). A renamed module costs a second then; a changed loss is found.
"""

from __future__ import annotations

import hashlib
import math
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Iterable

from ..recipes import Recipe, plugins
from .records import PUBLISHED, Record, runs_folder, write_atomically, writing

ENGINE = ("recipes", "data", "models", "methods", "training")
TOLERANCE = 1e-4  # ours: relative, between numbers of two processors or versions; a few updates round by less


@cache
def code_sha256(rooms: tuple[str, ...] = ENGINE) -> str:
    """Hash the engine, which decides a run's numbers; the rooms above it may change in mid-run. Or hash other rooms."""
    package, digest = Path(__file__).parents[1], hashlib.sha256()
    paths = [path for room in rooms for path in sorted((package / room).rglob("*.py"))]
    for path in [package / "schedule.py", *paths]:
        if "deviations" not in path.parts:
            digest.update(path.read_bytes())
    return digest.hexdigest()


def code_of(recipes: Iterable[Recipe]) -> str:
    """Hash the engine, and the plugins that recipes name."""
    used = sorted({item for recipe in recipes for item in plugins.hashes(recipe).items()})
    return hashlib.sha256(f"{code_sha256()} {used}".encode()).hexdigest() if used else code_sha256()


def made_by_this_code(record: Record) -> bool:
    """Whether today's engine and plugins made the record, or have been found to make the same numbers.

    A published record that was laid here is shown as it is.
    """
    folder = runs_folder() / record.run_id
    return (folder / PUBLISHED).exists() or code_of([record.recipe]) in (record.provenance.get("code_sha256"),
                                                                         *_verified(record.recipe))


def same_numbers(record: Record, today: dict) -> bool:
    """Whether a record's fingerprint is today's: bit for bit where both were made alike, else within `TOLERANCE`.

    Args:
        today: from `fingerprint.fingerprint`; a record without one, or with a foreign one, agrees with none.
    """
    kept = record.provenance.get("fingerprint")
    with suppress(KeyError, TypeError, ValueError):
        tolerance = 0.0 if kept["made_on"] == today["made_on"] else TOLERANCE
        return (kept["events"], kept["data"]) == (today["events"], today["data"]) and all(
            math.isclose(was, now, rel_tol=tolerance, abs_tol=tolerance) or math.isnan(was) and math.isnan(now)
            for was, now in zip(kept["numbers"], today["numbers"], strict=True))
    return False


def remember_verified(recipe: Recipe) -> None:
    """Remember that today's engine makes the numbers of the recipe's record."""
    write_atomically(_note(recipe), "\n".join([*_verified(recipe), code_of([recipe])]))


def supersede(recipe: Recipe) -> Path:
    """Move a run aside, so that it is trained anew; return where it is now."""
    folder = runs_folder() / recipe.run_id
    aside = runs_folder() / ".superseded" / f"{recipe.run_id}-{time.time_ns()}"
    with writing(aside), suppress(FileNotFoundError):  # another process was first
        aside.parent.mkdir(exist_ok=True)
        folder.rename(aside)
    return aside


def _note(recipe: Recipe) -> Path:
    return runs_folder() / recipe.run_id / "verified.txt"


def _verified(recipe: Recipe) -> list[str]:
    with suppress(OSError):
        return _note(recipe).read_text(errors="replace").split()
    return []
