"""Where the torch-named schedulers differ from torch's on purpose: one test per row of lr_scheduler's table.

Each shows what torch does, and that ours has the value of the formula.
"""

from __future__ import annotations

import math
import re
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler

import thalweg as tw

pytestmark = pytest.mark.filterwarnings(
    "ignore:The epoch parameter", "ignore:Detected call", "ignore:To get the last learning rate"
)
TORCH, OURS = lr_scheduler, tw.lr_scheduler
BOTH = pytest.mark.parametrize("module", [OURS, TORCH], ids=["ours", "torch"])


def sgd(lr: Any = 0.5, groups: int = 1) -> torch.optim.SGD:
    made = [{"params": [torch.nn.Parameter(torch.ones(1))]} for _ in range(groups)]
    return torch.optim.SGD(made, lr=lr, momentum=0.9)


def rate(optimizer: torch.optim.Optimizer) -> float:
    return float(optimizer.param_groups[0]["lr"])


def walk(optimizer: torch.optim.Optimizer, scheduler: Any, steps: int) -> list[float]:
    """The rates that `steps` updates use."""
    out = []
    for _ in range(steps):
        out.append(rate(optimizer))
        optimizer.step()
        scheduler.step()
    return out


def cosine(k: int, length: int, low: float = 0.0, high: float = 0.5) -> float:
    return low + (high - low) * (1 + math.cos(math.pi * k / length)) / 2


# ---- restarts ------------------------------------------------------------------------------------------------


def test_restart_boundaries() -> None:
    """Every restart that a jump can hit is at the peak; torch's float logarithm misses some."""
    missed = {OURS: 0, TORCH: 0}
    for t_0, t_mult in ((1, 3), (1, 10), (7, 3), (2, 2), (5, 7)):
        for module in missed:
            optimizer = sgd()
            scheduler = module.CosineAnnealingWarmRestarts(optimizer, t_0, t_mult)
            boundary, length = 0, t_0
            for _ in range(9):
                boundary, length = boundary + length, length * t_mult
                scheduler.step(boundary)
                missed[module] += rate(optimizer) != 0.5 or scheduler.T_i != length
    assert missed[OURS] == 0
    assert missed[TORCH] > 0


@BOTH
def test_restarts_resumed_by_last_epoch(module: Any) -> None:
    optimizer = sgd()
    optimizer.param_groups[0]["initial_lr"] = 0.5
    scheduler = module.CosineAnnealingWarmRestarts(optimizer, T_0=4, T_mult=2, last_epoch=13)
    right = math.isclose(rate(optimizer), cosine(14 - 12, 16)) and scheduler.T_i == 16  # cycles begin at 0, 4, 12, 28
    assert right == (module is OURS)


def test_restarts_of_an_added_group() -> None:
    for module in (OURS, TORCH):
        optimizer = sgd()
        scheduler = module.CosineAnnealingWarmRestarts(optimizer, T_0=4)
        walk(optimizer, scheduler, 2)
        optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))], "lr": 0.1})
        optimizer.step()
        if module is TORCH:
            with pytest.raises(ValueError, match="zip"):
                scheduler.step()
        else:
            scheduler.step()
            assert optimizer.param_groups[1]["lr"] == pytest.approx(cosine(3, 4, high=0.1), rel=1e-14)


# ---- 1cycle --------------------------------------------------------------------------------------------------


@BOTH
def test_one_cycle_one_step_past_its_end(module: Any) -> None:
    optimizer = sgd()
    scheduler = module.OneCycleLR(optimizer, max_lr=1.0, total_steps=10)
    rates = [*walk(optimizer, scheduler, 10), rate(optimizer)]
    assert rates[9] == pytest.approx(1 / 25 / 1e4)
    assert (rates[10] == rates[9]) == (module is OURS)
    assert (rates[10] > 100 * rates[9]) == (module is TORCH)
    with pytest.raises(ValueError, match="Tried to step 11 times. The specified number of total steps is 10"):
        scheduler.step()


@BOTH
@pytest.mark.parametrize(("total", "pct", "first"), [(10, 0.1, 1.0), (4, 0.25, 1.0), (5, 1.0, 0.04)])
def test_one_cycle_with_a_phase_without_steps(module: Any, total: int, pct: float, first: float) -> None:
    def all_rates() -> list[float]:
        optimizer = sgd()
        return walk(optimizer, module.OneCycleLR(optimizer, 1.0, total_steps=total, pct_start=pct), total)

    if module is TORCH:
        with pytest.raises(ZeroDivisionError):
            all_rates()
    else:
        rates = all_rates()
        assert rates[0] == first
        assert max(rates) == 1.0


@BOTH
def test_one_cycle_without_a_rise_starts_at_its_peak(module: Any) -> None:
    optimizer = sgd()
    rates = walk(optimizer, module.OneCycleLR(optimizer, 1.0, total_steps=10, pct_start=0.0), 10)
    assert (rates[0] == max(rates) == 1.0) == (module is OURS)
    assert rates[-1] == pytest.approx(1 / 25 / 1e4)


