"""What the method means, as properties of whole (tiny) runs."""

import copy
import hashlib
import subprocess
import sys
import time
from dataclasses import replace
from datetime import datetime

import pytest
import torch
import torch.nn.functional as F

from spacedkd_lib.data.batches import Batches
from spacedkd_lib.errors import InputError
from spacedkd_lib.methods import build, losses
from spacedkd_lib.methods.build import recipe_schedule
from spacedkd_lib.models.layers import macs
from spacedkd_lib.models.resnet import MultiExitResNet, ResNet
from spacedkd_lib.recipes import (
    Recipe, baseline, ema, ie_kd, mutual, offline_kd, online_kd, past_self, preset, self_kd, spaced, teacher_of,
)
from spacedkd_lib.training import checkpoints
from spacedkd_lib.training.loop import walk
from spacedkd_lib.training.optimizers import optimizers
from spacedkd_lib.training.rates import learning_rate
from spacedkd_lib.training.run import EpochMetrics, Run
from spacedkd_lib.training.train import train

BASE = Recipe(dataset="toy", model="resnet8", width=4, epochs=3, batch_size=8, lr=0.05, augment="crop_flip")
INTERVALS = (0.0, 0.4, 1.0, 1.5, 3.0)


def weights(recipe, toy, part="student"):
    return {k: v for k, v in train(recipe, toy)[3].items() if k.startswith(part + ".")}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def parts(recipe, toy):
    method = build.make(recipe, 3, 3, 8)
    for module in method.modules.values():
        module.to(memory_format=torch.channels_last)
    return method, Batches(toy.train_images, toy.train_labels, recipe.batch_size, recipe.seed, recipe.augment)


def test_interval_zero_is_online_kd_written_out(toy):
    """An online KD loop as one would write it by hand ends in the same weights, bit for bit."""
    recipe = online_kd(BASE)
    method, batches = parts(recipe, toy)
    teacher, student, projector = method.teacher, method.student, method.projector
    settings = dict(lr=recipe.lr, momentum=0.9, weight_decay=5e-4)
    teacher_sgd = torch.optim.SGD(teacher.parameters(), **settings)
    student_sgd = torch.optim.SGD([*student.parameters(), *projector.parameters()], **settings)
    for i in range(3 * len(batches)):
        x, y = batches[i]
        for sgd in (teacher_sgd, student_sgd):
            sgd.param_groups[0]["lr"] = learning_rate(recipe, i, 3 * len(batches))
        teacher_sgd.zero_grad()
        F.cross_entropy(teacher.train()(x).logits, y).backward()
        teacher_sgd.step()
        with torch.no_grad():
            target = copy.deepcopy(teacher.train())(x)  # by the batch; only the copy remembers it
        out = student.train()(x)
        student_sgd.zero_grad()
        (0.7 * F.cross_entropy(out.logits, y) + 0.3 * 9 * losses.kl(out.logits, target.logits, 3.0)
         + 0.03 * losses.l2_per_sample(projector(out.features), target.features)).backward()
        student_sgd.step()
    assert same(weights(recipe, toy), {f"student.{k}": v for k, v in student.state_dict().items()})
    assert same(weights(recipe, toy, "teacher"), {f"teacher.{k}": v for k, v in teacher.state_dict().items()})


def test_without_distillation_the_interval_changes_nothing(toy):
    """alpha = beta = 0: the student sees the same batches in the same order at the same rates, so it is the same at
    every interval, and it is the baseline."""
    expected = weights(baseline(BASE), toy)
    for interval in INTERVALS:
        assert same(weights(online_kd(BASE, interval=interval, alpha=0.0, beta=0.0), toy), expected)


def test_with_distillation_the_interval_changes_the_student_and_never_the_teacher(toy):
    students, teachers = zip(*[(weights(online_kd(BASE, interval=s), toy), weights(online_kd(BASE, interval=s), toy,
                                                                                   "teacher")) for s in INTERVALS])
    assert all(same(teachers[0], other) for other in teachers)
    assert not any(same(students[0], other) for other in students[1:])


