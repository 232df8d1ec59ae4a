"""The one loop: walk a schedule's events, let the distiller say what is minimised, write down what happened.

Runs that share a teacher are walked together, in lockstep: the teacher is trained once, and each student's numbers and
weights are, bit for bit, those it would have alone. Taught in notebooks/02_baselines.ipynb and
notebooks/05_spaced_kd.ipynb.
"""

from __future__ import annotations

import hashlib
import math
import os
import time
import warnings
from contextlib import closing
from functools import cache
from itertools import islice, repeat
from pathlib import Path
from typing import Callable, Iterable, Iterator, NamedTuple

import torch
from torch import Tensor

from ..data import datasets
from ..data.batches import STATISTICS, Batches, channel_statistics, generator, normalised, seed_noise
from ..data.curriculum import School
from ..errors import InputError
from ..methods import build, dropout_ema
from ..methods.online_kd import batch_statistics
from ..models.resnet import dropouts
from ..models.scoring import eval_mode, named_scores
from ..models.transformers import no_decay
from ..recipes import Recipe, stochastic, teacher_of
from ..schedule import (
    Course, Event, graded_schedule, interval_batches, lockstep, one_a_block, snapshots, spaced_schedule,
)
from ..store import exact, records
from . import checkpoints, distributed, graphs, stacked

# What must agree for a checkpoint to lead to the same bits.
SAME_BITS = ("spacedkd", "torch", "data_sha256", "device", "device_name", "threads", "processes", "exact",
             "code_sha256", "seeds_together", "engine", "tf32", "driver", "cuda", "cudnn")
PROBED = 500  # test pictures that a distiller's own numbers are computed from, and a CPU scores at once (ours)
DIVERGED = 1e6  # a loss above this is given up (ours): the losses here stay below 1e3


def recipe_schedule(recipe: Recipe, batches_per_epoch: int | Course) -> Iterator[Event]:
    """The events of a recipe. A baseline has one kind of update only, its own (or the teacher's, where it is that
    teacher); a replay that updates everything makes the teacher's own update on its starting batch superfluous
    (released self-KD program)."""
    options = dict(rule=recipe.rule, tail=recipe.tail, seed=recipe.seed)
    graded = isinstance(batches_per_epoch, Course)
    fewest = min(batches for _, batches in batches_per_epoch.grades) if graded else batches_per_epoch
    if 0 < abs(recipe.interval) * fewest < 1:
        raise InputError(f"interval = {recipe.interval} epochs is less than one of the {fewest} batches of an epoch: "
                         f"give 0, or at least {1 / fewest:.3g}, ahead or behind.")
    if recipe.dropout and recipe.dropout_rule == "sine":
        dropout_ema.period(recipe, fewest)
    if graded:
        return graded_schedule(batches_per_epoch, recipe.interval, **options)
    if recipe.method == "past_self":
        return snapshots(recipe.epochs, batches_per_epoch, recipe.interval)
    events = spaced_schedule(recipe.epochs, batches_per_epoch, recipe.interval, counter=recipe.counter,
                             extra_step=recipe.extra_step,
                             teach_last=not (recipe.method == "self_kd" and recipe.self_update == "everything"),
                             **options)
    if recipe.method == "ema":
        return one_a_block(events)
    if recipe.method != "baseline":
        return events
    other = "teach" if recipe.start == "student" else "learn"
    return (event for event in events if event.kind != other)


def learning_rate(recipe: Recipe, done: int, total: int) -> float:
    """The rate after `done` of `total` batches. "cosine" falls to zero; "multistep" falls to a fifth after 30, 60 and
    80% of the run, as settings in the released programs say that nothing reads (A9); "late_steps" to a tenth after
    62.5, 75 and 87.5% (released ED program); "warmup_cosine" changes from epoch to epoch only, from a thousandth of
    `lr` to the full rate, then to a hundredth (released transformer programs: timm's schedule, of which 5e-4 is the
    full rate)."""
    if recipe.lr_schedule == "warmup_cosine":
        epoch, warm = done * recipe.epochs // total, recipe.warmup_epochs
        if epoch < warm:
            return recipe.lr * (0.001 + 0.999 * epoch / warm)
        return recipe.lr * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * epoch / recipe.epochs)))
    if recipe.lr_schedule == "late_steps":
        return recipe.lr * 0.1 ** sum(8 * done >= eighths * total for eighths in (5, 6, 7))
    if recipe.lr_schedule == "multistep":
        return recipe.lr * 0.2 ** sum(10 * done >= tenths * total for tenths in (3, 6, 8))
    return recipe.lr * (1 if recipe.lr_schedule == "constant" else 0.5 * (1 + math.cos(math.pi * done / total)))


