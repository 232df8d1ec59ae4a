"""Checkpoints: tensors and counters in one file, written whole or not at all, verified before use.

A folder holds the last two, named by progress: `000000123.safetensors` and its SHA-256, `000000123.sha256`. The
checksum is written second, so a file without one is incomplete. The format is safetensors: reading it executes
nothing. The order is that of the names, never of the clock.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Iterator

import torch
from torch import Tensor

from ..errors import InputError, reading
from ..store import stopping
from ..store.records import tensor_bytes, write_atomically
from . import distributed

FORMAT = 2  # raised when the content's meaning changes; checkpoints of another format are not read
NAMES = 9 * "[0-9]" + ".safetensors"  # no conflicted copies of a synchroniser
KEPT = 2
TOGETHER = 20  # events after which several processes agree whether to stop: each time costs a message


def save(folder: Path, progress: int, tensors: dict[str, Tensor], meta: dict) -> Path:
    """Write a checkpoint and drop all but the last two.

    Args:
        progress: grows from one checkpoint to the next; becomes the name.
        tensors: name -> tensor, from any device.
        meta: JSON values; numbers come back exactly.

    Raises:
        InputError: the folder cannot be written to, or the disk is full; older checkpoints are untouched.
    """
    content = tensor_bytes(tensors, {"spacedkd": json.dumps({"format": FORMAT} | meta)})
    path = folder / f"{progress:09d}.safetensors"
    write_atomically(path, content)
    write_atomically(path.with_suffix(".sha256"), hashlib.sha256(content).hexdigest())
    for old in sorted(folder.glob(NAMES))[:-KEPT]:
        with suppress(OSError):
            old.with_suffix(".sha256").unlink(missing_ok=True)  # first: what is left is then no checkpoint
            old.unlink()
    return path


def latest(folder: Path) -> tuple[Path, dict[str, Tensor], dict] | None:
    """Return path, tensors (on the CPU) and meta of the newest whole checkpoint; None if there is none.

    A damaged one, or one of another format, is passed over with a line on stderr.
    """
    from safetensors.torch import load as from_bytes
    for path in sorted(folder.glob(NAMES), reverse=True):
        try:
            with reading(f"Checkpoint {path}", "it is passed over for an older one, if there is one"):
                content = path.read_bytes()
                if path.with_suffix(".sha256").read_bytes() != hashlib.sha256(content).hexdigest().encode():
                    raise ValueError("its checksum does not hold")
                header = json.loads(content[8:8 + int.from_bytes(content[:8], "little")])
                meta = json.loads(header["__metadata__"]["spacedkd"])
                if meta["format"] != FORMAT:
                    raise ValueError(f"it has format {meta['format']}, and this package reads {FORMAT}")
                return path, from_bytes(content), meta
        except InputError as error:
            print(error, file=sys.stderr)
    return None


class Checkpointer:
    """Saves a sweep's runs to a folder from time to time, and restores them from there.

    A checkpoint holds networks, optimizers, sums of the epoch so far, rows, positions and torch's generator; batches
    follow from their number. It may be taken between any two events.

    Args:
        folder: where; None keeps nothing.
        runs: of run.Run. They continue from the last checkpoint in `folder` that knows them all.
        fingerprint: conditions of equal bits; a checkpoint with another fingerprint is not used.
    """

    def __init__(self, folder: Path | None, runs: list, fingerprint: dict):
        self.folder, self.all, self.runs, self.fingerprint = folder, runs, runs, fingerprint
        self.every = float(os.environ.get("SPACEDKD_CHECKPOINT") or 60)  # seconds between checkpoints (ours)
        self.started = self.saved = time.monotonic()
        self.number, self.events = 0, 0
        if folder:
            self._restore(folder)

    def seconds(self) -> float:
        """Return the seconds of training, those before an interruption included."""
        return time.monotonic() - self.started

    def after(self, event) -> None:
        """Save, after an event, when it is time or a stop is requested.

        Raises:
            Stopped: asked to stop; the progress is saved.
        """
        self.events += 1
        together = distributed.processes() == 1 or self.events % TOGETHER == 0
        stop = together and distributed.any_process(stopping.requested())
        if self.folder and distributed.rank() == 0 and (stop or time.monotonic() - self.saved >= self.every):
            self._save(self.folder)
        if stop:
            raise stopping.Stopped("on request")

    @contextmanager
    def saved_if_stopped(self) -> Iterator[None]:
        """Save if what is called within this context stops the training."""
        try:
            yield
        except stopping.Stopped:
            if self.folder and distributed.rank() == 0:
                self._save(self.folder)
            raise

    def _save(self, folder: Path) -> None:
        if distributed.processes() == 1:  # several must find a failure together, at the end of the epoch
            for run in self.runs:
                run.check()  # so that every checkpoint is a good one
        self.runs = [run for run in self.runs if not run.failed]
        started = time.monotonic()
        tensors, alias = {"generator": torch.get_rng_state()}, {}
        first: dict[tuple, str] = {}
        for run in self.runs:
            for key, tensor in _tensors(run).items():
                name = f"{run.recipe.run_id}/{key}"
                same = first.setdefault((tensor.data_ptr(), tensor.shape), name)
                if same == name:
                    tensors[name] = tensor
                else:
                    alias[name] = same  # the shared teacher's
        self.saved = time.monotonic()
        try:
            save(folder, self.number + 1, tensors, {
                "fingerprint": self.fingerprint, "alias": alias, "seconds": self.seconds(),
                "runs": {run.recipe.run_id: _numbers(run) for run in self.runs},
                "failed": {run.recipe.run_id: run.failed for run in self.all if run.failed}})
            self.number += 1
            self.every = max(self.every, 20 * (time.monotonic() - started))  # at most a twentieth of the time
        except InputError as error:  # no reason to end the training: there may be space again when it is over
            print(f"No checkpoint: {error}", file=sys.stderr)

    def _restore(self, folder: Path) -> None:
        self.number = max((int(path.stem) for path in folder.glob(NAMES)), default=0)
        found = latest(folder)
        if found is None:
            return
        path, tensors, meta = found
        known = meta["runs"].keys() | meta["failed"].keys()
        if meta["fingerprint"] != self.fingerprint or not {run.recipe.run_id for run in self.runs} <= known:
            print(f"Checkpoint {path} is of other runs, data, software or hardware: starting anew.", file=sys.stderr)
            return
        for run in self.runs:
            run.failed = meta["failed"].get(run.recipe.run_id, "")
        self.runs = [run for run in self.runs if not run.failed]
        torch.set_rng_state(tensors["generator"])
        for run in self.runs:
            prefix = f"{run.recipe.run_id}/"
            own = {name.removeprefix(prefix): tensors[meta["alias"].get(name, name)]
                   for name in (*tensors, *meta["alias"]) if name.startswith(prefix)}
            _put_back(run, own, meta["runs"][run.recipe.run_id])
        self.started -= meta["seconds"]


def _tensors(run) -> dict[str, Tensor]:
    """Return all tensors that a run's future depends on."""
    held = {f"module/{name}": tensor for name, tensor in run.weights().items()}
    for kind, optimizer in run.optimizer.items():
        for i, p in enumerate(_parameters(optimizer)):
            held |= {f"optimizer/{kind}/{i}/{key}": value for key, value in optimizer.state[p].items()
                     if isinstance(value, Tensor)}
    held |= {f"view/{key}": value for key, value in run.method.views.items()}
    held |= {f"predicted/{key}": value for key, value in run.predicted.items()}
    held |= {f"sum/{key}": value for key, value in run.metrics.sums.items()}
    return held | {f"diverged/{kind}": value for kind, value in run.metrics.diverged.items()}


