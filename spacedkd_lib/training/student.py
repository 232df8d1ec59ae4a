"""A trained student on its own: its network, class names and normalisation, without its data or its teacher."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..methods import build
from ..models.layers import headline
from ..recipes import Recipe
from ..store import records


class Student(nn.Module):
    """Name pictures [B, C, H, W] as the data set has them, whole numbers to 255 or floats from 0 to 1 -> logits [B, K].

    classes: K names. `torch.export` and `torch.jit.trace` take it as it is.

    Raises:
        InputError: a call with anything else; `torch.jit.script`.
    """

    def __init__(self, net: nn.Module, classes: list[str], mean: list[float], std: list[float]):
        super().__init__()
        self.net, self.classes = net, tuple(classes)
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        channels = len(self.mean)
        if not isinstance(x, Tensor) or x.dtype == torch.bool or x.dim() != 4 or x.shape[1] != channels:
            given = f"{x.dtype} of shape {list(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            raise InputError(f"{given} is no batch of pictures: give a tensor [B, {channels}, H, W] of whole numbers "
                             "to 255, or of floats from 0 to 1.")
        x = x.to(self.mean.dtype) if x.is_floating_point() else x / 255
        return headline(self.net((x - self.mean) / self.std))

    def __prepare_scriptable__(self) -> nn.Module:
        raise InputError("torch.jit.script cannot compile a student: use torch.jit.trace or torch.export.")


def load_student(recipe: Recipe) -> Student:
    """Return the student of a finished run, in eval mode; its data are not read.

    Raises:
        InputError: the run is not finished here, or its weights are not on this machine.
    """
    record = records.load(recipe)
    if record is None:
        raise InputError(f"Run {recipe.run_id} is not finished on this machine: run its recipe first.")
    seen = record.provenance
    net = trained_network(recipe, "student", seen["shape"][0], len(seen["classes"]), seen["shape"][1])
    return Student(net, seen["classes"], seen["mean"], seen["std"]).eval()


def trained_network(recipe: Recipe, role: str, channels: int, classes: int, size: int) -> nn.Module | None:
    """Return a network of a finished run by its name in `Method.modules`; None where the method has none.

    Raises:
        InputError: the run's weights are not on this machine.
    """
    weights = records.load_weights(recipe)
    net = build.make(recipe, channels, classes, size, given=False).modules.get(role)
    if net is not None:
        net.load_state_dict({name.removeprefix(f"{role}."): value for name, value in weights.items()
                             if name.startswith(f"{role}.")})
    return net
