"""Tuning: equal budgets, grids that widen, stages that go on after a kill, and no test score anywhere."""

import json
import math
from dataclasses import replace

import pandas
import pytest

from spacedkd_lib import __main__ as cli
from spacedkd_lib.data import datasets
from spacedkd_lib.errors import InputError
from spacedkd_lib.lab import grids, profiles, running, sweeps, tuning
from spacedkd_lib.recipes import Recipe, baseline, online_kd
from spacedkd_lib.store import records

BASE = Recipe(dataset="toy", val_fraction=0.25, model="resnet8", width=2, epochs=1, batch_size=8, lr=0.1,
              augment="none")
TASK = tuning.Task(BASE, {"labels": tuning.Family(baseline(BASE)), "KD": tuning.Family(online_kd(BASE), tuning.SOFT)})
NAMES = list(TASK.families)


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """Runs and results of its own; what is published is read there. Nothing waits for the disk."""
    monkeypatch.setattr("os.fsync", lambda file: None)
    monkeypatch.setenv("SPACEDKD_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(records, "ROOT", tmp_path)
    monkeypatch.setattr(tuning, "PUBLISHED", tmp_path / "results" / "tuning")
    tuning._published.cache_clear()
    yield tmp_path / "results" / "tuning" / "toy"
    tuning._published.cache_clear()


class Guarded(dict):
    """An epoch's numbers, of which only those without "test" in their name may be read, one by one."""

    def __getitem__(self, key):
        assert "test" not in key, f"{key} was read"
        return super().__getitem__(key)

    get = __getitem__

    def forbidden(self, *_):
        raise AssertionError("all numbers of an epoch were read at once")

    items = values = __iter__ = copy = forbidden


class Synthetic:
    """In place of `study.run_all`: accuracy falls with the distance from a best point, in powers of two. Runs whose
    learning rate reaches `diverges` have no record."""

    def __init__(self, monkeypatch, diverges=math.inf, **best):
        self.best, self.diverges, self.made, self.calls = best, diverges, {}, []
        monkeypatch.setattr(records, "load", lambda recipe: self.made.get(recipe.run_id))

    def __call__(self, wanted, workers, say):
        self.calls.append(wanted)
        for recipe in wanted:
            if recipe.lr >= self.diverges:
                records.note_divergence(recipe, "diverged")
            else:
                away = sum(abs(math.log2(getattr(recipe, name) / value)) for name, value in self.best.items())
                row = Guarded(val_accuracy=90 - away + recipe.seed / 1000, test_accuracy=away)
                self.made[recipe.run_id] = records.Record(recipe, [row], Guarded(test_accuracy=away), {})
        if any(recipe.lr >= self.diverges for recipe in wanted):
            raise InputError("Some runs diverged.")


def tune(run_all, names=NAMES, task=TASK):
    tuning.tune("toy", task, names, run_all, say=lambda _: None)


def published(place):
    return json.loads((place / "chosen.json").read_text())["families"], pandas.read_csv(place / "trials.csv")


@pytest.mark.parametrize("task", profiles.TUNED.values(), ids=profiles.TUNED)
def test_every_family_has_the_same_budget(task):
    second = {math.prod(map(len, (family.space or tuning.FINER).values())) for family in task.families.values()}
    assert second == {10} and math.prod(map(len, task.rates.values())) == 9
    for family in task.families.values():
        for name, values in (task.rates | family.space).items():
            assert list(values) == sorted(set(values)) and replace(family.recipe, **{name: values[-1]})
    assert len({family.recipe.run_id for family in task.families.values()}) == len(task.families)


def test_two_stages_choose_and_publish(monkeypatch, place):
    """The best is inside but for T = 3, which is an edge of its grid: one probe."""
    run_all = Synthetic(monkeypatch, lr=0.2, weight_decay=1e-3, alpha=0.1, temperature=3.0)
    tune(run_all)
    assert [len(wanted) for wanted in run_all.calls] == [2 * 9 * 3, 20 * 3 - 3 * 1, 3]  # one trial stood in stage 1
    assert {recipe.seed for wanted in run_all.calls for recipe in wanted} == set(tuning.SEEDS)
    chosen, trials = published(place)
    assert chosen["KD"]["values"] == {"lr": 0.2, "weight_decay": 1e-3, "alpha": 0.1, "temperature": 3.0}
    assert chosen["KD"]["val_accuracy"] == pytest.approx([90.1, 90.101, 90.102])
    assert chosen["labels"]["values"] == {"lr": 0.2, "weight_decay": 1e-3}  # none of the finer ones is better
    assert [(told["trials"], told["probes"]) for told in (chosen["labels"], chosen["KD"])] == [(19, 0), (20, 1)]
    assert trials.groupby("family").size().to_dict() == {"labels": 19, "KD": 20}
    probe = trials[trials["probe"]].iloc[0]
    assert (probe["temperature"], probe["alpha"], probe["stage"], probe["state"]) == (6.0, 0.1, 2, "done")
    assert trials["val_accuracy_102"].max() == pytest.approx(90.102)
    assert not [name for name in (*trials, *chosen["KD"], *chosen["KD"]["values"]) if "test" in name]


@pytest.mark.parametrize("best, diverges, values, probed", [
    (dict(lr=1.6, weight_decay=1e-3), math.inf, dict(lr=1.6), [("lr", [0.8, 1.6, 3.2])]),
    (dict(lr=1.6, weight_decay=1e-3), 0.8, dict(lr=0.4), [("lr", [0.8])]),  # the probe diverges: the best is inside
    (dict(lr=0.05, weight_decay=4e-3), math.inf, dict(lr=0.05, weight_decay=4e-3),
     [("lr", [0.05, 0.025]), ("weight_decay", [4e-3, 8e-3])]),
    (dict(lr=0.2, weight_decay=1e-3, alpha=1.0, temperature=3.0), math.inf, dict(alpha=1.0), [("alpha", [1.0])])])
def test_a_best_on_the_edge_widens_the_grid(monkeypatch, place, best, diverges, values, probed):
    """One value at a time, until the best is inside; alpha ends at 1."""
    tune(Synthetic(monkeypatch, diverges, **best), ["KD"])
    chosen, trials = published(place)
    assert chosen["KD"]["values"] | values == chosen["KD"]["values"]
    for name, further in probed:
        grid = (TASK.rates | tuning.SOFT)[name]
        outside = trials.loc[trials["probe"] & ~trials[name].isin(grid), name].drop_duplicates()
        assert sorted(outside) == sorted(further)


def test_another_machine_trains_no_published_trial(monkeypatch, place):
    """The first stops in stage 2 with two trials of it whole; it publishes them and chooses nothing."""
    best = dict(lr=0.2, weight_decay=1e-3, alpha=0.1, temperature=3.0)
    tune(Synthetic(monkeypatch, **best))
    whole, chosen = ((place / name).read_text() for name in ("trials.csv", "chosen.json"))
    (place / "trials.csv").unlink(), (place / "chosen.json").unlink()
    first = Synthetic(monkeypatch, **best)

    def interrupted(*_):
        raise KeyboardInterrupt

    def stopping(wanted, workers, say):
        first(wanted[:7] if first.calls else wanted, workers, say)
        if len(first.calls) == 2:
            raise KeyboardInterrupt
    for folder in "first", "again":
        monkeypatch.setenv("SPACEDKD_RUNS", str(place / folder))
        with pytest.raises(KeyboardInterrupt):
            tune(stopping if folder == "first" else interrupted)
        trials = pandas.read_csv(place / "trials.csv")
        assert not (place / "chosen.json").exists() and len(trials) == 18 + 2 + 1  # one of them stood in stage 1
    monkeypatch.setenv("SPACEDKD_RUNS", str(place / "second"))
    second = Synthetic(monkeypatch, **best)
    tune(second)
    assert [len(wanted) for wanted in second.calls] == [57 - 6, 3]
    assert json.loads((place / "chosen.json").read_text())["families"] == json.loads(chosen)["families"]
    assert sorted((place / "trials.csv").read_text().splitlines()) == sorted(whole.splitlines())
    with pytest.raises(AssertionError):
        second.made.popitem()[1].summary["test_accuracy"]  # the guard works


def test_a_divergence_fails_a_trial_and_another_failure_ends_the_stage(monkeypatch, place):
    run_all = Synthetic(monkeypatch, diverges=0.4, lr=0.2, weight_decay=1e-3, alpha=0.1, temperature=3.0)
    tune(run_all, ["KD"])
    chosen, trials = published(place)
    failed = trials[trials["state"] == "diverged"]
    assert len(failed) == 3 and (failed["lr"] == 0.4).all() and failed["val_accuracy"].isna().all()
    assert chosen["KD"]["values"]["lr"] == 0.2

    def full(*_):
        raise InputError("The disk is full.")
    with pytest.raises(InputError, match="disk"):
        tune(full, ["labels"])


def test_a_family_of_which_all_diverges_is_left_out(monkeypatch, place):
    tune(Synthetic(monkeypatch, diverges=0.0, lr=0.2), ["KD"])
    chosen, trials = published(place)
    assert chosen == {} and len(trials) == 9 and set(trials["state"]) == {"diverged"}


def test_published_values_are_read_by_family(monkeypatch, place):
    """Families tuned later join those there, also of a commit with other fields; those of another base do not."""
    run_all = Synthetic(monkeypatch, lr=0.2, weight_decay=1e-3, alpha=0.1, temperature=3.0)
    tune(run_all, ["labels"])
    rows = (place / "trials.csv").read_text().count("\n")
    before = json.loads((place / "chosen.json").read_text())
    before["base"] = {name: value for name, value in before["base"].items() if name != "clip_norm"} | {"accumulate": 1}
    (place / "chosen.json").write_text(json.dumps(before))
    tune(run_all, ["KD"])
    assert tuning.tuned("toy", "labels") == {"lr": 0.2, "weight_decay": 1e-3}
    assert tuning.tuned("toy", "KD")["alpha"] == 0.1 and len(published(place)[1]) == rows - 1 + 20
    for label, family in (("toy", "spaced KD"), ("glyphs", "labels")):
        with pytest.raises(InputError, match=f'^{label} has no tuned values for "{family}" .*run make tune'):
            tuning.tuned(label, family)
    other = tuning.Task(replace(BASE, width=4), {"KD": TASK.families["KD"]})
    tune(run_all, ["KD"], other)
    assert set(published(place)[0]) == {"KD"}


def test_seeds_of_tuning_are_refused():
    assert [tuning.check_seed(seed) for seed in (0, 99, 103, 200)] == [0, 99, 103, 200]
    with pytest.raises(InputError, match="Seed 100 chose the tuned values"):
        grids.grid("smoke", seeds=101)


@pytest.mark.parametrize("arguments, message", [
    (["--data", "glyfs"], 'error: "glyfs" is not a tuned data set; did you mean "glyphs"'),
    (["--families", "space KD"], 'error: "space KD" is not a family; did you mean "spaced KD"')])
def test_bad_input_is_one_sentence(arguments, message, capsys):
    assert cli.main(["tune", *arguments]) == 2
    told = capsys.readouterr().err
    assert told.startswith(message) and len(told.splitlines()) == 1


def test_no_validation_pictures_are_refused():
    task = tuning.Task(BASE, {"KD": tuning.Family(replace(online_kd(BASE), val_fraction=0.0))})
    with pytest.raises(InputError, match="validation pictures"):
        tune(None, ["KD"], task)


def test_real_runs_are_trained_once_and_given_up_once(monkeypatch, toy, place):
    """Sweeps of the package on the toy data, one learning rate of which diverges."""
    monkeypatch.setattr(datasets, "load", lambda name, seed: toy)
    monkeypatch.setattr(tuning, "WIDER", {"lr": (), "temperature": ()})  # no probes
    trained = []

    def run_all(wanted, workers, say):
        missing = [recipe for recipe in wanted if records.load(recipe) is None]
        failed = [why for recipe in missing for why in running.train_sweep(sweeps.sweep_of([recipe]))]
        trained.extend(missing)
        if failed:
            raise InputError(" ".join(failed))
    task = tuning.Task(BASE, {"KD": tuning.Family(online_kd(BASE), {"temperature": (0.25, 12.0)})},
                       {"lr": (1e-3, 1e3)})
    tune(run_all, ["KD"], task)
    chosen, trials = published(place)
    assert set(trials.loc[trials["state"] == "diverged", "lr"]) == {1e3} and chosen["KD"]["values"]["lr"] < 1e3
    best = replace(online_kd(BASE), **chosen["KD"]["values"], seed=100)
    assert records.load(best).epochs[-1]["val_accuracy"] in set(trials["val_accuracy_100"])
    assert len(trained) == len({recipe.run_id for recipe in trained})
    trained.clear()
    (place / "trials.csv").unlink()
    tune(run_all, ["KD"], task)  # without published trials the records still answer
    assert not trained and published(place)[1].equals(trials)
