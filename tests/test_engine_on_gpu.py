"""Updates as CUDA graphs, as far as a CPU can tell: with a stand-in for the graph all that is round it is real.

Where a GPU is visible the same tests are of real graphs.
"""

import os
import subprocess
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from unittest import mock

import pytest
import torch

from fake_cuda import fake_cuda
from spacedkd_lib.errors import InputError
from spacedkd_lib.recipes import (
    Recipe, baseline, education, ema, ie_kd, mutual, offline_kd, online_kd, preset, self_kd, spaced, teacher_of,
)
from spacedkd_lib.report import text
from spacedkd_lib.store import records, software, stopping
from spacedkd_lib.training import checkpoints, graphs, optimizers, provenance, train
from spacedkd_lib.training.evaluation import evaluator
from spacedkd_lib.training.run import EpochMetrics
from spacedkd_lib.training.train import sweep

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
BASE = Recipe(dataset="toy", model="resnet8", width=4, epochs=2, batch_size=8, lr=0.05, augment="none", eval_every=2)
VIT = Recipe(dataset="toy", model="timm/deit_tiny_patch16_224", patch_size=4, width=48, depth=2, heads=3,
             epochs=2, batch_size=8, lr=1e-3, optimizer="adamw", augment="none", eval_every=2)
ONLINE = online_kd(BASE)
FITTING = {
    "baseline": baseline(BASE),
    "online": ONLINE,
    "spaced": spaced(ONLINE, 1.5),
    "bf16": online_kd(BASE, precision="bf16"),
    "self": self_kd(replace(BASE, model="resnet10"), interval=0.6),
    "self, released": replace(preset(self_kd(replace(BASE, model="resnet10"), interval=0.6), "released"),
                              augment="none"),
    "asked before": online_kd(BASE, zero_target="pre_update"),
    "released": replace(preset(ONLINE, "released"), augment="none"),
    "released, spaced": replace(preset(spaced(ONLINE, 1.0), "released"), augment="none"),
    "eval mode": online_kd(BASE, teacher_mode="eval"),
    "adamw": baseline(replace(BASE, optimizer="adamw", lr=1e-3)),
    "ie": ie_kd(BASE, interval=1.0),
    "mutual": mutual(BASE, interval=0.6, map_loss="factor"),
    "average": ema(BASE, interval=0.5),
    "transformer": online_kd(VIT),
    "idle": online_kd(VIT, interval=1.0, idle_update="zero_grad"),
}
UNFIT = {
    "dropout draws anew": online_kd(BASE, dropout=0.1),
    "drop path draws anew": online_kd(VIT, drop_path=0.1),
    "each batch divides": education(replace(BASE, train_images=27, batch_size=4), (2, 1), epochs=2),
    "the weights of its losses change": mutual(BASE, map_loss="factor", ramp_epochs=1.0),
}


