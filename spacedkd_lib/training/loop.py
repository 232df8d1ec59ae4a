"""Training loop: walk a schedule's events, minimise the method's losses, record the numbers.

Runs that share a teacher are walked in lockstep: the teacher is trained once, and each student's numbers and weights
are those of a run alone, bit for bit. Taught in notebooks/02_baselines.ipynb and notebooks/05_spaced_kd.ipynb.
"""

from __future__ import annotations

from itertools import repeat
from typing import Callable, Iterator

from ..schedule import Event, lockstep
from .run import Run

Evaluate = Callable[[list[Run]], list[dict]]


def walk(runs: list[Run], batches, evaluate: Evaluate) -> Iterator[tuple[Event, list[Run], dict | None]]:
    """Train, one event after the other; at the end of an epoch each run gets its row of numbers.

    Args:
        runs: one, or several that share a teacher (`share_teacher`); each goes on from its position.
        batches: batches[i] -> (x [B, C, H, W], y [B]); len(batches) is an epoch.
        evaluate: called after every `eval_every` epochs and the last one; its numbers join the rows.

    Yields:
        After each event: the event, its runs, and the loss terms of its update. Between two events everything is
        consistent, so a caller may save, stop or look. A run whose loss is no finite number gets `failed` set and is
        left out from then on.
    """
    schedules = {run: run.events(batches) for run in runs if not run.failed}
    for event, sharing in lockstep(schedules):
        terms = None
        if event.kind in ("epoch", "grow"):
            close(event, sharing, evaluate)
        else:
            rate = [run.clock.rate(event) for run in sharing][0]
            x, y = sharing[0].prepare(event)
            terms = sharing[0].step(event.kind, x, y, rate)
            for run in sharing:
                run.count(event, terms, len(y))
        for run in sharing:
            run.position += 1
        yield event, sharing, terms
        for run in [run for run in schedules if run.failed]:
            del schedules[run]


def close(event: Event, runs: list[Run], evaluate: Evaluate) -> None:
    """End an epoch or a grade."""
    recipe = runs[0].recipe
    due = event.kind == "grow" or event.index % recipe.eval_every == 0 or event.index == recipe.epochs
    for run, scored in zip(runs, evaluate(runs) if due else repeat({})):
        run.grow(scored) if event.kind == "grow" else run.end_epoch(event.index, scored)
