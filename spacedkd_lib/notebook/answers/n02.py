"""Exercises of notebook 02, Baselines."""

import math

from ..exercises import Exercise, agrees, exactly, number


def _softmax(logits, temperature=1.0):
    peak = max(logits)
    e = [math.exp((z - peak) / temperature) for z in logits]
    return [x / sum(e) for x in e]


EXERCISES = {
    "02.1": Exercise("compute", exactly(16 * 32 * 3 * 3),
                     ("one 3 x 3 kernel for each pair of an input and an output channel.",) * 3, 512),
    "02.2": Exercise("compute", agrees([([1.0, 2.0, 0.5], 1), ([0.0, 0.0], 0), ([5.0, -3.0], 1)],
                             lambda logits, label: -math.log(_softmax(logits)[label])),
                     ("minus the logarithm of the softmax at the label.",) * 3, lambda z, y: -z[y]),
    "02.3": Exercise("compute", number(2.776445 * math.sqrt(2.5) / math.sqrt(5)),
                     ("t(0.975, 4) = 2.776; times sd / sqrt(n).",) * 3, 3.1),
}
