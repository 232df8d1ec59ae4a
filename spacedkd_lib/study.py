"""Which runs a profile is made of, and how they are run: grids of recipes x seeds, side by side, resumable.

A grid row is one run with the notebook it belongs to, the data set's label, the arm's name and the seed. Notebooks,
`make plan`, `make reproduce` and `make publish` all read the same grids; a run that several notebooks need is
trained once. Runs that share a teacher are trained together, as a sweep.
"""

from __future__ import annotations

import hashlib
import json
import math
import multiprocessing
import os
import shutil
import sys
import time
from concurrent.futures import FIRST_COMPLETED, Executor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import groupby, islice
from pathlib import Path
from typing import Callable, Iterable, Iterator, NamedTuple, Sequence

from . import records
from .beyond import equal_horizon
from .executors import LocalProcesses, logged, within_memory
from .deviations import switches, turn
from .recipes import (
    InputError, Recipe, attention_transfer, baseline, education, ema, factor_transfer, from_dict, grade_lengths, ie_kd,
    mutual, nearest, offline, offline_kd, online_kd, preset, released_dropout, self_kd, spaced, teacher_of, transformer,
)
from .schedule import interval_batches
from .transformer_deviations import TRANSFORMER_DEVIATIONS

NOTEBOOKS = ("00_start_here", "01_data", "02_baselines", "03_online_kd", "04_self_kd", "05_spaced_kd",
             "06_loss_landscape", "07_robustness", "08_theory", "09_released_code_audit", "10_ie_kd",
             "11_education_distillation", "12_vision_transformers", "13_spacing_beyond_kd")

MEASURING = ("06_loss_landscape", "07_robustness")  # both measure the same runs, all of them of 05


@dataclass(frozen=True)
class Setting:
    """One data set with its networks and training, before a method is chosen.

    label: how tables and figures name it. base: for the methods with plain networks; None: transformers only.
    multi_exit: for self KD.
    intervals: s of online KD, epochs. self_intervals: s of self KD, epochs. controls: also the arms that explain
    the others, by name: those of `CONTROLS`, "constant lr" (02), "labels only", "twice the epochs" and "exits only"
    (04). audit, self_audit: ids of deviations.py whose switches are turned alone, for online KD and for self KD.
    factors: for IE-KD and mutual learning (10). schools: for Education Distillation (11). transformer: for transformers
    (12). variants: of these three, by name. transformer_audit: ids of V rows whose switches are turned alone.
    beyond: the largest rate of dropout in 13, which has spaced EMA too; 0: neither. Its variants: "random dropout",
    "constant lr, EMA".
    """

    label: str
    base: Recipe | None
    multi_exit: Recipe | None
    intervals: tuple[float, ...]
    self_intervals: tuple[float, ...]
    controls: tuple[str, ...] = ()
    audit: tuple[str, ...] = ()
    self_audit: tuple[str, ...] = ()
    factors: Recipe | None = None
    schools: Recipe | None = None
    variants: Sequence[str] = ()
    transformer: Recipe | None = None
    transformer_audit: tuple[str, ...] = ()
    beyond: float = 0.0


@dataclass(frozen=True)
class Profile:
    """What `make reproduce PROFILE=...` runs. purpose: one line for people."""

    name: str
    purpose: str
    seeds: int
    settings: tuple[Setting, ...]


def _glyphs(epochs: int, train_images: int, width: int) -> Recipe:
    """Ours: small enough for a laptop, hard enough to tell methods apart. Letters are not flipped or rotated."""
    return Recipe(dataset="glyphs", train_images=train_images, val_fraction=0.1, model="resnet8", width=width,
                  epochs=epochs, batch_size=32, lr=0.1, augment="none")


def _digits(epochs: int, train_images: int, width: int = 8) -> Recipe:
    return Recipe(dataset="digits", train_images=train_images, val_fraction=0.1, model="resnet8", width=width,
                  epochs=epochs, batch_size=16, lr=0.1, augment="none")


def _setting(label, base, intervals=(0.5, 1.0, 1.5, 2.0), self_intervals=(2.0,), exits="resnet10",
             **options) -> Setting:
    return Setting(label, base, replace(base, model=exits) if exits else None, intervals, self_intervals, **options)


# What spaced KD at s = 1.5 is set beside: each arm another answer to "what else changed?". Name -> of plain online KD.
# (Offline KD is the teacher frozen at its final state. An update of spaced KD costs 3 forward passes of the teacher, 1
# to ask it and 3 of the student, so 7 for the baseline's 3.)
CONTROLS: dict[str, Callable[[Recipe], Recipe]] = {
    "online KD, asked before": lambda online: replace(online, zero_target="pre_update"),  # A7; by batch statistics too
    "batch statistics, s=0": lambda online: replace(online, teacher_mode="train_frozen"),
    "batch statistics, s=1.5": lambda online: spaced(online, 1.5, teacher_mode="train_frozen"),
    "constant lead s=1.5": lambda online: spaced(online, 1.5, rule="constant"),
    "constant lead s=0.75": lambda online: spaced(online, 0.75, rule="constant"),  # the mean of the sawtooth
    "teacher head start s=1.5": lambda online: spaced(online, 1.5, rule="head_start"),
    "random intervals, mean 1.5": lambda online: spaced(online, 1.5, rule="random"),
    "expanding intervals, mean 1.5": lambda online: spaced(online, 1.5, rule="expanding"),
    "fresh batches s=1.5": lambda online: spaced(online, 1.5, replay="fresh_batch"),
    "fresh augmentation s=1.5": lambda online: spaced(online, 1.5, replay="fresh_augmentation"),
    "offline KD, fresh batches": lambda online: offline_kd(online, replay="fresh_batch"),
    "baseline, equal compute": lambda online: replace(baseline(online), epochs=round(7 / 3 * online.epochs)),
    "smaller CE weight": lambda online: replace(online, soft_loss="none", beta=0.0),
    "label smoothing": lambda online: replace(online, soft_loss="uniform", beta=0.0),
}
FASTER = 1.41  # what idle updates do to the length of an update, see idle.update_sizes
WAYS_TO_ASK = ("online KD, asked before", "batch statistics, s=0", "batch statistics, s=1.5")
FEW = ("constant lr", "labels only", *WAYS_TO_ASK, "constant lead s=1.5", "teacher head start s=1.5",
       "fresh batches s=1.5", "baseline, equal compute", "smaller CE weight")
ALL = ("constant lr", "labels only", "twice the epochs", "exits only",
       *(name for name in CONTROLS if "augmentation" not in name))