class Clock:
    """How far a run's teacher and student have come, for their learning rates.

    Each follows its own progress through the data, so the student meets every batch at the rate at which the teacher
    met it; with `student_clock` = "teacher" its rate is the one that the teacher has at that moment (A9).
    """

    def __init__(self, recipe: Recipe, batches_per_epoch: int | Course, past: Iterable[Event]):
        self.recipe, self.course = recipe, batches_per_epoch
        if not isinstance(batches_per_epoch, Course):
            self.course = Course(((recipe.epochs, batches_per_epoch),))
        self.teacher = 0.0
        for event in past:
            self.rate(event)

    def rate(self, event: Event) -> float:
        """Learning rate of an event's update."""
        if event.kind == "learn" and (self.recipe.student_clock == "own" or self.recipe.method == "baseline"):
            restart = self.recipe.lr_on_growth == "restart"
            return learning_rate(self.recipe, *self.course.progress(event.index, restart))
        if event.kind == "teach" and self.course.lessons:
            self.teacher = learning_rate(self.recipe, event.index, self.course.lessons * self.course.epochs)
        elif event.kind == "teach":
            self.teacher = learning_rate(self.recipe, *self.course.progress(event.index, restart=False))
        return self.teacher

    def epoch(self, event: Event) -> float:
        """Epochs of the student's data before an event's batch."""
        done, total = self.course.progress(event.index, restart=False)
        return done * self.recipe.epochs / total  # one rounding, so that whole epochs are whole numbers


def optimizers(recipe: Recipe, distiller) -> dict[str, torch.optim.Optimizer]:
    """An optimizer for each role; one for both where they train the same modules."""
    made = {}
    for kind, modules in distiller.trained.items():
        made[kind] = (next((made[k] for k in made if distiller.trained[k] == modules), None) or
                      optimizer_of(recipe, torch.nn.ModuleList(modules)))
    return made


def optimizer_of(recipe: Recipe, network: torch.nn.Module) -> torch.optim.Optimizer:
    """SGD with momentum, which decays all parameters; or AdamW, which spares those of `vits.no_decay`
    (each as its released programs)."""
    if recipe.optimizer != "adamw":
        return torch.optim.SGD(network.parameters(), lr=recipe.lr, momentum=recipe.momentum,
                               weight_decay=recipe.weight_decay)
    groups = {True: [], False: []}
    for name, parameter in network.named_parameters():
        groups[not no_decay(name, parameter)].append(parameter)
    return torch.optim.AdamW([{"params": members, "weight_decay": recipe.weight_decay * decays}
                              for decays, members in groups.items()], lr=recipe.lr, fused=True)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Of the next update; a replay reads it from a tensor."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def zero_gradients(optimizer: torch.optim.Optimizer) -> None:
    """Gradients of zero, where `zero_grad` leaves none: an update then still moves what momentum and decay move."""
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad = torch.zeros_like(p)


