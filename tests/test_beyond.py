"""Spaced dropout and spaced EMA: rates and averages by formula, alone and in sweeps, and each released switch."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import toy_dataset
from torch import nn

from spacedkd_lib import recipes
from spacedkd_lib.data import datasets
from spacedkd_lib.data.batches import normalised
from spacedkd_lib.errors import InputError
from spacedkd_lib.lab import arms, profiles
from spacedkd_lib.methods import build, dropout_ema, ema as average
from spacedkd_lib.methods.build import recipe_schedule
from spacedkd_lib.methods.online_kd import batch_statistics
from spacedkd_lib.models.layers import Dropout, dropouts
from spacedkd_lib.models.resnet import ResNet
from spacedkd_lib.recipes import Recipe, baseline, deviations_of, ema, online_kd, set_deviation, spaced
from spacedkd_lib.schedule import counts
from spacedkd_lib.training.loop import walk
from spacedkd_lib.training.train import assemble, train

BASE = Recipe(dataset="toy", model="resnet8", width=4, epochs=3, batch_size=8, lr=0.05, augment="none")  # 5 batches
DROP = replace(BASE, dropout=0.5)
SINE = replace(DROP, dropout_rule="sine")
EMA = ema(BASE, ema_decay=0.8)


@pytest.fixture(autouse=True)
def few_looks(monkeypatch):
    monkeypatch.setattr(average, "RECALIBRATION_BATCHES", 4)


def walked(recipe, toy, look):
    """`look(event, run)` after each event of a run."""
    runs, batches, evaluate = assemble([recipe], toy, torch.device("cpu"))
    return [look(event, runs[0]) for event, *_ in walk(runs, batches, evaluate)]


def same(one, other):
    return one[1] == other[1] and all(torch.equal(value, other[3][name]) for name, value in one[3].items())


# Rates of dropout

def test_the_rate_is_the_sine_of_the_updates_number(toy):
    recipe = replace(SINE, dropout_period=0.6)  # int(0.6 * 5) = 3 batches
    seen = walked(recipe, toy, lambda event, run: (event, [place.rate for place in dropouts(run.method.student)]))
    for event, rates in seen:
        if event.kind == "learn":
            assert rates == [pytest.approx(0.5 * abs(math.sin(math.pi * event.index / 3)), abs=1e-12)] * 3


def test_means_of_the_rates():
    rates = [dropout_ema.dropout_rate(SINE, t, 1000) for t in range(3000)]
    assert np.mean(rates) == pytest.approx(0.5 * 2 / math.pi, rel=1e-5) and max(rates) == 0.5 and min(rates) == 0
    compared = {arm.name: arm.recipe for arm in arms.beyond_arms(profiles.profile("study").settings[0])}
    peak = compared["spaced dropout"].dropout
    assert compared["dropout, equal mean"].dropout == pytest.approx(peak * 2 / math.pi)


def test_test_batches_count_in_the_released_form():
    """Each of 391 + 79 forward passes an epoch moves t by one."""
    released = replace(SINE, dropout_at_test="on_counted")
    counter = iter(range(10**6))
    for epoch in (1, 2, 3):
        for update in range((epoch - 1) * 391, epoch * 391):
            assert dropout_ema.counted(released, update, 391, 79) == next(counter)
            assert dropout_ema.counted(SINE, update, 391, 79) == update
        for batch in range(79):
            assert dropout_ema.number_at_test(released, epoch, batch, 391, 79) == next(counter)
            assert dropout_ema.number_at_test(SINE, epoch, batch, 391, 79) == epoch * 391
    means = [np.mean([dropout_ema.dropout_rate(released, dropout_ema.number_at_test(released, epoch, batch, 391, 79), 391)
                      for batch in range(79)]) for epoch in range(1, 81)]
    assert (min(means), max(means)) == pytest.approx((0.079, 0.492), abs=5e-4)  # as recorded of the released program
    assert sum(mean < 0.15 for mean in means) == 16


@pytest.mark.parametrize("at, numbers", [
    ("on", [0, 1, 2, 3, 4, 5, 5, 5, 5, 6, 7, 8, 9, 10, 10, 10]), ("on_counted", range(16))])
def test_the_rate_at_each_pass_of_a_run(at, numbers, toy, monkeypatch):
    """Two epochs of five updates and a test of three batches."""
    monkeypatch.setattr(dropout_ema, "TEST_BATCH", 5)  # of 12 pictures
    recipe, rates = replace(SINE, epochs=2, dropout_period=2.2, dropout_at_test=at), []  # S = 11
    (run,), batches, evaluate = assemble([recipe], toy, torch.device("cpu"))
    net = run.method.student
    net.register_forward_pre_hook(lambda *_: rates.append([place.rate for place in dropouts(net)]))
    for _ in walk([run], batches, evaluate):
        pass
    assert rates == [[pytest.approx(0.5 * abs(math.sin(math.pi * t / 11)), abs=1e-12)] * 3 for t in numbers]


def test_long_periods_are_random_rates_in_the_released_form():
    assert recipes.released_dropout(SINE, 391).dropout_rule == "sine"
    assert recipes.released_dropout(replace(SINE, dropout_period=1.28), 391).dropout_rule == "random"
    assert recipes.released_dropout(DROP, 391).dropout_rule == "constant"


# What is dropped

def place_of(rate, **options):
    place = Dropout().train()
    place.rate = rate
    for name, value in options.items():
        setattr(place, name, value)
    return place


def test_elementwise_dropout():
    x = torch.rand(4, 3, 32, 32) + 1
    y = place_of(0.25)(x)
    kept = y != 0
    assert kept.float().mean().item() == pytest.approx(0.75, abs=0.02)
    torch.testing.assert_close(y[kept], x[kept] / 0.75)


@pytest.mark.parametrize("recipe, wanted", [
    (DROP, (False, False)), (replace(DROP, dropout_rule="random"), (True, False)),
    (replace(DROP, dropout_at_test="on"), (False, True)), (online_kd(replace(DROP, dropout_rule="random")), (True, False))])
def test_the_recipe_decides_what_every_place_drops(recipe, wanted):
    modules = build.make(recipe, 3, 3, 8).modules
    for name in modules.keys() - {"projector"}:
        assert {(place.random, place.always) for place in dropouts(modules[name])} == {wanted}, name


def test_random_rates_are_drawn_by_each_call():
    torch.manual_seed(0)
    place, x = place_of(0.8, random=True), torch.ones(1, 1, 100, 100)
    dropped = [(place(x) == 0).float().mean().item() for _ in range(300)]
    assert np.mean(dropped) == pytest.approx(0.4, abs=0.05)
    assert np.std(dropped) == pytest.approx(0.8 / 12**0.5, abs=0.04)


def test_an_idle_place_changes_nothing_and_leaves_no_name():
    net, x = ResNet("resnet8", 3, width=4).train(), torch.randn(2, 3, 8, 8)
    assert len(dropouts(net)) == 3 and not any("dropout" in name for name in net.state_dict())
    with torch.no_grad(), batch_statistics(net):
        generator = torch.get_rng_state()
        idle = net(x).logits
        assert torch.equal(generator, torch.get_rng_state())
        net.trunk.dropouts[0].rate = 0.5
        assert not torch.equal(net(x).logits, idle)


def test_dropout_at_test_only_where_it_is_asked_for(toy):
    """The same weights, scored clean, under dropout, and under dropout at the rates that test batches bring."""
    swing = replace(SINE, dropout_period=0.8)  # of one epoch the rate is zero where it ends
    found = {at: train(replace(swing, dropout_at_test=at), toy) for at in ("off", "on", "on_counted")}
    for at in ("on", "on_counted"):
        assert found[at][1]["test_nll"] != found["off"][1]["test_nll"]
    for name, value in found["on"][3].items():
        assert torch.equal(value, found["off"][3][name])
    constant = {at: train(replace(DROP, dropout_at_test=at), toy) for at in ("on", "on_counted")}
    assert same(*constant.values())  # of a constant rate the counter changes nothing
    idle = build.make(DROP, 3, 3, 8).student.eval()
    for place in dropouts(idle):
        place.rate = 0.5
    assert torch.equal(idle(torch.ones(1, 3, 8, 8)).logits, idle(torch.ones(1, 3, 8, 8)).logits)


# The average

@pytest.mark.parametrize("debias", [False, True])
def test_the_average_is_its_closed_form(debias, toy):
    """After n steps: a^n of the initial weights and (1 - a) a^(n-k) of the network after its k-th; without bias, that
    less the first term, over 1 - a^n."""
    recipe = spaced(replace(EMA, ema_debias=debias), 0.4)  # K = 2 of 15 updates: 8 steps
    first = [p.clone().double() for p in build.make(recipe, 3, 3, 8).teacher.parameters()]
    seen = walked(recipe, toy, lambda event, run: (event.kind, *(
        [value.clone().double() for value in run.method.modules[name].parameters()]
        for name in ("teacher", "student"))))
    networks, steps = [first], 0
    for kind, network, average in seen:
        if kind != "learn":
            continue
        networks, steps = [*networks, network], steps + 1
        weights = [0.8**steps] + [0.2 * 0.8 ** (steps - k) for k in range(1, steps + 1)]
        if debias:
            weights = [0.0] + [weight / (1 - 0.8**steps) for weight in weights[1:]]
        assert dropout_ema.average_weights(0.8, debias, steps) == pytest.approx(weights, abs=1e-12)
        for i, value in enumerate(average):
            wanted = sum(weight * of[i] for weight, of in zip(weights, networks))
            torch.testing.assert_close(value, wanted, rtol=1e-4, atol=1e-6)
    assert steps == 8


def test_steps_of_the_average():
    for s, steps in ((0, 15), (0.2, 15), (0.4, 8), (1.0, 3), (3.0, 1)):
        got = counts(recipe_schedule(spaced(EMA, s), 5))
        assert (got.teach, got.learn) == (15, steps)
    assert counts(recipe_schedule(spaced(EMA, 0.4, tail="drop"), 5)).learn == 7


def test_equal_horizon_and_what_is_left_of_the_initialisation():
    assert dropout_ema.equal_horizon(0.99, 39) == pytest.approx(0.999742, abs=1e-6)
    dense = dropout_ema.average_weights(dropout_ema.equal_horizon(0.9, 4), True, 40)
    sparse = dropout_ema.average_weights(0.9, True, 10)
    assert [sum(dense[k + 1:k + 5]) for k in range(0, 40, 4)] == pytest.approx(sparse[1:])  # block by block
    for s, left in ((0.5, 0.20), (1.0, 0.45), (2.0, 0.67)):  # of 80 epochs (M4)
        steps = counts(recipe_schedule(replace(spaced(ema(Recipe()), s), ema_debias=False, tail="drop"), 391)).learn
        assert dropout_ema.average_weights(0.99, False, steps)[0] == pytest.approx(left, abs=0.005)
    for setting in (profiles.profile("quick").settings[0], profiles.profile("smoke").settings[0]):
        recipe = {arm.name: arm.recipe for arm in arms.beyond_arms(setting)}["EMA, equal horizon"]
        training, _ = datasets.split(datasets.load(recipe.dataset), recipe.train_images, recipe.val_fraction)
        batches = -(-len(training) // recipe.batch_size)
        assert recipe.ema_decay == dropout_ema.equal_horizon(0.99, int(0.1 * batches))


@pytest.mark.parametrize("statistics", ["recalibrate", "stale", "batch"])
def test_statistics_of_the_average(statistics, toy):
    recipe = spaced(replace(EMA, ema_statistics=statistics, ema_debias=False), 1.0)  # 3 steps
    weights = train(recipe, toy)[3]
    average = weights["student.trunk.stem.1.running_mean"]
    if statistics == "recalibrate":
        net = nn.Sequential(*[build.make(recipe, 3, 3, 8).student.trunk.stem[0]]).eval()
        net[0].weight.data = weights["student.trunk.stem.0.weight"]
        batches = assemble([recipe], toy, torch.device("cpu"))[0][0].method.recalibration
        with torch.no_grad():
            wanted = torch.stack([net(batches[i][0]).mean(dim=(0, 2, 3)) for i in range(4)]).mean(dim=0)
        assert not torch.equal(batches[0][0], assemble([recipe], toy, torch.device("cpu"))[1][0][0])
    else:
        wanted = torch.zeros(4)
    torch.testing.assert_close(average, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("base, looks", [
    (BASE, 4), (Recipe(dataset="toy", model="timm/deit_tiny_patch16_224", patch_size=4, width=8, depth=1, heads=2,
                       epochs=3, batch_size=8, augment="none"), 0)])
def test_only_batch_norms_are_looked_at_again(base, looks, toy):
    (run,), *_ = assemble([ema(base)], toy, torch.device("cpu"))
    passes = []
    run.method.student.register_forward_hook(lambda *_: passes.append(None))
    run.method.before_scores()
    assert len(passes) == looks


def test_scored_by_the_statistics_of_each_test_batch(toy):
    """Of 12 pictures in one batch, whatever their order: train mode, which is then left, and moves nothing."""
    recipe = replace(EMA, ema_statistics="batch")
    runs, batches, evaluate = assemble([recipe, EMA], toy, torch.device("cpu"))
    *_, (event, _, _) = walk(runs, batches, evaluate)
    before = {name: value.clone() for name, value in runs[0].weights().items()}
    rows = evaluate(runs)
    assert all(torch.equal(value, before[name]) for name, value in runs[0].weights().items())
    pictures = normalised(toy.test_images, batches.statistics)
    with torch.no_grad(), batch_statistics(runs[0].method.student.train()):
        logits = runs[0].method.student(pictures).logits
    assert rows[0]["test_nll"] == pytest.approx(nn.functional.cross_entropy(logits, toy.test_labels).item(), rel=1e-5)
    assert rows[0]["test_nll"] != rows[1]["test_nll"]


def test_an_average_costs_and_scores_the_network_that_it_follows(toy):
    follower, network = train(EMA, toy)[1], train(recipes.teacher_of(EMA), toy)[1]
    assert follower["teacher_test_accuracy"] == network["test_accuracy"]
    assert follower["train_gmacs"] == network["train_gmacs"]


# Switches and refusals

@pytest.mark.parametrize("id", [d.id for d in deviations_of("BM") if d.released])
def test_each_switch_changes_what_is_reported(id, toy):
    clean = replace(SINE, dropout_period=0.8) if id.startswith("B") else EMA
    one, other = train(clean, toy), train(set_deviation(clean, id), toy)
    assert one[1]["test_nll"] != other[1]["test_nll"]
    assert set_deviation(set_deviation(clean, id), id, "clean") == clean


def test_derivations():
    assert baseline(replace(EMA, ema_debias=False)) == BASE and baseline(DROP) == DROP
    assert recipes.teacher_of(spaced(EMA, 1.0)) == recipes.teacher_of(online_kd(BASE))
    assert recipes.teacher_of(online_kd(DROP)) == replace(DROP, start="teacher")


@pytest.mark.parametrize("call, message", [
    (lambda: replace(BASE, dropout=1.0), "dropout = 1.0 is out of range"),
    (lambda: replace(BASE, dropout_period=0.0), "dropout_period = 0.0 is out of range"),
    (lambda: replace(EMA, ema_decay=1.0), "ema_decay = 1.0 is out of range"),
    (lambda: replace(BASE, dropout_at_test="on"), "dropout_at_test = 'on'"),
    (lambda: replace(EMA, rule="constant"), "has no blocks"),
    (lambda: replace(EMA, dropout=0.1, ema_statistics="batch"), "scores in train mode"),
    (lambda: train(replace(SINE, dropout_period=0.1), toy_dataset()), "dropout_period = 0.1 epochs is less than one"),
    (lambda: train(spaced(EMA, 0.1), toy_dataset()), "interval = 0.1 epochs is less than one"),
])
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.parametrize("recipe, name", ((EMA, "interval"), (SINE, "dropout_period")))
def test_the_least_value_that_a_refusal_names_is_taken(recipe, name):
    for batches in range(2, 200):
        with pytest.raises(InputError) as refused:
            recipe_schedule(replace(recipe, **{name: 0.9 / batches}), batches)
        least = re.search(r"at least ([\d.]+\d)", str(refused.value))[1]
        recipe_schedule(replace(recipe, **{name: float(least)}), batches)
