"""Which runs a profile is made of, and how they are run: grids of recipes x seeds, side by side, resumable.

A grid row is one run with the notebook it belongs to, the data set's label, the arm's name and the seed. Notebooks,
`make plan`, `make reproduce` and `make publish` all read the same grids; a run that several notebooks need is
trained once. Runs that share a teacher are trained together, as a sweep.
"""

from __future__ import annotations

import hashlib
import json
import math
import multiprocessing
import os
import shutil
import sys
import time
from concurrent.futures import FIRST_COMPLETED, Executor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import groupby, islice
from pathlib import Path
from typing import Callable, Iterable, Iterator, NamedTuple

from ..cluster.executors import LocalProcesses, logged, within_memory
from ..errors import InputError, nearest
from ..recipes import (
    Recipe, education, forward_passes, from_dict, ie_kd, one_step_a_block, short_form, teacher_of, transformer,
)
from ..schedule import interval_batches
from ..store import records
from . import tuning
from .arms import ARMS, AUDIT, CONTROLS, FAMILIES, MAIN, SELF_AUDIT, Setting, arms_of, batches_per_epoch

NOTEBOOKS = ("00_start_here", "01_data", "02_baselines", "03_online_kd", "04_self_kd", "05_spaced_kd",
             "06_loss_landscape", "07_robustness", "08_theory", "09_released_code_audit", "10_ie_kd",
             "11_education_distillation", "12_vision_transformers", "13_spacing_beyond_kd")

MEASURING = ("06_loss_landscape", "07_robustness")  # both measure the same runs, all of them of 05


@dataclass(frozen=True)
class Profile:
    """What `make reproduce PROFILE=...` runs. purpose: one line for people. first: the first seed. Tuning has used 100
    to 102. Seeds from 200 on judge claims, so the miniature has others and foretells nothing."""

    name: str
    purpose: str
    seeds: int
    settings: tuple[Setting, ...]
    first: int = 200


def _digits(epochs: int, train_images: int, width: int = 8) -> Recipe:
    return Recipe(dataset="digits", train_images=train_images, val_fraction=0.1, model="resnet8", width=width,
                  epochs=epochs, batch_size=16, lr=0.1, augment="none")


# Ours: small enough for a laptop, hard enough to tell methods apart, and converged: 99.9% of the training images are
# learnt. Letters are not flipped or rotated.
GLYPHS = Recipe(dataset="glyphs", train_images=2232, val_fraction=0.1, model="resnet8", width=8, epochs=30,
                batch_size=64, lr=0.1, augment="none", eval_every=10)
SLICE = Recipe(dataset="cifar100", train_images=5000, val_fraction=0.1, model="resnet8", width=8, epochs=40,
               batch_size=64, lr=0.1, eval_every=20)
_MINIATURE = replace(GLYPHS, epochs=10)
_CIFAR = Recipe(dataset="cifar100", val_fraction=0.1)  # the paper's hyper-parameters are the recipe's defaults
_CIFAR_BF16 = replace(_CIFAR, precision="bf16")  # ours, to be fast; on a GPU "fp32" would be TF32 in convolutions
_CIFAR_FACTORS = ie_kd(replace(_CIFAR_BF16, model="resnet20", epochs=160, lr=0.1), teacher_model="resnet56",
                       ramp_epochs=5.0)
_CIFAR_SCHOOLS = education(replace(_CIFAR_BF16, model="resnet20", epochs=240, lr=0.05, lr_schedule="late_steps"),
                           (33, 33, 34), teacher_model="resnet110")
_CIFAR_TRANSFORMER = transformer(_CIFAR_BF16, image_size=32, patch_size=4)
_TINY = replace(_CIFAR, dataset="tiny-imagenet", augment="crop_flip")
# Of 0.05, 0.1, 0.2, 0.3 and 0.5, on validation pictures of seed 100, which no result uses: the largest rate at which so
# small a network still learns. As all trials of `_factors` and `_small_transformer` it had ten epochs, batches of 32.
_DROPOUT = 0.1


