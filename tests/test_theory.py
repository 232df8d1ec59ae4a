"""The model of notebook 08: closed forms against impulse responses and simulation."""

from dataclasses import replace

import numpy as np
import pytest

from spacedkd_lib.analysis.theory import (
    Regression, constant_lead_variance, excess_risk, lead_lag, moments, sgd_variance, simulate, stationary,
)
from spacedkd_lib.errors import InputError
from spacedkd_lib.schedule import spaced_schedule

LR, ALPHA = 0.2, 0.3
PROBLEM = Regression(curvature=(4.0, 1.0, 0.3), noise=1.5, batch_size=4)  # eta lambda: 0.8, 0.2, 0.06


def _events(batches, interval, **options):
    return [e for e in spaced_schedule(1, batches, interval / batches, **options) if e.kind != "epoch"]


def _asked_before(batches):
    return [(kind, i) for i in range(batches) for kind in ("learn", "teach")]


def _second_moments(problem, rates, alpha, events, start=0.0, fresh=False):
    """(E[w^2], E[w theta], E[theta^2]) by brute force: how student and teacher respond to each noise and each initial
    weight, one event after the other."""
    count, found = len(rates), []
    for curvature in problem.curvature:
        kick = np.sqrt(problem.noise ** 2 * curvature / problem.batch_size)
        student, teacher = start * np.eye(2, 2 + 2 * count)
        for kind, index, *_ in events:
            noise = np.zeros(2 + 2 * count)
            noise[2 + index + count * (fresh and kind == "learn")] = kick * rates[index]
            pull = rates[index] * curvature
            if kind == "teach":
                teacher = (1 - pull) * teacher + noise
            else:
                student = (1 - pull) * student + (1 - alpha) * noise + alpha * pull * teacher
        found.append((student @ student, student @ teacher, teacher @ teacher))
    return np.array(found).T


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("interval", [1, 2, 7, 40, -1, -2, -7, -40])
def test_at_rest_the_spaced_student_has_the_variance_of_its_impulse_responses(interval, fresh):
    rates, events = np.full(560, LR), _events(560, interval)
    student, cross, teacher = _second_moments(PROBLEM, rates, ALPHA, events, fresh=fresh)
    np.testing.assert_allclose(sgd_variance(PROBLEM, LR), teacher, rtol=1e-9)
    np.testing.assert_allclose(stationary(PROBLEM, LR, ALPHA, interval, fresh), (student, cross, teacher), rtol=1e-9)


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("lead", [0, 1, 2, 9, 60, -1, -9, -60])
def test_a_constant_lead_too(lead, fresh):
    events = _events(400, lead, rule="constant", tail="drop") if lead else _asked_before(400)
    if lead < 0:
        events = events[:len(events) + lead]  # at the end the teacher catches up: the student is not asked then
    student = _second_moments(PROBLEM, np.full(400, LR), ALPHA, events, fresh=fresh)[0]
    np.testing.assert_allclose(constant_lead_variance(PROBLEM, LR, ALPHA, lead, fresh), student, rtol=1e-9)


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("interval", [1, 8, 30, -8, -30])
def test_a_training_with_a_decaying_rate_and_a_partial_last_interval(interval, fresh):
    rates = LR * np.cos(np.linspace(0, np.pi / 2, 45))
    whole = _second_moments(PROBLEM, rates, ALPHA, _events(45, interval), start=0.7, fresh=fresh)
    found = moments(PROBLEM, rates, ALPHA, interval, start=0.7, fresh=fresh)
    np.testing.assert_allclose([part[-1] for part in found], whole, rtol=1e-9)
    assert len(found.student) == 1 + -(-45 // abs(interval))
    bias = moments(replace(PROBLEM, noise=0.0), rates, ALPHA, interval, start=0.7, fresh=fresh)
    variance = moments(PROBLEM, rates, ALPHA, interval, fresh=fresh)
    np.testing.assert_allclose(bias.student + variance.student, found.student, rtol=1e-12)


def _in_standard_errors(weights, second_moment):
    """How far the mean square over repeats lies from a predicted one, [d]."""
    squares = weights ** 2
    return (squares.mean(0) - second_moment) / (squares.std(0) / np.sqrt(len(squares)))


def _last(*args, **options):
    *_, (_, student, teacher) = simulate(*args, **options)
    return student, teacher


@pytest.mark.parametrize("rates, alpha, start", [([LR] * 90, ALPHA, 0.0), ([0.4, 0.3, 0.2, 0.1] * 2, 0.9, 2.0)])
@pytest.mark.parametrize("interval, fresh", [(1, False), (6, False), (6, True), (-6, False), (-6, True)])
def test_simulation_agrees_within_its_error(rates, alpha, start, interval, fresh):
    student, teacher = _last(PROBLEM, rates, alpha, _events(len(rates), interval), 8000, seed=1, start=start,
                             fresh=fresh)
    wanted = moments(PROBLEM, rates, alpha, interval, start, fresh)
    assert np.abs(_in_standard_errors(student, wanted.student[-1])).max() < 3.5
    assert np.abs(_in_standard_errors(teacher, wanted.teacher[-1])).max() < 3.5
    products = student * teacher
    error = products.std(0) / np.sqrt(len(products))
    assert np.abs((products.mean(0) - wanted.cross[-1]) / error).max() < 3.5


def test_a_simulated_replay_sees_the_same_batches():
    """Without a teacher's word every interval gives the same student, bit for bit; fresh batches give another."""
    problem = Regression((1.0, 0.3))
    online, spaced = (_last(problem, [0.1] * 12, 0.0, _events(12, s), 5, seed=0)[0] for s in (1, 4))
    assert np.array_equal(online, spaced)
    again, fresh = (_last(problem, [0.1] * 12, 0.0, _events(12, 4), 5, seed=0, fresh=f)[0] for f in (False, True))
    assert np.array_equal(again, spaced) and not np.isclose(fresh, spaced).any()


def test_limits():
    rest = sgd_variance(PROBLEM, LR)
    step = 1 - LR * np.array(PROBLEM.curvature)
    np.testing.assert_allclose(rest, LR * 1.5 ** 2 / 4 / (1 + step), rtol=1e-12)
    for interval in (1, 9):
        np.testing.assert_allclose(stationary(PROBLEM, LR, 0.0, interval).student, rest)  # labels alone
    imitation = (1 + step ** 2) / (1 + step) ** 2
    np.testing.assert_allclose(stationary(PROBLEM, LR, 1.0, 1).student, rest * imitation)
    np.testing.assert_allclose(stationary(PROBLEM, LR, ALPHA, 2000).student, rest)  # it becomes the teacher
    np.testing.assert_allclose(stationary(PROBLEM, LR, ALPHA, 2000, fresh=True).student, rest * (0.7 ** 2 + 0.3 ** 2))
    far = rest * (0.7 ** 2 + 0.3 ** 2 * imitation)
    np.testing.assert_allclose(constant_lead_variance(PROBLEM, LR, ALPHA, 2000), far)


def test_online_kd_averages_noise_in_flat_directions_and_amplifies_it_in_sharp_ones():
    for curvature, sign in ((0.5, -1), (1.0, 0), (1.5, 1)):
        problem = Regression((curvature,))
        change = stationary(problem, 1.0, ALPHA, 1).student - sgd_variance(problem, 1.0)
        assert np.sign(change.round(12)) == sign
        assert np.abs(stationary(problem, 1.0, ALPHA, 4).student - sgd_variance(problem, 1.0)) <= np.abs(change)
        assert constant_lead_variance(problem, 1.0, ALPHA, 0) < stationary(problem, 1.0, ALPHA, 1).student


def test_the_worst_constant_lead_is_half_the_teachers_memory():
    problem = Regression((0.01,))
    variances = [constant_lead_variance(problem, 1.0, ALPHA, lead)[0] for lead in range(200)]
    assert abs(np.argmax(variances) - 50) <= 1
    assert variances[100] > variances[1] > variances[130]


def test_behind_the_student_varies_less_than_online_and_ahead_more():
    """At rest, with small steps: what another teacher would give is the least."""
    small = Regression((1.0, 0.5))
    for block in (20, 60):
        behind, online, ahead = lead_lag(small, 0.02, ALPHA, [-block, 0, block])
        other, moving = (lead_lag(small, 0.02, ALPHA, [-block, block], **kind) for kind in (dict(fresh=True),
                                                                                             dict(moving=True)))
        assert (behind < online).all() and (online < ahead).all() and (other[1] < behind).all()
        np.testing.assert_allclose(other[0], other[1])  # a teacher that shares no noise has no direction in time
        assert (moving[0] < behind).all()  # a whole block behind, not half a block in the mean


def test_excess_risk_is_the_mean_loss_above_the_optimum():
    rng = np.random.default_rng(0)
    w, x = rng.standard_normal((4, 3)), np.sqrt(PROBLEM.curvature) * rng.standard_normal((200_000, 3))
    np.testing.assert_allclose(excess_risk(PROBLEM, w ** 2), ((x @ w.T) ** 2).mean(0) / 2, rtol=0.02)


@pytest.mark.parametrize("attempt, words", [
    (lambda: sgd_variance(PROBLEM, 0.5), "less than 2"),
    (lambda: sgd_variance(PROBLEM, 0.0), "does not train"),
    (lambda: stationary(PROBLEM, LR, 1.1, 1), "alpha = 1.1"),
    (lambda: stationary(PROBLEM, LR, ALPHA, 0), "interval = 0"),
    (lambda: moments(PROBLEM, [0.1], ALPHA, 0), "interval = 0"),
    (lambda: next(simulate(PROBLEM, [0.5] * 4, ALPHA, _events(4, 2), 1, seed=0)), "less than 2"),
])
def test_bad_input_is_refused_before_any_work(attempt, words):
    with pytest.raises(InputError, match=words):
        attempt()
