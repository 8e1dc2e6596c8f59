"""16-bit training, averages, zeroing and schedules of every hyper-parameter on the CPU: the device's tests on the host,
the bits on every instruction set, and the options' checks."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import thalweg as tw
from thalweg import _core, _testing

sys.path.insert(0, str(Path(__file__).parents[1]))
from cuda import test_hyper_schedules, test_low_precision
from cuda.test_step_bits import hyper_of
from cuda.test_step_mixed import MIXES, SIZES, describe, make, same
from parity.optimizer_cases import NAMES, fullest


@pytest.fixture
def device() -> torch.device:
    return torch.device("cpu")


for _module in (test_low_precision, test_hyper_schedules):
    for _name, _value in vars(_module).items():
        if _name.startswith("test_") and "replays" not in _name:  # there are no graphs on the host
            globals()[_name] = _value


@pytest.mark.parametrize("mix", list(MIXES))
@pytest.mark.parametrize(("name", "options"), [(name, fullest(name)) for name in NAMES], ids=NAMES)
def test_bits_do_not_depend_on_instruction_set_or_threads(name: str, options: dict[str, Any], mix: str) -> None:
    generator = torch.Generator().manual_seed(0)
    sizes = (*SIZES, 70_001) if name in ("sgd", "adamw") else (0, 1, 9, 1023, 8201)  # the loops' threads are the same
    start = [make(name, MIXES[mix], n, generator) for n in sizes]
    hyper, before = hyper_of(name, options), _core.isa_active()
    arguments: dict[str, Any] = {"lr": 0.01, "step": 3.0, "grad_scale": 0.3, "ema_decay": 0.9, "seed": 5.0}
    arguments["scalar_states"] = [0.5] * len(_core.optimizers()[name]["scalar_names"])
    results = []
    try:
        for isa in _core.isa_supported():
            for threads in (1, 3):
                _core.isa_force(isa)
                tensors = [{k: t.clone() for k, t in one.items()} for one in start]
                _testing.step_cpu(
                    name, hyper, arguments, [describe(t, MIXES[mix], i) for i, t in enumerate(tensors)], threads
                )
                results.append(tensors)
    finally:
        _core.isa_force(before)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert all(same(a[key], b[key]) for key in a)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"ema_decay": 1.0}, ValueError, r"AdamW: ema_decay must be a number in \[0, 1\) or None, got 1.0"),
        (
            {"state_dtype": torch.float16},
            ValueError,
            "AdamW: state_dtype must be torch.float32, torch.bfloat16 or None",
        ),
        ({"seed": -1}, ValueError, "AdamW: seed must be an integer"),
        ({"master_weights": True, "stochastic_rounding": True}, ValueError, "exclude each other"),
        ({"max_grad_value": -1}, ValueError, "AdamW: max_grad_value must be >= 0, got -1"),
        ({"ema": 0.9}, TypeError, "unexpected keyword argument 'ema'"),
    ],
)
def test_options_are_checked(options: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        tw.optim.AdamW([nn.Parameter(torch.zeros(1))], **options)
