"""Records: complete or absent, refused when altered, published only on purpose."""

import json
from dataclasses import replace

import pytest
import torch

from spacedkd_lib import records
from spacedkd_lib.recipes import InputError, Recipe

RECIPE = Recipe(seed=3)


def fake_training(recipe):
    return [{"epoch": 1, "test_accuracy": 10.0, "seconds": 1.5}], {"test_accuracy": 10.0}, {"device": "cpu"}, {
        "student.w": torch.arange(3.0)}


def test_trained_once_then_loaded(tmp_path):
    calls = []

    def train(recipe):
        calls.append(recipe)
        return fake_training(recipe)
    first = records.run_or_load(RECIPE, train, tmp_path)
    second = records.run_or_load(RECIPE, train, tmp_path)
    assert calls == [RECIPE] and first == second
    assert torch.equal(records.load_weights(RECIPE, tmp_path)["student.w"], torch.arange(3.0))
    assert sorted(p.name for p in (tmp_path / RECIPE.run_id).iterdir()) == ["recipe.json", "result.json",
                                                                           "weights.safetensors"]


def test_an_interrupted_run_is_no_record(tmp_path):
    def interrupted(recipe):
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        records.run_or_load(RECIPE, interrupted, tmp_path)
    assert records.load(RECIPE, tmp_path) is None
    assert records.run_or_load(RECIPE, fake_training, tmp_path).summary["test_accuracy"] == 10.0


def test_result_comes_last(tmp_path, monkeypatch):
    """If the weights cannot be stored there is no result either."""
    def fail(*_):
        raise OSError("disk full")
    monkeypatch.setattr("safetensors.torch.save", fail)
    with pytest.raises(OSError):
        records.run_or_load(RECIPE, fake_training, tmp_path)
    assert records.load(RECIPE, tmp_path) is None


def test_altered_or_foreign_records_are_refused(tmp_path):
    records.run_or_load(RECIPE, fake_training, tmp_path)
    path = tmp_path / RECIPE.run_id / "result.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"recipe": values["recipe"] | {"seed": 4}}))
    with pytest.raises(InputError, match="was altered or damaged"):
        records.load(RECIPE, tmp_path)
    path.write_text(json.dumps(values | {"recipe": values["recipe"] | {"version": 99}}))
    with pytest.raises(InputError, match="version 99 of the recipe"):
        records.load(RECIPE, tmp_path)
    path.write_text("{half")
    with pytest.raises(InputError, match="not a complete record"):
        records.load(RECIPE, tmp_path)


def test_an_unwritable_folder_is_found_before_training(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")

    def never(recipe):
        raise AssertionError("training started")
    with pytest.raises(InputError, match="cannot be written"):
        records.run_or_load(RECIPE, never, blocked / "runs")


def test_publish_and_read_back(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "ROOT", tmp_path)
    made = [records.run_or_load(replace(RECIPE, seed=s), fake_training, tmp_path / "runs") for s in (1, 2)]
    assert records.read_published("quick") == {}
    path = records.publish(made, "quick")
    assert records.read_published("quick") == {r.run_id: r for r in made}
    before = path.read_bytes()
    records.publish(reversed(made), "quick")
    assert path.read_bytes() == before


def test_numbers_leave_out_the_clock():
    row = {"epoch": 1, "test_accuracy": 1.0, "seconds": 2.0, "images_per_second": 3.0}
    record = records.Record(RECIPE, [row], {}, {})
    assert record.numbers() == [{"epoch": 1, "test_accuracy": 1.0}]


def test_missing_weights(tmp_path):
    with pytest.raises(InputError, match="not on this machine"):
        records.load_weights(RECIPE, tmp_path)
