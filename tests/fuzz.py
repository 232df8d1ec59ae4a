"""Random recipes, stops, damaged files, odd environments and folders: each ends in numbers or in one sentence. `make fuzz MINUTES=10`.

    python tests/fuzz.py MINUTES SEED

A case that ends otherwise is printed with its seed, and the program goes on; its status is then 1. `python
tests/fuzz.py 0 SEED` runs one case again.
"""

import argparse
import math
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from unittest import mock

from spacedkd_lib.data import datasets  # before torch, whose kernels it caps
from spacedkd_lib.analysis import measures
from spacedkd_lib.errors import InputError
from spacedkd_lib.lab import running
from spacedkd_lib.recipes import METHODS, Recipe, foreign, preset
from spacedkd_lib.recipes.recipe import Range
from spacedkd_lib.spacing import Spaced
from spacedkd_lib.store import records, stopping

import numpy as np
import torch
from PIL import Image

SMALL = Recipe(dataset="digits", train_images=48, model="resnet8", width=2, epochs=2, batch_size=8, lr=0.05, augment="none")
ODD = {int: (0, 1, 2, 3, 7, -1, 10**12), float: (0.0, 0.1, 0.5, 1.0, 1.5, 3.0, -1.0, 1e-9, 1e12, math.nan, math.inf),
       bool: (True, False), str: ("", "none", "nosuch", "\0"), tuple: ((), (1,), (1, 2), (5, 5), (1, 1), ("a",))}
LARGE = ("epochs", "width", "teacher_width", "image_size", "depth", "heads", "batch_size")  # cost time, and say nothing


def value_of(draw: random.Random, field):
    """A value of a field, allowed or not."""
    allowed = field.metadata["allowed"]
    if field.name in ("model", "teacher_model"):
        return draw.choice(("resnet8", "resnet10", "", "resnet9"))
    if field.name == "dataset":
        return draw.choice(("digits", "digit", "/nowhere"))
    if allowed and not isinstance(allowed, Range) and draw.random() < 0.8:
        return draw.choice(allowed)
    return draw.choice([v for v in ODD[type(field.default)] if field.name not in LARGE or not v > 16])


def random_recipe(draw: random.Random) -> Recipe:
    """A small recipe with a few fields of its method changed."""
    method = draw.choice(METHODS)
    base = replace(SMALL, method=method, seed=draw.randrange(100), **foreign(method) | (
        dict(model="resnet10") if method == "self_kd" else {}) | (dict(interval=2.0) if method == "offline_kd" else {}))
    if draw.random() < 0.1:
        return preset(base, "released")
    chosen = draw.sample([f for f in fields(Recipe) if method in f.metadata["of"]], draw.randrange(1, 5))
    return replace(base, **{f.name: value_of(draw, f) for f in chosen if f.name not in ("method", "seed")})


def a_recipe(draw: random.Random, folder: Path) -> None:
    """It trains to finite numbers, and to the same ones if it was stopped on its way."""
    recipe = random_recipe(draw)
    whole = running.run(recipe)
    assert all(math.isfinite(v) for row in whole.numbers() for v in row.values()), "a number is not finite"
    shutil.rmtree(records.runs_folder())
    interrupted(recipe, draw.randrange(20))
    again = running.run(recipe)
    assert again.numbers() == whole.numbers(), "a stop changed a number"


def damage(draw: random.Random, folder: Path) -> None:
    """Damage one file of a folder as disks, hands and synchronisers do."""
    path = draw.choice(sorted(path for path in folder.rglob("*") if path.is_file()))
    content = bytearray(path.read_bytes())
    at, how = draw.randrange(len(content) or 1), draw.choice(
        ("flip", "flip", "cut", "double", "empty", "another's", "copy", "remove", "folder"))
    if how == "flip" and content:
        content[at] ^= 1 << draw.randrange(8)
    if how in ("remove", "folder"):
        path.unlink()
        path.mkdir() if how == "folder" else None
    elif how == "copy":
        path.with_stem(f"{path.stem} (conflicted copy)").write_bytes(content)
    else:
        another = draw.choice(sorted(path for path in folder.rglob("*") if path.is_file())).read_bytes()
        path.write_bytes({"cut": content[:at], "double": content[:at] * 2, "empty": b"",
                          "another's": another}.get(how, content))


def interrupted(recipe: Recipe, after: int) -> None:
    """Train until a stop is asked for at the update of this number, or to the end."""
    asked = mock.patch.object(stopping, "requested", iter([False] * after + [True] * 10**6).__next__)
    with asked, suppress(stopping.Stopped):
        running.run(recipe)


def a_file(draw: random.Random, folder: Path) -> None:
    """A file of a finished or a stopped run is damaged: refused, or no number changes."""
    recipe = replace(SMALL, epochs=draw.choice((1, 2)), method=draw.choice(("baseline", "online_kd")))
    made = running.run(recipe)
    if draw.random() < 0.6:
        shutil.rmtree(records.runs_folder())
        interrupted(recipe, draw.randrange(2, 12))
    damage(draw, records.runs_folder())
    assert running.run(recipe).numbers() == made.numbers(), "a damaged file answered"
    records.load_weights(recipe)


def a_publication(draw: random.Random, folder: Path) -> None:
    """A file of the published results is damaged: told, or no number changes."""
    shipped = records.ROOT / "results" / "quick"
    shutil.copytree(shipped, folder / "results" / "quick")
    damage(draw, folder / "results")
    with mock.patch.object(records, "ROOT", folder), mock.patch.object(records, "SHIPPED", folder):
        found = records.read_published("quick")
        measures.read_published("quick")
    assert not found or found == records.read_published("quick"), "a damaged publication answered"


