"""Updates as CUDA graphs: an update's kernels are recorded once and then replayed as a whole.

The host takes longer to launch a small network's hundreds of kernels than a GPU to compute them. A replay is one
launch: the same kernels on the same memory. So an update must be the same work each time, of equal shapes and with no
number from the host: the learning rate becomes a tensor, and a batch is copied to the recorded one's place. No update
is made for the recording's sake, and recording executes nothing.
"""

from __future__ import annotations

import os
from collections import Counter

import torch
from torch import Tensor

from ..errors import InputError, nearest
from ..methods.build import method_class
from ..recipes import Recipe, stochastic, teacher_of
from . import distributed

ENGINES = ("auto", "eager", "graph", "compiled")
WARM = 3  # updates of a kind and shape that run as they are before one is recorded (torch's example)


def chosen(asked: str | None, device: torch.device) -> str:
    """Return "eager", "graph" or "compiled graph": as asked, else by SPACEDKD_ENGINE, else graphs on a GPU only.

    Raises:
        InputError: an unknown engine, or "compiled" without a GPU.
    """
    asked = asked or os.environ.get("SPACEDKD_ENGINE") or "auto"
    if asked not in ENGINES:
        raise InputError(nearest("engine", asked, ENGINES))
    cuda = device.type == "cuda"
    if asked == "compiled" and not cuda:
        raise InputError(f'engine = "compiled" needs a GPU and the device is {device}: choose auto, eager or graph.')
    return {"auto": "graph" if cuda else "eager", "compiled": "compiled graph"}.get(asked, asked)


def unfit(recipe: Recipe, kind: str) -> str:
    """Return why a recipe's updates of a kind vary in work, or ""; a shared teacher's count by themselves."""
    recipe = teacher_of(recipe) or recipe if kind == "teach" else recipe
    if distributed.processes() > 1:
        return "several processes add up their gradients"
    if stochastic(recipe):
        source = "dropout" if recipe.dropout else "drop path" if recipe.drop_path else "what is registered"
        return f"{source} draws anew in each update"
    if method_class(recipe).irregular:
        return method_class(recipe).irregular
    if recipe.optimizer == "sam":
        return "each update takes its gradient twice"
    if (recipe.distil_start or recipe.ramp_epochs) and kind in method_class(recipe).ramped:
        return "the weights of its losses change with the epoch"
    return ""


def make_replayable(optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """Turn an optimizer's step into one kernel that reads its rate from a tensor; a shared one's only once."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            return
        group |= {"lr": torch.tensor(group["lr"], device=device), "fused": True, "foreach": False}
        if "capturable" in group:  # AdamW
            group["capturable"] = True
        if group.get("momentum"):  # the kernel wants all buffers or none, and exits of self KD get theirs later
            optimizer.state.update({p: {"momentum_buffer": torch.zeros_like(p)} for p in group["params"]})
    optimizer._warned_capturable_if_run_uncaptured = True  # the first updates are not recorded, on purpose


class Graphs:
    """A sweep's recordings, in one pool of memory; `update` replaces a `run.Run`'s own where that fits."""

    def __init__(self, runs: list, engine: str, device: torch.device):
        self.engine, self.device, self.cuda = engine, device, device.type == "cuda" and engine != "eager"
        self.side = torch.cuda.Stream(device) if self.cuda else None
        self.pool = torch.cuda.graph_pool_handle() if self.cuda else None
        self.views = runs[0].method.views
        self.seen: Counter[tuple] = Counter()
        self.recordings: dict[tuple, Recording] = {}
        self.refused: dict[tuple, str] = {}
        for run in runs if engine != "eager" else ():
            for kind in run.optimizer:
                if not unfit(run.recipe, kind):
                    make_replayable(run.optimizer[kind], device)
                    run.graphs[kind] = self
        if engine == "compiled graph":
            for network in {module for run in runs for module in run.method.modules.values()}:
                network.compile(dynamic=False)

    def update(self, run, kind: str, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Make one update; its terms hold until the next one, which writes to the same place."""
        whose = run.optimizer[kind], kind  # a shared teacher's is recorded once, whoever teaches
        key = *whose, tuple(x.shape)
        self.seen[key] += 1
        if whose in self.refused or self.seen[key] <= WARM:
            return self._as_it_is(run, kind, x, y)
        asks_before = kind == "learn" and run.method.view_before_update  # A7
        given = {"x": x, "y": y} | (self.views if asks_before else {})
        try:
            if key not in self.recordings:
                self.recordings[key] = Recording(run, kind, given, self)
        except RuntimeError as error:
            self.refused[whose] = f"it could not be recorded ({str(error).splitlines()[0]})"
            return self._as_it_is(run, kind, x, y)
        return self.recordings[key].replay(given)

    def _as_it_is(self, run, kind: str, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        if self.side is None:
            return run.update(kind, x, y)
        usual = torch.cuda.current_stream(self.device)  # which cannot be recorded: another one makes ready for it
        self.side.wait_stream(usual)
        with torch.cuda.stream(self.side):
            terms = run.update(kind, x, y)
        usual.wait_stream(self.side)
        return terms

    def engine_in_words(self, run) -> str:
        """Return how a run's updates were made, for its record."""
        why = {kind: unfit(run.recipe, kind) or self.refused.get((optimizer, kind), "")
               for kind, optimizer in run.optimizer.items()}
        eager = [kind for kind in why if why[kind]]
        if self.engine == "eager" or not eager:
            return self.engine
        partly = f"{self.engine}, but in {' and '.join(eager)} " * (len(eager) < len(why))
        return f"{partly}eager, because {'; '.join(dict.fromkeys(why[kind] for kind in eager))}"

    def close(self) -> None:
        """Release the memory."""
        self.recordings.clear()
        self.seen.clear()


class Recording:
    """A recorded update of one kind on batches of one shape; given: the tensors it reads, besides networks."""

    def __init__(self, run, kind: str, given: dict[str, Tensor], graphs: Graphs):
        self.views, before = graphs.views, dict(graphs.views)
        self.given = {name: value.clone() for name, value in given.items()}

        def work() -> tuple[dict, dict]:
            self.views.update({name: value for name, value in self.given.items() if name in self.views})
            heard = dict(self.views)
            terms = run.update(kind, self.given["x"], self.given["y"])
            return terms, {name: value for name, value in self.views.items() if value is not heard.get(name)}
        try:
            self.graph = Graph(work, graphs.pool, graphs.side) if graphs.cuda else StandIn(work)
        finally:
            self.views.update(before)  # nothing was executed

    def replay(self, given: dict[str, Tensor]) -> dict[str, Tensor]:
        for name, value in given.items():
            self.given[name].copy_(value)
        terms, said = self.graph.replay()
        # Other replays use the pool's memory again, perhaps before all students have heard what the teacher said.
        self.views.update({name: value.clone() for name, value in said.items()})
        return terms


class Graph:
    """Work as a CUDA graph."""

    def __init__(self, work, pool, stream):
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, pool=pool, stream=stream):
            self.result = work()

    def replay(self) -> tuple[dict, dict]:
        self.graph.replay()
        return self.result


class StandIn:
    """Replacement of a graph without a GPU: the work itself, results in one place, so tests reach the rest."""

    def __init__(self, work):
        self.work, self.result = work, None

    def replay(self) -> tuple[dict, dict]:
        new = self.work()
        self.result = self.result or new
        for old, values in zip(self.result, new):
            for name, value in values.items():
                old[name].copy_(value)
        return self.result
