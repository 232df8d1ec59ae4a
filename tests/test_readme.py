"""The READMEs (of the package, of its results, of the library) keep their word: links, commands, code and numbers."""

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
from test_layers import LAYERS

from spacedkd_lib import claims, measures, recipes, records, statistics, study, tables

ROOT = Path(__file__).resolve().parent.parent
README, RESULTS, LIBRARY = ((ROOT / place / "README.md").read_text(encoding="utf-8")
                            for place in ("", "results", "spacedkd_lib"))


def test_links_lead_somewhere():
    for place, text in (("", README), ("results", RESULTS), ("spacedkd_lib", LIBRARY)):
        targets = re.findall(r"\]\(([^)#]+)\)", text)
        assert targets
        for target in targets:
            assert target.startswith("http") or (ROOT / place / target).exists(), target


def test_commands_exist():
    rules = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"(?:`|^)make ([a-z]+)", README, re.M)) <= rules
    assert set(re.findall(r"PROFILE=([a-z0-9-]+)", README)) <= set(study.PROFILES)
    assert all(f"| `{name}` |" in README for name in study.PROFILES)


def test_code_runs(monkeypatch):
    walked = []
    names = {"loader": [(1, "a"), (2, "b")], "teacher_step": lambda x, y: walked.append(("teach", y)),
             "student_step": lambda x, y: walked.append(("learn", y))}
    ran = SimpleNamespace(summary={"test_accuracy": 0.0}, provenance={"data_sha256": ""})
    monkeypatch.setattr(study, "run", lambda recipe: ran if recipe.interval == 1.5 else None)
    blocks = re.findall(r"```python\n(.*?)```", README + LIBRARY, re.S)
    assert len(blocks) == 5
    for block in blocks:
        exec(block, names)
    assert walked[:5] == [("teach", "a"), ("teach", "b"), ("teach", "a"), ("learn", "a"), ("learn", "b")]
    assert names["released"].soft_loss == "probability_kl"
    assert (names["vit"].image_size, names["small"].patch_size, names["pair"].teacher_width) == (224, 4, 384)
    assert names["ie"].method == "ie_kd" and recipes.grade_lengths(names["ed"]) == (53, 53, 54)


def test_results_are_those_of_the_published_records():
    for text, block in ((README, tables.readme_block), (RESULTS, tables.results_block)):
        between = text.split(tables.START)[1].split(tables.END)[0].strip()
        assert between == block(tables.published_profiles()).strip()
    assert records.read_published("quick")


TEN, CROPS, THIRTY, QUARTER = "glyphs", "glyphs, random crops", "glyphs, 30 epochs", "glyphs, a quarter of the rate"
REAL = "CIFAR-100, 5,000 images"
SAID = {"supported": [("P1", TEN), ("P1", CROPS), ("P1", REAL), ("X2", TEN), ("X2", REAL), ("P2", THIRTY),
                      ("P2", "digits"), ("Q6", THIRTY), ("P9", TEN), ("S5", TEN), ("S6", TEN), ("S8", TEN)],
        "refuted": [("P3", TEN), ("P3", CROPS), ("P3", REAL), ("P2", CROPS), ("Q10", TEN), ("Q1", TEN), ("Q1", CROPS),
                    ("Q1", REAL), ("X1", CROPS), ("O2", TEN), ("O3", TEN), ("O4", TEN), ("O5", TEN)],
        "inconclusive": [("P2", TEN), ("P2", REAL), ("P4", TEN), ("P5", TEN), ("P5", REAL), ("X1", TEN), ("X2", CROPS),
                         ("O1", TEN), ("S1", TEN), ("S3", TEN), ("S4", TEN), ("S7", TEN),
                         ("P1", THIRTY), ("P1", "digits"), ("P6", TEN), ("P6", REAL), ("Q11", TEN),
                         *((claim, THIRTY) for claim in ("Q1", "Q5", "Q7", "Q8", "Q9", "Q10"))]}
