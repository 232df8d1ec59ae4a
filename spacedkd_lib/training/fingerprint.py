"""A run's fingerprint: its schedule and the numbers of a few updates, by which other code can be compared."""

from __future__ import annotations

import hashlib
from itertools import chain, zip_longest

import torch

from ..data import datasets
from ..data.batches import channel_statistics, seeded_draws
from ..errors import InputError
from ..recipes import Recipe, plugins, short_form
from ..schedule import Event
from ..store import exact
from .evaluation import evaluator
from .run import Run
from .train import assemble

UPDATES, PICTURES, BATCH = 2, 32, 8  # ours: updates of a kind, the second shows the optimizer; test pictures; a batch

_tried: set[tuple] = set()  # what a `trial` has passed in this process


def trial(recipe: Recipe, dataset: datasets.Dataset) -> None:
    """Take the fingerprint of a recipe twice with copies of its plugins; once for all recipes of one short form.

    Raises:
        InputError: the two differ, or a plugin changes what it holds.
    """
    if (tried := (short_form(recipe), *sorted(plugins.hashes(recipe).items()))) in _tried:
        return
    found = []
    for seed in range(2):
        with plugins.copied(recipe), seeded_draws(seed, []):
            before = plugins.hashes(recipe)
            found.append(fingerprint(recipe, dataset))
            if plugins.hashes(recipe) != before:
                raise InputError(f"{plugins.in_words(recipe)} changed what it holds, which no record or checkpoint "
                                 "keeps: let it depend on its arguments alone, or register a method.")
    if str(found[0]) != str(found[1]):
        raise InputError(f"Two trials of {plugins.in_words(recipe)} gave other numbers, so no run could be repeated: "
                         "draw from torch's own generator, or the one that is given, which the seed of a run sets; a "
                         "rule from a generator that it makes of its seed.")
    _tried.add(tried)


def mark(recipe: Recipe, dataset: datasets.Dataset) -> dict[str, dict]:
    """Return {"fingerprint": it}; {} where a plugin fails in it, as that is no reason to lose a finished run."""
    try:
        with plugins.copied(recipe):
            return {"fingerprint": fingerprint(recipe, dataset)}
    except Exception:
        if not plugins.kinds(recipe):
            raise
        return {}


def fingerprint(recipe: Recipe, dataset: datasets.Dataset) -> dict:
    """Make the first updates of each kind in turns, on a few pictures and on the CPU; then score some test pictures.

    Returns:
        "data": the data set's hash. "events": a hash of the whole schedule and its learning rates. "numbers": loss
        terms, then scores. "made_on": what must be equal for equal bits.
    """
    with torch.random.fork_rng(devices=[]):
        (run,), batches, _ = assemble([recipe], dataset, "cpu")
        digest, chosen = _chosen(run, batches)
        run.events(batches)  # the clock starts anew
        numbers = [number for event in chosen for number in _update(run, event)]
        test = dataset.test_images[:PICTURES], dataset.test_labels[:PICTURES]
        scored, = evaluator({"test": test}, channel_statistics(test[0]), "cpu")([run])
    here = torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()
    return {"data": dataset.sha256, "events": digest, "numbers": numbers + [float(value) for value in scored.values()],
            "made_on": [torch.__version__, *(here if exact.why_not(*here) else ["exact"])]}


def _chosen(run: Run, batches) -> tuple[str, list[Event]]:
    """Hash the schedule; choose updates: of each kind the first, in turns, and the last, as some losses begin late.

    Where the student grows, the next one is among them.
    """
    digest = hashlib.sha256()
    first: dict[str, list[Event]] = {}
    growth: list[Event] = []
    later: list[Event] = []  # further growth, without which the last batch's classes are not known
    last: dict[str, Event] = {}
    for event in run.events(batches):
        update = event.kind not in ("epoch", "grow")
        digest.update(repr((*event, run.clock.rate(event) if update else 0.0)).encode())
        if event.kind == "grow" and growth:
            later.append(event)
        elif event.kind == "grow" or len(growth) == 1 and event.kind == "learn":
            growth.append(event)
        if update:
            last[event.kind] = event
            if len(of_kind := first.setdefault(event.kind, [])) < UPDATES:
                of_kind.append(event)
    return digest.hexdigest(), [*filter(None, chain(*zip_longest(*first.values()))), *growth, *later, *last.values()]


def _update(run: Run, event: Event) -> list[float]:
    """Make an update, or grow; return the loss terms."""
    if event.kind == "grow":
        run.grow()
        return []
    x, y = run.prepare(event)
    if not run.method.whole_batch:
        x, y = x[:BATCH], y[:BATCH]
    terms = run.step(event.kind, x, y, run.clock.rate(event))
    return [float(value) for value in (terms or {}).values()]
