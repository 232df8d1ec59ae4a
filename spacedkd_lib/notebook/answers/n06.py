"""Exercises of notebook 06, The loss landscape."""

import math

import torch
from torch import Tensor

from ..exercises import Exercise, agrees, exactly, number


_H = torch.tensor([[4.0, 1.0, 0.0], [1.0, 2.0, -1.0], [0.0, -1.0, 3.0]])


def _with_matrix(function):
    """Give a learner's function of lists a `product` that multiplies by a fixed matrix."""
    return lambda w, v: function(lambda u: _H @ u, torch.tensor(w), torch.tensor(v)).tolist()


def _relative_product(product, w: Tensor, v: Tensor) -> Tensor:
    return w * product(w * v)


def _relative(function) -> str:
    cases = [([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]), ([2.0, 0.5, 1.0], [1.0, 0.0, 0.0]),
             ([3.0, 1.0, 0.2], [1.0, -1.0, 2.0])]
    return agrees(cases, _with_matrix(_relative_product))(_with_matrix(function))


def _misled(matrix) -> str:
    h = torch.tensor(matrix, dtype=torch.float64)
    if h.shape != (2, 2) or not torch.equal(h, h.T):
        return "give a symmetric matrix of two rows and two columns"
    v = torch.tensor([1.0, 0.5], dtype=torch.float64)
    for _ in range(1000):
        v = h @ (v / v.norm())
    v = v / v.norm()
    settled, largest = float(v @ h @ v), float(torch.linalg.eigvalsh(h)[-1])
    if math.isnan(settled):
        return "power iteration divides by zero here, so it settles on nothing"
    return f"power iteration finds {settled:.3g}, the largest eigenvalue" * math.isclose(settled, largest, rel_tol=1e-3)


EXERCISES = {
    "06.1": Exercise("predict", exactly("higher"), (
        "The function stays the same. Does its slope along one weight stay the same?",
        "A first-layer weight must now move three times as far for the same change: its entries shrink to a ninth.",
        "The second layer's entries grow ninefold. The trace is the sum of both: which of the two was not small?")),
    "06.2": Exercise("compute", number(0.5 * 4 * 0.5 ** 2), (
        "In which direction does this bowl rise fastest?",
        "Go the whole radius along the eigenvector of the largest eigenvalue.",
        "Along the first axis w = (0.5, 0), so the loss is one half times 4 times 0.25.")),
    "06.3": Exercise("change", _relative, (
        "The relative Hessian has the entries w_i H_ij w_j. Where does each w stand in a product with v?",
        "Sum over j first: w_j v_j is a vector that H can be multiplied by.",
        "Multiply v by w, take the product with H, and multiply the result by w.")),
    "06.4": Exercise("break", _misled, (
        "Power iteration keeps the direction that H stretches most. Is a stretch by -5 a stretch?",
        "The method finds the eigenvalue of the largest size. A Hessian away from a minimum may have negative ones.",
        "Put two numbers on the diagonal, the negative one larger in size, and zeros beside them.")),
    "06.5": Exercise("explain", exactly("b"), (
        "Look at the control first: which interval belongs to the arm that is known to be flat?",
        "SAM's interval holds 1. Has this measure shown that it reacts to flatness?",
        "Without a control that moves, an interval below 1 may come from the loss, or from anything else.")),
}
