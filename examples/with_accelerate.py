"""Spaced KD with Hugging Face Accelerate: prepare both networks and optimizers; Spaced walks the prepared loader."""

import digits
import torch.nn.functional as F
from accelerate import Accelerator

import spacedkd_lib as skd


def train():
    """Train the student; return it."""
    accelerator = Accelerator(cpu=True)
    *parts, loader = digits.start()
    teacher, student, teacher_optimizer, optimizer = accelerator.prepare(*parts)
    for step in digits.spaced(loader):
        if step.kind == "epoch":
            continue
        x, y = step.batch
        if step.kind == "teach":
            mine, loss = teacher_optimizer, F.cross_entropy(teacher.train()(x).logits, y)
        else:
            target, z = digits.ask(teacher, x), student.train()(x).logits
            soft = skd.losses.kl(z, target, digits.T)
            mine, loss = optimizer, (1 - digits.ALPHA) * F.cross_entropy(z, y) + digits.ALPHA * digits.T**2 * soft
        mine.zero_grad()
        accelerator.backward(loss)
        mine.step()
    return accelerator.unwrap_model(student)


if __name__ == "__main__":
    print("The package's own weights, bit for bit:", digits.as_ours(train()))