# Other forms of IE-KD and mutual learning: parts, metrics (with weights of their own, not tuned), maps, ways to ask; of
# Education Distillation: equal images and multiply-accumulates, teachers, loss and schedule.
IE_VARIANTS: dict[str, Callable[[Recipe], Recipe]] = {
    "spaced inheritance s=1.5": lambda ie: spaced(ie, 1.5, explore_weight=0.0),
    "offline IE-KD": offline,
    "offline factor transfer": lambda ie: offline(factor_transfer(ie)),
    "DML, batch statistics": lambda ie: mutual(_labels(ie), teacher_mode="train_frozen"),
    "spaced DML, batch statistics s=1.5": lambda ie: spaced(mutual(_labels(ie), teacher_mode="train_frozen"), 1.5),
    "IE-KD, from epoch 1.5": lambda ie: replace(ie, distil_start=1.5),  # its paraphraser is as old as with spacing
    "spaced exploration s=1.5": lambda ie: spaced(ie, 1.5, inherit_weight=0.0),
    "spaced factor transfer s=1.5": lambda ie: spaced(factor_transfer(ie), 1.5),
    "spaced IE-KD, |cos| s=1.5": lambda ie: spaced(ie, 1.5, explore_metric="abs_cos", explore_weight=1.0),
    "spaced IE-KD, CKA s=1.5": lambda ie: spaced(ie, 1.5, explore_metric="cka", explore_weight=1.0),
    "spaced IE-KD, frozen encoder s=1.5": lambda ie: spaced(ie, 1.5, explore_encoder="frozen"),
    "spaced IE-KD, released weights s=1.5": lambda ie: spaced(ie, 1.5, inherit_weight=1.0, explore_weight=1.0),
    "spaced IE-KD + KD s=1.5": lambda ie: spaced(ie, 1.5, alpha=0.3),
    "spaced attention transfer s=1.5": lambda ie: spaced(attention_transfer(ie, inherit_weight=500.0), 1.5),
    "spaced IE on attention s=1.5": lambda ie: spaced(attention_transfer(ie, inherit_weight=500.0, split="halves"), 1.5,
                                                      explore_metric="abs_cos", explore_weight=1.0),
    "IE-DML": mutual,
    "spaced IE-DML s=1.5": lambda ie: spaced(mutual(ie), 1.5),
    "spaced DML, leaders alternate s=1.5": lambda ie: spaced(mutual(_labels(ie)), 1.5, leader="alternate"),
}
ED_VARIANTS: dict[str, Callable[[Recipe], Recipe]] = {
    "baseline, images of ED": lambda ed: replace(baseline(ed), epochs=round(sum(_studied(ed)))),
    "baseline, MACs of ED": lambda ed: replace(baseline(ed), epochs=round(sum(_worked(ed)))),
    "offline schools, images of ED": lambda ed: offline(replace(ed, growth="none"), epochs=round(sum(_studied(ed)))),
    "offline ED, equal images": lambda ed: offline(_equal_images(ed)),
    "spaced ED, equal images s=1.5": lambda ed: spaced(_equal_images(ed), 1.5),
    "offline, one teacher": lambda ed: offline(replace(ed, schools=(), growth="none", teacher_batches="shared")),
    "online schools, batch statistics": lambda ed: replace(ed, growth="none", teacher_mode="train_frozen"),
    "spaced schools, batch statistics s=1.5": lambda ed: spaced(replace(ed, growth="none",
                                                                        teacher_mode="train_frozen"), 1.5),
    "growth without KD, equal images": lambda ed: replace(_equal_images(ed), alpha=0.0),
    "offline ED, padded": lambda ed: offline(ed, kd_scope="padded"),
    "offline ED, all teachers": lambda ed: offline(ed, kd_scope="all_teachers"),
    "offline ED, one learning rate": lambda ed: offline(ed, lr_on_growth="continue"),
    "offline ED, groups in turn": lambda ed: offline(ed, grade_batches="sequential"),
    "spaced ED, shared batches s=1.5": lambda ed: spaced(ed, 1.5, teacher_batches="shared"),
}

# Controls of 12 beyond the shortest list: the other end of spacing, the rate of idle updates, the token's second head.
TRANSFORMER_VARIANTS: dict[str, Callable[[Recipe], Recipe]] = {
    "offline KD": offline_kd,
    f"online KD, {FASTER} x rate and decay": lambda base: faster(online_kd(base)),
    "baseline, two heads": lambda base: replace(baseline(base), dist_token="always"),
}

MEASURED = ("baseline", "online KD", "offline KD", "batch statistics, s=0", "batch statistics, s=1.5",
            "baseline, equal compute")  # beside spaced KD at each interval

# What the released presets change, but for A19, which depends on the data, and for A1 in self KD, which has it right
AUDIT = tuple(id for id in switches("online_kd") if id != "A19")
SELF_AUDIT = tuple(id for id in switches("self_kd") if id not in ("A1", "A19"))
WATERFALL = ("A19", "A9", "A1", "A18", "A2", "A13", "A11")  # the order in which released online KD becomes clean
CONTROL_INTERVAL = 1.5  # epochs, at which spaced KD is set beside its controls: the paper's recommendation

SPACED_AVERAGE, LONGER_AVERAGES = 0.1, (0.5, 1.0)  # epochs: the released README's, and longer
SHORT = 0.9  # spaced by 0.1 it forgets in one epoch of 10; the released 0.99, in 10 of 80

_GLYPHS = _glyphs(10, 2232, 8)
# Of 1, 10, 30, 100 and 300, on validation pictures of seed 100, which no result uses: accuracy falls with the weight,
# and 10 is the smallest at which the encoded halves go where they are asked to (cosines 0.9 and -0.6).
_GLYPH_FACTORS = ie_kd(_GLYPHS, inherit_weight=10.0, explore_weight=10.0)
_GLYPH_SCHOOLS = education(_GLYPHS, (10, 26, 26))  # digits, capitals, small letters
# Of 0.05, 0.1, 0.2, 0.3 and 0.5, on validation pictures of seed 100, which no result uses: 75.8, 72.7, 62.8, 49.8 and
# 26.0% with constant dropout, and 76.7% without. The largest rate at which so small a network still learns.
_GLYPH_DROPOUT = 0.1
_SLICE = Recipe(dataset="cifar100", train_images=5000, val_fraction=0.1, model="resnet8", width=8, epochs=15,
                batch_size=64, lr=0.1, eval_every=5)
_CIFAR = Recipe(dataset="cifar100", val_fraction=0.1)  # the paper's hyper-parameters are the recipe's defaults
_CIFAR_BF16 = replace(_CIFAR, precision="bf16")  # ours, to be fast; on a GPU "fp32" would be TF32 in convolutions
_CIFAR_FACTORS = ie_kd(replace(_CIFAR_BF16, model="resnet20", teacher_model="resnet56", epochs=160, lr=0.1),
                       ramp_epochs=5.0)
_CIFAR_SCHOOLS = education(replace(_CIFAR_BF16, model="resnet20", teacher_model="resnet110", epochs=240, lr=0.05,
                                   lr_schedule="late_steps"), (33, 33, 34))


def _small_transformer(base: Recipe, **changes) -> Recipe:
    """A DeiT of two blocks on pictures as small as they are; letters and digits are not cropped or mirrored. Heads do
    not start at zero, as the released ones do: 600 updates are too few then (6% of letters after ten epochs)."""
    return transformer(base, **dict(image_size=0, patch_size=8, width=64, depth=2, heads=4, augment=base.augment,
                                    head_init="timm", normalise="own", epochs=base.epochs,
                                    batch_size=base.batch_size, lr=4e-3, warmup_epochs=1, eval_every=5) | changes)


# Of 1, 2, 3, 4 and 6 thousandths the rate was chosen on validation pictures of seeds 100 to 102, which no result uses.
_GLYPH_TRANSFORMER = _small_transformer(_GLYPHS)
_CIFAR_TRANSFORMER = transformer(_CIFAR_BF16, image_size=32, patch_size=4)
AUDITED = tuple(id for id, d in TRANSFORMER_DEVIATIONS.items() if d.released and d.in_preset)
_TINY = replace(_CIFAR, dataset="tiny-imagenet", augment="crop_flip")

