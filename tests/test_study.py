"""Grids, side-by-side runs, plans: what a profile is, and that bad input stops it before any work."""

import os
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import Executor, Future
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from conftest import Here, wait_for_the_end_of
from spacedkd_lib.cluster import executors
from spacedkd_lib.data import datasets
from spacedkd_lib.errors import InputError
from spacedkd_lib.lab import arms, claims, grids, lead_lag, planning, profiles, running
from spacedkd_lib.methods import build
from spacedkd_lib.methods.build import recipe_schedule
from spacedkd_lib.recipes import baseline, ie_kd, offline_kd, online_kd, teacher_of
from spacedkd_lib.store import records

SMOKE = profiles.profile("smoke").settings[0]


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("SPACEDKD_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("SPACEDKD_DATA", str(tmp_path))
    return tmp_path / "runs"


def test_every_profile_has_a_grid_of_paired_seeds():
    for name, profile in profiles.PROFILES.items():
        rows = grids.grid(name)
        cells = {(r.notebook, r.setting, r.arm) for r in rows}
        most = max(setting.seeds or profile.seeds for setting in profile.settings)
        assert len(rows) >= len(cells) * profile.seeds
        assert {r.seed for r in rows} == set(range(profile.first, profile.first + most))
        assert all(r.recipe.seed == r.seed for r in rows)


def test_shared_runs_are_counted_once():
    rows = [row for row in grids.grid("smoke") if row.setting == "digits"]
    baselines = {r.recipe.run_id for r in rows if r.arm == "baseline" and r.seed == 0}
    assert len(baselines) == 3  # resnet8, shared by eight notebooks, the trunk of self KD, and the transformer
    assert len(grids.unique(rows)) < len(rows)


def test_seeds_can_be_chosen():
    assert {r.seed for r in grids.grid("core", "05_spaced_kd", seeds=2)} == {200, 201}


# The arms

def recipes_of(arms_of):
    return {arm.name: arm.recipe for arm in arms_of}


def changed(one, other):
    values = asdict(other)
    return {name for name, value in asdict(one).items() if value != values[name]}


def test_single_switches_are_turned_alone():
    setting = replace(SMOKE, audit=arms.AUDIT, self_audit=arms.SELF_AUDIT)
    audit = recipes_of(arms.audit_arms(setting))
    alone = [arm for arm in audit if "clean + " in arm]
    assert len(alone) == len(arms.AUDIT) + len(arms.SELF_AUDIT)
    for program, ids in (("", arms.AUDIT), ("self: ", arms.SELF_AUDIT)):
        for arm, clean in (arms.audited(program, id) for id in ids):
            assert len(changed(audit[arm], audit[clean])) == 1, arm


def test_the_lead_lag_law_changes_one_thing_at_a_time():
    law = recipes_of(lead_lag.lag_arms(profiles.profile("smoke").settings[1]))
    offsets = {recipe.interval for recipe in law.values()}
    assert offsets == {-offset for offset in offsets} > {0.0}
    assert len({recipe.run_id for recipe in law.values()}) == len(law)
    assert len({teacher_of(recipe) for arm, recipe in law.items() if arm != "baseline"}) == 1
    for arm, recipe in law.items():
        if arm != "baseline":
            assert len(changed(recipe, law["teacher +0"]) - {"interval"}) == (", " in arm), arm


def test_arms_take_the_values_of_their_family(monkeypatch):
    values = {"baseline": dict(lr=0.2), "online KD": dict(lr=0.4, alpha=0.5), "spaced KD": dict(lr=0.8, temperature=1.0)}
    monkeypatch.setattr(arms, "tuned", lambda label, family: values.get(family, {}) if label == "toy" else {"lr": 9.0})
    setting = replace(SMOKE, tuned="toy")
    spaced, law = recipes_of(arms.spaced_arms(setting)), recipes_of(lead_lag.lag_arms(setting))
    assert (spaced["baseline"].lr, spaced["spaced KD s=1.5"].lr, spaced["spaced KD s=1.5"].temperature) == (0.2, 0.8, 1.0)
    assert {(r.lr, r.alpha) for arm, r in law.items() if arm.endswith("alpha tuned")} == {(0.4, 0.5)}
    assert {recipe.lr for recipe in recipes_of(arms.ie_arms(setting)).values()} == {0.2}
    assert recipes_of(arms.baseline_arms(SMOKE))["baseline"].lr == 0.1


def test_both_sides_of_a_claim_stand_at_each_others_values(monkeypatch):
    values = {"online KD, asked before": dict(lr=0.4), "spaced KD": dict(lr=0.8)}
    monkeypatch.setattr(arms, "tuned", lambda label, family: values.get(family, {}))
    by_arm = recipes_of(arms.spaced_arms(replace(SMOKE, tuned="toy")))
    for (whose, (ahead, beside)), lr in zip(claims.SAME_VALUES.items(), (0.8, 0.4)):
        assert changed(by_arm[ahead], by_arm[beside]) == {"interval", "zero_target"}, whose
        assert by_arm[ahead].lr == by_arm[beside].lr == lr
    assert changed(*map(by_arm.get, claims.NO_SPACE)) == {"interval"}
    assert [changed(by_arm[arm], by_arm[beside]) for arm, beside in claims.LATE_START.values()] == [
        {"distil_start"}, {"interval", "distil_start"}]
    assert changed(by_arm["online KD, eval mode"], by_arm[claims.NO_SPACE[1]]) == {"teacher_mode"}  # a control
    untuned = recipes_of(arms.spaced_arms(SMOKE))
    assert not any("values" in arm for arm in untuned)
    measured, more = (set(recipes_of(arms.measured_arms(replace(SMOKE, tuned=label)))) for label in ("", "toy"))
    assert more - measured == {claims.NO_SPACE[1], "baseline, at SAM's values"} and measured < more


def test_a_method_stands_beside_labels_alone_at_its_own_values(monkeypatch):
    values = {"baseline": dict(lr=0.4), "SAM": dict(lr=0.2), "online KD": dict(lr=0.3, weight_decay=0.01),
              "exits, labels only": dict(lr=0.5), "self KD": dict(lr=0.6)}
    monkeypatch.setattr(arms, "tuned", lambda label, family: values.get(family, {}))
    here = [recipes_of(make(replace(SMOKE, tuned="toy"))) for make in (arms.baseline_arms, arms.online_arms, arms.self_arms)]
    others = [changed(by_arm[arm], by_arm[f"{plain}, at {arm}'s values"]) for by_arm, arm, plain in zip(
        here, ("SAM", "online KD", "self KD"), ("baseline", "baseline", "exits, labels only"))]
    assert others[0] == {"optimizer"} and others[2] == {"alpha", "beta"} and not {"lr", "weight_decay"} & others[1]


def multiply_accumulates(recipe, batches=63):
    """Of a run's training, up to a factor: what `train.summarise` counts."""
    channels, size, classes, *_ = datasets.shape(recipe.dataset)
    cost = build.make(recipe, channels, classes, size).cost
    return sum(cost.get(kind, 0) * n for kind, n in Counter(e.kind for e in recipe_schedule(recipe, batches)).items())


def test_the_baseline_of_equal_compute_costs_what_spaced_kd_costs():
    compared = recipes_of(arms.spaced_arms(replace(profiles.profile("study").settings[0], tuned="")))
    ours = multiply_accumulates(compared["spaced KD s=1.5"])
    assert multiply_accumulates(compared["baseline, equal compute"]) == pytest.approx(ours, rel=0.1)
    assert multiply_accumulates(compared["baseline"]) < 0.5 * ours


@pytest.mark.parametrize("call, message", [
    (lambda: grids.grid("quik"), "quik.*quick"),
    (lambda: grids.grid("core", "05_spaced"), "05_spaced.*05_spaced_kd"),
    (lambda: grids.grid("core", seeds=-1), "seeds = -1"), (lambda: grids.grid("core", None, "a"), "seeds = 'a'"),
])
def test_bad_names(call, message):
    with pytest.raises(InputError, match=message):
        call()


KILLED = """
import spacedkd_lib as skd
if __name__ == "__main__":
    skd.run_all([row.recipe for row in skd.grid("smoke", "02_baselines") if row.arm != "SAM"], workers=2)
"""


def test_a_run_that_diverges_costs_no_other(runs):
    good, bad = baseline(SMOKE.base), replace(baseline(SMOKE.base), lr=1e18)
    with pytest.raises(InputError):
        running.run_all([bad, good], executor=Here())
    assert records.load(good) is not None and records.load(bad) is None


class Failing(Executor):
    """Where every run fails, with a sentence."""

    def submit(self, work, sweep):
        future = Future()
        future.set_result([f"Seed {recipe.seed} failed." for recipe in sweep.recipes])
        return future


@pytest.mark.parametrize("seeds", [1, 3, 4])
def test_many_failures_are_summarised(runs, seeds):
    recipes = [replace(baseline(SMOKE.base), seed=seed) for seed in range(seeds)]
    with pytest.raises(InputError) as error:
        running.run_all(recipes, say=lambda line: None, executor=Failing())
    said = str(error.value)
    assert said.count(" failed.") == min(seeds, 3)
    assert said.startswith(f"{seeds} failures in {seeds} runs") == (seeds > 1)
    assert said.endswith(f"And so on: the logs are in {runs / '.sweeps'}.") == (seeds > 3)


UNGUARDED = """
import spacedkd_lib as skd
from spacedkd_lib.cluster.executors import LocalProcesses
skd.run_all([])  # nothing to train: so that this test need not train either
LocalProcesses(1).submit(print).result()
"""


def test_a_script_without_a_main_guard_is_told(tmp_path):
    (tmp_path / "script.py").write_text(UNGUARDED)
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60,
                          env=dict(os.environ, PYTHONPATH=str(Path(running.__file__).parents[2])))
    assert done.returncode != 0
    assert done.stderr.count('put its call of run_all under if __name__ == "__main__":.') == 1


