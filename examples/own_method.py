"""A method of one's own: online KD whose student ignores a teacher that is wrong about the picture."""

import dataclasses

import digits
import torch.nn.functional as F

import spacedkd_lib as skd


@skd.register_method
class TrustedTeacher(skd.OnlineKD):
    """The soft loss counts where the teacher's answer is the label."""

    like = "online_kd"

    def student_loss(self, outputs, target, y, second=None):
        """Return the student's terms: `loss` is minimised, `correct` counts hits."""
        right = (target.logits.argmax(dim=1) == y).float()
        T = self.recipe.temperature
        soft = F.kl_div(F.log_softmax(outputs.logits / T, dim=1), F.softmax(target.logits / T, dim=1), reduction="none")
        loss = F.cross_entropy(outputs.logits, y) + T**2 * (right * soft.sum(dim=1)).mean()
        return {"loss": loss, "correct": (outputs.logits.argmax(1) == y).sum()}


RECIPE = dataclasses.replace(digits.RECIPE, method="TrustedTeacher")

if __name__ == "__main__":
    print(skd.run(RECIPE).summary["test_accuracy"])
