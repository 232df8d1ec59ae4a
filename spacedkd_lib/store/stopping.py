"""Stopping cleanly: a request is remembered, and the training loop answers it after the update it is in.

A signal may arrive in the middle of an update, when nothing consistent could be saved. So its handler only sets a
flag; the loop sees it, saves a checkpoint and raises `Stopped`. The same command continues later.
"""

from __future__ import annotations

import signal

from ..errors import InputError, Stopped as Stopped

STATUS = 75  # exit status of a run that was stopped and can be continued: EX_TEMPFAIL of sysexits.h

_asked = False


def request(*_) -> None:
    """Ask this process to stop at its next update; also a signal handler."""
    global _asked
    _asked = True


def requested() -> bool:
    return _asked


def listen(*signals: signal.Signals) -> None:
    """Let these signals make a request. In the main thread only, as Python demands."""
    for each in signals:
        signal.signal(each, request)


def seconds(text: str) -> float:
    """Read a duration: "25m", "90s", "1.5h", or plain seconds.

    Raises:
        InputError: anything else.

    >>> seconds("25m"), seconds("1.5h"), seconds("90")
    (1500.0, 5400.0, 90.0)
    """
    units = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
    number, unit = (text[:-1], text[-1:]) if text[-1:] in units else (text, "s")
    try:
        value = float(number) * units[unit]
    except ValueError:
        value = -1.0
    if not 0 < value <= 10_000 * units["d"]:
        raise InputError(f'"{text}" is not a time limit: give a number with s, m, h or d, from 0.1s to 10000d.')
    return value