NUMBERS = [  # words, and the claims and settings whose differences they tell
    ("(s = 1.5) is {:.1f}, {:.1f} and {:.1f} points above our online KD (P1)", ("P1", TEN), ("P1", CROPS), ("P1", REAL)),
    ("does, -{:.1f}, -{:.1f} and {:.1f} points are left (X1)", ("X1", TEN), ("X1", CROPS), ("X1", REAL)),
    ("{:.1f}, {:.1f} and {:.1f} points below the plain baseline", ("P3", TEN), ("P3", CROPS), ("P3", REAL)),
    ("equal compute is {:.1f} points above it on glyphs", ("Q10", TEN)),
    ("{:.1f} points are left on glyphs and {:.1f} on CIFAR-100 pictures (shown), {:.1f} with",
     ("X2", TEN), ("X2", REAL), ("X2", CROPS)),
    ("baseline, by {:.1f} and {:.1f} points (P2;", ("P2", THIRTY), ("P2", "digits")),
    ("Over online KD {:.1f} and {:.1f} points are not shown", ("P1", THIRTY), ("P1", "digits")),
    ("equal compute ({:.1f}; Q10)", ("Q10", THIRTY)), ("it is, by {:.1f} (Q6)", ("Q6", THIRTY)),
    ("it gains {:.1f} points (P9)", ("P9", TEN)),
    ("falls {:.1f} points below the baseline (O3), and spacing wins back {:.1f} (S5)", ("O3", TEN), ("S5", TEN)),
    ("ends {:.1f} points below labels alone (O4), and {:.1f} below the same", ("O4", TEN), ("O5", TEN)),
    ("spacing gains {:.1f} points with growth and {:.1f} without (S6, S8)", ("S6", TEN), ("S8", TEN))]


def test_words_agree_with_the_published_records():
    """Each verdict and number that "In words" tells, from the records; a publication that changes one fails here."""
    words = " ".join(RESULTS.split("## In words")[1].split("## In numbers")[0].split())
    frames = {name: tables.runs(study.grid(name), records.read_published(name)) for name in ("study", "cifar100-slice")}
    found = {(line["Claim"], line["Setting"]): line for frame in frames.values()
             for _, line in claims.judged(frame).iterrows()}
    for verdict, told in SAID.items():
        assert {key: found[key]["Result"] for key in told} == dict.fromkeys(told, verdict)
    for text, *told in NUMBERS:
        assert text.format(*(abs(found[key]["Difference (points)"]) for key in told)) in words
    unseen = claims.judged(frames["study"].query("seed >= 5")).set_index(["Claim", "Setting"])
    for claim, setting, verdict, text in (("P1", TEN, "inconclusive", "P1 is {:.1f} points on glyphs and not shown"),
                                          ("P1", CROPS, "supported", "not shown, {:.1f} with crops and shown"),
                                          ("P2", "digits", "inconclusive", "of digits alone {:.1f}, not shown")):
        there = unseen.loc[claim, setting]
        assert there["Result"] == verdict and text.format(there["Difference (points)"]) in words
    level = frames["study"].query("setting == @TEN").groupby(["notebook", "arm"])["test_accuracy"].mean()
    assert (f"ends at {level['09_released_code_audit', 'self: released']:.1f}%, below our plain baseline "
            f"({level['04_self_kd', 'baseline']:.1f}%)") in words
    left = statistics.paired_by_seed(frames["study"].query("setting == @TEN and notebook == '09_released_code_audit'"),
                                     "self: released", "self: released, s=0, twice the epochs")
    assert left.low < 0 < left.high and f"{left.mean:.1f} are left" in words
    audit = tables.audit(frames["study"].query("notebook == '09_released_code_audit'")).set_index(
        ["Program", "Within", "Id"]).sort_index()
    matter = audit[audit["Difference: p (Holm)"] < 0.05]["Difference (points)"]
    assert set(matter.index) == {(program, "clean", id) for program, id in
                                 (("online KD", "A9"), ("online KD", "A7"), ("self KD", "A9"), ("self KD", "A3"))
                                 } | {("online KD", "released", "A9")}
    assert ("costs {:.1f} points in spaced KD (s = 1.5), {:.1f} from the released side, and {:.1f} in self KD (A9;".format(
        *(-matter[key] for key in (("online KD", "clean", "A9"), ("online KD", "released", "A9"),
                                   ("self KD", "clean", "A9")))) in words)
    assert f"gains {matter['online KD', 'clean', 'A7']:.1f}, in the clean preset (A7)" in words
    assert f"gains {matter['self KD', 'clean', 'A3']:.1f} there (A3)" in words
    rows = [row for row in study.grid("study", "05_spaced_kd") if row.setting == THIRTY]
    last = tables.epochs(rows, records.read_published("study")).query("epoch == 30")
    loss = last["student_hard"].fillna(last["student_loss"])
    assert loss[last["arm"].isin(["baseline", "spaced KD s=1.5"])].max() < 0.2