class Run:
    """A recipe in training: its distiller and optimizers, how many of its events are done, and its numbers so far.

    failed: why it was given up; empty if it was not.
    """

    def __init__(self, recipe: Recipe, distiller):
        self.recipe, self.distiller, self.optimizer = recipe, distiller, optimizers(recipe, distiller)
        self.position, self.rows, self.tally, self.failed = 0, [], Tally(), ""
        self.grade, self.told = 1, {}  # told: numbers that wait for the next row
        self.predicted = {}  # split -> the student's class of each picture, [N], when it was last scored
        self.lengths = None  # batches of a training epoch, of a test in batches of `beyond.TEST_BATCH`; set by assemble
        self.graphs = {}  # kind -> the `graphs.Graphs` that makes its updates in place of `update`

    def grow(self) -> None:
        """Enter the next grade: its parameters join the optimizer, those of the old head leave it."""
        self.distiller.grow()
        self.grade, old = self.grade + 1, self.optimizer["learn"]
        self.optimizer["learn"] = optimizers(self.recipe, self.distiller)["learn"]
        if self.recipe.optimizer_on_growth == "keep":
            for group in self.optimizer["learn"].param_groups:
                self.optimizer["learn"].state |= {p: old.state[p] for p in group["params"] if p in old.state}

    def step(self, kind: str, x: Tensor, y: Tensor, rate: float) -> dict[str, Tensor] | None:
        """One update, "teach" or "learn", on a batch; its loss terms, or None for a batch only looked at."""
        if kind in self.optimizer:
            set_rate(self.optimizer[kind], rate)
        return self.graphs[kind].update(self, kind, x, y) if kind in self.graphs else self.update(kind, x, y)

    def update(self, kind: str, x: Tensor, y: Tensor) -> dict[str, Tensor] | None:
        """The loss terms, their gradients, one step at the rate that is set."""
        x, y, weight = distributed.part(x, y)
        with self.autocast(x.device.type):
            terms = getattr(self.distiller, kind)(x, y)
        if terms is None:
            return None
        optimizer = self.optimizer[kind]
        optimizer.zero_grad()
        (terms["loss"] * weight if weight != 1 else terms["loss"]).backward()
        terms = distributed.sum_up(optimizer, {name: value.detach() for name, value in terms.items()}, weight)
        if self.recipe.optimizer == "sam":
            self._step_from_uphill(kind, x, y)
        else:
            optimizer.step()
        return terms

    def autocast(self, device_type: str) -> torch.autocast:
        """The precision of forward passes."""
        return torch.autocast(device_type, torch.bfloat16, enabled=self.recipe.precision == "bf16")

    def _step_from_uphill(self, kind: str, x: Tensor, y: Tensor) -> None:
        """Step by the gradients at the worst point within rho of the weights (SAM, Foret et al. 2021). The second pass
        moves no running statistics."""
        optimizer = self.optimizer[kind]
        params = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        before = [p.detach().clone() for p in params]
        with torch.no_grad():
            grads = [p.grad for p in params]
            norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))
            torch._foreach_add_(params, torch._foreach_mul(grads, self.recipe.sam_rho / (norm + 1e-12)))
        optimizer.zero_grad()
        with batch_statistics(torch.nn.ModuleList(self.distiller.trained[kind])), self.autocast(x.device.type):
            loss = getattr(self.distiller, kind)(x, y)["loss"]
        loss.backward()
        with torch.no_grad():
            torch._foreach_copy_(params, before)
        optimizer.step()

    def idle(self, kind: str, rate: float) -> None:
        """Update the network that did not learn with gradients of zero, as one AdamW over both networks does (released
        transformer programs, V1): momentum goes on, weights decay, the second moment shrinks."""
        optimizer = self.optimizer["learn" if kind == "teach" else "teach"]
        set_rate(optimizer, rate)
        zero_gradients(optimizer)
        optimizer.step()

    def set_dropout(self, modules: Iterable[torch.nn.Module], t: int) -> None:
        """The rate of dropout in modules at batch t."""
        rate = dropout_ema.dropout_rate(self.recipe, t, self.lengths[0])
        for module in modules:
            for place in dropouts(module):
                place.rate = rate

    def check(self) -> None:
        """Give the run up if its loss is no number any more."""
        for kind, first in self.tally.diverged.items():
            if int(first) >= 0 and not self.failed:
                self.failed = (
                    f"The loss of run {self.recipe.run_id} ({self.recipe.in_words()}) is not a number below "
                    f"{DIVERGED:g} any more at the {Tally.roles[kind]}'s update on batch {int(first)}, epoch "
                    f"{len(self.rows) + 1}: lower lr = {self.recipe.lr:g} or beta = {self.recipe.beta:g}.")

    def weights(self) -> dict[str, Tensor]:
        """"student.<name>", "teacher.<name>", "projector.<name>" -> tensor."""
        with self.distiller.own_statistics():
            return {f"{name}.{key}": value for name, module in self.distiller.modules.items()
                    for key, value in module.state_dict().items()}


def walk(runs: list[Run], batches, evaluate: Callable[[list[Run]], list[dict]]
         ) -> Iterator[tuple[Event, list[Run], dict | None]]:
    """Train, one event after the other; at the end of an epoch each run gets its row of numbers.

    Args:
        runs: one, or several that share a teacher (`share_teacher`); each goes on from its position.
        batches: batches[i] -> (x [B, C, H, W], y [B]); len(batches) is an epoch.
        evaluate: called after every `eval_every` epochs and the last one; its numbers join the rows.

    Yields:
        After each event: the event, the runs whose it was, and the loss terms of its update. Between two events
        everything is consistent, so here a caller may save, stop or look. A run whose loss is not a finite number
        any more has `failed` set and is left out from then on.
    """
    asking = requests(runs, batches, evaluate)
    for event, sharing, asked in asking:
        terms = sharing[0].step(event.kind, *asked) if asked else None
        yield event, sharing, asking.send(terms)


