"""Cost of a profile on this machine, timed by the very loop that trains."""

from __future__ import annotations

import math
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Iterator, NamedTuple

from ..recipes import Recipe, short_form
from ..store import records
from .grids import Row, unique
from .running import check_workers, default_workers
from .sweeps import Sweep, sweep_of, sweeps

BATCHES = {"cpu": 2, "cuda": 20}  # of an epoch that is timed, after another one (ours)


@dataclass(frozen=True)
class Plan:
    """What a profile would still cost on this machine."""

    runs: int
    done: int
    seconds: float
    megabytes: float


class Cost(NamedTuple):
    """What a recipe costs alone on this machine.

    update, look: seconds a picture of training and of evaluation. before: seconds before each evaluation. megabytes:
    of weights that a run leaves. train, test: pictures of the data set.
    """

    update: float
    look: float
    before: float
    megabytes: float
    train: int
    test: int


def plan(rows: list[Row], workers: int | str = 0) -> Plan:
    """Count the runs that are not done, and estimate their time by timing the costliest recipe of each sweep.

    Data need not be at hand: shapes of the known sets are facts. Processes are taken not to slow each other.
    """
    wanted, workers = unique(rows), check_workers(workers)
    missing = [recipe for recipe in wanted if records.load(recipe) is None]
    workers, measured = workers or default_workers(missing), cache(_measure)
    seconds = megabytes = 0.0
    with _one_thread():
        for sweep in sweeps(missing, workers):
            longest = max(sweep.recipes, key=lambda recipe: sweep_of([recipe]).cost)
            cost = measured(short_form(longest))
            seconds += _seconds(sweep, longest, cost)
            megabytes += len(sweep.recipes) * (cost.megabytes + 1500 * longest.epochs / 1e6)
    return Plan(len(wanted), len(wanted) - len(missing), seconds / workers, megabytes)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Set torch to one thread within this context, as the worker processes have it."""
    import torch
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _seconds(sweep: Sweep, longest: Recipe, cost: Cost) -> float:
    """Estimate the seconds of a sweep, whose updates take as many more as it has more forward passes."""
    images = longest.train_images or cost.train
    held_out = longest.val_fraction * images
    training = longest.epochs * (images - held_out) * cost.update * sweep.cost / sweep_of([longest]).cost
    looks = sum(math.ceil(recipe.epochs / recipe.eval_every) for recipe in sweep.recipes)
    return training + looks * (cost.before + (cost.test + held_out) * cost.look)


def _measure(recipe: Recipe) -> Cost:
    """Time the second epoch of the very loop that trains, on random pictures, and an evaluation."""
    import torch

    from ..data import datasets
    from ..training import graphs
    from ..training.loop import walk
    from ..training.provenance import repeatable
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    repeatable(device)
    run, batches, evaluate, scored = _assembled(recipe, device)
    with closing(graphs.Graphs([run], graphs.chosen(None, device), device)):
        begun, ended = (_now(device) for event, *_ in walk([run], batches, lambda runs: [{}]) if event.kind == "epoch")
    evaluate([run])  # a first time takes longer
    times = [_now(device)]
    for part in (run.method.before_scores, lambda: evaluate([run])):
        part()
        times.append(_now(device))
    before, both = (end - begin for begin, end in zip(times, times[1:]))
    values = sum(p.numel() for module in run.method.modules.values() for p in module.parameters())
    return Cost((ended - begun) / len(batches.images), max(both - before, 0.0) / scored, before, 4 * values / 1e6,
                *datasets.shape(recipe.dataset)[3:])


def _assembled(recipe: Recipe, device):
    """Assemble a run, its batches and its evaluation, of so many random pictures.

    A processor core would need minutes for the batches of a large network: it gets smaller ones.
    """
    from ..training import train
    pictures = _random_pictures(recipe, BATCHES[device.type] * recipe.batch_size * max(len(recipe.schools), 1))
    (run,), batches, evaluate = train.assemble([recipe], pictures, device)
    fewest = 2 * recipe.batch_norm_parts
    affordable = max(fewest, int(5e9 / max(run.method.cost.values())))  # about half a second's work
    if device.type == "cpu" and affordable < recipe.batch_size:
        return _assembled(replace(recipe, batch_size=affordable), device)
    return run, batches, evaluate, len(pictures.test_images)


def _random_pictures(recipe: Recipe, count: int):
    """For training and, up to 2,500, for evaluation; with labels of each group of classes."""
    import torch

    from ..data import datasets
    channels, size, classes, *_ = datasets.shape(recipe.dataset)
    drawn = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, channels, size, size), dtype=torch.uint8, generator=drawn)
    labels = torch.randperm(count, generator=drawn) * classes // count
    return datasets.Dataset(recipe.dataset, images, labels, images[:2500], labels[:2500],
                            tuple(map(str, range(classes))))


def _now(device) -> float:
    """Seconds, when the device has done all that it was asked to."""
    if device.type == "cuda":
        import torch
        torch.cuda.synchronize()
    return time.perf_counter()