# ---- compositions --------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("waves_first", [False, True])
@pytest.mark.parametrize("kind", ["restarts", "function", "1cycle", "triangle"])
def test_chain_keeps_the_warm_up(module: Any, waves_first: bool, kind: str) -> None:
    def build(optimizer: torch.optim.Optimizer) -> Any:
        if kind == "restarts":
            return module.CosineAnnealingWarmRestarts(optimizer, T_0=6)
        if kind == "function":
            return module.LambdaLR(optimizer, lambda k: 1 / (k + 1))
        if kind == "1cycle":
            return module.OneCycleLR(optimizer, 2.0, total_steps=40)
        return module.CyclicLR(optimizer, 0.3, 0.7, step_size_up=5)

    alone = sgd()
    wave = walk(alone, build(alone), 15)
    optimizer = sgd()
    optimizer.param_groups[0]["initial_lr"] = 0.5
    if waves_first:
        waves = build(optimizer)
    warm_up = module.LinearLR(optimizer, start_factor=0.1, total_iters=9)
    parts = [waves, warm_up] if waves_first else [warm_up, build(optimizer)]
    rates = walk(optimizer, module.ChainedScheduler(parts), 15)
    right = [value * (0.1 + 0.9 * min(k, 9) / 9) for k, value in enumerate(wave)]
    assert np.allclose(rates, right, rtol=1e-12, atol=0) == (module is OURS)


@BOTH
def test_a_chain_is_the_first_part_of_a_sequence(module: Any) -> None:
    optimizer = sgd()
    chain = module.ChainedScheduler([module.ExponentialLR(optimizer, 0.5), module.ConstantLR(optimizer, 0.1)])
    after = module.ConstantLR(optimizer, 0.3)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        scheduler = module.SequentialLR(optimizer, [chain, after], [3])
    rates = walk(optimizer, scheduler, 4)
    assert np.allclose(rates, [0.05, 0.025, 0.0125, 0.15], rtol=1e-12) == (module is OURS)
    assert len(caught) == (0 if module is OURS else 2)  # torch complains about its own calls


def test_a_chain_is_a_later_part_of_a_sequence() -> None:
    for module in (OURS, TORCH):
        optimizer = sgd()
        parts = [module.ExponentialLR(optimizer, 0.5), module.LinearLR(optimizer, 0.5, total_iters=2)]
        chain = module.ChainedScheduler(parts)
        scheduler = module.SequentialLR(optimizer, [module.ConstantLR(optimizer, 0.1), chain], [2])
        if module is TORCH:
            with pytest.raises(NotImplementedError):
                walk(optimizer, scheduler, 3)
        else:
            rates = walk(optimizer, scheduler, 5)
            np.testing.assert_allclose(rates, [0.05, 0.05, 0.25, 0.5 * 0.5 * 0.75, 0.5 * 0.25], rtol=1e-12)


@BOTH
def test_a_sequence_within_a_sequence(module: Any) -> None:
    optimizer = sgd()
    parts = [module.ConstantLR(optimizer, factor, total_iters=99) for factor in (0.1, 0.2, 0.3)]
    inner = module.SequentialLR(optimizer, parts[:2], [3])
    rates = walk(optimizer, module.SequentialLR(optimizer, [inner, parts[2]], [5]), 6)
    assert np.allclose(rates, [0.05, 0.05, 0.05, 0.1, 0.1, 0.15]) == (module is OURS)


@BOTH
def test_warm_up_before_one_cycle(module: Any) -> None:
    """OneCycleLR writes its own initial_lr into the groups; the warm-up before it keeps its base."""
    optimizer = sgd(0.1)
    warm_up = module.LinearLR(optimizer, start_factor=0.1, total_iters=4)
    policy = module.OneCycleLR(optimizer, 0.5, total_steps=20, cycle_momentum=False)
    rates = walk(optimizer, module.SequentialLR(optimizer, [warm_up, policy], [4]), 5)
    right = [0.1 * (0.1 + 0.9 * k / 4) for k in range(4)] + [0.5 / 25]
    assert np.allclose(rates, right, rtol=1e-12) == (module is OURS)
    assert optimizer.param_groups[0]["initial_lr"] == 0.5 / 25


# ---- metrics -------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("drift", [0.0, 1e-5])
def test_plateau_of_a_negative_metric(module: Any, mode: str, drift: float) -> None:
    """Standing still, or getting worse by less than the threshold, is no improvement below zero either."""
    optimizer = sgd()
    scheduler = module.ReduceLROnPlateau(optimizer, mode=mode, patience=2, threshold=1e-4)
    worse = 1 if mode == "min" else -1
    for k in range(8):
        scheduler.step(-1.0 + worse * k * drift)
    assert (rate(optimizer) < 0.5) == (module is OURS)


# ---- lengths of zero -----------------------------------------------------------------------------------------


@BOTH
def test_ramp_without_steps_is_at_its_end(module: Any) -> None:
    for build, end in ((module.LinearLR, 0.5), (module.ConstantLR, 0.5)):
        optimizer = sgd()
        rates = walk(optimizer, build(optimizer, 0.1, total_iters=0), 4)
        assert (rates == [end] * 4) == (module is OURS)
        assert (rates == [0.05] * 4) == (module is TORCH)


