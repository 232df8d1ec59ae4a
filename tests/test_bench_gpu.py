"""The quarter of an hour on a GPU: all of it on the CPU; stages that fail, hang or are ended; records brought home.

Nothing here says how fast anything is.
"""

import json
import os
import signal
import subprocess
import time
from dataclasses import replace

import pandas as pd
import pytest
import torch

from spacedkd_lib.bench import gpu, gpu_checks, gpu_science, gpu_speed
from spacedkd_lib.bench.work import Place, pictures
from spacedkd_lib.data import datasets
from spacedkd_lib.errors import InputError
from spacedkd_lib.recipes import teacher_of
from spacedkd_lib.store import records
from spacedkd_lib.training import graphs


def place(folder, **changes) -> Place:
    return Place(**dict(folder=folder, device="cpu", started=time.monotonic(), until=time.monotonic() + 60) | changes)


@pytest.mark.skipif(not os.environ.get("SLOW"), reason="takes a minute: make test SLOW=1")
def test_a_dry_run_goes_through_every_stage_and_leaves_records(tmp_path, capfd):
    status, told = gpu.main(["--dry", "--out", str(tmp_path)]), capfd.readouterr()
    assert status == 0, told.out + told.err
    log = (tmp_path / "log.txt").read_text()
    assert log == told.out and "] FAIL" not in log and "no lines say FAIL" in log
    assert all(f"done {name}: " in log for name in gpu.LIMITS)
    tables = {path.stem: pd.read_csv(path) for path in tmp_path.glob("*.csv")}
    assert tables.keys() == {*gpu.LIMITS} - {"env"} and all(map(len, tables.values()))
    assert tables["right"].holds.all() and tables["right"].check.tolist() == list(gpu_checks.checks("cpu"))
    assert json.loads((tmp_path / "env.json").read_text())["device"] == "cpu"
    found = gpu_science.kept(tmp_path)
    assert {record.recipe for record in found} == {
        replace(recipe, seed=gpu_science.FIRST) for recipe in gpu_science.arms(gpu_science.TINY).values()}
    for record in found:
        assert records.load_weights(record.recipe, tmp_path / "runs")  # raises if the record has another hash


# Stages that go wrong

def test_a_stage_that_fails_or_hangs_costs_no_other(tmp_path):
    def fails(place):
        place.add("fails", found=1)
        raise RuntimeError("CUDA error: an illegal memory access")

    def hangs(place):
        place.add("hangs", found=2)
        time.sleep(600)

    def dies(place):
        os.kill(os.getpid(), signal.SIGKILL)

    def works(place):
        place.add("works", found=3)
    stages = {"fails": fails, "hangs": hangs, "dies": dies, "works": works}
    gpu.run(stages, dict.fromkeys(stages, 20) | {"hangs": 0.5}, place(tmp_path))
    assert [pd.read_csv(tmp_path / f"{name}.csv").found.item() for name in ("fails", "hangs", "works")] == [1, 2, 3]
    log = (tmp_path / "log.txt").read_text()
    assert "FAIL fails: RuntimeError: CUDA error" in log and "FAIL dies: " in log and "done works: " in log
    assert "FAIL hangs: " in log and "ended at its limit" in log and "hangs was at " in log


def test_a_stage_that_does_not_listen_is_ended_with_all_that_it_started(tmp_path, monkeypatch):
    def deaf(place):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        child = subprocess.Popen(["sleep", "600"])
        place.add("deaf", child=child.pid)
        child.wait()
    monkeypatch.setattr(gpu, "GRACE", 0.2)
    gpu.run({"deaf": deaf}, {"deaf": 1}, place(tmp_path))
    child = pd.read_csv(tmp_path / "deaf.csv").child.item()
    assert "State:\tZ" in status(child) or not status(child)


