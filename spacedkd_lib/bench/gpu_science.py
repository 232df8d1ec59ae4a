"""Records of CIFAR-100 by the quarter of an hour: stage science of bench/gpu.py, and how they come home.

Recipes are fixed, so that seeds add up from one time to the next. Arms of a seed share one teacher, but for the network
that learns from labels alone: that is a student, from a student's first weights.
"""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Iterable, Iterator

import pandas as pd

from ..data import datasets
from ..errors import InputError
from ..recipes import Recipe, baseline, offline_kd, online_kd, spaced, teacher_of
from ..report import text
from ..store import records
from ..store.records import Record
from ..training.train import sweep
from .work import Place, pictures

PROFILE = "gpu"  # folder under results/
SHA256 = "4b697924d64266d3fb9194d97d32e38bad7f111825447446f32f572eda1ab97e"  # of the whole of CIFAR-100
FIRST, SEEDS = 200, 5  # the first seed (ours), which tuning has not used; seeds of a plan before the next plan's turn
CIFAR = Recipe(dataset="cifar100", precision="bf16", eval_every=10)
TINY = Recipe(dataset="random pictures", model="resnet8", width=4, batch_size=8, epochs=2, precision="bf16")


def arms(base: Recipe) -> dict[str, Recipe]:
    """Derive the recipes that are compared."""
    online = online_kd(base)
    return {"labels alone": baseline(base),
            "online KD, asked as released": replace(online, zero_target="pre_update"),
            "online KD": online,
            "spaced KD s=1.5": spaced(online, 1.5),
            "online KD, eval mode": replace(online, teacher_mode="eval"),
            "spaced KD s=1.5, eval mode": spaced(online, 1.5, teacher_mode="eval"),
            "offline KD": offline_kd(base),
            "label smoothing": replace(baseline(base), label_smoothing=0.1)}


# Plan -> its arms, seed 0. The learning rate is once the paper's and once what others use.
PLANS = {f"{model}-{epochs}-{lr:g}": arms(replace(CIFAR, model=model, epochs=epochs, lr=lr))
         for epochs in (30, 80) for model in ("resnet20", "resnet18") for lr in (0.01, 0.1)}


def plans(place: Place) -> dict[str, dict[str, Recipe]]:
    """Those of this time, in order; a folder in place of CIFAR-100 stands in the recipes, and so in the records."""
    if place.dry:
        return {"tiny": arms(TINY)}
    return {name: {arm: replace(recipe, dataset=place.data) for arm, recipe in recipes.items()}
            for name, recipes in PLANS.items()}


def missing(plans: dict[str, dict[str, Recipe]], done: Iterable[str]) -> Iterator[tuple[str, int, dict[str, Recipe]]]:
    """Yield, without end, plan, seed and the arms without a record."""
    for first in count(FIRST, SEEDS):
        for plan, recipes in plans.items():
            for seed in range(first, first + SEEDS):
                seeded = {arm: replace(recipe, seed=seed) for arm, recipe in recipes.items()}
                left = {arm: recipe for arm, recipe in seeded.items() if recipe.run_id not in done}
                if left:
                    yield plan, seed, left


def pictures_of(place: Place) -> datasets.Dataset:
    """Load the data set of the stage.

    Raises:
        InputError: what is called cifar100 is not all of it.
    """
    if place.dry:
        return pictures(20, 16)
    dataset = datasets.load(place.data)
    if place.data == "cifar100" and dataset.sha256 != SHA256:
        raise InputError(f"The pictures of cifar100 have the SHA-256 {dataset.sha256[:12]} and the whole set has "
                         f"{SHA256[:12]}: mend the data folder, or give a part of it as a folder with --data.")
    return dataset


def science(place: Place) -> None:
    """Seed by seed, as many as fit: a seed begins only if the time that one of its network took still is there."""
    dataset, asked = pictures_of(place), plans(place)
    done = {*records.read_published(PROFILE), *(record.run_id for record in kept(place.folder))}
    taken: dict[str, float] = {}  # network -> seconds an epoch of all arms; an unknown one takes at least as long
    over = set()  # plans that failed, or do not fit any more
    for plan, seed, recipes in missing(asked, done):
        if over == set(asked) or place.dry and seed > FIRST:
            break
        if plan in over:
            continue
        over.add(plan)
        recipe, began = next(iter(recipes.values())), time.monotonic()
        needed = 1.1 * recipe.epochs * taken.get(recipe.model, max(taken.values(), default=0.0))
        if needed > place.until - began:
            place.say(f"{plan}, seed {seed}: needs {needed:.0f} s, and {place.until - began:.0f} s are left")
            continue
        with place.attempt(f"{plan}, seed {seed}"):
            _seed(place, plan, recipes, dataset)
            over.remove(plan)
        taken[recipe.model] = (time.monotonic() - began) / recipe.epochs


def _seed(place: Place, plan: str, recipes: dict[str, Recipe], dataset: datasets.Dataset) -> None:
    """Train what is missing of a seed; each sweep's records are written when it ends."""
    shared = {arm: recipe for arm, recipe in recipes.items() if teacher_of(recipe)}
    alone = [{arm: recipe} for arm, recipe in recipes.items() if arm not in shared]
    for group in filter(None, (*alone, shared)):
        for (arm, recipe), outcome in zip(group.items(), sweep([*group.values()], dataset, place.device)):
            if isinstance(outcome, InputError):
                place.say(f"FAIL {plan}, {arm}: {outcome}")
            else:
                runs = place.folder / "runs" if place.dry else None
                _keep(place, plan, arm, records.save(recipe, *outcome, runs=runs))


def _keep(place: Place, plan: str, arm: str, record: Record) -> None:
    with open(place.folder / "records.jsonl", "a") as file:
        file.write(record.to_json() + "\n")
    place.add("science", plan=plan, arm=arm, seed=record.recipe.seed, run_id=record.run_id,
              engine=record.provenance["engine"], test_accuracy=record.summary["test_accuracy"])


# Bringing records home

def kept(folder: Path) -> list[Record]:
    """Return the records of a folder that stage science wrote to."""
    path = folder / "records.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [records.from_json(line, f"{path}, line {i + 1}") for i, line in enumerate(lines)]


def publish(folder: Path) -> str:
    """Join a folder's records to results/gpu/records.jsonl.gz, and write runs.csv beside it; what was done, in words.

    Raises:
        InputError: no records there, or one that is published already with other numbers.
    """
    new = kept(folder)
    if not new:
        raise InputError(f"{folder} holds no records.jsonl with records: give the folder that stage science wrote to.")
    path = records.publish([*records.read_published(PROFILE).values(), *new], PROFILE)
    found = records.read_published(PROFILE)
    text.write(runs(found.values()), path.parent / "runs.csv")
    return f"{path} holds {len(found)} records."


def runs(found: Iterable[Record]) -> pd.DataFrame:
    """Make a table of a line a record, by plan, arm and seed; a recipe of no plan here has neither."""
    names = {recipe: (plan, arm) for plan, recipes in PLANS.items() for arm, recipe in recipes.items()}
    lines = []
    for record in found:
        plan, arm = names.get(replace(record.recipe, seed=0, dataset="cifar100"), ("", ""))
        lines.append({"plan": plan, "arm": arm, "seed": record.recipe.seed, "dataset": record.provenance["dataset"],
                      "test_accuracy": record.summary["test_accuracy"], "run_id": record.run_id})
    return pd.DataFrame(lines).sort_values(["plan", "arm", "seed", "run_id"])
