"""Memory held for a replay, and how time and memory grow. Each measurement has a process of its own."""

from __future__ import annotations

import gc
import multiprocessing
import re
import resource
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Callable, Iterable

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from ..data.batches import STATISTICS, Batches
from ..methods.build import recipe_schedule
from ..recipes import Recipe, online_kd
from ..report import figures
from ..schedule import interval_batches, lockstep
from ..store import records
from ..training import train
from .plain import plain_loader
from .speed import median_seconds
from .work import Size, pictures


def held_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of the storages of tensors, each storage once."""
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


def live_bytes() -> int:
    """Bytes of all tensors of this process that Python can reach."""
    return held_bytes(thing for thing in gc.get_objects() if issubclass(type(thing), Tensor))


def resident_bytes(peak: bool = False) -> int:
    """Memory of this process, now or at its highest. Not `getrusage` on Linux: a process inherits its parent's peak."""
    status = Path("/proc/self/status")
    if status.exists():
        return 1024 * int(re.search(rf"{'VmHWM' if peak else 'VmRSS'}:\s+(\d+)", status.read_text())[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def hold_plain(size: Size, interval: float) -> dict[str, int]:
    """Measure what a replay holds that stores its batches, in bytes: its tensors, and by how much the process grew."""
    loader = plain_loader(pictures(size.pictures), size.batch)
    before, epoch_after_epoch = resident_bytes(), chain.from_iterable(repeat(loader))
    stored = list(islice(epoch_after_epoch, interval_batches(len(loader), interval)))
    return {"tensors": held_bytes(t for batch in stored for t in batch), "process": resident_bytes(peak=True) - before}


def hold_engine(size: Size, interval: float) -> dict[str, int]:
    """Measure the same of a replay that makes its batches again: tensors beyond the data set, each tenth batch."""
    dataset = pictures(size.pictures)
    batches = Batches(dataset.train_images, dataset.train_labels, size.batch, 0, "crop_flip_rotate",
                      STATISTICS["cifar100"])
    before, live, most = resident_bytes(), live_bytes(), 0
    length = interval_batches(len(batches), interval)
    for number, i in enumerate([*range(length), *range(length)], 1):  # the teacher's turn, then the student's
        batch = batches[i]  # noqa: F841  alive while it is counted
        if number % 10 == 0 or number % length == 0:
            most = max(most, live_bytes() - live)
    return {"tensors": most, "process": resident_bytes(peak=True) - before}


def apart(function: Callable, *arguments):
    """Return the result of a function in a process of its own, whose memory nothing else has touched."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # imports once, before anything is allocated
    with ProcessPoolExecutor(1, context, torch.set_num_threads, (1,)) as pool:
        return pool.submit(function, *arguments).result()


def memory(size: Size, interval: float = 1.5) -> tuple[pd.DataFrame, dict]:
    """Megabytes held for one replay of `interval` epochs, beyond the data set, which both ways keep as bytes."""
    ways = {"plain: stored batches": hold_plain, "engine: batches made again": hold_engine}
    found = {way: apart(hold, size, interval) for way, hold in ways.items()}
    length = interval_batches(-(-size.pictures // size.batch), interval)
    lines = [{"Way": way, "Setting": f"s = {interval:g}, {size.pictures:,} images of 32 pixels, batch {size.batch}",
              "Batches replayed": length, "Tensors held (MB)": held["tensors"] / 1e6,
              "Process grew by (MB)": held["process"] / 1e6} for way, held in found.items()]
    return pd.DataFrame(lines), {"interval": interval, "data_set_bytes": size.pictures * 3 * 32 * 32}


# How cost grows

@dataclass(frozen=True)
class Point:
    """One training of `growth`: recipes in lockstep on `pixels` x `pixels` images; x is where it is drawn."""

    panel: str
    x: float
    recipes: tuple[Recipe, ...]
    pixels: int = 16


def growth_points(count: int) -> list[Point]:
    """Five values or fewer of each quantity, all others fixed: 4 epochs, s = 1, one student, 16 pixels."""
    base = Recipe(dataset="random pictures", model="resnet8", width=8, batch_size=32, epochs=4, lr_schedule="constant",
                  normalise="cifar100", eval_every=100)
    one = online_kd(base, interval=1.0)
    together = [online_kd(base, interval=s) for s in (1.0, 0.5, 1.5, 2.0, 2.5, 3.0)]
    return [*(Point("epochs", e, (replace(one, epochs=e),)) for e in (2, 4, 8, 12, 16)[:count]),
            *(Point("space interval s (epochs)", s, (replace(one, interval=s),))
              for s in (0.5, 1.0, 2.0, 3.0, 4.0)[:count]),
            *(Point("students in lockstep", n, tuple(together[:n])) for n in (1, 2, 3, 4, 6)[:count]),
            *(Point("image size (pixels)", p * p, (one,), p) for p in (8, 16, 24, 32, 40)[:count])]


def train_point(point: Point, repeats: int) -> dict[str, float]:
    """Measure a training's time and memory.

    Returns:
        Its seconds (median), bytes that its replays hold (see `hold_engine`), bytes that they would hold with their
        batches stored, and the process's peak.
    """
    dataset, recipes = pictures(512, point.pixels), list(point.recipes)
    seconds = median_seconds(lambda: train.sweep(recipes, dataset, "cpu"), repeats)
    process, most = resident_bytes(peak=True), 0
    gc.collect()
    batches = Batches(dataset.train_images, dataset.train_labels, recipes[0].batch_size, 0, recipes[0].augment)
    live = live_bytes()
    for event, _ in lockstep({r.run_id: recipe_schedule(r, len(batches)) for r in recipes}):
        if event.kind == "epoch":
            most = max(most, live_bytes() - live)
        else:
            batch = batches[event.index]  # alive while it is counted
    longest = max(interval_batches(len(batches), recipe.interval) for recipe in recipes)
    return {"seconds": seconds, "replay_bytes": most, "stored_bytes": longest * held_bytes(batch),
            "process_bytes": process}


def growth(size: Size) -> tuple[pd.DataFrame, dict]:
    """Make a table of a line for each panel: how time and memory change from its first point to its last."""
    points = growth_points(size.points)
    found = pd.DataFrame([{"panel": p.panel, "x": p.x, **apart(train_point, p, size.repeats)} for p in points])
    lines = []
    for panel, part in found.groupby("panel", sort=False):
        first, last = part.iloc[0], part.iloc[-1]
        lines.append({"Against": panel, "From": float(first["x"]), "To": float(last["x"]),
                      "Time, first (s)": first["seconds"], "Time, last (s)": last["seconds"],
                      "R² of a straight line": float(np.corrcoef(part["x"], part["seconds"])[0, 1] ** 2),
                      "Slowest / fastest": part["seconds"].max() / part["seconds"].min(),
                      "Replay, first (MB)": first["replay_bytes"] / 1e6,
                      "Replay, last (MB)": last["replay_bytes"] / 1e6,
                      "Process, first (MB)": first["process_bytes"] / 1e6,
                      "Process, last (MB)": last["process_bytes"] / 1e6})
    path = records.ROOT / "figures" / size.folder / "growth.png"
    figures.save(growth_figure(found), path, [r.run_id for p in points for r in p.recipes])
    return pd.DataFrame(lines), {"points": found.to_dict("records")}


def growth_figure(found: pd.DataFrame) -> Figure:
    """Draw a column for each panel: time with its straight line above, memory below."""
    figures.apply_style()
    panels = list(dict.fromkeys(found["panel"]))
    fig, axes = figures.plt.subplots(2, len(panels), figsize=(figures.PAGE, 3.4), sharex="col", sharey="row",
                                     squeeze=False, layout="constrained")
    for (time_ax, memory_ax), panel in zip(axes.T, panels):
        part = found[found["panel"] == panel]
        time_ax.plot(part["x"], np.polyval(np.polyfit(part["x"], part["seconds"], 1), part["x"]), color="#b0b0b0")
        time_ax.plot(part["x"], part["seconds"], "o", color="#0072B2")
        memory_ax.plot(part["x"], part["process_bytes"] / 1e6, "s-", color="#666666", label="whole process, peak")
        memory_ax.plot(part["x"], part["stored_bytes"] / 1e6, "^:", color="#E69F00",
                       label="stored batches would be")
        memory_ax.plot(part["x"], part["replay_bytes"] / 1e6, "o-", color="#D55E00", label="held for replays")
        memory_ax.set(xlabel=panel, yscale="log")
        for ax in (time_ax, memory_ax):
            ax.grid(axis="y")
        time_ax.set_ylim(0)
        if "pixels" in panel:
            memory_ax.set_xticks(part["x"], [f"{x**0.5:.0f}²" for x in part["x"]])
    axes[0, 0].set_ylabel("time (s)")
    axes[1, 0].set_ylabel("memory (MB)")
    fig.legend(*axes[1, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return fig
