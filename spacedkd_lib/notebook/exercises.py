"""Exercises of the notebooks: `check(name, answer)` says whether an answer is right.

Solutions: notebooks/solutions.ipynb. The right answers are computed here, by the library that the notebooks teach,
and not written down.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Callable, NamedTuple

from .. import recipes
from ..analysis import theory
from ..errors import InputError, nearest
from ..lab import grids
from ..methods import dropout_ema
from ..schedule import counts, leads, spaced_schedule


class Exercise(NamedTuple):
    """An exercise's test of an answer, and a hint."""

    right: Callable[[object], bool]
    hint: str


def check(name: str, answer) -> None:
    """Print whether the answer to exercise `name` ("05.1") is right; a wrong one gets a hint.

    Raises:
        InputError: there is no such exercise.
    """
    if name not in EXERCISES:
        raise InputError(nearest("exercise", name, EXERCISES))
    if answer is None:
        print(f"Exercise {name}: not answered yet.")
        return
    exercise = EXERCISES[name]
    try:
        right = exercise.right(answer)
    except Exception as error:  # a learner's function may fail in any way
        print(f"Exercise {name}: your answer raised {type(error).__name__}: {error}. Hint: {exercise.hint}")
        return
    print(f"Exercise {name}: right." if right else f"Exercise {name}: not yet. Hint: {exercise.hint}")


def _number(value: float, tolerance: float = 1e-2) -> Callable[[object], bool]:
    return lambda answer: math.isclose(answer, value, rel_tol=tolerance)


def _whole(value: int) -> Callable[[object], bool]:
    return lambda answer: answer == value


def _agrees(cases, truth: Callable) -> Callable[[object], bool]:
    """Return a test: a learner's function gives what `truth` gives on every case."""
    def right(function) -> bool:
        return all(_close(function(*case), truth(*case)) for case in cases)
    return right


def _close(got, want) -> bool:
    if isinstance(want, (list, tuple)):
        return len(got) == len(want) and all(_close(g, w) for g, w in zip(got, want))
    if isinstance(want, float):
        return math.isclose(got, want, rel_tol=1e-4, abs_tol=1e-9)
    return got == want


def _softmax(logits, temperature=1.0):
    peak = max(logits)
    e = [math.exp((z - peak) / temperature) for z in logits]
    return [x / sum(e) for x in e]


def _plain_events(batches: int, interval: int):
    events = spaced_schedule(1, batches, interval / batches)
    return [(e.kind, e.index) for e in events if e.kind != "epoch"]


def _fgsm(pixels, slopes, radius):
    return [min(max(x + radius * ((g > 0) - (g < 0)), 0.0), 1.0) for x, g in zip(pixels, slopes)]


def _filter_normalised(weights, noise):
    return [[x * math.hypot(*row) / math.hypot(*drawn) for x in drawn] for row, drawn in zip(weights, noise)]


def _factor_distance(student, teacher):
    one, other = ([x / math.hypot(*v) for x in v] for v in (student, teacher))
    return sum(abs(a - b) for a, b in zip(one, other)) / len(student)


def _variance_ratio(step: float, s: int, alpha: float) -> float:
    problem = theory.Regression(curvature=(step,))
    return float(theory.student_variance(problem, 1.0, alpha, s)[0] / theory.sgd_variance(problem, 1.0)[0])


def _worst_lead(step: float, alpha: float) -> int:
    problem = theory.Regression(curvature=(step,))
    return max(range(int(2 / step)), key=lambda lead: theory.constant_lead_variance(problem, 1.0, alpha, lead)[0])


def _sliced_kl(student, teacher, group, temperature: float) -> float:
    p, q = _softmax([student[k] for k in group], temperature), _softmax(teacher, temperature)
    return sum(b * math.log(b / a) for a, b in zip(p, q))


def _idle_weight(weight, momentum, square, rate, decay, updates):
    for _ in range(updates):
        momentum, square = 0.9 * momentum, 0.999 * square
        weight = (1 - rate * decay) * weight - rate * momentum / math.sqrt(square)
    return weight


