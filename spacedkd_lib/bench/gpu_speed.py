"""Stages env, ceilings, fast, seeds and notebooks of bench/gpu.py: speed on a GPU."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections import Counter
from dataclasses import replace
from importlib.metadata import distributions
from itertools import product
from pathlib import Path
from typing import Callable
from unittest import mock

import numpy as np
import pandas as pd
import torch

from ..cluster.executors import LocalProcesses, SharedCard
from ..notebook import runner
from ..recipes import Recipe, defaults, online_kd, spaced
from ..store import records, software
from ..training import train
from ..training.provenance import provenance
from .gpu_checks import side_by_side_is_alone, small_transformer
from .plain import plain_loader, plain_train
from .speed import cpu_seconds, gpu_seconds, median_seconds
from .work import Place, Size, pace, pictures

EPOCHS, WORKERS = 5, 8  # of what is timed; processes of the plain way's DataLoader
NOTEBOOK = records.ROOT / "notebooks" / "03_online_kd.ipynb"  # the shortest that trains with a teacher


def seconds(place: Place, work: Callable[[], object]) -> float:
    """Median seconds of a call."""
    return median_seconds(work, 2, cpu_seconds) if place.dry else median_seconds(work, 20, gpu_seconds)


# Stage env

def env(place: Place) -> None:
    """Write down the machine and all packages."""
    found = provenance(pictures(2), torch.device(place.device)) | {
        "cores": os.cpu_count(), "mps": shutil.which("nvidia-cuda-mps-control"),
        "nvidia_smi": software.answer(["nvidia-smi", "-q"]),
        "packages": {package.metadata["Name"]: package.version for package in distributions()}}
    if not place.dry:
        found["gpu"] = str(torch.cuda.get_device_properties(0))
    records.write_atomically(place.folder / "env.json", json.dumps(found, indent=1) + "\n")
    place.say(f"env: {found['device_name']}, torch {found['torch']}, {found['cores']} cores, commit "
              f"{found['git_commit']}")


# Stage ceilings: what the GPU can do at best

def ceilings(place: Place) -> None:
    """Measure what the card can do at most: products of matrices, and copies."""
    n = 128 if place.dry else 8192
    for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        a, b = (torch.randn(n, n, device=place.device, dtype=dtype) for _ in range(2))
        rate = 2 * n**3 / seconds(place, lambda: a @ b) / 1e12
        place.add("ceilings", what=f"{name} product", value=rate, unit="TFLOP/s")
    here = torch.zeros(2**16 if place.dry else 2**30, dtype=torch.uint8, device=place.device)
    there = torch.empty_like(here)
    rate = 2 * here.numel() / seconds(place, lambda: there.copy_(here)) / 1e12
    place.add("ceilings", what="copy", value=rate, unit="TB/s")


# Stage fast: whole loops, with batches and tally; their evaluation, of two pictures, costs next to nothing

def networks(place: Place) -> dict[str, Recipe]:
    """Spaced KD at s = 0.5; the transformer without the drop path that no graph can hold."""
    sizes = {"ResNet-8": Size("resnet8", 4, 8)} if place.dry else {"ResNet-18": Size(), "ResNet-20": Size("resnet20")}
    epochs = 3 if place.dry else EPOCHS
    found = {name: spaced(online_kd(size.recipe(size.batch, epochs)), 0.5) for name, size in sizes.items()}
    size = next(iter(sizes.values()))
    return found | {"DeiT-Ti": spaced(online_kd(small_transformer(size, drop_path=0.0, epochs=epochs)), 0.5)}


def fast(place: Place) -> None:
    """Measure the speed of training, the plain way and the engine's.

    The plain way comes first, before the engine asks this process for repeatable kernels; compilation, which takes tens
    of seconds a network, last.
    """
    ceiling, known = _ceiling(place), networks(place)
    data = pictures(2 * 8, 16) if place.dry else pictures(50 * 128)
    for name, recipe in known.items():
        with place.attempt(f"the plain way, {name}"):
            _line(place, name, "fp32", plain_pace(place, recipe, data), ceiling)
    engines = ("graph", "eager") if place.dry else ("graph", "eager", "compiled")
    for engine, precision, (name, recipe) in product(engines, ("bf16", "fp32"), known.items()):
        with place.attempt(f"{name}, {precision}, {engine}"):
            found = pace([replace(recipe, precision=precision)], data, place.device, engine)
            _line(place, name, precision, found, ceiling)


def _ceiling(place: Place) -> float:
    """TFLOP/s of the bf16 product, as stage ceilings found it; NaN if it did not run."""
    path = place.folder / "ceilings.csv"
    return pd.read_csv(path).set_index("what")["value"]["bf16 product"] if path.exists() else np.nan


def _line(place: Place, name: str, precision: str, found: dict, ceiling: float) -> None:
    memory = 0.0 if place.dry else torch.cuda.max_memory_allocated() / 1e9
    place.add("fast", what=name, precision=precision, way=found["engine"], images_s=found["images_s"],
              tflops=found["tflops"], share_of_bf16_product=found["tflops"] / ceiling,
              ms_an_update=1000 * found["seconds"] / found["updates"], gigabytes=memory)
    if not place.dry:
        torch.cuda.reset_peak_memory_stats()


def plain_pace(place: Place, recipe: Recipe, data) -> dict:
    """Measure `work.pace` of the plain way: the time of all epochs less that of one.

    Every update waits for its loss, so the host's clock sees all.
    """
    loader = plain_loader(data, recipe.batch_size, recipe.augment, 0 if place.dry else WORKERS)

    def taken(epochs: int) -> float:
        began = time.perf_counter()
        constant = dict(lr_schedule="constant", **defaults(("warmup_epochs",)))
        plain_train(replace(recipe, epochs=epochs, **constant), data, loader, place.device)
        return time.perf_counter() - began
    first, (run,) = taken(1), train.assemble([recipe], data, torch.device("cpu"))[0]
    epochs, passed = recipe.epochs - 1, 2 * len(data.train_images)  # by teacher and student
    seconds = (taken(recipe.epochs) - first) / epochs
    return {"seconds": seconds, "updates": 2 * len(loader), "images_s": passed / seconds, "engine": "plain",
            "tflops": sum(run.method.cost.values()) * passed / seconds / 1e12}


# Stage seeds: several at once

def seeds(place: Place) -> None:
    """By vmap over stacked weights; and by processes side by side, also with NVIDIA's MPS where it is there."""
    size = Size("resnet8", 4, 8) if place.dry else Size("resnet20")
    data, epochs = (pictures(2 * 8, 16), 3) if place.dry else (pictures(50 * 128), EPOCHS)
    recipe = spaced(online_kd(size.recipe(size.batch, epochs, "bf16")), 0.5)
    for number, engine in ((1, "graph"), *((number, "eager") for number in numbers(place))):
        with place.attempt(f"{number} seeds by vmap, {engine}"):
            found = pace([replace(recipe, seed=seed) for seed in range(number)], data, place.device, engine)
            _seeds(place, "vmap", number, found["engine"], found["images_s"], found["seconds"] / found["updates"])
    recipe = replace(recipe, epochs=epochs if place.dry else 4 * epochs)
    with place.attempt("processes"), mock.patch.object(SharedCard, "possible", return_value=False):
        _side_by_side(place, "processes", recipe, data)
    if SharedCard.possible():
        with place.attempt("processes, MPS"):
            _side_by_side(place, "processes, MPS", recipe, data)


