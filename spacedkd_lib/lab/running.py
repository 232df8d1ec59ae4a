"""Train runs: one here and now, or a grid side by side, resumable; what is done is never run again."""

from __future__ import annotations

import json
import multiprocessing
import os
from concurrent.futures import FIRST_COMPLETED, Executor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from dataclasses import replace
from functools import cache, partial
from typing import Callable, Iterable

from ..cluster.executors import LocalProcesses, logged, within_memory
from ..errors import InputError, Stopped
from ..recipes import Recipe, distinct, plugins, short_form
from ..store import identity, records
from .progress import Progress, Told, check_call, epoch_in_words, now_and_then, watched
from .sweeps import Sweep, forget, of_several_seeds, sweep_of, sweeps


def check_workers(workers: int | str) -> int:
    """Return the number of processes asked for; 0, as for "auto": as many as suit the machine.

    Raises:
        InputError: a negative number of workers, or another word.
    """
    if workers != "auto" and (not isinstance(workers, int) or workers < 0):
        raise InputError(f"workers = {workers} is out of range: give a positive count, 0 for as many as suit the "
                         'machine, or "auto".')
    return 0 if workers == "auto" else workers


def run(recipe: Recipe, force: bool = False, on_epoch: Callable[[dict], None] | None = None) -> records.Record:
    """Return the record of one recipe: loaded, or trained here and now.

    A bar shows its epochs, or a line now and then. An interrupted sweep goes on as a whole.

    Args:
        force: a finished run is set aside and trained anew.
        on_epoch: called with the numbers of each epoch, for a logger; it may raise Stopped to leave the run there.

    Raises:
        InputError: its loss diverged; other pictures than the record's; or `on_epoch` raised, and the run is saved.
    """
    check_call(on_epoch, {})
    if force:
        set_aside([recipe])
    retire_stale([recipe])
    if records.load(recipe) is None:
        from tqdm import tqdm
        check_inputs([recipe])
        sweep, = sweeps([recipe])
        with tqdm(total=recipe.epochs, unit="epoch", disable=not watched()) as bar:
            shown = (lambda row: bar.update()) if watched() else now_and_then(recipe)
            told = Told(on_epoch and (lambda of, row: on_epoch(row)))

            def each(of) -> None:
                if of.recipe == recipe:
                    shown(of.rows[-1])
                    told(of)
                    if isinstance(told.failure, Stopped):
                        raise told.failure
            failed = within_memory(train_sweep, sweep, each)
        if records.load(recipe) is None:
            raise InputError("\n".join(failed))
        if told.failure:
            raise InputError(f"{told.in_words()} Run {recipe.run_id} is finished and saved.") from told.failure
    return same_pictures([records.load(recipe)])[0]


def train_sweep(sweep: Sweep, on_epoch: Callable | None = None) -> list[str]:
    """Train what is missing of a sweep, here and now, and write its records; why runs were given up, a sentence each.

    Raises:
        Stopped: asked to stop; a checkpoint holds what was done.
    """
    from ..data import datasets
    from ..training import train
    from ..training.fingerprint import mark
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
                records.save(recipe, *outcome._replace(provenance=outcome.provenance | mark(recipe, dataset)))
        failed = [str(outcome) for outcome in outcomes if isinstance(outcome, InputError)]
        if not failed:
            forget(sweep.folder)
        return failed


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
        outcome, = train.sweep([recipe], dataset, device, sweep_of([recipe]).folder)
        if isinstance(outcome, InputError):
            raise outcome
        if first:
            records.save(recipe, *outcome)  # no fingerprint: one process alone cannot make the updates of all
            forget(sweep_of([recipe]).folder)
        distributed.any_process(False)  # nobody leaves before the record is there


def work(sweep: Sweep, on_epoch: bytes = b"") -> list[str]:
    """Run `train_sweep` in a worker process, and print into the sweep's log; `on_epoch` comes from `plugins.packed`.

    It runs on one thread, as independent runs side by side use the cores best.
    """
    import torch
    torch.set_num_threads(1)
    told = Told(plugins.unpacked(on_epoch) if on_epoch else None)

    def each(run) -> None:
        print(epoch_in_words(run), flush=True)
        told(run)
    with logged(sweep.log):
        failed = [f"{sentence} (Log: {sweep.log})" for sentence in within_memory(train_sweep, sweep, each)]
    return [*failed, told.in_words()] if told.failure else failed


