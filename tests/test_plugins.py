"""What users register (losses, rules, networks, methods, augmentations, data): in workers, in identities, in refusals."""

import importlib.machinery
import importlib.util
import os
import pickle
import random
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import spacedkd_lib as skd
from spacedkd_lib.data import datasets
from spacedkd_lib.lab import running
from spacedkd_lib.recipes import baseline, education, ie_kd, online_kd, own_code, plugins, self_kd, spaced, teacher_of
from spacedkd_lib.store import records, stopping
from spacedkd_lib.training import stacked

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
BASE = skd.Recipe(dataset="digits", train_images=60, model="resnet8", width=4, epochs=2, batch_size=16, lr=0.05,
                  augment="none")


@pytest.fixture(autouse=True)
def own(monkeypatch, tmp_path):
    """Nothing is registered before and after; runs of its own; the examples can be imported."""
    monkeypatch.setattr(plugins, "_registered", {})
    monkeypatch.setattr(skd.schedule, "LENGTHS", dict(skd.schedule.LENGTHS))
    monkeypatch.setenv("SPACEDKD_RUNS", str(tmp_path))
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield
    for name in ("helping", "lazy", "mine", "own", *(path.stem for path in EXAMPLES.glob("*.py"))):
        sys.modules.pop(name, None)


def test_examples_train_here_and_the_same_in_a_worker():
    recipes = [importlib.import_module(name).RECIPE for name in (
        "own_rule", "own_network", "own_data", "own_method", "own_augmentation", "own_mixup", "own_layer")]
    here = [skd.run(recipe) for recipe in recipes]
    running.set_aside(recipes)
    for mine, theirs in zip(here, skd.run_all(recipes, workers=1)):
        assert mine.numbers() == theirs.numbers() and mine.provenance["plugins"] == theirs.provenance["plugins"]
        assert mine.summary["test_accuracy"] > 20 and skd.load_student(mine.recipe).classes


@pytest.mark.parametrize("changes", [dict(interval=-1.0, distil_start=1.0), dict(replay="restart"),
                                     dict(idle_update="zero_grad")])
def test_a_rule_of_ones_own_is_refused_where_others_must_know_its_blocks(changes):
    recipe = importlib.import_module("own_rule").RECIPE
    assert stacked.fits([replace(recipe, rule="fixed")]) and not stacked.fits([recipe])
    with pytest.raises(skd.InputError, match="rule"):
        replace(recipe, **changes)


