"""Which runs a profile is made of, and how they are run: grids of recipes x seeds, side by side, resumable.

A grid row is one run with the notebook it belongs to, the data set's label, the arm's name and the seed. Notebooks,
`make plan`, `make reproduce` and `make publish` all read the same grids; a run that several notebooks need is
trained once.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from typing import Callable, Iterable

from . import records
from .recipes import InputError, Recipe, baseline, nearest, offline_kd, online_kd, self_kd, spaced

NOTEBOOKS = ("00_start_here", "01_data", "02_baselines", "03_online_kd", "04_self_kd", "05_spaced_kd")


@dataclass(frozen=True)
class Setting:
    """One data set with its networks and training, before a method is chosen.

    label: how tables and figures name it. base: for the methods with plain networks. multi_exit: for self KD.
    intervals: s of online KD, epochs. self_intervals: s of self KD, epochs. controls: also the arms that explain
    the others (constant learning rate; exits trained on labels only).
    """

    label: str
    base: Recipe
    multi_exit: Recipe | None
    intervals: tuple[float, ...]
    self_intervals: tuple[float, ...]
    controls: bool = True


@dataclass(frozen=True)
class Profile:
    """What `make reproduce PROFILE=...` runs. purpose: one line for people."""

    name: str
    purpose: str
    seeds: int
    settings: tuple[Setting, ...]


def _glyphs(epochs: int, train_images: int, width: int) -> Recipe:
    """Ours: small enough for a laptop, hard enough to tell methods apart. Letters are not flipped or rotated."""
    return Recipe(dataset="glyphs", train_images=train_images, val_fraction=0.1, model="resnet8", width=width,
                  epochs=epochs, batch_size=32, lr=0.1, augment="none")


def _digits(epochs: int, train_images: int, width: int = 8) -> Recipe:
    return Recipe(dataset="digits", train_images=train_images, val_fraction=0.1, model="resnet8", width=width,
                  epochs=epochs, batch_size=16, lr=0.1, augment="none")


def _setting(label, base, intervals=(0.5, 1.0, 1.5, 2.0), self_intervals=(2.0,), exits="resnet10",
             controls=True) -> Setting:
    return Setting(label, base, replace(base, model=exits) if exits else None, intervals, self_intervals, controls)


_SLICE = Recipe(dataset="cifar100", train_images=5000, val_fraction=0.1, model="resnet8", width=8, epochs=15,
                batch_size=64, lr=0.1, eval_every=5)
_CIFAR = Recipe(dataset="cifar100", val_fraction=0.1)  # the paper's hyper-parameters are the recipe's defaults
_TINY = replace(_CIFAR, dataset="tiny-imagenet", augment="crop_flip")

PROFILES = {p.name: p for p in (
    Profile("smoke", "tests: tiny, says nothing about methods", 2, (
        _setting("digits", _digits(2, 200, 4), (1.0,), (1.0,)),)),
    Profile("quick", "the whole series without a GPU, minutes", 5, (
        _setting("glyphs", _glyphs(10, 2232, 8)),
        _setting("digits", _digits(30, 300), exits=""))),
    Profile("cifar100-slice", "real pictures without a GPU: 5,000 training images of CIFAR-100", 5, (
        _setting("CIFAR-100, 5,000 images", _SLICE, (0.5, 1.5), (2.0,), controls=False),)),
    Profile("study", "answers on the embedded data: ten seeds, to convergence; hours on two cores", 10, (
        _setting("glyphs", _glyphs(40, 0, 12), (0.5, 1.0, 1.5, 2.0, 4.0), (1.0, 2.0, 4.0)),
        _setting("digits", _digits(120, 300), (0.5, 1.0, 1.5, 2.0, 4.0), (1.0, 2.0, 4.0)))),
    Profile("core", "CIFAR-100 with ResNet-18, one GPU, an evening", 5, (
        _setting("CIFAR-100", _CIFAR, (0.5, 1.0, 1.5, 2.0, 3.0), (1.0, 2.0, 4.0), "resnet18"),)),
    Profile("paper", "the paper's sizes: CIFAR-100 and Tiny-ImageNet, ResNet-18, -50 and -101", 5, tuple(
        _setting(f"{label}, {net}", replace(base, model=net), (0.5, 1.0, 1.5, 2.0, 3.0, 4.0),
                 (0.5, 1.0, 2.0, 3.0, 4.0), net)
        for label, base in (("CIFAR-100", _CIFAR), ("Tiny-ImageNet", _TINY))
        for net in ("resnet18", "resnet50", "resnet101"))),
)}


def profile(name: str) -> Profile:
    """A profile by name.

    Raises:
        InputError: it does not exist.
    """
    if name not in PROFILES:
        raise InputError(nearest("profile", name, PROFILES))
    return PROFILES[name]


# The arms of each notebook: name -> recipe, for one setting and seed 0

def baseline_arms(setting: Setting) -> dict[str, Recipe]:
    """02_baselines: labels alone; and the constant learning rate of the released programs (A9)."""
    arms = {"baseline": baseline(setting.base)}
    if setting.controls:
        arms["baseline, constant lr"] = replace(baseline(setting.base), lr_schedule="constant")
    return arms


def online_arms(setting: Setting) -> dict[str, Recipe]:
    """03_online_kd: the teacher learns beside the student, or before it."""
    return {"baseline": baseline(setting.base), "online KD": online_kd(setting.base),
            "offline KD": offline_kd(setting.base)}


def self_arms(setting: Setting) -> dict[str, Recipe]:
    """04_self_kd: a multi-exit network's deepest exit. "exits, labels only" has the same exits, updates and cost as
    self KD but no distillation."""
    base = setting.multi_exit
    if base is None:
        return {}
    labels_only = {"exits, labels only": self_kd(base, alpha=0.0, beta=0.0)} if setting.controls else {}
    return {"baseline": baseline(base), **labels_only, "self KD": self_kd(base),
            **{f"spaced self KD s={s:g}": spaced(self_kd(base), s) for s in setting.self_intervals}}


def spaced_arms(setting: Setting) -> dict[str, Recipe]:
    """05_spaced_kd: from online KD (s = 0) over the intervals to offline KD."""
    return {"baseline": baseline(setting.base), "online KD": online_kd(setting.base),
            **{f"spaced KD s={s:g}": spaced(online_kd(setting.base), s) for s in setting.intervals},
            "offline KD": offline_kd(setting.base)}


ARMS: dict[str, Callable[[Setting], dict[str, Recipe]]] = {
    "02_baselines": baseline_arms, "03_online_kd": online_arms, "04_self_kd": self_arms,
    "05_spaced_kd": spaced_arms}


@dataclass(frozen=True)
class Row:
    """One run of a grid."""

    notebook: str
    setting: str
    arm: str
    seed: int
    recipe: Recipe


def grid(profile_name: str, notebook: str | None = None, seeds: int = 0) -> list[Row]:
    """The runs of a profile, or of one of its notebooks.

    Args:
        profile_name: one of `PROFILES`.
        notebook: e.g. "05_spaced_kd"; None for all.
        seeds: how many seeds; 0 for the profile's own number.

    Raises:
        InputError: unknown profile or notebook, or a negative number of seeds.
    """
    chosen = profile(profile_name)
    if notebook is not None and notebook not in NOTEBOOKS:
        raise InputError(nearest("notebook", notebook, NOTEBOOKS))
    if seeds < 0:
        raise InputError(f"seeds = {seeds} is out of range: give a positive count, or 0 for the profile's "
                         f"{chosen.seeds}.")
    return [Row(name, setting.label, arm, seed, replace(recipe, seed=seed))
            for name, arms in ARMS.items() if notebook in (None, name)
            for setting in chosen.settings
            for arm, recipe in arms(setting).items()
            for seed in range(seeds or chosen.seeds)]


def unique(rows: Iterable[Row]) -> list[Recipe]:
    """The recipes of a grid, each once, in order."""
    return list({row.recipe.run_id: row.recipe for row in rows}.values())


def folder(profile_name: str, seeds: int = 0) -> str:
    """Folder under results/ and figures/: the profile's own, or one apart for another number of seeds."""
    return profile_name if seeds in (0, profile(profile_name).seeds) else f"{profile_name}-{seeds}-seeds"


