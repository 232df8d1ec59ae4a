"""Exercises of notebook 05, Spaced KD."""

import math

from ...schedule import counts, leads, spaced_schedule
from ..exercises import Exercise, agrees, exactly


def _plain_events(batches: int, interval: int):
    events = spaced_schedule(1, batches, interval / batches)
    return [(e.kind, e.index) for e in events if e.kind != "epoch"]


_PAPER = dict(epochs=80, batches_per_epoch=391, tail="drop")
_PAPER_ONLINE = lambda: counts(spaced_schedule(interval=1.5, **_PAPER))

EXERCISES = {
    "05.1": Exercise("compute", lambda a: "" if math.isclose(a, (m := leads(spaced_schedule(1, 10, 1.0))) and sum(m) / len(m)) else f"{a!r} is not it",
                     ("the lead falls from I to 1 within a block.",) * 3, 10),
    "05.2": Exercise("compute", lambda a: exactly(_PAPER_ONLINE().never)(a),
                     ("31,280 batches in blocks of int(391 x 1.5).",) * 3, 0),
    "05.3": Exercise("compute", agrees([(4, 2), (5, 2), (6, 6), (3, 1)], _plain_events),
                     ("teach a block, then learn the same batches in the same order; the last block may be short.",) * 3, lambda n, i: [("teach", k) for k in range(n)]),
}