def requests(runs: list[Run], batches, evaluate: Callable) -> Iterator:
    """What `walk` does but for the updates. Of each event it yields twice: first the event, the runs whose it is, and
    the batch and rate of the update that it asks for, (x, y, rate) or None; then, sent the loss terms, those, when
    everything is written down."""
    course = {run: batches.course(run.recipe) if isinstance(batches, School) else len(batches) for run in runs}
    schedules = {run: recipe_schedule(run.recipe, course[run]) for run in runs if not run.failed}
    clocks = {run: Clock(run.recipe, course[run], islice(events, run.position)) for run, events in schedules.items()}
    learned = {run: batches.learned(run.recipe) if isinstance(batches, School) else
               batches if reads_along(run.recipe) else batches.fresh(run.recipe.replay) for run in runs}
    for event, sharing in lockstep(schedules):
        if event.kind in ("epoch", "grow"):
            terms = yield event, sharing, None
        else:
            run = sharing[0]
            if event.kind == "learn" and not reads_along(run.recipe):
                x, y = learned[run][batch_of(run.recipe, event, len(batches))]
            else:
                x, y = (learned[run] if event.kind == "learn" else batches)[event.index]
            if isinstance(batches, School):
                run.distiller.sizes = batches.sizes(learned[run] if event.kind == "learn" else batches, event.index)
            rate, *_ = [clocks[other].rate(event) for other in sharing]
            run.distiller.epoch, run.distiller.block = clocks[run].epoch(event), event.block
            if stochastic(run.recipe):
                _draw_noise(run, event, x.device)
            terms = yield event, sharing, (x, y, rate)
            if run.recipe.idle_update == "zero_grad" and run.recipe.interval:
                run.idle(event.kind, rate)
        if event.kind == "epoch":
            due = event.index % runs[0].recipe.eval_every == 0 or event.index == runs[0].recipe.epochs
            for run, scored in zip(sharing, evaluate(sharing) if due else repeat({})):
                run.check()
                run.rows.append({"epoch": event.index, **run.tally.row(), **run.told, **scored})
                run.tally, run.told = Tally(), {}
        elif event.kind == "grow":
            for run, scored in zip(sharing, evaluate(sharing)):
                run.told |= {f"grade{event.index}_{key}": value for key, value in scored.items()}
                run.grow()
        for run in sharing:
            if terms:
                run.tally.add("learn" if run.recipe.method == "baseline" else event.kind, event.index, terms, len(y))
                if x.device.type == "cpu":  # a GPU would have to wait for the answer: once an epoch must do there
                    run.check()
            run.position += 1
        yield terms
        for run in [run for run in schedules if run.failed]:
            del schedules[run]


def walk_together(seeds: list[tuple[list[Run], Batches, Callable]]) -> Iterator[tuple[Event, list[Run], None]]:
    """`walk` for several seeds whose updates are made at once, see stacked.py; a run that fails costs no other.

    Args:
        seeds: for each what `walk` takes; the runs' recipes are equal but for the seed.
    """
    columns = list(zip(*[runs for runs, *_ in seeds]))  # of equal recipes
    stacks = stack(columns)
    schedules = {number: islice(recipe_schedule(run.recipe, len(seeds[0][1])), run.position, None)
                 for number, runs in enumerate(columns) for run in [run for run in runs if not run.failed][:1]}
    asking = [requests(*seed) for seed in seeds]
    asked = [next(requested, None) for requested in asking]
    for event, numbers in lockstep(schedules):
        now = {seed: request for seed, request in enumerate(asked) if request and request[0] == event
               and seeds[seed][0].index(request[1][0]) in numbers}
        if not now:
            continue  # all whose it was have failed
        sharing = [run for seed in now for run in asked[seed][1]]
        terms = _update_together(stacks[numbers[0]], event.kind, {seed: request[2] for seed, request in now.items()})
        for seed in now:
            asking[seed].send(None)
        for number in numbers if terms else ():
            _tally_together({seed: run for seed, run in enumerate(columns[number]) if run in sharing}, event, *terms)
        yield event, sharing, None
        for seed in now:
            asked[seed] = next(asking[seed], None)


def stack(columns: list[tuple[Run]]) -> list[Run]:
    """Of each list of equal runs one run that updates them all."""
    made, known = [], {}
    for runs in columns:
        made.append(Run(runs[0].recipe, stacked.Stack(runs, known)))
        made[-1].optimizer = made[-1].distiller.optimizer
    return made


