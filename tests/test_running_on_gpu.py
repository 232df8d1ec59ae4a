"""What runs work on a GPU, as far as a CPU can show it: its errors, processes that share it, plans, measures, pairs."""

import json
import os
import subprocess
import sys
import time
import weakref
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import Here
from fake_cuda import fake_cuda, real
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from spacedkd_lib import __main__, recipes
from spacedkd_lib.analysis import curvature, landscape, measures, trained
from spacedkd_lib.cluster.executors import LocalProcesses, SharedCard, _names_cuda, within_memory
from spacedkd_lib.data import datasets
from spacedkd_lib.errors import InputError
from spacedkd_lib.lab import grids, planning, profiles, running, sweeps
from spacedkd_lib.methods import build
from spacedkd_lib.models import resnet
from spacedkd_lib.statistics import paired_by_seed
from spacedkd_lib.store import records
from spacedkd_lib.training import run, train

SMOKE = profiles.profile("smoke").settings[0]
ONLINE = recipes.online_kd(SMOKE.base, interval=1.0)


@pytest.fixture
def gpu(monkeypatch):
    """A machine with 16 cores and a card of 80 GB; to be changed: its memory."""
    card = SimpleNamespace(total_memory=80e9)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(16)), raising=False)
    return card


# Errors

FULL = 'import torch; raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")'


def process_after(executor, *call) -> tuple[int, int]:
    """The worker's process id before and after a call that fails."""
    before = executor.submit(os.getpid).result()
    with pytest.raises(Exception):
        executor.submit(*call).result()
    return before, executor.submit(os.getpid).result()


def test_a_cuda_error_costs_its_process_and_no_other_error_does():
    assert _names_cuda(torch.AcceleratorError("device-side assert triggered"))
    with LocalProcesses(1) as executor:
        for error, new in (("CUDA error: an illegal memory access was encountered", True), ("a shape", False)):
            before, after = process_after(executor, exec, f"raise RuntimeError({error!r})")
            assert (after != before) == new, error


class Odd(Exception):
    """Made of two arguments, of which it keeps one: it cannot be unpickled, like SciPy's ArpackNoConvergence."""

    def __init__(self, words, values):
        super().__init__(words)


def odd():
    raise Odd("no convergence", 3)


def test_an_error_that_cannot_be_unpickled_says_what_it_is():
    with LocalProcesses(1) as executor, pytest.raises(RuntimeError, match="^Odd: no convergence$"):
        executor.submit(odd).result()


def test_want_of_memory_is_one_sentence_and_leaves_nothing_behind(monkeypatch):
    alive, seen = [], []

    def greedy():
        tensor = torch.zeros(1)
        alive.append(weakref.ref(tensor))
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: seen.append(alive[0]()))
    with pytest.raises(InputError, match="fewer WORKERS.*batch_size.*bf16"):
        within_memory(greedy)
    assert seen == [None]  # the tensor was gone before the cache was emptied


def test_a_run_too_large_for_the_gpu_says_what_to_lower(runs, monkeypatch):
    monkeypatch.setattr(train, "sweep", lambda *_, **__: exec(FULL))
    with pytest.raises(InputError, match="failed, The memory is too small.*log is"):
        running.run_all([recipes.baseline(SMOKE.base)], say=lambda line: None, executor=Here())
    with pytest.raises(InputError, match="fewer WORKERS"):
        running.run(recipes.baseline(SMOKE.base))


# Several processes on one card

FAKE_MPS = """#!/bin/sh
if test "$1" = -d; then echo "start $CUDA_MPS_PIPE_DIRECTORY" >> {log}; exit {status}; fi
echo "$(cat) $CUDA_MPS_PIPE_DIRECTORY" >> {log}
"""


@pytest.fixture
def mps(tmp_path, monkeypatch):
    """A command in place of NVIDIA's, and its log; `mps(1)`: one that fails to start."""
    log, command = tmp_path / "log", tmp_path / SharedCard.COMMAND

    def install(status=0):
        command.write_text(FAKE_MPS.format(log=log, status=status))
        command.chmod(0o755)
        return log
    monkeypatch.setattr(SharedCard, "TRIAL", "")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_MPS_PIPE_DIRECTORY", raising=False)
    return install


