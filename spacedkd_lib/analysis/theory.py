"""Spaced KD where everything can be computed: SGD with label noise on linear regression.

This is our model, not the paper's theorem. Labels are y = <x, w*> + noise. In every batch the mean of x x^T is H, and
g, the mean of x times the label noise, is normal with variance sigma^2 lambda / B, each direction for itself. All
weights here are errors, that is minus w*, in the eigenbasis of H: the optimum is 0, and direction i has curvature
lambda_i. With steps of size eta:

    teacher    theta <- theta - eta (H theta - g)
    student    w     <- w - eta (H w - (1 - alpha) g - alpha H theta'),    theta': the teacher as it is then

Over an interval of s batches the teacher's steps compound to theta <- P theta + N, where P is the product of
I - eta H. The student replays the same batches while the teacher, theta', rests; its steps telescope to

    w <- P w + (1 - alpha) N + alpha (I - P) theta'

for every sequence of batches: at the ends of its intervals spaced KD is online KD with P in place of one step's
I - eta H. A teacher that is behind rests at its state before the block and learns the block after the student, so theta
takes the place of theta'. All second moments follow.

Shapes: d directions, R repeats of a simulation, T batches. Taught in notebooks/08_theory.ipynb.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Iterable, Iterator, NamedTuple, Sequence

import numpy as np

from ..errors import InputError


@dataclass(frozen=True)
class Regression:
    """The problem. All defaults are ours.

    curvature: eigenvalues of H, [d], all above 0. noise: standard deviation sigma of a label. batch_size: B.
    """

    curvature: tuple[float, ...] = (1.0,)
    noise: float = 1.0
    batch_size: int = 8

    @property
    def eigenvalues(self) -> np.ndarray:
        """Return the eigenvalues of the inputs' covariance, [d]."""
        return np.asarray(self.curvature, dtype=float)


class Moments(NamedTuple):
    """E[w^2], E[w theta] and E[theta^2] of each direction; [d], or [K, d] at K moments of a training."""

    student: np.ndarray
    cross: np.ndarray
    teacher: np.ndarray


def _check(problem: Regression, rates: float | Sequence[float], alpha: float = 0.0, interval: int = 1) -> None:
    """Raise InputError for an alpha or interval out of range, or step sizes at which SGD does not come to rest."""
    if not 0 <= alpha <= 1:
        raise InputError(f"alpha = {alpha} is out of range: give the weight of the teacher, from 0 to 1.")
    if interval == 0:
        raise InputError("interval = 0 is out of range: give a whole number of batches, 1 for online KD, below 0 for a "
                         "teacher that is behind.")
    if not 0 < np.max(rates) * max(problem.curvature) < 2:
        raise InputError(f"With a step size of {np.max(rates):g} SGD does not train: give more than 0 and less than "
                         f"2 / {max(problem.curvature):g}.")


# At rest

def sgd_variance(problem: Regression, lr: float) -> np.ndarray:
    """Stationary variance of plain SGD, hence of the teacher, [d]: eta sigma^2 / (B (2 - eta lambda)).

    Raises:
        InputError: a step size at which SGD diverges.

    >>> sgd_variance(Regression(curvature=(1.0,), noise=1.0, batch_size=1), lr=0.5).round(4)
    array([0.3333])
    """
    _check(problem, lr)
    return lr * problem.noise ** 2 / problem.batch_size / (2 - lr * problem.eigenvalues)


def student_variance(problem: Regression, lr: float, alpha: float, interval: int, fresh: bool = False) -> np.ndarray:
    """Stationary variance of the spaced student at the ends of intervals, [d]; see `stationary`.

    >>> problem = Regression(curvature=(1.0,), noise=1.0, batch_size=1)
    >>> (student_variance(problem, 0.001, 0.3, interval=1) / sgd_variance(problem, 0.001)).round(3)
    array([0.745])
    """
    return stationary(problem, lr, alpha, interval, fresh).student


def constant_lead_variance(problem: Regression, lr: float, alpha: float, lead: int, fresh: bool = False) -> np.ndarray:
    """Stationary variance of a student whose teacher is always `lead` updates ahead, [d].

    lead 1 is online KD; lead 0 asks the teacher before its update (A7); below 0 it is behind. Other arguments and
    errors as in `moments`.
    """
    _check(problem, lr, alpha)
    step = 1 - lr * problem.eigenvalues
    seen = lead * step ** (lead - 1) if lead > 0 else 0.0  # by the teacher, of the student's last batches
    overlap = 0.0 if fresh else (1 - step) * (seen + step ** (abs(lead) + 1) / (1 - step ** 2))
    copied = (1 + step ** 2) / (1 + step) ** 2  # of the teacher's variance, by a student without labels
    return sgd_variance(problem, lr) * (
        (1 - alpha) ** 2 + 2 * alpha * (1 - alpha) * overlap + alpha ** 2 * copied)


def lead_lag(problem: Regression, lr: float, alpha: float, offsets: Sequence[int], moving: bool = False,
             fresh: bool = False) -> np.ndarray:
    """Compute this model's law of lead and lag: the student's variance over its teacher's at rest, by offset, [K, d].

    Args:
        offsets: of the teacher in batches, [K]; negative where it is behind, 0 for online KD.
        moving: the teacher is always so far away; otherwise it rests while the student learns a block.
        lr, alpha, fresh: as in `stationary`.

    Raises:
        InputError: as `constant_lead_variance` if moving, else as `stationary`.

    >>> lead_lag(Regression(), 0.02, 0.3, [-60, -20, 0, 20, 60]).round(2).ravel()
    array([0.64, 0.7 , 0.75, 0.79, 0.87])
    """
    if moving:
        found = [constant_lead_variance(problem, lr, alpha, offset or 1, fresh) for offset in offsets]
    else:
        found = [stationary(problem, lr, alpha, offset or 1, fresh).student for offset in offsets]
    return np.array(found) / sgd_variance(problem, lr)


