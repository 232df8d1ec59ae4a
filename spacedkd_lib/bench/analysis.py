"""Analysis of trained networks: a plane of the loss and a product with the Hessian, against the plain ways."""

from __future__ import annotations

import copy
from typing import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ..analysis import curvature, landscape
from ..models.resnet import ResNet
from .speed import Case
from .work import Size


def plain_plane(net: nn.Module, x: Tensor, y: Tensor, first: landscape.Direction, second: landscape.Direction,
                steps: Sequence[float]) -> np.ndarray:
    """Losses [n, n] as most tools compute them: at each point a deep copy of the network, and weights put into it."""
    def at(a: float, b: float) -> float:
        moved, weights = copy.deepcopy(net), net.state_dict()
        moved.load_state_dict({name: weights[name] + a * first.get(name, 0) + b * second.get(name, 0)
                               if name in first else value for name, value in weights.items()})
        return landscape.scorer(moved, x, y)({})[0]
    return np.array([[at(a, b) for b in steps] for a in steps])


def analysis_cases(size: Size) -> Iterator[Case]:
    """Yield cases on an untrained ResNet-8 of width 8, of the embedded letters in the profile quick (16 pixels)."""
    torch.manual_seed(0)
    net = ResNet("resnet8", 62, 1, 8).eval()
    x, y = torch.randn(size.batch, 1, 16, 16), torch.arange(size.batch) % 62
    first, second = (landscape.direction(net, name) for name in ("first", "second"))
    steps = landscape.axis(1.0, 5)
    setting = f"ResNet-8, width 8, {size.batch} pictures of 16 x 16"
    yield Case("a plane of the loss, a point", setting, {
        "weights by functional_call": lambda: landscape.plane(net, x, y, first, second, steps),
        "deep copy and load": lambda: plain_plane(net, x, y, first, second, steps)},
        [("weights by functional_call", "deep copy and load")], size.repeats + 2, units=len(steps) ** 2)
    kept = curvature.hessian(net, x, y)
    plain = curvature.HessianLinearOperator(kept._model_func, kept._loss_func, kept._params, [(x, y)],
                                            check_deterministic=False)
    vector = torch.randn(kept.shape[1])
    yield Case("a product with the Hessian", setting, {
        "one kept graph": lambda: kept @ vector, "curvlinops": lambda: plain @ vector},
        [("one kept graph", "curvlinops")], size.repeats + 2)