def status(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/status") as file:
            return file.read()
    except FileNotFoundError:
        return ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ended_from_outside_it_leaves_what_it_found(tmp_path, monkeypatch, capsys, number):
    def ended(place):
        place.add("env", found=1)
        os.kill(os.getppid(), number)
        time.sleep(600)

    def never(place):
        place.add("right", found=2)
    monkeypatch.setattr(gpu, "stages", lambda: {"env": ended, "right": never})
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as of a job in the background
    assert gpu.main(["--dry", "--out", str(tmp_path)]) == 130
    assert "Ended from outside" in capsys.readouterr().err
    assert pd.read_csv(tmp_path / "env.csv").found.item() == 1 and not (tmp_path / "right.csv").exists()


def test_bad_input_is_one_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu, "stages", dict)
    for arguments, message in ((["rihgt"], 'did you mean "right"'), (["env"], "No GPU is here: give --dry"),
                               (["--publish", str(tmp_path)], "holds no records.jsonl")):
        assert gpu.main([*arguments, "--out", str(tmp_path)]) == 2
        assert message in capsys.readouterr().err


# The checks notice

def test_a_check_that_fails_is_told_and_the_next_one_runs(tmp_path, monkeypatch):
    def wrong():
        raise AssertionError("two tensors differ")
    monkeypatch.setattr(gpu_checks, "checks", lambda device: {"wrong": wrong, "fine": lambda: "seen"})
    gpu_checks.right(place(tmp_path))
    found = pd.read_csv(tmp_path / "right.csv")
    assert found.holds.tolist() == [False, True] and found.said[1] == "seen"
    assert "FAIL wrong: AssertionError: two tensors differ" in (tmp_path / "log.txt").read_text()


def test_one_bit_is_a_difference():
    one = ([], {}, {}, {"w": torch.ones(3), "v": torch.ones(2)})
    gpu_checks.assert_same(one, ([], {}, {}, {"w": torch.ones(3), "v": torch.ones(2)}))
    other = ([], {}, {}, {"w": torch.ones(3).nextafter(torch.tensor(2.0)), "v": torch.ones(2)})
    with pytest.raises(AssertionError, match="1 of 2 tensors differ, by up to 1.2e-07: w"):
        gpu_checks.assert_same(one, other)
    with pytest.raises(AssertionError, match="numbers differ"):
        gpu_checks.assert_same(one, ([{"epoch": 1}], {}, {}, one[3]))


def test_a_run_that_forgets_where_it_was_is_noticed(monkeypatch):
    recipe = gpu_checks.cases(gpu_checks.TINY)["AdamW"]
    monkeypatch.setattr("spacedkd_lib.training.checkpoints._put_back", lambda run, tensors, numbers: None)
    with pytest.raises(AssertionError, match="it began anew"):
        gpu_checks.goes_on_after_a_stop(recipe, "cpu")


def test_a_graph_of_other_numbers_is_noticed(monkeypatch):
    recipe, replay = gpu_checks.cases(gpu_checks.TINY)["AdamW"], graphs.Recording.replay
    monkeypatch.setattr(graphs.Recording, "replay", lambda self, given: replay(self, given | {"x": 0 * given["x"]}))
    gpu_checks.trained.cache_clear()
    with pytest.raises(AssertionError, match="tensors differ"):
        gpu_checks.graph_is_eager(recipe, "cpu")
    gpu_checks.trained.cache_clear()


def test_every_case_is_a_recipe_on_both_devices():
    for size in (gpu_checks.TINY, gpu_checks.SMALL):
        recipes = gpu_checks.cases(size)
        assert len({recipe.run_id for recipe in recipes.values()}) == len(recipes) == 15


# Speed

def test_the_plain_way_counts_two_updates_a_batch(tmp_path, monkeypatch):
    here = place(tmp_path)
    recipe, data = gpu_speed.networks(here)["ResNet-8"], pictures(16, 16)
    updates, step = [], torch.optim.SGD.step
    monkeypatch.setattr(torch.optim.SGD, "step", lambda self: updates.append(1) or step(self))
    found = gpu_speed.plain_pace(here, recipe, data)
    assert found["updates"] == 2 * 2 == len(updates) / (1 + recipe.epochs)
    assert found["images_s"] == pytest.approx(2 * 16 / found["seconds"])


# Science

def test_plans_have_the_arms_that_are_compared():
    assert list(gpu_science.PLANS)[:4] == ["resnet20-30-0.01", "resnet20-30-0.1", "resnet18-30-0.01",
                                           "resnet18-30-0.1"] and len(gpu_science.PLANS) == 8
    for recipes in gpu_science.PLANS.values():
        teachers = [teacher_of(recipe) for recipe in recipes.values()]
        assert teachers[0] is teachers[-1] is None and len(set(teachers[1:-1])) == 1 and len(recipes) == 8
    every = [recipe.run_id for recipes in gpu_science.PLANS.values() for recipe in recipes.values()]
    assert len(set(every)) == len(every) == 64


