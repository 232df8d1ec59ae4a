"""What every notebook of the series owes its reader: time told, words defined, conclusions, exercises, captions."""

import ast
import json
import re
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote

import pytest

from spacedkd_lib.lab import grids, tuning
from spacedkd_lib.lab.arms import ARMS
from spacedkd_lib.lab.profiles import PROFILES
from spacedkd_lib.notebook import exercises
from wrong_answers import WRONG

ROOT = Path(__file__).resolve().parents[1]
SERIES = sorted((ROOT / "notebooks").glob("[01]*.ipynb"))
WORDS = re.findall(r"^### (.*)", (ROOT / "notebooks/glossary.md").read_text().lower(), re.M)
PAGES = [*SERIES, ROOT / "notebooks" / "solutions.ipynb"]
series = pytest.mark.parametrize("path", SERIES, ids=lambda path: path.stem[:2])


def cells(path: Path, kind: str) -> list[dict]:
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == kind]


def source(cell: dict) -> str:
    return "".join(cell["source"])


def prose(path: Path) -> str:
    """The words of a notebook without code, tables, formulas and addresses."""
    text = "\n\n".join(source(cell) for cell in cells(path, "markdown"))
    text = re.sub(r"```.*?```|\$\$.*?\$\$|<details>.*?</details>", " ", text, flags=re.S)
    text = re.sub(r"^\|.*$|^#+ .*$", "", text, flags=re.M)
    text = re.sub(r"\$[^$]*\$|`[^`]*`", "x", text)
    return re.sub(r"\]\([^)]*\)", "]", text)


def outputs(path: Path, mime: str) -> list[dict]:
    return [out for cell in cells(path, "code") for out in cell["outputs"] if mime in out.get("data", {})]


@series
def test_the_top_tells_question_and_time(path):
    top = source(cells(path, "markdown")[0])
    told = re.search(r"Reading: (\d+) min\. Running as it is: (\d+) s", top)
    words = len(prose(path).split())
    assert told and 35 <= words / int(told[1]) <= 120, f"{words} words"  # a minute: a newcomer's pace, code and all
    assert "**After this notebook you can**" in top and "?" in top


@series
def test_the_parameters_name_the_profiles_that_have_runs(path):
    def has_runs(name):
        with suppress(tuning.NotTuned):
            return path.stem not in ARMS or bool(grids.grid(name, path.stem))
        return True  # after tuning
    said, = re.findall(r'^profile = "smoke"  # ([^;\n]*)', "\n".join(source(cell) for cell in cells(path, "code")), re.M)
    assert set(re.split(", | or ", said)) == {name for name in PROFILES if has_runs(name)}


@series
def test_it_concludes_and_says_what_may_not_be_concluded(path):
    said = "".join(source(cell) for kind in ("markdown", "code") for cell in cells(path, kind))
    assert "What we found" in said and "What we may not conclude" in said
    assert "getsource" not in said  # a reader types the method, and does not read production code


@series
def test_exercises_have_a_variable_each_and_kinds(path):
    number = path.stem[:2]
    mine = {name: exercise for name, exercise in exercises.all_exercises().items() if name[:2] == number}
    assert 3 <= len(mine) <= 5 and len({exercise.kind for exercise in mine.values()}) >= 2
    code = [source(cell) for cell in cells(path, "code")]
    for name in mine:
        variable = f"answer_{name.replace('.', '_')}"
        cell, = (cell for cell in code if f'check("{name}"' in cell)
        assert re.search(rf"^{variable} = None", cell, re.M) and f'check("{name}", {variable})' in cell


@series
def test_what_answers_a_prediction_is_folded_below_it(path):
    everything = json.loads(path.read_text())["cells"]
    for name, exercise in exercises.all_exercises().items():
        if name[:2] == path.stem[:2] and exercise.kind == "predict":
            at, = (k for k, cell in enumerate(everything) if f'check("{name}"' in source(cell))
            assert any(cell["metadata"].get("jupyter", {}).get("outputs_hidden") or "<details>" in source(cell)
                       for cell in everything[at + 1:at + 7]), name


@series
def test_figures_have_words(path):
    for cell in cells(path, "code"):
        pictures = [out for out in cell["outputs"] if "image/png" in out.get("data", {})]
        assert all(out["metadata"].get("image/png", {}).get("alt") for out in pictures), source(cell)
        if pictures:
            assert any("".join(out.get("data", {}).get("text/markdown", "")).startswith("*") for out in cell["outputs"])


@series
def test_long_tables_are_folded(path):
    for out in outputs(path, "text/markdown"):
        text = "".join(out["data"]["text/markdown"])
        assert "<details>" in text or len(re.findall(r"^\|", text, re.M)) - 2 <= 8, text[:300]


@series
def test_cells_and_sentences_are_short(path):
    for cell in cells(path, "code"):
        lines = [line for line in source(cell).splitlines() if line.strip() and not line.startswith("#")]
        most = 15 if re.search(r"\bfig\b", source(cell)) else 10  # what is typed has ten lines; what draws may have more
        assert len(lines) <= most and max(map(len, lines), default=0) <= 110, source(cell)
    for paragraph in re.split(r"\n\s*\n|\n[-*\d]+\.? ", prose(path)):
        for sentence in re.split(r"(?<=[.!?:;])\s+", " ".join(paragraph.split())):
            assert len(sentence.split()) <= 29, sentence


@series
def test_a_slider_still_draws_after_the_last_cell(path):
    parsed = [ast.parse(source(cell)) for cell in cells(path, "code")]
    for k, page in enumerate(parsed):
        made = {node.name: node for earlier in parsed[:k + 1] for node in earlier.body if isinstance(node, ast.FunctionDef)}
        later = {name for cell in parsed[k + 1:] for node in cell.body for name in _bound(node)}
        for call in (node for node in ast.walk(page) if isinstance(node, ast.Call)):
            if ast.unparse(call.func) == "skd.slider":
                read, new = set(), {ast.unparse(call.args[0])}
                while new:
                    names = {name for f in new & made.keys() for name in _read(made[f])}
                    read, new = read | names, names - read
                assert not read & later, f"cell {k}: a later cell gives another meaning to {read & later}"


def _bound(node: ast.stmt) -> set[str]:
    """Names that a statement at the top of a cell binds."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return {node.name}
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}


def _read(function: ast.FunctionDef) -> set[str]:
    """Names that a function reads from its notebook."""
    names = [n for n in ast.walk(function) if isinstance(n, ast.Name)]
    own = {n.id for n in names if isinstance(n.ctx, ast.Store)} | {a.arg for a in ast.walk(function) if isinstance(a, ast.arg)}
    return {n.id for n in names} - own


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem[:2])
def test_links_lead_somewhere(path):
    text = "\n".join(source(cell) for cell in cells(path, "markdown"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith(("http", "#")):
            page, _, place = target.partition("#")
            assert (path.parent / unquote(page)).exists(), target
            assert page != "glossary.md" or place in ("", *(word.replace(" ", "-") for word in WORDS)), target


def test_exercises_are_of_all_kinds_with_three_hints_and_refuse_a_wrong_answer():
    found = exercises.all_exercises()
    assert {exercise.kind for exercise in found.values()} == {"compute", "predict", "change", "break", "explain"}
    assert found.keys() == WRONG.keys()
    for name, exercise in found.items():
        assert len(set(exercise.hints)) == 3, name
        try:
            refused = exercise.test(WRONG[name])
        except Exception:  # a wrong function may fail
            continue
        assert refused, name
