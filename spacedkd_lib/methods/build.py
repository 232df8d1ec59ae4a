"""Construction of a recipe's method: class, events, and networks initialised from the seed."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, Iterator

import torch

from ..data.batches import derive_seed, seeded_draws
from ..errors import InputError, least_interval
from ..models.heads import Paraphraser, projector
from ..models.layers import dropouts, initialise, split_batch_norm
from ..models.own import OwnNetwork
from ..models.resnet import MultiExitResNet, ResNet
from ..models.weights import load_kept
from ..models.transformers import Vision
from ..recipes import Recipe, is_transformer, partition, plugins, teacher_shape
from ..schedule import Course, Event
from . import dropout_ema
from .base import Method
from .baseline import Baseline
from .education import Education, GrowingResNet
from .ema import Average
from .ie_kd import FactorTransfer, MapLoss, factor_channels, last_map
from .mutual import Mutual
from .online_kd import OnlineKD
from .past_self import PastSelf
from .self_kd import SelfKD

CLASSES: dict[str, Any] = {
    "baseline": Baseline, "online_kd": OnlineKD, "offline_kd": OnlineKD, "self_kd": SelfKD, "ie_kd": FactorTransfer,
    "mutual": Mutual, "education": Education, "ema": Average, "past_self": PastSelf}


def method_class(recipe: Recipe) -> Any:
    own, ours = plugins.made("method", recipe.method), CLASSES[recipe.like]
    if own and not (isinstance(own, type) and issubclass(own, ours)):
        raise InputError(f'The method {recipe.method} is like "{recipe.like}" and extends another class: extend '
                         f"{ours.__name__}.")
    return own or ours


def recipe_schedule(recipe: Recipe, batches_per_epoch: int | Course) -> Iterator[Event]:
    """Return the events of a recipe, by the batches of an epoch or, where the student grows, by its course.

    Raises:
        InputError: an interval or a period of less than one batch.
    """
    course = batches_per_epoch
    if not isinstance(course, Course):
        course = Course(((recipe.epochs, course),))
    fewest = min(batches for _, batches in course.grades)
    if recipe.interval and abs(recipe.interval) * fewest < 1 - 1e-9:  # as `Spaced`: 49 * (1 / 49) is below 1
        raise InputError(f"interval = {recipe.interval} epochs is less than one of the {fewest} batches of an epoch: "
                         f"give 0, or at least {least_interval(fewest)}, ahead or behind.")
    if recipe.dropout_rule == "sine":
        dropout_ema.period(recipe, fewest)
    return method_class(recipe).events(recipe, course)


def make(recipe: Recipe, channels: int, classes: int, size: int, batches: Any = None, given: bool = True) -> Method:
    """Make a recipe's method with its networks, initialised from the seed.

    Arms of one seed are paired, because a student's initial weights depend on seed and architecture alone. A multi-exit
    network starts from the plain network's trunk and deepest head.

    Args:
        channels: of the images, 1 or 3.
        classes: K.
        size: height (= width) of the images, pixels.
        batches: of `method_class(recipe).batches`; EMA and Education Distillation cannot be trained without.
        given: whether the weights that a recipe gives are loaded. A finished run needs none, as it has its own.
    """
    def seeded(role, build):
        with seeded_draws(derive_seed(recipe.seed, role)):
            net = initialise(build(), recipe.init)
        split_batch_norm(net, recipe.batch_norm_parts)
        for place in dropouts(net):
            place.random = recipe.dropout_rule == "random"
            place.always = recipe.dropout_at_test != "off"
        if kept := given and {"student": recipe.student_weights, "teacher": recipe.teacher_weights}.get(role):
            load_kept(net, kept, role)
        return net

    network, of = partial(_network, recipe, classes, channels, size), method_class(recipe)
    student = seeded(recipe.start, lambda: network("student"))
    features = student.feature_size
    if recipe.like == "baseline":
        return of(recipe, student, channels, size)
    if recipe.like == "self_kd":
        net = seeded("exits", lambda: MultiExitResNet(recipe.model, classes, channels, recipe.width, recipe.gate))
        net.trunk, net.heads[3] = student.trunk, student.head
        adapters = seeded("projector", lambda: torch.nn.ModuleList(torch.nn.Linear(features, features)
                                                                   for _ in range(3)))
        return of(recipe, net, adapters, channels, size)
    if recipe.like == "education":
        return _education(recipe, student, seeded, channels, classes, size, batches)
    if recipe.like == "past_self":
        between = seeded("projector", lambda: projector(features, features))
        return of(recipe, student, between, channels, size)
    teacher = seeded("teacher", lambda: network("teacher"))
    if recipe.like == "mutual":
        return _mutual(recipe, {"teacher": teacher, "student": student}, seeded, channels, size)
    if recipe.like == "ema":
        return of(recipe, teacher, channels, size, batches)
    between = seeded("projector", lambda: projector(features, teacher.feature_size))
    if recipe.like == "ie_kd":
        last = _map_channels(recipe, {"student": student, "teacher": teacher}, channels, size)
        factor = factor_channels(last["teacher"])
        paraphraser = seeded("paraphraser", lambda: Paraphraser(last["teacher"], factor))
        map_loss = seeded("map_loss", lambda: MapLoss(recipe, last["student"], factor))
        return of(recipe, teacher, student, between, channels, size, map_loss, paraphraser)
    return of(recipe, teacher, student, between, channels, size)


def _network(recipe: Recipe, classes: int, channels: int, size: int, role: str) -> torch.nn.Module:
    """Make the plain network of "student" (any but the teacher) or "teacher"."""
    teaches = role == "teacher"
    own = replace(recipe, **teacher_shape(recipe) | dict(teacher_model="", teacher_width=0)) if teaches else recipe
    if registered := plugins.made("network", own.model):
        return OwnNetwork(own.model, registered, classes, channels, size)
    if not is_transformer(own.model):
        return ResNet(own.model, classes, channels, own.width)
    token = recipe.dist_token == "always" or (recipe.dist_token == "released" and not teaches and
                                              recipe.like in ("online_kd", "offline_kd"))
    return Vision(own.model, classes, channels, size, own.image_size, own.patch_size, own.width, own.depth, own.heads,
                  own.drop_path, own.head_init, token)


def _map_channels(recipe: Recipe, networks: dict, channels: int, size: int) -> dict[str, int]:
    """Return the channels of each network's last map.

    Raises:
        InputError: maps of unequal height or width.
    """
    maps = {name: last_map(net, channels, size) for name, net in networks.items()}
    student, teacher = maps["student"], maps["teacher"]
    if student[1:] != teacher[1:]:
        other = recipe.teacher_model or recipe.model
        raise InputError(f"The last maps do not match: {recipe.model} ends in {student[1]} x {student[2]} and {other} "
                         f"in {teacher[1]} x {teacher[2]}; choose networks of as many stages.")
    return {name: found[0] for name, found in maps.items()}


def _mutual(recipe: Recipe, networks: dict, seeded, channels: int, size: int) -> Mutual:
    map_losses, paraphrasers = {}, {}
    if recipe.map_loss != "none":
        of = _map_channels(recipe, networks, channels, size)
        for name, peer in (("teacher", "student"), ("student", "teacher")):
            map_losses[name] = seeded(f"{name} map_loss", lambda: MapLoss(recipe, of[name], factor_channels(of[peer])))
            paraphrasers[name] = seeded(f"{name} paraphraser", lambda: Paraphraser(of[name], factor_channels(of[name])))
    return method_class(recipe)(recipe, networks, map_losses, paraphrasers, channels, size)


def _education(recipe: Recipe, student: ResNet, seeded, channels: int, classes: int, size: int, batches) -> Education:
    groups = partition(recipe, classes)
    known = [sum(map(len, groups[:grade + 1])) for grade in range(len(groups))]
    growing = seeded("references", lambda: GrowingResNet(
        student, known if recipe.growth == "grow" else known[-1:],
        recipe.final_head == "batch_norm"))
    teachers = torch.nn.ModuleList(
        seeded(f"teacher {k + 1}" if k else "teacher", lambda: ResNet(
            recipe.teacher_model or recipe.model, len(group), channels, recipe.teacher_width or recipe.width))
        for k, group in enumerate(groups))
    images = batches.images_seen(recipe) if batches else None
    return method_class(recipe)(recipe, student, growing, teachers, groups, channels, size, images)


def share_teacher(methods: list[Method]) -> None:
    """Let methods of one `recipes.teacher_of` share one teacher: each of its updates serves all.

    Each student ends as it would alone, bit for bit: the teacher learns from labels only, and each student keeps its
    own copy of the statistics that the teacher's forward pass changes (A13).
    """
    first = next(method for method in methods if not isinstance(method, Baseline))
    for method in methods:
        method.adopt(first)