def test_processes_share_the_card_and_leave_no_service_running(mps, gpu):
    log = mps()
    with LocalProcesses(2) as executor:
        folder = executor.submit(os.getenv, "CUDA_MPS_PIPE_DIRECTORY").result()
        assert log.read_text() == f"start {folder}\n" and os.path.isdir(folder)
    assert log.read_text() == f"start {folder}\nquit -t 10 {folder}\n" and not os.path.exists(folder)
    assert "CUDA_MPS_PIPE_DIRECTORY" not in os.environ


@pytest.mark.parametrize("case", ["one worker", "the user's own", "no GPU", "does not start", "does not work"])
def test_no_service_where_none_is_wanted_or_possible(mps, gpu, monkeypatch, case):
    log = mps(status=case == "does not start")
    own = "/the/users/own" if case == "the user's own" else None
    if own:
        monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", own)
    if case == "does not work":
        monkeypatch.setattr(SharedCard, "TRIAL", "raise SystemExit(1)")
    if case == "no GPU":
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with LocalProcesses(1 if case == "one worker" else 2) as executor:
        assert executor.submit(os.getenv, "CUDA_MPS_PIPE_DIRECTORY").result() == own
    assert log.exists() == case.startswith("does not")
    assert not log.exists() or "quit" in log.read_text()


KILLED = """
import os
from spacedkd_lib.cluster.executors import SharedCard
SharedCard.TRIAL = ""
SharedCard()
os.kill(os.getpid(), 9)
"""


def test_the_service_ends_with_a_process_that_is_killed(mps):
    log = mps()
    subprocess.run([sys.executable, "-c", KILLED], env=dict(os.environ, PYTHONPATH=str(Path(running.__file__).parents[2])))
    deadline = time.monotonic() + 20
    while "quit" not in log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("recipe, memory, workers", [
    (profiles.profile("quick").settings[0].base, 80e9, 16), (profiles.profile("quick").settings[0].base, 9e9, 2),
    (recipes.online_kd(profiles.profile("core").settings[0].base), 80e9, 1),
    (recipes.online_kd(replace(profiles.profile("core").settings[0].base, model="resnet20")), 80e9, 13)])
def test_small_networks_run_side_by_side_on_a_gpu(gpu, recipe, memory, workers):
    gpu.total_memory = memory
    assert running.default_workers([recipe]) == workers
    assert running.default_workers([recipe, recipes.online_kd(profiles.profile("core").settings[0].base)]) == 1


# Plans

def test_a_plan_times_the_second_epoch_of_the_loop_itself(monkeypatch):
    """Augmented batches of all kinds of labels, in the recipe's precision, and evaluation; here, with a clock that
    counts passes through networks."""
    recipe = recipes.short_form(recipes.online_kd(replace(SMOKE.base, precision="bf16", augment="crop"), interval=1.5))
    kinds, labels, precise = [], set(), []
    step, forward = run.Run.step, resnet.ResNet.forward

    def watched(run, kind, x, y, rate):
        kinds.append(kind)
        labels.update(y.tolist())
        return step(run, kind, x, y, rate)
    monkeypatch.setattr(run.Run, "step", watched)
    monkeypatch.setattr(resnet.ResNet, "forward", lambda net, x: precise.append(
        not torch.is_autocast_enabled("cpu")) or forward(net, x))
    monkeypatch.setattr(planning, "_now", lambda device: len(precise))
    cost = planning._measure(recipe)
    assert kinds == 2 * ["teach", "teach", "learn", "learn"] and labels == set(range(10))
    assert not any(precise[-9:])  # the first ones count multiply-accumulates
    assert (cost.update, cost.look, cost.before) == (6 / 32, 2 / 32, 0)  # a pass of teach, two of learn, of two batches
    assert (cost.train, cost.test) == datasets.shape("digits")[3:]


def test_a_large_network_is_timed_on_small_batches_on_a_cpu():
    base = replace(profiles.profile("core").settings[0].base, model="resnet20", width=64)
    run, batches, _, scored = planning._assembled(recipes.short_form(base), torch.device("cpu"))
    assert 2 <= run.recipe.batch_size < base.batch_size and scored == 2 * run.recipe.batch_size == 2 * len(batches[0][1])


