"""Space any training loop: `Spaced` walks a loader's batches, the teacher's block first, then the student's.

    for event in Spaced(loader, epochs=80, interval=1.5):
        if event.kind == "teach":
            ...                       # your update of the teacher on event.batch
        elif event.kind == "learn":
            ...                       # your update of the student, from the teacher as it is now

Only the standard library is needed here; batches of tensors bring their own.
"""

from __future__ import annotations

import copy
import math
import os
import pickle
import shutil
import tempfile
from collections import UserDict
from collections.abc import MutableMapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from itertools import count as natural_numbers, islice
from pathlib import Path
from typing import Any, Callable, Iterable, Iterator, NamedTuple

from .errors import InputError, least_interval, memory, nearest, reading, whole
from .schedule import interval_batches, spaced_schedule

Losses = dict[str, list[float]]


class Step(NamedTuple):
    """What to do next.

    kind: "teach": update the teacher; "learn": the student; "epoch": the teacher has completed a pass.
    batch: what the loader gave; None for "epoch". index: of the batch, counted from 0 over the run; for "epoch" the
    passes completed. epoch: the pass that the batch belongs to, counted from 0. block: counted from 0.
    """

    kind: str
    batch: Any
    index: int  # type: ignore[assignment]
    epoch: int
    block: int


