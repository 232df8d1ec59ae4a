"""Data sets: sources, cache, splits. Everything here is generated; no network beyond this machine is used."""

import hashlib
import http.server
import io
import os
import pickle
import shutil
import struct
import tarfile
import threading
import unicodedata
import warnings
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from spacedkd_lib.data import datasets, download, embedded, known, sources
from spacedkd_lib.errors import InputError
from spacedkd_lib.recipes import plugins

CLASSES = ("ant", "bee", "cat")


@pytest.fixture(autouse=True)
def small_sets(monkeypatch):
    """Three classes of 4 + 2 tiny images under the public names; mirrors and addresses off."""
    for name in known.KNOWN:
        changes = dict(classes=3, train=4, test=2, address="", md5="", unpacked=())
        monkeypatch.setitem(known.KNOWN, name, replace(known.KNOWN[name], **changes))
    monkeypatch.delenv("SPACEDKD_MIRRORS", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture(scope="module")
def embedded_root(tmp_path_factory):
    """A data folder that builds each embedded set once for all tests."""
    return tmp_path_factory.mktemp("embedded")


def pixels(*key, size=32, channels=3):
    shape = (size, size, 3) if channels == 3 else (size, size)
    return np.random.RandomState(key).randint(0, 256, shape, dtype=np.uint8)


def picture_files(size=32, channels=3, train=4, test=2):
    """Path -> PNG bytes of the three classes."""
    files = {}
    for part, count in (("train", train), ("test", test)):
        for k, name in enumerate(CLASSES):
            for i in range(count):
                out = io.BytesIO()
                Image.fromarray(pixels(part == "test", k, i, size=size, channels=channels)).save(out, "PNG")
                files[f"{part}/{name}/{name}_s_{i:06d}.png"] = out.getvalue()
    return files


def write_folder(folder, files):
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


def write_tar(path, files, top):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{top}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


class Python2Pickler(pickle._Pickler):
    """Writes text as Python 2 did, byte strings without an encoding, and NumPy under its old module name."""

    dispatch = dict(pickle._Pickler.dispatch)

    def save_text(self, obj):
        obj = obj.encode("latin1") if isinstance(obj, str) else obj
        self.write(pickle.BINSTRING + len(obj).to_bytes(4, "little") + obj)

    def save_global(self, obj, name=None):
        module = "numpy.core.multiarray" if obj.__name__ == "_reconstruct" else "numpy"
        self.write(pickle.GLOBAL + f"{module}\n{obj.__name__}\n".encode())

    dispatch[bytes] = dispatch[str] = save_text
    for function in (np.ndarray, np.dtype, np.empty(0).__reduce__()[0], type):
        dispatch[type(function)] = save_global


def python2_pickle(value):
    out = io.BytesIO()
    Python2Pickler(out, protocol=2).dump(value)
    return out.getvalue()


def cifar100_files(train=4, test=2, shuffle=0):
    """The official layout with the pixels of `picture_files`, in any order."""
    files = {"meta": python2_pickle({"fine_label_names": list(CLASSES)})}
    for part, count in (("train", train), ("test", test)):
        rows = [(k, i) for k in range(3) for i in range(count)]
        np.random.RandomState(shuffle).shuffle(rows)
        files[part] = python2_pickle({
            "data": np.stack([pixels(part == "test", k, i).transpose(2, 0, 1).reshape(-1) for k, i in rows]),
            "fine_labels": [int(k) for k, _ in rows],
            "filenames": [f"{CLASSES[k]}_s_{i:06d}.png" for k, i in rows]})
    return files


def refusal(call, *words):
    """The one sentence that `call` is refused with; it must contain the words."""
    with pytest.raises(InputError) as error:
        call()
    message = str(error.value)
    assert error.value.__suppress_context__ or error.value.__context__ is None  # no trace of the inside
    assert "\n" not in message and message.endswith(".")
    for word in words:
        assert str(word) in message, message
    return message


# Sources of a public set


def test_all_sources_of_cifar100_give_the_same_bytes(tmp_path):
    pictures = picture_files()
    write_folder(tmp_path / "a/cifar100", pictures)
    write_tar(tmp_path / "b/cifar-100-python.tar.gz", cifar100_files(shuffle=1), "cifar-100-python")
    write_folder(tmp_path / "c/cifar-100-python", cifar100_files(shuffle=2))
    pieces = {"train-0": "train/ant", "train-1": "train/", "test": "test/"}
    for piece, start in pieces.items():
        chosen = {path: pictures.pop(path) for path in list(pictures) if path.startswith(start)}
        write_tar(tmp_path / f"d/cifar100-{piece}.tar.gz", chosen, "cifar100")
    sets = [datasets.load("cifar100", tmp_path / source) for source in "abcd"]
    assert len({s.sha256 for s in sets}) == 1
    first = sets[0]
    assert first.classes == CLASSES and (first.num_classes, first.channels, first.image_size) == (3, 3, 32)
    assert first.train_images.dtype == torch.uint8 and first.test_labels.dtype == torch.int64
    assert first.train_labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert first.test_labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert np.array_equal(first.train_images[5].permute(1, 2, 0), pixels(False, 1, 1))
    assert np.array_equal(first.test_images[5].permute(1, 2, 0), pixels(True, 2, 1))


def test_cifar10_joins_its_five_batches(tmp_path):
    files = {"batches.meta": pickle.dumps({"label_names": list(CLASSES)}, protocol=2)}
    rows = {f"data_batch_{b}": [(k, i) for k in range(3) for i in range(4) if (4 * k + i) % 5 == b - 1]
            for b in range(1, 6)}
    rows["test_batch"] = [(k, i) for k in range(3) for i in range(2)]
    for name, chosen in rows.items():
        images = [pixels(name == "test_batch", k, i).transpose(2, 0, 1).reshape(-1) for k, i in chosen]
        files[name] = python2_pickle({"data": np.stack(images), "labels": [k for k, _ in chosen],
                                      "filenames": [f"{i}.png" for _, i in chosen]})
    write_folder(tmp_path / "cifar-10-batches-py", files)
    loaded = datasets.load("cifar10", tmp_path)
    assert loaded.train_labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert np.array_equal(loaded.train_images[6].permute(1, 2, 0), pixels(False, 1, 2))


def test_tiny_imagenet_labels_follow_wnids(tmp_path, monkeypatch):
    name = "tiny-imagenet"
    monkeypatch.setitem(known.KNOWN, name, replace(known.KNOWN[name], pixels=8))
    wnids = ["n3", "n1", "n2"]  # the order of wnids.txt counts, not the alphabet
    files, notes = {"wnids.txt": "\n".join(wnids).encode(), "words.txt": b"n1\tant"}, []
    for k, wnid in enumerate(wnids):
        for i in range(6):
            out = io.BytesIO()
            Image.fromarray(np.full((8, 8), 50 * k + 5 * i, np.uint8)).save(out, "JPEG")  # some are grey
            path = f"train/{wnid}/images/{wnid}_{i}.JPEG" if i < 4 else f"val/images/val_{3 * i + k}.JPEG"
            files[path] = out.getvalue()
            notes += [f"val_{3 * i + k}.JPEG\t{wnid}\t0\t0\t8\t8"] if i >= 4 else []
    files["val/val_annotations.txt"] = "\n".join(notes).encode()
    top = known.KNOWN[name].folder
    with zipfile.ZipFile(tmp_path / known.KNOWN[name].archive, "w") as archive:
        for path, content in files.items():
            archive.writestr(f"{top}/{path}", content)
    write_folder(tmp_path / "unpacked" / top, files)
    loaded = datasets.load(name, tmp_path)
    assert loaded.name == name and loaded.classes == tuple(wnids) and loaded.channels == 3
    assert [int(v) for v in loaded.train_images[::4, 0, 0, 0]] == pytest.approx([0, 50, 100], abs=2)
    test = [int(v) for v in loaded.test_images[:, 0, 0, 0]]
    assert test == pytest.approx([20, 25, 70, 75, 120, 125], abs=2)
    assert datasets.load(name, tmp_path / "unpacked").sha256 == loaded.sha256
    (tmp_path / "unpacked" / top / "wnids.txt").unlink()
    shutil.rmtree(tmp_path / "unpacked" / "cache")
    refusal(lambda: datasets.load(name, tmp_path / "unpacked"), top, "wnids.txt")


def test_missing_data_says_which_file_to_put_where(tmp_path):
    refusal(lambda: datasets.load("cifar100", tmp_path), "cifar-100-python.tar.gz", tmp_path)


def test_the_shape_of_a_public_set_needs_no_data():
    assert datasets.shape("cifar100") == (3, 32, 3, 12, 6)  # as `small_sets` says


def test_unknown_names_are_refused_with_the_nearest():
    refusal(lambda: datasets.load("glyfs"), 'did you mean "glyphs"')
    refusal(lambda: datasets.load(None), '"None" is not a data set')
    refusal(lambda: datasets.load("glyphs", seed="x"), "seed = 'x'")
    refusal(lambda: datasets.load("no/such/folder"), "no/such/folder is not a folder")
    for name, words in (("~nobody-of-this-name/set", "is not a folder"), ("a/\0", "null byte"), ("a/" + 5000 * "b", "too long")):
        refusal(lambda name=name: datasets.load(name), words)


@pytest.mark.parametrize("lost, words", [("train/ant/ant_s_000001.png", "4 training images of each of 3 classes"),
                                         ("test/cat/cat_s_000000.png", "2 test images")])
def test_counts_that_disagree_are_refused(tmp_path, lost, words):
    files = picture_files()
    del files[lost]
    write_folder(tmp_path / "cifar100", files)
    refusal(lambda: datasets.load("cifar100", tmp_path), tmp_path / "cifar100", words, "truncated")
    assert not (tmp_path / "cache").exists()


def test_another_image_size_is_refused_in_a_public_set(tmp_path):
    write_folder(tmp_path / "cifar100", picture_files(size=16))
    refusal(lambda: datasets.load("cifar100", tmp_path), "16 x 16", "32 x 32")


def test_a_pickle_that_runs_code_is_refused(tmp_path):
    class Attack:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    files = cifar100_files() | {"train": pickle.dumps(Attack(), protocol=2)}
    write_tar(tmp_path / "cifar-100-python.tar.gz", files, "cifar-100-python")
    refusal(lambda: datasets.load("cifar100", tmp_path), "cifar-100-python.tar.gz", "open")
    assert not (tmp_path / "owned").exists()


def test_a_pickled_array_of_objects_is_refused_before_its_bytes_are_taken_for_addresses(tmp_path):
    kind = b"cnumpy\ndtype\n(S'O8'\nI00\nI01\ntR(I3\nS'|'\nNNNI-1\nI-1\nI0\ntb"
    array = (b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I1\nt" + kind
             + b"I00\nS'AAAAAAAA'\ntb")
    write_folder(tmp_path / "cifar-100-python", cifar100_files() | {"train": b"(dS'data'\n" + array + b"s."})
    refusal(lambda: datasets.load("cifar100", tmp_path), "cifar-100-python", "O8")


def test_a_damaged_pickle_is_refused(tmp_path):
    files = cifar100_files()
    write_folder(tmp_path / "cifar-100-python", files | {"train": files["train"][:-100]})
    refusal(lambda: datasets.load("cifar100", tmp_path), "cifar-100-python", "fetch it again")


def test_an_altered_official_archive_is_refused(tmp_path, monkeypatch):
    archive = write_tar(tmp_path / "cifar-100-python.tar.gz", cifar100_files(), "cifar-100-python")
    monkeypatch.setitem(known.KNOWN, "cifar100", replace(known.KNOWN["cifar100"], md5="0" * 32))
    refusal(lambda: datasets.load("cifar100", tmp_path), archive, "altered")


def test_an_altered_file_of_an_unpacked_set_is_refused(tmp_path, monkeypatch):
    files = cifar100_files()
    unpacked = tuple(hashlib.md5(files[name]).hexdigest() for name in ("train", "test", "meta"))
    monkeypatch.setitem(known.KNOWN, "cifar100", replace(known.KNOWN["cifar100"], md5="0" * 32, unpacked=unpacked))
    write_folder(tmp_path / "good/cifar-100-python", files)
    assert datasets.load("cifar100", tmp_path / "good").num_classes == 3
    write_folder(tmp_path / "bad/cifar-100-python", cifar100_files(shuffle=1))
    refusal(lambda: datasets.load("cifar100", tmp_path / "bad"), "MD5 of train")


def test_forms_in_which_people_have_an_official_archive(tmp_path):
    """Unpacked into a folder of its own name, or a folder called like the archive: read. Other archives: named."""
    for place in ("a/cifar-100-python/cifar-100-python", "b/cifar-100-python.tar.gz"):
        write_folder(tmp_path / place, cifar100_files())
    assert datasets.load("cifar100", tmp_path / "a").sha256 == datasets.load("cifar100", tmp_path / "b").sha256
    for name in ("cifar-100-python.tar", "cifar-100-python.zip", "cifar-100-python (1).tar.gz"):
        write_folder(tmp_path / name, {name: b"x"})
        refusal(lambda name=name: datasets.load("cifar100", tmp_path / name), name, "unpack it")


def test_a_data_folder_that_is_named_is_never_made(tmp_path, monkeypatch):
    for name in ("digits", "cifar100"):
        refusal(lambda name=name: datasets.load(name, tmp_path / "misspelt"), "misspelt")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPACEDKD_DATA", "~/no-such-folder")
    refusal(lambda: datasets.load("digits"), os.path.expanduser("~/no-such-folder"))
    assert not list(tmp_path.iterdir())


def test_the_memory_of_oblong_pictures_is_width_times_height(tmp_path, monkeypatch):
    Image.new("L", (40, 10)).save(tmp_path / "a.png")
    asked: list[int] = []
    monkeypatch.setattr(sources, "_check_memory", lambda needed, room: asked.append(needed))
    found = sources._pictures({"a": tmp_path / "a.png"}, [[("a", 0), ("a", 1)], []], "here", (40, 10), "L")
    assert found[0].shape == (2, 1, 10, 40) and asked == [2 * 40 * 10]


@pytest.mark.parametrize("suffix", ["tar.gz", "zip"])
def test_pictures_beyond_the_memory_are_refused_before_they_are_read(tmp_path, monkeypatch, suffix):
    files = picture_files(size=64)
    folder = write_folder(tmp_path / "set", files)
    monkeypatch.setattr(sources, "memory", lambda: 1000)
    refusal(lambda: datasets.load(folder), folder, "does not fit into memory")
    path = tmp_path / f"cifar100.{suffix}"
    if suffix == "zip":
        shutil.make_archive(str(path.with_suffix("")), "zip", tmp_path, "set")
    else:
        write_tar(path, files, "set")
    refusal(lambda: sources._files(path), path, "does not fit into memory")


# The cache


def cached(tmp_path):
    write_tar(tmp_path / "cifar100-train-0.tar.gz", picture_files(test=0), "cifar100")
    write_tar(tmp_path / "cifar100-test.tar.gz", picture_files(train=0), "cifar100")
    return datasets.load("cifar100", tmp_path), tmp_path / "cache/cifar100.safetensors"


def test_a_second_load_needs_no_source(tmp_path):
    first, cache = cached(tmp_path)
    for archive in tmp_path.glob("*.tar.gz"):
        archive.unlink()
    again = datasets.load("cifar100", tmp_path)
    assert all(torch.equal(getattr(first, key), getattr(again, key)) for key in datasets.ARRAYS)
    assert (again.sha256, again.classes, again.name) == (first.sha256, first.classes, "cifar100")
    assert [path.name for path in cache.parent.iterdir()] == [cache.name]  # no temporary file is left


def test_any_flipped_byte_is_found_and_rebuilt_from_the_source(tmp_path):
    first, cache = cached(tmp_path)
    good = cache.read_bytes()
    header = 8 + int.from_bytes(good[:8], "little")
    for position in [*range(0, header, 29), header, header + 20_000, len(good) - 1]:
        cache.write_bytes(good[:position] + bytes([good[position] ^ 1]) + good[position + 1:])
        with pytest.warns(UserWarning, match="cifar100.safetensors is damaged"):
            assert datasets.load("cifar100", tmp_path).sha256 == first.sha256
    cache.write_bytes(good[:-1000])
    with pytest.warns(UserWarning, match="damaged"):
        datasets.load("cifar100", tmp_path)
    assert datasets.load("cifar100", tmp_path).sha256 == first.sha256


def test_a_damaged_cache_without_a_source_is_refused(tmp_path):
    _, cache = cached(tmp_path)
    for archive in tmp_path.glob("*.tar.gz"):
        archive.unlink()
    content = cache.read_bytes()
    cache.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.warns(UserWarning, match="cifar100.safetensors is damaged"):
        refusal(lambda: datasets.load("cifar100", tmp_path), "cifar-100-python.tar.gz")


@pytest.mark.parametrize("piece", ["cifar100-train-0.tar.gz", "cifar100-test.tar.gz"])
@pytest.mark.parametrize("damage", ["cut", "altered", "empty"])
def test_a_bad_source_leaves_no_cache(tmp_path, piece, damage):
    _, cache = cached(tmp_path)
    cache.unlink()
    content = (tmp_path / piece).read_bytes()
    middle = len(content) // 2
    altered = content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1:]
    (tmp_path / piece).write_bytes({"cut": content[:middle], "altered": altered, "empty": b""}[damage])
    refusal(lambda: datasets.load("cifar100", tmp_path), piece)
    assert not list(cache.parent.iterdir())


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def disk_full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.warns(UserWarning, match="no space left"):
        _, cache = cached(tmp_path)
    assert not list(cache.parent.iterdir())


