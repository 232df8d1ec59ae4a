"""What is measured on finished runs: computed once, stored beside the run with its origin, and read ever after.

A measure is a function of a run's network and its pictures. Its values lie in runs/<run id>/<measure>.npz; published
ones in results/<profile>/measures.npz, one array for all runs under <measure>/<group>/<value>, beside the settings; the
records name recipes and sources. A stored measure counts only if its settings, the weights and the code of this room
that made it are still the same; a published one is shown as it is. Taught in notebooks/06_loss_landscape.ipynb.
"""

from __future__ import annotations

import io
import json
from concurrent.futures import Executor
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Callable, Iterable, NamedTuple

import numpy as np
import torch

from ..cluster.executors import LocalProcesses, within_memory
from ..errors import InputError, nearest, reading
from ..lab import grids, profiles, running
from ..recipes import Recipe
from ..store import identity, records, software, stopping
from ..store.measured import PUBLISHED, read_published as read_published
from ..training.provenance import repeatable
from .trained import Trained, Values, curvature_of, noise, robustness_of

class Measure(NamedTuple):
    """compute(run, **settings) -> named arrays. A change of settings makes stored values count no more."""

    compute: Callable[..., Values]
    settings: dict


# One of each takes so many seconds on a core, for quick's network: noise 0.5, curvature 4.5, robustness 5.
MEASURES = {
    "noise": Measure(noise, dict(images=128, sigmas=[0.0, 0.05, 0.1, 0.15, 0.2, 0.3], draws=5)),
    "curvature": Measure(curvature_of, dict(images=64, products=9, repeats=2)),
    "robustness": Measure(robustness_of, dict(images=200, severities=[1, 3, 5], radii=[1.0, 2.0, 4.0])),
}


def wanted(rows: Iterable[grids.Row]) -> list[tuple[Recipe, str]]:
    """List the (recipe, measure) pairs that notebooks 06 and 07, which have the same runs, ask for."""
    return list(dict.fromkeys((row.recipe, name) for row in rows if row.notebook in profiles.MEASURING
                              for name in MEASURES))


# Stored values

def stored(recipe: Recipe, name: str) -> Values | None:
    """Return a run's stored measure if it is whole, and today's code and settings made it from the run's weights."""
    if (record := records.load(recipe)) is None:
        return None
    with suppress(InputError), reading(name, ""), np.load(_file(recipe, name)) as file:
        values = {key: file[key] for key in file.files}
        meta = json.loads(str(values.pop("meta")))
        if all(meta.get(key, today) == today for key, today in _made_from(name, record).items()):
            return values
    return None


def _made_from(name: str, record: records.Record) -> dict:
    """Return what decides a run's measure."""
    return {"settings": MEASURES[name].settings, "weights_sha256": record.provenance["weights_sha256"],
            "code_sha256": identity.code_sha256(("analysis",))}


def _file(recipe: Recipe, name: str) -> Path:
    return records.runs_folder() / recipe.run_id / f"{name}.npz"


def measure(recipe: Recipe, name: str) -> Values:
    """Return a measure of a run: as it was stored, or else computed now and stored.

    Raises:
        InputError: no such measure; weights that are not on this machine; other pictures than the run's; or today's
            code trains the run with other numbers, and it is set aside.
    """
    if name not in MEASURES:
        raise InputError(nearest("measure", name, MEASURES))
    running.retire_stale([recipe])
    running.same_pictures([*filter(None, [records.load(recipe)])])
    known, (compute, settings) = stored(recipe, name), MEASURES[name]
    if known is not None:
        return known
    device, record = _device(recipe), records.load(recipe)
    repeatable(device)
    values = compute(Trained(recipe, device.type), **settings)
    meta = {"run_id": recipe.run_id, "recipe": json.loads(recipe.to_json()), "measure": name,
            **_made_from(name, record), "threads": torch.get_num_threads(), "device": device.type,
            **software.describe()}
    _store(recipe, name, meta, values)
    return values


def _store(recipe: Recipe, name: str, meta: dict, values: Values) -> None:
    content = io.BytesIO()
    np.savez_compressed(content, meta=np.array(json.dumps(meta, sort_keys=True)), **values)
    records.write_atomically(_file(recipe, name), content.getvalue())


def _device(recipe: Recipe) -> torch.device:
    """Return the device that a run was trained on, if it is here, to measure the run there."""
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
    running.retire_stale(recipe for recipe, _ in asked)
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
    if stopping.requested():
        raise stopping.Stopped(f"on request, while measuring run {recipe.run_id}")


def publish(recipes: Iterable[Recipe], profile: str) -> int:
    """Write what is stored of these runs as the published measures of a profile, if there are any; return how many."""
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
    if alike:
        records.write_atomically(records.ROOT / "results" / profile / PUBLISHED, content.getvalue())
    return sum(map(len, alike.values()))


def restore(profile: str, published: dict[str, records.Record]) -> None:
    """Lay the published measures of these records beside the runs that `records.restore` laid down."""
    for (run_id, name), values in read_published(profile).items():
        if run_id in published:
            meta = _made_from(name, published[run_id])
            _store(published[run_id].recipe, name, {key: meta[key] for key in ("settings", "weights_sha256")}, values)
