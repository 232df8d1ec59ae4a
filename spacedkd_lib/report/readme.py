"""What README.md and results/README.md show, in Markdown. No torch here.

A `frame` is from `frames.runs`, of all notebooks.
"""

from __future__ import annotations

from collections import ChainMap
from pathlib import Path
from typing import Callable, Iterable, Iterator

import numpy as np
import pandas as pd

from ..errors import InputError
from ..lab import claims, grids, profiles as profiles_of, tuning
from ..lab.arms import of_family
from ..lab.lead_lag import LAG_OWN, LAG_OWN_MOVING
from ..statistics import paired_by_seed, seeds_needed
from ..store import measured, records
from ..store.records import Record
from .comparisons import DISTILLED, REFERENCE, differences, late_start_in_words, quotient_in_words, summary
from .frames import published, published_profiles, runs
from .side_by_side import network
from .text import ACCURACY, difference_in_words, formatted, hardware_and_versions, markdown

START, END = "<!-- results:start -->", "<!-- results:end -->"
NOTHING = "No results are published yet.\n"
LAW = "figures/lead-lag.png"  # the lead-lag law
RULE = ("A claim is supported if its interval lies above zero. Otherwise it is refuted if the interval lies below "
        f"{claims.MIN_EFFECT:g} points, which excludes such a gain, not every gain. Otherwise it is inconclusive. "
        "Intervals and verdicts are corrected over the three claims of a setting. Differences are in points of test "
        "accuracy, paired by seed.\n")
PAPER = (  # method, largest gain on Tiny-ImageNet in points, recommended s in epochs; and notebook, family, arm here
    ("online KD, each tuned", 2.31, 1.5, "05_spaced_kd", "spaced KD", "online KD, asked before"),
    ("online KD, both at spaced KD's values", 2.31, 1.5, "05_spaced_kd", "spaced KD",
     claims.SAME_VALUES["spaced KD's"][1]),
    ("online KD, both at online KD's values", 2.31, 1.5, "05_spaced_kd", *claims.SAME_VALUES["online KD's"]),
    ("self KD", 3.34, 4.0, "04_self_kd", "spaced self KD", "self KD"))
NEAREST = ("tiny-imagenet", "cifar100", "glyphs", "digits")  # data sets, by how near they are to the paper's
READ = ("Of the paper we read the abstract, the README and the programs, not the full text. Its numbers are the "
        "largest gains that it tells. Ours are means, of our setting that is nearest to its data. Online KD asks its "
        "teacher as the released program does. Where a claim is judged, its interval is corrected. Spaced self KD has "
        "the values that self KD was tuned to.\n")
TUNED = ("Mean over the seeds of tuning of the accuracy on validation pictures, which chose the values. It does not "
         "foretell the test accuracy: validation pictures of glyphs have the training fonts, test pictures do not.\n")
MINIATURE = ("The setting called miniature is short, has three seeds, and no arm of it is tuned. It shows that the "
             "package runs; it says nothing about who wins.\n")


def readme_block(profiles: Iterable[str]) -> str:
    """Render the answers with the lead-lag figure, the paper's gains beside ours, and the sources, in Markdown."""
    shown = list(_published(profiles))
    if not shown:
        return NOTHING
    frame = pd.concat([frame for *_, frame in shown], ignore_index=True)
    found = dict(ChainMap(*(measured.read_published(name) for name, *_ in shown)))
    parts = [*answers(frame), *law(frame), *flatness(frame, found)[:1], READ, markdown(paper_and_ours(frame))]
    if "quick" in [name for name, *_ in shown]:
        parts.append(MINIATURE)
    sources = [f"Profile {name}, {len(found):,} runs: {hardware_and_versions(r.provenance for r in found.values())}."
               for name, _, found, _ in shown]
    return "\n".join([*parts, " ".join(sources) + "\n"])


