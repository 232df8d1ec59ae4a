"""Exercises of the notebooks: `check` an answer, ask for a `hint`, see the `progress`.

The right answers stand apart, in `answers/`, one file a notebook. Solutions with their reasons:
notebooks/solutions.ipynb.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import sys
from pathlib import Path
from typing import Callable, NamedTuple

import pandas as pd

from ..errors import InputError, nearest
from ..store import records

NOTEBOOKS = tuple(f"{number:02}" for number in range(15))


class Exercise(NamedTuple):
    """One exercise.

    kind: compute, predict, change, break or explain. test: answer -> what is wrong with it, "" if it is right. hints:
    three, from a nudge to nearly the solution.
    """

    kind: str
    test: Callable[[object], str]
    hints: tuple[str, str, str]


def check(name: str, answer) -> bool:
    """Say whether the answer to exercise `name` ("05.1") is right, and what is wrong with it; keep the progress.

    Raises:
        InputError: there is no such exercise.
    """
    exercise = _exercise(name)
    if answer is None:
        print(f"Exercise {name} ({exercise.kind}): not answered yet.")
        return False
    try:
        wrong = exercise.test(answer)
    except Exception as error:  # a learner's function may fail in any way
        wrong = f"your answer raised {type(error).__name__}: {error}"
    if wrong:
        print(f'Exercise {name}: not yet; {wrong}. A hint: skd.hint("{name}")')
    else:
        print(f"Exercise {name}: right.")
        _keep(name)
    return not wrong


def hint(name: str) -> None:
    """Print the next of an exercise's three hints; after the last, where its solution stands.

    Raises:
        InputError: there is no such exercise.
    """
    hints, seen = _exercise(name).hints, _SEEN.get(name, 0)
    if seen < len(hints):
        print(f"Hint {seen + 1} of {len(hints)}: {hints[seen]}")
        _SEEN[name] = seen + 1
    else:
        print(f"The solution of {name} stands in solutions.ipynb, with its reason.")


def progress() -> pd.DataFrame:
    """Count the exercises of each notebook, and those that you have answered right."""
    kept, exercises = _kept(), all_exercises()
    return pd.DataFrame([{"Notebook": number, "Exercises": sum(name.startswith(number) for name in exercises),
                          "Right": sum(name.startswith(number) and kept.get(name, {}).get("right", False)
                                       for name in exercises)} for number in NOTEBOOKS])


def all_exercises() -> dict[str, Exercise]:
    """All exercises by name, in the order of the series."""
    return {name: exercise for number in NOTEBOOKS for name, exercise in _of_notebook(number).items()}


def number(value: float, tolerance: float = 1e-2) -> Callable[[object], str]:
    """Test for a number within a relative tolerance."""
    def test(answer) -> str:
        try:
            near = math.isclose(float(answer), value, rel_tol=tolerance)
        except (TypeError, ValueError):
            return f"a number is asked for, and {answer!r} is none"
        return "" if near else f"{answer} is not the number"
    return test


def exactly(value) -> Callable[[object], str]:
    """Test for a value; for a letter or word in any case."""
    def test(answer) -> str:
        given = answer.strip().lower() if isinstance(answer, str) else answer
        return "" if given == value else f"{answer!r} is not it"
    return test


def agrees(cases, truth: Callable) -> Callable[[object], str]:
    """Test a learner's function: it gives what `truth` gives on every case, a tuple of arguments."""
    def test(function) -> str:
        for case in cases:
            got, want = function(*case), truth(*case)
            if not _close(got, want):
                return f"for the input {', '.join(map(repr, case))} yours gives {got!r}, expected is {want!r}"
        return ""
    return test


def _close(got, want) -> bool:
    if isinstance(want, (list, tuple)):
        return len(got) == len(want) and all(_close(g, w) for g, w in zip(got, want))
    if isinstance(want, float):
        return math.isclose(got, want, rel_tol=1e-4, abs_tol=1e-9)
    return got == want


def _exercise(name: str) -> Exercise:
    name = str(name)  # a number is no exercise
    found = _of_notebook(name[:2]) if name[:2] in NOTEBOOKS else {}
    if name not in found:
        raise InputError(nearest("exercise", name, found or all_exercises()))
    return found[name]


def _of_notebook(number: str) -> dict[str, Exercise]:
    return importlib.import_module(f".answers.n{number}", __package__).EXERCISES


_SEEN: dict[str, int] = {}  # hints given in this session


def _file() -> Path:
    return records.ROOT / ".progress.json"


def _kept() -> dict[str, dict]:
    try:
        return json.loads(_file().read_text())
    except (OSError, ValueError):  # none yet, or damaged: progress is no result
        return {}


def _keep(name: str) -> None:
    """Only a person's answers are kept, not those of a notebook that papermill or nbval runs."""
    if "IPython" in sys.modules and not os.environ.get("TQDM_DISABLE"):
        records.write_atomically(_file(), json.dumps(_kept() | {name: {"right": True}}))
