"""Claims: each verdict follows from the rule and from nothing else, and each claim is older than what judges it."""

import math
import os
import re
import subprocess
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from test_tables import tidy

from spacedkd_lib.analysis import theory
from spacedkd_lib.lab import arms, claims, grids, lead_lag, profiles
from spacedkd_lib.lab.claims import PREDICTIONS, PRIMARY, Claim
from spacedkd_lib.report import frames
from spacedkd_lib.statistics import seeds_needed
from spacedkd_lib.store import records, software

ROOT = Path(__file__).resolve().parent.parent
BASE = [60.0, 63.0, 61.0, 66.0, 64.0]
ARMS = {"base": BASE, "better": [b + d for b, d in zip(BASE, [2.0, 2.2, 1.8, 2.1, 1.9])],
        "worse": [b + d for b, d in zip(BASE, [-2.2, -1.1, -3.0, -2.2, -1.1])],
        "noisy": [b + d for b, d in zip(BASE, [3.0, -1.0, 2.0, -2.0, 4.0])]}
CLAIMS = tuple(Claim(name, f"{name} beats base.", name, "base") for name in ARMS if name != "base")


def line(table, claim, setting="glyphs"):
    return table[(table["Claim"] == claim) & (table["Setting"] == setting)].squeeze()


# The register

def test_the_study_has_both_arms_of_every_claim_and_prediction():
    there = {(row.setting, row.arm) for row in grids.grid("study", "05_spaced_kd", 1)}
    assert {("glyphs", arm) for claim in PRIMARY for arm in claim[2:]} <= there
    assert {(claims.LAG_SETTING, arm) for pair in PREDICTIONS for arm in pair[:2]} <= there
    tuned = {setting.label for profile in profiles.PROFILES.values() for setting in profile.settings if setting.tuned}
    assert tuned == {*claims.JUDGED, claims.LAG_SETTING}
    pairs = [claim[2:] for claim in PRIMARY] + [of[:2] for of in PREDICTIONS]
    assert len({frozenset(pair) for pair in pairs}) == len(pairs)  # no comparison is stated twice


def test_a_setting_of_the_primary_family_alone_has_its_arms():
    setting = arms.Setting("digits", profiles.GLYPHS, only=arms.primary_arms)
    there = {arm.name for arm in arms.arms_of(setting, "05_spaced_kd")}
    assert there == {arm for claim in PRIMARY for arm in claim[2:]} and not arms.arms_of(setting, "02_baselines")


# Judging

def by_scipy(arms, size):
    """Holm's step-down from the p-values of SciPy: claim -> (low, high, level, adjusted p)."""
    tests = {name: stats.ttest_rel(values, BASE) for name, values in arms.items()}
    found, adjusted, level = {}, 0.0, None
    for k, name in enumerate(sorted(tests, key=lambda name: tests[name].pvalue)):
        if adjusted < 0.05:  # until one is not shown
            level = 1 - 0.05 / (size - k)
        adjusted = max(adjusted, min(1.0, tests[name].pvalue * (size - k)))
        found[name] = (*tests[name].confidence_interval(level), 100 * level, adjusted)
    return found


def test_judged_against_scipy():
    frame = tidy(ARMS)
    table = claims.judged(frame, CLAIMS)
    wanted = by_scipy({name: ARMS[name] for name in ("better", "worse", "noisy")}, 3)
    columns = ["Difference: low", "Difference: high", "Level (%)", "p (Holm)"]
    for claim in CLAIMS:
        got = line(table, claim.id)
        assert got[columns].tolist() == pytest.approx(wanted[claim.id])
        assert got[["Statement", "Arm", "Against", "n"]].tolist() == [*claim[1:], 5]
        assert got["Difference (points)"] == pytest.approx(np.subtract(ARMS[claim.arm], BASE).mean())
        assert got["Runs"].split() == sorted(frame[frame["arm"].isin((claim.arm, "base"))]["run_id"])
    assert table["Level (%)"].round(2).tolist() == [98.33, 95.0, 97.5]  # by claim: better, noisy, worse
    assert table["Result"].tolist() == ["supported", "inconclusive", "refuted"]


def test_after_a_claim_that_is_not_shown_the_others_keep_its_level():
    """The second is shown by itself, at 95%, and not at the level of the first, which is not shown."""
    arms = {name: [b + d for b, d in zip(BASE, gains)] for name, gains in (
        ("first", [1.0, 0.1, 1.6, 0.4, 0.9]), ("second", [1.0, 0.0, 1.6, 0.4, 0.9]), ("third", [3, -1, 2, -2, 4]))}
    table = claims.judged(tidy(arms | {"base": BASE}), [Claim(name, "", name, "base") for name in arms])
    assert set(table["Level (%)"].round(2)) == {98.33} and set(table["Result"]) == {"inconclusive"}
    assert stats.ttest_rel(arms["second"], BASE).pvalue < 0.05
    assert table["Difference: low"].tolist() == pytest.approx([by_scipy(arms, 3)[name][0] for name in arms])


