"""One frozen `Recipe` describes a run completely. No torch here.

Every field states its unit or its allowed values, the source of its default (the paper, the released programs, whose
deviations carry ids, or us), and the methods that read it: no other method accepts it. Two recipes with the same fields
have the same run id; nothing else decides a run's numbers.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import operator
import os
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, partial
from types import MappingProxyType
from typing import Any, Callable, NamedTuple

from ..errors import InputError, nearest
from ..schedule import COUNTERS, RULES, TAILS
from . import plugins

# Raise it when the meaning or the default of a field changes: old records are then refused by name, never misread.
VERSION = 2

DATA_SETS = ("digits", "glyphs", "cifar10", "cifar100", "tiny-imagenet")
METHODS = ("baseline", "online_kd", "offline_kd", "self_kd", "ie_kd", "mutual", "education", "ema", "past_self")
AUGMENTATIONS = ("none", "crop", "crop_flip", "crop_flip_rotate", "autoaugment_cutout", "strong")
RESNETS = ("resnet8", "resnet14", "resnet20", "resnet32", "resnet56", "resnet110",
           "resnet10", "resnet18", "resnet34", "resnet50", "resnet101")
DEIT = "timm/deit_"  # of which there are distilled ones, with a token more (timm's deit3 have none)
TRANSFORMERS = ("pvt_tiny", "t2t_vit_7")  # those that timm lacks; timm's models are called "timm/<name>"

# Who reads a field
_TEACHER = ("online_kd", "offline_kd", "ie_kd", "mutual", "education")  # a second network teaches
_SOFT = ("online_kd", "offline_kd", "self_kd", "ie_kd", "past_self")  # losses of logits and features
_BLOCKS = ("online_kd", "self_kd", "ie_kd", "mutual", "education", "ema")  # intervals of any rule
_NOISE = ("baseline", "online_kd", "offline_kd", "ie_kd", "mutual", "ema", "past_self")  # plain networks
_MAPS = ("ie_kd", "mutual")
# What a field that a method does not read must be where it is not the default
_FIXED = {"mutual": {"alpha": 0.0, "beta": 0.0}, "ema": {"alpha": 0.0, "beta": 0.0}, "education": {"beta": 0.0}}
# What records of earlier commits hold besides, and can only be this
_GONE = {"eval_heads": "mean", "accumulate": 1, "factor_reduction": "mean", "factor_rate": 0.5, "refit_passes": 0,
         "peers": 2, "leader": "fixed", "teacher_batches": "own", "teacher_start": "run", "kd_scope": "own_slice",
         "reference_relu": False, "dropout_kind": "elementwise", "split": "halves", "inherit_metric": "lp",
         "explore_metric": "neg_lp", "factor_p": 1.0, "explore_encoder": "joint"}


class Range(NamedTuple):
    holds: Callable[[float], bool]  # NaN fails every comparison, so it is refused too
    words: str


_HUGE = 1e18  # ours; its square is a number in single precision
_AT_LEAST_0 = Range(lambda v: 0 <= v <= _HUGE, "a number from 0 to 1e18")
_AT_LEAST_1 = Range(lambda v: 1 <= v <= _HUGE, "a number from 1 to 1e18")
_POSITIVE = Range(lambda v: 0 < v <= _HUGE, "a positive number up to 1e18")
_BELOW_1 = Range(lambda v: 0 <= v < 1, "at least 0 and below 1")
_SHARE = Range(lambda v: 0 <= v <= 1, "a number from 0 to 1")


def _field(default, unit: str, source: str, allowed: tuple | Range = (), of: tuple[str, ...] = METHODS):
    return field(default=default, metadata={"unit": unit, "source": source, "allowed": allowed, "of": of})


_self = partial(_field, of=("self_kd",))
_online = partial(_field, of=("online_kd",))
_maps = partial(_field, of=_MAPS)
_education = partial(_field, of=("education",))


@dataclass(frozen=True)
class Recipe:
    """All settings that decide the outcome of one run; `describe()` prints them as a table.

    Raises:
        InputError: an unknown name, a number out of range, a field of another method, or contradictory fields.
    """

    # What is trained, on what
    method: str = _field("baseline", "name", "ours", METHODS)
    dataset: str = _field("cifar100", "data set name or folder", "paper")
    train_images: int = _field(0, "images, stratified by class; 0 = all", "ours", _AT_LEAST_0)
    val_fraction: float = _field(0.0, "share of the training images held out for validation", "ours", _BELOW_1)
    seed: int = _field(0, "integer", "ours; the released programs set none", _AT_LEAST_0)
    # Networks
    model: str = _field("resnet18", "name; any of timm as timm/<name>", "paper")
    width: int = _field(0, "channels of the first stage, or a transformer's dimension; 0 = the network's own", "ours",
                        _AT_LEAST_0)
    teacher_model: str = _field("", "name; empty = as the student", "paper", of=_TEACHER)
    teacher_width: int = _field(0, "as width; 0 = as the student, or of another kind the network's own", "ours",
                                _AT_LEAST_0, _TEACHER)
    teacher_weights: str = _field("", "SHA-256 of the weights that the teacher starts from, see keep_weights; empty = "
                                  "drawn", "ours", of=("online_kd", "offline_kd"))
    teacher_learns: bool = _online(True, "whether the teacher learns, or stays as teacher_weights has it", "ours")
    student_weights: str = _field("", "SHA-256 of the weights that the student starts from; empty = drawn", "ours",
                                  of=("baseline", "online_kd", "offline_kd"))
    image_size: int = _field(0, "pixels high and wide that a transformer sees; 0 = the data's own",
                             "ours; the released transformer programs: 224", _AT_LEAST_0)
    patch_size: int = _field(0, "pixels of a transformer's patch; 0 = the architecture's own", "ours", _AT_LEAST_0)
    depth: int = _field(0, "blocks of a transformer; 0 = the architecture's own", "ours", _AT_LEAST_0)
    heads: int = _field(0, "attention heads of a transformer; 0 = the architecture's own", "ours", _AT_LEAST_0)
    drop_path: float = _field(0.0, "chance in [0, 1) to skip a transformer's last block; less for earlier ones",
                              "ours; the released transformer programs: 0.1", _BELOW_1)
    head_init: str = _field("timm", "a transformer's head and tokens: timm's, or heads of zero and wider tokens",
                            "ours", ("timm", "zero"))
    dist_token: str = _field("never", "a distillation token: of no network, of all, or of the student (V4)", "ours",
                             ("never", "always", "released"), ("baseline", "online_kd", "offline_kd", "ema"))
    init: str = _field("torch", "name", "released online programs", ("torch", "kaiming"))
    start: str = _field("student", "initial weights of a baseline: the student's or the teacher's. With the teacher's, "
                        "the run equals online KD's teacher", "ours", ("student", "teacher"), ("baseline",))
    gate: str = _self("signed", "the map before the sigmoid (A16)", "ours", ("signed", "rectified"))
    batch_norm_parts: int = _field(1, "parts of a batch that are normalised apart, as on so many GPUs (A12)", "ours",
                                   _AT_LEAST_1)
    # Optimisation: SGD with momentum and weight decay on every parameter; or AdamW, with decay on matrices only
    optimizer: str = _field("sgd", "name", "paper; adamw: released transformer programs; sam: ours, a control",
                            ("sgd", "adamw", "sam"))
    sam_rho: float = _field(0.05, "length of SAM's step uphill", "Foret et al. 2021", _POSITIVE, ("baseline",))
    epochs: int = _field(80, "passes over the training images", "paper", _AT_LEAST_1)
    batch_size: int = _field(128, "images", "paper", Range(lambda v: v >= 2, "a whole number of at least 2 (batch norm "
                                                                              "needs two images)"))
    lr: float = _field(0.01, "full learning rate: at the start, or after a warm-up", "paper", _POSITIVE)
    teacher_lr: float = _field(0.0, "full learning rate of the teacher; 0 = as the student's", "ours", _AT_LEAST_0,
                               ("online_kd", "offline_kd"))
    lr_schedule: str = _field("cosine", "name (A9)", "ours", ("cosine", "constant", "multistep", "late_steps",
                                                              "warmup_cosine"))
    warmup_epochs: int = _field(20, "epochs, of warmup_cosine", "released transformer programs", _AT_LEAST_0)
    student_clock: str = _field("own", "whose progress sets the student's learning rate (A9)", "ours",
                                ("own", "teacher"), ("online_kd", "offline_kd", "self_kd", "ie_kd", "mutual"))
    momentum: float = _field(0.9, "of SGD", "paper", _BELOW_1)
    weight_decay: float = _field(5e-4, "L2 coefficient", "paper", _AT_LEAST_0)
    clip_norm: float = _field(0.0, "largest norm of all that an update changes together; 0 = any", "ours", _AT_LEAST_0)
    precision: str = _field("fp32", "of the forward passes; bf16 and fp16 (autocast) only pay where the hardware has "
                            "them", "released programs", ("fp32", "bf16", "fp16"))
    idle_update: str = _online("skip", "while one network learns, the other rests, or is updated with gradients of "
                               "zero (V1)", "ours", ("skip", "zero_grad"))
    label_smoothing: float = _field(0.0, "share of the label that all classes get, the teacher's labels too",
                                    "ours, a control", _BELOW_1, ("baseline", "online_kd", "offline_kd"))
    eval_every: int = _field(1, "epochs between evaluations; the last epoch always", "released programs", _AT_LEAST_1)
    # Batches
    augment: str = _field("crop_flip_rotate", "name (A19)", "released online program", AUGMENTATIONS)
    normalise: str = _field("own", "statistics of the training images, or of a named set (A19)", "ours",
                            ("own", "cifar10", "cifar100", "imagenet"))
    drop_last: bool = _field(False, "leave out an epoch's last, smaller batch",
                             "ours; the released transformer programs do")
    # Schedule
    interval: float = _field(0.0, "space interval s, epochs; negative: the teacher is behind",
                             "ours; the released default is 1.0 (A10)", of=METHODS[1:])
    rule: str = _field("fixed", "lengths of the blocks; constant: no blocks, a lead of exactly s (A6)", "paper", RULES,
                       _BLOCKS)
    replay: str = _field("same", "what the student learns in a replay: the teacher's pixels, or not (A6, V5)", "paper",
                         ("same", "fresh_batch", "restart"), (*_TEACHER, "self_kd"))
    extra_step: bool = _online(False, "one more update after a replay of whole epochs (V10)", "ours")
    tail: str = _field("replay", "the last, partial interval (A11)", "ours", TAILS, _BLOCKS)
    counter: str = _self("one", "where the count of batches starts (A4)", "ours", COUNTERS)
    # Distillation
    temperature: float = _field(3.0, "T", "paper", _POSITIVE, (*_SOFT, "education"))
    alpha: float = _field(0.3, "weight of the soft loss; the labels get 1 - alpha", "paper", _SHARE,
                          (*_SOFT, "education"))
    distil_start: float = _field(0.0, "epochs of the student's data that it learns from labels alone", "ours",
                                 of=("online_kd", "offline_kd", "past_self", "ie_kd", "mutual"))
    beta: float = _field(0.03, "weight of the feature loss", "released programs", _AT_LEAST_0, _SOFT)
    soft_loss: str = _field("kl", "name (A1); kl_shuffled is a control", "ours",
                            ("kl", "soft_cross_entropy", "probability_kl", "kl_per_class", "kl_shuffled"), _SOFT)
    t_squared: bool = _field(True, "multiply the soft loss by T^2 (A18)", "ours", of=(*_SOFT, "education"))
    student_forwards: int = _field(1, "2: the soft loss takes a second pass of the student, with its own noise (V6)",
                                   "ours", (1, 2), ("online_kd", "offline_kd"))
    teacher_weight: float = _online(1.0, "of the teacher's labels (V11)", "ours", _POSITIVE)
    feature_loss: str = _field("l2_per_sample", "name (A2)", "ours", ("l2_per_sample", "batch_frobenius"), _SOFT)
    feature_exits: tuple = _self((1, 2, 3), "exits with a feature loss, 1 = shallowest (A17)", "ours")
    teacher_mode: str = _field("batch", "how a teacher that learns is asked: by the statistics of the batch, which "
                               "moves nothing; eval: by running statistics; train: with all noise, and statistics "
                               "move (A8, A13)", "ours", ("batch", "eval", "train"), (*_TEACHER, "past_self"))
    zero_target: str = _online("post_update", "s = 0: teacher's view of the batch (A7)", "ours",
                               ("post_update", "pre_update"))
    self_update: str = _self("alternate", "what a replay updates (A3)", "ours", ("alternate", "everything"))
    idle_exits: str = _self("frozen", "exits while the deepest one learns alone (A12)", "ours", ("frozen", "decay"))
    # IE-KD, and factors of mutual learning (I rows: deviations of the released IE-KD program)
    map_loss: str = _field("none", "what of the last maps is compared", "ours", ("none", "factor"),
                           (*_MAPS, "baseline"))  # of a baseline that is IE-KD's teacher
    inherit_weight: float = _maps(500.0, "weight of inheritance (I5)", "the same program's factor transfer",
                                  _AT_LEAST_0)
    explore_weight: float = _maps(500.0, "weight of exploration (I5)", "the same program's factor transfer",
                                  _AT_LEAST_0)
    ramp_epochs: float = _maps(0.0, "epochs in which map losses rise to their weights, after distil_start", "ours",
                               _AT_LEAST_0)
    mutual_weight: float = _field(1.0, "weight of the divergence (I7)", "Zhang et al. 2018", _AT_LEAST_0, ("mutual",))
    # Education Distillation (E rows: deviations of its released program)
    schools: tuple = _education((), "sizes of the groups of classes, in order, or their lists; () = one (E6)", "ours")
    school_bounds: str = _education("half_open", "strict loses the classes on the bounds (E7)", "ours",
                                    ("half_open", "strict"))
    growth: str = _education("grow", "the student grows with its classes, or is whole from the start", "ED abstract",
                             ("grow", "none"))
    grade_epochs: tuple = _education((), "epochs of each grade; () = as equal as can be, the later ones longer (E20)",
                                     "ours")
    lr_on_growth: str = _education("restart", "the student's learning rate at a new grade (E20)", "ours",
                                   ("restart", "continue"))
    optimizer_on_growth: str = _education("keep", "momentum of what has grown before (E22)", "ours", ("keep", "reset"))
    grade_batches: str = _education("mixed", "groups within an epoch (E24)", "ours", ("mixed", "sequential"))
    final_head: str = _education("plain", "the last grade's (E30)", "ours", ("plain", "batch_norm"))
    # Spaced dropout and spaced EMA (B and M rows: deviations of their released programs)
    dropout: float = _field(0.0, "largest rate after each stage of a plain ResNet", "ours", _BELOW_1, _NOISE)
    dropout_rule: str = _field("constant", "over updates: sine |sin(pi t / S)|, random: U(0, 1) of it a site (B3, B4)",
                               "ours", ("constant", "sine", "random"), _NOISE)
    dropout_period: float = _field(1.0, "sine: S, epochs between two rates of zero",
                                   "released dropout program's README", _POSITIVE, _NOISE)
    dropout_at_test: str = _field("off", "dropout while scored; on_counted: tests move t (B1, B2)", "ours",
                                  ("off", "on", "on_counted"), ("baseline",))
    ema_decay: float = _field(0.99, "a of the average", "released EMA program's README", _BELOW_1,
                              ("ema", "past_self"))
    ema_debias: bool = _field(True, "without the weights it started from (M4)", "ours", of=("ema",))
    ema_statistics: str = _field("recalibrate", "running statistics of the average: from 20 training batches, or not "
                                 "(M1, M2)", "ours", ("recalibrate", "stale", "batch"), ("ema",))

    def __new__(cls, *_, **fields):
        for name in fields:
            if name not in cls.__dataclass_fields__:
                raise InputError(nearest("recipe field", name, cls.__dataclass_fields__))
        return super().__new__(cls)

    def __post_init__(self):
        from .checks import check
        for name in ("feature_exits", "grade_epochs", "schools"):
            object.__setattr__(self, name, _whole_numbers(name, getattr(self, name)))
        object.__setattr__(self, "feature_exits", tuple(sorted(set(self.feature_exits))))
        if isinstance(self.dataset, str) and self.dataset not in DATA_SETS + plugins.names("dataset") and (
                self.dataset[:1] == "~" or os.sep in self.dataset or os.path.isdir(self.dataset)):
            object.__setattr__(self, "dataset", os.path.abspath(os.path.expanduser(self.dataset)))
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            if type(f.default) is float and type(value) is int and abs(value) <= _HUGE:  # 1 and 1.0 are one recipe
                object.__setattr__(self, f.name, float(value))
        check(self)

    @property
    def run_id(self) -> str:
        """Hash of the fields off their defaults, 12 hexadecimal digits; a new field at its default keeps old ids."""
        set_here = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)
                    if getattr(self, f.name) != f.default}
        return hashlib.sha256(json.dumps({"version": VERSION, **set_here}, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def like(self) -> str:
        """Return the method of ours whose fields and networks it has: its own, unless that is a registered one."""
        return plugins.like(self.method)

    def in_words(self) -> str:
        """Name this run for messages, by what tells it from its neighbours.

        >>> Recipe(dataset="glyphs", seed=3).in_words()
        'baseline on glyphs, s = 0, seed 3'
        """
        return f"{self.method} on {self.dataset}, s = {self.interval:g}, seed {self.seed}"

    def to_json(self) -> str:
        """Return canonical JSON: sorted keys, no blanks, the recipe version included."""
        return json.dumps({"version": VERSION, **dataclasses.asdict(self)}, sort_keys=True, separators=(",", ":"))


def _whole_numbers(name: str, given: Any) -> tuple:
    """Return a field's whole numbers as a tuple; lists of them, as JSON has them, as tuples within it.

    Raises:
        InputError: anything else, a text too.
    """
    def plain(value: Any) -> Any:
        if isinstance(value, bool):
            raise TypeError
        return tuple(map(plain, value)) if isinstance(value, (tuple, list, range)) else operator.index(value)
    with suppress(TypeError):
        if isinstance(made := plain(given), tuple):
            return made
    raise InputError(f"{name} = {given!r} is no tuple of whole numbers: give one, such as (1, 2).")


def from_dict(values: dict, where: str = "this recipe") -> Recipe:
    """Return the recipe of `json.loads(recipe.to_json())`.

    Raises:
        InputError: another version, an unknown field, or a value out of range.
    """
    version, names = values.get("version"), [f.name for f in dataclasses.fields(Recipe)]
    if version != VERSION:
        raise InputError(f"{where} was written by version {version} of the recipe and this package reads version "
                         f"{VERSION}: run it again, or use the package version that wrote it.")
    kept = {name: value for name, value in values.items()
            if name != "version" and not (name in _GONE and value == _GONE[name])}
    for name in kept:
        if name not in names:
            raise InputError(f"{where}: {nearest('recipe field', name, names)}")
    return Recipe(**kept)


def describe() -> list[dict]:
    """List the fields: name, value (the default), unit, allowed values, methods that read it, source."""
    return [{"field": f.name, "value": f.default, "unit": f.metadata["unit"],
             "allowed": getattr(allowed := f.metadata["allowed"], "words", None) or ", ".join(map(str, allowed)),
             "methods": "all" if f.metadata["of"] == METHODS else ", ".join(f.metadata["of"]),
             "source": f.metadata["source"]} for f in dataclasses.fields(Recipe)]


def defaults(names) -> dict:
    return {f.name: f.default for f in dataclasses.fields(Recipe) if f.name in names}


def foreign(method: str) -> MappingProxyType[str, Any]:
    """Return the fields that a method does not read -> the only value that it accepts."""
    return _foreign(plugins.like(method))


@cache  # every recipe that is made asks
def _foreign(method: str) -> MappingProxyType[str, Any]:
    return MappingProxyType({f.name: _FIXED.get(method, {}).get(f.name, f.default)
                             for f in dataclasses.fields(Recipe) if method not in f.metadata["of"]})


def is_transformer(model: str) -> bool:
    """Return whether models/transformers.py makes the network, as all of timm's; not CIFAR ResNets, not registered."""
    return model not in RESNETS + plugins.names("model")


def check_model(name: str) -> None:
    """Raise InputError if no network has this name."""
    known = RESNETS + TRANSFORMERS + plugins.names("model")
    if name not in known and not name.startswith("timm/"):
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
        hint = f'did you mean "{close[0]}"?' if close else f'a network of timm is written "timm/{name}".'
        raise InputError(f'"{name}" is not a model; {hint} Allowed: {", ".join(known)}, timm/<name>.')


def stochastic(recipe: Recipe) -> bool:
    """Return whether an update draws random numbers inside the networks, as what is registered may."""
    own = plugins.kinds(recipe) - {"rule", "augmentation", "data set"}
    return recipe.drop_path > 0 or recipe.dropout > 0 or bool(own)
