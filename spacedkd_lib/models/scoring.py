"""Scores of a network: accuracy, negative log-likelihood, calibration. The network's modes are left as found."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@contextmanager
def eval_mode(net: nn.Module) -> Iterator[nn.Module]:
    """Hold a network in eval mode, without gradients; afterwards restore each module's mode."""
    modes = [(module, module.training) for module in net.modules()]
    try:
        with torch.no_grad():
            yield net.eval()
    finally:
        for module, training in modes:
            module.training = training


def scores(logits: Tensor, labels: Tensor, bins: int = 15) -> dict[str, float]:
    """Compute accuracy in percent, mean NLL in nats, and expected calibration error in percent.

    Args:
        logits: [N, K].
        labels: [N].
        bins: equal-width confidence bins of the calibration error (15 as in Guo et al. 2017).

    >>> scores(torch.tensor([[9.0, 0.0], [9.0, 0.0]]), torch.tensor([0, 1]))["accuracy"]
    50.0
    """
    return _scores([(logits, labels)], bins)[0]


def _scores(answers: list[tuple[Tensor, Tensor]], bins: int = 15) -> list[dict[str, float]]:
    """Compute `scores` of several logits and labels; one reading for all, since a GPU waits for each."""
    sums = torch.stack([_sums(logits, labels, bins) for logits, labels in answers])
    return [{"accuracy": 100 * correct, "nll": nll, "ece": 100 * gap / len(labels)}
            for (correct, nll, gap), (_, labels) in zip(sums.tolist(), answers)]


def _sums(logits: Tensor, labels: Tensor, bins: int) -> Tensor:
    """Return [3]: share of hits, mean NLL, and the summed gap of the bins' confidences, in pictures."""
    confidence = F.softmax(logits, dim=1).amax(dim=1)
    correct = (logits.argmax(dim=1) == labels).to(confidence.dtype)
    which = (confidence * bins).long().clamp(0, bins - 1)  # 0 where they diverged to NaN
    gap = torch.zeros(bins, dtype=confidence.dtype, device=logits.device).index_add(0, which, correct - confidence)
    return torch.stack([correct.mean(), F.cross_entropy(logits, labels), gap.abs().sum()])


def named_scores(split: str, outputs: dict[str, Tensor], labels: Tensor) -> dict[str, float]:
    """Score several networks or exits on one set: the student's scores without a prefix, the others' accuracy.

    With a teacher the agreement of student and teacher is added, in percent.

    >>> alike = torch.eye(2)
    >>> named_scores("test", {"student": alike, "teacher": alike}, torch.arange(2))["test_teacher_agreement"]
    100.0
    """
    answers = [(logits, labels) for logits in outputs.values()]
    if "teacher" in outputs:
        answers.append((outputs["teacher"], outputs["student"].argmax(dim=1)))
    found = _scores(answers)
    row: dict[str, float] = {}
    for name, got in zip(outputs, found):
        row |= ({f"{split}_{key}": value for key, value in got.items()} if name == "student" else
                {f"{name}_{split}_accuracy": got["accuracy"]})
    if "teacher" in outputs:
        row[f"{split}_teacher_agreement"] = found[-1]["accuracy"]
    return row
