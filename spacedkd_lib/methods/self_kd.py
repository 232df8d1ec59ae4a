"""Self KD: the deepest exit of one network teaches its shallow exits ("Be your own teacher", Zhang et al. 2019).

Taught in notebooks/04_self_kd.ipynb.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..models.layers import Outputs, macs
from ..models.resnet import MultiExitResNet
from ..recipes import Recipe
from .base import Method
from .losses import feature_loss, soft_loss


class SelfKD(Method):
    """Teacher: cross-entropy of the deepest exit. Students: exits 1 to 3, taught by the deepest exit's outputs.

    Each student's loss is (1 - alpha) CE + alpha soft(T) [T^2] + beta feature. The trunk belongs to both, so a
    student's step moves the teacher too. `recipe.self_update` decides the parts that it moves:

    - "alternate" (clean): trunk and shallow exits follow the shallow exits' losses; each batch makes one update of
      the teacher and one of the students, at every interval.
    - "everything" (released, A3): the student's step adds the deepest exit's cross-entropy, so a spaced run makes
      almost twice its baseline's updates. The teacher's step runs the idle exits too, whose statistics move (A21).

    With `recipe.idle_exits` = "decay" the teacher's step moves the idle exits by weight decay and remaining momentum,
    as the released program does on two GPUs or with a torch before 2.0 (A12).
    """

    stackable = True

    def __init__(self, recipe: Recipe, net: MultiExitResNet, adapters: nn.ModuleList, channels: int, size: int):
        super().__init__(recipe)
        self.net, self.adapters = net, adapters  # adapters: for exits 3, 2, 1
        self.soft, self.feature = soft_loss(recipe), feature_loss(recipe)
        self.soft_scale = recipe.temperature**2 if recipe.t_squared else 1.0
        self.modules = {"student": net, "projector": adapters}
        self.idle = [net.scale, net.gates, *net.heads[:3]]  # while the deepest exit learns alone
        self.trained = {"teach": [net, adapters], "learn": [net, adapters]}
        trunk = macs(net, channels, size, net.deepest)
        exits = macs(net, channels, size) - trunk
        self.cost = {"teach": 3 * trunk + (exits if recipe.self_update == "everything" else 0),
                     "learn": 3 * (trunk + exits)}

    def teach(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        self.net.train()
        logits = (self.net(x)[0] if self.recipe.self_update == "everything" else self.net.deepest(x)).logits
        loss = F.cross_entropy(logits, y)
        if self.recipe.idle_exits == "decay":  # gradients of zero where there would be none
            loss = loss + 0.0 * sum(p.sum() for module in self.idle for p in module.parameters())
        return {"loss": loss, "correct": (logits.argmax(1) == y).sum()}

    @torch.no_grad()
    def forward(self, x: Tensor, y: Tensor) -> None:
        """Run a batch without an update; its batch statistics move (released program)."""
        self.net.train()(x)

    def learn(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        r = self.recipe
        self.net.train()
        teacher, *exits = self.net(x)  # exits 3, 2, 1
        terms = {"hard": sum(F.cross_entropy(exit.logits, y) for exit in exits)}
        terms["loss"] = (1 - r.alpha) * terms["hard"]
        if r.self_update == "everything":
            terms["deepest"] = F.cross_entropy(teacher.logits, y)
            terms["loss"] = terms["loss"] + terms["deepest"]
        if r.alpha:
            terms["soft"] = sum(self.soft(exit.logits, teacher.logits, r.temperature) for exit in exits)
            terms["loss"] = terms["loss"] + r.alpha * self.soft_scale * terms["soft"]
        if r.beta and r.feature_exits:
            terms["feature"] = sum(self.feature(adapt(exit.features), teacher.features)
                                   for number, adapt, exit in zip((3, 2, 1), self.adapters, exits)
                                   if number in r.feature_exits)
            terms["loss"] = terms["loss"] + r.beta * terms["feature"]
        return terms | {("correct" if name == "student" else f"{name}_correct"): (logits.argmax(1) == y).sum()
                        for name, logits in self.named(teacher, *exits).items()}

    def predict(self, x: Tensor, memo: dict | None = None) -> dict[str, Tensor]:
        """Return all exits' logits, and the ensemble, their mean, which the released program reports (A22).

        The deepest exit alone is the headline: it costs as much as the plain network.
        """
        return self.named(*self.net(x))

    @staticmethod
    def named(*outputs: Outputs) -> dict[str, Tensor]:
        """Name four exits' outputs, deepest first: name -> logits [B, K]."""
        logits = [out.logits.detach() for out in outputs]
        return {"student": logits[0], "ensemble": torch.stack(logits).mean(dim=0),
                "exit3": logits[1], "exit2": logits[2], "exit1": logits[3]}
