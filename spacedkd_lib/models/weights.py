"""Weights that a user brings, kept under the hash of their values, which a recipe names."""

from __future__ import annotations

import hashlib
import textwrap
from os import PathLike
from pathlib import Path

from torch import Tensor, nn

from ..errors import InputError, reading
from ..store.records import runs_folder, tensor_bytes, write_atomically


def keep_weights(source: nn.Module | dict[str, Tensor] | str | PathLike) -> str:
    """Copy weights to the runs folder; return their SHA-256, for a recipe's `teacher_weights` or `student_weights`.

    Args:
        source: a module, its state dict, or a file of one: safetensors, or what torch.load reads with weights_only.

    Raises:
        InputError: the file is not there, or holds something else.
    """
    what = source if isinstance(source, (str, PathLike)) else f"A {type(source).__name__}"
    with reading(f"{what} is no file of weights, or",
                 "give a module, its state dict, or a file of that: safetensors, or torch.save"):
        state = (source.state_dict() if isinstance(source, nn.Module) else source if isinstance(source, dict)
                 else _read(Path(source)))
        if not all(isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()):
            raise ValueError("it holds more than named tensors")
        content = tensor_bytes({name: state[name] for name in sorted(state)})
    sha256 = hashlib.sha256(content).hexdigest()
    write_atomically(_path(sha256), content)
    return sha256


def _read(path: Path) -> dict[str, Tensor]:
    import torch
    from safetensors.torch import load_file
    return load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)


def load_kept(net: nn.Module, sha256: str, role: str) -> None:
    """Load kept weights into a network, or into the module that it wraps. role: "teacher" or "student".

    Raises:
        InputError: they are not on this machine, or are those of another network or of other classes.
    """
    from safetensors.torch import load
    path = _path(sha256)
    if not path.exists():
        raise InputError(f"The {role}'s weights {sha256} are not in {path.parent}: give them to keep_weights first.")
    with reading(path, "delete it, and give the weights to keep_weights again"):
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != sha256:
            raise ValueError("its checksum does not hold")
        state = load(content)
    inner = getattr(net, "net", net)
    try:
        (net if state.keys() == net.state_dict().keys() else inner).load_state_dict(state)
    except RuntimeError as error:
        first = textwrap.shorten(str(error).splitlines()[1], 200)  # it may name every tensor
        raise InputError(f"The weights of {role}_weights = {sha256[:12]}... are not those of the {role}'s network "
                         f"({first}): name their network, trained on the classes of this data set.") from None


def _path(sha256: str) -> Path:
    return runs_folder() / ".weights" / f"{sha256}.safetensors"
