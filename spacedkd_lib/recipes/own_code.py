"""What a user registers, as one hash: its code, its state, and all of the user's that it names. No torch here.

Code counts as Python runs it, so comments do not, nor does a file that was edited after its import. Addresses and the
order of a set do not count either, so the hash is the same in every process of one version of Python.
"""

from __future__ import annotations

import copyreg
import dis
import functools
import hashlib
import importlib.util
import inspect
import sys
import sysconfig
import types
from contextlib import suppress
from pathlib import Path
from typing import Any, Iterator

from ..errors import InputError

PLAIN = (bool, int, float, complex, str, type(None), type(...))
FIXED = (tuple, frozenset, bytes)  # equal ones may be one object or several: Python decides at each start
INSTALLED = tuple(sysconfig.get_paths()[key] for key in ("stdlib", "platstdlib"))
Seen = dict[int, tuple[int, Any]]  # address -> number in the order of telling, and the object, which keeps the address


def sha256(made: Any) -> str:
    """Hash what is registered; a data set brings a hash of its pictures, labels and names.

    Raises:
        InputError: it holds or names what cannot be hashed, such as an open file.
    """
    if hasattr(made, "sha256"):
        return made.sha256
    return hashlib.sha256("\n".join(_told(getattr(made, "__name__", "it"), made, {})).encode()).hexdigest()


def is_own(made: Any) -> bool:
    """Whether a function, class or object is the user's: of no installed module, and not of ours."""
    return _own_module(getattr(made, "__module__", None) or "")


def own_globals(names: dict) -> bool:
    """Whether these are the globals of the user's code; of a function that cloudpickle copied they tell, no file."""
    return _own_module(names.get("__name__") or "")


def _own_module(name: str) -> bool:
    files = (getattr(sys.modules.get(part), "__file__", None) for part in (name.partition(".")[0], name))
    file = next(filter(None, files), None)
    return name == "__main__" or (_own_file(file) if file else name not in sys.builtin_module_names)


@functools.cache
def _own_file(file: str) -> bool:
    """Whether a file of code is the user's."""
    path = Path(file)
    return not (file.startswith("<frozen") or {"site-packages", "dist-packages"} & set(path.parts) or
                path.is_relative_to(Path(__file__).parents[1]) or any(map(path.is_relative_to, INSTALLED)))


def _told(name: str, value: Any, seen: Seen) -> Iterator[str]:
    """Yield lines that tell a value; each begins with the way to it."""
    if type(value) in PLAIN:
        yield f"{name} = {value!r}"
    elif isinstance(value, bytes):
        yield f"{name} = {hashlib.sha256(value).hexdigest()}"
    elif not _is_followed(value):
        yield f"{name} = {getattr(value, '__module__', '')}.{getattr(value, '__qualname__', value.__name__)}"
        if hasattr(value, "__wrapped__"):  # made by a wrapper, which may hold arguments
            yield from _told(f"{name}.__wrapped__", value.__wrapped__, seen)
            for key, cell in enumerate(getattr(value, "__closure__", None) or () if is_own(value) else ()):
                if type(held := cell.cell_contents) in (*PLAIN, *FIXED, list, dict):  # its contexts and caches change
                    yield from _told(f"{name}.held{key}", held, seen)
    elif id(value) in seen:
        yield f"{name} = #{seen[id(value)][0]}"
    else:
        if type(value) not in FIXED:
            seen[id(value)] = len(seen), value
        yield f"{name}: {type(value).__qualname__}"
        for key, part in _parts(name, value, seen):
            yield from _told(f"{name}.{key}", part, seen)


def _is_followed(value: Any) -> bool:
    """Whether more than its name counts: of functions, classes and modules, if they are the user's."""
    if inspect.isfunction(value):
        return own_globals(value.__globals__)
    return is_own(value) if inspect.isclass(value) else not inspect.ismodule(value) or _own_module(value.__name__)


