"""Every deviation of the released programs is a switch: it can be set alone, in both directions, and does what it
says. (That all of them together are the released programs: test_conformance.py.)"""

import operator
import re
from dataclasses import replace
from functools import cache

import pytest
import torch
from conftest import toy_dataset

import spacedkd_lib as skd
from spacedkd_lib.data import augment
from spacedkd_lib.data.batches import generator
from spacedkd_lib.data.datasets import load
from spacedkd_lib.errors import InputError
from spacedkd_lib.methods import build
from spacedkd_lib.methods.build import recipe_schedule
from spacedkd_lib.models import layers, resnet
from spacedkd_lib.recipes import (
    DEVIATIONS, Recipe, baseline, deviations_of, education, ema, ie_kd, mutual, offline_kd, online_kd, preset, self_kd,
    set_deviation, switches,
)
from spacedkd_lib.recipes.released import RELEASED
from spacedkd_lib.schedule import Course
from spacedkd_lib.training.optimizers import optimizers
from spacedkd_lib.training.rates import Clock, learning_rate
from spacedkd_lib.training.train import train

BASE = Recipe(dataset="toy", model="resnet8", width=4, epochs=3, batch_size=8, lr=0.05)
ONLINE = online_kd(BASE, interval=1.5)
SELF = self_kd(replace(BASE, model="resnet10"), interval=1.5)
BASES = {"online_kd": ONLINE, "self_kd": SELF, "offline_kd": offline_kd(ONLINE)}
OTHERS = {"ie_kd": ie_kd(BASE), "mutual": mutual(BASE), "ema": ema(BASE),
          "education": education(replace(BASE, dataset="digits", train_images=100), (3, 3, 4))}
SWITCHES = [(d.id, method) for d in deviations_of("A") for method in d.released
            if (d.id, method) != ("A1", "self_kd")]  # there another value of the same gradient
OTHER_SWITCHES = [(d.id, method) for d in deviations_of("IE") for method in d.released]


@cache
def trained(recipe):
    return train(recipe, toy_dataset() if recipe.dataset == "toy" else load(recipe.dataset))


def test_all_rows_are_there_and_told_in_full():
    assert [d.id for d in deviations_of("A")] == [f"A{i}" for i in range(1, 23)]
    assert [d.id for d in deviations_of("BM")] == [f"{letter}{k}" for letter in "BM" for k in range(1, 8)]
    assert {d.id[0] for d in DEVIATIONS.values()} == set("AVIEBM")
    for id, d in DEVIATIONS.items():
        assert id == d.id and all((d.title, d.where, d.expected, d.program, d.consequence)), id
        assert bool(d.released) != bool(d.elsewhere) and d.severity in ("high", "medium"), id
    assert all(d.severity == ("high" if int(d.id[1:]) <= 10 else "medium") for d in deviations_of("A"))


def test_what_rows_point_to_is_there():
    texts = [d.elsewhere for d in DEVIATIONS.values()]
    dotted = {address for text in texts for address in re.findall(r"\b[a-z_]\w*(?:\.[A-Za-z_]\w*)+", text)}
    assert "tables.runs" in dotted
    for address in dotted:
        operator.attrgetter(address)(skd)


@pytest.mark.parametrize("method", RELEASED)
def test_the_registry_is_the_preset(method):
    base = BASES.get(method) or OTHERS[method]
    told = {}
    for d in deviations_of("AIEM"):
        told |= d.released.get(method, {}) if d.in_preset else {}
    grades = dict(grade_epochs=(1, 1, 1)) if method == "education" else {}
    assert told and preset(base, "released") == replace(base, **told, **grades)
    assert preset(preset(base, "released"), "clean") == replace(base, augment=told.get("augment", base.augment))
    recipe = base
    for id in switches(method):
        recipe = set_deviation(recipe, id)
    assert recipe == replace(base, **told)
    for id in switches(method):
        recipe = set_deviation(recipe, id, "clean")
    assert recipe == base


def test_the_released_pair_of_ie_kd_is_exchanged():
    clean = ie_kd(Recipe(model="resnet20"), teacher_model="resnet56")
    pair = preset(clean, "released")  # I3
    assert (pair.model, pair.teacher_model) == ("resnet56", "resnet20")
    assert preset(pair, "released") == pair and preset(pair, "clean") == clean


@pytest.mark.parametrize("id, method", OTHER_SWITCHES)
def test_the_other_switches_change_what_is_learnt(id, method):
    one, other = trained(OTHERS[method]), trained(set_deviation(OTHERS[method], id))
    assert one[3].keys() != other[3].keys() or any(not torch.equal(v, other[3][k]) for k, v in one[3].items())


@pytest.mark.parametrize("id, method", SWITCHES)
def test_set_alone_it_changes_what_is_learnt(id, method):
    """On pictures that are trained with it; from the clean side and from the released one."""
    clean = replace(BASES[method], interval=0.0) if id == "A7" else BASES[method]
    if id == "A12":  # of the momentum that idle exits coast on, there is some after the first replay
        clean = replace(clean, epochs=4)
    base = preset(clean, "released") if method in RELEASED else clean
    for start, end in ((clean, set_deviation(clean, id)), (set_deviation(base, id), set_deviation(base, id, "clean"))):
        assert start != end
        one, other = trained(start), trained(end)
        differ = [name for name, value in one[3].items() if not torch.equal(value, other[3][name])]
        assert differ or one[1]["student_updates"] != other[1]["student_updates"], (id, start)


