"""DTensors beside what FSDP2 makes: gradients placed otherwise, refusals, processes without gradients, no growth."""

from __future__ import annotations

import collections
import gc
import math
import resource
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor

sys.path.insert(0, str(Path(__file__).parent))
from processes import full, randn, run

import thalweg as tw

pytestmark = [pytest.mark.distributed, pytest.mark.slow]


def _text(error: type[Exception], call: Any) -> str:
    try:
        call()
    except error as raised:
        return str(raised)
    return "nothing was raised"


def _gradients() -> dict[str, Any]:
    """Gradients that are sharded otherwise than their parameters, or not summed up yet."""
    mesh, rank = init_device_mesh("cpu", (2,)), dist.get_rank()
    start, grad = randn(0, 5, 4), randn(1, 5, 4)
    plain = nn.Parameter(start.clone())
    plain.grad = grad.clone()
    tw.optim.AdamW([plain], lr=0.1, max_grad_norm=0.5).step()
    found: dict[str, Any] = {"plain": full(plain)}
    parts = {  # of every process; together they are the gradient
        "other dimension": distribute_tensor(grad, mesh, [Shard(1)]),
        "replicated": distribute_tensor(grad, mesh, [Replicate()]),
        "partial": DTensor.from_local(grad * (3.0 if rank == 0 else -2.0), mesh, [Partial()], run_check=False),
    }
    for placement in (Shard(0), Replicate()):
        for name, part in parts.items():
            p = nn.Parameter(distribute_tensor(start.clone(), mesh, [placement]))
            optimizer = tw.optim.AdamW([p], lr=0.1, max_grad_norm=0.5)
            p.grad = part.clone()
            optimizer.step()
            found[f"{placement}, {name}"] = (full(p), full(p.grad), p.grad.placements == p.placements)
    strided = nn.Parameter(DTensor.from_local(start.t().contiguous().t(), mesh, [Replicate()], run_check=False))
    strided.grad = DTensor.from_local(grad, mesh, [Replicate()], run_check=False)
    tw.optim.AdamW([strided], lr=0.1, max_grad_norm=0.5).step()
    found["strides"] = full(strided)
    return found


def _refusals() -> dict[str, str]:
    mesh, other = init_device_mesh("cpu", (2,)), init_device_mesh("cpu", (1, 2))
    found = {}
    partial = nn.Parameter(DTensor.from_local(torch.ones(2, 3), mesh, [Partial()], run_check=False))
    partial.grad = torch.ones_like(partial)
    found["a Partial parameter"] = _text(RuntimeError, tw.optim.SGD([partial], lr=0.1).step)

    def sharded() -> Any:
        return nn.Parameter(distribute_tensor(torch.ones(2, 3), mesh, [Shard(0)]))

    for name, grad in (
        ("a plain gradient", torch.ones(2, 3)),
        ("a gradient on another mesh", distribute_tensor(torch.ones(2, 3), other, [Replicate(), Shard(0)])),
    ):
        p = sharded()
        p.grad = grad
        found[name] = _text(RuntimeError, tw.optim.SGD([("weight", p)], lr=0.1).step)
        found[f"{name}: the weights stay"] = str(bool((full(p) == 1).all()))
    p = nn.Parameter(torch.ones(2, 3))
    p.grad = distribute_tensor(torch.ones(2, 3), mesh, [Replicate()])
    found["a DTensor as gradient of a plain parameter"] = _text(RuntimeError, tw.optim.SGD([p], lr=0.1).step)
    p = sharded()
    optimizer = tw.optim.SGD([p], lr=0.1, momentum=0.9)
    p.grad = torch.ones_like(p)
    optimizer.step()
    optimizer.state[p]["momentum_buffer"] = torch.ones(2, 3)
    found["a plain state"] = _text(ValueError, optimizer.step)
    optimizer.state[p]["momentum_buffer"] = distribute_tensor(torch.full((2, 3), 2.0), mesh, [Replicate()])
    optimizer.step()  # 0.9 * 2 + 1
    buffer = optimizer.state[p]["momentum_buffer"]
    found["a state placed otherwise"] = f"{buffer.placements == p.placements} {float(full(buffer)[0, 0]):.1f}"
    return found


def _without_gradients() -> list[Any]:
    """The first process alone has gradients, then all: they decide alike in every step."""
    mesh, rank = init_device_mesh("cpu", (2,)), dist.get_rank()
    p = nn.Parameter(distribute_tensor(torch.ones(4), mesh, [Shard(0)]))
    optimizer = tw.optim.SGD([p], lr=tw.schedules.linear(1.0, total_steps=10), max_grad_norm=1.0, skip_nonfinite=True)
    seen = []
    for k, value in enumerate((1.0, math.nan, 1.0)):
        p.grad = None
        if rank == 0 or k == 2:
            p.grad = DTensor.from_local(torch.full((2,), value), mesh, [Shard(0)], run_check=False)
        optimizer.step()
        seen.append((float(optimizer.grad_norm), optimizer.sync(), optimizer.param_groups[0]["lr"]))
    return seen


