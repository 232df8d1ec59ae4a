"""Image sets as uint8 tensors in memory, each known by the SHA-256 of its pixels, labels and class names.

`load(name)` looks, in this order, at the decoded cache, at files under the data folder (official archive, its
folder, class folders, archives of class folders), and at mirrors. It keeps what it decodes as one file
`<root>/cache/<name>.safetensors`, after which no source is needed. Images are ordered by class, then by file
name, so a lossless set is the same bytes whichever source it came from; JPEG pixels depend on the library.

Shape legend: N images, C H W image, K classes. Taught in notebooks/01_data.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import io
import json
import os
import pickle
import shutil
import string
import sys
import tarfile
import urllib.error
import urllib.request
import warnings
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import InputError, nearest
from . import embedded
from .embedded import draw, fonts  # noqa: F401  what notebook 01 shows of the glyphs

FORMAT = "1"  # of the cache file; another one is rebuilt
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
    sha256: str  # over the arrays and the class names; records cite it

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


@dataclass(frozen=True)
class Known:
    """What a public image set must hold, and where it comes from."""

    classes: int
    train: int  # images a class
    test: int  # images a class
    pixels: int  # height and width
    archive: str  # the official file
    folder: str  # what it unpacks to
    address: str = ""  # of the folder that holds the official file
    md5: str = ""  # of the official file


KNOWN = {
    "cifar10": Known(10, 5000, 1000, 32, "cifar-10-python.tar.gz", "cifar-10-batches-py",
                     "https://www.cs.toronto.edu/~kriz", "c58f30108f718f92721af3b95e74349a"),
    "cifar100": Known(100, 500, 100, 32, "cifar-100-python.tar.gz", "cifar-100-python",
                      "https://www.cs.toronto.edu/~kriz", "eb9058c3a382ffc7106e4002c42a8d85"),
    "tiny-imagenet": Known(200, 500, 50, 64, "tiny-imagenet-200.zip", "tiny-imagenet-200",
                           "http://cs231n.stanford.edu", "90528d7ca1a48142e341f4ef8d21d0de"),
    # The first 40 classes of it: for tests and short runs; a number measured on it is never "Tiny-ImageNet".
    "tiny-imagenet-40": Known(40, 500, 50, 64, "tiny-imagenet-40.tar.gz", "tiny-imagenet-40"),
}
EMBEDDED = ("digits", "glyphs")
NAMES = EMBEDDED + tuple(KNOWN)


def load(name: str, root: Path | str | None = None, rebuild: bool = False, seed: int = 0) -> Dataset:
    """Load a data set by name, or a folder of class folders by path.

    Args:
        name: one of `NAMES`, decoded once; or a folder `<dir>/{train,test}/<class>/<picture>`, decoded at
            every call ("val" serves as "test"; the images are grey, C = 1, if all pictures are).
        root: the data folder; default `$SPACEDKD_DATA`, else `data/` beside the package.
        rebuild: read the source again although the cache is good.
        seed: of the recipe that the data are for, see `fold`.

    Raises:
        InputError: unknown name; data missing and no mirror reachable; a source that is truncated, altered or
            unreadable. The cache is then as it was.
    """
    name = os.fspath(name)
    if name not in NAMES and (os.sep in name or os.path.isdir(name)):
        folder = Path(name).expanduser()
        return _dataset(f"folder {folder.resolve().name}", *_read_folder(folder))
    if name not in NAMES:
        raise InputError(nearest("data set", name, [*NAMES, "the path of a folder of train/<class>/"]))
    root = Path(root or os.environ.get("SPACEDKD_DATA") or Path(__file__).resolve().parents[2] / "data")
    stem = f"glyphs-{fold(name, seed)}" if name == "glyphs" else name
    cache, damage = root / "cache" / f"{stem}.safetensors", ""
    if not rebuild and os.path.isfile(cache):
        try:
            return _read_cache(cache, name)
        except _Damaged as error:
            damage = f"{cache} is damaged ({error})"
    try:
        dataset = _dataset(name, *(_read_embedded(name, seed) if name in EMBEDDED else _read_known(name, root)))
    except InputError as error:
        raise InputError(f"{damage}, and it cannot be rebuilt: {error}" if damage else str(error)) from None
    if damage:
        warnings.warn(f"{damage}: it has been built again from its source.", stacklevel=2)
    _write_cache(cache, dataset)
    return dataset


def fold(name: str, seed: int) -> int:
    """Which of a data set's parts is held out for a recipe's seed: of glyphs a family of fonts, see `embedded.fonts`.
    Every other set has one test set for all seeds, and fold 0."""
    return seed % len(embedded.FAMILIES) if name == "glyphs" else 0


def shape(name: str) -> tuple[int, int, int, int, int]:
    """(channels, pixels, classes, training images, test images): of a public set by its definition, so that a plan
    needs no data; of any other by loading it."""
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
        InputError: more images wanted than there are.

    >>> stratified(torch.tensor([0, 0, 0, 0, 1, 1]), 3, seed=0).shape
    torch.Size([3])
    """
    if not 0 <= count <= len(labels):
        raise InputError(f"{count} images were asked for: ask for 0 to {len(labels)}, which is all.")
    sizes = np.bincount(labels.numpy())
    shares = count * sizes
    take = shares // len(labels)
    remainders = shares - take * len(labels)  # whole numbers: no rounding error can make the count inexact
    take[np.argsort(-remainders, kind="stable")[: count - take.sum()]] += 1
    random = np.random.RandomState(np.random.PCG64(seed))  # NumPy promises never to change its stream
    chosen = [random.permutation(np.flatnonzero(labels.numpy() == k))[:n] for k, n in enumerate(take)]
    return torch.from_numpy(np.sort(np.concatenate(chosen)))


