"""What ends in one sentence and without a traceback: bad input, files that cannot be read, a stop."""

from __future__ import annotations

import difflib
import math
import operator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Iterator


class InputError(ValueError):
    """Bad input, in one sentence: the value given, the values allowed, the way to mend it."""

    def _render_traceback_(self) -> list[str]:
        """Show the sentence in a notebook, in place of a traceback."""
        return [f"InputError: {self}"]


class Stopped(Exception):
    """Training was asked to stop; what was done is in a checkpoint."""

    def _render_traceback_(self) -> list[str]:
        """Show the sentence in a notebook, in place of a traceback."""
        return [str(self)]


@contextmanager
def reading(what: object, mend: str) -> Iterator[None]:
    """Turn whatever the reading of a damaged, foreign or locked file raises into one sentence.

    Raises:
        InputError: `what` cannot be read, or is larger than the memory.
    """
    try:
        yield
    except (InputError, Stopped):
        raise
    except MemoryError as error:
        raise InputError(f"{what} does not fit into memory ({str(error) or 'no more is free'}): give less of it, or "
                         "use a machine with more.") from None
    except Exception as error:
        why = " ".join(f"{type(error).__name__}: {error}".removeprefix("ValueError: ").split())[:300]
        raise InputError(f"{what} is damaged or not readable ({why}): {mend}.") from None


def not_installed(what: str, error: ModuleNotFoundError) -> str:
    """Return a sentence that names a missing package and the extras that bring it; a missing file of ours is raised.

    >>> not_installed("show", ModuleNotFoundError(name="pandas"))
    'show needs pandas, which is not installed: pip install "spacedkd[lab,notebooks]".'
    """
    if (error.name or "").startswith(__package__):
        raise error
    return f'{what} needs {error.name}, which is not installed: pip install "spacedkd[lab,notebooks]".'


def memory() -> float:
    """Return the bytes of memory that a process may take, as far as system and container tell."""
    found = [math.inf]
    with suppress(OSError, IndexError):
        found.append(1024 * int(Path("/proc/meminfo").read_text().split("MemAvailable:")[1].split()[0]))
    with suppress(OSError, ValueError):  # "max" where the container sets no limit
        found.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return min(found)


def least_interval(batches: int) -> str:
    """Return the least interval for so many batches an epoch, rounded up, so that it is not refused itself.

    >>> least_interval(3), least_interval(50)
    ('0.34', '0.02')
    """
    scale = 10 ** (len(str(batches)) + 1)
    return f"{-(-scale // batches) / scale:g}"


def whole(name: str, given: Any, least: int = 0) -> int:
    """Return a whole number, also NumPy's, as Python's own.

    Raises:
        InputError: another thing, or a smaller number.
    """
    try:
        number = operator.index(given)
    except TypeError:
        number = least - 1
    if number < least:
        raise InputError(f"{name} = {given!r} is out of range: give a whole number of at least {least}.")
    return number


def nearest(kind: str, given: object, allowed) -> str:
    """Return a sentence that refuses a name and offers the nearest allowed one.

    >>> nearest("data set", "glyfs", ["digits", "glyphs"])
    '"glyfs" is not a data set; did you mean "glyphs"? Allowed: digits, glyphs.'
    """
    allowed = [str(name) for name in allowed]
    close = difflib.get_close_matches(str(given), allowed, n=1, cutoff=0.4)
    hint = f'; did you mean "{close[0]}"?' if close else "."
    return f'"{given}" is not {with_article(kind)}{hint} Allowed: {", ".join(allowed) or "none yet"}.'


def with_article(kind: str) -> str:
    """Return a noun with its article."""
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"
