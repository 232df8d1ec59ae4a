"""Where sweeps run: processes of this machine, behind the interface of `concurrent.futures`.

A grid runner asks an executor for `submit(function, *arguments) -> Future`, `shutdown`, and one thing more: `stop()`,
which lets the running tasks end at their next update and drops the waiting ones. slurm.py has another executor.
"""

from __future__ import annotations

import faulthandler
import io
import multiprocessing
import os
import queue
import signal
import sys
import threading
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Iterator

from . import stopping


class LocalProcesses(Executor):
    """`workers` processes, each in a pool of its own: if one crashes, its task fails, and no other does."""

    def __init__(self, workers: int):
        self.threads, self.free = ThreadPoolExecutor(workers), queue.SimpleQueue()
        self.pools = [_pool_of_one() for _ in range(workers)]
        for number in range(workers):
            self.free.put(number)

    def submit(self, fn, /, *args, **kwargs) -> Future:
        return self.threads.submit(self._run, fn, args, kwargs)

    def _run(self, fn, args, kwargs):
        number = self.free.get()
        try:
            return self.pools[number].submit(fn, *args, **kwargs).result()
        except BrokenProcessPool:
            self.pools[number] = _pool_of_one()
            raise
        finally:
            self.free.put(number)

    def stop(self) -> None:
        self.threads.shutdown(wait=False, cancel_futures=True)
        for worker in self._workers():
            worker.terminate()

    def kill(self) -> None:
        for worker in self._workers():
            worker.kill()

    def _workers(self) -> list:
        return [worker for pool in self.pools for worker in (pool._processes or {}).values()]

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self.threads.shutdown(wait, cancel_futures=cancel_futures)
        for pool in self.pools:
            pool.shutdown(wait)


def _pool_of_one() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _start_worker)


def _start_worker() -> None:
    """Ctrl-C in a terminal reaches every process: the parent alone answers it, by asking the workers to stop. A worker
    whose parent is gone, even by kill -9, ends too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    stopping.listen(signal.SIGTERM)
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


class _Forgiving(io.TextIOBase):
    """Writes what it can: a disk that is full must not end a training for the sake of its log."""

    def __init__(self, file):
        self.file = file

    def write(self, text: str) -> int:
        with suppress(OSError):
            os.write(self.file.fileno(), text.encode())
        return len(text)


@contextmanager
def logged(path: Path) -> Iterator[None]:
    """All that this process prints, its libraries' C code and a crash included, goes to the end of a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as file:
        sys.stdout.flush(), sys.stderr.flush()
        before = os.dup(1), os.dup(2)
        os.dup2(file.fileno(), 1), os.dup2(file.fileno(), 2)
        faulthandler.enable(file)
        try:
            with redirect_stdout(_Forgiving(file)), redirect_stderr(_Forgiving(file)):
                yield
        finally:
            faulthandler.disable()
            for copy, number in zip(before, (1, 2)):
                os.dup2(copy, number)
                os.close(copy)
