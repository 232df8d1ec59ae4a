"""A run, described completely: one frozen `Recipe`, and named functions that derive one from another.

Every field states its unit or its allowed values and where its default comes from: the paper, the released
programs (whose deviations carry ids: A in deviations.py; V, I and E, B and M in its siblings), or us. Two recipes with
the same fields have the same run id; nothing else decides what a run computes. No torch here.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import math
from dataclasses import dataclass, field, replace

from ..errors import InputError, nearest
from ..schedule import COUNTERS, RULES, TAILS

# Raise it when the meaning or the default of a field changes: old records are then refused by name, never misread.
VERSION = 2

METHODS = ("baseline", "online_kd", "offline_kd", "self_kd", "ie_kd", "mutual", "education", "ema",
           "past_self")
AUGMENTATIONS = ("none", "crop", "crop_flip", "crop_flip_rotate", "autoaugment_cutout",
                 "autoaugment_two_sided_cutout", "strong", "strong_upright")
RESNETS = ("resnet8", "resnet14", "resnet20", "resnet32", "resnet56", "resnet110",
           "resnet10", "resnet18", "resnet34", "resnet50", "resnet101")
DEIT = "timm/deit_"  # of which there are distilled ones, with a token more (timm's deit3 have none)
TRANSFORMERS = ("pvt_tiny", "t2t_vit_7")  # those that timm lacks; timm's models are called "timm/<name>"


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
    model: str = _field("resnet18", "name; any of timm as timm/<name>", "paper")
    width: int = _field(0, "channels of the first stage, or a transformer's dimension; 0 = the network's own", "ours")
    teacher_model: str = _field("", "name; empty = as the student", "paper")
    teacher_width: int = _field(0, "as width; 0 = as the student, or of another kind the network's own", "ours")
    image_size: int = _field(0, "pixels high and wide that a transformer sees; 0 = the data's own", "ours; the "
                             "released transformer programs: 224")
    patch_size: int = _field(0, "pixels of a transformer's patch; 0 = the architecture's own", "ours")
    depth: int = _field(0, "blocks of a transformer; 0 = the architecture's own", "ours")
    heads: int = _field(0, "attention heads of a transformer; 0 = the architecture's own", "ours")
    drop_path: float = _field(0.0, "chance in [0, 1) to skip a transformer's last block; less for earlier ones",
                              "ours; the released transformer programs: 0.1")
    head_init: str = _field("timm", "a transformer's head and tokens: timm's, or heads of zero and wider tokens",
                            "ours", ("timm", "zero"))
    dist_token: str = _field("never", "a distillation token: of no network, of all, or of the student of a KD "
                             "method (V4)", "ours", ("never", "always", "released"))
    eval_heads: str = _field("mean", "what a network with that token predicts by", "released transformer programs",
                             ("mean", "cls", "dist"))
    init: str = _field("torch", "name", "released online programs", ("torch", "kaiming"))
    start: str = _field("student", "baseline: whose initial weights; with the teacher's it is online KD's very teacher",
                        "ours", ("student", "teacher"))
    gate: str = _field("signed", "self KD: the map before the sigmoid (A16)", "ours", ("signed", "rectified"))
    batch_norm_parts: int = _field(1, "parts of a batch that are normalised apart, as on so many GPUs (A12)", "ours")
    # Optimisation: SGD with momentum and weight decay on every parameter; or AdamW, with decay on matrices only
    optimizer: str = _field("sgd", "name", "paper; adamw: released transformer programs; sam: ours, a control",
                            ("sgd", "adamw", "sam"))
    sam_rho: float = _field(0.05, "sam: length of the step uphill, > 0", "Foret et al. 2021")
    epochs: int = _field(80, "passes over the training images", "paper")
    batch_size: int = _field(128, "images", "paper")
    lr: float = _field(0.01, "full learning rate: at the start, or after a warm-up", "paper")
    lr_schedule: str = _field("cosine", "name (A9)", "ours", ("cosine", "constant", "multistep", "late_steps",
                                                              "warmup_cosine"))
    warmup_epochs: int = _field(20, "epochs, of warmup_cosine", "released transformer programs")
    student_clock: str = _field("own", "whose progress sets the student's learning rate (A9)", "ours",
                                ("own", "teacher"))
    momentum: float = _field(0.9, "number in [0, 1)", "paper")
    weight_decay: float = _field(5e-4, "number >= 0", "paper")
    precision: str = _field("fp32", "of the forward passes; bf16 (autocast) only pays where the hardware has it",
                            "released programs", ("fp32", "bf16"))
    accumulate: int = _field(1, "parts of a batch whose gradients are added up, to save memory", "ours")
    idle_update: str = _field("skip", "while one network learns, the other rests, or is updated with gradients of "
                              "zero (V1)", "ours", ("skip", "zero_grad"))
    label_smoothing: float = _field(0.0, "baseline: share of the label that all classes get, in [0, 1)", "ours, a control")
    eval_every: int = _field(1, "epochs between evaluations; the last epoch always", "released programs")
    # Batches
    augment: str = _field("crop_flip_rotate", "name (A19)", "released online program", AUGMENTATIONS)
    normalise: str = _field("own", "statistics of the training images, or of a named set (A19)", "ours",
                            ("own", "cifar10", "cifar100", "imagenet"))
    drop_last: bool = _field(False, "leave out an epoch's last, smaller batch", "ours; the released transformer "
                             "programs do")
    # Schedule
    interval: float = _field(0.0, "space interval s, epochs; negative: the teacher is behind", "ours; the released "
                             "default is 1.0 (A10)")
    rule: str = _field("fixed", "lengths of the blocks; constant, head_start: no blocks, a lead of exactly s (A6)",
                       "paper", RULES)
    replay: str = _field("same", "what the student learns in a replay: the teacher's pixels, or not (A6, V5)",
                         "paper", ("same", "fresh_augmentation", "fresh_batch", "restart"))
    extra_step: bool = _field(False, "one more update after a replay of whole epochs (V10)", "ours")
    tail: str = _field("replay", "the last, partial interval (A11)", "ours", TAILS)
    counter: str = _field("one", "where self KD starts to count batches (A4)", "ours", COUNTERS)
    # Distillation
    temperature: float = _field(3.0, "T > 0", "paper")
    alpha: float = _field(0.3, "weight of the soft loss, in [0, 1]; the labels get 1 - alpha", "paper")
    distil_start: float = _field(0.0, "epochs of the student's data that it learns from labels alone", "ours")
    beta: float = _field(0.03, "weight of the feature loss, >= 0", "released programs")
    soft_loss: str = _field("kl", "name (A1); kl_shuffled and none are controls", "ours",
                            ("kl", "soft_cross_entropy", "probability_kl", "kl_per_class", "kl_shuffled", "none"))
    t_squared: bool = _field(True, "multiply the soft loss by T^2 (A18)", "ours")
    student_forwards: int = _field(1, "2: the soft loss takes a second pass of the student, with its own noise (V6)",
                                   "ours")
    teacher_weight: float = _field(1.0, "of the teacher's labels, > 0 (V11)", "ours")
    feature_loss: str = _field("l2_per_sample", "name (A2)", "ours", ("l2_per_sample", "mse", "batch_frobenius"))
    feature_exits: tuple = _field((1, 2, 3), "self KD: exits with a feature loss, 1 = shallowest (A17)", "ours")
    teacher_mode: str = _field("batch", "how a teacher that learns is asked: by the statistics of the batch, which "
                               "moves nothing; eval: by running statistics; train: with all noise, and statistics "
                               "move (A8, A13)", "ours", ("batch", "eval", "train"))
    zero_target: str = _field("post_update", "online KD, s = 0: teacher's view of the batch (A7)", "ours",
                              ("post_update", "pre_update"))
    self_update: str = _field("alternate", "self KD: what a replay updates (A3)", "ours",
                              ("alternate", "everything", "exits_only"))
    idle_exits: str = _field("frozen", "self KD: exits while the deepest one learns alone (A12)", "ours",
                             ("frozen", "decay"))
    # IE-KD, factor and attention transfer, deep mutual learning (I rows: deviations of the released IE-KD program)
    map_loss: str = _field("none", "what of the last maps is compared", "ours", ("none", "factor", "attention"))
    split: str = _field("halves", "the student's channels: inheritance and exploration, or whole (I15)",
                        "released IE-KD program", ("halves", "random", "interleaved", "whole"))
    inherit_metric: str = _field("lp", "name (I4)", "ours", ("lp", "squared", "cosine", "cka"))
    explore_metric: str = _field("neg_lp", "name (I4)", "ours", ("neg_lp", "abs_cos", "cka"))
    inherit_weight: float = _field(500.0, "weight of inheritance, >= 0 (I5)", "the same program's factor transfer")
    explore_weight: float = _field(500.0, "weight of exploration, >= 0 (I5)", "the same program's factor transfer")
    factor_p: float = _field(1.0, "p of the distance, >= 1 (I20)", "released IE-KD program")
    factor_reduction: str = _field("mean", "over the elements of a factor", "released IE-KD program",
                                   ("mean", "sum_per_sample"))
    factor_rate: float = _field(0.5, "channels of a factor, as a share of the teacher's, in (0, 1]",
                                "released IE-KD program")
    refit_passes: int = _field(0, "more passes of the paraphraser over each block, before its replay", "ours")
    explore_encoder: str = _field("joint", "learns with the student, or stays as drawn (I21)",
                                  "released IE-KD program", ("joint", "frozen"))
    ramp_epochs: float = _field(0.0, "epochs in which map losses rise to their weights, after distil_start", "ours")
    peers: int = _field(2, "mutual learning: networks, >= 2", "Zhang et al. 2018")
    mutual_weight: float = _field(1.0, "mutual learning: weight of the divergence, >= 0 (I7)", "Zhang et al. 2018")
    leader: str = _field("fixed", "spaced mutual learning: who runs ahead", "ours", ("fixed", "alternate"))
    # Education Distillation (E rows: deviations of its released program)
    schools: tuple = _field((), "sizes of the groups of classes, in order, or their lists; () = one (E6)", "ours")
    school_bounds: str = _field("half_open", "strict loses the classes on the bounds (E7)", "ours",
                                ("half_open", "strict"))
    growth: str = _field("grow", "the student grows with its classes, or is whole from the start", "ED abstract",
                         ("grow", "none"))
    grade_epochs: tuple = _field((), "epochs of each grade; () = as equal as can be, the later ones longer (E20)",
                                 "ours")
    lr_on_growth: str = _field("restart", "the student's learning rate at a new grade (E20)", "ours",
                               ("restart", "continue"))
    optimizer_on_growth: str = _field("keep", "momentum of what has grown before (E22)", "ours", ("keep", "reset"))
    grade_batches: str = _field("mixed", "groups within an epoch (E24)", "ours", ("mixed", "sequential"))
    teacher_batches: str = _field("own", "each teacher's own, or its part of the student's", "ours",
                                  ("own", "shared"))
    teacher_start: str = _field("run", "shared batches: teachers learn from the start, or from their grade on, at the "
                                "run's learning rate", "ours", ("run", "grade"))
    kd_scope: str = _field("own_slice", "which teacher says what of which logits", "released ED program",
                           ("own_slice", "padded", "all_teachers"))
    reference_relu: bool = _field(False, "a ReLU in the heads of lower grades (E30)", "released ED program")
    final_head: str = _field("plain", "the last grade's (E30)", "ours", ("plain", "batch_norm"))
    # Spaced dropout and spaced EMA (B and M rows: deviations of their released programs)
    dropout: float = _field(0.0, "largest rate after each stage of a plain ResNet, in [0, 1)", "ours")
    dropout_kind: str = _field("elementwise", "what is dropped: elements, or (MaxDropout) the largest ones",
                               "released dropout program", ("elementwise", "max"))
    dropout_rule: str = _field("constant", "over updates: sine |sin(pi t / S)|, random: U(0, 1) of it a site (B3, B4)",
                               "ours", ("constant", "sine", "random"))
    dropout_period: float = _field(1.0, "sine: S, epochs between two rates of zero",
                                   "released dropout program's README")
    dropout_at_test: str = _field("off", "baseline: dropout while scored; on_counted: tests move t (B1, B2)", "ours",
                                  ("off", "on", "on_counted"))
    ema_decay: float = _field(0.99, "a of the average, in [0, 1)", "released EMA program's README")
    ema_debias: bool = _field(True, "without the weights it started from (M4)", "ours")
    ema_statistics: str = _field("recalibrate", "running statistics of the average: from 20 training batches, or not "
                                 "(M1, M2)", "ours", ("recalibrate", "copy", "average", "stale", "batch"))

    def __post_init__(self):
        for name in ("feature_exits", "grade_epochs"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        schools = tuple(tuple(group) if isinstance(group, (list, tuple)) else group for group in self.schools)
        object.__setattr__(self, "schools", schools)
        for f in dataclasses.fields(self):
            if type(f.default) is float and type(getattr(self, f.name)) is int:
                object.__setattr__(self, f.name, float(getattr(self, f.name)))  # 1 and 1.0 are one recipe
            _check_field(f, getattr(self, f.name))
        for name in filter(None, (self.model, self.teacher_model)):
            if name not in RESNETS + TRANSFORMERS and not name.startswith("timm/"):
                close = difflib.get_close_matches(name, RESNETS + TRANSFORMERS, n=1, cutoff=0.7)
                hint = f'did you mean "{close[0]}"?' if close else f'a network of timm is written "timm/{name}".'
                raise InputError(f'"{name}" is not a model; {hint} Allowed: {", ".join(RESNETS + TRANSFORMERS)}, '
                                 "timm/<name>.")
        _check_numbers(self)
        _check_the_lag(self)
        _check_transformers(self)
        _check_methods(self)
        _check_noise_and_average(self)

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
        "interval": (abs(r.interval) <= r.epochs, f"a number of epochs up to {r.epochs}, the length of the run"),
        "label_smoothing": (0 <= r.label_smoothing < 1, "at least 0 and below 1"),
        "sam_rho": (0 < r.sam_rho < math.inf, "a positive number"),
        "distil_start": (0 <= r.distil_start < r.epochs, f"a number of epochs from 0 to below {r.epochs}"),
        "inherit_weight": (0 <= r.inherit_weight < math.inf, "a number of at least 0"),
        "explore_weight": (0 <= r.explore_weight < math.inf, "a number of at least 0"),
        "mutual_weight": (0 <= r.mutual_weight < math.inf, "a number of at least 0"),
        "factor_p": (1 <= r.factor_p < math.inf, "a number of at least 1"),
        "factor_rate": (0 < r.factor_rate <= 1, "a number above 0 and up to 1"),
        "refit_passes": (r.refit_passes >= 0, "a whole number of at least 0"),
        "ramp_epochs": (0 <= r.ramp_epochs < math.inf, "a number of epochs of at least 0"),
        "peers": (r.peers >= 2, "2 networks or more"),
        "image_size": (r.image_size >= 0, "0 for the data's own, or a positive number of pixels"),
        "patch_size": (r.patch_size >= 0, "0 for the architecture's own, or a positive number of pixels"),
        "depth": (r.depth >= 0, "0 for the architecture's own, or a positive count"),
        "heads": (r.heads >= 0, "0 for the architecture's own, or a positive count"),
        "drop_path": (0 <= r.drop_path < 1, "at least 0 and below 1"),
        "warmup_epochs": (r.warmup_epochs >= 0, "a whole number of at least 0"),
        "accumulate": (1 <= r.accumulate <= r.batch_size, f"a whole number from 1 to the batch size, {r.batch_size}"),
        "student_forwards": (r.student_forwards in (1, 2), "1 or 2"),
        "teacher_weight": (0 < r.teacher_weight < math.inf, "a positive number"),
        "grade_epochs": (all(type(e) is int and e >= 1 for e in r.grade_epochs), "whole numbers of at least 1"),
        "dropout": (0 <= r.dropout < 1, "at least 0 and below 1"),
        "dropout_period": (0 < r.dropout_period < math.inf, "a positive number of epochs"),
        "ema_decay": (0 <= r.ema_decay < 1, "at least 0 and below 1"),
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
    asked_before = r.method == "online_kd" and r.zero_target == "pre_update" and r.interval == 0
    if r.replay not in ("same", "restart") and asked_before:
        raise InputError(f'replay = "{r.replay}" has no meaning where the student uses what the teacher saw before its '
                         'update: set zero_target = "post_update".')
    if r.method != "baseline" and r.start != "student":
        raise InputError(f'start = "{r.start}" is for baselines and the method is {r.method}: leave it at "student".')


def _check_the_lag(r: Recipe) -> None:
    """A teacher behind its student, the student's own past, and labels alone at first."""
    if r.interval < 0 and (r.method != "online_kd" or r.rule not in ("fixed", "constant")):
        raise InputError(f"interval = {r.interval:g} puts the teacher behind, which online KD with rule fixed or constant "
                         f'can, not {r.method} with rule = "{r.rule}": give an interval of at least 0.')
    if r.interval < 0 and r.distil_start < -r.interval:
        raise InputError(f"A teacher that is {-r.interval:g} epochs behind knows nothing for as long, and distil_start = "
                         f"{r.distil_start:g}: derive the recipe with behind(), or set distil_start = {-r.interval:g}.")
    if r.distil_start and r.method not in ("online_kd", "offline_kd", "past_self") and r.map_loss == "none":
        raise InputError(f"distil_start = {r.distil_start:g} is for online and offline KD and map losses, and the method "
                         f"is {r.method}: leave it at 0.")
    if r.method == "past_self" and (r.rule, r.replay, r.teacher_model, r.teacher_width) != ("fixed", "same", "", 0):
        raise InputError("A network's own past has its shape and its batches: leave rule, replay, teacher_model and "
                         "teacher_width at their defaults.")
    if r.label_smoothing and r.method != "baseline":
        raise InputError(f"label_smoothing = {r.label_smoothing:g} is for a baseline and the method is {r.method}: leave "
                         "it at 0.")
    if r.optimizer == "sam" and (r.method != "baseline" or r.accumulate > 1):
        raise InputError(f'optimizer = "sam" is for a baseline with whole batches, and this is {r.method} with accumulate '
                         f'= {r.accumulate}: choose "sgd".')


