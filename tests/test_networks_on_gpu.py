"""Networks and methods as a GPU sees them: nothing crosses to it, nothing waits for it, nothing is left to chance.

On fake CUDA tensors a forward pass is counted, operation by operation. What a GPU computes in another way than the CPU
is compared on the CPU; what must not change a bit is compared with its plain form.
"""

import math
from contextlib import contextmanager
from dataclasses import replace
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses import FakeTensor

from fake_cuda import Counts, fake_cuda, real
from spacedkd_lib import recipes
from spacedkd_lib.data.curriculum import ClassGroups
from spacedkd_lib.methods import build as making, ema as average
from spacedkd_lib.methods.build import recipe_schedule
from spacedkd_lib.methods.online_kd import BatchNorm, batch_statistics
from spacedkd_lib.models import layers, resnet
from spacedkd_lib.models.scoring import eval_mode, named_scores
from spacedkd_lib.recipes import (
    Recipe, baseline, education, ema, ie_kd, mutual, offline_kd, online_kd, past_self, preset, self_kd, spaced,
)
from spacedkd_lib.training import distributed
from spacedkd_lib.training.loop import walk
from spacedkd_lib.training.train import assemble
from test_education import ED, WHOLE, six  # noqa: F401

BASE = Recipe(dataset="toy", model="resnet8", width=4, epochs=6, batch_size=8, val_fraction=0.2)
DEIT = recipes.transformer(BASE, image_size=0, patch_size=4, width=8, depth=2, heads=2, warmup_epochs=1, epochs=6)
EXITS = replace(BASE, model="resnet10")
SCHOOLS = education(BASE, (2, 1, 3))
METHODS = {
    "baseline": baseline(BASE), "in two parts": replace(baseline(BASE), batch_norm_parts=2),
    "dropout": replace(baseline(BASE), dropout=0.2),
    "online": online_kd(BASE), "offline": offline_kd(BASE),
    "released": preset(online_kd(BASE), "released"), "eval": online_kd(BASE, teacher_mode="eval"),
    "self": self_kd(EXITS), "self, released": preset(self_kd(EXITS), "released"),
    "factors": ie_kd(BASE), "mutual": mutual(BASE), "factors of both": mutual(ie_kd(BASE)),
    "education": SCHOOLS, "education, released": preset(SCHOOLS, "released"),
    "own past": past_self(BASE, 1.0), "an average": ema(BASE), "scored by the batch": replace(ema(BASE), ema_statistics="batch"),
    "transformer": baseline(DEIT),
    "distillation token": online_kd(DEIT, beta=0.0, dist_token="always"),
    "released transformer": preset(spaced(online_kd(DEIT, beta=0.0), 1.0), "released"),
} | {name: baseline(replace(BASE, model=f"timm/{name}", width=0)) for name in
     ("pvt_v2_b0", "convit_tiny", "levit_128s", "test_efficientnet")} | {
    "pvt_tiny": baseline(replace(BASE, model="pvt_tiny", width=0)),
    "enlarged": baseline(replace(BASE, model="t2t_vit_7", width=0, image_size=48)),
    "shrunk": baseline(replace(BASE, model="t2t_vit_7", width=0, image_size=16)),
}
# Operations of torch that have no deterministic form on a GPU, some for their backward pass only: those of the list of
# torch.use_deterministic_algorithms that raise an error on CUDA tensors (its docstring in torch 2.15), in ATen's names.
# In place of bilinear interpolation torch then takes _unsafe_index, whose backward pass sorts.
CHANCE = frozenset("""
    avg_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_max_pool2d fractional_max_pool2d fractional_max_pool3d
    max_unpool2d max_unpool3d upsample_linear1d upsample_bilinear2d _upsample_bilinear2d_aa upsample_bicubic2d
    _upsample_bicubic2d_aa upsample_trilinear3d reflection_pad1d reflection_pad2d reflection_pad3d nll_loss2d_forward
    _ctc_loss _embedding_bag put histc median kthvalue grid_sampler_2d grid_sampler_3d scatter_reduce _unsafe_index
    """.split())