def test_many_write_one_cache_under_names_that_nobody_can_guess(tmp_path):
    first, cache = cached(tmp_path)
    (guessed := cache.with_name(f"{cache.name}.{os.getpid()}.tmp")).symlink_to(tmp_path / "precious")
    with warnings.catch_warnings(action="error"), ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: datasets._write_cache(cache, first), range(30)))
    assert set(cache.parent.iterdir()) == {cache, guessed} and not (tmp_path / "precious").exists()
    assert cache.stat().st_mode & 0o777 == 0o644  # others may read it


def test_a_root_that_cannot_be_written_is_no_obstacle_for_embedded_sets(tmp_path, recwarn):
    (tmp_path / "file").write_text("not a folder")
    assert len(datasets.load("digits", tmp_path / "file").train_images) == 1197
    assert not recwarn


# Embedded sets


@pytest.mark.parametrize("name", datasets.EMBEDDED)
def test_two_builds_of_an_embedded_set_are_identical(name, embedded_root, tmp_path):
    assert datasets.load(name, embedded_root).sha256 == datasets.load(name, tmp_path).sha256


def test_digits(embedded_root):
    digits = datasets.load("digits", embedded_root)
    assert digits.train_images.shape == (1197, 1, 8, 8) and digits.test_images.shape == (600, 1, 8, 8)
    whole = torch.cat([digits.train_labels, digits.test_labels]).bincount()
    assert (digits.train_labels.bincount() - whole * 1197 / 1797).abs().max() < 1
    together = torch.cat([digits.train_images, digits.test_images]).flatten(1)
    assert len(together.unique(dim=0)) == 1797  # noise makes every scan unique, so no scan is in both parts