def is_transformer(model: str) -> bool:
    """Whether a network is one of vits.py, which holds all of timm's; else it is a CIFAR ResNet of models.py."""
    return model not in RESNETS


def _check_transformers(r: Recipe) -> None:
    """Fields of transformers and their programs that contradict each other."""
    names = {r.model, r.teacher_model or r.model}
    for name in ("patch_size", "depth", "heads", "drop_path", "head_init", "dist_token", "eval_heads", "image_size"):
        enough = all if name == "image_size" else any  # pictures of one size reach both networks
        if getattr(r, name) != defaults((name,))[name] and not enough(map(is_transformer, names)):
            raise InputError(f"{name} = {getattr(r, name)!r} is for transformers and {min(names & set(RESNETS))} is "
                             "none: leave it out, or choose timm/<name>, pvt_tiny or t2t_vit_7.")
    if r.batch_norm_parts > 1 and any(map(is_transformer, names)):
        raise InputError(f"batch_norm_parts = {r.batch_norm_parts} is for CIFAR ResNets and the model is "
                         f"{max(names - set(RESNETS))}: leave it at 1.")
    if r.method in ("self_kd", "education") and any(map(is_transformer, names)):
        raise InputError(f"{r.method} needs the stages of a CIFAR ResNet and the model is "
                         f"{max(names - set(RESNETS))}: choose one of {', '.join(RESNETS)}.")
    if r.lr_schedule == "warmup_cosine" and r.warmup_epochs >= r.epochs:
        raise InputError(f"warmup_epochs = {r.warmup_epochs} leaves nothing of {r.epochs} epochs: give fewer, or train "
                         "for longer.")
    whole = (r.method in ("mutual", "education") or r.map_loss != "none" or
             r.feature_loss == "batch_frobenius" and r.beta and r.method != "baseline")
    if r.accumulate > 1 and whole:
        raise InputError(f"accumulate = {r.accumulate} adds up means over parts of a batch, and {r.method} has a loss "
                         "of the whole batch or of groups: leave it at 1.")
    if r.accumulate > 1 and r.zero_target == "pre_update" and r.interval == 0:
        raise InputError(f'accumulate = {r.accumulate} asks the teacher in parts, and zero_target = "pre_update" uses '
                         'what it saw before, in one: set zero_target = "post_update".')
    if r.replay == "restart" and (r.rule != "fixed" or r.counter != "one"):
        raise InputError('replay = "restart" begins anew with each block of a fixed length: set rule = "fixed" and '
                         'counter = "one".')
    if r.extra_step and (r.replay != "restart" or r.student_clock != "teacher"):
        raise InputError('extra_step = True takes one batch more from a loader that starts anew: set replay = '
                         '"restart" and student_clock = "teacher".')
    distils = r.method in ("online_kd", "offline_kd") and r.alpha and r.soft_loss != "none"
    if r.dist_token != "never" and not distils and r.method not in ("baseline", "ema"):
        raise InputError(f'dist_token = "{r.dist_token}" learns from the soft loss of online or offline KD, and '
                         f"{r.method} with alpha = {r.alpha:g} has none: give it a weight, or set dist_token = "
                         '"never".')
    if r.eval_heads != "mean" and r.dist_token == "never":
        raise InputError(f'eval_heads = "{r.eval_heads}" chooses between two heads, and dist_token = "never" leaves '
                         'one: set dist_token, or leave eval_heads at "mean".')
    if r.idle_update == "zero_grad" and (r.method, r.optimizer, r.rule) != ("online_kd", "adamw", "fixed"):
        raise InputError('idle_update = "zero_grad" is for online KD with AdamW in turns of a fixed rule, not for '
                         f'{r.method} with {r.optimizer} and rule = "{r.rule}": leave it at "skip".')
    for name, given, methods in (("replay", r.replay == "restart", ("online_kd", "baseline")),
                                 ("student_forwards", r.student_forwards == 2, ("online_kd", "offline_kd")),
                                 ("teacher_weight", r.teacher_weight != 1, ("online_kd",))):
        if given and r.method not in methods:
            raise InputError(f"{name} = {getattr(r, name)!r} is for {methods[0]} and the method is {r.method}: leave "
                             f"it at {defaults((name,))[name]!r}.")