IMAGES_ONLY = {"enlarged": {"_unsafe_index"}, "shrunk": {"_upsample_bilinear2d_aa"}}  # no gradient reaches an image


@contextmanager
def repeatable():
    """torch's deterministic mode, in which some operations are others."""
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextmanager
def bf16(enabled):
    """`torch.autocast("cuda")`, which without a GPU does nothing."""
    torch.set_autocast_enabled("cuda", enabled)
    try:
        yield
    finally:
        torch.set_autocast_enabled("cuda", False)
        torch.clear_autocast_cache()


@contextmanager
def on_gpu(recipe, size=32):
    """A recipe's method on a fake GPU, and a batch there."""
    with fake_cuda(), repeatable():
        method = real(making.make)(recipe, 3, 6, size)
        for module in method.modules.values():
            module.to("cuda", memory_format=torch.channels_last)
            for place in layers.dropouts(module):
                place.rate = recipe.dropout
        x = torch.empty(8, 3, size, size, device="cuda").contiguous(memory_format=torch.channels_last)
        yield method, x, torch.zeros(8, dtype=torch.int64, device="cuda")


def counted(work):
    """What work does on the fake GPU."""
    with Counts() as counts:
        work()
    return counts


def predicted(method, x):
    with eval_mode(nn.ModuleList(method.modules.values())):
        return method.predict(x)


def asked_of(method, x, y):
    """What the loop asks a method to do with a batch."""
    kinds = ["learn"] if isinstance(method, making.Baseline) else ["teach", "learn"]
    return [*(lambda kind=kind: getattr(method, kind)(x, y) for kind in kinds), lambda: predicted(method, x)]


def grades(name):
    """Grade -> how many pictures of a batch are of each group; None: there are no grades."""
    if METHODS[name].method != "education":
        return {None: None}
    return {3: (3, 2, 3)} | ({1: (8, 0, 0), 2: (5, 3, 0)} if name == "education" else {})


@pytest.mark.parametrize("name, low", [*((name, False) for name in METHODS), *(
    (name, True) for name in ("online", "self", "education", "distillation token", "pvt_tiny"))])
def test_nothing_crosses_waits_or_is_left_to_chance(name, low):
    makes_first = METHODS[name].method in ("self_kd", "education")  # matrices and tables, which are then there
    with on_gpu(METHODS[name]) as (method, x, y), bf16(low):
        if METHODS[name].method == "ema":  # whose parameters the fake GPU has replaced
            method.own, method.followed = (list(net.parameters()) for net in (method.student,
                                                                                    method.teacher))
        for grade, sizes in grades(name).items():
            if grade:
                method.growing.grade = grade
            for work in asked_of(method, x, y):
                for _ in range(1 + makes_first):
                    method.sizes = sizes
                    counts = counted(work)
                assert (counts.to_gpu, counts.to_cpu, counts.waits) == ([], [], [])
                assert counts.launches.keys() & CHANCE <= IMAGES_ONLY.get(name, set())


# Rows and columns

def bilinear(x, size):
    return F.interpolate(x, size, mode="bilinear")


@pytest.mark.parametrize("operation, before, after", [
    (bilinear, 16, 32), (bilinear, 1, 2), (bilinear, 7, 14), (bilinear, 4, 7), (F.adaptive_avg_pool2d, 32, 4),
    (F.adaptive_avg_pool2d, 24, 4), (F.adaptive_avg_pool2d, 14, 4), (F.adaptive_avg_pool2d, 7, 4),
    (F.adaptive_avg_pool2d, 2, 4), (F.adaptive_avg_pool2d, 8, 1)])
