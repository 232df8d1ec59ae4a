"""Scores in closed form, and a network left as it was found."""

import math

import pytest
import torch

from spacedkd_lib.models.scoring import eval_mode, scores


def test_scores_of_known_logits():
    p = 0.8
    logits = torch.log(torch.tensor([[p, 1 - p]] * 10))
    labels = torch.tensor([0] * 6 + [1] * 4)
    got = scores(logits, labels)
    assert got["accuracy"] == pytest.approx(60)
    assert got["nll"] == pytest.approx(-(6 * math.log(p) + 4 * math.log(1 - p)) / 10, rel=1e-6)
    assert got["ece"] == pytest.approx(20, rel=1e-5)  # confidence 0.8, accuracy 0.6


def test_full_confidence_falls_into_the_last_bin():
    assert scores(torch.tensor([[100.0, 0.0]] * 2), torch.tensor([0, 1]))["ece"] == pytest.approx(50)


def test_perfect_calibration_over_two_bins():
    logits = torch.log(torch.tensor([[0.9, 0.1]] * 10 + [[0.4, 0.6]] * 10))
    labels = torch.tensor([0] * 9 + [1] + [1] * 6 + [0] * 4)
    assert scores(logits, labels)["ece"] == pytest.approx(0, abs=1e-5)


def test_modes_and_gradients_are_restored():
    net = torch.nn.Sequential(torch.nn.BatchNorm1d(2), torch.nn.Dropout(), torch.nn.Linear(2, 2)).train()
    net[1].eval()
    mean = net[0].running_mean.clone()
    with eval_mode(net):
        assert not net[0].training
        assert not net(torch.randn(4, 2)).requires_grad
    assert net[0].training and not net[1].training and torch.equal(mean, net[0].running_mean)
    with pytest.raises(RuntimeError), eval_mode(net):
        raise RuntimeError
    assert net[0].training