def test_the_noise_of_digits_is_a_quarter_of_the_range():
    from sklearn.datasets import load_digits

    half = load_digits().images == 8  # pixels in the middle of the range are clipped least
    noisy, labels = embedded.digits()
    assert (noisy[:, 0][half] / 255).std() == pytest.approx(0.25, abs=0.02)
    assert labels.tolist() == load_digits().target.tolist()


@pytest.mark.parametrize("seed, family, faces", [(0, "Computer Modern", 5), (1, "DejaVu", 12), (2, "STIX", 4)])
def test_glyphs_hold_equal_classes_from_disjoint_fonts(embedded_root, seed, family, faces):
    glyphs = datasets.load("glyphs", embedded_root, seed=seed)
    assert glyphs.classes == tuple("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
    assert glyphs.train_images.shape == (2976, 1, 16, 16) and glyphs.test_images.shape == (3720, 1, 16, 16)
    assert set(glyphs.train_labels.bincount().tolist()) == {48}
    assert set(glyphs.test_labels.bincount().tolist()) == {60} and 60 % faces == 0
    fonts = embedded.fonts(seed)
    assert (fonts.family, len(fonts.held_out), len(fonts.train)) == (family, faces, 21 - faces)
    assert not set(fonts.train) & set(fonts.held_out)


def test_the_held_out_family_rotates_with_the_seed(embedded_root):
    found = [datasets.load("glyphs", embedded_root, seed=seed) for seed in (0, 1, 2, 3)]
    assert found[0].sha256 == found[3].sha256 == datasets.load("glyphs", embedded_root).sha256
    assert len({glyphs.sha256 for glyphs in found}) == 3
    assert torch.equal(found[0].train_images, found[3].train_images)
    assert len(list(embedded_root.glob("cache/glyphs-*"))) == 3
    assert datasets.load("digits", embedded_root, seed=1).sha256 == datasets.load("digits", embedded_root).sha256


def test_only_fonts_that_draw_the_characters_are_used():
    fonts = embedded.fonts()
    used = {path.stem for path in fonts.train + fonts.held_out}
    assert not used & {"cmex10", "cmsy10", "cmmi10", "STIXSizOneSymReg", "STIXNonUni"}
    assert not any("LastResort" in name for name in used)
    for font in fonts.train + fonts.held_out:  # a font of boxes draws the same box again and again
        drawn = {embedded.draw(character, font, 32, 24).tobytes() for character in embedded.CHARACTERS}
        assert len(drawn) == 62, font


# Splits


@pytest.mark.parametrize("count", [0, 1, 7, 50, 99, 100])
def test_stratified_keeps_shares_and_is_exact(count):
    labels = torch.from_numpy(np.random.RandomState(0).choice(5, 100, p=[.4, .3, .15, .1, .05]))
    chosen = datasets.stratified(labels, count, seed=3)
    assert len(chosen) == count and torch.equal(chosen, chosen.unique())  # exact, sorted, none twice
    share = labels.bincount(minlength=5) * count / 100
    assert (labels[chosen].bincount(minlength=5) - share).abs().max() < 1
    assert torch.equal(chosen, datasets.stratified(labels, count, seed=3))


def test_another_seed_chooses_others():
    labels = torch.arange(3).repeat(30)
    assert not torch.equal(datasets.stratified(labels, 30, seed=0), datasets.stratified(labels, 30, seed=1))


def test_split_takes_a_subset_and_holds_out_part_of_it(embedded_root):
    digits = datasets.load("digits", embedded_root)
    train, validation = datasets.split(digits, train_images=300, val_fraction=0.2, seed=1)
    assert (len(train), len(validation)) == (240, 60)
    assert len(torch.cat([train, validation]).unique()) == 300
    whole = digits.train_labels.bincount()
    for part in (train, validation):
        assert (digits.train_labels[part].bincount() - whole * len(part) / 1197).abs().max() <= 1.5
    subset, nothing = datasets.split(digits, train_images=300, seed=1)
    assert torch.equal(subset, torch.cat([train, validation]).sort().values) and len(nothing) == 0
    everything, _ = datasets.split(digits)
    assert torch.equal(everything, torch.arange(1197))


def test_split_refuses_what_cannot_be(embedded_root):
    digits = datasets.load("digits", embedded_root)
    refusal(lambda: datasets.split(digits, train_images=1198), "1198", "1197")
    refusal(lambda: datasets.split(digits, train_images=20, val_fraction=0.01), "val_fraction = 0.01", "20")
    refusal(lambda: datasets.split(digits, val_fraction=1.0), "val_fraction = 1.0")
    refusal(lambda: datasets.split(digits, train_images=10.5), "10.5 images")
    refusal(lambda: datasets.split(digits, train_images=20, seed=-1), "seed = -1")


# Arrays of one's own


PICTURES, LABELS = np.arange(8 * 16).reshape(8, 1, 4, 4), np.arange(8) % 2


@pytest.mark.parametrize("made, words", [
    ((PICTURES / 255, LABELS, PICTURES, LABELS, "ab"), "float64 from 0.0 to 0.49.*whole numbers from 0 to 255"),
    ((PICTURES, LABELS, 3 * PICTURES, LABELS, "ab"), "test images of type int64 from 0 to 381"),
    ((PICTURES, LABELS - 1, PICTURES, LABELS, "ab"), "training labels .*from -1"),
    ((PICTURES, LABELS, PICTURES, LABELS, "a"), "test labels|training labels .*from 0 to 1"),
    ((PICTURES, LABELS, PICTURES[..., 1:], LABELS, "ab"), "alike in training and test"),
    ((PICTURES[:, 0], LABELS, PICTURES, LABELS, "ab"), "N, C, H, W"),
    ((PICTURES, LABELS[1:], PICTURES, LABELS, "ab"), "N, C, H, W"),
    ((PICTURES, LABELS, PICTURES), "other than five values"), (None, "other than five values"),
])
def test_data_that_are_not_as_documented_are_refused(monkeypatch, made, words):
    monkeypatch.setattr(plugins, "_registered", {})
    datasets.register_dataset(lambda: made, name="mine")
    with pytest.raises(InputError, match=words):
        datasets.load("mine")


def test_whole_numbers_become_pictures(monkeypatch):
    monkeypatch.setattr(plugins, "_registered", {})
    datasets.register_dataset(lambda: (PICTURES, LABELS, PICTURES.astype("u1"), list(LABELS), "ab"), name="mine")
    mine = datasets.load("mine")
    assert torch.equal(mine.train_images, mine.test_images) and mine.train_images.dtype == torch.uint8


# Any folder of class folders


def test_a_folder_is_the_same_set_in_whatever_order_it_is_listed(tmp_path, monkeypatch):
    files = picture_files(size=6)
    one = datasets.load(write_folder(tmp_path / "one", files))
    walk = datasets.os.walk
    monkeypatch.setattr(datasets.os, "walk", lambda top, **options: reversed(list(walk(top, **options))))
    other = datasets.load(str(write_folder(tmp_path / "two", dict(reversed(files.items())))))
    assert one.sha256 == other.sha256 and one.classes == CLASSES and one.image_size == 6
    assert one.name == "folder one"


def test_a_folder_of_grey_pictures_stays_grey_and_val_serves_as_test(tmp_path):
    folder = write_folder(tmp_path / "set", picture_files(size=6, channels=1))
    (folder / "test").rename(folder / "val")
    (folder / "README.md").write_text("what lies beside the parts does not matter")
    grey = datasets.load(folder)
    assert grey.channels == 1
    assert np.array_equal(grey.test_images[0, 0], pixels(True, 0, 0, size=6, channels=1))
    Image.fromarray(pixels(1, size=6)).save(folder / "train/cat/colour.png")
    assert datasets.load(folder).channels == 3


def test_what_systems_leave_behind_is_no_data_and_pictures_stand_upright(tmp_path):
    clean = datasets.load(write_folder(tmp_path / "clean", picture_files(size=6)))
    folder = write_folder(tmp_path / "used", picture_files(size=6))
    for name in (".ipynb_checkpoints", "__MACOSX", ".git"):
        shutil.copytree(folder / "train/ant", folder / "train" / name)
    (folder / "test/cat/Thumbs.db").touch(), (folder / "test/ant/THUMBS.DB").touch()
    for picture in [*folder.rglob("ant/*.png")]:
        turned, exif = Image.open(picture).transpose(Image.Transpose.ROTATE_90), Image.Exif()
        exif[0x0112] = 6  # to be shown turned by a quarter to the right
        turned.save(picture, exif=exif)
    used = datasets.load(folder)
    assert used.classes == clean.classes and used.sha256 == clean.sha256


def test_names_of_a_class_may_be_written_in_two_ways(tmp_path):
    folder = write_folder(tmp_path / "set", picture_files(size=6))
    for part, form in (("train", "NFC"), ("test", "NFD")):
        (folder / part / "ant").rename(folder / part / unicodedata.normalize(form, "\u00e4nt"))
    assert "\u00e4nt" in datasets.load(folder).classes


def break_size(folder):
    Image.fromarray(pixels(0, size=7)).save(folder / "train/bee/odd.png")


def break_picture(folder):
    (folder / "test/cat/odd.png").write_bytes(b"not a picture")


def break_depth(folder):
    Image.fromarray(np.zeros((6, 6), np.uint16)).save(folder / "train/ant/odd.png")


def break_depth_of_colours(folder):
    """Pillow reads a PNG of 16 bits a colour as one of 8, and writes none."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    header, rows = struct.pack(">IIBBBBB", 6, 6, 16, 2, 0, 0, 0), 6 * (b"\0" + 18 * b"\1\2")
    (folder / "train/ant/odd.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(
        b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def break_frames(folder):
    frames = [Image.fromarray(pixels(i, size=6)) for i in range(3)]
    frames[0].save(folder / "train/bee/odd.gif", save_all=True, append_images=frames[1:])


def break_accents(folder):
    for form in ("NFC", "NFD"):
        for part in ("train", "test"):
            shutil.copytree(folder / part / "ant", folder / part / unicodedata.normalize(form, "\u00e4nt"))


def break_links(folder):
    for i in range(24):
        (folder / f"train/d{i}").mkdir()
        for name in ("x", "y"):
            (folder / f"train/d{i}" / name).symlink_to(folder / f"train/d{i + 1}")


def break_empty(folder):
    (folder / "train/dog").mkdir()
    (folder / "train/dog/.hidden").touch()


def break_classes(folder):
    shutil.rmtree(folder / "test/bee")


def break_layout(folder):
    (folder / "train/odd.png").write_bytes(b"")


def break_part(folder):
    shutil.rmtree(folder / "test")


def break_transparent(folder):
    Image.fromarray(pixels(0, size=6)).convert("RGBA").save(folder / "train/ant/odd.png")  # opaque: as without alpha
    clear = Image.fromarray(pixels(0, size=6))
    clear.putalpha(200)
    clear.save(folder / "train/bee/odd.png")


def break_pipe(folder):
    os.mkfifo(folder / "train/bee/odd.png")


def break_cycle(folder):
    (folder / "train/bee/odd").symlink_to(folder / "train")


def break_nesting(folder):
    shutil.copytree(folder, folder / "pictures")
    for part in ("train", "test"):
        shutil.rmtree(folder / part)


def break_format(folder):
    shutil.rmtree(folder / "train")
    (folder / "train-00000.parquet").touch()


def break_doubled(folder):
    shutil.copytree(folder / "train", folder / "train/train")


def break_names(folder):
    (folder / "test").rename(folder / "Testing")


def break_flat(folder):
    (folder / "train/1.png").write_bytes(b"")


def break_undivided(folder):
    shutil.rmtree(folder / "test")
    for path in list((folder / "train").iterdir()):
        path.rename(folder / path.name)
    (folder / "train").rmdir()


@pytest.mark.parametrize("damage, words", [
    (break_transparent, ["train/bee/odd.png", "transparent"]), (break_pipe, ["train/bee/odd.png", "no file"]),
    (break_cycle, ["train/bee/odd", "link"]), (break_links, ["train/d", "links"]),
    (break_depth_of_colours, ["train/ant/odd.png", "8 bits"]), (break_frames, ["train/bee/odd.gif", "one frame"]),
    (break_accents, ["\u00e4nt", "twice"]), (break_doubled, ["unpacked into itself"]), (break_flat, ["Kaggle"]),
    (break_names, ["Testing/", "called train or test"]), (break_undivided, ["not divided"]), (break_nesting, ["pictures/train", "give that folder"]),
    (break_format, [".parquet", "saved as pictures"]),
    (break_size, ["train/bee/odd.png", "7 x 7", "6 x 6"]), (break_picture, ["test/cat/odd.png", "readable"]),
    (break_depth, ["train/ant/odd.png", "8 bits"]),
    (break_empty, ["train/dog", "empty"]), (break_classes, ['"bee"', "in train and not in test"]),
    (break_layout, ["train/odd.png"]), (break_part, ["under test/"])])
def test_what_is_wrong_with_a_folder_is_named(tmp_path, damage, words):
    folder = write_folder(tmp_path / "set", picture_files(size=6))
    damage(folder)
    refusal(lambda: datasets.load(folder), folder, *words)


def test_three_links_are_followed_and_no_more(tmp_path):
    for i in range(5):
        (tmp_path / f"{i}").mkdir()
        (tmp_path / f"{i}/next").symlink_to(tmp_path / f"{i + 1}")
    (tmp_path / "4/next").unlink()
    (tmp_path / "4/picture").touch()
    assert list(sources._walk(tmp_path / "1")) == ["next/next/next/picture"]
    refusal(lambda: sources._walk(tmp_path / "0"), "more than 3 links")


def test_a_class_that_another_user_keeps_is_not_left_out(tmp_path, monkeypatch):
    folder, scandir = write_folder(tmp_path / "set", picture_files(size=6)), os.scandir

    def of_another_user(path):
        if str(path).endswith("bee"):
            raise PermissionError("Permission denied")
        return scandir(path)
    monkeypatch.setattr(os, "scandir", of_another_user)
    refusal(lambda: datasets.load(folder), folder, "Permission denied")


def test_the_preview_in_a_photograph_is_no_second_frame(tmp_path):
    folder = write_folder(tmp_path / "set", picture_files(size=6))
    photograph = Image.fromarray(pixels(0, size=6))
    photograph.save(folder / "train/ant/photograph.jpg", "MPO", save_all=True, append_images=[photograph])
    assert len(datasets.load(folder).train_images) == 13


# Download, from a server on this machine


class Mirror(http.server.BaseHTTPRequestHandler):
    """Serves `server.content` from the byte asked for; cuts the first `server.cuts` replies half-way."""

    def do_GET(self):
        server = self.server
        server.ranges.append(self.headers.get("Range"))
        start = int(self.headers["Range"].split("=")[1].rstrip("-")) if "Range" in self.headers else 0
        rest = server.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        self.wfile.write(rest[: len(rest) // 2] if server.cuts else rest)
        server.cuts = max(server.cuts - 1, 0)

    def log_message(self, *_):
        pass


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    archive = write_tar(tmp_path / "official.tar.gz", cifar100_files(), "cifar-100-python")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    server.content, server.cuts, server.ranges = archive.read_bytes(), 0, []
    server.address = f"http://127.0.0.1:{server.server_port}/files"
    md5 = hashlib.md5(server.content).hexdigest()
    monkeypatch.setitem(known.KNOWN, "cifar100",
                        replace(known.KNOWN["cifar100"], md5=md5, address="http://127.0.0.1:9/official"))
    monkeypatch.setenv("SPACEDKD_MIRRORS", f"http://127.0.0.1:9/dead, {server.address}/")
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_cut_download_resumes_past_a_dead_mirror(tmp_path, mirror):
    mirror.cuts = 1
    (tmp_path / "root").mkdir()
    assert datasets.load("cifar100", tmp_path / "root").num_classes == 3
    assert mirror.ranges == [None, f"bytes={len(mirror.content) // 2}-"]
    assert (tmp_path / "root/cifar-100-python.tar.gz").read_bytes() == mirror.content
    assert not (tmp_path / "root/cifar-100-python.tar.gz.part").exists()


def test_a_part_left_by_an_earlier_session_is_continued(tmp_path, mirror):
    (tmp_path / "cifar-100-python.tar.gz.part").write_bytes(mirror.content[:1000])
    datasets.load("cifar100", tmp_path)
    assert mirror.ranges == ["bytes=1000-"]


def test_a_wrong_part_is_dropped_and_fetched_from_the_start(tmp_path, mirror):
    (tmp_path / "cifar-100-python.tar.gz.part").write_bytes(b"x" * 1000)
    datasets.load("cifar100", tmp_path)
    assert mirror.ranges == ["bytes=1000-", None]


@pytest.mark.parametrize("cuts, part", [(0, b""), (3, b""), (0, b"y" * 1000)])
def test_a_mirror_with_another_file_is_refused(tmp_path, mirror, cuts, part):
    mirror.content, mirror.cuts = b"x" + mirror.content[1:], cuts
    if part:
        (tmp_path / "cifar-100-python.tar.gz.part").write_bytes(part)
    refusal(lambda: datasets.load("cifar100", tmp_path), mirror.address, "MD5", "127.0.0.1:9/official")
    assert not list(tmp_path.glob("cifar-100-python*"))


def test_two_downloads_at_once_both_succeed(tmp_path, mirror):
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda _: download.download("cifar100", tmp_path), range(2)))
    assert found == [tmp_path / "cifar-100-python.tar.gz"] * 2 and found[0].exists()
    assert not list(tmp_path.glob("*.part"))


def test_without_a_network_one_sentence_says_what_to_do(tmp_path, monkeypatch, mirror):
    monkeypatch.delenv("SPACEDKD_MIRRORS")
    refusal(lambda: datasets.load("cifar100", tmp_path), "put cifar-100-python.tar.gz there", "SPACEDKD_MIRRORS")