def _update_together(run: Run, kind: str, asked: dict[int, tuple | None]) -> tuple[dict[str, Tensor], int] | None:
    """Loss terms [S] of one update of all seeds, and its images a seed. A seed that asks for none, as it has failed,
    gets another one's batch: so all kernels keep their shapes, and the other seeds their bits."""
    first = next(iter(asked.values()))
    if first is None:
        return None
    x, y, rates = zip(*[asked.get(seed, first) for seed in range(len(run.distiller.runs))])
    terms = run.step(kind, torch.stack(x), torch.stack(y), rates[0])
    run.distiller.share_views()
    return terms and ({name: terms["each" if name == "loss" else name] for name in terms if name != "each"}, len(y[0]))


def _tally_together(runs: dict[int, Run], event: Event, terms: dict[str, Tensor], images: int) -> None:
    """Write down the terms [S] of an update: runs by their place in S, without those that have failed."""
    if not runs:
        return
    first = next(iter(runs.values()))
    kind = "learn" if first.recipe.method == "baseline" else event.kind
    own = {name: torch.stack([value[place] for place in runs]) for name, value in terms.items()}
    Tally.add_together([run.tally for run in runs.values()], kind, event.index, own, images)
    if terms["loss"].device.type == "cpu":
        for run in runs.values():
            run.check()


def reads_along(recipe: Recipe) -> bool:
    """Whether a student learns the teacher's own batches; one whose loader restarts does where there are no blocks."""
    return recipe.replay == "same" or recipe.replay == "restart" and recipe.interval == 0


def batch_of(recipe: Recipe, event: Event, batches_per_epoch: int) -> int:
    """Which of its own batches a student learns. With replay = "restart" each block begins a new order, and another one
    with each pass (released transformer programs on one GPU, V5), so a block of half an epoch leaves half of it out."""
    if recipe.replay != "restart":
        return event.index
    length = interval_batches(batches_per_epoch, recipe.interval)
    passes, position = divmod(event.index - event.block * length, batches_per_epoch)
    orders = length // batches_per_epoch + 1  # at most, in a block
    return (event.block * orders + passes) * batches_per_epoch + position


def _draw_noise(run: Run, event: Event, device: torch.device) -> None:
    """Make what an update draws inside its networks a pure function of the event, however the run came to it."""
    seed_noise(device, run.recipe.seed, "noise", event.kind, event.index)
    if run.recipe.dropout:
        run.set_dropout(run.distiller.modules.values(), dropout_ema.counted(run.recipe, event.index, *run.lengths))


class Tally:
    """Sums of the terms of an epoch, kept on the device: reading a number would make a GPU wait."""

    roles = {"teach": "teacher", "learn": "student"}

    def __init__(self):
        self.sums, self.images = {}, {"teach": 0, "learn": 0}  # sums: "teach/loss" -> tensor
        self.updates = {"teach": 0, "learn": 0}
        self.diverged = {}  # kind -> the first batch whose loss is no finite number, -1 for none; a tensor
        self.started = time.perf_counter()

    def add(self, kind: str, batch: int, terms: dict[str, Tensor], images: int) -> None:
        self.updates[kind] += 1
        self.images[kind] += images
        for name, value in terms.items():
            self.sums[f"{kind}/{name}"] = self.sums.get(f"{kind}/{name}", 0.0) + value.detach()
        loss = terms["loss"].detach()
        first = self.diverged.get(kind, torch.full_like(loss, -1, dtype=torch.int64))
        self.diverged[kind] = torch.where((first >= 0) | (loss.abs() < DIVERGED), first, batch)

    @staticmethod
    def add_together(tallies: list[Tally], kind: str, batch: int, terms: dict[str, Tensor], images: int) -> None:
        """`add` to S tallies, by as many kernels as to one; terms [S]."""
        whole = Tally()
        for name in ("sums", "diverged"):
            held = [getattr(tally, name) for tally in tallies]
            setattr(whole, name, {key: torch.stack([own[key] for own in held])
                                  for key in held[0] if key.startswith(kind)})
        whole.add(kind, batch, terms, images)
        for place, tally in enumerate(tallies):
            tally.updates[kind] += 1
            tally.images[kind] += images
            tally.sums |= {key: value[place] for key, value in whole.sums.items()}
            tally.diverged |= {key: value[place] for key, value in whole.diverged.items()}

    def row(self) -> dict[str, float]:
        """Mean loss terms, train accuracy in percent, updates, seconds since the tally began, and images that went
        through an update a second."""
        row = {f"{role}_updates": self.updates[kind] for kind, role in self.roles.items()}
        for key, value in self.sums.items():
            kind, name = key.split("/")
            if name.endswith("correct"):
                who = name.removesuffix("correct") or f"{self.roles[kind]}_"
                row[f"{who}train_accuracy"] = 100 * float(value) / self.images[kind]
            else:
                row[f"{self.roles[kind]}_{name}"] = float(value) / self.updates[kind]
        seconds = time.perf_counter() - self.started  # only now: reading the sums waited for the device
        return row | {"seconds": seconds, "images_per_second": sum(self.images.values()) / seconds}


