"""Given gradients, shards are stepped as the whole tensors are: the same bits, or a norm summed in another order."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import Placement, Replicate, Shard, distribute_tensor

sys.path.insert(0, str(Path(__file__).parent))
from processes import full, randn, run

import thalweg as tw

pytestmark = [pytest.mark.distributed, pytest.mark.slow]

REGISTRY = tw._core.optimizers()
SHAPES = [(7, 5), (3,), (1, 6), (4, 4, 2), (13, 2), ()]  # some processes have empty shards
OPTIMIZERS: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {}),
    ("SGD", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    ("Adam", {"weight_decay": 0.01}),
    ("AdamW", {"amsgrad": True, "maximize": True}),
]
OPTIMIZERS += [
    (name, {"weight_decay": 0.1} if REGISTRY[kind.core_name]["two_phase"] else {})
    for name, kind in vars(tw.optim).items()
    if isinstance(kind, type) and hasattr(kind, "core_name") and name not in dict(OPTIMIZERS)
]
NORM = {"max_grad_norm": 0.5}
OPTIONS: dict[str, dict[str, Any]] = {
    "bare": {},
    "ema, zeroed, value": {"ema_decay": 0.9, "zero_grad_in_step": True, "max_grad_value": 0.3},
    "norm": NORM,
    "norm, ema, zeroed, skips": {**NORM, "ema_decay": 0.9, "zero_grad_in_step": True, "skip_nonfinite": True},
}
DTYPES: dict[str, tuple[torch.dtype, dict[str, Any]]] = {
    "float64": (torch.float64, {}),
    "float32": (torch.float32, {}),
    "master weights": (torch.bfloat16, {"master_weights": True}),
}


def layouts() -> dict[str, tuple[DeviceMesh, list[list[Placement]]]]:
    """Meshes, and placements that the parameters take in turns."""
    world = torch.distributed.get_world_size()
    line = init_device_mesh("cpu", (world,))
    found: dict[str, tuple[DeviceMesh, list[list[Placement]]]] = {
        "sharded": (line, [[Shard(0)]]),
        "sharded and replicated": (line, [[Shard(0)], [Replicate()]]),
    }
    thin = init_device_mesh("cpu", (world, 1))
    found["one shard"] = (thin, [[Replicate(), Shard(0)]])
    if world == 4:
        plane = init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard"))
        found["replicas of shards"] = (plane, [[Replicate(), Shard(0)]])
        found["every class"] = (
            plane,
            [[Replicate(), Shard(0)], [Shard(0), Replicate()], [Shard(0), Shard(0)], [Replicate(), Replicate()]],
        )
        found["a part of the mesh"] = (plane["shard"], [[Shard(0)]])
    return found


def step(kind: Any, values: list[nn.Parameter], make_grad: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Four steps; all that is to be compared afterwards, as whole tensors."""
    lr = tw.schedules.cosine(0.1, total_steps=6, eta_min=0.01)
    optimizer = kind(values, lr=lr, **options)
    norms, grads = [], []
    for k in range(4):
        for i, p in enumerate(values):
            p.grad = make_grad(i, randn(100 * k + i, *SHAPES[i], dtype=p.dtype))
        if k == 2 and options.get("skip_nonfinite"):
            poison(values[0].grad)
        optimizer.step()
        norms.append(None if optimizer.grad_norm is None else float(optimizer.grad_norm))
        grads.append([full(p.grad) for p in values])
    states = [{name: full(value) for name, value in optimizer.state[p].items()} for p in values if optimizer.state]
    numbers = ("step", *REGISTRY[optimizer.core_name]["scalar_names"])
    alike = all(
        hasattr(p, "placements") == hasattr(value, "placements")
        and getattr(p, "placements", 0) == getattr(value, "placements", 0)
        for p in values
        for name, value in optimizer.state.get(p, {}).items()
        if name not in numbers
    )
    return {
        "weights": [full(p) for p in values],
        "states": states,
        "grads": grads,
        "norms": norms,
        "position": (optimizer.schedule_step, optimizer.param_groups[0]["lr"]),
        "states as parameters": alike,
    }


def poison(grad: Any) -> None:
    """Make one element NaN: of a sharded gradient in the last process that has any."""
    whole = full(grad)
    whole.view(-1)[-1] = math.nan
    grad.copy_(
        whole if not hasattr(grad, "placements") else distribute_tensor(whole, grad.device_mesh, grad.placements)
    )


def cases(where: str) -> list[tuple[str, dict[str, Any], str, str]]:
    """On the first mesh every optimizer, on the others some of them; options and types take turns."""
    each = [(about, dtype) for about in OPTIONS for dtype in DTYPES]
    every = [(*optimizer, *each[(5 * i + k) % len(each)]) for i, optimizer in enumerate(OPTIMIZERS) for k in (0, 7)]
    two = torch.distributed.get_world_size() == 2
    return every[:: 1 if two else 2] if where == "sharded" else every[1::7]


def compare(share: int = 1) -> list[str]:
    """In every process: what differs between shards and whole tensors, in one case of `share`."""
    wrong = []
    for where, (mesh, placements) in layouts().items():
        for case in cases(where)[::share]:
            name, hyper, about, dtype_name = case
            dtype, extra = DTYPES[dtype_name]
            options = {**hyper, **OPTIONS[about], **extra}
            kind = getattr(tw.optim, name)
            start = [randn(i, *shape, dtype=dtype) for i, shape in enumerate(SHAPES)]
            whole = step(kind, [nn.Parameter(v.clone()) for v in start], lambda i, g: g, options)

            def place(i: int, value: Tensor, mesh: DeviceMesh = mesh, placements: Any = placements) -> Any:
                wanted = placements[i % len(placements)]
                return distribute_tensor(value.clone(), mesh, [Replicate()] * mesh.ndim if value.ndim == 0 else wanted)

            values = [nn.Parameter(place(i, v)) for i, v in enumerate(start)]
            shards = step(kind, values, place, options)
            exact = "norm" not in about and not REGISTRY[kind.core_name]["two_phase"]  # whose ratios are of norms too
            tolerance = 0.0 if exact else {"float64": 1e-13, "float32": 1e-6, "master weights": 1e-2}[dtype_name]
            try:
                torch.testing.assert_close(
                    {key: shards[key] for key in ("weights", "states", "grads", "norms")},
                    {key: whole[key] for key in ("weights", "states", "grads", "norms")},
                    rtol=tolerance,
                    atol=tolerance * 1e-1,
                    equal_nan=True,
                )
                assert shards["position"] == whole["position"], "position"
                assert shards["states as parameters"], "states are not sharded as their parameters"
            except AssertionError as error:
                wrong.append(f"{where}, {case}: {error}")
    return wrong


@pytest.mark.parametrize("world_size", [2, 4])
def test_shards_are_stepped_as_whole_tensors(tmp_path: Path, world_size: int) -> None:
    for rank, wrong in enumerate(run(compare, world_size, tmp_path)):
        assert not wrong, f"process {rank}: " + "\n".join(wrong[:5])
