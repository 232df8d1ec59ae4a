"""What users register under names of their own: losses, rules, networks, methods, augmentations, data. No torch here.

A recipe names a plugin in a field, as it names ours. Worker processes get plugins by value (cloudpickle), so they may
stand in a script or a notebook. The hash of its source is part of what made a record, see store/identity.py.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
import linecache
import os
import sys
import sysconfig
import types
from contextlib import suppress
from pathlib import Path
from typing import Any, Callable, Iterable, Iterator, NamedTuple

from .. import schedule
from ..errors import InputError, nearest

# Kind -> the recipe's fields that may name one, and how it is registered
FIELDS = {"loss": ("soft_loss",), "feature loss": ("feature_loss",), "rule": ("rule",), "method": ("method",),
          "network": ("model", "teacher_model"), "augmentation": ("augment",), "data set": ("dataset",)}
CALLS = {"loss": "register_loss", "feature loss": 'register_loss with of="features"', "rule": "register_rule",
         "method": "register_method", "network": "register_network", "augmentation": "register_augmentation",
         "data set": "register_dataset"}
LOSSES = {"logits": "loss", "features": "feature loss"}


class Plugin(NamedTuple):
    """made: the function, class or data set. sha256: of its source, or of the pictures. here: registered here."""

    made: Any
    sha256: str
    here: bool = True

    def hash_now(self) -> str:
        """Return the hash as it is now: a constant that the source names may have changed since."""
        return _sha256(self.made) if self.here else self.sha256


INSTALLED = tuple(sysconfig.get_paths()[key] for key in ("stdlib", "platstdlib", "purelib", "platlib"))
_registered: dict[tuple[str, str], Plugin] = {}


def register_loss(made=None, *, name: str = "", of: str = "logits"):
    """Register a loss, by a decorator or a call; the name is the function's own unless given.

    of="logits": f(student [B, K], teacher [B, K], temperature), named by the field `soft_loss`. of="features":
    f(student [B, D], teacher [B, D]), named by `feature_loss`. It returns a scalar; the teacher has no gradient.

    Raises:
        InputError: a name of ours, or a source that cannot be found.
    """
    if of not in LOSSES:
        raise InputError(nearest("input of a loss", of, LOSSES))
    return register(LOSSES[of], made, name)


def register_rule(made=None, *, name: str = ""):
    """Register a rule of block lengths: a generator function f(length, total, seed), named by the field `rule`.

    It yields the batches of one block after the other, each at least 1. length: of a fixed block, int(L s). total:
    batches of the run. seed: the recipe's.
    """
    return register("rule", made, name)


def register_network(made=None, *, name: str = ""):
    """Register a network: f(classes, channels, size) -> nn.Module, named by the fields `model` and `teacher_model`.

    It takes pictures [B, C, size, size] and returns logits [B, K] from a linear layer, whose input are its features; or
    `models.layers.Outputs`. It is made under the recipe's seed.
    """
    from .recipe import RESNETS, TRANSFORMERS
    return register("network", made, name, RESNETS + TRANSFORMERS)


def register_method(made=None, *, name: str = ""):
    """Register a method: a subclass of a method of ours, named by the field `method`.

    Its `like` is the name of that method: the recipe has its fields, and the constructor its arguments. Its runs share
    no teacher with others.
    """
    from .recipe import METHODS
    if made is not None and getattr(made, "like", "") not in METHODS:
        raise InputError(f'{made.__name__} does not say which method it is like: give the class like = "online_kd", or '
                         f"that of {', '.join(METHODS)} whose class it extends.")
    return register("method", made, name)


def register_augmentation(made=None, *, name: str = ""):
    """Register an augmentation: f(images, generator), named by the field `augment`.

    It takes and returns a batch of one shape, uint8 [B, C, H, W], before it is resized to `image_size`. Its random
    numbers come from the generator, on the CPU, or from torch's, Python's or NumPy's own, as others' transforms draw
    them. All are seeded by the batch, so a student replays the teacher's pixels.
    """
    return register("augmentation", made, name)


def register(kind: str, made, name: str, ours: tuple[str, ...] = ()):
    """Register what was made, and return it; or return the decorator that does.

    ours: names that cannot be taken; those that the recipe's field allows unless given.
    """
    if made is None:
        return functools.partial(register, kind, name=name, ours=ours)
    from .recipe import Recipe
    name = name or getattr(made, "__name__", "")
    ours = ours or Recipe.__dataclass_fields__[FIELDS[kind][0]].metadata["allowed"]
    if not name.isidentifier() or name in ours:
        raise InputError(f'"{name}" cannot be the name of a {kind} of yours: give name="..." of letters, digits and '
                         f"underscores, and none of ours ({', '.join(ours)}).")
    _add(kind, name, Plugin(made, _sha256(made)))
    return made


def _add(kind: str, name: str, plugin: Plugin) -> None:
    _registered[kind, name] = plugin
    if kind == "rule":
        schedule.LENGTHS[name] = plugin.made


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


def how_to_register(field: str) -> str:
    """Say how a name of one's own gets into a recipe's field; empty if it cannot."""
    return "".join(f" One of your own: skd.{CALLS[kind]}." for kind, fields in FIELDS.items() if field in fields)


def _used(recipe) -> dict[tuple[str, str], Plugin]:
    return {(kind, name): plugin for (kind, name), plugin in _registered.items()
            if name in (getattr(recipe, field) for field in FIELDS[kind])}


def hashes(recipe) -> dict[str, str]:
    """Return name -> SHA-256 of the plugins that a recipe names."""
    return {name: plugin.hash_now() for (_, name), plugin in _used(recipe).items()}


def may_draw(recipe) -> bool:
    """Return whether a recipe's updates hold code of a user's, which may draw random numbers."""
    return any(kind not in ("rule", "augmentation", "data set") for kind, _ in _used(recipe))


# In other processes

def shipped() -> bytes:
    """Return all plugins as bytes for `call`; empty if there are none."""
    sent = {key: Plugin(plugin.made, plugin.hash_now(), False) for key, plugin in _registered.items()}
    return by_value(sent, [plugin.made for plugin in sent.values()]) if sent else b""


def by_value(sent: Any, own: Iterable[Any]) -> bytes:
    """Return what is sent as bytes for cloudpickle; the modules of a user's own functions go with it.

    A worker may not be able to import them.
    """
    import cloudpickle
    modules = {module for made in own if (module := _own_module(made))}
    for module in modules:
        cloudpickle.register_pickle_by_value(module)
    try:
        return cloudpickle.dumps(sent)
    finally:
        for module in modules:
            cloudpickle.unregister_pickle_by_value(module)


def _own_module(made) -> types.ModuleType | None:
    """Return the module of a plugin, unless it is the program itself, which always goes by value."""
    module = sys.modules.get(getattr(made, "__module__", ""))
    return module if module and module is not sys.modules["__main__"] and is_own(made) else None


def is_own(made) -> bool:
    """Whether a function or class is the user's: of no installed module, and not of ours."""
    module = getattr(made, "__module__", None) or ""
    file = getattr(sys.modules.get(module), "__file__", None)
    if module == "__main__" or not file:
        return module not in sys.builtin_module_names
    return not Path(file).is_relative_to(Path(__file__).parents[1]) and not any(
        Path(file).is_relative_to(place) for place in INSTALLED)