def test_released_teacher_keeps_its_weights_but_not_its_statistics(toy):
    """Train-mode targets move the running statistics once more a batch (A13): updates 30, statistics 15 + 15."""
    state = {s: weights(preset(online_kd(BASE, interval=s), "released"), toy, "teacher") for s in (0.0, 1.0)}
    clean = weights(online_kd(BASE, interval=1.0), toy, "teacher")
    tracked = next(k for k in clean if k.endswith("num_batches_tracked"))
    assert (int(state[0.0][tracked]), int(state[1.0][tracked]), int(clean[tracked])) == (15, 30, 15)
    assert all(torch.equal(state[0.0][k], state[1.0][k]) for k in clean if k.endswith("weight"))


def test_a_replay_leaves_the_clean_teacher_alone(toy):
    recipe = online_kd(BASE, interval=1.0)
    method, batches = parts(recipe, toy)
    before = {k: v.clone() for k, v in method.teacher.state_dict().items()}
    sgd = optimizers(recipe, method)["learn"]
    for i in range(3):
        method.learn(*batches[i])["loss"].backward()
        sgd.step()
    assert same(before, method.teacher.state_dict())
    assert all(p.grad is None for p in method.teacher.parameters())


def test_offline_kd_is_one_interval_as_long_as_the_run(toy):
    events = [e for e in recipe_schedule(offline_kd(BASE), 5) if e.kind != "epoch"]
    assert [e.kind for e in events] == ["teach"] * 15 + ["learn"] * 15
    assert same(weights(offline_kd(BASE), toy), weights(online_kd(BASE, interval=3.0), toy))


def test_self_kd_updates(toy):
    """Clean: as many updates of teacher and exits at every interval. Released: almost twice the baseline's (A3)."""
    base = replace(BASE, model="resnet10")
    clean = [train(self_kd(base, interval=s), toy)[1] for s in (0.0, 1.5)]
    assert [(s["teacher_updates"], s["student_updates"]) for s in clean] == [(15, 15)] * 2
    released = [train(preset(self_kd(replace(base, augment="none"), interval=s), "released"), toy)[1]
                for s in (0.0, 1.0)]
    assert [(s["teacher_updates"], s["student_updates"]) for s in released] == [(0, 15), (12, 15)]


def test_clean_self_kd_teacher_step_leaves_idle_exits_alone(toy):
    recipe = self_kd(replace(BASE, model="resnet10"))
    method, batches = parts(recipe, toy)
    before = {k: v.clone() for k, v in method.net.state_dict().items()}
    sgd = optimizers(recipe, method)["teach"]
    method.teach(*batches[0])["loss"].backward()
    sgd.step()
    changed = {k.split(".")[0] for k, v in method.net.state_dict().items() if not torch.equal(before[k], v)}
    assert changed == {"trunk", "heads"}
    assert torch.equal(before["heads.0.weight"], method.net.state_dict()["heads.0.weight"])


def test_arms_of_one_seed_start_from_the_same_student():
    recipes = [baseline(BASE), online_kd(BASE), online_kd(BASE, interval=1.0, teacher_width=8)]
    made = [build.make(r, 3, 3, 8).modules["student"].state_dict() for r in recipes]
    assert same(made[0], made[1]) and same(made[0], made[2])
    wide = replace(BASE, model="resnet10")
    plain, exits = (build.make(r(wide), 3, 3, 8).modules["student"] for r in (baseline, self_kd))
    assert same(plain.trunk.state_dict(), exits.trunk.state_dict())
    other = build.make(replace(BASE, seed=1), 3, 3, 8).modules["student"].state_dict()
    assert not same(made[0], other)


SCRIPT = """
import sys, torch
torch.set_num_threads(1)
sys.path.insert(0, "tests")
from conftest import toy_dataset
from test_train import digest
print(digest(toy_dataset()))
"""


