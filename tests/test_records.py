"""Records: complete or absent, refused when altered, published only on purpose."""

import errno
import gzip
import json
import os
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from spacedkd_lib.data.known import NAMES
from spacedkd_lib.errors import InputError, reading
from spacedkd_lib.recipes import Recipe
from spacedkd_lib.recipes.recipe import DATA_SETS
from spacedkd_lib.store import records, software, stopping

RECIPE = Recipe(seed=3)
REPOSITORY = Path(__file__).resolve().parents[1]


def fake_training(recipe):
    return [{"epoch": 1, "test_accuracy": 10.0, "seconds": 1.5}], {"test_accuracy": 10.0}, {"device": "cpu"}, {
        "student.w": torch.arange(3.0)}


def saved(recipe, runs):
    return records.save(recipe, *fake_training(recipe), runs=runs)


def test_saved_then_loaded(tmp_path):
    assert records.load(RECIPE, tmp_path) is None
    record = saved(RECIPE, tmp_path)
    assert records.load(RECIPE, tmp_path) == record
    assert record.to_json() == json.dumps(json.loads(record.to_json()), sort_keys=True)  # one text for one record
    assert torch.equal(records.load_weights(RECIPE, tmp_path)["student.w"], torch.arange(3.0))
    assert sorted(p.name for p in (tmp_path / RECIPE.run_id).iterdir()) == ["recipe.json", "result.json",
                                                                           "weights.safetensors"]


def test_result_comes_last(tmp_path, monkeypatch):
    """If the weights cannot be stored there is no result either."""
    def fail(*_):
        raise OSError("disk full")
    monkeypatch.setattr("safetensors.torch.save", fail)
    with pytest.raises(OSError):
        saved(RECIPE, tmp_path)
    assert records.load(RECIPE, tmp_path) is None


@pytest.mark.parametrize("classes, kind", [(62, "|u1"), (257, "<u2")])
def test_predictions_are_read_back(tmp_path, monkeypatch, classes, kind):
    """Also after `publish` and `restore`; a record without them keeps its bytes, and says so when asked."""
    monkeypatch.setattr(records, "ROOT", tmp_path)
    monkeypatch.setenv("SPACEDKD_RUNS", str(tmp_path / "restored"))
    given = np.arange(1000) % classes
    made = records.save(RECIPE, *fake_training(RECIPE), records.packed(given), runs=tmp_path)
    records.publish([made], "quick")
    records.restore(records.read_published("quick").values())
    for record in (made, records.load(RECIPE, tmp_path), records.load(RECIPE)):
        assert record.predicted().dtype == np.int64 and record.predicted().tolist() == given.tolist()
        assert record.predictions.startswith(kind) and record.numbers() == saved(RECIPE, tmp_path / "none").numbers()
    result = tmp_path / "restored" / RECIPE.run_id / "result.json"
    result.write_text(result.read_text().replace(made.predictions, records.packed(given[::-1])))
    with pytest.raises(InputError, match="was altered or damaged"):
        records.load(RECIPE)
    without = records.load(RECIPE, tmp_path / "none")
    assert "predictions" not in without.to_json()
    with pytest.raises(InputError, match="before predictions were kept"):
        without.predicted()


def test_altered_or_foreign_records_are_refused(tmp_path):
    saved(RECIPE, tmp_path)
    path = tmp_path / RECIPE.run_id / "result.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"recipe": values["recipe"] | {"seed": 4}}))
    with pytest.raises(InputError, match="was altered or damaged"):
        records.load(RECIPE, tmp_path)
    values = values | {"recipe": values["recipe"] | {"version": 99}}
    values.pop("sha256")
    path.write_text(json.dumps(values | {"sha256": records._checksum(values)}))  # whole, but from another version
    with pytest.raises(InputError, match="version 99 of the recipe"):
        records.load(RECIPE, tmp_path)
    path.write_text("{half")
    with pytest.raises(InputError, match="result.json is damaged or not readable"):
        records.load(RECIPE, tmp_path)


def test_a_record_answers_for_its_own_recipe_alone(tmp_path):
    saved(RECIPE, tmp_path)
    other = replace(RECIPE, seed=77)
    (tmp_path / RECIPE.run_id).rename(tmp_path / other.run_id)
    with pytest.raises(InputError, match=f"is the record of run {RECIPE.run_id}"):
        records.load(other, tmp_path)


def test_any_flipped_byte_is_noticed(tmp_path):
    saved(RECIPE, tmp_path)
    result, weights = (tmp_path / RECIPE.run_id / name for name in ("result.json", "weights.safetensors"))
    for path, read in ((result, records.load), (weights, records.load_weights)):
        whole = path.read_bytes()
        for position in range(0, len(whole), max(len(whole) // 60, 1)):
            path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1:])
            if chr(whole[position]).isspace():
                continue  # a blank between two words of JSON says nothing
            with pytest.raises(InputError, match="delete|run again"):
                read(RECIPE, tmp_path)
        path.write_bytes(whole)
    assert records.load(RECIPE, tmp_path).summary == {"test_accuracy": 10.0}