SHORT = [  # what the README itself says: words, claims and settings
    ("is {:.1f} points above our online KD on letters and {:.1f} on pictures", ("P1", TEN), ("P1", REAL)),
    ("online KD is {:.1f} points below them", ("P3", TEN)), ("are {:.1f} points above spaced KD", ("Q10", TEN)),
    ("(offline KD) {:.1f}.", ("Q1", TEN)),
    ("is {:.1f} points above labels alone on letters", ("P2", THIRTY)), ("it is {:.1f} points above labels", ("P2", "digits")),
    ("costs {:.1f} points at a tuned learning rate and gains {:.1f} at a quarter", ("U2", TEN), ("U2", QUARTER)),
    ("ends {:.1f} points below labels alone after 0.62 of the updates", ("O4", TEN))]
LEFT = [  # words, a claim and its setting, with its interval
    ("teacher as the released program does, {:.1f} [{:.1f}, {:.1f}]", "X1", TEN), ("and {:.1f} [{:.1f}, {:.1f}] are left", "X1", REAL),
    ("random crops it is {:.1f} [{:.1f}, {:.1f}]", "X1", CROPS), ("on both sides {:.1f} [{:.1f}, {:.1f}] and", "X2", TEN),
    ("and {:.1f} [{:.1f}, {:.1f}] points are left", "X2", REAL), ("over it is {:+.1f} [{:.1f}, {:.1f}], not shown", "Q7", THIRTY)]


def test_the_short_words_agree_with_the_published_records():
    words = " ".join(README.split("## What is found")[1].split(tables.START)[0].split())
    frames = {name: tables.runs(study.grid(name), records.read_published(name)) for name in ("study", "cifar100-slice")}
    found = {(line["Claim"], line["Setting"]): line for frame in frames.values()
             for _, line in claims.judged(frame).iterrows()}
    for text, *told in SHORT:
        assert text.format(*(abs(found[key]["Difference (points)"]) for key in told)) in words
    for text, *key in LEFT:
        said = (found[tuple(key)][f"Difference{part}"] for part in (" (points)", ": low", ": high"))
        assert text.format(*said).replace("-0.0 ", "0.0 ") in words
    spaced = frames["study"].query("notebook == '05_spaced_kd'")
    for text, setting, arm, other in (
            ("{:.1f} for the smaller weight of the labels", TEN, "baseline", "smaller CE weight"),
            ("asking as released wins back {:.1f}", TEN, "online KD, asked before", "online KD"),
            ("without any teacher, gains {:.1f} there", THIRTY, "label smoothing", "baseline")):
        left = statistics.paired_by_seed(spaced[spaced["setting"] == setting], arm, other)
        assert text.format(left.mean) in words
    for claim, setting in (*((claim, TEN) for claim in ("P6", "T1", "F1", "N1", "O1", "S1", "S4")), ("P6", REAL),
                           *((claim, THIRTY) for claim in ("P1", "Q1", "Q7", "Q10")), ("P1", "digits"), ("Q1", "digits")):
        assert found[claim, setting]["Result"] == "inconclusive", (claim, setting)
    assert max(found["Q1", setting]["Difference: high"] for setting in (TEN, REAL)) < 0  # worse, not only no better
    assert found["P9", TEN]["Result"] == "supported"


