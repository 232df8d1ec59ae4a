"""A network that a user registered, with the outputs that methods ask for."""

from __future__ import annotations

from typing import Callable

from torch import Tensor, nn

from ..errors import InputError
from .layers import Outputs, to_float32


class OwnNetwork(nn.Module):
    """Wrap a module that returns logits [B, K]; its features are the input of its last linear layer.

    A module that returns `Outputs` is left as it is; its `feature_size` is D.

    Raises:
        InputError: it is no module or no new one, uses no linear layer, or returns logits of another shape.
    """

    def __init__(self, name: str, make: Callable, classes: int, channels: int, size: int):
        super().__init__()
        self.name, self.classes = name, classes
        self.net = make(classes, channels, size)
        if not isinstance(self.net, nn.Module):
            raise InputError(f"{name}({classes}, {channels}, {size}) made a {type(self.net).__name__}: return an "
                             "nn.Module.")
        own = [part for part in self.net.modules() if part is self.net or part._parameters or part._buffers]
        if any(hasattr(part, "taken_by") for part in own):
            raise InputError(f"{name} returned a module, or a part of one, twice, and its weights would be shared: "
                             "make new ones in each call.")
        for part in own:
            part.taken_by = name
        linear = [layer for layer in self.net.modules() if isinstance(layer, nn.Linear)]
        self.feature_size = getattr(self.net, "feature_size", linear[-1].in_features if linear else 0)
        if not self.feature_size:
            raise InputError(f"{name} has no linear layer, whose input would be its features: end it with one, or "
                             "return Outputs and set feature_size.")
        if linear:
            linear[-1].register_forward_pre_hook(self._keep)

    def _keep(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._features = inputs[0]

    def forward(self, x: Tensor) -> Outputs:
        out = self.net(x)
        logits = out.logits if isinstance(out, Outputs) else out
        if not isinstance(logits, Tensor) or logits.shape != (len(x), self.classes):
            given = f"a tensor of shape {list(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
            raise InputError(f"{self.name} returned {given} for {len(x)} pictures of {self.classes} classes: return "
                             f"logits of shape {[len(x), self.classes]}.")
        if not isinstance(out, Outputs) and not hasattr(self, "_features"):
            raise InputError(f"{self.name} does not use its last linear layer, whose input would be its features: "
                             "leave it out, or return Outputs and set feature_size.")
        return out if isinstance(out, Outputs) else Outputs(to_float32(out), to_float32(self._features.flatten(1)))
