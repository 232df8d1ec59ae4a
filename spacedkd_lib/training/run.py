"""One recipe in training: its events, updates, and numbers so far."""

from __future__ import annotations

import time
from itertools import islice
from typing import Iterable, Iterator

import torch
from torch import Tensor

from ..data.batches import seed_noise
from ..errors import InputError
from ..methods import dropout_ema
from ..methods.base import Method
from ..methods.build import recipe_schedule
from ..methods.online_kd import batch_statistics
from ..models.layers import dropouts
from ..recipes import Recipe, foreign, stochastic
from ..schedule import Event, interval_batches
from . import distributed
from .graphs import Graphs
from .optimizers import optimizers, set_rate, zero_gradients
from .rates import Clock

DIVERGED = 1e6  # a loss above this is given up (ours): the losses here stay below 1e3
HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
FP16_SCALE = 1024.0  # of the loss (ours): gradients from 6e-11 to 64 are neither zero nor infinite
ROLES = {"teach": "teacher", "learn": "student"}  # update -> who makes it


class Run:
    """A recipe in training.

    position: events done. rows: of the epochs. predicted: split -> the student's class of each picture, [N], when last
    scored. failed: the reason why it was given up, or "".

    Args:
        method: of the recipe, see `methods.build.make`.
        lengths: batches of a training epoch, and of a test in batches of `dropout_ema.TEST_BATCH`; dropout reads them.
    """

    def __init__(self, recipe: Recipe, method: Method, lengths: tuple[int, int] = (0, 0)):
        self.recipe, self.method, self.lengths = recipe, method, lengths
        self.optimizer = optimizers(recipe, method)
        self.position, self.grade, self.failed, self.metrics = 0, 1, "", EpochMetrics()
        self.rows: list[dict] = []
        self.pending: dict[str, float] = {}  # numbers that wait for the next row
        self.predicted: dict[str, Tensor] = {}
        self.graphs: dict[str, Graphs] = {}  # kind -> what makes its updates in place of `update`

    def events(self, batches) -> Iterator[Event]:
        """Prepare for the events from the run's position on, and return them.

        Args:
            batches: of `methods.build.method_class(recipe).batches`.
        """
        course = batches.course(self.recipe)
        events = recipe_schedule(self.recipe, course)
        self.clock = Clock(self.recipe, course, islice(events, self.position))
        self.batches = {"teach": batches, "learn": batches.learned(self.recipe)}
        self.batches_per_epoch = len(batches)
        return events

    def prepare(self, event: Event) -> tuple[Tensor, Tensor]:
        """Set all that an event's update depends on, and return its batch (x, y)."""
        batches, i = self.batches["learn" if event.kind == "learn" else "teach"], event.index
        if event.kind == "learn" and batches is not self.batches["teach"]:
            i = batch_of(self.recipe, event, self.batches_per_epoch)
        x, y = batches[i]
        self.method.epoch, self.method.block = self.clock.epoch(event), event.block
        self.method.before_update(batches.sizes(i))
        if stochastic(self.recipe):  # what an update draws is a function of the event, however the run came to it
            seed_noise(x.device, self.recipe.seed, "noise", event.kind, event.index)
            if self.recipe.dropout:
                self.set_dropout(self.method.modules.values(),
                                 dropout_ema.counted(self.recipe, event.index, *self.lengths))
        return x, y

    def step(self, kind: str, x: Tensor, y: Tensor, rate: float) -> dict[str, Tensor] | None:
        """Make one update, "teach" or "learn", on a batch; return its loss terms, None if it only looked."""
        if kind in self.optimizer:
            set_rate(self.optimizer[kind], rate)
        terms = self.graphs[kind].update(self, kind, x, y) if kind in self.graphs else self.update(kind, x, y)
        if self.recipe.idle_update == "zero_grad" and self.recipe.interval:
            self.idle(kind, rate)
        return terms

    def update(self, kind: str, x: Tensor, y: Tensor) -> dict[str, Tensor] | None:
        """Compute loss terms and gradients, then step once at the set rate."""
        x, y, weight = distributed.part(x, y)
        with self.autocast(x.device.type):
            terms = getattr(self.method, kind)(x, y)
        if terms is None:
            return None
        if "loss" not in terms:
            raise InputError(f'{kind} of the method {self.recipe.method} returned no "loss" among {list(terms)}: name '
                             "so the scalar to be minimised.")
        optimizer = self.optimizer[kind]
        self._backward(optimizer, terms["loss"] * weight if weight != 1 else terms["loss"])
        terms = distributed.sum_up(optimizer, {name: value.detach() for name, value in terms.items()}, weight)
        if self.recipe.optimizer == "sam":
            self._step_from_uphill(kind, x, y)
        else:
            self._step(optimizer)
        return terms

    def _step(self, optimizer: torch.optim.Optimizer) -> None:
        if self.recipe.clip_norm:
            torch.nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]],
                                           self.recipe.clip_norm)
        optimizer.step()

    def _backward(self, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        """Compute the gradients of a loss; those of fp16 would round to zero, so the loss is scaled for them."""
        optimizer.zero_grad()
        if self.recipe.precision != "fp16":
            loss.backward()
            return
        (FP16_SCALE * loss).backward()
        torch._foreach_div_([p.grad for group in optimizer.param_groups for p in group["params"]
                             if p.grad is not None], FP16_SCALE)

    def autocast(self, device_type: str) -> torch.autocast:
        """Compute in the recipe's precision within this context."""
        precision = self.recipe.precision
        return torch.autocast(device_type, HALF.get(precision), enabled=precision in HALF)

    def _step_from_uphill(self, kind: str, x: Tensor, y: Tensor) -> None:
        """Step by the gradients at the worst point within rho (SAM, Foret et al. 2021), without moving statistics."""
        optimizer = self.optimizer[kind]
        params = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        before = [p.detach().clone() for p in params]
        with torch.no_grad():
            grads = [p.grad for p in params]
            norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))
            torch._foreach_add_(params, torch._foreach_mul(grads, self.recipe.sam_rho / (norm + 1e-12)))
        with batch_statistics(torch.nn.ModuleList(self.method.trained[kind])), self.autocast(x.device.type):
            loss = getattr(self.method, kind)(x, y)["loss"]
        self._backward(optimizer, loss)
        with torch.no_grad():
            torch._foreach_copy_(params, before)
        self._step(optimizer)

    def idle(self, kind: str, rate: float) -> None:
        """Update the network that did not learn with gradients of zero, as one AdamW over both networks does (V1).

        Momentum goes on, weights decay, the second moment shrinks.
        """
        optimizer = self.optimizer["learn" if kind == "teach" else "teach"]
        set_rate(optimizer, rate)
        zero_gradients(optimizer)
        optimizer.step()

    def set_dropout(self, modules: Iterable[torch.nn.Module], t: int) -> None:
        rate = dropout_ema.dropout_rate(self.recipe, t, self.lengths[0])
        for module in modules:
            for place in dropouts(module):
                place.rate = rate

    def count(self, event: Event, terms: dict[str, Tensor] | None, images: int) -> None:
        """Record the terms of an update."""
        if terms:
            self.metrics.add(self.method.tallied[event.kind], event.index, self.method.recorded(terms), images)
            if terms["loss"].device.type == "cpu":  # a GPU would have to wait: once an epoch must do there
                self.check()

    def end_epoch(self, epoch: int, scored: dict[str, float]) -> None:
        """Complete the epoch's row."""
        self.check()
        self.rows.append({"epoch": epoch, **self.metrics.row(), **self.pending, **scored})
        self.metrics, self.pending = EpochMetrics(), {}

    def grow(self, scored: dict[str, float] | None = None) -> None:
        """Enter the next grade: its parameters join the optimizer, those of the old head leave it.

        scored: at the end of the old grade; kept for the next row.
        """
        self.pending |= {f"grade{self.grade}_{key}": value for key, value in (scored or {}).items()}
        self.method.grow()
        self.grade, old = self.grade + 1, self.optimizer["learn"]
        self.optimizer["learn"] = optimizers(self.recipe, self.method)["learn"]
        if self.recipe.optimizer_on_growth == "keep":
            for group in self.optimizer["learn"].param_groups:
                self.optimizer["learn"].state |= {p: old.state[p] for p in group["params"] if p in old.state}

    def check(self) -> None:
        """Give the run up if its loss is no finite number."""
        for kind, first in self.metrics.diverged.items():
            if int(first) >= 0 and not self.failed:
                rate = "teacher_lr" if kind == "teach" and self.recipe.teacher_lr else "lr"
                beta = f" or beta = {self.recipe.beta:g}" * ("beta" not in foreign(self.recipe.method))
                self.failed = (
                    f"The loss of run {self.recipe.run_id} ({self.recipe.in_words()}) is not a number below "
                    f"{DIVERGED:g} any more at the {ROLES[kind]}'s update on batch {int(first)}, epoch "
                    f"{len(self.rows) + 1}: lower {rate} = {getattr(self.recipe, rate):g}{beta}.")

    def weights(self) -> dict[str, Tensor]:
        """Return "student.<name>", "teacher.<name>", "projector.<name>" -> tensor."""
        with self.method.own_statistics():
            return {f"{name}.{key}": value for name, module in self.method.modules.items()
                    for key, value in module.state_dict().items()}


