"""Tables from made-up records of real grids, never kept outside a temporary folder."""

import csv
import math
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from spacedkd_lib import __main__ as cli
from spacedkd_lib.errors import InputError
from spacedkd_lib.lab import arms, claims, grids, lead_lag
from spacedkd_lib.recipes import DEVIATIONS
from spacedkd_lib.report import frames, readme, side_by_side as side, tables, text, two_machines
from spacedkd_lib.statistics import paired_by_seed, paired_interval, seeds_needed
from spacedkd_lib.store import records
from spacedkd_lib.store.records import Record
from spacedkd_lib.training import train

PROVENANCE = {"dataset": "glyphs", "data_sha256": "ab" * 32, "device": "cpu", "device_name": "AVX2",
              "threads": 1, "seconds": 1.5, "cpu": "Test CPU", "torch": "2.11.0", "python": "3.11.9",
              "git_commit": "c0ffee" * 6, "git_dirty": False, "finished": "2026-12-01T12:00:00Z"}


def synthetic(rows, shift=0.0):
    """Run id -> record with made-up numbers: a seed's own level, an arm's effect, and a little noise."""
    found = {}
    for row in rows:
        effect = len(row.arm) / 10
        rng = np.random.default_rng([row.seed, len(row.arm)])
        curve = 60 + 3 * (row.seed % 10) + effect + shift + np.array([0.0, 6.0, 5.0]) + rng.normal(0, 0.2, 3)
        epochs = [{"epoch": e + 1, "test_accuracy": float(a), "student_loss": 2.0 - e, "seconds": 0.5}
                  for e, a in enumerate(curve)]
        summary = {"test_accuracy": epochs[-1]["test_accuracy"], "best_on_test_accuracy": float(curve.max()),
                   "best_on_val_accuracy": float(curve[1]), "teacher_updates": 30 * ("KD" in row.arm),
                   "student_updates": 30, "train_gmacs": 1234.5}
        if row.recipe.method == "self_kd":
            summary["ensemble_test_accuracy"] = summary["test_accuracy"] + 1
        found[row.recipe.run_id] = Record(row.recipe, epochs, summary, PROVENANCE | {"dataset": row.recipe.dataset})
    return found


SPACED, SELF = (grids.grid("study", name, 4) for name in ("05_spaced_kd", "04_self_kd"))
IN_ORDER = list(dict.fromkeys((row.setting, row.arm) for row in SPACED))
SPACED_RECORDS, SELF_RECORDS = synthetic(SPACED), synthetic(SELF)


KNOWN = {row.arm: (row.family, row.recipe.interval)
         for row in grids.grid("paper", None, 1) + grids.grid("study", None, 1)}


def tidy(values, notebook="05_spaced_kd", setting="glyphs"):
    """As from `tables.runs`: arm -> accuracies, of seed 0, 1, ..."""
    return pd.DataFrame([{"notebook": notebook, "setting": setting, "arm": arm, "seed": seed,
                          **dict(zip(("family", "interval"), KNOWN.get(arm, (arm, 0.0)))),
                          "run_id": f"{notebook[:2]}-{setting}-{arm}-{seed}".replace(" ", "-"),
                          "test_accuracy": accuracy}
                         for arm, accuracies in values.items() for seed, accuracy in enumerate(accuracies)])


def cells(markdown):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown.splitlines()
            if line.startswith("|")]


def accuracies(frame, arm, setting="glyphs"):
    part = frame[(frame["setting"] == setting) & (frame["arm"] == arm)]
    return part.sort_values("seed")["test_accuracy"].tolist()


def test_runs_are_tidy_and_hold_only_what_exists():
    some = {row.recipe.run_id: SPACED_RECORDS[row.recipe.run_id] for row in SPACED if row.seed != 202}
    frame = tables.runs(SPACED, some)
    wanted = [row for row in SPACED if row.seed != 202]
    assert frame["run_id"].tolist() == [row.recipe.run_id for row in wanted]
    assert frame["arm"].tolist() == [row.arm for row in wanted]
    assert list(frame.columns[:6]) == [*tables.KEYS, "test_accuracy"]
    assert list(frame.columns[-7:]) == frames.PROVENANCE + frames.OF_ARM
    for _, line in frame.iterrows():
        assert line["test_accuracy"] == some[line["run_id"]].summary["test_accuracy"]


EPOCHS = [  # of one run
    {"test_accuracy": 68.0, "val_accuracy": 61.0, "ensemble_test_accuracy": 75.0},
    {"test_accuracy": 71.0, "val_accuracy": 65.0, "ensemble_test_accuracy": 72.0},
    {},  # not evaluated
    {"test_accuracy": 73.0, "val_accuracy": 62.0, "ensemble_test_accuracy": 76.0},
    {"test_accuracy": 70.0, "val_accuracy": 64.0, "ensemble_test_accuracy": 74.0}]


