"""Networks against the released definitions' sizes."""

import json
from pathlib import Path

import pytest
import torch

from spacedkd_lib.errors import InputError
from spacedkd_lib.models import layers
from spacedkd_lib.models.heads import projector
from spacedkd_lib.models.layers import Outputs, headline, in_mode, initialise, macs, parameters
from spacedkd_lib.models.resnet import ARCHITECTURES, MultiExitResNet, NarrowShortcut, ResNet, conv

FIXTURE = json.loads((Path(__file__).parent / "fixtures/models.json").read_text())


def _check(net, size, expected_parameters, expected_macs):
    assert parameters(net) == expected_parameters
    assert macs(net, 3, size) == pytest.approx(expected_macs, rel=5e-4)  # the fixture is rounded to four digits


@pytest.mark.parametrize("name, key", [(n, k) for n, v in FIXTURE["cifar_resnet"].items() for k in v])
def test_cifar_resnets(name, key):
    classes, size = map(int, key.split("@"))
    _check(ResNet(name, classes), size, *FIXTURE["cifar_resnet"][name][key])


@pytest.mark.parametrize("name", FIXTURE["multi_exit_resnet_without_adaptation"])
def test_multi_exit_resnets(name):
    expected = FIXTURE["multi_exit_resnet_without_adaptation"][name]
    net = MultiExitResNet(name, 100)
    _check(net, 32, *expected["100@32"])
    width = net.heads[0].in_features
    assert 3 * (width * width + width) == expected["adaptation_params"]


def test_a_resnets_name_counts_its_layers():
    for name, (blocks, _, bottleneck) in ARCHITECTURES.items():
        assert name == f"resnet{2 + sum(blocks) * (3 if bottleneck else 2)}"


def test_small_resnets():
    for name, (count, mult_adds) in FIXTURE["iekd_resnet_option_B_100_classes"].items():
        net = ResNet(name, 100)
        assert parameters(net) == count
        assert macs(net, 3, 32) == pytest.approx(mult_adds, rel=4e-3)
        # 0.1 M rounding; and the fixture gives option B's deeper nets without their shortcut convolutions (0.3%)


class Repeated(torch.nn.Module):
    """A user's, whose forward pass depends on what no layer holds."""

    def __init__(self, times):
        super().__init__()
        self.times, self.layer = [times], torch.nn.Linear(9, 9)

    def forward(self, x):
        for _ in range(self.times[0]):
            x = self.layer(x.flatten(1))
        return x


def shared(times):
    layer = torch.nn.Linear(9, 9)
    return torch.nn.Sequential(torch.nn.Flatten(), *[layer] * times)


def test_a_structure_is_counted_once_and_another_one_again(monkeypatch):
    monkeypatch.setattr(layers, "_known", {})
    for of in (Repeated, shared):
        assert macs(of(3), 1, 3) == 3 * macs(of(1), 1, 3) == 243
    assert macs(ResNet("resnet8", 10, 1, 4), 1, 16) == 4 * macs(ResNet("resnet8", 10, 1, 4), 1, 8) - 3 * 160
    counted = macs(ResNet("resnet8", 10, 1, 4), 1, 8)
    assert type(counted) is int  # a record holds it
    monkeypatch.setattr(layers, "_counted", lambda *_: 0)
    assert macs(ResNet("resnet8", 10, 1, 4), 1, 8) == counted and macs(ResNet("resnet8", 10, 1, 5), 1, 8) == 0


def test_projectors():
    for key, count in FIXTURE["student_projector_params"].items():
        student, hidden, teacher = map(int, key.split("->"))
        net = projector(student, teacher)
        assert parameters(net) == count and net[0].out_features == hidden


@pytest.mark.parametrize("inputs, size, stride, narrow", [(15, 1, 2, True), (16, 1, 2, False), (4, 1, 1, False), (4, 3, 2, False)])
def test_a_narrow_shortcut_computes_the_same_sums(inputs, size, stride, narrow):
    layer, plain = conv(inputs, 8, size, stride), torch.nn.Conv2d(inputs, 8, size, stride, size // 2, bias=False)
    plain.load_state_dict(layer.state_dict())
    x = torch.randn(2, inputs, 9, 9)
    assert isinstance(layer, NarrowShortcut) is narrow
    torch.testing.assert_close(layer(x), plain(x))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_any_width_and_channels(name):
    out = ResNet(name, classes=7, channels=1, width=4).eval()(torch.zeros(2, 1, 16, 16))
    assert out.logits.shape == (2, 7) and out.features.shape[0] == 2


def test_a_networks_headline_is_its_logits_or_its_deepest_exits():
    logits, others = torch.eye(2), torch.zeros(2, 2)
    output = Outputs(logits, others)
    assert headline(logits) is headline(output) is headline((output, Outputs(others, others))) is logits


def test_exits_are_deepest_first_and_the_deepest_alone_agrees():
    net = MultiExitResNet("resnet10", 5, width=4).eval()
    x = torch.randn(3, 3, 16, 16)
    outputs = net(x)
    assert [o.logits.shape for o in outputs] == [(3, 5)] * 4
    assert torch.equal(outputs[0].logits, net.deepest(x).logits)
    assert not torch.equal(outputs[0].logits, outputs[3].logits)


def test_rectified_gate_cannot_close():
    x = torch.randn(4, 8, 8, 8)
    torch.manual_seed(0)
    gates = {kind: MultiExitResNet("resnet10", 5, width=8, gate=kind).gate(0, x) for kind in ("signed", "rectified")}
    assert gates["rectified"].min() >= 0.5 and gates["signed"].min() < 0.5


def test_kaiming_changes_convolutions_only():
    torch.manual_seed(0)
    before = ResNet("resnet8", 5, width=64)
    torch.manual_seed(0)
    after = initialise(ResNet("resnet8", 5, width=64), "kaiming")
    assert torch.equal(before.head.weight, after.head.weight)
    conv = after.trunk.stages[2][0].residual[3].weight  # [256, 256, 3, 3]
    assert conv.std().item() == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.02)


def test_bad_names():
    with pytest.raises(InputError, match='did you mean "resnet18"'):
        ResNet("resnet81x8", 10)
    with pytest.raises(InputError, match="three stages"):
        MultiExitResNet("resnet20", 10)


def test_the_mode_of_a_network_is_set_in_all_its_layers_but_only_where_it_changes(monkeypatch):
    nn = torch.nn
    net, calls, visit = nn.Sequential(nn.BatchNorm2d(1), nn.Dropout()), [], nn.Module.train
    monkeypatch.setattr(nn.Module, "train", lambda self, mode=True: calls.append(mode) or visit(self, mode))
    assert in_mode(net) is net and not calls
    assert not any(layer.training for layer in in_mode(net, False).modules()) and len(calls) == 3
    net.eval(), net[1].train()
    assert all(layer.training for layer in in_mode(net).modules())
