"""Exercises of notebook 13, Spacing beyond KD."""

import math

from ...methods import dropout_ema
from ...schedule import counts, spaced_schedule
from ..exercises import Exercise, agrees, number

_PAPER = dict(epochs=80, batches_per_epoch=391, tail="drop")

EXERCISES = {
    "13.1": Exercise("compute", number(0.3 * 2 / math.pi),
                     ("the mean of |sin| over a period.",) * 3, 0.15),
    "13.2": Exercise("compute", agrees([(0.9, 3), (0.5, 1), (0.99, 10)], lambda a, n: dropout_ema.average_weights(a, False, n)),
                     ("after each step what was there counts a times as much, and the newest network 1 - a.",) * 3, lambda a, n: [a ** (n - k) for k in range(n + 1)]),
    "13.3": Exercise("compute", number(100 * 0.95 ** counts(spaced_schedule(interval=4.0, **_PAPER)).blocks, 2e-3),
                     ("one step in four epochs, and each leaves the share a of what was there.",) * 3, 64.0),
}
