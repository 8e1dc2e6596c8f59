"""What a step costs the host over FSDP2's parameters: DTensors, of which this process has its shards."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

import thalweg as tw

sys.path.insert(0, str(Path(__file__).parent))
from peers import FOREACH, FUSED, LR, Make, same, torch_forms

COUNT, SIZE = 500, 64
OPTIONS = {"lr": LR, "weight_decay": 0.01}
pytestmark = pytest.mark.filterwarnings("ignore")  # of torch's own deprecations


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Any]:
    """One process is a world of its own: the host's work per tensor is the same as in a large one."""
    if not dist.is_available() or dist.is_initialized():
        pytest.skip("torch.distributed is not available, or in use")
    store = dist.FileStore(str(tmp_path / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield dist.device_mesh.init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


def shards(mesh: Any, count: int) -> list[nn.Parameter]:
    """Parameters and gradients as FSDP2's `fully_shard` leaves them: sharded along the first dimension."""
    from torch.distributed.tensor import Shard, distribute_tensor

    generator = torch.Generator().manual_seed(0)
    params = []
    for _ in range(count):
        p, g = (distribute_tensor(torch.randn(SIZE, generator=generator), mesh, [Shard(0)]) for _ in range(2))
        params.append(nn.Parameter(p))
        params[-1].grad = g
    return params


@pytest.mark.parametrize(("peer_name", "make"), torch_forms(torch.optim.AdamW, OPTIONS, (FUSED, FOREACH)).items())
def test_step_of_dtensors(
    against: Callable[..., None], mesh: Any, peer_name: str, make: Make, request: pytest.FixtureRequest
) -> None:
    count = 20 if request.config.getoption("benchmark_disable") else COUNT
    mine, theirs = shards(mesh, count), shards(mesh, count)
    ours, peer = tw.optim.AdamW(mine, **OPTIONS), make(theirs)
    for _ in range(3):
        ours.step()
        peer.step()
    same([p.to_local() for p in mine], [p.to_local() for p in theirs])
    against("AdamW step, FSDP2", f"{COUNT} x {SIZE}", peer_name, ours.step, peer.step, seconds=3.0)
