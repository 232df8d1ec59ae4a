"""What every example trains: digits, two networks and their optimizers, as the package's own loop has them."""

from functools import cache

import spacedkd_lib as skd  # before torch, whose kernels it caps

import torch
import torch.nn.functional as F

RECIPE = skd.spaced(skd.online_kd(skd.Recipe(
    dataset="digits", train_images=320, model="resnet8", width=4, epochs=3, batch_size=32, lr=0.05,
    lr_schedule="constant", augment="none"), beta=0.0), interval=1.5)
ALPHA, T = RECIPE.alpha, RECIPE.temperature


class Loader:
    """The package's batches as a loader: a batch is a function of its number, so each epoch has an order of its own."""

    def __init__(self, batches):
        self.batches, self.epoch = batches, 0

    def __len__(self):
        return len(self.batches)

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        return (self.batches[self.epoch * len(self) + i] for i in range(len(self)))


def start():
    """Return teacher, student, their optimizers and the loader, all untouched."""
    (run,), batches, _ = skd.assemble([RECIPE], skd.datasets.load("digits"), "cpu")
    return run.method.teacher, run.method.student, run.optimizer["teach"], run.optimizer["learn"], Loader(batches)


def ask(teacher, x):
    """Return the teacher's logits by the statistics of the batch, without a gradient."""
    with torch.no_grad(), skd.batch_statistics(teacher.eval()):
        return teacher(x).logits


def loss(step, teacher, student):
    """Return the teacher's loss, or the student's with distillation: what your loop has before it is spaced."""
    x, y = step.batch
    if step.kind == "teach":
        return F.cross_entropy(teacher.train()(x).logits, y)
    target, z = ask(teacher, x), student.train()(x).logits
    return (1 - ALPHA) * F.cross_entropy(z, y) + ALPHA * T**2 * skd.losses.kl(z, target, T)


@cache
def our_weights():
    """Train by the package's own loop; return the student's parameters."""
    (run,), batches, evaluate = skd.assemble([RECIPE], skd.datasets.load("digits"), "cpu")
    for _ in skd.walk([run], batches, evaluate):
        pass
    return list(run.method.student.parameters())


def as_ours(student, tolerance=0.0) -> bool:
    """Whether the student's weights are those of the package's own loop: bit for bit, or within a tolerance."""
    return all(torch.allclose(mine, theirs, rtol=0, atol=tolerance)
               for mine, theirs in zip(student.parameters(), our_weights()))
