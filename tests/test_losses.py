"""Losses against values and gradients recorded from the released programs, and against their meaning."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from spacedkd_lib.methods import losses

CASES = json.loads((Path(__file__).parent / "fixtures/losses.json").read_text())
LOGITS = {
    "online_soft_as_released": losses.probability_kl,
    "kl_batchmean_no_T2": losses.kl,
    "kl_batchmean_T2": lambda s, t, T: T**2 * losses.kl(s, t, T),
    "self_soft_cross_entropy": losses.soft_cross_entropy,
    "vit_kl_numel_T2": lambda s, t, T: T**2 * losses.kl_per_class(s, t, T),
    "dml_kl": lambda s, t, T: losses.kl(s, t, 1.0),
}
MAPS = {
    "iekd_inheritance_lp_p1": losses.factor_distance,
    "iekd_exploration_neg_lp_p1": lambda s, t: -losses.factor_distance(s, t),
    "iekd_reconstruction_l1": losses.reconstruction_l1,
}


def _tensor(case, key, requires_grad=False):
    return torch.tensor(case[key], dtype=torch.float64, requires_grad=requires_grad)


def _check(loss, inputs, expected):
    gradients = torch.autograd.grad(loss, inputs)
    assert loss.item() == pytest.approx(expected["loss"], abs=1e-10)
    assert len(gradients) == len(expected["grad"])
    for got, want in zip(gradients, expected["grad"]):
        assert torch.allclose(got.flatten(), torch.tensor(want, dtype=torch.float64), rtol=0, atol=1e-10)


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"B{c['B']}-K{c['C']}")
def test_every_recorded_loss(case):
    student, teacher = _tensor(case, "student_logits", True), _tensor(case, "teacher_logits")
    for name, loss in LOGITS.items():
        _check(loss(student, teacher, case["T"]), [student], case["expected"][name])

    features, targets = _tensor(case, "student_features", True), _tensor(case, "teacher_features")
    _check(losses.batch_frobenius(features, targets), [features], case["expected"]["feature_batch_frobenius"])

    total = (0.7 * F.cross_entropy(student, torch.tensor(case["labels"]))
             + 0.3 * losses.probability_kl(student, teacher, case["T"])
             + 0.03 * losses.batch_frobenius(features, targets))
    _check(total, [student, features], case["expected"]["online_student_total_as_released_a0.3_b0.03"])

    maps, target_maps = _tensor(case, "student_map_BCHW", True), _tensor(case, "teacher_map_BCHW")
    for name, loss in MAPS.items():
        _check(loss(maps, target_maps), [maps], case["expected"][name])
    cka = losses.linear_cka(maps.detach(), target_maps).item()
    assert cka == pytest.approx(case["expected"]["linear_cka"]["value"], abs=1e-10)

    covered = {*LOGITS, *MAPS, "feature_batch_frobenius", "linear_cka", "online_student_total_as_released_a0.3_b0.03"}
    assert covered == set(case["expected"])  # a loss added to the fixture must be tested


def test_kl_is_zero_at_the_teacher_and_positive_elsewhere():
    teacher = torch.randn(6, 5, dtype=torch.float64)
    assert losses.kl(teacher, teacher).item() == pytest.approx(0, abs=1e-15)
    assert losses.kl(teacher + torch.randn_like(teacher), teacher) > 0


def test_probability_kl_is_linear_in_the_students_probabilities():
    """Its gradient is -p (q - <q, p>) / (T B), the closed form of the audit; at the teacher it is not zero."""
    student = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(4, 5, dtype=torch.float64)
    p, q = F.softmax(student / 3, 1), F.softmax(teacher / 3, 1)
    gradient, = torch.autograd.grad(losses.probability_kl(student, teacher), student)
    expected = -p * (q - (q * p).sum(1, keepdim=True)) / (3 * 4)
    assert torch.allclose(gradient, expected, atol=1e-15)


def test_targets_receive_no_gradient():
    for loss in (*losses.SOFT.values(), *losses.FEATURE.values()):
        student, teacher = torch.randn(3, 4, requires_grad=True), torch.randn(3, 4, requires_grad=True)
        loss(student, teacher).backward()
        assert student.grad is not None and teacher.grad is None


def test_a_shuffled_teacher_speaks_of_the_next_picture():
    student, teacher = torch.randn(2, 4, 5, dtype=torch.float64)
    assert losses.kl_shuffled(student, teacher) == losses.kl(student, torch.stack([teacher[k] for k in (1, 2, 3, 0)]))


def test_per_sample_feature_loss_is_a_mean_distance():
    student, teacher = torch.tensor([[3.0, 0.0], [1.0, 1.0]]), torch.tensor([[0.0, 4.0], [1.0, 1.0]])
    assert losses.l2_per_sample(student, teacher) == 2.5


def test_per_sample_feature_loss_does_not_grow_with_the_batch():
    x = torch.randn(8, 16, dtype=torch.float64)
    zeros = torch.zeros_like(x)
    twice = losses.l2_per_sample(x.repeat(2, 1), zeros.repeat(2, 1))
    assert twice.item() == pytest.approx(losses.l2_per_sample(x, zeros).item())
    assert losses.batch_frobenius(x.repeat(2, 1), zeros.repeat(2, 1)) > 1.4 * losses.batch_frobenius(x, zeros)