RIVALS = {"online KD, asked before": "online KD that asks as released",
          "label smoothing": "label smoothing", "baseline, equal compute": "labels alone for equal compute"}
ALONE = {arm: (arm, REFERENCE) for arm in (claims.PRIMARY[0].reference, claims.AHEAD)}
VERDICTS = {"supported": "beats", "inconclusive": "is not told apart from",
            "refuted": f"does not gain {claims.MIN_EFFECT:g} points over", "worse": "is worse than"}
SHOWN = ("With both at spaced KD's values, its gain over online KD that asks as released {} shown. "
         "With both at the values of that online KD, it {} shown")
WEIGHTS = ("Tuning chose the teacher's weight: α = {:g} in spaced KD, and {:g} in online KD that asks as released. "
           "The rest on this data set is exploration, with intervals of 95%.\n")
AT_ONE_SET = ("Does the gain come from spacing, or from tuning? Online KD that asks as released is the rival. With "
              "both at spaced KD's values, spaced KD gains {}. With both at the rival's values it gains {}.\n")
BESIDE = ("Minus labels alone, each at its tuned values, online KD that asks as released has {}, and spaced KD {}.\n")
_SLOW = "baseline, at online KD's values"
RATES = {"own": ("online KD", REFERENCE), "same": ("online KD", _SLOW), "rate": (REFERENCE, _SLOW)}  # of notebook 03
AT_ONE_RATE = ("Does a teacher beside the student help? Online KD minus labels alone is {} with each at its own tuned "
               "values, and {} with both at online KD's learning rate and decay. Labels alone at their own rate and "
               "decay minus labels alone at online KD's are {}.\n")
LATE_START = ("Does it come from the first epochs, when online KD's teacher knows nothing yet? Let its student learn "
              "from labels alone until epoch 1.5, with all at spaced KD's values. The late start then gains {}, and "
              "spaced KD gains {} over it, in all {}. Predicted was that the late start makes at least half of the "
              "whole. Late start minus the rest is {}: the prediction {}.\n")
ASKING = {"harm": ("online KD, eval mode", claims.NO_SPACE[1]),
          "gain": ("spaced KD, eval mode", "online KD, eval mode")}
ASKED = ("How the teacher is asked matters, too. Right after an update its running statistics lag. "
         "Asked by them, online KD changes by {}. So spaced KD, asked by them too, seems to gain {}.\n")
LEAD = (  # of `claims.PARTS`
    "ahead minus online KD, at spaced KD's values", "behind minus online KD, at spaced KD's values",
    "ahead minus behind, both frozen, at spaced KD's values", "4 epochs ahead minus 4 behind, at spaced KD's values",
    "frozen minus moving, both ahead, as far on average, at spaced KD's values",
    "ahead minus behind, both frozen, at α = 0.9")
LEAD_WORDS = ("Must the teacher be ahead? On glyphs, at spaced KD's values, a teacher that stands still {} shown to "
              "beat one that moves. One that is 1.5 epochs ahead {} shown to beat one as far behind. All students "
              "first learn four epochs from labels alone, and distances without a number are 1.5 epochs:\n")
EXPLAINED = "### What makes the gain\n\nIntervals of 95%, not corrected; exploration.\n"
AHEAD_OR_FROZEN = ("Is it that the teacher is ahead, or that it is frozen while the student learns? These arms are of "
                   "glyphs. They first learn four epochs from labels alone. A moving teacher keeps its distance, and "
                   "that of a frozen one shrinks to a batch within each block. So at α = 0.9 frozen minus moving tells "
                   "two things. At spaced KD's values both are as far away on average:\n")
MEASURES = {"trace": "trace of the Hessian", "relative_trace": "relative trace", "eigenvalue": "largest eigenvalue",
            "relative_eigenvalue": "relative eigenvalue", "sharpness": "SAM's sharpness",
            "relative_sharpness": "relative sharpness", "rise": "rise of the training loss under 30% weight noise"}