PROFILES = {p.name: p for p in (
    Profile("smoke", "tests: tiny, says nothing about methods", 2, (
        _setting("digits", _digits(2, 200, 4), (1.0,), (1.0,), controls=FEW[:3], audit=("A1",),
                 factors=ie_kd(_digits(2, 200, 4), inherit_weight=10.0, explore_weight=10.0),
                 schools=education(_digits(2, 200, 4), (5, 5)),
                 transformer=_small_transformer(_digits(2, 200, 4), patch_size=4, width=16, depth=1, heads=2),
                 beyond=_GLYPH_DROPOUT),)),
    Profile("quick", "the whole series without a GPU, minutes", 5, (
        _setting("glyphs", _GLYPHS, controls=FEW, audit=("A1",), factors=_GLYPH_FACTORS, schools=_GLYPH_SCHOOLS,
                 transformer=_GLYPH_TRANSFORMER, beyond=_GLYPH_DROPOUT),
        _setting("digits", _digits(30, 300), exits="", controls=WAYS_TO_ASK))),
    Profile("cifar100-slice", "real pictures without a GPU: 5,000 training images of CIFAR-100", 5, (
        _setting("CIFAR-100, 5,000 images", _SLICE, (0.5, 1.5), (2.0,), controls=WAYS_TO_ASK),)),
    Profile("study", "answers on the embedded data: ten seeds, controls and switches; hours on two cores", 10, (
        _setting("glyphs", _GLYPHS, (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0), (2.0, 4.0), controls=ALL,
                 audit=(*AUDIT, "A12"), self_audit=SELF_AUDIT, factors=_GLYPH_FACTORS, schools=_GLYPH_SCHOOLS,
                 variants=(*list(IE_VARIANTS)[:6], "spaced IE-KD, |cos| s=1.5", "spaced IE-KD, CKA s=1.5",
                           "spaced IE-KD, released weights s=1.5", *list(ED_VARIANTS)[:6],
                           *TRANSFORMER_VARIANTS, "random dropout", "constant lr, EMA"),
                 transformer=_GLYPH_TRANSFORMER, transformer_audit=AUDITED, beyond=_GLYPH_DROPOUT),
        _setting("glyphs, 30 epochs", replace(_GLYPHS, epochs=30, eval_every=5), (0.5, 1.5, 4.0), exits="",
                 controls=ALL),
        _setting("glyphs, random crops", replace(_GLYPHS, augment="crop"), (1.5,), exits="",
                 controls=(*WAYS_TO_ASK, "fresh augmentation s=1.5", "fresh batches s=1.5")),
        _setting("digits", _digits(30, 300), exits="", controls=WAYS_TO_ASK),
        Setting("glyphs, a quarter of the rate", None, None, (), (),
                transformer=replace(_GLYPH_TRANSFORMER, lr=1e-3)))),
    Profile("core", "CIFAR-100 with ResNet-18 and a DeiT of 32 pixels, one GPU; not run yet", 5, (
        _setting("CIFAR-100", _CIFAR_BF16, (0.5, 1.0, 1.5, 2.0, 3.0), (1.0, 2.0, 4.0), "resnet18",
                 controls=(*FEW, "fresh augmentation s=1.5"), audit=("A19", "A9", "A1", "A2"), self_audit=("A3",),
                 factors=_CIFAR_FACTORS, schools=_CIFAR_SCHOOLS,
                 variants=(*list(IE_VARIANTS)[:3], "IE-KD, from epoch 1.5", *TRANSFORMER_VARIANTS, "random dropout",
                           "constant lr, EMA"),
                 transformer=_CIFAR_TRANSFORMER, beyond=0.5),)),
    Profile("paper", "the paper's sizes: CIFAR-100 and Tiny-ImageNet, three ResNets; CIFAR-100, five transformers", 5, (
        *(_setting(f"{label}, {net}", replace(base, model=net), (0.5, 1.0, 1.5, 2.0, 3.0, 4.0),
                 (0.5, 1.0, 2.0, 3.0, 4.0), net)
        for label, base in (("CIFAR-100", _CIFAR), ("Tiny-ImageNet", _TINY))
        for net in ("resnet18", "resnet50", "resnet101")),
        *(Setting(f"CIFAR-100, {net} at 224 pixels", None, None, (), (), transformer=transformer(_CIFAR, model=net),
                  variants=tuple(name for name in TRANSFORMER_VARIANTS if "heads" not in name or "deit" in net))
          for net in ("timm/deit_tiny_patch16_224", "timm/pit_ti_224", "timm/pvt_v2_b0", "pvt_tiny", "t2t_vit_7")))),
)}


def profile(name: str) -> Profile:
    """A profile by name.

    Raises:
        InputError: it does not exist.
    """
    if name not in PROFILES:
        raise InputError(nearest("profile", name, PROFILES))
    return PROFILES[name]


# The arms of each notebook: name -> recipe, for one setting and seed 0

def baseline_arms(setting: Setting) -> dict[str, Recipe]:
    """02_baselines: labels alone; and the constant learning rate of the released programs (A9)."""
    arms = {"baseline": baseline(setting.base)}
    if "constant lr" in setting.controls:
        arms["baseline, constant lr"] = replace(baseline(setting.base), lr_schedule="constant")
    return arms


def online_arms(setting: Setting) -> dict[str, Recipe]:
    """03_online_kd: the teacher learns beside the student, or before it."""
    return {"baseline": baseline(setting.base), "online KD": online_kd(setting.base),
            "offline KD": offline_kd(setting.base)}


def self_arms(setting: Setting) -> dict[str, Recipe]:
    """04_self_kd: a multi-exit network's deepest exit. "exits, labels only" has the same exits, updates and cost as
    self KD but no distillation."""
    base = setting.multi_exit
    if base is None:
        return {}
    arms = {"baseline": baseline(base)}
    if "labels only" in setting.controls:
        arms["exits, labels only"] = self_kd(base, alpha=0.0, beta=0.0)
    arms |= {"self KD": self_kd(base),
             **{f"spaced self KD s={s:g}": spaced(self_kd(base), s) for s in setting.self_intervals}}
    if "twice the epochs" in setting.controls:
        arms["baseline, twice the epochs"] = replace(baseline(base), epochs=2 * base.epochs)
    if "exits only" in setting.controls:
        s = setting.self_intervals[0]
        arms[f"exits-only replay s={s:g}"] = self_kd(base, interval=s, self_update="exits_only")
    return arms


def spaced_arms(setting: Setting) -> dict[str, Recipe]:
    """05_spaced_kd: from online KD (s = 0) over the intervals to offline KD; then the controls."""
    online = online_kd(setting.base)
    return {"baseline": baseline(setting.base), "online KD": online,
            **{f"spaced KD s={s:g}": spaced(online, s) for s in setting.intervals},
            "offline KD": offline_kd(setting.base),
            **{name: CONTROLS[name](online) for name in setting.controls if name in CONTROLS}}


def measured_arms(setting: Setting) -> dict[str, Recipe]:
    """06_loss_landscape and 07_robustness: the runs of 05 that the question of flatness compares; none is new."""
    return {arm: recipe for arm, recipe in spaced_arms(setting).items() if arm in MEASURED or arm.startswith("spaced")}