def test_seconds_count_updates_looks_and_what_a_sweep_shares():
    cost = planning.Cost(update=7.0, look=0.1, before=5.0, megabytes=1.0, train=1000, test=100)
    base = replace(SMOKE.base, train_images=200, val_fraction=0.1, batch_size=20, epochs=4, eval_every=3)
    online = recipes.online_kd(base, interval=2.0)
    alone, look = 4 * 180 * 7, 2 * (5 + 120 * 0.1)
    assert planning._seconds(sweeps.sweep_of([online]), online, cost) == pytest.approx(alone + look)
    both = sweeps.sweep_of([online, recipes.online_kd(base)])  # 3 passes of one teacher, 4 of each student
    assert planning._seconds(both, online, cost) == pytest.approx(alone * 11 / 7 + 2 * look)


def test_a_plan_counts_measures(runs, monkeypatch):
    rows = [row for row in grids.grid("core", seeds=4) if row.notebook in profiles.MEASURING]  # more than a miniature
    monkeypatch.setattr(planning, "_measure", lambda recipe: planning.Cost(1e-6, 0.0, 0.0, 1.0, 1500, 297))
    number = len(measures.wanted(rows))
    assert __main__.plan_lines(rows, 1).splitlines()[1].startswith(f"Then {number} measures of finished runs")
    monkeypatch.setattr(measures, "stored", lambda recipe, name: {})
    assert len(__main__.plan_lines(rows, 1).splitlines()) == 1


def test_core_is_trained_in_bf16_and_the_paper_as_it_was():
    assert {row.recipe.precision for row in grids.grid("core", seeds=1)} == {"bf16"}
    assert {row.recipe.precision for row in grids.grid("paper", seeds=1)} == {"fp32"}


# Measures

