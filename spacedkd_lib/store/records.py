"""One directory a run: recipe.json first, result.json last. No torch, except where weights are read or written.

A record is complete when its result.json exists, and never changes after that. Local runs live in runs/ (ignored
by git); what is published lives in results/<profile>/records.jsonl.gz, one record a line, and only `make publish`
writes there.
"""

from __future__ import annotations

import base64
import errno
import gzip
import hashlib
import json
import os
import tempfile
import threading
import time
import zlib
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Iterable, Iterator

import numpy as np
from platformdirs import user_data_path

from ..errors import InputError, reading
from ..recipes import Recipe, from_dict
from . import places, stopping
from .software import PACKAGE

PUBLISHED = "published"  # marks a run that was not trained here
MEND = "make it readable, or delete it and run again"
RESTORE = "restore it from the repository, or delete it and publish the profile again"
_holders: dict[str, int] = {}  # run id -> the thread of this process that holds it, see `locked`

# In a checkout everything lies beside the package. A wheel carries notebooks and published records in itself, and what
# it makes goes to the user's own folder, never beside the installed package.
CHECKOUT = (PACKAGE.parent / "pyproject.toml").is_file()
SHIPPED = PACKAGE.parent if CHECKOUT else PACKAGE / "shipped"
HOME = PACKAGE.parent if CHECKOUT else user_data_path("spacedkd")
ROOT = Path(os.environ.get("SPACEDKD_ROOT") or HOME).resolve()


def runs_folder() -> Path:
    """Return the folder of local runs: $SPACEDKD_RUNS, or runs/ beside the package."""
    return places.named("SPACEDKD_RUNS") or ROOT / "runs"


