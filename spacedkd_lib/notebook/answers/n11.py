"""Exercises of notebook 11, Education Distillation."""

import math

from ... import recipes
from ..exercises import Exercise, agrees, number


def _softmax(logits, temperature=1.0):
    peak = max(logits)
    e = [math.exp((z - peak) / temperature) for z in logits]
    return [x / sum(e) for x in e]


def _sliced_kl(student, teacher, group, temperature: float) -> float:
    p, q = _softmax([student[k] for k in group], temperature), _softmax(teacher, temperature)
    return sum(b * math.log(b / a) for a, b in zip(p, q))


_HUNDRED = recipes.education(recipes.Recipe(), (33, 33, 34))
_GROWS = recipes.education(recipes.Recipe(epochs=10), (10, 26, 26))
_SEEN = sum(epochs * sum(_GROWS.schools[:grade]) for grade, epochs in enumerate(recipes.grade_lengths(_GROWS), 1))

EXERCISES = {
    "11.1": Exercise("compute", lambda a: "" if sorted(a) == [group[0] for group in recipes.partition(_HUNDRED, 100)[1:]] else f"{a!r} is not it",
                     ("a class that is equal to a bound is neither above it nor below it.",) * 3, [32, 65]),
    "11.2": Exercise("compute", agrees([([1.0, 2.0, 0.5, 0.0], [0.0, 3.0], [1, 3], 4.0), ([4.0, 0.0], [1.0, 2.0], [1, 0], 1.0)],
                             _sliced_kl),
                     ("take the group's logits first, divide both by T, then softmax; no T squared here.",) * 3, lambda student, teacher, group, t: _sliced_kl(student, teacher, group, 1.0)),
    "11.3": Exercise("compute", number(_SEEN / (62 * 10)),
                     ("an epoch of grade 1 has 10 of 62 classes, one of grade 2 has 36.",) * 3, 36 / 62),
}
