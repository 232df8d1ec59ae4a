"""Kill a training process again and again, at random moments; in the end nothing may differ: `make soak`.

    python tests/soak.py KILLS SEED

Children train the smoke profile's sweeps with a checkpoint after every event and are killed by SIGKILL after a random
time: in an update, in a replay, while a checkpoint or a record is being written. When they have been killed KILLS times
one more goes on to the end. Checked: after each kill, that no finished file changed; at the end, that weights and
numbers equal those of uninterrupted runs, bit for bit. Whenever all is finished before the last kill, it begins anew.
"""

import hashlib
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
if __name__ == "__main__":  # pytest imports this file too, when it looks for doctests
    os.environ["SPACEDKD_CHECKPOINT"] = "0"
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # a process that used a GPU cannot be forked

import torch  # noqa: E402

from spacedkd_lib.data import datasets  # noqa: E402
from spacedkd_lib.lab import grids, running, sweeps
from spacedkd_lib.store import records  # noqa: E402
from spacedkd_lib.training import checkpoints  # noqa: E402

torch.set_num_threads(1)
ARMS = ("baseline", "online KD", "spaced KD s=1.5", "offline KD", "spaced self KD s=1")
RECIPES = [replace(recipe, train_images=80) for recipe in grids.unique(
    row for name in ("05_spaced_kd", "04_self_kd") for row in grids.grid("smoke", name, 1)
    if row.arm in ARMS and row.setting == "digits")]


def train_all():
    for sweep in sweeps.sweeps(RECIPES):
        running.train_sweep(sweep)


def finished(runs):
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for result in runs.glob("*/result.json")
            for path in (result, result.with_name("weights.safetensors"))}


def progress(runs):
    """Events that are done and safe: those of finished runs, and those in the newest checkpoints. Never less than
    before a kill."""
    done = {path.parent.name: 10**6 for path in runs.glob("*/result.json")}
    for folder in runs.glob(".sweeps/*"):
        found = checkpoints.latest(folder)
        for run_id, numbers in (found[2]["runs"] if found else {}).items():
            done.setdefault(run_id, numbers["position"])
    return done


def outcome():
    return {recipe.run_id: (records.load(recipe).numbers(), records.load(recipe).predictions,
                            {name: tensor.tolist() for name, tensor in records.load_weights(recipe).items()})
            for recipe in RECIPES}


def child(log):
    process = os.fork()  # this process has no threads; a fork saves each child the import of torch
    if process == 0:
        os.dup2(log.fileno(), 1), os.dup2(log.fileno(), 2)
        train_all()
        os._exit(0)
    return process


def main(kills, seed):
    draw, killed, rounds, where = random.Random(seed), 0, 0, Counter()
    base = Path(tempfile.mkdtemp())
    os.environ["SPACEDKD_RUNS"] = str(base / "whole")
    datasets.load(RECIPES[0].dataset)
    started = time.monotonic()
    train_all()
    longest = time.monotonic() - started
    want = outcome()
    with open(base / "log", "w") as log:
        while killed < kills:
            rounds += 1
            runs = base / str(rounds)
            os.environ["SPACEDKD_RUNS"] = str(runs)
            while True:
                before, safe = finished(runs), progress(runs)
                process = child(log)
                if killed < kills:
                    time.sleep(draw.uniform(0, 0.15 * longest))
                    os.kill(process, 9)
                    status = os.waitpid(process, 0)[1]
                    killed += os.WIFSIGNALED(status)
                else:
                    status = os.waitpid(process, 0)[1]
                assert all(finished(runs).get(path) == content for path, content in before.items()), "a record changed"
                now = progress(runs)
                assert all(now.get(run_id, 0) >= position for run_id, position in safe.items()), "progress was lost"
                assert os.WIFSIGNALED(status) or status == 0, (base / "log").read_text()
                where[f"{len(before) // 2} of {len(RECIPES)} finished"] += os.WIFSIGNALED(status)
                if status == 0:
                    break
            assert outcome() == want, f"round {rounds} differs; see {base}"
            assert sweeps.sweeps([]) == [] and not list(runs.glob(".sweeps/*/*.safetensors")), "a checkpoint is left"
    shutil.rmtree(base)
    print(f"{killed} kills in {rounds} rounds of {len(RECIPES)} runs: all weights and numbers equal, no finished "
          f"record changed. Kills by state: {dict(where)}")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