def test_accuracies_that_a_headline_may_be_against_numbers_by_hand():
    rows = [row for row in SELF if row.arm == "self KD"]
    epochs = [{"epoch": e + 1, "teacher_updates": 1, "student_updates": 1, **numbers} for e, numbers in enumerate(EPOCHS)]
    found = {row.recipe.run_id: Record(row.recipe, epochs, train.summarise(epochs, {}, 1), PROVENANCE) for row in rows}
    assert tables.runs(rows, found)[["test_accuracy", "best_on_val_accuracy", "best_on_test_accuracy",
                                     "ensemble_test_accuracy"]].values.tolist() == [[70.0, 71.0, 73.0, 74.0]] * 4


def test_epochs_have_one_line_each():
    frame = tables.epochs(SPACED, SPACED_RECORDS)
    assert len(frame) == 3 * len(SPACED)
    run_id = SPACED[5].recipe.run_id
    one = frame[frame["run_id"] == run_id]
    assert one["test_accuracy"].tolist() == [e["test_accuracy"] for e in SPACED_RECORDS[run_id].epochs]


def test_summary_against_its_definition():
    frame = tables.runs(SPACED, SPACED_RECORDS)
    table = tables.summary(frame)
    assert list(zip(table["Setting"], table["Arm"])) == IN_ORDER and not [name for name in table if "p (" in name]
    line = table[(table["Setting"] == "glyphs") & (table["Arm"] == "spaced KD s=1.5")].iloc[0]
    arm = accuracies(frame, "spaced KD s=1.5")
    assert (line["n"], line["Test accuracy (%)"]) == (4, pytest.approx(np.mean(arm)))
    assert line["sd"] == pytest.approx(np.std(arm, ddof=1))
    for other in ("baseline", "online KD"):
        i = paired_interval(arm, accuracies(frame, other))
        got = [line[f"vs {other}{part}"] for part in (" (points)", ": low", ": high", ": pairs")]
        assert got == pytest.approx([i.mean, i.low, i.high, i.n])
    assert (line["Teacher updates"], line["Student updates"], line["Training GMACs"]) == (30, 30, 1234.5)


def test_self_kd_is_compared_with_self_kd_and_shows_its_ensemble():
    table = tables.summary(tables.runs(SELF, SELF_RECORDS))
    assert "vs self KD (points)" in table and "vs online KD (points)" not in table
    line = table.set_index("Arm").loc
    assert line["self KD", "Ensemble (%)"] == pytest.approx(line["self KD", "Test accuracy (%)"] + 1)
    assert math.isnan(line["baseline", "Ensemble (%)"]) and math.isnan(line["self KD", "vs self KD (points)"])


def test_tables_of_nothing():
    nothing = tables.summary(tables.runs(SPACED, {}))
    assert len(nothing) == 0 and len(text.formatted(nothing)) == 0
    assert len(tables.epochs(SPACED, {})) == 0


# Chosen comparisons

DIFFERENCE = ["Difference (points)", "Difference: low", "Difference: high"]
CHOSEN = [({"Line": arm}, arm, "baseline")
          for arm in ("spaced KD s=1.5", "offline KD", "teacher +1.5", "no arm")]


def test_differences_against_statistics():
    frame = tables.runs(SPACED, SPACED_RECORDS)
    table = tables.differences(frame, CHOSEN)
    here = {"glyphs": ["spaced KD s=1.5", "offline KD"], "glyphs, lead and lag": ["teacher +1.5"]}
    assert list(zip(table["Setting"], table["Line"])) == [(setting, arm) for setting in here for arm in here[setting]]
    for setting, part in table.groupby("Setting"):
        wanted = [paired_interval(accuracies(frame, arm, setting), accuracies(frame, "baseline", setting))
                  for arm in here[setting]]
        assert part[DIFFERENCE].values.tolist() == [pytest.approx(i[:3]) for i in wanted]
        assert part["n"].tolist() == part["Difference: pairs"].tolist() == [4] * len(part)
    assert text.formatted(table)["Difference [95% t]"].str.fullmatch(r"[+-]\S+ \[\S+, \S+\]").all()


def test_differences_of_nothing_have_their_columns():
    frame = tables.runs(SPACED, SPACED_RECORDS)
    for empty in (tables.differences(frame[:0], CHOSEN), tables.differences(frame, CHOSEN[-1:])):
        assert len(empty) == 0 and list(empty.columns) == list(tables.differences(frame, CHOSEN).columns)


def test_audit_is_with_the_deviation_minus_without_it():
    levels = {"clean": 70, "clean + A1": 68, "clean, s=0": 71, "clean + A7, s=0": 75, "clean + A7": 0,  # acts at s = 0
              "self: clean": 80, "self: clean + A3": 87}
    frame = tidy({arm: [level - 1, level, level + 1] for arm, level in levels.items()}, "09_released_code_audit")
    table = tables.audit(frame)
    assert table.set_index(["Id", "Program"])["Difference (points)"].to_dict() == {
        ("A1", "online KD"): -2, ("A7", "online KD"): 4, ("A3", "self KD"): 7}
    assert table["Deviation"].tolist() == [DEVIATIONS[id].title for id in table["Id"]]
    assert list(tables.audit(frame[:0]).columns) == list(table.columns)


