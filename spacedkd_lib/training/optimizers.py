"""Optimizers of teacher and student."""

from __future__ import annotations

import torch
from torch import Tensor

from ..methods.base import Method
from ..models.transformers import no_decay
from ..recipes import Recipe


def optimizers(recipe: Recipe, method: Method) -> dict[str, torch.optim.Optimizer]:
    """Make an optimizer for each role, or one for both where they train the same modules."""
    made: dict[str, torch.optim.Optimizer] = {}
    for kind, modules in method.trained.items():
        made[kind] = (next((made[k] for k in made if method.trained[k] == modules), None) or
                      optimizer_of(recipe, torch.nn.ModuleList(modules)))
    return made


def optimizer_of(recipe: Recipe, network: torch.nn.Module) -> torch.optim.Optimizer:
    """Make SGD with momentum, which decays all parameters, or AdamW, which spares `no_decay`'s; both as released."""
    if recipe.optimizer != "adamw":
        return torch.optim.SGD(network.parameters(), lr=recipe.lr, momentum=recipe.momentum,
                               weight_decay=recipe.weight_decay)
    groups: dict[bool, list[Tensor]] = {True: [], False: []}
    for name, parameter in network.named_parameters():
        groups[not no_decay(name, parameter)].append(parameter)
    return torch.optim.AdamW([{"params": members, "weight_decay": recipe.weight_decay * decays}
                              for decays, members in groups.items()], lr=recipe.lr, fused=True)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the next update's rate; a replay reads it from a tensor."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def zero_gradients(optimizer: torch.optim.Optimizer) -> None:
    """Gradients of zero, where `zero_grad` leaves none: an update then still moves what momentum and decay move."""
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad = torch.zeros_like(p)
