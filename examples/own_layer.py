"""Distillation from a layer by its name: where in the picture the networks are active (attention transfer)."""

import dataclasses

import digits
import torch.nn.functional as F

import spacedkd_lib as skd

LAYER = "trunk.stages.1"


@skd.register_method
class AttentionTransfer(skd.OnlineKD):
    """Online KD with one more term: the student's map of the layer is to be the teacher's."""

    like = "online_kd"

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.maps = {}
        for role in ("student", "teacher"):
            layer = self.modules[role].get_submodule(LAYER)
            layer.register_forward_hook(lambda layer, given, out, role=role: self.maps.update({role: out}))

    def student_loss(self, outputs, target, y, second=None):
        """Return the student's terms, from the maps that both networks have just made."""
        own, asked = (F.normalize(self.maps[role].square().mean(dim=1).flatten(1)) for role in ("student", "teacher"))
        terms = super().student_loss(outputs, target, y, second)
        terms["attention"] = (own - asked.detach()).square().sum(dim=1).mean()
        return terms | {"loss": terms["loss"] + terms["attention"]}


RECIPE = dataclasses.replace(digits.RECIPE, method="AttentionTransfer")

if __name__ == "__main__":
    print(skd.run(RECIPE).summary["test_accuracy"])
