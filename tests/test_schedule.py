"""The schedule against the released programs' counters, and its properties over all small cases."""

import itertools
import json
from pathlib import Path

import pytest

from spacedkd_lib.errors import InputError
from spacedkd_lib.methods import build
from spacedkd_lib.recipes import Recipe, behind, online_kd, preset, self_kd
from spacedkd_lib.schedule import LENGTHS, counts, interval_batches, leads, spaced_schedule

STEP_COUNTS = json.loads((Path(__file__).parent / "fixtures/step_counts.json").read_text())


@pytest.fixture(autouse=True)
def growing(monkeypatch):
    """A rule as a user registers it."""
    monkeypatch.setitem(LENGTHS, "growing", lambda length, total, seed: iter(range(1, 4)))


def _cases(key):
    return [pytest.param(row, id=f"L{row['L']}-E{row['E']}-s{row['s']}") for row in STEP_COUNTS[key]]


@pytest.mark.parametrize("row", _cases("online_as_released"))
def test_released_online_counters(row):
    got = counts(spaced_schedule(row["E"], row["L"], row["s"], tail="drop"))
    assert interval_batches(row["L"], row["s"]) == row["interval_batches"]
    assert got[:4] == (row["teacher_steps"], row["student_steps"], row["never_distilled"], row["blocks"])


@pytest.mark.parametrize("counter, key", [("epoch_early", "self_as_released"), ("one", "self_counter_from_one")])
def test_released_self_counters(counter, key):
    for row in STEP_COUNTS[key]:
        got = counts(spaced_schedule(row["E"], row["L"], row["s"], tail="drop", counter=counter, teach_last=False))
        assert got == (row["ce_only_updates"], row["kd_updates"], row["never_distilled"], row["blocks"],
                       row["first_trigger_batch"]), row


SMALL = list(itertools.product((1, 2, 3, 4), (1, 2, 3, 5, 8), (0, 0.3, 0.5, 1, 1.5, 2, 3, 4),
                               ("fixed", "growing", "constant")))
SMALL = [case for case in SMALL if case[2] <= case[0]]


def test_every_batch_is_taught_once_and_learned_once_in_order():
    for epochs, length, interval, rule in SMALL:
        events = list(spaced_schedule(epochs, length, interval, rule=rule))
        order = list(range(epochs * length))
        assert [e.index for e in events if e.kind == "teach"] == order
        assert [e.index for e in events if e.kind == "learn"] == order
        assert [e.index for e in events if e.kind == "epoch"] == list(range(1, epochs + 1))
        assert events[-1].kind == "epoch"
        blocks = [e.block for e in events if e.kind == "learn"]
        assert blocks == sorted(blocks) and set(blocks) == set(range(blocks[-1] + 1))


def test_the_student_never_learns_what_was_not_taught_and_an_epoch_ends_after_its_replay():
    for epochs, length, interval, rule in SMALL:
        taught = learned = 0
        for kind, index, _ in spaced_schedule(epochs, length, interval, rule=rule):
            if kind == "teach":
                taught = index + 1
            elif kind == "learn":
                assert index < taught
                learned = index + 1
            else:
                assert taught == index * length
        assert learned == epochs * length


def test_dropped_tail_is_a_prefix_of_the_replayed_one():
    for epochs, length, interval, rule in SMALL:
        kept = [e for e in spaced_schedule(epochs, length, interval, rule=rule) if e.kind != "epoch"]
        dropped = [e for e in spaced_schedule(epochs, length, interval, rule=rule, tail="drop") if e.kind != "epoch"]
        assert kept[:len(dropped)] == dropped
        assert all(e.kind == "learn" for e in kept[len(dropped):])


@pytest.mark.parametrize("block", [0, -1, 1.5, 2.0])
def test_a_block_of_ones_own_that_is_no_whole_number_is_refused(monkeypatch, block):
    monkeypatch.setitem(LENGTHS, "growing", lambda length, total, seed: iter([block]))
    with pytest.raises(InputError, match=f"A block of the rule growing = {block}"):
        list(spaced_schedule(1, 4, 1, rule="growing"))


@pytest.mark.parametrize("epochs, interval, learned", [
    (4, 2, [*range(7), *range(6, 13)]), (4, 1.5, list(range(12))), (5, 2, [*range(7), *range(6, 13), 12, 13, 14])])
def test_one_more_update_follows_a_replay_of_whole_epochs_if_asked_for(epochs, interval, learned):
    events = list(spaced_schedule(epochs, 3, interval, extra_step=True))  # V10
    assert [e.index for e in events if e.kind == "learn"] == learned


@pytest.mark.parametrize("interval, kinds", [(1, "teach forward learn learn epoch"), (0, "learn learn epoch")])
def test_a_teacher_that_skips_a_replays_last_batch_still_sees_it(interval, kinds):
    assert [e.kind for e in spaced_schedule(1, 2, interval, teach_last=False)] == kinds.split()  # A3, A4


def test_a_rule_gets_the_seed_and_seed_0_is_the_default(monkeypatch):
    monkeypatch.setitem(LENGTHS, "growing", lambda length, total, seed: iter([2 + seed]))
    made = [list(spaced_schedule(2, 4, 1, rule="growing", **seed)) for seed in ({}, {"seed": 0}, {"seed": 1})]
    assert made[0] == made[1] != made[2]


@pytest.mark.parametrize("derive", (lambda s: online_kd(Recipe(), interval=s), lambda s: behind(online_kd(Recipe()), s),
                                    lambda s: preset(self_kd(Recipe(), interval=s), "released")))
def test_an_interval_of_exactly_one_batch_is_one(derive):
    """Though 49 * (1 / 49) is below 1."""
    exact, more = (list(build.recipe_schedule(derive(batches / 49), 49)) for batches in (1, 1.5))
    assert exact == more


def test_lead_is_a_sawtooth_of_mean_half_the_interval():
    lead = leads(spaced_schedule(epochs=12, batches_per_epoch=10, interval=1.5))
    assert lead == list(range(15, 0, -1)) * 8
    assert set(leads(spaced_schedule(3, 10, 0))) == {1}


@pytest.mark.parametrize("change, message", [
    (dict(interval=-3), "interval = -3"), (dict(interval=float("nan")), "interval = nan"),
    (dict(interval=99), "up to the number of epochs"), (dict(epochs=0), "0 epochs"),
    (dict(rule="constnt"), 'did you mean "constant"'), (dict(rule="growing", interval=-1), "blocks of a fixed length"),
    (dict(tail="dropped"), 'did you mean "drop"'),
])
def test_bad_schedules(change, message):
    with pytest.raises(InputError, match=message):
        spaced_schedule(**{"epochs": 2, "batches_per_epoch": 2, "interval": 1} | change)
