"""Runs as jobs of a Slurm cluster, through submitit: an executor like those of `concurrent.futures`.

The command that submits stays, as one light process on a login node, and fills the futures. A job that is preempted or
out of time stops after an update, goes back into the queue and continues from its checkpoint.
"""

from __future__ import annotations

import concurrent.futures
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Callable, Iterator

from ..errors import InputError, nearest
from ..recipes import plugins
from ..store import stopping

NAME = "spacedkd"  # of the jobs, as squeue shows them
SECONDS = {"slurm": 10, "local": 0.2}  # between two looks at the jobs: one squeue for all of them
GENERAL = {"timeout_min": int, "cpus_per_task": int, "gpus_per_node": int, "mem_gb": float}
# What submitit knows with the prefix slurm_ and makes sense for a job of one process.
SPECIFIC = {**dict.fromkeys(("partition", "account", "qos", "constraint", "gres", "nodelist", "exclude", "comment",
                             "mem_per_cpu", "mem_per_gpu"), str), "setup": lambda command: [command],
            **dict.fromkeys(("cpus_per_gpu", "gpus_per_task", "array_parallelism", "signal_delay_s"), int)}


def parse(text: str) -> dict:
    """Read the words of `make reproduce SLURM="..."` as parameters of `Slurm`.

    Raises:
        InputError: a word that is not name=value, an unknown name, or a value that is not the number it must be.

    >>> parse("partition=gpu timeout_min=240 setup='module load cuda'")
    {'slurm_partition': 'gpu', 'timeout_min': 240, 'slurm_setup': ['module load cuda']}
    """
    known = GENERAL | SPECIFIC
    try:
        words = [word.split("=", 1) for word in shlex.split(text)]
        if not all(value for _, value in words):  # partition=$PART, and PART is not set
            raise ValueError
        values = {name: known.get(name, str)(value) for name, value in words}
    except ValueError:
        raise InputError(f'"{text}" does not describe a Slurm job: give name=value, with numbers where they belong, '
                         'for example SLURM="partition=gpu timeout_min=240 cpus_per_task=4".') from None
    for name in values:
        if name not in known:
            raise InputError(nearest("Slurm parameter", name, sorted(known)))
    return {name if name in GENERAL else f"slurm_{name}": value for name, value in values.items()}


