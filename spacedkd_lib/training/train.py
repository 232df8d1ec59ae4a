"""Train one recipe, or a sweep of recipes that share their teacher, from nothing or from a checkpoint."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Callable, NamedTuple

import torch
from torch import Tensor

from ..data import datasets
from ..data.batches import Batches, statistics_of
from ..errors import InputError
from ..methods import build, dropout_ema
from ..recipes import Recipe, plugins, teacher_of
from ..store import records
from ..store.identity import code_of
from . import checkpoints, distributed, graphs, stacked
from .evaluation import evaluator
from .loop import Evaluate, walk
from .provenance import SAME_BITS, inputs, provenance, repeatable
from .run import ROLES, Run


class Outcome(NamedTuple):
    """Results of a run, in the order in which `records.save` takes them.

    rows: of the epochs. weights: final ones by name. predictions: of the test pictures, `records.packed`.
    """

    rows: list[dict]
    summary: dict
    provenance: dict
    weights: dict[str, Tensor]
    predictions: str


def train(recipe: Recipe, dataset: datasets.Dataset, device: str | None = None, engine: str | None = None) -> Outcome:
    """Train a recipe on its data set from the start: `sweep` of one.

    Raises:
        InputError: its loss diverged.
    """
    outcome, = sweep([recipe], dataset, device, engine=engine)
    if isinstance(outcome, InputError):
        raise outcome
    return outcome


def sweep(recipes: list[Recipe], dataset: datasets.Dataset, device: str | None = None, folder: Path | None = None,
          on_epoch: Callable[[Run], None] | None = None, engine: str | None = None
          ) -> list[Outcome | InputError]:
    """Train recipes that share one teacher, in lockstep; or a single recipe; or either for several seeds at once.

    Args:
        recipes: of one `teacher_of`, or one recipe; or such lists of several seeds, equal but for the seed.
        dataset: the recipes' data set, see `datasets.load`.
        device: "cpu", "cuda", ...; a GPU if there is one unless given.
        folder: of checkpoints; training goes on from the last one there. None keeps none.
        on_epoch: called with each run after each of its epochs.
        engine: one of `graphs.ENGINES`; default SPACEDKD_ENGINE. Updates run one by one ("eager"), or as replayed CUDA
            graphs ("graph"; "compiled": of compiled networks) where they fit; "auto": graphs on a GPU.

    Returns:
        For each recipe its outcome, or why it was given up.

    Raises:
        Stopped: `stopping.requested()`; a checkpoint holds the progress.
    """
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    engine = graphs.chosen(engine, device)
    repeatable(device)
    seeds = [assemble(group, dataset, device) for group in stacked.by_seed(recipes)]
    runs, batches = [run for group, *_ in seeds for run in group], seeds[0][1]
    engine = engine if len(seeds) == 1 else "eager"  # an update of several seeds is not recorded
    origin = provenance(dataset, device) | {"engine": engine, "seeds_together": len(seeds),
                                            "code_sha256": code_of(run.recipe for run in runs)}
    with closing(graphs.Graphs(runs, engine, device)) as recorded:
        keeper = checkpoints.Checkpointer(folder, runs, {key: origin.get(key) for key in SAME_BITS})
        for event, sharing, _ in walk(*seeds[0]) if len(seeds) == 1 else stacked.walk_together(seeds):
            if on_epoch and event.kind == "epoch":
                with keeper.saved_if_stopped():
                    for run in sharing:
                        on_epoch(run)
            keeper.after(event)
    images_per_batch = recipes[0].batch_size if recipes[0].drop_last else len(batches.images) / len(batches)
    origin |= {"seconds": round(keeper.seconds(), 2), "runs_in_sweep": len(runs), "finished": records.now()}

    def outcome(run: Run) -> Outcome:
        own: dict[str, object] = inputs(run.recipe, dataset) | {
            "engine": recorded.engine_in_words(run), "code_sha256": code_of([run.recipe])}
        if plugged := plugins.hashes(run.recipe):
            own["plugins"] = plugged
        if run.recipe.precision != "fp32":
            own["exact"] = False  # the caps say nothing of half precision
        summary = summarise(run.rows, run.method.cost, images_per_batch) | run.method.summary(run.rows)
        predictions = records.packed(run.predicted["test"].cpu().numpy())
        return Outcome(run.rows, summary, origin | own, run.weights(), predictions)
    return [InputError(run.failed) if run.failed else outcome(run) for run in runs]


def assemble(recipes: list[Recipe], dataset: datasets.Dataset, device) -> tuple[list[Run], Batches, Evaluate]:
    """Make the runs, batches and evaluation of recipes that share one teacher, ready to `walk`.

    Raises:
        InputError: several recipes that do not share one.
    """
    recipe = recipes[0]
    if len(recipes) > 1 and (teacher_of(recipe) is None or {teacher_of(r) for r in recipes} != {teacher_of(recipe)}):
        raise InputError(f"These {len(recipes)} recipes do not share one teacher (recipes.teacher_of): train them one "
                         "by one, or with `run_all`, which forms sweeps by itself.")
    training, validation = datasets.split(dataset, recipe.train_images, recipe.val_fraction, recipe.seed)
    images, labels = dataset.train_images, dataset.train_labels
    if len(training) < len(images):  # all of them are already in this order (`split` sorts): no copy then
        images, labels = images[training], labels[training]
    statistics = statistics_of(recipe.normalise, images)
    batches = batches_of(recipe, images, labels, statistics, device)
    batches = build.method_class(recipe).batches(recipe, batches, dataset.num_classes)
    if distributed.processes() > 1:
        distributed.check(recipe, len(images))
    made = [build.make(r, dataset.channels, dataset.num_classes, dataset.image_size, batches) for r in recipes]
    for method in made:
        for module in method.modules.values():
            module.to(device, memory_format=torch.channels_last)
            if distributed.processes() > 1:
                distributed.prepare(module)
    if len(made) > 1:
        build.share_teacher(made)
    lengths = (len(batches), -(-len(dataset.test_images) // dropout_ema.TEST_BATCH))
    runs = [Run(r, method, lengths) for r, method in zip(recipes, made)]
    for run in runs[1:]:
        run.optimizer["teach"] = runs[0].optimizer["teach"]
    sets = {"test": (dataset.test_images, dataset.test_labels)}
    if len(validation):
        sets["val"] = (dataset.train_images[validation], dataset.train_labels[validation])
    return runs, batches, evaluator(sets, statistics, device)


def batches_of(recipe: Recipe, images: Tensor, labels: Tensor, statistics, device="cpu") -> Batches:
    """Make a recipe's training batches.

    Raises:
        InputError: parts of a batch that batch norm cannot normalise.
    """
    rest = 0 if recipe.drop_last else len(images) % recipe.batch_size
    for size in filter(None, (recipe.batch_size, rest)):
        part = -(-size // recipe.batch_norm_parts)  # as torch.chunk cuts
        if recipe.batch_norm_parts > 1 and (size % part or part) < 2:
            raise InputError(f"batch_norm_parts = {recipe.batch_norm_parts} leaves one picture of a batch of {size} "
                             "alone, and batch norm needs two: give fewer parts, or another batch_size.")
    return Batches(images, labels, recipe.batch_size, recipe.seed, recipe.augment, statistics, device,
                   drop_last=recipe.drop_last, size=recipe.image_size)


def summarise(rows: list[dict], cost: dict[str, int], images_per_batch: float) -> dict[str, float]:
    """Summarise a run: `test_...` is the last epoch, the headline; `best_on_val_...` the best validation epoch's test.

    `best_on_test_...` is the optimistic number that the released programs report (A5).
    """
    last = {key: value for key, value in rows[-1].items() if "_test_" in key or key.startswith("test_")}
    evaluated = [row for row in rows if "test_accuracy" in row]
    updates = {kind: sum(row[f"{role}_updates"] for row in rows) for kind, role in ROLES.items()}
    summary = last | {"best_on_test_accuracy": max(row["test_accuracy"] for row in evaluated),
                      "teacher_updates": updates["teach"], "student_updates": updates["learn"],
                      "train_gmacs": sum(of * updates[kind] for kind, of in cost.items()) * images_per_batch / 1e9}
    if "val_accuracy" in rows[-1]:
        best = max(evaluated, key=lambda row: row["val_accuracy"])
        summary |= {"best_on_val_accuracy": best["test_accuracy"], "best_on_val_epoch": best["epoch"]}
    return summary