def check_workers(workers: int) -> None:
    """Raises:
        InputError: a negative number of workers.
    """
    if workers < 0:
        raise InputError(f"workers = {workers} is out of range: give a positive count, or 0 for one a core.")


# Running

def run(recipe: Recipe, on_epoch: Callable[[dict], None] | None = None) -> records.Record:
    """The record of one recipe: loaded, or trained here and now, with a bar of its epochs or a line now and then.

    Raises:
        InputError: the pictures of a data folder are not those of the record.
    """
    def train_now(recipe):
        from tqdm import tqdm

        from . import data
        from .train import train
        with tqdm(total=recipe.epochs, unit="epoch", disable=on_epoch is not None or not _watched()) as bar:
            shown = on_epoch or ((lambda row: bar.update()) if _watched() else _now_and_then(recipe))
            return train(recipe, data.load(recipe.dataset), on_epoch=shown)
    return _same_pictures(records.run_or_load(recipe, train_now))


def _same_pictures(record: records.Record) -> records.Record:
    """The record, if the data folder it names still holds the pictures that it was made from."""
    name = record.recipe.dataset
    if os.path.isdir(name):
        from . import data
        if data.load(name).sha256 != record.provenance["data_sha256"]:
            raise InputError(f"The pictures in {name} are not those of run {record.run_id}: restore them, or delete "
                             f"{records.runs_folder() / record.run_id} to run again.")
    return record


