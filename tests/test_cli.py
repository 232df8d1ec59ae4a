"""The commands as a person gives them: exit status, one sentence for bad input."""

import gzip
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from test_tables import synthetic

from spacedkd_lib import __main__ as cli
from spacedkd_lib.analysis import measures
from spacedkd_lib.cluster.executors import Here
from spacedkd_lib.errors import InputError
from spacedkd_lib.lab import arms, claims, grids, planning, profiles, running, tuning
from spacedkd_lib.notebook import exercises, series, session as sessions
from spacedkd_lib.recipes import Recipe
from spacedkd_lib.report import frames, readme
from spacedkd_lib.store import records

ROOT = Path(__file__).resolve().parent.parent


def test_bad_input_is_one_sentence_and_status_2(tmp_path):
    done = subprocess.run([sys.executable, "-m", "spacedkd_lib", "publish", "--profile", "paper"], cwd=ROOT,
                          capture_output=True, text=True, env={**os.environ, "SPACEDKD_RUNS": str(tmp_path)})
    assert done.returncode == 2 and "nothing was published" in done.stderr
    assert "Traceback" not in done.stderr and len(done.stderr.strip().splitlines()) == 1


@pytest.fixture
def refusal(tmp_path, monkeypatch, capsys):
    """What a command is refused with, in a place of its own where nothing may be started."""
    monkeypatch.setenv("SPACEDKD_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(records, "ROOT", tmp_path)

    def refused(*arguments):
        assert cli.main(list(arguments)) == 2 and not list((tmp_path / "runs").glob("*/recipe.json"))
        return capsys.readouterr().err
    return refused


def test_unknown_names_and_numbers_start_nothing(refusal):
    assert refusal("reproduce", "--profile", "quik").startswith('error: "quik" is not a profile; did you mean "quick"')
    assert refusal("plan", "--seeds", "-2").startswith("error: seeds = -2 is out of range")


@pytest.mark.parametrize("name, value, words", [
    ("SPACEDKD_RUN", "x", 'did you mean "SPACEDKD_RUNS"'), ("SPACEDKD_RUNS", "~no-such-user/x", "home"),
    ("SPACEDKD_ROOT", "x" * 300, "correct it"),
    ("SPACEDKD_CHECKPOINT", "abc", "seconds")])
def test_a_variable_that_means_nothing_starts_nothing(refusal, monkeypatch, name, value, words):
    monkeypatch.setenv(name, value)
    assert words in refusal("plan", "--profile", "smoke")
    with pytest.raises(InputError, match=words):
        running.check_inputs([])


def test_a_file_in_a_runs_place_starts_nothing(refusal, tmp_path):
    recipe = SMOKE[0].recipe
    (tmp_path / "recipe.json").write_text(recipe.to_json())
    (tmp_path / "runs").mkdir()
    for link in (False, True):
        place = tmp_path / "runs" / recipe.run_id
        place.unlink(missing_ok=True)
        place.symlink_to("nowhere") if link else place.touch()
        assert recipe.run_id in refusal("train", str(tmp_path / "recipe.json"))


SCRIPT = """
import os, tempfile
os.environ["SPACEDKD_RUNS"] = tempfile.mkdtemp(dir=".")
from spacedkd_lib.cluster.executors import LocalProcesses
from spacedkd_lib.store import records
if __name__ == "__main__":
    with LocalProcesses(1) as workers:
        print(workers.submit(records.runs_folder).result(), records.runs_folder(), sep=";")
"""


@pytest.mark.parametrize("place", ("script.py", "-"))
def test_a_worker_trains_where_the_script_that_started_it_looks(place, tmp_path):
    """The worker runs the script's top again, which names another folder; of standard input there is none."""
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run([sys.executable, place], cwd=tmp_path, capture_output=True, text=True, input=SCRIPT,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})
    here, there = done.stdout.strip().split(";")
    assert here == there and Path(here).parent == tmp_path, done.stderr


def test_commands_are_listed_where_python_drops_docstrings():
    assert not subprocess.run([sys.executable, "-OO", "-m", "spacedkd_lib", "--version"], cwd=ROOT).returncode


