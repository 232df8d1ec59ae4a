"""What is measured on finished runs: computed once, stored beside the run with its origin, and read ever after.

A measure is a function of a run's network and its pictures. Its values lie in runs/<run id>/<measure>.npz; published
ones in results/<profile>/measures.npz, one array for all runs under <measure>/<group>/<value>, beside the settings; the
records name recipes and sources. A stored measure counts only if its settings and the weights it was made from are
still the same. Taught in notebooks/06_loss_landscape.ipynb.
"""

from __future__ import annotations

import io
import json
from concurrent.futures import Executor
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Callable, Iterable, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..cluster.executors import LocalProcesses, within_memory
from ..data import datasets
from ..data.batches import STATISTICS, Statistics, channel_statistics, generator, normalised
from ..errors import InputError, nearest
from ..lab import grids, planning, profiles, running
from ..methods import build
from ..models.scoring import eval_mode
from ..recipes import Recipe, baseline, short_form
from ..store import records, stopping
from ..training import train
from ..training.loop import walk
from ..training.provenance import repeatable
from ..training.run import ROLES
from . import corruptions, curvature, landscape, robustness

Values = dict[str, np.ndarray]
PUBLISHED = "measures.npz"


@dataclass(frozen=True)
class Trained:
    """A finished run on this machine: its student, and pictures as it sees them, both on `device`.

    Raises (on use):
        InputError: its weights are not on this machine, or there are fewer pictures than asked for.
    """

    recipe: Recipe
    device: str = "cpu"

    @cached_property
    def student(self) -> nn.Module:
        return self._network("student")

    @cached_property
    def teacher(self) -> nn.Module | None:
        """None where the method has none."""
        return self._network("teacher")

    def _network(self, role: str) -> nn.Module | None:
        dataset, weights = _dataset(self.recipe), records.load_weights(self.recipe)
        net = build.make(self.recipe, dataset.channels, dataset.num_classes, dataset.image_size).modules.get(role)
        if net is None:
            return None
        net.load_state_dict({name.removeprefix(f"{role}."): value for name, value in weights.items()
                             if name.startswith(f"{role}.")})
        return net.eval().to(self.device, memory_format=torch.channels_last)

    @cached_property
    def _used(self) -> Tensor:
        dataset = _dataset(self.recipe)
        return datasets.split(dataset, self.recipe.train_images, self.recipe.val_fraction, self.recipe.seed)[0]

    @cached_property
    def statistics(self) -> Statistics:
        """What the run normalised its pictures by."""
        if self.recipe.normalise != "own":
            return STATISTICS[self.recipe.normalise]
        return channel_statistics(_dataset(self.recipe).train_images[self._used])

    def training(self, count: int) -> tuple[Tensor, Tensor]:
        """The same `count` training pictures for every run of this data set and seed, without augmentation:
        x [count, C, H, W] normalised, y [count]."""
        dataset = _dataset(self.recipe)
        which = self._used[_some(len(self._used), count, f"training pictures of {dataset.name}")]
        x = normalised(dataset.train_images[which], self.statistics, device=self.device)
        return x, dataset.train_labels[which].to(self.device)

    def pictures(self, most: int) -> tuple[Tensor, Tensor]:
        """`training`, of so many pictures or as many as there are."""
        return self.training(min(most, len(self._used)))

    def test(self, count: int) -> tuple[Tensor, Tensor]:
        """The same `count` test pictures for every run of this data set: uint8 [count, C, H, W], labels [count]."""
        dataset = _dataset(self.recipe)
        which = _some(len(dataset.test_images), count, f"test pictures of {dataset.name}")
        return dataset.test_images[which].to(self.device), dataset.test_labels[which].to(self.device)


def _dataset(recipe: Recipe) -> datasets.Dataset:
    return _loaded(recipe.dataset, datasets.fold(recipe.dataset, recipe.seed))


@lru_cache(maxsize=4)
def _loaded(name: str, fold: int) -> datasets.Dataset:
    return datasets.load(name, seed=fold)


