"""The Hessian of the loss at a solution: trace with its standard error, leading eigenvalues, spectral density.

Products with the Hessian, Hutch++ and the Lanczos density are curvlinops'; the eigenvalues are SciPy's. All of it is on
a fixed set of images, in eval mode. A network's curvature depends on how its function is written down: multiply a ReLU
layer by 10 and divide the next by 10, and the trace changes a hundredfold while no prediction does (Dinh et al. 2017).
So each measure exists a second time, `relative`: with every parameter in units of its own size, which undoes that.

Shapes: x [N, C, H, W] normalised images, y [N] labels, P parameters. Taught in notebooks/06_loss_landscape.ipynb.
"""

from __future__ import annotations

import copy
import warnings
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp

from ..data.batches import derive_seed
from ..models.layers import headline
from .landscape import check

with warnings.catch_warnings():
    # linear_operator, of curvlinops, and torch's own forward mode, when first used, still call torch.jit.script
    warnings.simplefilter("ignore", FutureWarning)
    jvp(torch.abs, (torch.zeros(1),), (torch.zeros(1),))
    from curvlinops import HessianLinearOperator, hutchpp_trace
    from scipy.sparse.linalg import eigsh


class Estimate(NamedTuple):
    """A mean of independent estimates and its standard error."""

    mean: float
    standard_error: float


class _Hessian(HessianLinearOperator):
    """curvlinops' operator, with products by double backward through one graph that is kept for all of them.

    This is three to five times faster here than its forward mode over a graph built anew.

    Vectors are on the CPU, wherever the network is: so random ones are the same for every device.
    """

    @property
    def device(self) -> torch.device:
        """Return the CPU, where all vectors are."""
        return torch.device("cpu")

    def _matmat_batch(self, X: Tensor, y: Tensor, M: list[Tensor]) -> list[Tensor]:
        place = self._params[0].device
        if not hasattr(self, "_slope"):
            loss = self._loss_func(self._model_func(X.to(place)), y.to(place))
            self._slope = torch.autograd.grad(loss, self._params, create_graph=True, materialize_grads=True)
        found = [torch.autograd.grad(self._slope, self._params, [m[..., k].to(place) for m in M], retain_graph=True,
                                     materialize_grads=True) for k in range(M[0].shape[-1])]
        return [torch.stack(parts, dim=-1).cpu() for parts in zip(*found)]


class _Logits(nn.Module):
    """The network as a function of its parameters p, or, relative, of u with p = u * size.

    At u = 1 its Hessian is size H size.
    """

    def __init__(self, net: nn.Module, relative: bool):
        super().__init__()
        self.names = [name for name, p in net.named_parameters() if p.requires_grad]
        sizes = [p.detach() for name, p in net.named_parameters() if p.requires_grad]
        self.sizes = sizes if relative else [torch.ones_like(p) for p in sizes]
        self.units = nn.ParameterList([torch.ones_like(p) if relative else p.clone() for p in sizes])
        self.net = [net]  # in a list: its parameters are not this module's

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits [B, K] at the present parameters."""
        weights = {name: u * size for name, u, size in zip(self.names, self.units, self.sizes)}
        return headline(functional_call(self.net[0], weights, (x,)))


def hessian(net: nn.Module, x: Tensor, y: Tensor, relative: bool = False,
            dtype: torch.dtype = torch.float32) -> HessianLinearOperator:
    """Make the Hessian [P, P] of the mean cross-entropy, in nats, as an operator on CPU vectors: `hessian(...) @ v`.

    Args:
        net: is copied, so it is left as it is.
        relative: with every parameter in units of its own size.
        dtype: float32, or float64 for four to five times the time. On the networks here the traces of the two agree
            to 1e-4 (a test holds them to that).

    Raises:
        InputError: as `landscape.scorer`.
    """
    check(net, x, y)
    own = copy.deepcopy(net).to(dtype).eval()
    model = _Logits(own, relative)
    return _Hessian(model, nn.CrossEntropyLoss(), list(model.parameters()), [(x.to(dtype), y)],
                    check_deterministic=False)


def trace(operator, products: int = 30, repeats: int = 3, seed: int = 0) -> Estimate:
    """Trace by Hutch++ (Meyer et al. 2021), repeated with independent vectors for a standard error.

    Args:
        operator: of `hessian`, or a square matrix.
        products: with the operator in one repeat, divisible by 3 and fewer than it has rows (ours: 30).
        repeats: at least 2 (ours: 3).
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "trace"))
        found = [float(hutchpp_trace(operator, products)) for _ in range(repeats)]
    return Estimate(float(np.mean(found)), float(np.std(found, ddof=1) / repeats ** 0.5))


def top_eigenvalues(operator, tolerance: float = 1e-2) -> np.ndarray:
    """Compute the largest eigenvalue, [1], by SciPy's Lanczos method.

    Args:
        tolerance: relative (ours: 1%).
    """
    dtype = np.float64 if operator.dtype == torch.float64 else np.float32
    start = np.random.default_rng(derive_seed(0, "eigenvalues")).standard_normal(operator.shape[1]).astype(dtype)
    # ten vectors, not SciPy's twenty: the largest eigenvalues of such Hessians stand far apart
    return eigsh(operator.to_scipy(dtype), 1, which="LA", v0=start, tol=tolerance, ncv=min(10, len(start)),
                 return_eigenvectors=False)
