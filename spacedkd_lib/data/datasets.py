"""Image sets as uint8 tensors in memory, each known by the SHA-256 of its pixels, labels and class names.

`load(name)` tries the decoded cache, then files in the data folder (official archive, its folder, class folders,
archives of class folders), then mirrors. It keeps its result as one file `<root>/cache/<name>.safetensors`, after
which no source is needed. Images are ordered by class, then by file name, so a lossless set has the same bytes from
every source; JPEG pixels depend on the library.

Shape legend: N images, C H W image, K classes. Taught in notebooks/01_data.
"""

from __future__ import annotations

import hashlib
import json
import os
import string
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..errors import InputError, nearest, reading, whole
from ..recipes import plugins
from ..store import records
from . import embedded
from .known import EMBEDDED, KNOWN, NAMES
from .sources import read_folder, read_known

ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")


@dataclass(frozen=True, eq=False)
class Dataset:
    """A training and a test set, decoded. Label k means `classes[k]`."""

    name: str
    train_images: Tensor  # uint8 [N, C, H, W]
    train_labels: Tensor  # int64 [N]
    test_images: Tensor  # uint8 [N, C, H, W]
    test_labels: Tensor  # int64 [N]
    classes: tuple[str, ...]  # K names

    @cached_property
    def sha256(self) -> str:
        """Hash the arrays and the class names; records cite it."""
        digest = hashlib.sha256()
        for key in ARRAYS:
            array = getattr(self, key).numpy()
            digest.update(f"{key} {array.dtype} {array.shape}\n".encode())
            digest.update(np.ascontiguousarray(array))
        digest.update(json.dumps(list(self.classes)).encode())
        return digest.hexdigest()

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def channels(self) -> int:
        return self.train_images.shape[1]

    @property
    def image_size(self) -> int:
        """Height of the images, pixels."""
        return self.train_images.shape[2]


def load(name: str, root: Path | str | None = None, seed: int = 0) -> Dataset:
    """Load a data set by name, or a folder of class folders by path.

    Args:
        name: one of `NAMES`, decoded once; or a folder `<dir>/{train,test}/<class>/<picture>`, decoded at
            every call ("val" serves as "test"; the images are grey, C = 1, if all pictures are).
        root: the data folder, never made; else `$SPACEDKD_DATA`, `data/` in a checkout or the user's own folder.
        seed: the recipe's seed, see `fold`.

    Raises:
        InputError: unknown name; a seed that is no whole number; data missing and no mirror reachable; a source that
            is truncated, altered or unreadable. The cache then stays as it was.
    """
    name = str(name)
    if own := plugins.made("data set", name):
        return _own(name, own)
    if name not in NAMES and (os.sep in name or os.path.isdir(name)):
        with reading(name, "give a folder that holds train/<class>/ and test/<class>/"):
            folder = Path(os.path.expanduser(name))
            return _dataset(f"folder {folder.resolve().name}", *read_folder(folder))
    if name not in NAMES:
        raise InputError(nearest("data set", name, [*NAMES, *plugins.names("dataset"),
                                                    "the path of a folder of train/<class>/"]))
    root = _data_folder(root)
    cache = _cache_file(name, root, seed)
    if os.path.isfile(cache):
        try:
            return _read_cache(cache, name)
        except InputError as error:
            warnings.warn(str(error), stacklevel=2)
    dataset = _dataset(name, *(_read_embedded(name, seed) if name in EMBEDDED else read_known(name, root)))
    _write_cache(cache, dataset)
    return dataset


def _data_folder(given: Path | str | None = None) -> Path:
    """Return the data folder; one that is named is never made, as its name may be misspelt."""
    given = given or os.environ.get("SPACEDKD_DATA")
    folder = Path(os.path.expanduser(given or records.HOME / "data"))
    if given and not os.path.exists(folder):
        raise InputError(f"The data folder {folder} is not there: make it, or correct its name.")
    return folder


