"""Measures of finished runs: computed once, tied to their weights and settings, published and read."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch

from spacedkd_lib import recipes
from spacedkd_lib.analysis import measures, trained as finished
from spacedkd_lib.data import batches, datasets
from spacedkd_lib.errors import InputError
from spacedkd_lib.lab import profiles
from spacedkd_lib.store import records
from spacedkd_lib.training import evaluation, train

SMALL = {"noise": dict(images=40, sigmas=[0.0, 0.2], draws=2), "curvature": dict(images=20, products=3, repeats=2)}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A baseline and a spaced student, finished in a folder of their own: (folder, recipes)."""
    folder = tmp_path_factory.mktemp("runs")
    base = replace(profiles.PROFILES["smoke"].settings[0].base, width=1, train_images=120)
    made = recipes.baseline(base), recipes.spaced(recipes.online_kd(base), 1.0)
    for recipe in made:
        records.save(recipe, *train.train(recipe, datasets.load(recipe.dataset, seed=recipe.seed), "cpu"), runs=folder)
    return folder, made


@pytest.fixture(autouse=True)
def place(trained, monkeypatch, tmp_path):
    monkeypatch.setenv("SPACEDKD_RUNS", str(trained[0]))
    monkeypatch.setattr(records, "ROOT", tmp_path)
    monkeypatch.setattr(records, "SHIPPED", tmp_path)
    for name, settings in SMALL.items():
        monkeypatch.setitem(measures.MEASURES, name, measures.MEASURES[name]._replace(settings=settings))
    for path in trained[0].glob("*/*.npz"):
        path.unlink()


def count(monkeypatch, name):
    calls, measure = [], measures.MEASURES[name]
    monkeypatch.setitem(measures.MEASURES, name, measure._replace(
        compute=lambda *a, **k: calls.append(k) or measure.compute(*a, **k)))
    return calls


def test_the_stored_student_is_the_one_that_was_scored(trained):
    run = finished.Trained(trained[1][1])
    dataset = datasets.load("digits")
    x = evaluation.normalised(dataset.test_images, batches.channel_statistics(dataset.train_images[datasets.split(
        dataset, 120, run.recipe.val_fraction, 0)[0]]))
    with torch.no_grad():
        accuracy = 100 * (run.student(x).logits.argmax(1) == dataset.test_labels).float().mean().item()
    assert accuracy == pytest.approx(records.load(run.recipe).summary["test_accuracy"])
    assert torch.equal(run.training(30)[1], finished.Trained(trained[1][0]).training(30)[1])


def test_computed_once_and_again_only_if_settings_weights_or_code_changed(trained, monkeypatch):
    recipe, calls = trained[1][0], count(monkeypatch, "noise")
    first = measures.measure(recipe, "noise")
    assert measures.measure(recipe, "noise")["loss"].tolist() == first["loss"].tolist() and len(calls) == 1
    monkeypatch.setitem(measures.MEASURES["noise"].settings, "draws", 3)
    assert measures.measure(recipe, "noise")["loss"].shape == (2, 3) and len(calls) == 2
    path = trained[0] / recipe.run_id / "noise.npz"
    with np.load(path) as file:
        meta = json.loads(str(file["meta"]))
        assert meta["run_id"] == recipe.run_id and meta["recipe"]["epochs"] == recipe.epochs and meta["torch"]
        np.savez(path, **{**file, "meta": json.dumps(meta | {"weights_sha256": "0"})})
    measures.measure(recipe, "noise")
    assert len(calls) == 3
    engine = measures.identity.code_sha256
    monkeypatch.setattr(measures.identity, "code_sha256", lambda *rooms: "another" if rooms else engine())
    measures.measure(recipe, "noise")
    assert len(calls) == 4