@pytest.mark.parametrize("damage", [b"null", b"5", 100_000 * b"[", b"\0" * 99, b"\xff", 5000 * b"1", None])
def test_a_file_that_holds_no_record_is_named(tmp_path, damage):
    """None: a folder is in its place, which cannot be read even by root."""
    saved(RECIPE, tmp_path)
    for name, read in (("weights.safetensors", records.load_weights), ("result.json", records.load)):
        path = tmp_path / RECIPE.run_id / name
        path.unlink()
        path.write_bytes(damage) if damage else path.mkdir()
        with pytest.raises(InputError, match=f"{name} is damaged or not readable .*delete"):
            read(RECIPE, tmp_path)


def test_a_stop_is_no_damage():
    with pytest.raises(stopping.Stopped), reading("a file", "mend it"):
        raise stopping.Stopped("SIGTERM")
    with pytest.raises(InputError, match="a file does not fit into memory"), reading("a file", "mend it"):
        raise MemoryError


def test_an_unwritable_folder(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(InputError, match="cannot be written"):
        saved(RECIPE, tmp_path / "file" / "runs")


def test_content_reaches_the_disk_before_its_name_and_the_name_before_the_return(tmp_path, monkeypatch):
    path, seen = tmp_path / "file", []

    def fsync(file):
        folder = stat.S_ISDIR(os.fstat(file).st_mode)
        seen.append((file, path.exists(), "folder" if folder else os.fstat(file).st_size))
    monkeypatch.setattr(os, "fsync", fsync)
    records.write_atomically(path, "words")
    assert [what for _, *what in seen] == [[False, 5], [True, "folder"]]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644  # several people may share a folder of runs
    for file, *_ in seen:
        with pytest.raises(OSError):
            os.fstat(file)  # closed again


@pytest.mark.parametrize("number, advice", [(errno.ENOSPC, "free some space"), (errno.EDQUOT, "free some space"),
                                            (errno.EFBIG, "free some space"), (errno.EACCES, "make its folder writable")])
def test_what_cannot_be_written_leaves_what_was_there(tmp_path, monkeypatch, number, advice):
    records.write_atomically(tmp_path / "file", "before")
    monkeypatch.setattr(os, "replace", raising(OSError(number, "no")))
    with pytest.raises(InputError, match=advice):
        records.write_atomically(tmp_path / "file", "after")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "before")]


def test_who_is_asked_to_stop_while_waiting_says_for_what(tmp_path, monkeypatch):
    monkeypatch.setattr(stopping, "requested", lambda: True)
    monkeypatch.setenv("SPACEDKD_RUNS", str(tmp_path))
    monkeypatch.setattr(records, "_taken", lambda file: False)
    with pytest.raises(stopping.Stopped, match=f"waiting for run {RECIPE.run_id}"), records.locked([RECIPE]):
        pass


@pytest.mark.parametrize("why", ["a file for the folder", "a folder for the file", "no locks"])
def test_a_lock_that_cannot_be_taken_is_told(tmp_path, monkeypatch, why):
    monkeypatch.setenv("SPACEDKD_RUNS", str(tmp_path))
    if why == "a file for the folder":
        (tmp_path / ".locks").touch()
    elif why == "a folder for the file":
        (tmp_path / ".locks" / RECIPE.run_id).mkdir(parents=True)
    else:
        monkeypatch.setattr("fcntl.flock", raising(OSError(errno.ENOLCK, "No locks available")))
    with pytest.raises(InputError, match="cannot be written"), records.locked([RECIPE]):
        pass


def raising(error):
    def fail(*_, **__):
        raise error
    return fail


def test_a_run_of_another_user_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("pathlib.Path.stat", raising(PermissionError(errno.EACCES, "Permission denied")))
    with pytest.raises(InputError, match="result.json is damaged or not readable .*Permission denied"):
        records.load(RECIPE, tmp_path)


@pytest.mark.parametrize("damage", ["plain", "cut", "flipped", "empty", "another line"])
def test_a_damaged_published_file_is_named(tmp_path, monkeypatch, damage):
    monkeypatch.setattr(records, "ROOT", tmp_path)
    monkeypatch.setattr(records, "SHIPPED", tmp_path)
    path = records.publish([saved(RECIPE, tmp_path / "runs")], "quick")
    content = path.read_bytes()
    path.write_bytes({"plain": gzip.decompress(content), "cut": content[:-20], "empty": b"",
                      "flipped": content[:60] + b"\xff\xff" + content[62:]}.get(damage, content + gzip.compress(b"5")))
    with pytest.raises(InputError, match="records.jsonl.gz.* is damaged .*restore it"):
        records.read_published("quick")


