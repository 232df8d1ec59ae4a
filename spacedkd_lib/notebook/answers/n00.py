"""Exercises of notebook 00, Start here."""

from dataclasses import replace

from ... import recipes
from ...errors import InputError
from ...schedule import spaced_schedule
from ..exercises import Exercise, choice, exactly


def _how_well(answer) -> str:
    turns = [e.kind for e in spaced_schedule(6, 19, 1.5) if e.kind != "epoch"]
    learnt = turns[:19].count("learn")  # until the teacher has made an epoch
    return choice("guessing" if learnt == 0 else "half as well" if learnt < 19 else "as well")(answer)


def _is_refused(changes) -> str:
    if not isinstance(changes, dict):
        return "give a dictionary of fields and values"
    try:
        replace(recipes.Recipe(), **changes)
    except InputError:
        return ""
    return f"the recipe with {changes!r} is allowed"


EXERCISES = {
    "00.1": Exercise("predict", _how_well, (
        "In the right half of the picture above, who goes first in the lower row?",
        "How many batches has the teacher learnt after one epoch, and how many does a block hold?",
        "The block has 28 batches, and the teacher has made 19 updates. The student's turn has not come."),
        "half as well"),
    "00.2": Exercise("compute", lambda a: exactly(recipes.spaced(recipes.online_kd(recipes.Recipe()), 1.5))(a), (
        "The cell of recipes near the top makes just such a one for digits.",
        "Two functions in turn: one adds the teacher, the other spaces it.",
        "Put skd.online_kd(skd.Recipe()) into skd.spaced, with the interval 1.5."), "spaced"),
    "00.3": Exercise("explain", choice("b"), (
        "How far apart are two seeds of one and the same arm in the table above?",
        "An interval needs a spread, and a spread needs at least two differences.",
        "Equal updates make a comparison fair, not certain; and whether 1.6 points matter is another question."), "a"),
    "00.4": Exercise("break", _is_refused, (
        "skd.describe() lists what each field allows; the appendix shows its units.",
        "Which numbers make no sense: of epochs, of a learning rate, of a share?",
        "A share of weight such as alpha is at most 1, and a run has at least one epoch."), {"epochs": 3}),
}