def test_audit_meets_the_arms_of_the_grid():
    """Every arm that turns one switch alone has its line, in both programs."""
    rows = grids.grid("study", "09_released_code_audit", 2)
    table = tables.audit(tables.runs(rows, synthetic(rows)))
    assert len(table) == len({row.arm for row in rows if " + A" in row.arm}) == len(arms.AUDIT + arms.SELF_AUDIT)


CURVES = {"a": [2.0, 4.0, 6.0, 9.0], "b": [1.0, 2.0, 3.5, 4.0], "c": [1.1, 2.1, 2.9, 4.2],
          "d": [1.2, 1.9, 3.0, 4.1]}  # arm -> traces by seed


def curved():
    """Runs with a measure: accuracy falls with the logarithm of the trace, within arms; arm a stands above."""
    frame = tidy({arm: [50 - np.log(v) + 5 * (arm == "a") for v in traces] for arm, traces in CURVES.items()})
    return frame.assign(trace=[v for traces in CURVES.values() for v in traces])


def test_measured_joins_the_single_numbers_of_a_measure():
    frame = tidy({"a": [1, 2], "b": [3, 4]})
    found = {frame["run_id"][k]: {"trace": np.array(float(k)), "steps": np.arange(3)} for k in (0, 3)}
    joined = tables.measured(frame, found)
    assert joined["trace"].tolist() == [0, 3] and "steps" not in joined and joined["arm"].tolist() == ["a", "b"]
    assert len(tables.measured(frame, {})) == 0


def test_conditions_are_a_line_each():
    frame = tidy({"a": [1, 2]})
    scored = {frame["run_id"][1]: {"kind": np.array(["clean", "attack"]), "accuracy": np.array([80.0, 20.0])}}
    lines = tables.conditions(frame, scored)
    assert lines[["seed", "kind", "accuracy"]].values.tolist() == [[1, "clean", 80.0], [1, "attack", 20.0]]


def test_paired_ratios_are_geometric():
    table = tables.paired(curved(), [("a", "b"), ("c", "b")], {"trace": "Trace"}, ratio=True)
    i = paired_interval(np.log(CURVES["a"]), np.log(CURVES["b"]))
    assert table.loc[0, "Trace"] == "{:.2f} [{:.2f}, {:.2f}]".format(*np.exp(i[:3]))
    assert table["n"].tolist() == [4, 4] and table["Beside"].tolist() == ["b", "b"]
    differences = tables.paired(curved(), [("a", "b"), ("a", "none")], {"trace": "Trace"})
    assert len(differences) == 1 and differences.loc[0, "Trace"].startswith("+2.62 [")


def test_predicts_tells_arms_from_seeds():
    """Over seeds of an arm r is -1; over the arms of a seed arm a, with the largest trace, is the best: r is positive.
    At equal values of what makes arm a better, nothing positive is left."""
    frame = curved().assign(validation=np.nan)
    frame["loss"] = np.exp(frame["arm"] == "a") * np.where(frame["arm"] == "d", 1.01, 1)
    first, last = tables.predicts(frame, {"trace": "Trace", "loss": "Loss"}, given="loss").to_dict("records")
    assert first["r over the seeds of an arm"] == "-1.00" and first["Seeds"] == 4  # too few seeds for a bootstrap
    assert float(first["r over the arms of a seed"].split()[0]) > 0.8 > float(first["given loss"].split()[0])
    assert last["given loss"] == ""


def test_the_interval_of_a_correlation_is_cut_where_none_can_be():
    frame = tidy({"a": [1, 3], "b": [2, 1], "c": [3, 2.5]}).assign(trace=[1, 1, 2, 2, 3, 3])
    line, = tables.predicts(frame, {"trace": "Trace"}).to_dict("records")
    assert line["r over the arms of a seed"].endswith("[-1.00, 1.00]")


def test_predicts_resamples_whole_seeds():
    rng = np.random.default_rng(0)
    traces = np.exp(rng.standard_normal((12, 4)) + 2 * rng.standard_normal((12, 1)))
    values = {arm: list(60 - np.log(traces[:, k]) + rng.standard_normal(12)) for k, arm in enumerate("abcd")}
    frame = tidy(values).assign(trace=traces.T.ravel())
    line, = tables.predicts(frame, {"trace": "Trace"}).to_dict("records")
    everywhere, within = line["r, all runs"], line["r over the seeds of an arm"]
    all_runs = np.corrcoef(np.log(frame["trace"]), frame["test_accuracy"])[0, 1]
    assert float(everywhere.split()[0]) == pytest.approx(all_runs, abs=0.006)
    by_arm = [np.corrcoef(np.log(part["trace"]), part["test_accuracy"])[0, 1] for _, part in frame.groupby("arm")]
    assert float(within.split()[0]) == pytest.approx(np.mean(by_arm), abs=0.006)
    for cell in (everywhere, within):
        mean, low, high = (float(number.strip("[],")) for number in cell.split())
        assert -1 <= low < mean < high < 0


