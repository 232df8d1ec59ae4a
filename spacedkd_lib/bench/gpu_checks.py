"""Checks on a GPU, for stage "right" and tests/test_gpu.py; each raises AssertionError where something is wrong."""

from __future__ import annotations

import json
import math
import tempfile
import warnings
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Callable, Iterator
from unittest import mock

import torch
from torch import Tensor

from ..analysis import landscape, robustness
from ..analysis.trained import curvatures
from ..data.batches import STATISTICS, Batches, normalised
from ..data.datasets import Dataset
from ..methods import build
from ..methods.build import recipe_schedule
from ..recipes import (
    AUGMENTATIONS, Recipe, baseline, education, ema, ie_kd, mutual, offline_kd, online_kd, preset, self_kd, spaced,
    transformer,
)
from ..store import stopping
from ..store.records import Record
from ..training import graphs, train
from .work import Place, Size, digest, pictures

# The last batch is smaller.
SMALL, TINY = Size("resnet20", batch=128, pictures=1000), Size("resnet8", 4, 8, pictures=20)
NEVER = 10**9  # updates before one is recorded
DRY = ("baseline", "spaced KD", "self KD", "education", "transformer")  # cases that a CPU tries
NEAR = 1e-3  # relative distance of CPU and GPU after two batches: rounding makes 1e-5 of it, by an experiment on a CPU


def _size_on(device: str) -> Size:
    return TINY if device == "cpu" else SMALL


@cache
def _pictures_on(device: str) -> Dataset:
    return pictures(_size_on(device).pictures, 16 if device == "cpu" else 32)


def small_transformer(size: Size, **changes) -> Recipe:
    """DeiT-Ti for the small pictures of this module; of a small size one block of it."""
    own = dict(image_size=16, width=16, depth=1, heads=2) if size.width else dict(image_size=32)
    base = replace(size.recipe(size.batch, 2), model="timm/deit_tiny_patch16_224", width=0)
    return transformer(base, **dict(patch_size=4, epochs=2, warmup_epochs=1, batch_size=size.batch) | own | changes)


def cases(size: Size) -> dict[str, Recipe]:
    """Make a recipe of every method, and of what changes the kernels: two epochs each."""
    base = size.recipe(size.batch, 2)
    online = online_kd(base)
    return {"baseline": baseline(base), "online KD": online, "spaced KD": spaced(online, 1.0),
            "spaced KD, bf16": spaced(replace(online, precision="bf16"), 1.0),
            "online KD, asked before": replace(online, zero_target="pre_update"),
            "online KD, eval mode": replace(online, teacher_mode="eval"),
            "spaced KD, released": preset(spaced(online, 1.0), "released"),
            "AdamW": replace(baseline(base), optimizer="adamw", lr=1e-3),
            "self KD": self_kd(replace(base, model="resnet10", width=size.width or 16)),
            "IE-KD": ie_kd(base), "mutual learning": mutual(base), "EMA": ema(base),
            "education": education(base, (10, 90)), "dropout": replace(baseline(base), dropout=0.1),
            "transformer": online_kd(small_transformer(size))}


@cache
def trained(recipe: Recipe, device: str, warm: int = graphs.WARM, which: int = 1) -> tuple:
    """Train a run whose updates after the first `warm` are replayed; return the outcome of `train.train`.

    which: another number trains it again.
    """
    with mock.patch.object(graphs, "WARM", warm):
        return train.train(recipe, _pictures_on(device), device, engine="graph")


def assert_same(one: tuple, other: tuple) -> None:
    """Equal weights and equal numbers of all epochs, bit for bit."""
    weights, others = one[3], other[3]
    differ = [name for name in weights if not torch.equal(weights[name], others[name])]
    worst = max(((weights[name] - others[name]).abs().max().item() for name in differ), default=0)
    assert not differ, f"{len(differ)} of {len(weights)} tensors differ, by up to {worst:.1e}: {differ[0]}"
    numbers = [json.dumps(Record(Recipe(), rows, {}, {}).numbers(), sort_keys=True) for rows, *_ in (one, other)]
    assert numbers[0] == numbers[1], "the epochs' numbers differ"


# The checks

def _same_pixels(augment: str, device: str) -> None:
    """Check that a device makes the CPU's batches, bit for bit."""
    data, size = _pictures_on(device), 48 if augment == "strong" else 0
    here, there = (Batches(data.train_images, data.train_labels, _size_on(device).batch, 0, augment,
                           STATISTICS["cifar100"], where, size=size) for where in ("cpu", device))
    for i in range(4):
        for one, other in zip(here[i], there[i]):
            assert torch.equal(one, other.cpu()), f"batch {i} differs"


def same_bits_twice(recipe: Recipe, device: str) -> None:
    """Update by update, and with the optimizer that a graph needs, which rounds in another way than the usual one."""
    assert_same(*(trained(recipe, device, warm=NEVER, which=which) for which in (1, 2)))


def graph_is_eager(recipe: Recipe, device: str) -> str:
    """And what the record says of the engine."""
    assert_same(trained(recipe, device), trained(recipe, device, warm=NEVER))
    return trained(recipe, device)[2]["engine"]


def _sweep_is_alone(size: Size, device: str) -> None:
    online = online_kd(size.recipe(size.batch, 2))
    recipes = [online, replace(online, zero_target="pre_update"), replace(online, teacher_mode="eval"),
               spaced(online, 1.0), offline_kd(online)]
    for recipe, outcome in zip(recipes, train.sweep(recipes, _pictures_on(device), device, engine="graph")):
        assert_same(outcome, trained(recipe, device))


