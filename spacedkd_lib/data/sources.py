"""Readers of a data set's files: archives, folders, folders of classes."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import pickle
import re
import tarfile
import unicodedata
import zipfile
from pathlib import Path, PurePosixPath
from typing import Iterable, Iterator, Sequence

import numpy as np
from PIL import Image, ImageOps

from ..errors import InputError, memory, reading
from .download import download, md5_of
from .known import KNOWN, NAMES

LINKS = 3  # of folders in a path (ours): a part, a class and a folder in it may be links

# Public sets: find the source, read its files, list the pictures, check the counts, decode


def read_known(name: str, root: Path) -> tuple[list[str], list[np.ndarray]]:
    known = KNOWN[name]
    paths = _source(name, root) or [download(name, root)]
    if known.md5 and paths[0].name == known.archive and paths[0].is_file() and md5_of(paths[0]) != known.md5:
        raise InputError(f"{paths[0]} is truncated or altered (its MD5 is not {known.md5}): delete it, or "
                         "put the official file in its place.")
    where = str(paths[0]) if len(paths) == 1 else f"{root / name}-*.tar.gz"
    files = _named((item for path in paths for item in _files(path).items()), where)
    official = paths[0].name in (known.archive, known.folder)
    if official and name in _CIFAR:
        classes, arrays = _cifar(name, files, where, known.unpacked if paths[0].is_dir() else ())
        _check_counts(name, arrays[1], arrays[3], where)
        return classes, arrays
    classes, listing = (_wnid_folders if official else _class_folders)(files, where)
    train_labels, test_labels = ([label for _, label in rows] for rows in listing)
    _check_counts(name, train_labels, test_labels, where)
    return classes, _pictures(files, listing, where, (known.pixels, known.pixels), "RGB")


def _source(name: str, root: Path) -> list[Path]:
    """Find the first source: the official archive, its folder, class folders, archives of class folders."""
    folder = KNOWN[name].folder
    for path in (root / KNOWN[name].archive, root / folder / folder, root / folder, root / name):
        if path.exists():
            return [path]
    return [*sorted(root.glob(f"{name}-train*.tar.gz")), *sorted(root.glob(f"{name}-test*.tar.gz"))]


def _files(path: Path) -> dict[str, bytes | Path]:
    """Map paths inside the top folder to files, or to contents of an archive, which is never unpacked to disk."""
    with reading(path, "make it readable, or fetch it again"):
        if path.is_dir():
            return _walk(path)
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                members = [member for member in archive.infolist() if not member.is_dir() and _shown(member.filename)]
                _check_memory(sum(member.file_size for member in members), memory())
                return _named(((_inside(member.filename), archive.read(member)) for member in members), path)
        with gzip.open(path) as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
            files = _named(_contents(tar), path)
            while stream.read(1 << 20):  # to the very end, where gzip keeps the checksum
                pass
            return files


def _contents(archive: tarfile.TarFile) -> Iterator[tuple[str, bytes]]:
    needed, room = 0, memory()
    for member in archive:
        if member.isfile() and _shown(member.name) and (file := archive.extractfile(member)):
            _check_memory(needed := needed + member.size, room)
            yield _inside(member.name), file.read()


def _check_memory(needed: int, room: float) -> None:
    if needed > room:
        raise MemoryError(f"it takes {needed / 1e9:.1f} GB or more, and {room / 1e9:.1f} GB are free")


def _named(files: Iterable[tuple[str, bytes | Path]], where: object) -> dict[str, bytes | Path]:
    """Map names to files; a name is NFC, as systems write an accent in two ways.

    Raises:
        InputError: two files of one name.
    """
    found: dict[str, bytes | Path] = {}
    for name, file in files:
        name = unicodedata.normalize("NFC", name)
        if name in found:
            raise InputError(f"{name} is twice in {where}, perhaps with its accents written in two ways: rename one.")
        found[name] = file
    return found


def _inside(member: str) -> str:
    return "/".join(PurePosixPath(member).parts[1:])


def _shown(path: str) -> bool:
    """Whether a path holds data: not what editors and systems leave behind (.ipynb_checkpoints, __MACOSX, Thumbs.db).

    >>> _shown("train/cat/1.png"), _shown("train/.ipynb_checkpoints/1.png"), _shown("train/cat/THUMBS.DB")
    (True, False, False)
    """
    parts = PurePosixPath(path).parts
    return not any(part.startswith(".") or part.lower() in ("__macosx", "thumbs.db", "desktop.ini") for part in parts)


def _walk(folder: Path) -> dict[str, bytes | Path]:
    """Map each file's path inside the folder to the file; links are followed, but not for ever."""
    found: list[tuple[str, bytes | Path]] = []
    for directory, folders, names in os.walk(folder, onerror=_refuse, followlinks=True):
        folders[:], names = filter(_shown, folders), list(filter(_shown, names))
        inside = Path(directory).relative_to(folder)
        if sum(folder.joinpath(part).is_symlink() for part in [inside, *inside.parents][:-1]) > LINKS:
            raise InputError(f"{directory} lies behind more than {LINKS} links: remove those that lead round.")
        if not folders and not names:
            raise InputError(f"{directory} is an empty folder: put pictures into it, or remove it.")
        for path in (Path(directory, name) for name in names):
            if not path.is_file():
                raise InputError(f"{path} is no file that can be read (a broken link, a pipe or a device): remove it.")
            found.append((path.relative_to(folder).as_posix(), path))
    return _named(found, folder)