def test_matrices_are_the_operation(operation, before, after):
    layer, results = resnet.Separable(operation), []
    for work in (operation, layer.by_matrices):
        draw = torch.Generator().manual_seed(0)
        x = torch.randn(2, 3, before, 5, dtype=torch.float64, generator=draw).requires_grad_()
        out = work(x, (after, 10))
        out.backward(torch.randn(out.shape, dtype=torch.float64, generator=draw))
        results.append((out.detach(), x.grad))
    for one, other in zip(*results):
        torch.testing.assert_close(one, other, rtol=1e-13, atol=1e-13)


def test_matrices_are_made_once_and_leave_no_name():
    layer, x = resnet.Separable(bilinear), torch.randn(2, 3, 4, 4)
    layer.by_matrices(x, (8, 8))
    first = dict(layer.named_buffers())
    layer.by_matrices(x, (8, 8))
    assert first.keys() == {"from_4_to_8"} and layer.from_4_to_8 is first["from_4_to_8"] and not layer.state_dict()
    with torch.autocast("cpu", torch.bfloat16):
        assert layer.by_matrices(x, (8, 8)).dtype == torch.float32
    assert layer.by_matrices(x.contiguous(memory_format=torch.channels_last), (8, 8)).is_contiguous(
        memory_format=torch.channels_last)


def test_matrices_of_a_gradient_transform_end_with_it():
    layer, x = resnet.Separable(bilinear), torch.randn(2, 3, 4, 4)
    for _ in range(2):
        slope = torch.func.grad(lambda x: layer.by_matrices(x, (8, 8)).square().sum())(x)
    assert slope.shape == x.shape and not dict(layer.named_buffers())


def test_updates_by_matrices_are_updates_by_the_operation(monkeypatch):
    x, y = torch.randn(4, 3, 16, 16, dtype=torch.float64), torch.tensor([0, 1, 0, 1])
    ways = resnet.Separable.forward, resnet.Separable.by_matrices
    for recipe in (self_kd(EXITS), SCHOOLS):
        gradients = []
        for work in ways:
            monkeypatch.setattr(resnet.Separable, "forward", work)
            method = making.make(recipe, 3, 6, 16)
            modules = nn.ModuleDict(method.modules).double()
            method.learn(x, y)["loss"].backward()
            gradients.append({name: p.grad for name, p in modules.named_parameters() if p.grad is not None})
        assert any("gates" in name or "references" in name for name in gradients[0])
        torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-12)


# Batch norm

@contextmanager
def by_momentum(net):
    """The plain form of `batch_statistics`: a momentum of zero, and counts put back."""
    layers = [module for module in net.modules() if isinstance(module, BatchNorm)]
    momenta, seen = [layer.momentum for layer in layers], [layer.num_batches_tracked.clone() for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    yield
    for layer, momentum, count in zip(layers, momenta, seen):
        layer.momentum = momentum
        layer.num_batches_tracked.copy_(count)


def plain(parts=1):
    net = resnet.ResNet("resnet8", 3, width=4)
    layers.split_batch_norm(net, parts)
    return net


def of_timm(name):
    return making.make(METHODS[name], 3, 3, 32).student


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("build", [plain, lambda: plain(2), lambda: of_timm("levit_128s"),
                                   lambda: of_timm("test_efficientnet")])
def test_a_look_by_the_batch_has_the_bits_of_momentum_zero_and_remembers_nothing(build, dtype):
    net = build().to(dtype).train()
    x = torch.randn(8, 3, 32, 32, dtype=dtype).contiguous(memory_format=torch.channels_last)
    net(x)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    seen = []
    for how in (by_momentum, batch_statistics):
        with torch.no_grad(), how(net):
            torch.manual_seed(0)
            seen.append(net(x).logits)
        assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert torch.equal(*seen)
    net(x)
    assert any(not torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_a_look_by_the_batch_launches_less_than_one_that_remembers():
    launches = {}
    for mode in ("train", "batch"):
        with on_gpu(online_kd(BASE, teacher_mode=mode)) as (method, x, _):
            launches[mode] = sum(counted(lambda: method.teacher_outputs(x)).launches.values())
            layers = sum(isinstance(module, BatchNorm) for module in method.teacher.modules())
    assert launches["train"] - launches["batch"] == layers  # each counts its batches


def test_global_batch_norm_copies_nothing_and_can_be_asked_to_forget(monkeypatch):
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda x: None)
    layer = nn.BatchNorm2d(5)
    distributed.prepare(layer)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    with torch.no_grad(), batch_statistics(layer):
        layer(torch.randn(8, 5, 3, 3))
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())
    with fake_cuda():
        layer.to("cuda")
        x = torch.empty(8, 5, 3, 3, device="cuda")
        counts = counted(lambda: layer(x))
    assert (counts.to_gpu, counts.waits) == ([], [])


