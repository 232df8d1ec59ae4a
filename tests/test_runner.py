"""runner.py: what papermill lets pass is refused, and two runs of one notebook give the same bytes."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from spacedkd_lib.errors import InputError
from spacedkd_lib.notebook import runner, series
from spacedkd_lib.store import records, stopping

FIGURE = "import matplotlib.pyplot as plt\nplt.figure(figsize=(1, 1))\nplt.plot([1, times])\nplt.show()"


@pytest.fixture
def notebook(tmp_path, monkeypatch):
    """A function that writes a notebook: a parameters cell (`times = 2`), then the given cells."""
    monkeypatch.setattr(runner, "BUILD", tmp_path / "build")

    def write(*sources):
        parameters = new_code_cell("times = 2", metadata={"tags": ["parameters"]})
        cells = [new_markdown_cell("# A notebook"), parameters, *map(new_code_cell, sources)]
        path = tmp_path / "example.ipynb"
        nbformat.write(new_notebook(cells=cells), path)
        return path

    return write


def png(path):
    outputs = [out for cell in nbformat.read(path, 4).cells for out in cell.get("outputs", [])]
    return [out.data["image/png"] for out in outputs if "image/png" in out.get("data", {})]


def test_a_misspelt_parameter_is_refused_before_anything_runs(notebook, tmp_path):
    path = notebook("open('ran', 'w')")
    with pytest.raises(InputError, match='"tmies" is not a parameter of example.ipynb; did you mean "times"'):
        runner.execute(path, tmp_path / "out.ipynb", {"tmies": 3}, cwd=tmp_path)
    assert not (tmp_path / "ran").exists() and not (tmp_path / "out.ipynb").exists()


def test_a_notebook_without_parameters_says_so(tmp_path):
    nbformat.write(new_notebook(cells=[new_code_cell("1")]), tmp_path / "bare.ipynb")
    with pytest.raises(InputError, match="bare.ipynb takes no parameters"):
        runner.execute(tmp_path / "bare.ipynb", tmp_path / "out.ipynb", {"times": 3}, cwd=tmp_path)


@pytest.mark.parametrize("source, error, message", [
    ("import sys; sys.exit(0)", runner.NotebookError, r"ple.ipynb failed in cell \[2\] `.*SystemExit: 0"),
    ("def f():\n    raise ValueError('first\\nlast')\nf()", runner.NotebookError, r"`def f.*Error: last "),
    ("from spacedkd_lib.errors import InputError\nraise InputError('Sorry.')", InputError, r"^Sorry\.$"),
])
def test_a_failed_run_leaves_the_old_output_untouched(notebook, tmp_path, source, error, message):
    output = tmp_path / "out.ipynb"
    output.write_text("old")
    with pytest.raises(error, match=message):
        runner.execute(notebook(source, "'last'"), output, {}, cwd=tmp_path)
    assert output.read_text() == "old"
    assert list((tmp_path / "build" / "notebooks").glob("*.ipynb"))  # how far it came


def test_two_runs_give_the_same_bytes(notebook, tmp_path, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "Agg")  # must not reach the kernel: it would drop the figure
    path = notebook("import sys\nprint(sys.executable)", FIGURE)
    assert runner.refresh(path)
    first = path.read_bytes()
    assert not runner.refresh(path) and path.read_bytes() == first
    assert len(png(path)) == 1
    assert nbformat.read(path, 4).cells[2].outputs[0].text == sys.executable + "\n"


def test_notebooks_side_by_side_keep_their_parameters_and_folders(notebook, tmp_path):
    path = notebook("import os, time\nprint(times, os.getcwd())\ntime.sleep(0.1 * times)")
    before, here = path.read_bytes(), os.getcwd()

    def run(times):
        folder = tmp_path / str(times)
        folder.mkdir()
        runner.execute(path, folder / "deep" / "out.ipynb", {"times": times}, cwd=folder)
        return nbformat.read(folder / "deep" / "out.ipynb", 4).cells

    with ThreadPoolExecutor(2) as pool:
        for times, cells in zip((3, 4), pool.map(run, (3, 4))):
            assert [cell.id for cell in cells] == ["cell-0", "cell-1", "injected-parameters", "cell-2"]
            assert cells[-1].outputs[0].text == f"{times} {tmp_path / str(times)}\n"
    assert path.read_bytes() == before and os.getcwd() == here
    assert not list((tmp_path / "build" / "notebooks").iterdir())


def test_a_stop_ends_the_notebooks_that_run(notebook, tmp_path, monkeypatch):
    monkeypatch.setattr(records, "ROOT", tmp_path)
    notebook("import time; open('began', 'w')\nfor _ in range(600):\n    time.sleep(0.1)", "open('ended', 'w')")
    monkeypatch.setattr(series, "NOTEBOOKS", tmp_path)
    monkeypatch.setattr(series.Series, "_execute", lambda self, name: runner.execute(
        tmp_path / "example.ipynb", tmp_path / "out.ipynb", {}, cwd=tmp_path))
    with pytest.raises(stopping.Stopped), series.Series("smoke") as ran:
        ran._begin("example")
        while not (tmp_path / "began").exists():
            time.sleep(0.05)
        raise stopping.Stopped("SIGTERM")
    assert isinstance(ran.futures["example"].exception(), runner.NotebookError)
    assert not (tmp_path / "ended").exists() and not (tmp_path / "out.ipynb").exists()


def test_normalise_drops_what_varies_and_keeps_the_rest():
    pieces = [new_output("stream", name=name, text=text) for name, text in
              [("stdout", "a\n"), ("stdout", "b\n"), ("stderr", "c\n"), ("stdout", "d\n")]]
    varies = {"execution": {"t": "1"}, "papermill": {}}
    cell = new_code_cell("1", outputs=pieces, metadata={"tags": ["hide"], **varies})
    info = {"name": "python", "version": "3.11.7"}
    nb = new_notebook(cells=[cell], metadata={"widgets": {}, "papermill": {}, "language_info": info})
    nb = runner.normalise(nb)
    assert dict(nb.metadata) == {"kernelspec": runner.KERNELSPEC, "language_info": {"name": "python"}}
    assert dict(cell.metadata) == {"tags": ["hide"]} and cell.id == "cell-0"
    assert [out.text for out in cell.outputs] == ["a\nb\n", "c\n", "d\n"]


def test_a_cell_that_was_never_run_is_a_failure(tmp_path):
    cells = [new_code_cell("1", execution_count=1), new_code_cell(""), new_code_cell("never = True")]
    with pytest.raises(runner.NotebookError, match="`never = True`: never run"):
        runner._check_complete(tmp_path / "n.ipynb", tmp_path / "draft.ipynb", new_notebook(cells=cells))
    runner._check_complete(tmp_path / "n.ipynb", tmp_path / "draft.ipynb", new_notebook(cells=cells[:2]))


def test_any_command_runs_in_the_notebooks_environment(tmp_path):
    show = "import os; print(*map(os.environ.get, ['MPLBACKEND', 'OMP_NUM_THREADS', 'TQDM_DISABLE']))"
    command = [sys.executable, "-m", "spacedkd_lib.notebook.runner", sys.executable, "-c", show]
    done = subprocess.run(command, capture_output=True, text=True, cwd=runner.ROOT,
                          env={**os.environ, "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "7"})
    assert done.stdout.split() == ["module://matplotlib_inline.backend_inline", "1", "1"], done.stderr
