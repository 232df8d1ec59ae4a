"""Cost of a profile on this machine, timed by the very loop that trains."""

from __future__ import annotations

import math
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import groupby, islice
from typing import Iterator, NamedTuple

from ..recipes import Recipe, one_step_a_block, short_form, teacher_of
from ..schedule import interval_batches
from ..store import records
from .arms import batches_per_epoch
from .grids import Row, unique
from .running import check_workers, default_workers
from .sweeps import sweeps

BATCHES = {"cpu": 2, "cuda": 20}  # of an epoch in which updates are timed, after another one (ours)


@dataclass(frozen=True)
class Plan:
    """What a profile would still cost on this machine.

    first: seconds by which the first updates of the slowest network exceed later ones.
    """

    runs: int
    done: int
    seconds: float
    megabytes: float
    first: float


class Cost(NamedTuple):
    """What a recipe costs on this machine, in seconds a picture.

    update: by kind. before: seconds before each evaluation. look: of evaluation; more: of it in a sweep, where a
    shared teacher is asked once. first: seconds by which the first updates exceed later ones. megabytes: of weights
    that a run leaves. train, test: pictures of the data set.
    """

    update: dict[str, float]
    before: float
    look: float
    more: float
    first: float
    megabytes: float
    train: int
    test: int


def plan(rows: list[Row], workers: int | str = 0) -> Plan:
    """Count the runs that are not done and estimate their time by timing the loop of each distinct recipe.

    Data need not be at hand: shapes of the known sets are facts. Processes are taken not to slow each other.
    """
    wanted, workers = unique(rows), check_workers(workers)
    missing = [recipe for recipe in wanted if records.load(recipe) is None]
    workers, measured = workers or default_workers(missing), cache(_measure)
    with one_thread():
        costs = {recipe: measured(short_form(recipe)) for recipe in missing}
    seconds = sum(_seconds(recipe, costs[recipe], shares=i > 0)
                  for sweep in sweeps(missing, workers) for i, recipe in enumerate(sweep.recipes) if recipe in costs)
    megabytes = sum(cost.megabytes + 1500 * recipe.epochs / 1e6 for recipe, cost in costs.items())
    return Plan(len(wanted), len(wanted) - len(missing), seconds / workers, megabytes,
                max((cost.first for cost in costs.values()), default=0.0))


@contextmanager
def one_thread() -> Iterator[None]:
    """Set torch to one thread within this context, as the worker processes have it."""
    import torch
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _seconds(recipe: Recipe, cost: Cost, shares: bool = False) -> float:
    """Estimate the seconds of a run's updates and its evaluation at epochs' ends; or of what it adds to a sweep."""
    if shares and recipe == teacher_of(recipe):
        return 0.0
    images = recipe.train_images or cost.train
    held_out = recipe.val_fraction * images
    passes = {"teach": float(not shares)}
    if one_step_a_block(recipe) and recipe.interval:
        passes["learn"] = 1 / max(interval_batches(batches_per_epoch(recipe), recipe.interval), 1)
    training = (images - held_out) * sum(passes.get(kind, 1) * each for kind, each in cost.update.items())
    look = cost.before + (cost.test + held_out) * (cost.more if shares else cost.look)
    return recipe.epochs * training + math.ceil(recipe.epochs / recipe.eval_every) * look


def _measure(recipe: Recipe) -> Cost:
    """Time the very loop that trains, on random pictures: batches, updates and evaluation."""
    import torch

    from ..data import datasets
    from ..training.provenance import repeatable
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    repeatable(device)
    run, batches, evaluate, scored = _assembled(recipe, device)
    each, first = _updates(run, batches, device)
    images = {"teach": len(batches.images) / len(batches)}
    evaluate([run])  # a first time takes longer
    times, prepare = [now(device)], run.method.before_scores
    run.method.before_scores = list  # which does nothing: it is timed apart
    for look in (prepare, partial(evaluate, [run]), partial(evaluate, [run] * 2)):
        look()
        times.append(now(device))
    before, alone, both = (end - begin for begin, end in zip(times, times[1:]))
    values = sum(p.numel() for module in run.method.modules.values() for p in module.parameters())
    return Cost({kind: one / images.get(kind, run.recipe.batch_size) for kind, one in each.items()}, before,
                alone / scored, max(both - alone, 0.0) / scored, first, 4 * values / 1e6,
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
                            tuple(map(str, range(classes))), sha256="")


def _updates(run, batches, device) -> tuple[dict[str, float], float]:
    """Measure an update's seconds by its kind, in the second half of a run; and the excess of the first updates.

    A GPU is waited for only where the kind changes, as in training it hardly ever is.
    """
    from ..methods.build import recipe_schedule
    from ..training import graphs
    from ..training.loop import walk
    course = batches.course(run.recipe)
    walked, found = walk([run], batches, lambda runs: [{}]), {}  # kind -> [(seconds, updates)]
    with closing(graphs.Graphs([run], graphs.chosen(None, device), device)):
        for kind, events in groupby(event.kind for event in recipe_schedule(run.recipe, course)):
            count, begun = len(list(events)), now(device)
            for _ in islice(walked, count):
                pass
            found.setdefault(kind, []).append((now(device) - begun, count))
    del found["epoch"]
    later = {kind: [sum(column) for column in zip(*times[len(times) // 2:])] for kind, times in found.items()}
    each = {kind: seconds / count for kind, (seconds, count) in later.items()}
    return each, sum(times[0][0] - times[0][1] * each[kind] for kind, times in found.items())


def now(device) -> float:
    """Seconds, when the device has done all that it was asked to."""
    if device.type == "cuda":
        import torch
        torch.cuda.synchronize()
    return time.perf_counter()
