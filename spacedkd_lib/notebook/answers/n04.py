"""Exercises of notebook 04, Self KD."""

import math

import torch

from ...methods.losses import kl
from ..exercises import Exercise, exactly


def _logits() -> list:
    draws = torch.Generator().manual_seed(0)
    return [torch.randn(2, 3, generator=draws).requires_grad_() for _ in range(4)]


def _value(got, want) -> str:
    return "" if math.isclose(got.item(), want.item(), rel_tol=1e-4) else (
        f"for two pictures, three classes and T = 2 yours gives {got.item():.4f}, expected is {want.item():.4f}")


def _chain(function) -> str:
    mine, right = _logits(), _logits()
    got, want = function(mine, 2.0), sum(kl(exit, deeper, 2.0) for deeper, exit in zip(right, right[1:]))
    got.backward()
    want.backward()
    if mine[0].grad is not None:
        return "the deepest exit gets a gradient"
    alike = all(one.grad is not None and one.grad.allclose(other.grad, atol=1e-5)
                for one, other in zip(mine[1:], right[1:]))
    return _value(got, want) or "the value is right, but an exit gets a gradient as a teacher too" * (not alike)


def _bends(function) -> str:
    deepest, student, *_ = _logits()
    got = function(student, deepest, 2.0)
    got.backward()
    firm = "the deepest exit gets no gradient, so it stands firm" * (deepest.grad is None)
    return _value(got, kl(student, deepest, 2.0)) or firm


EXERCISES = {
    "04.1": Exercise("predict", lambda answer: exactly({"trunk", "shallow exits"})(set(answer)), (
        "follow the arrows of the picture backwards from exits 1 to 3.",
        "a shallow exit stands on the stages before it, and those belong to the trunk.",
        "both targets are detached, so no gradient reaches the deepest head. The exits and the trunk remain.")),
    "04.2": Exercise("compute", exactly(2 * 31_280 - 40 - 391), (
        "the table counts them for another interval: take its second line apart.",
        "at s = 4 the 80 epochs hold 20 blocks and lose 20 updates of the teacher; 1,173 are s - 1 epochs of 391.",
        "at s = 2 there are 40 blocks, and one epoch is lost: 31,280 - 40 plus 31,280 - 391.")),
    "04.3": Exercise("change", _chain, (
        "in a list that begins with the deepest exit, each exit's teacher is the one before it.",
        "zip(logits, logits[1:]) pairs each teacher with its student.",
        "sum F.kl_div(log_p, log_q, log_target=True, reduction='batchmean') over the pairs, with log_q from the "
        "teacher's logits.detach() / T.")),
    "04.4": Exercise("break", _bends, (
        "where does shallow_loss cut the way back to the deepest exit?",
        "two tensors are detached there: one for the soft loss, one for the features.",
        "compute log_q as shallow_loss does, without .detach(); then take soft_loss.")),
    "04.5": Exercise("explain", exactly("b"), (
        "list everything that self KD has and the plain network lacks.",
        "it has exits, twice the updates, and distillation. Only one of the three may differ in your comparison.",
        "look for the control that has exits and updates, but alpha = beta = 0.")),
}