def carried(function: Callable, arguments: tuple) -> tuple[Callable, tuple]:
    """Return a call for another process that brings all plugins; the same call if there are none."""
    plugins = shipped()
    return (call, (plugins, _places(), function, *arguments)) if plugins else (function, arguments)


def call(plugins: bytes, places: list[str], function: Callable, *arguments, **named):
    """Call a function in a process that has these plugins from then on, and finds what they import in these places."""
    import cloudpickle
    _look_in(places)
    for (kind, name), plugin in cloudpickle.loads(plugins).items():
        _add(kind, name, plugin)
    return function(*arguments, **named)


def packed(function: Callable) -> bytes:
    """Return a user's function as bytes for `unpacked` in another process.

    Raises:
        InputError: it holds what cannot be sent, such as an open file.
    """
    import cloudpickle
    try:
        return cloudpickle.dumps((_places(), by_value(function, [function, getattr(function, "func", None)])))
    except Exception as error:
        raise InputError(f"{function!r} cannot be sent to the processes that train ({error}): let it open what it "
                         "needs when it is called.") from error


def unpacked(data: bytes) -> Callable:
    """Return the function that `packed` sent; what it imports is found where it was."""
    import cloudpickle
    places, function = cloudpickle.loads(data)
    _look_in(places)
    return cloudpickle.loads(function)


