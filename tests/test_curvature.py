"""Curvature against full Hessians, SciPy and closed forms; and what a change of parametrisation does to it."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from spacedkd_lib.analysis import curvature, landscape
from spacedkd_lib.errors import InputError
from spacedkd_lib.models import layers, resnet
from spacedkd_lib.models.scoring import eval_mode


def mlp(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))


@pytest.fixture(scope="module")
def pictures():
    drawn = torch.Generator().manual_seed(1)
    return torch.randn(40, 1, 2, 3, generator=drawn), torch.randint(3, (40,), generator=drawn)


def full_hessian(net, x, y, relative=False):
    """[P, P] by autograd, column by column."""
    names, shapes = zip(*[(n, p.shape) for n, p in net.named_parameters()])
    start = torch.cat([p.detach().double().flatten() for p in net.parameters()])
    unit = start if relative else torch.ones_like(start)

    def loss(u):
        pieces = ((u * unit) if relative else u).split([shape.numel() for shape in shapes])
        weights = {n: piece.view(shape) for n, piece, shape in zip(names, pieces, shapes)}
        out = torch.func.functional_call(net, weights, (x.double(),))
        return nn.functional.cross_entropy(layers.headline(out), y)
    with eval_mode(net), torch.enable_grad():
        return torch.autograd.functional.hessian(loss, torch.ones_like(start) if relative else start)


@pytest.mark.parametrize("relative", (False, True))
def test_against_the_full_hessian(pictures, relative):
    net = mlp().double()
    full = full_hessian(net, *pictures, relative)
    operator = curvature.hessian(net, *pictures, relative, torch.float64)
    torch.testing.assert_close(operator @ torch.eye(len(full), dtype=torch.float64), full)
    torch.testing.assert_close(operator @ full[0], full @ full[0])
    eigenvalues = torch.linalg.eigvalsh(full).numpy()
    np.testing.assert_allclose(curvature.top_eigenvalues(operator, 1e-8), eigenvalues[-1:], rtol=1e-6)
    estimate = curvature.trace(full, 18, 40)
    assert abs(estimate.mean - eigenvalues.sum()) < 4 * estimate.standard_error
    assert estimate.standard_error < 0.1 * eigenvalues.sum()
    assert curvature.trace(operator, 6, 2) == pytest.approx(curvature.trace(full, 6, 2))
    if relative:
        sizes = torch.cat([p.detach().flatten() for p in net.parameters()])
        torch.testing.assert_close(full, sizes[:, None] * full_hessian(net, *pictures) * sizes)


def test_a_resnet_in_either_precision_is_left_as_it_was(pictures):
    torch.manual_seed(0)
    net = resnet.ResNet("resnet8", 3, 1, 1).train()
    x, y = torch.randn(8, 1, 4, 4), torch.arange(8) % 3
    net(x)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    wide, narrow = (curvature.hessian(net, x, y, dtype=dtype) for dtype in (torch.float64, torch.float32))
    vector = torch.randn(wide.shape[1], dtype=torch.float64)
    torch.testing.assert_close(wide @ vector, product(copy.deepcopy(net).double(), x.double(), y, vector))
    assert curvature.trace(narrow, 3, 2).mean == pytest.approx(curvature.trace(wide, 3, 2).mean, rel=1e-4)
    assert net.training and all(torch.equal(before[n], v) for n, v in net.state_dict().items())
    assert all(p.grad is None and p.dtype == torch.float32 for p in net.parameters())


def product(net, x, y, vector):
    """Hessian times vector by two backward passes."""
    parameters = list(net.eval().parameters())
    slope = torch.autograd.grad(nn.functional.cross_entropy(net(x).logits, y), parameters, create_graph=True)
    dot = sum((g * v.view_as(g)).sum() for g, v in zip(slope, vector.split([p.numel() for p in parameters])))
    return torch.cat([h.flatten() for h in torch.autograd.grad(dot, parameters)])


def test_standard_error_is_the_spread_of_estimates():
    matrix = torch.diag(torch.linspace(1, 2, 50, dtype=torch.float64))
    matrix += 0.3 * torch.ones_like(matrix)
    found = [curvature.trace(matrix, 6, 4, seed) for seed in range(60)]
    spread = np.std([estimate.mean for estimate in found], ddof=1)
    assert np.sqrt(np.mean([e.standard_error ** 2 for e in found])) == pytest.approx(spread, rel=0.35)
    assert np.mean([e.mean for e in found]) == pytest.approx(matrix.trace().item(), abs=4 * spread / 60 ** 0.5)
    assert curvature.trace(matrix, 6, 4, 0) == found[0]


def test_a_rescaled_network_has_another_trace_and_the_same_relative_one(pictures):
    """Dinh et al. 2017: first layer times 10, second divided by 10."""
    net, scaled = mlp(), mlp()
    with torch.no_grad():
        for p in scaled[1].parameters():
            p.mul_(10)
        scaled[3].weight.div_(10)
    torch.testing.assert_close(net(pictures[0]), scaled(pictures[0]))

    def measures(of):
        plain, relative = (curvature.hessian(of, *pictures, flag, torch.float64) for flag in (False, True))
        noise = landscape.weight_noise(of, *pictures, [0.3], 3)["loss"][0]
        return (curvature.trace(plain, 6, 2).mean, curvature.top_eigenvalues(plain)[0],
                landscape.sharpness(of, *pictures, 0.05)), (
            curvature.trace(relative, 6, 2).mean, curvature.top_eigenvalues(relative)[0],
            landscape.sharpness(of, *pictures, 0.5, relative=True), *noise)
    (plain, relative), (plain_scaled, relative_scaled) = measures(net), measures(scaled)
    np.testing.assert_allclose(relative, relative_scaled, rtol=1e-3)
    assert all(abs(a / b) > 2 for a, b in zip(plain_scaled, plain))


def test_labels_that_do_not_fit_are_refused(pictures):
    with pytest.raises(InputError, match="one label each"):
        curvature.hessian(mlp(), pictures[0], pictures[1][:3])