def recalibrated(method, batches, by_torch=False):
    """Running statistics of the average after looks at batches."""
    method.recalibration = mock.Mock(indices=lambda i: i, pictures=lambda _, i: (batches[i % len(batches)], None))
    if by_torch:
        torch.optim.swa_utils.update_bn(
            [batches[i % len(batches)] for i in range(average.RECALIBRATION_BATCHES)], method.student)
    else:
        method.before_scores()
    return [value.clone() for value in method.student.buffers()]


@pytest.mark.parametrize("parts", [1, 2])
def test_statistics_of_an_average_are_torchs_means_without_waiting(parts, monkeypatch):
    monkeypatch.setattr(average, "RECALIBRATION_BATCHES", 9)
    recipe = replace(ema(BASE), batch_norm_parts=parts)
    batches = list(torch.randn(7, 8, 3, 16, 16))
    method = making.make(recipe, 3, 6, 16)
    momenta = [layer.momentum for layer in method.student.modules() if isinstance(layer, BatchNorm)]
    got = recalibrated(method, batches)
    assert momenta == [layer.momentum for layer in method.student.modules() if isinstance(layer, BatchNorm)]
    wanted = recalibrated(method, batches, by_torch=True)
    assert len(got) == len(wanted) and all(map(torch.equal, got, wanted))
    with on_gpu(recipe) as (method, x, _):
        counts = counted(lambda: recalibrated(method, [x]))
    assert (counts.to_gpu, counts.waits) == ([], [])


# Education Distillation

def asked(y, groups, classes=6):
    """Group -> its pictures, by asking for each group which they are."""
    group = torch.tensor([next(k for k, g in enumerate(groups) if c in g) for c in range(classes)])[y]
    found = {k: (group == k).nonzero().flatten() for k in range(len(groups))}
    return {k: rows for k, rows in found.items() if len(rows)}


@pytest.mark.parametrize("schools", [(2, 1, 3), ((5, 0), (3,), (1, 2, 4))])
def test_pictures_of_groups_are_found_as_by_asking_for_each(schools):
    method = making.make(education(BASE, schools), 3, 6, 8)
    for y in (torch.tensor([5, 0, 3, 0, 2, 5, 1]), torch.tensor([3, 3]), torch.tensor([0, 5, 4])):
        wanted = asked(y, method.groups)
        for sizes in (None, [len(wanted.get(k, ())) for k in range(3)]):
            method.sizes = sizes
            found = method._rows(y, 3)
            assert found.keys() == wanted.keys() and all(torch.equal(found[k], wanted[k]) for k in wanted)
            assert method.sizes is None
    assert method._rows(torch.tensor(method.groups[2]), 2) == {}


@pytest.mark.parametrize("recipe", [
    spaced(ED, 0.5), WHOLE, replace(ED, grade_batches="sequential"), replace(ED, replay="fresh_batch"),
    preset(education(BASE, (2, 2, 2)), "released")])
