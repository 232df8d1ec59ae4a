"""The registry of deviations: where the released programs differ from their methods, each a switch to set alone.

A rows: spaced KD of CNNs; V: of transformers; I and E: IE-KD and Education Distillation; B and M: spaced dropout and
spaced EMA. The presets of released.py are folded from it. No torch here.
"""

from __future__ import annotations

from dataclasses import replace

from ...errors import InputError, nearest
from ..derive import a_recipe
from ..recipe import Recipe, defaults
from . import cnn, dropout_ema, ie_education, transformers
from .deviation import Deviation

DEVIATIONS: dict[str, Deviation] = {
    row.id: row for rows in (cnn, transformers, ie_education, dropout_ema) for row in rows.ROWS}


def deviations_of(letters: str) -> list[Deviation]:
    """Return the deviations whose ids begin with one of these letters, in order."""
    return [row for row in DEVIATIONS.values() if row.id[0] in letters]


def set_deviation(recipe: Recipe, id: str, to: str = "released") -> Recipe:
    """Set one deviation to its released or its clean value, all else as it is.

    Raises:
        InputError: no such id or value, a deviation that the recipe's method does not have, or one whose switch is
            not the recipe's.

    >>> set_deviation(Recipe(method="online_kd"), "A1").soft_loss
    'probability_kl'
    """
    if id not in list(DEVIATIONS):  # which asks for no hash
        raise InputError(nearest("deviation", id, DEVIATIONS))
    if to not in ("clean", "released"):
        raise InputError(nearest("side of a switch", to, ("clean", "released")))
    found = DEVIATIONS[id]
    fields = found.released.get(a_recipe(recipe).method)
    if found.elsewhere:
        raise InputError(f"{id} ({found.title}) is no switch of its own: see {found.elsewhere}.")
    if not fields:
        raise InputError(f"{id} ({found.title}) belongs to {', '.join(found.released)} and the method is "
                         f"{recipe.method}: derive the recipe with the function of that name first.")
    return replace(recipe, **(defaults(fields) if to == "clean" else fields))


def released_fields(method: str, letters: str) -> dict:
    """Return the fields that a method's released program sets, folded from the rows of these letters."""
    return {name: value for row in deviations_of(letters) if row.in_preset
            for name, value in row.released.get(method, {}).items()}


def switches(method: str) -> list[str]:
    """Ids whose switches the preset `released` of a method sets, in which something changes.

    >>> switches("online_kd")
    ['A1', 'A2', 'A7', 'A9', 'A11', 'A13', 'A18', 'A19']
    """
    return [row.id for row in deviations_of("AIEBM")
            if row.in_preset and row.released.get(method, {}) != defaults(row.released.get(method, {}))]
