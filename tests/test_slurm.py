"""Runs as cluster jobs: submitit's local executor runs them for real; stand-ins for Slurm's commands record the rest.
A Slurm itself is in slurm_one_node.sh."""

import os
import signal
import stat
import subprocess
import sys
import time
from concurrent.futures import as_completed
from contextlib import contextmanager
from pathlib import Path

import pytest

from spacedkd_lib.cluster import slurm
from spacedkd_lib.errors import InputError
from spacedkd_lib.store import stopping

pytest.importorskip("submitit", reason="submitit is not installed: pip install submitit")


@pytest.fixture
def local(tmp_path, monkeypatch):
    """An executor of local processes, which can import this file."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *sys.path]))
    executor = slurm.Slurm(tmp_path / "jobs", cluster="local")
    yield executor
    executor.shutdown(wait=False, cancel_futures=True)


def product(a, b):
    return a * b


def fail():
    raise KeyError("on purpose")


def count(path, steps, interrupt_at=None):
    """A training loop in small: one line a step in `path`, continued where it stopped; may signal itself."""
    while (done := len(path.read_text().split()) if path.exists() else 0) < steps:
        with open(path, "a") as file:
            print(os.getpid(), file=file)
        if done + 1 == interrupt_at:
            os.kill(os.getpid(), signal.SIGUSR2)  # as Slurm does before the time runs out
        if stopping.requested():
            raise stopping.Stopped
        time.sleep(0.01)
    return steps


def test_results_and_exceptions_come_back_through_futures(local):
    with local.batch():
        futures = [local.submit(product, 3, b=b) for b in range(2)] + [local.submit(fail)]
        assert not any(future.done() for future in futures)
    assert set(as_completed(futures, timeout=60)) == set(futures)
    assert [future.result() for future in futures[:2]] == [0, 3]
    assert "on purpose" in str(futures[2].exception())


def test_a_job_out_of_time_stops_after_a_step_is_requeued_and_continues(local, tmp_path):
    assert local.submit(count, tmp_path / "steps", 9, interrupt_at=4).result(timeout=60) == 9
    first, *others = (tmp_path / "steps").read_text().split()
    assert others[:3] == [first] * 3 and first not in others[3:] and len(set(others[3:])) == 1 and len(others) == 8


def test_stop_lets_a_job_end_after_its_step(local, tmp_path):
    future = local.submit(count, tmp_path / "steps", 3000)
    while not (tmp_path / "steps").exists():
        time.sleep(0.05)
    local.stop()
    assert isinstance(future.exception(timeout=60), stopping.Stopped)
    steps = (tmp_path / "steps").read_text()
    assert steps.endswith("\n") and len(set(steps.split())) == 1


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """Stand-ins for Slurm's commands: they note how they were called; squeue lists what the file `queue` holds."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, script in {
        "srun": "", "squeue": "echo $* >> calls; cat queue", "scancel": "echo $* >> cancelled; : > queue",
        "sbatch": "cat $1 >> submitted; env > environment; test ! -e refuse || "
                  "{ echo 'sbatch: error: Invalid partition specified: gpu' >&2; exit 1; }; "
                  "echo Submitted batch job 77",
    }.items():
        (folder / name).write_text(f"#!/bin/sh\ncd {tmp_path}\n{script}\n")
        (folder / name).chmod(stat.S_IRWXU)
    (tmp_path / "queue").write_text("77_0\n77_1\n77_2\n")
    monkeypatch.setitem(slurm.SECONDS, "slurm", 0.1)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


@contextmanager
def _cluster(folder, **parameters):
    executor = slurm.Slurm(folder / "jobs", **parameters)
    try:
        yield executor
    finally:  # a test that fails must not wait for its jobs
        executor.shutdown(wait=False, cancel_futures=True)


def _write_result(folder, job_id, value):
    import cloudpickle
    place = next((folder / "jobs").iterdir())
    (place / f"{job_id}_0_result.tmp").write_bytes(cloudpickle.dumps(("success", value)))
    (place / f"{job_id}_0_result.tmp").rename(place / f"{job_id}_0_result.pkl")


def test_a_batch_is_one_array_with_our_parameters(commands, monkeypatch):
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "100")  # of an interactive job that we might be in
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm/other.conf")
    with _cluster(commands, **slurm.parse("partition=gpu timeout_min=240 setup='module load cuda'")) as executor:
        with executor.batch():
            futures = [executor.submit(product, 2, b) for b in range(3)]
        script = (commands / "submitted").read_text()
        assert script.count("#!/bin/bash") == 1 and "\nmodule load cuda\n" in script
        for line in ("array=0-2%3", "partition=gpu", "time=240", "job-name=spacedkd", "requeue", "signal=USR2@90"):
            assert f"#SBATCH --{line}\n" in script
        environment = (commands / "environment").read_text()
        assert "SLURM_CONF=" in environment and "SLURM_MEM" not in environment
        assert os.environ["SLURM_MEM_PER_NODE"] == "100"
        for index in range(3):
            _write_result(commands, f"77_{index}", index)
        assert [future.result(timeout=60) for future in futures] == [0, 1, 2]


