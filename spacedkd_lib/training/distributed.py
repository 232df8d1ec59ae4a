"""Data-parallel runs started by torchrun: each process takes a part of every batch, and all keep equal weights.

The run equals that of one process with the same global batch, up to the order of additions. Batches follow from their
number, so each process draws the whole batch and keeps its rows. Batch norm takes its statistics over all rows. One
message an update sums gradients and loss terms. DistributedDataParallel does not fit, because a method calls its
networks more than once an update, with and without gradients, and in part. Without torchrun all here does nothing.
"""

from __future__ import annotations

import os

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..errors import InputError
from ..methods.build import method_class
from ..recipes import Recipe, stochastic


def processes() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def start() -> str:
    """Join the processes that torchrun started; return this one's device.

    Raises:
        InputError: more processes than GPUs.
    """
    cuda = torch.cuda.is_available()
    device = f"cuda:{os.environ['LOCAL_RANK']}" if cuda else "cpu"
    if cuda and int(os.environ["LOCAL_WORLD_SIZE"]) > torch.cuda.device_count():
        raise InputError(f"{os.environ['LOCAL_WORLD_SIZE']} processes were asked for and this machine has "
                         f"{torch.cuda.device_count()} GPUs: give torchrun --nproc-per-node of at most that.")
    if cuda:
        torch.cuda.set_device(device)
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo")
    return device


def check(recipe: Recipe, images: int) -> None:
    """Raise InputError for what needs whole batches, or too small a last batch."""
    of_method = method_class(recipe).whole_batch
    found = ((of_method, of_method), ("the noise inside a network", stochastic(recipe)),
             ('optimizer = "sam"', recipe.optimizer == "sam"),
             (f"batch_norm_parts = {recipe.batch_norm_parts}", recipe.batch_norm_parts > 1),
             ('feature_loss = "batch_frobenius"', recipe.feature_loss == "batch_frobenius" and recipe.beta))
    if needs := " and ".join(what for what, so in found if so):
        raise InputError(f"A run by {processes()} processes splits each batch, and {recipe.method} with {needs} cannot "
                         "learn from parts: use one process.")
    last = images % recipe.batch_size or recipe.batch_size
    if last < processes():
        raise InputError(f"The last batch of an epoch holds {last} of {images} images, too few for {processes()} "
                         "processes: choose another batch_size, or fewer processes.")


def part(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, float]:
    """Return this process's rows of a batch, and their mean's weight in the batch mean, times the processes."""
    n = processes()
    mine = y[rank()::n]
    return x[rank()::n], mine, n * len(mine) / len(y)


def sum_up(optimizer: torch.optim.Optimizer, terms: dict[str, Tensor], weight: float) -> dict[str, Tensor]:
    """Average the gradients over all processes, in place; return the loss terms of the whole batch.

    terms: means over this process's rows, of `weight`, except for counts, whose names end in "correct".
    """
    n = processes()
    if n == 1:
        return terms
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    weighted = [value.detach() * (n if name.endswith("correct") else weight) for name, value in terms.items()]
    flat = torch.cat([g.reshape(-1) for g in gradients] + [torch.stack([t.float() for t in weighted])])
    dist.all_reduce(flat)
    *sums, means = (flat / n).split([g.numel() for g in gradients] + [len(terms)])
    for gradient, total in zip(gradients, sums):
        gradient.copy_(total.view(gradient.shape))
    return dict(zip(terms, means))


def any_process(flag: bool) -> bool:
    """Return whether the flag holds in at least one process; all must ask together."""
    if processes() == 1:
        return flag
    highest = torch.tensor(int(flag))
    dist.all_reduce(highest, dist.ReduceOp.MAX)
    return bool(highest)


class GlobalBatchNorm2d(nn.BatchNorm2d):
    """Batch norm with the mean and variance of all processes' rows; torch's SyncBatchNorm needs GPUs."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        exact = x.float()
        count = exact.new_full((1,), x.numel() // x.shape[1])  # filled on the device: a copy would make it wait
        count, total = _Sum.apply(torch.cat([count, exact.sum(dim=(0, 2, 3))])).tensor_split([1])
        mean = total / count
        centred = exact - mean[:, None, None]
        variance = _Sum.apply(centred.square().sum(dim=(0, 2, 3))) / count
        if self.track_running_stats:
            self._remember(mean, variance * count / (count - 1))
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)
        self.num_batches_tracked += 1


class _Sum(torch.autograd.Function):
    """The sum over all processes; each gets the gradient of all."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        x = x.clone()
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return _Sum.forward(ctx, gradient)


def prepare(module: nn.Module) -> None:
    """Let a network's batch norms see all processes' rows; their parameters and buffers stay.

    Raises:
        InputError: a batch norm of another class (timm has some), which would see one process's rows only.
    """
    for layer in module.modules():
        if type(layer) is nn.BatchNorm2d:
            layer.__class__ = GlobalBatchNorm2d
        elif isinstance(layer, nn.modules.batchnorm._BatchNorm) and type(layer) is not GlobalBatchNorm2d:
            raise InputError(f"Layers of the class {type(layer).__name__} would normalise in each of {processes()} "
                             "processes by its own rows, and only BatchNorm2d sees those of all: choose another "
                             "network, or use one process.")