def test_a_plugin_finds_its_helpers_in_a_job_that_starts_elsewhere(tmp_path, monkeypatch):
    """As on a node of a cluster, whose Python does not look where the script lies."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "helping.py").write_text("SCALE = 3.0\n")
    (tmp_path / "mine.py").write_text("import helping\ndef scaled(student, teacher, temperature):\n"
                                      "    return helping.SCALE * (student - teacher).square().mean()\n")
    skd.register_loss(importlib.import_module("mine").scaled)
    task = pickle.dumps(plugins.carried(plugins.made, ("loss", "scaled")))
    program = ("import pickle, sys, torch; call, arguments = pickle.load(sys.stdin.buffer); "
               "print(call(*arguments)(torch.ones(1), torch.zeros(1), 1.0).item())")
    done = subprocess.run([sys.executable, "-c", program], input=task, capture_output=True, cwd="/",
                          env=os.environ | {"PYTHONPATH": str(EXAMPLES.parent)})
    assert done.stdout == b"3.0\n", done.stderr.decode()


def test_a_loss_is_judged(monkeypatch):
    own = importlib.import_module("own_loss")
    quick = skd.PROFILES["quick"]
    base = replace(BASE, dataset="glyphs", train_images=100)
    monkeypatch.setitem(skd.PROFILES, "quick", replace(quick, settings=(replace(quick.settings[0], base=base),)))
    digits = datasets.load("digits")
    few = replace(digits, train_images=digits.train_images[:64], train_labels=digits.train_labels[:64])
    skd.register_dataset(few, name="few")
    line = skd.judge(own.focal_kl, "online KD", seeds=2, workers=1, data="few").iloc[0]
    assert line["n"] == 2 and line["low"] <= line["Difference (points)"] <= line["high"]
    assert line["Updates, mine"] == line["Updates, against"] == 2 * 64 / 16
    assert line["Result"] == skd.claims.result(line["low"], line["high"])
    kd = online_kd(BASE)
    for words, wrong in (
            ("registered loss", dict(mine="nosuch")), ("registered loss", dict(mine=print)), ("registered loss", dict(mine=5)),
            ("an arm", dict(against="online")), ("an arm", dict(against=["online KD"])), ("data set", dict(data="nosuch")),
            ("at least 2", dict(seeds=1)), ("at least 2", dict(seeds="3")), ("equal in every field", dict(mine=kd, against=kd)),
            *((f"paired: {name}", dict(mine=kd, against=replace(kd, **{name: value}))) for name, value in (
                ("dataset", "glyphs"), ("train_images", 70), ("val_fraction", 0.1), ("seed", 1)))):
        with pytest.raises(skd.InputError, match=words):
            skd.judge(**dict(mine="focal_kl") | wrong)


def registered(scale):
    def own_kl(student, teacher, temperature):
        return scale * skd.losses.kl(student, teacher, temperature)
    return skd.register_loss(own_kl)


def test_a_changed_source_is_trained_anew_and_an_equal_one_answers(capsys):
    registered(1.0)
    recipe = online_kd(BASE, soft_loss="own_kl")
    first = skd.run(recipe)
    assert first.numbers() == skd.run(online_kd(BASE)).numbers()
    registered(1.0)
    assert skd.run(recipe) == first and "other code" not in capsys.readouterr().out
    registered(50.0)
    again = skd.run(recipe)
    assert again.numbers() != first.numbers() and "trained anew" in capsys.readouterr().out
    assert again.provenance["plugins"] != first.provenance["plugins"]
    skd.register_loss(lambda s, t, T: 1 / 0, name="own_kl")
    with pytest.raises(skd.InputError, match="loss own_kl raised"):
        skd.run(recipe)


HELPING = """
import functools
SCALE = 3.0
def scaled(x):
    return SCALE * x
def twice(f):
    @functools.wraps(f)
    def wrapper(*arguments):
        return 2 * f(*arguments)
    return wrapper
"""
LAZY = """
def late(x):
    return x + 1
"""
OWN = """
import argparse, enum, functools, torch, helping
from torch.nn.functional import mse_loss as distance
PAIR = (1, 2.5)
PAIRS = PAIR, PAIR
FACTOR, NAMES, WEIGHTS = [2], {"a", "b", "c"}, {name: 1 for name in {"d", "e", "f"}}
ARGUMENTS, TENSOR = argparse.Namespace(weight=1.0), torch.ones(3)
def helper(x, power=1):
    return x ** power
@functools.lru_cache
def other(x):
    return helper(x) - 5
class Focal(torch.nn.Module):
    BIAS = 7 * len(NAMES)
    def __init__(self, gamma):
        super().__init__()
        self.gamma = gamma
    @property
    def weight(self):
        return +self.gamma
    def forward(self, s, t):
        return self.weight * (s - t).mean() + self.BIAS
CRITERION, TABLE = Focal(1.0), {"f": helper, torch.float32: lambda x: 6 * x, helper: enum.Enum("Kind", "ONE")}
zs = [helper, other]
@helping.twice
def loss(s, t, T):
    from lazy import late
    used = zs, PAIRS, FACTOR, NAMES, WEIGHTS, ARGUMENTS.weight, TENSOR, TABLE, other, late, distance, T in {"p", "q", "r"}
    return helping.scaled(CRITERION(s, t))
