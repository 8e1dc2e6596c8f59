"""16-bit parameters and states, and master weights: every single step against float64 from the same state."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from parity.optimizer_cases import CASES, IDS, REGISTRY, class_of, give, parameters, tensors
from reference import REFERENCES

LR = 0.01
HALF, BRAIN, SINGLE = torch.float16, torch.bfloat16, torch.float32
MIXES: dict[str, tuple[torch.dtype, dict[str, Any]]] = {
    "bfloat16": (BRAIN, {}),
    "float16": (HALF, {}),
    "bfloat16-master": (BRAIN, {"master_weights": True}),
    "float16-master": (HALF, {"master_weights": True}),
    "bfloat16-states": (SINGLE, {"state_dtype": BRAIN}),
    "bfloat16-float32-states": (BRAIN, {"state_dtype": SINGLE}),
}


def close(tensor: torch.Tensor, exact: np.ndarray, slack: np.ndarray) -> None:
    """One rounding to the tensor's own type, after float32 arithmetic."""
    info = torch.finfo(tensor.dtype)
    error = np.abs(tensor.detach().double().numpy() - exact)
    half_unit = info.eps / 2 * np.abs(exact) + info.smallest_normal * info.eps
    unit = torch.finfo(torch.float32).eps
    assert (error <= 1.001 * half_unit + 16 * unit * (np.abs(exact) + slack)).all()


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_every_step_is_that_of_float64_rounded_once(name: str, options: dict[str, Any], mix: str) -> None:
    dtype, storage = MIXES[mix]
    params = parameters(tensors(3, dtype, (1, 33, 1000)))
    optimizer = class_of(name)(params, lr=LR, **options, **storage)
    for k in range(8):
        give(params, k, scale=10.0 ** (k % 3 - 1))
        before = [
            (p.detach().double().numpy(), {n: v.double().numpy() for n, v in optimizer.state.get(p, {}).items()})
            for p in params
        ]
        optimizer.step()
        for p, (value, states) in zip(params, before, strict=True):
            state = optimizer.state[p]
            oracle = REFERENCES[name](**options)
            value = states.pop("master_param", value)
            if k > 0:
                oracle.resume(value, states, k)
            exact = oracle.step(value, p.grad.double().numpy(), LR)
            main = state.get("master_param", p)
            close(main, exact, np.abs(value) + 64 * np.abs(exact - value))
            if main is not p:
                assert torch.equal(p.detach(), main.to(dtype))
            for key in state.keys() & set(REGISTRY[name]["state_names"]):
                close(state[key], oracle.states[key], np.abs(states.get(key, 0.0)) + np.abs(p.grad.double().numpy()))