class Answers(TorchDispatchMode):
    """Whatever number a fake tensor is asked for, it is one."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten._local_scalar_dense.default:
            return True if args[0].dtype == torch.bool else 1 if not args[0].is_floating_point() else 1.0
        return function(*args, **kwargs or {})


def zero_gradients(outputs, inputs, grad_outputs=None, **_):
    """In place of `torch.autograd.grad`, which needs a driver; all of it is on the GPU."""
    given = [t for t in tree_leaves((outputs, inputs, grad_outputs)) if isinstance(t, torch.Tensor)]
    assert {t.device.type for t in given} == {"cuda"}
    return tuple(torch.zeros_like(t) for t in ([inputs] if isinstance(inputs, torch.Tensor) else inputs))


def on_the_cpu(tensor):
    """In place of `Tensor.numpy`, which fake tensors do not have."""
    assert tensor.device.type == "cpu"
    return np.zeros(tensor.shape, np.uint8 if tensor.dtype == torch.uint8 else np.float32)


@pytest.fixture
def measured_on_gpu(monkeypatch):
    """name of a measure -> its values for an untrained run on a fake GPU."""
    pictures = planning._random_pictures(ONLINE, 40)
    monkeypatch.setattr(trained, "dataset_of", lambda name: pictures)
    monkeypatch.setattr(records, "load_weights", lambda recipe: {})
    monkeypatch.setattr(torch.nn.Module, "load_state_dict", lambda *_: None)
    monkeypatch.setattr(trained, "statistics_of", lambda normalise, images: ((0.5,), (0.2,)))
    for module, name in ((build, "make"), (datasets, "split"), (trained, "_some")):
        monkeypatch.setattr(module, name, real(getattr(module, name)))
    monkeypatch.setattr(torch.autograd, "grad", zero_gradients)
    monkeypatch.setattr(FakeTensor, "numpy", on_the_cpu, raising=False)
    for module in (curvature, landscape):  # fake tensors cannot be copied
        monkeypatch.setattr(module, "copy", SimpleNamespace(deepcopy=lambda net: net))
    monkeypatch.setattr(curvature, "eigsh", lambda operator, *_, **__: np.ones(1))
    monkeypatch.setattr("curvlinops.papyan2020traces.spectrum.approximate_boundaries", lambda *_, **__: (0.0, 1.0))

    def values(name, **settings):
        run = trained.Trained(replace(ONLINE, train_images=0), "cuda")
        with fake_cuda(), Answers():
            assert {p.device.type for p in run.student.parameters()} == {"cuda"}
            return measures.MEASURES[name].compute(run, **settings)
    return values


@pytest.mark.parametrize("name, settings", [
    ("noise", dict(images=8, sigmas=[0.1], draws=1)), ("curvature", dict(images=8, products=3, repeats=2)),
    ("robustness", dict(images=8, severities=[1], radii=[1.0]))])
def test_a_measure_stays_on_the_gpu_that_trained(measured_on_gpu, name, settings):
    """Operations on tensors of two devices, as a forgotten `.to` would ask for, raise here."""
    values = measured_on_gpu(name, **settings)
    assert values and all(isinstance(value, np.ndarray) for value in values.values())


def test_the_hessian_takes_and_gives_vectors_on_the_cpu(measured_on_gpu, monkeypatch):
    seen = []
    monkeypatch.setattr(curvature, "trace", lambda operator, *_: seen.append(operator @ torch.ones(
        operator.shape[1])) or curvature.Estimate(0.0, 0.0))
    measured_on_gpu("curvature", images=8, products=3, repeats=2)
    assert [v.device.type for v in seen] == ["cpu"] * 2


@pytest.mark.parametrize("trained, here, wanted", [("cuda", True, "cuda"), ("cuda", False, "cpu"),
                                                   ("cpu", True, "cpu")])
def test_a_run_is_measured_where_it_was_trained(monkeypatch, trained, here, wanted):
    monkeypatch.setattr(records, "load", lambda recipe: SimpleNamespace(provenance={"device": trained}))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: here)
    assert measures._device(ONLINE).type == wanted


def test_measures_go_through_the_executor_and_name_their_device(runs, monkeypatch):
    recipe, executor = recipes.baseline(replace(SMOKE.base, width=1, train_images=120, epochs=1)), Here()
    running.run(recipe)
    monkeypatch.setitem(measures.MEASURES, "noise", measures.MEASURES["noise"]._replace(
        settings=dict(images=8, sigmas=[0.1], draws=1)))
    found = measures.measure_all([(recipe, "noise")], executor=executor)
    assert found[recipe.run_id, "noise"]["loss"].shape == (1, 1)
    assert executor.calls == ["_work"] and executor.batches == 1
    with np.load(runs / recipe.run_id / "noise.npz") as file:
        assert json.loads(str(file["meta"]))["device"] == "cpu"


def test_reproduce_measures_where_it_trains(tmp_path, runs, monkeypatch):
    """Each in its own jobs: an executor is shut down after use."""
    made, used = [], []
    monkeypatch.setattr(records, "ROOT", tmp_path)
    monkeypatch.setattr(__main__.slurm, "Slurm", lambda folder, **how: made.append(how) or len(made))
    monkeypatch.setattr(running, "run_all", lambda recipes, workers, say, executor, on_sweep: used.append(executor))
    monkeypatch.setattr(__main__.Series, "execute_ready", lambda _: None)

    def measure_all(asked, workers, say, executor):
        used.append(executor)
        raise InputError("measured")
    monkeypatch.setattr(measures, "measure_all", measure_all)
    assert __main__.main(["reproduce", "--profile", "smoke", "--slurm", "partition=gpu"]) == 2
    assert used == [1, 2] and made == 2 * [{"slurm_partition": "gpu"}]


# Pairs

def test_a_pair_is_of_one_kind_of_device():
    lines = [(arm, seed, f"{arm}{seed}", device, 70.0 + seed) for arm in ("a", "b") for seed, device in
             enumerate(("cpu", "cuda"))]
    frame = pd.DataFrame(lines, columns=["arm", "seed", "run_id", "device", "test_accuracy"])
    assert paired_by_seed(frame, "a", "b").n == 2  # seeds may be trained where they like
    frame.loc[frame["run_id"] == "b1", "device"] = "cpu"
    with pytest.raises(InputError, match=r"Seed 1 of a \(run a1\) was trained on cuda and that of b \(run b1\) on cpu"):
        paired_by_seed(frame, "a", "b")
    assert paired_by_seed(frame[frame["seed"] == 0], "a", "b").n == 1
