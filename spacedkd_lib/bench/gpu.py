"""`python -m spacedkd_lib.bench.gpu [STAGE ...] --out FOLDER`: a quarter of an hour on a GPU.

Stages, all of them unless some are named: env (the machine), ceilings (what it can do), right (what must hold, holds),
fast, seeds (several at once), notebooks, science (records of full CIFAR-100). Each is a process, ended at its limit:
neither a hang nor an error of the driver costs the next one. What is found is written at once: log.txt, env.json,
<stage>.csv, records.jsonl. `--dry` does all of it on the CPU, with tiny sizes.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import sys
import time
import traceback
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Callable

from ..errors import InputError, nearest
from ..store import records
from .work import Place

# Seconds. All but the last take fewer, only fast always has something left to compile.
LIMITS = {"env": 10, "ceilings": 25, "right": 80, "fast": 140, "seeds": 60, "notebooks": 45, "science": 395}
DRY, GRACE = 600, 5  # seconds: limit of each stage of a dry run, on a machine however busy; to end when asked to
FORK = multiprocessing.get_context("fork")  # what is imported once is there in every stage

Stage = Callable[[Place], None]


def stages() -> dict[str, Stage]:
    """Import the stages as late as this: a worker process that a stage starts needs less."""
    import timm  # noqa: F401  takes seconds: here once for all stages

    from .gpu_checks import right
    from .gpu_science import science
    from .gpu_speed import ceilings, env, fast, notebooks, seeds
    return {stage.__name__: stage for stage in (env, ceilings, right, fast, seeds, notebooks, science)}


def run(chosen: dict[str, Stage], limits: dict[str, float], place: Place) -> None:
    """One stage after the other, each ended at its limit at the latest.

    Raises:
        KeyboardInterrupt: this process got SIGINT or SIGTERM; the stage of that moment was ended.
    """
    for name, stage in chosen.items():
        (place.folder / f"{name}.csv").unlink(missing_ok=True)
        began = time.monotonic()
        process = FORK.Process(target=_alone, args=(stage, name, replace(place, until=began + limits[name])))
        process.start()
        try:
            process.join(limits[name])
            late = process.is_alive()
        finally:
            _end(process)
        seconds = time.monotonic() - began
        how = "FAIL" if late or process.exitcode < 0 else "done"
        place.say(f"{how} {name}: {seconds:.1f} s of {limits[name]:g} s" + ", ended at its limit" * late)


def _alone(stage: Stage, name: str, place: Place) -> None:
    """Run a stage in its process, which leads a group: with its own workers it can be ended as a whole."""
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    import torch
    torch.set_num_threads(1)
    try:
        with place.attempt(name):
            return stage(place)
    except KeyboardInterrupt as error:
        at = traceback.extract_tb(error.__traceback__)[-1]
        place.say(f"{name} was at {at.filename}:{at.lineno}")
    sys.exit(1)


def _end(process) -> None:
    """Ask a process that is still there to end, then end it and all that it started."""
    if process.is_alive():
        os.kill(process.pid, signal.SIGINT)
        process.join(GRACE)
    process.kill()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.join()


def gpu_is_here() -> bool:
    """Asked in a process of its own: one that has spoken to a GPU can fork no other that does."""
    def ask() -> None:
        import torch
        sys.exit(not torch.cuda.is_available())
    process = FORK.Process(target=ask)
    process.start()
    process.join()
    return process.exitcode == 0


def _parsed(arguments: list[str] | None) -> argparse.Namespace:
    first, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(prog="python -m spacedkd_lib.bench.gpu", description=first, epilog=rest,
                                     formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=", ".join(LIMITS))
    parser.add_argument("--out", type=Path, default=records.built("gpu"), help="folder; build/gpu unless given")
    parser.add_argument("--science", type=float, default=LIMITS["science"], metavar="SECONDS", help="its limit")
    parser.add_argument("--data", default="cifar100", help="of science: another data set, a folder for example")
    parser.add_argument("--dry", action="store_true", help="on the CPU, with tiny sizes: whether all of it works")
    parser.add_argument("--publish", type=Path, metavar="FOLDER", help="join FOLDER's records to results/gpu")
    return parser.parse_args(arguments)


def quarter(options: argparse.Namespace) -> int:
    """Run the stages that were asked for; return how many lines of the log say that something failed."""
    for name in options.stages:
        if name not in LIMITS:
            raise InputError(nearest("stage", name, LIMITS))
    known = stages()
    device = "cpu" if options.dry else "cuda"
    if not options.dry and not gpu_is_here():
        raise InputError("No GPU is here: give --dry to try everything on the CPU with tiny sizes.")
    options.out.mkdir(parents=True, exist_ok=True)
    place = Place(options.out.resolve(), device, time.monotonic(), 0.0, options.data)
    log = place.folder / "log.txt"
    before = log.stat().st_size if log.exists() else 0
    limits = dict.fromkeys(LIMITS, DRY) if options.dry else LIMITS | {"science": options.science}
    run({name: known[name] for name in options.stages or known}, limits, place)
    failed = log.read_text()[before:].count("] FAIL")
    place.say(f"All of it is in {place.folder}; {failed or 'no'} lines say FAIL.")
    return failed


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0; 1 if something failed; 2 for bad input; 130 if it was ended from outside."""
    options = _parsed(arguments)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of processes that the stages start
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # as provenance.repeatable, but before any stage begins
    for number in (signal.SIGINT, signal.SIGTERM):  # a job in the background would ignore the first
        signal.signal(number, signal.default_int_handler)
    try:
        if options.publish:
            from .gpu_science import publish
            print(publish(options.publish))
            return 0
        return int(quarter(options) > 0)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"Ended from outside: {options.out} holds what was found.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
