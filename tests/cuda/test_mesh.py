"""Shards of DTensors on the device: stepped as whole tensors are, norms added over the processes between the kernels."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "distributed"))
from processes import run
from test_optim_shards import compare

import thalweg as tw

EMULATED = tw._core.tensor_view(torch.empty(1))[3] >= 0  # takes host tensors for the device's
pytestmark = [pytest.mark.cuda, pytest.mark.distributed, pytest.mark.slow]


@pytest.mark.skipif(not EMULATED, reason="two processes need two GPUs; the emulated build has them on the host")
def test_shards_are_stepped_as_whole_tensors(tmp_path: Path) -> None:
    for rank, wrong in enumerate(run(compare, 2, tmp_path, 4)):
        assert not wrong, f"process {rank}: " + "\n".join(wrong[:5])