class Spaced:
    """Walk a loader's batches in the order of Spaced KD, once: a second loop goes on where the first was left.

    A batch of the block is held until the student has learnt it: a copy that nothing else touches, so that neither the
    loader's buffer nor the teacher's update changes what the student meets. With "teach" first, the copy is the
    student's; the teacher gets the loader's own.

    Args:
        loader: any iterable of batches, iterated anew in every epoch: tensors, arrays, or tuples, lists, mappings
            and dataclasses of them. `set_epoch` is called on it, its samplers and its data set, where they have it.
        epochs: passes over the loader.
        interval: space interval in epochs; 0 is online KD; a negative one puts the teacher behind. Or a function that
            is called before each block with the losses of the last one ({"teach": [...], "learn": [...]}, see
            `report`) and returns the interval of the next.
        rule, tail, seed: as in `spaced_schedule`; a function as interval has blocks of its own, and takes no rule.
        batches_per_epoch: the loader's length, where it has none of its own.
        device: where the batches are moved before they are handed out; they are held where the loader leaves them.
        spill: a folder for the held batches, where memory is too small for them.

    Raises:
        InputError: a number out of range, an interval below one batch, no length; while it walks: a loader that ends
            early or late, a block that memory or disk cannot hold, or a batch that cannot be copied.

    >>> [(step.kind, step.batch) for step in Spaced(["a", "b"], epochs=1, interval=1)][:4]
    [('teach', 'a'), ('teach', 'b'), ('learn', 'a'), ('learn', 'b')]
    """

    def __init__(self, loader: Iterable, epochs: int, interval: float | Callable[[Losses], float], *,
                 rule: str = "fixed", tail: str = "replay", seed: int = 0, batches_per_epoch: int | None = None,
                 device: Any = None, spill: str | Path | None = None):
        if getattr(loader, "__iter__", getattr(loader, "__getitem__", None)) is None:  # None: it must not be walked
            raise InputError(f"loader = {loader!r} gives no batches: give what a for loop can walk.")
        self.loader, self.epochs, self.device = loader, whole("epochs", epochs, 1), device
        self.length = _length(loader, batches_per_epoch)
        self.losses: Losses = {"teach": [], "learn": []}
        self._held = _store(spill)
        self.spill = None if spill is None else os.path.abspath(spill)  # the program may change its folder
        self._done, self._drawn = 0, 0
        self._intervals: list[float] = []
        self._open: tuple[Iterator[tuple[str, int, int]], Iterator[Any]] | None = None
        self._interval: Any = interval
        self._plan: dict[str, Any] = {"interval": "a function", "epochs": self.epochs, "batches_per_epoch": self.length,
                                      "rule": rule, "tail": tail, "seed": whole("seed", seed)}
        if callable(interval):
            if (rule, tail) != ("fixed", "replay"):
                raise InputError(f'rule = "{rule}" and tail = "{tail}" have no meaning for an interval that is a '
                                 "function: leave them out.")
        else:
            _check_interval(interval, self.length)
            self._plan["interval"] = float(interval)
            spaced_schedule(**self._plan)  # refuses bad input now
            longest = max(interval_batches(self.length, interval), 1) * (1 if rule in ("fixed", "constant") else 2)
            self._longest = min(longest, self.length * self.epochs)

    def report(self, loss: float, kind: str = "learn") -> None:
        """Tell the loss of an update, for an interval that is a function."""
        if kind not in self.losses:
            raise InputError(nearest("kind of update", kind, self.losses))
        self.losses[kind].append(float(loss))

    def __iter__(self) -> Iterator[Step]:
        return self

    def __next__(self) -> Step:
        if self._open is None:
            steps = self._adaptive() if callable(self._interval) else spaced_schedule(**self._plan)
            self._open = (islice(steps, self._done, None),
                          _batches(self.loader, self.epochs, self.length, self._drawn))
        events, batches = self._open
        self._open = None  # an error closes both: the next call tries the same step again
        kind, index, block = next(events)
        epoch, batch = (index - 1, None) if kind == "epoch" else (index // self.length, self._batch(index, batches))
        if kind == "epoch" and index == self.epochs:
            next(batches, None)  # so that a loader with more batches is told of in the last epoch too
        self._open = events, batches
        self._done += 1
        return Step(kind, batch, index, epoch, block)

    def _batch(self, index: int, batches: Iterator[Any]) -> Any:
        """Take a batch: at its first use from the loader, at its second from what is held."""
        if index in self._held:
            batch = _moved(self._held[index], self.device)
            del self._held[index]
            return batch
        if index != self._drawn:
            raise InputError(f"Batch {index} is asked for and {self._drawn} comes from the loader: give a rule that "
                             "makes the same blocks again, and a state as state_dict returned it.")
        own = next(batches)
        held = _copied(own)
        if not self._held:
            self._check_room(own)
        batch = _moved(own, self.device)
        self._held[index] = held
        self._drawn = index + 1
        return batch

    def _adaptive(self) -> Iterator[tuple[str, int, int]]:
        """Yield blocks whose length is asked for before each; a resumed walk takes the answers that it has."""
        start, total = 0, self.epochs * self.length
        for block in natural_numbers():
            if start == total:
                return
            if block == len(self._intervals):
                answer = self._interval(self.losses)
                _check_interval(answer, self.length)
                self._intervals.append(float(answer))
                self.losses = {"teach": [], "learn": []}
            s = self._intervals[block]
            now = range(start, min(start + max(interval_batches(self.length, s), 1), total))
            self._longest = len(now)
            for kind in ("teach", "learn") if s >= 0 else ("learn", "teach"):
                for index in now:
                    yield kind, index, block
                    if kind == "teach" and (index + 1) % self.length == 0:
                        yield "epoch", (index + 1) // self.length, block
            start = now.stop

    def _check_room(self, batch: Any) -> None:
        needed = _bytes(batch) * self._longest
        place, room = "the memory here has free", memory()
        if self.spill is not None:
            with reading(f"spill = {self.spill}", "give a folder that can be written"):
                place, room = "the disk of spill still has", shutil.disk_usage(self.spill).free
        if needed > room:
            raise InputError(f"A block of {self._longest} batches takes {needed / 1e9:.1f} GB, and {place} "
                             f"{room / 1e9:.1f} GB: give a smaller interval, or spill = a folder on a disk with room.")

    def state_dict(self) -> dict:
        """Where the walk is, with copies of the held batches: enough to go on in the middle of a block.

        The state holds the batches themselves, so a spilled block has to fit into memory here.
        """
        return {"plan": dict(self._plan), "done": self._done, "drawn": self._drawn, "intervals": list(self._intervals),
                "held": {index: _copied(batch) for index, batch in self._held.items()},
                "losses": {kind: list(of) for kind, of in self.losses.items()}}

    def load_state_dict(self, state: dict) -> None:
        """Go on where `state_dict` was taken; the loader's own state, such as a sampler's seed, is the caller's.

        Raises:
            InputError: the state of another walk, or no state; this walk then stays as it was.
        """
        with reading("The state", "give one that state_dict returned"):
            if (plan := state.get("plan")) != self._plan:
                raise InputError(f"The state belongs to another walk, {plan}: give one that was taken of {self._plan}.")
            held = _store(self.spill)
            held.update({int(index): _copied(batch) for index, batch in state["held"].items()})  # JSON: strings
            done, drawn = whole("done", state["done"]), whole("drawn", state["drawn"])
            intervals, losses = list(state["intervals"]), {kind: list(state["losses"][kind]) for kind in self.losses}
        self._open, self._held, self._done, self._drawn = None, held, done, drawn
        self._intervals, self.losses = intervals, losses


class _Spilled(UserDict):
    """A dict of batches that lie in files. The files go when it goes."""

    def __init__(self, folder: str | Path):
        super().__init__()
        with reading(f"spill = {folder!r}", "give a folder that can be written"):
            os.stat(folder)  # refuses "", which abspath would take for the present folder
            self.folder = tempfile.TemporaryDirectory(prefix="spaced-", dir=os.path.abspath(folder))

    def __setitem__(self, index: int, batch: Any) -> None:
        path = Path(self.folder.name) / str(index)
        try:
            path.write_bytes(pickle.dumps(batch, protocol=pickle.HIGHEST_PROTOCOL))
        except (pickle.PicklingError, AttributeError, TypeError, ValueError, OSError) as error:
            raise InputError(f"A batch cannot be spilled ({error}): give batches that can be pickled and a folder with "
                             "room, or leave spill out.") from None
        self.data[index] = path

    def __getitem__(self, index: int) -> Any:
        with reading(self.data[index], "start again from a state, and leave the folder of spill alone"):
            return pickle.loads(self.data[index].read_bytes())

    def __delitem__(self, index: int) -> None:
        self.data.pop(index).unlink(missing_ok=True)


def _store(spill: str | Path | None) -> MutableMapping[int, Any]:
    return {} if spill is None else _Spilled(spill)


def _batches(loader: Any, epochs: int, length: int, drawn: int) -> Iterator[Any]:
    """Yield the loader's batches, epoch by epoch, from the first that was not drawn yet."""
    for epoch in range(drawn // length, epochs):
        samplers = getattr(loader, "batch_sampler", None), getattr(loader, "sampler", None)
        parts = loader, *samplers, getattr(samplers[0], "sampler", None), getattr(loader, "dataset", None)
        for part in {id(part): part for part in parts}.values():  # the two samplers are often one
            if set_epoch := getattr(part, "set_epoch", None):
                set_epoch(epoch)
        number = epoch * length - 1
        for number, batch in enumerate(loader, start=epoch * length):
            if number >= (epoch + 1) * length:
                raise InputError(f"The loader gives more than {length} batches in epoch {epoch + 1}: give "
                                 "batches_per_epoch = its real length.")
            if number >= drawn:
                yield batch
        if number + 1 < (epoch + 1) * length:
            raise InputError(f"The loader ended after {number + 1 - epoch * length} of {length} batches in epoch "
                             f"{epoch + 1}: give batches_per_epoch = its real length, and a loader that "
                             "begins anew each epoch.")


def _length(loader: Iterable, given: int | None) -> int:
    if given is None:
        try:
            given = len(loader)  # type: ignore[arg-type]
        except (TypeError, NotImplementedError):
            raise InputError("The loader has no length: give batches_per_epoch, its number of batches.") from None
    return whole("batches_per_epoch", given, 1)


def _check_interval(interval: float, length: int) -> None:
    try:
        finite = math.isfinite(length * interval)
    except (TypeError, ValueError, OverflowError):
        finite = False
    if not finite:
        raise InputError(f"interval = {interval!r} is no finite number: give the epochs between two replays.")
    if interval and length * abs(interval) < 1 - 1e-9:  # 49 * (1 / 49) is below 1
        raise InputError(f"interval = {interval} is less than one batch of {length} an epoch: give 0 for online KD, or "
                         f"at least {least_interval(length)}.")


def _mapped(function: Callable[[Any], Any], batch: Any, method: str = "clone") -> Any:
    """Apply the function to every tensor or array of a batch, and to every other thing that has the method."""
    new: Any
    if isinstance(batch, (dict, UserDict)):
        new = copy.copy(batch)  # its class may be built from other arguments, as defaultdict's is
        for key, value in batch.items():
            new[key] = _mapped(function, value, method)
        return new
    if hasattr(batch, method):
        return function(batch)
    if isinstance(batch, (list, tuple)):
        make: Any = getattr(batch, "_make", type(batch))
        return make([_mapped(function, value, method) for value in batch])
    if is_dataclass(batch) and not isinstance(batch, type):
        new = copy.copy(batch)
        for field in fields(batch):
            value = _mapped(function, getattr(batch, field.name), method)
            object.__setattr__(new, field.name, value)  # it may be frozen
        return new
    return function(batch)


def _copied(batch: Any) -> Any:
    try:
        return _mapped(lambda value: value.clone() if hasattr(value, "clone") else copy.deepcopy(value), batch)
    except TypeError as error:
        raise InputError(f"A batch cannot be held, since it cannot be copied ({error}): give tensors, arrays and "
                         "containers of them.") from None


def _moved(batch: Any, device: Any) -> Any:
    if device is None:
        return batch
    try:
        return _mapped(lambda value: value.to(device) if hasattr(value, "to") else value, batch, "to")
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"A batch cannot be moved to device = {device!r} ({error}): give one that is here, or leave "
                         "it out.") from error


def _bytes(batch: Any) -> int:
    sizes: list[int] = []

    def measure(value: Any) -> Any:
        with suppress(AttributeError, RuntimeError):  # a sparse tensor does not tell
            sizes.append(value.nbytes)
        return value
    _mapped(measure, batch)
    return sum(sizes)
