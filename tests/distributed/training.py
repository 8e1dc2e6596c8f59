"""Shared by the tests with several processes: one small training, on the whole batch or on every process's part."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from processes import full, randn
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

BATCH = 8  # rows, over all processes
STEPS = 6


class Net(nn.Module):
    """Layers whose sizes no number of processes divides; `gain` has one element."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))
        self.gain = nn.Parameter(torch.empty(1))
        self.to(dtype)
        with torch.no_grad():
            for i, p in enumerate(self.parameters()):
                p.copy_(randn(900 + i, *p.shape, dtype=dtype).mul_(0.4).add_(0.1))

    def forward(self, x: Tensor) -> Tensor:
        """Scores [rows, 3] of x [rows, 5]."""
        return self.layers(x) * self.gain


def distributed(model: Net, how: str) -> nn.Module:
    """`whole`: as it is; `ddp`; `fsdp`: over all processes; `hsdp`: shards over two, replicas over the others."""
    world = dist.get_world_size() if dist.is_initialized() else 1
    if how == "ddp":
        return DistributedDataParallel(model)
    if how == "whole":
        return model
    shape, names = ((world,), ("shard",)) if how == "fsdp" else ((world // 2, 2), ("replicate", "shard"))
    mesh = init_device_mesh("cpu", shape, mesh_dim_names=names)
    fully_shard(model.layers[0], mesh=mesh)
    return fully_shard(model, mesh=mesh)


def train(
    how: str,
    make: Callable[[Any], Any],
    dtype: torch.dtype = torch.float64,
    before: Callable[[int, nn.Module, Any], None] | None = None,
    scaler: Any = None,
    stepping: Callable[[int, nn.Module, Any], None] | None = None,
) -> dict[str, Any]:
    """Train and return the weights after every step and what the optimizer says of itself.

    Args:
        how: See `distributed`.
        make: Parameters -> optimizer.
        dtype: Of the model.
        before: Called with the step, the model and the optimizer when the gradients are there.
        scaler: Of the loss.
        stepping: Called instead of optimizer.step().
    """
    model = distributed(Net(dtype), how)
    optimizer = make(model.parameters())
    rank, world = (dist.get_rank(), dist.get_world_size()) if how != "whole" else (0, 1)
    own = slice(rank * BATCH // world, (rank + 1) * BATCH // world)
    weights, norms = [], []
    for k in range(STEPS):
        optimizer.zero_grad()
        rows, wanted = randn(k, BATCH, 5, dtype=dtype)[own], randn(100 + k, BATCH, 3, dtype=dtype)[own]
        loss = (model(rows) - wanted).square().mean()
        (loss if scaler is None else scaler.scale(loss)).backward()
        if before is not None:
            before(k, model, optimizer)
        if scaler is not None:
            scaler.step(optimizer)
            scaler.update()
        elif stepping is not None:
            stepping(k, model, optimizer)
        else:
            optimizer.step()
        weights.append([full(p) for p in model.parameters()])
        norm = getattr(optimizer, "grad_norm", None)
        norms.append(None if norm is None else float(norm))
    states = [{name: full(value) for name, value in optimizer.state[p].items()} for p in model.parameters()]
    return {
        "weights": weights,
        "norms": norms,
        "states": states,
        "lr": optimizer.param_groups[0]["lr"],
        "step": getattr(optimizer, "schedule_step", None),
        "scale": None if scaler is None else scaler.get_scale(),
    }


def poison_one(model: nn.Module) -> None:
    """A NaN in one element of one gradient, in the one process (of a replica) whose shard has it."""
    local = [p.grad.to_local() if hasattr(p.grad, "to_local") else p.grad for p in model.parameters()]
    named = dict(zip((name for name, _ in model.named_parameters()), local, strict=True))
    gain = named["gain"]  # one element: other shards are empty
    if gain.numel():
        gain.view(-1)[0] = math.nan
