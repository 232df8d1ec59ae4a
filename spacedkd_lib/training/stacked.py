"""Several seeds at once: runs that differ in the seed only, updated together by `torch.func.vmap`.

Tensors with one more dimension, [S, ...], hold S runs; each run's parameters, buffers and optimizer states are parts
of them. So a run is evaluated, saved and continued like any other, while an update of all launches about as many
kernels as an update of one. It suits a large GPU and small networks, which keep it waiting for kernels.

Promised: each run makes the updates that it makes alone, as many, on the same batches, at the same rates. Its numbers
equal those of the run alone up to rounding, since kernels for several networks add in another order. After two epochs
weights and losses agree to 1e-9 in double precision; in single precision rounding grows with training. The same seeds
together give the same bits each time, also when stopped and continued. Provenance holds their number,
"seeds_together".
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import chain
from typing import Any, Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from ..data import datasets
from ..errors import InputError
from ..methods.base import Method
from ..methods.build import method_class
from ..models.layers import parameters
from ..models.resnet import ResNet
from ..recipes import Recipe, is_transformer, stochastic, teacher_shape
from ..schedule import Event, lockstep
from . import distributed
from .loop import Evaluate, close
from .run import EpochMetrics, Run

LARGEST = 1_000_000  # parameters of a network (ours): a larger one fills a GPU by itself


def fits(recipes: Iterable[Recipe]) -> bool:
    """Return whether a sweep can be trained together with those of other seeds.

    It needs small convolutional networks, updates without random draws, schedules that ignore the seed, and a shared
    teacher with one set of batch statistics.
    """
    recipes = list(recipes)
    return all(map(_fits, recipes)) and (len(recipes) == 1 or all(recipe.teacher_mode != "train" for recipe in recipes))


def _fits(recipe: Recipe) -> bool:
    teacher = teacher_shape(recipe)
    return (method_class(recipe).stackable and not stochastic(recipe) and
            recipe.rule in ("fixed", "constant") and
            recipe.idle_update == "skip" and recipe.optimizer != "sam" and not recipe.clip_norm and
            recipe.batch_norm_parts == distributed.processes() == 1 and
            _small(recipe.model, recipe.width) and _small(teacher["model"], teacher["width"]))


@cache
def _small(model: str, width: int) -> bool:
    if is_transformer(model):
        return False
    with torch.device("meta"):
        return parameters(ResNet(model, classes=100, width=width)) <= LARGEST


def by_seed(recipes: list[Recipe]) -> list[list[Recipe]]:
    """Sort recipes into one list a seed.

    Raises:
        InputError: the lists differ in more than the seed, are not of one fold, or hold recipes that do not fit.
    """
    groups: dict[int, list[Recipe]] = {}
    for recipe in recipes:
        groups.setdefault(recipe.seed, []).append(recipe)
    first, *others = ([replace(recipe, seed=0) for recipe in group] for group in groups.values())
    folds = {datasets.fold(recipe.dataset, recipe.seed) for recipe in recipes}
    if others and not (all(group == first for group in others) and len(folds) == 1 and fits(first)):
        raise InputError(f"These {len(recipes)} recipes of {len(groups)} seeds cannot be trained together "
                         "(stacked.fits): give lists that are equal but for the seed and test on the same "
                         "pictures, or train one seed after the other.")
    return list(groups.values())


def walk_together(seeds: list[tuple[list[Run], Any, Evaluate]]) -> Iterator[tuple[Event, list[Run], None]]:
    """Walk several seeds whose updates are made at once, as `walk` does one; a run that fails costs no other.

    Args:
        seeds: for each the arguments of `walk`; the runs' recipes are equal but for the seed.
    """
    columns = list(zip(*[runs for runs, *_ in seeds]))  # of equal recipes
    stacks = stack(columns)
    schedules: dict[int, Iterator[Event]] = {}
    for number, runs in enumerate(columns):
        events = [run.events(batches) for run, (_, batches, _) in zip(runs, seeds) if not run.failed]
        schedules |= {number: events[0]} if events else {}
    for event, numbers in lockstep(schedules):
        alive = {seed: [runs[n] for n in numbers if not runs[n].failed] for seed, (runs, *_) in enumerate(seeds)}
        alive = {seed: sharing for seed, sharing in alive.items() if sharing}
        if event.kind in ("epoch", "grow"):
            for seed, sharing in alive.items():
                close(event, sharing, seeds[seed][2])
        elif alive:
            _update_together(stacks[numbers[0]], event, alive, [columns[n] for n in numbers])
        for run in chain(*alive.values()):
            run.position += 1
        if alive:
            yield event, list(chain(*alive.values())), None


def stack(columns: list[tuple[Run, ...]]) -> list[Run]:
    """Make, of each list of equal runs, one run that updates them all."""
    made: list[Run] = []
    known: dict = {}
    for runs in columns:
        whole = Stack(runs, known)
        made.append(Run(runs[0].recipe, whole))
        made[-1].optimizer = whole.optimizer
    return made


def _update_together(run: Run, event: Event, alive: dict[int, list[Run]], columns: list[tuple[Run, ...]]) -> None:
    """Update all seeds at once; a failed seed gets another's batch, so shapes and the other seeds' bits stay."""
    asked = {seed: sharing[0].prepare(event) for seed, sharing in alive.items()}
    rate, = {other.clock.rate(event) for other in chain(*alive.values())}
    first = next(iter(asked.values()))
    whole = run.method
    assert isinstance(whole, Stack)
    x, y = zip(*[asked.get(seed, first) for seed in range(len(whole.runs))])
    terms = run.step(event.kind, torch.stack(x), torch.stack(y), rate)
    whole.share_views()
    if terms:
        terms = {name: terms["each" if name == "loss" else name] for name in terms if name != "each"}
        for runs in columns:
            _count_together({seed: own for seed, own in enumerate(runs) if not own.failed}, event, terms, len(y[0]))


def _count_together(runs: dict[int, Run], event: Event, terms: dict[str, Tensor], images: int) -> None:
    """Record the terms [S] of an update: runs by their place in S, without those that have failed."""
    if not runs:
        return
    kind = next(iter(runs.values())).method.tallied[event.kind]
    own = {name: torch.stack([value[place] for place in runs]) for name, value in terms.items()}
    EpochMetrics.add_together([run.metrics for run in runs.values()], kind, event.index, own, images)
    if terms["loss"].device.type == "cpu":
        for run in runs.values():
            run.check()


class _Whole(nn.Module):
    """A method's networks as one module, whose call is one of its steps."""

    def __init__(self, method):
        super().__init__()
        self.parts, self.steps = nn.ModuleDict(method.modules), (method,)

    def forward(self, kind: str, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        return getattr(self.steps[0], kind)(x, y) or {}


class Stack(Method):
    """S methods as one: x [S, B, C, H, W], y [S, B] -> terms, "each" their losses [S] and "loss" the sum.

    Args:
        runs: of run.Run, one a seed; their tensors become parts of the stack's.
        known: the first run's tensors and optimizers -> the stack's. Stacks whose students share their teachers share
            this too.
    """

    trained: dict = {}  # the optimizers are made here, from those of the runs

    def __init__(self, runs: Sequence[Run], known: dict):
        super().__init__(runs[0].recipe)
        self.runs = runs
        wholes = [_Whole(run.method) for run in runs]
        self.whole = wholes[0]
        self.parameters = _stacked([dict(whole.named_parameters()) for whole in wholes], known)
        self.buffers = _stacked([dict(whole.named_buffers()) for whole in wholes], known)
        self.own_views = [run.method.views for run in runs]
        some: dict[str, Tensor] = next(filter(None, self.own_views), {})  # also for a run that has failed, and has none
        self.views = known.setdefault("views", {})
        self.views |= {key: torch.stack([(own or some)[key] for own in self.own_views]) for key in some}
        self.view_before_update = runs[0].method.view_before_update
        self.optimizer = {}
        for kind in runs[0].optimizer:
            own = [run.optimizer[kind] for run in runs]
            if own[0] not in known:
                known[own[0]] = _optimizer(own, known)
            self.optimizer[kind] = known[own[0]]

    def teach(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        return self._terms("teach", x, y)

    def learn(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        return self._terms("learn", x, y)

    def forward(self, x: Tensor, y: Tensor) -> None:
        self._terms("forward", x, y)

    def _terms(self, kind: str, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        seen = self.own_views[0]  # within vmap they are every method's

        def of_one(parameters, buffers, views, x, y):
            seen.update(views)
            terms = functional_call(self.whole, (parameters, buffers), (kind, x, y))
            return terms, dict(seen) if kind == "teach" else {}

        views = self.views if kind == "learn" and self.view_before_update else {}
        terms, said = vmap(of_one)(self.parameters, self.buffers, views, x, y)
        self.views |= said
        return terms and terms | {"each": terms["loss"], "loss": terms["loss"].sum()}

    def share_views(self) -> None:
        """Make each method's views of its teacher parts of the stack's."""
        for i, own in enumerate(self.own_views):
            own.update({key: value[i] for key, value in self.views.items()})


def _stacked(tensors: list[dict[str, Tensor]], known: dict) -> dict[str, Tensor]:
    """Stack all runs' tensors by name; each run's becomes a part."""
    for name, first in tensors[0].items():
        if first not in known:
            whole = torch.stack([own[name].detach() for own in tensors])
            for own, part in zip(tensors, whole):
                own[name].data = part
            known[first] = whole.requires_grad_(first.requires_grad)
    return {name: known[first] for name, first in tensors[0].items()}


def _optimizer(own: list[torch.optim.Optimizer], known: dict) -> torch.optim.Optimizer:
    """Make one optimizer of all runs' parameters, in their optimizers' state; their states become parts of its."""
    groups = own[0].param_groups
    made = type(own[0])([group | {"params": [known[p] for p in group["params"]]} for group in groups])
    parameters = list(zip(*[[p for group in optimizer.param_groups for p in group["params"]] for optimizer in own]))
    for ps in parameters:
        states = [optimizer.state.pop(p, None) for optimizer, p in zip(own, ps)]
        if any(states):
            some = next(filter(None, states))  # also for a run that has failed, and has none
            made.state[known[ps[0]]] = {key: torch.stack([(state or some)[key] for state in states])
                                        if value.shape == ps[0].shape else value for key, value in some.items()}

    def share(*_) -> None:
        if len(made.state) != len(own[0].state):  # a parameter's state begins with its first update
            for ps in [ps for ps in parameters if known[ps[0]] in made.state]:
                for i, p in enumerate(ps):
                    own[i].state[p] = {key: value[i] if value.dim() else value
                                       for key, value in made.state[known[ps[0]]].items()}
    share()
    made.register_step_post_hook(share)
    return made
