"""Memory held for a replay: bytes of tensors, by their storages."""

from __future__ import annotations

import gc
from itertools import chain, islice, repeat
from typing import Iterable

import pandas as pd
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


def hold_plain(size: Size, interval: float) -> int:
    """Measure the bytes that a replay holds that stores its batches."""
    loader = plain_loader(pictures(size.pictures), size.batch)
    epoch_after_epoch = chain.from_iterable(repeat(loader))
    stored = islice(epoch_after_epoch, interval_batches(len(loader), interval))
    return held_bytes([tensor for batch in stored for tensor in batch])


def hold_engine(size: Size, interval: float) -> int:
    """Measure the bytes that a replay holds that makes its batches again, beyond the data set; at each tenth batch."""
    dataset = pictures(size.pictures)
    batches = Batches(dataset.train_images, dataset.train_labels, size.batch, 0, "crop_flip_rotate",
                      STATISTICS["cifar100"])
    live, most = live_bytes(), 0
    length = interval_batches(len(batches), interval)
    for number, i in enumerate([*range(length), *range(length)], 1):  # the teacher's turn, then the student's
        batch = batches[i]  # noqa: F841  alive while it is counted
        if number % 10 == 0 or number % length == 0:
            most = max(most, live_bytes() - live)
    return most


def memory(size: Size, interval: float = 1.5) -> tuple[pd.DataFrame, dict]:
    """Megabytes held for one replay of `interval` epochs, beyond the data set, which both ways keep as bytes."""
    found = {"plain: stored batches": hold_plain(size, interval),
             "engine: batches made again": hold_engine(size, interval)}
    length = interval_batches(-(-size.pictures // size.batch), interval)
    lines = [{"Way": way, "Setting": f"s = {interval:g}, {size.pictures:,} images of 32 pixels, batch {size.batch}",
              "Batches replayed": length, "Tensors held (MB)": held / 1e6} for way, held in found.items()]
    return pd.DataFrame(lines), {"interval": interval, "data_set_bytes": size.pictures * 3 * 32 * 32}
