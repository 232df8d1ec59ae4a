"""Faults planted one at a time in a copy of the engine: which test catches each? `make gauntlet` prints the table.

The named ones are faults that people make. `make gauntlet ARGS="sampled 200 1"` draws 200 others by program, by the seed
1: a comparison, a sign, a number, a condition changed, or a statement left out. They are planted into the last commit. A
fault that no test catches within a minute wants a test, unless it changes nothing that anyone could see. More than 5% of
them end the program with status 1.
"""

import ast
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
MINUTE = 60  # seconds; a slower machine may want more


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
    ("blocks are rounded up", "schedule.py", "max(int(batches_per_epoch * abs(interval)),",
     "max(-int(-batches_per_epoch * abs(interval) // 1),", "schedule"),
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
    ("gradients are never cleared", "training/run.py", "        optimizer.zero_grad()\n        if self.recipe",
     "        if self.recipe", "train"),
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


# Of a file of the engine: the tests that should catch a fault in it, the quickest first
TESTED = {
    "schedule.py": "schedule controls lag education sweeps", "spacing.py": "spaced", "statistics.py": "statistics claims",
    "recipes/derive.py": "recipes lag ie_kd education sweeps", "recipes/checks.py": "recipes education ie_kd beyond transformers",
    "data/batches.py": "batches strong train plugins", "data/augment.py": "batches strong", "data/operations.py": "batches strong",
    "data/rand_augment.py": "strong", "data/curriculum.py": "education networks_on_gpu", "data/datasets.py": "data identity",
    "data/sources.py": "data", "data/embedded.py": "data",
    "methods/losses.py": "losses ie_kd plugins", "methods/online_kd.py": "identity lag controls train sweeps deviations",
    "methods/baseline.py": "stacked train sweeps", "methods/self_kd.py": "identity stacked train deviations conformance", "methods/ie_kd.py": "ie_kd sweeps",
    "methods/mutual.py": "ie_kd train", "methods/education.py": "education sweeps", "methods/ema.py": "beyond train sweeps",
    "methods/past_self.py": "lag train", "methods/dropout_ema.py": "beyond", "methods/build.py": "ie_kd transformers education beyond train",
    "models/resnet.py": "models networks_on_gpu train", "models/layers.py": "models beyond ie_kd networks_on_gpu",
    "models/heads.py": "models identity ie_kd networks_on_gpu", "models/scoring.py": "evaluate robustness",
    "models/transformers.py": "vits transformers", "models/own_transformers.py": "vits",
    "training/loop.py": "train sweeps", "training/run.py": "beyond train stacked lag education checkpoints",
    "training/rates.py": "transformers deviations train", "training/optimizers.py": "train transformers deviations",
    "training/evaluation.py": "evaluate beyond train", "training/checkpoints.py": "checkpoints",
    "training/train.py": "train student sweeps exact", "training/fingerprint.py": "identity",
    "training/stacked.py": "stacked", "store/identity.py": "identity", "store/records.py": "records identity cli",
    "store/stopping.py": "checkpoints"}
SWAPS = {ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==", ast.Is: "is not",
         ast.IsNot: "is", ast.In: "not in", ast.NotIn: "in", ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*",
         ast.FloorDiv: "/", ast.And: "or", ast.Or: "and"}


def sampled(count: int, seed: int = 0) -> list[Fault]:
    """Faults drawn by program, each with its line as its name."""
    everywhere = [fault for file in TESTED for fault in _possible(file)]
    return random.Random(seed).sample(everywhere, count)


def _possible(file: str) -> list[Fault]:
    """Every fault that a file can have; in refusals and types there are none."""
    text, found = (ROOT / "spacedkd_lib" / file).read_text(encoding="utf-8"), []
    lines = text.splitlines(keepends=True)
    starts = [sum(map(len, lines[:k])) for k in range(len(lines) + 1)]

    def where(node) -> tuple[int, int]:
        (begin, column), (end, last) = (node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset)
        return (starts[begin - 1] + len(lines[begin - 1].encode()[:column].decode()),
                starts[end - 1] + len(lines[end - 1].encode()[:last].decode()))

    def visit(node) -> None:
        for begin, end, new in _changes(node, where, text):
            wrong = text[:begin] + new + text[end:]
            line = text.count("\n", 0, begin) + 1
            found.append(Fault(f"{file}:{line} {text[begin:end][:20]!r} -> {new[:20]!r}", file, text, wrong, TESTED[file]))
        for name, value in ast.iter_fields(node):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST) and name not in ("annotation", "returns") and not isinstance(
                        child, (ast.Raise, ast.JoinedStr)) and not _refusal(child):
                    visit(child)
    visit(ast.parse(text))
    return found


