"""Time: ways to do the same work, measured in turns in one process, and compared as ratios.

On a CPU the clock is the processor's, of one thread: waiting for a busy machine does not count.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Callable, Iterable, Iterator

import numpy as np
import pandas as pd
import torch

from ..data.batches import STATISTICS, Batches
from ..recipes import Recipe, baseline, online_kd, spaced
from ..training import train
from .plain import plain_loader, plain_train
from .work import Size, pictures

INTERVALS = (0.0, 0.5, 1.0, 1.5, 2.0)  # of the sweep's students, epochs


@dataclass(frozen=True)
class Case:
    """Several ways ("sides") to do one piece of work.

    pairs: (side, reference): what is compared with what. repeats: calls of each side on the clock.
    units: pieces of work done by a call of a side. warm: whether each side is called once before the clock starts.
    """

    name: str
    setting: str
    sides: dict[str, Callable[[], object]]
    pairs: list[tuple[str, str]]
    repeats: int
    units: int = 1
    warm: bool = True


def cpu_seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def gpu_seconds(work: Callable[[], object]) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    work()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1000


def measure(case: Case, seconds: Callable = cpu_seconds) -> dict[str, list[float]]:
    """Side -> seconds of each repeat; the sides take turns, so that a slow minute of the machine meets them all."""
    for work in case.sides.values() if case.warm else ():
        work()
    times = {side: [] for side in case.sides}
    for _ in range(case.repeats):
        for side, work in case.sides.items():
            times[side].append(seconds(work) / case.units)
    return times


def median_seconds(work: Callable[[], object], repeats: int, seconds: Callable = cpu_seconds) -> float:
    """Return the median seconds of a call, after a first one."""
    return float(np.median(measure(Case("", "", {"": work}, [], repeats), seconds)[""]))


def ratios(case: Case, times: dict[str, list[float]]) -> list[dict]:
    """Return a line for each pair of a case: how many times faster the side is than its reference, by medians."""
    median = {side: float(np.median(values)) for side, values in times.items()}
    return [{"Work": case.name, "Setting": case.setting, "Way": side, "Against": reference,
             "Way (ms)": 1000 * median[side], "Against (ms)": 1000 * median[reference],
             "Times faster": median[reference] / median[side], "Repeats": len(times[side])}
            for side, reference in case.pairs]


def interval_case(size: Size, precisions: tuple[str, ...]) -> Case:
    """Spaced KD, one interval of two batches: the teacher learns both, then the student does."""
    dataset = pictures(2 * size.batch)
    recipes = {f"engine, {p}": spaced(online_kd(size.recipe(size.batch, 1, p)), 1.0) for p in precisions}
    sides = {"plain": lambda: plain_train(next(iter(recipes.values())), dataset)} | {
        side: lambda recipe=recipe: train.train(recipe, dataset, "cpu") for side, recipe in recipes.items()}
    return Case("spaced KD, one interval", f"{size.model}, 2 batches of {size.batch}", sides,
                [(side, "plain") for side in recipes], size.repeats)


def sweep_recipes(size: Size, precision: str) -> list[Recipe]:
    """Make the teacher as baseline, online KD, and four intervals: two epochs of two batches."""
    base = size.recipe(size.small_batch, 2, precision)
    return [replace(baseline(base), start="teacher"), *(online_kd(base, interval=s) for s in INTERVALS)]


def sweep_case(size: Size, precisions: tuple[str, ...]) -> Case:
    """Six runs of a seed: one by one in the plain way, one by one by the engine, and in lockstep.

    By counting, an update as three forward passes, a batch costs 3 + 5 (3 + 1 + 3) passes one by one, and
    3 + 5 (1 + 3) in lockstep, whose one teacher is the baseline: 1.65 times fewer.
    """
    dataset, fp32 = pictures(2 * size.small_batch), sweep_recipes(size, "fp32")
    sides = {"plain, run by run": lambda: [plain_train(recipe, dataset) for recipe in fp32]}
    pairs = []
    if "fp32" in precisions:
        sides |= {"engine, run by run": lambda: [train.train(recipe, dataset, "cpu") for recipe in fp32]}
        pairs = [("lockstep, fp32", "engine, run by run")]
    for precision in precisions:
        recipes = sweep_recipes(size, precision)
        sides[f"lockstep, {precision}"] = lambda recipes=recipes: train.sweep(recipes, dataset, "cpu")
        pairs.append((f"lockstep, {precision}", "plain, run by run"))
    return Case("sweep: baseline, online KD, s = 0.5 to 2", f"{size.model}, 4 batches of {size.small_batch} a run",
                sides, pairs, size.repeats, warm=False)


def augment_case(size: Size, augment: str) -> Case:
    """Four augmented, normalised batches."""
    dataset = pictures(4 * size.batch)
    loader = plain_loader(dataset, size.batch, augment)
    batches = Batches(dataset.train_images, dataset.train_labels, size.batch, 0, augment, STATISTICS["cifar100"])
    return Case(f"a batch with {augment}", f"{size.batch} images of 32 pixels",
                {"PIL, one by one": lambda: list(loader), "the batch at once": lambda: [batches[i] for i in range(4)]},
                [("the batch at once", "PIL, one by one")], 5, units=4)


def bf16_is_native() -> bool:
    """Return whether this processor multiplies in bf16 faster than in fp32; others imitate it, many times slower."""
    fp32 = torch.randn(256, 256)
    bf16 = fp32.bfloat16()
    return median_seconds(lambda: bf16 @ bf16, 3) < median_seconds(lambda: fp32 @ fp32, 3)


def speed_cases(size: Size) -> Iterator[Case]:
    """Yield the cases of a CPU; where bf16 is imitated its cases are small and run once."""
    parts = [(size, ("fp32", "bf16"))] if bf16_is_native() else [
        (size, ("fp32",)), (replace(size, batch=4, small_batch=4, repeats=1), ("bf16",))]
    for part, precisions in parts:
        yield interval_case(part, precisions)
        yield sweep_case(part, precisions)
    for augment in ("crop_flip_rotate", "autoaugment_cutout", "strong"):
        yield augment_case(size, augment)


def compared(cases: Iterable[Case]) -> tuple[pd.DataFrame, dict]:
    """Measure the table of ratios of cases, and all times in seconds: case -> setting -> side -> repeats."""
    lines, raw = [], []
    for case in cases:
        times = measure(case)
        raw.append({"case": case.name, "setting": case.setting, "seconds": times})
        lines += ratios(case, times)
        print(*(f"{line['Work']}: {line['Way']} against {line['Against']}: {line['Times faster']:.2f} times faster"
                for line in lines[-len(case.pairs):]), sep="\n", flush=True)
    return pd.DataFrame(lines), {"times": raw}
