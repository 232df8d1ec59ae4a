"""A teacher that is behind, labels alone at first, the student's own past, SAM and label smoothing."""

from dataclasses import replace
from itertools import product

import pytest
import torch
import torch.nn.functional as F

from spacedkd_lib import recipes
from spacedkd_lib.errors import InputError
from spacedkd_lib.methods import build
from spacedkd_lib.methods.online_kd import ask
from spacedkd_lib.models.resnet import ResNet
from spacedkd_lib.recipes import Recipe, baseline, behind, online_kd, past_self, spaced
from spacedkd_lib.schedule import interval_batches, lockstep, snapshots, spaced_schedule
from spacedkd_lib.training.run import Run
from spacedkd_lib.training.train import train

BASE = Recipe(dataset="toy", model="resnet8", width=4, epochs=4, batch_size=8, lr=0.05, augment="none")
ONLINE = online_kd(BASE)
SMALL = list(product((1, 2, 3), (1, 2, 5, 7), (0.3, 0.5, 1, 1.5, 2)))


@pytest.mark.parametrize("rule", ["fixed", "constant"])
def test_a_teacher_behind_in_all_small_cases(rule):
    for epochs, length, interval in SMALL:
        if interval > epochs or interval * length < 1:
            continue
        events = list(spaced_schedule(epochs, length, -interval, rule=rule))
        total, lag = epochs * length, interval_batches(length, interval)
        for kind in ("teach", "learn"):
            assert [e.index for e in events if e.kind == kind] == list(range(total))
        taught = 0
        for event in events:
            if event.kind == "learn":
                begun = event.index // lag * lag if rule == "fixed" else event.index - lag
                assert taught == max(begun, 0)
            taught += event.kind == "teach"
            assert event.kind != "epoch" or taught == event.index * length
            last = taught - 1 if event.kind == "epoch" else event.index
            assert event.block == last // (lag if rule == "fixed" else 1)


def test_all_offsets_share_one_teacher():
    schedules = {s: spaced_schedule(2, 4, s) for s in (-2, -0.5, 0, 1.5)}
    merged = list(lockstep(schedules))
    assert [e.index for e, who in merged if e.kind == "teach"] == list(range(8))
    assert all(len(who) == 4 for e, who in merged if e.kind in ("teach", "epoch"))


def test_before_distil_start_the_student_learns_from_labels_alone(toy):
    labels, late = train(baseline(BASE), toy)[0], train(replace(ONLINE, distil_start=2.0), toy)[0]
    assert [row["student_loss"] for row in late[:2]] == [row["student_loss"] for row in labels[:2]]
    assert late[2]["student_loss"] != labels[2]["student_loss"] and "student_soft" not in late[1]


def test_asked_by_the_batch_nothing_moves_and_nothing_is_dropped():
    net = ResNet("resnet8", classes=3, channels=1, width=4).eval()
    for place in net.trunk.dropouts:
        place.rate = 0.9
    before, x = {name: value.clone() for name, value in net.state_dict().items()}, torch.randn(8, 1, 8, 8)
    answer = ask(net, x, "batch").logits
    assert torch.equal(answer, ask(net, x, "batch").logits)
    assert not torch.equal(answer, ask(net, x, "eval").logits)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_snapshots_are_taken_after_each_block():
    assert [e.index for e in snapshots(2, 5, 1.5) if e.kind == "teach"] == [6]
    assert [e.index for e in snapshots(1, 3, 0) if e.kind == "teach"] == [0, 1, 2]
    assert [e.block for e in snapshots(2, 3, 1)] == [0] * 5 + [1] * 5


def test_the_past_is_a_copy_or_an_average(toy):
    weights = train(past_self(BASE, 1.0, distil_start=1.0), toy)[3]
    slow = train(past_self(BASE, 0.0, 0.9), toy)[3]
    for name in (key.removeprefix("teacher.") for key in slow if key.startswith("teacher.")):
        assert torch.equal(weights[f"teacher.{name}"], weights[f"student.{name}"])  # the last epoch's end
        statistics = "running" in name or "tracked" in name
        assert torch.equal(slow[f"teacher.{name}"], slow[f"student.{name}"]) is statistics, name


def test_a_step_of_sam_by_hand():
    recipe = replace(baseline(BASE), optimizer="sam", sam_rho=0.1, momentum=0.0)
    run = Run(recipe, build.make(recipe, 1, 3, 8))
    net, x, y = run.method.student.double(), torch.randn(8, 1, 8, 8).double(), torch.arange(8) % 3
    start = [p.detach().clone() for p in net.parameters()]

    def gradients(weights):
        own = [w.clone().requires_grad_() for w in weights]
        named = dict(zip(dict(net.named_parameters()), own))
        buffers = {name: value.clone() for name, value in net.named_buffers()}
        out = torch.func.functional_call(net.train(), named | buffers, (x,))
        return torch.autograd.grad(F.cross_entropy(out.logits, y), own)
    first = gradients(start)
    norm = sum(g.square().sum() for g in first).sqrt()
    second = gradients([w + 0.1 * g / norm for w, g in zip(start, first)])
    run.step("learn", x, y, 0.05)
    for p, w, g in zip(net.parameters(), start, second):
        torch.testing.assert_close(p.detach(), w - 0.05 * (g + recipe.weight_decay * w), rtol=1e-9, atol=1e-12)
    assert int(net.trunk.stem[1].num_batches_tracked) == 1


def test_label_smoothing_is_that_of_the_loss():
    recipe = replace(baseline(BASE), label_smoothing=0.2)
    method, x, y = build.make(recipe, 1, 3, 8), torch.randn(8, 1, 8, 8), torch.arange(8) % 3
    loss = method.learn(x, y)["loss"]
    assert torch.equal(loss, F.cross_entropy(method.student.train()(x).logits, y, label_smoothing=0.2))


@pytest.mark.parametrize("make, values", [
    (lambda: spaced(ONLINE, -1.0), ("distil_start = 0", "behind()")),
    (lambda: behind(ONLINE, 5.0), ("interval = -5",)),
    *((lambda given=given: behind(ONLINE, given), (f"interval = {given!r} puts no teacher behind", "spaced()"))
      for given in (-1, "1", None, float("nan"))),
    (lambda: behind(recipes.self_kd(replace(BASE, model="resnet10")), 1.0), ("self_kd",)),
    (lambda: replace(baseline(BASE), distil_start=1.0), ("distil_start = 1", "baseline")),
    (lambda: replace(ONLINE, optimizer="sam"), ("sam", "online_kd")),
    (lambda: past_self(BASE, teacher_width=8), ("teacher_width",)),
])
def test_contradictions_are_refused(make, values):
    with pytest.raises(InputError) as error:
        make()
    assert all(value in str(error.value) for value in values)
