"""Exercises of notebook 03, Online KD."""

import math

from ..exercises import Exercise, agrees, exactly, number


def _softmax(logits, temperature=1.0):
    peak = max(logits)
    e = [math.exp((z - peak) / temperature) for z in logits]
    return [x / sum(e) for x in e]


EXERCISES = {
    "03.1": Exercise("compute", agrees([([1.0, 2.0, 0.5], 3.0), ([4.0, 0.0], 1.0), ([4.0, 0.0], 10.0)],
                             lambda logits, t: _softmax(logits, t)),
                     ("divide the logits by T, then softmax.",) * 3, lambda z, t: z),
    "03.2": Exercise("compute", exactly(9),
                     ("1/T from the softmax and, for large T, 1/T from the difference p - q.",) * 3, 3),
    "03.3": Exercise("compute", number(7 / 3),
                     ("teacher 3 units, its look at the batch 1, student 3; the baseline 3.",) * 3, 2),
}
