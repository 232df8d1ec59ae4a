"""Execute the series in a profile: each notebook as soon as its runs are finished."""

from __future__ import annotations

import hashlib
import json
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Callable

from ..lab import arms, grids, profiles
from ..store import records
from ..store.stopping import Stopped
from . import runner

NOTEBOOKS = records.SHIPPED / "notebooks"


class Series:
    """The notebooks of a profile, executed two at a time into build/<profile>/notebooks/.

    One of whose arms the profile has none is left out. One whose inputs have not changed since is left alone. At the
    end of its `with` block, notebooks that run come to their end; a stop ends them at once.

    Args:
        profile: its name. seeds, workers: as `Session`.
        say: told of each notebook that is there to be looked at.
    """

    def __init__(self, profile: str, seeds: int = 0, workers: int | str = 0,
                 say: Callable[[str], None] = lambda line: None):
        import papermill  # noqa: F401  who lacks it is told before hours of training
        self.parameters = {"profile": profile} | ({"seeds": seeds} if seeds else {}) | (
            {"workers": workers} if workers else {})
        self.built, self.say = records.built(grids.folder(profile, seeds)), say
        self.pool, self.futures = ThreadPoolExecutor(2), {}
        self.missing = {name: {row.recipe for row in self._rows(name)} for name in profiles.NOTEBOOKS}
        self.names = [name for name, recipes in self.missing.items() if recipes or name not in arms.ARMS]

    def __enter__(self) -> Series:
        return self

    def __exit__(self, kind, *_) -> None:
        stopped = kind and issubclass(kind, (Stopped, KeyboardInterrupt))
        self.pool.shutdown(wait=not stopped, cancel_futures=True)
        while stopped and not all(future.done() for future in self.futures.values()):
            runner.stop()  # more than once: a kernel may only just have been started
            time.sleep(0.1)

    def execute_ready(self) -> None:
        """Begin every notebook whose runs are finished; those that show measures or the runs of others wait."""
        for name in self.names:
            if name in self.futures or name in profiles.MEASURING or _shows_all_runs(name):
                continue
            self.missing[name] = {recipe for recipe in self.missing[name] if not records.load(recipe)}
            if not self.missing[name]:
                self._begin(name)

    def execute_all(self) -> list[str]:
        """Execute every notebook that was not begun yet; the names of those that had to be executed.

        Raises:
            InputError, NotebookError: as `runner.execute`.
        """
        for name in self.names:
            if name not in self.futures:
                self._begin(name)
        return [name for name in self.names if self.futures[name].result()]

    def _begin(self, name: str) -> None:
        future: Future = self.pool.submit(self._execute, name)
        self.futures[name] = future

    def _execute(self, name: str) -> bool:
        target, key_file, key = self.built / "notebooks" / f"{name}.ipynb", self.built / "keys" / name, self._key(name)
        if target.exists() and key_file.exists() and key_file.read_text() == key:
            return False
        runner.execute(NOTEBOOKS / f"{name}.ipynb", target, self.parameters, cwd=NOTEBOOKS)
        records.write_atomically(key_file, key)
        self.say(f"Executed: {target.relative_to(records.ROOT)}")
        return True

    def _rows(self, name: str | None) -> list[grids.Row]:
        return grids.grid(self.parameters["profile"], name, self.parameters.get("seeds", 0))

    def _key(self, name: str) -> str:
        """Hash what an executed notebook depends on: its cells, the library, the parameters and its records."""
        digest = hashlib.sha256(json.dumps(_sources(name)).encode())
        digest.update(json.dumps(self.parameters, sort_keys=True).encode())
        for path in sorted(Path(__file__).parents[1].rglob("*.py")):
            digest.update(path.read_bytes())
        for row in self._rows(None if _shows_all_runs(name) else name):
            record = records.load(row.recipe)
            digest.update(json.dumps(record.numbers() if record else None).encode())
        return digest.hexdigest()


def _sources(name: str) -> list:
    return [cell["source"] for cell in json.loads((NOTEBOOKS / f"{name}.ipynb").read_text())["cells"]]


def _shows_all_runs(name: str) -> bool:
    return "session.series()" in json.dumps(_sources(name))