def _factors(base: Recipe) -> Recipe:
    """Weights of 10. Of 1, 10, 30, 100 and 300, on validation pictures of seed 100: accuracy falls with the weight, and
    10 is the smallest at which the encoded halves go where they are asked to (cosines 0.9 and -0.6)."""
    return ie_kd(base, inherit_weight=10.0, explore_weight=10.0)


def _small_transformer(base: Recipe, **changes) -> Recipe:
    """A DeiT of two blocks on pictures as small as they are; letters and digits are not cropped or mirrored. Heads do
    not start at zero, as the released ones do: 600 updates are too few then (6% of letters after ten epochs). Of 1, 2,
    3, 4 and 6 thousandths the rate was chosen on validation pictures of seeds 100 to 102."""
    return transformer(base, **dict(image_size=0, patch_size=8, width=64, depth=2, heads=4, augment=base.augment,
                                    head_init="timm", normalise="own", epochs=base.epochs, batch_size=32, lr=4e-3,
                                    warmup_epochs=1, eval_every=base.eval_every) | changes)


def _on_glyphs(label: str, base: Recipe, **changes) -> Setting:
    """With all other methods, too: digits, capitals and small letters are the groups of Education Distillation."""
    return Setting(label, base, **dict(tuned="glyphs", exits="resnet10", self_intervals=(2.0,), factors=_factors(base),
                                       schools=education(base, (10, 26, 26)), transformer=_small_transformer(base),
                                       dropout=_DROPOUT) | changes)


_TINY_DIGITS = _digits(2, 200, 4)
PROFILES = {p.name: p for p in (
    Profile("smoke", "tests: tiny, says nothing about methods", 2, (
        Setting("digits", _TINY_DIGITS, exits="resnet10", self_intervals=(1.0,),
                controls=tuple(CONTROLS)[:3], audit=("A1",), factors=_factors(_TINY_DIGITS),
                schools=education(_TINY_DIGITS, (5, 5)), dropout=_DROPOUT,
                transformer=_small_transformer(_TINY_DIGITS, patch_size=4, width=16, depth=1, heads=2, batch_size=16)),
        Setting("digits, lead and lag", _TINY_DIGITS, lags=True)), first=0),
    Profile("quick", "the whole series without a GPU, in minutes: a miniature", 3, (
        _on_glyphs("glyphs, miniature", _MINIATURE, tuned="", intervals=(0.5, 1.5, 4.0),
                   controls=("online KD, eval mode",), audit=("A1",)),), first=300),
    Profile("study", "answers on the embedded data: tuned, converged; hours on two cores", 5, (
        _on_glyphs("glyphs", GLYPHS, intervals=(0.5, 1.5, 4.0), seeds=20, controls=tuple(CONTROLS), audit=AUDIT,
              self_audit=SELF_AUDIT, self_intervals=(2.0, 4.0)),
        Setting("glyphs, lead and lag", GLYPHS, "glyphs", lags=True, seeds=20))),
    Profile("cifar100-slice", "real pictures without a GPU: 5,000 training images of CIFAR-100", 6, (
        Setting("CIFAR-100, 5,000 images", SLICE, "cifar100-slice"),)),
    Profile("core", "CIFAR-100 with ResNet-18 and a DeiT of 32 pixels, one GPU; not run yet", 5, (
        Setting("CIFAR-100", _CIFAR_BF16, exits="resnet18", intervals=(0.5, 1.0, 1.5, 2.0, 3.0),
                self_intervals=(1.0, 2.0, 4.0), controls=tuple(CONTROLS), audit=("A19", "A9", "A1", "A2"),
                self_audit=("A3",), factors=_CIFAR_FACTORS, schools=_CIFAR_SCHOOLS, transformer=_CIFAR_TRANSFORMER,
                dropout=0.5),)),
    Profile("paper", "the paper's sizes: CIFAR-100 and Tiny-ImageNet, three ResNets; CIFAR-100, five transformers", 5, (
        *(Setting(f"{label}, {net}", replace(base, model=net), exits=net, intervals=(0.5, 1.0, 1.5, 2.0, 3.0, 4.0),
                  self_intervals=(0.5, 1.0, 2.0, 3.0, 4.0))
        for label, base in (("CIFAR-100", _CIFAR), ("Tiny-ImageNet", _TINY))
        for net in ("resnet18", "resnet50", "resnet101")),
        *(Setting(f"CIFAR-100, {net} at 224 pixels", None, transformer=transformer(_CIFAR, model=net))
          for net in ("timm/deit_tiny_patch16_224", "timm/pit_ti_224", "timm/pvt_v2_b0", "pvt_tiny", "t2t_vit_7")))),
)}