def _some(available: int, count: int, what: str) -> Tensor:
    if not 0 < count <= available:
        raise InputError(f"{count} of the {available} {what} cannot be chosen: give a number from 1 to {available}.")
    return torch.randperm(available, generator=generator("subset"))[:count]


# The measures: each a function of a run and its settings

def _noise(run: Trained, images: int, sigmas: list[float], draws: int) -> Values:
    got = landscape.weight_noise(run.student, *run.pictures(images), sigmas, draws)
    return {"sigmas": np.array(sigmas), **got}


def _curvature(run: Trained, images: int, products: int, repeats: int) -> Values:
    return {name: np.array(value) for name, value in curvatures(run.student, *run.pictures(images), products,
                                                                 repeats).items()}


def curvatures(net: nn.Module, x: Tensor, y: Tensor, products: int, repeats: int) -> dict[str, float]:
    """Trace with its standard error, largest eigenvalue and SAM's sharpness, plain and relative."""
    found = {}
    for relative, prefix in ((False, ""), (True, "relative_")):
        operator = curvature.hessian(net, x, y, relative)
        trace = curvature.trace(operator, products, repeats)
        found |= {f"{prefix}trace": trace.mean, f"{prefix}trace_se": trace.standard_error,
                  f"{prefix}eigenvalue": float(curvature.top_eigenvalues(operator, tolerance=0.03)[0]),
                  f"{prefix}sharpness": landscape.sharpness(net, x, y, 0.5 if relative else 0.05, relative=relative)}
    return found


def _density(run: Trained, images: int, steps: int) -> Values:
    grid, values = curvature.density(curvature.hessian(run.student, *run.pictures(images)), steps)
    return {"eigenvalues": grid, "density": values}


def _plane(run: Trained, images: int, points: int, reach: float, known: Values | None = None) -> Values:
    first, second = (landscape.direction(run.student, 0, name) for name in ("first", "second"))
    steps = landscape.axis(reach, points)
    got = landscape.plane(run.student, *run.pictures(images), first, second, steps, known)
    return {"steps": steps, **got}


def _path(run: Trained, images: int, points: int, statistics_images: int) -> Values:
    """From the baseline of the same seed, and so of the same first weights, to this run."""
    beside = _baselines().get(run.recipe.run_id) or baseline(run.recipe)
    start, steps = Trained(beside, run.device).student, np.linspace(-0.25, 1.25, points)
    training = run.pictures(statistics_images)[0]
    got = landscape.between(start, run.student, *run.pictures(images), steps, training)
    return {"steps": steps, **got}


@cache
def _baselines() -> dict[str, Recipe]:
    """Run id of a run of notebook 06 -> the baseline of its setting and seed, which has its own tuned values."""
    found = {}
    for name in profiles.PROFILES:
        with suppress(InputError):  # a profile that waits for tuning has no runs
            rows = grids.grid(name, profiles.MEASURING[0])
            of = {(row.setting, row.seed): row.recipe for row in rows if row.arm == "baseline"}
            found |= {row.recipe.run_id: of[row.setting, row.seed] for row in rows}
    return found


def _trajectory(run: Trained, images: int, products: int, repeats: int) -> Values:
    """Curvature along training: of the teacher whenever a replay begins, and of the student whenever one ends, which
    is its state before the next one too; without an interval, of both after each epoch. The run is trained once more
    for it, as only final weights are kept."""
    runs, batches, _ = train.assemble([run.recipe], _dataset(run.recipe), torch.device(run.device))
    events = [event.kind for event in build.recipe_schedule(run.recipe, len(batches))]
    updates = [kind for kind in events if kind != "epoch"]
    pictures, points, seen = run.pictures(images), [], {"teach": 0, "learn": 0}
    for event, _, _ in walk(runs, batches, lambda runs: [{}]):
        if event.kind == "epoch":
            due = tuple(seen) if run.recipe.interval == 0 else ()
        else:
            seen[event.kind] += 1
            next_one = updates[sum(seen.values()):][:1]
            due = (event.kind,) if run.recipe.interval and next_one != [event.kind] else ()
        for kind in due:
            role = ROLES[kind]
            net = runs[0].method.modules[role]
            points.append({"role": role, "epoch": seen[kind] / len(batches),
                           **curvatures(net, *pictures, products, repeats)})
    return {name: np.array([point[name] for point in points]) for name in points[0]}


