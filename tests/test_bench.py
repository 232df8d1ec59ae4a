"""The benchmark measures what it says: equal work on both sides, the right ratio, the right bytes.

No time is asserted.
"""

import json
import random

import numpy as np
import pandas as pd
import pytest
import torch

from spacedkd_lib.bench import __main__ as command, analysis, memory, plain, speed
from spacedkd_lib.bench.work import FULL, QUICK, pictures
from spacedkd_lib.data.batches import STATISTICS, Batches
from spacedkd_lib.schedule import spaced_schedule
from spacedkd_lib.store import records
from spacedkd_lib.training import train


class EngineBatches:
    """The engine's batches as a loader of the plain way: each pass is the next epoch."""

    def __init__(self, dataset, recipe):
        self.batches, self.epoch = Batches(dataset.train_images, dataset.train_labels, recipe.batch_size, recipe.seed,
                                           recipe.augment, STATISTICS[recipe.normalise]), 0

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        first, self.epoch = self.epoch * len(self), self.epoch + 1
        return (self.batches[i] for i in range(first, first + len(self)))


@pytest.mark.parametrize("recipe", speed.sweep_recipes(QUICK, "fp32"), ids=lambda r: f"{r.method}-{r.interval:g}")
def test_both_sides_train_the_same_networks_on_the_same_batches(recipe):
    """Not only as many updates of the same shapes: the plain way, given the engine's batches, ends in its weights."""
    dataset = pictures(2 * QUICK.small_batch)
    nets = plain.plain_train(recipe, dataset, EngineBatches(dataset, recipe))
    got = {f"{name}.{key}": value for name, net in nets.items() for key, value in net.state_dict().items()}
    _, summary, _, expected, _ = train.train(recipe, dataset, "cpu")
    assert got.keys() == expected.keys()
    for key in expected:
        torch.testing.assert_close(got[key], expected[key], rtol=1e-3, atol=1e-4)
    assert int(got["student.trunk.stem.1.num_batches_tracked"]) == summary["student_updates"] == 4


@pytest.mark.parametrize("interval", [0.0, 0.4, 1.0, 1.5, 3.0])
def test_the_plain_schedule_is_the_engines(interval):
    done, loader = [], NumberedBatches(5)
    plain.plain_schedule(loader, 3, interval, lambda i: done.append(("teach", i)), lambda i: done.append(("learn", i)))
    assert done == [(e.kind, e.index) for e in spaced_schedule(3, 5, interval) if e.kind != "epoch"]


class NumberedBatches:
    def __init__(self, length):
        self.length, self.next = length, 0

    def __len__(self):
        return self.length

    def __iter__(self):
        self.next += self.length
        return iter([(i,) for i in range(self.next - self.length, self.next)])


@pytest.mark.parametrize("augment", ["crop_flip_rotate", "autoaugment_cutout", "strong"])
def test_both_sides_augment_alike(augment):
    """Same mean and deviation of the pixels over many pictures: the same operations, in the same units."""
    case = speed.augment_case(FULL, augment)
    with torch.random.fork_rng():
        torch.manual_seed(0), random.seed(0), np.random.seed(0)  # of the plain way; timm's draws are the latter's
        engine, pil = (torch.cat([x for x, _ in side()]) for side in reversed(case.sides.values()))
    assert engine.shape == pil.shape == (4 * FULL.batch, 3, 32, 32)
    torch.testing.assert_close(engine.mean(), pil.mean(), rtol=0, atol=0.05)
    torch.testing.assert_close(engine.std(), pil.std(), rtol=0, atol=0.05)


def test_sides_take_turns_and_the_ratio_is_that_of_the_medians():
    called, fake = [], iter([9.0, 2.0, 6.0, 3.0, 100.0, 1.0])  # slow, fast, slow, fast, ...
    case = speed.Case("work", "setting", {side: lambda side=side: called.append(side) for side in ("slow", "fast")},
                      [("fast", "slow")], 3, units=2)
    times = speed.measure(case, lambda work: work() or next(fake))
    assert called == ["slow", "fast"] * 4  # once to warm up
    assert times == {"slow": [4.5, 3.0, 50.0], "fast": [1.0, 1.5, 0.5]}
    line, = speed.ratios(case, times)
    assert (line["Against (ms)"], line["Way (ms)"], line["Times faster"], line["Repeats"]) == (4500.0, 1000.0, 4.5, 3)


@pytest.mark.parametrize("native", [True, False])
def test_bf16_is_measured_small_where_the_processor_imitates_it(native, monkeypatch):
    monkeypatch.setattr(speed, "bf16_is_native", lambda: native)
    cases = list(speed.speed_cases(QUICK))
    faster = [side for case in cases for side, _ in case.pairs]
    assert faster.count("engine, fp32") == faster.count("engine, bf16") == 1
    assert {"lockstep, fp32", "lockstep, bf16"} < set(faster)
    assert len(cases) == (5 if native else 7)


def test_held_bytes_counts_each_storage_once():
    a, b = torch.zeros(10, 3), torch.zeros(7, dtype=torch.int64)
    assert memory.held_bytes([a, b]) == 10 * 3 * 4 + 7 * 8
    assert memory.held_bytes([a, a[2:5], a.T]) == 10 * 3 * 4  # views hold the whole storage


def test_live_bytes_sees_a_tensor_wherever_it_is_kept():
    before = memory.live_bytes()
    kept = {"deep": [torch.zeros(1000)]}
    assert memory.live_bytes() - before == 4000
    del kept
    assert memory.live_bytes() == before


def test_what_a_replay_holds():
    """Stored: every image as float32 and its label. Made again: one batch and the order of the epochs."""
    stored = memory.hold_plain(QUICK, 0.5)
    assert stored == 10 * 8 * (3 * 32 * 32 * 4 + 8)  # 10 batches of 8
    memory.hold_engine(QUICK, 0.05)  # the first batch of a process leaves its statistics on the device
    again = memory.hold_engine(QUICK, 0.5)
    assert again == 8 * (3 * 32 * 32 * 4 + 8) + 160 * 8


def test_a_table_is_kept_with_its_sources(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(records, "ROOT", tmp_path)
    origin = command.provenance()
    command.keep("speed", "smoke", pd.DataFrame([{"Work": "w", "Ratio": 1.25}]), {"times": [1]}, origin, "A note.")
    folder = tmp_path / "results" / "smoke"
    shown = capsys.readouterr().out
    assert "1.25" in shown and "A note." in shown and f"torch {torch.__version__.split('+')[0]}" in shown
    assert f"{torch.get_num_threads()} thread" in shown and origin["finished"][:10] in shown
    assert json.loads((folder / "speed.json").read_text())["times"] == [1]
    assert pd.read_csv(folder / "speed.csv")["Ratio"].tolist() == [1.25]


def test_a_case_that_is_measured_has_every_row():
    table, raw = speed.compared([speed.interval_case(QUICK, ("fp32", "bf16"))])
    assert len(table) == 2 and table["Times faster"].gt(0).all()
    assert [list(entry["seconds"]) for entry in raw["times"]] == [["plain", "engine, fp32", "engine, bf16"]]


def test_both_ways_of_analysis_give_the_same():
    plane, product = analysis.analysis_cases(QUICK)
    ours, plain_way = (side() for side in plane.sides.values())
    np.testing.assert_allclose(ours["loss"], plain_way, rtol=1e-5)
    ours, theirs = (side() for side in product.sides.values())
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)
