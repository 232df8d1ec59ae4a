"""Spaced KD in a plain PyTorch loop."""

import digits
import torch.nn.functional as F

import spacedkd_lib as skd


def train(teacher, student, teacher_optimizer, optimizer, loader):
    """Make each update that the walk asks for; return the student."""
    for step in skd.Spaced(loader, epochs=3, interval=1.5):
        if step.kind == "epoch":
            continue
        x, y = step.batch
        if step.kind == "teach":
            mine, loss = teacher_optimizer, F.cross_entropy(teacher.train()(x).logits, y)
        else:
            target, z = F.log_softmax(digits.ask(teacher, x) / digits.T, dim=1), student.train()(x).logits
            soft = F.kl_div(F.log_softmax(z / digits.T, dim=1), target, log_target=True, reduction="batchmean")
            mine, loss = optimizer, (1 - digits.ALPHA) * F.cross_entropy(z, y) + digits.ALPHA * digits.T**2 * soft
        mine.zero_grad()
        loss.backward()
        mine.step()
    return student


if __name__ == "__main__":
    print("The package's own weights, bit for bit:", digits.as_ours(train(*digits.start())))
