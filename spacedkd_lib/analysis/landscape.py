"""The loss around a solution: lines, planes, the way to another solution, weight noise, and the worst step nearby.

The network that is given is never moved: each point is evaluated with weights of its own, and its weights, mode,
statistics and gradients are afterwards as before. All scores are those of `evaluate.scores` in eval mode, so the point
at the centre of a slice is what evaluation says, to the bit.

Shapes: x [N, C, H, W] normalised images, y [N] labels; n points on an axis. Losses are mean cross-entropies in nats,
accuracies in percent. A point that was not computed is NaN. Taught in notebooks/06_loss_landscape.ipynb.
"""

from __future__ import annotations

import copy
import math
from typing import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from ..data.batches import generator
from ..errors import InputError, nearest
from ..models.layers import headline
from ..models.scoring import eval_mode, scores

Direction = dict[str, Tensor]  # name of a parameter -> its displacement, shaped like it
Slice = dict[str, np.ndarray]  # "loss", "accuracy" -> values
SIZES = ("filter", "weight")
BATCH = 500  # images, as in training's own evaluation


def direction(net: nn.Module, *seed, size: str = "filter") -> Direction:
    """Draw a random Gaussian direction, as large as the network's own weights, of convolutions and linear layers.

    Biases and normalisation layers are left alone (Li et al. 2018, section 4).

    Args:
        seed: whole numbers and words that name the direction; the same names give networks of one architecture the
            same draws.
        size: "filter": each filter (each row of a linear layer) has the norm of the network's filter (Li et al. 2018).
            "weight": each entry is multiplied by the size of its weight, so that the noise at step sigma has sigma
            times that as its standard deviation (ours; unchanged if a ReLU network is rescaled without a change of
            its function).

    Raises:
        InputError: another size.
    """
    if size not in SIZES:
        raise InputError(nearest("size of a direction", size, SIZES))
    drawn, found = generator("direction", *seed), {}
    for name, weight in ((name, p.detach()) for name, p in net.named_parameters() if p.dim() > 1):
        noise = torch.empty_like(weight).copy_(torch.randn(weight.shape, generator=drawn))
        found[name] = noise.mul_(weight.abs() if size == "weight" else _filter_norms(weight) / _filter_norms(noise))
    return found


def _filter_norms(weight: Tensor) -> Tensor:
    return weight.flatten(1).norm(dim=1).view(-1, *[1] * (weight.dim() - 1))


def scorer(net: nn.Module, x: Tensor, y: Tensor) -> Callable[[Direction], tuple[float, float]]:
    """Return a function of displaced weights: (loss, accuracy) on these images, in eval mode.

    Raises:
        InputError: no images, labels that do not fit them, or weights that are no finite numbers.
    """
    check(net, x, y)
    parts = x.split(BATCH)

    def score(weights: Direction) -> tuple[float, float]:
        with eval_mode(net):
            logits = torch.cat([headline(functional_call(net, weights, (part,))) for part in parts])
        got = scores(logits, y)
        return got["nll"], got["accuracy"]
    return score


def check(net: nn.Module, x: Tensor, y: Tensor) -> None:
    if not all(p.isfinite().all() for p in net.parameters()):
        raise InputError("The network's weights are not all finite numbers: give a network whose training succeeded.")
    if len(x) == 0 or y.shape != (len(x),):
        raise InputError(f"{len(x)} images with labels of shape {list(y.shape)} cannot be scored: give at least one "
                         "image and one label each.")