def audit_arms(setting: Setting) -> dict[str, Recipe]:
    """09_released_code_audit: clean, released, each switch turned alone in either direction (self KD: from clean, A3
    from released as well), and the way from released to clean, one switch after the other. The data's own augmentation
    and statistics stay."""
    arms = {}
    for base, ids, method, s, name in ((setting.base, setting.audit, online_kd, CONTROL_INTERVAL, ""),
                                       (setting.multi_exit, setting.self_audit, self_kd, setting.self_intervals[0],
                                        "self: ")):
        if not ids:
            continue
        clean = {at: method(base, interval=min(interval, base.epochs)) for at, interval in (("", s), (", s=0", 0.0))}
        own = dict(augment=base.augment, normalise=base.normalise, init=base.init) if "A19" not in ids else {}
        released = {at: replace(preset(recipe, "released"), **own) for at, recipe in clean.items()}
        arms |= {f"{name}{side}{at}": recipe for side, recipes in (("clean", clean), ("released", released))
                 for at, recipe in recipes.items()}
        labels = arms[f"{name}released baseline"] = baseline(released[""])
        if method == self_kd:  # as many updates as the released spaced run makes
            arms[f"{name}released baseline, twice the epochs"] = replace(labels, epochs=2 * base.epochs)
            arms[f"{name}released, s=0, twice the epochs"] = replace(released[", s=0"], epochs=2 * base.epochs)
        way = [id for id in WATERFALL if id in ids] if method == online_kd else []
        step = turn(released[""], "A7", "clean") if way else None  # which changes nothing at this interval
        for i, id in enumerate(way):
            step = turn(step, id, "clean")
            arms[f"released - {', '.join(way[:i + 1])}"] = step
        for id in ids:
            at = ", s=0" if id == "A7" else ""  # it acts there only
            arms[f"{name}clean + {id}{at}"] = turn(clean[at], id)
            # A12 is in neither preset; the way begins with one switch alone; self KD costs hours, so there A3 only
            if id not in ("A12", *way[:1]) and (method == online_kd or id == "A3"):
                arms[f"{name}released - {id}{at}"] = turn(released[at], id, "clean")
    return arms


def _labels(recipe: Recipe) -> Recipe:
    """The baseline of a recipe, with its pair of networks."""
    return replace(baseline(recipe), teacher_model=recipe.teacher_model, teacher_width=recipe.teacher_width)


def ie_arms(setting: Setting) -> dict[str, Recipe]:
    """10_ie_kd: inheritance and exploration beside what they are made of, mutual learning, and both spaced. All make as
    many updates of the student."""
    ie, s = setting.factors, CONTROL_INTERVAL
    if ie is None:
        return {}
    s = min(s, ie.epochs)
    online, peers = online_kd(_labels(ie)), mutual(_labels(ie))
    arms = {"baseline": baseline(ie), "online KD": online, f"spaced KD s={s:g}": spaced(online, s),
            "IE-KD": ie, f"spaced IE-KD s={s:g}": spaced(ie, s),
            "DML": peers, f"spaced DML s={s:g}": spaced(peers, s)}
    return arms | {name: IE_VARIANTS[name](ie) for name in setting.variants if name in IE_VARIANTS}


def education_arms(setting: Setting) -> dict[str, Recipe]:
    """11_education_distillation: spacing x growth, and what each is set beside. A student that grows sees fewer
    pictures in its lower grades, so it makes fewer updates: the variants "equal images" train it for longer."""
    ed, s = setting.schools, CONTROL_INTERVAL
    if ed is None:
        return {}
    s, whole = min(s, ed.epochs), replace(ed, growth="none")
    arms = {"baseline": baseline(ed),
            "online ED": ed, f"spaced ED s={s:g}": spaced(ed, s), "offline ED": offline(ed),
            "online schools": whole, f"spaced schools s={s:g}": spaced(whole, s), "offline schools": offline(whole),
            "growth without KD": replace(ed, alpha=0.0)}
    return arms | {name: ED_VARIANTS[name](ed) for name in setting.variants if name in ED_VARIANTS}


def _shares(ed: Recipe) -> list[float]:
    """What part of all classes, and so of the images, each grade knows."""
    sizes = [group if isinstance(group, int) else len(group) for group in ed.schools]
    return [sum(sizes[:grade + 1]) / sum(sizes) for grade in range(len(sizes))]


def _studied(ed: Recipe) -> list[float]:
    """A growing student's images, grade by grade, in epochs of a whole one."""
    return [epochs * share for epochs, share in zip(grade_lengths(ed), _shares(ed))]


def _worked(ed: Recipe) -> list[float]:
    """Its multiply-accumulates in the same unit: each stage of these networks costs about the same."""
    stages = 4 if ed.model in ("resnet10", "resnet18", "resnet34", "resnet50", "resnet101") else 3
    depths = (max(stages - later, 1) for later in reversed(range(len(ed.schools))))
    return [epochs * depth / stages for epochs, depth in zip(_studied(ed), depths)]


def _equal_images(ed: Recipe) -> Recipe:
    """A growing student's recipe of grades so long that it sees about as many pictures as a whole one."""
    shares = _shares(ed)
    each = max(round(ed.epochs / sum(shares)), 1)
    last = max(round(ed.epochs - each * sum(shares[:-1])), 1)
    lengths = (each,) * (len(shares) - 1) + (last,)
    return replace(ed, epochs=sum(lengths), grade_epochs=lengths)


def faster(recipe: Recipe) -> Recipe:
    """A higher learning rate and weight decay in place of idle updates (V1)."""
    return replace(recipe, lr=FASTER * recipe.lr, weight_decay=FASTER * recipe.weight_decay)


def transformer_arms(setting: Setting) -> dict[str, Recipe]:
    """12_vision_transformers: clean and released, with and without idle updates, and a higher learning rate in their
    place. Idle updates without KD have a teacher that nobody asks. The data's own augmentation stays."""
    base = setting.transformer
    if base is None:
        return {}
    s = min(CONTROL_INTERVAL, base.epochs)
    online = online_kd(base)
    clean = spaced(online, s)
    online_released = preset(online, "released")
    released = replace(preset(clean, "released"), interval=s)  # but for V3
    if base.epochs < 100:  # at its teacher's rate (V21) ten epochs would give it 12% more, and no warm-up; 300, 0.3%
        released = replace(released, student_clock="own", extra_step=False)
    arms = {"baseline": baseline(base), f"baseline, {FASTER} x rate and decay": faster(baseline(base)),
            "online KD": online, f"spaced KD s={s:g}": clean,
            "released online KD": online_released,
            f"released online KD, {FASTER} x rate and decay": faster(online_released),
            f"released spaced KD s={s:g}": released,
            f"released, no idle updates s={s:g}": turn(released, TRANSFORMER_DEVIATIONS["V1"], "clean"),
            f"idle updates, no KD s={s:g}": replace(clean, alpha=0.0, idle_update="zero_grad")}
    arms |= {name: make(base) for name, make in TRANSFORMER_VARIANTS.items() if name in setting.variants}
    return arms | {f"clean + {id}": turn(clean, TRANSFORMER_DEVIATIONS[id]) for id in setting.transformer_audit
                   if id != "V10"}  # which needs the loader of V5


