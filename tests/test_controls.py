"""The controls: what each of them changes, and what it leaves alone."""

from dataclasses import replace

import pytest
import torch

from spacedkd_lib.data.batches import Batches
from spacedkd_lib.errors import InputError
from spacedkd_lib.methods import losses
from spacedkd_lib.recipes import Recipe, online_kd, self_kd
from spacedkd_lib.schedule import counts, leads, spaced_schedule

BASE = Recipe(dataset="toy", model="resnet8", width=4, epochs=3, batch_size=8, lr=0.05, augment="crop_flip")
CONTROLS = {
    "constant lead": dict(rule="constant"),
    "fresh batch": dict(replay="fresh_batch"),
    "shuffled": dict(soft_loss="kl_shuffled")}


def test_a_constant_lead_is_constant():
    events = list(spaced_schedule(4, 5, 1.5, rule="constant"))
    assert leads(events) == [7] * 14 + [6, 5, 4, 3, 2, 1]  # int(5 * 1.5), until the teacher has come to its end
    assert counts(events)[:3] == (20, 20, 0)
    assert all(e.block == (5 * e.index - 1 if e.kind == "epoch" else e.index) for e in events)
    assert [e.index for e in events if e.kind == "learn"] == list(range(20))
    assert counts(spaced_schedule(4, 5, 1.5, rule="constant", tail="drop"))[:3] == (20, 14, 6)
    assert [e[:2] for e in spaced_schedule(2, 3, 0, rule="constant")] == [e[:2] for e in spaced_schedule(2, 3, 0)]
    assert counts(spaced_schedule(2, 3, 2, rule="constant"))[:3] == (6, 6, 0)


def test_fresh_batches():
    images = torch.arange(64, dtype=torch.uint8).view(16, 1, 2, 2).repeat(1, 1, 4, 4)
    batches = Batches(images, torch.arange(16), 4, seed=0, augment="crop_flip")
    other = batches.fresh()
    (x, y), (fresh, again) = ([torch.cat(part) for part in zip(*(of[i] for i in range(4)))] for of in (batches, other))
    assert not torch.equal(y, again) and again.sort().values.tolist() == list(range(16))
    assert not torch.equal(x[y.argsort()], fresh[again.argsort()])  # the same pictures, augmented anew
    assert torch.equal(other[5][0], Batches(images, torch.arange(16), 4, 0, "crop_flip").fresh()[5][0])


def test_a_shuffled_teacher_speaks_of_the_next_picture():
    student, teacher = torch.randn(3, 5), torch.randn(3, 5)
    assert torch.equal(losses.kl_shuffled(student, teacher), losses.kl(student, teacher[[1, 2, 0]]))


@pytest.mark.parametrize("make, message", [
    (lambda: self_kd(replace(BASE, model="resnet10"), rule="constant", self_update="everything"), "on every batch"),
    (lambda: online_kd(BASE, replay="fresh_batch", zero_target="pre_update"), 'set zero_target = "post_update"'),
])
def test_controls_that_contradict_themselves(make, message):
    with pytest.raises(InputError, match=message):
        make()
