"""Exercises of notebook 08, Theory."""

from ...analysis import theory
from ..exercises import Exercise, agrees, exactly, number


def _variance_ratio(step: float, s: int, alpha: float) -> float:
    problem = theory.Regression(curvature=(step,))
    return float(theory.student_variance(problem, 1.0, alpha, s)[0] / theory.sgd_variance(problem, 1.0)[0])


def _worst_lead(step: float, alpha: float) -> int:
    problem = theory.Regression(curvature=(step,))
    return max(range(int(2 / step)), key=lambda lead: theory.constant_lead_variance(problem, 1.0, alpha, lead)[0])


EXERCISES = {
    "08.1": Exercise("compute", lambda a: number(_variance_ratio(1e-6, 1, 0.5), 1e-3)(a),
                     ("let A go to 1 in the formula.",) * 3, 0.5),
    "08.2": Exercise("compute", agrees([(0.05, 1, 0.3), (0.2, 4, 0.5), (1.5, 3, 1.0)], _variance_ratio),
                     ("a = 1 - step, A = a ** s, and the three terms of the formula.",) * 3, lambda step, s, alpha: 1.0),
    "08.3": Exercise("compute", lambda a: exactly(_worst_lead(0.01, 0.3))(a),
                     ("half a memory; or try `theory.constant_lead_variance`.",) * 3, 100),
}
