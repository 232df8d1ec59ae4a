"""Slices of the loss against closed forms; the network that is given stays as it is."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from spacedkd_lib.analysis import landscape
from spacedkd_lib.errors import InputError
from spacedkd_lib.models import resnet
from spacedkd_lib.models.scoring import eval_mode, scores


@pytest.fixture(scope="module")
def net():
    """A small ResNet whose statistics have seen pictures, in a mixture of modes."""
    torch.manual_seed(0)
    net = resnet.ResNet("resnet8", 5, 1, 4)
    for _ in range(3):
        net(torch.randn(32, 1, 8, 8))
    net.to(memory_format=torch.channels_last).train().trunk.stages[0].eval()
    return net


@pytest.fixture(scope="module")
def pictures():
    drawn = torch.Generator().manual_seed(1)
    x = torch.randn(600, 1, 8, 8, generator=drawn).contiguous(memory_format=torch.channels_last)
    return x, torch.randint(5, (600,), generator=drawn)


def state(net):
    return ({name: value.clone() for name, value in net.state_dict().items()},
            [module.training for module in net.modules()], [p.grad for p in net.parameters()],
            [p.requires_grad for p in net.parameters()])


def same(before, after):
    return all(torch.equal(before[0][n], after[0][n]) for n in before[0]) and before[1:] == after[1:]


def evaluation(net, x, y):
    with eval_mode(net):
        got = scores(torch.cat([net(part).logits for part in x.split(500)]), y)
    return got["nll"], got["accuracy"]


class Bowl(nn.Module):
    """Two "classes" whose cross-entropy is log(1 + exp(-q)), q = 1/2 w' A w, for every picture of class 0."""

    def __init__(self, start, curvature=((3.0, 1.0), (1.0, 2.0))):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([start], dtype=torch.float64))  # [1, 2]
        self.register_buffer("curvature", torch.tensor(curvature, dtype=torch.float64))

    def forward(self, x):
        value = 0.5 * (self.weight @ self.curvature @ self.weight.T).squeeze()
        return torch.stack([value.expand(len(x)), torch.zeros(len(x), dtype=torch.float64)], dim=1)


IMAGES, LABELS = torch.zeros(3, 1, 1, 1), torch.zeros(3, dtype=torch.int64)


def bowl_loss(w, curvature=((3.0, 1.0), (1.0, 2.0))):
    w = np.asarray(w)
    return math.log1p(math.exp(-0.5 * w @ np.array(curvature) @ w))


def test_quadratic_toy_gives_its_surface_on_every_row():
    net, steps = Bowl([0.3, -0.2]), landscape.axis(2, 5)
    across = {"weight": torch.tensor([[1.0, 0.0]], dtype=torch.float64)}
    upward = {"weight": torch.tensor([[0.5, 1.0]], dtype=torch.float64)}
    got = landscape.plane(net, IMAGES, LABELS, across, upward, steps)["loss"]
    expected = [[bowl_loss([0.3 + a + 0.5 * b, -0.2 + b]) for b in steps] for a in steps]
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-15)
    np.testing.assert_array_equal(landscape.line(net, IMAGES, LABELS, upward, steps)["loss"], got[2])
    around = Bowl([0.0, 0.0])  # at the minimum a symmetric pair of steps gives a symmetric plane
    mirrored = landscape.plane(around, IMAGES, LABELS, across, upward, steps)["loss"]
    np.testing.assert_array_equal(mirrored, mirrored[::-1, ::-1])


def test_centre_is_the_evaluation_to_the_bit_and_nothing_is_left_behind(net, pictures):
    before, expected = state(net), evaluation(net, *pictures)
    first, second = (landscape.direction(net, 0, k) for k in "ab")
    got = landscape.plane(net, *pictures, first, second, landscape.axis(0.5, 3))
    assert (got["loss"][1, 1], got["accuracy"][1, 1]) == expected
    assert len({*got["loss"].flatten()}) == 9
    assert landscape.weight_noise(net, *pictures, [0.0, 0.1], 2)["loss"][0].tolist() == [expected[0]] * 2
    landscape.sharpness(net, *pictures, 0.05)
    landscape.interpolate(net, net, *pictures, [0.5], pictures[0])
    assert same(before, state(net))