def test_constant_factor_zero() -> None:
    for module in (OURS, TORCH):
        optimizer = sgd()
        scheduler = module.ConstantLR(optimizer, factor=0.0, total_iters=2)
        if module is TORCH:
            with pytest.raises(ZeroDivisionError):
                walk(optimizer, scheduler, 4)
        else:
            assert walk(optimizer, scheduler, 4) == [0.0, 0.0, 0.5, 0.5]


# ---- resuming ------------------------------------------------------------------------------------------------

CONSTRUCTORS = [
    lambda m, o: m.StepLR(o, 3, 0.5),
    lambda m, o: m.LinearLR(o, 0.1, total_iters=30),
    lambda m, o: m.CosineAnnealingLR(o, 20),
    lambda m, o: m.PolynomialLR(o, 20, 2.0),
    lambda m, o: m.ExponentialLR(o, 0.9),
    lambda m, o: m.MultiplicativeLR(o, lambda k: 0.9),
    lambda m, o: m.ChainedScheduler([m.LinearLR(o, 0.1, total_iters=30), m.ExponentialLR(o, 0.9)]),
    lambda m, o: m.SequentialLR(o, [m.LinearLR(o, 0.1, total_iters=5), m.ExponentialLR(o, 0.9)], [5]),
    lambda m, o: m.SequentialLR(o, [m.LinearLR(o, 0.1), m.ExponentialLR(o, 0.9), m.ConstantLR(o)], [5, 30]),
]


@BOTH
@pytest.mark.parametrize("build", CONSTRUCTORS)
def test_state_of_the_scheduler_alone(module: Any, build: Any) -> None:
    whole, first, second = sgd(), sgd(), sgd()
    right = walk(whole, build(module, whole), 20)
    before = build(module, first)
    walk(first, before, 11)
    after = build(module, second)
    after.load_state_dict(before.state_dict())
    assert np.allclose(walk(second, after, 9), right[11:], rtol=1e-12, atol=0) == (module is OURS)


@pytest.mark.parametrize("build", CONSTRUCTORS)
def test_state_of_an_optimizer_that_was_loaded_before_stays(build: Any) -> None:
    first, second = sgd(), sgd()
    before = build(OURS, first)
    walk(first, before, 11)
    first.param_groups[0]["lr"] = 0.123
    after = build(OURS, second)
    second.load_state_dict(first.state_dict())
    after.load_state_dict(before.state_dict())
    assert rate(second) == 0.123


@BOTH
def test_last_epoch_on_rates_that_were_not_restored(module: Any) -> None:
    for build, right in (
        (lambda o: module.StepLR(o, 3, 0.5, last_epoch=9), 0.5**4),
        (lambda o: module.ExponentialLR(o, 0.9, last_epoch=9), 0.5 * 0.9**10),
        (lambda o: module.CosineAnnealingLR(o, 20, last_epoch=9), cosine(10, 20)),
    ):
        optimizer = sgd()
        optimizer.param_groups[0]["initial_lr"] = 0.5
        build(optimizer)
        if module is OURS:
            assert rate(optimizer) == pytest.approx(right, rel=1e-14)
        else:
            assert rate(optimizer) == 0.5


# ---- rounding ------------------------------------------------------------------------------------------------


@BOTH
def test_rates_in_float32_do_not_drift(module: Any) -> None:
    optimizer = sgd(torch.tensor(0.5))
    scheduler = module.LinearLR(optimizer, start_factor=1e-3, total_iters=20_000)
    for _ in range(15_000):
        scheduler.step()
    error = abs(rate(optimizer) / (0.5 * (1e-3 + 0.999 * 0.75)) - 1)
    assert (error < 1.2e-7) == (module is OURS)


@BOTH
def test_last_step_of_a_long_cosine(module: Any) -> None:
    optimizer = sgd()
    module.CosineAnnealingLR(optimizer, T_max=10**6).step(10**6 - 1)
    right = 0.5 * math.sin(math.pi / 2 / 10**6) ** 2
    assert (abs(rate(optimizer) / right - 1) < 1e-14) == (module is OURS)


# ---- and where they do not differ ----------------------------------------------------------------------------


@BOTH
def test_cosine_rises_again(module: Any) -> None:
    optimizer = sgd()
    rates = walk(optimizer, module.CosineAnnealingLR(optimizer, T_max=5, eta_min=0.1), 21)
    np.testing.assert_allclose(rates, [cosine(k, 5, 0.1) for k in range(21)], rtol=1e-12)


def test_every_row_of_the_table_names_its_test() -> None:
    table = re.findall(r"^\|.*\| `(test_\w+)` \|$", OURS.__doc__ or "", flags=re.MULTILINE)
    here = [
        name for name in globals() if name.startswith("test_") and name != "test_every_row_of_the_table_names_its_test"
    ]
    assert sorted(table) == sorted(here)
