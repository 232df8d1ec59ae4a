"""Online KD: a second network, trained on the labels at the same time, teaches the student.

Offline KD is the same code on a schedule with one interval as long as the run.
Taught in notebooks/03_online_kd.ipynb; spaced in notebooks/05_spaced_kd.ipynb.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import Any, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..models.layers import Outputs, in_mode, macs
from ..models.transformers import combine_heads
from ..recipes import Recipe
from ..schedule import Course, Event
from .base import Method
from .baseline import learn_labels, once
from .losses import feature_loss, soft_loss

BatchNorm = nn.modules.batchnorm._BatchNorm  # of maps and, in some of timm's networks, of vectors


class OnlineKD(Method):
    """Teacher: cross-entropy. Student: (1 - alpha) CE + alpha soft(T) [T^2] + beta feature.

    The teacher's outputs come from its newest weights, without a gradient. By batch statistics nothing moves and no
    dropout is drawn (clean); "eval" uses running statistics; "train" moves them once more (released, A13). At interval
    0 the released program takes outputs from before the teacher's update on the same batch (A7), so nothing is computed
    twice. Before `distil_start` the student learns from labels alone. The teacher never learns from the student, so
    several students can share one, see `share_teacher`.
    """

    stackable = True

    def __init__(self, recipe: Recipe, teacher: nn.Module, student: nn.Module, projector: nn.Module, channels: int,
                 size: int):
        super().__init__(recipe)
        self.teacher, self.student, self.projector = teacher, student, projector
        self.soft, self.feature = soft_loss(recipe), feature_loss(recipe)
        self.soft_scale = recipe.temperature**2 if recipe.t_squared else 1.0
        self.view_before_update = recipe.zero_target == "pre_update" and recipe.interval == 0
        self.looks = bool(recipe.beta or recipe.alpha)
        self.statistics: OwnStatistics | None = None  # of a shared teacher, where a look would change the others'
        self.modules = {"student": student, "teacher": teacher, "projector": projector}
        self.trained = {"teach": [teacher], "learn": [student, projector]}
        forward = macs(teacher, channels, size)
        asked = self.looks and not self.view_before_update
        passes = 3 * recipe.student_forwards
        self.cost = {"teach": 3 * forward, "learn": passes * macs(student, channels, size) + forward * asked}

    @classmethod
    def events(cls, recipe: Recipe, course: Course) -> Iterator[Event]:
        events = super().events(recipe, course)
        return events if recipe.teacher_learns else (event for event in events if event.kind != "teach")

    def teach(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        outputs = in_mode(self.teacher)(x)
        said = combine_heads(outputs.logits, outputs.distilled)
        self.views |= {"logits": said.detach(), "features": outputs.features.detach()}
        terms = learn_labels(outputs, y, self.recipe.label_smoothing)
        if self.recipe.teacher_weight != 1:
            terms["loss"] = self.recipe.teacher_weight * terms["loss"]
        return terms

    def learn(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        if self.epoch < self.recipe.distil_start:
            return learn_labels(in_mode(self.student)(x), y, self.recipe.label_smoothing)
        target = Outputs(**self.views) if self.view_before_update else self.teacher_outputs(x) if self.looks else None
        outputs = in_mode(self.student)(x)
        second = self.student(x) if self.recipe.student_forwards == 2 else None
        return self.student_loss(outputs, target, y, second)

    def student_loss(self, outputs: Outputs, target: Outputs | None, y: Tensor, second: Outputs | None = None
                     ) -> dict[str, Tensor]:
        """Compute the student's terms, from its outputs and the teacher's.

        A distillation token's head has the soft loss, and `second` outputs have it in place of the first.
        """
        r = self.recipe
        terms = {"hard": F.cross_entropy(outputs.logits, y, label_smoothing=r.label_smoothing)}
        if target:
            terms["asked_correct"] = (target.logits.argmax(1) == y).sum()
        terms["loss"] = (1 - r.alpha) * terms["hard"]
        if r.alpha:
            own = second or outputs
            own = own.logits if own.distilled is None else own.distilled
            terms["soft"] = self.soft(own, (target or outputs).logits, r.temperature)
            terms["loss"] = terms["loss"] + r.alpha * self.soft_scale * terms["soft"]
        if r.beta and target:
            terms["feature"] = self.feature(self.projector(outputs.features), target.features)
            terms["loss"] = terms["loss"] + r.beta * terms["feature"]
        return terms | {"correct": (outputs.logits.argmax(1) == y).sum()}

    @torch.no_grad()
    def teacher_outputs(self, x: Tensor) -> Outputs:
        """Return the teacher's outputs for the student; two heads' logits are combined, in train mode too."""
        with self.own_statistics():
            outputs = ask(self.teacher, x, self.recipe.teacher_mode)
            return outputs._replace(logits=combine_heads(outputs.logits, outputs.distilled))

    def predict(self, x: Tensor, memo: dict | None = None) -> dict[str, Tensor]:
        with self.own_statistics():
            teacher = once(None if self.statistics else memo, self.teacher, x)
        return {"student": self.student(x).logits, "teacher": teacher}

    def adopt(self, first: Any) -> None:
        self.teacher = self.modules["teacher"] = first.teacher
        self.trained["teach"], self.views = [first.teacher], first.views
        if self.recipe.teacher_mode == "train" and not self.view_before_update:
            self.statistics = OwnStatistics(first.teacher)

    @contextmanager
    def own_statistics(self):
        """Hold the teacher, within this context, at this student's running statistics."""
        if self.statistics:
            self.statistics.swap()
        try:
            yield
        finally:
            if self.statistics:
                self.statistics.swap()


