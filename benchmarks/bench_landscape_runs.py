"""What a landscape run costs or gains around its points: two processes against one, a journal against none."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).parent))
from comparison import compared
from landscape_nets import SAMPLES, problem
from thalweg.landscape import Evaluator

WORKER = Path(__file__).parent / "landscape_shared.py"


@pytest.mark.subprocess
@pytest.mark.distributed
def test_two_processes_against_one(
    record: Callable[[Sequence[dict[str, Any]]], None], request: pytest.FixtureRequest
) -> None:
    """Both of one thread, exact tier; the time from when both are ready to when both have the whole grid."""
    timed = not request.config.getoption("benchmark_disable")
    samples, side, rounds = (SAMPLES, 10, 3) if timed else (64, 3, 1)
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # of neither, so it outlives both
    arguments = [str(value) for value in (store.port, samples, side, rounds)]
    processes = [
        subprocess.Popen(
            [sys.executable, str(WORKER), str(rank), *arguments], stdout=subprocess.PIPE, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        answers = [process.communicate(timeout=300)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0]
    times = json.loads(answers[0])
    case = f"MLP, {samples:,} samples, {side} x {side}, exact tier"
    row = compared("landscape grid, two processes", case, "one process", times["together"], times["alone"])
    record([{**row, "threads": 1, "points_per_second": side**2 / np.median(times["together"])}] if timed else [])


def test_journal_against_none(against: Callable[..., None], request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """The rounding tier, whose points are cheapest, so that a journal weighs most; each run begins one anew."""
    timed = not request.config.getoption("benchmark_disable")
    samples, side = (SAMPLES, 12) if timed else (64, 3)
    net = problem("MLP", samples)
    evaluator = Evaluator(net.model, "cross_entropy", (net.x, net.y), tier="rounding", implementation="program")
    axis, files = (-1.0, 1.0, side), itertools.count()

    def plain() -> Any:
        return evaluator.grid(net.directions, axis, axis, progress=False).values["loss"]

    def journaled() -> Any:
        path = tmp_path / f"{next(files)}.sqlite"
        return evaluator.grid(net.directions, axis, axis, progress=False, resume=path).values["loss"]

    np.testing.assert_array_equal(journaled(), plain())
    case = f"MLP, {samples:,} samples, {side} x {side}, rounding tier"
    against("landscape grid with resume=", case, "without", journaled, plain, seconds=10.0)