CONTROL = "SAM", "baseline, at SAM's values"  # of every measure of flatness
FLATNESS = ("Are its minima flatter? On glyphs SAM, which is made to flatten, lowers {} of {} measures, with intervals "
            "that are not corrected for so many. In {} of these spaced KD is shown to lie below online KD, both at "
            "spaced KD's values. In {} of the others it is, too, but SAM is not shown to lower those.\n")
POWER = ("How many seeds would find a true gain of half a point, with a power of 80% at the strictest level? By the "
         "spread of these pairs ")
OTHERS = (  # methods that spacing composes with: notebook, its arm, and the same without a space
    ("04_self_kd", "spaced self KD s=2", "self KD"), ("04_self_kd", "spaced self KD s=4", "self KD"),
    ("10_ie_kd", "spaced IE-KD s=1.5", "IE-KD"), ("10_ie_kd", "spaced DML s=1.5", "DML"),
    ("11_education_distillation", "spaced ED s=1.5", "online ED"),
    ("11_education_distillation", "spaced schools s=1.5", "online schools"),
    ("12_vision_transformers", "spaced KD s=1.5", "online KD"),
    ("13_spacing_beyond_kd", "spaced dropout", "dropout, equal mean"),
    ("13_spacing_beyond_kd", "spaced EMA s=0.1", "EMA, equal horizon"))
OTHER_WORDS = ("Does spacing help the other methods? Each arm minus the same without a space. Five seeds tell large "
               "differences only. No interval is corrected for their number.\n")
LAW_FIGURE = (f"![Gain over online KD against the teacher's offset, from behind to ahead]({LAW})\n\nα is the weight "
              "of the teacher. Offset 0 is online KD. Grey dashes: labels alone, at online KD's values. *Moving*: a "
              "teacher that is not frozen. *Other batches*: it learns in another order. Each panel has its own "
              "scale.\n")
LAW_WORDS = ("An arm is named by the teacher's offset in epochs: + is ahead, - is behind. Unless the name says "
             "otherwise, α is 0.9, and all else has online KD's values. Other batches and eval mode were run at these "
             "values alone. All arms first learn four epochs from labels alone. An empty field predicts nothing.\n")
SCORE_WORDS = ("A sign is right if the mean has it, even where the interval holds zero. A predicted 0 is right if the "
               "interval holds zero. It is contradicted if the interval excludes it. The predictions share arms.\n")


def answers(frame: pd.DataFrame) -> list[str]:
    """Say what the claims come to, and what of the gain tuning makes."""
    parts = []
    for setting, lines in claims.judged(frame).groupby("Setting", sort=False):
        gains = [claims.say(line).removeprefix(line["Result"]).lstrip(": ") for _, line in lines.iterrows()]
        told = [VERDICTS["worse" if high < 0 else result]
                for result, high in zip(lines["Result"], lines["Difference: high"])]
        rivals = [RIVALS[rival] for rival in lines["Against"]]
        said = ". It ".join(map(" ".join, zip(told, rivals)))
        same = [paired_by_seed(_of(frame, setting), *pair) for pair in claims.SAME_VALUES.values()]
        if all(i.n > 1 for i in same):
            said += ". " + SHOWN.format(*("is" if i.low > 0 else "is not" for i in same))
        parts.append(f"**On {setting}, spaced KD {said}.**\n")
        parts.append(f"Test accuracy of spaced KD at s = 1.5 minus that of each, in points; {lines['n'].min()} pairs, "
                     "intervals corrected for three claims:\n")
        parts.append(_listed({rival: f"**{gain}**" for rival, gain in zip(rivals, gains)}))
        of = next(s for p in profiles_of.PROFILES.values() for s in p.settings if s.label == setting)
        parts.append(WEIGHTS.format(*(of_family(of, arm).alpha for arm in ("spaced KD", claims.PRIMARY[0].reference))))
        parts += _said(_of(frame, setting), {BESIDE: ALONE, AT_ONE_SET: claims.SAME_VALUES})
    return parts


