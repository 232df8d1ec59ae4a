"""What must hold on a GPU, skipped without one: `SPACEDKD_TEST_GPU=0 pytest tests/test_gpu.py`, 0 being its number."""

import pytest
import torch

from spacedkd_lib.bench.gpu_checks import checks

CHECKS = checks("cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", CHECKS)
def test_on_a_gpu(name):
    CHECKS[name]()
