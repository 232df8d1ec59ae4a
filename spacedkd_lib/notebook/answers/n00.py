"""Exercises of notebook 00, Start here."""

from dataclasses import replace

from ... import recipes
from ...errors import InputError
from ...schedule import interval_batches, spaced_schedule
from ..exercises import Exercise, choice, exactly


def _first_epoch(answer) -> str:
    """Test for the teacher's epoch at whose end a student of s = 6 has first learnt something."""
    events = list(spaced_schedule(6, 19, 6))
    begun = [event.kind for event in events].index("learn")
    return exactly(next(event.index for event in events[begun:] if event.kind == "epoch"))(answer)


def _blocks(answer) -> str:
    block = interval_batches(19, 0.5)
    return exactly((block, 6 * 19 % block))(tuple(answer))


def _is_refused(changes) -> str:
    if not isinstance(changes, dict):
        return "give a dictionary of fields and values"
    try:
        replace(recipes.Recipe(), **changes)
    except InputError:
        return ""
    return f"the recipe with {changes!r} is allowed"


EXERCISES = {
    "00.1": Exercise("predict", _first_epoch, (
        "In the right half of the first picture, who goes first in the lower row?",
        "How many batches has a block, and how many has the whole training?",
        "Both have 114. The student's turn comes when its teacher has made the last of them."), 1),
    "00.2": Exercise("change", lambda a: exactly(recipes.spaced(recipes.online_kd(recipes.Recipe()), 1.5))(a), (
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
    "00.5": Exercise("compute", _blocks, (
        "A block of s epochs holds s times 19 batches, and there are no half batches.",
        "0.5 x 19 is rounded down. How many whole blocks fit into 114 batches?",
        "Twelve blocks of 9 are 108 batches; the rest of the 114 makes the last block."), (9, 9)),
}
