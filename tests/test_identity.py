"""A record answers only for what made it: recipe, data and the engine's arithmetic."""

from dataclasses import replace

import pytest

from spacedkd_lib import __main__ as cli
from spacedkd_lib.data import datasets
from spacedkd_lib.errors import InputError
from spacedkd_lib.lab import grids, running
from spacedkd_lib.methods import losses
from spacedkd_lib.recipes import Recipe, baseline, education, online_kd
from spacedkd_lib.report import two_machines
from spacedkd_lib.store import identity, records
from spacedkd_lib.training import fingerprint as fingerprints
from spacedkd_lib.training.fingerprint import fingerprint

BASE = Recipe(dataset="digits", train_images=60, model="resnet8", width=4, epochs=2, batch_size=16, lr=0.05, augment="none")
KD = online_kd(BASE, interval=1.0)
PUBLISHED = {record.recipe.method: record for record in records.read_published("quick").values()}


@pytest.mark.parametrize("method", PUBLISHED)
def test_this_code_makes_the_first_updates_of_published_runs(method):
    record = PUBLISHED[method]
    digest = fingerprint(record.recipe, datasets.load(record.recipe.dataset, seed=record.recipe.seed))
    assert identity.same_numbers(record, digest)


@pytest.fixture
def other_code(tmp_path, monkeypatch):
    """Runs of a baseline and of spaced KD; afterwards the engine's hash is another."""
    monkeypatch.setenv("SPACEDKD_RUNS", str(tmp_path))
    before = [running.run(recipe) for recipe in (baseline(BASE), KD)]
    monkeypatch.setattr(identity, "code_sha256", lambda: "another")
    assert [record.run_id for record in running.made_by_other_code([KD, baseline(BASE)])] == [KD.run_id, baseline(BASE).run_id]
    return before


def test_a_renamed_module_costs_a_few_updates_once(other_code, capsys):
    again = running.run_all([baseline(BASE), KD], say=print)
    assert again == other_code
    assert "2 finished runs were made by other code. Of 2 a few updates were made again" in capsys.readouterr().out
    assert running.made_by_other_code([baseline(BASE), KD]) == []


def test_a_changed_loss_is_found_and_only_what_it_touches_is_trained_anew(other_code, monkeypatch, capsys):
    kl = losses.kl
    monkeypatch.setitem(losses.SOFT, "kl", lambda *arguments: 100 * kl(*arguments))
    again = running.run_all([baseline(BASE), KD], workers=1, say=print)
    assert "Of 1 a few updates" in capsys.readouterr().out
    assert again[0] == other_code[0] and again[1].provenance != other_code[1].provenance
    aside, = (records.runs_folder() / ".superseded").iterdir()
    assert records.from_json((aside / "result.json").read_bytes(), "aside") == other_code[1]


def test_a_learning_rate_that_falls_otherwise_is_another_schedule():
    """Also where the first updates are the same."""
    digits = datasets.load("digits")
    one, other = (fingerprint(replace(KD, epochs=3, lr_schedule=name), digits) for name in ("constant", "late_steps"))
    assert one["events"] != other["events"] and one["numbers"][0] == other["numbers"][0]


def test_other_pictures_under_the_same_name_are_found(other_code, monkeypatch):
    load = datasets.load
    monkeypatch.setattr(datasets, "load", lambda *a, **k: replace(load(*a, **k), classes=tuple("abcdefghij")))
    running.retire_stale([KD])
    assert records.load(KD) is None


