"""Faults planted one at a time in a copy of the engine: which test catches each? `make gauntlet` prints the table.

A fault that no test catches ends the program with status 1: it wants a test.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]


class Fault(NamedTuple):
    """name: what goes wrong. file: of spacedkd_lib/. right, wrong: its text, before and after. tests: files that should
    catch it."""

    name: str
    file: str
    right: str
    wrong: str
    tests: str


FAULTS = [Fault(*row) for row in (
    ("the divergence the other way round", "methods/losses.py", "(log_q.exp() * (log_q - log_p))",
     "(log_p.exp() * (log_p - log_q))", "losses"),
    ("a teacher that gets the soft loss's gradient", "methods/losses.py",
     "log_q = F.log_softmax(teacher.detach() / temperature", "log_q = F.log_softmax(teacher / temperature", "losses"),
    ("no T squared", "methods/online_kd.py", "recipe.temperature**2 if recipe.t_squared else 1.0", "1.0",
     "train controls deviations"),
    ("weights of labels and teacher exchanged", "methods/online_kd.py", "(1 - r.alpha) * terms[\"hard\"]",
     "r.alpha * terms[\"hard\"]", "train controls"),
    ("a question that moves the teacher's statistics", "methods/online_kd.py",
     "layer.training, layer.track_running_stats = True, False", "layer.training, layer.track_running_stats = True, True",
     "train networks_on_gpu"),
    ("the replay begins one batch late", "schedule.py", "replay = batch + 1 == end", "replay = batch == end", "schedule"),
    ("the last block is lost", "schedule.py", 'tail == "replay" and batch + 1 == total', "False", "schedule"),
    ("blocks are rounded up", "schedule.py", "return int(batches_per_epoch * abs(interval))",
     "return -int(-batches_per_epoch * abs(interval) // 1)", "schedule"),
    ("the teacher behind never learns the last block", "schedule.py",
     "left = min(length, total) if rule == \"constant\" else total % length", "left = 0", "schedule lag"),
    ("all epochs in one order", "data/batches.py", 'generator(self.seed, self.streams["order"], epoch)',
     'generator(self.seed, self.streams["order"], 0)', "batches"),
    ("augmentation does not follow the seed", "data/batches.py", 'generator(self.seed, self.streams["augment"], i)',
     'generator(0, self.streams["augment"], i)', "batches"),
    ("validation pictures are trained on", "data/datasets.py", "return subset[~validation], subset[validation]",
     "return subset, subset[validation]", "data"),
    ("cosine is one batch ahead", "training/rates.py", "math.cos(math.pi * done / total)",
     "math.cos(math.pi * (done + 1) / total)", "train deviations"),
    ("the student follows its teacher's clock", "training/rates.py",
     'event.kind == "learn" and self.recipe.student_clock == "own"', 'event.kind == "learn" and False',
     "train deviations"),
    ("the student gets the teacher's optimizer", "training/optimizers.py",
     "next((made[k] for k in made if method.trained[k] == modules), None)", "next(iter(made.values()), None)", "train"),
    ("gradients are never cleared", "training/run.py", "        optimizer.zero_grad()\n        (terms",
     "        (terms", "train"),
    ("SAM steps downhill first", "training/run.py", "self.recipe.sam_rho / (norm + 1e-12)",
     "-self.recipe.sam_rho / (norm + 1e-12)", "lag"),
    ("momentum is not restored", "training/checkpoints.py",
     "run.optimizer[kind].state[p][key] = like.detach().copy_(saved)", "pass", "checkpoints"),
    ("a position too many after a resume", "training/checkpoints.py", 'run.position, run.rows, run.pending = numbers["position"]',
     'run.position, run.rows, run.pending = numbers["position"] + 1', "checkpoints"),
    ("the average keeps its initial weights", "methods/dropout_ema.py",
     "(1 - decay) / (1 - decay**step) if debias else 1 - decay", "1 - decay", "beyond"),
    ("inheritance and exploration exchanged", "methods/ie_kd.py",
     'weights = {"inherit": r.inherit_weight, "explore": r.explore_weight}',
     'weights = {"explore": r.inherit_weight, "inherit": r.explore_weight}', "ie_kd"),
    ("classes of another group", "methods/education.py", "local = [groups[k].index(c) for c, k in enumerate(group_of)]",
     "local = [0 for c, k in enumerate(group_of)]", "education"),
    ("a growing student forgets its momentum", "training/run.py", 'if self.recipe.optimizer_on_growth == "keep":',
     "if False:", "education"),
    ("a sweep's teacher lacks its paraphraser", "methods/baseline.py", 'first.trained["teach"])', "[first.teacher])",
     "sweeps"),
)]


def plant(fault: Fault, folder: Path) -> None:
    path = folder / "spacedkd_lib" / fault.file
    text = path.read_text(encoding="utf-8")
    assert text.count(fault.right) == 1, f"{fault.file} holds {text.count(fault.right)} times: {fault.right}"
    path.write_text(text.replace(fault.right, fault.wrong), encoding="utf-8")


def caught_by(fault: Fault) -> str:
    """The first test that fails, or "" if none does."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("spacedkd_lib", "tests"):
            shutil.copytree(ROOT / name, Path(folder) / name, ignore=shutil.ignore_patterns("__pycache__"))
        plant(fault, Path(folder))
        files = [f"tests/test_{name}.py" for name in fault.tests.split()]
        done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *files], cwd=folder,
                              env=os.environ | {"PYTHONPATH": folder, "OMP_NUM_THREADS": "1"}, capture_output=True,
                              text=True)
    found = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.M)
    return found[1] if found else ""


if __name__ == "__main__":
    survived, wanted = 0, sys.argv[1:]
    for chosen in [fault for fault in FAULTS if not wanted or any(word in fault.name for word in wanted)]:
        begun = time.monotonic()
        test = caught_by(chosen)
        survived += not test
        print(f"{chosen.name:50} {time.monotonic() - begun:4.0f} s  {test or 'SURVIVED'}", flush=True)
    sys.exit(bool(survived))
