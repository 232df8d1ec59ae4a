"""Losses as pure functions of tensors; every variant has a name, and teacher tensors never receive a gradient.

Shapes: logits [B, K], features [B, D], maps [B, C, H, W]. T is the temperature. The value is a scalar tensor.
Where the released programs differ from the text, their form is here too, under its own name.
tests/test_losses.py checks them against recorded values and gradients of the released programs (1e-10, float64).
Taught in notebooks/03_online_kd.ipynb.
"""

from __future__ import annotations

from typing import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..recipes import Recipe, plugins


# Soft losses: what the teacher's logits say about the student's

def kl(student: Tensor, teacher: Tensor, temperature: float = 3.0) -> Tensor:
    """Compute the Kullback-Leibler divergence of the softened distributions, mean over the batch, without T^2.

    sum_k q_k (log q_k - log p_k), p = softmax(student / T), q = softmax(teacher / T). Zero exactly where p = q.
    """
    log_p = F.log_softmax(student / temperature, dim=1)
    log_q = F.log_softmax(teacher.detach() / temperature, dim=1)
    return (log_q.exp() * (log_q - log_p)).sum() / len(log_p)  # the bits of F.kl_div, for which vmap has no rule


def soft_cross_entropy(student: Tensor, teacher: Tensor, temperature: float = 3.0) -> Tensor:
    """Compute `kl` plus the teacher's entropy: -sum_k q_k log p_k, mean over the batch (released self-KD program)."""
    log_p = F.log_softmax(student / temperature, dim=1)
    return -(F.softmax(teacher.detach() / temperature, dim=1) * log_p).sum(dim=1).mean()


def probability_kl(student: Tensor, teacher: Tensor, temperature: float = 3.0) -> Tensor:
    """Compute the released online program's loss (A1): the KL function fed with p where log p belongs.

    sum_k q_k (log q_k - p_k), mean over the batch. Only -<q, p> depends on the student: its minimum puts all mass
    on the teacher's favourite class, whatever the teacher's distribution. The value is negative.
    """
    p, q = F.softmax(student / temperature, dim=1), F.softmax(teacher.detach() / temperature, dim=1)
    return (torch.xlogy(q, q) - q * p).sum() / len(p)  # the bits of F.kl_div, as above


def kl_per_class(student: Tensor, teacher: Tensor, temperature: float = 3.0) -> Tensor:
    """Compute `kl` divided by B * K in place of B, so with 1/K of its weight (released transformer programs, V2)."""
    return kl(student, teacher, temperature) / student.shape[1]


def kl_shuffled(student: Tensor, teacher: Tensor, temperature: float = 3.0) -> Tensor:
    """Compute `kl` from the teacher's logits of the next picture: as soft, a control (ours; arXiv:2510.12615)."""
    return kl(student, teacher.roll(-1, 0), temperature)


# Feature losses: distance of projected student features to the teacher's

def l2_per_sample(student: Tensor, teacher: Tensor) -> Tensor:
    """Compute the Euclidean distance of each sample's features, mean over the batch (ours): independent of B."""
    return torch.linalg.vector_norm(student - teacher.detach(), dim=1).mean()


def batch_frobenius(student: Tensor, teacher: Tensor) -> Tensor:
    """Compute the norm of the whole [B, D] block (released, A2): it grows with sqrt(B D), its gradient has norm 1."""
    return torch.linalg.vector_norm(student - teacher.detach())


SOFT = {"kl": kl, "soft_cross_entropy": soft_cross_entropy, "probability_kl": probability_kl,
        "kl_per_class": kl_per_class, "kl_shuffled": kl_shuffled}
FEATURE = {"l2_per_sample": l2_per_sample, "batch_frobenius": batch_frobenius}


def soft_loss(recipe: Recipe) -> Callable[[Tensor, Tensor, float], Tensor]:
    """Return the soft loss that a recipe names, ours or a registered one."""
    own = plugins.made("loss", recipe.soft_loss)
    return _own(recipe.soft_loss, own) if own else SOFT[recipe.soft_loss]


def feature_loss(recipe: Recipe) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the feature loss that a recipe names, ours or a registered one."""
    own = plugins.made("feature loss", recipe.feature_loss)
    return _own(recipe.feature_loss, own) if own else FEATURE[recipe.feature_loss]


def _own(name: str, loss: Callable) -> Callable:
    def checked(student: Tensor, teacher: Tensor, *temperature: float) -> Tensor:
        value = loss(student.clone(), teacher.detach().clone(), *temperature)  # what it changes reaches nobody else
        if not isinstance(value, Tensor) or value.dim():
            given = f"a tensor of shape {list(value.shape)}" if isinstance(value, Tensor) else repr(value)
            raise InputError(f"The loss {name} returned {given}: return a scalar tensor, such as a mean.")
        if student.requires_grad and not value.requires_grad:
            raise InputError(f"The loss {name} has no gradient: compute it from the student's tensor, undetached.")
        return value
    return checked


# Factor transfer, inheritance and exploration (IE-KD): maps or factors of equal shape, one vector a sample

def _unit(x: Tensor) -> Tensor:
    return F.normalize(x.flatten(1), dim=1)


def factor_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Compute the mean absolute difference of L2-normalised factors (released IE-KD program): <= 2 / sqrt(D)."""
    return (_unit(student) - _unit(teacher.detach())).abs().mean()


def reconstruction_l1(reconstruction: Tensor, original: Tensor) -> Tensor:
    """Compute the mean absolute error of an auto-encoder's output."""
    return F.l1_loss(reconstruction, original.detach())


def linear_cka(x: Tensor, y: Tensor) -> Tensor:
    """Compute the linear centred kernel alignment of features [B, D1], [B, D2] (Kornblith et al. 2019), in [0, 1].

    Few samples bias it: unrelated features of D1 and D2 elements give about sqrt(D1 D2) / B where that is small. A
    small B brings them near 1: 500 pictures of maps of 2048 and 4096 elements give 0.85.
    """
    x, y = x.flatten(1), y.flatten(1)
    x, y = x - x.mean(dim=0), y - y.mean(dim=0)
    x, y = x @ x.T, y @ y.T  # B x B: maps have far more elements than a batch has images
    return (x * y).sum() / (x.norm() * y.norm())
