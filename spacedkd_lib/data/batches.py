"""Batches as a pure function of (seed, index): `batches[i]` gives the same pixels at every call.

So a student replays by index, only the last batch is kept, and a resumed run sees the same batches.
The data set stays on the device as uint8. Random parameters are drawn on the CPU, so a GPU gets the same ones.

Shapes: N images of a set, B images of a batch, C channels (1 or 3), H rows, W columns.
"""

from __future__ import annotations

import copy
import hashlib
import json
import random
from contextlib import contextmanager
from functools import lru_cache
from typing import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError, nearest
from ..recipes import AUGMENTATIONS, Recipe, plugins
from ..schedule import Course
from .augment import constant, to_device
from .rand_augment import changed, draw, filled, ready

Statistics = tuple[tuple[float, ...], tuple[float, ...]]  # mean and standard deviation of each channel

# Of pixels in [0, 1]. Released programs: cifar100 in the online one, cifar10 in the self-KD one (A19: it is
# applied to CIFAR-100), imagenet for Tiny-ImageNet in both.
STATISTICS: dict[str, Statistics] = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": ((0.507, 0.487, 0.441), (0.267, 0.256, 0.276)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
EPOCHS_KEPT = 8  # orders that stay in memory, for replays that go back; an older one is drawn again


def channel_statistics(images: Tensor) -> Statistics:
    """Compute each channel's mean and standard deviation of uint8 images [N, C, H, W], scaled to [0, 1].

    Histograms make them exact and equal on every device.

    Raises:
        InputError: a channel that holds one grey level only.

    >>> channel_statistics(torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1))
    ((0.5,), (0.5,))
    """
    levels = torch.arange(256, dtype=torch.float64) / 255
    means, stds = [], []
    for c in range(images.shape[1]):
        share = torch.bincount(images[:, c].flatten(), minlength=256).cpu().double() / images[:, c].numel()
        means.append((share * levels).sum().item())
        stds.append((share * (levels - means[-1]) ** 2).sum().sqrt().item())
        if (share > 0).sum() < 2:
            raise InputError(f"Channel {c} of the images holds one grey level only and cannot be normalised: "
                             "give images that differ, or the statistics of another set.")
    return tuple(means), tuple(stds)


def statistics_of(normalise: str, images: Tensor) -> Statistics:
    """Return the statistics that a recipe's field `normalise` names: of a named set, or of these training images."""
    return channel_statistics(images) if normalise == "own" else STATISTICS[normalise]


def normalised(images: Tensor, statistics: Statistics, device=None) -> Tensor:
    """Normalise to (images / 255 - mean) / std: uint8 [B, C, H, W] -> float32 [B, C, H, W], channels_last.

    The computation equals torchvision's ToTensor and Normalize bit for bit.

    Raises:
        InputError: statistics of another number of channels than the images.
    """
    _check_statistics(statistics, images.shape[1])
    x = images.to(device or images.device).float()  # cross to the device as bytes
    white = (255.0,) * images.shape[1]  # a tensor: a GPU divides by a number through its rounded reciprocal
    white, mean, std = constant((white, *map(tuple, statistics)), torch.float32, x.device)[..., None, None]
    return x.div_(white).sub_(mean).div_(std).contiguous(memory_format=torch.channels_last)


def derive_seed(*parts) -> int:
    """Derive a seed of 63 bits from whole numbers and words, the same in every process and on every machine.

    Torch's CPU generator reads only the lowest 32 bits: in one run of ten, two of 30,000 batches share the
    parameters of their augmentation (on other images), which does no harm.

    >>> derive_seed(0, "order", 1) == derive_seed(0, "order", 1) != derive_seed(0, "order", 2)
    True
    """
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(*parts) -> torch.Generator:
    """Return a CPU generator seeded by `derive_seed(*parts)`."""
    return torch.Generator().manual_seed(derive_seed(*parts))


@contextmanager
def seeded_draws(seed: int, devices: Sequence[torch.device] = ()) -> Iterator[None]:
    """Seed the generators of torch, Python and NumPy, from which a user's code may draw, within this context."""
    before = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])


