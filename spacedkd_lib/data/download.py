"""Download of archives from mirrors: resumed, and verified by MD5."""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import sys
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

from ..errors import InputError
from .known import KNOWN

# Download: mirrors in turn, each resumed where the last connection was cut


def md5_of(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def download(name: str, root: Path) -> Path:
    known, reasons = KNOWN[name], []
    target = root / known.archive
    alike = sorted(path for path in root.glob(f"{known.archive.split('.')[0]}*") if path.suffix != ".part")
    if alike and alike[0] != target:  # else another process has just had it
        raise InputError(f"{alike[0]} is not the official {known.archive}: unpack it to {root / known.folder}, or "
                         "remove it.")
    mirrors = os.environ.get("SPACEDKD_MIRRORS", "").split(",")
    for base in filter(None, [*map(str.strip, mirrors), known.address]):
        try:
            with _alone(target):
                if target.exists():  # another process had it
                    return target
                return _download_from(f"{base.rstrip('/')}/{known.archive}", target, known.md5)
        except (OSError, http.client.HTTPException, ValueError) as error:
            reasons.append(f"{base}: {error}")
    tried = f", and no mirror served it ({'; '.join(reasons)})" if reasons else ""
    raise InputError(f"{name} is not in {root}{tried}: put {known.archive} there, packed or unpacked, or "
                     "name a mirror in SPACEDKD_MIRRORS.")


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Let one process at a time fetch a file; the others wait."""
    import fcntl
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target.with_name(f".{target.name}.lock"), "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _download_from(url: str, target: Path, md5: str) -> Path:
    part = target.with_name(target.name + ".part")
    print(f"downloading {url} to {target}", file=sys.stderr)
    inherited = _size(part)  # from an earlier session or another mirror
    while True:
        before = _size(part)
        try:
            _fetch_rest(url, part, before)
        except (OSError, http.client.HTTPException):
            if _size(part) <= before:  # nothing new came: leave what there is to the next mirror
                raise
            continue
        if md5_of(part) == md5:
            os.replace(part, target)
            return target
        part.unlink()
        if not inherited:
            raise ValueError("its MD5 differs from the official file's")
        inherited = 0  # the fault may lie in what was there before: once more, from the start


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _fetch_rest(url: str, part: Path, have: int) -> None:
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=30)
    except urllib.error.HTTPError as error:
        if have and error.code == 416:  # nothing is left to send
            return
        raise
    with response, open(part, "ab" if response.status == 206 else "wb") as file:
        shutil.copyfileobj(response, file, 1 << 20)
        length = response.headers.get("Content-Length")
        if length and file.tell() < int(length) + (have if response.status == 206 else 0):
            raise ConnectionError("the connection was cut")