@dataclass(frozen=True)
class Record:
    """What one run left behind.

    recipe: what was asked for. epochs: one dict of numbers an epoch. summary: the numbers of the whole run, among
    them the headline "test_accuracy" (percent, last epoch). provenance: data, code, versions, hardware, duration.
    predictions: what `predicted` reads; empty in records from before there were any.
    """

    recipe: Recipe
    epochs: list[dict]
    summary: dict
    provenance: dict
    predictions: str = ""

    @property
    def run_id(self) -> str:
        return self.recipe.run_id

    def numbers(self) -> list[dict]:
        """Return the epochs without what depends on the clock: equal for equal runs, bit for bit."""
        return [{k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in self.epochs]

    def predicted(self) -> np.ndarray:
        """Return the class of each test picture by the student at the last epoch, int64 [N].

        Raises:
            InputError: the record holds none.
        """
        if not self.predictions:
            raise InputError(f"The record of run {self.run_id} is from before predictions were kept: delete "
                             f"{runs_folder() / self.run_id} and run it again.")
        kind, content = self.predictions.split(" ")
        return np.frombuffer(zlib.decompress(base64.b64decode(content)), kind).astype(np.int64)

    def to_json(self) -> str:
        """Canonical JSON with a checksum of itself, so that a flipped byte is noticed."""
        values = {"run_id": self.run_id, "recipe": json.loads(self.recipe.to_json()), "summary": self.summary,
                  "provenance": self.provenance, "epochs": self.epochs}
        if self.predictions:  # a record from before there were any keeps its bytes
            values["predictions"] = self.predictions
        return json.dumps(values | {"sha256": _checksum(values)}, sort_keys=True)


def packed(predicted: np.ndarray) -> str:
    """Encode class numbers [N] as a short text.

    NumPy's name of a byte each, or of two beyond class 255, then their bytes, compressed, in base64.
    """
    kind = np.dtype("u1" if predicted.max() < 256 else "<u2")
    return f"{kind.str} {base64.b64encode(zlib.compress(predicted.astype(kind).tobytes(), 9)).decode()}"


def _checksum(values: dict) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def from_json(text: str | bytes, where: str, mend: str = MEND) -> Record:
    """Read the text of `Record.to_json`.

    Raises:
        InputError: not a record, a record of another recipe version, or one that was altered or damaged.
    """
    with reading(where, mend):
        values = json.loads(text)
        if values.pop("sha256") != _checksum(values):
            raise InputError(f"{where} was altered or damaged (its checksum does not hold): {mend}.")
        return Record(from_dict(values["recipe"], where), values["epochs"], values["summary"], values["provenance"],
                      values.get("predictions", ""))


def check_writable(folder: Path) -> None:
    """Check that a folder can be written to, and that the environment names folders as it should.

    Raises:
        InputError: nothing can be written into `folder`, or see `places.settings`.
    """
    places.settings()
    if os.path.isfile(folder):
        raise InputError(f"{folder} is a file where a folder belongs: move it away.")
    probe = folder / ".writable"
    write_atomically(probe, "")
    probe.unlink(missing_ok=True)  # another process may probe the same folder


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an error of the file system into one sentence.

    Raises:
        InputError: `path` cannot be written or locked, or the disk is full.
    """
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        raise InputError(f"{path} cannot be written ({error.strerror or error}): " + (
            "free some space and give the same command again; what is finished is kept." if full else
            "make its folder writable and its place free, or set SPACEDKD_RUNS (runs), SPACEDKD_DATA (data) or "
            "SPACEDKD_ROOT (results, figures) to another folder.")) from None


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write the whole content under `path`, or nothing; it is on the disk when this returns.

    Raises:
        InputError: the folder cannot be written to, or the disk is full; what was under `path` is still there.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with open(handle, "wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        finally:
            Path(temporary).unlink(missing_ok=True)
        if hasattr(os, "O_DIRECTORY"):  # the name too must survive a loss of power; Windows opens no folder
            folder = os.open(path.parent, os.O_RDONLY)
            os.fsync(folder)
            os.close(folder)


def load(recipe: Recipe, runs: Path | None = None) -> Record | None:
    """Return the finished local record of a recipe, or None.

    Raises:
        InputError: it was altered or damaged, cannot be read, or is another run's.
    """
    path = (runs or runs_folder()) / recipe.run_id / "result.json"
    with reading(path, MEND):
        if not path.exists():
            return None
        found = from_json(path.read_bytes(), str(path))
    if found.run_id != recipe.run_id:
        raise InputError(f"{path} is the record of run {found.run_id} ({found.recipe.in_words()}): move its folder to "
                         "that name, or delete it and run again.")
    return found


def diverged(recipe: Recipe) -> str:
    """Return why this machine gave up a run of the recipe; empty if it did not."""
    with suppress(OSError):
        return _note(recipe).read_text(errors="replace")
    return ""


def note_divergence(recipe: Recipe, why: str) -> None:
    """Note why a recipe's run diverged, for `divergence`."""
    write_atomically(_note(recipe), why)


def _note(recipe: Recipe) -> Path:
    return runs_folder() / ".diverged" / recipe.run_id / "why.txt"


def tensor_bytes(tensors: dict, metadata: dict | None = None) -> bytes:
    """Return tensors from any device in the format of safetensors; tied ones, which it refuses, as copies."""
    from safetensors.torch import save
    return save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}, metadata)


def save(recipe: Recipe, epochs: list[dict], summary: dict, provenance: dict, weights: dict,
         predictions: str = "", runs: Path | None = None) -> Record:
    """Write a finished run: recipe, weights, and last of all the result that makes it complete.

    Raises:
        InputError: the folder cannot be written to.
    """
    folder = (runs or runs_folder()) / recipe.run_id
    content = tensor_bytes(weights)
    record = Record(recipe, epochs, summary, provenance | {"weights_sha256": hashlib.sha256(content).hexdigest()},
                    predictions)
    write_atomically(folder / "recipe.json", recipe.to_json())
    write_atomically(folder / "weights.safetensors", content)
    write_atomically(folder / "result.json", record.to_json())
    return record