def test_words_on_the_other_methods_agree_with_the_published_records():
    words = " ".join(RESULTS.split("**IE-KD and mutual learning**")[1].split("## In numbers")[0].split())
    published = records.read_published("study")
    ie, ed = (study.grid("study", name) for name in ("10_ie_kd", "11_education_distillation"))
    last = tables.epochs(ie, published).query("epoch == 10").groupby("arm").mean(numeric_only=True)
    assert "(CKA {:.2f}) as without being asked ({:.2f})".format(
        *last.loc[["spaced IE-KD s=1.5", "spaced inheritance s=1.5"], "probe_explore_cka"]) in words
    assert "alone reaches {:.1f}%, and spaced {:.1f}%".format(
        *last.loc[["DML, batch statistics", "spaced DML, batch statistics s=1.5"], "test_accuracy"]) in words
    runs = tables.runs(ed, published)
    updates = runs.groupby("arm")["student_updates"].mean()
    assert f"after {updates['offline ED'] / updates['offline schools']:.2f} of their updates" in words
    growth = statistics.paired_by_seed(runs, "offline ED, equal images", "offline schools")
    assert growth.low < 0 < growth.high and f"({growth.mean:+.1f} [{growth.low:.1f}, {growth.high:.1f}])" in words


def test_words_on_transformers_and_on_spacing_without_a_teacher_agree_with_the_published_records():
    words = " ".join(RESULTS.split("- **Transformers**")[1].split("## In numbers")[0].split())
    frame = tables.runs(study.grid("study"), records.read_published("study"))
    frame = frame[frame["notebook"].str.match("12|13")]
    found = claims.judged(frame).set_index(["Claim", "Setting"])
    assert found["n"].eq(10).all()
    for verdict, told in {
            "supported": [("U2", QUARTER), ("U3", QUARTER), ("F5", TEN)],
            "refuted": [*((claim, TEN) for claim in ("U1", "U2", "U3", "T4", "U5", "N7", "N5", "F2", "N4", "F4", "N3", "N8")),
                        *((claim, QUARTER) for claim in ("U5", "U4", "T1"))],
            "inconclusive": [*((claim, TEN) for claim in ("U4", "T1", "T2", "F1", "N1", "N2")),
                             *((claim, QUARTER) for claim in ("U1", "T4", "T2"))]}.items():
        assert {key: found.loc[key, "Result"] for key in told} == dict.fromkeys(told, verdict)
    losses = [(claim, TEN) for claim in ("U1", "U2", "U3", "T4", "N5", "F2", "F4", "N3")]
    assert (found.loc[losses, "Difference: high"] < 0).all()  # more than no gain
    for text, *told in (("{:+.1f} and {:+.1f} points (U2)", ("U2", TEN), ("U2", QUARTER)),
                        ("{:+.1f} and {:+.1f} (U3;", ("U3", TEN), ("U3", QUARTER)),
                        ("at the quarter their {:+.1f} is not shown after correction (U1)", ("U1", QUARTER)),
                        ("spaced {:+.1f} points (N3)", ("N3", TEN))):
        assert text.format(*(found.loc[key, "Difference (points)"] for key in told)) in words
    for text, *told in (("cost {:.1f} points at the tuned rate", "U1"), ("a loss of {:.1f} at the tuned rate", "T4"),
                        ("is {:.1f} points below its own network (N5), {:.1f} below equal decay (F2)", "N5", "F2"),
                        ("spacing costs {:.1f} (F4)", "F4"), ("equal decay (-{:.1f}, N8)", "N8")):
        assert text.format(*(-found.loc[(claim, TEN), "Difference (points)"] for claim in told)) in words
    assert f"within {found.loc[('N4', TEN), 'Difference: high']:.2f} of equal memory" in words
    level = frame.groupby(["notebook", "setting", "arm"])["test_accuracy"].mean()
    assert "which reach {:.1f}%, and at a quarter of it, {:.1f}%".format(
        *(level["12_vision_transformers", setting, "baseline"] for setting in (TEN, QUARTER))) in words
    for arm, text in (("EMA a=0.9", "reaches {:.1f}%, where the network"), ("EMA's network", "has {:.1f}% by its running"),
                      ("spaced EMA a=0.9 s=0.1", "once in a tenth of an epoch reaches {:.1f}% (F5)"),
                      ("EMA a=0.9, equal horizon", "with as long a memory {:.1f}% (a gain")):
        assert text.format(level["13_spacing_beyond_kd", TEN, f"constant lr: {arm}"]) in words
    alike = frame[frame["arm"] == "released EMA"]
    assert f"and {alike['teacher_test_accuracy'].mean():.1f}% by those of the test batch" in words
    own = statistics.mean_interval(alike["test_accuracy"] - alike["teacher_test_accuracy"])
    assert own.low > 0 and f"the average ends {own.mean:.1f} points above its network" in words
    finished = statistics.paired_by_seed(frame[frame["notebook"].str.match("12") & (frame["setting"] == TEN)],
                                         "offline KD", "baseline")
    assert finished.low > 0 and f"(offline KD, no claim) is {finished.mean:.1f} above labels alone" in words
    alone = tables.differences(frame[frame["notebook"] == "12_vision_transformers"], [
        ({"Arm": arm}, arm, other) for arm, other in (
            ("idle updates, no KD s=1.5", "baseline, 1.41 x rate and decay"),
            *((f"clean + {id}", "spaced KD s=1.5") for id in study.AUDITED))]).set_index(["Setting", "Arm"])
    tuned, quarter = (alone.loc[setting, "idle updates, no KD s=1.5"] for setting in (TEN, QUARTER))
    keys = ["Difference (points)", "Difference: low", "Difference: high"]
    assert "end {:.1f} [{:.1f}, {:.1f}] below".format(*-tuned[[keys[0], keys[2], keys[1]]]) in words
    assert "shown ({:.1f} [{:.1f}, {:.1f}])".format(*quarter[keys]) in words
    dropout = statistics.paired_by_seed(frame[frame["notebook"] == "13_spacing_beyond_kd"], "dropout", "baseline")
    assert dropout.high < 0 and f"constant {dropout.mean:.1f}, spaced" in words
    switches = alone.loc[TEN].filter(like="clean", axis=0)
    assert switches.index[switches["Difference: p (Holm)"] < 0.05].tolist() == ["clean + V1"]
    assert f"only V1 is shown to matter ({switches.loc['clean + V1', keys[0]]:.1f} points)" in words
    assert switches.drop("clean + V1")[keys[1]].min() > -2


