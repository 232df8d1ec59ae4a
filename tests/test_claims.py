"""Claims: what is claimed can be measured, and each verdict follows from the rule and from nothing else."""

import math
import re

import pandas as pd
import pytest
from test_tables import accuracies, tidy

from spacedkd_lib import claims, study
from spacedkd_lib.claims import REGISTER, SMALLEST, Claim
from spacedkd_lib.statistics import holm, mean_interval, one_sided, paired_difference, seeds_needed

BASE = [60.0, 63.0, 61.0, 66.0, 64.0]
ARMS = {"base": BASE, "better": [b + d for b, d in zip(BASE, [2.0, 2.2, 1.8, 2.1, 1.9])],
        "equal": [b + d for b, d in zip(BASE, [0.2, -0.1, 0.0, 0.2, -0.1])],
        "noisy": [b + d for b, d in zip(BASE, [3.0, -1.0, 2.0, -2.0, 4.0])],
        "barely": [b + d for b, d in zip(BASE, [1.0, 0.2, 1.6, 0.4, 0.9])]}
CLAIMS = tuple(Claim(name, f"{name} beats base.", "ours", "05_spaced_kd", name, "base")
               for name in ARMS if name != "base")


def line(table, claim, setting="glyphs"):
    return table[(table["Claim"] == claim) & (table["Setting"] == setting)].squeeze()


# The register

def test_the_register_has_every_claim_once_and_in_words():
    assert [claim.id for claim in REGISTER] == [*(f"P{i}" for i in range(1, 10)),
                                                 *(f"Q{i}" for i in range(1, 14)), "X1", "X2",
                                                 *(f"O{i}" for i in range(1, 6)), *(f"S{i}" for i in range(1, 9)),
                                                 *(f"T{i}" for i in range(1, 5)), *(f"U{i}" for i in range(1, 6)),
                                                 *(f"F{i}" for i in range(1, 6)), *(f"N{i}" for i in range(1, 9))]
    assert len({claim.statement for claim in REGISTER}) == len(REGISTER)
    assert len({claim[3:] for claim in REGISTER}) == len(REGISTER)  # no comparison stands in Holm's family twice
    for claim in REGISTER:
        assert re.fullmatch(r"[A-Z][^.]+(\.\d[^.]*)*\.", claim.statement), claim.statement
        assert claim.source == {"P": "paper", "Q": "ours", "X": "after first runs", "O": "other papers",
                                "S": "ours, later", "T": "paper, transformers",
                                "U": "ours, transformers", "F": "follow-up", "N": "ours, beyond KD"}[claim.id[0]]


def test_the_study_profile_has_both_arms_of_every_claim():
    settings = {}
    for row in study.grid("study", seeds=1):
        settings.setdefault((row.notebook, row.arm), set()).add(row.setting)
    for claim in REGISTER:
        assert settings[claim.notebook, claim.arm] & settings[claim.notebook, claim.reference], claim.id


# Judging

def test_judged_against_statistics():
    frame = tidy(ARMS)
    table = claims.judged(frame, CLAIMS)
    assert table["Claim"].tolist() == ["better", "equal", "noisy", "barely"]
    wanted = {claim.arm: paired_difference(ARMS[claim.arm], BASE) for claim in CLAIMS}
    for claim in CLAIMS:
        got, i = line(table, claim.id), wanted[claim.arm]
        assert got[["Statement", "Source", "Arm", "Against"]].tolist() == [*claim[1:3], *claim[4:]]
        assert got[["Difference (points)", "Difference: low", "Difference: high"]].tolist() == pytest.approx(i[:3])
        assert got["n"] == got["Difference: pairs"] == 5
        assert got["Seeds for 1 point"] == seeds_needed(1.0, i.sd)
        assert got["Runs"].split() == sorted(frame[frame["arm"].isin((claim.arm, "base"))]["run_id"])
    assert table["Difference: p (Holm)"].tolist() == pytest.approx(holm([i.p for i in wanted.values()]))
    assert table["Result"].tolist() == ["supported", "refuted", "inconclusive", "inconclusive"]


def test_holms_family_is_all_claims_of_a_setting_and_no_other():
    """"barely" is supported where it is the only claim, and not where three more were asked."""
    only = {arm: ARMS[arm] for arm in ("barely", "base")}
    table = claims.judged(pd.concat([tidy(ARMS), tidy(only, setting="digits")]), CLAIMS)
    alone, one_of_four = line(table, "barely", "digits"), line(table, "barely")
    assert alone["Difference: p (Holm)"] == pytest.approx(paired_difference(ARMS["barely"], BASE).p)
    assert alone["Difference: p (Holm)"] < 0.05 < one_of_four["Difference: p (Holm)"]
    assert (alone["Result"], one_of_four["Result"]) == ("supported", "inconclusive")


def test_a_claim_without_runs_of_both_arms_is_left_out():
    frame = tidy({arm: values for arm, values in ARMS.items() if arm != "noisy"})
    elsewhere = tidy({"noisy": ARMS["noisy"]}, notebook="04_self_kd")
    table = claims.judged(pd.concat([frame, elsewhere]), CLAIMS)
    assert table["Claim"].tolist() == ["better", "equal", "barely"]
    assert len(claims.judged(frame[frame["arm"] != "base"], CLAIMS)) == 0


