"""The programs under examples/ do what their first lines say."""

import importlib
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.fixture(autouse=True, scope="module")
def examples_first():
    sys.path.insert(0, str(EXAMPLES))
    yield
    sys.path.remove(str(EXAMPLES))
    for path in EXAMPLES.glob("*.py"):
        sys.modules.pop(path.stem, None)


@pytest.mark.parametrize("name, needs, tolerance", (
    ("plain_pytorch", "torch", 0.0), ("with_timm", "timm", 0.0), ("with_accelerate", "accelerate", 0.0),
    ("with_lightning", "lightning", 0.0), ("with_torchdistill", "torchdistill", 1e-4)))
def test_a_foreign_loop_ends_in_the_packages_own_weights(name, needs, tolerance):
    pytest.importorskip(needs)
    digits, example = importlib.import_module("digits"), importlib.import_module(name)
    student = example.train()
    assert digits.as_ours(student, tolerance)
    student.head.bias.data += 1e-3  # what would fail, fails
    assert not digits.as_ours(student, tolerance)


def test_text_is_distilled_too():
    accuracy, larger_class = importlib.import_module("text").train()
    assert accuracy > larger_class + 10


def test_optuna_chooses_an_interval_and_prunes(tmp_path, monkeypatch):
    monkeypatch.setenv("SPACEDKD_RUNS", str(tmp_path))
    study = importlib.import_module("with_optuna").search(6)
    states = [trial.state.name for trial in study.trials]
    assert states.count("COMPLETE") >= 2 and "PRUNED" in states and set(states) <= {"COMPLETE", "PRUNED"}
    assert study.best_value > 30