def test_words_on_flatness_agree_with_the_published_measures():
    words = " ".join(RESULTS.split("**Flatter minima?**")[1].split("## In numbers")[0].split())
    frame = tables.runs(study.grid("study", "06_loss_landscape"), records.read_published("study"))
    found = {name: {run: values for (run, which), values in measures.read_published("study").items() if which == name}
             for name in ("curvature", "noise", "robustness")}
    runs = tables.measured(frame, found["curvature"])
    runs["loss"] = [found["noise"][run]["loss"][0].mean() for run in runs["run_id"]]
    hessian = {name: name for name in ("trace", "relative_trace", "eigenvalue", "relative_eigenvalue", "sharpness",
                                       "relative_sharpness")}
    spaced, compute = "spaced KD s=1.5", "baseline, equal compute"
    pairs = [(arm, "baseline") for arm in runs["arm"].unique() if arm != "baseline"]
    table = tables.paired(runs, pairs, hessian, ratio=True).set_index(["Setting", "Arm"])
    sharper = table.loc[THIRTY, spaced]
    for name, text in (("relative_trace", "{} times the relative trace"), ("sharpness", "{} times SAM's sharpness")):
        assert sharper[name].endswith("*") and text.format(round(float(sharper[name].split()[0]), 1)) in words
    online = tables.paired(runs, [(spaced, "online KD")], hessian, ratio=True)
    assert len(online) == 4 and not any(cell.endswith("*") for name in hessian for cell in online[name])
    for setting in (TEN, THIRTY):
        means = runs[runs["setting"] == setting].groupby("arm")[["trace", "relative_trace", "loss"]].mean()
        assert (means.idxmin() == compute).all()
    at = {setting: part for setting, part in runs.groupby("setting")}
    for setting, name, text in ((TEN, "relative_trace", "r = {:.2f} for"), (TEN, "loss", "as much ({:.2f})"),
                                (THIRTY, "relative_trace", "they do not ({:.2f})")):
        r = statistics.correlation(np.log(at[setting][name]), at[setting]["test_accuracy"])
        assert text.format(r) in words
    scores = tables.conditions(frame, found["robustness"]).set_index("run_id")
    clean = scores[scores["kind"] == "clean"]["accuracy"]
    kept = {name: frame["run_id"].map(part["accuracy"].groupby("run_id").mean() / clean)
            for name, part in (("corrupted", scores[scores["kind"] == "corruption"]),
                               ("PGD", scores[scores["name"] == "pgd"]))}
    told = tables.paired(frame.assign(**kept), [(spaced, "online KD"), (spaced, "baseline")], {k: k for k in kept})
    assert len(told) == 8 and not any(cell.endswith("*") for name in kept for cell in told[name])


