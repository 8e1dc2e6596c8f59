"""A training in many processes, under DDP or FSDP2: schedule, clipping and moving average in the step, saved and resumed.

    torchrun --nproc-per-node 2 -m thalweg.demo.distributed [--fsdp] [--steps N] [--checkpoint DIR]

Classifies the handwritten digits of scikit-learn; on GPUs (nccl) where every process has one, otherwise on CPUs (gloo).
Where --checkpoint holds saved steps, the newest one is where the run goes on, whatever number of processes saved it.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from .. import optim, schedules
from . import data

BATCH = 128  # images per step, over all processes
REPORTS = 8  # lines, and saved steps, per run


def main(arguments: list[str] | None = None) -> None:
    """Run the training; every process of torchrun calls it."""
    parser = argparse.ArgumentParser(prog="thalweg.demo.distributed", description=__doc__.splitlines()[0])
    parser.add_argument("--fsdp", action="store_true", help="shard parameters, gradients and states; otherwise DDP")
    parser.add_argument("--steps", type=int, default=200, help="of the whole run")
    parser.add_argument("--checkpoint", type=Path, help="directory to save to and to resume from")
    options = parser.parse_args(arguments)
    if options.steps < REPORTS:
        parser.error(f"--steps must be at least {REPORTS}, got {options.steps}")
    with processes() as device:
        train(device, options.fsdp, options.steps, options.checkpoint)


@contextmanager
def processes() -> Iterator[torch.device]:
    """Join the processes that torchrun started, or be the only one; yields this one's device."""
    local = int(os.environ.get("LOCAL_RANK", "0"))
    gpus = torch.cuda.is_available() and torch.cuda.device_count() >= int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    device = torch.device("cuda", local) if gpus else torch.device("cpu")
    if gpus:
        torch.cuda.set_device(device)
    store = dist.HashStore()  # type: ignore[attr-defined]
    alone: dict[str, Any] = {} if "RANK" in os.environ else {"store": store, "rank": 0, "world_size": 1}
    dist.init_process_group("nccl" if gpus else "gloo", **alone)
    try:
        yield device
    finally:
        dist.destroy_process_group()


def build(device: torch.device, sharded: bool) -> nn.Module:
    """Return the network, the same in every process, under FSDP2 or DDP."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.nn.parallel import DistributedDataParallel

    torch.manual_seed(0)
    layers = [nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, data.CLASSES)]
    model = nn.Sequential(*layers).to(device)
    if not sharded:
        return DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for layer in model:
        if isinstance(layer, nn.Linear):
            fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def part(rows: Tensor) -> Tensor:
    """This process's rows."""
    return rows.tensor_split(dist.get_world_size())[dist.get_rank()]


def total(*numbers: float | Tensor) -> list[float]:
    """Sums over all processes."""
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    sums = torch.tensor([float(number) for number in numbers], dtype=torch.float64, device=device)
    dist.all_reduce(sums)
    return list(sums.tolist())


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Share of right answers; every process answers for its part of the images."""
    with torch.no_grad():
        right = (model(part(x)).argmax(1) == part(y)).sum()
    return total(right)[0] / len(y)


def say(text: str) -> None:
    """Print in the first process alone."""
    if dist.get_rank() == 0:
        print(text, flush=True)  # noqa: T201


def train(device: torch.device, sharded: bool, steps: int, folder: Path | None) -> None:
    """Train, report and save."""
    digits = data.load(train_size=1_200, val_size=300)
    (x, y), test = (tuple(t.to(device) for t in pair) for pair in (digits.train, digits.test))
    model = build(device, sharded)
    warmup = min(20, steps // 4)
    lr = schedules.warmup(warmup, 0.01) >> schedules.cosine(0.01, total_steps=steps - warmup)
    optimizer = optim.AdamW(model.parameters(), lr=lr, max_grad_norm=1.0, ema_decay=0.95)
    done = 0 if folder is None else resume(folder, model, optimizer)
    world, kind = dist.get_world_size(), "FSDP2" if sharded else "DDP"
    say(
        f"{world} processes on {device.type}, {kind}, "
        + (f"resumed after step {done}" if done else "from the beginning")
    )
    every = max(1, steps // REPORTS)
    for k in range(done, steps):
        rows = torch.randperm(len(x), generator=torch.Generator().manual_seed(k))[:BATCH]
        mine = part(rows).to(device)
        optimizer.zero_grad()
        # every process divides by its share of the batch, and their gradients are averaged
        loss = cross_entropy(model(x[mine]), y[mine], reduction="sum") * (world / BATCH)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()  # schedule, clipping over all shards, moving average
        if (k + 1) % every == 0 or k + 1 == steps:
            (mean,) = total(loss.detach() / world)
            norm = optimizer.grad_norm
            say(
                f"step {k + 1:4d}  lr {lr(k):.5f}  loss {mean:.4f}  gradient norm {float(norm if norm is not None else 0):.4f}"
                f"  test accuracy {accuracy(model, *test):.4f}"
            )
            if folder is not None:
                save(folder, k + 1, model, optimizer)
    if optimizer.state:
        with optimizer.swap_ema():
            say(f"averaged weights: test accuracy {accuracy(model, *test):.4f}")


def save(folder: Path, step: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Write weights, states, schedule and its position; each process writes its shards."""
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import get_state_dict

    weights, states = get_state_dict(model, optimizer)
    dcp.save({"model": weights, "optimizer": states}, checkpoint_id=folder / f"step_{step:06d}")  # type: ignore[attr-defined]


def resume(folder: Path, model: nn.Module, optimizer: Any) -> int:
    """Load the newest complete checkpoint, if there is any; returns the number of steps done."""
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

    complete = sorted(path.parent for path in folder.glob("step_*/.metadata"))  # which is written last
    if not complete:
        return 0
    weights, states = get_state_dict(model, optimizer)
    dcp.load({"model": weights, "optimizer": states}, checkpoint_id=complete[-1])  # type: ignore[attr-defined]
    set_state_dict(model, optimizer, model_state_dict=weights, optim_state_dict=states)
    return int(optimizer.schedule_step)


if __name__ == "__main__":
    main()