def goes_on_after_a_stop(recipe: Recipe, device: str) -> None:
    """Two stops in the middle of epochs, then to the end, and nothing is done twice."""
    size = _size_on(device)
    events = len(list(recipe_schedule(recipe, -(-size.pictures // size.batch))))
    first, whole = events // 4, trained(recipe, device)
    with tempfile.TemporaryDirectory() as folder:
        go_on = partial(train.sweep, [recipe], _pictures_on(device), device, Path(folder), engine="graph")
        for _ in range(2):
            with mock.patch.object(stopping, "requested", side_effect=[*[False] * first, True]):
                try:
                    go_on()
                except stopping.Stopped:
                    continue
            raise AssertionError("it did not stop")
        with mock.patch.object(stopping, "requested", return_value=False) as asked:
            assert_same(go_on()[0], whole)
    assert asked.call_count == events - 2 * (first + 1), "it began anew"


def side_by_side_is_alone(executor: Executor, device: str) -> None:
    """Two seeds at once, each in a process."""
    recipes = [replace(cases(_size_on(device))["spaced KD"], seed=seed) for seed in (1, 2)]
    tasks = [executor.submit(digest, recipe, _pictures_on(device), device) for recipe in recipes]
    assert [task.result() for task in tasks] == [digest(recipe, _pictures_on(device), device) for recipe in recipes]


@contextmanager
def exact_convolutions() -> Iterator[None]:
    """Switch off TF32 within this context, which is torch's default for convolutions on a GPU."""
    convolutions = torch.backends.cudnn.conv
    before, convolutions.fp32_precision = convolutions.fp32_precision, "ieee"
    try:
        yield
    finally:
        convolutions.fp32_precision = before


def near_the_cpu(recipe: Recipe, device: str) -> str:
    """Measure the distance of all weights from the CPU's after an epoch of two batches, relative to their length."""
    recipe, flat = replace(recipe, epochs=1, train_images=2 * recipe.batch_size), []
    for where in ("cpu", device):
        with exact_convolutions():
            weights = train.train(recipe, _pictures_on(device), where, engine="eager").weights
        flat.append(torch.cat([value.double().cpu().flatten() for value in weights.values()]))
    distance = float((flat[0] - flat[1]).norm() / flat[0].norm())
    assert distance < NEAR, f"{distance:.1e}"
    return f"{distance:.1e}"


def measures_run(device: str) -> str:
    """Check the measures of notebooks 06 and 07 on a tiny network that is there, with losses that are the CPU's."""
    data, found = _pictures_on(device), {}
    images, labels, statistics = data.train_images[:32], data.train_labels[:32], STATISTICS["cifar100"]
    for where in ("cpu", device):
        net = build.make(TINY.recipe(8, 1), 3, 100, data.image_size).modules["student"].to(where).eval()
        there = images.to(where), labels.to(where)
        with exact_convolutions():
            found[where] = _measured(net, normalised(there[0], statistics), there[1])
            robustness.robust_scores(net, None, *there, statistics, [3], [2.0])
    worst = max(abs(found[device][name] / found["cpu"][name] - 1) for name in ("plane", "noise"))
    assert worst < 1e-2 and all(map(math.isfinite, found[device].values())), f"{found}"
    return f"losses within {worst:.1e} of the CPU's"


def _measured(net: torch.nn.Module, x: Tensor, y: Tensor) -> dict[str, float]:
    first, second = (landscape.direction(net, 0, name) for name in ("first", "second"))
    plane = landscape.plane(net, x, y, first, second, landscape.axis(0.1, 3))
    noise = landscape.weight_noise(net, x, y, [0.05], 2)
    return {"plane": plane["loss"].mean(), "noise": noise["loss"].mean(),
            **curvatures(net, x, y, products=3, repeats=2)}


def checks(device: str) -> dict[str, Callable[[], str | None]]:
    """Name -> a check, which may say more of what it saw. What the others rest on comes first."""
    known = cases(_size_on(device))
    found = {f"CPU and GPU see the same pixels: {name}": partial(_same_pixels, name, device) for name in AUGMENTATIONS}
    for name, recipe in known.items():
        if device == "cpu" and name not in DRY:
            continue
        if device != "cpu" or name == "baseline":  # a CPU repeats itself anyway: once, to try the check
            found[f"{name}: the same bits twice"] = partial(same_bits_twice, recipe, device)
        found[f"{name}: a graph gives the eager engine's bits"] = partial(graph_is_eager, recipe, device)
    found["a sweep gives the bits of each run alone"] = partial(_sweep_is_alone, _size_on(device), device)
    for name in ("spaced KD", "AdamW"):
        found[f"{name}: stopped and continued, the same bits"] = partial(goes_on_after_a_stop, known[name], device)
    found["CPU and GPU are near each other after an epoch"] = partial(near_the_cpu, known["online KD"], device)
    found["measures run"] = partial(measures_run, device)
    return found


def right(place: Place) -> None:
    """Run the stage: a line a check, with torch's warnings of kernels that are not repeatable."""
    for name, check in checks(place.device).items():
        holds, said = False, ""
        with warnings.catch_warnings(record=True) as warned, place.attempt(name):
            warnings.simplefilter("always")
            said = check() or ""
            holds = True
        words = {str(warning.message).splitlines()[0][:120] for warning in warned}
        place.add("right", holds=holds, check=name, said=said,
                  warned=", ".join(sorted(word for word in words if "determin" in word)))
