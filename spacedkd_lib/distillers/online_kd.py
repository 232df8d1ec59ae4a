"""Online KD: a second network, trained on the labels at the same time, teaches the student.

Offline KD is the same code on a schedule with one interval as long as the run.
Taught in notebooks/03_online_kd.ipynb; spaced in notebooks/05_spaced_kd.ipynb.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..losses import FEATURE, SOFT
from ..models import macs
from ..recipes import Recipe


class OnlineKD:
    """Teacher: cross-entropy. Student: (1 - alpha) CE + alpha soft(T) [T^2] + beta feature.

    The teacher's logits and features come from its newest weights, without a gradient, in eval mode (clean) or in
    train mode, which moves its running statistics once more (released, A13). At interval 0 the released program
    takes them from before the teacher's update on the same batch (A7): then nothing is computed twice.
    """

    def __init__(self, recipe: Recipe, teacher: nn.Module, student: nn.Module, projector: nn.Module, channels: int,
                 size: int):
        self.recipe, self.teacher, self.student, self.projector = recipe, teacher, student, projector
        self.soft, self.feature = SOFT[recipe.soft_loss], FEATURE[recipe.feature_loss]
        self.soft_scale = recipe.temperature**2 if recipe.t_squared else 1.0
        self.view_before_update = recipe.zero_target == "pre_update" and recipe.interval == 0
        self.view = None  # the teacher's outputs from before its update, where they are wanted
        self.modules = {"student": student, "teacher": teacher, "projector": projector}
        self.trained = {"teach": [teacher], "learn": [student, projector]}
        forward = macs(teacher, channels, size)
        self.cost = {"teach": 3 * forward,
                     "learn": 3 * macs(student, channels, size) + (0 if self.view_before_update else forward)}

    def teach(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        outputs = self.teacher.train()(x)
        if self.view_before_update:
            self.view = outputs
        return {"loss": F.cross_entropy(outputs.logits, y), "correct": (outputs.logits.argmax(1) == y).sum()}

    def learn(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        r = self.recipe
        target = self.view if self.view_before_update else self.look(x)
        outputs = self.student.train()(x)
        terms = {"hard": F.cross_entropy(outputs.logits, y)}
        terms["loss"] = (1 - r.alpha) * terms["hard"]
        if r.alpha:
            terms["soft"] = self.soft(outputs.logits, target.logits, r.temperature)
            terms["loss"] = terms["loss"] + r.alpha * self.soft_scale * terms["soft"]
        if r.beta:
            terms["feature"] = self.feature(self.projector(outputs.features), target.features)
            terms["loss"] = terms["loss"] + r.beta * terms["feature"]
        return terms | {"correct": (outputs.logits.argmax(1) == y).sum()}

    @torch.no_grad()
    def look(self, x: Tensor):
        """The teacher's outputs as the student sees them."""
        return self.teacher.train(self.recipe.teacher_mode == "train")(x)

    def predict(self, x: Tensor) -> dict[str, Tensor]:
        return {"student": self.student(x).logits, "teacher": self.teacher(x).logits}