def test_other_pictures_under_the_same_name_and_code_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("SPACEDKD_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("SPACEDKD_DATA", str(tmp_path))
    before = running.run(baseline(BASE))
    digits = datasets.load("digits")
    arrays = [255 - digits.train_images, digits.train_labels, digits.test_images, digits.test_labels]
    other = datasets._dataset("digits", digits.classes, [array.numpy() for array in arrays])
    datasets._write_cache(tmp_path / "cache/digits.safetensors", other)
    with pytest.raises(InputError, match="pictures of digits.*restore them"):
        running.run(baseline(BASE))
    datasets._write_cache(tmp_path / "cache/digits.safetensors", digits)
    assert running.run(baseline(BASE)) == before


def test_a_record_without_a_fingerprint_is_made_again_and_a_published_one_is_shown(tmp_path, monkeypatch):
    monkeypatch.setenv("SPACEDKD_RUNS", str(tmp_path))
    old = records.save(KD, [{"test_accuracy": 1.0}], {"test_accuracy": 1.0}, {"code_sha256": "old"}, {})
    running.retire_stale([KD])
    assert records.load(KD) is None
    records.restore([old])
    running.retire_stale([KD])
    assert records.load(KD) == old


def test_published_runs_are_verified(other_code, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(records, "ROOT", tmp_path)
    plain = replace(other_code[0], provenance={})
    records.publish([plain, other_code[1]], "smoke")
    assert cli.main(["verify", "--profile", "smoke"]) == 0
    assert "1 of 2 published runs of smoke hold today. 1 keep no updates" in capsys.readouterr().out
    sample = [grids.Row("", "", "", 0, KD)]
    monkeypatch.setattr(grids, "grid", lambda profile, notebook, seeds: sample * seeds)
    assert cli.main(["verify", "--profile", "smoke", "--seeds", "1"]) == 0
    assert "1 of 1 published runs" in capsys.readouterr().out
    monkeypatch.setitem(losses.SOFT, "kl", lambda *arguments: 1.0 * losses.soft_cross_entropy(*arguments))
    assert cli.main(["verify", "--profile", "smoke"]) == 1
    assert f"Other today: run {KD.run_id}" in capsys.readouterr().out


def test_plan_and_certificate_count_what_other_code_made(other_code):
    rows = [grids.Row("", "", "", 0, record.recipe) for record in other_code]
    assert "Made by other code: 2." in cli.plan_lines(rows, 1)
    found = {record.run_id: record for record in other_code}
    here = {run: replace(record, provenance=record.provenance | {"code_sha256": "another"}) for run, record in found.items()}
    for published, count in ((found, 2), (here, 0), ({KD.run_id: found[KD.run_id]}, 1)):
        assert f"other code than today's: {count} of" in two_machines.certificate(here, published)


def test_what_stands_in_the_place_of_a_note_is_told(other_code, tmp_path):
    (tmp_path / KD.run_id / "verified.txt").write_bytes(b"\xff")
    assert running.run(KD) == other_code[1]
    (tmp_path / ".superseded").touch()
    with pytest.raises(InputError, match=".superseded.* cannot be written"):
        running.run(KD, force=True)


def test_force_trains_anew(tmp_path, monkeypatch):
    monkeypatch.setenv("SPACEDKD_RUNS", str(tmp_path))
    first, again = running.run(KD), running.run(KD, force=True)
    assert first.numbers() == again.numbers() and len(list((tmp_path / ".superseded").iterdir())) == 1


def test_fingerprints_repeat_and_tell_every_arm_apart():
    """All arms of smoke; only the average that is spaced by one batch is not spaced."""
    found = {}
    for row in grids.grid("smoke"):
        if row.seed == 0:
            mark = fingerprint(row.recipe, datasets.load("digits"))
            found.setdefault((mark["events"], *mark["numbers"]), set()).add(row.recipe.run_id)
    assert sorted(map(len, found.values()))[-2:] == [1, 2]


def test_a_trial_takes_two_fingerprints_once(monkeypatch):
    taken = []
    monkeypatch.setattr(fingerprints, "_tried", set())
    monkeypatch.setattr(fingerprints, "fingerprint", lambda recipe, dataset: taken.append(recipe))
    for recipe in (KD, replace(KD, seed=1), KD):
        fingerprints.trial(recipe, None)
    assert taken == [KD, KD]
    monkeypatch.setattr(fingerprints, "fingerprint", lambda recipe, dataset: taken.append(recipe) or len(taken))
    for _ in range(2):
        with pytest.raises(InputError, match="other numbers"):
            fingerprints.trial(baseline(BASE), None)


def test_a_student_that_grows_twice_has_one():
    recipe = education(replace(BASE, epochs=3, train_images=90), (3, 3, 4), beta=0.0)
    mark = fingerprint(recipe, datasets.load("digits"))
    assert mark == fingerprint(recipe, datasets.load("digits")) and len(mark["numbers"]) > 10


def test_a_score_that_does_not_exist_is_the_same_as_before():
    """Of classes that none of the few test pictures shows, a grown student has none."""
    mark = {"data": "d", "events": "e", "numbers": [1.0, float("nan")], "made_on": ["exact"]}
    record = records.Record(KD, [], {}, {"fingerprint": mark})
    for numbers, same in (([1.0, float("nan")], True), ([1.0, 0.0], False), ([float("nan")] * 2, False)):
        assert identity.same_numbers(record, mark | {"numbers": numbers}) is same


def test_numbers_of_another_machine_agree_within_a_tolerance():
    mark = {"data": "d", "events": "e", "numbers": [1.0, 0.0], "made_on": ["exact"]}
    record = records.Record(KD, [], {}, {"fingerprint": mark})
    for change, same in (({}, True), ({"numbers": [1.0 + 1e-9, 0.0]}, False), ({"events": "f"}, False),
                         ({"numbers": [1.00001, 1e-5], "made_on": ["AVX512"]}, True), ({"data": "x"}, False),
                         ({"numbers": [1.001, 0.0], "made_on": ["AVX512"]}, False), ({"numbers": [1.0]}, False)):
        assert identity.same_numbers(record, mark | change) is same, change
    for foreign in (None, 7, {}, mark | {"numbers": "10"}):
        assert not identity.same_numbers(records.Record(KD, [], {}, {"fingerprint": foreign}), mark)
