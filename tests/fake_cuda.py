"""A GPU that does not exist: torch's fake tensors on the device "cuda", with every copy, launch and wait counted.

A backward pass needs a driver, so here it stops at the loss.
"""

from __future__ import annotations

import traceback
from collections import Counter
from contextlib import ExitStack, contextmanager
from unittest import mock

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from spacedkd_lib.data import augment, batches

VIEWS = {"view", "_unsafe_view", "expand", "t", "transpose", "permute", "unsqueeze", "squeeze", "select", "slice",
         "as_strided", "detach", "alias", "unbind", "split", "split_with_sizes", "reshape", "_reshape_alias",
         "diagonal", "unfold", "lift_fresh", "is_pinned", "device"}
ALLOCATIONS = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "resize"}
WAITS = {"_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "unique", "_unique2", "bincount"}


class Counts(TorchDispatchMode):
    """What happens inside this context on fake CUDA tensors.

    launches: kernel -> how often. waits: (operation, line of ours) for which the host waits. to_gpu, to_cpu:
    (bytes, line of ours) of each copy. pageable: those of to_gpu whose tensor is not pinned; such a copy waits too.
    """

    def __init__(self):
        super().__init__()
        self.launches, self.waits, self.to_gpu, self.to_cpu, self.pageable = Counter(), [], [], [], []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func._schema.name.split("::")[1].removesuffix("_")
        devices = {t.device.type for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        if name in WAITS and "cuda" in devices:
            self.waits.append((name, _line()))
        if name == "bincount":  # has no fake form
            out = args[0].new_zeros(kwargs.get("minlength", args[2] if len(args) > 2 else 1))
        else:
            out = func(*args, **kwargs)
        made = [t for t in tree_leaves(out) if isinstance(t, torch.Tensor)]
        if name in ("_to_copy", "copy") and made:
            source, way = args[name == "copy"], (args[name == "copy"].device.type, made[0].device.type)
            moved = source.numel() * source.element_size(), _line()
            if way == ("cpu", "cuda"):
                self.to_gpu.append(moved)
                if not hasattr(source, "pinned_for_fake_cuda"):
                    self.pageable.append(moved)
            if way == ("cuda", "cpu"):
                self.to_cpu.append(moved)
        if "cuda" in devices | {t.device.type for t in made} and name not in VIEWS | ALLOCATIONS:
            self.launches[name] += 1
        return out


def _line() -> str:
    ours = [frame for frame in traceback.extract_stack() if "spacedkd_lib" in frame.filename]
    return f"{ours[-1].filename.rsplit('spacedkd_lib/')[-1]}:{ours[-1].lineno}" if ours else "?"


@contextmanager
def fake_cuda():
    """In this context tensors are fake, but for the draws of batches. Networks can be moved to "cuda", and `backward`
    does nothing."""
    if not torch.backends.cuda.is_built():
        pytest.skip("This torch is built without CUDA.")
    with ExitStack() as stack:
        for owner, name, stand_in in ((nn.Module, "to", _module_to), (torch.Tensor, "backward", lambda *_, **__: 0),
                                      (torch.Tensor, "pin_memory", _pin_memory), (batches, "draw", real(batches.draw)),
                                      (batches, "ready", real(batches.ready)),
                                      (batches.Batches, "_draw_order", real(batches.Batches._draw_order))):
            stack.enter_context(mock.patch.object(owner, name, stand_in))
        stack.callback(augment.constant.cache_clear)  # the fake ones
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        yield


def real(function):
    """A function that works on real tensors inside `fake_cuda` too: draws and orders, which are made on the CPU."""
    def on_real_tensors(*args, **kwargs):
        with unset_fake_temporarily():
            return function(*args, **kwargs)
    return on_real_tensors


def _pin_memory(self):
    self.pinned_for_fake_cuda = True
    return self


def _module_to(self, device=None, memory_format=None):
    """`Module.to`, which cannot swap real parameters for fake ones by itself; what is shared stays shared. To
    another type nothing moves."""
    if not isinstance(device, (str, torch.device)):
        return self
    moved = self.__dict__.setdefault("_moved", {})
    for module in self.modules():
        for members in (module._parameters, module._buffers):
            for name, value in members.items():
                if value is None or value.device.type == torch.device(device).type:
                    continue
                if id(value) not in moved:
                    new = value.detach().to(device)
                    if memory_format is not None and new.dim() == 4:
                        new = new.contiguous(memory_format=memory_format)
                    is_parameter = isinstance(value, nn.Parameter)
                    moved[id(value)] = (value, nn.Parameter(new, value.requires_grad) if is_parameter else new)
                members[name] = moved[id(value)][1]
    return self