def evaluator(sets: dict[str, tuple[Tensor, Tensor]], statistics, device):
    """A function that scores what runs predict on each named set of (images, labels): one dict of numbers a run. A GPU
    takes more pictures at once, so that it need not wait for the host (ours)."""
    batch_size = PROBED if torch.device(device).type == "cpu" else 5 * PROBED
    held = {name: (images.to(device), labels.to(device)) for name, (images, labels) in sets.items()}

    def evaluate(runs: list[Run]) -> list[dict[str, float]]:
        rows = [{} for _ in runs]
        for run in runs:
            if hasattr(run.distiller, "before_scores"):
                run.distiller.before_scores()
        networks = torch.nn.ModuleList(module for run in runs for module in run.distiller.modules.values())
        bf16 = runs[0].recipe.precision == "bf16"
        with eval_mode(networks), torch.autocast(torch.device(device).type, torch.bfloat16, enabled=bf16):
            for split, (images, labels) in held.items():
                outputs = [[] for _ in runs]
                for part in images.split(batch_size):
                    x, memo = normalised(part, statistics), {}  # memo: a shared teacher is asked once
                    for run, got in zip(runs, outputs):
                        if not _scored_as_released(run.recipe):
                            got.append(run.distiller.predict(x, memo))
                for run, row, got in zip(runs, rows, outputs):
                    got = got or _as_released(run, split, images, statistics)
                    whole = {name: torch.cat([o[name] for o in got]).float() for name in got[0]}
                    row |= getattr(run.distiller, "scored", named_scores)(split, whole, labels)
                    run.predicted[split] = whole["student"].argmax(dim=1)
                    if split == "test" and hasattr(run.distiller, "diagnose"):
                        row |= run.distiller.diagnose(normalised(images[:PROBED], statistics))
        return rows
    return evaluate


def _scored_as_released(recipe: Recipe) -> bool:
    """Whether an answer depends on the other pictures of its batch, or on the batch's number (B1, B2, M1)."""
    return recipe.dropout_at_test != "off" or recipe.method == "ema" and recipe.ema_statistics == "batch"


def _as_released(run: Run, split: str, images: Tensor, statistics) -> list[dict[str, Tensor]]:
    """What a run predicts, in batches of 128 of shuffled pictures (one order a seed), back in the pictures' own order;
    with dropout at work where the recipe says so, drawn by epoch."""
    order = torch.randperm(len(images), generator=generator(run.recipe.seed, "test order", split)).to(images.device)
    epoch, answers = len(run.rows) + 1, []
    seed_noise(images.device, run.recipe.seed, "noise", split, epoch)
    for batch, which in enumerate(order.split(dropout_ema.TEST_BATCH)):
        if run.recipe.dropout_at_test != "off":
            run.set_dropout(run.distiller.modules.values(),
                            dropout_ema.number_at_test(run.recipe, epoch, batch, *run.lengths))
        answers.append(run.distiller.predict(normalised(images[which], statistics)))
    back = order.argsort()
    return [{name: torch.cat([answer[name] for answer in answers])[back] for name in answers[0]}]


class Outcome(NamedTuple):
    """What a run leaves, in the order in which `records.save` takes it.

    rows: of the epochs. weights: final ones by name. predictions: of the test pictures, `records.packed`.
    """

    rows: list[dict]
    summary: dict
    provenance: dict
    weights: dict[str, Tensor]
    predictions: str


def train(recipe: Recipe, dataset: datasets.Dataset, device: str | None = None,
          on_epoch: Callable[[dict], None] | None = None, engine: str | None = None
          ) -> Outcome:
    """Run a recipe on its data set, from nothing: `sweep` of one.

    Raises:
        InputError: its loss diverged.
    """
    outcome, = sweep([recipe], dataset, device, engine=engine,
                     on_epoch=on_epoch and (lambda run: on_epoch(run.rows[-1])))
    if isinstance(outcome, InputError):
        raise outcome
    return outcome