def beyond_arms(setting: Setting) -> dict[str, Recipe]:
    """13_spacing_beyond_kd: dropout whose rate swings, and an average of weights that steps once an interval; each
    beside what is equal to it in the mean, and as released. All networks make as many updates. All but the baseline,
    which 02 has too, are scored once: twenty averages take longer to score than one network to train."""
    if not setting.beyond:
        return {}
    base, rate, mean = baseline(setting.base), setting.beyond, 2 / math.pi  # the mean of |sin|
    at_end, L = replace(base, eval_every=base.epochs), _batches_per_epoch(base)
    plain = replace(at_end, dropout=rate)
    swing = replace(plain, dropout_rule="sine")
    arms = {"baseline": base, "dropout": plain, "spaced dropout": swing,
            "dropout, equal mean": replace(plain, dropout=mean * rate)}
    if "random dropout" in setting.variants:
        arms["random dropout, equal mean"] = replace(plain, dropout=2 * mean * rate, dropout_rule="random")
    arms |= {"released dropout": released_dropout(plain, L), "released spaced dropout": released_dropout(swing, L)}
    return arms | _averages(at_end, L, "constant lr, EMA" in setting.variants)


def _averages(base: Recipe, L: int, at_constant_rate: bool) -> dict[str, Recipe]:
    """Those of a seed share one network, with which they are compared: it starts from the weights of a teacher."""
    network = replace(base, start="teacher")
    dense, s = ema(replace(network, start="student")), SPACED_AVERAGE

    def three(prefix: str, dense: Recipe, intervals: tuple[float, ...], name: str = "EMA") -> dict[str, Recipe]:
        equal = replace(dense, ema_decay=equal_horizon(dense.ema_decay, int(s * L)))
        return {f"{prefix}{name}": dense, **{f"{prefix}spaced {name} s={each:g}": spaced(dense, each)
                                             for each in intervals}, f"{prefix}{name}, equal horizon": equal}

    short = replace(dense, ema_decay=SHORT)
    arms = {"EMA's network": network} | three("", dense, (s, *LONGER_AVERAGES)) | three("", short, (s,), "EMA a=0.9")
    for name, changes in (("not debiased", dict(ema_debias=False)), ("copied statistics", dict(ema_statistics="copy"))):
        arms |= {f"EMA, {name}": replace(dense, **changes),
                 **{f"spaced EMA, {name} s={each:g}": spaced(dense, each, **changes)
                    for each in (s, *(LONGER_AVERAGES if name == "not debiased" else ()))}}
    by_batch = replace(dense, ema_debias=False, ema_statistics="batch")  # as released, but for M5
    arms |= {"EMA, batch statistics": by_batch, f"spaced EMA, batch statistics s={s:g}": spaced(by_batch, s)}
    if at_constant_rate:
        arms["constant lr: EMA's network"] = replace(network, lr_schedule="constant")
        arms |= three("constant lr: ", replace(short, lr_schedule="constant"), (s,), "EMA a=0.9")
        released = preset(dense, "released")
        arms |= {"released EMA": released, f"released spaced EMA s={s:g}": spaced(released, s)}
    return arms