def batch_of(recipe: Recipe, event: Event, batches_per_epoch: int) -> int:
    """Return the number of the student's batch; replay = "restart" begins a new order at each block and pass.

    So a block of half an epoch leaves half of it out (released transformer programs on one GPU, V5).
    """
    if recipe.replay != "restart":
        return event.index
    length = interval_batches(batches_per_epoch, recipe.interval)
    passes, position = divmod(event.index - event.block * length, batches_per_epoch)
    orders = length // batches_per_epoch + 1  # at most, in a block
    return (event.block * orders + passes) * batches_per_epoch + position


class EpochMetrics:
    """Sums of an epoch's terms, kept on the device because reading a number would make a GPU wait."""

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
    def add_together(all_of: list[EpochMetrics], kind: str, batch: int, terms: dict[str, Tensor], images: int) -> None:
        """Call `add` for S epochs, by as many kernels as for one; terms [S]."""
        whole = EpochMetrics()
        for name in ("sums", "diverged"):
            held = [getattr(metrics, name) for metrics in all_of]
            setattr(whole, name, {key: torch.stack([own[key] for own in held])
                                  for key in held[0] if key.startswith(kind)})
        whole.add(kind, batch, terms, images)
        for place, metrics in enumerate(all_of):
            metrics.updates[kind] += 1
            metrics.images[kind] += images
            metrics.sums |= {key: value[place] for key, value in whole.sums.items()}
            metrics.diverged |= {key: value[place] for key, value in whole.diverged.items()}

    def row(self) -> dict[str, float]:
        """Return mean loss terms, train accuracy in percent, updates, seconds of the epoch, and images a second."""
        row: dict[str, float] = {f"{role}_updates": self.updates[kind] for kind, role in ROLES.items()}
        for key, value in self.sums.items():
            kind, name = key.split("/")
            if name.endswith("correct"):
                who = name.removesuffix("correct") or f"{ROLES[kind]}_"
                row[f"{who}train_accuracy"] = 100 * float(value) / self.images[kind]
            else:
                row[f"{ROLES[kind]}_{name}"] = float(value) / self.updates[kind]
        seconds = time.perf_counter() - self.started  # only now: reading the sums waited for the device
        return row | {"seconds": seconds, "images_per_second": sum(self.images.values()) / seconds}