"""
CHANGES = ("SCALE = 3", "SCALE = 4"), ("x + 1", "x - 1"), ("2 * f(", "3 * f("), ("[2]", "[3]"), ('"b"', '"z"'), ('"e"', '"y"'), (
    "weight=1.0", "weight=2.0"), ("ones(3)", "zeros(3)"), ("power=1", "power=2"), ("** power", "** -power"), ("- 5", "- 4"), (
    "7 * len", "8 * len"), ("Focal(1.0)", "Focal(2.0)"), ("+self", "-self"), ("s - t", "t - s"), ('"f": helper', '"f": other'), (
    "6 * x", "5 * x"), ('"ONE"', '"TWO"'), ("mse_loss", "l1_loss"), ("[helper, other]", "[other, helper]"), ('"q"', '"u"')


def hash_of(old="", new="", name="loss"):
    for module, text in (("helping", HELPING), ("lazy", LAZY), ("own", OWN)):
        spec = importlib.machinery.ModuleSpec(module, None)
        space = sys.modules[module] = importlib.util.module_from_spec(spec)
        exec(compile(text.replace(old, new) if old else text, f"/a/{module}.py", "exec"), space.__dict__)
    return own_code.sha256(getattr(space, name))


def test_a_hash_follows_all_that_a_plugin_names_of_its_own():
    hashes = [hash_of(*change) for change in (("", ""), *CHANGES)]
    assert len(set(hashes)) == len(hashes)
    for equal in ("import argparse", "# a remark\nimport argparse"), ("PAIRS = PAIR,", "PAIRS = tuple([*PAIR]),"):
        assert hash_of(*equal) == hashes[0]
    ours = {hash_of(name="CRITERION"), hash_of("(1.0)", "(2.0)", name="CRITERION"), hash_of("+self", "-self", name="Focal")}
    assert len(ours | {hash_of(name="Focal")}) == 4


def test_a_hash_is_the_same_in_every_process():
    program = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); from test_plugins import *; print(hash_of())"
    found = {subprocess.check_output([sys.executable, "-c", program], env=os.environ | {
        "PYTHONPATH": str(EXAMPLES.parent), "PYTHONHASHSEED": seed}) for seed in "12"}
    assert found == {f"{hash_of()}\n".encode()}


def test_a_constant_that_changes_after_registration_counts(monkeypatch):
    own = importlib.import_module("own_loss")
    recipe = online_kd(BASE, soft_loss="focal_kl", beta=0.0)
    first = skd.run(recipe)
    monkeypatch.setattr(own, "POWER", 1.0)
    assert skd.run(recipe).numbers() != first.numbers()


def test_a_feature_loss_and_a_method_that_teaches_in_its_own_way():
    @skd.register_loss(of="features")
    def nearness(student, teacher):
        assert not teacher.requires_grad
        return (student - teacher).abs().mean()

    @skd.register_method
    class Careless(skd.OnlineKD):
        like = "online_kd"

        def teach(self, x, y):
            terms = super().teach(x, y)
            return terms | {"loss": 0.5 * terms["loss"]}

    for recipe in (online_kd(BASE, feature_loss="nearness"), self_kd(replace(BASE, model="resnet10"), feature_loss="nearness")):
        assert skd.run(recipe).summary["test_accuracy"] > 0
    own = replace(online_kd(BASE), method="Careless")
    assert teacher_of(own) is None and teacher_of(online_kd(BASE)) is not None
    found = skd.run_all([own, online_kd(BASE), baseline(BASE, start="teacher")], workers=1)
    assert found[1].numbers()[-1]["teacher_loss"] == found[2].numbers()[-1]["student_loss"]
    assert found[0].numbers() != found[1].numbers()


def test_data_are_compared_with_the_record():
    importlib.import_module("own_data")
    recipe = baseline(importlib.import_module("own_data").RECIPE)
    skd.run(recipe)
    shapes = datasets.load("shapes")
    other = replace(shapes, train_labels=shapes.train_labels.flip(0))
    skd.register_dataset(other, name="shapes")
    assert plugins.hashes(recipe) == {"data set shapes": other.sha256} != {"data set shapes": shapes.sha256}
    skd.run(recipe)
    assert records.load(recipe).provenance["data_sha256"] == other.sha256  # trained anew


def test_an_augmentation_is_a_function_of_the_batch_and_changes_no_picture():
    erase = importlib.import_module("own_augmentation").erase_a_square
    images, labels = datasets.load("digits").train_images[:40], torch.zeros(40)

    def batches(augment):
        return skd.Batches(images, labels, 20, seed=0, augment=augment, statistics=((0.0,), (1.0,)))
    before, mine, plain = images.clone(), batches("erase_a_square"), batches("none")
    x, y = mine[3]
    kept = (x == plain[3][0]) | (x == 0)
    assert kept.all() and (x != plain[3][0]).any() and torch.equal(images, before)
    assert torch.equal(batches("erase_a_square")[3][0], x)
    for draw in (lambda: torch.randint(0, 99, ()), lambda: random.randrange(99), lambda: np.random.randint(99)):
        skd.register_augmentation(lambda images, generator: images + torch.tensor(int(draw())).to(torch.uint8), name="drawn")
        state, (x, _) = (torch.get_rng_state(), random.getstate(), np.random.get_state()), batches("drawn")[3]
        assert str((torch.get_rng_state(), random.getstate(), np.random.get_state())) == str(state)
        assert torch.equal(batches("drawn")[3][0], x)
    big = skd.Batches(images, labels, 20, seed=0, augment="erase_a_square", size=16)
    assert big[0][0].shape == (20, 1, 16, 16)
    skd.register_augmentation(lambda images, generator: erase(images, generator).float(), name="floats")
    with pytest.raises(skd.InputError, match=r"returned torch.float32 .*return a tensor of"):
        batches("floats")[0]


def test_what_a_loss_changes_in_place_reaches_nobody_else():
    def numbers(loss, name):
        skd.register_loss(loss, name=name)
        return skd.run(online_kd(BASE, soft_loss=name)).numbers()
    plain = numbers(lambda s, t, T: skd.losses.kl(2 * s, 3 * t, T), "plain")
    assert numbers(lambda s, t, T: skd.losses.kl(s.mul_(2), t.mul_(3), T), "in_place") == plain


def test_tied_weights_are_kept(tmp_path):
    @skd.register_network
    class Tied(torch.nn.Module):
        def __init__(self, classes, channels, size):
            super().__init__()
            self.one, self.two = (torch.nn.Linear(size**2, size**2) for _ in "ab")
            self.two.weight = self.one.weight
            self.head = torch.nn.Linear(size**2, classes)

        def forward(self, x):
            return self.head(self.two(self.one(x.flatten(1))))
    recipe = replace(BASE, model="Tied", width=0)
    skd.run(recipe)
    net = skd.load_student(recipe).net.net
    assert net.one.weight is net.two.weight
    assert skd.run(replace(recipe, epochs=1, student_weights=skd.keep_weights(net))).summary["test_accuracy"] > 10


def test_a_rule_may_count_in_numpy_and_in_any_loop():
    skd.register_rule(lambda length, total, seed: np.array([2, 1]), name="pairs")
    kinds = "".join(step.kind[0] for step in skd.Spaced("abcd", 1, 1, rule="pairs"))
    assert kinds == "ttlltltle"  # where its lengths end, a block is as long as the interval
    skd.register_rule(lambda: [2], name="no_arguments")
    with pytest.raises(skd.InputError, match="no_arguments made no blocks"):
        list(skd.Spaced("abcd", 1, 1, rule="no_arguments"))


def flat(classes, channels, size):
    return torch.nn.Flatten()


def bad_rule(length, total, seed):
    yield 0


LOCK = threading.Lock()


@pytest.mark.parametrize("refused, words", [
    (lambda: skd.register_loss(lambda *_: LOCK, name="x"), "LOCK is a lock"),
    (lambda: skd.register_loss(5, name="x"), "5 is no loss"),
    (lambda: skd.register_dataset("/a/folder", name="x"), "path of a folder as"),
    (lambda: skd.register_loss(bad_rule, name="kl"), "none of ours"), (lambda: skd.register_loss(bad_rule, name=1), '"1" cannot be'),
    (lambda: skd.register_loss(bad_rule, of=[]), "input of a loss"),
    (lambda: skd.register_network(flat, name="res net"), "letters"),
    (lambda: skd.register_network(flat, name="resnet8"), "none of ours"),
    (lambda: skd.register_dataset(flat, name="cifar100"), "none of ours"),
    (lambda: skd.register_loss(flat, of="feature"), 'did you mean "features"'),
    (lambda: skd.register_method(skd.OnlineKD, name="mine"), "like"),
    (lambda: skd.register_method(5, name="mine"), "5 does not say"),
    (lambda: skd.register_augmentation(flat, name="crop"), "name of an augmentation"),
    (lambda: skd.run("online_kd"), "'online_kd' is no recipe"),
    (lambda: skd.run_all([{"method": "online_kd"}]), "is no recipe"),
    (lambda: skd.run(BASE, on_epoch="print"), "on_epoch = 'print' cannot be called"),
    (lambda: skd.run(BASE, on_epoch=lambda: None), "of 1 arg"),
    (lambda: skd.run_all([BASE], on_epoch=lambda row: None), "of 2 arg"),
    (lambda: skd.keep_weights({"a": 3}), "A dict is no file of weights"),
    (lambda: skd.keep_weights({1: torch.ones(1)}), "named tensors"),
    (lambda: skd.keep_weights(None), "NoneType is no file"),
    (lambda: online_kd(BASE, soft_loss="nosuch"), '"nosuch" is not a value of soft_loss'),
    (lambda: skd.run(replace(BASE, model="flat", width=0)), "linear layer"),
    (lambda: replace(BASE, model="flat"), "width = 4 does not reach flat"),
    (lambda: self_kd(replace(BASE, model="flat", width=0)), "needs the stages"),
    (lambda: education(replace(BASE, model="flat", width=0), (5, 5), beta=0.0), "needs the stages"),
    (lambda: skd.run(spaced(online_kd(BASE), 1.0, rule="bad_rule")), "rule bad_rule = 0"),
])
def test_what_cannot_be_is_refused_in_one_sentence(refused, words):
    skd.register_network(flat)
    skd.register_rule(bad_rule)
    with pytest.raises(skd.InputError, match=words):
        refused()


class Spare(torch.nn.Module):
    def __init__(self, classes, channels, size):
        super().__init__()
        self.head, self.spare = torch.nn.Linear(size**2, classes), torch.nn.Linear(1, 1)

    def forward(self, x):
        return self.head(x.flatten(1))


ONE = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))


class Stranger(skd.SelfKD):
    like = "online_kd"


class Lost(skd.OnlineKD):
    like = "online_kd"

    @classmethod
    def events(cls, recipe, course):
        yield skd.Event("lern", 0, 0)


class NoLoss(skd.OnlineKD):
    like = "online_kd"

    def learn(self, x, y):
        return {}


def lopsided(classes, channels, size):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(channels * size**2, classes + 1))


def narrow(classes, channels, size):
    return torch.nn.Sequential(torch.nn.Linear(5, classes))


@pytest.mark.parametrize("register, made, field, words", [
    (skd.register_loss, lambda s, t, T: 1 / 0, "soft_loss", r"loss x raised ZeroDivisionError.*test_plugins.py, line"),
    (skd.register_loss, lambda s: s.mean(), "soft_loss", "the loss x raised TypeError"),
    (skd.register_loss, lambda s, t, T: (s - t).mean(1), "soft_loss", r"x returned a tensor of shape \[8\]: .*scalar"),
    (skd.register_loss, lambda s, t, T: None, "soft_loss", "x returned None"),
    (skd.register_loss, lambda s, t, T: random.random() * s.mean(), "soft_loss", "Two trials of the loss x"),
    (skd.register_loss, lambda s, t, T: (s - t).mean().detach(), "soft_loss", "x has no gradient"),
    (skd.register_network, Spare, "model", "does not use its last linear layer"),
    (skd.register_network, lambda *_: ONE, "model", "a module, or a part of one, twice"),
    (skd.register_method, Stranger, "method", "extend OnlineKD"),
    (skd.register_method, Lost, "method", "method x raised .*lern"),
    (skd.register_dataset, lambda: 2 * (np.random.randint(0, 255, (20, 1, 4, 4)), np.arange(20) % 2) + ("ab",),
     "dataset", "Two calls of the data set x"),
    (skd.register_method, NoLoss, "method", 'learn of the method x returned no "loss"'),
    (skd.register_network, lopsided, "model", r"x returned a tensor of shape \[1, 11\] for 1 pictures of 10 classes"),
    (skd.register_network, lopsided, "teacher_model", "10 classes"),
    (skd.register_network, narrow, "model", "the network x raised RuntimeError"),
    (skd.register_rule, lambda length, total, seed: iter("abc"), "rule", "rule x = 'a'"),
    (skd.register_augmentation, lambda images: images, "augment", "the augmentation x raised TypeError"),
    (skd.register_augmentation, lambda images, _: images + torch.Generator().seed() % 9, "augment", "augmentation x"),
    (skd.register_dataset, lambda: 1 / 0, "dataset", "the data set x raised ZeroDivisionError"),
])
def test_a_bad_plugin_is_refused_before_training(register, made, field, words):
    register(made, name="x")
    recipe = replace(online_kd(BASE, interval=1.0), width=0 if field == "model" else 4)
    with pytest.raises(skd.InputError, match=words):
        running.check_inputs([replace(recipe, **{field: "x"})])


def test_a_trial_leaves_all_as_it_was():
    """What a plugin holds, and what it draws from."""
    calls = []
    skd.register_loss(lambda s, t, T: calls.append(1) or (s - t).square().mean() * torch.rand(()), name="counted")
    before = str((torch.get_rng_state(), random.getstate(), np.random.get_state()))
    with pytest.raises(skd.InputError, match="changed what it holds"):
        running.check_inputs([online_kd(BASE, soft_loss="counted")])
    assert not calls and str((torch.get_rng_state(), random.getstate(), np.random.get_state())) == before


def test_a_network_that_numpy_or_python_draws_follows_the_seed():
    @skd.register_network
    def drawn(classes, channels, size):
        net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(channels * size**2, classes))
        net[1].bias.data.fill_(random.random() + np.random.rand())
        return net
    bias = [skd.make(replace(BASE, model="drawn", width=0, seed=seed), 1, 10, 8).student.net[1].bias[0].item() for seed in (0, 0, 1)]
    assert bias[0] == bias[1] != bias[2]


def test_a_loss_that_diverges_is_told_of_as_ours_are():
    skd.register_loss(lambda s, t, T: 1e9 * (s - t).square().mean(), name="huge")
    recipe = online_kd(BASE, soft_loss="huge")
    running.check_inputs([recipe])
    with pytest.raises(skd.InputError, match="lower lr"):
        skd.run(recipe)


def test_a_function_that_raises_costs_no_run():
    rows = []

    def log(row):
        rows.append(row)
        raise ZeroDivisionError
    with pytest.raises(skd.InputError, match="ZeroDivisionError.*is finished and saved"):
        skd.run(BASE, on_epoch=log)
    assert len(rows) == 1 and "test_accuracy" in rows[0] and records.load(BASE) is not None


def test_a_function_is_told_of_each_epoch_in_the_worker(tmp_path):
    recipes = [replace(BASE, epochs=1, seed=seed) for seed in (0, 1)]

    def log(recipe, row):
        (tmp_path / f"{recipe.seed} {row['epoch']}").write_text(str(os.getpid()))
    skd.run_all(recipes, workers=1, on_epoch=log)
    told = {path.name: path.read_text() for path in tmp_path.glob("[01] *")}
    assert set(told) == {"0 1", "1 1"} and str(os.getpid()) not in told.values()

    def broken(recipe, row):
        raise skd.Stopped("enough for now")
    more = replace(BASE, epochs=1, seed=2)  # and another sweep: one sentence for both
    with pytest.raises(skd.InputError, match="Stopped.'enough for now'.* line .*: mend it.$"):
        skd.run_all([more, replace(more, seed=4)], workers=1, on_epoch=broken)
    assert records.load(more) is not None
    with (tmp_path / "open").open("w") as file, pytest.raises(skd.InputError, match="let it open what it needs"):
        skd.run_all([replace(BASE, seed=3)], workers=1, on_epoch=lambda recipe, row: file.write("x"))


def test_plugins_of_a_script_reach_its_workers(tmp_path):
    script = tmp_path / "train.py"
    script.write_text((EXAMPLES / "own_network.py").read_text().replace("skd.run(RECIPE)", "skd.run_all([RECIPE], 2)[0]"))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, cwd=tmp_path, env={
        **os.environ, "PYTHONPATH": f"{EXAMPLES.parent}:{EXAMPLES}"})
    assert float(done.stdout.split()[-1]) > 20, done.stderr


def test_a_map_that_is_not_there_is_refused():
    skd.register_network(importlib.import_module("own_network").small_cnn)
    with pytest.raises(skd.InputError):
        running.run(ie_kd(replace(BASE, model="small_cnn", width=0, teacher_model="resnet8")))


def test_a_teacher_of_ones_own_is_asked_and_stays_or_goes_on(tmp_path):
    frozen = importlib.import_module("own_teacher").recipe()
    record = skd.run(frozen)
    kept = {name.removeprefix("teacher."): value for name, value in records.load_weights(frozen).items()
            if name.startswith("teacher.")}
    assert skd.keep_weights(kept) == frozen.teacher_weights
    assert record.summary["teacher_updates"] == 0 < record.summary["student_updates"]
    assert record.summary["teacher_test_accuracy"] > 50
    goes_on = skd.run(replace(frozen, teacher_learns=True, interval=1.0))
    assert goes_on.summary["teacher_updates"] > 0
    assert goes_on.epochs[0]["teacher_train_accuracy"] > 50
    torch.save(kept, tmp_path / "weights.pt")
    assert skd.keep_weights(tmp_path / "weights.pt") == frozen.teacher_weights


def test_a_registered_teacher_brings_the_weights_of_the_module_itself():
    network = importlib.import_module("own_network").small_cnn
    module = network(10, 1, 8)
    recipe = online_kd(BASE, teacher_model="small_cnn", teacher_weights=skd.keep_weights(module), teacher_learns=False)
    skd.run(recipe)
    assert torch.equal(records.load_weights(recipe)["teacher.net.0.weight"], module[0].weight)


def test_a_run_goes_on_from_the_weights_of_a_finished_one():
    done = skd.run(BASE)
    kept = {name.removeprefix("student."): value for name, value in records.load_weights(BASE).items()}
    more = replace(BASE, epochs=1, lr=1e-9, student_weights=skd.keep_weights(kept))
    assert skd.run(more).summary["test_accuracy"] == pytest.approx(done.summary["test_accuracy"], abs=2)
    shutil.rmtree(records.runs_folder() / ".weights")  # a finished run has weights of its own
    assert skd.load_student(more).classes == skd.load_student(BASE).classes
    assert teacher_of(online_kd(more)) == teacher_of(online_kd(replace(more, student_weights="")))


@pytest.mark.parametrize("refused, words", [
    (lambda kept, path: skd.keep_weights(path / "nosuch.pt"), "is no file of weights"),
    (lambda kept, path: skd.run(online_kd(BASE, teacher_weights="f" * 64)), "give them to keep_weights first"),
    (lambda kept, path: skd.run(online_kd(BASE, teacher_weights=kept, teacher_width=8)), "of the teacher's network"),
    (lambda kept, path: skd.run(replace(BASE, student_weights=kept, width=8)), "of the student's network"),
    (lambda kept, path: skd.run(replace(BASE, student_weights=skd.keep_weights(torch.nn.Linear(1, 1)))), "stem.0.weight"),
    (lambda kept, path: online_kd(BASE, teacher_learns=False), "give teacher_weights"),
    (lambda kept, path: online_kd(BASE, teacher_weights=kept, teacher_learns=False, interval=1.0), "interval = 0"),
])
def test_a_teacher_that_does_not_fit_is_refused(refused, words, tmp_path):
    kept = skd.keep_weights(skd.ResNet("resnet8", 10, 1, 4))
    with pytest.raises(skd.InputError, match=words) as told:
        refused(kept, tmp_path)
    assert len(str(told.value)) < 500


def test_a_network_that_draws_is_resumed_to_the_same_numbers(monkeypatch):
    @skd.register_network
    def noisy(classes, channels, size):
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Dropout(0.5), torch.nn.Linear(channels * size**2, classes))
    recipe = replace(BASE, model="noisy", width=0)
    whole = skd.run(recipe)
    running.set_aside([recipe])
    asked = iter([False] * 5 + [True])
    with monkeypatch.context() as patch, pytest.raises(skd.Stopped):
        patch.setattr(stopping, "requested", lambda: next(asked))
        skd.run(recipe)
    assert skd.run(recipe).numbers() == whole.numbers()


# What no record or checkpoint keeps

class Centred:
    """A loss with a running centre of the teacher's logits, as DINO has one."""

    centre = 0.0

    def __call__(self, student, teacher, temperature):
        self.centre = 0.9 * self.centre + 0.1 * teacher.mean(0)
        return (student - teacher + self.centre).square().mean()