_DEIT = recipes.online_kd(recipes.transformer(recipes.Recipe()))
_HUNDRED = recipes.education(recipes.Recipe(), (33, 33, 34))
_GROWS = recipes.education(recipes.Recipe(epochs=10), (10, 26, 26))
_SEEN = sum(epochs * sum(_GROWS.schools[:grade]) for grade, epochs in enumerate(recipes.grade_lengths(_GROWS), 1))
_PAPER = dict(epochs=80, batches_per_epoch=391, tail="drop")
_PAPER_ONLINE = lambda: counts(spaced_schedule(interval=1.5, **_PAPER))
_PAPER_SELF = lambda: counts(spaced_schedule(interval=4.0, counter="epoch_early", teach_last=False, **_PAPER))

EXERCISES = {
    "00.1": Exercise(lambda a: a == len(grids.grid("quick", "05_spaced_kd")),
                     "arms x settings x seeds; `skd.grid` gives the rows."),
    "00.2": Exercise(lambda a: a == recipes.spaced(recipes.online_kd(recipes.Recipe()), 1.5),
                     "start from skd.online_kd(skd.Recipe()) and use skd.spaced."),
    "00.3": Exercise(lambda a: a == "seed", "one field decides initial weights, order and augmentation."),
    "01.1": Exercise(_whole(math.ceil(50_000 / 128)), "the last batch may be smaller, and it counts."),
    "01.2": Exercise(_agrees([([2, 0, 1], 3), ([0, 0, 1], 3), ([0, 1], 3), ([3, 1, 2], 3)],
                             lambda indices, n: sorted(indices) == list(range(n))),
                     "sorted, the indices must read 0, 1, ..., n - 1."),
    "01.3": Exercise(_number(586 * 128 * 3 * 32 * 32 * 4 / 1e6), "batches x images x numbers an image x 4 bytes."),
    "02.1": Exercise(_whole(16 * 32 * 3 * 3), "one 3 x 3 kernel for each pair of an input and an output channel."),
    "02.2": Exercise(_agrees([([1.0, 2.0, 0.5], 1), ([0.0, 0.0], 0), ([5.0, -3.0], 1)],
                             lambda logits, label: -math.log(_softmax(logits)[label])),
                     "minus the logarithm of the softmax at the label."),
    "02.3": Exercise(_number(2.776445 * math.sqrt(2.5) / math.sqrt(5)), "t(0.975, 4) = 2.776; times sd / sqrt(n)."),
    "03.1": Exercise(_agrees([([1.0, 2.0, 0.5], 3.0), ([4.0, 0.0], 1.0), ([4.0, 0.0], 10.0)],
                             lambda logits, t: _softmax(logits, t)), "divide the logits by T, then softmax."),
    "03.2": Exercise(_whole(9), "1/T from the softmax and, for large T, 1/T from the difference p - q."),
    "03.3": Exercise(_number(7 / 3), "teacher 3 units, its look at the batch 1, student 3; the baseline 3."),
    "04.1": Exercise(_number(0.5), "a ReLU gives at least 0; what is sigmoid(0)?"),
    "04.2": Exercise(lambda a: a == _PAPER_SELF().teach + _PAPER_SELF().learn,
                     "count teach and learn events: counter='epoch_early', tail='drop', teach_last=False."),
    "04.3": Exercise(_agrees([([[1.0, 2.0], [3.0, 0.0]],), ([[0.0, 1.0, 5.0]],)],
                             lambda exits: [sum(column) / len(exits) for column in zip(*exits)]),
                     "average class by class over the exits."),
    "05.1": Exercise(lambda a: math.isclose(a, (m := leads(spaced_schedule(1, 10, 1.0))) and sum(m) / len(m)),
                     "the lead falls from I to 1 within a block."),
    "05.2": Exercise(lambda a: a == _PAPER_ONLINE().never, "31,280 batches in blocks of int(391 x 1.5)."),
    "05.3": Exercise(_agrees([(4, 2), (5, 2), (6, 6), (3, 1)], _plain_events),
                     "teach a block, then learn the same batches in the same order; the last block may be short."),
    "06.1": Exercise(_number(1 / 9), "f(3w) of the new weights is f(w) of the old: differentiate twice."),
    "06.2": Exercise(_number(0.5 * 4 * 0.5 ** 2), "uphill along the eigenvector of the largest eigenvalue."),
    "06.3": Exercise(_agrees([([[3.0, 4.0], [0.0, 2.0]], [[1.0, 0.0], [3.0, 4.0]])] * 2, _filter_normalised),
                     "each row of the direction: divide by its own norm, multiply by that of the weights' row."),
    "07.1": Exercise(_number(8 / 255), "no pixel is so near to 0 or 1 that it would be cut."),
    "07.2": Exercise(_number(100 * 50 / 80), "it is still right on 50."),
    "07.3": Exercise(_agrees([([0.2, 0.99, 0.0], [0.3, 2.0, -1.0], 0.1), ([0.5, 0.5], [-4.0, 0.0], 0.25)], _fgsm),
                     "x + r sign(g), then no less than 0 and no more than 1; the sign of 0 is 0."),
    "08.1": Exercise(lambda a: _number(_variance_ratio(1e-6, 1, 0.5), 1e-3)(a), "let A go to 1 in the formula."),
    "08.2": Exercise(_agrees([(0.05, 1, 0.3), (0.2, 4, 0.5), (1.5, 3, 1.0)], _variance_ratio),
                     "a = 1 - step, A = a ** s, and the three terms of the formula."),
    "08.3": Exercise(lambda a: a == _worst_lead(0.01, 0.3), "half a memory; or try `theory.constant_lead_variance`."),
    "09.1": Exercise(_number(-math.log(2) - 0.5), "sum of q (log q - p) over both classes, natural logarithm."),
    "09.2": Exercise(lambda a: a == counts(spaced_schedule(interval=3.0, **_PAPER)).blocks,
                     "the student changes only in a replay: how often does int(391 x 3) fit into 80 epochs?"),
    "09.3": Exercise(lambda a: a == recipes.set_deviation(recipes.self_kd(recipes.Recipe(), interval=4.0), "A3"),
                     "set_deviation, or dataclasses.replace with the field that DEVIATIONS[\"A3\"] names."),
    "10.1": Exercise(_number(500 * (512 / 2048) ** 0.5), "a mean over D elements pulls like one over the root of D."),
    "10.2": Exercise(_agrees([([3.0, 4.0], [0.0, 2.0]), ([1.0, 1.0, 1.0], [-2.0, 0.0, 2.0]), ([5.0], [2.0])],
                             _factor_distance),
                     "divide each list by its own Euclidean length, then average the absolute differences."),
    "10.3": Exercise(lambda a: a == recipes.spaced(recipes.ie_kd(recipes.Recipe()), 1.5, explore_encoder="frozen"),
                     "skd.spaced takes further fields; which one says that the encoder stays as drawn?"),
    "11.1": Exercise(lambda a: sorted(a) == [group[0] for group in recipes.partition(_HUNDRED, 100)[1:]],
                     "a class that is equal to a bound is neither above it nor below it."),
    "11.2": Exercise(_agrees([([1.0, 2.0, 0.5, 0.0], [0.0, 3.0], [1, 3], 4.0), ([4.0, 0.0], [1.0, 2.0], [1, 0], 1.0)],
                             _sliced_kl),
                     "take the group's logits first, divide both by T, then softmax; no T squared here."),
    "11.3": Exercise(_number(_SEEN / (62 * 10)), "an epoch of grade 1 has 10 of 62 classes, one of grade 2 has 36."),
    "12.1": Exercise(_whole((224 // 16) ** 2 + 2), "patches in a row times patches in a column; then the two others."),
    "12.2": Exercise(_agrees([(1.0, 0.5, 0.25, 0.1, 0.05, 3), (2.0, 0.0, 1.0, 0.01, 5.0, 10),
                              (0.0, -1.0, 4.0, 0.01, 0.0, 22)], _idle_weight),
                     "in each update m becomes 0.9 m and v 0.999 v first; then the weight decays, and moves by "
                     "m / root v."),
    "12.3": Exercise(lambda a: a == replace(recipes.preset(recipes.spaced(_DEIT, 1.5), "released"), idle_update="skip"),
                     "skd.preset gives the released form; then set one field back, or use set_deviation."),
    "13.1": Exercise(_number(0.3 * 2 / math.pi), "the mean of |sin| over a period."),
    "13.2": Exercise(_agrees([(0.9, 3), (0.5, 1), (0.99, 10)], lambda a, n: dropout_ema.average_weights(a, False, n)),
                     "after each step what was there counts a times as much, and the newest network 1 - a."),
    "13.3": Exercise(_number(100 * 0.95 ** counts(spaced_schedule(interval=4.0, **_PAPER)).blocks, 2e-3),
                     "one step in four epochs, and each leaves the share a of what was there."),
}