def law(frame: pd.DataFrame) -> list[str]:
    """Say what the lead alone is worth, and show the figure of the lead-lag law, if it is drawn."""
    part = _of(frame, claims.LAG_SETTING)
    found = _differences(part, {words: claims.PARTS[words] for words in LEAD})
    shown = ("is" if paired_by_seed(part, *claims.PARTS[LEAD[k]]).low > 0 else "is not" for k in (4, 2))
    said = [LEAD_WORDS.format(*shown), _listed(found)] if found else []
    return said + [LAW_FIGURE] * (records.ROOT / LAW).exists()


def explanations(frame: pd.DataFrame) -> list[str]:
    """Say what the gain of spaced over online KD is made of; nothing without the runs."""
    parts: list[str] = []
    for setting in claims.JUDGED:
        here = _of(frame, setting)
        told = _said(_of(frame, setting, "03_online_kd"), {AT_ONE_RATE: RATES})
        told += _said(here, {BESIDE: ALONE, AT_ONE_SET: claims.SAME_VALUES})
        if starts := _differences(here, claims.LATE_START | {"the whole": claims.NO_SPACE}):
            told.append(LATE_START.format(*starts.values(), *late_start_in_words(here)))
        told += _said(here, {ASKED: ASKING})
        parts += [f"On {setting}:\n", *told] if told else []
    lags = _of(frame, claims.LAG_SETTING)
    if found := _differences(lags, claims.PARTS):
        parts += [AHEAD_OR_FROZEN, _listed(found)]
        same_seeds = _of(frame, claims.JUDGED[0])
        same_seeds = same_seeds[same_seeds["seed"].isin(lags["seed"])]
        parts += [f"Without these four epochs ahead minus online KD is {gain} there, on the same seeds.\n"
                  for gain in _differences(same_seeds, {"": claims.NO_SPACE}).values()]
    return [EXPLAINED, *parts] if parts else []


def _of(frame: pd.DataFrame, setting: str, notebook: str = "05_spaced_kd") -> pd.DataFrame:
    return frame[(frame["notebook"] == notebook) & (frame["setting"] == setting)]


def flatness(frame: pd.DataFrame, found: dict[tuple[str, str], dict]) -> list[str]:
    """Say how many measures of flatness SAM lowers, and how spaced and online KD compare in these: in short, and each.

    found: from `measured.read_published`; nothing is said without measures.
    """
    own = frame[(frame["notebook"] == "06_loss_landscape") & frame["setting"].isin(claims.JUDGED)]
    own = own[[(run, "noise") in found for run in own["run_id"]]]
    if own.empty:
        return []
    loss = [found[run, "noise"]["loss"].mean(axis=1) for run in own["run_id"]]
    curved = [found[run, "curvature"] | {"rise": of[-1] - of[0]} for run, of in zip(own["run_id"], loss)]
    own = own.assign(**{name: [np.log(of[name]) for of in curved] for name in MEASURES})
    passed = [name for name in MEASURES if paired_by_seed(own, *CONTROL, name).high < 0]
    spaced = {name: paired_by_seed(own, *claims.NO_SPACE, name) for name in MEASURES}
    flatter = [name in passed for name, i in spaced.items() if i.high < 0]
    return [FLATNESS.format(len(passed), len(MEASURES), sum(flatter), len(flatter) - sum(flatter)),
            _listed({f"{MEASURES[name]}, as a multiple of online KD's": f"**{quotient_in_words(spaced[name])}**"
                     for name in passed})]


def _said(frame: pd.DataFrame, told: dict[str, dict[str, tuple[str, str]]]) -> list[str]:
    """Fill sentences with the differences of their pairs; leave those out whose runs are missing."""
    found = ((words, _differences(frame, pairs)) for words, pairs in told.items())
    return [words.format(*gains.values()) for words, gains in found if gains]