def seed_noise(device: torch.device, *parts) -> None:
    """Seed a device's random layers (drop path, dropout) by `derive_seed(*parts)`.

    Without a GPU `torch.manual_seed` stores its caller's stack for each kind of GPU: 5% of a small network's update.
    """
    seed = derive_seed(*parts)
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)


class Batches:
    """An endless sequence of training batches: batch i belongs to epoch i // len(batches).

    Args:
        images: uint8 [N, C, H, W], kept on `device` as they are.
        labels: integers [N].
        batch_size: images a batch; the last of an epoch may be smaller (released CNN programs).
        drop_last: leave such a batch out (released transformer programs).
        seed: decides order and augmentation.
        augment: one of `recipes.AUGMENTATIONS`, or a registered one. "crop_flip_rotate" is the released online
            program's, "autoaugment_cutout" the released self-KD program's, "strong" that of the released transformers.
        statistics: mean and deviation of each channel, as in `STATISTICS`; None: the images' own (ours).
        size: side of the batches' images in pixels, then square; 0: the images' own.

    Raises:
        InputError: images or labels of another shape or type, a batch size that does not suit the images, an unknown
            augmentation, statistics of another number of channels.

    >>> images = torch.arange(4, dtype=torch.uint8).view(4, 1, 1, 1)
    >>> batches = Batches(images, torch.arange(4), batch_size=2, seed=0)
    >>> len(batches), sorted([*batches.indices(0).tolist(), *batches.indices(1).tolist()])
    (2, [0, 1, 2, 3])
    """

    __iter__ = None  # endless: without this a for loop would never stop

    def __init__(self, images: Tensor, labels: Tensor, batch_size: int, seed: int, augment: str = "none",
                 statistics: Statistics | None = None, device="cpu", drop_last: bool = False, size: int = 0):
        _check_images(images, labels)
        _check_batch_size(batch_size, len(images), drop_last)
        if augment not in (known := AUGMENTATIONS + plugins.names("augment")):
            raise InputError(nearest("augmentation", augment, known))
        self.statistics = statistics or channel_statistics(images)
        _check_statistics(self.statistics, images.shape[1])
        self.images, self.labels = images.to(device), labels.to(device, torch.int64)
        self.batch_size, self.seed, self.augment = batch_size, seed, augment
        self.drop_last, self.size = drop_last, size
        self.streams = {"order": "order", "augment": "augment"}
        self.chosen = None  # int64: which images, of a part (`of`); None: all
        self._last: tuple[int, tuple[Tensor, Tensor]] | None = None
        self._order = lru_cache(maxsize=EPOCHS_KEPT)(self._draw_order)

    @property
    def count(self) -> int:
        """Images an epoch."""
        return len(self.images) if self.chosen is None else len(self.chosen)

    def __len__(self) -> int:
        """Return the batches of an epoch; in a part, a lone last image joins the batch before."""
        if self.drop_last:
            return max(self.count // self.batch_size, 1)
        alone = self.count % self.batch_size == 1
        return max(-(-self.count // self.batch_size) - alone, 1)

    def indices(self, i: int) -> Tensor:
        """Return the image numbers of batch i, int64 [B], on the CPU; an epoch holds each once, but for `drop_last`.

        Raises:
            InputError: a negative i.
        """
        if i < 0:
            raise InputError(f"Batch {i} does not exist: the first batch has the index 0.")
        epoch, position = divmod(i, len(self))
        last = position + 1 == len(self) and not self.drop_last
        return self._order(epoch)[position * self.batch_size:None if last else (position + 1) * self.batch_size]

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        """Return batch i: x float [B, C, H, W] (or size x size), normalised, channels_last; y int64 [B]. Read only.

        The last batch is kept, since teacher and students often read it in turn.
        """
        if self._last is None or self._last[0] != i:
            self._last = i, self.pictures(self.indices(i), i)
        return self._last[1]

    def pictures(self, which: Tensor, i: int) -> tuple[Tensor, Tensor]:
        """Return the images of these numbers, int64 [B], augmented by the draws of batch i."""
        channels, height, width = self.images.shape[1:]
        rows, columns = (self.size, self.size) if self.size else (height, width)
        own = plugins.made("augmentation", self.augment)
        drawn = draw("none" if own else self.augment, len(which), height, width,
                     generator(self.seed, self.streams["augment"], i), self.size)
        device = self.images.device
        made = to_device({"which": which} | ready(drawn, (channels, rows, columns), device), device)
        images = self.images.index_select(0, made["which"])
        if own:
            images = self._changed_by(own, images, i)
        x = changed(images, made)
        return filled(normalised(x, self.statistics), made), self.labels.index_select(0, made["which"])

    def _changed_by(self, own, images: Tensor, i: int) -> Tensor:
        """Apply a registered augmentation, which draws as the batch says."""
        seed = derive_seed(self.seed, self.streams["augment"], i)
        with seeded_draws(seed, [images.device] if images.device.type == "cuda" else []):
            made = own(images, torch.Generator().manual_seed(seed))
        if not isinstance(made, Tensor) or (made.dtype, made.shape) != (images.dtype, images.shape):
            given = f"{made.dtype} {list(made.shape)}" if isinstance(made, Tensor) else type(made).__name__
            raise InputError(f"The augmentation {self.augment} returned {given}: return a tensor of the type and shape "
                             f"of what it was given, {images.dtype} {list(images.shape)}.")
        return made

    def course(self, recipe: Recipe) -> Course:
        """Return the length of a run: one grade of all epochs."""
        return Course(((recipe.epochs, len(self)),))

    def learned(self, recipe: Recipe) -> Batches:
        """Return the student's batches of the same images; a restarting loader reads along if there are no blocks."""
        along = recipe.replay == "same" or recipe.replay == "restart" and recipe.interval == 0
        return self if along else self.fresh()

    def sizes(self, i: int) -> None:
        """Return None, as these batches have no groups."""

    def fresh(self) -> Batches:
        """Return batches of the same images in another order and with draws of their own: controls for A6 and V5."""
        return self._copy({"order": "replay order", "augment": "replay augment"})

    def of(self, chosen: Tensor, name: str) -> Batches:
        """Return batches of a subset of the images, in an order and with an augmentation of their own.

        Args:
            chosen: int64 [M], image numbers; no image is copied.
            name: decides the draws; another name gives other draws.

        Raises:
            InputError: fewer than two images.
        """
        if len(chosen) < 2:
            raise InputError(f"{name} has {len(chosen)} training images and batch norm needs two: give it more data, "
                             "or join it with another.")
        other = self._copy({key: f"{key}, {name}" for key in self.streams})
        other.chosen = chosen
        return other

    def _copy(self, streams: dict[str, str]) -> Batches:
        other = copy.copy(self)
        other.streams, other._last = streams, None
        other._order = lru_cache(maxsize=EPOCHS_KEPT)(other._draw_order)
        return other

    def _draw_order(self, epoch: int) -> Tensor:
        order = torch.randperm(self.count, generator=generator(self.seed, self.streams["order"], epoch))
        return order if self.chosen is None else self.chosen[order]


def _check_images(images: Tensor, labels: Tensor) -> None:
    if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[1] not in (1, 3):
        raise InputError(f"Images of type {images.dtype} and shape {list(images.shape)} make no batches: "
                         "give torch.uint8 of shape [N, C, H, W] with C = 1 (grey) or 3 (RGB).")
    if labels.shape != (len(images),):
        raise InputError(f"Labels of shape {list(labels.shape)} do not fit {len(images)} images: "
                         "give one label an image.")


def _check_batch_size(size: int, count: int, drop_last: bool) -> None:
    if not 2 <= size <= count:
        raise InputError(f"batch_size = {size} does not suit {count} images: give a whole number from 2 to "
                         "the number of images.")
    if count % size == 1 and not drop_last:
        fits = min((s for s in range(2, count + 1) if count % s != 1), key=lambda s: abs(s - size))
        raise InputError(f"batch_size = {size} leaves a last batch of one of the {count} images, on which "
                         f"batch norm cannot train: choose another batch size, for example {fits}.")


def _check_statistics(statistics: Statistics, channels: int) -> None:
    mean, std = statistics
    if not len(mean) == len(std) == channels:
        raise InputError(f"Statistics of {len(mean)} means and {len(std)} deviations do not fit images of "
                         f"{channels} channel{'s' * (channels > 1)}: give one of each a channel, or none.")
