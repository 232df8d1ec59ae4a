"""Presets: the settings of a released program, folded from the registry of deviations. No torch here."""

from __future__ import annotations

from dataclasses import replace

from ..errors import InputError, nearest
from .deviations import released_fields
from .derive import a_recipe
from .recipe import DEIT, Recipe, defaults, is_transformer

PRESETS = ("clean", "released")
RELEASED = ("online_kd", "self_kd", "ie_kd", "mutual", "education", "ema")


def preset(recipe: Recipe, name: str) -> Recipe:
    """Set a preset: `released` takes the released program's values for the data set, `clean` the defaults.

    `clean` keeps the augmentation, which depends on the data.

    Raises:
        InputError: an unknown preset, or `released` for a method that the released programs do not have.
    """
    if name not in PRESETS:
        raise InputError(nearest("preset", name, PRESETS))
    if is_transformer(a_recipe(recipe).model) and recipe.method in ("online_kd", "offline_kd"):
        changes = _transformers(recipe, name)
    elif recipe.method not in RELEASED:
        raise InputError(f'The preset "{name}" is defined for {", ".join(RELEASED)}, not for {recipe.method}: derive '
                         "the recipe with the function of such a name first.")
    else:
        changes = released_fields(recipe.method, "AIEM")
        if name == "clean":
            changes = defaults(changes.keys() - {"augment"})
        elif "augment" in changes and recipe.dataset.startswith("tiny-imagenet"):  # both programs treat it alike
            changes |= dict(augment="crop_flip", normalise="imagenet")
    if recipe.method == "ie_kd":
        changes |= _pair(recipe, name)
    if recipe.method == "education":
        changes |= _grades(recipe, name)
    return replace(recipe, **changes)


def _transformers(recipe: Recipe, name: str) -> dict:
    """Return the changes that depend on the network and the interval.

    Only DeiT has a token, and needs one pass then. At s = 0 the teacher has half its weight (V11). PiT's files named
    1.5 and 2.0 say 1.0 (V3). A partial interval at the end, which CIFAR-100 in 300 epochs lacks, is replayed here; the
    released program loses up to 1,072 batches of Tiny-ImageNet. tail = "drop" would lose a tenth of ten epochs.
    """
    changes = released_fields("online_kd", "V") | dict(zero_target="pre_update", teacher_weight=1.0)  # A7, too
    changes |= dict(student_forwards=1) if recipe.model.startswith(DEIT) else dict(dist_token="never")
    if recipe.method == "offline_kd":
        changes = {field: changes[field] for field in ("soft_loss", "teacher_mode", "student_forwards", "dist_token")}
    if name == "clean":
        return defaults(changes)
    if recipe.optimizer != "adamw":
        raise InputError(f'The released transformer programs train with AdamW, and optimizer = "{recipe.optimizer}": '
                         "derive the recipe with transformer() first.")
    if recipe.method == "online_kd" and recipe.interval == 0:
        changes |= dict(teacher_weight=0.5, extra_step=False)
    elif recipe.model == "timm/pit_ti_224" and recipe.interval in (1.5, 2.0):
        changes |= dict(interval=1.0)
    return changes


def _pair(recipe: Recipe, name: str) -> dict:
    """Set who teaches: the large network the small one, or, as released, the small one the large (I3)."""
    if is_transformer(recipe.model) or is_transformer(recipe.teacher_model or recipe.model):
        return {}
    student = (int(recipe.model.removeprefix("resnet")), recipe.width)
    teacher = (int((recipe.teacher_model or recipe.model).removeprefix("resnet")), recipe.teacher_width or recipe.width)
    if student == teacher or (student > teacher) == (name == "released"):
        return {}
    return dict(model=recipe.teacher_model or recipe.model, teacher_model=recipe.model,
                width=recipe.teacher_width or recipe.width, teacher_width=recipe.width)


def _grades(recipe: Recipe, name: str) -> dict:
    """Split the epochs as 149 : 30 : 61 of 240 (E20); other numbers of groups have no released split."""
    if name == "clean":
        return dict(grade_epochs=())
    if len(recipe.schools) != 3 or recipe.growth == "none":
        return {}
    first = min(round(recipe.epochs * 149 / 240), recipe.epochs - 2)
    last = min(round(recipe.epochs * 61 / 240), recipe.epochs - first - 1)
    return dict(grade_epochs=(first, recipe.epochs - first - last, last))


def released_dropout(recipe: Recipe, batches_per_epoch: int) -> Recipe:
    """Set dropout of a baseline as the released program runs and scores it, except its learning rate.

    Dropout acts in tests too, which count (B1, B2). From 500 batches a period, random rates replace the sine (B3).
    """
    random_rates = recipe.dropout_rule == "sine" and int(recipe.dropout_period * batches_per_epoch) >= 500
    rule = dict(dropout_rule="random", **defaults(("dropout_period",))) if random_rates else {}
    return replace(recipe, dropout_at_test="on_counted", **rule)