def _listed(found: dict[str, str]) -> str:
    return "".join(f"- {words}: {gain}\n" for words, gain in found.items())


def _differences(frame: pd.DataFrame, pairs: dict[str, tuple[str, str]]) -> dict[str, str]:
    """Name -> the difference of a pair with its interval, in bold; empty unless all pairs have runs."""
    found = {name: paired_by_seed(frame, *pair) for name, pair in pairs.items()}
    if any(i.n < 2 for i in found.values()):
        return {}
    return {name: f"**{difference_in_words(*i[:3], i.n, i.n)}**" for name, i in found.items()}


def results_block(profiles: Iterable[str]) -> str:
    """Render the paper's gains beside ours, claims, what explains them, law, other methods, tuned values and all arms.

    Each table says what its numbers come from; links start in results/.
    """
    shown = list(_published(profiles))
    if not shown:
        return NOTHING
    frame = pd.concat([frame for *_, frame in shown], ignore_index=True)
    found = dict(ChainMap(*(measured.read_published(name) for name, *_ in shown)))
    judged, predicted = claims.judged(frame), claims.predictions(frame)
    parts = ["### The paper and ours\n", READ, markdown(paper_and_ours(frame))]
    if len(judged):
        parts += ["### The primary family\n", RULE, markdown(judged.drop(columns=["Arm", "Against", "Runs"])),
                  *_seeds_it_takes(frame, judged)]
    parts += [*explanations(frame), *flatness(frame, found), *_other_methods(frame)]
    if len(predicted):
        parts += ["### The lead-lag law\n", LAW_WORDS, markdown(predicted), SCORE_WORDS,
                  markdown(claims.score(predicted))]
    if chosen := tuning.chosen():
        parts += ["### Tuned values\n", TUNED, markdown(pd.DataFrame(chosen))]
    for name, rows, found, _ in shown:
        parts += [f"### Profile {name}: arms of notebooks 05 and 04\n", MINIATURE if name == "quick" else "",
                  _arms(rows, found), _sources(name, found.values())]
    return "\n".join(filter(None, parts))


def _seeds_it_takes(frame: pd.DataFrame, judged: pd.DataFrame) -> list[str]:
    """Say how many seeds the claims would need, at the strictest level of the family."""
    told = []
    for setting, lines in judged[judged["n"] > 1].groupby("Setting", sort=False):
        sds = [paired_by_seed(_of(frame, setting), *pair).sd for pair in zip(lines["Arm"], lines["Against"])]
        needed = [seeds_needed(claims.MIN_EFFECT, sd, level=claims.STRICTEST) for sd in sds]
        told.append(f"on {setting}: " + ", ".join(f"{n} for {claim}" for n, claim in zip(needed, lines["Claim"])))
    return [POWER + "; ".join(told) + ".\n"] if told else []


def _other_methods(frame: pd.DataFrame) -> list[str]:
    """Set each method beside its spaced form, where tuned values or fresh seeds stand behind them."""
    parts = []
    for notebook, arm, other in OTHERS:
        here = frame[(frame["notebook"] == notebook) & frame["setting"].isin(claims.JUDGED)]
        link = f"[{notebook.replace('_', ' ')}](../notebooks/{notebook}.ipynb)"
        parts.append(differences(here, [({"Notebook": link, "Arm": arm, "Minus": other}, arm, other)]))
    table = pd.concat(parts)
    return ["### Other methods\n", OTHER_WORDS, markdown(table)] if len(table) else []


def _published(profiles: Iterable[str]) -> Iterator[tuple[str, list[grids.Row], dict[str, Record], pd.DataFrame]]:
    """Yield each profile with its published rows, records and runs."""
    for name, (rows, found) in published(profiles).items():
        yield name, rows, found, runs(rows, found)