def test_the_loop_tells_the_sizes_of_groups(recipe, six):  # noqa: F811
    (run,), batches, _ = assemble([recipe], six, torch.device("cpu"))
    updates = sum(event.kind in ("teach", "learn") for event in recipe_schedule(recipe, batches.course(recipe)))
    told = []

    def step(kind, x, y, rate):
        wanted = asked(y, run.method.groups)
        told.append(run.method.sizes == [len(wanted.get(k, ())) for k in range(3)])
    run.step = step
    for _ in walk([run], batches, lambda runs: [{} for _ in runs]):
        pass
    assert isinstance(batches, ClassGroups) and len(told) == updates and all(told)


@pytest.mark.parametrize("schools", [(2, 1, 3), ((5, 0), (3,), (1, 2, 4)), ((5,), (0, 1, 2, 3, 4))])
def test_answers_and_scores_of_groups_are_those_of_each_group_alone(schools):
    method = making.make(education(BASE, schools), 3, 6, 8)
    x, labels = torch.randn(40, 3, 8, 8), torch.tensor([5, 3, 0, 1] * 10)
    for grade in range(1, len(schools) + 1):
        method.growing.grade = grade
        outputs = predicted(method, x)
        known = sum(map(len, method.groups[:grade]))
        with torch.no_grad():
            logits = method.growing.eval()(x)
            teachers = [teacher.eval()(x).logits for teacher in method.teachers]
        order = [c for group in method.groups for c in group]
        assert logits.shape == (40, known)
        if grade < len(schools):
            least = logits.amin(1) - float(known == 1)
            for c in range(6):
                column = logits[:, order.index(c)] if order.index(c) < known else least
                assert torch.equal(outputs["student"][:, c], column)
        else:
            assert torch.equal(outputs["student"], logits)
        for group, own in zip(method.groups, teachers):
            assert torch.equal(outputs["teachers"][:, group], own)
        row = method.scored("test", outputs, labels)
        hits = outputs["student"].argmax(1) == labels
        for k, group in enumerate(method.groups):
            mine = torch.isin(labels, torch.tensor(group))
            local = torch.tensor([group.index(c) for c in labels[mine].tolist()])
            wanted = {f"test_group{k + 1}_accuracy": hits[mine],
                      f"teacher{k + 1}_test_accuracy": teachers[k][mine].argmax(1) == local}
            for name, right in wanted.items():
                percent = 100 * right.double().mean().item()
                assert row[name] == percent or math.isnan(row[name]) and not len(right), name
        seen = torch.isin(labels, torch.tensor(order[:known]))
        assert row["test_seen_accuracy"] == 100 * hits[seen].double().mean().item()


# What is read from a GPU

def read(tensor):
    """`tolist` on a fake GPU: one copy, and numbers of the right shape."""
    tensor.cpu()
    return real(torch.zeros)(tensor.shape).tolist()


def test_scores_of_all_networks_are_read_at_once():
    with fake_cuda(), mock.patch.object(FakeTensor, "tolist", read):
        logits, labels = torch.empty(50, 6, device="cuda"), torch.zeros(50, dtype=torch.int64, device="cuda")
        counts = counted(lambda: named_scores("test", {"student": logits, "teacher": logits, "exit1": logits}, labels))
    assert len(counts.to_cpu) == 1 and (counts.waits, counts.to_gpu) == ([], [])


def test_scores_of_groups_are_read_twice():
    with on_gpu(SCHOOLS) as (method, x, y), mock.patch.object(FakeTensor, "tolist", read):
        outputs = predicted(method, x)
        counts = counted(lambda: method.scored("test", outputs, y))
    assert len(counts.to_cpu) == 2 and (counts.waits, counts.to_gpu) == ([], [])


def test_what_is_said_of_factors_is_read_at_once():
    with on_gpu(ie_kd(BASE)) as (method, x, _), mock.patch.object(FakeTensor, "tolist", read):
        with eval_mode(nn.ModuleList(method.modules.values())):
            counts = counted(lambda: method.diagnose(x))
    assert len(counts.to_cpu) == 1 and (counts.waits, counts.to_gpu) == ([], [])


def test_methods_are_all_counted():
    assert {recipe.method for recipe in METHODS.values()} == set(recipes.METHODS)
