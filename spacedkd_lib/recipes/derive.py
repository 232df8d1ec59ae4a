"""Functions that derive one recipe from another; each says what it changes. No torch here."""

from __future__ import annotations

from dataclasses import replace
from typing import Sequence

from ..errors import InputError
from .recipe import DEIT, Recipe, defaults, foreign, is_transformer


def _method(recipe: Recipe, method: str, **changes) -> Recipe:
    """The same run by another method; what only the others read is reset."""
    return replace(recipe, **foreign(method) | dict(method=method) | changes)


def baseline(recipe: Recipe, **changes) -> Recipe:
    """The same network, data and order trained on labels alone."""
    return _method(recipe, "baseline", **dict(map_loss="none") | changes)


def online_kd(recipe: Recipe, **changes) -> Recipe:
    """A second network teaches while both are trained; `interval` = 0 unless given. Of a transformer that had no soft
    loss it gets half the weight, at T = 1, and features none (released transformer programs)."""
    return _method(recipe, "online_kd", **_of_transformers(recipe) | changes)


def offline_kd(recipe: Recipe, **changes) -> Recipe:
    """The teacher is trained to its end first: the schedule's other end, one interval as long as the run."""
    return _method(recipe, "offline_kd", **_of_transformers(recipe) | dict(interval=float(recipe.epochs)) | changes)


def _of_transformers(recipe: Recipe) -> dict:
    new = is_transformer(recipe.model) and "alpha" in foreign(recipe.method)
    return dict(alpha=0.5, temperature=1.0, beta=0.0) if new else {}


def self_kd(recipe: Recipe, **changes) -> Recipe:
    """The deepest exit of a multi-exit network teaches its three shallow exits."""
    return _method(recipe, "self_kd", **changes)


def ie_kd(recipe: Recipe, **changes) -> Recipe:
    """Inheritance and exploration (Huang et al., CVPR 2021): a teacher's factor attracts one half of the student's
    last map and repels the other, besides the labels. The teacher is online, and its paraphraser learns beside it;
    `offline()` trains both first."""
    return _method(recipe, "ie_kd", **dict(map_loss="factor", alpha=0.0, beta=0.0) | changes)


def mutual(recipe: Recipe, **changes) -> Recipe:
    """Deep mutual learning (Zhang et al. 2018) of two networks. The one of `teacher_model` leads. Of a recipe of IE-KD
    it makes IE-DML: each network's factor speaks to the other."""
    return _method(recipe, "mutual", **changes)


def education(recipe: Recipe, schools: tuple, **changes) -> Recipe:
    """Education Distillation: a teacher a group of classes, and a student that grows from group to group. Temperature 4
    and weight 0.7 of the soft loss are the released program's."""
    return _method(recipe, "education", **dict(schools=schools, alpha=0.7, temperature=4.0) | changes)


def ema(recipe: Recipe, **changes) -> Recipe:
    """The student is the exponential average of a network that is trained on labels: after each update, or, spaced,
    once an interval."""
    return _method(recipe, "ema", **changes)


def past_self(recipe: Recipe, interval: float = 0.0, decay: float = 0.0, **changes) -> Recipe:
    """The student's own past teaches it: after each interval (0: each update) its weights join an average of the given
    decay (0: a copy). Interval 1 is near PS-KD (Kim et al. 2021), 0 near DLB (Shen et al. 2022), and 0 with a decay a
    mean teacher (Tarvainen and Valpola 2017)."""
    return _method(recipe, "past_self", **dict(interval=interval, ema_decay=decay) | changes)


def spaced(recipe: Recipe, interval: float, **changes) -> Recipe:
    """The same distillation with the teacher `interval` epochs ahead."""
    return replace(recipe, interval=interval, **changes)


def behind(recipe: Recipe, interval: float, **changes) -> Recipe:
    """Online KD with the teacher `interval` epochs behind the student, which learns from labels alone until the teacher
    has learnt a block."""
    start = max(interval, changes.pop("distil_start", recipe.distil_start))
    return replace(recipe, interval=-interval, distil_start=start, **changes)


def offline(recipe: Recipe, **changes) -> Recipe:
    """The same with teachers that are trained to their end first: one interval as long as the run."""
    return replace(recipe, **dict(interval=float(changes.get("epochs", recipe.epochs))) | changes)