@pytest.mark.parametrize("recipe, words", [
    ("[" * 100_000, "is no recipe"), ("[]", "is no recipe"), ("\0", "is no recipe"), ('{"epochs": 1e400}', "epochs = inf"),
    ('{"nosuch": 1}', "is not a recipe field"), ('{"dataset": "\\u0000"}', "is not a data set"),
    (2**20 * " " + "{}", "is no recipe"),
    ('{"dataset": "digits", "model": "resnet8", "width": 1000000, "augment": "none"}', "memory is too small"),
    ('{"dataset": "digits", "model": "resnet8", "width": 1000000000000000000, "augment": "none"}', "memory is too small"),
])
def test_a_file_that_is_no_recipe_starts_nothing(refusal, tmp_path, recipe, words):
    (tmp_path / "recipe.json").write_text(recipe)
    said = refusal("train", str(tmp_path / "recipe.json"))
    assert words in said and said.startswith("error: ")


def test_missing_data_without_a_network_starts_nothing(refusal, tmp_path, monkeypatch):
    for name, value in (("SPACEDKD_DATA", str(tmp_path)), ("SPACEDKD_MIRRORS", ""),
                        ("http_proxy", "http://127.0.0.1:9"), ("https_proxy", "http://127.0.0.1:9")):
        monkeypatch.setenv(name, value)
    assert "cifar-100-python.tar.gz" in refusal("reproduce", "--profile", "core", "--seeds", "1")