def _check_methods(r: Recipe) -> None:
    """Fields of IE-KD, mutual learning and Education Distillation that contradict each other."""
    if r.method == "ie_kd" and r.map_loss == "none":
        raise InputError('method = "ie_kd" compares the last maps, and map_loss = "none" does not: choose "factor" or '
                         '"attention", or derive it with ie_kd().')
    if r.method in ("ie_kd", "mutual") and r.zero_target == "pre_update":
        raise InputError(f'zero_target = "pre_update" is for online KD and the method is {r.method}: leave it at '
                         '"post_update".')
    if r.method in ("mutual", "education") and r.rule == "head_start":
        raise InputError(f'rule = "head_start" needs one teacher that learns from labels alone, which {r.method} does '
                         'not have: choose another rule.')
    if r.map_loss == "attention" and r.refit_passes:
        raise InputError(f'refit_passes = {r.refit_passes} is for a paraphraser and map_loss = "attention" has none: '
                         'leave it at 0, or choose "factor".')
    if r.map_loss != "none" and r.method not in ("ie_kd", "mutual") and r.start != "teacher":
        raise InputError(f'map_loss = "{r.map_loss}" is for ie_kd and mutual and the method is {r.method}: leave it at '
                         '"none".')
    if r.map_loss != "none" and r.split == "whole" and r.explore_weight:
        raise InputError(f'split = "whole" leaves no half to explore, and explore_weight = {r.explore_weight:g}: set '
                         "it to 0, or split the map.")
    if r.rule in ("constant", "head_start") and (r.refit_passes or r.leader == "alternate"):
        raise InputError(f'rule = "{r.rule}" has no blocks, which refit_passes and leader = "alternate" need: choose '
                         "another rule.")
    if r.method == "mutual" and (r.alpha or r.beta):
        raise InputError(f"Mutual learning has its own weight, mutual_weight, and alpha = {r.alpha:g} and beta = "
                         f"{r.beta:g} mean nothing: set both to 0, as mutual() does.")
    if r.method == "education":
        _check_grades(r)


