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
import torch.nn.functional as F

from ..data.batches import STATISTICS, Batches
from ..models.resnet import ResNet
from ..recipes import Recipe, baseline, online_kd, spaced, teacher_of
from ..training import train
from .plain import plain_loader, plain_train
from .work import Size, pictures

INTERVALS = (0.0, 0.5, 1.0, 1.5, 2.0)  # of the sweep's students, epochs


@dataclass(frozen=True)
class Case:
    """Several ways ("sides") to do one piece of work.

    pairs: (side, reference, ratio expected by counting or NaN): what is compared with what.
    units: pieces of work done by a call of a side. warm: whether each side is called once before the clock starts.
    """

    name: str
    setting: str
    sides: dict[str, Callable[[], object]]
    pairs: list[tuple[str, str, float]]
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


def measure(case: Case, repeats: int, seconds: Callable = cpu_seconds) -> dict[str, list[float]]:
    """Side -> seconds of each repeat; the sides take turns, so that a slow minute of the machine meets them all."""
    for work in case.sides.values() if case.warm else ():
        work()
    times = {side: [] for side in case.sides}
    for _ in range(repeats):
        for side, work in case.sides.items():
            times[side].append(seconds(work) / case.units)
    return times


def median_seconds(work: Callable[[], object], repeats: int, seconds: Callable = cpu_seconds) -> float:
    """Return the median seconds of a call, after a first one."""
    return float(np.median(measure(Case("", "", {"": work}, []), repeats, seconds)[""]))


def ratios(case: Case, times: dict[str, list[float]]) -> list[dict]:
    """Return a line for each pair of a case: how many times faster the side is than its reference, by medians."""
    median = {side: float(np.median(values)) for side, values in times.items()}
    return [{"Work": case.name, "Setting": case.setting, "Way": side, "Against": reference,
             "Way (ms)": 1000 * median[side], "Against (ms)": 1000 * median[reference],
             "Times faster": median[reference] / median[side], "By counting": expected, "Repeats": len(times[side])}
            for side, reference, expected in case.pairs]


def interval_case(size: Size, precisions: tuple[str, ...]) -> Case:
    """Spaced KD, one interval of two batches: the teacher learns both, then the student does."""
    dataset = pictures(2 * size.batch)
    recipes = {f"engine, {p}": spaced(online_kd(size.recipe(size.batch, 1, p)), 1.0) for p in precisions}
    sides = {"plain": lambda: plain_train(next(iter(recipes.values())), dataset)} | {
        side: lambda recipe=recipe: train.train(recipe, dataset, "cpu") for side, recipe in recipes.items()}
    return Case("spaced KD, one interval", f"{size.model}, 2 batches of {size.batch}", sides,
                [(side, "plain", np.nan) for side in recipes])


def sweep_recipes(size: Size, precision: str) -> list[Recipe]:
    """Make the teacher as baseline, online KD, and four intervals: two epochs of two batches."""
    base = size.recipe(size.small_batch, 2, precision)
    return [replace(baseline(base), start="teacher"), *(online_kd(base, interval=s) for s in INTERVALS)]


def forward_units(recipes: list[Recipe], shared: bool) -> int:
    """Count the forward passes that a batch costs: an update counts three, a look at the teacher one.

    shared: one teacher for all, which is the baseline too.
    """
    students = sum(recipe != teacher_of(recipe) for recipe in recipes)
    teachers = 1 if shared else len(recipes)
    return 3 * teachers + (1 + 3) * students


def sweep_case(size: Size, precisions: tuple[str, ...]) -> Case:
    """Six runs of a seed: one by one in the plain way, one by one by the engine, and in lockstep."""
    dataset, fp32 = pictures(2 * size.small_batch), sweep_recipes(size, "fp32")
    sides = {"plain, run by run": lambda: [plain_train(recipe, dataset) for recipe in fp32]}
    pairs, counted = [], forward_units(fp32, False) / forward_units(fp32, True)
    if "fp32" in precisions:
        sides |= {"engine, run by run": lambda: [train.train(recipe, dataset, "cpu") for recipe in fp32]}
        pairs = [("lockstep, fp32", "engine, run by run", counted)]
    for precision in precisions:
        recipes = sweep_recipes(size, precision)
        sides[f"lockstep, {precision}"] = lambda recipes=recipes: train.sweep(recipes, dataset, "cpu")
        pairs.append((f"lockstep, {precision}", "plain, run by run", np.nan))
    return Case("sweep: baseline, online KD, s = 0.5 to 2", f"{size.model}, 4 batches of {size.small_batch} a run",
                sides, pairs, warm=False)


def augment_case(size: Size, augment: str) -> Case:
    """Four augmented, normalised batches."""
    dataset = pictures(4 * size.batch)
    loader = plain_loader(dataset, size.batch, augment)
    batches = Batches(dataset.train_images, dataset.train_labels, size.batch, 0, augment, STATISTICS["cifar100"])
    return Case(f"a batch with {augment}", f"{size.batch} images of 32 pixels",
                {"PIL, one by one": lambda: list(loader), "the batch at once": lambda: [batches[i] for i in range(4)]},
                [("the batch at once", "PIL, one by one", np.nan)], units=4)


def step(bf16: bool) -> Callable[[], None]:
    """Return a function that makes one update of a small network on one batch."""
    layout = torch.channels_last
    net = ResNet("resnet8", 100, width=16).to(memory_format=layout)
    sgd = torch.optim.SGD(net.parameters(), lr=0.01)
    x, y = torch.randn(16, 3, 32, 32).contiguous(memory_format=layout), torch.zeros(16, dtype=torch.int64)

    def work() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = F.cross_entropy(net(x).logits, y)
        sgd.zero_grad()
        loss.backward()
        sgd.step()
    return work


def bf16_is_native() -> bool:
    """Return whether this processor computes in bf16 faster than in fp32; others imitate it, many times slower."""
    return median_seconds(step(bf16=True), 3) < median_seconds(step(bf16=False), 3)


def speed_cases(size: Size) -> Iterator[tuple[Case, int]]:
    """Yield the cases of a CPU and their repeats; where bf16 is imitated its cases are small and run once."""
    parts = [(size, ("fp32", "bf16"))] if bf16_is_native() else [
        (size, ("fp32",)), (replace(size, batch=4, small_batch=4, repeats=1), ("bf16",))]
    for part, precisions in parts:
        yield interval_case(part, precisions), part.repeats
        yield sweep_case(part, precisions), part.repeats
    for augment in ("crop_flip_rotate", "autoaugment_cutout", "strong"):
        yield augment_case(size, augment), 5


def speed(size: Size) -> tuple[pd.DataFrame, dict]:
    """Measure the table of ratios, and all times in seconds."""
    return compared(speed_cases(size))


def compared(cases: Iterable[tuple[Case, int]]) -> tuple[pd.DataFrame, dict]:
    """Measure the table of ratios of cases, and all times in seconds: case -> setting -> side -> repeats."""
    lines, raw = [], []
    for case, repeats in cases:
        times = measure(case, repeats)
        raw.append({"case": case.name, "setting": case.setting, "seconds": times})
        lines += ratios(case, times)
        print(*(f"{line['Work']}: {line['Way']} against {line['Against']}: {line['Times faster']:.2f} times faster"
                for line in lines[-len(case.pairs):]), sep="\n", flush=True)
    return pd.DataFrame(lines), {"times": raw}