def _now_and_then(recipe: Recipe) -> Callable[[dict], None]:
    """Prints an epoch's number if a minute has passed since the last time."""
    last = time.monotonic()

    def line(row: dict) -> None:
        nonlocal last
        if time.monotonic() - last > 60:
            last = time.monotonic()
            print(f"  {recipe.method}, s = {recipe.interval:g}, seed {recipe.seed}: epoch {row['epoch']} of "
                  f"{recipe.epochs}", flush=True)
    return line


def _watched() -> bool:
    """Whether somebody sees a progress bar: a terminal, or a notebook that papermill or nbval does not run."""
    if os.environ.get("TQDM_DISABLE"):
        return False
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return sys.stderr.isatty() or shell is not None


def _worker_run(recipe: Recipe, quiet: bool) -> str:
    """One run in a worker process, on one thread: independent runs side by side use the cores best."""
    import torch
    if not torch.cuda.is_available():
        torch.set_num_threads(1)
    return run(recipe, (lambda row: None) if quiet else _now_and_then(recipe)).run_id


def default_workers() -> int:
    """One process a core without a GPU; one with it."""
    import torch
    if torch.cuda.is_available():
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_all(wanted: Iterable[Recipe], workers: int = 0, say: Callable[[str], None] = print) -> list[records.Record]:
    """Records of all recipes; what is finished is loaded, the rest is trained side by side.

    Args:
        wanted: recipes, repeats allowed.
        workers: processes; 0 for `default_workers()`.
        say: receives a plain line now and then when there is no terminal for a progress bar.

    Raises:
        InputError: bad input, before any training; or from a run, after all others have finished.
    """
    check_workers(workers)
    wanted = list({recipe.run_id: recipe for recipe in wanted}.values())
    missing = [recipe for recipe in wanted if records.load(recipe) is None]
    if missing:
        _check_inputs(missing)
        _train_side_by_side(missing, workers or default_workers(), say)
    return [_same_pictures(records.load(recipe)) for recipe in wanted]


def _check_inputs(missing: list[Recipe]) -> None:
    """Find bad input before any long work: data, batch sizes, networks and a writable folder."""
    from . import data, distillers
    from .batches import STATISTICS, Batches
    from .train import recipe_schedule
    records.check_writable(records.runs_folder())
    for recipe in {replace(recipe, seed=0).run_id: recipe for recipe in missing}.values():
        dataset = data.load(recipe.dataset)
        training, _ = data.split(dataset, recipe.train_images, recipe.val_fraction, recipe.seed)
        batches = Batches(dataset.train_images[training], dataset.train_labels[training], recipe.batch_size,
                          recipe.seed, recipe.augment, STATISTICS.get(recipe.normalise))
        recipe_schedule(recipe, len(batches))
        distillers.make(recipe, dataset.channels, dataset.num_classes, dataset.image_size)


def _train_side_by_side(missing: list[Recipe], workers: int, say: Callable[[str], None]) -> None:
    # Longest first: no core waits at the end for a long run that started last.
    missing = sorted(missing, key=relative_cost, reverse=True)
    progress = Progress(missing, say)
    with ProcessPoolExecutor(min(workers, len(missing)), multiprocessing.get_context("spawn"), _leave_it) as pool:
        futures = {pool.submit(_worker_run, recipe, _watched()): recipe for recipe in missing}
        failed = []
        try:
            for future in as_completed(futures):
                if isinstance(future.exception(), InputError):
                    failed.append(future.exception())  # one run that diverges must not cost the others
                else:
                    future.result()
                progress.done(futures[future])
        except BrokenProcessPool:
            raise InputError("A training process was killed, perhaps for want of memory: what is finished is kept; "
                             "give the same command again with fewer WORKERS.") from None
        except BaseException:
            for worker in multiprocessing.active_children():  # or leaving would wait for their runs to end
                worker.terminate()
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            progress.close()
    if failed:
        raise failed[0]