def ask(net: nn.Module, x: Tensor, mode: str) -> Outputs:
    """Return the outputs of a network that teaches, by `recipe.teacher_mode`; its mode afterwards is not defined."""
    if mode != "batch":
        return in_mode(net, mode == "train")(x)
    with batch_statistics(in_mode(net, False)):
        return net(x)


@contextmanager
def batch_statistics(net: nn.Module):
    """Normalise by the batch within this context and keep running statistics; dropout is drawn in train mode only."""
    layers = [module for module in net.modules() if isinstance(module, BatchNorm) and module.track_running_stats]
    modes = [layer.training for layer in layers]
    for layer in layers:
        layer.training, layer.track_running_stats = True, False
    try:
        yield
    finally:
        for layer, mode in zip(layers, modes):
            layer.training, layer.track_running_stats = mode, True


class OwnStatistics:
    """One student's batch-norm running statistics of a shared teacher.

    A forward pass in train mode updates running statistics (A13). It updates only this student's copy, while a hook
    mirrors each update of the teacher into all copies.
    """

    def __init__(self, teacher: nn.Module):
        self.layers = [module for module in teacher.modules() if isinstance(module, BatchNorm)]
        self.own = [{name: value.clone() for name, value in layer.named_buffers()} for layer in self.layers]
        for layer, own in zip(self.layers, self.own):
            layer.register_forward_pre_hook(partial(self._follow, own))

    @staticmethod
    def _follow(own: dict[str, Tensor], layer: nn.BatchNorm2d, inputs: tuple[Tensor]) -> None:
        if layer.training and torch.is_grad_enabled():  # an update, not a look
            with torch.no_grad():
                first = inputs[0].chunk(getattr(layer, "parts", 1))[0]
                F.batch_norm(first, own["running_mean"], own["running_var"], layer.weight, layer.bias, True,
                             layer.momentum, layer.eps)  # the layer's own operation, so the same bits
            own["num_batches_tracked"] += 1

    def swap(self) -> None:
        for layer, own in zip(self.layers, self.own):
            for name in own:
                layer._buffers[name], own[name] = own[name], layer._buffers[name]
