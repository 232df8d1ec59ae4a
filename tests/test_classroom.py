"""The teacher's kit: copies without outputs, nbgrader's form, and a reset that loses nothing."""

import subprocess

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from spacedkd_lib.errors import InputError
from spacedkd_lib.notebook import classroom

TOP = "# 05\n\n*Reading: 7 min. Running as it is: 20 s.*"
EXERCISE = 'answer_05_1 = None  # a number\nskd.check("05.1", answer_05_1)'
SOLUTION = '# NBVAL_CHECK_OUTPUT\ndef half(x):\n    return x / 2\n\nskd.check("05.1", half(11))'


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A git checkout of one notebook and its solution."""
    def write(name, *cells):
        nbformat.write(new_notebook(cells=list(cells)), tmp_path / name)
    write("05_spaced_kd.ipynb", new_markdown_cell(TOP),
          new_code_cell(EXERCISE, execution_count=1, outputs=[new_output("stream", text="not answered yet")]))
    write("solutions.ipynb", new_code_cell(SOLUTION))
    for command in ("init -q", "add .", "-c user.name=a -c user.email=b commit -qm all"):
        subprocess.run(["git", *command.split()], cwd=tmp_path, check=True)
    monkeypatch.setattr(classroom, "NOTEBOOKS", tmp_path)
    monkeypatch.setattr(classroom.records, "ROOT", tmp_path)
    return tmp_path


def test_a_course_has_student_copies_and_nbgraders_form(folder):
    table = classroom.make_course(folder / "course")
    assert table.values.tolist() == [["05_spaced_kd", 7, 20, 1]]
    student = nbformat.read(folder / "course" / "student" / "05_spaced_kd.ipynb", as_version=4)
    assert student.cells[1].source == EXERCISE and student.cells[1].outputs == []
    graded = nbformat.read(folder / "course/nbgrader/source/05_spaced_kd/05_spaced_kd.ipynb", as_version=4)
    answer, test = graded.cells[1:]
    begin, *solution, end = answer.source.splitlines()
    assert (begin, end) == ("### BEGIN SOLUTION", "### END SOLUTION")
    names = {}
    exec("\n".join(solution), names)  # a solution stands alone
    assert names["answer_05_1"] == 5.5 and test.source == 'assert skd.check("05.1", answer_05_1)'
    marks = [cell.metadata["nbgrader"] for cell in (answer, test)]
    assert [(m["solution"], m["grade"], m.get("points")) for m in marks] == [(True, False, None), (False, True, 1)]


def test_a_reset_keeps_what_was_changed(folder):
    path = folder / "05_spaced_kd.ipynb"
    released = path.read_text()
    assert classroom.reset() is None
    path.write_text("mine")
    kept = classroom.reset()
    assert path.read_text() == released and (kept / path.name).read_text() == "mine"
    (folder / ".git").rename(folder / "gone")
    with pytest.raises(InputError, match="no git checkout"):
        classroom.reset()