def sweep(recipes: list[Recipe], dataset: datasets.Dataset, device: str | None = None, folder: Path | None = None,
          on_epoch: Callable[[Run], None] | None = None, engine: str | None = None
          ) -> list[Outcome | InputError]:
    """Train recipes that share one teacher, in lockstep; or a single recipe; or either for several seeds at once.

    Args:
        recipes: of one `teacher_of`, or one recipe; or such lists of several seeds, equal but for the seed.
        dataset: the recipes' data set, see `data.load`.
        device: "cpu", "cuda", ...; a GPU if there is one unless given.
        folder: of checkpoints; training goes on from the last one there. None keeps none.
        on_epoch: called with each run after each of its epochs.
        engine: one of `graphs.ENGINES`, how updates are made: one by one ("eager"), or as replayed CUDA graphs
            ("graph"; "compiled": of compiled networks) where they fit; "auto": graphs on a GPU. SPACEDKD_ENGINE's
            unless given.

    Returns:
        For each recipe its outcome, or why it was given up.

    Raises:
        Stopped: `stopping.requested()`; a checkpoint holds what was done.
    """
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    engine = graphs.chosen(engine, device)
    repeatable(device)
    seeds = [assemble(group, dataset, device) for group in stacked.by_seed(recipes)]
    runs, batches = [run for group, *_ in seeds for run in group], seeds[0][1]
    engine = engine if len(seeds) == 1 else "eager"  # an update of several seeds is not recorded
    origin = provenance(dataset, device) | {"engine": engine, "seeds_together": len(seeds)}
    with closing(graphs.Graphs(runs, engine, device)) as recorded:
        keeper = checkpoints.Keeper(folder, runs, {key: origin.get(key) for key in SAME_BITS})
        for event, sharing, _ in walk(*seeds[0]) if len(seeds) == 1 else walk_together(seeds):
            if on_epoch and event.kind == "epoch":
                for run in sharing:
                    on_epoch(run)
            keeper.after(event)
    images_per_batch = recipes[0].batch_size if recipes[0].drop_last else len(batches.images) / len(batches)
    origin |= {"seconds": round(keeper.seconds(), 2), "runs_in_sweep": len(runs), "finished": records.now()}

    def outcome(run: Run) -> Outcome:
        more = run.distiller.summary(run.rows) if hasattr(run.distiller, "summary") else {}
        own = {"engine": recorded.told(run)}
        if run.recipe.precision != "fp32":
            own["exact"] = False  # the caps say nothing of bf16
        summary = summarise(run.rows, run.distiller.cost, images_per_batch) | more
        predictions = records.packed(run.predicted["test"].cpu().numpy())
        return Outcome(run.rows, summary, origin | own, run.weights(), predictions)
    return [InputError(run.failed) if run.failed else outcome(run) for run in runs]


