"""Checks of a recipe; each refusal names the value given, the values allowed, and the way to mend it."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from ..errors import InputError, nearest
from . import plugins
from .recipe import RESNETS, Range, Recipe, check_model, foreign, is_transformer, stochastic

_FIELDS = {f.name: f for f in dataclasses.fields(Recipe)}
_FOR_TRANSFORMERS = ("patch_size", "depth", "heads", "drop_path", "head_init", "dist_token", "image_size")
# Fields that are read only beside another's value: name -> (whether it is read, beside what)
_BESIDE = {
    "sam_rho": (lambda r: r.optimizer == "sam", 'optimizer = "sam"'),
    "student_weights": (lambda r: r.start == "student", 'start = "student"'),
    "teacher_lr": (lambda r: r.teacher_learns and r.idle_update == "skip",
                   'teacher_learns = True and idle_update = "skip"'),
    "momentum": (lambda r: r.optimizer != "adamw", "SGD"),
    "warmup_epochs": (lambda r: r.lr_schedule == "warmup_cosine", 'lr_schedule = "warmup_cosine"'),
    "dropout_rule": (lambda r: r.dropout, "dropout above 0"),
    "dropout_period": (lambda r: r.dropout_rule == "sine", 'dropout_rule = "sine"'),
    "dropout_at_test": (lambda r: r.dropout, "dropout above 0"),
    "distil_start": (lambda r: r.like != "mutual" or r.map_loss != "none", 'map_loss = "factor"'),
} | {name: (lambda r: r.map_loss != "none", 'map_loss = "factor"')
     for name in ("inherit_weight", "explore_weight", "ramp_epochs")}


def check(r: Recipe) -> None:
    """Raise InputError for a recipe that cannot be run, or sets a field that nothing reads."""
    for f in _FIELDS.values():
        _check_field(f, getattr(r, f.name))
    check_model(r.model)
    if r.teacher_model:
        check_model(r.teacher_model)
    _check_owners(r)
    _check_lengths(r)
    _check_networks(r)
    _check_schedule(r)
    if r.like == "education":
        _check_grades(r)


def refuse_unless(holds: object, sentence: str) -> None:
    """Raise InputError with this sentence unless the condition holds."""
    if not holds:
        raise InputError(sentence)


def _check_field(f: dataclasses.Field, value: Any) -> None:
    allowed = f.metadata["allowed"]
    kind: Any = type(f.default)
    if type(value) is not kind:
        raise InputError(f"{f.name} = {value!r} is a {type(value).__name__} and must be a {kind.__name__} "
                         f"({f.metadata['unit']}).")
    if isinstance(allowed, Range):
        refuse_unless(allowed.holds(value), f"{f.name} = {value!r} is out of range: give {allowed.words}.")
    elif allowed and value not in (known := (*allowed, *plugins.names(f.name))):
        raise InputError(nearest(f"value of {f.name}", value, known))


def _check_owners(r: Recipe) -> None:
    """Refuse fields of other methods, and fields that another field's value leaves unread."""
    for name, only in foreign(r.method).items():
        if getattr(r, name) != only:
            owners = _FIELDS[name].metadata["of"]
            raise InputError(f"{name} = {getattr(r, name)!r} belongs to {', '.join(owners)} and the method is "
                             f"{r.method}: leave it at {only!r}, or derive the recipe with {owners[0]}() and give it.")
    for name, (read, beside) in _BESIDE.items():
        if getattr(r, name) != _FIELDS[name].default and not read(r):
            raise InputError(f"{name} = {getattr(r, name)!r} is read beside {beside} only: leave it at "
                             f"{_FIELDS[name].default!r}.")