def test_an_unwritable_results_folder_starts_nothing(refusal, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(records, "ROOT", tmp_path / "file")
    assert "cannot be written" in refusal("reproduce", "--profile", "smoke")


def test_a_published_record_of_another_version_starts_nothing(refusal, tmp_path):
    published = tmp_path / "results" / "smoke" / "records.jsonl.gz"
    published.parent.mkdir(parents=True)
    recipe = json.loads(grids.grid("smoke")[0].recipe.to_json()) | {"version": 0}
    values = {"run_id": "x", "recipe": recipe, "epochs": [], "summary": {}, "provenance": {}}
    published.write_bytes(gzip.compress(json.dumps(values | {"sha256": records._checksum(values)}).encode()))
    assert "version 0 of the recipe" in refusal("reproduce", "--profile", "smoke")


def test_plan_prints_runs_and_an_estimate(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SPACEDKD_RUNS", str(tmp_path))
    monkeypatch.setattr(planning, "_measure", lambda recipe: planning.Cost(1e-6, 0.0, 0.0, 1.0, 1500, 297))
    assert cli.main(["plan", "--profile", "smoke"]) == 0
    told = capsys.readouterr().out
    assert f"{len(grids.unique(SMOKE))} distinct runs" in told and "0 done" in told and " MB in " in told


@pytest.mark.parametrize(("profile", "power"), [
    ("study", "glyphs, from the spread over the seeds of tuning:\nClaim  sd (points)"),
    ("cifar100-slice", "CIFAR-100, 5,000 images: unknown, since tuning had one seed")])
def test_plan_tells_what_the_seeds_can_show(profile, power, monkeypatch, capsys):
    monkeypatch.setattr(cli, "plan_lines", lambda *_: "")
    assert cli.main(["plan", "--profile", profile]) == 0
    assert f"Power in {power}" in capsys.readouterr().out


@pytest.fixture
def three_notebooks(place, monkeypatch):
    """02 and 03 show their own runs, 05 those of all; executing one writes its name to a list."""
    names, executed = ("02_baselines", "03_online_kd", "05_spaced_kd"), []
    monkeypatch.setattr(series, "NOTEBOOKS", place)
    monkeypatch.setattr(profiles, "NOTEBOOKS", names)

    def write(name, source="1"):
        (place / f"{name}.ipynb").write_text(json.dumps({"cells": [{"source": source, "outputs": []}]}))
    for name in names:
        write(name, "session.series()" if name == names[-1] else "1")

    def execute(path, target, parameters, cwd):
        executed.append(path.stem)
        records.write_atomically(target, "")
    monkeypatch.setattr(series.runner, "execute", execute)
    return executed, write


def test_a_notebook_is_executed_when_its_runs_are_finished_and_again_when_its_inputs_change(three_notebooks):
    executed, write = three_notebooks
    finish(row for row in SMOKE if row.notebook == "02_baselines")
    with series.Series("smoke") as ran:
        ran.execute_ready()
    assert executed == ["02_baselines"]  # 05 waits for all, even where its own are there
    finish(SMOKE)
    for change, again in ((None, ["03_online_kd", "05_spaced_kd"]), (lambda: write("03_online_kd", "2"), ["03_online_kd"]),
                          (None, [])):
        if change:
            change()
        with series.Series("smoke") as ran:
            assert ran.execute_all() == again
    with series.Series("smoke", seeds=1) as ran:
        assert len(ran.execute_all()) == 3


def test_notebooks_whose_arms_a_profile_lacks_are_left_out():
    with series.Series("paper") as ran:
        left = {name[:2] for name in profiles.NOTEBOOKS} - {name[:2] for name in ran.names}
    assert left == {"09", "10", "11", "13"}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A place of its own for runs, results and READMEs."""
    monkeypatch.setenv("SPACEDKD_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(records, "ROOT", tmp_path)
    monkeypatch.setattr(records, "SHIPPED", tmp_path)
    for path in (tmp_path / "README.md", tmp_path / "results" / "README.md"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{readme.START}{readme.END}")
    return tmp_path


def finish(rows):
    """Made-up local records of these rows; their ids."""
    made = synthetic(rows)
    for run_id, record in made.items():
        records.write_atomically(records.runs_folder() / run_id / "result.json", record.to_json())
    return set(made)


SMOKE = grids.grid("smoke")


def test_publish_takes_whole_arms_only(place, capsys):
    """Of the first notebook one arm lacks a seed; of the next, all is there; a shared run is in both."""
    wanted = finish(row for row in SMOKE if row.arm in ("baseline", "online KD") and row.setting == "digits"
                    and row.notebook[:2] in ("03", "05"))
    finish(row for row in SMOKE if row.arm == "SAM" and row.seed == 1)
    cli.publish(SimpleNamespace(profile="smoke", seeds=0))
    assert set(records.read_published("smoke")) == wanted and len(wanted) == 4
    arms = {(row.notebook, row.setting, row.arm) for row in SMOKE}
    whole = {(row.notebook, row.setting, row.arm) for row in SMOKE if row.recipe.run_id in wanted}
    assert whole == {(n, s, a) for n, s, a in arms if (n[:2], a) in
                     {("02", "baseline"), ("03", "baseline"), ("03", "online KD"), ("05", "baseline"),
                      ("05", "online KD"), ("09", "clean, s=0"), ("10", "baseline"),
                      ("11", "baseline"), ("11", "baseline, images of ED"), ("13", "baseline"),
                      *((notebook, arm) for notebook in ("06", "07") for arm in ("baseline", "online KD"))}}
    out = capsys.readouterr().out
    assert "Published 4 records in results/smoke/records.jsonl.gz." in out
    assert f"Not finished and left out: {len(arms - whole)} arms." in out
    tidy = (place / "results" / "smoke" / "runs.csv").read_text()
    assert "online KD" in tidy and "SAM" not in tidy and "06_loss_landscape" not in tidy
    published = records.published_file("smoke")
    before = published.read_bytes()
    cli.publish(SimpleNamespace(profile="smoke", seeds=0))
    assert published.read_bytes() == before


def test_publish_of_a_whole_profile_leaves_nothing_out(place, capsys):
    wanted = finish(SMOKE)
    cli.publish(SimpleNamespace(profile="smoke", seeds=0))
    assert set(records.read_published("smoke")) == wanted
    assert "left out" not in capsys.readouterr().out


def test_publish_copies_tables(place):
    finish(SMOKE)
    records.write_atomically(place / "build/smoke/tables/05.csv", "05")
    cli.publish(SimpleNamespace(profile="smoke", seeds=0))
    assert (place / "results/smoke/tables/05.csv").read_text() == "05" and not (place / "figures").exists()


def test_published_records_are_drawn_without_this_machines_runs(place, monkeypatch):
    """They lie in a folder of their own, but for the run whose weights 06 and 07 need."""
    records.publish(synthetic(SMOKE).values(), "smoke")
    drawn = []
    monkeypatch.setattr(series.Series, "execute_all", lambda _: drawn.extend(frames.local_records(SMOKE)))
    cli.draw_published("smoke")
    example = next(row for row in SMOKE if row.notebook == "06_loss_landscape").recipe.run_id
    assert set(drawn) == {row.recipe.run_id for row in SMOKE} - {example}
    assert os.environ["SPACEDKD_RUNS"] == str(place / "build" / "smoke" / "published")
    with pytest.raises(InputError, match="Nothing of profile core"):
        cli.draw_published("core")
    records.publish(synthetic(SMOKE[:2]).values(), "smoke")
    with pytest.raises(InputError, match="runs of profile smoke are not published: make reproduce"):
        cli.draw_published("smoke")


def test_another_number_of_seeds_has_a_folder_of_its_own():
    """Settings of study have more seeds in some notebooks than in others: no single number is the profile's."""
    assert [grids.folder("quick", seeds) for seeds in (0, 3, 5)] == ["quick", "quick", "quick-5-seeds"]
    assert [grids.folder("study", seeds) for seeds in (0, 5, 20)] == ["study", "study-5-seeds", "study-20-seeds"]


def test_reproduce_ends_beside_the_published_numbers(place, monkeypatch, capsys):
    finish(SMOKE)
    monkeypatch.setattr(series.runner, "execute", lambda _, target, *__, **___: records.write_atomically(target, ""))
    monkeypatch.setattr(measures, "measure_all", lambda *_: {})
    monkeypatch.setattr(running, "retire_stale", lambda *_: None)  # the records are made up
    monkeypatch.setenv("SPACEDKD_DATA", str(place))  # where nothing is decoded, whose hash would be another
    options = SimpleNamespace(profile="smoke", seeds=0, workers=0, slurm="", rerun=False)
    cli.reproduce(options)
    assert "Nothing is published for profile smoke" in capsys.readouterr().out
    cli.publish(SimpleNamespace(profile="smoke", seeds=0))
    cli.reproduce(options)
    out = capsys.readouterr().out
    runs = len(grids.unique(SMOKE))
    assert f"{runs} of {runs} records equal the published ones" in out and "this comparison: build/smoke/." in out
    assert "| bit for bit |" in (place / "build" / "smoke" / "comparison.md").read_text()


def test_publish_refuses_where_no_arm_is_whole(place):
    finish(row for row in SMOKE if row.seed == 0)
    with pytest.raises(InputError, match="No arm of profile smoke is finished .* nothing was published"):
        cli.publish(SimpleNamespace(profile="smoke", seeds=0))
    assert not (place / "results" / "smoke").exists()


def test_series_of_a_profile_is_what_is_finished_here(place, monkeypatch):
    monkeypatch.setattr(running, "run_all", lambda *_: pytest.fail("trained"))
    rows = grids.grid("quick", seeds=2)
    for profile in ("quick", "study"):
        records.publish(synthetic(rows).values(), profile)
    wanted = finish(row for row in rows if row.notebook in ("02_baselines", "04_self_kd"))
    found = sessions.Session("09_released_code_audit", "quick", seeds=2).series()
    assert set(found.ids) == set(found.records) == wanted and found.profiles == ("quick",)
    assert {row.notebook for row in found.rows} == set(arms.ARMS)


def test_series_in_smoke_is_what_is_published_the_miniature_where_study_lacks_an_arm(place, monkeypatch):
    monkeypatch.setattr(running, "run_all", lambda *_: pytest.fail("trained"))
    finish(SMOKE)
    session = sessions.Session("09_released_code_audit")
    assert session.series().ids == [] and session.series().rows == []
    small = grids.grid("quick", "02_baselines") + grids.grid("quick", "11_education_distillation")
    for profile, rows in (("quick", small), ("study", grids.grid("study", "02_baselines"))):
        records.publish(synthetic(rows).values(), profile)
    series = session.series()
    assert series.profiles == ("study", "quick")
    seeds = series.runs.query("arm == 'SAM' or arm == 'online ED'").groupby("setting")["seed"].apply(set)
    assert seeds.to_dict() == {"glyphs": set(range(200, 220)), "glyphs, miniature": {300, 301, 302}}
    assert {row.notebook for row in series.rows if row.setting == "glyphs, miniature"}.isdisjoint(arms.MAIN)


def test_what_is_judged_is_shown_beside_the_miniature_until_study_is_whole(place):
    records.publish(synthetic(grids.grid("quick", "05_spaced_kd")).values(), "quick")
    of = grids.grid("study", "05_spaced_kd")
    claimed = {arm for claim in claims.PRIMARY for arm in (claim.arm, claim.reference)}
    records.publish(synthetic(row for row in of if row.arm in claimed).values(), "study")
    both = sessions.Session("05_spaced_kd").results()
    assert both.profiles == ("study", "quick") and len(claims.judged(both.runs)) == 3
    records.published_file("study").unlink()  # made-up numbers go by the arm, and some arms share a run
    records.publish(synthetic(of).values(), "study")
    assert sessions.Session("05_spaced_kd").results().profiles == ("study",)


def test_telling_whose_numbers_follow_hashes_each_run_a_few_times(place, monkeypatch):
    records.publish(synthetic(grids.grid("study", "02_baselines")).values(), "study")
    session, hashed, run_id = sessions.Session("02_baselines"), [], Recipe.run_id.fget
    shown = session.results()
    monkeypatch.setattr(Recipe, "run_id", property(lambda recipe: hashed.append(recipe) or run_id(recipe)))
    session.source(shown)
    assert 0 < len(hashed) <= 10 * len(shown.rows)


def test_a_notebook_whose_values_are_not_tuned_is_left_out_of_what_is_published(place, monkeypatch):
    def tuned(label, family):
        if family == "SAM":
            raise tuning.NotTuned(family)
        return {}
    monkeypatch.setattr(arms, "tuned", tuned)
    with pytest.raises(InputError):
        grids.grid("study")
    notebooks = {row.notebook for row in grids.tuned_grid("study")}
    assert "05_spaced_kd" in notebooks and notebooks.isdisjoint(("02_baselines", *profiles.MEASURING))


def test_tiny_runs_that_nobody_watches_start_no_worker(place, monkeypatch, tmp_path):
    monkeypatch.setenv("SPACEDKD_RUNS", str(tmp_path / "of its own"))
    monkeypatch.setattr(running, "LocalProcesses", None)
    session = sessions.Session("02_baselines", "smoke", seeds=1)
    assert len(session.train().ids) == len(session.rows)
    with pytest.raises(InputError, match="lower lr"):
        running.run_all([replace(session.rows[0].recipe, lr=1e18)], say=print, executor=Here())


def test_session_refuses_bad_parameters():
    with pytest.raises(InputError, match='did you mean "smoke"'):
        sessions.Session("05_spaced_kd", "smok")
    with pytest.raises(InputError, match="workers = -1"):
        sessions.Session("05_spaced_kd", workers=-1)
    with pytest.raises(InputError, match='"paper" has no runs of 10_ie_kd: choose one of smoke, quick, study, core'):
        sessions.Session("10_ie_kd", "paper")
    sessions.Session("08_theory", "paper")  # which trains nothing in any profile


def test_exercises_say_right_wrong_and_unanswered_and_keep_the_progress(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(exercises.records, "ROOT", tmp_path)
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    monkeypatch.setitem(sys.modules, "IPython", object())  # as in a kernel with a person before it
    hints = "first", "second", "third"
    made = {"05.1": exercises.Exercise("compute", exercises.number(5.5), hints),
            "05.2": exercises.Exercise("change", exercises.agrees([([0, 1], 2), ([0, 0, 1], 3)], lambda indices, n: (
                sorted(indices) == list(range(n)))), hints)}
    monkeypatch.setattr(exercises, "_of_notebook", lambda number: made if number == "05" else {})
    answers = (("05.1", None), ("05.1", 10), ("05.1", "many"), ("05.2", lambda indices: True), ("05.2", lambda indices, n: True),
               ("05.1", 5.5))
    assert [exercises.check(*answer) for answer in answers] == [False, False, False, False, False, True]
    out = capsys.readouterr().out
    assert "'many' is none" in out and "TypeError" in out and "for the input [0, 0, 1], 3 yours gives True, expected is False" in out
    for _ in range(4):
        exercises.hint("05.1")
    assert "Hint 3 of 3: third" in capsys.readouterr().out.splitlines()[2]
    table = exercises.progress().set_index("Notebook")
    assert table.Right["05"] == 1 and table.Right.sum() == 1 and table.Exercises["05"] == 2
    for name in ("5.1", 5, None, [1]):
        with pytest.raises(InputError, match="is not an exercise"):
            exercises.check(name, 1)
        with pytest.raises(InputError, match="is not an exercise"):
            exercises.hint(name)


def test_every_notebook_has_parameters_links_and_a_recording():
    for name in profiles.NOTEBOOKS:
        cells = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text())["cells"]
        tagged = [c for c in cells if "parameters" in c.get("metadata", {}).get("tags", [])]
        assert len(tagged) == 1, name
        code = ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
        text = "".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
        assert "session.record(" in code[-1] and ".ipynb)" in text