def test_changed_pictures_of_a_folder_are_noticed(runs, tmp_path):
    from PIL import Image
    for i, place in enumerate(["train/a/1", "train/a/2", "train/b/1", "train/b/2", "test/a/1", "test/b/1"]):
        (tmp_path / "set" / place).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (16, 16), 10 * i).save(tmp_path / "set" / f"{place}.png")
    recipe = replace(baseline(SMOKE.base), dataset=str(tmp_path / "set"), train_images=0, val_fraction=0.0,
                     batch_size=2)
    assert running.run(recipe).provenance["data_sha256"] == running.run(recipe).provenance["data_sha256"]
    Image.new("L", (16, 16), 200).save(tmp_path / "set" / "train/a/1.png")
    with pytest.raises(InputError, match=recipe.run_id):
        running.run(recipe)


def test_killed_and_continued_equals_uninterrupted(runs, tmp_path, monkeypatch):
    """kill -9 of the parent while runs are in flight: the workers end, what was finished is kept as it is, the rest is
    trained, and all numbers agree."""
    (tmp_path / "script.py").write_text(KILLED)
    environment = dict(os.environ, PYTHONPATH=str(Path(running.__file__).parents[2]))
    process = subprocess.Popen([sys.executable, str(tmp_path / "script.py")], env=environment,
                               start_new_session=True, stdout=subprocess.DEVNULL)
    while not list(runs.glob("*/result.json")) and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    process.wait()
    wait_for_the_end_of(process.pid)
    kept = {path: path.read_bytes() for path in runs.glob("*/result.json")}
    recipes = [row.recipe for row in grids.grid("smoke", "02_baselines") if row.arm != "SAM"]
    continued = [running.run(recipe) for recipe in recipes]
    assert kept and all(path.read_bytes() == content for path, content in kept.items())
    monkeypatch.setenv("SPACEDKD_RUNS", str(tmp_path / "uninterrupted"))
    assert [r.numbers() for r in continued] == [running.run(recipe).numbers() for recipe in recipes]