def _refusal(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("refuse_unless", "InputError", "nearest", "_field")


def _changes(node: ast.AST, where, text: str):
    """(begin, end, new text) of each fault at a node itself."""
    if isinstance(node, (ast.Compare, ast.BinOp, ast.BoolOp)):
        sides = node.values if isinstance(node, ast.BoolOp) else (
            [node.left, *node.comparators] if isinstance(node, ast.Compare) else [node.left, node.right])
        operator = node.ops[0] if isinstance(node, ast.Compare) else node.op
        begin, end = where(sides[0])[1], where(sides[1])[0]
        if type(operator) in SWAPS and len(sides) == 2 and text[begin:end].strip("() \n"):
            old = text[begin:end].strip("() \n")
            yield begin, end, text[begin:end].replace(old, SWAPS[type(operator)])
    if isinstance(node, ast.Constant) and type(node.value) is bool:
        yield *where(node), str(not node.value)
    elif isinstance(node, ast.Constant) and type(node.value) is int:
        yield *where(node), str(node.value + 1)
    if isinstance(node, (ast.If, ast.IfExp)):
        begin, end = where(node.test)
        yield begin, end, f"not ({text[begin:end]})"
    if isinstance(node, (ast.Expr, ast.AugAssign)) and not isinstance(getattr(node, "value", None), (
            ast.Constant, ast.Yield, ast.YieldFrom)) and not _refusal(getattr(node, "value", node)):
        yield *where(node), "pass"


def plant(fault: Fault, folder: Path) -> None:
    path = folder / "spacedkd_lib" / fault.file
    text = path.read_text(encoding="utf-8")
    assert text.count(fault.right) == 1, f"{fault.file} holds {text.count(fault.right)} times: {fault.right}"
    path.write_text(text.replace(fault.right, fault.wrong), encoding="utf-8")


def tested_by(fault: Fault) -> list[str]:
    """The examples in the file's own docstrings come first: they take no time."""
    return [f"spacedkd_lib/{fault.file}", *(f"tests/test_{name}.py" for name in fault.tests.split())]


def caught_by(fault: Fault | None, files: list[str]) -> str:
    """Return the first test that fails in a clone with the fault, or without any; "" if none does in a minute."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["git", "clone", "--quiet", ROOT, folder], check=True)  # a checkout: tests read more than the engine
        if fault:
            plant(fault, Path(folder))
        done = None
        with suppress(subprocess.TimeoutExpired):
            done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-x", "--doctest-modules", "-p",
                                   "no:cacheprovider", *files],
                                  cwd=folder, env=os.environ | {"PYTHONPATH": folder, "OMP_NUM_THREADS": "1"},
                                  capture_output=True, text=True, timeout=MINUTE if fault else None)
    if done is None or done.returncode == 0:
        return ""
    found = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.M)
    return found[1] if found else "no test can be collected"


def main(wanted: list[str]) -> int:
    """Plant the faults one by one; 1 if more than 5% survive."""
    drawn = wanted[:1] == ["sampled"]
    faults = sampled(*map(int, wanted[1:])) if drawn else [
        fault for fault in FAULTS if not wanted or any(word in fault.name for word in wanted)]
    if broken := caught_by(None, sorted({file for fault in faults for file in tested_by(fault)})):
        sys.exit(f"{broken} fails without any fault: mend it first.")
    survived = 0
    for fault in faults:
        begun = time.monotonic()
        test = caught_by(fault, tested_by(fault))
        survived += not test
        print(f"{fault.name:76} {time.monotonic() - begun:4.0f} s  {test or 'SURVIVED'}", flush=True)
    print(f"{len(faults) - survived} of {len(faults)} faults were caught.")
    return int(survived > 0.05 * len(faults))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
