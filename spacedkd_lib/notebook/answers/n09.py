"""Exercises of notebook 09, The audit."""

import math

import torch

from ...methods.losses import kl
from ..exercises import Exercise, exactly, number


def _pushes_wrong(answer) -> str:
    """Whether the true and the released loss push the first of two logits to different sides."""
    student, teacher = answer
    p, q = (1 / (1 + math.exp(logits[1] - logits[0])) for logits in (student, teacher))
    true, released = q - p, p * (1 - p) * (2 * q - 1)  # minus the gradients
    return "" if true * released < 0 else (
        f"the student says {p:.2f}, the teacher {q:.2f}; the true push is {true:+.2f}, the released {released:+.2f}")


def _mended(answer) -> str:
    for seed, T in enumerate((1.0, 3.0, 4.0)):
        student, teacher = torch.randn(2, 2, 3, generator=torch.Generator().manual_seed(seed))
        got, want = answer(student, teacher, T), T**2 * kl(student, teacher, T)
        if not torch.isclose(got, want, rtol=1e-4):
            return (f"for the student's {student.tolist()}, the teacher's {teacher.tolist()} and T = {T:g} yours gives "
                    f"{got:.4f}, expected is {want:.4f}")
    return ""


EXERCISES = {
    "09.1": Exercise("predict", exactly("c"), (
        "only the sum of q times p depends on the student; the loss wants it large.",
        "try two students: p = q gives 0.49 + 0.04 + 0.01. What does (1, 0, 0) give?",
        "a weighted mean of 0.7, 0.2 and 0.1 is largest where all the weight lies on 0.7.")),
    "09.2": Exercise("compute", number(-math.log(2) - 0.5), (
        "the formula has log q, but p itself.",
        "both classes give the same: 0.5 times (log 0.5 - 0.5), with the natural logarithm.",
        "twice 0.5 * (math.log(0.5) - 0.5); the result is below zero.")),
    "09.3": Exercise("break", _pushes_wrong, (
        "look at the figure of the push: on which side of the dotted line do the two curves disagree?",
        "let both prefer class 1, and let the student be surer of it than its teacher.",
        "the teacher's logits may be [1.0, 0.0]; give the student a larger gap, such as 3.")),
    "09.4": Exercise("change", _mended, (
        "which of the two arguments must be log-probabilities?",
        "log_softmax of student / T first, then softmax of teacher / T; reduction=\"batchmean\".",
        "T**2 * F.kl_div((student / T).log_softmax(1), (teacher / T).softmax(1), reduction=\"batchmean\")")),
    "09.5": Exercise("explain", exactly("c"), (
        "an interval is a list of the effects that the data do not exclude.",
        "zero is in it, so neither sign is shown; but what else is in it?",
        "-5 lies in [-6, 4]: neither harm nor harmlessness has been shown.")),
}
