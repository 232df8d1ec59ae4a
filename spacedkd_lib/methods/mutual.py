"""Deep mutual learning (Zhang et al. 2018): networks teach each other; in IE-DML their factors do so too.

The first network (of `teacher_model`) leads and is updated by "teach". The other follows by "learn" and sees the
updated leader, as in the method's sequential updates. Spaced, the leader learns a whole block, then the follower
replays it. Unlike an online teacher the leader learns from its student, so no teacher is shared.
Taught in notebooks/10_ie_kd.ipynb.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..models.layers import macs
from ..recipes import Recipe
from .base import Method
from .baseline import once
from .ie_kd import MapLoss, coders_macs, last_map
from .losses import kl, reconstruction_l1
from .online_kd import ask


class Mutual(Method):
    """Both networks: cross-entropy + mutual_weight KL(peer || own).

    A `map_loss` adds inheritance from and exploration against the peer's factor, and the own paraphraser's error. The
    peer's outputs have no gradient. By default they use batch statistics, so nothing moves; in the released program
    both networks see the peer twice in train mode (I9: teacher_mode = "train").
    """

    ramped = ("teach", "learn")
    whole_batch = "the loss of peers"

    def __init__(self, recipe: Recipe, networks: dict[str, nn.Module], map_losses: dict[str, MapLoss],
                 paraphrasers: dict[str, nn.Module], channels: int, size: int):
        super().__init__(recipe)
        self.networks, self.map_losses, self.paraphrasers = networks, map_losses, paraphrasers
        self.modules = {**networks, **{f"{name}_map_loss": module for name, module in map_losses.items()},
                        **{f"{name}_paraphraser": module for name, module in paraphrasers.items()}}
        own = {name: [networks[name], *(held[name] for held in (map_losses, paraphrasers) if held)]
               for name in networks}
        self.trained = {"teach": own["teacher"], "learn": own["student"]}
        forward = {name: macs(net, channels, size) for name, net in networks.items()}
        trained = {name: 3 * (forward[name] + sum(coders_macs(module, last_map(networks[name], channels, size)[1])
                                                  for module in own[name][1:])) for name in networks}
        self.cost = {"teach": trained["teacher"] + forward["student"],
                     "learn": trained["student"] + forward["teacher"]}

    def teach(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        return self._update("teacher", "student", x, y)

    def learn(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        return self._update("student", "teacher", x, y)

    def _update(self, name: str, peer: str, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            seen = ask(self.networks[peer], x, self.recipe.teacher_mode)
        outputs = self.networks[name].train()(x)
        terms = {"hard": F.cross_entropy(outputs.logits, y)}
        loss = terms["hard"]
        if self.recipe.mutual_weight:
            terms["mutual"] = kl(outputs.logits, seen.logits, temperature=1.0)
            loss = loss + self.recipe.mutual_weight * terms["mutual"]
        if self.map_losses:
            with torch.no_grad():
                factor = self.paraphrasers[peer].eval().encoder(seen.map)
            more, weighted = self.map_losses[name].train().weighted(outputs.map, factor, self.epoch)
            last = outputs.map.detach()
            error = reconstruction_l1(self.paraphrasers[name].train()(last), last)
            terms, loss = terms | more | {"reconstruction": error}, loss + weighted + error
        return terms | {"loss": loss, "correct": (outputs.logits.argmax(1) == y).sum()}

    def predict(self, x: Tensor, memo: dict | None = None) -> dict[str, Tensor]:
        return {name: once(memo, net, x) for name, net in sorted(self.networks.items())}
