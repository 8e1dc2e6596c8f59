"""Schedules against torch's schedulers, stepped as a training loop steps them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler

from thalweg import schedules
from thalweg.schedules import Schedule

STEPS = 2_000


def torch_values(make: Callable[[torch.optim.Optimizer], Any], lr: float, steps: int, key: str = "lr") -> np.ndarray:
    """What torch writes into group[key] for updates 1 to `steps`."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr, momentum=0.9)
    scheduler = make(optimizer)
    values = []
    for _ in range(steps):
        values.append(float(optimizer.param_groups[0][key]))
        optimizer.step()
        scheduler.step()
    return np.array(values)


def configurations(seed: int) -> Iterator[tuple[float, np.random.Generator]]:
    rng = np.random.default_rng(seed)
    for _ in range(5):
        yield float(10 ** rng.uniform(-4, 0)), rng


def assert_close(ours: Schedule, theirs: np.ndarray, rtol: float, atol: float = 0.0) -> None:
    np.testing.assert_allclose(ours.values(len(theirs)), theirs, rtol=rtol, atol=atol)


def test_constant(seed: int) -> None:
    for lr, _ in configurations(seed):
        assert_close(schedules.constant(lr), torch_values(lambda o: lr_scheduler.ConstantLR(o, 1.0), lr, 50), 0)


def test_linear(seed: int) -> None:
    for lr, rng in configurations(seed):
        n, start, end = int(rng.integers(1, STEPS)), float(rng.uniform(0.01, 1)), float(rng.uniform(0, 1))
        theirs = torch_values(lambda o: lr_scheduler.LinearLR(o, start, end, n), lr, n + 20)  # noqa: B023
        assert_close(schedules.linear(lr * start, n, lr * end), theirs, 1e-12, 1e-15 * lr)


def test_exponential(seed: int) -> None:
    for lr, rng in configurations(seed):
        gamma = float(1 - 10 ** rng.uniform(-5, -2))
        theirs = torch_values(lambda o: lr_scheduler.ExponentialLR(o, gamma), lr, STEPS)  # noqa: B023
        assert_close(schedules.exponential(lr, gamma), theirs, 1e-12)


def test_step(seed: int) -> None:
    for lr, rng in configurations(seed):
        size, gamma = int(rng.integers(1, 300)), float(rng.uniform(0.1, 1))
        theirs = torch_values(lambda o: lr_scheduler.StepLR(o, size, gamma), lr, STEPS)  # noqa: B023
        assert_close(schedules.step(lr, size, gamma), theirs, 1e-12)


def test_multistep(seed: int) -> None:
    for lr, rng in configurations(seed):
        marks = sorted(int(m) for m in rng.integers(1, STEPS, 10))
        marks.append(marks[-1])
        gamma = float(rng.uniform(0.1, 1))
        theirs = torch_values(lambda o: lr_scheduler.MultiStepLR(o, marks, gamma), lr, STEPS)  # noqa: B023
        assert_close(schedules.multistep(lr, marks, gamma), theirs, 1e-12)


def test_polynomial(seed: int) -> None:
    for lr, rng in configurations(seed):
        n, power = int(rng.integers(1, STEPS)), float(rng.uniform(0.5, 3))
        theirs = torch_values(lambda o: lr_scheduler.PolynomialLR(o, n, power), lr, n + 20)  # noqa: B023
        assert_close(schedules.polynomial(lr, n, power), theirs, 1e-12, 1e-15 * lr)


def test_cosine(seed: int) -> None:
    """Past the end torch's curve rises again, ours is held."""
    for lr, rng in configurations(seed):
        n, eta_min = int(rng.integers(2, STEPS)), float(lr * rng.uniform(0, 0.5))
        ours = schedules.cosine(lr, n, eta_min)
        theirs = torch_values(lambda o: lr_scheduler.CosineAnnealingLR(o, n, eta_min), lr, n + 1)  # noqa: B023
        assert_close(ours, theirs, 0, 1e-13 * lr)
        restarts = torch_values(lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, n, 1, eta_min), lr, n)  # noqa: B023
        assert_close(ours, restarts, 0, 1e-15 * lr)
        np.testing.assert_array_equal(ours.values(100, start=n), eta_min)


@pytest.mark.parametrize("t_mult", [1, 2, 3, 10])
def test_sgdr(t_mult: int, seed: int) -> None:
    for lr, rng in configurations(seed):
        t_0, eta_min = int(rng.integers(1, 60)), float(lr * rng.uniform(0, 0.5))
        make = lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, t_0, t_mult, eta_min)  # noqa: B023, E731
        assert_close(schedules.sgdr(lr, t_0, t_mult, eta_min), torch_values(make, lr, STEPS), 1e-12, 1e-15 * lr)


