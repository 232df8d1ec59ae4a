"""The arms of each notebook, for one setting and seed 0.

Arms of a tuned setting take their family's values from results/tuning, see tuning.py. The others take their recipe's.
No torch here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Callable, Iterable

from ..methods.dropout_ema import equal_horizon
from ..recipes import (
    Recipe, baseline, ema, grade_lengths, mutual, offline, offline_kd, online_kd, past_self, preset, self_kd,
    set_deviation, spaced, switches,
)
from ..schedule import interval_batches
from .tuning import tuned

CONTROL_INTERVAL = 1.5  # epochs, at which spaced KD is set beside its controls: the paper's recommendation
SPACED_AVERAGE = 0.1  # epochs between two steps of an average: the released README's
MAIN = ("02_baselines", "03_online_kd", "05_spaced_kd", "06_loss_landscape", "07_robustness")


@dataclass(frozen=True)
class Setting:
    """One data set with its networks and training, before a method is chosen.

    label: how tables and figures name it. tuned: the label of results/tuning whose values its arms take; "": none.
    base: for the methods with plain networks; None: transformers only. exits: the network of self KD; "": none.
    intervals, self_intervals: s of online and of self KD, epochs. seeds: how many in the notebooks of `MAIN`; 0: the
    profile's, as in the others. controls: also the arms of `CONTROLS` by name. only: makes its arms, all of them in
    notebook 05; None: each notebook has its own. audit, self_audit: ids of `recipes.DEVIATIONS` whose switches are
    turned alone. factors: for IE-KD and mutual learning. schools: for Education Distillation. transformer: for
    transformers. dropout: the largest rate in notebook 13, which has averages too; 0: neither.
    """

    label: str
    base: Recipe | None
    tuned: str = ""
    exits: str = ""
    intervals: tuple[float, ...] = (CONTROL_INTERVAL,)
    self_intervals: tuple[float, ...] = ()
    seeds: int = 0
    controls: tuple[str, ...] = ()
    only: Callable[[Setting], list[Arm]] | None = None
    audit: tuple[str, ...] = ()
    self_audit: tuple[str, ...] = ()
    factors: Recipe | None = None
    schools: Recipe | None = None
    transformer: Recipe | None = None
    dropout: float = 0.0


@dataclass(frozen=True)
class Arm:
    """One side of a comparison.

    name: in tables, figures and records. family: the name without an interval; a key of `FAMILIES` if it is tuned.
    recipe: of seed 0.
    """

    name: str
    family: str
    recipe: Recipe


def named(recipes: dict[str, Recipe]) -> list[Arm]:
    """Arms that have one interval, or none."""
    return [Arm(name, name, recipe) for name, recipe in recipes.items()]


def _at(family: str, recipe: Recipe) -> Arm:
    """Make an arm named after its interval in epochs, as in "spaced KD s=1.5"."""
    return Arm(f"{family} s={recipe.interval:g}", family, recipe)


def of_family(setting: Setting, family: str) -> Recipe:
    """Return a family's recipe, with its tuned values."""
    recipe = FAMILIES[family](setting.base)
    return replace(recipe, **tuned(setting.tuned, family)) if setting.tuned else recipe


def _with_values(setting: Setting, recipe: Recipe, family: str) -> Recipe:
    """Return a recipe with the learning rate and weight decay that a family was tuned to."""
    own = of_family(setting, family)
    return replace(recipe, lr=own.lr, weight_decay=own.weight_decay)


def _at_values_of(setting: Setting, arm: str, family: str) -> list[Arm]:
    """Make an arm with a family's rate and decay, so that only the method differs; untuned, all have the same."""
    return named({f"{arm}, at {family}'s values": _with_values(setting, of_family(setting, arm), family)}
                 if setting.tuned else {})


def _families(setting: Setting, *families: str) -> list[Arm]:
    return named({family: of_family(setting, family) for family in families})