def test_one_seed_and_missing_arms_are_shown_as_such():
    rows = [row for row in SPACED if row.arm == "offline KD" or (row.arm == "online KD" and row.seed == 200)]
    shown = text.formatted(tables.summary(tables.runs(rows, SPACED_RECORDS))).set_index(["Setting", "Arm"])
    one = shown.loc[("glyphs", "online KD")]
    assert re.fullmatch(r"\d\d\.\d\d", one["Test accuracy (%) ± sd"]) and one["n"] == "1"
    assert shown["vs baseline [95% t]"].tolist() == ["", ""]
    assert shown.loc[("glyphs", "offline KD"), "vs online KD [95% t]"].endswith(" (one pair)")


def test_formatted_cells():
    nan = math.nan
    table = pd.DataFrame({
        "Arm": ["a", "b"], "n": [5, 5], "Test accuracy (%)": [71.204, 70.0], "sd": [0.5, 0.0],
        "vs a (points)": [nan, -0.001], "vs a: low": [nan, -1.104], "vs a: high": [nan, 12.3],
        "vs a: pairs": [0, 3], "Student updates": [0, 12345],
        "Training GMACs": [0.123, 123456.7]})
    shown = text.formatted(table)
    assert shown.values.tolist() == [
        ["a", "5", "71.20 ± 0.50", "", "0", "0.12"],
        ["b", "5", "70.00 ± 0.00", "+0.00 [-1.10, 12.30] (3 pairs)", "12,345", "123,457"]]
    assert text.formatted(shown).equals(shown)


def test_formatted_claims_say_that_their_intervals_are_corrected():
    table = pd.DataFrame({"Claim": ["P1"] * 3, "n": [3, 3, 1], "Difference (points)": [1.0] * 3,
                          "Difference: low": [0.5, 0.5, math.nan], "Difference: high": [1.5, 1.5, math.nan],
                          "Level (%)": [97.5] * 3, "p (Holm)": [4e-5, 0.0123, math.nan]})
    shown = text.formatted(table)
    assert shown["Difference [corrected]"].tolist() == ["+1.00 [0.50, 1.50]"] * 2 + ["+1.00 (one pair)"]
    assert shown["p (Holm)"].tolist() == ["<0.001", "0.012", ""] and text.formatted(shown).equals(shown)


# Files

def test_write_keeps_every_digit(tmp_path):
    table, path = tables.summary(tables.runs(SPACED, SPACED_RECORDS)), tmp_path / "deep" / "05_spaced_kd.csv"
    text.write(table, path)
    assert list(path.parent.iterdir()) == [path]  # nothing half-written
    lines = list(csv.DictReader(path.open()))
    assert [float(line["Test accuracy (%)"]) for line in lines] == table["Test accuracy (%)"].tolist()
    before = path.read_bytes()
    text.write(table, path)
    assert path.read_bytes() == before


def test_markdown_shows_what_people_see():
    table = tables.summary(tables.runs(SPACED, SPACED_RECORDS))
    shown, lines = text.formatted(table), cells(text.markdown(table))
    assert lines[0] == list(shown.columns) and lines[2:] == shown.values.tolist()


def test_markdown_escapes_bars():
    table = pd.DataFrame({"a|b": ["x|y"], "c": ["p<0.001 ± -1.5 [-2.00, s-1]"]})
    assert text.markdown(table).splitlines()[2] == r"| x\|y | p<0.001 ± -1.5 [-2.00, s-1] |"


# This machine and the published records

def agreement(local, published, rows=SPACED):
    table = two_machines.comparison_table(rows, local, published)
    assert not table.duplicated(["Setting", "Arm", "Notebooks"]).any()
    return table.set_index(["Setting", "Arm"])["Agreement"]


def moved(record, points):
    """Another run's record: its accuracy is `points` higher, its epochs are others."""
    accuracy = record.summary["test_accuracy"] + points
    return replace(record, epochs=[], summary=record.summary | {"test_accuracy": accuracy})


def test_compare_bit_for_bit():
    later = {i: replace(r, epochs=[e | {"seconds": 9.0} for e in r.epochs])
             for i, r in SPACED_RECORDS.items()}
    assert set(agreement(later, SPACED_RECORDS)) == {"bit for bit"}
    fewer = {i: r for i, r in later.items() if r.recipe.seed == 201}  # make reproduce SEEDS=...
    assert set(agreement(fewer, SPACED_RECORDS)) == {"bit for bit"}