def _check_grades(r: Recipe) -> None:
    grades = len(r.schools) or 1
    for name, value in (("beta", 0.0), ("soft_loss", "kl"), ("student_clock", "own"), ("zero_target", "post_update")):
        if getattr(r, name) != value:
            raise InputError(f"{name} = {getattr(r, name)!r} means nothing to Education Distillation: set it to "
                             f"{value!r}, as education() leaves it.")
    if r.growth == "none":
        if r.grade_epochs:
            raise InputError(f'grade_epochs = {r.grade_epochs} is for a student that grows, and growth = "none": leave '
                             "it at ().")
    elif r.grade_epochs and (len(r.grade_epochs) != grades or sum(r.grade_epochs) != r.epochs):
        raise InputError(f"grade_epochs = {r.grade_epochs} does not fit {grades} groups of classes and {r.epochs} "
                         "epochs: give one number a group that add up to the epochs, or () for equal ones.")
    elif grades > r.epochs:
        raise InputError(f"{r.epochs} epochs are too few for {grades} grades: give at least one each.")
    if r.teacher_batches == "shared" and r.grade_batches == "sequential" and r.teacher_start == "run":
        raise InputError('Teachers that learn from the student\'s batches, one group after the other, can only start '
                         'with their grade: set teacher_start = "grade", or teacher_batches = "own".')


