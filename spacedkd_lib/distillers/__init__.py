"""What a teacher's step and a student's step are, method by method; the loop in train.py knows none of them.

A distiller offers

- ``teach(x, y)`` and ``learn(x, y)``: the loss of one update on images x [B, C, H, W] and labels y [B], as a dict
  of named scalar tensors with the key "loss" to be minimised and "correct", the hits among the B images;
- ``trained``: for "teach" and "learn", the modules that the update changes;
- ``modules``: name -> module, what a record keeps of the run;
- ``predict(x, memo)``: name -> logits [B, K], what is evaluated; the first name is the headline; `memo` holds what
  another distiller has already got from a shared network on the same x;
- ``own_statistics()``: a context in which `modules` hold what a run alone would have;
- ``cost``: for "teach" and "learn", multiply-accumulates per image, a backward pass counted as two forward ones.
"""

from __future__ import annotations

import torch

from ..batches import derive_seed
from ..models import MultiExitResNet, ResNet, initialise, projector, split_batch_norm
from ..recipes import Recipe
from .baseline import Baseline
from .online_kd import OnlineKD
from .self_kd import SelfKD


def make(recipe: Recipe, channels: int, classes: int, size: int):
    """The recipe's networks, initialised from its seed, in their distiller.

    The student's initial weights depend on the seed and its architecture alone, so that arms of one seed are
    paired; a multi-exit network starts from the very trunk and deepest head of the plain one.

    Args:
        channels: of the images, 1 or 3.
        classes: K.
        size: height (= width) of the images, pixels.
    """
    def seeded(role, build):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(recipe.seed, role))
            net = initialise(build(), recipe.init)
        split_batch_norm(net, recipe.batch_norm_parts)
        return net

    student = seeded(recipe.start, lambda: ResNet(recipe.model, classes, channels, recipe.width))
    features = student.head.in_features
    if recipe.method == "baseline":
        return Baseline(student, channels, size)
    if recipe.method == "self_kd":
        net = seeded("exits", lambda: MultiExitResNet(recipe.model, classes, channels, recipe.width, recipe.gate))
        net.trunk, net.heads[3] = student.trunk, student.head
        adapters = seeded("projector", lambda: torch.nn.ModuleList(torch.nn.Linear(features, features)
                                                                   for _ in range(3)))
        return SelfKD(recipe, net, adapters, channels, size)
    teacher = seeded("teacher", lambda: ResNet(recipe.teacher_model or recipe.model, classes, channels,
                                               recipe.teacher_width or recipe.width))
    return OnlineKD(recipe, teacher, student,
                    seeded("projector", lambda: projector(features, teacher.head.in_features)), channels, size)


def share_teacher(distillers: list) -> None:
    """Let distillers of one `recipes.teacher_of` work with one teacher: whichever teaches, teaches for all.

    Each student ends as it would alone, bit for bit: the teacher learns from labels only, and what a look at it
    changes (A13) is kept for each student apart.
    """
    first = next(distiller for distiller in distillers if isinstance(distiller, OnlineKD))
    for distiller in distillers:
        if isinstance(distiller, OnlineKD):
            distiller.adopt(first.teacher, first.views)
        else:  # the baseline that is the teacher
            distiller.student = distiller.modules["student"] = first.teacher
            distiller.trained = {"teach": [first.teacher], "learn": [first.teacher]}
            distiller.teach = first.teach
