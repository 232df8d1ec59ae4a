"""A run, described completely: one frozen `Recipe`, and named functions that derive one from another.

Every field states its unit or its allowed values and where its default comes from: the paper, the released
programs (their deviations carry the ids A1 to A22; README.md lists them), or us. Two recipes with the same fields have
the same run id; nothing else decides what a run computes. No torch here.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import math
from dataclasses import dataclass, field, replace

# Raise it when the meaning or the default of a field changes: old records are then refused by name, never misread.
VERSION = 1


class InputError(ValueError):
    """Bad input, in one sentence: what was given, what is allowed, how to mend it."""

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows in place of a traceback: the sentence."""
        return [f"InputError: {self}"]


def nearest(kind: str, given: object, allowed) -> str:
    """One sentence that refuses a name and offers the nearest allowed one.

    >>> nearest("data set", "glyfs", ["digits", "glyphs"])
    '"glyfs" is not a data set; did you mean "glyphs"? Allowed: digits, glyphs.'
    """
    allowed = [str(name) for name in allowed]
    close = difflib.get_close_matches(str(given), allowed, n=1, cutoff=0.4)
    hint = f'; did you mean "{close[0]}"?' if close else "."
    article = "an" if kind[0] in "aeiou" else "a"
    return f'"{given}" is not {article} {kind}{hint} Allowed: {", ".join(allowed)}.'


METHODS = ("baseline", "online_kd", "offline_kd", "self_kd")
AUGMENTATIONS = ("none", "crop", "crop_flip", "crop_flip_rotate", "autoaugment_cutout",
                 "autoaugment_two_sided_cutout")
RULES = ("fixed", "expanding", "random", "constant", "head_start")
TAILS, COUNTERS = ("replay", "drop"), ("one", "epoch_early")
RESNETS = ("resnet8", "resnet14", "resnet20", "resnet32", "resnet56", "resnet110",
           "resnet10", "resnet18", "resnet34", "resnet50", "resnet101")