def digest(dataset):
    weights = train(online_kd(BASE, interval=1.5), dataset)[3]
    return hashlib.sha256(b"".join(v.contiguous().numpy().tobytes() for _, v in sorted(weights.items()))).hexdigest()


def test_two_processes_give_the_same_bits(toy, pytestconfig):
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=pytestconfig.rootpath, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == digest(toy)


def test_rows_and_summary(toy):
    """Numbers that can be counted by hand: updates, images, cost; accuracy within its range; headline = last row."""
    recipe = online_kd(replace(BASE, val_fraction=0.34), interval=1.0)
    rows, summary, provenance, *_ = train(recipe, toy)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert sum(row["student_updates"] for row in rows) == summary["student_updates"] == 9
    assert summary["test_accuracy"] == rows[-1]["test_accuracy"]
    assert summary["best_on_test_accuracy"] == max(row["test_accuracy"] for row in rows)
    best = max(rows, key=lambda row: row["val_accuracy"])
    assert summary["best_on_val_accuracy"] == best["test_accuracy"] and summary["best_on_val_epoch"] == best["epoch"]
    cost = build.make(recipe, 3, 3, 8).cost
    images = 3 * 24
    assert summary["train_gmacs"] == pytest.approx((cost["teach"] + cost["learn"]) * images / 1e9, rel=0.01)
    assert provenance["data_sha256"] == toy.sha256 and provenance["threads"] == 1


def test_what_an_update_of_a_picture_costs():
    """Three passes of what learns, one of what is asked, in multiply-accumulates."""
    small, large, deep = (macs(ResNet(model, 3, width=width), 3, 8) for model, width in (
        ("resnet8", 4), ("resnet8", 8), ("resnet10", 4)))
    exits, deeper = macs(MultiExitResNet("resnet10", 3, width=4), 3, 8) - deep, replace(BASE, model="resnet10")
    for recipe, teach, learn in (
            (baseline(BASE), None, 3 * small), (baseline(BASE, optimizer="sam"), None, 6 * small),
            (online_kd(BASE, teacher_width=8), 3 * large, 3 * small + large),
            (online_kd(BASE, teacher_width=8, zero_target="pre_update"), 3 * large, 3 * small),
            (online_kd(BASE, teacher_width=8, alpha=0.0, beta=0.0), 3 * large, 3 * small),
            (mutual(BASE, teacher_width=8), 3 * large + small, 3 * small + large),
            (past_self(BASE), None, 4 * small), (ema(BASE), 3 * small, None),
            (self_kd(deeper), 3 * deep, 3 * deep + 3 * exits),
            (self_kd(deeper, self_update="everything"), 3 * deep + exits, 3 * deep + 3 * exits)):
        cost = build.make(recipe, 3, 3, 8).cost
        assert (cost.get("teach"), cost.get("learn")) == (teach, learn), recipe.in_words()


def test_epochs_are_evaluated_as_often_as_asked_and_the_last_one_too(toy):
    assert ["test_accuracy" in row for row in train(replace(BASE, eval_every=2), toy)[0]] == [False, True, True]


@pytest.mark.parametrize("recipe, who, remedy", [
    (replace(BASE, lr=1e18), "student", "lr"), (online_kd(replace(BASE, lr=1e18), teacher_lr=0.05), "student", "lr"),
    (online_kd(BASE, teacher_lr=1e18, interval=1.0), "teacher", "teacher_lr")])
def test_a_diverged_run_is_refused_by_name(toy, recipe, who, remedy):
    with pytest.raises(InputError, match=f"not a number below 1e\\+06 any more at the {who}'s update on batch [0-4], "
                                         f"epoch 1: lower {remedy} = 1e\\+18"):
        train(recipe, toy)


def test_provenance_tells_when_a_run_ended_and_how_long_it_took(toy, monkeypatch):
    monkeypatch.setattr(checkpoints.Checkpointer, "seconds", lambda self: 12.3456)
    origin = train(replace(BASE, epochs=1), toy)[2]
    assert (origin["seconds"], origin["runs_in_sweep"], origin["seeds_together"]) == (12.35, 1, 1)
    assert 0 <= time.time() - datetime.fromisoformat(origin["finished"]).timestamp() < 60


