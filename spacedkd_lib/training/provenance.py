"""Provenance of numbers, and the conditions of equal bits."""

from __future__ import annotations

import os
import warnings
from functools import cache

import torch

from ..data import datasets
from ..data.batches import statistics_of
from ..errors import InputError
from ..recipes import Recipe
from ..store import exact, software
from . import distributed

# What must agree for a checkpoint to lead to the same bits.
SAME_BITS = ("spacedkd", "torch", "data_sha256", "device", "device_name", "threads", "processes", "exact",
             "code_sha256", "seeds_together", "engine", "tf32", "driver", "cuda", "cudnn")


def repeatable(device: torch.device) -> None:
    """Request repeatable kernels of a GPU, warning where there are none; warn if a CPU's bits differ from other x86.

    Raises:
        InputError: see `check_settings`.
    """
    check_settings()
    if device.type != "cuda":
        why_not = exact.why_not(torch.backends.cpu.get_cpu_capability(), torch.get_num_threads())
        if why_not and exact.caps():
            warnings.warn(why_not, stacklevel=2)
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is repeatable only with fixed buffers
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # for finding mistakes: hundreds of kernels an update
    # With warn_only these kernels of attention add up their gradients in any order, so that only the plain one is left.
    for kernel in ("flash", "mem_efficient", "cudnn"):
        getattr(torch.backends.cuda, f"enable_{kernel}_sdp")(False)


def check_settings() -> None:
    """Check that torch computes as a run asks for.

    Raises:
        InputError: a context or a default of torch is set that would change its numbers.
    """
    odd = {"torch.no_grad() or inference_mode()": not torch.is_grad_enabled() or torch.is_inference_mode_enabled(),
           "torch.autocast": any(map(torch.is_autocast_enabled, ("cpu", "cuda"))),
           "torch.set_default_dtype": torch.get_default_dtype() != torch.float32,
           "torch.set_default_device": torch.get_default_device().type != "cpu"}
    if any(odd.values()):
        raise InputError(f"{' and '.join(name for name, is_set in odd.items() if is_set)} would change the numbers of "
                         "this training: leave it first.")


def provenance(dataset: datasets.Dataset, device: torch.device) -> dict:
    """Return the data set, hardware, software and code that numbers come from."""
    gpu = device.type == "cuda"
    hardware = torch.cuda.get_device_name(device) if gpu else torch.backends.cpu.get_cpu_capability()
    threads = torch.get_num_threads()
    more = gpu_environment() if gpu else {"exact": not exact.why_not(hardware, threads)}
    return software.describe() | {"dataset": dataset.name,
                                  "data_sha256": dataset.sha256, "device": device.type, "device_name": hardware,
                                  "threads": threads, "processes": distributed.processes()} | more


def inputs(recipe: Recipe, dataset: datasets.Dataset) -> dict:
    """Return what a student needs to name new pictures: class names, channels and pixels, and the normalisation."""
    used, _ = datasets.split(dataset, recipe.train_images, recipe.val_fraction, recipe.seed)
    mean, std = statistics_of(recipe.normalise, dataset.train_images[used])
    return {"classes": list(dataset.classes), "shape": [dataset.channels, dataset.image_size],
            "mean": list(mean), "std": list(std)}


def gpu_environment() -> dict:
    """Return what a GPU's numbers depend on besides: versions of driver and libraries, and "tf32".

    "tf32" names the operations that round factors to ten bits of mantissa (by default, as torch's, convolutions).
    """
    precisions = {"convolutions": torch.backends.cudnn.conv.fp32_precision,
                  "matrix products": torch.backends.cuda.matmul.fp32_precision}
    return {"driver": _driver(), "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version(),
            "tf32": ", ".join(name for name, set_to in precisions.items() if set_to == "tf32") or "none"}


@cache
def _driver() -> str | None:
    versions = software.answer(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"])
    return versions.split("\n")[0] if versions else None  # a line for each GPU