def _parts(name: str, value: Any, seen: Seen) -> Iterator[tuple[Any, Any]]:
    """Yield what a value is made of, with a key each."""
    def alone(part: Any) -> str:
        return "\n".join(_told("", part, dict(seen)))
    if type(value) in (tuple, list):
        yield from enumerate(value)
    elif type(value) in (set, frozenset):
        yield from enumerate(sorted(map(alone, value)))
    elif type(value) is dict:
        yield from sorted(((alone(key), part) for key, part in value.items()), key=lambda pair: pair[0])
    elif inspect.isfunction(value):
        yield from _of_function(value)
    elif inspect.isclass(value):
        yield from _of_class(value)
    elif inspect.ismodule(value):
        yield from ((key, part) for key, part in sorted(vars(value).items()) if not key.startswith("__"))
    else:
        try:
            yield from _of_object(value)
        except Exception as error:
            raise InputError(f"{name} is a {type(value).__name__}, which has no hash by its content ({error}), and all "
                             "that a plugin names is part of a run's identity: make it where it is used.") from error


def _of_object(value: Any) -> list[tuple[str, Any]]:
    """List the state of an object, by which it could be pickled; a tensor's, its numbers."""
    torch = sys.modules.get("torch")
    if torch and isinstance(value, torch.Tensor):
        raw = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        return [("tensor", (str(value.dtype), tuple(value.shape), value.requires_grad, raw))]
    reduce = copyreg.dispatch_table.get(type(value))
    state: Any = reduce(value) if reduce else value.__reduce_ex__(2)
    if isinstance(state, str):  # the name of something unique
        state = getattr(value, "__module__", ""), state
    return [("state", [list(part) if hasattr(part, "__next__") else part for part in state]),
            ("wrapped", getattr(value, "__dict__", {}).get("__wrapped__"))]


def _of_class(cls: type) -> Iterator[tuple[str, Any]]:
    """Yield the bases of a class and its members, but for what Python itself puts there."""
    yield "bases", (type(cls), *cls.__bases__)
    for key, member in sorted(vars(cls).items()):
        if isinstance(member, property):
            member = member.fget, member.fset, member.fdel
        elif isinstance(member, (staticmethod, classmethod, functools.cached_property)):
            member = getattr(member, "__func__", getattr(member, "func", None))
        if inspect.isfunction(member) or not key.startswith(("__", "_abc_")):
            yield key, member


def _of_function(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """Yield the code of a function, its defaults and attributes, and the values that it names or closes over."""
    yield "code", _what_runs(function.__code__)
    yield "held", (function.__defaults__, function.__kwdefaults__, vars(function))
    codes = [*_codes(function.__code__)]
    names = {name for code in codes for name in code.co_names}
    found = {name: function.__globals__[name] for code in codes for name in _globals_of(code)
             if name in function.__globals__}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or ()):
        with suppress(ValueError):  # empty still
            found[name] = cell.cell_contents
    for code in codes:
        found |= _imported(code, function.__globals__.get("__package__") or "")
    for name, value in sorted(found.items()):
        yield from _of_module(name, value, names, ())


def _of_module(name: str, value: Any, names: set[str], above: tuple) -> Iterator[tuple[str, Any]]:
    """Yield a value; in place of a module of the user's, its attributes that the code names."""
    if not inspect.ismodule(value) or not _is_followed(value):
        yield name, value
    elif value not in above:
        for key in sorted(names & vars(value).keys()):
            yield from _of_module(f"{name}.{key}", vars(value)[key], names, (*above, value))


def _what_runs(code: types.CodeType) -> tuple:
    """Return code without the place where it stands."""
    constants = (_what_runs(part) if isinstance(part, types.CodeType) else part for part in code.co_consts)
    return (code.co_code, code.co_exceptiontable, code.co_names, code.co_varnames, code.co_flags, code.co_argcount,
            code.co_posonlyargcount, code.co_kwonlyargcount, *constants)


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """Yield code, and the code within it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


@functools.cache
def _steps(code: types.CodeType) -> list[dis.Instruction]:
    return list(dis.get_instructions(code))


def _globals_of(code: types.CodeType) -> set[str]:
    return {step.argval for step in _steps(code) if "GLOBAL" in step.opname or step.opname == "LOAD_NAME"}


def _imported(code: types.CodeType, package: str) -> dict[str, types.ModuleType]:
    """Return modules of the user's that a function imports when it is called: imported now, to be the same later."""
    found = {}
    for level, _, step in zip(_steps(code), _steps(code)[1:], _steps(code)[2:]):
        if step.opname == "IMPORT_NAME":
            with suppress(ImportError, ValueError):
                name = importlib.util.resolve_name("." * level.argval + step.argval, package)
                spec = importlib.util.find_spec(name.partition(".")[0])
                if spec and (not spec.origin or _own_file(spec.origin)):
                    found[name] = importlib.import_module(name)
    return found