@pytest.mark.parametrize("damage", ["empty", "junk", "another archive", "array", "cut"])
def test_a_damaged_measure_is_computed_again_and_a_published_one_named(trained, monkeypatch, damage):
    recipe, calls = trained[1][0], count(monkeypatch, "noise")
    measures.measure(recipe, "noise")
    measures.publish([recipe], "smoke")
    for path in (trained[0] / recipe.run_id / "noise.npz", records.published_file("smoke", measures.PUBLISHED)):
        content = path.read_bytes()
        path.write_bytes({"empty": b"", "junk": b"junk", "another archive": b"PK\3\4"}.get(damage, content[:-30]))
        if damage == "array":
            np.save(path.open("wb"), np.zeros(3))
    measures.measure(recipe, "noise")
    assert len(calls) == 2
    with pytest.raises(InputError, match="measures.npz is damaged.*publish"):
        measures.read_published("smoke")


def test_published_and_read(trained, monkeypatch):
    for recipe in trained[1]:
        measures.measure(recipe, "curvature")
    assert measures.publish(trained[1], "smoke") == 2
    first = (records.ROOT / "results/smoke/measures.npz").read_bytes()
    found = measures.read_published("smoke")
    assert set(found) == {(recipe.run_id, "curvature") for recipe in trained[1]}
    recipe = trained[1][0]
    assert found[recipe.run_id, "curvature"]["trace"] == measures.measure(recipe, "curvature")["trace"]
    assert found[recipe.run_id, "curvature"].keys() == measures.measure(recipe, "curvature").keys()
    measures.publish(trained[1][::-1], "smoke")
    assert (records.ROOT / "results/smoke/measures.npz").read_bytes() == first
    assert measures.read_published("quick") == {}
    measures.restore("smoke", {recipe.run_id: records.load(recipe)})
    engine = measures.identity.code_sha256
    monkeypatch.setattr(measures.identity, "code_sha256", lambda *rooms: "another" if rooms else engine())
    assert measures.stored(recipe, "curvature") and not measures.stored(trained[1][1], "curvature")


def test_other_pictures_than_the_runs_are_not_measured(trained, monkeypatch):
    measures.measure(trained[1][0], "noise")
    monkeypatch.setattr(datasets, "sha256_at_hand", lambda *_: "another")
    with pytest.raises(InputError, match="other pictures of digits"):
        measures.measure(trained[1][0], "noise")


def test_a_run_that_todays_code_trains_otherwise_is_not_measured(trained, monkeypatch, tmp_path):
    recipe = trained[1][0]
    measures.measure(recipe, "noise")
    shutil.copytree(trained[0], tmp_path / "runs")
    monkeypatch.setenv("SPACEDKD_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(measures.identity, "made_by_this_code", lambda record: False)
    monkeypatch.setattr(measures.running, "holds_today", lambda record: False)
    for ask in (lambda: measures.measure(recipe, "noise"), lambda: measures.measure_all([(recipe, "noise")])):
        with pytest.raises(InputError, match="not on this machine"):
            ask()


def test_all_that_is_missing_goes_to_the_workers(trained, monkeypatch):
    """Here they are threads of this process."""
    class Threads(ThreadPoolExecutor):
        stop = ThreadPoolExecutor.shutdown
    monkeypatch.setattr(measures, "LocalProcesses", Threads)
    calls, (one, other) = count(monkeypatch, "noise"), trained[1]
    measures.measure(one, "noise")
    found = measures.measure_all([(one, "noise"), (other, "noise"), (other, "noise")], workers=1)
    assert set(found) == {(one.run_id, "noise"), (other.run_id, "noise")} and len(calls) == 2


def test_bad_input_before_any_work(trained, monkeypatch):
    missing = replace(trained[1][0], seed=9)
    with pytest.raises(InputError, match="not on this machine"):
        measures.measure_all([(trained[1][0], "noise"), (missing, "noise")])
    assert not list(trained[0].glob("*/noise.npz"))
    with pytest.raises(InputError, match='"curvatur".*curvature'):
        measures.measure(trained[1][0], "curvatur")
    with pytest.raises(InputError, match="workers"):
        measures.measure_all([], -1)