def _check_noise_and_average(r: Recipe) -> None:
    """Spaced dropout and spaced EMA."""
    if r.dropout and any(map(is_transformer, (r.model, r.teacher_model or r.model))):
        raise InputError(f"dropout = {r.dropout:g} stands after the stages of a CIFAR ResNet and the model is "
                         f"{r.model}: leave it at 0, or use drop_path.")
    if r.dropout and r.method in ("self_kd", "education"):
        raise InputError(f"dropout = {r.dropout:g} is for plain networks and {r.method} has exits or references of its "
                         "own: leave it at 0.")
    if r.dropout_at_test != "off" and not (r.dropout and r.method == "baseline"):
        raise InputError(f'dropout_at_test = "{r.dropout_at_test}" is for a baseline with dropout, and this is '
                         f'{r.method} with dropout = {r.dropout:g}: leave it at "off".')
    if r.method != "ema":
        return
    if stochastic(r) and r.ema_statistics == "batch":
        raise InputError(f'ema_statistics = "batch" scores in train mode, which dropout = {r.dropout:g} or drop_path = '
                         f"{r.drop_path:g} would disturb: choose other statistics, or neither.")
    for name, value in (("alpha", 0.0), ("beta", 0.0), ("teacher_model", ""), ("teacher_width", 0),
                        ("replay", "same"), ("teacher_mode", "batch"), ("zero_target", "post_update")):
        if getattr(r, name) != value:
            raise InputError(f"{name} = {getattr(r, name)!r} means nothing to an average of one network: set it to "
                             f"{value!r}, as ema() leaves it.")
    if r.rule in ("constant", "head_start"):
        raise InputError(f'rule = "{r.rule}" has no blocks, and an average makes a step at the end of each: choose '
                         "another rule.")


