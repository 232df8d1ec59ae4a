"""What users register under a name of their own: losses, rules, networks, methods and data sets. No torch here.

A recipe names a plugin in a field, as it names ours. Worker processes get plugins by value (cloudpickle), so they may
stand in a script or a notebook. The hash of its source is part of what made a record, see store/identity.py.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import sys
import types
from pathlib import Path
from typing import Any, Callable, Iterable, Iterator, NamedTuple

from .. import schedule
from ..errors import InputError

# Kind -> the recipe's fields that may name one
FIELDS = {"loss": ("soft_loss",), "feature loss": ("feature_loss",), "rule": ("rule",), "method": ("method",),
          "network": ("model", "teacher_model"), "data set": ("dataset",)}


class Plugin(NamedTuple):
    made: Any
    sha256: str  # of its source


_registered: dict[tuple[str, str], Plugin] = {}
on_change: list[Callable[[], None]] = []  # what has to forget what it knew of names


def register_loss(made=None, *, name: str = "", of: str = "logits"):
    """Register a loss, by a decorator or a call; the name is the function's own unless given.

    of="logits": f(student [B, K], teacher [B, K], temperature), named by the field `soft_loss`. of="features":
    f(student [B, D], teacher [B, D]), named by `feature_loss`. It returns a scalar; the teacher has no gradient.

    Raises:
        InputError: a name of ours, or a source that cannot be found.
    """
    return _register("feature loss" if of == "features" else "loss", made, name)


def register_rule(made=None, *, name: str = ""):
    """Register a rule of block lengths: a generator function f(length, total, seed), named by the field `rule`.

    It yields the batches of one block after the other, each at least 1. length: of a fixed block, int(L s). total:
    batches of the run. seed: the recipe's.
    """
    return _register("rule", made, name)


def register_network(made=None, *, name: str = ""):
    """Register a network: f(classes, channels, size) -> nn.Module, named by the fields `model` and `teacher_model`.

    It takes pictures [B, C, size, size] and returns logits [B, K] from a linear layer, whose input are its features; or
    `models.layers.Outputs`. It is made under the recipe's seed.
    """
    return _register("network", made, name)


def register_method(made=None, *, name: str = ""):
    """Register a method: a subclass of a method of ours, named by the field `method`.

    Its `like` is the name of that method: the recipe has its fields, and the constructor its arguments.
    """
    if made is not None and made.__dict__.get("like", "") == "":
        raise InputError(f'{made.__name__} does not say which method it is like: give the class like = "online_kd", or '
                         "another method that it is a subclass of.")
    return _register("method", made, name)


def register_dataset(made=None, *, name: str = ""):
    """Register a data set, named by the field `dataset`: a function without arguments, or a `datasets.Dataset`.

    The function returns train_images, train_labels, test_images, test_labels as arrays, uint8 [N, C, H, W] and integer
    [N], and the names of the classes.
    """
    return _register("data set", made, name)


def _register(kind: str, made, name: str):
    if made is None:  # a decorator with a name
        return functools.partial(_register, kind, name=name)
    name = name or getattr(made, "__name__", "")
    from .recipe import METHODS, RESNETS, TRANSFORMERS, Recipe
    fields = Recipe.__dataclass_fields__
    ours = {"method": METHODS, "network": (*RESNETS, *TRANSFORMERS), "data set": ()}.get(
        kind) or fields[FIELDS[kind][0]].metadata["allowed"]
    if not name.isidentifier() or name in ours:
        raise InputError(f'"{name}" cannot be the name of a {kind} of yours: give name="..." of letters, digits and '
                         f"underscores, and none of ours ({', '.join(ours)}).")
    _add(kind, name, Plugin(made, made.sha256 if kind == "data set" and hasattr(made, "sha256") else _sha256(made)))
    return made


def _add(kind: str, name: str, plugin: Plugin) -> None:
    _registered[kind, name] = plugin
    if kind == "rule":
        schedule.OWN_RULES[name] = plugin.made
    forget()


def forget() -> None:
    """Let others forget what they knew of names."""
    for each in on_change:
        each()


def names(field: str) -> tuple[str, ...]:
    """List what is registered for a recipe's field."""
    return tuple(name for kind, name in _registered if field in FIELDS[kind])