def bits(outcome):
    """All numbers of a run but those of the clock, and its weights."""
    rows, summary, _, weights, predictions = outcome
    return ([{k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in rows], summary,
            {name: tensor.tolist() for name, tensor in weights.items()}, predictions)


def run(recipes, toy, engine="graph", folder=None):
    return sweep(recipes, toy, DEVICE, folder, engine=engine)


class Strict(graphs.StandIn):
    """As a graph is: it reads the tensors that were there at its recording, changes nothing on the host, and spoils
    what others left in the pool."""

    views = None  # of the sweep

    def __init__(self, work, made):
        super().__init__(work)
        self.made, self.then = made, dict(self.views)
        made.append(self)

    def replay(self):
        before = dict(self.views)
        self.views.update(self.then)
        result = super().replay()
        self.views.update(before)
        for other in self.made:
            for values in other.result or () if other is not self else ():
                for value in values.values():
                    value.fill_(-999)
        return result


@pytest.fixture(autouse=True)
def recorded(monkeypatch):
    """Recordings made, in turn: (kind of update, images). They begin soon, so that two epochs replay the last batch."""
    noted, stand_ins, init = [], [], graphs.Recording.__init__

    def note(self, run, kind, given, of):
        Strict.views = of.views
        init(self, run, kind, given, of)
        noted.append((kind, len(given["y"])))
    monkeypatch.setattr(graphs, "WARM", 1)
    monkeypatch.setattr(graphs, "StandIn", lambda work: Strict(work, stand_ins))
    monkeypatch.setattr(graphs.Recording, "__init__", note)
    return noted


@contextmanager
def never_recorded():
    """The eager engine with the optimizers of recorded updates."""
    with mock.patch.object(graphs, "WARM", 10**9):
        yield


@pytest.mark.parametrize("name", FITTING)
def test_replayed_updates_have_the_bits_of_eager_ones(toy, recorded, name):
    outcome, = run([FITTING[name]], toy)
    assert outcome[2]["engine"] == "graph" and {images for _, images in recorded} >= {8}
    assert len(recorded) == len(set(recorded))  # one of a kind and shape
    with never_recorded():
        assert bits(run([FITTING[name]], toy)[0]) == bits(outcome)


@pytest.mark.parametrize("why", UNFIT)
def test_what_does_not_fit_stays_as_it_is_and_says_why(toy, recorded, why):
    recipe = UNFIT[why]
    outcome, = run([recipe], toy)
    assert outcome[2]["engine"].startswith(f"eager, because {why}") and recorded == []
    assert bits(outcome) == bits(run([recipe], toy, "eager")[0])


def test_a_ramp_leaves_the_teacher_replayed(toy, recorded):
    outcome, = run([ie_kd(BASE, ramp_epochs=1.0)], toy)
    assert outcome[2]["engine"] == "graph, but in learn eager, because the weights of its losses change with the epoch"
    assert {kind for kind, _ in recorded} == {"teach"}


@pytest.mark.parametrize("kind", ["clean", "released", "average", "adamw"])
def test_a_replayed_sweep_is_each_run_alone(toy, recorded, kind):
    students = {"clean": [ONLINE, spaced(ONLINE, 1.5), offline_kd(BASE)],
                "released": [replace(preset(spaced(online_kd(BASE, alpha=a), s), "released"), augment="none")
                             for s, a in ((0.0, 0.3), (0.0, 0.9), (1.0, 0.3))],
                "average": [ema(BASE, interval=0.5), ema(BASE, interval=1.0)],
                "adamw": [online_kd(VIT), spaced(online_kd(VIT), 1.0)]}[kind]
    recipes = [*students, teacher_of(students[0])]
    alone = [bits(run([recipe], toy)[0]) for recipe in recipes]
    for step in (1, -1):  # whoever teaches
        recorded.clear()
        assert [bits(outcome) for outcome in run(recipes[::step], toy)] == alone[::step]
        assert recorded.count(("teach", 8)) == 1  # for all


def test_a_teacher_is_replayed_whatever_its_student_draws(toy, recorded):
    """A student's noise keeps its own updates eager, and its teacher's have the same bits in any company."""
    pair = [online_kd(VIT, teacher_model="resnet8", teacher_width=4, drop_path=rate) for rate in (0.1, 0.0)]
    assert teacher_of(pair[0]) == teacher_of(pair[1])
    for recipe, outcome in zip(pair, run(pair, toy)):
        assert bits(outcome) == bits(run([recipe], toy)[0])
    assert "in learn eager, because drop path" in run(pair[:1], toy)[0][2]["engine"]


@pytest.mark.parametrize("name", ["online", "released", "self", "adamw", "idle"])
def test_stopped_and_continued_replayed(toy, tmp_path, monkeypatch, name):
    """Stopped again and again: graphs are recorded anew, the bits are those of the whole."""
    whole, stops = bits(run([FITTING[name]], toy)[0]), 0
    while True:
        left = [8]  # events

        def asked():
            left[0] -= 1
            return left[0] < 0
        monkeypatch.setattr(stopping, "requested", asked)
        try:
            outcome, = run([FITTING[name]], toy, folder=tmp_path)
            break
        except stopping.Stopped:
            stops += 1
    assert stops and bits(outcome) == whole


def test_a_checkpoint_is_continued_by_its_own_engine_only(toy, tmp_path, monkeypatch, capfd):
    with monkeypatch.context() as patch:
        patch.setattr(stopping, "requested", lambda: True)
        with pytest.raises(stopping.Stopped):
            run([ONLINE], toy, "graph", tmp_path)
    assert bits(run([ONLINE], toy, "eager", tmp_path)[0]) == bits(run([ONLINE], toy, "eager")[0])
    assert "starting anew" in capfd.readouterr().err


@pytest.mark.parametrize("kind", ["teach", "learn"])
@pytest.mark.parametrize("name", ["online", "asked before"])
def test_an_update_that_cannot_be_recorded_is_made_all_the_same(toy, monkeypatch, name, kind):
    """Recording breaks off in the middle: the run goes on eagerly, with the same bits, and the record says why."""
    init, stand_in = graphs.Recording.__init__, graphs.StandIn

    def breaks_off(self, run, which, given, of):
        def spoil(work):
            of.views.update({name: value * float("nan") for name, value in of.views.items()})
            raise RuntimeError("operation not permitted when stream is capturing\nand much more")
        with mock.patch.object(graphs, "StandIn", spoil if which == kind else stand_in):
            init(self, run, which, given, of)
    with never_recorded():
        whole = bits(sweep([FITTING[name]], toy, "cpu", engine="graph")[0])
    monkeypatch.setattr(graphs.Recording, "__init__", breaks_off)
    outcome, = sweep([FITTING[name]], toy, "cpu", engine="graph")
    assert bits(outcome) == whole
    assert outcome[2]["engine"] == (f"graph, but in {kind} eager, because it could not be recorded (operation not "
                                    "permitted when stream is capturing)")


def test_engines(toy, monkeypatch):
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    monkeypatch.delenv("SPACEDKD_ENGINE", raising=False)
    assert [graphs.chosen(None, d) for d in (cpu, gpu)] == ["eager", "graph"]
    assert [graphs.chosen("compiled", gpu), graphs.chosen("eager", gpu)] == ["compiled graph", "eager"]
    monkeypatch.setenv("SPACEDKD_ENGINE", "graph")
    assert graphs.chosen(None, cpu) == "graph" and graphs.chosen("eager", cpu) == "eager"
    with pytest.raises(InputError, match='"grahp" is not an engine; did you mean "graph"'):
        sweep([ONLINE], toy, "cpu", engine="grahp")
    with pytest.raises(InputError, match="needs a GPU and the device is cpu"):
        graphs.chosen("compiled", cpu)


def test_the_eager_engine_keeps_its_optimizer(toy):
    runs, *_ = train.assemble([ONLINE], toy, torch.device("cpu"))
    graphs.Graphs(runs, "eager", torch.device("cpu"))
    group, = runs[0].optimizer["learn"].param_groups
    assert isinstance(group["lr"], float) and not group["fused"] and not runs[0].optimizer["learn"].state
    assert train.train(ONLINE, toy, "cpu")[2]["engine"] == "eager"


def test_the_rate_is_written_to_where_a_replay_reads_it(toy):
    """One tensor for all recordings, of an optimizer that several runs share too."""
    recipes = [ONLINE, spaced(ONLINE, 1.0)]
    runs, *_ = train.assemble(recipes, toy, torch.device("cpu"))
    graphs.Graphs(runs, "graph", torch.device("cpu"))
    group, = runs[0].optimizer["teach"].param_groups
    place = group["lr"]
    for rate in (0.25, 0.125):
        optimizers.set_rate(runs[1].optimizer["teach"], rate)
        assert group["lr"] is place and place.item() == rate and group["fused"]


def test_recordings_are_given_back(toy, monkeypatch):
    kept, init = [], graphs.Graphs.__init__
    monkeypatch.setattr(graphs.Graphs, "__init__", lambda self, *args: kept.append(self) or init(self, *args))
    run([ONLINE], toy)
    monkeypatch.setattr(stopping, "requested", lambda: len(kept) == 2 and len(kept[1].recordings) == 2)
    with pytest.raises(stopping.Stopped):
        run([ONLINE], toy)
    assert len(kept) == 2 and not any(of.recordings for of in kept)


def test_what_a_gpu_is_asked_for(toy):
    """A graph for each kind and shape, all in one pool and on the stream of the first updates; the others are replays.
    """
    asked = {name: mock.MagicMock() for name in ("Stream", "stream", "current_stream", "graph_pool_handle", "graph",
                                                 "CUDAGraph")}
    runs, batches, _ = train.assemble([ONLINE], toy, torch.device("cpu"))
    with mock.patch.multiple(torch.cuda, **asked), mock.patch.object(graphs, "make_replayable"):
        graphs.Graphs(runs, "graph", torch.device("cuda"))
        for i in range(2 * len(batches)):
            for kind in ("teach", "learn"):
                runs[0].step(kind, *batches[i], 0.05)
    assert asked["graph"].call_args_list == 4 * [mock.call(
        asked["CUDAGraph"].return_value, pool=asked["graph_pool_handle"].return_value,
        stream=asked["Stream"].return_value)]
    assert asked["stream"].call_count == 4 and asked["CUDAGraph"].return_value.replay.call_count == 20 - 4


# Checkpoints, provenance, evaluation

def put_back(optimizer_of, device):
    """The counters of a restored AdamW."""
    net = torch.nn.Linear(3, 2, device=device)
    optimizer = optimizer_of(net.parameters())
    numbers = dict(position=0, rows=[], pending={}, grade=1, images={}, updates={}, seconds=0.0)
    run = SimpleNamespace(optimizer={"learn": optimizer}, grade=1, metrics=EpochMetrics(),
                          weights=lambda: {f"student.{name}": value for name, value in net.state_dict().items()})
    saved = {f"optimizer/learn/0/{key}": torch.zeros(shape) for key, shape in
             (("step", ()), ("exp_avg", (2, 3)), ("exp_avg_sq", (2, 3)))}
    checkpoints._put_back(run, saved, numbers)
    return {key: value.device.type for key, value in optimizer.state[next(net.parameters())].items()}


def test_a_restored_counter_is_where_its_optimizer_makes_it():
    with fake_cuda():
        assert put_back(lambda p: torch.optim.AdamW(p, fused=True), "cuda") == dict.fromkeys(
            ("step", "exp_avg", "exp_avg_sq"), "cuda")
        plain = put_back(lambda p: torch.optim.AdamW(p), "cuda")
        assert plain == {"step": "cpu", "exp_avg": "cuda", "exp_avg_sq": "cuda"}
    net = torch.nn.Linear(2, 2)
    net(torch.ones(1, 2)).sum().backward()
    optimizer = torch.optim.AdamW(net.parameters())
    optimizer.step()
    assert {state["step"].device.type for state in optimizer.state.values()} == {"cpu"}


def test_an_unknown_commit_is_none_and_may_be_named(tmp_path, monkeypatch):
    monkeypatch.delenv("SPACEDKD_COMMIT", raising=False)
    for name in ("GIT_DIR", "GIT_WORK_TREE"):  # of some other repository: nobody asked about it
        monkeypatch.setenv(name, str(records.ROOT))
    package = tmp_path / "someone's repository" / "spacedkd_lib"  # a tarball unpacked there
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    monkeypatch.setattr(software, "PACKAGE", package)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    for command in ("init -q", "-c user.name=a -c user.email=b commit -q --allow-empty -m theirs"):
        subprocess.run(["git", *command.split()], cwd=package.parent, env=clean, check=True)
    unknown = software.describe.__wrapped__()
    assert unknown["git_commit"] is None and unknown["git_dirty"] is None
    monkeypatch.setenv("SPACEDKD_COMMIT", "c0ffee" * 6)
    named = software.describe.__wrapped__()
    assert named["git_commit"] == "c0ffee" * 6 and named["git_dirty"] is None
    origin = {"device": "cpu", "threads": 1}
    assert text.hardware_and_versions([unknown | origin]).endswith("commit unknown")
    assert text.hardware_and_versions([named | origin]).endswith("commit c0ffeec0 (changes unknown)")
    monkeypatch.setattr(software.subprocess, "run", mock.Mock(side_effect=OSError))
    assert software.describe.__wrapped__()["git_dirty"] is None


def test_provenance_of_a_gpu(toy, monkeypatch):
    """Versions and the meaning of single precision; no machine's missing tool is an error."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "A GPU")
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 92600)
    monkeypatch.setattr(software, "answer", lambda *asked: "610.5\n610.5")
    provenance._driver.cache_clear()
    before = torch.backends.cudnn.conv.fp32_precision
    try:
        torch.backends.cudnn.conv.fp32_precision = "tf32"
        told = provenance.provenance(toy, torch.device("cuda"))
        assert told["driver"] == "610.5" and told["cudnn"] == 92600 and told["tf32"] == "convolutions"
        torch.backends.cudnn.conv.fp32_precision = "ieee"
        assert provenance.provenance(toy, torch.device("cuda"))["tf32"] == "none"
    finally:
        torch.backends.cudnn.conv.fp32_precision = before
    monkeypatch.setattr(software, "answer", lambda *asked: None)
    provenance._driver.cache_clear()
    assert provenance.provenance(toy, torch.device("cuda"))["driver"] is None
    provenance._driver.cache_clear()
    on_cpu = provenance.provenance(toy, torch.device("cpu"))
    assert not {"driver", "cuda", "cudnn", "tf32"} & on_cpu.keys()
    assert {"engine", "tf32", "driver", "cuda", "cudnn"} < set(provenance.SAME_BITS)


def test_repeatable_kernels_cost_no_fills_and_leave_no_attention_that_is_not(monkeypatch):
    settings = torch.utils.deterministic
    kernels = ("flash", "mem_efficient", "cudnn")
    was = {kernel: getattr(torch.backends.cuda, f"{kernel}_sdp_enabled")() for kernel in kernels}
    filled = settings.fill_uninitialized_memory
    try:
        provenance.repeatable(torch.device("cpu"))
        assert not torch.are_deterministic_algorithms_enabled()
        provenance.repeatable(torch.device("cuda"))
        assert torch.is_deterministic_algorithms_warn_only_enabled() and not settings.fill_uninitialized_memory
        assert not any(getattr(torch.backends.cuda, f"{kernel}_sdp_enabled")() for kernel in kernels)
        assert torch.backends.cuda.math_sdp_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
        settings.fill_uninitialized_memory = filled
        for kernel, on in was.items():
            getattr(torch.backends.cuda, f"enable_{kernel}_sdp")(on)


@pytest.mark.parametrize("device, sizes", [("cpu", [500, 500, 500, 100]), ("cuda", [1600])])
def test_pictures_scored_at_once(toy, device, sizes):
    """A GPU scores more of them, and is asked about the same pictures besides."""
    seen, probed = [], []
    runs, *_ = train.assemble([ONLINE], toy, torch.device("cpu"))
    method = runs[0].method
    method.predict = lambda x, memo: seen.append(len(x)) or {"student": torch.zeros(len(x), 3)}
    method.diagnose = lambda x: probed.append(len(x)) or {}
    images = torch.zeros(1600, 3, 8, 8, dtype=torch.uint8)
    held = SimpleNamespace(to=lambda device: images), SimpleNamespace(to=lambda device: torch.zeros(1600).long())
    evaluator({"test": held}, ((0.5,) * 3, (0.5,) * 3), device)(runs)
    assert seen == sizes and probed == [500]
