"""Exercises of notebook 10, IE-KD."""

import math

from ... import recipes
from ..exercises import Exercise, agrees, exactly, number


def _factor_distance(student, teacher):
    one, other = ([x / math.hypot(*v) for x in v] for v in (student, teacher))
    return sum(abs(a - b) for a, b in zip(one, other)) / len(student)


EXERCISES = {
    "10.1": Exercise("compute", number(500 * (512 / 2048) ** 0.5),
                     ("a mean over D elements pulls like one over the root of D.",) * 3, 125),
    "10.2": Exercise("compute", agrees([([3.0, 4.0], [0.0, 2.0]), ([1.0, 1.0, 1.0], [-2.0, 0.0, 2.0]), ([5.0], [2.0])],
                             _factor_distance),
                     ("divide each list by its own Euclidean length, then average the absolute differences.",) * 3, lambda s, t: sum(abs(a - b) for a, b in zip(s, t)) / len(s)),
    "10.3": Exercise("compute", lambda a: exactly(recipes.spaced(recipes.ie_kd(recipes.Recipe()), 1.5, explore_encoder="frozen"))(a),
                     ("skd.spaced takes further fields; which one says that the encoder stays as drawn?",) * 3, recipes.ie_kd(recipes.Recipe(), interval=1.5, explore_weight=0.0)),
}
