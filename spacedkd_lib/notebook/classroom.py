"""A teacher's kit, made from the notebooks and their solutions: student copies, nbgrader's form, minutes; and a reset.

nbgrader's form has two cells an exercise: the answer, with the solution between nbgrader's marks, and a locked test.
"""

from __future__ import annotations

import ast
import re
import subprocess
import time
from pathlib import Path

import nbformat
import pandas as pd

from ..errors import InputError
from ..store import records
from .runner import normalise
from .series import NOTEBOOKS

TIMES = re.compile(r"Reading: (\d+) min\. Running as it is: (\d+) s")
ANSWER = re.compile(r"^(answer_(\d\d)_(\d)) = None.*?^skd\.check\(.*?\);?$", re.M | re.S)


def make_course(folder: Path) -> pd.DataFrame:
    """Write student copies to `folder`/student, nbgrader's source to `folder`/nbgrader/source; replace what is there.

    Returns:
        A line a notebook: minutes of reading, seconds of running, exercises.
    """
    solved, lines = solutions(), []
    for path in sorted(NOTEBOOKS.glob("[01]*.ipynb")):
        nb = without_outputs(nbformat.read(path, as_version=4))
        _write(nb, folder / "student" / path.name)
        reading, running = TIMES.search(nb.cells[0].source).groups()
        exercises = sum(bool(ANSWER.search(cell.source)) for cell in nb.cells)
        lines.append([path.stem, int(reading), int(running), exercises])
        _write(in_nbgraders_form(nb, solved), folder / "nbgrader" / "source" / path.stem / path.name)
    return pd.DataFrame(lines, columns=["Notebook", "Reading (min)", "Running (s)", "Exercises"])


def without_outputs(nb):
    """Make the notebook what a student gets; changes and returns `nb`."""
    for cell in nb.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return normalise(nb)


def in_nbgraders_form(nb, solved: dict[str, str]):
    """Split each exercise's cell into an answer with its solution and a test of one point; changes and returns `nb`.

    Args:
        solved: name of a variable -> code that sets it, from `solutions`.
    """
    cells = []
    for cell in nb.cells:
        found = ANSWER.search(cell.source)
        if not found:
            cells.append(cell)
            continue
        variable, notebook, number = found.groups()
        answer = f"### BEGIN SOLUTION\n{solved[variable]}\n### END SOLUTION"
        test = f'assert skd.check("{notebook}.{number}", {variable})'
        for kind, source in (("answer", answer), ("test", test)):
            made = nbformat.v4.new_code_cell(source, id=f"{kind}-{notebook}-{number}")
            made.metadata["nbgrader"] = {"schema_version": 3, "grade_id": made.id, "cell_type": "code", "task": False,
                                         "grade": kind == "test", "solution": kind == "answer",
                                         "locked": kind == "test"} | ({"points": 1} if kind == "test" else {})
            cells.append(made)
    nb.cells = cells
    return nb


def solutions() -> dict[str, str]:
    """Name of an answer's variable -> code that sets it, with the functions it needs, from solutions.ipynb."""
    found = {}
    for cell in nbformat.read(NOTEBOOKS / "solutions.ipynb", as_version=4).cells:
        if cell.cell_type != "code" or "skd.check(" not in cell.source:
            continue
        tree, code = ast.parse(cell.source).body, cell.source
        checks = [s.value for s in tree if isinstance(s, ast.Expr) and ast.unparse(s).startswith("skd.check(")]
        needed = [ast.get_source_segment(code, s) for s in tree if getattr(s, "value", None) not in checks]
        for call in checks:
            variable = f"answer_{call.args[0].value.replace('.', '_')}"
            found[variable] = "\n\n".join([*needed, f"{variable} = {ast.get_source_segment(code, call.args[1])}"])
    return found


def reset() -> Path | None:
    """Restore the notebooks as they were released; what you changed is kept, in the folder that is returned.

    Raises:
        InputError: this is no git checkout.
    """
    def git(*command: str) -> str:
        done = subprocess.run(["git", *command], cwd=NOTEBOOKS, capture_output=True, text=True)
        if done.returncode:
            raise InputError(f"{NOTEBOOKS} is no git checkout ({done.stderr.strip()}): unpack the package again.")
        return done.stdout
    changed = git("diff", "--name-only", "-z", "--relative", "HEAD", "--", "*.ipynb").split("\0")[:-1]
    if not changed:
        return None
    kept = records.ROOT / "build" / "mine" / time.strftime("%Y-%m-%d-%H%M%S")
    for name in filter(lambda name: (NOTEBOOKS / name).exists(), changed):
        records.write_atomically(kept / name, (NOTEBOOKS / name).read_bytes())
    git("checkout", "HEAD", "--", *changed)
    return kept


def _write(nb, path: Path) -> None:
    records.write_atomically(path, nbformat.writes(nb) + "\n")
