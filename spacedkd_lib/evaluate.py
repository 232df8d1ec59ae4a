"""What a network has learned: accuracy, negative log-likelihood and calibration. The network is left as found."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@contextmanager
def eval_mode(net: nn.Module) -> Iterator[nn.Module]:
    """The network in eval mode and without gradients; afterwards each module is in the mode it was in."""
    modes = [(module, module.training) for module in net.modules()]
    try:
        with torch.no_grad():
            yield net.eval()
    finally:
        for module, training in modes:
            module.training = training


def scores(logits: Tensor, labels: Tensor, bins: int = 15) -> dict[str, float]:
    """Accuracy in percent, mean NLL in nats, and expected calibration error in percent.

    Args:
        logits: [N, K].
        labels: [N].
        bins: equal-width confidence bins of the calibration error (15 as in Guo et al. 2017).

    >>> scores(torch.tensor([[9.0, 0.0], [9.0, 0.0]]), torch.tensor([0, 1]))["accuracy"]
    50.0
    """
    return _scores([logits], labels, bins)[0]


def _scores(networks: Iterable[Tensor], labels: Tensor, bins: int = 15) -> list[dict[str, float]]:
    """`scores` of several networks. Their numbers are read together, since a GPU waits for each reading."""
    sums = torch.stack([_sums(logits, labels, bins) for logits in networks])
    return [{"accuracy": 100 * correct, "nll": nll, "ece": 100 * gap / len(labels)}
            for correct, nll, gap in sums.tolist()]


def _sums(logits: Tensor, labels: Tensor, bins: int) -> Tensor:
    """[3]: share of hits, mean NLL, and by how many pictures the bins' confidences are off."""
    confidence, predicted = F.softmax(logits, dim=1).max(dim=1)
    correct = (predicted == labels).to(confidence.dtype)
    which = (confidence * bins).long().clamp(max=bins - 1)
    gap = torch.zeros(bins, dtype=confidence.dtype, device=logits.device).index_add(0, which, correct - confidence)
    return torch.stack([correct.mean(), F.cross_entropy(logits, labels), gap.abs().sum()])


def named_scores(split: str, outputs: dict[str, Tensor], labels: Tensor) -> dict[str, float]:
    """Scores of several networks or exits on one set: all of the student's, without a prefix; of the others the
    accuracy.

    >>> named_scores("test", {"teacher": torch.eye(2)}, torch.arange(2))
    {'teacher_test_accuracy': 100.0}
    """
    row = {}
    for name, got in zip(outputs, _scores(outputs.values(), labels)):
        row |= ({f"{split}_{key}": value for key, value in got.items()} if name == "student" else
                {f"{name}_{split}_accuracy": got["accuracy"]})
    return row
