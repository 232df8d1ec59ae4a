"""Tuning: every family of arms chooses its values by one budget, on validation pictures alone.

The budget is 19 trials a family. Stage 1 has nine: learning rate x weight decay, at the family's starting values. Stage
2 has ten, at the best of stage 1, of the fields that only the family has: weight and temperature of its soft loss, or
the strength of label smoothing. A family without such a field tries ten more rates and decays near its best.

A best value on the edge of the values tried widens the grid. Probes follow, one at a time, each with the other values
at their best, until the best is inside or at a bound. Probes come on top of the budget and are marked.

A trial is a recipe of the task's seeds, of 100 to 102, which no result uses. Its value is the mean validation accuracy
of the last epoch. A trial of which a run diverged fails, and the stage goes on. Nothing here reads a test score.

Optuna's grid sampler asks the trials, in memory, since runs/ and trials.csv hold them already. A trial that stands in
either trains nothing: the same command goes on after a stop, on another machine too. No torch here, optuna when needed.
"""

from __future__ import annotations

import json
import math
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import zip_longest
from typing import Any, Callable, NamedTuple

from ..errors import InputError, nearest
from ..recipes import Recipe, from_dict
from ..store import records, software

SEEDS = (100, 101, 102)
# Ours, as are all values here: around lr = 0.1 and decay 5e-4, and above, where tuned arms went
RATES = {"lr": (0.1, 0.2, 0.4), "weight_decay": (5e-4, 1e-3, 2e-3)}
SOFT = {"alpha": (0.03, 0.1, 0.3, 0.5, 0.9), "temperature": (1.0, 3.0)}
SMOOTHING = {"label_smoothing": (0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6)}
SAM = {"sam_rho": (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0)}
FINER = {"lr": (0.6, 0.8, 1.0, 1.25, 1.6), "weight_decay": (0.7, 1.4)}  # times the best of stage 1
# What a probe may try beyond a grid. Other fields go on by factors of 2.
WIDER = {"label_smoothing": (0.005, 0.01, 0.02, 0.6, 0.7, 0.8, 0.9),
         "alpha": (0.003, 0.01, 0.03, 0.1, 0.3, 0.5, 0.9, 1.0),
         "temperature": (0.25, 0.5, 1.0, 3.0, 6.0, 12.0)}
PUBLISHED = records.SHIPPED / "results" / "tuning"  # what the profiles read


@dataclass(frozen=True)
class Family:
    """Arms that share their tuned values.

    recipe: the arm that is tuned, with its starting values. space: recipe field -> values of stage 2; empty for a
    family that has only rates.
    """

    recipe: Recipe
    space: dict[str, tuple] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """What is tuned on one data set. base: the recipe that all families derive from. rates: the space of stage 1.

    seeds: of `SEEDS`; fewer need more validation pictures.
    """

    base: Recipe
    families: dict[str, Family]
    rates: dict[str, tuple] = field(default_factory=lambda: RATES)
    seeds: tuple[int, ...] = SEEDS

    def fields(self, family: str) -> list[str]:
        """List the recipe fields that a family tunes."""
        return list(self.rates | self.families[family].space)


# What other modules read

class NotTuned(InputError):
    """An arm is asked for whose family has no published values."""


def tuned(label: str, family: str) -> dict[str, float]:
    """Return the published values of a family: recipe field -> value.

    Raises:
        NotTuned: this family of this data set was never tuned.
    """
    families = _published(label)["families"]
    if family not in families:
        raise NotTuned(f'{label} has no tuned values for "{family}" in results/tuning/: run make tune '
                         f'ARGS="--data {label}" first, which takes hours.')
    return dict(families[family]["values"])


def scores(label: str, family: str) -> list[float]:
    """Return the validation accuracy of a family at its tuned values, percent, by seed.

    Raises:
        NotTuned: this family of this data set was never tuned.
    """
    tuned(label, family)
    return _published(label)["families"][family]["val_accuracy"]


def chosen() -> list[dict]:
    """Return a line for each tuned family: data, seeds, values in words, mean validation accuracy, trials."""
    return [{"Data": label, "Seeds": ", ".join(map(str, _published(label)["seeds"])), "Family": name,
             "Chosen": ", ".join(f"{field} {value:g}" for field, value in of["values"].items()),
             "Validation accuracy (%)": sum(of["val_accuracy"]) / len(of["val_accuracy"]),
             "Trials": of["trials"] - of["probes"], "Probes": of["probes"]}
            for label in sorted(path.name for path in PUBLISHED.glob("*"))
            for name, of in _published(label)["families"].items()]


@cache
def _published(label: str) -> dict[str, Any]:
    path = PUBLISHED / label / "chosen.json"
    return json.loads(path.read_bytes()) if path.exists() else {"families": {}}


def check_seed(seed: int) -> int:
    """Return the seed, if a result may use it.

    Raises:
        InputError: tuning used it.
    """
    if seed in SEEDS:
        raise InputError(f"Seed {seed} chose the tuned values and no result may use it: leave out seeds {SEEDS[0]} to "
                         f"{SEEDS[-1]}.")
    return seed