def assemble(recipes: list[Recipe], dataset: datasets.Dataset, device) -> tuple[list[Run], Batches, Callable]:
    """Networks, batches and evaluation of recipes that share one teacher, ready to `walk`.

    Raises:
        InputError: several recipes that do not share one.
    """
    recipe = recipes[0]
    if len(recipes) > 1 and (teacher_of(recipe) is None or {teacher_of(r) for r in recipes} != {teacher_of(recipe)}):
        raise InputError(f"These {len(recipes)} recipes do not share one teacher (recipes.teacher_of): train them one "
                         "by one, or with study.run_all, which forms sweeps by itself.")
    training, validation = datasets.split(dataset, recipe.train_images, recipe.val_fraction, recipe.seed)
    images, labels = dataset.train_images, dataset.train_labels
    if len(training) < len(images):  # all of them are already in this order (`split` sorts): no copy then
        images, labels = images[training], labels[training]
    statistics = channel_statistics(images) if recipe.normalise == "own" else STATISTICS[recipe.normalise]
    batches = batches_of(recipe, images, labels, statistics, device)
    if recipe.method == "education":
        batches = School(batches, recipe, dataset.num_classes)
    if distributed.processes() > 1:
        distributed.check(recipe, len(images))
    made = [build.make(r, dataset.channels, dataset.num_classes, dataset.image_size) for r in recipes]
    for distiller in made:
        for module in distiller.modules.values():
            module.to(device, memory_format=torch.channels_last)
            if distributed.processes() > 1:
                distributed.prepare(module)
    if len(made) > 1:
        build.share_teacher(made)
    if isinstance(batches, School):
        for r, distiller in zip(recipes, made):
            distiller.images = batches.images_seen(r)
    runs = [Run(r, distiller) for r, distiller in zip(recipes, made)]
    for run in runs:
        run.lengths = (len(batches), -(-len(dataset.test_images) // dropout_ema.TEST_BATCH))
        if run.recipe.method == "ema":
            run.distiller.batches = batches.of(torch.arange(len(images)), "statistics of the average")
    if len(runs) > 1:
        for run in runs:
            run.optimizer["teach"] = runs[0].optimizer["teach"]
    sets = {"test": (dataset.test_images, dataset.test_labels)}
    if len(validation):
        sets["val"] = (dataset.train_images[validation], dataset.train_labels[validation])
    return runs, batches, evaluator(sets, statistics, device)


def batches_of(recipe: Recipe, images: Tensor, labels: Tensor, statistics, device="cpu") -> Batches:
    """A recipe's training batches."""
    return Batches(images, labels, recipe.batch_size, recipe.seed, recipe.augment, statistics, device,
                   drop_last=recipe.drop_last, size=recipe.image_size)


def repeatable(device: torch.device) -> None:
    """On a GPU, ask for kernels that give the same bits each time; a warning names an operation that has none. On a
    CPU, warn if its bits are not those of every other x86."""
    if device.type != "cuda":
        why_not = exact.why_not(torch.backends.cpu.get_cpu_capability(), torch.get_num_threads())
        if why_not and exact.caps():
            warnings.warn(why_not)
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is repeatable only with fixed buffers
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # for finding mistakes: hundreds of kernels an update
    # With warn_only these kernels of attention add up their gradients in any order, so that only the plain one is left.
    for kernel in ("flash", "mem_efficient", "cudnn"):
        getattr(torch.backends.cuda, f"enable_{kernel}_sdp")(False)


def summarise(rows: list[dict], cost: dict[str, int], images_per_batch: float) -> dict[str, float]:
    """The run in a few numbers. `test_...` is the last epoch (the headline); `best_on_val_...` is the test accuracy
    at the best validation epoch; `best_on_test_...` is what the released programs report (A5), and is optimistic."""
    last = {key: value for key, value in rows[-1].items() if "_test_" in key or key.startswith("test_")}
    evaluated = [row for row in rows if "test_accuracy" in row]
    updates = {kind: sum(row[f"{role}_updates"] for row in rows) for kind, role in Tally.roles.items()}
    summary = last | {"best_on_test_accuracy": max(row["test_accuracy"] for row in evaluated),
                      "teacher_updates": updates["teach"], "student_updates": updates["learn"],
                      "train_gmacs": sum(cost.get(k, 0) * updates[k] for k in updates) * images_per_batch / 1e9}
    if "val_accuracy" in rows[-1]:
        best = max(evaluated, key=lambda row: row["val_accuracy"])
        summary |= {"best_on_val_accuracy": best["test_accuracy"], "best_on_val_epoch": best["epoch"]}
    return summary


@cache
def code_sha256() -> str:
    """Of the modules that decide a run's numbers; those that only tell of them may change in mid-run."""
    telling = {"tables", "figures", "diagrams", "notebook", "exercises", "runner", "statistics", "deviations",
               "other_deviations", "transformer_deviations", "beyond_deviations", "claims", "study", "idle", "slurm",
               "__main__", "landscape", "curvature", "robustness", "theory", "measures", "measure_figures",
               "tuning"}
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        if path.stem not in telling and "bench" not in path.parts:
            digest.update(path.read_bytes())
    return digest.hexdigest()


def provenance(dataset: datasets.Dataset, device: torch.device) -> dict:
    """Where the numbers come from."""
    gpu = device.type == "cuda"
    hardware = torch.cuda.get_device_name(device) if gpu else torch.backends.cpu.get_cpu_capability()
    threads = torch.get_num_threads()
    more = gpu_environment() if gpu else {"exact": not exact.why_not(hardware, threads)}
    return records.environment() | {"code_sha256": code_sha256(), "dataset": dataset.name,
                                    "data_sha256": dataset.sha256, "device": device.type, "device_name": hardware,
                                    "threads": threads, "processes": distributed.processes()} | more


def gpu_environment() -> dict:
    """What a GPU's numbers depend on besides: versions of driver and libraries; and "tf32", the operations in single
    precision that round their factors to ten bits of mantissa (by default, as torch's, convolutions)."""
    precisions = {"convolutions": torch.backends.cudnn.conv.fp32_precision,
                  "matrix products": torch.backends.cuda.matmul.fp32_precision}
    return {"driver": _driver(), "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version(),
            "tf32": ", ".join(name for name, set_to in precisions.items() if set_to == "tf32") or "none"}


@cache
def _driver() -> str | None:
    versions = records.answer(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"])
    return versions.split("\n")[0] if versions else None  # a line for each GPU