def _numbers(run) -> dict:
    metrics = run.metrics
    return {"position": run.position, "rows": run.rows, "grade": run.grade, "pending": run.pending,
            "images": metrics.images, "updates": metrics.updates, "seconds": time.perf_counter() - metrics.started}


def _put_back(run, tensors: dict[str, Tensor], numbers: dict) -> None:
    run.position, run.rows, run.pending = numbers["position"], numbers["rows"], numbers["pending"]
    while run.grade < numbers["grade"]:
        run.grow()
    run.metrics.images, run.metrics.updates = numbers["images"], numbers["updates"]
    run.metrics.started = time.perf_counter() - numbers["seconds"]
    weights = run.weights()
    device = next(iter(weights.values())).device
    for name, saved in tensors.items():
        what, key = name.split("/", 1)
        if what == "module":
            weights[key].copy_(saved)
        elif what == "optimizer":
            kind, i, key = key.split("/")
            p = _parameters(run.optimizer[kind])[int(i)]
            # As the optimizer itself would have made it: in the parameter's memory format, and a count of updates where
            # the step runs, which is on the parameter's device if it is one kernel.
            at = p.device if run.optimizer[kind].defaults["fused"] else saved.device
            like = torch.empty_like(p) if saved.shape == p.shape else torch.empty_like(saved, device=at)
            run.optimizer[kind].state[p][key] = like.detach().copy_(saved)
        else:
            held = {"view": run.method.views, "predicted": run.predicted, "sum": run.metrics.sums,
                    "diverged": run.metrics.diverged}
            held[what][key] = saved.to(device, copy=True)


def _parameters(optimizer: torch.optim.Optimizer) -> list[torch.nn.Parameter]:
    return [p for group in optimizer.param_groups for p in group["params"]]