# What `make tune` tunes, by the label of results/tuning
def _task(base: Recipe, exits: str = "") -> tuning.Task:
    """All families of a base; those of self KD have exits."""
    soft = ("online KD", "online KD, asked before", "spaced KD", "offline KD", "self KD")
    spaces = {"label smoothing": tuning.SMOOTHING, "SAM": tuning.SAM, **dict.fromkeys(soft, tuning.SOFT)}
    with_exits = replace(base, model=exits) if exits else None
    bases = {name: with_exits if name in ("exits, labels only", "self KD") else base for name in FAMILIES}
    return tuning.Task(base, {name: tuning.Family(make(bases[name]), spaces.get(name, {}))
                              for name, make in FAMILIES.items() if bases[name]})


TUNED = {"glyphs": _task(GLYPHS, "resnet10"), "cifar100-slice": _task(SLICE)}


def profile(name: str) -> Profile:
    """A profile by name.

    Raises:
        InputError: it does not exist.
    """
    if name not in PROFILES:
        raise InputError(nearest("profile", name, PROFILES))
    return PROFILES[name]


@dataclass(frozen=True)
class Row:
    """One run of a grid. arm, family: see `arms.Arm`."""

    notebook: str
    setting: str
    arm: str
    seed: int
    recipe: Recipe
    family: str = ""


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
    return [Row(name, setting.label, arm.name, seed, replace(arm.recipe, seed=seed), arm.family)
            for name in ARMS if notebook in (None, name)
            for setting in chosen.settings
            for arm in arms_of(setting, name)
            for seed in map(tuning.check_seed, seeds_of(chosen, setting, name, seeds))]


def seeds_of(chosen: Profile, setting: Setting, notebook: str, seeds: int = 0) -> range:
    """The seeds of a setting's arms in a notebook; `seeds`: another number of them."""
    count = seeds or notebook in MAIN and setting.seeds or chosen.seeds
    return range(chosen.first, chosen.first + count)


def unique(rows: Iterable[Row]) -> list[Recipe]:
    """The recipes of a grid, each once, in order."""
    return list({row.recipe.run_id: row.recipe for row in rows}.values())


def folder(profile_name: str, seeds: int = 0) -> str:
    """Folder under results/ and figures/: the profile's own, or one apart for other numbers of seeds."""
    chosen = profile(profile_name)
    own = not seeds or seeds == chosen.seeds and not any(setting.seeds for setting in chosen.settings)
    return profile_name if own else f"{profile_name}-{seeds}-seeds"


def check_workers(workers: int | str) -> int:
    """The number of processes asked for; 0, as for "auto": as many as suit the machine.

    Raises:
        InputError: a negative number of workers, or another word.
    """
    if workers != "auto" and (not isinstance(workers, int) or workers < 0):
        raise InputError(f"workers = {workers} is out of range: give a positive count, 0 for as many as suit the "
                         'machine, or "auto".')
    return 0 if workers == "auto" else workers


# Running

@dataclass(frozen=True)
class Sweep:
    """Recipes that are trained together because they share a teacher; or a single one.

    folder: of its members' list, checkpoints and log.
    """

    recipes: tuple[Recipe, ...]
    folder: Path

    @property
    def log(self) -> Path:
        return self.folder / "log.txt"

    @property
    def cost(self) -> float:
        """Forward passes through a network, up to a factor: an update is three, a look one. For order and progress
        only; `plan` measures."""
        each = sum(forward_passes(recipe, self.recipes) for recipe in self.recipes)
        shared = 3 * any(teacher_of(r) not in (None, r) for r in self.recipes)
        return (each + shared) * self.recipes[0].epochs * (self.recipes[0].train_images or 50_000)


