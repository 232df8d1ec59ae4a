"""Environment variables of the package: folders become absolute when it is imported. Standard library alone.

A kernel works in notebooks/, where a relative path is another folder: children inherit the absolute one.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

from ..errors import InputError, nearest, reading

FOLDERS = ("SPACEDKD_RUNS", "SPACEDKD_DATA", "SPACEDKD_ROOT")
VARIABLES = FOLDERS + tuple(f"SPACEDKD_{name}" for name in ("MIRRORS", "ENGINE", "CHECKPOINT", "COMMIT", "TEST_GPU"))


def named(variable: str) -> Path | None:
    """Return the folder that a variable names, and put it back as an absolute path; None if it names none."""
    given = os.environ.get(variable, "")
    folder = os.path.expanduser(given)
    if given and folder[0] != "~":  # else no such home is known, which `settings` tells
        folder = os.path.realpath(folder)
        if folder != given:
            os.environ[variable] = folder
    return Path(folder) if given else None


def settings() -> dict[str, str]:
    """Return the variables of the package that are set.

    Raises:
        InputError: a misspelt one, a folder that is in an unknown home or not readable, or a time that is no number.
    """
    found = {name: value for name, value in os.environ.items() if name.startswith("SPACEDKD_")}
    for name, value in found.items():
        if name not in VARIABLES:
            raise InputError(nearest("variable of this package", name, VARIABLES))
        if name in FOLDERS and os.path.expanduser(value).startswith("~"):
            raise InputError(f"{name} = {value} lies in a home that is not known: give an absolute path.")
        if name in FOLDERS:
            with reading(f"{name} = {value}", "correct it"), suppress(FileNotFoundError):  # it is made when needed
                os.stat(value)
        if name == "SPACEDKD_CHECKPOINT" and not re.fullmatch(r"(\d+\.?\d*)?", value):
            raise InputError(f"{name} = {value} is no number of seconds between checkpoints: give one, such as 60.")
    return found
