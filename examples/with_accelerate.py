"""Spaced KD with Hugging Face Accelerate: prepare both networks and optimizers; Spaced walks the prepared loader."""

import digits
from accelerate import Accelerator

import spacedkd_lib as skd


def train(*parts):
    """Make each update that the walk asks for; return the student."""
    accelerator = Accelerator(cpu=True)
    teacher, student, *optimizers, loader = accelerator.prepare(*parts)
    for step in skd.Spaced(loader, epochs=3, interval=1.5):
        if step.kind == "epoch":
            continue
        optimizer = optimizers[step.kind == "learn"]
        optimizer.zero_grad()
        accelerator.backward(digits.loss(step, teacher, student))
        optimizer.step()
    return accelerator.unwrap_model(student)


if __name__ == "__main__":
    print("The package's own weights, bit for bit:", digits.as_ours(train(*digits.start())))
