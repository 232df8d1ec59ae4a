"""Exercises of notebook 08, Theory."""

from ...schedule import spaced_schedule
from ..exercises import Exercise, agrees, exactly, number

_REPORTS, _STEP, _ALPHA = (2, -2, 4), 0.5, 0.5  # of exercise 08.4


def _behind(blocks: int, s: int) -> list[tuple[str, int]]:
    return [event[:2] for event in spaced_schedule(1, blocks * s, -1 / blocks) if event.kind != "epoch"]


def _swaps_the_roles(answer) -> str:
    return agrees([(2, 3), (4, 1), (3, 4)], _behind)(lambda blocks, s: [tuple(pair) for pair in answer(blocks, s)])


def _dial(start: float, reports, alpha: float = 0.0, teacher: float = 0.0) -> float:
    for c in reports:
        start -= _STEP * (start - (1 - alpha) * c - alpha * teacher)
    return start


def _another_end(answer) -> str:
    if sorted(answer) != sorted(_REPORTS):
        return f"{answer} does not hold each of the reports {_REPORTS} once"
    teacher, left = _dial(0.0, _REPORTS), (1 - _STEP) ** len(_REPORTS)
    formula = (1 - _ALPHA) * teacher + _ALPHA * (1 - left) * teacher  # both start at 0, so N is the teacher's end
    found = _dial(0.0, answer, _ALPHA, teacher)
    return "" if abs(found - formula) > 1e-9 else f"the student ends at {found:.6f}, as the formula says"


EXERCISES = {
    "08.1": Exercise("predict", exactly("higher"),
                     ("where is the student at the end of a very long replay?",
                      "a share A of its own start is left, and A is nearly 0 then.",
                      "with A = 0 the long step gives w' = theta': the student is the teacher.")),
    "08.2": Exercise("compute", number(5 / 8, 1e-3),
                     ("for very small steps, what is A?", "with A = 1 the two fractions are 1/2 each.",
                      "the three terms are 1/4, 2 * 1/4 * 1/2 and 1/4 * 1/2: add them.")),
    "08.3": Exercise("change", _swaps_the_roles,
                     ("which two lines of `ahead` have to change places?",
                      "in each block come all \"learn\" first, then all \"teach\", of the same numbers.",
                      "list the pairs; `for first in range(0, blocks * s, s)` stays as it is.")),
    "08.4": Exercise("break", _another_end,
                     ("later reports weigh more than earlier ones.",
                      "the same three numbers in another order reach the student with other weights.",
                      "four orders will do: any but (2, -2, 4) and (-2, 4, 2).")),
    "08.5": Exercise("explain", exactly("b"),
                     ("write the two differences as formulas: which arm stands in both?",
                      "what happens to each difference if the runs of online KD are unlucky?",
                      "unlucky runs of online KD lower the first difference and raise the second.")),
}