def test_the_size_of_a_family_is_fixed_beforehand():
    """A claim without runs, or with one pair, counts, and comes last with p = 1."""
    alone = claims.judged(tidy({"better": ARMS["better"], "base": BASE}), CLAIMS)
    assert alone["Claim"].tolist() == ["better"] and alone["Level (%)"].round(2).tolist() == [98.33]
    one = claims.judged(tidy(ARMS | {"noisy": [99.0]}), CLAIMS)
    assert line(one, "noisy")[["n", "Result", "p (Holm)"]].tolist() == [1, "inconclusive", 1.0]
    assert line(one, "better")["Level (%)"] == pytest.approx(98 + 1 / 3) and line(one, "worse")["Level (%)"] == 97.5


@pytest.mark.parametrize("frame", [
    tidy(ARMS, setting="digits"), tidy(ARMS, setting="glyphs, miniature"), tidy(ARMS, setting=claims.LAG_SETTING),
    tidy(ARMS, notebook="06_loss_landscape"), tidy({arm: ARMS[arm] for arm in ("better", "worse")}), tidy(ARMS)[:0]])
def test_nothing_else_is_judged(frame):
    """Only settings of `JUDGED`, in notebook 05, with runs of both arms."""
    assert claims.judged(frame, CLAIMS).empty and claims.matrix(claims.judged(frame, CLAIMS)).empty


def test_settings_are_families_of_their_own():
    both = pd.concat([tidy(ARMS), tidy(ARMS, setting="CIFAR-100, 5,000 images")])
    table = claims.judged(both, CLAIMS)
    assert len(table) == 6 and set(table["Level (%)"].round(2)) == {98.33, 97.5, 95.0}
    wide = claims.matrix(table)
    assert list(wide.columns) == ["Claim", "Statement", "CIFAR-100, 5,000 images", "glyphs"] and wide["Claim"].is_unique
    assert re.fullmatch(r"supported: \+2\.0 \[1\.\d, 2\.\d\]", wide["glyphs"][0])


def test_the_matrix_says_one_pair_and_leaves_gaps():
    both = pd.concat([tidy({"better": [62.0], "base": BASE}), tidy(ARMS, setting="CIFAR-100, 5,000 images")])
    wide = claims.matrix(claims.judged(both, CLAIMS)).set_index("Claim")
    assert wide["glyphs"].to_dict() == {"better": "inconclusive (n = 1)", "noisy": "", "worse": ""}


# The lead-lag law

def test_power_is_told_before_the_runs():
    seen = {"spaced KD s=1.5": [60.0, 61.0, 62.5], "label smoothing": [60.0, 60.0, 60.0]}
    table = claims.power(lambda arm: seen.get(arm, [59.0, 60.0, 61.5]), n=20)
    assert table["sd (points)"].tolist() == pytest.approx([0.0, np.std([0, 1, 2.5], ddof=1), 0.0])
    needed, power = table.iloc[1, 2:]
    sd, level = np.std([0, 1, 2.5], ddof=1), 1 - 0.05 / 3
    assert seeds_needed(0.5, sd, level=level) == needed > 20 and 0 < power < 0.8
    assert table.iloc[0, 2:].tolist() == [2, 1.0]


def law(**gains):
    """Arms of the law, five seeds each: a gain over "teacher +0, alpha tuned" and a little noise."""
    values = {"teacher +0, alpha tuned": BASE}
    for arm, gain in gains.items():
        values[arm] = [b + gain + e for b, e in zip(BASE, (0.1, -0.1, 0.0, 0.2, -0.2))]
    return tidy(values, setting=claims.LAG_SETTING)


def test_predictions_are_signs_beside_intervals():
    frame = law(**{"teacher +1.5, alpha tuned": 2.0, "teacher -1.5, alpha tuned": 2.0})
    elsewhere = tidy({"teacher +4": BASE, "teacher -4": BASE})  # another setting
    table = claims.predictions(pd.concat([frame, elsewhere]))
    assert table[["Arm", "Minus", *claims.THEORIES]].values.tolist() == [
        ["teacher +1.5, alpha tuned", "teacher +0, alpha tuned", "+", "+", "-"],
        ["teacher -1.5, alpha tuned", "teacher +0, alpha tuned", "-", "+", "+"],
        ["teacher +1.5, alpha tuned", "teacher -1.5, alpha tuned", "+", "0", "-"]]
    got = table[["Difference (points)", "Difference: low", "Difference: high", "n"]].values[0]
    error = stats.sem([0.1, -0.1, 0.0, 0.2, -0.2])
    assert got == pytest.approx([2.0, *stats.t.interval(0.95, 4, 2.0, error), 5])
    assert claims.predictions(frame[:0]).empty