def test_publish_and_read_back(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "ROOT", tmp_path)
    monkeypatch.setattr(records, "SHIPPED", tmp_path)
    made = [saved(replace(RECIPE, seed=s), tmp_path / "runs") for s in (1, 2)]
    assert records.read_published("quick") == {}
    path = records.publish(made, "quick")
    assert records.read_published("quick") == {r.run_id: r for r in made}
    before = path.read_bytes()
    records.publish([*reversed(made), made[0]], "quick")
    assert path.read_bytes() == before
    other = replace(made[0], epochs=[{"epoch": 1, "test_accuracy": 99.0}])
    for wanted in ([made[1], other], [made[0], made[1], other]):
        with pytest.raises(InputError, match="other numbers"):
            records.publish(wanted, "quick")
    assert path.read_bytes() == before
    path.unlink()
    records.publish([other], "quick")  # on purpose
    assert records.read_published("quick") == {other.run_id: other}
    lines = gzip.decompress(before)
    path.write_bytes(gzip.compress(lines + lines))
    with pytest.raises(InputError, match="twice"):
        records.read_published("quick")


def test_published_records_belong_to_the_code_wherever_outputs_go(tmp_path, monkeypatch):
    shipped = records.read_published("quick")
    monkeypatch.setattr(records, "ROOT", tmp_path)
    assert records.read_published("quick") == shipped and len(shipped) > 100
    assert records.publish(shipped.values(), "quick").is_relative_to(tmp_path)


def test_folders_are_absolute_once_for_this_process_and_its_children(tmp_path):
    """For a kernel, which works elsewhere; also behind `make lab`, which reads no records."""
    show = "import os; os.chdir('/'); print(*(os.environ[f'SPACEDKD_{name}'] for name in ('RUNS', 'DATA', 'ROOT')), sep=';')"
    for module in ("store.exact", "notebook.runner"):
        done = subprocess.run([sys.executable, "-m", f"spacedkd_lib.{module}", sys.executable, "-c", show], text=True,
                              cwd=tmp_path, capture_output=True, env={
            **os.environ, "PYTHONPATH": str(REPOSITORY), "HOME": str(tmp_path / "me"), "SPACEDKD_RUNS": "my runs",
            "SPACEDKD_DATA": "~/data", "SPACEDKD_ROOT": "../" + tmp_path.name})
        assert done.stdout.strip() == f"{tmp_path}/my runs;{tmp_path}/me/data;{tmp_path}", done.stderr


def test_a_folder_of_pictures_has_one_run_id(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("pics", "digits"):
        (tmp_path / name).mkdir()
    spelt = ("~/pics", "./pics", "pics/", "pics", str(tmp_path / "pics"), str(tmp_path / "pics/../pics"))
    assert {Recipe(dataset=name).dataset for name in spelt} == {str(tmp_path / "pics")}
    assert Recipe(dataset="digits").dataset == "digits" and Recipe(dataset="./digits").dataset != "digits"
    assert set(DATA_SETS) == set(NAMES)


@pytest.mark.parametrize("hidden", ["", "status.showUntrackedFiles", "core.excludesFile", "assume-unchanged", "skip-worktree"])
def test_code_that_git_overlooks_is_not_clean(tmp_path, monkeypatch, hidden):
    package = tmp_path / "é" / "spacedkd_lib"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("1\n")
    monkeypatch.setattr(software, "PACKAGE", package)

    def git(*words):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=b", *words], cwd=package, check=True)
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"]):
        git(*words)
    assert software.describe.__wrapped__()["git_dirty"] is False
    if "-" in hidden:
        git("update-index", f"--{hidden}", "__init__.py")
        (package / "__init__.py").write_text("2\n")
    else:
        (tmp_path / "ignore").write_text("*.py")
        if hidden:
            git("config", hidden, "no" if "status" in hidden else str(tmp_path / "ignore"))
        Path(os.fsdecode(os.fsencode(package) + b"/new\xff.py")).touch()
    told = software.describe.__wrapped__()
    assert told["git_dirty"] is True and len(told["git_commit"]) == 40


def test_an_answer_may_hold_any_bytes():
    assert software.answer(["printf", "\\377"]) == "\udcff"


def test_numbers_leave_out_the_clock():
    row = {"epoch": 1, "test_accuracy": 1.0, "seconds": 2.0, "images_per_second": 3.0}
    record = records.Record(RECIPE, [row], {}, {})
    assert record.numbers() == [{"epoch": 1, "test_accuracy": 1.0}]


def test_missing_weights(tmp_path):
    with pytest.raises(InputError, match="not on this machine"):
        records.load_weights(RECIPE, tmp_path)
