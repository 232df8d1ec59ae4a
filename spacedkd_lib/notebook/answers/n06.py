"""Exercises of notebook 06, The loss landscape."""

import math

from ..exercises import Exercise, agrees, number


def _filter_normalised(weights, noise):
    return [[x * math.hypot(*row) / math.hypot(*drawn) for x in drawn] for row, drawn in zip(weights, noise)]


EXERCISES = {
    "06.1": Exercise("compute", number(1 / 9),
                     ("f(3w) of the new weights is f(w) of the old: differentiate twice.",) * 3, 9),
    "06.2": Exercise("compute", number(0.5 * 4 * 0.5 ** 2),
                     ("uphill along the eigenvector of the largest eigenvalue.",) * 3, 1.0),
    "06.3": Exercise("compute", agrees([([[3.0, 4.0], [0.0, 2.0]], [[1.0, 0.0], [3.0, 4.0]])] * 2, _filter_normalised),
                     ("each row of the direction: divide by its own norm, multiply by that of the weights' row.",) * 3, lambda weights, noise: noise),
}