@pytest.mark.parametrize("size", landscape.SIZES)
def test_directions_have_the_sizes_of_the_weights(net, size):
    found = landscape.direction(net, 3, "x", size=size)
    assert set(found) == {name for name, p in net.named_parameters() if p.dim() > 1}  # no bias, no normalisation
    again, other = landscape.direction(net, 3, "x", size=size), landscape.direction(net, 4, "x", size=size)
    for name, d in found.items():
        weight = dict(net.named_parameters())[name]
        assert torch.equal(d, again[name]) and not torch.equal(d, other[name])
        assert d.stride() == weight.stride()
        if size == "filter":
            torch.testing.assert_close(d.flatten(1).norm(dim=1), weight.detach().flatten(1).norm(dim=1))
    ratio = torch.cat([(found[n] / dict(net.named_parameters())[n].detach().abs()).flatten() for n in found])
    assert abs(ratio.sign().mean()) < 0.1
    if size == "weight":
        assert ratio.std().item() == pytest.approx(1, abs=0.05)


def test_the_way_between_two_networks(net, pictures):
    torch.manual_seed(5)
    other = resnet.ResNet("resnet8", 5, 1, 4)
    got = landscape.interpolate(net, other, *pictures, [0, 0.5, 1], pictures[0])
    ends = []
    for end in (net, other):
        own = resnet.ResNet("resnet8", 5, 1, 4)
        own.load_state_dict(end.state_dict())
        torch.optim.swa_utils.update_bn(pictures[0].split(landscape.BATCH), own)
        ends.append(evaluation(own, *pictures))
    np.testing.assert_allclose(got["loss"][[0, 2]], [loss for loss, _ in ends], rtol=1e-6)
    backwards = landscape.interpolate(other, net, *pictures, [0.5], pictures[0])
    np.testing.assert_allclose(backwards["loss"], got["loss"][1], rtol=1e-5)
    assert got["loss"][1] != pytest.approx(got["loss"][[0, 2]].mean(), rel=1e-3)


def test_weight_noise_grows_with_its_size_and_knows_its_draws(net, pictures):
    got = landscape.weight_noise(net, *pictures, [0.0, 0.1, 1.0], 4, seed=1)["loss"]
    assert got.shape == (3, 4) and len({*got[2]}) == 4
    assert abs(got[1] - got[0]).mean() < abs(got[2] - got[0]).mean()
    single = landscape.direction(net, 1, "noise", 2, size="weight")
    assert landscape.line(net, *pictures, single, [0.1])["loss"][0] == got[1, 2]


def test_sharpness_is_the_rise_one_step_along_the_gradient():
    net, here = Bowl([0.4, 0.1]), np.array([0.4, 0.1])
    slope = -np.array([[3.0, 1.0], [1.0, 2.0]]) @ here  # direction of steepest ascent
    for relative, unit in ((False, np.ones(2)), (True, here)):
        step = 0.3 * unit * (unit * slope) / np.linalg.norm(unit * slope)
        rise = bowl_loss(here + step) - bowl_loss(here)
        assert landscape.sharpness(net, IMAGES, LABELS, 0.3, relative) == pytest.approx(rise, rel=1e-5)


def test_sharpness_in_parts_is_the_gradient_of_the_mean(net, pictures):
    got = landscape.gradient(net, *pictures, {name: p for name, p in net.named_parameters()})
    with eval_mode(net), torch.enable_grad():
        loss = nn.functional.cross_entropy(net(pictures[0]).logits, pictures[1])
        expected = torch.autograd.grad(loss, list(net.parameters()))
    for g, e in zip(got.values(), expected):
        torch.testing.assert_close(g, e, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("call, sentence", [
    (lambda net, x, y: landscape.direction(net, 0, size="layer"), "layer"),
    (lambda net, x, y: landscape.scorer(net, x[:0], y[:0]), "at least one image"),
    (lambda net, x, y: landscape.scorer(net, x, y[:3]), "one label each"),
    (lambda net, x, y: landscape.axis(1, 1), "odd number"),
    (lambda net, x, y: landscape.axis(1, 4), "odd number"),
    (lambda net, x, y: landscape.line(net, x, y, {"head.weight": torch.zeros(2, 2)}, [0]), "differ in architecture"),
    (lambda net, x, y: landscape.interpolate(net, resnet.ResNet("resnet8", 5, 1, 8), x, y, [0], x), "architecture"),
    (lambda net, x, y: landscape.interpolate(net, resnet.ResNet("resnet14", 5, 1, 4), x, y, [0], x), "architecture"),
    (lambda net, x, y: landscape.interpolate(resnet.ResNet("resnet14", 5, 1, 4), net, x, y, [0], x), "architecture"),
])
def test_bad_input_is_one_clear_sentence(net, pictures, call, sentence):
    with pytest.raises(InputError, match=sentence) as error:
        call(net, *pictures)
    assert "\n" not in str(error.value)


def test_weights_that_are_no_numbers(pictures):
    broken = resnet.ResNet("resnet8", 5, 1, 4)
    with torch.no_grad():
        broken.head.weight[0, 0] = math.nan
    with pytest.raises(InputError, match="not all finite"):
        landscape.scorer(broken, *pictures)