def sweeps(missing: list[Recipe], workers: int = 1) -> list[Sweep]:
    """Form sweeps of the recipes that are still to be run, the costliest first.

    A sweep that was interrupted goes on as it was, but for one of several seeds of which some are done. The rest is
    grouped by teacher, and large groups are split while there are fewer sweeps than workers.
    """
    begun, taken = [], set()
    for path in sorted((records.runs_folder() / ".sweeps").glob("*/members.json")):
        listed = _members(path)
        members = [recipe for recipe in listed if records.load(recipe) is None]
        ids = {recipe.run_id for recipe in members}
        if not ids:  # killed after its last record
            _forget(path.parent)
        broken = len({recipe.seed for recipe in members}) > 1 and len(members) < len(listed)
        if ids & {recipe.run_id for recipe in missing} and not ids & taken and not broken:
            begun.append(Sweep(tuple(members), path.parent))
            taken |= ids
    groups: dict[str, list[Recipe]] = {}
    for recipe in missing:
        if recipe.run_id not in taken:
            groups.setdefault((teacher_of(recipe) or recipe).run_id, []).append(recipe)
    new = [_sweep(group) for group in groups.values()]
    while len(begun) + len(new) < workers and max((len(sweep.recipes) for sweep in new), default=0) > 1:
        largest = max(new, key=lambda sweep: len(sweep.recipes))
        new.remove(largest)
        new += [_sweep(largest.recipes[::2]), _sweep(largest.recipes[1::2])]
    return sorted(begun + new, key=lambda sweep: sweep.cost, reverse=True)


def of_several_seeds(planned: list[Sweep]) -> list[Sweep]:
    """Join sweeps that are equal but for the seed, learn from the same pictures and can be trained together, see
    stacked.py. One that was begun goes on as it was."""
    from ..data import datasets
    from ..training import stacked
    groups: dict[object, list[Sweep]] = {}
    for sweep in planned:
        alike = tuple(replace(recipe, seed=datasets.fold(recipe.dataset, recipe.seed)) for recipe in sweep.recipes)
        fits = stacked.fits(alike) and not (sweep.folder / "members.json").exists()
        groups.setdefault(alike if fits else sweep.folder, []).append(sweep)
    return [_sweep(recipe for sweep in group for recipe in sweep.recipes) if len(group) > 1 else group[0]
            for group in groups.values()]


def _sweep(recipes: Iterable[Recipe]) -> Sweep:
    recipes = tuple(recipes)
    name = hashlib.sha256(" ".join(sorted(recipe.run_id for recipe in recipes)).encode()).hexdigest()[:12]
    return Sweep(recipes, records.runs_folder() / ".sweeps" / name)


def _members(path: Path) -> list[Recipe]:
    try:
        return [from_dict(values) for values in json.loads(path.read_bytes())]
    except (OSError, ValueError, TypeError):  # damaged, of another version, or just removed by another process
        return []


def run(recipe: Recipe, on_epoch: Callable[[dict], None] | None = None) -> records.Record:
    """The record of one recipe: loaded, or trained here and now, with a bar of its epochs or a line now and then.
    If it belongs to an interrupted sweep, that sweep goes on.

    Raises:
        InputError: its loss diverged, or the pictures of a data folder are not those of the record.
    """
    if records.load(recipe) is None:
        from tqdm import tqdm
        check_inputs([recipe])
        sweep, = sweeps([recipe])
        with tqdm(total=recipe.epochs, unit="epoch", disable=on_epoch is not None or not _watched()) as bar:
            shown = on_epoch or ((lambda row: bar.update()) if _watched() else _now_and_then(recipe))
            failed = within_memory(train_sweep, sweep,
                                   lambda of: shown(of.rows[-1]) if of.recipe == recipe else None)
        if records.load(recipe) is None:
            raise InputError("\n".join(failed))
    return _same_pictures(records.load(recipe))