def _robustness(run: Trained, images: int, severities: list[int], radii: list[float]) -> Values:
    """Scores of the student on test pictures, clean, corrupted and attacked; and agreement with its teacher."""
    pictures = run.test(min(images, len(_dataset(run.recipe).test_images)))
    rows = robustness.robust_scores(run.student, run.teacher, *pictures, run.statistics, severities=severities,
                                    attacks=("fgsm", "pgd"), radii=radii)
    return {name: np.array([row.get(name, np.nan) for row in rows]) for name in (
        "kind", "name", "severity", "radius", "accuracy", "nll", "ece", "agreement")}


class Measure(NamedTuple):
    """compute(run, **settings) -> named arrays. A change of settings makes stored values count no more.

    arms: whose it is; empty for all of `arms.measured_arms`. once: of the first setting and seed alone. long: not in a
    miniature, see `wanted`.
    """

    compute: Callable[..., Values]
    settings: dict
    arms: tuple[str, ...] = ()
    once: bool = False
    long: bool = False


_SPACED = "spaced KD s=1.5"
FEW = ("baseline", "SAM", "online KD", _SPACED, "offline KD")  # arms that a miniature measures
# One of each takes so many seconds on a core, for quick's network: noise 0.5, curvature 4.5, density 5.5, plane 11,
# trajectory 50 with its training, path 1, robustness 5.
MEASURES = {
    "noise": Measure(_noise, dict(images=128, sigmas=[0.0, 0.05, 0.1, 0.15, 0.2, 0.3], draws=5)),
    "curvature": Measure(_curvature, dict(images=64, products=9, repeats=2)),
    "density": Measure(_density, dict(images=64, steps=30), ("baseline", "SAM", "online KD", _SPACED), once=True),
    "plane": Measure(_plane, dict(images=128, points=25, reach=0.6), ("baseline", "SAM", _SPACED), once=True),
    "trajectory": Measure(_trajectory, dict(images=32, products=3, repeats=2), ("online KD", _SPACED), once=True,
                          long=True),
    "path": Measure(_path, dict(images=128, points=13, statistics_images=500), FEW[1:]),
    "robustness": Measure(_robustness, dict(images=200, severities=[1, 3, 5], radii=[1.0, 2.0, 4.0])),
}

# What a score at displaced weights, a gradient and a product with the Hessian cost, in passes through a network; and
# products that find an eigenvalue, about (ours, measured).
SCORE, GRADIENT, PRODUCT, SEARCH = 1.6, 3, 6, 25


def _curvature_passes(products: int, repeats: int) -> int:
    return 2 * (PRODUCT * (products * repeats + SEARCH) + 2 * GRADIENT)


PASSES: dict[str, Callable[..., dict[int, float]]] = {  # settings -> pictures: passes of them
    "noise": lambda images, sigmas, draws: {images: SCORE * len(sigmas) * draws},
    "curvature": lambda images, **how: {images: _curvature_passes(**how)},
    "density": lambda images, steps: {images: PRODUCT * (steps + 2 * SEARCH)},
    "plane": lambda images, points, reach: {images: SCORE * points ** 2},
    "trajectory": lambda images, **how: {images: _curvature_passes(**how)},
    "path": lambda images, points, statistics_images: {images: points, statistics_images: points},
    "robustness": lambda images, severities, radii: {images: 24 * GRADIENT * len(radii) + 2 * (
        1 + len(corruptions.CORRUPTIONS) * len(severities) + 2 * len(radii))},
}


def wanted(rows: Iterable[grids.Row]) -> list[tuple[Recipe, str]]:
    """What notebooks 06 and 07, which have the same runs, ask of them: (recipe, measure). Rows of at most three seeds
    are a miniature: of the arms in `FEW` only, and no measure that trains once more."""
    rows = [row for row in rows if row.notebook in profiles.MEASURING]
    small = len({row.seed for row in rows}) <= 3
    return list(dict.fromkeys(
        (row.recipe, name) for row in rows for name, measure in MEASURES.items()
        if (not measure.arms or row.arm in measure.arms)
        and (not measure.once or (row.setting, row.seed) == (rows[0].setting, rows[0].seed))
        and not (small and (measure.long or row.arm not in FEW))))