# An update costs 3 forward passes of the teacher, 1 to ask it and 3 of the student; one of the baseline's costs 3
EQUAL_COMPUTE = 7 / 3
# What is tuned, each by the same budget: name -> recipe, of a setting's base
FAMILIES: dict[str, Callable[[Recipe], Recipe]] = {
    "baseline": baseline,
    "label smoothing": lambda base: replace(baseline(base), label_smoothing=0.1),
    "SAM": lambda base: replace(baseline(base), optimizer="sam"),
    "baseline, equal compute": lambda base: replace(baseline(base), epochs=round(EQUAL_COMPUTE * base.epochs)),
    "online KD": online_kd,
    "online KD, asked before": lambda base: online_kd(base, zero_target="pre_update"),  # the released form (A7)
    "spaced KD": lambda base: spaced(online_kd(base), min(CONTROL_INTERVAL, base.epochs)),
    "offline KD": offline_kd,
    "exits, labels only": lambda base: self_kd(base, alpha=0.0, beta=0.0),
    "self KD": self_kd,
}
PRIMARY = ("spaced KD", "label smoothing", "baseline, equal compute", "online KD, asked before")  # what the claims name

# What stands beside spaced KD besides its rivals, by what it isolates. Made of online KD at spaced KD's values: at its
# own, tuning has left the teacher hardly a share.
CONTROLS: dict[str, Callable[[Recipe], Recipe]] = {
    "online KD, eval mode": lambda online: replace(online, teacher_mode="eval"),
    "spaced KD, eval mode": lambda online: spaced(online, CONTROL_INTERVAL, teacher_mode="eval"),
    "shuffled teacher": lambda online: replace(online, soft_loss="kl_shuffled", beta=0.0),
    "EMA teacher": lambda online: past_self(online, 0.0, 0.99),
    "own last epoch": lambda online: past_self(online, 1.0, distil_start=1.0),  # near PS-KD
    "itself as teacher": lambda online: past_self(online),  # the soft loss is zero, labels keep 1 - alpha
}


def baseline_arms(setting: Setting) -> list[Arm]:
    """02_baselines: labels alone, and two ways to do better without a teacher."""
    return [*_families(setting, "baseline", "label smoothing", "SAM"), *_at_values_of(setting, "baseline", "SAM")]


def online_arms(setting: Setting) -> list[Arm]:
    """03_online_kd: the teacher learns beside the student, or before it; and how it is asked, at one set of values."""
    beside = (arm for arm in crossed_arms(setting) if not (arm.recipe.interval or arm.recipe.distil_start))
    return [*_families(setting, "baseline", "online KD", "online KD, asked before", "offline KD"),
            *_at_values_of(setting, "baseline", "online KD"), *beside,
            *_controls(setting, {"online KD, eval mode"} & {*setting.controls})]


def _controls(setting: Setting, names: Iterable[str]) -> list[Arm]:
    return named({name: CONTROLS[name](spaced(of_family(setting, "spaced KD"), 0)) for name in names})


def self_arms(setting: Setting) -> list[Arm]:
    """Make the arms of 04_self_kd: a multi-exit network's deepest exit.

    "exits, labels only" has the same exits, updates and cost as self KD but no distillation.
    """
    with_exits = replace(setting, base=replace(setting.base, model=setting.exits))
    labels, own = (of_family(with_exits, name) for name in ("exits, labels only", "self KD"))
    return [*named({"baseline": baseline(labels), "exits, labels only": labels, "self KD": own}),
            *_at_values_of(with_exits, "exits, labels only", "self KD"),
            *(_at("spaced self KD", spaced(own, s)) for s in setting.self_intervals)]


def spaced_arms(setting: Setting) -> list[Arm]:
    """05_spaced_kd: the rivals of the primary family, the intervals from online KD to offline KD, the controls."""
    ahead = of_family(setting, "spaced KD")
    return [*_families(setting, "baseline", "label smoothing", "baseline, equal compute", "online KD, asked before",
                       "online KD"),
            *(_at("spaced KD", spaced(ahead, s)) for s in setting.intervals),
            *_families(setting, "offline KD"), *crossed_arms(setting), *_controls(setting, setting.controls)]


def primary_arms(setting: Setting) -> list[Arm]:
    """Make the arms of the primary family alone, and what tells its gain from tuning; without labels alone."""
    return [*_families(setting, *PRIMARY[1:]), _at("spaced KD", of_family(setting, PRIMARY[0])),
            *crossed_arms(setting)]


