"""Two processes (gloo, DDP and FSDP2): the same numbers as torch's optimizer there, and the same on both ranks."""

from __future__ import annotations

import copy
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


def _checkpoint(rank: int, rendezvous: str, out: str) -> None:
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict
    from torch.distributed.optim import ZeroRedundancyOptimizer

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
    schedule = tw.schedules.cosine(0.1, total_steps=8)

    def make() -> tuple[nn.Module, Any]:
        torch.manual_seed(0)
        model = fully_shard(nn.Linear(5, 4), mesh=init_device_mesh("cpu", (2,)))
        return model, tw.optim.AdamW(model.parameters(), lr=schedule)

    def train(model: nn.Module, optimizer: Any, steps: range) -> None:
        for k in steps:
            optimizer.zero_grad()
            model(torch.full((2, 5), float(k))).square().mean().backward()
            optimizer.step()

    model, optimizer = make()
    train(model, optimizer, range(3))
    weights, saved = model.state_dict(), copy.deepcopy(get_optimizer_state_dict(model, optimizer))
    again, restored = make()
    again.load_state_dict(weights)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*set from outside")
        set_optimizer_state_dict(again, restored, saved)
    position = (
        restored.schedules == (schedule,),
        restored.schedule_step,
        restored.param_groups[0]["lr"] == schedule(3),
    )
    train(model, optimizer, range(3, 6))
    train(again, restored, range(3, 6))
    pairs = zip(model.parameters(), again.parameters(), strict=True)
    same = all(torch.equal(p.full_tensor(), q.full_tensor()) for p, q in pairs)

    ends = []
    for kind in (tw.optim.AdamW, torch.optim.AdamW):
        torch.manual_seed(0)
        plain = nn.Linear(5, 4)
        zero = ZeroRedundancyOptimizer(plain.parameters(), kind, lr=0.05)
        train(DistributedDataParallel(plain), zero, range(4))
        zero.consolidate_state_dict(to=0)
        entries = len(zero.state_dict()["state"]) if rank == 0 else 2
        ends.append([entries, *(p.detach() for p in plain.parameters())])
    torch.save({"position": position, "same": same, "zero": ends}, Path(out) / f"{rank}.pt")
    dist.destroy_process_group()


def test_distributed_checkpoints_and_zero(tmp_path: Path) -> None:
    mp.spawn(_checkpoint, args=(str(tmp_path / "rendezvous"), str(tmp_path)), nprocs=2)
    for rank in range(2):
        result = torch.load(tmp_path / f"{rank}.pt")
        assert result["position"] == (True, 3, True)
        assert result["same"], "a resumed run goes on as the other"
        torch.testing.assert_close(result["zero"][0], result["zero"][1], rtol=2e-6, atol=2e-6)
