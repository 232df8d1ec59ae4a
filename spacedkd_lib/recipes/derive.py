"""Derivations of one recipe from another; each docstring names the change. No torch here.

All raise InputError for what is no recipe, and for one that cannot be run.
"""

from __future__ import annotations

from dataclasses import replace
from numbers import Real
from typing import Any, Iterable, Sequence

from ..errors import InputError
from .recipe import DEIT, RESNETS, Recipe, defaults, foreign, is_transformer


def a_recipe(given: Any) -> Recipe:
    """Return a recipe as it is.

    Raises:
        InputError: it is something else.
    """
    if not isinstance(given, Recipe):
        raise InputError(f"{given!r} is no recipe: give skd.Recipe(...), or one derived from it.")
    return given


def _method(recipe: Recipe, method: str, **changes) -> Recipe:
    """Switch a run to another method; reset the fields that only other methods read."""
    return replace(a_recipe(recipe), method=method, **foreign(method) | changes)


def baseline(recipe: Recipe, **changes) -> Recipe:
    """Train the same network on the same data and order from labels alone."""
    return _method(recipe, "baseline", **dict(map_loss="none") | changes)


def online_kd(recipe: Recipe, **changes) -> Recipe:
    """Train a second network beside the student as its teacher; `interval` = 0 unless given.

    A transformer without a soft loss gets one of weight 1/2 at T = 1, no feature loss (released transformer programs).
    """
    return _method(recipe, "online_kd", **_of_transformers(recipe) | changes)


def offline_kd(recipe: Recipe, **changes) -> Recipe:
    """Train the teacher to its end first: one interval as long as the run."""
    return _method(recipe, "offline_kd", **_of_transformers(recipe) | dict(interval=recipe.epochs) | changes)


def _of_transformers(recipe: Recipe) -> dict:
    new = is_transformer(a_recipe(recipe).model) and "alpha" in foreign(recipe.method)
    return dict(alpha=0.5, temperature=1.0, beta=0.0) if new else {}


def self_kd(recipe: Recipe, **changes) -> Recipe:
    """Let the deepest exit of a multi-exit network teach its three shallow exits."""
    return _method(recipe, "self_kd", **changes)


def ie_kd(recipe: Recipe, **changes) -> Recipe:
    """Switch to inheritance and exploration (IE-KD; Huang et al., CVPR 2021), besides the labels.

    An online teacher's factor attracts one half of the student's last map and repels the other. Its paraphraser learns
    beside it; `offline()` trains both first.
    """
    return _method(recipe, "ie_kd", **dict(map_loss="factor", alpha=0.0, beta=0.0) | changes)


def mutual(recipe: Recipe, **changes) -> Recipe:
    """Switch to deep mutual learning (Zhang et al. 2018), IE-KD to IE-DML; the network of `teacher_model` leads."""
    return _method(recipe, "mutual", **changes)


def education(recipe: Recipe, schools: tuple, **changes) -> Recipe:
    """Switch to Education Distillation, one teacher a group of classes; T = 4, alpha = 0.7 (released) unless given."""
    return _method(recipe, "education", **dict(schools=schools, alpha=0.7, temperature=4.0) | changes)


def ema(recipe: Recipe, **changes) -> Recipe:
    """Make the student an exponential average of a network trained on labels, updated each step or once an interval."""
    return _method(recipe, "ema", **changes)


def past_self(recipe: Recipe, interval: float = 0.0, decay: float = 0.0, **changes) -> Recipe:
    """Teach the student by an average of its past weights after each interval (0: each update); decay 0 copies.

    Near PS-KD (Kim et al. 2021) at interval 1; mean teacher (Tarvainen and Valpola 2017) at 0 with a decay. At 0
    without one the student is its own teacher, and the soft loss is zero.
    """
    return _method(recipe, "past_self", **dict(interval=interval, ema_decay=decay) | changes)


def spaced(recipe: Recipe, interval: float, **changes) -> Recipe:
    """Set the teacher `interval` epochs ahead; keep the rest of the distillation."""
    return replace(a_recipe(recipe), interval=interval, **changes)


def behind(recipe: Recipe, interval: float, **changes) -> Recipe:
    """Set online KD's teacher `interval` epochs behind; until its first block the student learns from labels alone.

    Raises:
        InputError: a negative interval, which would put the teacher ahead.
    """
    if not isinstance(interval, Real) or not interval >= 0:
        raise InputError(f"interval = {interval!r} puts no teacher behind: give a number of epochs of at least 0, or "
                         "derive a teacher that is ahead with spaced().")
    start = max(interval, changes.pop("distil_start", a_recipe(recipe).distil_start))
    return replace(recipe, interval=-interval, distil_start=start, **changes)


def offline(recipe: Recipe, **changes) -> Recipe:
    """Train the teachers to their end first: one interval as long as the run."""
    return replace(recipe, **dict(interval=changes.get("epochs", a_recipe(recipe).epochs)) | changes)


def transformer(recipe: Recipe, **changes) -> Recipe:
    """Set the training of all released transformer configurations; `preset(recipe, "released")` sets their deviations.

    AdamW, warm-up and cosine epoch by epoch, strong augmentation, 224 pixels, 300 epochs.
    """
    own = recipe.model if is_transformer(a_recipe(recipe).model) else "timm/deit_tiny_patch16_224"
    model = changes.get("model", own)
    return replace(recipe, **dict(
        model=model, head_init="zero" if str(model).startswith(DEIT) else "timm", image_size=224, drop_path=0.1,
        epochs=300, batch_size=128, drop_last=True, optimizer="adamw", lr=5e-4, weight_decay=0.05,
        lr_schedule="warmup_cosine", warmup_epochs=20, augment="strong", normalise="imagenet") | changes)