def crossed_arms(setting: Setting) -> list[Arm]:
    """Make the rival of the first claim at spaced KD's tuned values, and the reverse, to tell values from spacing.

    One distils from epoch 1.5 on, to tell the start from the rest. Untuned, all stand at the same values already.
    """
    if not setting.tuned:
        return []
    ahead, before = (of_family(setting, family) for family in ("spaced KD", "online KD, asked before"))
    return named({"online KD, asked before, at spaced KD's values": spaced(ahead, 0, zero_target="pre_update"),
                   "online KD, at spaced KD's values": spaced(ahead, 0),
                   "online KD from epoch 1.5, at spaced KD's values": spaced(ahead, 0, distil_start=CONTROL_INTERVAL),
                   "spaced KD, at its rival's values": spaced(before, CONTROL_INTERVAL, zero_target="post_update")})


def measured_arms(setting: Setting) -> list[Arm]:
    """Make the arms of 06_loss_landscape and 07_robustness; SAM, known to flatten, is the positive control."""
    interval = min(setting.intervals, key=lambda s: abs(s - CONTROL_INTERVAL))
    return [*_families(setting, "baseline", "SAM"), *_at_values_of(setting, "baseline", "SAM"),
            *_families(setting, "online KD"), _at("spaced KD", spaced(of_family(setting, "spaced KD"), interval)),
            *_families(setting, "offline KD"),
            *(arm for arm in crossed_arms(setting) if arm.name == "online KD, at spaced KD's values")]


# What the released presets change, but for A19, which depends on the data, and for A1 in self KD, which has it right
AUDIT = tuple(id for id in switches("online_kd") if id != "A19")
SELF_AUDIT = tuple(id for id in switches("self_kd") if id not in ("A1", "A19"))


def audit_arms(setting: Setting) -> list[Arm]:
    """09_released_code_audit: each switch of the released programs turned alone, from the clean, tuned side."""
    clean = {}
    if setting.audit:
        clean[""] = of_family(setting, "spaced KD"), of_family(setting, "online KD"), setting.audit
    if setting.self_audit:
        own = next(arm.recipe for arm in self_arms(setting) if arm.name == "self KD")
        clean["self: "] = spaced(own, setting.self_intervals[0]), own, setting.self_audit
    arms = []
    for program, (ahead, beside, ids) in clean.items():
        arms += named({f"{program}clean": ahead, f"{program}clean, s=0": beside})
        for id in ids:
            arms += named({audited(program, id)[0]: set_deviation(beside if id in AT_ZERO else ahead, id)})
    return arms


AT_ZERO = ("A7",)  # deviations that act at s = 0 only


def audited(program: str, id: str) -> tuple[str, str]:
    """Return the arm that turns one switch alone, and the arm without it.

    >>> audited("self: ", "A3"), audited("", "A7")
    (('self: clean + A3', 'self: clean'), ('clean + A7, s=0', 'clean, s=0'))
    """
    at = ", s=0" if id in AT_ZERO else ""
    return f"{program}clean + {id}{at}", f"{program}clean{at}"


def ie_arms(setting: Setting) -> list[Arm]:
    """Make the arms of 10_ie_kd: inheritance and exploration, and mutual learning, both spaced.

    Mutual learning stands in eval mode too, whose gain from spacing is that of how a peer is asked.
    """
    ie = _with_values(setting, setting.factors, "baseline")
    s, peers = min(CONTROL_INTERVAL, ie.epochs), mutual(baseline(ie))
    by_running = replace(peers, teacher_mode="eval")
    return [*named({"baseline": baseline(ie), "IE-KD": ie}), _at("spaced IE-KD", spaced(ie, s)),
            *named({"offline IE-KD": offline(ie), "DML": peers}), _at("spaced DML", spaced(peers, s)),
            *named({"DML, eval mode": by_running}), _at("spaced DML, eval mode", spaced(by_running, s))]


def education_arms(setting: Setting) -> list[Arm]:
    """Make the arms of 11_education_distillation: spacing x growth, and labels alone for as many pictures.

    A student that grows sees fewer pictures in its lower grades, so it makes fewer updates.
    """
    labels = _with_values(setting, setting.schools, "baseline")
    ed = replace(labels, **tuned(setting.tuned, "online ED")) if setting.tuned else labels
    s, whole = min(CONTROL_INTERVAL, ed.epochs), replace(ed, growth="none")
    as_many = replace(baseline(labels), epochs=round(_studied(ed)))
    return [*named({"baseline": baseline(labels), "baseline, images of ED": as_many, "online ED": ed}),
            _at("spaced ED", spaced(ed, s)),
            *named({"offline ED": offline(ed), "growth without KD": replace(ed, alpha=0.0), "online schools": whole}),
            _at("spaced schools", spaced(whole, s))]