def test_compare_within_differs_and_missing():
    shifted = {i: moved(r, 0.01) for i, r in SPACED_RECORDS.items()}
    assert set(agreement(shifted, SPACED_RECORDS)) == {"within the interval"}
    apart = {i: moved(r, 5) if r.recipe.method == "offline_kd" else r for i, r in SPACED_RECORDS.items()}
    got = agreement(apart, SPACED_RECORDS)
    assert got[("glyphs", "offline KD")] == "differs" and got[("glyphs", "online KD")] == "bit for bit"
    without = {i: r for i, r in SPACED_RECORDS.items() if r.recipe.method != "offline_kd"}
    assert agreement(without, SPACED_RECORDS)[("glyphs", "offline KD")] == "not run"
    assert agreement(SPACED_RECORDS, without)[("glyphs", "offline KD")] == "not published"
    one = {i: r for i, r in SPACED_RECORDS.items() if r.recipe.seed == 200}
    assert set(agreement(shifted, one)) == {"too few seeds to say"}


def test_compare_is_paired():
    """Seeds move both arms by 3 points; the published interval of the difference is much narrower."""
    alike = {i: moved(r, 2) for i, r in SPACED_RECORDS.items()}
    assert agreement(alike, SPACED_RECORDS)[("glyphs", "online KD")] == "within the interval"
    alone = {i: moved(r, 2) if r.recipe.method != "baseline" else r for i, r in SPACED_RECORDS.items()}
    assert agreement(alone, SPACED_RECORDS)[("glyphs", "online KD")] == "differs"


def test_compare_has_one_line_for_a_shared_run():
    table = two_machines.comparison_table(grids.grid("quick", None, 1), {}, {})
    baselines = table[table["Arm"] == "baseline"]
    assert baselines["Notebooks"].tolist() == ["02 03 05 06 07 13", "04", "10 11", "12"]  # others in 04, 10 and 12


def test_the_page_of_a_comparison():
    apart = {i: moved(r, 20) if r.recipe.method == "offline_kd" else r for i, r in SPACED_RECORDS.items()}
    page = two_machines.comparison_page(SPACED, apart, SPACED_RECORDS)
    assert "Here: Test CPU" in page and f"of {len(SPACED_RECORDS)} records equal" in page and "| differs " in page