def test_a_job_that_vanishes_is_named_and_stop_cancels_the_others(commands):
    with _cluster(commands) as executor:
        with executor.batch():
            futures = [executor.submit(product, 2, b) for b in range(3)]
        (commands / "queue").write_text("77_0\n77_2\n")
        with pytest.raises(InputError, match="Slurm job 77_1 ended without a result"):
            futures[1].result(timeout=60)
        assert not futures[0].done()
        executor.stop()
        assert (commands / "cancelled").read_text().split() == ["--quiet", "77_0", "77_2"]
        assert all(isinstance(futures[i].exception(timeout=60), stopping.Stopped) for i in (0, 2))


def test_no_answer_from_slurm_and_a_late_result_are_waited_for(commands, monkeypatch):
    monkeypatch.setitem(slurm.SECONDS, "slurm", 3600)  # looks only when told to
    with _cluster(commands) as executor:
        future = executor.submit(product, 2, 3)
        (commands / "queue").unlink()
        executor._poll(), executor._poll(), executor._poll()
        assert not future.done()
        (commands / "queue").touch()
        executor._poll()
        assert not future.done()
        _write_result(commands, "77", 6)
        executor._poll()
        assert future.result(timeout=0) == 6


@pytest.mark.parametrize("signals, state, requeued", [
    (["USR2"], "COMPLETING", True), (["TERM", "USR2"], "COMPLETING", True),
    (["TERM"], "RUNNING", True),     # the grace time before a preemption
    (["TERM"], "COMPLETING", False)  # cancelled, or requeued by Slurm itself
])
def test_a_stopped_job_is_requeued_unless_slurm_ends_it(commands, signals, state, requeued):
    """In a process of its own, as handlers and the flag are the process's."""
    (commands / "queue").write_text(state)
    code = """if True:
        import os, signal, sys
        from spacedkd_lib.cluster import slurm
        from spacedkd_lib.store import stopping
        signal.signal(signal.SIGUSR2, lambda *_: sys.exit("requeued"))
        def interrupted():
            for name in sys.argv[1:]:
                os.kill(os.getpid(), signal.Signals["SIG" + name])
            assert stopping.requested()
            raise stopping.Stopped
        slurm.Task(interrupted)()"""
    environment = os.environ | {"SUBMITIT_EXECUTOR": "slurm", "SLURM_ARRAY_JOB_ID": "77", "SLURM_ARRAY_TASK_ID": "0"}
    done = subprocess.run([sys.executable, "-c", code, *signals], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == ((1, "requeued\n") if requeued else (stopping.STATUS, ""))
    if signals == ["TERM"]:
        assert "--jobs=77_0" in (commands / "calls").read_text()


def test_refused_jobs_are_one_sentence(commands):
    (commands / "refuse").touch()
    with _cluster(commands) as executor:
        with pytest.raises(InputError, match="Invalid partition specified: gpu"), executor.batch():
            future = executor.submit(product, 2, 3)
        assert isinstance(future.exception(timeout=0), InputError)  # who waits for it is not left waiting
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(product, 2, 3)


@pytest.mark.parametrize("text, parameters", [
    ("", {}),
    ("partition=gpu timeout_min=240 cpus_per_task=4",
     {"slurm_partition": "gpu", "timeout_min": 240, "cpus_per_task": 4}),
    ("partition=gpu mem_gb=1.5 account=007",
     {"slurm_partition": "gpu", "mem_gb": 1.5, "slurm_account": "007"}),
])
def test_parse(text, parameters):
    assert slurm.parse(text) == parameters


@pytest.mark.parametrize("text, message", [
    *((text, "does not describe a Slurm job") for text in (
        "gpu", "partition=", "timeout_min=4h", "cpus_per_task=1.5", "setup='module")),
    ("partitoin=gpu", 'did you mean "partition"'),
])
def test_parse_refuses(text, message):
    with pytest.raises(InputError, match=message):
        slurm.parse(text)


def test_a_machine_without_slurm_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="login node"):
        slurm.Slurm(tmp_path / "jobs")
    assert not (tmp_path / "jobs").exists()


def test_without_submitit(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(InputError, match="pip install submitit"):
        slurm.Slurm(tmp_path)