def _studied(ed: Recipe) -> float:
    """Return a growing student's images, in epochs of a whole one: each grade knows so many of all classes."""
    sizes = [group if isinstance(group, int) else len(group) for group in ed.schools]
    known = [sum(sizes[:grade + 1]) / sum(sizes) for grade in range(len(sizes))]
    return sum(epochs * share for epochs, share in zip(grade_lengths(ed), known))


def transformer_arms(setting: Setting) -> list[Arm]:
    """Make the arms of 12_vision_transformers: clean and released, with and without idle updates.

    Idle updates without KD have a teacher that nobody asks. The data's own augmentation stays.
    """
    base = setting.transformer
    s = min(CONTROL_INTERVAL, base.epochs)
    online = online_kd(base)
    clean = spaced(online, s)
    released = replace(preset(clean, "released"), interval=s)  # but for V3
    if base.epochs < 100:  # at its teacher's rate (V21) a short run would give it 12% more, and no warm-up; 300, 0.3%
        released = replace(released, student_clock="own", extra_step=False)
    return [*named({"baseline": baseline(base), "online KD": online}), _at("spaced KD", clean),
            *named({"offline KD": offline_kd(base), "released online KD": preset(online, "released")}),
            _at("released spaced KD", released),
            _at("released, no idle updates", set_deviation(released, "V1", "clean")),
            _at("idle updates, no KD", replace(clean, alpha=0.0, idle_update="zero_grad"))]


def beyond_arms(setting: Setting) -> list[Arm]:
    """Make the arms of 13_spacing_beyond_kd: spaced dropout and averages of weights, each beside its equal in the mean.

    All networks make as many updates. All but the baseline, which 02 has too, are scored once: an average takes long to
    score.
    """
    base, mean = of_family(setting, "baseline"), 2 / math.pi  # the mean of |sin|
    at_end, each = replace(base, eval_every=base.epochs), interval_batches(batches_per_epoch(base), SPACED_AVERAGE)
    plain, dense = replace(at_end, dropout=setting.dropout), ema(at_end)
    as_old = replace(dense, ema_decay=equal_horizon(dense.ema_decay, max(each, 1)))
    return [*named({"baseline": base, "dropout": plain, "spaced dropout": replace(plain, dropout_rule="sine"),
                     "dropout, equal mean": replace(plain, dropout=mean * setting.dropout),
                     "EMA's network": replace(at_end, start="teacher"), "EMA": dense}),
            _at("spaced EMA", spaced(dense, SPACED_AVERAGE)), *named({"EMA, equal horizon": as_old})]


def batches_per_epoch(recipe: Recipe) -> int:
    """L, as `data.split` and `batches.Batches` make it, of a set of 50,000 where all are taken."""
    images = recipe.train_images or 50_000
    return -(-(images - round(recipe.val_fraction * images)) // recipe.batch_size)


ARMS: dict[str, tuple[Callable[[Setting], list[Arm]], str]] = {  # notebook -> its arms, the field that they need
    "02_baselines": (baseline_arms, "base"), "03_online_kd": (online_arms, "base"), "04_self_kd": (self_arms, "exits"),
    "05_spaced_kd": (spaced_arms, "base"), "06_loss_landscape": (measured_arms, "base"),
    "07_robustness": (measured_arms, "base"), "09_released_code_audit": (audit_arms, "audit"),
    "10_ie_kd": (ie_arms, "factors"), "11_education_distillation": (education_arms, "schools"),
    "12_vision_transformers": (transformer_arms, "transformer"), "13_spacing_beyond_kd": (beyond_arms, "dropout")}


def arms_of(setting: Setting, notebook: str) -> list[Arm]:
    """Return the arms of a setting in a notebook; none where it lacks what they need."""
    if setting.only:
        return setting.only(setting) if notebook == "05_spaced_kd" else []
    make, needed = ARMS[notebook]
    return make(setting) if getattr(setting, needed) else []
