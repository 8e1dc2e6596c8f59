"""`share=True` in a process group: lines, points and grids one after the other, each shared, all with the same bits."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
from processes import randn, run

import thalweg as tw
from thalweg.landscape._journal import family, read

pytestmark = [pytest.mark.distributed, pytest.mark.slow]


def _results(share: bool, folder: str | None = None) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    torch.manual_seed(0)
    model, other = (nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)) for _ in range(2))
    ev = tw.landscape.Evaluator(model, "cross_entropy", (randn(1, 30, 5), torch.arange(30) % 3), ("loss", "stderr"))
    directions = tw.landscape.random_directions(model)
    keep = [
        {"share": share, "resume": folder and f"{folder}/{name}.sqlite"} for name in ("line", "pair", "points", "grid")
    ]
    found = [
        ev.line(directions, (-1, 1, 21), progress=False, **keep[0]),
        ev.line((model, other), (0, 1, 20), progress=False, **keep[1]),
        ev.points(directions, np.random.default_rng(0).standard_normal((19, 2)), **keep[2]),
        ev.grid(directions, (-1, 1, 5), (-1, 1, 4), progress=False, **keep[3]),
    ]
    return [(result.values, result.metadata) for result in found]


def _alone() -> list[tuple[dict[str, Any], dict[str, Any]]]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the processes of `run`
    try:
        return _results(False)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("count", [2, 3])
def test_a_process_group_shares_every_run(tmp_path: Path, count: int) -> None:
    alone = _alone()
    for results in run(_results, count, tmp_path, True, str(tmp_path)):
        for (values, metadata), (expected, told) in zip(results, alone, strict=True):
            assert metadata == told
            for name, value in expected.items():
                assert values[name].tobytes() == value.tobytes()
    for name, points in (("line", 21), ("pair", 20), ("points", 19), ("grid", 20)):
        indices = [read("test", path).indices for path in family(tmp_path / f"{name}.sqlite")]
        assert len(indices) == count
        assert sorted(np.concatenate(indices).tolist()) == list(range(points)), "each point once"