def plan(rows: Iterable[grids.Row], workers: int = 0) -> tuple[int, float]:
    """How many measures of a grid are not stored, and about how many seconds they take on this machine, by passes
    through untrained students. A trajectory's run is trained once more."""
    asked = [(recipe, name) for recipe, name in wanted(rows) if stored(recipe, name) is None]
    passing, total = cache(_pass_seconds), 0.0
    with planning.one_thread():
        for recipe, name in asked:
            student, settings = baseline(short_form(recipe)), MEASURES[name].settings
            here = sum(passes * passing(student, pictures) for pictures, passes in PASSES[name](**settings).items())
            points = 2 * recipe.epochs / (recipe.interval or 1)
            total += planning.seconds(recipe) + points * here if name == "trajectory" else here
    workers = running.check_workers(workers) or running.default_workers(recipe for recipe, _ in asked)
    return len(asked), total / workers


def _pass_seconds(recipe: Recipe, pictures: int) -> float:
    """Of so many pictures through a baseline, the second time; on a CPU, of fewer through a large one."""
    channels, size, classes, *_ = datasets.shape(recipe.dataset)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    method = build.make(recipe, channels, classes, size)
    few = pictures if device.type == "cuda" else min(pictures, max(2, int(5e9 / method.cost["learn"])))
    net = method.modules["student"].to(device, memory_format=torch.channels_last)
    x = torch.rand(few, channels, size, size, device=device)
    with eval_mode(net):
        net(x)
        begun = planning.now(device)
        net(x)
        return (planning.now(device) - begun) * pictures / few


# Stored values

def stored(recipe: Recipe, name: str) -> Values | None:
    """A measure of a run as it was stored, if its settings and the run's weights are still the same; else None."""
    path, record = _file(recipe, name), records.load(recipe)
    if record is None or not path.exists():
        return None
    with np.load(path) as file:
        values = {key: file[key] for key in file.files}
    meta = json.loads(str(values.pop("meta")))
    same = meta["settings"] == MEASURES[name].settings and meta["weights_sha256"] == record.provenance["weights_sha256"]
    return values if same else None


def _file(recipe: Recipe, name: str) -> Path:
    return records.runs_folder() / recipe.run_id / f"{name}.npz"


def measure(recipe: Recipe, name: str) -> Values:
    """A measure of a run: as it was stored, or else computed now and stored. What is missing of an interrupted plane
    is NaN, and computed.

    Raises:
        InputError: no such measure; weights that are not on this machine.
    """
    if name not in MEASURES:
        raise InputError(nearest("measure", name, MEASURES))
    known, (compute, settings, *_) = stored(recipe, name), MEASURES[name]
    if known is not None and (name != "plane" or not np.isnan(known["loss"]).any()):
        return known
    partial = {"known": known} if known is not None else {}
    device, record = _device(recipe), records.load(recipe)
    repeatable(device)
    values = compute(Trained(recipe, device.type), **settings, **partial)
    meta = {"run_id": recipe.run_id, "recipe": json.loads(recipe.to_json()), "measure": name, "settings": settings,
            "weights_sha256": record.provenance["weights_sha256"], "threads": torch.get_num_threads(),
            "device": device.type, **records.environment()}
    _store(recipe, name, meta, values)
    return values


def _store(recipe: Recipe, name: str, meta: dict, values: Values) -> None:
    content = io.BytesIO()
    np.savez_compressed(content, meta=np.array(json.dumps(meta, sort_keys=True)), **values)
    records.write_atomically(_file(recipe, name), content.getvalue())


def _device(recipe: Recipe) -> torch.device:
    """What a run is measured on: what it was trained on, if that is here."""
    record = records.load(recipe)
    on_gpu = record is not None and record.provenance["device"] == "cuda" and torch.cuda.is_available()
    return torch.device("cuda" if on_gpu else "cpu")


