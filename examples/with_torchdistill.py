"""Spaced KD with torchdistill's loss of knowledge distillation, which rounds in another order than ours."""

import digits
import torch.nn.functional as F
from torchdistill.losses.mid_level import KDLoss


def train():
    """Train the student; return it."""
    teacher, student, teacher_optimizer, optimizer, loader = digits.start()
    distil = KDLoss("net", "output", "net", "output", temperature=digits.T, alpha=1 - digits.ALPHA, beta=digits.ALPHA)
    for step in digits.spaced(loader):
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
    print("The package's own weights, within 1e-4:", digits.as_ours(train(), tolerance=1e-4))
