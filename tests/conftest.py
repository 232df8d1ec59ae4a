"""The same conditions for every test: one thread and no GPU, so that results repeat bit for bit; figures into files.

And `toy`, the data set of tiny runs.
"""

import os
import signal
import time
from contextlib import contextmanager, suppress

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported anywhere
os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("SPACEDKD_TEST_GPU", "")  # its number, for test_gpu.py alone
os.environ["MPLBACKEND"] = "Agg"

import spacedkd_lib  # noqa: E402, F401  caps torch's kernels
import pytest  # noqa: E402
import torch  # noqa: E402

from spacedkd_lib.cluster import executors  # noqa: E402
from spacedkd_lib.lab import arms  # noqa: E402
from spacedkd_lib.data.datasets import Dataset  # noqa: E402

PUBLISHED_VALUES = arms.tuned
arms.tuned = lambda label, family: {}  # tests hold whatever was tuned, and before anything was


@pytest.fixture
def tuned_values(monkeypatch):
    """For tests of the published records: the values that their arms were tuned to."""
    monkeypatch.setattr(arms, "tuned", PUBLISHED_VALUES)


def wait_for_the_end_of(group: int) -> None:
    """Fail if a process of a group is left after half a minute."""
    deadline = time.monotonic() + 30
    with suppress(ProcessLookupError):
        while time.monotonic() < deadline:
            os.killpg(group, 0)
            time.sleep(0.05)
        pytest.fail("a process stayed behind")


def toy_dataset() -> Dataset:
    """36 training pictures of 3 classes (batches of 8: the last holds 4), 12 test pictures."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (48, 3, 8, 8), dtype=torch.uint8, generator=generator)
    labels = torch.arange(48) % 3
    return Dataset("toy", images[:36], labels[:36], images[36:], labels[36:], ("a", "b", "c"))


@pytest.fixture(scope="module")
def toy():
    return toy_dataset()


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """An empty folder of runs."""
    monkeypatch.setenv("SPACEDKD_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


@pytest.fixture(autouse=True)
def handlers():
    """Puts back the signal handlers that a command sets."""
    before = {number: signal.getsignal(number) for number in (
        signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Here(executors.Here):
    """Calls at once, in this process; counts batches of calls."""

    def __init__(self):
        self.batches, self.calls = 0, []

    @contextmanager
    def batch(self):
        self.batches += 1
        yield

    def submit(self, function, *arguments):
        self.calls.append(function.__name__)
        return super().submit(function, *arguments)
