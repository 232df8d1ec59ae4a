"""Exercises of notebook 09, The audit."""

import math

from ... import recipes
from ...schedule import counts, spaced_schedule
from ..exercises import Exercise, exactly, number

_PAPER = dict(epochs=80, batches_per_epoch=391, tail="drop")

EXERCISES = {
    "09.1": Exercise("compute", number(-math.log(2) - 0.5),
                     ("sum of q (log q - p) over both classes, natural logarithm.",) * 3, 0.0),
    "09.2": Exercise("compute", lambda a: exactly(counts(spaced_schedule(interval=3.0, **_PAPER)).blocks)(a),
                     ("the student changes only in a replay: how often does int(391 x 3) fit into 80 epochs?",) * 3, 27),
    "09.3": Exercise("compute", lambda a: exactly(recipes.set_deviation(recipes.self_kd(recipes.Recipe(), interval=4.0), "A3"))(a),
                     ("set_deviation, or dataclasses.replace with the field that DEVIATIONS[\"A3\"] names.",) * 3, recipes.preset(recipes.self_kd(recipes.Recipe(), interval=4.0), "released")),
}
