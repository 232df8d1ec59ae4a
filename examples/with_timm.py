"""Spaced KD with timm: its optimizer, its scheduler by update, its networks where you like."""

import digits
import torch.nn.functional as F
from timm.optim import create_optimizer_v2
from timm.scheduler import StepLRScheduler

import spacedkd_lib as skd


def train():
    """Train the student; return it."""
    teacher, student, *_, loader = digits.start()
    r = digits.RECIPE
    nets = {"teach": teacher, "learn": student}
    optimizers = {kind: create_optimizer_v2(net, "momentum", lr=r.lr, weight_decay=r.weight_decay, momentum=r.momentum,
                                            filter_bias_and_bn=False) for kind, net in nets.items()}
    schedulers = {kind: StepLRScheduler(optimizer, decay_t=10**6) for kind, optimizer in optimizers.items()}
    for step in digits.spaced(loader):
        if step.kind == "epoch":
            continue
        x, y = step.batch
        target = digits.ask(teacher, x) if step.kind == "learn" else None
        z = nets[step.kind].train()(x).logits
        loss = F.cross_entropy(z, y)
        if step.kind == "learn":
            loss = (1 - digits.ALPHA) * loss + digits.ALPHA * digits.T**2 * skd.losses.kl(z, target, digits.T)
        optimizers[step.kind].zero_grad()
        loss.backward()
        optimizers[step.kind].step()
        schedulers[step.kind].step_update(step.index)
    return student


if __name__ == "__main__":
    print("The package's own weights, bit for bit:", digits.as_ours(train()))
