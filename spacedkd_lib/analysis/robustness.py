"""How predictions hold when pixels change: common corruptions, L-infinity attacks, and the scores under each.

Corruptions follow the program that made CIFAR-10-C (Hendrycks and Dietterich 2019), on uint8 tensors; attacks work on
float pixels in [0, 1] and on a network in eval mode, which is left as found. A radius is in grey levels, 1/255.

Shapes: N images of a set, B images of a batch, C channels (1 or 3), H rows, W columns, K classes.
Taught in notebooks/07_robustness.ipynb.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from ..data.batches import Statistics
from ..models.scoring import scores
from .attacks import ATTACKS, device_of, predict
from .corruptions import CORRUPTIONS, check_images, corrupt


def robust_scores(net: nn.Module, teacher: nn.Module | None, images: Tensor, labels: Tensor, statistics: Statistics,
                  severities: Iterable[int], radii: Iterable[float]) -> list[dict]:
    """Score a network on clean images, under each corruption and severity, and under each attack and radius.

    Args:
        teacher: sees the same pixels as `net` (an attack does not aim at it); None leaves agreement out.
        images, labels, statistics: as `attacks.fgsm`.
        radii: of the attacks, in 1/255. 8 is Madry et al.'s; smaller ones (ours) tell networks apart that were not
            trained against attacks.

    Returns:
        One row each: kind ("clean", "corruption" or "attack"), name, severity (0: none), radius (0: none); accuracy
        and ece in percent, nll in nats (`evaluate.scores`), agreement: equal predictions, percent.

    Raises:
        InputError: images or labels of another type or shape.
    """
    check_images(images, labels)
    y = labels.to(device_of(net))

    def row(seen, kind, name, severity=0, radius=0.0):
        logits = predict(net, seen, statistics)
        scored = {"kind": kind, "name": name, "severity": severity, "radius": radius} | scores(logits, y)
        if teacher is not None:
            same = predict(teacher, seen, statistics).argmax(1) == logits.argmax(1)
            scored["agreement"] = 100 * same.double().mean().item()
        return scored

    rows = [row(images, "clean", "clean")]
    rows += [row(corrupt(images, name, severity, seed=0), "corruption", name, severity=severity)
             for name in CORRUPTIONS for severity in severities]
    rows += [row(attack(net, images, labels, statistics, radius), "attack", name, radius=radius)
             for name, attack in ATTACKS.items() for radius in radii]
    return rows
