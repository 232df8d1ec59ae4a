"""Exercises of notebook 01, Data."""

import math

from ..exercises import Exercise, agrees, exactly, number

EXERCISES = {
    "01.1": Exercise("compute", exactly(math.ceil(50_000 / 128)),
                     ("the last batch may be smaller, and it counts.",) * 3, 390),
    "01.2": Exercise("compute", agrees([([2, 0, 1], 3), ([0, 0, 1], 3), ([0, 1], 3), ([3, 1, 2], 3)],
                             lambda indices, n: sorted(indices) == list(range(n))),
                     ("sorted, the indices must read 0, 1, ..., n - 1.",) * 3, lambda i, n: len(i) == n),
    "01.3": Exercise("compute", number(586 * 128 * 3 * 32 * 32 * 4 / 1e6),
                     ("batches x images x numbers an image x 4 bytes.",) * 3, 230.4),
}
