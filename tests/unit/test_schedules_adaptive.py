"""Plateau and greedy: torch's decisions where torch is right, their own below zero, complete states."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch

from thalweg.schedules import Adaptive, Greedy, Plateau


def torch_plateau(**options: Any) -> torch.optim.lr_scheduler.ReduceLROnPlateau:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, eps=0.0, **options)


def random_options(rng: np.random.Generator) -> dict[str, Any]:
    return {
        "mode": str(rng.choice(["min", "max"])),
        "factor": float(rng.uniform(0.1, 0.9)),
        "patience": int(rng.integers(0, 5)),
        "threshold": float(rng.choice([0.0, 1e-4, 0.1])),
        "threshold_mode": str(rng.choice(["rel", "abs"])),
        "cooldown": int(rng.integers(0, 4)),
    }


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("sign", [1, -1])
def test_plateau_decides_as_torch(seed: int, sign: int) -> None:
    """On positive metrics by default, on negative ones only when torch's rule is asked for."""
    rng = np.random.default_rng(seed)
    options = random_options(rng)
    ours, theirs = Plateau(**options, torch_threshold=sign < 0), torch_plateau(**options)
    metrics = sign * np.abs(1 + np.cumsum(rng.normal(0, 0.05, 200)))
    metrics[rng.integers(0, 200, 5)] = math.nan
    for metric in metrics:
        before = theirs.optimizer.param_groups[0]["lr"]
        theirs.step(float(metric))
        now = theirs.optimizer.param_groups[0]["lr"]
        assert ours.update(metric) == (now != before)
        assert ours.multiplier == pytest.approx(now, rel=1e-14)
        assert (ours.best, ours.num_bad_epochs) == (theirs.best, theirs.num_bad_epochs)
        assert ours.cooldown_counter == theirs.cooldown_counter


def test_first_step_towards_infinity() -> None:
    for metric in (math.inf, math.nan):
        assert Plateau(patience=0).update(metric)
    assert not Plateau(patience=0).update(-math.inf)
    assert Plateau("max", patience=0).update(-math.inf)
    assert not Plateau("max", patience=0).update(torch.tensor(3.0))


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("level", [-5.0, 5.0])
def test_a_constant_metric_is_a_plateau_whatever_its_sign(mode: str, level: float) -> None:
    """torch never reduces on a constant -1 with mode "min"."""
    rule = Plateau(mode, patience=3, factor=0.5)
    assert [rule.update(level) for _ in range(9)] == [False] * 4 + [True] + [False] * 3 + [True]
    worse = Plateau(mode, patience=0)
    worse.update(level)
    assert worse.update(level + (1e-5 if mode == "min" else -1e-5) * abs(level))
    better = Plateau(mode, patience=0, threshold=0.01)
    better.update(level)
    assert not better.update(level + (-0.02 if mode == "min" else 0.02) * abs(level))
    assert better.update(better.best + (-0.005 if mode == "min" else 0.005) * abs(level))


def test_floor_and_cooldown() -> None:
    rule = Plateau(patience=0, factor=0.1, min_factor=0.05, cooldown=2)
    rule.update(1.0)
    assert [rule.update(2.0) for _ in range(7)] == [True, False, False, True, False, False, True]
    assert rule.multiplier == 0.05


def test_window_forgets_a_lucky_evaluation() -> None:
    metrics = [1.0, 0.01, *(0.9 - 0.01 * i for i in range(30))]
    best, window = Plateau(patience=4, factor=0.5), Plateau(patience=4, factor=0.5, reference="window", window=3)
    for metric in metrics:
        best.update(metric)
        window.update(metric)
    assert best.multiplier == 0.5**6
    assert window.multiplier == 1.0
    window.update(math.nan)
    assert window.best == min(metrics[-3:])


def greedy_reference(metrics: np.ndarray, o: dict[str, Any]) -> list[float]:
    """The published rule on a learning rate of 1, written out."""
    lr, best, good, bad, cool, warm, floor = 1.0, math.inf, 0, 0, 0, 0, 0
    out: list[float] = []
    for metric in metrics:
        if cool > 0:
            cool, good, bad = cool - 1, 0, 0
        elif warm > 0:
            warm, good, bad = warm - 1, 0, 0
        else:
            bound = best - o["threshold"] if o["threshold_mode"] == "abs" else best * (1 - o["threshold"])
            if metric < bound:
                best, good, bad = metric, good + 1, 0
            else:
                good, bad = 0, bad + 1
            if good > o["patience"]:
                lr, warm, good, floor = min(lr / o["factor"], o["max_factor"]), o["warmup"], 0, 0
            elif bad > o["patience"]:
                lr, cool, bad = max(lr * o["factor"], o["min_factor"]), o["cooldown"], 0
                floor += lr == o["min_factor"]
                if floor >= o["reset_after"] > 0 and lr == o["min_factor"]:
                    lr, best, good, bad, cool, warm, floor = 1.0, math.inf, 0, 0, 0, 0, 0
        out.append(lr)
    return out


