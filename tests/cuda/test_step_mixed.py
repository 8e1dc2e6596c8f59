"""Other types in memory than computed: kernels against the CPU's loops, bit for bit, given the same scalars."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from thalweg import _core, _testing

sys.path.insert(0, str(Path(__file__).parents[1]))
from cuda.test_step_bits import hyper_of, is_square, name_of, placed, values_of
from parity.optimizer_cases import NAMES, fullest

pytestmark = pytest.mark.cuda

BF16, F16, F32, F64 = torch.bfloat16, torch.float16, torch.float32, torch.float64
SIZES = (0, 1, 7, 8, 9, 1023, 8192, 8201, 20_003)
# param, grad, states, master weights, average, gradients zeroed or unscaled, stochastic rounding
MIXES: dict[str, tuple[Any, ...]] = {
    "bf16": (BF16, BF16, BF16, False, False, False, False),
    "fp16": (F16, F16, F16, False, True, False, False),
    "bf16 + master": (BF16, BF16, F32, True, False, False, False),
    "bf16 + master, fp32 grads, ema, zero": (BF16, F32, F32, True, True, True, False),
    "fp16 + master, bf16 states": (F16, F16, BF16, True, True, False, False),
    "bf16, by chance": (BF16, BF16, F32, False, False, True, True),
    "bf16, by chance, ema": (BF16, BF16, BF16, False, True, False, True),
    "fp32, bf16 grads": (F32, BF16, F32, False, True, True, False),
    "fp32, bf16 states": (F32, F32, BF16, False, False, False, False),
    "fp32, ema and zero": (F32, F32, F32, False, True, True, False),
    "fp64, fp32 grads": (F64, F32, F64, False, True, True, False),
    "fp64, ema": (F64, F64, F64, False, True, False, False),
    "fp32, unscaled grads": (F32, F32, F32, False, False, "unscale", False),
    "bf16 + master, unscaled grads": (BF16, BF16, F32, True, False, "unscale", False),
    "fp64, unscaled grads": (F64, F64, F64, False, True, "unscale", False),
}


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal to the bit; any NaN equals any NaN."""
    a, b = a.cpu(), b.cpu()
    kind = {8: torch.int64, 4: torch.int32, 2: torch.int16}[a.element_size()]
    return bool(((a.view(kind) == b.view(kind)) | (a.isnan() & b.isnan())).all())


def make(name: str, mix: tuple[Any, ...], n: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """One tensor's streams; states that are squares are positive."""
    param, grad, state, master, ema, _, _ = mix
    values = values_of(name)
    out = {"param": values(n, param, generator), "grad": values(n, grad, generator)}
    for i, key in enumerate(_core.optimizers()[name]["state_names"]):
        out[f"state{i}"] = values(n, state, generator)
        if is_square(key):
            out[f"state{i}"].abs_()
    wide = F64 if param == F64 else F32
    if master:
        out["master"] = values(n, F32, generator)
    if ema:
        out["ema"] = values(n, wide, generator)
    return out


def describe(tensors: dict[str, torch.Tensor], mix: tuple[Any, ...], place: int) -> dict[str, Any]:
    param, grad, state, _, _, zero, stochastic = mix
    out: dict[str, Any] = {
        "numel": tensors["param"].numel(),
        "dtype": name_of(param),
        "grad_dtype": name_of(grad),
        "state_dtype": name_of(state),
        "ema_dtype": name_of(F64 if param == F64 else F32),
        "states": [t.data_ptr() for k, t in tensors.items() if k.startswith("state")],
        "place": place,
    }
    out.update({k: t.data_ptr() for k, t in tensors.items() if not k.startswith("state")})
    flags = (("zero_grad", zero is True), ("unscale_grad", zero == "unscale"), ("stochastic", stochastic))
    out.update({k: True for k, wanted in flags if wanted})
    return out


@pytest.mark.parametrize("offset", [0, 1, 8])
@pytest.mark.parametrize("mix", list(MIXES))
@pytest.mark.parametrize(("name", "options"), [("sgd", {}), *((name, fullest(name)) for name in NAMES)])
def test_update_has_the_bits_of_the_cpu(
    device: torch.device, name: str, options: dict[str, Any], mix: str, offset: int
) -> None:
    generator = torch.Generator().manual_seed(offset)
    start = [make(name, MIXES[mix], n, generator) for n in SIZES]
    here = [{k: placed(t, 0, torch.device("cpu")) for k, t in tensors.items()} for tensors in start]
    there = [{k: placed(t, offset, device) for k, t in tensors.items()} for tensors in start]
    hyper = hyper_of(name, options)
    for step in (1.0, 2.0, 77.0):
        arguments = {
            "lr": 0.01,
            "step": step,
            "grad_scale": 0.3,
            "grad_limit": 5.0,
            "ema_decay": 0.9,
            "seed": 11.0,
            "unscale": 0.7,
            "scalar_states": [0.5] * len(_core.optimizers()[name]["scalar_names"]),
        }
        _testing.step_cpu(name, hyper, arguments, [describe(t, MIXES[mix], i) for i, t in enumerate(here)], 1)
        _testing.step_cuda(name, hyper, arguments, [describe(t, MIXES[mix], i) for i, t in enumerate(there)], 0, 0)
        for a, b, n in zip(here, there, SIZES, strict=True):
            for key in a:
                assert same(a[key], b[key]), f"size {n}, step {step}, {key}"
        if MIXES[mix][5] is True:
            assert all(not bool(t["grad"].count_nonzero()) for t in there)
            for tensors in (here, there):
                for t, s in zip(tensors, start, strict=True):
                    t["grad"].copy_(s["grad"])
