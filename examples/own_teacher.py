"""A teacher of one's own: trained elsewhere, frozen here, and asked by the student."""

import dataclasses

import digits
import torch.nn.functional as F

import spacedkd_lib as skd


def recipe():
    """Train a teacher in a loop of one's own; return the recipe of a student that asks it."""
    teacher, _, optimizer, _, loader = digits.start()
    for epoch in range(4):
        loader.set_epoch(epoch)
        for x, y in loader:
            optimizer.zero_grad()
            F.cross_entropy(teacher.train()(x).logits, y).backward()
            optimizer.step()
    return dataclasses.replace(digits.RECIPE, interval=0.0, teacher_weights=skd.keep_weights(teacher),
                               teacher_learns=False, teacher_mode="eval")


if __name__ == "__main__":
    print(skd.run(recipe()).summary)
