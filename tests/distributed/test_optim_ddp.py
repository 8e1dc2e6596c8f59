"""Two processes (gloo, DDP and FSDP2): the same numbers as torch's optimizer there, and the same on both ranks."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import thalweg as tw

pytestmark = [pytest.mark.distributed, pytest.mark.slow]
OPTIONS = {"SGD": {"momentum": 0.9, "nesterov": True}, "AdamW": {"amsgrad": True}}


def _train(kind: Any, options: dict[str, Any], sharded: bool, rank: int, **own: Any) -> list[torch.Tensor]:
    torch.manual_seed(0)
    model: nn.Module = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 2))
    model = fully_shard(model, mesh=init_device_mesh("cpu", (2,))) if sharded else DistributedDataParallel(model)
    optimizer = kind(model.parameters(), **{"lr": 0.05, **options, **own})
    generator = torch.Generator().manual_seed(rank)
    for _ in range(6):
        optimizer.zero_grad()
        (model(torch.randn(4, 5, generator=generator)) - 1).square().mean().backward()
        optimizer.step()
    return [p.full_tensor().detach() if sharded else p.detach().clone() for p in model.parameters()]


def _run(rank: int, rendezvous: str, out: str) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
    results = {}
    for sharded in (False, True):
        for name, options in OPTIONS.items():
            for mine in (False, True):
                kind = getattr(tw.optim if mine else torch.optim, name)
                results[sharded, name, mine] = _train(kind, options, sharded, rank)
    results["schedule"] = _train(tw.optim.AdamW, {}, False, rank, lr=tw.schedules.cosine(0.1, total_steps=6))
    torch.save(results, Path(out) / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_as_torch(tmp_path: Path) -> None:
    mp.spawn(_run, args=(str(tmp_path / "rendezvous"), str(tmp_path)), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for key in first:
        torch.testing.assert_close(first[key], second[key], rtol=0, atol=0, msg=f"ranks differ: {key}")
    for sharded in (False, True):
        for name in OPTIONS:
            torch.testing.assert_close(first[sharded, name, True], first[sharded, name, False], rtol=2e-6, atol=2e-6)
