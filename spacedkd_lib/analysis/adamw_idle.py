"""What AdamW does to a network whose gradients are zero: it coasts, decays, and forgets how large its gradients were.

So it happens to the network whose turn it is not in the released transformer programs (V1). First in closed form, then
measured on a network. AdamW: m <- b1 m + (1 - b1) g, v <- b2 v + (1 - b2) g^2, weight <- (1 - lr wd) weight -
lr m' / sqrt(v'), with m' and v' corrected for their start from zero; here g = 0.
Taught in notebooks/12_vision_transformers.ipynb.
"""

from __future__ import annotations

import copy
import math

import pandas as pd
import torch

from ..data import datasets
from ..data.batches import seed_noise
from ..errors import InputError
from ..models.scoring import scores
from ..recipes import Recipe, baseline, stochastic
from ..training import train
from ..training.optimizers import zero_gradients
from .attacks import predict

BETAS = (0.9, 0.999)  # torch's defaults, which the released programs keep
PARTS = ("all", "momentum", "decay")


def coasting(idle: float = math.inf) -> float:
    """Compute how far momentum carries a weight in so many idle updates, in updates of the size of the last one.

    That is late in training, when the correction for the start is over.

    >>> round(coasting(), 2), round(coasting(22) / coasting(), 2)
    (9.05, 0.9)
    """
    r = BETAS[0] / math.sqrt(BETAS[1])
    return r / (1 - r) * (1 - r**idle)


def shrunk(idle: int, lr: float, weight_decay: float) -> float:
    """Share of a decayed weight that is lost.

    >>> round(100 * shrunk(585, lr=5e-4, weight_decay=0.05), 2)
    1.45
    """
    return 1 - (1 - lr * weight_decay) ** idle


def update_sizes(turn: int) -> list[float]:
    """Compute the sizes of a turn's updates, relative to those of a network that is never idle.

    `turn` updates and as many idle ones take turns, and gradients stay as large as they are.

    >>> sizes = update_sizes(585)
    >>> round(sizes[0], 2), round(sizes[-1], 2), round(sum(sizes) / 585, 2)
    (1.67, 1.25, 1.41)
    """
    beta = BETAS[1]
    return [(1 - beta**k / (1 + beta**turn)) ** -0.5 for k in range(1, turn + 1)]


def drift(recipe: Recipe, active: int, idle: list[int]) -> pd.DataFrame:
    """Train a network on labels for `active` updates, then leave it idle, as a whole and by parts.

    Args:
        active: updates of training, at least 20.
        idle: numbers of idle updates to look after, rising.

    Returns:
        A row for each part and number, 0 first. part: "all", as released; "momentum", without decay; "decay", without
        momentum. distance: from where it stood, in updates (the mean length of its last 20). test_accuracy: percent.

    Raises:
        InputError: another method or optimizer, or too few updates.
    """
    run, batches, length = _trained(recipe, active)
    test, rows = datasets.load(recipe.dataset, seed=recipe.seed), []
    for part in PARTS:
        net, optimizer = copy.deepcopy((run.method.student, run.optimizer["learn"]))
        _keep_only(part, optimizer)
        start, done = _vector(net), 0
        for count in [0, *idle]:
            for _ in range(count - done):
                _step(optimizer)
            done = count
            rows.append({"part": part, "idle": count, "distance": (_vector(net) - start).norm().item() / length,
                         "test_accuracy": scores(predict(net, test.test_images, batches.statistics),
                                                 test.test_labels)["accuracy"]})
    return pd.DataFrame(rows)


def resumed(recipe: Recipe, active: int, idle: int, after: int) -> pd.DataFrame:
    """Measure how long a network's updates are when it learns again with a second moment that has been idle.

    Weights and momentum are those from before, so that nothing else differs from the network that was never idle.

    Returns:
        A row an update, from 1 to `after`: update, length (relative to that of the same update without idling) and
        predicted, for gradients that stay as large as they are.
    """
    run, batches, _ = _trained(recipe, active)
    lengths = {}
    for name, count in (("idle", idle), ("never", 0)):
        other = copy.deepcopy(run)
        state = other.optimizer["learn"].state
        before = {p: (p.detach().clone(), held["exp_avg"].clone()) for p, held in state.items()}
        for _ in range(count):
            _step(other.optimizer["learn"])
        for p, (weight, momentum) in before.items():
            p.data.copy_(weight)
            state[p]["exp_avg"].copy_(momentum)
        lengths[name] = [_update(other, batches, active + k) for k in range(after)]
    return pd.DataFrame([{"update": k, "length": lengths["idle"][k - 1] / lengths["never"][k - 1],
                          "predicted": _second_moment(active, idle, k) ** -0.5} for k in range(1, after + 1)])


def _second_moment(active: int, idle: int, after: int) -> float:
    """Corrected, of gradients of size 1 that come `active` times, then not `idle` times, then `after` times."""
    beta = BETAS[1]
    return (((1 - beta**active) * beta**(idle + after) + 1 - beta**after) / (1 - beta**(active + idle + after)))


def _trained(recipe: Recipe, active: int):
    """Train a run for so many updates; return it, its batches and the mean length of its last 20 updates."""
    if recipe != baseline(recipe) or recipe.optimizer != "adamw" or active < 20:
        raise InputError(f"{recipe.method} with {recipe.optimizer} and {active} updates shows no drift of AdamW: give "
                         'a baseline with optimizer = "adamw" and at least 20 updates.')
    dataset = datasets.load(recipe.dataset, seed=recipe.seed)
    (run,), batches, _ = train.assemble([recipe], dataset, torch.device("cpu"))
    lengths = [_update(run, batches, i) for i in range(active)]
    return run, batches, sum(lengths[-20:]) / 20


def _update(run, batches, i: int) -> float:
    """One update on batch i at the full learning rate; its length."""
    before = _vector(run.method.student)
    if stochastic(run.recipe):
        seed_noise(before.device, run.recipe.seed, "noise", "learn", i)
    run.step("learn", *batches[i], run.recipe.lr)
    return (_vector(run.method.student) - before).norm().item()


def _step(optimizer: torch.optim.Optimizer) -> None:
    zero_gradients(optimizer)
    optimizer.step()


def _keep_only(part: str, optimizer: torch.optim.Optimizer) -> None:
    if part == "decay":
        for state in optimizer.state.values():
            state["exp_avg"].zero_()
    if part == "momentum":
        for group in optimizer.param_groups:
            group["weight_decay"] = 0.0


def _vector(net: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in net.parameters()])
