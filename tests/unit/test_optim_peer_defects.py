"""Defects that fused optimizers and schedulers elsewhere are known for, as tests that ours has not got them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import thalweg as tw

sys.path.insert(0, str(Path(__file__).parents[1]))
from reference import REFERENCES

KINDS = [
    pytest.param(tw.optim.SGD, {"momentum": 0.9, "dampening": 0.5}, id="SGD"),
    pytest.param(tw.optim.Adam, {"amsgrad": True}, id="Adam"),
    pytest.param(tw.optim.AdamW, {}, id="AdamW"),
]


def randn(seed: int, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def tensors_of(optimizer: Any) -> list[torch.Tensor]:
    params = [p for g in optimizer.param_groups for p in g["params"]]
    return [*params, *(v for p in params for _, v in sorted(optimizer.state.get(p, {}).items()))]


@pytest.mark.parametrize(("kind", "options"), KINDS)
@pytest.mark.parametrize("found", [1.0, 2.0])  # scalers add up what several devices found
@pytest.mark.parametrize("skipped", [(0,), (0, 1), (3,)])
def test_a_skipped_step_leaves_no_trace(
    kind: Any, options: dict[str, Any], found: float, skipped: tuple[int, ...]
) -> None:
    """Among the first steps too, where a momentum that was allocated but not written must not be believed."""
    schedule, results = tw.schedules.linear(0.1, total_steps=9), []
    for with_skips in (True, False):
        p, q = nn.Parameter(randn(0, 9)), nn.Parameter(randn(1, 3))
        optimizer = kind([p, q], lr=schedule, **options)
        for k in range(6):
            skip = k in skipped
            if skip and not with_skips:
                continue
            p.grad = torch.full((9,), float("inf")) if skip else randn(10 + k, 9)
            q.grad = randn(20 + k, 3)
            if with_skips:
                before = [t.detach().clone() for t in tensors_of(optimizer)]
                optimizer.found_inf, optimizer.grad_scale = torch.tensor(found if skip else 0.0), torch.tensor(1.0)
            optimizer.step()
            if skip:
                assert all(torch.equal(a, b) for a, b in zip(before, tensors_of(optimizer), strict=True))
        assert optimizer.schedule_step == 6 - len(skipped)
        results.append(tensors_of(optimizer))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


LONG = {
    "exponential": tw.schedules.exponential(0.1, gamma=0.9999),
    "cosine": tw.schedules.cosine(0.1, total_steps=50_000, eta_min=1e-4),
    "linear": tw.schedules.linear(0.1, total_steps=50_000, end_lr=1e-3),
    "polynomial": tw.schedules.polynomial(0.1, total_steps=50_000, power=2.0),
}


@pytest.mark.parametrize("name", LONG)
def test_a_float32_rate_does_not_drift_over_50000_steps(name: str) -> None:
    schedule, lr = LONG[name], torch.tensor(0.1)
    p = nn.Parameter(torch.zeros(1))
    optimizer = tw.optim.SGD([p], lr=lr)
    scheduler = schedule.bind(optimizer)
    p.grad = torch.zeros(1)
    optimizer.step()
    worst = 0.0
    for k in range(1, 50_001):
        scheduler.step()
        if k % 97 == 0 or k > 49_990:
            exact = np.float32(schedule(k))
            worst = max(worst, abs(float(np.float32(lr.item())) - float(exact)) / float(np.spacing(exact)))
    assert optimizer.param_groups[0]["lr"] is lr, "filled, never replaced"
    assert worst <= 1.0


def test_a_schedule_inside_is_the_closed_form_after_50000_steps() -> None:
    schedule = LONG["cosine"]
    p = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = tw.optim.Adam([p], lr=schedule)
    tensor = tw.optim.Adam([nn.Parameter(torch.zeros(1))], lr=schedule, capturable=True)
    for o in (optimizer, tensor):
        value = o.param_groups[0]["params"][0]
        value.grad = torch.zeros_like(value)
        for _ in range(49_999):
            o.step()
    assert optimizer.param_groups[0]["lr"] == schedule(49_999)
    assert tensor.param_groups[0]["lr"].item() == schedule(49_999)
    assert float(optimizer.state[p]["step"]) == 49_999


@pytest.mark.parametrize(("kind", "options"), KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_odd_sizes_at_odd_addresses(kind: Any, options: dict[str, Any], dtype: torch.dtype) -> None:
    sizes = [*range(1, 35), 63, 65, 127, 255, 1021]
    whole, grads = randn(0, sum(sizes) + len(sizes), dtype=dtype), []
    before = whole.clone()
    params, places, at = [], [], 1
    for n in sizes:
        p = nn.Parameter(torch.empty(0, dtype=dtype))
        p.data = whole[at : at + n]
        params.append(p)
        places.append(slice(at, at + n))
        at += n + 1
    optimizer = kind(params, lr=0.01, **options)
    oracles = [REFERENCES[kind.core_name](**options) for _ in sizes]
    values = [before[place].double().numpy() for place in places]
    for k in range(4):
        grads = [randn(100 * k + i, n + 3, dtype=dtype)[3:] for i, n in enumerate(sizes)]
        for p, g in zip(params, grads, strict=True):
            p.grad = g
        optimizer.step()
        values = [o.step(v, g.double().numpy(), 0.01) for o, v, g in zip(oracles, values, grads, strict=True)]
    gaps = torch.ones(len(whole), dtype=torch.bool)
    for place, value in zip(places, values, strict=True):
        gaps[place] = False
        np.testing.assert_allclose(whole[place].numpy(), value, rtol=0, atol=8 * torch.finfo(dtype).eps)
    assert torch.equal(whole[gaps], before[gaps]), "nothing beside a parameter is written"


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_465_groups_are_one_group_each(kind: Any, options: dict[str, Any]) -> None:
    def group(i: int) -> dict[str, Any]:
        return {"params": [nn.Parameter(randn(i, 1 + i % 7))], "lr": 1e-3 * (1 + i), "weight_decay": 1e-4 * (i % 5)}

    many = kind([group(i) for i in range(465)], **options)
    single = [kind([group(i)], **options) for i in range(465)]
    for k in range(3):
        for i, (a, other) in enumerate(zip(many.param_groups, single, strict=True)):
            for p in (a["params"][0], other.param_groups[0]["params"][0]):
                p.grad = randn(1000 * k + i, *p.shape) if (i + k) % 9 else None
            other.step()
        many.step()
    for a, other in zip(many.param_groups, single, strict=True):
        assert torch.equal(a["params"][0], other.param_groups[0]["params"][0])


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_a_missing_gradient_stops_the_counter_of_that_parameter_alone(kind: Any, options: dict[str, Any]) -> None:
    present = {0: range(12), 1: range(5, 12), 2: [0, 1, 7, 11], 3: []}
    params = [nn.Parameter(randn(i, 6)) for i in present]
    alone = [nn.Parameter(p.detach().clone()) for p in params]
    optimizer = kind(params, lr=0.05, **options)
    separate = [kind([p], lr=0.05, **options) for p in alone]
    for k in range(12):
        for i, steps in present.items():
            params[i].grad = randn(50 + 20 * k + i, 6) if k in steps else None
            if k in steps:
                alone[i].grad = params[i].grad.clone()
                separate[i].step()
        optimizer.step()
    for i, steps in present.items():
        assert torch.equal(params[i], alone[i])
        if kind is not tw.optim.SGD:
            assert float(optimizer.state.get(params[i], {}).get("step", 0)) == len(list(steps))
    assert params[3] not in optimizer.state


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_state_that_the_user_replaces(kind: Any, options: dict[str, Any]) -> None:
    """By a tensor of another layout, type, or a number for `step`: the next step uses its values."""
    results = []
    for replace in (False, True):
        p = nn.Parameter(randn(0, 4, 6))
        optimizer = kind([p], lr=0.05, **options)
        for k in range(4):
            p.grad = randn(10 + k, 4, 6)
            optimizer.step()
            if not replace:
                continue
            state = optimizer.state[p]
            for name, value in list(state.items()):
                if name == "step":
                    state[name] = float(value) if k % 2 else value.double()
                else:
                    state[name] = value.t().contiguous().t() if k % 2 else value.clone()
        results.append(p)
    assert torch.equal(*results)