def transformer(recipe: Recipe, **changes) -> Recipe:
    """The released transformer programs' training, which is the same in all their configurations: AdamW, warm-up and
    cosine epoch by epoch, strong augmentation, 224 pixels, 300 epochs. Their deviations are in `preset(recipe,
    "released")`."""
    own = recipe.model if is_transformer(recipe.model) else "timm/deit_tiny_patch16_224"
    model = changes.get("model", own)
    return replace(recipe, **dict(
        model=model, head_init="zero" if model.startswith(DEIT) else "timm", image_size=224, drop_path=0.1, epochs=300,
        batch_size=128, drop_last=True, optimizer="adamw", lr=5e-4, weight_decay=0.05, lr_schedule="warmup_cosine",
        warmup_epochs=20, augment="strong", normalise="imagenet") | changes)


def short_form(recipe: Recipe) -> Recipe:
    """The recipe of two short epochs whose updates cost the same. Neither seed, length nor rate changes that, and of
    the interval only whether there is one. What is valid, or acts, only at a recipe's own length goes with them."""
    own = dict(growth="none", grade_epochs=(), ramp_epochs=0.0, distil_start=float(recipe.interval < 0),
               interval=float((recipe.interval > 0) - (recipe.interval < 0)),
               zero_target="post_update" if recipe.interval else recipe.zero_target)
    own = {name: value for name, value in own.items() if name not in foreign(recipe.method)}
    return replace(recipe, seed=0, train_images=0, val_fraction=0.0, epochs=2, eval_every=1, lr=1e-3,
                   lr_schedule="cosine", **defaults(("warmup_epochs", "dropout_period", "ema_decay")),
                   method="online_kd" if recipe.method == "offline_kd" else recipe.method, **own)


def one_step_a_block(recipe: Recipe) -> bool:
    """Whether its student makes one step at the end of a block, and not one a batch."""
    return recipe.method == "ema"


def one_network(recipe: Recipe) -> bool:
    """Whether teacher and student are one network, which makes both kinds of update."""
    return recipe.method == "self_kd"


def forward_passes(recipe: Recipe, together: Sequence[Recipe]) -> int:
    """What a batch costs its student, up to a factor: an update is three passes, to ask a teacher one. The teacher
    that a sweep shares costs nothing more."""
    if recipe == teacher_of(recipe) and len(together) > 1:
        return 0
    return {"baseline": 3, "self_kd": 9, "mutual": 8, "ema": 1}.get(recipe.method, 4)


def teacher_of(recipe: Recipe) -> Recipe | None:
    """Return the recipe of the teacher's own run, or None if the teacher depends on the student or serves one alone.

    Recipes with equal results can be trained in one sweep. Of IE-KD the run has a paraphraser, which `map_loss` marks;
    Education Distillation's is the recipe without what its student alone reads.
    """
    if recipe.method == "education":
        if recipe.teacher_mode == "train":
            return None  # a student's questions move their statistics
        student_alone = foreign("baseline").keys() - {"schools", "school_bounds", "beta"}
        return replace(recipe, **defaults(student_alone) | dict(
            growth="none", model=recipe.teacher_model or recipe.model, width=recipe.teacher_width or recipe.width))
    if recipe.method not in ("online_kd", "offline_kd", "ie_kd", "ema"):
        return recipe if recipe.method == "baseline" and recipe.start == "teacher" else None
    if recipe.idle_update == "zero_grad" and recipe.interval or recipe.teacher_weight != 1:
        return None  # the teacher then depends on the interval, or is no baseline
    return baseline(replace(recipe, **teacher_shape(recipe)), start="teacher", map_loss=recipe.map_loss)


def teacher_shape(recipe: Recipe) -> dict:
    """The fields of a teacher's network. What is not given is the student's; but another architecture has patches,
    blocks and heads of its own, and where either is a transformer a width of its own: an embedding dimension says
    nothing of channels."""
    other = recipe.teacher_model not in ("", recipe.model)
    shape = dict(model=recipe.teacher_model or recipe.model, width=recipe.teacher_width or recipe.width)
    if other and any(map(is_transformer, (recipe.model, shape["model"]))):
        shape["width"] = recipe.teacher_width
    if not is_transformer(shape["model"]):
        shape |= defaults(("drop_path", "head_init", "dist_token"))
    return shape | (dict(patch_size=0, depth=0, heads=0) if other else {})


def partition(recipe: Recipe, classes: int) -> list[list[int]]:
    """The groups of classes that `recipe.schools` names, each a list of class numbers.

    Raises:
        InputError: a class that is in no group, or in more than one; an empty group.

    >>> partition(education(Recipe(), schools=(2, 1)), classes=3)
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