def _places() -> list[str]:
    return [os.path.abspath(place) for place in sys.path]


def _look_in(places: list[str]) -> None:
    sys.path += [place for place in places if place not in sys.path]


# Identity

def _sha256(made) -> str:
    """Hash a source; of a data set, its pictures, labels and names."""
    if hasattr(made, "sha256"):
        return made.sha256
    return hashlib.sha256("\n".join(_sources("", made, set())).encode()).hexdigest()


def _sources(name: str, value: Any, seen: set[int]) -> Iterator[str]:
    """Yield the source of a function or class, then of what it names, where that is the user's or a plain constant."""
    if id(value) in seen:
        return
    if isinstance(value, functools.partial):
        yield from _sources(name, value.func, seen)
        named: Iterable = [*enumerate(value.args), *sorted(value.keywords.items())]
    elif not seen or inspect.isfunction(value) or inspect.isclass(value):
        if seen and not is_own(value):
            return
        seen.add(id(value))
        yield _text(value)
        named = _named(value)
    else:
        value = value.tolist() if hasattr(value, "tolist") else value  # an array
        if isinstance(value, (int, float, str, bytes, tuple, list, dict, type(None))):
            yield f"{name} = {value!r}"
        return
    for key, part in named:
        yield from _sources(str(key), part, seen)


def _text(made) -> str:
    """Return the source of a function or class.

    Raises:
        InputError: it cannot be found.
    """
    with suppress(OSError, TypeError):
        return inspect.getsource(made)
    for function in _functions(made):  # a class of a notebook: its methods know the cell
        cell = "".join(linecache.getlines(function.__code__.co_filename))
        for node in ast.walk(ast.parse(cell)):
            if isinstance(node, ast.ClassDef) and node.name == made.__name__:
                return ast.get_source_segment(cell, node) or ""
    raise InputError(f"The source of {made!r} cannot be found, and it is part of a run's identity: define it with def "
                     "or class, in a file or in a notebook's cell.")


def _named(made) -> Iterator[tuple[Any, Any]]:
    """Yield the bases of a class, and the globals, closed-over values and defaults of functions, with their names."""
    yield from ((base.__name__, base) for base in getattr(made, "__bases__", ()))
    for function in _functions(made):
        names = {name for code in _codes(function.__code__) for name in code.co_names}
        found = {name: function.__globals__[name] for name in names & function.__globals__.keys()}
        found |= inspect.getclosurevars(function).nonlocals
        yield from sorted(found.items())
        yield from enumerate((function.__defaults__, function.__kwdefaults__))


def _functions(made) -> list[types.FunctionType]:
    """List a function itself, without decorators that say what they wrap; or those of a class."""
    held = vars(made).values() if inspect.isclass(made) else [made]
    plain = (getattr(value, "__func__", getattr(value, "fget", value)) for value in held)  # of methods and properties
    return [inspect.unwrap(value) for value in plain if inspect.isfunction(value)]


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """Yield code, and the code within it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)