def _field(default, unit: str, source: str, allowed: tuple = ()):
    return field(default=default, metadata={"unit": unit, "source": source, "allowed": allowed})


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the outcome of one run. `describe()` prints this as a table.

    Raises:
        InputError: a name that does not exist, a number out of range, or fields that contradict each other.
    """

    # What is trained, on what
    method: str = _field("baseline", "name", "ours", METHODS)
    dataset: str = _field("cifar100", "data set name or folder", "paper")
    train_images: int = _field(0, "images, stratified by class; 0 = all", "ours")
    val_fraction: float = _field(0.0, "share of the training images held out for validation", "ours")
    seed: int = _field(0, "integer", "ours; the released programs set none (A23)")
    # Networks
    model: str = _field("resnet18", "name", "paper", RESNETS)
    width: int = _field(0, "channels of the first stage; 0 = the architecture's own", "ours")
    teacher_model: str = _field("", "name; empty = as the student", "paper", ("",) + RESNETS)
    teacher_width: int = _field(0, "channels of the first stage; 0 = as the student", "ours")
    init: str = _field("torch", "name", "released online programs", ("torch", "kaiming"))
    start: str = _field("student", "baseline: whose initial weights; with the teacher's it is online KD's very teacher",
                        "ours", ("student", "teacher"))
    gate: str = _field("signed", "self KD: the map before the sigmoid (A16)", "ours", ("signed", "rectified"))
    batch_norm_parts: int = _field(1, "parts of a batch that are normalised apart, as on so many GPUs (A12)", "ours")
    # Optimisation: SGD with momentum; weight decay on every parameter
    epochs: int = _field(80, "passes over the training images", "paper")
    batch_size: int = _field(128, "images", "paper")
    lr: float = _field(0.01, "learning rate at the start", "paper")
    lr_schedule: str = _field("cosine", "name (A9)", "ours", ("cosine", "constant", "multistep"))
    student_clock: str = _field("own", "whose progress sets the student's learning rate (A9)", "ours",
                                ("own", "teacher"))
    momentum: float = _field(0.9, "number in [0, 1)", "paper")
    weight_decay: float = _field(5e-4, "number >= 0", "paper")
    precision: str = _field("fp32", "of the forward passes; bf16 (autocast) only pays where the hardware has it",
                            "released programs", ("fp32", "bf16"))
    eval_every: int = _field(1, "epochs between evaluations; the last epoch always", "released programs")
    # Batches
    augment: str = _field("crop_flip_rotate", "name (A19)", "released online program", AUGMENTATIONS)
    normalise: str = _field("own", "statistics of the training images, or of a named set (A19)", "ours",
                            ("own", "cifar10", "cifar100", "imagenet"))
    # Schedule
    interval: float = _field(0.0, "space interval s, epochs", "ours; the released default is 1.0 (A10)")
    rule: str = _field("fixed", "lengths of the blocks; constant, head_start: no blocks, a lead of exactly s (A6)",
                       "paper", RULES)
    replay: str = _field("same", "what the student learns in a replay: the teacher's pixels, or not (A6)", "paper",
                         ("same", "fresh_augmentation", "fresh_batch"))
    tail: str = _field("replay", "the last, partial interval (A11)", "ours", TAILS)
    counter: str = _field("one", "where self KD starts to count batches (A4)", "ours", COUNTERS)
    # Distillation
    temperature: float = _field(3.0, "T > 0", "paper")
    alpha: float = _field(0.3, "weight of the soft loss, in [0, 1]; the labels get 1 - alpha", "paper")
    beta: float = _field(0.03, "weight of the feature loss, >= 0", "released programs")
    soft_loss: str = _field("kl", "name (A1); uniform and none are controls", "ours",
                            ("kl", "soft_cross_entropy", "probability_kl", "uniform", "none"))
    t_squared: bool = _field(True, "multiply the soft loss by T^2 (A18)", "ours")
    feature_loss: str = _field("l2_per_sample", "name (A2)", "ours", ("l2_per_sample", "mse", "batch_frobenius"))
    feature_exits: tuple = _field((1, 2, 3), "self KD: exits with a feature loss, 1 = shallowest (A17)", "ours")
    teacher_mode: str = _field("eval", "online KD: mode of the teacher while it teaches (A8, A13)", "ours",
                               ("eval", "train", "train_frozen"))
    zero_target: str = _field("post_update", "online KD, s = 0: teacher's view of the batch (A7)", "ours",
                              ("post_update", "pre_update"))
    self_update: str = _field("alternate", "self KD: what a replay updates (A3)", "ours",
                              ("alternate", "everything", "exits_only"))
    idle_exits: str = _field("frozen", "self KD: exits while the deepest one learns alone (A12)", "ours",
                             ("frozen", "decay"))

    def __post_init__(self):
        object.__setattr__(self, "feature_exits", tuple(self.feature_exits))
        for f in dataclasses.fields(self):
            if type(f.default) is float and type(getattr(self, f.name)) is int:
                object.__setattr__(self, f.name, float(getattr(self, f.name)))  # 1 and 1.0 are one recipe
            _check_field(f, getattr(self, f.name))
        _check_numbers(self)

    @property
    def run_id(self) -> str:
        """Twelve hexadecimal digits that name this recipe's run: a hash of the fields that are not at their default.
        A field added later, at a default that means what was done before, leaves every old id as it is."""
        set_here = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)
                    if getattr(self, f.name) != f.default}
        return hashlib.sha256(json.dumps({"version": VERSION, **set_here}, sort_keys=True).encode()).hexdigest()[:12]

    def in_words(self) -> str:
        """What tells this run from its neighbours, for messages.

        >>> Recipe(dataset="glyphs", seed=3).in_words()
        'baseline on glyphs, s = 0, seed 3'
        """
        return f"{self.method} on {self.dataset}, s = {self.interval:g}, seed {self.seed}"

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no blanks, the recipe version included."""
        return json.dumps({"version": VERSION, **dataclasses.asdict(self)}, sort_keys=True, separators=(",", ":"))


