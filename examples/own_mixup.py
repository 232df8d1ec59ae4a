"""Mixup with distillation: the student learns mixed pictures, for which it asks its teacher."""

import dataclasses

import digits
import torch

import spacedkd_lib as skd


@skd.register_method
class MixedUp(skd.OnlineKD):
    """Each picture is mixed with another of the batch, and so is its loss; the teacher learns plain pictures.

    It distils from the first update on, and asks the teacher as it is now, whatever the recipe says of these.
    """

    like = "online_kd"

    def learn(self, x, y):
        """Return the student's terms; random numbers are seeded by the update, so a resumed run draws the same."""
        share, other = torch.distributions.Beta(0.2, 0.2).sample(), torch.randperm(len(x))
        x = share * x + (1 - share) * x[other]
        target, outputs = self.teacher_outputs(x), self.student.train()(x)
        one, two = (self.student_loss(outputs, target, labels) for labels in (y, y[other]))
        return {name: share * one[name] + (1 - share) * two[name] for name in one}


RECIPE = dataclasses.replace(digits.RECIPE, method="MixedUp")

if __name__ == "__main__":
    print(skd.run(RECIPE).summary["test_accuracy"])