def numbers(place: Place) -> tuple[int, ...]:
    """Return how many runs are trained together."""
    return (1, 2) if place.dry else (1, 2, 4, 8)


def _seeds(place: Place, way: str, number: int, engine: str, images_s: float, update: float) -> None:
    place.add("seeds", way=way, seeds=number, engine=engine, images_s=images_s, ms_an_update_of_all=1000 * update)


def _side_by_side(place: Place, way: str, recipe: Recipe, data) -> None:
    """Time processes side by side; each has trained before, so that none is still starting while others are timed."""
    with LocalProcesses(1 if place.dry else numbers(place)[-1]) as executor:
        def at_once(number: int, recipe: Recipe) -> list[dict]:
            tasks = [executor.submit(pace, [replace(recipe, seed=seed)], data, place.device, "graph")
                     for seed in range(number)]
            return [task.result() for task in tasks]
        with place.attempt("seeds side by side give the bits of each alone"):
            side_by_side_is_alone(executor, place.device)
        at_once(numbers(place)[-1], replace(recipe, epochs=3))
        for number in numbers(place):
            found = at_once(number, recipe)
            _seeds(place, way, number, found[0]["engine"], sum(each["images_s"] for each in found),
                   max(each["seconds"] / each["updates"] for each in found))
        if not executor.card:  # whose service wants its processes to leave properly
            executor.kill()  # one after the other they would take seconds each


# Stage notebooks

def notebooks(place: Place) -> None:
    """Check that papermill runs a notebook in profile smoke, and that its runs were trained here, on this device."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        notebook = _tiny_notebook(Path(folder)) if place.dry else NOTEBOOK
        os.environ["SPACEDKD_RUNS"] = f"{folder}/runs"
        runner.execute(notebook, Path(folder) / "executed.ipynb", {"profile": "smoke", "seeds": 1}, cwd=NOTEBOOK.parent)
        found = [records.from_json(path.read_text(), str(path)) for path in Path(folder).glob("runs/*/result.json")]
    devices = Counter(record.provenance["device"] for record in found)
    place.add("notebooks", notebook=notebook.name, seconds=time.monotonic() - began, records=dict(devices))
    assert set(devices) == {place.device}, f"records by device: {dict(devices)}"


def _tiny_notebook(folder: Path) -> Path:
    """One run, in place of a notebook of the series, which takes minutes on a CPU."""
    import nbformat
    from nbformat.v4 import new_code_cell, new_notebook
    cells = [new_code_cell('profile = "quick"\nseeds = 0', metadata={"tags": ["parameters"]}),
             new_code_cell("import spacedkd_lib as skd\nbase = skd.profile(profile).settings[0].base\n"
                           "skd.run(base).summary['test_accuracy']")]
    nbformat.write(new_notebook(cells=cells), folder / "tiny.ipynb")
    return folder / "tiny.ipynb"