def test_local_and_published_profiles(tmp_path, monkeypatch):
    monkeypatch.setenv("SPACEDKD_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(records, "ROOT", tmp_path)
    monkeypatch.setattr(records, "SHIPPED", tmp_path)
    record = SPACED_RECORDS[SPACED[0].recipe.run_id]
    records.write_atomically(tmp_path / "runs" / record.run_id / "result.json", record.to_json())
    assert frames.local_records(SPACED) == {record.run_id: record}
    assert frames.published_profiles() == []
    records.publish([record], "quick")
    assert frames.published_profiles() == ["quick"]
    records.publish([record], "core")
    assert frames.published_profiles() == ["core", "quick"]


# README

CLAIMED = {arm for claim in claims.PRIMARY for arm in claim[2:]}


def publish(profile, *arms, seeds=3, notebooks=("04_self_kd", "05_spaced_kd")):
    """Made-up records of these arms, or of all."""
    rows = [row for name in notebooks for row in grids.grid(profile, name, seeds) if row.arm in arms or not arms]
    records.publish(synthetic(rows).values(), profile)
    return rows


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A place of its own for results and READMEs."""
    monkeypatch.setattr(records, "ROOT", tmp_path)
    monkeypatch.setattr(records, "SHIPPED", tmp_path)
    return tmp_path


def test_blocks_without_records_say_so(place):
    for block in (readme.readme_block, readme.results_block):
        assert block([]) == block(["study"]) == readme.NOTHING


def test_readme_block(place):
    published = publish("study", *CLAIMED, "self KD", "spaced self KD s=2", "spaced self KD s=4")
    publish("cifar100-slice")
    block = readme.readme_block(["study", "cifar100-slice"])
    *answers, _, paper, sources = block.strip().split("\n\n")
    frame = tables.runs(published, synthetic(published))
    own = paired_interval(accuracies(frame, "spaced self KD s=4"), accuracies(frame[frame.notebook == "04_self_kd"],
                                                                                "self KD"))
    online, at_one_set, _, self_kd = cells(paper)[2:]
    assert online[:3] == ["online KD, each tuned", "up to 2.31", "1.5"]
    assert online[4:] == ["3", "1.5", "CIFAR-100, 5,000 images"] == at_one_set[4:]
    assert self_kd == ["self KD", "up to 3.34", "4", f"{own.mean:+.2f} [{own.low:.2f}, {own.high:.2f}]", "3", "4",
                       "glyphs"]
    at, _ = (next(k for k, part in enumerate(answers) if part.startswith(f"**On {setting}, spaced KD "))
             for setting in claims.JUDGED)
    judged = claims.judged(frame).set_index("Against").loc["label smoothing"]
    sentence = re.search(r"- label smoothing: \*\*(\S+) \[(\S+), (\S+)\]\*\*", answers[at + 2])
    assert list(map(float, sentence.groups()[:3])) == pytest.approx(
        [judged[f"Difference{part}"] for part in (" (points)", ": low", ": high")], abs=0.051)
    verdict = readme.VERDICTS["worse" if judged["Difference: high"] < 0 else judged["Result"]]
    assert f". It {verdict} label smoothing." in answers[at]
    for value in ("study", "21", "Test CPU", "2.11.0", "3.11.9", "c0ffeec0", "cifar100-slice"):
        assert value in sources


def test_publishing_writes_records_pages_and_the_law(place, monkeypatch, capsys):
    monkeypatch.setenv("SPACEDKD_RUNS", str(place / "runs"))
    for page in ("README.md", "results/README.md"):
        records.write_atomically(place / page, f"Before.\n{readme.START}\n{readme.END}\n")
    law = [row for row in grids.grid("study", "05_spaced_kd") if row.setting == claims.LAG_SETTING]
    for run_id, record in synthetic(law).items():
        records.write_atomically(place / "runs" / run_id / "result.json", record.to_json())
    assert cli.main(["publish", "--profile", "study"]) == 0
    assert f"Published {len({row.recipe.run_id for row in law})} records" in capsys.readouterr().out
    shown, results = ((place / page).read_text() for page in ("README.md", "results/README.md"))
    accuracy = tables.runs(law, synthetic(law)).groupby("arm").test_accuracy.mean()
    for words, (arm, other) in claims.PARTS.items():
        line = f"- {words}: **{accuracy[arm] - accuracy[other]:+.2f} ["
        assert line in results and (line in shown) == (words in readme.LEAD)
    assert shown.startswith("Before.") and f"({readme.LAW})" in shown
    assert (place / readme.LAW).stat().st_size > 10_000
    assert "first learn four epochs" in results and lead_lag.LABELS_FIRST == 4 and "### The lead-lag law" in results


@pytest.mark.parametrize("gain", (2.0, -1.0))
def test_both_sides_at_one_set_of_values(monkeypatch, gain):
    monkeypatch.setattr(arms, "tuned", lambda label, family: {"lr": 0.8, "alpha": 0.7} if family == "spaced KD" else {})
    rows = grids.grid("study", "05_spaced_kd", 5)
    frame = tables.runs(rows, synthetic(rows))
    (ahead, rival), (ahead_there, rival_there) = claims.SAME_VALUES.values()
    gains = [gain * k for k in (0, 0, 0, 0, 10)]  # too far apart to show a gain
    whole = [math.copysign(3 - 0.1 * k, gain) for k in range(5)]
    online = [70 + g - of for g, of in zip(gains, whole)]
    accuracies = {ahead: [70 + g for g in gains], rival: 70.0,
                  ahead_there: [69 + 2 * gain + 0.1 * gain * k for k in range(5)], rival_there: 69.0,
                  "online KD, eval mode": 40.0, "spaced KD, eval mode": [66.0 + g for g in gains],
                  claims.NO_SPACE[1]: online, claims.LATE_START["the lead"][1]: [a + 0.2 * k for k, a in enumerate(online)]}
    for arm, values in accuracies.items():
        frame.loc[frame["arm"] == arm, "test_accuracy"] = values
    without = frame[frame["arm"] != "baseline"]  # as on CIFAR-100, where no arm learns from labels alone
    for parts in (readme.explanations(frame), readme.answers(frame), readme.answers(without)):
        said = next(part for part in parts if part.startswith("Does the gain come"))
        assert re.findall(r"\*\*([+-]\S+) ", said) == [f"{2 * gain:+.2f}", f"{2.2 * gain:+.2f}"]
        assert any(part.startswith("Minus labels alone") for part in parts) == (parts != readme.answers(without))
    gained = readme.paper_and_ours(frame)["Ours (points)"][:3]
    assert [float(of.split()[0]) for of in gained] == pytest.approx([2 * gain + 1, 2 * gain, 2.2 * gain])
    told = re.search(r"both at spaced KD's values, .* as released (.*) shown. With .* online KD, it (.*) shown",
                     readme.answers(without)[0])
    assert told.groups() == ("is not", "is" if gain > 0 else "is not")
    assert any("α = 0.7 in spaced KD, and 0.3 in online KD" in part for part in readme.answers(frame))
    said = next(part for part in readme.explanations(frame) if part.startswith("Does it come from the first epochs"))
    assert re.findall(r"\*\*([+-]\S+) ", said) == ["+0.40", *(("+2.40", "+2.80") if gain > 0 else ("-3.20", "-2.80"))]
    i = paired_interval([0.4 * k for k in range(5)], whole)
    assert f"Late start minus the rest is {i.mean:+.2f} [{i.low:.2f}, {i.high:.2f}]" in said
    assert said.strip().endswith("is wrong." if gain > 0 else "holds.")
    said = next(part for part in readme.explanations(frame) if part.startswith("How the teacher is asked"))
    assert re.findall(r"\*\*([+-]\S+) ", said) == [f"{40 - sum(online) / 5:+.2f}", f"{26 + 2 * gain:+.2f}"]


@pytest.mark.parametrize("sam", [0.5, 1.0])
def test_results_say_whether_minima_are_flatter_by_measures_that_sam_lowers(sam):
    """Quotients at one set of values. Here SAM can lower the trace and the rise, and no other measure."""
    traces = {"baseline, at SAM's values": 10.0, "SAM": 10 * sam, claims.NO_SPACE[1]: 12.0, claims.AHEAD: 15.0}
    frame = pd.DataFrame([{"notebook": "06_loss_landscape", "setting": claims.JUDGED[0], "arm": arm, "seed": seed,
                           "run_id": f"{arm} {seed}"} for arm in traces for seed in range(3)])
    found = {}
    for run in frame["run_id"]:
        trace = traces[run[:-2]] * (1 + 0.1 * int(run[-1]))
        found |= {(run, "curvature"): dict.fromkeys(readme.MEASURES, np.array(1.0)) | {"trace": np.array(trace)},
                  (run, "noise"): {"sigmas": np.array([0.0, 0.3]), "loss": np.array([[1.0], [1 + 2 * trace**2]])}}
    short, each = readme.flatness(frame, found)
    assert re.findall(r"\*\*(\S+) \[", each) == (["1.25", f"{1.25**2:.2f}"] if sam < 1 else [])
    assert f"lowers {2 * (sam < 1)} of 7 " in short and "In 0 of these" in short and ("noise" in each) == (sam < 1)
    assert readme.flatness(frame, {}) == []


def test_readme_block_of_arms_that_make_no_claim(place):
    publish("study", "baseline", "self KD")
    block = readme.readme_block(["study"])
    assert [line[3:] for line in cells(block)[2:]] == [["", "", "", ""]] * 4
    assert readme.results_block(["study"]).count("###") == 3  # no family of claims, no law


def test_results_block(place):
    published = publish("study")
    block = readme.results_block(["paper", "study"])
    _, primary, _, others, law, tuned, rest = re.split(r"### .*\n", block)[1:]
    assert ["glyphs", "100, 101, 102", "spaced KD", "lr 0.4, weight_decay 0.002, alpha 0.5, temperature 1", "88.64", "19", "3"] in cells(tuned)
    judged = claims.judged(tables.runs(published, synthetic(published)))
    assert cells(primary)[0] == ["Claim", "Statement", "Setting", "n", "Difference [corrected]", "Level (%)",
                                 "p (Holm)", "Result"]
    assert [line[0::3] for line in cells(primary)[2:]] == [[c, "3", f"{p:.3f}" if p >= 0.001 else "<0.001"]
                                                           for c, p in zip(judged["Claim"], judged["p (Holm)"])]
    assert [tuple(line[2:4]) for line in cells(others)[2:]] == [(arm, other) for _, arm, other in readme.OTHERS
                                                                if arm.startswith("spaced self KD")]
    letters = tables.runs(published, synthetic(published)).query("notebook == '05_spaced_kd' and setting == 'glyphs'")
    for claim in claims.PRIMARY:
        sd = paired_by_seed(letters, claim.arm, claim.reference).sd
        assert f" {seeds_needed(0.5, sd, level=1 - 0.05 / 3)} for {claim.id}" in primary
    _, predictions, _, score = law.strip().split("\n\n")
    assert len(cells(predictions)) == 2 + len(claims.PREDICTIONS) and cells(score)[0][0] == "Theory"
    lines = {(line[0], line[3]): line for line in cells(rest)[2:] if line[1] != "resnet10, width 8"}
    assert list(lines) == IN_ORDER and len(cells(rest)) == 2 + len(IN_ORDER) + 6
    frame = tables.runs(published, synthetic(published)).query("notebook == '05_spaced_kd'")
    i = paired_interval(accuracies(frame, "spaced KD s=1.5"), accuracies(frame, "online KD"))
    spaced = lines["glyphs", "spaced KD s=1.5"]
    assert spaced[-1] == f"{i.mean:+.2f} [{i.low:.2f}, {i.high:.2f}]" and spaced[2] == "30" and spaced[4] == "3"
    assert lines["glyphs", "baseline, equal compute"][2] == "70"
    assert lines["glyphs", "baseline"][-1] == ""  # the same difference, the other way round
    assert "c0ffeec0" in rest and "glyphs abababababab" in rest and "Holm" not in rest


def test_results_leave_quick_out_where_study_is_published(place):
    path = place / "README.md"
    path.write_text(f"{readme.START}{readme.END}")
    publish("study", "baseline", "online KD")
    publish("quick", "baseline", "online KD")
    for block in (readme.readme_block, readme.results_block):
        readme.update_readme(path, block)
        assert set(re.findall(r"Profile ([\w-]+)", path.read_text())) == {"study"}
        assert "Profile quick" in block(["quick"])


def test_update_readme_changes_only_its_own_part(place):
    path, block = place / "README.md", lambda profiles: f"of {profiles}\n"
    path.write_text(f"# Before\n{readme.START}\nwhat stood here\n{readme.END}\nafter \\1\n")
    for _ in range(2):
        readme.update_readme(path, block)
        assert path.read_text() == f"# Before\n{readme.START}\n\nof []\n\n{readme.END}\nafter \\1\n"


@pytest.mark.parametrize("content", [None, readme.START])
def test_update_readme_refuses_a_file_without_marks(place, content):
    path = place / "README.md"
    if content:
        path.write_text(content)
    with pytest.raises(InputError, match=f"README.md.*{readme.START}.*{readme.END}"):
        readme.update_readme(path, readme.readme_block)


# Grades, and all methods side by side

def graded():
    """Two runs of three grades, and one that does not grow."""
    at = {"grade1_test_group1": (80, 70), "grade2_test_group1": (60, 70), "grade2_test_group2": (50, 40),
          "grade1_test_group2": (0, 0), "test_group1": (55, 65), "test_group2": (52, 44), "test_group3": (30, 20)}
    frame = tidy({"online ED": [1.0, 2.0], "baseline": [3.0]}, "11_education_distillation")
    return frame.assign(**{f"{name}_accuracy": [*values, math.nan] for name, values in at.items()})


def test_groups_are_told_from_their_own_grade_on():
    found = tables.by_grade(graded())
    assert set(found["arm"]) == {"online ED"} and len(found) == 2 * (1 + 2 + 3)
    first = found[found["seed"] == 0].set_index(["grade", "group"])["accuracy"].to_dict()
    assert first == {(1, 1): 80, (2, 1): 60, (2, 2): 50, (3, 1): 55, (3, 2): 52, (3, 3): 30}
    assert tables.by_grade(tidy({"baseline": [1.0]})).empty


def test_forgetting_is_paired_and_of_earlier_groups():
    table = tables.forgetting(tables.by_grade(graded()))
    assert table["Group"].tolist() == [1, 2] and table["n"].tolist() == [2, 2]
    assert table["Forgotten (points)"].tolist() == [15.0, -3.0]  # (25 + 5) / 2, (-2 - 4) / 2
    assert table["After its grade (%)"].tolist() == [75.0, 45.0]
    assert tables.forgetting(tables.by_grade(tidy({"baseline": [1.0]}))).empty


def test_all_methods_side_by_side():
    rows = grids.grid("study", seeds=2)
    found = synthetic(rows)
    for row in rows:  # a student that grows makes fewer updates
        found[row.recipe.run_id].summary["student_updates"] = 20 if row.arm == "offline ED" else 30
    table = tables.side_by_side(rows, found, lambda recipe: recipe.width)
    glyphs = table[table["Setting"] == "glyphs"].set_index("Method")
    assert {KNOWN[arm][0] for arm in glyphs.index} == {family for of in side.SIDE_BY_SIDE.values() for family in of}
    assert "spaced KD s=1.5" in glyphs.index and "spaced self KD s=2" in glyphs.index  # the nearest to 1.5
    assert glyphs.index.tolist().count("baseline") == 2  # of self KD's network as well
    assert glyphs.loc["offline ED", "Note"] == "student updates: 0.67 times the baseline's"
    assert glyphs.loc["online KD", "Note"] == "" and "one network" in glyphs.loc["self KD", "Note"]
    wanted = [found[row.recipe.run_id].summary["test_accuracy"] for row in rows
              if row.notebook == "10_ie_kd" and row.setting == "glyphs" and row.arm == "DML"]
    assert glyphs.loc["DML", "n"] == 2 and glyphs.loc["DML", "Test accuracy (%)"] == pytest.approx(np.mean(wanted))
    assert list(dict.fromkeys(table["Setting"])) == ["glyphs", "glyphs, lead and lag"]
    assert glyphs["Parameters"].tolist() == [8] * len(glyphs) and not list(tables.absent(rows, found))


def test_side_by_side_without_the_other_notebooks():
    rows = grids.grid("quick", seeds=2)
    own = [row for row in rows if row.notebook == "11_education_distillation"]
    found = synthetic(own)
    table = tables.side_by_side(rows, found, str)
    assert "online KD" not in set(table["Method"]) and "online ED" in set(table["Method"])
    said, = tables.absent(rows, found)
    assert said.startswith("glyphs, miniature: no finished runs of offline KD, online KD, spaced KD, self KD")
    assert "ED" not in said.replace("finished", "")
    assert tables.side_by_side(rows, {}, str).empty


@pytest.mark.parametrize("values, said", [
    ([2.0, 4.0, 4.4], "On glyphs, *SAM* has 2.06 [1.80, 2.37] times the trace of *baseline* (n = 3). The interval lies above 1."),
    ([0.5, 2.0, 3.0], "The interval holds 1"), ([0.5, 1.0, 0.9], "The interval lies below 1."), ([2.0], "2.00 times")])
def test_quotients_in_words(values, said):
    frame = tidy({"SAM": values, "baseline": [1.0, 2.0, 2.0]}).rename(columns={"test_accuracy": "trace"})
    assert said in tables.times_in_words(frame, "SAM", "baseline", "trace", "trace")
    assert "No pair" in tables.times_in_words(frame, "SAM", "online KD", "trace", "trace")