def test_seeds_go_on_where_the_records_end():
    recipes = gpu_science.PLANS["resnet20-30-0.1"]
    seeds = {"a": recipes, "b": {"labels alone": recipes["labels alone"]}}
    done = {replace(recipe, seed=seed).run_id for seed in (200, 201) for recipe in recipes.values()}
    done.add(replace(recipes["labels alone"], seed=202).run_id)
    found = [(plan, seed, len(left)) for (plan, seed, left), _ in zip(gpu_science.missing(seeds, done), range(7))]
    assert found == [("a", 202, 7), ("a", 203, 8), ("a", 204, 8), ("b", 203, 1), ("b", 204, 1), ("a", 205, 8),
                     ("a", 206, 8)]


def test_no_seed_begins_that_cannot_end(tmp_path, monkeypatch):
    begun, slept = [], {"tiny": 0.3}
    monkeypatch.setattr(gpu_science, "plans", lambda place: {"tiny": gpu_science.arms(gpu_science.TINY)})
    monkeypatch.setattr(gpu_science, "pictures_of", lambda place: None)
    monkeypatch.setattr(gpu_science, "_seed", lambda place, plan, recipes, dataset: (
        begun.append(next(iter(recipes.values())).seed), time.sleep(slept[plan])))
    gpu_science.science(place(tmp_path, device="cuda", until=time.monotonic() + 1.0))
    assert begun == [200, 201] or begun == [200, 201, 202]
    assert "s are left" in (tmp_path / "log.txt").read_text()


def test_a_plan_that_fails_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_science, "plans", lambda place: {"one": gpu_science.arms(gpu_science.TINY)})
    monkeypatch.setattr(gpu_science, "_seed", lambda *_: 1 / 0)
    gpu_science.science(place(tmp_path))
    assert (tmp_path / "log.txt").read_text().count("FAIL one, seed 200: ZeroDivisionError") == 1


def test_only_the_whole_set_is_called_cifar100(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "load", lambda name: pictures(20))
    with pytest.raises(InputError, match="SHA-256 [0-9a-f]{12} and the whole set has 4b697924d642"):
        gpu_science.pictures_of(place(tmp_path, device="cuda"))
    half = place(tmp_path, device="cuda", data="/data/half")
    assert len(gpu_science.pictures_of(half).train_images) == 20
    assert {recipe.dataset for recipes in gpu_science.plans(half).values() for recipe in recipes.values()} == {
        "/data/half"}


def record(seed: int, accuracy: float = 70.0) -> records.Record:
    recipe = replace(gpu_science.PLANS["resnet18-80-0.1"]["offline KD"], seed=seed)
    return records.Record(recipe, [{"epoch": 1, "test_accuracy": accuracy, "seconds": time.time()}],
                          {"test_accuracy": accuracy}, {"dataset": "cifar100"})


def leave(folder, *found: records.Record) -> None:
    (folder / "records.jsonl").write_text("".join(record.to_json() + "\n" for record in found))


def test_records_come_home_once(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "ROOT", tmp_path)
    for seeds in ((201, 200), (202, 200), (200, 201, 202)):
        leave(tmp_path, *map(record, seeds))
        assert gpu.main(["--publish", str(tmp_path)]) == 0
    path = records.published_file("gpu")
    before = path.read_bytes()
    assert gpu.main(["--publish", str(tmp_path)]) == 0 and path.read_bytes() == before
    assert {record.recipe.seed for record in records.read_published("gpu").values()} == {200, 201, 202}
    table = pd.read_csv(path.parent / "runs.csv")
    assert table.seed.tolist() == [200, 201, 202] and set(table.plan) == {"resnet18-80-0.1"}
    assert set(table.arm) == {"offline KD"} and set(table.test_accuracy) == {70.0}


def test_other_numbers_under_a_published_id_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "ROOT", tmp_path)
    known = record(200)
    records.publish([known], "gpu")
    leave(tmp_path, record(200, accuracy=71.0))
    with pytest.raises(InputError, match=f"Run {known.run_id} .* is published with other numbers"):
        gpu_science.publish(tmp_path)
    assert records.read_published("gpu") == {known.run_id: known}