def _refuse(error: OSError) -> None:
    raise error


def _check_counts(name: str, train_labels, test_labels, where: str) -> None:
    known = KNOWN[name]
    for part, labels, expected in (("training", train_labels, known.train), ("test", test_labels, known.test)):
        if np.bincount(labels).tolist() != [expected] * known.classes:
            raise InputError(f"{where} does not hold {expected} {part} images of each of {known.classes} classes, as "
                             f"{name} has: it is truncated or altered; fetch it again.")


# Pictures. A listing holds, for training and for test, [(path, label), ...] in the data set's order.


def read_folder(folder: Path) -> tuple[list[str], list[np.ndarray]]:
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: give one that holds train/<class>/ and test/<class>/, "
                         f"or one of {', '.join(NAMES)}.")
    where, files = str(folder), _files(folder)
    classes, listing = _class_folders(files, where)
    first = _picture(files, listing[0][0][0], where)
    modes = (_picture(files, path, where).mode for rows in listing for path, _ in rows)
    mode = "RGB" if any(mode not in ("1", "L", "LA") for mode in modes) else "L"
    return classes, _pictures(files, listing, where, first.size, mode)


def _class_folders(files: dict, where: str) -> tuple[list[str], list[list]]:
    """Read {train,test}/<class>/<picture>; the label is the position in the sorted class names."""
    tops = {path.split("/")[0] for path in files}
    test = "val" if "val" in tops and "test" not in tops else "test"
    parts = {part: sorted(path.split("/") for path in files if path.startswith(f"{part}/"))
             for part in ("train", test)}
    for part, paths in parts.items():
        if not paths:
            raise InputError(f"{where} holds no pictures under {part}/{_another_layout(files)}: add "
                             f"{part}/<class>/<picture>.")
        if odd := ["/".join(path) for path in paths if len(path) != 3]:
            raise InputError(f"{odd[0]} in {where} is not at {part}/<class>/<picture>"
                             f"{_another_layout(odd[:1]).replace(odd[0], 'it')}: move it there, or remove it.")
    named = {part: {path[1] for path in paths} for part, paths in parts.items()}
    if odd := sorted(named["train"] ^ named[test]):
        present, absent = ("train", test) if odd[0] in named["train"] else (test, "train")
        raise InputError(f'{where} has the class "{odd[0]}" in {present} and not in {absent}: add what is '
                         "missing, so that both have the same classes.")
    classes = sorted(named["train"])
    return classes, [[("/".join(path), classes.index(path[1])) for path in paths] for paths in parts.values()]


LAYOUTS = {  # how people have pictures in place of ours: a path, as a pattern, and what it shows
    r".+\.(parquet|arrow)": "tables, which have to be saved as pictures",
    r"(train/train|test/test|val/val)/.+": "a part that was unpacked into itself",
    r"[^/]+/train/.+": "a folder that holds train/, so give that folder",
    r"(?!(train|test|val)/)(?i:train(ing)?|test(ing)?|val(id|idation)?)/.+": "a part to be called train or test",
    r"(train|test|val)/[^/]+": "pictures without folders of classes, as Kaggle has them",
    r"[^/]+/[^/]+": "folders of classes that are not divided into train/ and test/",
}


def _another_layout(files: Iterable[str]) -> str:
    """Name the layout that a folder has in place of ours, with a file that shows it."""
    found = ((path, what) for shape, what in LAYOUTS.items() for path in files if re.fullmatch(shape, path))
    return next((f"; {path} looks like {what}" for path, what in found), "")


def _wnid_folders(files: dict, where: str) -> tuple[list[str], list[list]]:
    """Read the layout of Tiny-ImageNet; the label is the position in wnids.txt, and `val` is the test set."""
    with reading(where, "fetch it again"):
        classes = _content(files["wnids.txt"]).decode().split()
        label = {wnid: k for k, wnid in enumerate(classes)}
        images = [path for path in files if path.startswith("train/") and "/images/" in path]
        train = [(path, label[path.split("/")[1]]) for path in images]
        lines = _content(files["val/val_annotations.txt"]).decode().splitlines()
        notes = dict(line.split("\t")[:2] for line in lines)  # picture -> wnid
        images = [path for path in files if path.startswith("val/images/")]
        test = [(path, label[notes[path.split("/")[2]]]) for path in images]
    return classes, [sorted(rows, key=lambda row: row[::-1]) for rows in (train, test)]


