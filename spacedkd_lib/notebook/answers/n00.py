"""Exercises of notebook 00, Start here."""

from dataclasses import replace

from ... import recipes
from ...errors import InputError
from ..exercises import Exercise, exactly


def _is_refused(changes) -> str:
    if not isinstance(changes, dict):
        return "give a dictionary of fields and values"
    try:
        replace(recipes.Recipe(), **changes)
    except InputError:
        return ""
    return f"the recipe with {changes!r} is allowed"


EXERCISES = {
    "00.1": Exercise("predict", exactly(6), (
        "In the right half of the first picture, who goes first in the lower row?",
        "How many batches has a block, and how many has the whole training?",
        "Both have 114. The student's turn comes when its teacher has made the last of them.")),
    "00.2": Exercise("change", exactly(recipes.spaced(recipes.online_kd(recipes.Recipe()), 1.5)), (
        "The cell of recipes near the top makes just such a one for digits.",
        "Two functions in turn: one adds the teacher, the other spaces it.",
        "Put skd.online_kd(skd.Recipe()) into skd.spaced, with the interval 1.5.")),
    "00.3": Exercise("explain", exactly("b"), (
        "How far apart are two seeds of one and the same arm in the table above?",
        "An interval needs a spread, and a spread needs at least two differences.",
        "Equal updates make a comparison fair, not certain; and whether 1.6 points matter is another question.")),
    "00.4": Exercise("break", _is_refused, (
        "skd.describe() lists what each field allows; the appendix shows its units.",
        "Which numbers make no sense: of epochs, of a learning rate, of a share?",
        "A share of weight such as alpha is at most 1, and a run has at least one epoch.")),
    "00.5": Exercise("compute", lambda answer: exactly((9, 6))(tuple(answer)), (
        "A block of s epochs holds s times 19 batches, and there are no half batches.",
        "0.5 x 19 is rounded down. How many whole blocks fit into 114 batches?",
        "Twelve blocks of 9 are 108 batches; the rest of the 114 makes the last block.")),
}
