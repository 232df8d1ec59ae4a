"""Exercises of notebook 04, Self KD."""

from ...schedule import counts, spaced_schedule
from ..exercises import Exercise, agrees, exactly, number

_PAPER = dict(epochs=80, batches_per_epoch=391, tail="drop")
_PAPER_SELF = lambda: counts(spaced_schedule(interval=4.0, counter="epoch_early", teach_last=False, **_PAPER))

EXERCISES = {
    "04.1": Exercise("compute", number(0.5),
                     ("a ReLU gives at least 0; what is sigmoid(0)?",) * 3, 0.0),
    "04.2": Exercise("compute", lambda a: exactly(_PAPER_SELF().teach + _PAPER_SELF().learn)(a),
                     ("count teach and learn events: counter='epoch_early', tail='drop', teach_last=False.",) * 3, 31280),
    "04.3": Exercise("compute", agrees([([[1.0, 2.0], [3.0, 0.0]],), ([[0.0, 1.0, 5.0]],)],
                             lambda exits: [sum(column) / len(exits) for column in zip(*exits)]),
                     ("average class by class over the exits.",) * 3, lambda e: e[0]),
}