def _batches_per_epoch(recipe: Recipe) -> int:
    """L, as `data.split` and `batches.Batches` make it, of a set of 50,000 where all are taken."""
    images = recipe.train_images or 50_000
    return -(-(images - round(recipe.val_fraction * images)) // recipe.batch_size)


ARMS: dict[str, Callable[[Setting], dict[str, Recipe]]] = {
    "02_baselines": baseline_arms, "03_online_kd": online_arms, "04_self_kd": self_arms,
    "05_spaced_kd": spaced_arms, "06_loss_landscape": measured_arms, "07_robustness": measured_arms,
    "09_released_code_audit": audit_arms, "10_ie_kd": ie_arms, "11_education_distillation": education_arms,
    "12_vision_transformers": transformer_arms, "13_spacing_beyond_kd": beyond_arms}


@dataclass(frozen=True)
class Row:
    """One run of a grid."""

    notebook: str
    setting: str
    arm: str
    seed: int
    recipe: Recipe


def grid(profile_name: str, notebook: str | None = None, seeds: int = 0) -> list[Row]:
    """The runs of a profile, or of one of its notebooks.

    Args:
        profile_name: one of `PROFILES`.
        notebook: e.g. "05_spaced_kd"; None for all.
        seeds: how many seeds; 0 for the profile's own number.

    Raises:
        InputError: unknown profile or notebook, or a negative number of seeds.
    """
    chosen = profile(profile_name)
    if notebook is not None and notebook not in NOTEBOOKS:
        raise InputError(nearest("notebook", notebook, NOTEBOOKS))
    if seeds < 0:
        raise InputError(f"seeds = {seeds} is out of range: give a positive count, or 0 for the profile's "
                         f"{chosen.seeds}.")
    return [Row(name, setting.label, arm, seed, replace(recipe, seed=seed))
            for name, arms in ARMS.items() if notebook in (None, name)
            for setting in chosen.settings
            for arm, recipe in (arms(setting) if setting.base or arms is transformer_arms else {}).items()
            for seed in range(seeds or chosen.seeds)]


def unique(rows: Iterable[Row]) -> list[Recipe]:
    """The recipes of a grid, each once, in order."""
    return list({row.recipe.run_id: row.recipe for row in rows}.values())


def folder(profile_name: str, seeds: int = 0) -> str:
    """Folder under results/ and figures/: the profile's own, or one apart for another number of seeds."""
    return profile_name if seeds in (0, profile(profile_name).seeds) else f"{profile_name}-{seeds}-seeds"


def check_workers(workers: int | str) -> int:
    """The number of processes asked for; 0, as for "auto": as many as suit the machine.

    Raises:
        InputError: a negative number of workers, or another word.
    """
    if workers != "auto" and (not isinstance(workers, int) or workers < 0):
        raise InputError(f"workers = {workers} is out of range: give a positive count, 0 for as many as suit the "
                         'machine, or "auto".')
    return 0 if workers == "auto" else workers


# Running

@dataclass(frozen=True)
class Sweep:
    """Recipes that are trained together because they share a teacher; or a single one.

    folder: of its members' list, checkpoints and log.
    """

    recipes: tuple[Recipe, ...]
    folder: Path

    @property
    def log(self) -> Path:
        return self.folder / "log.txt"

    @property
    def cost(self) -> float:
        """Forward passes through a network, up to a factor: an update is three, a look one. For order and progress
        only; `plan` measures."""
        each = sum({"baseline": 0 if r.start == "teacher" and len(self.recipes) > 1 else 3,
                    "self_kd": 9, "mutual": 8, "ema": 1}.get(r.method, 7 if r.rule == "head_start" else 4)
                   for r in self.recipes)
        shared = 3 * any(teacher_of(r) not in (None, r) for r in self.recipes)
        return (each + shared) * self.recipes[0].epochs * (self.recipes[0].train_images or 50_000)


def sweeps(missing: list[Recipe], workers: int = 1) -> list[Sweep]:
    """Form sweeps of the recipes that are still to be run, the costliest first.

    A sweep that was interrupted goes on as it was, but for one of several seeds of which some are done. The rest is
    grouped by teacher, and large groups are split while there are fewer sweeps than workers.
    """
    begun, taken = [], set()
    for path in sorted((records.runs_folder() / ".sweeps").glob("*/members.json")):
        listed = _members(path)
        members = [recipe for recipe in listed if records.load(recipe) is None]
        ids = {recipe.run_id for recipe in members}
        if not ids:  # killed after its last record
            _forget(path.parent)
        broken = len({recipe.seed for recipe in members}) > 1 and len(members) < len(listed)
        if ids & {recipe.run_id for recipe in missing} and not ids & taken and not broken:
            begun.append(Sweep(tuple(members), path.parent))
            taken |= ids
    groups: dict[str, list[Recipe]] = {}
    for recipe in missing:
        if recipe.run_id not in taken:
            groups.setdefault((teacher_of(recipe) or recipe).run_id, []).append(recipe)
    new = [_sweep(group) for group in groups.values()]
    while len(begun) + len(new) < workers and max((len(sweep.recipes) for sweep in new), default=0) > 1:
        largest = max(new, key=lambda sweep: len(sweep.recipes))
        new.remove(largest)
        new += [_sweep(largest.recipes[::2]), _sweep(largest.recipes[1::2])]
    return sorted(begun + new, key=lambda sweep: sweep.cost, reverse=True)


def of_several_seeds(planned: list[Sweep]) -> list[Sweep]:
    """Join sweeps that are equal but for the seed and can be trained together, see stacked.py. One that was begun goes
    on as it was."""
    from . import stacked
    groups: dict[object, list[Sweep]] = {}
    for sweep in planned:
        alike = tuple(replace(recipe, seed=0) for recipe in sweep.recipes)
        fits = stacked.fits(alike) and not (sweep.folder / "members.json").exists()
        groups.setdefault(alike if fits else sweep.folder, []).append(sweep)
    return [_sweep(recipe for sweep in group for recipe in sweep.recipes) if len(group) > 1 else group[0]
            for group in groups.values()]


def _sweep(recipes: Iterable[Recipe]) -> Sweep:
    recipes = tuple(recipes)
    name = hashlib.sha256(" ".join(sorted(recipe.run_id for recipe in recipes)).encode()).hexdigest()[:12]
    return Sweep(recipes, records.runs_folder() / ".sweeps" / name)


def _members(path: Path) -> list[Recipe]:
    try:
        return [from_dict(values) for values in json.loads(path.read_bytes())]
    except (OSError, ValueError, TypeError):  # damaged, of another version, or just removed by another process
        return []


def run(recipe: Recipe, on_epoch: Callable[[dict], None] | None = None) -> records.Record:
    """The record of one recipe: loaded, or trained here and now, with a bar of its epochs or a line now and then.
    If it belongs to an interrupted sweep, that sweep goes on.

    Raises:
        InputError: its loss diverged, or the pictures of a data folder are not those of the record.
    """
    if records.load(recipe) is None:
        from tqdm import tqdm
        _check_inputs([recipe])
        sweep, = sweeps([recipe])
        with tqdm(total=recipe.epochs, unit="epoch", disable=on_epoch is not None or not _watched()) as bar:
            shown = on_epoch or ((lambda row: bar.update()) if _watched() else _now_and_then(recipe))
            failed = within_memory(train_sweep, sweep,
                                   lambda of: shown(of.rows[-1]) if of.recipe == recipe else None)
        if records.load(recipe) is None:
            raise InputError("\n".join(failed))
    return _same_pictures(records.load(recipe))


def train_sweep(sweep: Sweep, on_epoch: Callable | None = None) -> list[str]:
    """Train what is missing of a sweep, here and now, and write its records; why runs were given up, a sentence each.

    Raises:
        Stopped: asked to stop; a checkpoint holds what was done.
    """
    from . import data, train
    with records.locked(sweep.recipes):
        missing = [recipe for recipe in sweep.recipes if records.load(recipe) is None]
        if not missing:
            return []
        records.write_atomically(sweep.folder / "members.json",
                                 json.dumps([json.loads(recipe.to_json()) for recipe in missing]))
        outcomes = train.sweep(missing, data.load(missing[0].dataset), folder=sweep.folder, on_epoch=on_epoch)
        for recipe, outcome in zip(missing, outcomes):
            if not isinstance(outcome, InputError):
                records.save(recipe, *outcome)
        failed = [str(outcome) for outcome in outcomes if isinstance(outcome, InputError)]
        if not failed:
            _forget(sweep.folder)
        return failed


def _forget(folder: Path) -> None:
    """Remove a finished sweep's checkpoints and log; the list of members last, so that what a kill leaves is found."""
    for path in sorted(folder.glob("*"), key=lambda path: path.name == "members.json"):
        path.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def run_together(recipe: Recipe, device: str) -> None:
    """One run by all processes that torchrun started, see distributed.py; the first of them writes.

    Raises:
        InputError: its loss diverged, or the recipe cannot be split among so many.
        Stopped: asked to stop; a checkpoint holds what was done.
    """
    from . import data, distributed, train
    first = distributed.rank() == 0
    with records.locked([recipe]) if first else nullcontext():
        if first:
            data.load(recipe.dataset)  # decoded once; the others, who wait at the question below, read its cache
        if distributed.any_process(first and records.load(recipe) is not None):
            return
        outcome, = train.sweep([recipe], data.load(recipe.dataset), device, _sweep([recipe]).folder)
        if isinstance(outcome, InputError):
            raise outcome
        if first:
            records.save(recipe, *outcome)
            _forget(_sweep([recipe]).folder)
        distributed.any_process(False)  # nobody leaves before the record is there


def work(sweep: Sweep) -> list[str]:
    """`train_sweep` in a worker process: on one thread, as independent runs side by side use the cores best, and with
    all that is printed in the sweep's log."""
    import torch
    torch.set_num_threads(1)
    with logged(sweep.log):
        return within_memory(train_sweep, sweep, lambda run: print(
            f"epoch {len(run.rows)} of {run.recipe.epochs}, run {run.recipe.run_id}", flush=True))


def _same_pictures(record: records.Record) -> records.Record:
    """The record, if the data folder it names still holds the pictures that it was made from."""
    name = record.recipe.dataset
    if os.path.isdir(name):
        from . import data
        if data.load(name).sha256 != record.provenance["data_sha256"]:
            raise InputError(f"The pictures in {name} are not those of run {record.run_id}: restore them, or delete "
                             f"{records.runs_folder() / record.run_id} to run again.")
    return record


def _now_and_then(recipe: Recipe) -> Callable[[dict], None]:
    """Prints an epoch's number if a minute has passed since the last time."""
    last = time.monotonic()

    def line(row: dict) -> None:
        nonlocal last
        if time.monotonic() - last > 60:
            last = time.monotonic()
            print(f"  {recipe.in_words()}: epoch {row['epoch']} of {recipe.epochs}", flush=True)
    return line


def _watched() -> bool:
    """Whether somebody sees a progress bar: a terminal, or a notebook that papermill or nbval does not run."""
    if os.environ.get("TQDM_DISABLE"):
        return False
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return sys.stderr.isatty() or shell is not None


def _has_gpu() -> bool:
    import torch
    return torch.cuda.is_available()


BUSY = 500e9  # multiply-accumulates that fill a large GPU (ours): of ResNet-18 and its teacher, on a batch of 128
SHARE = 4e9  # bytes of a GPU's memory for each process (ours)


def default_workers(wanted: Iterable[Recipe]) -> int:
    """One process a core without a GPU; with one, no more of them than have `SHARE` of its memory each and together do
    `BUSY` arithmetic in the updates of the costliest recipe, but one."""
    import torch
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not torch.cuda.is_available():
        return cores
    costliest = max(map(_arithmetic, {as_measured(recipe) for recipe in wanted}), default=1)
    memory = torch.cuda.get_device_properties(0).total_memory
    return max(1, min(cores, int(memory / SHARE), int(BUSY / costliest)))


def _arithmetic(recipe: Recipe) -> int:
    """Multiply-accumulates of one update of each network."""
    from . import data, distillers
    channels, size, classes, *_ = data.shape(recipe.dataset)
    return recipe.batch_size * sum(distillers.make(recipe, channels, classes, size).cost.values())


def run_all(wanted: Iterable[Recipe], workers: int | str = 0, say: Callable[[str], None] = print,
            executor: Executor | None = None) -> list[records.Record]:
    """Records of all recipes; what is finished is loaded, the rest is trained side by side.

    Args:
        wanted: recipes, repeats allowed.
        workers: processes; 0 for `default_workers()`. "auto" also trains several seeds at once on a GPU.
        say: receives a plain line now and then when there is no terminal for a progress bar.
        executor: where sweeps run, see executors.py; processes of this machine unless given.

    Raises:
        InputError: bad input, before any training; or runs that failed, after all others have finished.
        Stopped, KeyboardInterrupt: asked to stop; the workers have saved what was done.
    """
    together, workers = workers == "auto" and executor is None, check_workers(workers)
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise InputError("Worker processes read a script again before they work: put its call of run_all under "
                         'if __name__ == "__main__":.')
    wanted = list({recipe.run_id: recipe for recipe in wanted}.values())
    missing = [recipe for recipe in wanted if records.load(recipe) is None]
    if missing:
        _check_inputs(missing)
        workers = workers or (1 if executor else default_workers(missing))
        planned = sweeps(missing, workers)
        if together and _has_gpu():
            planned = of_several_seeds(planned)
        _train_side_by_side(planned, executor or LocalProcesses(workers), say)
    return [_same_pictures(records.load(recipe)) for recipe in wanted]


def _check_inputs(missing: list[Recipe]) -> None:
    """Find bad input before any long work: data, batch sizes, networks and a writable folder."""
    from . import data, distillers
    from .batches import STATISTICS
    from .lessons import School
    from .train import batches_of, recipe_schedule
    records.check_writable(records.runs_folder())
    for recipe in {replace(recipe, seed=0).run_id: recipe for recipe in missing}.values():
        dataset = data.load(recipe.dataset)
        training, _ = data.split(dataset, recipe.train_images, recipe.val_fraction, recipe.seed)
        batches = batches_of(recipe, dataset.train_images[training], dataset.train_labels[training],
                             STATISTICS.get(recipe.normalise))
        course = len(batches)
        if recipe.method == "education":
            course = School(batches, recipe, dataset.num_classes).course(recipe)
        recipe_schedule(recipe, course)
        distillers.make(recipe, dataset.channels, dataset.num_classes, dataset.image_size)


def _train_side_by_side(planned: list[Sweep], executor: Executor, say: Callable[[str], None]) -> None:
    progress, failed = Progress(planned, say), []
    futures = {}
    try:
        with getattr(executor, "batch", nullcontext)():
            for sweep in planned:
                futures[executor.submit(work, sweep)] = sweep
        waiting = set(futures)
        while waiting:
            done, waiting = wait(waiting, timeout=1, return_when=FIRST_COMPLETED)
            for future in done:
                failed += _failures(future, futures[future])
            progress.update([futures[future] for future in waiting])
    except BaseException:
        _stop(executor, futures)
        raise
    finally:
        progress.close()
        executor.shutdown()
    if failed:
        runs = sum(len(sweep.recipes) for sweep in planned)
        raise InputError(failed[0] if len(failed) == 1 else
                         f"{len(failed)} failures in {runs} runs, and the others are finished: " + " ".join(failed[:3])
                         + f" And so on: the logs are in {records.runs_folder() / '.sweeps'}." * (len(failed) > 3))


def _failures(future, sweep: Sweep) -> list[str]:
    """What a finished task has to say; a run that fails must not cost the others."""
    error = future.exception()
    if error is None:
        return [f"{sentence} (Log: {sweep.log})" for sentence in future.result()]
    why = ("its process was killed, perhaps for want of memory (give the same command again with fewer WORKERS), or it "
           'could not start, because a script calls this outside if __name__ == "__main__":'
           if isinstance(error, BrokenProcessPool) else
           str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}")
    members = ", ".join(f"{recipe.run_id} ({recipe.in_words()})" for recipe in sweep.recipes[:3])
    members += f" and {len(sweep.recipes) - 3} more of its sweep" * (len(sweep.recipes) > 3)
    return [f"Run {members} failed, {why.removesuffix('.')}; its log is {sweep.log}."]


def _stop(executor: Executor, futures: dict) -> None:
    """Let the workers save and end. A second Ctrl-C while waiting for them gives up what they did since their last
    checkpoint."""
    try:
        while left := [future for future in futures if not (future.done() or future.cancelled())]:
            if hasattr(executor, "stop"):
                executor.stop()  # more than once: a worker may only just have been started
            wait(left, timeout=5)
    except BaseException:
        if hasattr(executor, "kill"):
            executor.kill()
        raise


class Progress:
    """A bar in a terminal or a notebook; a plain line every half minute elsewhere. It reads the sweeps' logs."""

    def __init__(self, planned: list[Sweep], say: Callable[[str], None]):
        from tqdm import tqdm
        self.total = sum(sweep.cost for sweep in planned)
        self.runs = sum(len(sweep.recipes) for sweep in planned)
        self.started = self.last = time.monotonic()
        self.say, self.bar = say, tqdm(total=self.runs, unit="run") if _watched() else None
        self.before = self._share(planned)

    def update(self, unfinished: list[Sweep]) -> None:
        every = 2 if self.bar is not None else 30
        if unfinished and time.monotonic() - self.last < every:
            return
        self.last = time.monotonic()
        elapsed, share = self.last - self.started, self._share(unfinished)
        left = elapsed * (1 - share) / max(share - self.before, 1e-3)
        done = self.runs - sum(len(sweep.recipes) for sweep in unfinished)
        if self.bar is not None:
            self.bar.n = done
            self.bar.set_postfix_str(f"{100 * share:.0f}% of the work, about {left:.0f} s left")
        else:
            self.say(f"{done} of {self.runs} runs done, {100 * share:.0f}% of the work after {elapsed:.0f} s, about "
                     f"{left:.0f} s left")

    def _share(self, unfinished: list[Sweep]) -> float:
        return 1 - sum(sweep.cost * (1 - _epochs_logged(sweep)) for sweep in unfinished) / self.total

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


def _epochs_logged(sweep: Sweep) -> float:
    """Share of a sweep's epochs that its log tells of."""
    try:
        lines = {line for line in sweep.log.read_text(errors="replace").splitlines() if line.startswith("epoch ")}
    except OSError:  # not there yet, or no more
        return 0.0
    return min(len(lines) / sum(recipe.epochs for recipe in sweep.recipes), 1.0)


# Planning

BATCHES = {"cpu": 2, "cuda": 20}  # of an epoch in which updates are timed, after another one (ours)


@dataclass(frozen=True)
class Plan:
    """What a profile would still cost on this machine.

    first: seconds by which the first updates of the slowest network exceed later ones.
    """

    runs: int
    done: int
    seconds: float
    megabytes: float
    first: float


class Cost(NamedTuple):
    """What a recipe costs on this machine, in seconds a picture.

    update: by kind. before: seconds before each evaluation. look: of evaluation; more: of it in a sweep, where a
    shared teacher is asked once. first: seconds by which the first updates exceed later ones. megabytes: of weights
    that a run leaves. train, test: pictures of the data set.
    """

    update: dict[str, float]
    before: float
    look: float
    more: float
    first: float
    megabytes: float
    train: int
    test: int


def plan(rows: list[Row], workers: int | str = 0) -> Plan:
    """Count the runs that are not done and estimate their time by timing the loop of each distinct recipe.

    Data need not be at hand: shapes of the known sets are facts. Processes are taken not to slow each other.
    """
    wanted, workers = unique(rows), check_workers(workers)
    missing = [recipe for recipe in wanted if records.load(recipe) is None]
    workers, measured = workers or default_workers(missing), cache(_measure)
    with one_thread():
        costs = {recipe: measured(as_measured(recipe)) for recipe in missing}
    seconds = sum(_seconds(recipe, costs[recipe], shares=i > 0 and recipe.method != "self_kd")
                  for sweep in sweeps(missing, workers) for i, recipe in enumerate(sweep.recipes) if recipe in costs)
    megabytes = sum(cost.megabytes + 1500 * recipe.epochs / 1e6 for recipe, cost in costs.items())
    return Plan(len(wanted), len(wanted) - len(missing), seconds / workers, megabytes,
                max((cost.first for cost in costs.values()), default=0.0))


def seconds(recipe: Recipe) -> float:
    """What a run alone would take on this machine."""
    return _seconds(recipe, _measure(as_measured(recipe)))


@contextmanager
def one_thread() -> Iterator[None]:
    """As the worker processes have it."""
    import torch
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def as_measured(recipe: Recipe) -> Recipe:
    """The recipe of two short epochs whose updates cost the same. Neither seed, length nor rate changes that, and of the
    interval only whether there is one. What is valid, or acts, only at a recipe's own length goes with them."""
    return replace(recipe, seed=0, train_images=0, val_fraction=0.0, epochs=2, eval_every=1, lr=1e-3,
                   lr_schedule="cosine", interval=float((recipe.interval > 0) - (recipe.interval < 0)),
                   method="online_kd" if recipe.method == "offline_kd" else recipe.method,
                   zero_target="post_update" if recipe.interval else recipe.zero_target,
                   refit_passes=min(recipe.refit_passes, 1), distil_start=float(recipe.interval < 0), ramp_epochs=0.0, growth="none",
                   grade_epochs=(), dropout_period=1.0, ema_decay=0.99)


def _seconds(recipe: Recipe, cost: Cost, shares: bool = False) -> float:
    """Of a run: of its updates, and of evaluation at the end of epochs; or of what it adds to a sweep."""
    if shares and recipe.method == "baseline":
        return 0.0  # it is the teacher
    images = recipe.train_images or cost.train
    held_out = recipe.val_fraction * images
    passes = {"teach": float(not shares), "fit": recipe.refit_passes}
    if recipe.method == "ema" and recipe.interval:  # an average makes one step a block
        passes["learn"] = 1 / max(interval_batches(_batches_per_epoch(recipe), recipe.interval), 1)
    training = (images - held_out) * sum(passes.get(kind, 1) * each for kind, each in cost.update.items())
    look = cost.before + (cost.test + held_out) * (cost.more if shares else cost.look)
    return recipe.epochs * training + math.ceil(recipe.epochs / recipe.eval_every) * look


def _measure(recipe: Recipe) -> Cost:
    """Time the very loop that trains, on random pictures: batches, updates and evaluation."""
    import torch

    from . import data, train
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    train.repeatable(device)
    run, batches, evaluate, scored = _assembled(recipe, device)
    each, first = _updates(run, batches, device)
    images = {"teach": len(batches.images) / len(batches)}
    evaluate([run])  # a first time takes longer
    times, prepare = [now(device)], getattr(run.distiller, "before_scores", list)
    run.distiller.before_scores = list  # which does nothing: it is timed apart
    for look in (prepare, partial(evaluate, [run]), partial(evaluate, [run] * 2)):
        look()
        times.append(now(device))
    before, alone, both = (end - begin for begin, end in zip(times, times[1:]))
    values = sum(p.numel() for module in run.distiller.modules.values() for p in module.parameters())
    return Cost({kind: one / images.get(kind, run.recipe.batch_size) for kind, one in each.items()}, before,
                alone / scored, max(both - alone, 0.0) / scored, first, 4 * values / 1e6, *data.shape(recipe.dataset)[3:])


def _assembled(recipe: Recipe, device):
    """A run, its batches and its evaluation, of so many random pictures. A processor core would need minutes for the
    batches of a large network: it gets smaller ones."""
    from . import train
    pictures = _random_pictures(recipe, BATCHES[device.type] * recipe.batch_size * max(len(recipe.schools), 1))
    (run,), batches, evaluate = train.assemble([recipe], pictures, device)
    fewest = 2 * recipe.batch_norm_parts * recipe.accumulate
    affordable = max(fewest, int(5e9 / max(run.distiller.cost.values())))  # about half a second's work
    if device.type == "cpu" and affordable < recipe.batch_size:
        return _assembled(replace(recipe, batch_size=affordable), device)
    return run, batches, evaluate, len(pictures.test_images)


def _random_pictures(recipe: Recipe, count: int):
    """For training and, up to 2,500, for evaluation; with labels of each group of classes."""
    import torch

    from . import data
    channels, size, classes, *_ = data.shape(recipe.dataset)
    drawn = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, channels, size, size), dtype=torch.uint8, generator=drawn)
    labels = torch.randperm(count, generator=drawn) * classes // count
    return data.Dataset(recipe.dataset, images, labels, images[:2500], labels[:2500], tuple(map(str, range(classes))),
                        sha256="")


def _updates(run, batches, device) -> tuple[dict[str, float], float]:
    """Seconds of an update by its kind, in the second half of a run; and those by which the first ones exceed them. A
    GPU is waited for only where the kind changes, as in training it hardly ever is."""
    from . import graphs, train
    course = batches.course(run.recipe) if hasattr(batches, "course") else len(batches)
    walked, found = train.walk([run], batches, lambda runs: [{}]), {}  # kind -> [(seconds, updates)]
    with closing(graphs.Graphs([run], graphs.chosen(None, device), device)):
        for kind, events in groupby(event.kind for event in train.recipe_schedule(run.recipe, course)):
            count, begun = len(list(events)), now(device)
            for _ in islice(walked, count):
                pass
            found.setdefault(kind, []).append((now(device) - begun, count))
    del found["epoch"]
    later = {kind: [sum(column) for column in zip(*times[len(times) // 2:])] for kind, times in found.items()}
    each = {kind: seconds / count for kind, (seconds, count) in later.items()}
    return each, sum(times[0][0] - times[0][1] * each[kind] for kind, times in found.items())


def now(device) -> float:
    """Seconds, when the device has done all that it was asked to."""
    if device.type == "cuda":
        import torch
        torch.cuda.synchronize()
    return time.perf_counter()
