"""Exercises of notebook 11, Education Distillation."""

import math

from ..exercises import Exercise, agrees, exactly, number


def _softmax(logits, temperature=1.0):
    peak = max(logits)
    e = [math.exp((z - peak) / temperature) for z in logits]
    return [x / sum(e) for x in e]


def _sliced_kl(student, teacher, group, temperature: float) -> float:
    p, q = _softmax([student[k] for k in group], temperature), _softmax(teacher, temperature)
    return sum(b * math.log(b / a) for a, b in zip(p, q))


def _wrong_and_free(student) -> str:
    student = [float(z) for z in student]
    if len(student) != 3:
        return "give three logits"
    soft = _sliced_kl(student, [1.0, 0.0], [0, 1], 4.0)
    if abs(soft) > 1e-6:
        return f"the soft loss of {student} is {soft:.4f}"
    return "" if max(student[:2]) < student[2] else f"the answer of {student} is class {student.index(max(student))}"


EXERCISES = {
    "11.1": Exercise("predict", exactly("same"), (
        "Each slice goes through a softmax of its own. What does a softmax do with a constant?",
        "Write exp(z + 5) / (the sum of all exp(z + 5)) for one group.",
        "The factor exp(5) stands above and below the line.")),
    "11.2": Exercise("explain", exactly("c"), (
        "Both arms must have no teacher; which ones have none?",
        "And both students must have seen about as many pictures.",
        "One of them grows and the other does not; but for tuned values nothing else differs.")),
    "11.3": Exercise("change", agrees([([1.0, 2.0, 0.5, 0.0], [0.0, 3.0], [1, 3], 4.0),
                                       ([4.0, 0.0], [1.0, 2.0], [1, 0], 1.0)], _sliced_kl), (
        "exp of minus infinity is 0, so the other groups drop out of the softmax's sum.",
        "Divide by T on both sides before the softmax; there is no T squared here.",
        "KL is the sum of q log(q / p) over the group's classes, in the order of the group.")),
    "11.4": Exercise("break", _wrong_and_free, (
        "Which of the three logits does the soft loss never read?",
        "Inside the slice be equal to the teacher; outside it you are free.",
        "Take 1.0 and 0.0, and a third logit that is larger than both.")),
    "11.5": Exercise("compute", number((3 * 10 + 3 * 36 + 4 * 62) / (62 * 10)), (
        "Count epoch by epoch: which groups does the student know?",
        "An epoch of grade 1 has 10 of 62 classes, one of grade 2 has 36.",
        "(3 times 10 + 3 times 36 + 4 times 62), over 10 times 62.")),
}