# Interval by interval, any rates

def moments(problem: Regression, rates: Sequence[float], alpha: float, interval: int, start: float = 0.0,
            fresh: bool = False) -> Moments:
    """Second moments at the start and at each interval's end, [K + 1, d]; a last, partial interval is replayed too.

    Args:
        rates: step size of each batch, [T].
        start: standard deviation of the initial weights about the optimum; teacher's and student's are independent.
            With problem.noise = 0 the moments are what is left of the start (squared bias); with start = 0, variance.
        alpha: weight of the teacher's predictions, 1 - alpha that of the labels.
        interval: s in batches; 1 is online KD, which asks its teacher after the update. Negative: the teacher is
            behind, as in `schedule.spaced_schedule`; -1 is online KD that asks before the update (A7).
        fresh: the replay shows other batches than the teacher's.

    Raises:
        InputError: alpha outside [0, 1], an interval of 0, step sizes at which SGD diverges.
    """
    rates = np.asarray(rates, dtype=float)
    _check(problem, rates, alpha, interval)
    now = np.stack([np.full(len(problem.curvature), value) for value in (start ** 2, 0.0, start ** 2)], axis=1)
    path = [now]
    for first in range(0, len(rates), abs(interval)):
        matrix, shift = _interval_map(problem, rates[first:first + abs(interval)], alpha, fresh, interval < 0)
        path.append(np.einsum("dij,dj->di", matrix, path[-1]) + shift)
    return Moments(*np.moveaxis(np.array(path), -1, 0))


def stationary(problem: Regression, lr: float, alpha: float, interval: int, fresh: bool = False) -> Moments:
    """Return second moments at the ends of intervals after endless training at a constant rate, [d].

    They are the fixed point of the interval's map. Arguments and errors as in `moments`.
    """
    _check(problem, lr, alpha, interval)
    matrix, shift = _interval_map(problem, np.full(abs(interval), lr), alpha, fresh, interval < 0)
    return Moments(*np.linalg.solve(np.eye(3) - matrix, shift[..., None])[..., 0].T)


def excess_risk(problem: Regression, second_moment: np.ndarray) -> np.ndarray:
    """Compute the expected loss above that of the optimum, half the sum of lambda_i E[w_i^2]: [..., d] -> [...].

    The noise in the weights, weighted by the Hessian, is twice this.
    """
    return second_moment @ problem.eigenvalues / 2


def _interval_map(problem: Regression, rates: np.ndarray, alpha: float, fresh: bool,
                  behind: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the map of (E[w^2], E[w theta], E[theta^2]) over one interval: matrix [d, 3, 3] and shift [d, 3].

    The student goes to p w + pull theta + labels N + taught N, where fresh batches give its labels another N.
    """
    p, noise = np.ones(len(problem.curvature)), np.zeros(len(problem.curvature))
    label_noise = problem.noise ** 2 / problem.batch_size * problem.eigenvalues
    for rate in rates:
        step = 1 - rate * problem.eigenvalues
        p, noise = step * p, step ** 2 * noise + rate ** 2 * label_noise
    labels, taught = 1 - alpha, 0.0 if behind else alpha * (1 - p)
    pull, zero = alpha * (1 - p) * (1.0 if behind else p), np.zeros_like(p)
    matrix = [(p ** 2, 2 * p * pull, pull ** 2), (zero, p ** 2, p * pull), (zero, zero, p ** 2)]
    alone, both = (labels ** 2 + taught ** 2, taught) if fresh else ((labels + taught) ** 2, labels + taught)
    return np.moveaxis(np.array(matrix), -1, 0), np.stack([alone * noise, both * noise, noise], axis=-1)


# By brute force

def simulate(problem: Regression, rates: Sequence[float], alpha: float, events: Iterable, repeats: int, seed: int,
             start: float = 0.0, fresh: bool = False) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Train teachers and students, many at a time; after each update (kind of event, students [R, d], teachers [R, d]).

    Knows nothing of the formulas above: it walks the events of schedule.py, as the training of networks does.

    Args:
        rates: step size of each batch, [T].
        events: as from `schedule.spaced_schedule`, of batches 0 to T - 1; those other than teach and learn are passed
            over.
        repeats: R independent trainings.
        seed: of batches and initial weights. A batch is a function of the seed and its number, so a replay sees it
            again.
        alpha, start, fresh: as in `moments`.

    Raises:
        InputError: at the first update, a step size at which SGD diverges, or alpha outside [0, 1].
    """
    _check(problem, rates, alpha)
    shape, curvature = (repeats, len(problem.curvature)), problem.eigenvalues
    scale = problem.noise / math.sqrt(problem.batch_size) * np.sqrt(curvature)
    student, teacher = start * np.random.default_rng([seed, 0]).standard_normal((2, *shape))
    for kind, index, *_ in events:
        if kind not in ("teach", "learn"):
            continue
        g = scale * np.random.default_rng([seed, 1 + (fresh and kind == "learn"), index]).standard_normal(shape)
        if kind == "teach":
            teacher = teacher - rates[index] * (curvature * teacher - g)
        else:
            student = student - rates[index] * (curvature * (student - alpha * teacher) - (1 - alpha) * g)
        yield kind, student, teacher