def paper_and_ours(frame: pd.DataFrame) -> pd.DataFrame:
    """Set the paper's gains by spacing beside those of our setting that is nearest to its data.

    Of several intervals the one nearest to its recommendation counts. Empty where nothing was run.
    """
    lines = [[method, f"up to {gain}", f"{s:g}",
              *_nearest_gain(frame[frame["notebook"] == notebook], spaced, plain, s)]
             for method, gain, s, notebook, spaced, plain in PAPER]
    return pd.DataFrame(lines, columns=["Gain of spacing over", "Paper, Tiny-ImageNet (points)",
                                        "Recommended s (epochs)", "Ours (points)", "n", "Our s (epochs)", "Data"])


def _nearest_gain(frame: pd.DataFrame, spaced: str, plain: str, s: float) -> tuple[str, str, str, str]:
    """Difference, pairs, interval and setting."""
    ahead = frame[frame["family"] == spaced]
    for dataset in NEAREST:
        for setting, part in ahead[ahead["dataset"] == dataset].groupby("setting", sort=False):
            nearest = part.loc[(part["interval"] - s).abs().idxmin()]
            here = frame[frame["setting"] == setting]
            i = paired_by_seed(here, nearest["arm"], plain)
            if i.n:
                judged = claims.judged(here).set_index(["Arm", "Against"])
                ends = ((judged.loc[(nearest["arm"], plain), f"Difference: {end}"] for end in ("low", "high"))
                        if (nearest["arm"], plain) in judged.index else (i.low, i.high))
                return difference_in_words(i.mean, *ends, i.n, i.n), str(i.n), f"{nearest['interval']:g}", setting
    return "", "", "", ""


def _arms(rows: list[grids.Row], found: dict[str, Record]) -> str:
    """Every published arm of notebooks 05 and 04, in Markdown."""
    parts = []
    for notebook, distilled in zip(("05_spaced_kd", "04_self_kd"), DISTILLED):
        if here := [row for row in rows if row.notebook == notebook]:
            row_of = {(row.setting, row.arm): row for row in here}
            shown = formatted(summary(runs(here, found)))
            of = [row_of[key] for key in zip(shown["Setting"], shown["Arm"])]
            parts.append(pd.DataFrame({
                "Data": shown["Setting"], "Network": [network(row.recipe) for row in of],
                "Epochs": [row.recipe.epochs for row in of], "Method": shown["Arm"], "n": shown["n"],
                f"{ACCURACY} ± sd": shown[f"{ACCURACY} ± sd"],
                f"vs {REFERENCE}": shown[f"vs {REFERENCE} [95% t]"].mask(
                    [row.family in (LAG_OWN, LAG_OWN_MOVING) for row in of], ""),
                "vs online or self KD": shown.get(f"vs {distilled} [95% t]", "")}))
    return markdown(pd.concat(parts).drop_duplicates(["Data", "Network", "Method"])) if parts else ""


def _sources(name: str, used: Iterable[Record]) -> str:
    """Say what the numbers of a table mean, and where they come from."""
    of = [record.provenance for record in used]
    data = ", ".join(dict.fromkeys(f"{p['dataset']} {p['data_sha256'][:12]}" for p in of))
    tables = f"{name}/tables"
    return ("Last epoch, n seeds; paired differences in points and their 95% t intervals. "
            f"{hardware_and_versions(of)}; data SHA-256: {data}."
            + f" All arms and what qualifies them: [tables]({tables})."
            * (records.ROOT / "results" / tables).exists() + "\n")


def update_readme(path: Path, block: Callable[[Iterable[str]], str]) -> None:
    """Set what stands between the two result marks of a file to what `block` says of the published profiles.

    Raises:
        InputError: there is no such file, or it lacks a mark.
    """
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not end:
        raise InputError(f"{path.name} lacks the marks {START} and {END}: put both where the results belong.")
    records.write_atomically(path, f"{before}{start}\n\n{block(published_profiles())}\n{end}{after}")
