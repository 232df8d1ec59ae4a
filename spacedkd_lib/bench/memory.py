"""Memory held for a replay. Each measurement has a process of its own."""

from __future__ import annotations

import gc
import multiprocessing
import re
import resource
from concurrent.futures import ProcessPoolExecutor
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Callable, Iterable

import pandas as pd
import torch
from torch import Tensor

from ..data.batches import STATISTICS, Batches
from ..schedule import interval_batches
from .plain import plain_loader
from .work import Size, pictures


def held_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of the storages of tensors, each storage once."""
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


def live_bytes() -> int:
    """Bytes of all tensors of this process that Python can reach."""
    return held_bytes(thing for thing in gc.get_objects() if issubclass(type(thing), Tensor))


def resident_bytes(peak: bool = False) -> int:
    """Memory of this process, now or at its highest. Not `getrusage` on Linux: a process inherits its parent's peak."""
    status = Path("/proc/self/status")
    if status.exists():
        return 1024 * int(re.search(rf"{'VmHWM' if peak else 'VmRSS'}:\s+(\d+)", status.read_text())[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def hold_plain(size: Size, interval: float) -> dict[str, int]:
    """Measure what a replay holds that stores its batches, in bytes: its tensors, and by how much the process grew."""
    loader = plain_loader(pictures(size.pictures), size.batch)
    before, epoch_after_epoch = resident_bytes(), chain.from_iterable(repeat(loader))
    stored = list(islice(epoch_after_epoch, interval_batches(len(loader), interval)))
    return {"tensors": held_bytes(t for batch in stored for t in batch), "process": resident_bytes(peak=True) - before}


def hold_engine(size: Size, interval: float) -> dict[str, int]:
    """Measure the same of a replay that makes its batches again: tensors beyond the data set, each tenth batch."""
    dataset = pictures(size.pictures)
    batches = Batches(dataset.train_images, dataset.train_labels, size.batch, 0, "crop_flip_rotate",
                      STATISTICS["cifar100"])
    before, live, most = resident_bytes(), live_bytes(), 0
    length = interval_batches(len(batches), interval)
    for number, i in enumerate([*range(length), *range(length)], 1):  # the teacher's turn, then the student's
        batch = batches[i]  # noqa: F841  alive while it is counted
        if number % 10 == 0 or number % length == 0:
            most = max(most, live_bytes() - live)
    return {"tensors": most, "process": resident_bytes(peak=True) - before}


def apart(function: Callable, *arguments):
    """Return the result of a function in a process of its own, whose memory nothing else has touched."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # imports once, before anything is allocated
    with ProcessPoolExecutor(1, context, torch.set_num_threads, (1,)) as pool:
        return pool.submit(function, *arguments).result()


def memory(size: Size, interval: float = 1.5) -> tuple[pd.DataFrame, dict]:
    """Megabytes held for one replay of `interval` epochs, beyond the data set, which both ways keep as bytes."""
    ways = {"plain: stored batches": hold_plain, "engine: batches made again": hold_engine}
    found = {way: apart(hold, size, interval) for way, hold in ways.items()}
    length = interval_batches(-(-size.pictures // size.batch), interval)
    lines = [{"Way": way, "Setting": f"s = {interval:g}, {size.pictures:,} images of 32 pixels, batch {size.batch}",
              "Batches replayed": length, "Tensors held (MB)": held["tensors"] / 1e6,
              "Process grew by (MB)": held["process"] / 1e6} for way, held in found.items()]
    return pd.DataFrame(lines), {"interval": interval, "data_set_bytes": size.pictures * 3 * 32 * 32}
