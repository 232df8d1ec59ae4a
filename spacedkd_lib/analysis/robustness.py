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
from ..errors import InputError, nearest
from ..models.scoring import scores
from .attacks import ATTACKS, check_attack, check_task, predict
from .corruptions import CORRUPTIONS, check_corruption, corrupt


# Scores

def robust_scores(net: nn.Module, teacher: nn.Module | None, images: Tensor, labels: Tensor, statistics: Statistics,
                  corruptions: Iterable[str] = CORRUPTIONS, severities: Iterable[int] = (1, 2, 3, 4, 5),
                  attacks: Iterable[str] = tuple(ATTACKS), radii: Iterable[float] = (1.0, 2.0, 4.0, 8.0), seed: int = 0,
                  batch_size: int = 500) -> list[dict]:
    """Score a network on clean images, under each corruption and severity, and under each attack and radius.

    Scores are accuracy, NLL, ECE and agreement with the teacher.

    Args:
        net: what is scored and attacked; left as found, like the teacher.
        teacher: sees the same pixels as `net` (an attack does not aim at it); None leaves agreement out.
        images: uint8 [N, C, H, W].
        labels: integers [N].
        statistics: those that both networks were trained with.
        corruptions, severities, attacks: which; an empty tuple for none.
        radii: of the attacks, in 1/255. 8 is Madry et al.'s; the smaller ones (ours) tell networks apart that were
            not trained against attacks.
        seed: of corruptions and random starts.
        batch_size: images at once (500: as `training.evaluation`, so that "clean" equals it).

    Returns:
        One row each: kind ("clean", "corruption" or "attack"), name, severity (0: none), radius (0: none); accuracy
        and ece in percent, nll in nats (`evaluate.scores`), agreement: equal predictions, percent.

    Raises:
        InputError: an unknown name or severity, a negative radius, networks, images or labels that cannot be used.
    """
    corruptions, severities, attacks, radii = map(tuple, (corruptions, severities, attacks, radii))
    check_attack(0, batch_size=batch_size)
    for name, severity in ((n, s) for n in corruptions for s in severities):
        check_corruption(name, severity)
    for name, radius in ((n, r) for n in attacks for r in radii):
        if name not in ATTACKS:
            raise InputError(nearest("attack", name, ATTACKS))
        check_attack(radius, batch_size=batch_size)
    for each in (net, teacher):
        y = labels if each is None else check_task(each, images, labels, statistics)

    def row(seen, kind, name, severity=0, radius=0.0):
        logits = predict(net, seen, statistics, batch_size)
        scored = {"kind": kind, "name": name, "severity": severity, "radius": radius} | scores(logits, y)
        if teacher is not None:
            same = predict(teacher, seen, statistics, batch_size).argmax(1) == logits.argmax(1)
            scored["agreement"] = 100 * same.double().mean().item()
        return scored

    rows = [row(images, "clean", "clean")]
    rows += [row(corrupt(images, name, severity, seed), "corruption", name, severity=severity)
             for name in corruptions for severity in severities]
    for name in attacks:
        options = {"seed": seed} if name == "pgd" else {}
        rows += [row(ATTACKS[name](net, images, labels, statistics, radius, batch_size=batch_size, **options),
                     "attack", name, radius=radius) for radius in radii]
    return rows