def test_a_plugin_that_changes_what_it_holds_is_refused_before_training():
    skd.register_loss(Centred(), name="centred")
    generator = np.random.default_rng(0)
    skd.register_augmentation(lambda images, _: images.roll(int(generator.integers(8)), -1), name="rolled")
    for recipe in (online_kd(BASE, soft_loss="centred"), replace(BASE, augment="rolled")):
        with pytest.raises(skd.InputError, match="changed what it holds"):
            skd.run(recipe)


def test_a_rule_that_no_seed_reaches_is_refused():
    @skd.register_rule
    def drawn(length, total, seed):
        while True:
            yield int(torch.randint(1, 4, ()))
    with pytest.raises(skd.InputError, match="Two trials of the rule drawn"):
        skd.run(online_kd(BASE, interval=0.5, rule="drawn"))


def test_a_part_of_a_network_that_two_would_share_is_refused():
    trunk = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 8))
    skd.register_network(lambda classes, *_: torch.nn.Sequential(trunk, torch.nn.Linear(8, classes)), name="shared")
    with pytest.raises(skd.InputError, match="a part of one"):
        skd.run(online_kd(BASE, model="shared", width=0))


def test_what_a_wrapper_of_another_package_holds_is_part_of_the_hash():
    def mine(a, b):
        return (a - b).abs().sum()
    first, second, again = (own_code.sha256(torch.func.vmap(mine, in_dims=dims)) for dims in (0, 1, 0))
    assert first == again != second


