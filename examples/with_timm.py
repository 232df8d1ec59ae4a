"""Spaced KD with timm: its optimizer, its scheduler by update, its networks where you like."""

import digits
from timm.optim import create_optimizer_v2
from timm.scheduler import StepLRScheduler

import spacedkd_lib as skd


def train(teacher, student, teacher_optimizer, optimizer, loader):
    """Make each update that the walk asks for; return the student."""
    nets = {"teach": teacher, "learn": student}
    optimizers = {kind: create_optimizer_v2(net, "momentum", lr=0.05, weight_decay=5e-4, filter_bias_and_bn=False)
                  for kind, net in nets.items()}
    schedulers = {kind: StepLRScheduler(optimizer, decay_t=10**6) for kind, optimizer in optimizers.items()}
    for step in skd.Spaced(loader, epochs=3, interval=1.5):
        if step.kind != "epoch":
            optimizers[step.kind].zero_grad()
            digits.loss(step, teacher, student).backward()
            optimizers[step.kind].step()
            schedulers[step.kind].step_update(step.index)
    return student


if __name__ == "__main__":
    print("The package's own weights, bit for bit:", digits.as_ours(train(*digits.start())))
