"""Interrupted and resumed equals uninterrupted, whatever happens to the files."""

import errno
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import wait_for_the_end_of

from spacedkd_lib import __main__ as cli
from spacedkd_lib.errors import InputError
from spacedkd_lib.lab import grids, profiles, running, sweeps
from spacedkd_lib.recipes import (
    Recipe, baseline, education, ema, ie_kd, mutual, offline, online_kd, preset, self_kd, spaced, teacher_of, transformer,
)
from spacedkd_lib.store import records, stopping
from spacedkd_lib.training import checkpoints
from spacedkd_lib.training.run import Run
from spacedkd_lib.training.train import assemble, sweep

BASE = Recipe(dataset="toy", model="resnet8", width=4, epochs=2, batch_size=8, lr=0.05, augment="crop_flip")
TRIO = [online_kd(BASE), online_kd(BASE, interval=1.5), teacher_of(online_kd(BASE))]
SINE = replace(BASE, dropout=0.5, dropout_rule="sine")
VIT = transformer(BASE, image_size=0, patch_size=4, width=8, depth=2, heads=2, epochs=3, batch_size=8, lr=1e-2,
                  warmup_epochs=1, normalise="own", drop_path=0.4, head_init="timm")
ED = education(replace(BASE, train_images=27, batch_size=4), (1, 1, 1), epochs=3)
GROUPS = {
    "clean": TRIO,
    "released": [replace(preset(online_kd(BASE, interval=s, alpha=a), "released"), augment="none")
                 for s, a in ((0.5, 0.3), (0.0, 0.3), (0.0, 0.9))],
    "self": [self_kd(replace(BASE, model="resnet10"), interval=0.6)],
    "self released": [replace(preset(self_kd(replace(BASE, model="resnet10"), interval=0.6), "released"),
                              augment="none")],
    "ie": [ie_kd(BASE), ie_kd(BASE, interval=1.5)],
    "mutual": [mutual(BASE, interval=0.6, map_loss="factor")],
    "education": [ED, spaced(ED, 0.5), offline(ED), replace(ED, growth="none")],
    "education, reset": [replace(ED, interval=0.5, optimizer_on_growth="reset")],
    "tests move dropout": [replace(SINE, dropout_at_test="on_counted")],
    "random dropout": [replace(SINE, dropout_rule="random")],
    "sine dropout": [online_kd(SINE, interval=0.6)],
    "sine dropout of the teacher that answers": [online_kd(SINE, interval=0.6, teacher_mode="train")],
    "average": [spaced(ema(BASE, ema_decay=0.8), 0.6)],
    "transformer": [replace(preset(online_kd(VIT, interval=1.5), "released"), augment="crop_flip")],
}