def test_a_loss_within_a_context_of_torch_changes_nothing_that_it_holds():
    skd.register_loss(torch.autocast("cpu", enabled=False)(lambda s, t, T: (s - t).square().mean()), name="plain")
    running.check_inputs([online_kd(BASE, soft_loss="plain")])


def test_a_plugin_that_fails_at_the_end_costs_no_run():
    @skd.register_loss
    def fragile(student, teacher, temperature):
        if os.environ.get("SPACEDKD_TEST_GONE"):
            raise FileNotFoundError
        return (student - teacher).square().mean()

    with pytest.MonkeyPatch.context() as patch:
        record = skd.run(online_kd(BASE, soft_loss="fragile"),
                         on_epoch=lambda row: row["epoch"] == BASE.epochs and patch.setenv("SPACEDKD_TEST_GONE", "1"))
    assert "fingerprint" not in record.provenance and record.summary


# In the middle of a training

def test_who_stops_a_run_after_an_epoch_goes_on_from_there():
    seen = []

    def stop_once(row):
        seen.append(row["epoch"])
        if len(seen) == 1:
            raise skd.Stopped("enough for now")
    with pytest.raises(skd.Stopped):
        skd.run(BASE, on_epoch=stop_once)
    assert skd.run(BASE, on_epoch=stop_once).numbers() == skd.run(BASE, force=True).numbers() and seen == [1, 2]


def test_a_run_that_waits_for_itself_is_refused():
    with pytest.raises(skd.InputError, match="by this very call"):
        skd.run(BASE, on_epoch=lambda row: skd.run(BASE))


@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16),
                                    lambda: torch.device("meta")])
def test_training_within_what_changes_its_numbers_is_refused(around):
    with around(), pytest.raises(skd.InputError, match="leave it first"):
        skd.run(BASE)
