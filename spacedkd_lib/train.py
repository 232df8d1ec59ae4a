"""The one loop: walk a schedule's events, let the distiller say what is minimised, write down what happened.

Taught in notebooks/02_baselines.ipynb and notebooks/05_spaced_kd.ipynb.
"""

from __future__ import annotations

import math
import os
import time
from collections import defaultdict
from typing import Callable, Iterator

import torch
from torch import Tensor

from . import data, distillers, records
from .batches import STATISTICS, Batches, channel_statistics, normalised
from .evaluate import eval_mode, scores
from .recipes import InputError, Recipe
from .schedule import Event, spaced_schedule


def recipe_schedule(recipe: Recipe, batches_per_epoch: int) -> Iterator[Event]:
    """The events of a recipe. A baseline learns at once and has no teacher's events; a replay that updates
    everything makes the teacher's own update on its starting batch superfluous (released self-KD program)."""
    events = spaced_schedule(recipe.epochs, batches_per_epoch, recipe.interval, rule=recipe.rule, tail=recipe.tail,
                             counter=recipe.counter, seed=recipe.seed,
                             teach_last=not (recipe.method == "self_kd" and recipe.self_update == "everything"))
    if 0 < recipe.interval * batches_per_epoch < 1:
        raise InputError(f"interval = {recipe.interval} epochs is less than one of the {batches_per_epoch} batches of "
                         f"an epoch: give 0, or at least {1 / batches_per_epoch:.3g}.")
    return (e for e in events if e.kind != "teach") if recipe.method == "baseline" else events


def learning_rate(recipe: Recipe, batch: int, total: int) -> float:
    """The rate of the update on one batch. Teacher and student each follow their own progress through the data, so
    the student meets every batch at the rate at which the teacher met it."""
    return recipe.lr * (1 if recipe.lr_schedule == "constant" else 0.5 * (1 + math.cos(math.pi * batch / total)))


def optimizers(recipe: Recipe, distiller) -> dict[str, torch.optim.SGD]:
    """One SGD for each role; one for both where they train the same modules."""
    made = {}
    for kind, modules in distiller.trained.items():
        made[kind] = next((made[k] for k in made if distiller.trained[k] == modules), None) or torch.optim.SGD(
            [p for module in modules for p in module.parameters()], lr=recipe.lr, momentum=recipe.momentum,
            weight_decay=recipe.weight_decay)
    return made


def walk(recipe: Recipe, distiller, batches, evaluate: Callable[[], dict],
         on_update: Callable[[Event, dict], None] | None = None) -> Iterator[dict]:
    """Train; yield one row of numbers an epoch of the teacher.

    Args:
        recipe: what to run.
        distiller: see distillers/.
        batches: batches[i] -> (x [B, C, H, W], y [B]); len(batches) is an epoch.
        evaluate: called after every `eval_every` epochs and the last one; its numbers join the row.
        on_update: called after each update with the event and its loss terms.

    Raises:
        InputError: the loss is not a finite number any more.
    """
    optimizer, total, tally = optimizers(recipe, distiller), recipe.epochs * len(batches), Tally()
    for event in recipe_schedule(recipe, len(batches)):
        if event.kind == "epoch":
            row = {"epoch": event.index, **tally.row()}
            if not all(math.isfinite(value) for value in row.values()):
                raise InputError(f"The loss of run {recipe.run_id} is not finite in epoch {event.index}: lower lr "
                                 f"= {recipe.lr} or beta = {recipe.beta}.")
            evaluated = event.index % recipe.eval_every == 0 or event.index == recipe.epochs
            yield row | (evaluate() if evaluated else {})
            tally = Tally()
            continue
        x, y = batches[event.index]
        terms = getattr(distiller, event.kind)(x, y)  # the distiller's teach or learn
        if terms is None:  # seen without an update
            continue
        for group in optimizer[event.kind].param_groups:
            group["lr"] = learning_rate(recipe, event.index, total)
        optimizer[event.kind].zero_grad()
        terms["loss"].backward()
        optimizer[event.kind].step()
        tally.add(event.kind, terms, len(y))
        if on_update:
            on_update(event, terms)


