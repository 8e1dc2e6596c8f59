"""Shared by the tests with several processes: starts them, gives them a mesh, collects what they return."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))
import stand_in  # noqa: F401  # before thalweg


def _enter(rank: int, function: Callable[..., Any], world_size: int, folder: str, args: tuple[Any, ...]) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world_size)
    torch.save(function(*args), Path(folder) / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def run(function: Callable[..., Any], world_size: int, folder: Path, *args: Any) -> list[Any]:
    """Call a function of a module in `world_size` processes with one thread each; return what each returned."""
    (folder / "rendezvous").unlink(missing_ok=True)
    mp.spawn(_enter, args=(function, world_size, str(folder), args), nprocs=world_size)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(world_size)]


def full(tensor: Any) -> Tensor:
    """A tensor as a whole, wherever its shards lie; a copy."""
    with torch.no_grad():
        return (tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor).detach().clone()


def randn(seed: int, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """The same random numbers in every process."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)
