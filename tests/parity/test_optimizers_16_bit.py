"""16-bit parameters and states, and master weights: every single step against float64 from the same state."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from parity.optimizer_cases import (
    CASES,
    IDS,
    NAMES,
    REGISTRY,
    class_of,
    contents,
    give,
    parameters,
    same_bits,
    steps,
    tensors,
)
from reference import REFERENCES

LR = 2.0**-7  # so that it is a 16-bit number
SINGLE_EPS = torch.finfo(torch.float32).eps
HALF, BRAIN, SINGLE = torch.float16, torch.bfloat16, torch.float32
MIXES: dict[str, tuple[torch.dtype, dict[str, Any]]] = {
    "bfloat16": (BRAIN, {}),
    "float16": (HALF, {}),
    "bfloat16-master": (BRAIN, {"master_weights": True}),
    "float16-master": (HALF, {"master_weights": True}),
    "bfloat16-states": (SINGLE, {"state_dtype": BRAIN}),
    "bfloat16-float32-states": (BRAIN, {"state_dtype": SINGLE}),
}


def wide(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().double().numpy().copy()


def referred(name: str, options: dict[str, Any], inputs: dict[str, np.ndarray], k: int) -> dict[str, np.ndarray]:
    """One step of the reference after k steps, from a parameter, a gradient and states."""
    states = {key: value for key, value in inputs.items() if key not in ("param", "grad")}
    oracle = REFERENCES[name](**options)
    if states:
        oracle.resume(inputs["param"], states, k)
    new = oracle.step(inputs["param"], inputs["grad"], LR)
    return {"param": new, **{key: oracle.states[key] for key in REGISTRY[name]["state_names"] if key in oracle.states}}


def allowance(
    name: str, options: dict[str, Any], inputs: dict[str, np.ndarray], k: int, exact: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """What a few float32 roundings of each input would change: differences of near numbers magnify them."""
    changes = {key: SINGLE_EPS * np.abs(value) for key, value in exact.items()}
    sides = np.random.default_rng(k)  # up and down, so that norms stay
    for moved, value in inputs.items():
        near = {**inputs, moved: value * (1 + SINGLE_EPS * sides.choice([-1.0, 1.0], np.shape(value)))}
        for key, value in referred(name, options, near, k).items():
            changes[key] = changes[key] + np.abs(value - exact[key])
    return {key: 8 * value for key, value in changes.items()}


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_every_step_is_that_of_float64_rounded_once(name: str, options: dict[str, Any], mix: str) -> None:
    dtype, storage = MIXES[mix]
    params = parameters(tensors(3, dtype, (1, 33, 1000)))
    optimizer = class_of(name)(params, lr=LR, **options, **storage)
    for k in range(8):
        give(params, k, scale=10.0 ** (k % 3 - 1))
        before = [{key: wide(v) for key, v in optimizer.state.get(p, {}).items()} for p in params]
        values = [wide(p) for p in params]
        optimizer.step()
        for p, value, states in zip(params, values, before, strict=True):
            state = optimizer.state[p]
            if k == 0 and "z" in state:  # the only one that begins as a copy, in its own type
                states = {"z": wide(torch.as_tensor(value).to(state["z"].dtype)), "weight_sum": 0.0, "lr_max": -1.0}
            inputs = {"param": states.pop("master_param", value), "grad": wide(p.grad), **states}
            exact = referred(name, options, inputs, k)
            allowed = allowance(name, options, inputs, k, exact)
            for key, value_of in exact.items():
                tensor = state.get("master_param", p) if key == "param" else state[key]
                info = torch.finfo(tensor.dtype)
                rounding = info.eps / 2 * np.abs(value_of) + info.smallest_normal * info.eps
                assert (np.abs(wide(tensor) - value_of) <= 1.001 * rounding + allowed[key]).all(), (key, k)
            if "master_param" in state:
                assert torch.equal(p.detach(), state["master_param"].to(dtype))


@pytest.mark.parametrize("name", NAMES)
def test_master_weights_begin_with_the_first_step(name: str) -> None:
    """Weights are often loaded after the optimizer was made."""
    start = tensors(3, BRAIN, (1, 33))
    ends = []
    for late in (True, False):
        params = parameters([torch.zeros_like(t) for t in start] if late else start)
        optimizer = class_of(name)(params, lr=LR, master_weights=True, ema_decay=0.5)
        with torch.no_grad():
            for p, t in zip(params, start, strict=True):
                p.copy_(t)
        steps(optimizer, params, range(3))
        ends.append(contents(optimizer))
    assert same_bits(*ends)
