"""Layers and helpers that all networks share."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..recipes import plugins


class Outputs(NamedTuple):
    logits: Tensor  # [B, K]
    features: Tensor  # [B, D]
    map: Tensor | None = None  # [B, C, H, W], before pooling, of a network that has one
    distilled: Tensor | None = None  # [B, K], of a distillation token's head, in train mode


def headline(outputs: Outputs | tuple[Outputs, ...] | Tensor) -> Tensor:
    """Return the logits [B, K] of a network's output; of several exits the deepest one's."""
    if isinstance(outputs, Tensor):
        return outputs
    return (outputs if isinstance(outputs, Outputs) else outputs[0]).logits


def to_float32(x: Tensor) -> Tensor:
    """Convert to single precision at least: losses are not for bfloat16, whatever precision the layers use."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def outputs_of(head: nn.Module, features: Tensor, last_map: Tensor | None = None) -> Outputs:
    last_map = last_map if last_map is None else to_float32(last_map)
    return Outputs(to_float32(head(features)), to_float32(features), last_map)


class PartBatchNorm(nn.BatchNorm2d):
    """Batch norm of a batch in parts, each by its own statistics; the running ones are the first part's.

    DataParallel does so on several GPUs (released programs, A12); this is on one device.
    """

    parts: int

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        first, *others = x.chunk(self.parts)
        return torch.cat([super().forward(first), *(F.batch_norm(part, None, None, self.weight, self.bias, True, 0.0,
                                                                 self.eps) for part in others)])


def split_batch_norm(net: nn.Module, parts: int) -> None:
    """Make every batch norm of a network a `PartBatchNorm`; for one part, leave all as it is."""
    for layer in net.modules():
        if parts > 1 and isinstance(layer, nn.BatchNorm2d):
            layer.__class__, layer.parts = PartBatchNorm, parts


class Dropout(nn.Module):
    """Dropout with a rate set from outside at each update; it has neither parameters nor buffers.

    random: each call draws a share U(0, 1) of the rate (B3). always: in eval mode too (B1).
    """

    def __init__(self):
        super().__init__()
        self.rate, self.random, self.always = 0.0, False, False

    def forward(self, x: Tensor) -> Tensor:
        if not self.rate or not (self.training or self.always):
            return x
        rate = self.rate * torch.rand(()).item() if self.random else self.rate
        return F.dropout(x, rate, training=True)


def dropouts(net: nn.Module) -> list[Dropout]:
    return [module for module in net.modules() if isinstance(module, Dropout)]


def initialise(net: nn.Module, init: str) -> nn.Module:
    """Keep the weights ("torch", released online program), or redraw convolutions ("kaiming", self-KD program)."""
    if init == "kaiming":
        for module in net.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return net


def in_mode(net: nn.Module, training: bool = True) -> nn.Module:
    """Call `net.train(training)` only if a layer is in the other mode: setting costs more than looking."""
    return net if all(layer.training == training for layer in net.modules()) else net.train(training)


def parameters(net: nn.Module) -> int:
    """Count the trainable parameters."""
    return sum(p.numel() for p in net.parameters() if p.requires_grad)


def macs(net: nn.Module, channels: int, size: int, forward=None) -> int:
    """Count one image's multiply-accumulates in convolutions, linear layers and attention; it is `size` pixels square.

    Networks of one structure that are no user's own are counted once: it takes longer than an update of a small one.

    Args:
        forward: the pass to count; the network's own unless given.
    """
    if forward or any(plugins.is_own(type(layer)) for layer in net.modules()):
        return _counted(net, channels, size, forward or net)
    key = _structure(net), channels, size
    if key not in _known:
        _known[key] = _counted(net, channels, size, net)
    return _known[key]


_known: dict[tuple, int] = {}


def _structure(net: nn.Module) -> tuple:
    """Names, classes and settings of all layers, and the shapes of the weights."""
    layers = [(place, type(layer), repr([value for name, value in vars(layer).items()
                                         if name != "training" and isinstance(value, (int, float, str, tuple))]))
              for place, layer in net.named_modules(remove_duplicate=False)]
    return tuple(layers), tuple(p.shape for p in net.parameters())


def _counted(net: nn.Module, channels: int, size: int, forward) -> int:
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode
    was_training = net.training
    weight = next(net.parameters())
    net.eval()
    # The counter's hooks want a graph. Some versions of torch count no fused attention, all count its products.
    with FlopCounterMode(display=False) as counter, torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        forward(torch.zeros(1, channels, size, size, dtype=weight.dtype, device=weight.device))
    net.train(was_training)
    return counter.get_total_flops() // 2