def test_learning_rate():
    cosine, constant = online_kd(BASE), replace(BASE, lr_schedule="constant")
    assert learning_rate(cosine, 0, 100) == BASE.lr and learning_rate(cosine, 50, 100) == pytest.approx(BASE.lr / 2)
    assert {learning_rate(constant, i, 100) for i in range(100)} == {BASE.lr}
    late = [learning_rate(replace(BASE, lr_schedule="late_steps"), i, 80) / BASE.lr for i in (0, 49, 50, 59, 60, 69, 70)]
    assert late == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01, 0.001])


@pytest.mark.parametrize("clock", ["own", "teacher"])
def test_a_teacher_may_have_a_rate_of_its_own(toy, clock):
    """It is then the baseline of that rate, and the student keeps its own."""
    pair = spaced(online_kd(BASE, teacher_lr=0.2, student_clock=clock), 1.5)
    alone = teacher_of(pair)
    assert alone == baseline(BASE, start="teacher", lr=0.2) == teacher_of(replace(pair, lr=0.1))
    taught = {name.replace("student.", "teacher."): value for name, value in weights(alone, toy).items()}
    assert same(weights(pair, toy, "teacher"), taught)
    assert same(weights(replace(pair, alpha=0.0, beta=0.0), toy),
                weights(replace(pair, alpha=0.0, beta=0.0, teacher_lr=0.0), toy))


def test_labels_are_smoothed_beside_a_teacher_too(toy):
    smoothed = replace(BASE, label_smoothing=0.2)
    pair = online_kd(smoothed, alpha=0.0, beta=0.0)
    assert same(weights(pair, toy), weights(smoothed, toy)) and not same(weights(pair, toy), weights(BASE, toy))
    assert teacher_of(pair).label_smoothing == 0.2


@pytest.mark.parametrize("optimizer", ["sgd", "sam"])
def test_an_update_is_clipped_to_a_norm(toy, optimizer):
    one = replace(BASE, optimizer=optimizer, weight_decay=0.0, momentum=0.0)
    def moved(clip):
        run = Run(replace(one, clip_norm=clip), parts(one, toy)[0])
        before = [p.detach().clone() for p in run.method.student.parameters()]
        run.step("learn", *parts(one, toy)[1][0], rate=0.05)
        return torch.cat([(p - b).flatten() for p, b in zip(run.method.student.parameters(), before)]).norm().item()
    assert teacher_of(ie_kd(replace(BASE, clip_norm=1.0))) is None  # its paraphraser is in the norm
    assert moved(0.01) == pytest.approx(0.05 * 0.01, rel=1e-3) and moved(1e9) == moved(0.0) > 0.05 * 0.1


def test_terms_are_counted_once(toy):
    """The mean of the logged student losses over an epoch is the mean over its updates."""
    recipe, seen = online_kd(replace(BASE, epochs=1)), []
    method, batches = parts(recipe, toy)
    run = Run(recipe, method)
    for event, _, terms in walk([run], batches, lambda runs: [{}]):
        if terms:
            seen.append((event.kind, terms["loss"].item()))
    row, = run.rows
    learned = [loss for kind, loss in seen if kind == "learn"]
    assert row["student_loss"] == pytest.approx(sum(learned) / len(learned), rel=1e-6)


def test_a_row_holds_means_over_updates_and_percent_of_images():
    metrics = EpochMetrics()
    for batch, (loss, correct, images) in enumerate([(1.0, 3, 4), (3.0, 0, 2)]):
        metrics.add("learn", batch, {"loss": torch.tensor(loss), "correct": torch.tensor(correct)}, images)
    row = metrics.row()
    assert (row["student_loss"], row["student_train_accuracy"], row["student_updates"]) == (2.0, 50.0, 2)
