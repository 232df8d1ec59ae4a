"""Adversarial images: FGSM and PGD. Pixels are float32 [B, C, H, W] in [0, 1], not rounded to 8 bits."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.batches import Statistics, generator, normalised
from ..models.layers import headline
from ..models.scoring import eval_mode
from .corruptions import check_images

BATCH = 500  # images at once (ours), as in training's own evaluation


def fgsm(net: nn.Module, images: Tensor, labels: Tensor, statistics: Statistics, radius: float = 8.0) -> Tensor:
    """Fast gradient sign method (Goodfellow et al. 2015): one step to the edge of the ball.

    Args:
        net: returns `Outputs`, or several, deepest first, of which the deepest is attacked.
        images, labels: uint8 [N, C, H, W], and the true classes [N], whose cross-entropy the attack raises.
        statistics: the mean and deviation of each channel that the network was trained with.
        radius: of the L-infinity ball, in 1/255 (8: Madry et al. 2018).

    Returns:
        Pixels in the ball and in [0, 1], float32 [N, C, H, W], on the network's device.

    Raises:
        InputError: images or labels of another type or shape.
    """
    def ascend(clean, look):
        return _step(clean, clean, look(clean).direction, radius, radius)
    return _attacked(net, images, labels, statistics, ascend)


def pgd(net: nn.Module, images: Tensor, labels: Tensor, statistics: Statistics, radius: float = 8.0, steps: int = 10,
        restarts: int = 2, seed: int = 0) -> Tensor:
    """Projected gradient descent with restarts (Madry et al. 2018); each image's worst pixels seen count.

    Worst: misclassified before correct, then by loss. The clean image and every iterate compete; the first restart
    begins at FGSM's result, the others anywhere in the ball. So no image that FGSM breaks survives.

    Args as `fgsm`, and:
        steps: of each restart (ours; Madry et al. 7 to 20), each as long as radius / 4 (theirs: 2 at radius 8).
        restarts: 2 (ours).
    """
    drawn = generator(seed, "pgd")

    def ascend(clean, look):
        worst = first = look(clean)
        for restart in range(restarts):
            away = first.direction if restart == 0 else 2 * torch.rand(clean.shape, generator=drawn) - 1
            x = _step(clean, clean, away.to(clean), radius, radius)
            for _ in range(steps):
                seen = look(x)
                worst = _worse(worst, seen)
                x = _step(x, clean, seen.direction, radius / 4, radius)
            worst = _worse(worst, look(x))
        return worst.x
    return _attacked(net, images, labels, statistics, ascend)


ATTACKS: dict[str, Callable] = {f.__name__: f for f in (fgsm, pgd)}


class AttackState(NamedTuple):
    x: Tensor  # pixels [B, C, H, W]
    wrong: Tensor  # bool [B]
    loss: Tensor  # cross-entropy [B]
    direction: Tensor  # sign of its gradient [B, C, H, W]


def _attacked(net, images, labels, statistics, ascend) -> Tensor:
    """ascend(clean pixels, look) -> adversarial pixels, for each batch; `look` asks the network, see `AttackState`."""
    check_images(images, labels)
    found, labels = [], labels.to(device_of(net))
    with eval_mode(net):
        for part, y in zip(images.split(BATCH), labels.split(BATCH)):
            found.append(ascend(_pixels(part.to(labels.device)), partial(_attack_state, net, y, statistics)))
    return torch.cat(found)


def _attack_state(net: nn.Module, labels: Tensor, statistics: Statistics, x: Tensor) -> AttackState:
    """Score pixels and take their gradient; the parameters' own gradients stay as they are."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        logits = headline(net(standardised(x, statistics)))
        loss = F.cross_entropy(logits, labels, reduction="none")
        gradient, = torch.autograd.grad(loss.sum(), x)
    return AttackState(x.detach(), logits.argmax(1) != labels, loss.detach(), gradient.sign())


def _step(x: Tensor, clean: Tensor, direction: Tensor, length: float, radius: float) -> Tensor:
    """Move x, then cut it back to the ball round `clean` and to [0, 1]."""
    reach = radius / 255
    return (x + length / 255 * direction).clamp(clean - reach, clean + reach).clamp(0, 1)


def _worse(one: AttackState, other: AttackState) -> AttackState:
    """Per image the one that is misclassified; if both or none is, that with the larger loss."""
    take = torch.where(one.wrong == other.wrong, other.loss > one.loss, other.wrong)
    return AttackState(*(torch.where(take.view(-1, *[1] * (a.dim() - 1)), b, a) for a, b in zip(one, other)))


# Networks as functions of pixels

def _pixels(images: Tensor) -> Tensor:
    return images.float().div_(torch.tensor(255.0, device=images.device))  # rounds as `batches.normalised` does


def standardised(x: Tensor, statistics: Statistics) -> Tensor:
    """`batches.normalised` on float pixels, bit for bit, with a gradient."""
    mean, std = (torch.tensor(v, device=x.device)[:, None, None] for v in statistics)
    return ((x - mean) / std).contiguous(memory_format=torch.channels_last)


def device_of(net: nn.Module) -> torch.device:
    return next(net.parameters()).device


def predict(net: nn.Module, images: Tensor, statistics: Statistics) -> Tensor:
    """Logits [N, K] in eval mode, on the network's device, of uint8 images or of float pixels in [0, 1]."""
    device, logits = device_of(net), []
    with eval_mode(net):
        for part in images.split(BATCH):
            part = part.to(device)
            x = normalised(part, statistics) if part.dtype == torch.uint8 else standardised(part, statistics)
            logits.append(headline(net(x)))
    return torch.cat(logits)
