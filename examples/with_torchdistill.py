"""Spaced KD with torchdistill's loss of knowledge distillation, which rounds in another order than ours."""

import digits
import torch.nn.functional as F
from torchdistill.losses.mid_level import KDLoss

import spacedkd_lib as skd


def train(teacher, student, teacher_optimizer, optimizer, loader):
    """Make each update that the walk asks for; return the student."""
    distil = KDLoss("net", "output", "net", "output", temperature=digits.T, alpha=1 - digits.ALPHA, beta=digits.ALPHA)
    for step in skd.Spaced(loader, epochs=3, interval=1.5):
        if step.kind == "epoch":
            continue
        x, y = step.batch
        if step.kind == "teach":
            mine, loss = teacher_optimizer, F.cross_entropy(teacher.train()(x).logits, y)
        else:
            target = {"net": {"output": digits.ask(teacher, x)}}
            mine, loss = optimizer, distil({"net": {"output": student.train()(x).logits}}, target, y)
        mine.zero_grad()
        loss.backward()
        mine.step()
    return student


if __name__ == "__main__":
    print("The package's own weights, within 1e-4:", digits.as_ours(train(*digits.start()), tolerance=1e-4))
