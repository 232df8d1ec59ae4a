"""Exercises of notebook 12, Vision transformers."""

import math
from dataclasses import replace

from ... import recipes
from ..exercises import Exercise, agrees, exactly


def _idle_weight(weight, momentum, square, rate, decay, updates):
    for _ in range(updates):
        momentum, square = 0.9 * momentum, 0.999 * square
        weight = (1 - rate * decay) * weight - rate * momentum / math.sqrt(square)
    return weight


_DEIT = recipes.online_kd(recipes.transformer(recipes.Recipe()))

EXERCISES = {
    "12.1": Exercise("compute", exactly((224 // 16) ** 2 + 2),
                     ("patches in a row times patches in a column; then the two others.",) * 3, 197),
    "12.2": Exercise("compute", agrees([(1.0, 0.5, 0.25, 0.1, 0.05, 3), (2.0, 0.0, 1.0, 0.01, 5.0, 10),
                              (0.0, -1.0, 4.0, 0.01, 0.0, 22)], _idle_weight),
                     ("in each update m becomes 0.9 m and v 0.999 v first; then the weight decays, and moves by "
                     "m / root v.",) * 3, lambda w, m, v, rate, decay, n: (1 - rate * decay) ** n * w),
    "12.3": Exercise("compute", lambda a: exactly(replace(recipes.preset(recipes.spaced(_DEIT, 1.5), "released"), idle_update="skip"))(a),
                     ("skd.preset gives the released form; then set one field back, or use set_deviation.",) * 3, recipes.spaced(recipes.online_kd(recipes.transformer(recipes.Recipe())), 1.5)),
}
