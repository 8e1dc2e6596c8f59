"""Landscapes in processes that are killed, alone and together: the same bits in the end, and little work done twice.

THALWEG_KILLS sets the number of kills of the first test (10; 100 take some ten minutes).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).parent))
from landscape_process import COLUMNS, ROWS, evaluated

import thalweg as tw
from thalweg.landscape._journal import read

pytestmark = [pytest.mark.distributed, pytest.mark.slow, pytest.mark.subprocess]
POINTS = COLUMNS * ROWS


def _start(
    out: Path, resume: Path | None, log: Path, how: str = "none", rows: int = ROWS, **environment: str
) -> subprocess.Popen[str]:
    """A process that is about to evaluate its first point."""
    script = Path(__file__).with_name("landscape_process.py")
    return subprocess.Popen(
        [sys.executable, str(script), str(out), str(resume or "none"), str(log), how, str(rows)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n", process.communicate()[1]


def _finish(process: subprocess.Popen[str]) -> None:
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tw.landscape.Surface:
    """Of one process that nobody disturbs."""
    folder = tmp_path_factory.mktemp("whole")
    process = _start(folder / "whole.npz", None, folder / "log")
    _finish(process)
    return _surface(folder / "whole.npz")


def _surface(path: Path) -> tw.landscape.Surface:
    surface = tw.landscape.load(path)
    assert isinstance(surface, tw.landscape.Surface)
    return surface


def _same(surface: tw.landscape.Surface, whole: tw.landscape.Surface) -> None:
    assert surface.metadata == whole.metadata
    assert surface.values.keys() == whole.values.keys() == {"loss", "accuracy", "square"}
    for name, values in whole.values.items():
        assert np.isfinite(values).all()
        assert surface.values[name].tobytes() == values.tobytes()


def _times(log: Path) -> list[float]:
    return [float(line) for line in log.read_text().splitlines()] if log.exists() else []


def _noted(path: Path, folder: Path) -> int:
    """Points in a journal as a killed process left it; read from a copy, so that the next process has it as it is."""
    if not path.exists():
        return 0
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for part in path.parent.glob(f"{path.name}*"):
        shutil.copy(part, folder / part.name)
    return len(read("test", folder / path.name).indices)


def test_killed_again_and_again(tmp_path: Path) -> None:
    kills, rng = int(os.environ.get("THALWEG_KILLS", "10")), np.random.default_rng()
    rows = max(ROWS, ROWS * kills // 10)
    resume, lost, losses = tmp_path / "run.sqlite", 0, []
    for _ in range(kills):
        log, before = tmp_path / "log", _noted(resume, tmp_path / "copy")
        log.unlink(missing_ok=True)
        process = _start(tmp_path / "killed.npz", resume, log, rows=rows)
        _ready(process)
        time.sleep(rng.uniform(0, 0.8))
        process.kill()
        killed = time.monotonic()
        process.communicate()
        times, noted = _times(log), _noted(resume, tmp_path / "copy") - before
        assert 0 <= noted <= len(times)
        since = times[noted - 1] if noted else min([killed, *times])  # what was done later is lost
        losses.append(killed - since)
        lost += len(times) - noted
        assert losses[-1] < 2, f"{len(times) - noted} of {len(times)} points lost"
    before, log = _noted(resume, tmp_path / "copy"), tmp_path / "last"
    finish = [_start(tmp_path / "out.npz", resume, log, rows=rows), _start(tmp_path / "whole.npz", None, tmp_path / "whole", rows=rows)]  # fmt: skip
    for process in finish:
        _finish(process)
    assert len(_times(log)) == COLUMNS * rows - before
    assert before, "the kills left nothing to go on from"
    _same(_surface(tmp_path / "out.npz"), _surface(tmp_path / "whole.npz"))
    print(
        f"{kills} kills: {before} of {COLUMNS * rows} points before the last start; {lost} points evaluated twice, at most "
        f"{max(losses):.2f} s of work lost at a time"
    )


@pytest.mark.parametrize("count", [1, 2, 3])
def test_processes_share_and_all_have_the_same_bits(tmp_path: Path, whole: tw.landscape.Surface, count: int) -> None:
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    started = [
        _start(tmp_path / f"{i}.npz", tmp_path / "run.sqlite", tmp_path / f"log{i}", str(store.port))
        for i in range(count)
    ]
    for process in started:
        _finish(process)
    points = [len(_times(tmp_path / f"log{i}")) for i in range(count)]
    for i in range(count):
        _same(_surface(tmp_path / f"{i}.npz"), whole)
    assert sum(points) == POINTS, "each point once"
    tw.landscape.merge(sorted(tmp_path.glob("run.rank*.sqlite")), tmp_path / "run.sqlite")
    assert len(read("test", tmp_path / "run.sqlite").indices) == POINTS


def test_a_killed_process_is_replaced_by_the_others(tmp_path: Path, whole: tw.landscape.Surface) -> None:
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    started = [_start(tmp_path / f"{i}.npz", None, tmp_path / f"log{i}", str(store.port)) for i in range(3)]
    for process in started:
        _ready(process)
    time.sleep(0.4)
    started[0].kill()
    started[0].communicate()
    for process in started[1:]:
        _finish(process)
    for i in (1, 2):
        _same(_surface(tmp_path / f"{i}.npz"), whole)
    points = [len(_times(tmp_path / f"log{i}")) for i in range(3)]
    assert POINTS <= sum(points) < POINTS + 600, "only what it had in work is evaluated twice"


def test_ranks_of_a_rendezvous_without_an_agent(tmp_path: Path, whole: tw.landscape.Surface) -> None:
    """Rank 0 keeps the store; another rank is killed, and its journal is read at the next start with one process."""
    probe = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    environment: dict[str, Any] = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.port), "WORLD_SIZE": "2"}
    del probe
    started = [
        _start(tmp_path / "RANK.npz", tmp_path / "run.sqlite", tmp_path / "log", "torchrun", RANK=str(i), **environment)
        for i in range(2)
    ]
    for process in started:
        _ready(process)
    time.sleep(1.0)
    for process in started:
        process.kill()
        process.communicate()
    noted = sum(_noted(tmp_path / f"run.rank{i}.sqlite", tmp_path / "copy") for i in range(2))
    before = len(_times(tmp_path / "log0"))
    alone = _start(tmp_path / "RANK.npz", tmp_path / "run.sqlite", tmp_path / "log", "torchrun", RANK="0", **{**environment, "WORLD_SIZE": "1"})  # fmt: skip
    _finish(alone)
    _same(_surface(tmp_path / "0.npz"), whole)
    assert 0 < noted == POINTS - (len(_times(tmp_path / "log0")) - before)
    threads = torch.get_num_threads()
    try:
        _same(evaluated(tmp_path / "none", tmp_path / "run.sqlite"), whole)
    finally:
        torch.set_num_threads(threads)
    assert not _times(tmp_path / "none"), "a single process reads what several left"