@pytest.mark.parametrize("change, message", [
    (dict(dataset="digts"), "digts.*digits"),
    (dict(batch_size=4000), "batch_size = 4000"),
    (dict(normalise="cifar100"), "3"),
    (dict(train_images=10**6), "1000000|train_images"),
])
def test_bad_input_stops_before_training(runs, monkeypatch, change, message):
    monkeypatch.setattr(running, "_train_side_by_side", lambda *_: pytest.fail("training started"))
    with pytest.raises(InputError, match=message):
        running.run_all([replace(baseline(SMOKE.base), **change)])


def test_an_unwritable_runs_folder_stops_before_training(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SPACEDKD_RUNS", str(tmp_path / "file" / "runs"))
    monkeypatch.setattr(running, "_train_side_by_side", lambda *_: pytest.fail("training started"))
    with pytest.raises(InputError, match="runs"):
        running.run_all([baseline(SMOKE.base)])


def test_plan_counts_and_estimates(runs):
    rows = grids.grid("smoke", "02_baselines")
    before = planning.plan(rows)
    assert (before.runs, before.done) == (6, 0) and before.seconds > 0 and before.megabytes > 0
    running.run(rows[0].recipe)
    after = planning.plan(rows)
    assert after.done == 1 and records.load(rows[0].recipe) is not None and after.megabytes < before.megabytes


def test_plan_measures_what_is_valid_at_its_own_interval_or_length_only(runs, monkeypatch):
    def steps(*recipes):
        measured, cost = [], planning.Cost(1.0, 1.0, 0.0, 1.0, 1500, 297)
        monkeypatch.setattr(planning, "_measure", lambda step: measured.append(step) or cost)
        planning.plan([grids.Row("05_spaced_kd", "digits", "arm", 0, recipe) for recipe in recipes])
        return measured
    early = online_kd(SMOKE.base, interval=1.5, zero_target="pre_update")
    step, = steps(early, replace(early, seed=1, epochs=9, interval=4.0), offline_kd(replace(early, epochs=3)))
    assert step.zero_target == "post_update"  # a spaced teacher is asked anew, and that costs a pass
    assert steps(replace(early, replay="fresh_batch")) == [replace(step, replay="fresh_batch")]
    assert steps(replace(early, interval=0.0)) == [replace(step, interval=0.0, zero_target="pre_update")]
    step, = steps(ie_kd(SMOKE.base, interval=1.5, distil_start=1.0, ramp_epochs=0.5))
    assert (step.distil_start, step.ramp_epochs) == (0, 0)  # all losses act


def test_plan_needs_no_data_for_public_sets(runs):
    row = grids.Row("02_baselines", "CIFAR-100", "baseline", 200, baseline(profiles.SLICE))
    assert planning.plan([row]).seconds > 0


def test_a_sweep_trains_on_the_fonts_of_its_seed(runs):
    """Seed 202 leaves out DejaVu, as seed 1; the measures of the finished run read the same pictures."""
    from spacedkd_lib.analysis import trained
    recipe = replace(baseline(profiles.profile("quick").settings[0].base), seed=202, width=1, epochs=1, train_images=124)
    dejavu = datasets.load("glyphs", seed=1).sha256
    assert running.run(recipe).provenance["data_sha256"] == dejavu != datasets.load("glyphs", seed=201).sha256
    assert trained.dataset_of(recipe).sha256 == dejavu


def test_a_log_takes_a_path_whose_bytes_are_no_text(tmp_path):
    with executors.logged(tmp_path / "log"):
        print(os.fsdecode(b"folder caf\xe9"))
    assert (tmp_path / "log").read_text() == "folder caf\\udce9\n"