def _cache_file(name: str, root: Path, seed: int) -> Path:
    return root / "cache" / (f"glyphs-{fold(name, seed)}.safetensors" if name == "glyphs" else f"{name}.safetensors")


def sha256_at_hand(name: str, seed: int = 0) -> str:
    """Return the SHA-256 of a data set that can be read now; "" of a known one that was not decoded here yet."""
    if name not in NAMES:
        return load(name).sha256
    cache = _cache_file(name, _data_folder(), seed)
    with suppress(SafetensorError, OSError), safe_open(cache, framework="pt") as file:
        return (file.metadata() or {}).get("sha256", "")
    return ""


def check_again(name: str, dataset: Dataset) -> None:
    """Refuse a registered function whose second call gives other pictures than its first did."""
    if plugins.made("data set", name) and load(name).sha256 != dataset.sha256:
        raise InputError(f"Two calls of the data set {name} gave other pictures: seed what it draws.")


def register_dataset(made=None, *, name: str = ""):
    """Register a data set, named by a recipe's field `dataset`: a function without arguments, or a `Dataset`.

    The function returns train_images, train_labels, test_images, test_labels as arrays, whole numbers from 0 to 255
    [N, C, H, W] and from 0 [N], and the names of the classes.

    Raises:
        InputError: a name of ours, or what cannot be called, or cannot be hashed.
    """
    return plugins.register("data set", made, name, NAMES)


def _own(name: str, own) -> Dataset:
    """Return a registered data set.

    Raises:
        InputError: it is not as `register_dataset` wants it.
    """
    is_set = isinstance(own, Dataset)
    made = [*(getattr(own, key) for key in ARRAYS), own.classes] if is_set else own()
    if not isinstance(made, (tuple, list)) or len(made) != 5:
        raise InputError(f"{name}() returned other than five values: give {', '.join(ARRAYS)} and the classes' names.")
    arrays, classes = [np.asarray(array) for array in made[:4]], tuple(map(str, made[4]))
    for part, images, labels in (("training", *arrays[:2]), ("test", *arrays[2:])):
        one_shape = images.ndim == 4 and images.shape[1:] == arrays[0].shape[1:]
        if not one_shape or labels.shape != (len(images),) or not len(labels):
            raise InputError(f"{name}() made {part} images of shape {images.shape} with labels of shape "
                             f"{labels.shape}: give [N, C, H, W], alike in training and test, and [N] labels.")
        _check_range(name, f"{part} images", images, 255)
        _check_range(name, f"{part} labels", labels, len(classes) - 1)
    kinds = (np.uint8, np.int64, np.uint8, np.int64)
    return own if is_set else _dataset(name, classes, [np.array(array, kind) for array, kind in zip(arrays, kinds)])


def _check_range(name: str, what: str, array: np.ndarray, most: int) -> None:
    if array.dtype.kind not in "iu" or not 0 <= array.min() <= array.max() <= most:
        raise InputError(f"{name}() made {what} of type {array.dtype} from {array.min()} to {array.max()}: give whole "
                         f"numbers from 0 to {most}.")


def fold(name: str, seed: int) -> int:
    """Return the fold held out for a seed: a font family of glyphs (`embedded.fonts`); other sets have fold 0 only."""
    seed = whole("seed", seed)
    return seed % len(embedded.FAMILIES) if name == "glyphs" else 0


def shape(name: str) -> tuple[int, int, int, int, int]:
    """Return (channels, pixels, classes, training images, test images); public sets need no data, others are loaded."""
    if name in KNOWN:
        known = KNOWN[name]
        return 3, known.pixels, known.classes, known.classes * known.train, known.classes * known.test
    dataset = load(name)
    return (dataset.channels, dataset.image_size, dataset.num_classes, len(dataset.train_labels),
            len(dataset.test_labels))