# Fields that change no update's cost
_FREE = ("weight_decay", "momentum", "label_smoothing", "temperature", "t_squared", "sam_rho", "distil_start",
         "ramp_epochs", "grade_epochs", "teacher_lr", "tail", "counter", "warmup_epochs", "dropout_period", "ema_decay")


def distinct(wanted: Recipe | Iterable[Recipe]) -> list[Recipe]:
    """Return recipes, each once, in order.

    Raises:
        InputError: something else is among them.
    """
    wanted = list(wanted) if isinstance(wanted, Iterable) else [wanted]
    return list({a_recipe(given).run_id: given for given in wanted}.values())


def short_form(recipe: Recipe) -> Recipe:
    """Return a recipe of two short epochs with the same cost of an update; what does not change it is reset.

    The cost ignores seed, length, rates and weights; of the interval and of alpha only their presence counts.
    """
    own = dict(growth="none", distil_start=float(recipe.interval < 0), alpha=0.3 if recipe.alpha else 0.0,
               interval=float((recipe.interval > 0) - (recipe.interval < 0)),
               zero_target="post_update" if recipe.interval else recipe.zero_target,
               clip_norm=float(recipe.clip_norm > 0))
    own = {name: value for name, value in own.items() if name not in foreign(recipe.method)}
    return replace(recipe, seed=0, train_images=0, val_fraction=0.0, epochs=2, eval_every=1, lr=1e-3,
                   method="online_kd" if recipe.like == "offline_kd" else recipe.method,
                   **defaults((*_FREE, "lr_schedule")) | own)


def one_network(recipe: Recipe) -> bool:
    """Return whether teacher and student are one network, which makes both kinds of update."""
    return recipe.like == "self_kd"


def forward_passes(recipe: Recipe, together: Sequence[Recipe]) -> int:
    """Return a student's relative cost of a batch: an update 3 passes, a teacher's output 1, a shared teacher 0."""
    if recipe == teacher_of(recipe) and len(together) > 1:
        return 0
    return {"baseline": 3, "self_kd": 9, "mutual": 8, "ema": 1}.get(recipe.like, 4)


def teacher_of(recipe: Recipe) -> Recipe | None:
    """Return the recipe of the teacher's own run, or None if the teacher depends on the student or serves one alone.

    Recipes with equal results can be trained in one sweep. Of IE-KD the run has a paraphraser, which `map_loss` marks;
    Education Distillation's is the recipe without what its student alone reads.
    """
    if recipe.like == "education":
        if recipe.teacher_mode == "train":
            return None  # a student's questions move their statistics
        student_alone = foreign("baseline").keys() - {"schools", "school_bounds", "beta"}
        return replace(recipe, **defaults(student_alone) | dict(
            growth="none", model=recipe.teacher_model or recipe.model, width=recipe.teacher_width or recipe.width))
    if recipe.like not in ("online_kd", "offline_kd", "ie_kd", "ema"):
        return recipe if recipe.like == "baseline" and recipe.start == "teacher" else None
    if recipe.idle_update == "zero_grad" and recipe.interval or recipe.teacher_weight != 1:
        return None  # the teacher then depends on the interval, or is no baseline
    if recipe.like == "ie_kd" and recipe.clip_norm:
        return None  # the norm is that of teacher and paraphraser
    if recipe.teacher_weights or recipe.like != recipe.method:
        return None  # it does not start as a baseline, or may learn in a way of its own
    alone = replace(recipe, **teacher_shape(recipe), lr=recipe.teacher_lr or recipe.lr, student_weights="")
    return baseline(alone, start="teacher", map_loss=recipe.map_loss)


def teacher_shape(recipe: Recipe) -> dict:
    """Return the fields of the teacher's network; fields not given are the student's.

    Another architecture keeps its own patches, blocks and heads; if one side is a transformer, its own width too.
    """
    other = recipe.teacher_model not in ("", recipe.model)
    shape: dict[str, Any] = dict(model=recipe.teacher_model or recipe.model, width=recipe.teacher_width or recipe.width)
    if other and not {recipe.model, shape["model"]} <= set(RESNETS):
        shape["width"] = recipe.teacher_width
    if not is_transformer(shape["model"]):
        shape |= defaults(("drop_path", "head_init", "dist_token"))
    return shape | (dict(patch_size=0, depth=0, heads=0) if other else {})


def partition(recipe: Recipe, classes: int) -> list[list[int]]:
    """Return the groups of classes in `recipe.schools`, each a list of class numbers.

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
    if sorted(named) != list(range(classes)) or not all(groups):
        raise InputError(f"schools = {recipe.schools} are no groups of the {classes} classes: name each class from 0 "
                         f"to {classes - 1} in exactly one group, and none without a class.")
    return groups


def grade_lengths(recipe: Recipe) -> tuple[int, ...]:
    """Return the epochs of each grade; a student that does not grow has one grade of all epochs.

    >>> grade_lengths(education(Recipe(epochs=10), schools=(2, 2, 2)))
    (3, 3, 4)
    """
    grades = len(recipe.schools) or 1
    if recipe.growth == "none":
        return (recipe.epochs,)
    return recipe.grade_epochs or tuple((k + 1) * recipe.epochs // grades - k * recipe.epochs // grades
                                        for k in range(grades))