@contextmanager
def locked(recipes: Iterable[Recipe]) -> Iterator[None]:
    """Hold these runs for this process; another process that wants one waits until it is free.

    The operating system frees the runs of a process that ends, however it ends.

    Raises:
        Stopped: asked to stop while waiting.
        InputError: a lock cannot be taken.
    """
    reported, names = [], sorted({recipe.run_id for recipe in recipes})  # in one order: no two wait for each other
    if mine := [name for name in names if _holders.get(name) == threading.get_ident()]:
        raise InputError(f"Run {mine[0]} is being trained by this very call: read it after the call has ended.")
    with ExitStack() as held:
        for name in names:
            path = runs_folder() / ".locks" / name
            with writing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                file = held.enter_context(open(path, "w"))
                while not _taken(file):
                    if file not in reported:
                        print(f"Run {name} is being trained by another process: waiting for it.")
                        reported.append(file)
                    if stopping.requested():
                        raise stopping.Stopped(f"on request, while waiting for run {name}")
                    time.sleep(0.5)
            _holders[name] = threading.get_ident()
            held.callback(_holders.pop, name)
        yield


def _taken(file) -> bool:
    import fcntl
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def load_weights(recipe: Recipe, runs: Path | None = None) -> dict:
    """Return the final weights of a local run: "student.<name>", "teacher.<name>", "projector.<name>" -> tensor.

    Raises:
        InputError: the run is not on this machine (weights are not published), or its file was damaged.
    """
    from safetensors.torch import load as from_bytes
    path = (runs or runs_folder()) / recipe.run_id / "weights.safetensors"
    record = load(recipe, runs)
    if record is None or not path.exists():
        raise InputError(f"The weights of run {recipe.run_id} are not on this machine ({path}): run its recipe first.")
    with reading(path, f"make it readable, or delete {path.parent} and run again"):
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != record.provenance.get("weights_sha256"):
            raise ValueError("its checksum does not hold")
        return from_bytes(content)


def built(folder: str) -> Path:
    """Return the folder where `make reproduce` leaves tables, figures and notebooks of a profile; ignored by git."""
    return ROOT / "build" / folder


def published_file(profile: str, name: str = "records.jsonl.gz") -> Path:
    """Return the path of a profile's published records, or of another published file: published here, or shipped."""
    place = Path("results", profile)
    return (ROOT if (ROOT / place).exists() else SHIPPED) / place / name


def read_published(profile: str) -> dict[str, Record]:
    """Run id -> published record of a profile; empty if there are none."""
    path = published_file(profile)
    with reading(path, RESTORE):
        if not path.exists():
            return {}
        if not (lines := gzip.decompress(path.read_bytes()).splitlines()):
            raise ValueError("it is empty")
    records = [from_json(line, f"{path}, line {i + 1}", RESTORE) for i, line in enumerate(lines)]
    named = {record.run_id: record for record in records}
    if len(named) < len(records):
        raise InputError(f"{path} holds a run twice: delete it and publish the profile again.")
    return named


def publish(records: Iterable[Record], profile: str) -> Path:
    """Write the records as the published ones of a profile, one JSON line each, compressed.

    They are ordered by run id, and equal records give equal bytes.

    Raises:
        InputError: a run is published with other numbers. Who means to replace them deletes the published file first.
    """
    known, found = read_published(profile), {}
    for record in records:
        if known.setdefault(record.run_id, record).numbers() != record.numbers():
            raise InputError(f"Run {record.run_id} ({record.recipe.in_words()}) is published with other numbers: find "
                             f"out why. To replace all of them, delete {published_file(profile)} and publish again.")
        found.setdefault(record.run_id, record)
    lines = "".join(found[run_id].to_json() + "\n" for run_id in sorted(found))
    path = ROOT / "results" / profile / "records.jsonl.gz"
    write_atomically(path, gzip.compress(lines.encode(), mtime=0))
    return path


def restore(published: Iterable[Record]) -> None:
    """Lay published records, without their weights, into the runs folder where they are missing."""
    for record in published:
        folder = runs_folder() / record.run_id
        if not os.path.exists(folder / "result.json"):  # nor if it cannot be seen, which the writing then tells
            write_atomically(folder / "recipe.json", record.recipe.to_json())
            write_atomically(folder / PUBLISHED, "")
            write_atomically(folder / "result.json", record.to_json())


def now() -> str:
    """UTC, to the second."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