def validation_accuracy(record: records.Record) -> float:
    """Percent, last epoch: the only score that tuning reads."""
    return record.epochs[-1]["val_accuracy"]


# One stage of one family

class Done(NamedTuple):
    """A finished trial. recipe: of any seed. scores: of each seed, percent. Of a diverged one: no scores, mean -inf."""

    number: int
    recipe: Recipe
    probe: bool
    scores: list[float]
    mean: float


class Stage:
    """A grid of recipes as an Optuna study.

    start: the recipe whose fields the trials change. space: field -> values. earlier: trials of stage 1, which count
    among those tried.
    """

    def __init__(self, start: Recipe, space: dict[str, tuple], earlier: tuple = ()):
        import optuna
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.start, self.space, self.earlier = start, space, earlier
        self.study = optuna.create_study(sampler=optuna.samplers.GridSampler(space, seed=0), direction="maximize")

    def done(self) -> list[Done]:
        """List the finished trials, failed ones with a value of -inf."""
        return [Done(t.number, replace(self.start, **t.params), "probe" in t.user_attrs,
                     t.user_attrs.get("val_accuracy", []), -math.inf if t.value is None else t.value)
                for t in self.study.trials if t.state.is_finished()]

    def best(self) -> Done | None:
        """Return the best of all trials of the family so far; None if each one diverged."""
        best = max([*self.earlier, *self.done()], key=lambda trial: trial.mean)
        return best if best.scores else None

    def pending(self) -> list:
        """Ask Optuna for the trials that are to be trained: the grid's, or the next probe."""
        size = math.prod(map(len, self.space.values()))
        if len(self.done()) == max(size, len(self.study.trials)) and self.best():
            for further in self.beyond_edges()[:1]:
                values = {name: getattr(self.best().recipe, name) for name in self.space}
                self.study.enqueue_trial(values | further, user_attrs={"probe": True})
        left = [self.study.ask() for _ in range(max(size, len(self.study.trials)) - len(self.done()))]
        for trial in left:
            for name in self.space:
                trial.suggest_float(name, 0.0, 1e3)  # the value itself comes from the grid or the probe
        return left

    def beyond_edges(self) -> list[dict[str, float]]:
        """{field: next value} for each edge of the values tried on which the best lies."""
        found, best, trials = [], self.best().recipe, [*self.earlier, *self.done()]
        for name in self.space:
            tried = {getattr(trial.recipe, name) for trial in trials}
            for edge, up in ((max(tried), True), (min(tried), False)):
                if getattr(best, name) == edge and next_value(name, edge, up) is not None:
                    found.append({name: next_value(name, edge, up)})
        return found

    def tell(self, trial, scores: list[float]) -> None:
        """Give a trial its scores; without any it fails."""
        import optuna
        value, state = None, optuna.trial.TrialState.FAIL
        if scores:
            trial.set_user_attr("val_accuracy", scores)
            value, state = round(sum(scores) / len(scores), 4), None  # scores carry float32 noise, which breaks no tie
        with suppress(RuntimeError):  # the sampler ends a loop that ask-and-tell does not have; the value is stored
            self.study.tell(trial, value, state)


def next_value(name: str, value: float, up: bool) -> float | None:
    """Return the value beyond an edge; None at a bound.

    >>> next_value("lr", 0.4, True), next_value("alpha", 0.6, True), next_value("alpha", 1.0, True)
    (0.8, 0.9, None)
    """
    if name not in WIDER:
        return value * 2 if up else value / 2
    further = [other for other in WIDER[name] if (other > value if up else other < value)]
    return (min if up else max)(further, default=None)


# The two stages of all families

def tune(label: str, task: Task, names: list[str], run_all: Callable, workers: int | str = 0,
         say: Callable[[str], None] = print) -> None:
    """Tune families by their names and publish in results/tuning/<label>/: trials by stages, at the end the choice.

    Args:
        run_all: `running.run_all`. It gets all trials of a stage at once, so that they share teachers.

    Raises:
        InputError: an unknown family, no validation pictures, or runs that failed otherwise than by divergence.
        Stopped, KeyboardInterrupt: asked to stop; the same call goes on.
    """
    for name in names:
        if name not in task.families:
            raise InputError(nearest("family", name, task.families))
        if not task.families[name].recipe.val_fraction:
            raise InputError(f'The recipe of "{name}" holds out no validation pictures: give val_fraction above 0.')
    stages = {name: [Stage(task.families[name].recipe, task.rates)] for name in names}

    def train_stage(number: int) -> None:
        try:
            _train_stage([found[number] for found in stages.values() if len(found) > number],
                         task.seeds, _published_trials(label), run_all, workers, say)
        finally:
            _publish(label, task, stages, finished=False)

    train_stage(0)
    for name, found in stages.items():
        if best := found[0].best():
            space = task.families[name].space or _finer(best.recipe)
            found.append(Stage(best.recipe, space, found[0].done()))
        else:
            say(f'Every trial of "{name}" diverged in stage 1: lower its rates.')
    train_stage(1)
    _publish(label, task, stages, finished=True)