def _check_lengths(r: Recipe) -> None:
    for name, holds, allowed in (
            ("interval", abs(r.interval) <= r.epochs, f"a number of epochs up to {r.epochs}, the length of the run"),
            ("distil_start", 0 <= r.distil_start < r.epochs, f"a number of epochs from 0 to below {r.epochs}"),
            ("batch_norm_parts", r.batch_norm_parts in range(1, max(r.batch_size // 2, 1) + 1),
             "1, or at most half the batch size"),
            *((name, re.fullmatch("([0-9a-f]{64})?", getattr(r, name)),
               "the 64 hexadecimal digits that keep_weights returned")
              for name in ("teacher_weights", "student_weights")),
            ("feature_exits", set(r.feature_exits) <= {1, 2, 3}, "a tuple of exits out of 1, 2 and 3"),
            ("grade_epochs", all(type(e) is int and e >= 1 for e in r.grade_epochs), "whole numbers of at least 1")):
        refuse_unless(holds, f"{name} = {getattr(r, name)!r} is out of range: give {allowed}.")
    refuse_unless(r.lr_schedule != "warmup_cosine" or r.warmup_epochs < r.epochs,
                  f"warmup_epochs = {r.warmup_epochs} leaves nothing of {r.epochs} epochs: give fewer, or train for "
                  "longer.")
    refuse_unless(r.like != "offline_kd" or r.interval == r.epochs,
                  f"Offline KD is one interval as long as the run, and interval = {r.interval} with epochs = "
                  f"{r.epochs} is not: derive it with offline_kd() after setting the epochs.")


def _check_networks(r: Recipe) -> None:
    names = {r.model, r.teacher_model or r.model}
    plain, others = {name for name in names if not is_transformer(name)}, names - set(RESNETS)
    for name in _FOR_TRANSFORMERS:
        enough = all if name == "image_size" else any  # pictures of one size reach both networks
        refuse_unless(getattr(r, name) == _FIELDS[name].default or enough(map(is_transformer, names)),
                      f"{name} = {getattr(r, name)!r} is for transformers and {min(plain, default='')} is none: "
                      "leave it out, or choose timm/<name>, pvt_tiny or t2t_vit_7.")
    if others:
        refuse_unless(r.batch_norm_parts == 1, f"batch_norm_parts = {r.batch_norm_parts} is for CIFAR ResNets and the "
                                               f"model is {max(others)}: leave it at 1.")
        refuse_unless(r.like not in ("self_kd", "education"),
                      f"{r.method} needs the stages of a CIFAR ResNet and the model is {max(others)}: choose one of "
                      f"{', '.join(RESNETS)}.")
        for name, width in (("model", "width"), ("teacher_model", "teacher_width")):
            refuse_unless(getattr(r, name) not in plugins.names("model") or not getattr(r, width),
                          f"{width} = {getattr(r, width)} does not reach {getattr(r, name)}, which is yours: leave it "
                          "at 0.")
        refuse_unless(not r.dropout, f"dropout = {r.dropout:g} stands after the stages of a CIFAR ResNet and the model "
                                     f"is {r.model}: leave it at 0, or use drop_path.")
    refuse_unless(r.dist_token == "never" or r.like in ("baseline", "ema") or r.alpha,
                  f'dist_token = "{r.dist_token}" learns from the soft loss, and alpha = {r.alpha:g} leaves none: give '
                  'it a weight, or set dist_token = "never".')
    refuse_unless(r.optimizer != "sam" or r.like == "baseline",
                  f'optimizer = "sam" is for a baseline, and the method is {r.method}: choose "sgd".')
    refuse_unless(r.like != "ema" or not stochastic(r) or r.ema_statistics != "batch",
                  f'ema_statistics = "batch" scores in train mode, which dropout = {r.dropout:g} or drop_path = '
                  f"{r.drop_path:g} would disturb: choose other statistics, or neither.")
    refuse_unless(r.map_loss != "none" or r.like != "ie_kd",
                  'method = "ie_kd" compares the last maps, and map_loss = "none" does not: derive it with ie_kd().')
    refuse_unless(r.map_loss == "none" or r.like != "baseline" or r.start == "teacher",
                  f'map_loss = "{r.map_loss}" is for ie_kd and mutual, not for {r.method}: leave it at "none".')


def _check_schedule(r: Recipe) -> None:
    refuse_unless(r.teacher_learns or r.teacher_weights and not r.interval and r.zero_target == "post_update",
                  "teacher_learns = False is for a teacher that brings weights and is asked at any time: give "
                  'teacher_weights, interval = 0 and zero_target = "post_update".')
    if r.interval < 0:
        refuse_unless(r.like == "online_kd" and r.rule in ("fixed", "constant"),
                      f"interval = {r.interval:g} puts the teacher behind, which online KD with rule fixed or constant "
                      f'can, not {r.method} with rule = "{r.rule}": give an interval of at least 0.')
        refuse_unless(r.distil_start >= -r.interval,
                      f"A teacher that is {-r.interval:g} epochs behind knows nothing for as long, and distil_start = "
                      f"{r.distil_start:g}: derive the recipe with behind(), or set distil_start = {-r.interval:g}.")
    if r.rule == "constant":
        refuse_unless(r.self_update != "everything",
                      'rule = "constant" needs an update of the teacher on every batch, and self_update = "everything" '
                      'leaves some out: choose "alternate".')
        refuse_unless(r.like != "ema", 'rule = "constant" has no blocks, and an average makes a step at the end of '
                                         "each: choose another rule.")
    refuse_unless(r.replay in ("same", "restart") or r.zero_target != "pre_update" or r.interval,
                  f'replay = "{r.replay}" has no meaning where the student uses what the teacher saw before its '
                  'update: set zero_target = "post_update".')
    refuse_unless(r.replay != "restart" or (r.like, r.rule) == ("online_kd", "fixed"),
                  'replay = "restart" begins anew with each block of online KD of a fixed length: set rule = "fixed", '
                  'or another replay.')
    refuse_unless(not r.extra_step or (r.replay, r.student_clock) == ("restart", "teacher"),
                  'extra_step = True takes one batch more from a loader that starts anew: set replay = "restart" and '
                  'student_clock = "teacher".')
    refuse_unless(r.idle_update == "skip" or (r.optimizer, r.rule) == ("adamw", "fixed"),
                  'idle_update = "zero_grad" is for AdamW in turns of a fixed rule, not for '
                  f'{r.optimizer} and rule = "{r.rule}": leave it at "skip".')


def _check_grades(r: Recipe) -> None:
    grades = len(r.schools) or 1
    if r.growth == "none":
        refuse_unless(not r.grade_epochs, f"grade_epochs = {r.grade_epochs} is for a student that grows, and growth = "
                                          '"none": leave it at ().')
        return
    refuse_unless(not r.grade_epochs or (len(r.grade_epochs), sum(r.grade_epochs)) == (grades, r.epochs),
                  f"grade_epochs = {r.grade_epochs} does not fit {grades} groups of classes and {r.epochs} epochs: "
                  "give one number a group that add up to the epochs, or () for equal ones.")
    refuse_unless(grades <= r.epochs, f"{r.epochs} epochs are too few for {grades} grades: give at least one each.")