def train_sweep(sweep: Sweep, on_epoch: Callable | None = None) -> list[str]:
    """Train what is missing of a sweep, here and now, and write its records; why runs were given up, a sentence each.

    Raises:
        Stopped: asked to stop; a checkpoint holds what was done.
    """
    from ..data import datasets
    from ..training import train
    with records.locked(sweep.recipes):
        missing = [recipe for recipe in sweep.recipes if records.load(recipe) is None]
        if not missing:
            return []
        records.write_atomically(sweep.folder / "members.json",
                                 json.dumps([json.loads(recipe.to_json()) for recipe in missing]))
        dataset = datasets.load(missing[0].dataset, seed=missing[0].seed)
        outcomes = train.sweep(missing, dataset, folder=sweep.folder, on_epoch=on_epoch)
        for recipe, outcome in zip(missing, outcomes):
            if isinstance(outcome, InputError):
                records.note_divergence(recipe, str(outcome))
            else:
                records.save(recipe, *outcome)
        failed = [str(outcome) for outcome in outcomes if isinstance(outcome, InputError)]
        if not failed:
            _forget(sweep.folder)
        return failed


def _forget(folder: Path) -> None:
    """Remove a finished sweep's checkpoints and log; the list of members last, so that what a kill leaves is found."""
    for path in sorted(folder.glob("*"), key=lambda path: path.name == "members.json"):
        path.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def run_together(recipe: Recipe, device: str) -> None:
    """One run by all processes that torchrun started, see distributed.py; the first of them writes.

    Raises:
        InputError: its loss diverged, or the recipe cannot be split among so many.
        Stopped: asked to stop; a checkpoint holds what was done.
    """
    from ..data import datasets
    from ..training import distributed, train
    first = distributed.rank() == 0
    with records.locked([recipe]) if first else nullcontext():
        if first:
            datasets.load(recipe.dataset, seed=recipe.seed)  # decoded once; the others wait below, then read its cache
        if distributed.any_process(first and records.load(recipe) is not None):
            return
        dataset = datasets.load(recipe.dataset, seed=recipe.seed)
        outcome, = train.sweep([recipe], dataset, device, _sweep([recipe]).folder)
        if isinstance(outcome, InputError):
            raise outcome
        if first:
            records.save(recipe, *outcome)
            _forget(_sweep([recipe]).folder)
        distributed.any_process(False)  # nobody leaves before the record is there


def work(sweep: Sweep) -> list[str]:
    """`train_sweep` in a worker process: on one thread, as independent runs side by side use the cores best, and with
    all that is printed in the sweep's log."""
    import torch
    torch.set_num_threads(1)
    with logged(sweep.log):
        return within_memory(train_sweep, sweep, lambda run: print(
            f"epoch {len(run.rows)} of {run.recipe.epochs}, run {run.recipe.run_id}", flush=True))


def _same_pictures(record: records.Record) -> records.Record:
    """The record, if the data folder it names still holds the pictures that it was made from."""
    name = record.recipe.dataset
    if os.path.isdir(name):
        from ..data import datasets
        if datasets.load(name).sha256 != record.provenance["data_sha256"]:
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
            print(f"  {recipe.in_words()}: epoch {row['epoch']} of {recipe.epochs}", flush=True)
    return line


def _watched() -> bool:
    """Whether somebody sees a progress bar: a terminal, or a notebook that papermill or nbval does not run."""
    if os.environ.get("TQDM_DISABLE"):
        return False
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return sys.stderr.isatty() or shell is not None


def _has_gpu() -> bool:
    import torch
    return torch.cuda.is_available()


BUSY = 500e9  # multiply-accumulates that fill a large GPU (ours): of ResNet-18 and its teacher, on a batch of 128
SHARE = 4e9  # bytes of a GPU's memory for each process (ours)