def _finer(best: Recipe) -> dict[str, tuple]:
    return {name: tuple(float(f"{getattr(best, name) * factor:.4g}") for factor in factors)
            for name, factors in FINER.items()}


def _train_stage(searches: list[Stage], seeds: tuple[int, ...], known: dict[str, list[float]], run_all: Callable,
                 workers: int | str, say: Callable[[str], None]) -> None:
    """Train one stage of all families together; then a probe of each family that needs one, until none does.

    A run that diverges is given up, and whatever else fails is an error. A stop keeps the trials that are whole.
    known: scores of published trials by their first run id.
    """
    while asked := [(search, trial) for search in searches for trial in search.pending()]:
        left = []
        for search, trial in asked:
            recipes = [replace(search.start, **trial.params, seed=seed) for seed in seeds]
            if (first := recipes[0].run_id) in known:
                search.tell(trial, known[first])
            else:
                left.append((search, trial, recipes))
        wanted = [recipe for *_, recipes in left for recipe in recipes if not records.diverged(recipe)]
        say(f"{len(asked)} trials of {len(searches)} families, {len(asked) - len(left)} of them published.")
        try:
            if wanted:
                run_all(wanted, workers, say)
        except InputError:
            if any(records.load(recipe) is None and not records.diverged(recipe) for recipe in wanted):
                raise
        finally:
            for search, trial, recipes in left:
                found = [records.load(recipe) for recipe in recipes]
                if None not in found or any(map(records.diverged, recipes)):
                    search.tell(trial, [] if None in found else [validation_accuracy(record) for record in found])


def _published_trials(label: str) -> dict[str, list[float]]:
    """Return the scores of published trials by the run id of their first seed; of a diverged one, none."""
    import pandas
    file = PUBLISHED / label / "trials.csv"
    rows = pandas.read_csv(file).to_dict("records") if file.exists() else []
    return {row["run_id"]: [row[name] for name in row if name.startswith("val_accuracy_") and row[name] == row[name]]
            if row["state"] == "done" else [] for row in rows}


# Publishing

def _publish(label: str, task: Task, stages: dict[str, list[Stage]], finished: bool) -> None:
    """Write trials.csv; when finished, chosen.json too. Then families not asked for stay, if they have the same base.

    Before, every trial stays that was published: another machine goes on from them.
    """
    import pandas
    folder = records.ROOT / "results" / "tuning" / label
    before = {"base": json.loads(task.base.to_json()), "families": {}}
    if (folder / "chosen.json").exists():
        before = json.loads((folder / "chosen.json").read_bytes())
    same = from_dict(before["base"], "chosen.json") == task.base  # whatever fields its commit had besides
    table = pandas.DataFrame([row for name, found in stages.items() for row in _rows(name, task, found)])
    if not len(table):
        return
    if (folder / "trials.csv").exists():
        kept = pandas.read_csv(folder / "trials.csv", dtype=str)
        again = kept["family"].isin(stages) | (not same) if finished else kept["run_id"].isin(table["run_id"])
        table = pandas.concat([kept[~again], table])
    records.write_atomically(folder / "trials.csv", table.to_csv(index=False))
    if finished:
        chosen = {name: choice for name, choice in before["families"].items() if same and name not in stages}
        chosen |= {name: _chosen(name, task, found) for name, found in stages.items() if len(found) == 2}
        records.write_atomically(folder / "chosen.json", json.dumps(
            {"seeds": task.seeds, "base": json.loads(task.base.to_json()), "families": chosen}, indent=1) + "\n")


def _rows(name: str, task: Task, found: list[Stage]) -> list[dict]:
    """One row a trial, with a column for each tuned field of any family."""
    own = task.fields(name)
    fields = list(dict.fromkeys(field for family in task.families for field in task.fields(family)))
    return [{"family": name, "stage": number, "number": trial.number,
             "run_id": replace(trial.recipe, seed=task.seeds[0]).run_id,
             **{field: getattr(trial.recipe, field) if field in own else None for field in fields},
             "probe": trial.probe,
             **{f"val_accuracy_{seed}": score for seed, score in zip_longest(task.seeds, trial.scores)},
             "val_accuracy": trial.mean if trial.scores else None, "state": "done" if trial.scores else "diverged"}
            for number, stage in enumerate(found, 1) for trial in stage.done()]


def _chosen(name: str, task: Task, found: list[Stage]) -> dict:
    """Report a family's choice, and how it was made. recipe: where its own differs from the base."""
    best, trials = found[-1].best(), [trial for stage in found for trial in stage.done()]
    base, own = (json.loads(recipe.to_json()) for recipe in (task.base, task.families[name].recipe))
    code = software.describe()
    return {"values": {field: getattr(best.recipe, field) for field in task.fields(name)},
            "val_accuracy": best.scores, "trials": len(trials), "probes": sum(trial.probe for trial in trials),
            "spaces": [stage.space for stage in found],
            "recipe": {field: value for field, value in own.items() if value != base[field]},
            "git_commit": code["git_commit"], "git_dirty": code["git_dirty"]}