@pytest.mark.parametrize("seed", range(30))
def test_greedy_follows_the_published_rule(seed: int) -> None:
    rng = np.random.default_rng(seed)
    options = {
        "factor": float(rng.uniform(0.5, 0.95)), "patience": int(rng.integers(0, 4)),
        "threshold": float(rng.choice([0.0, 1e-3])), "threshold_mode": str(rng.choice(["rel", "abs"])),
        "cooldown": int(rng.integers(0, 3)), "warmup": int(rng.integers(0, 3)),
        "min_factor": 0.2, "max_factor": 3.0, "reset_after": int(rng.integers(0, 4)),
    }  # fmt: skip
    metrics = np.abs(3 + np.cumsum(rng.normal(-0.002, 0.05, 400)))
    rule = Greedy(**options)
    got = []
    for metric in metrics:
        before = rule.multiplier
        assert rule.update(metric) == (rule.multiplier != before)
        got.append(rule.multiplier)
    assert got == greedy_reference(metrics, options)
    assert len(set(got)) > 2


def test_greedy_smooths_over_its_window() -> None:
    smooth, plain = Greedy(patience=0, factor=0.5, window=4), Greedy(patience=0, factor=0.5)
    metrics = np.random.default_rng(0).uniform(0, 1, 40)
    means = [metrics[max(0, i - 3) : i + 1].mean() for i in range(40)]
    for metric, mean in zip(metrics, means, strict=True):
        smooth.update(metric)
        plain.update(mean)
        assert smooth.multiplier == plain.multiplier
    spoilt = Greedy(patience=0, factor=0.5, window=2)
    assert spoilt.update(1.0)
    assert [spoilt.update(metric) for metric in (math.nan, 0.1, 0.2)] == [True, True, True]
    assert spoilt.multiplier == 2.0 / 2 / 2 * 2


@pytest.mark.parametrize(
    "make", [lambda: Plateau(patience=2, cooldown=3, reference="window"), lambda: Greedy(window=3)]
)
@pytest.mark.parametrize("at", [0, 1, 17, 60])
def test_state_is_complete(make: Any, at: int) -> None:
    metrics = np.abs(1 + np.cumsum(np.random.default_rng(at).normal(0, 0.1, 120)))
    rule, again = make(), make()
    for metric in metrics[:at]:
        rule.update(metric)
    again.load_state_dict(json.loads(json.dumps(rule.state_dict())))
    assert again == rule
    for metric in metrics[at:]:
        assert again.update(metric) == rule.update(metric)
        assert again.multiplier == rule.multiplier
    rule.reset()
    assert rule == make()
    assert rule != again


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Plateau("down"), "Plateau: mode must be one of 'min', 'max', got 'down'"),
        (lambda: Plateau(factor=1.0), "Plateau: factor must be a finite number >= 0 and < 1, got 1.0"),
        (lambda: Plateau(patience=-1), "Plateau: patience must be an integer >= 0"),
        (lambda: Plateau(threshold=-1), "Plateau: threshold"),
        (lambda: Plateau(threshold_mode="x"), "Plateau: threshold_mode"),
        (lambda: Plateau(cooldown=1.5), "Plateau: cooldown"),
        (lambda: Plateau(min_factor=2), "Plateau: min_factor"),
        (lambda: Plateau(reference="mean"), "Plateau: reference"),
        (lambda: Plateau(window=0), "Plateau: window"),
        (lambda: Plateau(torch_threshold=1), "Plateau: torch_threshold must be True or False"),
        (lambda: Greedy(factor=0.0), "Greedy: factor"),
        (lambda: Greedy(max_factor=0.5), "Greedy: max_factor"),
        (lambda: Greedy(min_factor=0.0), "Greedy: min_factor"),
        (lambda: Greedy(reset_after=-1), "Greedy: reset_after"),
        (lambda: Plateau().update("x"), "could not convert"),
        (lambda: Plateau().load_state_dict(3), "Plateau.load_state_dict: state_dict must be a dict"),
        (lambda: Plateau().load_state_dict({}), "expected a state_dict of Plateau, got one of None without kind"),
        (
            lambda: Plateau().load_state_dict(Greedy().state_dict()),
            "expected a state_dict of Plateau, got one of 'Gree",
        ),
        (
            lambda: Plateau().load_state_dict(Plateau(patience=3).state_dict()),
            "the saved rule has patience=3, this one",
        ),
    ],
)
def test_bad_input(make: Any, match: str) -> None:
    with pytest.raises((TypeError, ValueError), match=match):
        make()


def test_other_settings_only_when_asked() -> None:
    rule, other = Plateau(patience=3, factor=0.5), Plateau(patience=0, factor=0.5)
    other.update(1.0)
    other.update(1.0)
    rule.load_state_dict(other.state_dict(), allow_change=True)
    assert (rule.multiplier, rule.patience) == (0.5, 3)


def test_base_decides_nothing() -> None:
    with pytest.raises(NotImplementedError):
        Adaptive("min", 0.0, "rel", False).update(1.0)
    assert repr(Plateau(patience=3)).startswith("Plateau(factor=0.1, patience=3")