def default_workers(wanted: Iterable[Recipe]) -> int:
    """One process a core without a GPU; with one, no more of them than have `SHARE` of its memory each and together do
    `BUSY` arithmetic in the updates of the costliest recipe, but one."""
    import torch
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not torch.cuda.is_available():
        return cores
    costliest = max(map(_arithmetic, {short_form(recipe) for recipe in wanted}), default=1)
    memory = torch.cuda.get_device_properties(0).total_memory
    return max(1, min(cores, int(memory / SHARE), int(BUSY / costliest)))


def _arithmetic(recipe: Recipe) -> int:
    """Multiply-accumulates of one update of each network."""
    from ..data import datasets
    from ..methods import build
    channels, size, classes, *_ = datasets.shape(recipe.dataset)
    return recipe.batch_size * sum(build.make(recipe, channels, classes, size).cost.values())


def run_all(wanted: Iterable[Recipe], workers: int | str = 0, say: Callable[[str], None] = print,
            executor: Executor | None = None) -> list[records.Record]:
    """Records of all recipes; what is finished is loaded, the rest is trained side by side.

    Args:
        wanted: recipes, repeats allowed.
        workers: processes; 0 for `default_workers()`. "auto" also trains several seeds at once on a GPU.
        say: receives a plain line now and then when there is no terminal for a progress bar.
        executor: where sweeps run, see executors.py; processes of this machine unless given.

    Raises:
        InputError: bad input, before any training; or runs that failed, after all others have finished.
        Stopped, KeyboardInterrupt: asked to stop; the workers have saved what was done.
    """
    together, workers = workers == "auto" and executor is None, check_workers(workers)
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise InputError("Worker processes read a script again before they work: put its call of run_all under "
                         'if __name__ == "__main__":.')
    wanted = list({recipe.run_id: recipe for recipe in wanted}.values())
    missing = [recipe for recipe in wanted if records.load(recipe) is None]
    if missing:
        check_inputs(missing)
        workers = workers or (1 if executor else default_workers(missing))
        planned = sweeps(missing, workers)
        if together and _has_gpu():
            planned = of_several_seeds(planned)
        _train_side_by_side(planned, executor or LocalProcesses(workers), say)
    return [_same_pictures(records.load(recipe)) for recipe in wanted]


def check_inputs(missing: list[Recipe]) -> None:
    """Find bad input before any long work: data, batch sizes, networks and a writable folder.

    Raises:
        InputError: what is bad, and how to mend it.
    """
    from ..data import datasets
    from ..data.batches import STATISTICS
    from ..methods import build
    from ..training.train import batches_of
    records.check_writable(records.runs_folder())
    for recipe in {replace(recipe, seed=0).run_id: recipe for recipe in missing}.values():
        dataset = datasets.load(recipe.dataset, seed=recipe.seed)
        training, _ = datasets.split(dataset, recipe.train_images, recipe.val_fraction, recipe.seed)
        batches = batches_of(recipe, dataset.train_images[training], dataset.train_labels[training],
                             STATISTICS.get(recipe.normalise))
        batches = build.method_class(recipe).batches(recipe, batches, dataset.num_classes)
        build.recipe_schedule(recipe, batches.course(recipe))
        build.make(recipe, dataset.channels, dataset.num_classes, dataset.image_size, batches)


def _train_side_by_side(planned: list[Sweep], executor: Executor, say: Callable[[str], None]) -> None:
    progress, failed = Progress(planned, say), []
    futures = {}
    try:
        with getattr(executor, "batch", nullcontext)():
            for sweep in planned:
                futures[executor.submit(work, sweep)] = sweep
        waiting = set(futures)
        while waiting:
            done, waiting = wait(waiting, timeout=1, return_when=FIRST_COMPLETED)
            for future in done:
                failed += _failures(future, futures[future])
            progress.update([futures[future] for future in waiting])
    except BaseException:
        _stop(executor, futures)
        raise
    finally:
        progress.close()
        executor.shutdown()
    if failed:
        runs = sum(len(sweep.recipes) for sweep in planned)
        raise InputError(failed[0] if len(failed) == 1 else
                         f"{len(failed)} failures in {runs} runs, and the others are finished: " + " ".join(failed[:3])
                         + f" And so on: the logs are in {records.runs_folder() / '.sweeps'}." * (len(failed) > 3))