def a_machine(draw: random.Random, folder: Path) -> None:
    """A command in an odd environment: it ends well, or in one sentence, and nothing is created beside its own places."""
    odd = ("", "~/x", "relative", "/proc/nowhere", "/dev/null", "a b'$x", "\u00e9", "x" * 300, str(folder))
    names = ("SPACEDKD_RUNS", "SPACEDKD_DATA", "SPACEDKD_ROOT", "SPACEDKD_RUN", "SPACEDKD_ENGINE", "SPACEDKD_CHECKPOINT",
             "HOME", "PYTHONOPTIMIZE", "GIT_DIR", "LANG", "PATH", "XDG_DATA_HOME")
    environment = os.environ | {"SPACEDKD_ROOT": str(folder)} | {
        name: draw.choice(odd) for name in draw.sample(names, draw.choice((0, 1, 1, 2)))}
    command = draw.choice((
        ("plan", "--profile", draw.choice(("smoke", "nosuch")), f"--seeds={draw.choice(('1', '0', '-1', 'x', '9' * 30))}"),
        ("plan", "--profile", "smoke", f"--time-limit={draw.choice(('10m', '1e12', '-3h', ''))}"),
        ("report", "--profile", "smoke")))
    ended = subprocess.run([sys.executable, "-m", "spacedkd_lib", *command], cwd=folder, env=environment,
                           capture_output=True, text=True, errors="replace", timeout=900)
    assert "Traceback" not in ended.stderr, f"{command} {environment}\n{ended.stderr}"
    assert not list(folder.glob("~*")), "a folder named ~ was made"
    if ended.returncode:
        raise InputError(f"{ended.stderr.strip().splitlines()[-1]}.")


def a_folder(draw: random.Random, folder: Path) -> None:
    """A folder of pictures as people have them."""
    def usually(common, *rare):
        return common if draw.random() < 0.85 else draw.choice(rare)

    parts = usually(("train", "test"), ("train", "val"), ("Train", "test"), ("train",))
    classes = usually(("a", "b"), ("a", "b", ".hidden"), ("a", "\u00e9"), ("a b", "'"))
    mode, deeper = usually("RGB", "L", "RGBA", "P", "I;16", "1", "LA", "CMYK"), usually("", "deeper")
    for place in (folder / part / name / deeper for part in parts for name in classes):
        place.mkdir(parents=True)
        for i in range(usually(2, 0)):
            size, kind = (8, 9)[draw.random() < 0.03], ("png", "jpg", "txt")[draw.random() < 0.2]
            picture = Image.fromarray(np.random.default_rng(i).integers(0, 255, (size, size, 3), np.uint8))
            picture = (picture.convert("L").convert("I") if mode == "I;16" else picture).convert(mode)
            if mode == "CMYK" or kind == "jpg":
                picture.convert("RGB").save(place / f"{i}.jpg")
            else:
                picture.save(place / f"{i}.{kind}", "png")
    loaded = datasets.load(folder)
    assert loaded.train_images.dtype == torch.uint8 and len(loaded.train_images) == len(loaded.train_labels) > 0


def a_loop(draw: random.Random, folder: Path) -> None:
    """Any loader, any interval: teacher and student see each batch once, in one order, also after a stop."""
    length, epochs = draw.randrange(1, 9), draw.randrange(1, 5)
    loader = [f"batch {i}" for i in range(length)]
    interval = draw.choice((0.0, draw.uniform(0, epochs), -draw.uniform(0, epochs)))
    rule = draw.choice(("fixed", "constant"))
    spaced = Spaced(loader, epochs, interval, rule=rule)
    seen = {kind: [] for kind in ("teach", "learn", "epoch")}
    stop = draw.randrange(1, 2 * length * epochs + 2)
    for number, step in enumerate(spaced):
        seen[step.kind].append(step.batch if step.kind != "epoch" else None)
        if number == stop:
            break
    again = Spaced(loader, epochs, interval, rule=rule)
    again.load_state_dict(spaced.state_dict())
    for step in again:
        seen[step.kind].append(step.batch if step.kind != "epoch" else None)
    assert seen["teach"] == seen["learn"] == loader * epochs, (length, epochs, interval, rule, stop)


CASES = (a_recipe, a_file, a_publication, a_machine, a_folder, a_loop)


def run_case(seed: int) -> str:
    """Run one case; what it ended in."""
    draw, base = random.Random(seed), Path(tempfile.mkdtemp())
    case = draw.choice(CASES)
    os.environ["SPACEDKD_RUNS"] = str(base / "runs")
    (base / "pictures").mkdir()
    try:
        case(draw, base / "pictures")
        return f"{case.__name__}: numbers"
    except InputError as refusal:
        assert str(refusal).endswith((".", ")")) and "\n" not in str(refusal) and "Traceback" not in str(refusal), refusal
        return f"{case.__name__}: one sentence"
    finally:
        shutil.rmtree(base)


def main(minutes: float, seed: int) -> int:
    if not minutes >= 0:  # nan would never end
        raise InputError(f"minutes = {minutes} never end: give a number of at least 0.")
    begun, found, bad = time.monotonic(), Counter(), 0
    torch.set_num_threads(1)
    while True:
        try:
            found[run_case(seed)] += 1
        except Exception:
            bad += 1
            print(f"seed {seed}:\n{traceback.format_exc()}", flush=True)
        seed += 1
        if time.monotonic() - begun > 60 * minutes:
            print(dict(found), f"{bad} ended otherwise")
            return min(bad, 1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Random cases; each ends in numbers or in one sentence.")
    parser.add_argument("minutes", type=float)
    parser.add_argument("seed", type=int)
    sys.exit(main(**vars(parser.parse_args())))
