"""The problem of the linear theory, and what may be asked of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, Sequence

import numpy as np

from ..errors import InputError, nearest

DESIGNS = ("additive", "gaussian")


@dataclass(frozen=True)
class Regression:
    """The problem. All defaults are ours.

    curvature: eigenvalues of H, [d]. noise: standard deviation sigma of a label. batch_size: B. design: see above.

    Raises:
        InputError: a curvature that is not above 0, negative noise, an empty batch, an unknown design.
    """

    curvature: tuple[float, ...] = (1.0,)
    noise: float = 1.0
    batch_size: int = 8
    design: str = "additive"

    def __post_init__(self):
        if self.design not in DESIGNS:
            raise InputError(nearest("design", self.design, DESIGNS))
        if not (len(self.curvature) and all(0 < v < math.inf for v in self.curvature)):
            raise InputError(f"curvature = {self.curvature} is no list of eigenvalues: give at least one, all above 0.")
        if not (0 <= self.noise < math.inf and self.batch_size >= 1):
            raise InputError(f"noise = {self.noise} in batches of {self.batch_size} is out of range: give a standard "
                             "deviation of at least 0, and at least one example a batch.")

    @property
    def eigenvalues(self) -> np.ndarray:
        """Return the eigenvalues of the inputs' covariance, [d]."""
        return np.asarray(self.curvature, dtype=float)

    def curvature_moment(self, k: int) -> np.ndarray:
        """E[h^k] of a batch, [d]; in the Gaussian design h is lambda / B times a chi-square of B degrees of freedom."""
        spread = self.design == "gaussian"
        return self.eigenvalues ** k * math.prod(1 + spread * 2 * i / self.batch_size for i in range(k))


class Moments(NamedTuple):
    """E[w^2], E[w theta] and E[theta^2] of each direction; [d], or [K, d] at K moments of a training."""

    student: np.ndarray
    cross: np.ndarray
    teacher: np.ndarray


def curved(problem: Regression, x: np.ndarray | None, weights: np.ndarray) -> np.ndarray:
    """Multiply weights by h, [R, d] -> [R, d]."""
    if x is None:
        return problem.eigenvalues * weights
    return np.einsum("rbd,rb->rd", x, np.einsum("rbd,rd->rb", x, weights)) / problem.batch_size


# When it works

def stability(problem: Regression, lr: float) -> tuple[np.ndarray, float]:
    """Return 2 - eta lambda (1 + 1/B), [d], and SGD's feedback of its own squared error through random inputs.

    The additive design has no 1/B and no feedback. SGD comes to rest while all of the first are above 0 and the second,
    infinite otherwise, is below 1.
    """
    spread = (problem.design == "gaussian") / problem.batch_size
    slack = 2 - lr * problem.eigenvalues * (1 + spread)
    feedback = lr * spread * float(np.sum(problem.eigenvalues / slack)) if np.all(slack > 0) else math.inf
    return slack, feedback


def check(problem: Regression, rates: float | Sequence[float], alpha: float = 0.0) -> None:
    """Raise InputError for an alpha out of range, or step sizes at which SGD does not come to rest."""
    if not 0 <= alpha <= 1:
        raise InputError(f"alpha = {alpha} is out of range: give the weight of the teacher, from 0 to 1.")
    if not (np.min(rates) >= 0 and 0 < np.max(rates) < math.inf):
        raise InputError("These step sizes do not train: give numbers of at least 0, not all of them 0.")
    if not stability(problem, np.max(rates))[1] < 1:
        raise InputError(f"A step size of {np.max(rates):g} lets SGD diverge: give less than 2 / "
                         f"{max(problem.curvature):g}, and far less for small batches of a Gaussian design.")


def check_interval(interval: int) -> None:
    """Raise InputError for an interval of 0."""
    if interval == 0:
        raise InputError("interval = 0 is out of range: give a whole number of batches, 1 for online KD, below 0 for a "
                         "teacher that is behind.")


def check_additive(problem: Regression) -> None:
    """Raise InputError for a design other than "additive", where no closed form is known."""
    if problem.design != "additive":
        raise InputError(f'No closed form is known for design = "{problem.design}": give "additive", or ask '
                         "`stationary`.")


def check_exact(problem: Regression) -> None:
    """Raise InputError for a Gaussian design of several directions, whose student's moments are not known."""
    if problem.design == "gaussian" and len(problem.curvature) > 1:
        raise InputError(f"The student's moments in a Gaussian design of {len(problem.curvature)} directions are not "
                         "known: give one eigenvalue, or simulate.")