def comparable(outcomes):
    return [([{k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in rows], summary,
             {name: tensor.tolist() for name, tensor in weights.items()}, predictions)
            for rows, summary, _, weights, predictions in outcomes]


class Interrupter:
    """Stands in for `stopping.requested`: says yes after `steps` events."""

    def __init__(self, steps):
        self.left = steps

    def __call__(self):
        self.left -= 1
        return self.left < 0


def interrupted(monkeypatch, steps, recipes, toy, folder):
    """Train until stopped after some events; the outcomes if the training ended before that."""
    with monkeypatch.context() as patch:
        patch.setattr(stopping, "requested", Interrupter(steps))
        try:
            return sweep(recipes, toy, folder=folder)
        except stopping.Stopped:
            return "interrupted"


@pytest.fixture
def updates(monkeypatch):
    """Counts the updates made in this process: a resumed run makes only those that are left."""
    made, step = [], Run.step
    monkeypatch.setattr(Run, "step", lambda self, *args: made.append(args[0]) or step(self, *args))
    return made


@pytest.mark.parametrize("name", GROUPS)
def test_resumed_equals_uninterrupted_from_any_step(toy, tmp_path, monkeypatch, updates, name):
    """Stopped after a few events, again and again, over replays, epochs and the places between."""
    whole = comparable(sweep(GROUPS[name], toy))
    needed, stops, every = len(updates), 0, {"education": 13, "clean": 5, "released": 5, "ie": 5}.get(name, 3)
    updates.clear()
    while (outcomes := interrupted(monkeypatch, every, GROUPS[name], toy, tmp_path)) == "interrupted":
        stops += 1
        assert stops < 100
    assert stops >= 3 and comparable(outcomes) == whole
    assert len(updates) == needed  # not one was made twice
    assert len(list(tmp_path.glob("*.safetensors"))) == 2


def damaged(path, how):
    content = bytearray(path.read_bytes())
    if how == "flipped byte":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif how == "truncated":
        path.write_bytes(content[:-100])
    elif how == "no checksum":
        path.with_suffix(".sha256").unlink()
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "binary checksum":
        path.with_suffix(".sha256").write_bytes(b"\xff\x80")
    elif how == "folder":
        path.unlink()
        path.mkdir()


@pytest.mark.parametrize("how", ["flipped byte", "truncated", "no checksum", "empty", "binary checksum", "folder"])
@pytest.mark.parametrize("count", [1, 2])
def test_a_damaged_checkpoint_is_passed_over(toy, tmp_path, monkeypatch, capfd, updates, how, count):
    whole = comparable(sweep(TRIO[:1], toy))
    needed = len(updates)
    for _ in range(2):
        assert interrupted(monkeypatch, 5, TRIO[:1], toy, tmp_path) == "interrupted"
    for path in sorted(tmp_path.glob("*.safetensors"))[-count:]:
        damaged(path, how)
    updates.clear()
    assert comparable(sweep(TRIO[:1], toy, folder=tmp_path)) == whole
    assert len(updates) == needed - (6 if count == 1 else 0)  # the older one was written after six events
    assert capfd.readouterr().err.count("is damaged or not readable") == count


def test_a_new_checkpoint_outlives_damaged_ones(toy, tmp_path, monkeypatch):
    for _ in range(2):
        assert interrupted(monkeypatch, 5, TRIO[:1], toy, tmp_path) == "interrupted"
    for path in tmp_path.glob("*.safetensors"):
        damaged(path, "truncated")
    assert interrupted(monkeypatch, 5, TRIO[:1], toy, tmp_path) == "interrupted"
    assert int(checkpoints.latest(tmp_path)[0].stem) == 3


def test_a_conflicted_copy_is_no_checkpoint(toy, tmp_path, monkeypatch):
    assert interrupted(monkeypatch, 5, TRIO[:1], toy, tmp_path) == "interrupted"
    for path in list(tmp_path.iterdir()):
        shutil.copy(path, path.with_stem(f"{path.stem} (conflicted copy)"))
    assert comparable(sweep(TRIO[:1], toy, folder=tmp_path)) == comparable(sweep(TRIO[:1], toy))
    sweeps.forget(tmp_path)


def test_a_diverged_run_stays_out_of_a_resumed_sweep(toy, tmp_path, monkeypatch, updates):
    recipes = [online_kd(BASE, beta=1e18), *TRIO[1:]]
    whole = sweep(recipes, toy)
    needed = len(updates)
    updates.clear()
    while (again := interrupted(monkeypatch, 3, recipes, toy, tmp_path)) == "interrupted":
        assert len(updates) <= needed
    assert str(again[0]) == str(whole[0])
    assert comparable(again[1:]) == comparable(whole[1:]) and len(updates) == needed


def test_a_subset_of_a_sweep_goes_on_from_its_checkpoint(toy, tmp_path, monkeypatch):
    """Killed while records were being written: those that have none yet are finished from what was saved."""
    assert interrupted(monkeypatch, 12, TRIO, toy, tmp_path) == "interrupted"
    positions = [checkpoints.latest(tmp_path)[2]["runs"][recipe.run_id]["position"] for recipe in TRIO[1:]]
    begun = []
    monkeypatch.setattr(checkpoints.Checkpointer, "after", lambda keeper, event: begun or begun.extend(
        run.position for run in keeper.runs))
    assert comparable(sweep(TRIO[1:], toy, folder=tmp_path)) == comparable(sweep(TRIO, toy))[1:]
    assert min(positions) > 0 and sum(begun) in (sum(positions) + 1, sum(positions) + 2)  # one event later


@pytest.mark.parametrize("change", [dict(classes=("x", "y", "z")), None])
def test_a_checkpoint_of_something_else_is_not_used(toy, tmp_path, monkeypatch, capfd, change):
    assert interrupted(monkeypatch, 5, TRIO[:1], toy, tmp_path) == "interrupted"
    other = replace(toy, **change) if change else toy
    recipes = TRIO[:1] if change else [online_kd(BASE, alpha=0.5)]
    assert comparable(sweep(recipes, other, folder=tmp_path)) == comparable(sweep(recipes, other))
    assert "starting anew" in capfd.readouterr().err


def test_another_format_is_not_read(toy, tmp_path, monkeypatch, capfd):
    assert interrupted(monkeypatch, 5, TRIO[:1], toy, tmp_path) == "interrupted"
    monkeypatch.setattr(checkpoints, "FORMAT", 3)
    assert checkpoints.latest(tmp_path) is None and "has format 2" in capfd.readouterr().err


def test_the_clock_may_go_back(toy, tmp_path, monkeypatch):
    whole = comparable(sweep(TRIO[:1], toy))
    assert interrupted(monkeypatch, 5, TRIO[:1], toy, tmp_path) == "interrupted"
    assert interrupted(monkeypatch, 5, TRIO[:1], toy, tmp_path) == "interrupted"
    newest = sorted(tmp_path.glob("*.safetensors"))[-1]
    os.utime(newest, (0, 0))  # written in 1970, says the file system
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert checkpoints.latest(tmp_path)[0] == newest
    assert comparable(sweep(TRIO[:1], toy, folder=tmp_path)) == whole


def test_a_full_disk_costs_checkpoints_and_no_training(toy, tmp_path, monkeypatch, capfd):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")
    whole = comparable(sweep(TRIO[:1], toy))
    monkeypatch.setenv("SPACEDKD_CHECKPOINT", "0")
    monkeypatch.setattr(os, "fsync", full)
    assert comparable(sweep(TRIO[:1], toy, folder=tmp_path)) == whole
    assert "free some space" in capfd.readouterr().err
    assert not list(tmp_path.iterdir())  # nothing half-written is left


def test_a_full_disk_at_the_end_says_so_and_keeps_the_old(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")
    path = tmp_path / "file"
    records.write_atomically(path, "old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="No space left on device.*free some space"):
        records.write_atomically(path, "new")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_failure_that_is_found_when_a_checkpoint_is_due_stays_out_of_it(toy, tmp_path, monkeypatch):
    """As on a GPU, where the loss of an update is not read at once."""
    monkeypatch.setenv("SPACEDKD_RUNS", str(tmp_path / "runs"))
    runs, *_ = assemble(TRIO, toy, "cpu")
    keeper = checkpoints.Checkpointer(tmp_path, runs, {})
    keeper._save(tmp_path)
    runs[1].metrics.diverged = {"learn": torch.tensor(3)}
    keeper._save(tmp_path)
    assert runs[1].failed and keeper.runs == [runs[0], runs[2]]
    _, tensors, meta = checkpoints.latest(tmp_path)
    failed = runs[1].recipe.run_id
    assert failed in meta["failed"] and not [name for name in tensors if name.startswith(failed)]


def test_a_checkpoint_executes_nothing(toy, tmp_path, monkeypatch):
    """The file is a length, a JSON header and numbers; no pickle."""
    assert interrupted(monkeypatch, 5, TRIO[:1], toy, tmp_path) == "interrupted"
    path, *_ = checkpoints.latest(tmp_path)
    content = path.read_bytes()
    assert content[8:9] == b"{" and hashlib.sha256(content).hexdigest() == path.with_suffix(".sha256").read_text()
    assert "pickle" not in Path(checkpoints.__file__).read_text()


# Processes

SMALL = profiles.profile("smoke").settings[0].base
SMOKE = [baseline(SMALL), online_kd(SMALL)]


def test_two_processes_on_one_run(runs, capsys):
    """The second waits for the first and takes its result."""
    planned, = sweeps.sweeps(SMOKE[:1])
    with records.locked(SMOKE[:1]):
        waiting = threading.Thread(target=running.train_sweep, args=[planned])
        waiting.start()
        waiting.join(1)
        assert waiting.is_alive() and "is being trained by another process" in capsys.readouterr().out
        first = records.save(SMOKE[0], [{"test_accuracy": 1.0}], {}, {}, {"w": torch.zeros(1)})
    waiting.join()
    assert records.load(SMOKE[0]) == first


def test_a_crash_costs_its_own_sweep_only(runs):
    """One worker is killed in the middle: the others go on, the report names run and log, and the next call ends it."""
    recipes = [replace(recipe, epochs=8) for recipe in SMOKE[:2]]
    planned = sweeps.sweeps(recipes)
    assert len(planned) == 2  # the costlier one, with a teacher, first

    def kill():
        deadline = time.monotonic() + 120
        while not planned[0].log.exists() or "epoch" not in planned[0].log.read_text():
            time.sleep(0.01)
            if time.monotonic() > deadline:
                return
        for process in map(int, subprocess.run(["pgrep", "-P", str(os.getpid()), "-f", "spawn_main"], text=True,
                                               capture_output=True).stdout.split()):
            if os.path.exists(f"/proc/{process}/fd/1") and os.readlink(f"/proc/{process}/fd/1") == str(planned[0].log):
                os.kill(process, 9)
    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    with pytest.raises(InputError, match=f"{planned[0].recipes[0].run_id}.*was killed.*{planned[0].log}"):
        running.run_all(recipes, workers=2, say=lambda line: None)
    killer.join()
    assert records.load(planned[1].recipes[0]) is not None
    assert running.train_sweep(planned[0]) == [] and records.load(planned[0].recipes[0]) is not None


STOPPED = """
import sys
from spacedkd_lib import __main__ as cli
sys.exit(cli.main(["reproduce", "--profile", "smoke", "--workers", "2"]))
"""


def test_a_clean_stop_has_its_own_status_and_can_be_continued(runs, tmp_path):
    environment = dict(os.environ, SPACEDKD_ROOT=str(tmp_path), TQDM_DISABLE="1",
                       PYTHONPATH=str(Path(running.__file__).parents[2]))
    process = subprocess.Popen([sys.executable, "-c", STOPPED], env=environment, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not list(runs.glob(".sweeps/*/log.txt")):
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(1)
    process.terminate()
    try:
        _, error = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, 9)
    assert process.returncode == stopping.STATUS == 75, error
    assert "stopped (SIGTERM)" in error and "Traceback" not in error
    wait_for_the_end_of(process.pid)
    left = [recipe for recipe in grids.unique(grids.grid("smoke")) if records.load(recipe) is None]
    assert left
    begun = [path.parent for path in runs.glob(".sweeps/*/members.json")]
    assert all(checkpoints.latest(folder) for folder in begun)


def test_a_time_limit_is_a_clean_stop(monkeypatch, capsys):
    def plan(options):
        """Takes long."""
        time.sleep(60)
    monkeypatch.setitem(cli.COMMANDS, "plan", plan)
    assert cli.main(["plan", "--time-limit", "0.1s"]) == stopping.STATUS
    assert "stopped (time limit)" in capsys.readouterr().err
    monkeypatch.setitem(cli.COMMANDS, "plan", lambda options: None)
    assert cli.main(["plan", "--time-limit", "1h"]) == 0
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)  # nothing is left that kills a finished command


def test_time_limits():
    assert stopping.seconds("25m") == 1500 and stopping.seconds("0.5") == 0.5
    for wrong in ("", "m", "25 minutes", "-3s", "nan", "infh", "1e12"):
        with pytest.raises(InputError, match="is not a time limit: give a number"):
            stopping.seconds(wrong)


@pytest.mark.skipif(not os.environ.get("SLOW"), reason="half a minute: make test SLOW=1; make soak kills 200 times")
def test_killed_at_random_moments():
    """Ten times kill -9, whenever it comes: final weights and records as if nothing had happened."""
    done = subprocess.run([sys.executable, str(Path(__file__).with_name("soak.py")), "10", "0"], text=True,
                          capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "10 kills" in done.stdout
