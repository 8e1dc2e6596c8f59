"""`torchrun -m thalweg landscape run`: ranks share the points, one speaks; another number of ranks goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import thalweg as tw
from thalweg.landscape._journal import family, read

pytestmark = [pytest.mark.distributed, pytest.mark.slow, pytest.mark.subprocess]
TESTS = Path(__file__).parents[1]
_NETS = """
import os, time, torch
from torch import nn

calls = 0

def net():
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))

def data():
    return torch.randn(24, 4), torch.arange(24) % 3

def slow(output, targets):
    time.sleep(0.003)
    with open("log", "a") as file:
        file.write("point\\n")
    global calls
    calls += 1
    if calls > 60 and os.path.exists("fail") and os.environ["RANK"] == "1":
        raise ValueError("this rank fails")
    return -output.amax(1)
"""
GRID = ["--x", "-1:1:21", "--y", "-1:2:11", "--metrics", "loss,nets:slow", "--threads", "1", "--json"]


def _torchrun(folder: Path, count: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "nets.py").write_text(_NETS)
    (folder / "command.py").write_text(  # `-m thalweg`, with stand_in's modules if asked
        "import runpy, stand_in\nrunpy.run_module('thalweg', run_name='__main__', alter_sys=True)\n"
    )
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", str(count)] if count else []
    paths = [str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.run(
        [sys.executable, *launch, "command.py", "landscape", "run", "--model", "nets:net", "--data", "nets:data", *GRID, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )  # fmt: skip


def _evaluated(folder: Path) -> int:
    log = folder / "log"
    count = len(log.read_text().splitlines()) if log.exists() else 0
    log.unlink(missing_ok=True)
    return count


def test_ranks_share_a_run_and_others_go_on_with_it(tmp_path: Path) -> None:
    alone = _torchrun(tmp_path, 0, "--out", "alone.npz")
    assert alone.returncode == 0, alone.stderr
    extra = _evaluated(tmp_path) - 231  # the values at the model's own weights
    shared = _torchrun(tmp_path, 2, "--out", "shared.npz", "--resume", "run.sqlite")
    assert shared.returncode == 0, shared.stderr
    assert json.loads(shared.stdout) == json.loads(alone.stdout), "one rank speaks"
    assert _evaluated(tmp_path) == 231 + 2 * extra
    again = _torchrun(tmp_path, 0, "--out", "again.npz", "--resume", "run.sqlite")
    assert _evaluated(tmp_path) == extra, again.stderr
    whole, *others = (tw.landscape.load(tmp_path / f"{name}.npz") for name in ("alone", "shared", "again"))
    for other in others:
        assert other.metadata == whole.metadata
        for name, values in whole.values.items():
            assert other.values[name].tobytes() == values.tobytes()


def test_a_rank_that_fails_stops_all_and_the_work_is_kept(tmp_path: Path) -> None:
    (tmp_path / "fail").touch()
    failed = _torchrun(tmp_path, 2, "--resume", "run.sqlite")
    assert failed.returncode == 1
    assert "thalweg landscape: error: this rank fails" in failed.stderr
    (tmp_path / "fail").unlink()
    kept = len({i for path in family(tmp_path / "run.sqlite") for i in read("test", path).indices.tolist()})
    assert kept >= 30, "what the failing rank had done before"
    _evaluated(tmp_path)
    again = _torchrun(tmp_path, 0, "--resume", "run.sqlite")
    assert again.returncode == 0, again.stderr
    assert _evaluated(tmp_path) == 1 + 231 - kept