@pytest.mark.parametrize("call, message", [
    (lambda: set_deviation(ONLINE, ["A1"]), 'did you mean "A1"'),
    (lambda: set_deviation(ONLINE, "A99"), '"A99" is not a deviation'),
    (lambda: set_deviation(ONLINE, "A1", "both"), "clean, released"),
    (lambda: set_deviation(ONLINE, "A3"), "belongs to self_kd and the method is online_kd"),
    (lambda: set_deviation(ONLINE, "A5"), "best_on_test"),
    (lambda: set_deviation(OTHERS["ie_kd"], "I12"), "I12 .* tables.runs"),
    (lambda: set_deviation(OTHERS["ema"], "M7"), "M7 .* see a sentence"),
    (lambda: set_deviation(baseline(ONLINE), "A1"), "method is baseline"),
])
def test_what_cannot_be_set(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_a7_targets_from_before_the_teachers_update():
    x, y = torch.randn(4, 3, 8, 8), torch.arange(4) % 3
    for zero_target in ("pre_update", "post_update"):
        recipe = replace(ONLINE, interval=0.0, zero_target=zero_target, alpha=1.0, beta=0.0)
        method = build.make(recipe, 3, 3, 8)
        optimizer = optimizers(method.recipe, method)["teach"]
        before = method.teacher.train()(x).logits.detach()
        method.teach(x, y)["loss"].backward()
        optimizer.step()
        target = before if zero_target == "pre_update" else method.teacher_outputs(x).logits
        loss = method.soft_scale * method.soft(method.student.train()(x).logits, target, 3.0)
        torch.testing.assert_close(method.learn(x, y)["loss"], loss)


def test_a17_the_adapter_of_exit_3_is_never_trained():
    x, y = torch.randn(4, 3, 8, 8), torch.arange(4) % 3
    for exits, unused in (((1, 2), [True, False, False]), ((1, 2, 3), [False] * 3)):
        method = build.make(replace(SELF, feature_exits=exits), 3, 3, 8)
        method.learn(x, y)["loss"].backward()
        assert [adapter.weight.grad is None for adapter in method.adapters] == unused  # of exits 3, 2, 1


@pytest.mark.parametrize("base", [ONLINE, SELF])
def test_a18_t_squared(base):
    x, y = torch.randn(4, 3, 8, 8), torch.arange(4) % 3
    scaled, plain = (build.make(replace(base, t_squared=on), 3, 3, 8).learn(x, y) for on in (True, False))
    torch.testing.assert_close(scaled["loss"] - plain["loss"], base.alpha * (3.0**2 - 1) * plain["soft"])


def test_a9_three_steps_and_the_teachers_clock():
    steps = replace(ONLINE, lr=1.0, lr_schedule="multistep", epochs=200)
    assert [round(learning_rate(steps, i, 200), 6) for i in (0, 59, 60, 120, 160)] == [1, 1, 0.2, 0.04, 0.008]
    theirs = replace(ONLINE, student_clock="teacher")
    events = list(recipe_schedule(theirs, 5))
    course = Course(((theirs.epochs, 5),))
    clock = Clock(theirs, course, [])
    rates = [(event.kind, clock.rate(event)) for event in events if event.kind != "epoch"]
    assert rates[7:14] == [("learn", rates[6][1])] * 7 and rates[6] == ("teach", learning_rate(theirs, 6, 15))
    late = Clock(theirs, course, events[:10])  # taken up again in the middle of a replay
    assert late.rate(events[10]) == rates[6][1]


def test_a12_idle_exits_decay_as_sgd_does():
    """After n teacher's steps at momentum 0: (1 - lr weight_decay)^n; with gradients of None: untouched."""
    x, y = torch.randn(4, 3, 8, 8), torch.arange(4) % 3
    for idle, factor in (("frozen", 1.0), ("decay", (1 - 0.05 * 0.1) ** 3)):
        recipe = replace(SELF, momentum=0.0, weight_decay=0.1, idle_exits=idle)
        method = build.make(recipe, 3, 3, 8)
        optimizer = optimizers(recipe, method)["teach"]
        before = {name: p.clone() for name, p in method.net.named_parameters()}
        for _ in range(3):
            optimizer.zero_grad()
            method.teach(x, y)["loss"].backward()
            optimizer.step()
        for name, p in method.net.named_parameters():
            if not name.startswith(("trunk", "heads.3")):
                torch.testing.assert_close(p, factor * before[name])
        assert all(p.grad is None for p in method.adapters.parameters())  # they do not belong to the copies


def test_a12_batch_norm_in_parts_is_that_of_several_gpus():
    x = torch.randn(5, 3, 8, 8)
    net, whole = resnet.ResNet("resnet8", 3, width=4), resnet.ResNet("resnet8", 3, width=4)
    whole.load_state_dict(net.state_dict())
    layers.split_batch_norm(net, 2)
    with torch.no_grad():
        parts = net.train()(x).logits
        first = whole.train()(x[:3]).logits  # DataParallel gives the first GPU the larger half
        torch.testing.assert_close(parts[:3], first)
        for (name, value), other in zip(net.state_dict().items(), whole.state_dict().values()):
            torch.testing.assert_close(value, other, msg=name)  # running statistics of the first part alone
        torch.testing.assert_close(parts[3:], whole(x[3:]).logits)
        torch.testing.assert_close(net.eval()(x).logits, net.eval()(x.flip(0)).logits.flip(0))


def test_a19_rotations_go_to_one_side():
    slots = augment.chosen(augment.draw("autoaugment_cutout", 500, 32, 32, generator(0, "augment", 0)))
    values = [[value for slot in slots for name, value in slot if name == wanted] for wanted in ("rotate", "shear_y")]
    assert min(values[0]) > 0 > min(values[1])