def axis(reach: float, points: int) -> np.ndarray:
    """Return steps from -reach to reach, an odd number of them, so that the solution itself is one.

    Raises:
        InputError: fewer than three points, or an even number.

    >>> axis(1.0, 3).tolist()
    [-1.0, 0.0, 1.0]
    """
    if points < 3 or points % 2 == 0:
        raise InputError(f"{points} points make no axis around a solution: give an odd number from 3 on.")
    half = reach * np.arange(1, points // 2 + 1) / (points // 2)
    return np.concatenate([-half[::-1], [0.0], half])  # exactly symmetric, and exactly zero at the centre


def line(net: nn.Module, x: Tensor, y: Tensor, along: Direction, steps: Sequence[float]) -> Slice:
    """Loss and accuracy [n] at weights + steps[i] * along.

    Raises:
        InputError: as `scorer`; a direction of another network.
    """
    score, weights = scorer(net, x, y), _weights_like(net, along)
    return _slice([score(_shifted(weights, along, step)) for step in steps], len(steps))


def plane(net: nn.Module, x: Tensor, y: Tensor, first: Direction, second: Direction, steps: Sequence[float]) -> Slice:
    """Loss and accuracy [n, n] at weights + steps[i] * first + steps[j] * second.

    Raises:
        InputError: as `line`.
    """
    score, weights = scorer(net, x, y), _weights_like(net, first)
    rows = (_shifted(weights, first, step) for step in steps)
    return _slice([score(_shifted(row, second, step)) for row in rows for step in steps], len(steps), len(steps))


def _slice(points: list[tuple[float, float]], *shape: int) -> Slice:
    values = np.reshape(points, (-1, 2))
    return {name: values[:, k].reshape(shape).copy() for k, name in enumerate(("loss", "accuracy"))}


def _weights_like(net: nn.Module, other: Direction) -> Direction:
    """Return the network's weights of these names."""
    weights = dict(net.named_parameters())
    if any(name not in weights or weights[name].shape != value.shape for name, value in other.items()):
        raise InputError("The networks differ in architecture: give two of one recipe's model, or a direction of this "
                         "network.")
    return {name: weights[name].detach() for name in other}


def _shifted(weights: Direction, along: Direction, step: float) -> Direction:
    return {name: torch.add(weight, along[name], alpha=float(step)) for name, weight in weights.items()}


def interpolate(first: nn.Module, second: nn.Module, x: Tensor, y: Tensor, steps: Sequence[float],
            training: Tensor) -> Slice:
    """Loss and accuracy [n] on the line (1 - t) first + t second, batch statistics of `training` at each point.

    Statistics that were collected along the way to one end fit no point between the two (Izmailov et al. 2018).

    Raises:
        InputError: as `scorer`; networks of two architectures.
    """
    check(second, x, y)
    weights, goal = dict(first.named_parameters()), dict(second.named_parameters())
    _weights_like(first, goal)
    _weights_like(second, weights)  # neither has more than the other
    point, found = copy.deepcopy(first), []
    for t in steps:
        with torch.no_grad():
            for name, p in point.named_parameters():
                p.copy_(torch.lerp(weights[name], goal[name], float(t)))
        torch.optim.swa_utils.update_bn(training.split(BATCH), point)
        found.append(scorer(point, x, y)({}))
    return _slice(found, len(steps))


def weight_noise(net: nn.Module, x: Tensor, y: Tensor, sigmas: Sequence[float], draws: int, seed: int = 0) -> Slice:
    """Loss and accuracy [len(sigmas), draws] under Gaussian noise of sigma times each weight's own size.

    A flat minimum keeps its loss. The same draws serve every sigma, and every network of one architecture. (The paper
    tests flatness by Gaussian noise on the weights; how it sets the noise's size is not public, this is ours.)

    Raises:
        InputError: as `scorer`.
    """
    lines = [line(net, x, y, direction(net, seed, "noise", draw, size="weight"), sigmas) for draw in range(draws)]
    return {name: np.stack([values[name] for values in lines], axis=1) for name in lines[0]}


def sharpness(net: nn.Module, x: Tensor, y: Tensor, radius: float, relative: bool = False) -> float:
    """Measure by how many nats the loss rises one step along the gradient; 0 where the gradient is.

    It is SAM's first-order answer to the worst point of a ball around the weights.

    Args:
        radius: of the ball, L2. 0.05 is SAM's (Foret et al. 2021).
        relative: each weight in units of its own size (Kwon et al. 2021, adaptive SAM; radius 0.5 there), which does
            not change if a ReLU network is rescaled without a change of its function.

    Raises:
        InputError: as `scorer`.
    """
    score, start = scorer(net, x, y), {name: p.detach() for name, p in net.named_parameters()}
    unit = {name: p.abs() if relative else torch.ones_like(p) for name, p in start.items()}
    slope = {name: unit[name] * g for name, g in gradient(net, x, y, start).items()}
    norm = math.sqrt(sum(float(g.square().sum()) for g in slope.values()))
    stride = radius / max(norm, 1e-30)
    return score({name: start[name] + unit[name] * stride * slope[name] for name in start})[0] - score({})[0]


def gradient(net: nn.Module, x: Tensor, y: Tensor, weights: Direction) -> Direction:
    """Gradient of the mean cross-entropy at displaced weights, in eval mode; nothing is left in the network."""
    point = {name: value.detach().requires_grad_() for name, value in weights.items()}
    total = {name: torch.zeros_like(value) for name, value in point.items()}
    with eval_mode(net):
        for part, labels in zip(x.split(BATCH), y.split(BATCH)):
            with torch.enable_grad():
                logits = headline(functional_call(net, point, (part,)))
                loss = F.cross_entropy(logits, labels, reduction="sum") / len(x)
            for name, g in zip(point, torch.autograd.grad(loss, list(point.values()), allow_unused=True)):
                total[name] += 0 if g is None else g
    return total