def from_dict(values: dict, where: str = "this recipe") -> Recipe:
    """The inverse of `json.loads(recipe.to_json())`.

    Raises:
        InputError: another version, an unknown field, or a value out of range.
    """
    values = dict(values)
    version = values.pop("version", None)
    if version != VERSION:
        raise InputError(f"{where} was written by version {version} of the recipe and this package reads version "
                         f"{VERSION}: run it again, or use the package version that wrote it.")
    names = [f.name for f in dataclasses.fields(Recipe)]
    for name in values:
        if name not in names:
            raise InputError(f"{where}: {nearest('recipe field', name, names)}")
    return Recipe(**values)


def describe(recipe: Recipe | None = None) -> list[dict]:
    """One row a field: name, value (the default without a recipe), unit or allowed names, source of the default."""
    recipe = recipe or Recipe()
    return [{"field": f.name, "value": getattr(recipe, f.name), "unit": f.metadata["unit"],
             "allowed": ", ".join(a or "(empty)" for a in f.metadata["allowed"]), "source": f.metadata["source"]}
            for f in dataclasses.fields(recipe)]


def _check_field(f: dataclasses.Field, value) -> None:
    allowed, kind = f.metadata["allowed"], type(f.default)
    if type(value) is not kind:
        raise InputError(f"{f.name} = {value!r} is a {type(value).__name__} and must be a {kind.__name__} "
                         f"({f.metadata['unit']}).")
    if allowed and value not in allowed:
        raise InputError(nearest(f"value of {f.name}", value, [a for a in allowed if a]))


