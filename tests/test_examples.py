"""The programs under examples/ do what their first lines say."""

import ast
import importlib
import runpy
import sys
from pathlib import Path

import house
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
    student = example.train(*digits.start())
    assert digits.as_ours(student, tolerance)
    student.head.bias.data += 1e-3  # what would fail, fails
    assert not digits.as_ours(student, tolerance)


def test_text_is_distilled_too():
    accuracy, larger_class = importlib.import_module("text").score()
    assert accuracy > larger_class + 10


def test_optuna_chooses_an_interval_and_prunes(tmp_path, monkeypatch):
    monkeypatch.setenv("SPACEDKD_RUNS", str(tmp_path))
    study = runpy.run_path(str(EXAMPLES / "with_optuna.py"), run_name="__main__")["study"]
    states = [trial.state.name for trial in study.trials]
    assert states.count("COMPLETE") >= 2 and "PRUNED" in states and set(states) <= {"COMPLETE", "PRUNED"}
    assert study.best_value > 30


@pytest.mark.parametrize("name", (
    "plain_pytorch", "with_lightning", "with_accelerate", "with_timm", "with_torchdistill", "text"))
def test_what_spaces_a_loop_is_the_first_definition_and_short(name):
    """It calls nothing that the program defines below it, so that all of it counts."""
    adapter, *others = [part for part in ast.parse((EXAMPLES / f"{name}.py").read_text()).body if hasattr(part, "name")]
    named = {part.id for part in ast.walk(adapter) if isinstance(part, ast.Name)}
    assert not named & {other.name for other in others}
    assert 5 < 1 + house.code_lines(adapter) <= 15


@pytest.mark.parametrize("name", ("own_loss", "own_rule", "own_network", "own_data", "own_teacher", "with_optuna"))
def test_a_researchers_program_is_short(name):
    assert house.lines(EXAMPLES / f"{name}.py") < 30