def test_score_counts_what_is_right_and_what_is_contradicted():
    """Both gain 2 points, and equally; then only the one that is behind gains."""
    def scored(frame):
        return claims.score(claims.predictions(frame)).values.tolist()
    assert scored(law(**{"teacher +1.5, alpha tuned": 2.0, "teacher -1.5, alpha tuned": 2.0})) == [
        ["Ahead helps", 3, 1, 1], ["Frozen helps", 3, 3, 0], ["Linear model", 3, 1, 1]]
    assert scored(law(**{"teacher +1.5, alpha tuned": -2.0, "teacher -1.5, alpha tuned": 2.0})) == [
        ["Ahead helps", 3, 0, 3], ["Frozen helps", 3, 1, 2], ["Linear model", 3, 3, 0]]
    assert scored(law()) == [[theory, 0, 0, 0] for theory in claims.THEORIES]


# A claim is older than the runs that judge it

SOURCE = "spacedkd_lib/lab/claims.py"


def judging(published):
    """How the line of a claim or prediction begins, and when the first published run that judges it began (UTC
    timestamp).

    Args:
        published: profile -> run id -> record.
    """
    first = {}
    for name, found in published.items():
        for row in grids.tuned_grid(name, "05_spaced_kd"):
            told = [(f'Claim("{of.id}"', of[2:]) for of in PRIMARY if row.setting in claims.JUDGED]
            told += [(f'Prediction("{of.arm}", "{of.reference}"', of[:2]) for of in PREDICTIONS
                     if row.setting == claims.LAG_SETTING]
            told.append(("# Predicted before these runs", claims.LATE_START["the late start"][:1]))
            for begins, arms in told:
                if row.arm in arms and row.recipe.run_id in found:
                    origin = found[row.recipe.run_id].provenance
                    began = datetime.fromisoformat(origin["finished"]).timestamp() - origin["seconds"]
                    first[begins] = min(began, first.get(begins, math.inf))
    return first


def git(folder, *arguments, at=""):
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True, env={
        **os.environ, **({"GIT_COMMITTER_DATE": at, "GIT_AUTHOR_DATE": at} if at else {})}).stdout


def younger(folder, first):
    """The lines of claims.py in a repository that were committed after the first run that judges them began. A line
    that was moved keeps its age; one that is not committed is as old as now.

    Args:
        first: from `judging`.
    """
    lines = (folder / SOURCE).read_text().splitlines()
    late = []
    for begins, began in first.items():
        number = next(k for k, text in enumerate(lines, 1) if text.strip().startswith(begins))
        told = git(folder, "blame", "-w", "-M1", "-C1", "-C1", "--porcelain", f"-L{number},{number}", "--", SOURCE)
        if int(re.search(r"^committer-time (\d+)", told, re.M)[1]) >= began:
            late.append(begins)
    return late


def test_every_claim_is_older_than_the_runs_that_judge_it(tuned_values):
    if software.answer(["git", "rev-parse", "--is-shallow-repository"], ROOT) != "false":
        pytest.skip("no git, no repository, or a shallow clone: the age of a line is unknown")
    first = judging({name: records.read_published(name) for name in frames.published_profiles()})
    assert younger(ROOT, first) == []


@pytest.fixture
def repository(tmp_path):
    """P1 of 1 December 10:00, moved and indented an hour later."""
    path = tmp_path / SOURCE
    path.parent.mkdir(parents=True)
    git(tmp_path, "init", "-q")
    for hour, text in ((10, 'Claim("P1", "Spaced KD beats it.", "a", "b"),\n'),
                       (11, '# Claims\n    Claim("P1", "Spaced KD beats it.", "a", "b"),\n')):
        path.write_text(text)
        git(tmp_path, "add", "-A")
        git(tmp_path, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x", at=f"2020-12-01T{hour}:00:00Z")
    return tmp_path


@pytest.mark.parametrize("began, late", [("10:30", []), ("09:59", ['Claim("P1"'])])
def test_a_claim_that_is_younger_than_its_first_run_is_found(repository, began, late):
    assert younger(repository, {'Claim("P1"': datetime.fromisoformat(f"2020-12-01T{began}:00Z").timestamp()}) == late


def test_a_line_that_is_not_committed_is_young(repository):
    path, first = repository / SOURCE, {'Claim("P1"': datetime.fromisoformat("2020-12-02T00:00:00Z").timestamp()}
    assert younger(repository, first) == []
    path.write_text(path.read_text().replace("beats it", "is better"))
    assert younger(repository, first) == list(first)


def test_the_linear_model_predicts_the_registered_signs(tuned_values):
    law, L = {arm.name: arm.recipe for arm in lead_lag.lag_arms(profiles.profile("study").settings[1])}, 32

    def variance(arm, alpha):
        recipe = law[arm]
        found = theory.lead_lag(theory.Regression(), 0.02, alpha, [round(recipe.interval * L)],
                                moving=recipe.rule == "constant", fresh=recipe.replay == "fresh_batch")
        return found.item()
    for of in claims.PREDICTIONS:
        for alpha in (law[of.arm].alpha, *(0.1, 0.3) * ("tuned" in of.arm)):
            assert of.linear == np.sign(variance(of.reference, alpha) - variance(of.arm, alpha)), of
