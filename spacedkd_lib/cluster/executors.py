"""Where sweeps run: processes of this machine, behind the interface of `concurrent.futures`.

A grid runner asks an executor for `submit(function, *arguments) -> Future`, `shutdown`, and one thing more: `stop()`,
which lets the running tasks end at their next update and drops the waiting ones. slurm.py has another executor.
"""

from __future__ import annotations

import faulthandler
import gc
import io
import multiprocessing
import os
import pickle
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Callable, Iterator

from ..errors import InputError
from ..recipes import plugins
from ..store import places, records, stopping


class LocalProcesses(Executor):
    """`workers` processes, each in a pool of its own: if one crashes, its task fails, and no other does.

    After a CUDA error, which spoils all later work of its process, the worker is a new process.

    On a GPU they share the card by MPS, where that is installed. Side by side a run has the bits that it has alone:
    its kernels are chosen by its own shapes and the card's size, of which MPS hides nothing unless told to.
    """

    def __init__(self, workers: int):
        if getattr(main := sys.modules["__main__"], "__file__", "") == "<stdin>":
            del main.__file__  # a worker would look for that file
        self.threads, self.free = ThreadPoolExecutor(workers), queue.SimpleQueue()
        self.card = SharedCard() if workers > 1 and SharedCard.possible() else None
        self.pools = [self._pool_of_one() for _ in range(workers)]
        for number in range(workers):
            self.free.put(number)

    def submit(self, fn, /, *args, **kwargs) -> Future:
        """Run fn(*args, **kwargs) in the next free worker."""
        return self.threads.submit(self._run, fn, args, kwargs)

    def _run(self, fn, args, kwargs):
        number = self.free.get()
        try:
            fn, args = plugins.carried(fn, args)
            return self.pools[number].submit(_with_plain_errors, fn, *args, **kwargs).result()
        except BaseException as error:
            if isinstance(error, BrokenProcessPool) or _names_cuda(error):
                self.pools[number].shutdown(wait=False)
                self.pools[number] = self._pool_of_one()
            raise
        finally:
            self.free.put(number)

    def stop(self) -> None:
        """Drop waiting tasks, and ask the workers to save and end (SIGTERM)."""
        self.threads.shutdown(wait=False, cancel_futures=True)
        for worker in self._workers():
            worker.terminate()

    def kill(self) -> None:
        """End the workers at once (SIGKILL)."""
        for worker in self._workers():
            worker.kill()

    def _workers(self) -> list:
        return [worker for pool in self.pools for worker in (pool._processes or {}).values()]

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Wait for the workers to end, then release the GPU."""
        self.threads.shutdown(wait, cancel_futures=cancel_futures)
        for pool in self.pools:
            pool.shutdown(wait)
        if self.card and wait:
            self.card.close()

    def _pool_of_one(self) -> ProcessPoolExecutor:
        environment = places.settings() | {"SPACEDKD_RUNS": str(records.runs_folder())} | (
            self.card.environment if self.card else {})
        return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _start_worker, (environment,))


class Here(Executor):
    """The process itself, for runs that take less time than a worker's start."""

    def submit(self, fn, /, *args, **kwargs) -> Future:
        """Run fn(*args, **kwargs) now."""
        future: Future = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def _names_cuda(error: BaseException) -> bool:
    return re.search("cuda|cudnn|accelerator", f"{type(error).__name__}: {error}", re.IGNORECASE) is not None


def _with_plain_errors(fn, *args, **kwargs):
    """Call a function in a worker; an error that could not be unpickled, which would break the pool, goes in words."""
    try:
        return fn(*args, **kwargs)
    except Exception as error:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            raise RuntimeError(f"{type(error).__name__}: {error}") from None
        raise


def _start_worker(environment: dict[str, str]) -> None:
    """Prepare a worker process for stops, and for its parent's folders: its script may have named others by now.

    Ctrl-C in a terminal reaches every process: the parent alone answers it, by asking the workers to stop. A worker
    whose parent is gone, even by kill -9, ends too.
    """
    os.environ |= environment
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    stopping.listen(signal.SIGTERM)
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


class SharedCard:
    """CUDA's multi-process service (MPS): kernels of several processes run on one card at the same time.

    It lives in a folder of its own, and no longer than this process, even if that is ended by kill -9. Who shares a
    card shares its errors: after a CUDA error of one process the kernels of all fail.

    environment: what makes a process use it; empty where it does not work.
    """

    COMMAND = "nvidia-cuda-mps-control"
    FOLDERS = ("CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY")
    TRIAL = 'import torch; torch.zeros(1, device="cuda")'
    # A shell waits at a pipe from this process: its end comes with `close`, or with the process.
    SCRIPT = (f'{COMMAND} -d > /dev/null && "$0" -c "$1" && echo ready || echo failed; cat > /dev/null; '
              f'echo quit -t 10 | {COMMAND} > /dev/null; rm -rf "$CUDA_MPS_PIPE_DIRECTORY"')

    @classmethod
    def possible(cls) -> bool:
        """Return whether there are the command, a GPU, and no service of the user's own."""
        if cls.FOLDERS[0] in os.environ or not shutil.which(cls.COMMAND):
            return False
        import torch
        return torch.cuda.is_available()

    def __init__(self):
        folders = dict.fromkeys(self.FOLDERS, tempfile.mkdtemp(prefix="spacedkd-mps-"))
        self.shell = subprocess.Popen(["sh", "-c", self.SCRIPT, sys.executable, self.TRIAL],
                                      env=os.environ | folders, text=True, stdin=subprocess.PIPE,
                                      stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
        self.environment = folders if self.shell.stdout.readline() == "ready\n" else {}

    def close(self) -> None:
        """End it, after all that used it."""
        self.shell.stdin.close()
        self.shell.wait()


def within_memory(function: Callable, *arguments):
    """function(*arguments); afterwards the GPU's memory is free for another process.

    Raises:
        InputError: that memory was too small.
    """
    import torch
    try:
        return function(*arguments)
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and not re.search(
                "out of memory|ALLOC_FAILED|can't allocate memory|size calculation overflowed", str(error)):
            raise
    finally:  # by now the error, whose traceback holds the tensors, is forgotten
        if torch.cuda.is_initialized():
            gc.collect()
            torch.cuda.empty_cache()
    raise InputError('The memory is too small for it: give the same command again with fewer WORKERS, or the recipe a '
                     'smaller width or batch_size, or on a GPU precision = "bf16".')


class _Forgiving(io.TextIOBase):
    """Writes what it can: a disk that is full must not end a training for the sake of its log."""

    def __init__(self, file):
        self.file = file

    def write(self, text: str) -> int:
        with suppress(OSError):
            os.write(self.file.fileno(), text.encode(errors=self.file.errors))
        return len(text)


@contextmanager
def logged(path: Path) -> Iterator[None]:
    """Append all that this process prints to a file, its libraries' C code and a crash included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8", errors="backslashreplace") as file:  # paths may hold bytes of no text
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