@pytest.mark.parametrize("mode", ["triangular", "triangular2", "exp_range"])
def test_triangular_family(mode: str, seed: int) -> None:
    for lr, rng in configurations(seed):
        top, up, down = float(lr * rng.uniform(1, 10)), int(rng.integers(1, 200)), int(rng.integers(1, 200))
        gamma = float(rng.uniform(0.99, 1)) if mode == "exp_range" else 1.0
        make = lambda o: lr_scheduler.CyclicLR(o, lr, top, up, down, mode, gamma)  # noqa: B023, E731
        options = {"gamma": gamma} if mode == "exp_range" else {}
        ours = getattr(schedules, mode)(lr, top, up, step_size_down=down, **options)
        assert_close(ours, torch_values(make, lr, STEPS), 1e-12, 1e-12 * lr)


def test_triangular_at_a_million_steps() -> None:
    """The paper's formula in NumPy at far steps, as its authors' code has it."""
    base, top, size = 1e-3, 6e-3, 2_000
    k = np.arange(1_000_000, 1_010_000)
    cycle = np.floor(1 + k / (2 * size))
    x = np.abs(k / size - 2 * cycle + 1)
    theirs = base + (top - base) * np.maximum(0, 1 - x)
    ours = schedules.triangular(base, top, size).values(10_000, start=1_000_000)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("total", [3, 7, 10, 33, 100, 999, 1000])
@pytest.mark.parametrize("three_phase", [False, True])
@pytest.mark.parametrize("anneal", ["cos", "linear"])
def test_one_cycle(total: int, three_phase: bool, anneal: str, seed: int) -> None:
    for lr, rng in configurations(seed):
        pct = float(rng.uniform(1.5 / total, 0.5))
        div, final = float(rng.uniform(2, 30)), float(10 ** rng.uniform(1, 5))

        def make(o: torch.optim.Optimizer) -> Any:
            return lr_scheduler.OneCycleLR(
                o, lr, total, pct_start=pct, anneal_strategy=anneal, div_factor=div, final_div_factor=final,  # noqa: B023
                three_phase=three_phase,
            )  # fmt: skip

        ours = schedules.one_cycle(lr, total, pct, div, final, three_phase, anneal)
        for key, schedule in (("lr", ours.lr), ("momentum", ours.momentum)):
            theirs = torch_values_without_last_step(make, lr, total, key)
            assert_close(schedule, theirs, 1e-12, 1e-15 * lr)


def torch_values_without_last_step(make: Any, lr: float, steps: int, key: str) -> np.ndarray:
    """OneCycleLR takes total_steps - 1 steps of its own before it goes wrong."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr, momentum=0.9)
    scheduler = make(optimizer)
    values = [float(optimizer.param_groups[0][key])]
    for _ in range(steps - 1):
        optimizer.step()
        scheduler.step()
        values.append(float(optimizer.param_groups[0][key]))
    return np.array(values)


def test_warmup_then_cosine_is_sequential_lr() -> None:
    lr, warm, total = 0.1, 50, 400

    def make(o: torch.optim.Optimizer) -> Any:
        first = lr_scheduler.LinearLR(o, start_factor=1 / 51, end_factor=1.0, total_iters=50)
        second = lr_scheduler.CosineAnnealingLR(o, total - warm)
        return lr_scheduler.SequentialLR(o, [first, second], [warm])

    ours = schedules.warmup(warm, lr) >> schedules.cosine(lr, total - warm)
    assert_close(ours, torch_values(make, lr, total), 1e-12, 1e-15)


@pytest.mark.parametrize("cycles", [1, 3, 5, 7])
def test_snapshot_cosine_is_the_papers_equation(cycles: int) -> None:
    """Equation 2 of arXiv 1704.00109 counts t = k + 1."""
    total, lr = 1_000, 0.2
    wave = math.ceil(total / cycles)
    theirs = [lr / 2 * (math.cos(math.pi * ((t - 1) % wave) / wave) + 1) for t in range(1, total + 1)]
    np.testing.assert_allclose(schedules.snapshot_cosine(lr, total, cycles).values(), theirs, rtol=0, atol=1e-16)


@pytest.fixture(params=[0, 1, 2])
def seed(request: pytest.FixtureRequest) -> int:
    return int(request.param)