def _schedule_free() -> list[Any]:
    """Weights of shards and of whole tensors: after steps, as averages, back again."""
    mesh = init_device_mesh("cpu", (2,))
    seen = []
    for placed in (lambda t: t, lambda t: distribute_tensor(t, mesh, [Shard(0)])):
        p = nn.Parameter(placed(randn(0, 5, 3)))
        optimizer = tw.optim.AdamWScheduleFree([p], lr=0.1)
        for k in range(3):
            p.grad = placed(randn(1 + k, 5, 3))
            optimizer.step()
        seen.append([full(p)])
        optimizer.eval()
        seen[-1].append(full(p))
        optimizer.train()
        seen[-1].append(full(p))
    return seen


def _growth() -> dict[str, Any]:
    mesh = init_device_mesh("cpu", (2,))
    values = [nn.Parameter(distribute_tensor(randn(i, 5, 3), mesh, [Shard(0)])) for i in range(4)]
    for i, p in enumerate(values):
        p.grad = distribute_tensor(randn(9 + i, 5, 3), mesh, [Shard(0)])
    lr = tw.schedules.sgdr(0.01, t_0=100)
    optimizer = tw.optim.AdamW(values, lr=lr, max_grad_norm=1.0, ema_decay=0.9, skip_nonfinite=True)

    def census() -> tuple[collections.Counter[str], int]:
        gc.collect()
        kinds = collections.Counter(type(o).__name__ for o in gc.get_objects())
        return kinds, int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 1024

    def steps(count: int) -> None:
        for _ in range(count):
            optimizer.step()

    count = 100 if tw._core.tensor_view(torch.empty(1))[3] >= 0 else 10_000  # emulated kernels are slow
    steps(count // 10)
    census()
    (before, memory), _ = census(), steps(count)
    after, peak = census()
    return {"grown": dict(after - before), "KiB": peak - memory, "steps": (optimizer.sync(), count + count // 10)}


def _in_process() -> dict[str, Any]:
    return {f.__name__: f() for f in (_gradients, _refusals, _without_gradients, _schedule_free, _growth)}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What two processes return."""
    return run(_in_process, 2, tmp_path_factory.mktemp("two"))


def test_gradients_placed_otherwise(results: list[dict[str, Any]]) -> None:
    for found in (dict(result["_gradients"]) for result in results):
        plain, strides = found.pop("plain"), found.pop("strides")
        torch.testing.assert_close(strides, plain, rtol=0, atol=0)
        for name, (weight, grad, alike) in found.items():
            torch.testing.assert_close(weight, plain, rtol=1e-5, atol=1e-6, msg=name)
            torch.testing.assert_close(grad, randn(1, 5, 4), rtol=1e-6, atol=1e-6, msg=name)
            assert alike, name


def test_refusals_name_the_parameter(results: list[dict[str, Any]]) -> None:
    for found in (result["_refusals"] for result in results):
        assert "parameter 0 of group 0 has placements (Partial(sum),); expected Shard" in found["a Partial parameter"]
        assert "('weight') is a DTensor on" in found["a plain gradient"]
        assert "its gradient a Tensor; expected a DTensor" in found["a plain gradient"]
        assert "its gradient one on DeviceMesh" in found["a gradient on another mesh"]
        assert found["a plain gradient: the weights stay"] == "True"
        assert found["a gradient on another mesh: the weights stay"] == "True"
        assert "is a Parameter and its gradient a DTensor" in found["a DTensor as gradient of a plain parameter"]
        assert "must be a DTensor as its parameter, got a Tensor" in found["a plain state"]
        assert "set_optimizer_state_dict" in found["a plain state"]
        assert found["a state placed otherwise"] == "True 2.8"


def test_processes_without_gradients_decide_as_the_others(results: list[dict[str, Any]]) -> None:
    first, second = (result["_without_gradients"] for result in results)
    assert str(first) == str(second)  # NaN is a NaN
    assert [step for _, step, _ in first] == [1, 1, 2]
    assert math.isclose(first[0][0], math.sqrt(2))
    assert math.isclose(first[2][0], 2.0)


def test_schedule_free_modes(results: list[dict[str, Any]]) -> None:
    for plain, shards in (result["_schedule_free"] for result in results):
        torch.testing.assert_close(shards, plain, rtol=0, atol=0)
        assert torch.equal(shards[0], shards[2])
        assert not torch.equal(shards[0], shards[1])


def test_ten_thousand_steps_leave_nothing_behind(results: list[dict[str, Any]]) -> None:
    for result in (each["_growth"] for each in results):
        assert result["steps"][0] == result["steps"][1]
        assert sum(result["grown"].values()) <= 10, result["grown"]
        assert result["KiB"] < 2048, "at 10,000 steps one leaked float64 tensor a step is some 3,000 KiB"