class Tally:
    """Sums of the terms of an epoch, kept on the device: reading a number would make a GPU wait."""

    roles = {"teach": "teacher", "learn": "student"}

    def __init__(self):
        self.sums, self.images = defaultdict(float), defaultdict(int)
        self.updates = {"teach": 0, "learn": 0}
        self.started = time.perf_counter()

    def add(self, kind: str, terms: dict[str, Tensor], images: int) -> None:
        self.updates[kind] += 1
        self.images[kind] += images
        for name, value in terms.items():
            self.sums[kind, name] += value.detach()

    def row(self) -> dict[str, float]:
        """Mean loss terms, train accuracy in percent, updates, seconds since the tally began, and images that went
        through an update a second."""
        row = {f"{role}_updates": self.updates[kind] for kind, role in self.roles.items()}
        for (kind, name), value in self.sums.items():
            if name.endswith("correct"):
                who = name.removesuffix("correct") or f"{self.roles[kind]}_"
                row[f"{who}train_accuracy"] = 100 * float(value) / self.images[kind]
            else:
                row[f"{self.roles[kind]}_{name}"] = float(value) / self.updates[kind]
        seconds = time.perf_counter() - self.started  # only now: reading the sums waited for the device
        return row | {"seconds": seconds, "images_per_second": sum(self.images.values()) / seconds}


def evaluator(distiller, sets: dict[str, tuple[Tensor, Tensor]], statistics, device, batch_size: int = 500):
    """A function of nothing that scores the distiller's predictions on each named set of (images, labels)."""
    held = {name: (images.to(device), labels.to(device)) for name, (images, labels) in sets.items()}
    net = distiller.modules["student"], distiller.modules.get("teacher")

    def evaluate() -> dict[str, float]:
        row = {}
        with eval_mode(torch.nn.ModuleList(n for n in net if n is not None)):
            for split, (images, labels) in held.items():
                chunks = (normalised(part, statistics) for part in images.split(batch_size))
                outputs = [distiller.predict(x) for x in chunks]
                for name in outputs[0]:
                    got = scores(torch.cat([o[name] for o in outputs]).float(), labels)
                    row |= _named(split, name, got)
        return row
    return evaluate


def _named(split: str, network: str, got: dict[str, float]) -> dict[str, float]:
    """The student's scores carry no prefix; of other networks and exits only the accuracy is kept."""
    if network == "student":
        return {f"{split}_{key}": value for key, value in got.items()}
    return {f"{network}_{split}_accuracy": got["accuracy"]}


def train(recipe: Recipe, dataset: data.Dataset, device: str | None = None,
          on_epoch: Callable[[dict], None] | None = None) -> tuple[list[dict], dict, dict, dict]:
    """Run a recipe on its data set, from nothing.

    Args:
        recipe: what to run.
        dataset: the recipe's data set, see `data.load`.
        device: "cpu", "cuda", ...; a GPU if there is one unless given.
        on_epoch: called with each epoch's row.

    Returns:
        Rows of the epochs, summary, provenance, and the final weights by name: what `records.run_or_load` asks for.
    """
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    repeatable(device)
    training, validation = data.split(dataset, recipe.train_images, recipe.val_fraction, recipe.seed)
    images = dataset.train_images[training]
    statistics = channel_statistics(images) if recipe.normalise == "own" else STATISTICS[recipe.normalise]
    batches = Batches(images, dataset.train_labels[training], recipe.batch_size, recipe.seed, recipe.augment,
                      statistics, device)
    distiller = distillers.make(recipe, dataset.channels, dataset.num_classes, dataset.image_size)
    for module in distiller.modules.values():
        module.to(device, memory_format=torch.channels_last)
    sets = {"test": (dataset.test_images, dataset.test_labels)}
    if len(validation):
        sets["val"] = (dataset.train_images[validation], dataset.train_labels[validation])

    started, rows = time.perf_counter(), []
    for row in walk(recipe, distiller, batches, evaluator(distiller, sets, statistics, device)):
        rows.append(row)
        if on_epoch:
            on_epoch(row)
    weights = {f"{name}.{key}": value for name, module in distiller.modules.items()
               for key, value in module.state_dict().items()}
    return (rows, summarise(rows, distiller.cost, len(images) / len(batches)),
            provenance(recipe, dataset, device, time.perf_counter() - started), weights)


def repeatable(device: torch.device) -> None:
    """On a GPU, ask for kernels that give the same bits each time; a warning names an operation that has none."""
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is repeatable only with fixed buffers
        torch.use_deterministic_algorithms(True, warn_only=True)


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


def provenance(recipe: Recipe, dataset: data.Dataset, device: torch.device, seconds: float) -> dict:
    """Where the numbers come from."""
    hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    return records.environment() | {"dataset": dataset.name, "data_sha256": dataset.sha256, "device": device.type,
                                    "device_name": hardware, "threads": torch.get_num_threads(),
                                    "seconds": round(seconds, 2), "finished": records.now()}