class Slurm(concurrent.futures.Executor):
    """Each call is a job. Calls that are submitted inside `batch()` are one job array.

    Args:
        folder: for submitit's files and the jobs' output; the cluster's nodes must see it under the same path.
        cluster: "slurm", or "local" for processes on this machine (for tests).
        parameters: submitit's, as from `parse`. Its defaults, but timeout_min = 60 (ours): the minutes after which a
            job goes back into the queue, to continue.

    Raises:
        InputError: submitit or Slurm is missing.
    """

    def __init__(self, folder: Path, cluster: str = "slurm", **parameters):
        try:
            import submitit
        except ImportError:
            raise InputError("SLURM=... needs the package submitit: install it with pip install submitit.") from None
        if cluster == "slurm" and not shutil.which("srun"):
            raise InputError("Slurm's commands (srun, sbatch) are not on this machine: give the command on a login "
                             "node of the cluster, or leave SLURM out.")
        folder.mkdir(parents=True, exist_ok=True)
        # A folder of its own: a cluster that was set up anew counts its jobs from 1 again.
        self._folder = tempfile.mkdtemp(prefix=time.strftime("%Y%m%d-%H%M%S-"), dir=folder)
        # A job continues where it stopped, so 100 is a guard against one that gets nowhere, not a limit to its length.
        self._executor = submitit.AutoExecutor(self._folder, cluster=cluster, **{f"{cluster}_max_num_timeout": 100})
        self._executor.update_parameters(name=NAME, slurm_additional_parameters={"requeue": True},
                                         **{"timeout_min": 60} | parameters)
        self._cluster = cluster
        self._jobs: list[tuple] = []  # (submitit's job, future); only ever appended to, as two threads use it
        self._batch: list[tuple[Task, Future]] | None = None
        self._absent: set[str] = set()
        self._stopped = self._closed = False
        threading.Thread(target=self._watch, daemon=True).start()

    def submit(self, fn: Callable, /, *args, **kwargs) -> Future:
        """Run fn(*args, **kwargs) in a job, which must be able to import `fn`; return its future.

        Its exception is `stopping.Stopped` after `stop()`, `InputError` if the job vanished, and else submitit's
        FailedJobError with the traceback.
        """
        if self._closed:
            raise RuntimeError("cannot schedule new futures after shutdown")
        future = Future()
        future.set_running_or_notify_cancel()  # so that only `stop()` cancels
        call = (Task(*plugins.carried(fn, args), kwargs), future)
        if self._batch is None:
            self._send([call])
        else:
            self._batch.append(call)
        return future

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Collect what is submitted, and send it as one job array at the end.

        Raises:
            InputError: Slurm refuses the jobs; none was submitted.
        """
        self._batch = []
        try:
            yield
            if self._batch:
                self._send(self._batch)
        finally:
            self._batch = None

    def stop(self) -> None:
        """Cancel what waits; let what runs stop at its next update. The futures then end with `stopping.Stopped`."""
        self._stopped = True
        jobs = [job for job, _ in self._unfinished()]
        if self._cluster == "local":
            for job in jobs:
                job._process.send_signal(signal.SIGTERM)  # submitit's cancel() would kill after one second
        elif jobs:
            subprocess.run(["scancel", "--quiet", *(job.job_id for job in jobs)])

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Shut down as any executor; `cancel_futures` stops the jobs."""
        self._closed = True
        if cancel_futures:
            self.stop()
        if wait:
            concurrent.futures.wait([future for _, future in self._jobs])

    def _send(self, calls: list[tuple[Task, Future]]) -> None:
        from submitit.core.utils import FailedJobError
        tasks, futures = zip(*calls)
        try:
            with _outside_of_jobs():
                self._jobs += zip(self._executor.submit_array(tasks), futures)
        except BaseException as error:
            if isinstance(error, FailedJobError):
                why = str(error).splitlines()[-1].removeprefix("sbatch: error: ")
                error = InputError(f"Slurm refused the jobs ({why}): correct SLURM=...")
            for future in futures:  # or who waits for them would wait for ever
                future.set_exception(error)
            raise error from None

    def _unfinished(self) -> list[tuple]:
        return [(job, future) for job, future in self._jobs if not future.done()]

    def _watch(self) -> None:
        while self._unfinished() or not self._closed:
            time.sleep(SECONDS[self._cluster])
            try:
                self._poll()
            except Exception as error:  # whoever waits for a future must hear of it
                for _, future in self._unfinished():
                    future.set_exception(error)

    def _poll(self) -> None:
        """Fill the futures of jobs that have ended.

        submitit's own done() asks sacct, which needs a database that small clusters do not have.
        """
        jobs = self._unfinished()
        absent = self._not_queued([job for job, _ in jobs])
        written = set(os.listdir(self._folder))
        for job, future in jobs:
            if job.paths.result_pickle.name in written:
                error = job.exception()
                future.set_exception(error) if error else future.set_result(job.result())
            elif job.job_id in absent & self._absent:  # twice: a file server may show a result a little later
                future.set_exception(stopping.Stopped() if self._stopped else InputError(
                    f"Slurm job {job.job_id} ended without a result, cancelled by hand or for want of memory: see "
                    f"{job.paths.stderr}, and give the same command again; what is finished is kept."))
        self._absent = absent

    def _not_queued(self, jobs: list) -> set[str]:
        """Ids of the jobs that neither wait nor run; none while Slurm does not answer."""
        if self._cluster == "local":
            return {job.job_id for job in jobs if job.done()}
        queue = _squeue("--me", f"--name={NAME}", "--array", "--format=%i") if jobs else None
        return set() if queue is None else {job.job_id for job in jobs} - set(queue)


class Task:
    """A call within a job. Signals only set the flag that the training loop reads after each update."""

    def __init__(self, fn: Callable, args: tuple = (), kwargs: dict | None = None):
        self.fn, self.args, self.kwargs = fn, args, kwargs or {}

    def __call__(self):
        warning = signal.Signals["SIG" + os.environ.get("SUBMITIT_PREEMPT_SIGNAL", "USR2")]  # as submitit has it
        requeue, received = signal.getsignal(warning), []
        for each in (signal.SIGTERM, warning):
            signal.signal(each, lambda number, _: (received.append(number), stopping.request()))
        try:
            return self.fn(*self.args, **self.kwargs)
        except stopping.Stopped:
            if not received:
                raise
            if warning in received or _still_runs():
                requeue(warning, None)  # submitit's handler: checkpoint(), scontrol requeue, exit
            sys.exit(stopping.STATUS)  # and no result file: what Slurm itself requeues is not over

    def checkpoint(self):
        """Return the same call for submitit to run when the job starts again; it finds its own checkpoints."""
        from submitit.helpers import DelayedSubmission
        return DelayedSubmission(self)


def _still_runs() -> bool:
    """Return whether Slurm, which sent SIGTERM, still counts this job as running.

    It does so only in the grace time before a preemption, when a job that ends is not requeued; after a cancellation or
    a requeue it does not.
    """
    from submitit import JobEnvironment
    job = JobEnvironment()
    return job.cluster == "slurm" and _squeue(f"--jobs={job.job_id}", "--format=%T") == ["RUNNING"]


def _squeue(*options: str) -> list[str] | None:
    """Words that squeue prints; None if it fails."""
    done = subprocess.run(["squeue", "--noheader", *options], capture_output=True, text=True)
    return done.stdout.split() if done.returncode == 0 else None


@contextmanager
def _outside_of_jobs() -> Iterator[None]:
    """Hide from sbatch the variables of the interactive job that this command may itself run in."""
    inherited = {name: os.environ.pop(name) for name in list(os.environ)
                 if name.startswith("SLURM_") and name != "SLURM_CONF"}
    try:
        yield
    finally:
        os.environ.update(inherited)