def _failures(future, sweep: Sweep) -> list[str]:
    """What a finished task has to say; a run that fails must not cost the others."""
    error = future.exception()
    if error is None:
        return [f"{sentence} (Log: {sweep.log})" for sentence in future.result()]
    why = ("its process was killed, perhaps for want of memory (give the same command again with fewer WORKERS), or it "
           'could not start, because a script calls this outside if __name__ == "__main__":'
           if isinstance(error, BrokenProcessPool) else
           str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}")
    members = ", ".join(f"{recipe.run_id} ({recipe.in_words()})" for recipe in sweep.recipes[:3])
    members += f" and {len(sweep.recipes) - 3} more of its sweep" * (len(sweep.recipes) > 3)
    return [f"Run {members} failed, {why.removesuffix('.')}; its log is {sweep.log}."]


def _stop(executor: Executor, futures: dict) -> None:
    """Let the workers save and end. A second Ctrl-C while waiting for them gives up what they did since their last
    checkpoint."""
    try:
        while left := [future for future in futures if not (future.done() or future.cancelled())]:
            if hasattr(executor, "stop"):
                executor.stop()  # more than once: a worker may only just have been started
            wait(left, timeout=5)
    except BaseException:
        if hasattr(executor, "kill"):
            executor.kill()
        raise


class Progress:
    """A bar in a terminal or a notebook; a plain line every half minute elsewhere. It reads the sweeps' logs."""

    def __init__(self, planned: list[Sweep], say: Callable[[str], None]):
        from tqdm import tqdm
        self.total = sum(sweep.cost for sweep in planned)
        self.runs = sum(len(sweep.recipes) for sweep in planned)
        self.started = self.last = time.monotonic()
        self.say, self.bar = say, tqdm(total=self.runs, unit="run") if _watched() else None
        self.before = self._share(planned)

    def update(self, unfinished: list[Sweep]) -> None:
        every = 2 if self.bar is not None else 30
        if unfinished and time.monotonic() - self.last < every:
            return
        self.last = time.monotonic()
        elapsed, share = self.last - self.started, self._share(unfinished)
        left = elapsed * (1 - share) / max(share - self.before, 1e-3)
        done = self.runs - sum(len(sweep.recipes) for sweep in unfinished)
        if self.bar is not None:
            self.bar.n = done
            self.bar.set_postfix_str(f"{100 * share:.0f}% of the work, about {left:.0f} s left")
        else:
            self.say(f"{done} of {self.runs} runs done, {100 * share:.0f}% of the work after {elapsed:.0f} s, about "
                     f"{left:.0f} s left")

    def _share(self, unfinished: list[Sweep]) -> float:
        return 1 - sum(sweep.cost * (1 - _epochs_logged(sweep)) for sweep in unfinished) / self.total

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


def _epochs_logged(sweep: Sweep) -> float:
    """Share of a sweep's epochs that its log tells of."""
    try:
        lines = {line for line in sweep.log.read_text(errors="replace").splitlines() if line.startswith("epoch ")}
    except OSError:  # not there yet, or no more
        return 0.0
    return min(len(lines) / sum(recipe.epochs for recipe in sweep.recipes), 1.0)


# Planning

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


def seconds(recipe: Recipe) -> float:
    """What a run alone would take on this machine."""
    return _seconds(recipe, _measure(short_form(recipe)))


@contextmanager
def one_thread() -> Iterator[None]:
    """As the worker processes have it."""
    import torch
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _seconds(recipe: Recipe, cost: Cost, shares: bool = False) -> float:
    """Of a run: of its updates, and of evaluation at the end of epochs; or of what it adds to a sweep."""
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
    """A run, its batches and its evaluation, of so many random pictures. A processor core would need minutes for the
    batches of a large network: it gets smaller ones."""
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
    """Seconds of an update by its kind, in the second half of a run; and those by which the first ones exceed them. A
    GPU is waited for only where the kind changes, as in training it hardly ever is."""
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