def same_pictures(found: list[records.Record]) -> list[records.Record]:
    """Return records, if the data sets they name still hold the pictures that they were made from."""
    from ..data import datasets
    at_hand = cache(datasets.sha256_at_hand)  # a folder is decoded for it
    for record in found:
        name, made_from = record.recipe.dataset, record.provenance.get("data_sha256")
        if made_from and at_hand(name, datasets.fold(name, record.recipe.seed)) not in ("", made_from):
            raise InputError(f"Run {record.run_id} has other pictures of {name}: restore them, or delete its folder.")
    return found


def _has_gpu() -> bool:
    import torch
    return torch.cuda.is_available()


BUSY = 500e9  # multiply-accumulates that fill a large GPU (ours): of ResNet-18 and its teacher, on a batch of 128
SHARE = 4e9  # bytes of a GPU's memory for each process (ours)


def default_workers(wanted: Iterable[Recipe]) -> int:
    """Return the number of processes that suit the machine: one a core without a GPU.

    With a GPU as many as have `SHARE` of its memory each and together do `BUSY` arithmetic in the costliest updates.
    """
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
    return recipe.batch_size * sum(build.make(recipe, channels, classes, size, given=False).cost.values())


def run_all(wanted: Iterable[Recipe], workers: int | str = 0, say: Callable[[str], None] = print,
            executor: Executor | None = None, on_sweep: Callable[[], None] = lambda: None,
            on_epoch: Callable[[Recipe, dict], None] | None = None) -> list[records.Record]:
    """Return records of all recipes; what is finished is loaded, the rest is trained side by side.

    Args:
        wanted: recipes, repeats allowed.
        workers: processes; 0 for `default_workers()`. "auto" also trains several seeds at once on a GPU.
        say: receives a plain line now and then when there is no terminal for a progress bar.
        executor: where sweeps run, see executors.py; processes of this machine unless given.
        on_sweep: if something is trained, called before it, and whenever runs have been finished.
        on_epoch: called in the run's process with its recipe and the numbers of each epoch, for a logger. What it
            prints goes to the sweep's log, and unlike that of `run` it cannot end a run.

    Raises:
        InputError: bad input, before any training; or runs that failed, or an `on_epoch` that raised, after all others
            have finished.
        Stopped, KeyboardInterrupt: asked to stop; the workers have saved what was done.
    """
    together, workers = workers == "auto" and executor is None, check_workers(workers)
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise InputError("Worker processes read a script again before they work: put its call of run_all under "
                         'if __name__ == "__main__":.')
    wanted = distinct(wanted)
    check_call(on_epoch, Recipe, {})
    retire_stale(wanted, say)
    missing = [recipe for recipe in wanted if records.load(recipe) is None]
    if missing:
        check_inputs(missing)
        say(f"{len(missing)} of {len(wanted)} runs are to be trained.")
        on_sweep()
        workers = workers or (1 if executor else default_workers(missing))
        planned = sweeps(missing, workers)
        if together and _has_gpu():
            planned = of_several_seeds(planned)
        task = partial(work, on_epoch=plugins.packed(on_epoch, [on_epoch])) if on_epoch else work
        _train_side_by_side(planned, task, executor or LocalProcesses(workers), say, on_sweep)
    return same_pictures([records.load(recipe) for recipe in wanted])


def made_by_other_code(wanted: Iterable[Recipe]) -> list[records.Record]:
    """Return the finished runs that another engine made, and that have not been compared with today's yet."""
    found = filter(None, map(records.load, distinct(wanted)))
    return [record for record in found if not identity.made_by_this_code(record)]


def set_aside(wanted: Iterable[Recipe]) -> int:
    """Move the finished runs among these aside, so that they are trained anew; return how many there were."""
    finished = [recipe for recipe in distinct(wanted) if records.load(recipe)]
    for recipe in finished:
        identity.supersede(recipe)
    return len(finished)