def stratified(labels: Tensor, count: int, seed: int) -> Tensor:
    """Choose `count` images at random so that each class keeps its share, up to rounding.

    Args:
        labels: int64 [N].
        count: how many; the result has exactly as many.
        seed: of the choice within each class.

    Returns:
        Sorted indices, int64 [count].

    Raises:
        InputError: more images wanted than there are, or a seed that is no whole number of at least 0.

    >>> stratified(torch.tensor([0, 0, 0, 0, 1, 1]), 3, seed=0).shape
    torch.Size([3])
    """
    if not hasattr(count, "__index__") or not 0 <= count <= len(labels):
        raise InputError(f"{count} images were asked for: ask for 0 to {len(labels)}, which is all.")
    sizes = np.bincount(labels.numpy())
    shares = count * sizes
    take = shares // len(labels)
    remainders = shares - take * len(labels)  # whole numbers: no rounding error can make the count inexact
    take[np.argsort(-remainders, kind="stable")[: count - take.sum()]] += 1
    random = np.random.RandomState(np.random.PCG64(whole("seed", seed)))  # NumPy promises never to change its stream
    chosen = [random.permutation(np.flatnonzero(labels.numpy() == k))[:n] for k, n in enumerate(take)]
    return torch.from_numpy(np.sort(np.concatenate(chosen)))


def split(dataset: Dataset, train_images: int = 0, val_fraction: float = 0.0,
          seed: int = 0) -> tuple[Tensor, Tensor]:
    """Split the training images into training and validation indices: disjoint, sorted, stratified by class.

    Args:
        train_images: size of the stratified subset that is taken first; 0 = all.
        val_fraction: share of that subset which is held out.
        seed: seed of both choices.

    Raises:
        InputError: more images wanted than there are, a share that leaves one side empty, or a seed that is no whole
            number of at least 0.
    """
    labels = dataset.train_labels
    subset = stratified(labels, train_images or len(labels), seed)
    held_out = round(val_fraction * len(subset))
    if val_fraction and not 0 < held_out < len(subset):
        raise InputError(f"val_fraction = {val_fraction} holds out {held_out} of {len(subset)} images: "
                         "choose one that leaves at least one image on either side.")
    validation = torch.zeros(len(subset), dtype=torch.bool)
    validation[stratified(labels[subset], held_out, seed)] = True
    return subset[~validation], subset[validation]


def _dataset(name: str, classes: Sequence[str], arrays: Sequence[np.ndarray]) -> Dataset:
    """Make a set of a reader's results: the class names, and four arrays in the order of `ARRAYS`."""
    tensors = {key: torch.from_numpy(array) for key, array in zip(ARRAYS, arrays, strict=True)}
    return Dataset(name=name, classes=tuple(classes), **tensors)


def _read_cache(path: Path, name: str) -> Dataset:
    with reading(path, "it has to be built again from its source"):
        with safe_open(path, framework="pt") as file:
            found = file.metadata()
            arrays = [file.get_tensor(key).numpy() for key in ARRAYS]
        dataset = _dataset(name, json.loads(found["classes"]), arrays)
        if found["sha256"] != dataset.sha256:
            raise ValueError("its checksum does not hold")
        return dataset


def _write_cache(path: Path, dataset: Dataset) -> None:
    metadata = {"classes": json.dumps(dataset.classes), "sha256": dataset.sha256}
    try:
        records.write_atomically(path, save({key: getattr(dataset, key).contiguous() for key in ARRAYS}, metadata))
    except (InputError, MemoryError) as error:
        if dataset.name not in EMBEDDED:  # those take two seconds; the others are worth a word
            warnings.warn(f"{error} Until then each load decodes {dataset.name} again.", stacklevel=3)


# Readers: each returns the class names and the four arrays. First the embedded sets.


def _read_embedded(name: str, seed: int) -> tuple[str, list[np.ndarray]]:
    if name == "glyphs":
        return embedded.CHARACTERS, [array for part in ("train", "test") for array in embedded.glyphs(part, seed)]
    images, labels = embedded.digits()
    chosen = np.zeros(len(labels), dtype=bool)
    chosen[stratified(torch.from_numpy(labels), 1197, seed=0)] = True
    return string.digits, [images[chosen], labels[chosen], images[~chosen], labels[~chosen]]
