"""Labels alone: what every other method is compared with."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..models import macs


class Baseline:
    """Cross-entropy on the student; there is no teacher."""

    def __init__(self, student: nn.Module, channels: int, size: int):
        self.student = student
        self.modules = {"student": student}
        self.trained = {"learn": [student]}
        self.cost = {"learn": 3 * macs(student, channels, size)}

    def learn(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        logits = self.student.train()(x).logits
        loss = F.cross_entropy(logits, y)
        return {"loss": loss, "correct": (logits.argmax(1) == y).sum()}

    def predict(self, x: Tensor) -> dict[str, Tensor]:
        return {"student": self.student(x).logits}
