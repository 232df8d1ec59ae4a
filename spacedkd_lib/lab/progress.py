"""Progress of sweeps that run side by side."""

from __future__ import annotations

import inspect
import os
import re
import sys
import time
import traceback
from pathlib import Path
from typing import Callable

from ..errors import InputError
from ..recipes import Recipe
from .sweeps import Sweep


class Progress:
    """A bar in a terminal or a notebook; a plain line every half minute elsewhere. It reads the sweeps' logs."""

    def __init__(self, planned: list[Sweep], say: Callable[[str], None]):
        from tqdm import tqdm
        self.total = sum(sweep.cost for sweep in planned)
        self.runs = sum(len(sweep.recipes) for sweep in planned)
        self.started = self.last = time.monotonic()
        self.say, self.bar = say, tqdm(total=self.runs, unit="run") if watched() else None
        self.before = self._share(planned)

    def update(self, unfinished: list[Sweep]) -> None:
        """Show the share of the work that is done and the time left; without a terminal, a line every half minute."""
        every = 2 if self.bar is not None else 30
        if unfinished and time.monotonic() - self.last < every:
            return
        self.last = time.monotonic()
        elapsed, share = self.last - self.started, self._share(unfinished)
        done = self.runs - sum(len(sweep.recipes) for sweep in unfinished)
        told = f"{100 * share:.0f}% of the work"
        if share > self.before:  # else nothing to judge by
            told += f", about {elapsed * (1 - share) / (share - self.before):.0f} s left"
        if self.bar is not None:
            self.bar.n = done
            self.bar.set_postfix_str(f"{told}; {_latest(unfinished)}")
        else:
            self.say(f"{done} of {self.runs} runs done after {elapsed:.0f} s, {told}")

    def _share(self, unfinished: list[Sweep]) -> float:
        return 1 - sum(sweep.cost * (1 - _epochs_logged(sweep)) for sweep in unfinished) / self.total

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


def _latest(unfinished: list[Sweep]) -> str:
    """Return the last line that any log has of an epoch: which run, how far, how good."""
    last = [(_changed(sweep.log), lines[-1]) for sweep in unfinished if (lines := _epoch_lines(sweep.log))]
    return max(last)[1] if last else "no epoch finished yet"


def _changed(log: Path) -> float:
    try:
        return log.stat().st_mtime
    except OSError:  # its sweep has just ended
        return 0.0


def _epoch_lines(log: Path) -> list[str]:
    try:
        return [line for line in log.read_text(errors="replace").splitlines() if EPOCH.fullmatch(line)]
    except OSError:  # not there yet, or no more
        return []


def _epochs_logged(sweep: Sweep) -> float:
    """Share of a sweep's epochs that its log tells of."""
    told = len(set(_epoch_lines(sweep.log)))
    return min(told / sum(recipe.epochs for recipe in sweep.recipes), 1.0)


def watched() -> bool:
    """Return whether somebody sees a progress bar: a terminal, or a notebook that papermill or nbval does not run."""
    if os.environ.get("TQDM_DISABLE"):
        return False
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return sys.stderr.isatty() or shell is not None


# Words of a run in this process

def check_call(function: Callable | None, *arguments) -> None:
    """Refuse a user's function that cannot be called with so many arguments, before any training."""
    try:
        if function is not None:
            inspect.signature(function).bind(*arguments)
    except TypeError as error:
        raise InputError(f"on_epoch = {function!r} cannot be called ({error}): give a function of {len(arguments)} "
                         "arguments.") from None
    except ValueError:  # a builtin does not tell its parameters
        pass


class Told:
    """Calls a user's function until it raises, which must cost no training."""

    def __init__(self, function: Callable[[Recipe, dict], None] | None):
        self.function, self.failure = function, None

    def __call__(self, run) -> None:
        try:
            if self.function and not self.failure:
                self.function(run.recipe, dict(run.rows[-1]))
        except Exception as error:
            self.failure = error

    def in_words(self) -> str:
        """Say what the function raised, and where."""
        place = traceback.extract_tb(self.failure.__traceback__)[-1]
        return (f"on_epoch raised {self.failure!r} in {place.filename}, line {place.lineno}, and training went on "
                "without it: mend it.")


EPOCH = re.compile(r"epoch \d+ of \d+: .*, run [0-9a-f]{12}(, test accuracy .*)?")  # what `epoch_in_words` says


def epoch_in_words(run) -> str:
    """Tell `Progress` of an epoch of a run; no two lines are alike."""
    accuracy = run.rows[-1].get("test_accuracy")
    told = f", test accuracy {accuracy:.1f}%" if accuracy is not None else ""
    return f"epoch {len(run.rows)} of {run.recipe.epochs}: {run.recipe.in_words()}, run {run.recipe.run_id}{told}"


def now_and_then(recipe: Recipe) -> Callable[[dict], None]:
    """Return a function that prints an epoch's number if a minute has passed since the last time."""
    last = time.monotonic()

    def line(row: dict) -> None:
        nonlocal last
        if time.monotonic() - last > 60:
            last = time.monotonic()
            print(f"  {recipe.in_words()}: epoch {row['epoch']} of {recipe.epochs}", flush=True)
    return line
