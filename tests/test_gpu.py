"""What must hold on a GPU, skipped without one: `SPACEDKD_TEST_GPU=0 pytest tests/test_gpu.py`, 0 being its number."""

import pytest
import torch

from spacedkd_lib.bench.gpu_checks import checks, side_by_side_is_alone
from spacedkd_lib.cluster.executors import LocalProcesses

CHECKS = checks("cuda")
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.parametrize("name", CHECKS)
def test_on_a_gpu(name):
    CHECKS[name]()


def test_seeds_side_by_side_give_the_bits_of_each_alone():
    with LocalProcesses(2) as executor:
        side_by_side_is_alone(executor, "cuda")
