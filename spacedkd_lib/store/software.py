"""Code, software and processor of a run, for its record. No torch here."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Iterable

from .. import __version__

PACKAGE = Path(__file__).resolve().parents[1]


@cache
def describe() -> dict:
    """Describe code and software: git commit, whether the library differed from it, versions, processor.

    Unknown is None. Where git does not answer, SPACEDKD_COMMIT may name the commit.
    """
    commit, dirty = _committed()
    return {"git_commit": commit or os.environ.get("SPACEDKD_COMMIT") or None, "git_dirty": dirty,
            "python": platform.python_version(), "cpu": _cpu_name(),
            "spacedkd": __version__, **{name: version(name) for name in ("torch", "numpy")}}


def _committed() -> tuple[str | None, bool | None]:
    """Return the commit, and whether the code differs: by hashes, as `git status` leaves out what it is told to."""
    commit, tree = _git("rev-parse", "HEAD"), _git("ls-tree", "-rz", "HEAD", "--", ".")
    there = {name: digest for digest, name in re.findall(r"(\w+)\t([^\0]+\.py)\0", tree or "")}
    if "__init__.py" not in there:  # git does not answer, or this is the repository of someone else around us
        return None, None
    names = [path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py")]
    here = _git("hash-object", "--", *names)
    return commit, None if here is None else there != dict(zip(names, here.split()))


def _git(*arguments: str) -> str | None:
    """Ask git about the package's folder, whatever GIT_DIR says; return None where it does not answer."""
    return answer(["git", *arguments], PACKAGE, [name for name in os.environ if name.startswith("GIT_")])


def answer(command: list[str], folder: Path | None = None, unset: Iterable[str] = ()) -> str | None:
    """Return the output of a program; None if it is missing, fails or takes too long."""
    variables = {name: value for name, value in os.environ.items() if name not in unset}
    try:
        done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, timeout=20,
                              encoding="utf-8", errors="surrogateescape")  # a name on the disk may be any bytes
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or sys.platform
