"""Update and norm kernels against the CPU's loops, bit for bit, given the same scalars."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import thalweg as tw
from thalweg import _core, _testing
from thalweg.optim._scheduled import hyper_of as group_hyper

sys.path.insert(0, str(Path(__file__).parents[1]))
from parity.optimizer_cases import CASES, IDS, class_of

pytestmark = pytest.mark.cuda

SIZES = (0, 1, 2, 3, 5, 17, 1023, 4097, 8191, 8192, 8193, 20_001)
SPECIAL = (0.0, -0.0, 1e-45, -1e-42, 3e38, -3e38, float("inf"), float("-inf"), float("nan"), 1.0)


def awkward(n: int, dtype: torch.dtype, generator: torch.Generator) -> torch.Tensor:
    """Random values of many magnitudes, with denormals, infinities and NaN among them."""
    decades = torch.randint(-40, 20, (n,), generator=generator).double()
    values = torch.randn(n, generator=generator, dtype=torch.float64) * 10.0**decades
    values[: len(SPECIAL)] = torch.tensor(SPECIAL, dtype=torch.float64)[:n]
    return values[torch.randperm(n, generator=generator)].to(dtype)


def placed(values: torch.Tensor, offset: int, device: torch.device) -> torch.Tensor:
    """A copy that begins `offset` elements after an aligned address."""
    base = torch.empty(len(values) + offset, dtype=values.dtype, device=device)
    return base[offset:].copy_(values)


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal to the bit; any NaN equals any NaN."""
    kind = {8: torch.int64, 4: torch.int32}[a.element_size()]
    a, b = a.cpu(), b.cpu()
    return bool(((a.view(kind) == b.view(kind)) | (a.isnan() & b.isnan())).all())


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def as_tensor(parts: list[torch.Tensor]) -> dict[str, Any]:
    p, g, *states = parts
    return {
        "param": p.data_ptr(), "grad": g.data_ptr(), "states": [s.data_ptr() for s in states], "numel": p.numel(),
        "dtype": name_of(p.dtype),
    }  # fmt: skip


def as_grad(grad: torch.Tensor) -> dict[str, Any]:
    return {"grad": grad.data_ptr(), "numel": grad.numel(), "dtype": name_of(grad.dtype)}


def hyper_of(name: str, options: dict[str, Any]) -> list[float]:
    """The optimizer's hyper-parameters in the core's order, from its class's defaults."""
    group = class_of(name)([torch.nn.Parameter(torch.zeros(1))], **options).param_groups[0]
    return [float(group_hyper(group, key) or 0) for key in _core.optimizers()[name]["hyper_names"]]


def is_square(state: str) -> bool:
    """Of no sign."""
    return any(part in state for part in ("_sq", "square", "sum", "acc", "_inf", "step_size"))


def values_of(name: str) -> Any:
    """Awkward ones; ordinary ones where norms of whole tensors would make NaN of everything."""
    return ordinary if _core.optimizers()[name]["two_phase"] else awkward


def ordinary(n: int, dtype: torch.dtype, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(n, generator=generator, dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("offsets", [(0, 0, 0, 0, 0, 0), (1, 1, 1, 1, 1, 1), (3, 3, 3, 3, 3, 3), (0, 1, 2, 3, 1, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_update_has_the_bits_of_the_cpu(
    device: torch.device, name: str, options: dict[str, Any], dtype: torch.dtype, offsets: tuple[int, ...]
) -> None:
    """Aligned streams, streams that are misaligned alike, and streams that each begin somewhere else."""
    generator = torch.Generator().manual_seed(hash((name, offsets)) % 2**31)
    info, make = _core.optimizers()[name], values_of(name)
    start = []
    for n in SIZES:
        states = [make(n, dtype, generator) for _ in info["state_names"]]
        states = [s.abs() if is_square(key) else s for key, s in zip(info["state_names"], states, strict=True)]
        start.append([make(n, dtype, generator), make(n, dtype, generator), *states])
    here = [[placed(t, 0, torch.device("cpu")) for t in parts] for parts in start]
    there = [[placed(t, o, device) for t, o in zip(parts, offsets, strict=False)] for parts in start]
    hyper = hyper_of(name, options)
    scalars = [0.5] * len(info["scalar_names"])
    for step in (1.0, 2.0, 1000.0):
        options = {"lr": 0.01, "step": step, "grad_scale": 0.3, "grad_limit": 1e4, "scalar_states": scalars}
        _testing.step_cpu(name, hyper, options, [as_tensor(t) for t in here], 1)
        _testing.step_cuda(name, hyper, options, [as_tensor(t) for t in there], 0, 0)
        for a, b, n in zip(here, there, SIZES, strict=True):
            for place, (x, y) in enumerate(zip(a, b, strict=True)):
                assert same_bits(x, y), f"size {n}, step {step}, tensor {place}"


@pytest.mark.parametrize("offset", [0, 1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_norm_has_the_bits_of_the_cpu(device: torch.device, dtype: torch.dtype, offset: int) -> None:
    """Σ g² in float64, added in the order that step_control.hpp defines, whatever the alignment."""
    generator = torch.Generator().manual_seed(offset)
    grads = [torch.randn(n, generator=generator, dtype=torch.float64).to(dtype) * 10.0 ** (n % 7 - 3) for n in SIZES]
    params = [torch.nn.Parameter(torch.zeros(n, dtype=dtype, device=device)) for n in SIZES]
    for p, g in zip(params, grads, strict=True):
        p.grad = placed(g, offset, device)
    opt = tw.optim.SGD(params, lr=0.0, max_grad_norm=1.0)
    opt.step()
    squares = _testing.grad_squares_cpu([as_grad(g) for g in grads], 1)
    assert opt.grad_norm is not None
    assert float(opt.grad_norm) == math.sqrt(squares)
    exact = math.sqrt(math.fsum(float(v) ** 2 for g in grads for v in g))
    assert float(opt.grad_norm) == pytest.approx(exact, rel=1e-13)


def test_norm_of_more_chunks_than_lanes(device: torch.device) -> None:
    """Above 1,024 chunks the sums of chunks share lanes too."""
    sizes = [10] * 1500 + [8192 * 3 + 1]
    generator = torch.Generator().manual_seed(0)
    grads = [torch.randn(n, generator=generator) for n in sizes]
    params = [torch.nn.Parameter(torch.zeros(n, device=device)) for n in sizes]
    for p, g in zip(params, grads, strict=True):
        p.grad = g.to(device)
    opt = tw.optim.SGD(params, lr=0.0, max_grad_norm=1.0)
    opt.step()
    assert opt.grad_norm is not None
    squares = _testing.grad_squares_cpu([as_grad(g) for g in grads], 1)
    assert float(opt.grad_norm) == math.sqrt(squares)
