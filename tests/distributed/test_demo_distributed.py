"""The demo in many processes: as torchrun starts it; it learns, and goes on from what another number of processes saved."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("sklearn")
pytestmark = [pytest.mark.distributed, pytest.mark.slow, pytest.mark.subprocess]
TESTS = Path(__file__).parents[1]


def _torchrun(tmp_path: Path, count: int, *arguments: str) -> str:
    script = tmp_path / "demo.py"  # `-m thalweg.demo.distributed`, with stand_in's modules if asked
    script.write_text(
        "import runpy, stand_in\nrunpy.run_module('thalweg.demo.distributed', run_name='__main__', alter_sys=True)\n"
    )
    paths = [str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(count), str(script), *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _numbers(text: str) -> list[list[float]]:
    """Step, lr, loss, gradient norm and accuracy of every line that reports them."""
    lines = [line for line in text.splitlines() if line.startswith("step")]
    return [[float(number) for number in re.findall(r"-?\d+\.?\d*", line)] for line in lines]


def test_it_learns_and_resumes_with_another_number_of_processes(tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    first = _torchrun(tmp_path, 2, "--fsdp", "--steps", "32", "--checkpoint", str(folder))
    assert first.startswith("2 processes on cpu, FSDP2, from the beginning")
    lines = _numbers(first)
    assert [int(line[0]) for line in lines] == list(range(4, 33, 4))
    assert lines[-1][2] < 0.5 * lines[0][2], "the loss falls"
    assert lines[-1][4] > 0.8
    assert 0.8 < float(first.split()[-1]) <= 1
    for step in (28, 32):
        shutil.rmtree(folder / f"step_{step:06d}")
    again = _torchrun(tmp_path, 1, "--steps", "32", "--checkpoint", str(folder))
    assert again.startswith("1 processes on cpu, DDP, resumed after step 24")
    for old, new in zip(lines[-2:], _numbers(again), strict=True):
        assert new == pytest.approx(old, rel=0.01, abs=0.003)
