"""Deep mutual learning (Zhang et al. 2018): networks teach each other; and IE-DML, where their factors do so too.

The first network (of `teacher_model`) leads and is updated by "teach"; the others follow by "learn" and see the leader
as it then is, as in the sequential updates of the method. Spaced, the leader learns a whole block while the followers
rest, then they replay it. Unlike an online teacher the leader learns from its students, so no teacher is shared.
Taught in notebooks/10_ie_kd.ipynb.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..models.resnet import Outputs, macs
from ..recipes import Recipe
from .baseline import once
from .ie_kd import MapLoss, coders_macs, last_map
from .losses import mutual_kl, reconstruction_l1
from .online_kd import ask


class Mutual:
    """Each network: cross-entropy + mutual_weight KL(peer || own), the mean over its peers; with a `map_loss`
    inheritance from and exploration against each peer's factor, and its own paraphraser's error.

    A peer is asked without a gradient, by default by the statistics of the batch, which moves nothing; in the released
    program all see it twice in train mode (I9: teacher_mode = "train"). Followers learn side by side,
    from each other's outputs of the same pass.
    """

    own_statistics = staticmethod(nullcontext)

    def __init__(self, recipe: Recipe, networks: dict[str, nn.Module], map_losses: dict[str, MapLoss],
                 paraphrasers: dict[str, nn.Module], channels: int, size: int):
        self.recipe, self.networks, self.epoch = recipe, networks, 0.0
        self.map_losses, self.paraphrasers = map_losses, paraphrasers
        self.leader, self.followers = "teacher", [name for name in networks if name != "teacher"]
        self.modules = {**networks, **{f"{name}_map_loss": module for name, module in map_losses.items()},
                        **{f"{name}_paraphraser": module for name, module in paraphrasers.items()}}
        own = {name: [networks[name], *(held[name] for held in (map_losses, paraphrasers) if name in held)]
               for name in networks}
        self.trained = {"teach": own[self.leader], "learn": sum((own[name] for name in self.followers), [])}
        forward = {name: macs(net, channels, size) for name, net in networks.items()}
        trained = {name: 3 * (forward[name] + sum(coders_macs(module, last_map(networks[name], channels, size)[1])
                                                  for module in own[name][1:])) for name in networks}
        self.cost = {"teach": trained["teacher"] + sum(forward[name] for name in self.followers),
                     "learn": sum(trained[name] for name in self.followers) + forward["teacher"]}

    def teach(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        seen = {name: self.look(name, x) for name in self.followers}
        outputs = self.networks[self.leader].train()(x)
        terms = self._loss(self.leader, outputs, seen, y)
        return terms | {"correct": (outputs.logits.argmax(1) == y).sum()}

    def learn(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        seen = {self.leader: self.look(self.leader, x)}
        outputs = {name: self.networks[name].train()(x) for name in self.followers}
        seen |= {name: out.detach() for name, out in outputs.items()}
        each = {name: self._loss(name, out, {peer: view for peer, view in seen.items() if peer != name}, y)
                for name, out in outputs.items()}
        terms = {key: value for key, value in each["student"].items() if key != "loss"}
        hits = {("" if name == "student" else f"{name}_") + "correct": (out.logits.argmax(1) == y).sum()
                for name, out in outputs.items()}
        return {"loss": sum(terms["loss"] for terms in each.values())} | terms | hits

    def _loss(self, name: str, outputs: Outputs, peers: dict[str, Outputs], y: Tensor) -> dict[str, Tensor]:
        r = self.recipe
        terms = {"hard": F.cross_entropy(outputs.logits, y)}
        loss = terms["hard"]
        if r.mutual_weight:
            terms["mutual"] = sum(mutual_kl(outputs.logits, peer.logits) for peer in peers.values()) / len(peers)
            loss = loss + r.mutual_weight * terms["mutual"]
        if name in self.map_losses:
            for peer, view in peers.items():
                with torch.no_grad():
                    factor = self.paraphrasers[peer].eval().encoder(view.map)
                more, weighted = self.map_losses[name].train().weighted(outputs.map, factor, self.epoch)
                terms |= {key: terms.get(key, 0.0) + value / len(peers) for key, value in more.items()}
                loss = loss + weighted / len(peers)
        if name in self.paraphrasers:
            last = outputs.map.detach()
            terms["reconstruction"] = reconstruction_l1(self.paraphrasers[name].train()(last), last)
            loss = loss + terms["reconstruction"]
        return terms | {"loss": loss}

    @torch.no_grad()
    def look(self, name: str, x: Tensor) -> Outputs:
        """A peer's outputs as the others see them."""
        return ask(self.networks[name], x, self.recipe.teacher_mode)

    def predict(self, x: Tensor, memo: dict | None = None) -> dict[str, Tensor]:
        return {name: once(memo, net, x) for name, net in sorted(self.networks.items())}