def stochastic(recipe: Recipe) -> bool:
    """Whether an update draws random numbers inside the networks."""
    return recipe.drop_path > 0 or recipe.dropout > 0


def partition(recipe: Recipe, classes: int) -> list[list[int]]:
    """The groups of classes that `recipe.schools` names, each a list of class numbers.

    Raises:
        InputError: a class that is in no group, or in more than one; an empty group.

    >>> partition(Recipe(schools=(2, 1)), classes=3)
    [[0, 1], [2]]
    """
    given = recipe.schools or (classes,)
    if all(type(size) is int for size in given):
        bounds = [sum(given[:k]) for k in range(len(given) + 1)]
        if min(given) < 1 or bounds[-1] != classes:
            raise InputError(f"schools = {recipe.schools} are groups of {sum(given)} classes in all and the data has "
                             f"{classes}: give positive sizes that add up to {classes}.")
        return [list(range(low, high)) for low, high in zip(bounds, bounds[1:])]
    groups = [list(group) if isinstance(group, tuple) else [group] for group in given]
    named = [number for group in groups for number in group]
    if sorted(named, key=str) != sorted(range(classes), key=str) or not all(groups):
        missing = sorted(set(range(classes)) - set(named))
        twice = sorted({number for number in named if named.count(number) > 1}, key=str)
        unknown = sorted({number for number in named if number not in range(classes)}, key=str)
        what = "; ".join(f"{word}: {', '.join(map(str, found[:5]))}" for word, found in (
            ("in no group", missing), ("in more than one", twice), ("no class of the data", unknown)) if found)
        raise InputError(f"schools is no partition of the {classes} classes ({what or 'a group is empty'}): name each "
                         f"class from 0 to {classes - 1} in exactly one group.")
    return groups


def grade_lengths(recipe: Recipe) -> tuple[int, ...]:
    """Epochs of each grade; of a student that does not grow, all of them at once.

    >>> grade_lengths(education(Recipe(epochs=10), schools=(2, 2, 2)))
    (3, 3, 4)
    """
    grades = len(recipe.schools) or 1
    if recipe.growth == "none":
        return (recipe.epochs,)
    return recipe.grade_epochs or tuple((k + 1) * recipe.epochs // grades - k * recipe.epochs // grades
                                        for k in range(grades))


# Named derivations. Each takes a recipe and says what it changes.

_DISTILLATION = ("interval", "rule", "replay", "tail", "counter", "student_clock", "temperature", "alpha", "beta",
                 "soft_loss", "t_squared", "feature_loss", "feature_exits", "teacher_mode", "zero_target",
                 "self_update", "idle_exits", "gate", "teacher_model", "teacher_width", "idle_update", "extra_step",
                 "student_forwards", "teacher_weight", "distil_start")
_MAPS = ("map_loss", "split", "inherit_metric", "explore_metric", "inherit_weight", "explore_weight", "factor_p",
         "factor_reduction", "factor_rate", "refit_passes", "explore_encoder", "ramp_epochs")
_PEERS = ("peers", "mutual_weight", "leader")
_STUDIES = ("growth", "grade_epochs", "lr_on_growth", "optimizer_on_growth", "grade_batches", "kd_scope",
            "reference_relu", "final_head")  # of Education Distillation, what its student alone reads
_AVERAGE = ("ema_decay", "ema_debias", "ema_statistics")
_SCHOOLS = (*_STUDIES, "schools", "school_bounds", "teacher_batches", "teacher_start")


def defaults(names) -> dict:
    """Fields by name -> their default values."""
    return {f.name: f.default for f in dataclasses.fields(Recipe) if f.name in names}


def baseline(recipe: Recipe) -> Recipe:
    """The same network, data and order trained on labels alone; what only distillation reads is reset."""
    return replace(recipe, method="baseline", **defaults((*_DISTILLATION, *_MAPS, *_PEERS, *_SCHOOLS,
                                                           *_AVERAGE)))


def teacher_of(recipe: Recipe) -> Recipe | None:
    """What all recipes have in common that can share a teacher, because it learns from labels alone and no student
    changes it: the baseline that it is, bit for bit, marked by its factors where a paraphraser learns with it. For
    Education Distillation with teachers of their own batches a recipe without what its student alone reads. None where
    the teacher is not to be shared."""
    if recipe.rule == "head_start":
        return None  # its teacher sees more batches, in another order
    if recipe.method == "education":
        own = dict(interval=0.0, growth="none", beta=0.0, model=recipe.teacher_model or recipe.model,
                   width=recipe.teacher_width or recipe.width)
        if recipe.teacher_batches == "shared" or recipe.teacher_mode == "train":
            return None  # they learn with the student; or its questions move their statistics
        return replace(recipe, **defaults((*_DISTILLATION, *_STUDIES, *_MAPS, *_PEERS)) | own)
    if recipe.method not in ("online_kd", "offline_kd", "ie_kd", "ema"):
        return recipe if recipe.method == "baseline" and recipe.start == "teacher" else None
    if recipe.refit_passes or recipe.idle_update == "zero_grad" and recipe.interval or recipe.teacher_weight != 1:
        return None  # the paraphraser then depends on the interval; or the teacher does; or it is no baseline
    marked = dict(map_loss="factor", factor_rate=recipe.factor_rate) if recipe.map_loss == "factor" else {}
    return replace(baseline(recipe), start="teacher", **teacher_shape(recipe), **marked)