def _content(file: bytes | Path) -> bytes:
    return file if isinstance(file, bytes) else file.read_bytes()


def _pictures(files: dict, listing: list[list], where: str, size: tuple[int, int],
              mode: str) -> list[np.ndarray]:
    """Decode to grey (mode "L") or colour ("RGB"), uint8 [N, C, H, W]; `size` is width and height."""
    arrays, channels = [], {"L": 1, "RGB": 3}[mode]
    with reading(where, "give fewer or smaller pictures"):
        _check_memory(sum(map(len, listing)) * channels * size[0] * size[1], memory())
        parts = [np.empty((len(rows), channels, size[1], size[0]), dtype=np.uint8) for rows in listing]
    for rows, images in zip(listing, parts):
        for i, (path, _) in enumerate(rows):
            picture = _picture(files, path, where, mode)
            if picture.size != size:
                raise InputError(f"{path} in {where} is {picture.size[0]} x {picture.size[1]} pixels and not "
                                 f"{size[0]} x {size[1]} as expected: give all images one size.")
            images[i] = np.asarray(picture).reshape(size[1], size[0], -1).transpose(2, 0, 1)
        arrays += [images, np.array([label for _, label in rows], dtype=np.int64)]
    return arrays


def _picture(files: dict, path: str, where: str, mode: str = "") -> Image.Image:
    """Open one picture, turned upright; with a mode, decode it too."""
    with reading(f"{path} in {where}", "replace it, or remove it"):
        opened = Image.open(io.BytesIO(_content(files[path])))
        if opened.mode[0] in "IF" or re.search(r";16[BLN]", str(opened.tile)):  # which Pillow would cut to 8 silently
            raise ValueError("more than 8 bits a channel")
        if getattr(opened, "n_frames", 1) > 1 and opened.format != "MPO":  # a camera's JPEG with a preview
            raise ValueError("more than one frame")
        picture = ImageOps.exif_transpose(opened)
        if mode and picture.has_transparency_data and np.asarray(picture.convert("RGBA"))[..., 3].min() < 255:
            raise ValueError("it has transparent pixels, and no background is known")
        return picture.convert(mode) if mode else picture


# The official CIFAR files are pickles, and a pickle may name any function to call: only arrays pass.

_FIVE = [f"data_batch_{i}" for i in range(1, 6)]
_CIFAR = {  # files of the training set, of the test set and of the names; key of the labels, of the names
    "cifar10": (_FIVE, ["test_batch"], "batches.meta", "labels", "label_names"),
    "cifar100": (["train"], ["test"], "meta", "fine_labels", "fine_label_names"),
}


def _whole_numbers(name: str, *_) -> np.dtype:
    if name not in ("u1", "i8"):  # an array of objects would take its bytes for addresses
        raise pickle.UnpicklingError(f"it holds an array of {name}, which no CIFAR file does")
    return np.dtype(name)


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module, name):
        if (module, name) == ("numpy", "dtype"):
            return _whole_numbers
        if (module, name) == ("numpy", "ndarray"):
            return np.ndarray
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return np.array([]).__reduce__()[0]  # NumPy moved it between versions; this asks NumPy where it is
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no CIFAR file does")


def _cifar(name: str, files: dict, where: str, known: Sequence[str]) -> tuple[list[str], list[np.ndarray]]:
    """Read the official files; where their MD5s are `known`, these are compared first."""
    train, test, meta, labels_key, names_key = _CIFAR[name]
    with reading(where, "fetch it again"):
        for file, md5 in zip((*train, *test, meta), known):
            if hashlib.md5(_content(files[file])).hexdigest() != md5:
                raise ValueError(f"the MD5 of {file} is not {md5}")
        batches = {file: _ArraysOnly(io.BytesIO(_content(files[file])), encoding="latin1").load()
                   for file in (*train, *test, meta)}
        arrays = [_cifar_part([batches[file] for file in part], labels_key) for part in (train, test)]
        return list(batches[meta][names_key]), [*arrays[0], *arrays[1]]


def _cifar_part(batches: list[dict], labels_key: str) -> tuple[np.ndarray, np.ndarray]:
    kinds = {"data": np.uint8, labels_key: np.int64, "filenames": str}
    images, labels, names = (np.concatenate([np.asarray(batch[key], kind) for batch in batches])
                             for key, kind in kinds.items())
    order = np.lexsort((names, labels))  # by class, then by file name: as class folders are read
    return images.reshape(len(order), 3, 32, 32)[order], labels[order]