def _leave_it() -> None:
    """Ctrl-C in a terminal reaches every process; the parent alone answers it. A worker whose parent is gone, even by
    kill -9, ends too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def relative_cost(recipe: Recipe) -> float:
    """How long a run takes, up to a factor: image visits times what a visit costs by method. For order and
    progress only; `plan` measures."""
    visits = recipe.epochs * (recipe.train_images or 50_000)
    return visits * {"baseline": 3, "online_kd": 7, "offline_kd": 7, "self_kd": 9}[recipe.method]


class Progress:
    """A bar in a terminal or a notebook; a plain line every half minute elsewhere."""

    def __init__(self, missing: list[Recipe], say: Callable[[str], None]):
        from tqdm import tqdm
        self.total, self.finished, self.count, self.n = sum(map(relative_cost, missing)), 0.0, len(missing), 0
        self.started = self.last = time.monotonic()
        self.say, self.bar = say, None
        if _watched():
            self.bar = tqdm(total=self.count, unit="run")

    def done(self, recipe: Recipe) -> None:
        self.n, self.finished = self.n + 1, self.finished + relative_cost(recipe)
        elapsed = time.monotonic() - self.started
        left = elapsed * (self.total / self.finished - 1)
        if self.bar is not None:
            self.bar.update()
            self.bar.set_postfix_str(f"about {left:.0f} s left")
        elif time.monotonic() - self.last > 30 or self.n == self.count:
            self.last = time.monotonic()
            self.say(f"{self.n} of {self.count} runs done after {elapsed:.0f} s, about {left:.0f} s left")

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


# Planning

@dataclass(frozen=True)
class Plan:
    """What a profile would still cost on this machine."""

    runs: int
    done: int
    seconds: float
    megabytes: float


def plan(rows: list[Row], workers: int = 0) -> Plan:
    """Count the runs that are not done and estimate their time by measuring one short step of each distinct run.

    Data need not be at hand: shapes of the known sets are facts. Time is of training side by side; evaluation adds
    its forward passes.
    """
    wanted = unique(rows)
    missing = [recipe for recipe in wanted if records.load(recipe) is None]
    seconds = megabytes = 0.0
    step_times: dict[str, tuple[float, float]] = {}
    for recipe in missing:
        # Seed, interval and length change how often a step is made, not what it costs.
        step = replace(recipe, seed=0, interval=float(recipe.method == "offline_kd"), epochs=1, lr_schedule="cosine")
        if step.run_id not in step_times:
            step_times[step.run_id] = _measure(step)
        each, size = step_times[step.run_id]
        seconds += each * _image_visits(recipe)
        megabytes += size + 1500 * recipe.epochs / 1e6
    return Plan(len(wanted), len(wanted) - len(missing), seconds / (workers or default_workers()), megabytes)


def _image_visits(recipe: Recipe) -> float:
    """Training images times epochs; an evaluated test image counts as the forward third of one."""
    from . import data
    *_, train_count, test_count = data.shape(recipe.dataset)
    images = (recipe.train_images or train_count) * (1 - recipe.val_fraction)
    return recipe.epochs * images + recipe.epochs // recipe.eval_every * test_count / 3


def _measure(recipe: Recipe) -> tuple[float, float]:
    """(seconds an image of training costs, megabytes of weights a run leaves), from timed updates on grey pictures."""
    import torch

    from . import data, distillers
    from .train import optimizers
    channels, size, classes, *_ = data.shape(recipe.dataset)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    distiller = distillers.make(recipe, channels, classes, size)
    for module in distiller.modules.values():
        module.to(device, memory_format=torch.channels_last)
    affordable = int(10e9 / max(distiller.cost.values()))  # about a second's work of a processor core
    batch = recipe.batch_size if device == "cuda" else max(2, min(recipe.batch_size, affordable))
    x = torch.zeros(batch, channels, size, size, device=device).contiguous(memory_format=torch.channels_last)
    y = torch.zeros(batch, dtype=torch.int64, device=device)
    optimizer, per_image, threads = optimizers(recipe, distiller), 0.0, torch.get_num_threads()
    torch.set_num_threads(1)
    for kind in distiller.trained:
        for timed in (False, True):
            started = time.perf_counter()
            getattr(distiller, kind)(x, y)["loss"].backward()
            optimizer[kind].step()
            if device == "cuda":
                torch.cuda.synchronize()
            per_image += timed * (time.perf_counter() - started) / batch
    torch.set_num_threads(threads)
    values = sum(p.numel() for module in distiller.modules.values() for p in module.parameters())
    return per_image, 4 * values / 1e6
