"""A soft loss of one's own, judged against online KD in one call."""

import spacedkd_lib as skd  # before torch, whose kernels it caps

import torch.nn.functional as F

POWER = 2.0


@skd.register_loss
def focal_kl(student, teacher, temperature):
    """Weigh each class's term by how far the student is from the teacher there."""
    p, q = F.softmax(student / temperature, dim=1), F.softmax(teacher / temperature, dim=1)
    return ((p - q).abs() ** POWER * q * (q.log() - p.log())).sum(dim=1).mean()


if __name__ == "__main__":
    print(skd.judge(focal_kl, against="online KD", seeds=3).T)