def split(dataset: Dataset, train_images: int = 0, val_fraction: float = 0.0,
          seed: int = 0) -> tuple[Tensor, Tensor]:
    """Indices of the training and of the validation images: disjoint, sorted, both stratified by class.

    Args:
        train_images: size of the stratified subset that is taken first; 0 = all.
        val_fraction: share of that subset which is held out.
        seed: of both choices.

    Raises:
        InputError: more images wanted than there are, or a share that leaves one side empty.
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


# The cache: one file a data set, replaced as a whole or not at all.


class _Damaged(Exception):
    pass


def _dataset(name: str, classes: Sequence[str], arrays: Sequence[np.ndarray]) -> Dataset:
    """Put together what a reader returns: the class names, and four arrays in the order of `ARRAYS`."""
    digest = hashlib.sha256()
    for key, array in zip(ARRAYS, arrays, strict=True):
        digest.update(f"{key} {array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array))
    digest.update(json.dumps(list(classes)).encode())
    tensors = {key: torch.from_numpy(array) for key, array in zip(ARRAYS, arrays)}
    return Dataset(name=name, classes=tuple(classes), sha256=digest.hexdigest(), **tensors)


def _metadata(dataset: Dataset) -> dict[str, str]:
    counts = {"train": str(len(dataset.train_labels)), "test": str(len(dataset.test_labels))}
    return {"format": FORMAT, "name": dataset.name, "classes": json.dumps(dataset.classes),
            "sha256": dataset.sha256, **counts}


def _read_cache(path: Path, name: str) -> Dataset:
    try:
        with safe_open(path, framework="pt") as file:
            found = file.metadata() or {}
            arrays = [file.get_tensor(key).numpy() for key in ARRAYS]
        dataset = _dataset(name, json.loads(found["classes"]), arrays)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise _Damaged(f"{type(error).__name__}: {error}") from None
    wrong = sorted(key for key in found.keys() | _metadata(dataset).keys()
                   if found.get(key) != _metadata(dataset).get(key))
    if wrong:
        raise _Damaged(f"its {' and '.join(wrong)} differ from what it holds")
    return dataset


def _write_cache(path: Path, dataset: Dataset) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")  # other processes may build it too
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({key: getattr(dataset, key).contiguous() for key in ARRAYS}, temporary, _metadata(dataset))
        os.chmod(temporary, 0o644)  # safetensors makes it private; several people may share a data folder
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        if dataset.name not in EMBEDDED:  # those take two seconds; the others are worth a word
            warnings.warn(f"{path} cannot be written ({error}): each load decodes it again.", stacklevel=3)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)


# Readers: each returns the class names and the four arrays. First the embedded sets.


def _read_embedded(name: str, seed: int) -> tuple[str, list[np.ndarray]]:
    if name == "glyphs":
        return embedded.CHARACTERS, [array for part in ("train", "test") for array in embedded.glyphs(part, seed)]
    images, labels = embedded.digits()
    chosen = np.zeros(len(labels), dtype=bool)
    chosen[stratified(torch.from_numpy(labels), 1197, seed=0)] = True
    return string.digits, [images[chosen], labels[chosen], images[~chosen], labels[~chosen]]


# Public sets: find the source, read its files, list the pictures, check the counts, decode


def _read_known(name: str, root: Path) -> tuple[list[str], list[np.ndarray]]:
    known = KNOWN[name]
    paths = _source(name, root) or [_download(name, root)]
    if known.md5 and paths[0].name == known.archive and _md5(paths[0]) != known.md5:
        raise InputError(f"{paths[0]} is truncated or altered (its MD5 is not {known.md5}): delete it, or "
                         "put the official file in its place.")
    where = str(paths[0]) if len(paths) == 1 else f"{root / name}-*.tar.gz"
    files = {inner: content for path in paths for inner, content in _files(path).items()}
    official = paths[0].name in (known.archive, known.folder)
    if official and name in _CIFAR:
        classes, arrays = _cifar(name, files, where)
        _check_counts(name, classes, arrays[1], arrays[3], where)
        return classes, arrays
    classes, listing = (_wnid_folders if official else _class_folders)(files, where)
    _check_counts(name, classes, *([label for _, label in rows] for rows in listing), where)
    return classes, _pictures(files, listing, where, (known.pixels, known.pixels), "RGB")


def _source(name: str, root: Path) -> list[Path]:
    """The first at hand: the official archive, its folder, class folders, archives of class folders."""
    for path in (root / KNOWN[name].archive, root / KNOWN[name].folder, root / name):
        if path.exists():
            return [path]
    return [*sorted(root.glob(f"{name}-train*.tar.gz")), *sorted(root.glob(f"{name}-test*.tar.gz"))]


def _files(path: Path) -> dict[str, bytes | Path]:
    """Path inside the top folder -> content (of an archive, which is never unpacked to disk) or file."""
    try:
        if path.is_dir():
            return _walk(path)
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                return {_inside(m.filename): archive.read(m) for m in archive.infolist() if not m.is_dir()}
        with gzip.open(path) as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
            files = {_inside(m.name): archive.extractfile(m).read() for m in archive if m.isfile()}
            stream.read()  # to the very end, where gzip keeps the checksum
            return files
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise InputError(f"{path} is truncated or damaged ({error}): fetch it again.") from None


def _inside(member: str) -> str:
    return "/".join(PurePosixPath(member).parts[1:])


def _walk(folder: Path) -> dict[str, Path]:
    found = {}
    for directory, folders, names in os.walk(folder, followlinks=True):
        names = [name for name in names if not name.startswith(".")]
        if not folders and not names:
            raise InputError(f"{directory} is an empty folder: put pictures into it, or remove it.")
        paths = [Path(directory, name) for name in names]
        found |= {path.relative_to(folder).as_posix(): path for path in paths}
    return found


def _check_counts(name: str, classes, train_labels, test_labels, where: str) -> None:
    known = KNOWN[name]
    if len(classes) != known.classes:
        raise InputError(f"{where} holds {len(classes)} classes and {name} has {known.classes}: it is "
                         "truncated or altered; fetch it again.")
    parts = {"training": (train_labels, known.train), "test": (test_labels, known.test)}
    for part, (labels, expected) in parts.items():
        for label, count in enumerate(np.bincount(labels, minlength=known.classes)):
            if count != expected:
                raise InputError(f'{where} holds {count} {part} images of class "{classes[label]}" and '
                                 f"{name} has {expected}: it is truncated or altered; fetch it again.")


# Pictures. A listing holds, for training and for test, [(path, label), ...] in the data set's order.


def _read_folder(folder: Path) -> tuple[list[str], list[np.ndarray]]:
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: give one that holds train/<class>/ and test/<class>/, "
                         f"or one of {', '.join(NAMES)}.")
    where, files = str(folder), _walk(folder)
    classes, listing = _class_folders(files, where)
    first = _picture(files, listing[0][0][0], where)
    modes = (_picture(files, path, where).mode for rows in listing for path, _ in rows)
    mode = "RGB" if any(mode not in ("1", "L") for mode in modes) else "L"
    return classes, _pictures(files, listing, where, first.size, mode)


def _class_folders(files: dict, where: str) -> tuple[list[str], list[list]]:
    """Read {train,test}/<class>/<picture>; the label is the position in the sorted class names."""
    tops = {path.split("/")[0] for path in files}
    test = "val" if "val" in tops and "test" not in tops else "test"
    parts = {part: sorted(path.split("/") for path in files if path.startswith(f"{part}/"))
             for part in ("train", test)}
    for part, paths in parts.items():
        if not paths:
            raise InputError(f"{where} holds no pictures under {part}/: add {part}/<class>/<picture>.")
        if odd := [path for path in paths if len(path) != 3]:
            raise InputError(f"{'/'.join(odd[0])} in {where} is not at {part}/<class>/<picture>: move it "
                             "there, or remove it.")
    named = {part: {path[1] for path in paths} for part, paths in parts.items()}
    if odd := sorted(named["train"] ^ named[test]):
        present, absent = ("train", test) if odd[0] in named["train"] else (test, "train")
        raise InputError(f'{where} has the class "{odd[0]}" in {present} and not in {absent}: add what is '
                         "missing, so that both have the same classes.")
    classes = sorted(named["train"])
    return classes, [[("/".join(path), classes.index(path[1])) for path in paths] for paths in parts.values()]


def _wnid_folders(files: dict, where: str) -> tuple[list[str], list[list]]:
    """Read the layout of Tiny-ImageNet; the label is the position in wnids.txt, and `val` is the test set."""
    try:
        classes = _content(files["wnids.txt"]).decode().split()
        label = {wnid: k for k, wnid in enumerate(classes)}
        images = [path for path in files if path.startswith("train/") and "/images/" in path]
        train = [(path, label[path.split("/")[1]]) for path in images]
        lines = _content(files["val/val_annotations.txt"]).decode().splitlines()
        notes = dict(line.split("\t")[:2] for line in lines)  # picture -> wnid
        images = [path for path in files if path.startswith("val/images/")]
        test = [(path, label[notes[path.split("/")[2]]]) for path in images]
    except (KeyError, ValueError) as error:
        raise InputError(f"{where} is truncated or altered ({type(error).__name__}: {error}): fetch it "
                         "again.") from None
    return classes, [sorted(rows, key=lambda row: row[::-1]) for rows in (train, test)]


def _content(file: bytes | Path) -> bytes:
    return file if isinstance(file, bytes) else file.read_bytes()


def _pictures(files: dict, listing: list[list], where: str, size: tuple[int, int],
              mode: str) -> list[np.ndarray]:
    """Decode to grey (mode "L") or colour ("RGB"), uint8 [N, C, H, W]; `size` is width and height."""
    arrays = []
    for rows in listing:
        images = np.empty((len(rows), {"L": 1, "RGB": 3}[mode], size[1], size[0]), dtype=np.uint8)
        for i, (path, _) in enumerate(rows):
            picture = _picture(files, path, where, mode)
            if picture.size != size:
                raise InputError(f"{path} in {where} is {picture.size[0]} x {picture.size[1]} pixels and not "
                                 f"{size[0]} x {size[1]} as expected: give all images one size.")
            images[i] = np.asarray(picture).reshape(size[1], size[0], -1).transpose(2, 0, 1)
        arrays += [images, np.array([label for _, label in rows], dtype=np.int64)]
    return arrays


def _picture(files: dict, path: str, where: str, mode: str = "") -> Image.Image:
    """Open one picture; with a mode, decode it too."""
    try:
        picture = Image.open(io.BytesIO(_content(files[path])))
        if picture.mode[0] in "IF":
            raise ValueError("more than 8 bits a channel")
        return picture.convert(mode) if mode else picture
    except Exception as error:  # a broken file makes Pillow raise almost anything
        raise InputError(f"{path} in {where} is not a readable image ({error}): replace it, or remove "
                         "it.") from None


# The official CIFAR files are pickles, and a pickle may name any function to call: only arrays pass.

_FIVE = [f"data_batch_{i}" for i in range(1, 6)]
_CIFAR = {  # files of the training set, of the test set and of the names; key of the labels, of the names
    "cifar10": (_FIVE, ["test_batch"], "batches.meta", "labels", "label_names"),
    "cifar100": (["train"], ["test"], "meta", "fine_labels", "fine_label_names"),
}


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module, name):
        if (module, name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return getattr(np, name)
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return np.empty(0).__reduce__()[0]  # NumPy moved it between versions; this asks NumPy where it is
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no CIFAR file does")


def _cifar(name: str, files: dict, where: str) -> tuple[list[str], list[np.ndarray]]:
    train, test, meta, labels_key, names_key = _CIFAR[name]
    try:
        batches = {file: _ArraysOnly(io.BytesIO(_content(files[file])), encoding="latin1").load()
                   for file in (*train, *test, meta)}
        arrays = [_cifar_part([batches[file] for file in part], labels_key) for part in (train, test)]
        return list(batches[meta][names_key]), [*arrays[0], *arrays[1]]
    except Exception as error:  # a damaged pickle makes the reader raise almost anything
        raise InputError(f"{where} is not the official file ({type(error).__name__}: {error}): fetch it "
                         "again.") from None


def _cifar_part(batches: list[dict], labels_key: str) -> tuple[np.ndarray, np.ndarray]:
    kinds = {"data": np.uint8, labels_key: np.int64, "filenames": str}
    images, labels, names = (np.concatenate([np.asarray(batch[key], kind) for batch in batches])
                             for key, kind in kinds.items())
    order = np.lexsort((names, labels))  # by class, then by file name: as class folders are read
    return images.reshape(len(order), 3, 32, 32)[order], labels[order]


# Download: mirrors in turn, each resumed where the last connection was cut


def _md5(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def _download(name: str, root: Path) -> Path:
    known, reasons = KNOWN[name], []
    target = root / known.archive
    mirrors = os.environ.get("SPACEDKD_MIRRORS", "").split(",") if known.md5 else []
    for base in filter(None, [*map(str.strip, mirrors), known.address]):
        try:
            return _download_from(f"{base.rstrip('/')}/{known.archive}", target, known.md5)
        except (OSError, http.client.HTTPException, ValueError) as error:
            reasons.append(f"{base}: {error}")
    tried = f", and no mirror served it ({'; '.join(reasons)})" if reasons else ""
    raise InputError(f"{name} is not in {root}{tried}: put {known.archive} there, packed or unpacked" +
                     (", or name a mirror in SPACEDKD_MIRRORS." if known.md5 else "."))


def _download_from(url: str, target: Path, md5: str) -> Path:
    part = target.with_name(target.name + ".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    print(f"downloading {url} to {target}", file=sys.stderr)
    inherited = _size(part)  # from an earlier session or another mirror
    while True:
        before = _size(part)
        try:
            _fetch_rest(url, part, before)
        except (OSError, http.client.HTTPException):
            if _size(part) <= before:  # nothing new came: leave what there is to the next mirror
                raise
            continue
        if _md5(part) == md5:
            os.replace(part, target)
            return target
        part.unlink()
        if not inherited:
            raise ValueError("its MD5 differs from the official file's")
        inherited = 0  # the fault may lie in what was there before: once more, from the start


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _fetch_rest(url: str, part: Path, have: int) -> None:
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=30)
    except urllib.error.HTTPError as error:
        if have and error.code == 416:  # nothing is left to send
            return
        raise
    with response, open(part, "ab" if response.status == 206 else "wb") as file:
        shutil.copyfileobj(response, file, 1 << 20)
        length = response.headers.get("Content-Length")
        if length and file.tell() < int(length) + (have if response.status == 206 else 0):
            raise ConnectionError("the connection was cut")
