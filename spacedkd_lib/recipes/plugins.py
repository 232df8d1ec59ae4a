"""What users register under names of their own: losses, rules, networks, methods, augmentations, data. No torch here.

A recipe names a plugin in a field, as it names ours. Worker processes get plugins by value (cloudpickle), so they may
stand in a script or a notebook. A plugin's hash (own_code.py) is part of what made a record, see store/identity.py.
"""

from __future__ import annotations

import functools
import os
import sys
import traceback
import types
from contextlib import contextmanager
from typing import Any, Callable, Iterable, Iterator, NamedTuple

from .. import schedule
from ..errors import InputError, Stopped, nearest, with_article
from .own_code import is_own, own_globals, sha256

# Kind -> the recipe's fields that may name one
FIELDS = {"loss": ("soft_loss",), "feature loss": ("feature_loss",), "rule": ("rule",), "method": ("method",),
          "network": ("model", "teacher_model"), "augmentation": ("augment",), "data set": ("dataset",)}
LOSSES = {"logits": "loss", "features": "feature loss"}


class Plugin(NamedTuple):
    """made: the function, class or data set. sha256: of its code, or of the pictures. here: registered here."""

    made: Any
    sha256: str
    here: bool = True

    def hash_now(self) -> str:
        """Return the hash as it is now: a value that the code names may have changed since."""
        return sha256(self.made) if self.here else self.sha256


_registered: dict[tuple[str, str], Plugin] = {}


def register_loss(made=None, *, name: str = "", of: str = "logits"):
    """Register a loss, by a decorator or a call; the name is the function's own unless given.

    of="logits": f(student [B, K], teacher [B, K], temperature), named by the field `soft_loss`. of="features":
    f(student [B, D], teacher [B, D]), named by `feature_loss`. It returns a scalar; the teacher has no gradient.

    Raises:
        InputError: a name of ours, or what cannot be called, or cannot be hashed.
    """
    if of not in list(LOSSES):  # which asks for no hash
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
        raise InputError(f'{getattr(made, "__name__", made)} does not say which method it is like: give the class '
                         f'like = "online_kd", or that of {", ".join(METHODS)} whose class it extends.')
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
    if not isinstance(name, str) or not name.isidentifier() or name in ours:
        raise InputError(f'"{name}" cannot be the name of {with_article(kind)} of yours: give name="..." of letters, '
                         f"digits and underscores, and none of ours ({', '.join(ours)}).")
    if not callable(made) and not hasattr(made, "sha256"):
        raise InputError(f"{made!r} is no {kind}: register a function or a class" + (
            ", or give the path of a folder as a recipe's dataset." if kind == "data set" else "."))
    _add_all({(kind, name): Plugin(made, sha256(made))})
    return made


def _add_all(plugins: dict[tuple[str, str], Plugin]) -> None:
    _registered.update(plugins)
    schedule.LENGTHS.update({name: plugin.made for (kind, name), plugin in plugins.items() if kind == "rule"})


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


def _used(recipe) -> dict[tuple[str, str], Plugin]:
    return {(kind, name): plugin for (kind, name), plugin in _registered.items()
            if name in (getattr(recipe, field) for field in FIELDS[kind])}


def hashes(recipe) -> dict[str, str]:
    """Return "kind name" -> SHA-256 of the plugins that a recipe names."""
    return {f"{kind} {name}": plugin.hash_now() for (kind, name), plugin in _used(recipe).items()}


def in_words(recipe) -> str:
    """Name the plugins of a recipe for a sentence; empty if there are none."""
    return " and ".join(f"the {kind} {name}" for kind, name in _used(recipe))


@contextmanager
def blamed(recipe) -> Iterator[None]:
    """Turn what a recipe's plugins raise within this context into a sentence that names them.

    Raises:
        InputError: instead of any error, if the recipe has plugins.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, (InputError, Stopped)) or not _used(recipe):
            raise
        own = [(frame, line) for frame, line in traceback.walk_tb(error.__traceback__) if own_globals(frame.f_globals)]
        where = "".join(f" in {frame.f_globals.get('__file__') or frame.f_code.co_filename}, line {line}"
                        for frame, line in own[-1:])
        raise InputError(f"A trial of {in_words(recipe)} raised {error!r}{where}: mend it.") from error


def kinds(recipe) -> set[str]:
    """Return the kinds of plugins that a recipe names."""
    return {kind for kind, _ in _used(recipe)}


@contextmanager
def copied(recipe) -> Iterator[None]:
    """Put copies of a recipe's plugins in their place within this context, so that what they hold stays as it was."""
    import cloudpickle
    used = {key: plugin for key, plugin in _used(recipe).items() if key[0] != "data set"}
    copies = cloudpickle.loads(by_value(used, [plugin.made for plugin in used.values()]))
    try:
        _add_all(copies)
        yield
    finally:
        _add_all(used)


# In other processes

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


def carried(function: Callable, arguments: tuple) -> tuple[Callable, tuple]:
    """Return a call for another process that brings all plugins; the same call if there are none."""
    if not _registered:
        return function, arguments
    sent = {key: Plugin(plugin.made, plugin.hash_now(), False) for key, plugin in _registered.items()}
    return call, (packed(sent, [plugin.made for plugin in sent.values()]), function, *arguments)


def call(plugins: bytes, function: Callable, *arguments, **named):
    """Call a function in a process that has these plugins from then on."""
    _add_all(unpacked(plugins))
    return function(*arguments, **named)


def packed(sent: Any, own: Iterable[Any]) -> bytes:
    """Return what is sent as bytes for `unpacked` in another process.

    Raises:
        InputError: it holds what cannot be sent, such as an open file.
    """
    import cloudpickle
    places = [os.path.abspath(place) for place in sys.path]
    try:
        return cloudpickle.dumps((places, by_value(sent, own)))
    except Exception as error:
        names = ", ".join(getattr(made, "__qualname__", repr(made)) for made in own)
        raise InputError(f"{names} cannot be sent to the processes that train ({error}): let it open what it "
                         "needs when it is called.") from error


def unpacked(data: bytes) -> Any:
    """Return what `packed` sent; what it imports is found where it was."""
    import cloudpickle
    places, sent = cloudpickle.loads(data)
    sys.path += [place for place in places if place not in sys.path]
    return cloudpickle.loads(sent)