def measure_all(asked: Iterable[tuple[Recipe, str]], workers: int = 0, say: Callable[[str], None] = lambda line: None,
                executor: Executor | None = None) -> dict[tuple[str, str], Values]:
    """(run id, measure) -> values; what is not stored is computed side by side, one thread each, where it was trained.

    Args:
        asked: recipe and name of a measure.
        workers: processes; 0 for `running.default_workers`.
        say: receives a line now and then.
        executor: where measures are computed, as in `running.run_all`; processes of this machine unless given.

    Raises:
        InputError: as `measure`, before any work; a negative number of workers.
    """
    workers = running.check_workers(workers)
    asked = list(dict.fromkeys(asked))
    missing = [(recipe, name) for recipe, name in asked if stored(recipe, name) is None]
    for recipe, _ in missing:
        records.load_weights(recipe)  # refused before any work
    if missing:
        executor = executor or LocalProcesses(workers or running.default_workers(recipe for recipe, _ in missing))
        try:
            with getattr(executor, "batch", nullcontext)():
                futures = [executor.submit(_work, recipe, name) for recipe, name in missing]
            for k, future in enumerate(futures):
                future.result()
                if k % 20 == 19:
                    say(f"{k + 1} of {len(missing)} measures done")
        except BaseException:
            if hasattr(executor, "stop"):
                executor.stop()
            raise
        finally:
            executor.shutdown()
    return {(recipe.run_id, name): measure(recipe, name) for recipe, name in asked}


def _work(recipe: Recipe, name: str) -> None:
    torch.set_num_threads(1)
    within_memory(measure, recipe, name)
    if stopping.requested():  # a plane may lack rows
        raise stopping.Stopped(f"on request, while measuring run {recipe.run_id}")


def publish(recipes: Iterable[Recipe], profile: str) -> int:
    """Write what is stored of these runs as the published measures of a profile; how many there are."""
    alike: dict[tuple, list[tuple[str, Values]]] = {}  # runs whose values of a measure have the same shapes
    for recipe in sorted(set(recipes), key=lambda recipe: recipe.run_id):
        for name in MEASURES:
            if (values := stored(recipe, name)) is not None:
                shapes = tuple((key, value.shape) for key, value in sorted(values.items()))
                alike.setdefault((name, shapes), []).append((recipe.run_id, values))
    content, found = io.BytesIO(), {}
    for k, ((name, shapes), runs) in enumerate(sorted(alike.items(), key=lambda item: item[0])):
        found[f"{name}/{k}/run_id"] = np.array([run_id for run_id, _ in runs])
        found |= {f"{name}/{k}/{key}": np.stack([values[key] for _, values in runs]) for key, _ in shapes}
    settings = {name: measure.settings for name, measure in MEASURES.items()}
    np.savez_compressed(content, settings=np.array(json.dumps(settings)), **found)
    records.write_atomically(records.published_file(profile, PUBLISHED), content.getvalue())
    return sum(map(len, alike.values()))


def restore(profile: str, published: dict[str, records.Record]) -> None:
    """Lay the published measures of these records beside the runs that `records.restore` laid down."""
    for (run_id, name), values in read_published(profile).items():
        if run_id in published:
            recipe, provenance = published[run_id].recipe, published[run_id].provenance
            meta = {"settings": MEASURES[name].settings, "weights_sha256": provenance["weights_sha256"]}
            _store(recipe, name, meta, values)


def read_published(profile: str) -> dict[tuple[str, str], Values]:
    """(run id, measure) -> values of a profile's published measures; empty if there are none."""
    found: dict[tuple[str, str], Values] = {}
    if records.published_file(profile, PUBLISHED).exists():
        with np.load(records.published_file(profile, PUBLISHED)) as file:
            for key in (key for key in file.files if "/" in key and not key.endswith("/run_id")):
                name, k, value = key.split("/")
                for run_id, values in zip(file[f"{name}/{k}/run_id"].tolist(), file[key]):
                    found.setdefault((run_id, name), {})[value] = values
    return found