def teacher_shape(recipe: Recipe) -> dict:
    """The fields of a teacher's network. What is not given is the student's; but another architecture has patches,
    blocks and heads of its own, and where either is a transformer a width of its own: an embedding dimension says
    nothing of channels."""
    other = recipe.teacher_model not in ("", recipe.model)
    shape = dict(model=recipe.teacher_model or recipe.model, width=recipe.teacher_width or recipe.width)
    if other and any(map(is_transformer, (recipe.model, shape["model"]))):
        shape["width"] = recipe.teacher_width
    if not is_transformer(shape["model"]):
        shape |= defaults(("drop_path", "head_init", "dist_token", "eval_heads"))
    return shape | (dict(patch_size=0, depth=0, heads=0) if other else {})


def online_kd(recipe: Recipe, **changes) -> Recipe:
    """A second network teaches while both are trained; `interval` = 0 unless given."""
    return replace(recipe, **defaults(_MAPS) | dict(method="online_kd") | changes)


def offline_kd(recipe: Recipe, **changes) -> Recipe:
    """The teacher is trained to its end first: the schedule's other end, one interval as long as the run."""
    return replace(recipe, **defaults(_MAPS) | dict(method="offline_kd", interval=float(recipe.epochs)) | changes)


def self_kd(recipe: Recipe, **changes) -> Recipe:
    """The deepest exit of a multi-exit network teaches its three shallow exits."""
    return replace(recipe, **defaults(_MAPS) | dict(method="self_kd") | changes)


def ie_kd(recipe: Recipe, **changes) -> Recipe:
    """Inheritance and exploration (Huang et al., CVPR 2021): a teacher's factor attracts one half of the student's
    last map and repels the other, besides the labels. The teacher is online, and its paraphraser learns beside it;
    `offline()` trains both first, and with `refit_passes` the paraphraser once more on the finished teacher."""
    return replace(recipe, **dict(method="ie_kd", map_loss="factor", alpha=0.0, beta=0.0) | changes)


def factor_transfer(recipe: Recipe, **changes) -> Recipe:
    """What IE-KD's inheritance comes from (Kim et al. 2018): the factor attracts the whole map."""
    return ie_kd(recipe, **dict(split="whole", explore_weight=0.0) | changes)


def attention_transfer(recipe: Recipe, **changes) -> Recipe:
    """The teacher's attention map attracts the student's (Zagoruyko and Komodakis 2017, their squared distance at half
    their weight of 1000)."""
    return ie_kd(recipe, **dict(map_loss="attention", split="whole", inherit_metric="squared",
                                explore_weight=0.0) | changes)


def mutual(recipe: Recipe, **changes) -> Recipe:
    """Deep mutual learning (Zhang et al. 2018): networks teach each other. The first one, of `teacher_model`, leads. Of
    a recipe of IE-KD it makes IE-DML: each network's factor speaks to the other."""
    return replace(recipe, **dict(method="mutual", alpha=0.0, beta=0.0) | changes)


def education(recipe: Recipe, schools: tuple, **changes) -> Recipe:
    """Education Distillation: a teacher a group of classes, and a student that grows from group to group. Temperature 4
    and weight 0.7 of the soft loss are the released program's."""
    return replace(recipe, **defaults((*_MAPS, *_PEERS)) | dict(method="education", schools=schools, alpha=0.7,
                                                                temperature=4.0, beta=0.0) | changes)


def transformer(recipe: Recipe, **changes) -> Recipe:
    """The released transformer programs' training, which is the same in all their configurations: AdamW, warm-up and
    cosine epoch by epoch, strong augmentation, 224 pixels, 300 epochs; and for distillation half the weight to a soft
    loss at T = 1. Their deviations are in `preset(recipe, "released")`."""
    own = recipe.model if is_transformer(recipe.model) else "timm/deit_tiny_patch16_224"
    model = changes.get("model", own)
    return replace(recipe, **dict(
        model=model, head_init="zero" if model.startswith(DEIT) else "timm", image_size=224, drop_path=0.1, epochs=300,
        batch_size=128, drop_last=True, optimizer="adamw", lr=5e-4, weight_decay=0.05, lr_schedule="warmup_cosine",
        warmup_epochs=20, augment="strong", normalise="imagenet", alpha=0.5, temperature=1.0, beta=0.0) | changes)


def ema(recipe: Recipe, **changes) -> Recipe:
    """The student is the exponential average of a network that is trained on labels: after each update, or, spaced,
    once an interval."""
    return replace(recipe, **defaults((*_DISTILLATION, *_MAPS)) | dict(method="ema", alpha=0.0, beta=0.0) | changes)


def released_dropout(recipe: Recipe, batches_per_epoch: int) -> Recipe:
    """A baseline with dropout as the released program runs and scores it: at work in tests too, which count (B1, B2),
    and from 500 batches a period on no sine any more but random rates (B3). Its learning rate is not copied."""
    random_rates = recipe.dropout_rule == "sine" and int(recipe.dropout_period * batches_per_epoch) >= 500
    return replace(recipe, dropout_at_test="on_counted",
                   dropout_rule="random" if random_rates else recipe.dropout_rule)


