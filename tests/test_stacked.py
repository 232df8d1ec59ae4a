"""Several seeds at once: each is what it is alone, up to rounding; together they repeat bit for bit."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from spacedkd_lib import __main__ as cli
from spacedkd_lib.data import batches
from spacedkd_lib.errors import InputError
from spacedkd_lib.lab import grids, profiles, running, sweeps
from spacedkd_lib.methods import losses
from spacedkd_lib.recipes import Recipe, baseline, offline_kd, online_kd, preset, self_kd, spaced, teacher_of
from spacedkd_lib.store import records, stopping
from spacedkd_lib.training import checkpoints, evaluation, provenance, stacked, train

BASE = Recipe(dataset="toy", model="resnet8", width=4, epochs=2, batch_size=8, lr=0.05, augment="crop_flip",
              val_fraction=0.2)
ONLINE, DEEPER = online_kd(BASE), replace(BASE, model="resnet10")
SWEEP = [teacher_of(ONLINE), replace(ONLINE, zero_target="pre_update"), spaced(ONLINE, 0.6),
         replace(ONLINE, teacher_mode="eval"), offline_kd(BASE)]


def of_seeds(recipes, seeds=(0, 1)):
    return [replace(recipe, seed=seed) for seed in seeds for recipe in recipes]


def numbers(outcome):
    return [{key: value for key, value in row.items() if key not in ("seconds", "images_per_second")}
            for row in outcome[0]]


def same(one, other):
    return numbers(one) == numbers(other) and one[4] == other[4] and all(torch.equal(one[3][key], other[3][key]) for key in one[3])


def distance(one, other):
    """The largest relative difference of a tensor of weights, and of a loss."""
    weights = max(float((one[3][key].double() - other[3][key].double()).norm() / (one[3][key].double().norm() + 1e-9))
                  for key in one[3])
    losses = max(abs(row[key] - again[key]) / abs(row[key]) for row, again in zip(one[0], other[0], strict=True)
                 for key in row if key.endswith("_loss"))
    return max(weights, losses)


@pytest.fixture
def doubles(monkeypatch):
    """Networks and pictures in double precision, where rounding does not hide a mistake."""
    single = batches.normalised
    for module in (evaluation, batches):
        monkeypatch.setattr(module, "normalised", lambda *given: single(*given).double())
    monkeypatch.setattr(provenance, "check_settings", lambda: None)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("recipes", [
    [baseline(BASE)], SWEEP, [preset(ONLINE, "released")], [replace(ONLINE, optimizer="adamw", lr=1e-3)],
    [spaced(ONLINE, 1.0, replay="fresh_batch")], [self_kd(DEEPER)],
    [preset(self_kd(DEEPER, interval=1.0), "released")]],
    ids=["baseline", "sweep", "released", "adamw", "fresh batches", "self", "released self"])
def test_each_seed_is_what_it_is_alone(toy, doubles, recipes):
    for recipe, together in zip(of_seeds(recipes), train.sweep(of_seeds(recipes), toy), strict=True):
        alone = train.train(recipe, toy)
        assert distance(alone, together) < 1e-9, recipe.in_words()
        assert (alone[2]["seeds_together"], together[2]["seeds_together"]) == (1, 2)
        for row, again in zip(alone[0], together[0], strict=True):
            assert row.keys() == again.keys()
            assert all(row[f"{role}_updates"] == again[f"{role}_updates"] for role in ("teacher", "student"))


@pytest.mark.parametrize("precision, near", [("fp32", 1e-3), ("bf16", 0.2), ("fp16", 0.2)])
def test_in_single_precision_too(toy, precision, near):
    recipes = [replace(ONLINE, precision=precision, epochs=1)]
    for recipe, together in zip(of_seeds(recipes), train.sweep(of_seeds(recipes), toy)):
        first, again = train.train(recipe, toy)[0][0], together[0][0]
        assert again["student_loss"] == pytest.approx(first["student_loss"], rel=near)
        assert again["teacher_loss"] == pytest.approx(first["teacher_loss"], rel=near)


def interrupted(recipes, dataset, folder, monkeypatch, events):
    """A sweep that is stopped after so many events, again after one more, and continued."""
    after, seen = checkpoints.Checkpointer.after, []

    def counted(self, event):
        seen.append(event)
        monkeypatch.setattr(stopping, "requested", lambda: len(seen) in (events, events + 1))
        after(self, event)
    monkeypatch.setattr(checkpoints.Checkpointer, "after", counted)
    for _ in range(2):
        with pytest.raises(stopping.Stopped):
            train.sweep(recipes, dataset, folder=folder)
    return train.sweep(recipes, dataset, folder=folder)


@pytest.mark.parametrize("recipes, events", [(SWEEP, 31), ([self_kd(DEEPER)], 1), ([self_kd(DEEPER)], 3),
                                             ([replace(ONLINE, optimizer="adamw", lr=1e-3)], 5)])
def test_stopped_and_continued_gives_the_same_bits(toy, tmp_path, monkeypatch, recipes, events):
    expected = train.sweep(of_seeds(recipes), toy)
    found = interrupted(of_seeds(recipes), toy, tmp_path, monkeypatch, events)
    assert all(same(one, other) for one, other in zip(expected, found, strict=True))


@pytest.fixture
def exploding(monkeypatch):
    """Makes the first student of seed 1 diverge."""
    assemble = train.assemble

    def changed(recipes, *rest):
        runs, *others = assemble(recipes, *rest)
        if recipes[0].seed == 1:
            with torch.no_grad():
                next(run for run in runs if run.recipe.method != "baseline").method.student.head.weight.mul_(1e30)
        return runs, *others
    return lambda: monkeypatch.setattr(train, "assemble", changed)


@pytest.mark.parametrize("recipes", [[ONLINE], SWEEP])
def test_a_seed_that_diverges_costs_no_other(toy, tmp_path, monkeypatch, exploding, recipes):
    """It leaves the others their bits, also if training stops after that and goes on."""
    monkeypatch.setenv("SPACEDKD_RUNS", str(tmp_path / "runs"))
    recipes, bad = of_seeds(recipes, (0, 1, 2)), len(recipes) + (recipes is SWEEP)
    expected = train.sweep(recipes, toy)
    exploding()
    outcomes = [train.sweep(recipes, toy), interrupted(recipes, toy, tmp_path, monkeypatch, 12)]
    for found in outcomes:
        assert "student's update on batch 0, epoch 1" in str(found[bad]) and "seed 1" in str(found[bad])
        assert all(same(one, other) for i, (one, other) in enumerate(zip(expected, found, strict=True)) if i != bad)


def test_a_checkpoint_of_other_seeds_is_not_continued(toy, tmp_path, monkeypatch, capsys):
    expected = train.sweep(of_seeds([ONLINE]), toy)
    with monkeypatch.context() as patched, pytest.raises(stopping.Stopped):
        patched.setattr(stopping, "requested", lambda: True)
        train.sweep(of_seeds([ONLINE], (0, 1, 2)), toy, folder=tmp_path)
    found = train.sweep(of_seeds([ONLINE]), toy, folder=tmp_path)
    assert all(same(one, other) for one, other in zip(expected, found, strict=True))
    assert "starting anew" in capsys.readouterr().err


def test_what_cannot_be_trained_together_is_refused(toy):
    for recipes in (of_seeds([ONLINE]) + [replace(ONLINE, seed=3, alpha=0.5)], of_seeds(SWEEP)[:-1],
                    of_seeds([replace(ONLINE, dataset="glyphs")])):
        with pytest.raises(InputError, match="cannot be trained together"):
            train.sweep(recipes, toy)


def test_which_recipes_fit():
    mode = replace(ONLINE, teacher_mode="train")
    fit = SWEEP, [self_kd(DEEPER)], [replace(ONLINE, model="resnet56", width=0)], [mode]
    assert all(map(stacked.fits, fit)) and not stacked.fits([mode, ONLINE])
    large = (replace(ONLINE, model="resnet18", width=0), replace(ONLINE, teacher_model="resnet18", teacher_width=64))
    glyphs = profiles.profile("quick").settings[0]
    others = (glyphs.factors, glyphs.schools, online_kd(glyphs.transformer))
    noisy = replace(ONLINE, dropout=0.1)
    assert not any(stacked.fits([recipe]) for recipe in (*large, *others, noisy))


@pytest.mark.parametrize("ours, theirs, log", [
    (losses.kl, lambda p, q: F.kl_div(p, q, reduction="batchmean", log_target=True), True),
    (losses.probability_kl, lambda p, q: F.kl_div(p, q, reduction="batchmean"), False)])
def test_divergences_are_those_of_torch_bit_for_bit(ours, theirs, log):
    for seed in range(20):
        student, teacher = torch.randn(2, 3 + seed, 7 + 5 * seed, generator=torch.Generator().manual_seed(seed))
        found, expected = (student.clone().requires_grad_() for _ in range(2))
        softened = F.log_softmax if log else F.softmax
        ours(found, teacher, 3.0).backward()
        theirs(softened(expected / 3.0, dim=1), softened(teacher / 3.0, dim=1)).backward()
        assert torch.equal(found.grad, expected.grad)


# The grid runner

def test_sweeps_of_several_seeds_are_joined_where_they_fit(runs):
    planned = sweeps.sweeps(grids.unique(grids.grid("quick", seeds=6)))
    joined = sweeps.of_several_seeds(planned)
    assert sorted(r.run_id for s in joined for r in s.recipes) == sorted(r.run_id for s in planned for r in s.recipes)
    assert len(joined) < len(planned)
    for sweep in joined:
        seeds = {recipe.seed for recipe in sweep.recipes}
        alike = 2 if sweep.recipes[0].dataset == "glyphs" else 6  # of three families of fonts, each is another's test
        assert len(seeds) == (alike if stacked.fits(sweep.recipes) else 1)
        assert len(stacked.by_seed(list(sweep.recipes))) == len(seeds)


def test_a_sweep_of_several_seeds_leaves_records(runs):
    recipes = grids.unique(grids.grid("smoke", "02_baselines", seeds=2))[:2]
    sweep, = sweeps.of_several_seeds(sweeps.sweeps(recipes))
    assert running.train_sweep(sweep) == []
    assert [records.load(recipe).provenance["seeds_together"] for recipe in recipes] == [2, 2]
    assert all(records.load_weights(recipe) for recipe in recipes)


def test_a_joined_sweep_of_which_some_is_done_is_formed_anew(runs, monkeypatch):
    """A kill while its records are written, or a run that diverged, leaves lists that are no more equal."""
    recipes = of_seeds(SWEEP)
    sweep, = sweeps.of_several_seeds(sweeps.sweeps(recipes))
    records.write_atomically(sweep.folder / "members.json", "[" + ",".join(r.to_json() for r in recipes) + "]")
    assert sweeps.sweeps(recipes) == [sweep]
    monkeypatch.setattr(records, "load", lambda recipe: recipe if recipe == recipes[0] else None)
    assert sorted(len(part.recipes) for part in sweeps.sweeps(recipes[1:])) == [4, 5]


@pytest.mark.parametrize("gpu, workers, tasks", [(True, "auto", 1), (True, 1, 2), (False, "auto", 2)])
def test_seeds_are_joined_on_a_gpu_when_asked_for(runs, monkeypatch, gpu, workers, tasks):
    found = []
    monkeypatch.setattr(running, "_has_gpu", lambda: gpu)
    monkeypatch.setattr(running, "_train_side_by_side", lambda planned, *rest: found.extend(planned))
    monkeypatch.setattr(running, "same_pictures", lambda record: record)
    running.run_all(grids.unique(grids.grid("smoke", "02_baselines", seeds=2))[:2], workers)
    assert len(found) == tasks


def test_auto_is_the_only_word(monkeypatch, capsys):
    assert running.check_workers("auto") == 0 and running.check_workers(3) == 3
    assert cli.count_or_auto("auto") == "auto" and cli.count_or_auto("3") == 3
    with pytest.raises(InputError, match="workers = car"):
        running.check_workers("car")