def test_the_second_machine_is_that_of_its_table():
    words = " ".join(README.split("## Promises about numbers")[1].split())
    grid, published = study.grid("quick"), records.read_published("quick")
    rows = [line.split("|")[-2].strip() for line in (ROOT / "results/quick/second_machine.md").read_text().splitlines()
            if line.startswith("| ")]
    count = {what: rows.count(what) for what in ("within the interval", "differs", "the same", "one is inconclusive")}
    assert sum(count.values()) == len(rows) - 4  # two headings, each with its rule
    page = (ROOT / "results/quick/second_machine.md").read_text()
    for shown in (tables.compare(grid, published, published), tables.compare_claims(grid, published, published)):
        for _, line in shown.iterrows():  # what it calls published still is
            said = line["Published (%)"] if "Published (%)" in line else line["Published"]
            of = line.get("Arm", line.get("Statement"))
            assert re.search(rf"{re.escape(of)} +\|.*{re.escape(said)}", page), (of, said)
    accuracies, verdicts = list(count.values())[:2], list(count.values())[2:]
    assert (f"{accuracies[0]} of {sum(accuracies)} lines of `quick` agree within the published interval; of "
            f"{sum(verdicts)} claims {verdicts[0]} have the same verdict, {verdicts[1]} are inconclusive on one of the "
            "two, and none is contradicted") in words


def test_speed_and_memory_are_those_of_the_last_benchmark():
    def table(name, processor="avx2"):
        return pd.read_csv(ROOT / "results" / "bench" / processor / f"{name}.csv")
    told = " ".join(README.split("## Speed and memory")[1].split("\n## ")[0].split())
    speed = {processor: pd.concat([table("speed", processor), table("analysis", processor)]).set_index(
        ["Work", "Way", "Against"])["Times faster"] for processor in ("avx2", "avx512")}
    interval, sweep = "spaced KD, one interval", "sweep: baseline, online KD, s = 0.5 to 2"
    aug, strong = ("the batch at once", "PIL, one by one"), "a batch with strong"
    for words, key, digits in (
            ("of ResNet-18 at batch 128, against the plain way", (interval, "engine, fp32", "plain"), 2),
            ("for which the EPYC has no instructions", (interval, "engine, bf16", "plain"), 2),
            ("against one by one (1.65 by counting passes)", (sweep, "lockstep, fp32", "engine, run by run"), 2),
            ("the same in bf16, against the plain way", (sweep, "lockstep, bf16", "plain, run by run"), 2),
            ("crop, flip, rotation", ("a batch with crop_flip_rotate", *aug), 1),
            ("AutoAugment, cutout", ("a batch with autoaugment_cutout", *aug), 1),
            ("strong one, against timm's", (strong, *aug), 1),
            ("against a copy of the network", ("a plane of the loss, a point", "weights by functional_call",
                                               "deep copy and load"), 1),
            ("against curvlinops alone", ("a product with the Hessian", "one kept graph", "curvlinops"), 1)):
        first, second = (f"{of[key]:.{digits}f} " if key in of else "" for of in speed.values())
        assert f"{words} | {first}| {second}|" in told, words
    plain, ours = table("memory")["Tensors held (MB)"]
    assert f"{ours:.1f} MB of tensors against {plain:.0f} MB of stored batches" in told
    accuracy = table("accuracy").pivot_table("test_accuracy", ["arm", "seed"], "precision")
    for arm, words in (("baseline", "{} points for the baseline"), ("spaced KD s=1.5", "{} for spaced KD")):
        found = statistics.mean_interval((accuracy.bf16 - accuracy.fp32)[arm])
        assert words.format(f"{found.mean:+.2f} [{found.low:.2f}, {found.high:.2f}]") in told


def test_layers_are_those_of_the_test():
    rows = re.findall(r"^\| (\d) \| (.+?) \|", LIBRARY, re.M)
    told = {name.strip("/"): int(layer) for layer, names in rows for name in re.findall(r"`([\w/]+)`", names)}
    assert told == {name: layer for name, layer in LAYERS.items() if name != "__main__"}
