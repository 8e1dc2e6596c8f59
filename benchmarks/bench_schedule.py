"""scheduler.step() against torch's, values(n) against NumPy. Every result is checked before it is timed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler

from thalweg import schedules

STEPS = 10**6


def optimizer_with(groups: int, kind: str) -> torch.optim.SGD:
    lr: Any = 0.1 if kind == "float" else torch.tensor(0.1)
    made = [
        {"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr if kind == "float" else lr.clone()}
        for _ in range(groups)
    ]
    return torch.optim.SGD(made, lr=0.1)


SCHEDULERS: dict[str, Callable[[torch.optim.Optimizer], Any]] = {
    "thalweg": lambda o: schedules.cosine(0.1, STEPS, 1e-5).bind(o),
    "torch": lambda o: lr_scheduler.CosineAnnealingLR(o, STEPS, 1e-5),
}


@pytest.mark.parametrize("kind", ["float", "tensor"])
@pytest.mark.parametrize("groups", [1, 64])
@pytest.mark.parametrize("who", SCHEDULERS)
def test_scheduler_step(benchmark: Any, who: str, groups: int, kind: str) -> None:
    """Cosine, all groups; the optimizer's own step is not in it."""
    benchmark.group = f"scheduler.step(), {groups} group{'s' if groups > 1 else ''}, {kind} lr"
    benchmark.extra_info.update(who=who, groups=groups, lr=kind)
    optimizer = optimizer_with(groups, kind)
    scheduler = SCHEDULERS[who](optimizer)
    optimizer.step()
    for _ in range(100):
        scheduler.step()
    expected = schedules.cosine(0.1, STEPS, 1e-5)(100)
    for group in optimizer.param_groups:
        assert float(group["lr"]) == pytest.approx(expected, rel=1e-5 if kind == "tensor" else 1e-12)
    benchmark(scheduler.step)


def numpy_cosine() -> np.ndarray:
    """The formula as one writes it in NumPy."""
    k = np.arange(STEPS)
    return 1e-5 + (0.1 - 1e-5) * (1 + np.cos(np.pi * k / STEPS)) / 2


def numpy_sgdr() -> np.ndarray:
    """Equal cycles of 1,000 steps."""
    k = np.arange(STEPS) % 1_000
    return 0.05 * (1 + np.cos(np.pi * k / 1_000))


COSINE, SGDR = schedules.cosine(0.1, STEPS, 1e-5), schedules.sgdr(0.1, 1_000)
ARRAYS: dict[str, tuple[Callable[[], np.ndarray], Callable[[], np.ndarray]]] = {
    "cosine": (lambda: COSINE.values(STEPS), numpy_cosine),
    "sgdr": (lambda: SGDR.values(STEPS), numpy_sgdr),
}


@pytest.mark.parametrize("shape", ARRAYS)
@pytest.mark.parametrize("who", ["thalweg", "numpy"])
def test_values(benchmark: Any, who: str, shape: str) -> None:
    """A million values on one thread."""
    benchmark.group = f"values(1_000_000), {shape}"
    benchmark.extra_info.update(who=who, shape=shape)
    ours, theirs = ARRAYS[shape]
    np.testing.assert_allclose(ours(), theirs(), rtol=0, atol=1e-15)
    benchmark(ours if who == "thalweg" else theirs)


def test_single_value(benchmark: Any) -> None:
    """One call from Python, of a nested schedule."""
    benchmark.group = "schedule(k)"
    schedule = schedules.warmup(500, 0.1) >> schedules.sgdr(0.1, 1_000, 2)
    assert schedule(500) == 0.1
    benchmark(schedule, 12_345)