def _check_numbers(r: Recipe) -> None:
    ranges = {  # field: (holds, what is allowed)
        "epochs": (r.epochs >= 1, "a whole number of at least 1"),
        "eval_every": (r.eval_every >= 1, "a whole number of at least 1"),
        "batch_size": (r.batch_size >= 2, "a whole number of at least 2 (batch norm needs two images)"),
        "batch_norm_parts": (1 <= r.batch_norm_parts <= r.batch_size // 2, "1, or at most half the batch size"),
        "train_images": (r.train_images >= 0, "0 for all images, or a positive count"),
        "width": (r.width >= 0, "0 for the architecture's own, or a positive count"),
        "teacher_width": (r.teacher_width >= 0, "0 for the student's, or a positive count"),
        "val_fraction": (0 <= r.val_fraction < 1, "at least 0 and below 1"),
        "lr": (0 < r.lr < math.inf, "a positive number"),
        "momentum": (0 <= r.momentum < 1, "at least 0 and below 1"),
        "weight_decay": (0 <= r.weight_decay < math.inf, "a number of at least 0"),
        "temperature": (0 < r.temperature < math.inf, "a positive number"),
        "alpha": (0 <= r.alpha <= 1, "a number from 0 to 1"),
        "beta": (0 <= r.beta < math.inf, "a number of at least 0"),
        "seed": (r.seed >= 0, "a whole number of at least 0"),
        "feature_exits": (set(r.feature_exits) <= {1, 2, 3}, "a tuple of exits out of 1, 2 and 3"),
        "interval": (0 <= r.interval <= r.epochs, f"a number of epochs from 0 to {r.epochs}, the length of the run"),
    }
    for name, (holds, allowed) in ranges.items():
        if not holds:  # NaN fails every comparison, so it is refused here too
            raise InputError(f"{name} = {getattr(r, name)!r} is out of range: give {allowed}.")
    if r.method == "offline_kd" and r.interval != r.epochs:
        raise InputError(f"Offline KD is one interval as long as the run, and interval = {r.interval} with epochs = "
                         f"{r.epochs} is not: derive it with offline_kd() after setting the epochs.")
    if r.method == "baseline" and r.interval:
        raise InputError(f"A baseline has no teacher, so interval = {r.interval} means nothing: leave it at 0.")
    if r.rule in ("constant", "head_start") and r.method == "self_kd" and r.self_update == "everything":
        raise InputError(f'rule = "{r.rule}" needs an update of the teacher on every batch, and self_update = '
                         '"everything" leaves some out: choose "alternate" or "exits_only".')
    if r.rule == "head_start" and r.method == "offline_kd":
        raise InputError('Offline KD has a teacher that is trained to its end, so rule = "head_start" means nothing: '
                         'leave it at "fixed".')
    if r.replay != "same" and r.method == "online_kd" and r.zero_target == "pre_update" and r.interval == 0:
        raise InputError(f'replay = "{r.replay}" has no meaning where the student uses what the teacher saw before its '
                         'update: set zero_target = "post_update".')
    if r.method != "baseline" and r.start != "student":
        raise InputError(f'start = "{r.start}" is for baselines and the method is {r.method}: leave it at "student".')


# Named derivations. Each takes a recipe and says what it changes.

_DISTILLATION = ("interval", "rule", "replay", "tail", "counter", "student_clock", "temperature", "alpha", "beta",
                 "soft_loss", "t_squared", "feature_loss", "feature_exits", "teacher_mode", "zero_target",
                 "self_update", "idle_exits", "gate", "teacher_model", "teacher_width")


def defaults(names) -> dict:
    """Fields by name -> their default values."""
    return {f.name: f.default for f in dataclasses.fields(Recipe) if f.name in names}


def baseline(recipe: Recipe) -> Recipe:
    """The same network, data and order trained on labels alone; what only distillation reads is reset."""
    return replace(recipe, method="baseline", **defaults(_DISTILLATION))


def teacher_of(recipe: Recipe) -> Recipe | None:
    """The baseline that is this recipe's teacher, bit for bit: it learns from labels alone, so no student changes it,
    and all recipes with the same one can share it. None where no baseline is."""
    if recipe.rule == "head_start":
        return None  # its teacher sees more batches, in another order
    if recipe.method not in ("online_kd", "offline_kd"):
        return recipe if recipe.method == "baseline" and recipe.start == "teacher" else None
    return replace(baseline(recipe), start="teacher", model=recipe.teacher_model or recipe.model,
                   width=recipe.teacher_width or recipe.width)


def online_kd(recipe: Recipe, **changes) -> Recipe:
    """A second network teaches while both are trained; `interval` = 0 unless given."""
    return replace(recipe, method="online_kd", **changes)


def offline_kd(recipe: Recipe, **changes) -> Recipe:
    """The teacher is trained to its end first: the schedule's other end, one interval as long as the run."""
    return replace(recipe, method="offline_kd", interval=float(recipe.epochs), **changes)


def self_kd(recipe: Recipe, **changes) -> Recipe:
    """The deepest exit of a multi-exit network teaches its three shallow exits."""
    return replace(recipe, method="self_kd", **changes)


def spaced(recipe: Recipe, interval: float, **changes) -> Recipe:
    """The same distillation with the teacher `interval` epochs ahead."""
    return replace(recipe, interval=interval, **changes)


# What the released programs do, deviation by deviation; each value is a switch that can be set alone.
RELEASED = {
    "online_kd": dict(soft_loss="probability_kl", t_squared=False, feature_loss="batch_frobenius",
                      teacher_mode="train", zero_target="pre_update", tail="drop", lr_schedule="constant",
                      augment="crop_flip_rotate", normalise="cifar100", init="torch"),
    "self_kd": dict(soft_loss="soft_cross_entropy", t_squared=False, feature_loss="batch_frobenius",
                    feature_exits=(1, 2), self_update="everything", counter="epoch_early", gate="rectified",
                    tail="drop", lr_schedule="constant", augment="autoaugment_cutout", normalise="cifar10",
                    init="kaiming"),
}
PRESETS = ("clean", "released")


def preset(recipe: Recipe, name: str) -> Recipe:
    """`clean` sets the defaults of the fields that `released` changes, but for the augmentation, which depends on the
    data; `released` sets the released program's values for the data set.

    Raises:
        InputError: an unknown preset, or `released` for a method that the released programs do not have.
    """
    if name not in PRESETS:
        raise InputError(nearest("preset", name, PRESETS))
    if recipe.method not in RELEASED:
        raise InputError(f'The preset "{name}" is defined for {" and ".join(RELEASED)}, not for {recipe.method}: '
                         "derive the recipe with online_kd() or self_kd() first.")
    changes = dict(RELEASED[recipe.method])
    if name == "clean":
        changes = defaults(changes.keys() - {"augment"})
    elif recipe.dataset.startswith("tiny-imagenet"):  # both released programs treat it alike
        changes |= dict(augment="crop_flip", normalise="imagenet")
    return replace(recipe, **changes)
