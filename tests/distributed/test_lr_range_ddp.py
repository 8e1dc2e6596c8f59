"""Two processes (gloo, DDP): the range test averages losses, both stop at the same step, everything comes back."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from thalweg.lr_range import range_test

pytestmark = [pytest.mark.distributed, pytest.mark.slow]
Batch = tuple[torch.Tensor, torch.Tensor]
RAMP: dict[str, Any] = {"min_lr": 1e-4, "max_lr": 30.0, "num_steps": 60, "progress": False}


def _net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))


def _batches(rank: int, count: int = 60) -> list[Batch]:
    generator = torch.Generator().manual_seed(rank)
    teacher = torch.arange(18.0).reshape(6, 3).sin()
    inputs = [torch.randn(16, 6, generator=generator) for _ in range(count)]
    return [(x, (x @ teacher).argmax(1)) for x in inputs]


def _bad_on_rank_one(rank: int) -> Any:
    calls = []

    def objective(model: nn.Module, batch: Batch) -> torch.Tensor:
        calls.append(1)
        loss = nn.functional.cross_entropy(model(batch[0]), batch[1])
        return loss * (math.nan if rank == 1 and len(calls) == 30 else 1.0)

    return objective


def _once(batches: list[Batch]) -> Iterator[Batch]:
    yield from batches


def _run(rank: int, rendezvous: str, out: str) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
    model = DistributedDataParallel(_net())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    start = [p.detach().clone() for p in model.parameters()]
    data = _batches(rank)
    found = {
        "plain": range_test(model, "cross_entropy", data, optimizer, **RAMP),
        "local": range_test(model, "cross_entropy", data, optimizer, distributed=False, stop_early=False, **RAMP),
        "nan": range_test(model, _bad_on_rank_one(rank), data, optimizer, **RAMP),
        "ended": range_test(model, "cross_entropy", _once(data[: 40 - 10 * rank]), optimizer, **RAMP),
        "validation": range_test(model, "cross_entropy", data, optimizer, validation=data[:2], **RAMP),
    }
    closure = lambda: torch.tensor(float(rank))  # noqa: E731
    found["closure"] = range_test(closure, optimizer, distributed=True, **RAMP)
    same = all(torch.equal(a, b) for a, b in zip(start, model.parameters(), strict=True))
    results = {name: (r.losses, r.stopped, r.suggestion) for name, r in found.items()}
    torch.save({"results": results, "same": same}, Path(out) / f"{rank}.pt")
    dist.destroy_process_group()


def _alone() -> np.ndarray[Any, Any]:
    """The same training in one process: the mean loss over both halves of each batch."""
    model = _net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    halves = [(torch.cat([a[0], b[0]]), torch.cat([a[1], b[1]])) for a, b in zip(_batches(0), _batches(1), strict=True)]
    return range_test(model, "cross_entropy", halves, optimizer, stop_early=False, **RAMP).losses


def test_two_processes(tmp_path: Path) -> None:
    mp.spawn(_run, args=(str(tmp_path / "rendezvous"), str(tmp_path)), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in range(2))
    assert first["same"]
    assert second["same"]
    for name in ("plain", "nan", "ended", "validation", "closure"):
        np.testing.assert_array_equal(first["results"][name][0], second["results"][name][0])
        assert first["results"][name][1:] == second["results"][name][1:], name
    losses = first["results"]["plain"][0]
    np.testing.assert_allclose(losses[:40], _alone()[:40], rtol=1e-4)  # later small differences have grown
    assert "diverged" in first["results"]["plain"][1]
    local = [run["results"]["local"][0] for run in (first, second)]
    assert local[0][0] != local[1][0]
    np.testing.assert_allclose((local[0] + local[1])[:40] / 2, losses[:40], rtol=1e-12)
    assert len(first["results"]["nan"][0]) == 29
    assert "the loss is nan" in first["results"]["nan"][1]
    assert len(first["results"]["ended"][0]) == 30
    assert "the batches ended" in first["results"]["ended"][1]
    assert set(first["results"]["closure"][0]) == {0.5}
