"""Spaced KD in a plain PyTorch loop."""

import digits
import torch.nn.functional as F


def train():
    """Train the student; return it."""
    teacher, student, teacher_optimizer, optimizer, loader = digits.start()
    for step in digits.spaced(loader):
        if step.kind == "teach":
            x, y = step.batch
            update(teacher_optimizer, F.cross_entropy(teacher.train()(x).logits, y))
        elif step.kind == "learn":
            x, y = step.batch
            target = F.log_softmax(digits.ask(teacher, x) / digits.T, dim=1)
            z = student.train()(x).logits
            soft = F.kl_div(F.log_softmax(z / digits.T, dim=1), target, log_target=True, reduction="batchmean")
            update(optimizer, (1 - digits.ALPHA) * F.cross_entropy(z, y) + digits.ALPHA * digits.T**2 * soft)
    return student


def update(optimizer, loss):
    """Make one update."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


if __name__ == "__main__":
    print("The package's own weights, bit for bit:", digits.as_ours(train()))