def test_only_seeds_of_both_arms_are_compared():
    frame = tidy({"better": ARMS["better"][:3], "base": BASE})
    got = line(claims.judged(frame, CLAIMS), "better")
    assert got["n"] == 3
    assert got["Difference (points)"] == pytest.approx(paired_difference(ARMS["better"][:3], BASE[:3]).mean)


@pytest.mark.parametrize("seeds", [0, 1])
def test_fewer_than_two_pairs_decide_nothing(seeds):
    frame = tidy(ARMS)
    one = frame[(frame["arm"] == "base") | (frame["seed"] < seeds)]
    one = pd.concat([one, tidy({"better": [99.0]}).assign(seed=7)])  # a seed that the reference does not have
    got = line(claims.judged(one, CLAIMS), "better")
    assert (got["n"], got["Result"]) == (seeds, "inconclusive") and math.isnan(got["Seeds for 1 point"])


@pytest.mark.parametrize("mean, gain, smaller, said", [
    (0.2, 0.01, 1.0, "supported"),  # by however little
    (0.2, 0.01, 0.01, "supported"),  # a small gain, and shown to be one
    (1.0, 0.05, 1.0, "inconclusive"),  # not after Holm
    (0.2, 0.06, 0.04, "refuted"),  # if there is a gain, it is too small
    (0.2, 0.06, 0.05, "inconclusive"),
    (-1.5, 0.001, 0.001, "refuted"),
    (-1.5, 0.001, 0.06, "inconclusive"),
    (math.nan, math.nan, math.nan, "inconclusive"),
])
def test_the_rule(mean, gain, smaller, said):
    assert claims.result(mean, gain, smaller) == said


def test_what_is_refuted_is_corrected_too_and_families_are_apart():
    """Of four claims with p = 0.02 each that there is a gain of half a point none is refuted, and alone each is."""
    small = {f"arm {k}": [b + d for b, d in zip(BASE, [0.2, -0.8, 0.0, 0.3, -0.6])] for k in range(4)} | {"base": BASE}
    of = [Claim(f"C{k}", "", "ours", "05_spaced_kd", f"arm {k}", "base") for k in range(4)]
    assert 0.0125 < one_sided(paired_difference(small["arm 0"], BASE), SMALLEST) < 0.05
    assert set(claims.judged(tidy(small), of)["Result"]) == {"inconclusive"}
    apart = [claim._replace(source=claim.id) for claim in of]
    assert set(claims.judged(tidy(small), apart)["Result"]) == {"refuted"}


# For people

def test_matrix_has_a_line_a_claim_and_a_column_a_setting():
    only = {arm: ARMS[arm] for arm in ("noisy", "base")}  # the order is the register's all the same
    table = claims.matrix(claims.judged(pd.concat([tidy(only, setting="digits"), tidy(ARMS)]), CLAIMS), CLAIMS)
    assert list(table.columns) == ["Claim", "Statement", "digits", "glyphs"]
    assert table["Claim"].tolist() == ["better", "equal", "noisy", "barely"]
    i = mean_interval([2.0, 2.2, 1.8, 2.1, 1.9])
    said = f"supported: +2.0 [{i.low:.1f}, {i.high:.1f}]"
    assert table.loc[0, ["Statement", "glyphs"]].tolist() == ["better beats base.", said]
    assert table.loc[2, "digits"] == table.loc[2, "glyphs"]
    assert table["digits"].drop(2).tolist() == ["", "", ""] and table.loc[1, "glyphs"].startswith("refuted: +0.0 [-0.")


@pytest.mark.parametrize("frame, cells", [
    (tidy(ARMS)[:0], []),
    (tidy({"better": [62.0], "base": [60.0]}), ["inconclusive (n = 1)"]),
    (tidy({"better": [60.1, 59.88], "base": [60.0, 60.0]}), ["inconclusive: +0.0 [-1.4, 1.4]"])])
def test_matrix_of_little(frame, cells):
    judged = claims.judged(frame, CLAIMS)
    assert len(judged.drop(columns=["Runs", "Source"])) == len(cells)
    table = claims.matrix(judged, CLAIMS)
    assert list(table.columns[:2]) == ["Claim", "Statement"]
    assert [cell for name in table.columns[2:] for cell in table[name]] == cells


def test_real_arms_are_found():
    """Names of the register meet those of a real grid's frame."""
    frame = pd.concat([tidy({"spaced KD s=1.5": ARMS["better"], "online KD": BASE, "baseline": BASE}),
                       tidy({"released": BASE, "released, s=0": BASE}, notebook="09_released_code_audit")])
    table = claims.judged(frame).set_index("Claim")
    assert table["Result"].to_dict() == {"P1": "supported", "P2": "supported", "P3": "refuted", "P8": "refuted"}
    assert accuracies(frame, "online KD") == BASE


def test_across_settings_is_the_share_of_pairs_that_the_arm_wins():
    frame = pd.concat([tidy({"better": [3.0, 2.0], "base": [1.0, 2.0]}),
                       tidy({"better": [1.0, 1.0], "base": [2.0, 0.0]}, setting="digits"),
                       tidy({"base": [0.0]}, setting="letters")])
    found = claims.across_settings(frame, CLAIMS).squeeze()
    assert found[["Claim", "Settings", "n"]].tolist() == ["better", 2, 2]
    assert found["P(improvement)"] == pytest.approx((3.5 / 4 + 0.5) / 2) and math.isnan(found["low"])
    assert len(claims.across_settings(frame[:0], CLAIMS)) == 0