def retire_stale(wanted: Iterable[Recipe], say: Callable[[str], None] = print) -> None:
    """Make a few updates of the runs that other code made again; move those aside that differ, to be trained anew."""
    stale = made_by_other_code(wanted)
    if not stale:
        return
    retired = []
    for record in stale:
        if holds_today(record):
            identity.remember_verified(record.recipe)
        else:
            retired.append(identity.supersede(record.recipe))
    anew = f" The other {len(retired)} are trained anew; the old ones are in {retired[0].parent}." if retired else ""
    say(f"{len(stale)} finished runs were made by other code. Of {len(stale) - len(retired)} a few updates were made "
        f"again, with the same numbers.{anew}")


def holds_today(record: records.Record) -> bool:
    """Whether today's code and data make the first updates of a record's run with the same numbers."""
    from ..data import datasets
    from ..training.fingerprint import fingerprint
    recipe = record.recipe
    with plugins.blamed(recipe):
        return identity.same_numbers(record, fingerprint(recipe, datasets.load(recipe.dataset, seed=recipe.seed)))


def check_inputs(missing: list[Recipe]) -> None:
    """Find bad input before any long work: data, batch sizes, networks, plugins and a writable folder.

    Raises:
        InputError: what is bad, and how to mend it.
    """
    begun = filter(os.path.lexists, (records.runs_folder() / recipe.run_id for recipe in missing))
    for folder in (records.runs_folder(), *begun):
        records.check_writable(folder)
    for recipe in {replace(recipe, seed=0).run_id: recipe for recipe in missing}.values():
        with plugins.blamed(recipe):
            within_memory(_check, recipe)


def _check(recipe: Recipe) -> None:
    from ..data import datasets
    from ..training import fingerprint, provenance, train
    provenance.check_settings()
    dataset = datasets.load(recipe.dataset, seed=recipe.seed)
    datasets.check_again(recipe.dataset, dataset)
    if plugins.kinds(recipe) - {"data set"}:
        fingerprint.trial(recipe, dataset)
    (run,), batches, _ = train.assemble([recipe], dataset, "cpu")
    run.events(batches)


def _train_side_by_side(planned: list[Sweep], task: Callable, executor: Executor, say: Callable[[str], None],
                        on_sweep: Callable[[], None]) -> None:
    progress, failed = Progress(planned, say), []
    futures = {}
    try:
        with getattr(executor, "batch", nullcontext)():
            for sweep in planned:
                futures[executor.submit(task, sweep)] = sweep
        waiting = set(futures)
        while waiting:
            done, waiting = wait(waiting, timeout=1, return_when=FIRST_COMPLETED)
            for future in done:
                failed += _failures(future, futures[future])
            if done:
                on_sweep()
            progress.update([futures[future] for future in waiting])
    except BaseException:
        _stop(executor, futures)
        raise
    finally:
        progress.close()
        executor.shutdown()
    if failed:
        failed, runs = list(dict.fromkeys(failed)), sum(len(sweep.recipes) for sweep in planned)
        raise InputError(failed[0] if len(failed) == 1 else
                         f"{len(failed)} failures in {runs} runs, and the others are finished: " + " ".join(failed[:3])
                         + f" And so on: the logs are in {records.runs_folder() / '.sweeps'}." * (len(failed) > 3))


def _failures(future, sweep: Sweep) -> list[str]:
    """Return what a finished task has to say; a run that fails must not cost the others."""
    error = future.exception()
    if error is None:
        return future.result()
    why = ("its process was killed, perhaps for want of memory (give the same command again with fewer WORKERS), or it "
           'could not start, because a script calls this outside if __name__ == "__main__":'
           if isinstance(error, BrokenProcessPool) else
           str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}")
    members = ", ".join(f"{recipe.run_id} ({recipe.in_words()})" for recipe in sweep.recipes[:3])
    members += f" and {len(sweep.recipes) - 3} more of its sweep" * (len(sweep.recipes) > 3)
    return [f"Run {members} failed, {why.removesuffix('.')}; its log is {sweep.log}."]


def _stop(executor: Executor, futures: dict) -> None:
    """Let the workers save and end.

    A second Ctrl-C while waiting for them gives up what they did since their last checkpoint.
    """
    try:
        while left := [future for future in futures if not (future.done() or future.cancelled())]:
            if hasattr(executor, "stop"):
                executor.stop()  # more than once: a worker may only just have been started
            wait(left, timeout=5)
    except BaseException:
        if hasattr(executor, "kill"):
            executor.kill()
        raise