def offline(recipe: Recipe, **changes) -> Recipe:
    """The same with teachers that are trained to their end first: one interval as long as the run."""
    return replace(recipe, **dict(interval=float(changes.get("epochs", recipe.epochs))) | changes)


def behind(recipe: Recipe, interval: float, **changes) -> Recipe:
    """Online KD with the teacher `interval` epochs behind the student, which learns from labels alone until the teacher
    has learnt a block."""
    start = max(interval, changes.pop("distil_start", recipe.distil_start))
    return replace(recipe, interval=-interval, distil_start=start, **changes)


def past_self(recipe: Recipe, interval: float = 0.0, decay: float = 0.0, **changes) -> Recipe:
    """The student's own past teaches it: after each interval (0: each update) its weights join an average of the given
    decay (0: a copy). Interval 1 is near PS-KD (Kim et al. 2021), 0 near DLB (Shen et al. 2022), and 0 with a decay a
    mean teacher (Tarvainen and Valpola 2017)."""
    return replace(recipe, **defaults(_MAPS) | dict(method="past_self", interval=interval, ema_decay=decay) | changes)


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
    "ie_kd": dict(inherit_weight=1.0, explore_weight=1.0),
    "mutual": dict(teacher_mode="train"),
    "education": dict(school_bounds="strict", teacher_mode="train", lr_on_growth="continue", lr_schedule="late_steps",
                      optimizer_on_growth="reset", grade_batches="sequential", final_head="batch_norm"),
    "transformers": dict(soft_loss="kl_per_class", teacher_mode="train", zero_target="pre_update",
                         replay="restart", student_clock="teacher", extra_step=True, idle_update="zero_grad",
                         teacher_weight=1.0, student_forwards=2, dist_token="released"),
    "ema": dict(ema_debias=False, ema_statistics="batch", lr_schedule="constant"),
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
    if is_transformer(recipe.model) and recipe.method in ("online_kd", "offline_kd"):
        return _transformer_preset(recipe, name)
    if recipe.method not in RELEASED:
        methods = ", ".join(method for method in RELEASED if method != "transformers")
        raise InputError(f'The preset "{name}" is defined for {methods}, not for {recipe.method}: derive the recipe '
                         "with the function of such a name first.")
    changes = dict(RELEASED[recipe.method])
    if recipe.method in ("ie_kd", "mutual", "education", "ema",
           "past_self"):
        values = changes if name == "released" else defaults(changes)
        return replace(recipe, **values | (_pair(recipe, name) if recipe.method == "ie_kd" else {}) |
                       (_released_grades(recipe, name) if recipe.method == "education" else {}))
    if name == "clean":
        changes = defaults(changes.keys() - {"augment"})
    elif recipe.dataset.startswith("tiny-imagenet"):  # both released programs treat it alike
        changes |= dict(augment="crop_flip", normalise="imagenet")
    return replace(recipe, **changes)


def _transformer_preset(recipe: Recipe, name: str) -> Recipe:
    """What depends on the network and the interval: only DeiT has a token, and needs one pass then; a teacher beside
    its student has half its weight (V11); and PiT's files named 1.5 and 2.0 say 1.0 (V3). A last, partial interval,
    which CIFAR-100 in 300 epochs does not have, is replayed here; released, up to 1,072 batches of Tiny-ImageNet are
    lost with it, and tail = "drop" would lose a tenth of a run of ten epochs."""
    if name == "clean":
        return replace(recipe, **defaults(RELEASED["transformers"]))
    if recipe.optimizer != "adamw":
        raise InputError(f'The released transformer programs train with AdamW, and optimizer = "{recipe.optimizer}": '
                         "derive the recipe with transformer() first.")
    changes = dict(RELEASED["transformers"])
    if recipe.model.startswith(DEIT):
        changes |= dict(student_forwards=1)
    else:
        changes |= dict(dist_token="never")
    if recipe.method == "offline_kd":
        changes |= dict(replay="same", extra_step=False, idle_update="skip", student_clock="own")
    elif recipe.interval == 0:
        changes |= dict(teacher_weight=0.5, extra_step=False)
    elif recipe.model == "timm/pit_ti_224" and recipe.interval in (1.5, 2.0):
        changes |= dict(interval=1.0)
    return replace(recipe, **changes)


def _pair(recipe: Recipe, name: str) -> dict:
    """Who teaches whom: the large network the small one, or, as released, the small one the large (I3)."""
    if is_transformer(recipe.model) or is_transformer(recipe.teacher_model or recipe.model):
        return {}
    student = (int(recipe.model.removeprefix("resnet")), recipe.width)
    teacher = (int((recipe.teacher_model or recipe.model).removeprefix("resnet")), recipe.teacher_width or recipe.width)
    if student == teacher or (student > teacher) == (name == "released"):
        return {}
    return dict(model=recipe.teacher_model or recipe.model, teacher_model=recipe.model,
                width=recipe.teacher_width or recipe.width, teacher_width=recipe.width)


def _released_grades(recipe: Recipe, name: str) -> dict:
    """149, 30 and 61 of 240 epochs, in these shares (E20); of another number of groups there is nothing released."""
    if name == "clean":
        return dict(grade_epochs=())
    if len(recipe.schools) != 3 or recipe.growth == "none":
        return {}
    first = min(round(recipe.epochs * 149 / 240), recipe.epochs - 2)
    last = min(round(recipe.epochs * 61 / 240), recipe.epochs - first - 1)
    return dict(grade_epochs=(first, recipe.epochs - first - last, last))