def made(kind: str, name: str) -> Any:
    """Return what is registered under a name; None if nothing is."""
    plugin = _registered.get((kind, name))
    return plugin.made if plugin else None


def like(method: str) -> str:
    """Return the method of ours whose fields a method has: itself, if it is ours."""
    return getattr(made("method", method), "like", method)


def hashes(recipe) -> dict[str, str]:
    """Return name -> SHA-256 of the plugins that a recipe names."""
    return {name: plugin.sha256 for (kind, name), plugin in _registered.items()
            if name in (getattr(recipe, field) for field in FIELDS[kind])}


# In other processes

def shipped() -> bytes:
    """Return all plugins as bytes for `call`; empty if there are none."""
    if not _registered:
        return b""
    import cloudpickle
    modules = {module for plugin in _registered.values() if (module := _own_module(plugin.made))}
    for module in modules:  # by value: a worker may not be able to import it
        cloudpickle.register_pickle_by_value(module)
    try:
        return cloudpickle.dumps(_registered)
    finally:
        for module in modules:
            cloudpickle.unregister_pickle_by_value(module)


def _own_module(made) -> types.ModuleType | None:
    """Return the module of a plugin, if it is the user's and no installed one."""
    module = sys.modules.get(getattr(made, "__module__", ""))
    file = getattr(module, "__file__", None)
    installed = not file or "site-packages" in Path(file).parts or Path(file).is_relative_to(Path(__file__).parents[1])
    return None if installed or module is sys.modules["__main__"] else module


def carried(function: Callable, arguments: tuple) -> tuple[Callable, tuple]:
    """Return a call for another process that brings all plugins; the same call if there are none."""
    plugins = shipped()
    return (call, (plugins, function, *arguments)) if plugins else (function, arguments)


def call(plugins: bytes, function: Callable, *arguments, **named):
    """Call a function in a process that has these plugins from then on."""
    import cloudpickle
    for (kind, name), plugin in cloudpickle.loads(plugins).items():
        _add(kind, name, plugin)
    return function(*arguments, **named)


# Identity

def _sha256(made) -> str:
    return hashlib.sha256("\n".join(_sources(made, set())).encode()).hexdigest()


def _sources(made, seen: set) -> Iterator[str]:
    """Yield the source of a function or class, and of what of its own module and constants it names."""
    if isinstance(made, functools.partial):
        yield repr((made.args, sorted(made.keywords.items())))
        made = made.func
    if made in seen:
        return
    seen.add(made)
    try:
        yield inspect.getsource(made)
    except (OSError, TypeError):
        raise InputError(f"The source of {made!r} cannot be found, and it is part of a run's identity: define it in a "
                         "file or in a notebook's cell.") from None
    for name, value in sorted(_named(made).items()):
        if isinstance(value, (int, float, str, bytes, tuple, type(None))):
            yield f"{name} = {value!r}"
        elif inspect.isfunction(value) or inspect.isclass(value):
            if value.__module__ == made.__module__:
                yield from _sources(value, seen)


def _named(made) -> dict[str, Any]:
    """Return the globals and closed-over values that a function, or a class's functions, name."""
    functions = [made] if inspect.isfunction(made) else [
        getattr(value, "__func__", value) for value in vars(made).values() if inspect.isfunction(
            getattr(value, "__func__", value))]
    found: dict[str, Any] = dict(zip(("base",), made.__bases__)) if inspect.isclass(made) else {}
    for function in functions:
        every = set(_codes(function.__code__))
        found |= {name: function.__globals__[name] for code in every for name in code.co_names
                  if name in function.__globals__}
        found |= inspect.getclosurevars(function).nonlocals
    return found


def _codes(code: types.CodeType) -> Iterable[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)
