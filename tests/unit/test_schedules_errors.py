"""Bad input: every constructor and method says who, which, what was expected and what came; nothing is half made."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest

from thalweg import schedules
from thalweg.schedules import Schedule, from_dict

GOOD: dict[str, dict[str, Any]] = {
    "constant": {"lr": 0.1, "total_steps": 5},
    "linear": {"lr": 0.1, "total_steps": 5, "end_lr": 0.2, "end": "inclusive"},
    "step": {"lr": 0.1, "step_size": 3, "gamma": 0.5, "total_steps": 9},
    "multistep": {"lr": 0.1, "milestones": [1, 2], "gamma": 0.5, "total_steps": 9},
    "exponential": {"lr": 0.1, "gamma": 0.5, "total_steps": 9},
    "polynomial": {"lr": 0.1, "total_steps": 5, "power": 2.0, "eta_min": 0.01, "end": "inclusive", "k": 2.0},
    "cosine": {"lr": 0.1, "total_steps": 5, "eta_min": 0.01, "end": "inclusive", "exponent": 2.0, "k": 2.0},
    "geometric": {"min_lr": 0.1, "max_lr": 1.0, "num_steps": 5},
    "sgdr": {
        "lr": 0.1, "t_0": 5, "t_mult": 2, "eta_min": 0.01, "decay": 0.9, "total_steps": 40, "warmup_steps": 2,
        "warmup_start": 0.0, "style": "hf",
    },
    "rex": {"lr": 0.1, "total_steps": 5, "eta_min": 0.01, "end": "inclusive"},
    "tanh": {"lr": 0.1, "total_steps": 5, "eta_min": 0.01},
    "flat_cosine": {"lr": 0.1, "total_steps": 5, "pct_start": 0.5, "eta_min": 0.01},
    "inverse_time": {"lr": 0.1, "decay_rate": 0.5, "decay_steps": 5, "total_steps": 40},
    "inverse_sqrt": {"lr": 0.1, "timescale": 5, "shift": 3, "total_steps": 40},
    "noam": {"d_model": 64, "warmup_steps": 5, "factor": 2.0, "total_steps": 40},
    "piecewise_constant": {"steps": [1, 2], "values": [0.1, 0.2, 0.3], "total_steps": 40},
    "piecewise_linear": {"steps": [1, 2], "values": [0.1, 0.2]},
    "piecewise_cosine": {"steps": [1, 2], "values": [0.1, 0.2]},
    "cyclic": {
        "base_lr": 0.1, "max_lr": 0.2, "step_size": 4, "amplitude": [1.0, 0.5], "per": "step", "step_size_down": 3,
        "total_steps": 40,
    },
    "noise": {"amplitude": 0.5, "seed": 3, "distribution": "uniform", "std": 0.5, "total_steps": 40},
    "cooldown": {"lr": 0.1, "total_steps": 5, "eta_min": 0.01, "shape": "linear", "end": "inclusive"},
    "wsd": {
        "lr": 0.1, "warmup_steps": 5, "decay_steps": 5, "stable_steps": 5, "eta_min": 0.01, "shape": "cosine",
        "start": 0.01, "style": "plus1", "warmup_shape": "cosine", "end": "inclusive",
    },
    "exponential_warmup": {"lr": 0.1, "tau": 10.0, "start": 0.01, "total_steps": 40},
    "untuned_warmup": {"lr": 0.1, "beta2": 0.99, "shape": "linear", "start": 0.01},
    "snapshot_cosine": {"lr": 0.1, "total_steps": 50, "cycles": 3, "split": "even", "eta_min": 0.01},
    "triangular": {"base_lr": 0.1, "max_lr": 0.2, "step_size": 4, "step_size_down": 3, "total_steps": 40},
    "triangular2": {"base_lr": 0.1, "max_lr": 0.2, "step_size": 4, "step_size_down": 3, "total_steps": 40},
    "exp_range": {
        "base_lr": 0.1, "max_lr": 0.2, "step_size": 4, "gamma": 0.9, "step_size_down": 3, "total_steps": 40,
    },
    "warmup": {"warmup_steps": 5, "lr": 0.1, "start": 0.01, "style": "hf", "shape": "cosine"},
    "one_cycle": {
        "max_lr": 0.1, "total_steps": 50, "pct_start": 0.3, "div_factor": 25.0, "final_div_factor": 1e4,
        "base_momentum": 0.85, "max_momentum": 0.95, "anneal": "cos", "end": "exclusive",
    },
    "table": {"values": [0.1, 0.2]},
}  # fmt: skip
LENGTHS = {
    "total_steps", "step_size", "step_size_down", "num_steps", "t_0", "cycles", "warmup_steps", "decay_steps",
    "stable_steps", "timescale", "shift", "d_model", "seed",
}  # fmt: skip
MAY_BE_0 = {"warmup_steps", "stable_steps", "seed"}
WORDS = {"end", "split", "style", "anneal", "shape", "distribution", "per", "warmup_shape"}
LISTS = {"milestones", "values", "steps", "amplitude"}


def cases() -> list[Any]:
    out = []
    for name, arguments in GOOD.items():
        for argument in arguments:
            if argument in WORDS:
                bad: list[Any] = ["nonsense", 3, None]
            elif argument == "amplitude" and name == "noise":
                bad = [math.nan, 0.0, 1.5, "0.1", True]
            elif argument in LISTS:
                bad = [3, "1, 2", [], [-1], ["x"], [math.nan], [True]]
            elif argument in LENGTHS:
                bad = [-3, 2.5, math.nan, math.inf, "5", True, 2**70]
                bad += [] if argument in MAY_BE_0 or (name == "wsd" and argument == "decay_steps") else [0]
                bad = [value for value in bad if not (argument == "d_model" and value == 2**70)]
            else:
                bad = [math.nan, math.inf, "0.1", 1j, True, [0.1]] + ([] if argument in ("lower", "upper") else [-0.1])
            out += [pytest.param(name, argument, value, id=f"{name}-{argument}-{value!r}") for value in bad]
    return out


@pytest.mark.parametrize(("name", "argument", "value"), cases())
def test_bad_argument(name: str, argument: str, value: Any) -> None:
    with pytest.raises((ValueError, TypeError)) as caught:
        getattr(schedules, name)(**{**GOOD[name], argument: value})
    text = str(caught.value)
    assert text.startswith(f"{name}: ")
    assert argument in text


@pytest.mark.parametrize("name", GOOD)
def test_good_arguments_are_good(name: str) -> None:
    getattr(schedules, name)(**GOOD[name])


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: schedules.cosine(0.1, 10, eta_min=0.2), "cosine: eta_min must be a finite number >= 0 and <= 0.1"),
        (lambda: schedules.sgdr(0.1, 10, eta_min=0.2), "sgdr: eta_min"),
        (lambda: schedules.sgdr(0.1, 10, decay=0.0), "sgdr: decay"),
        (lambda: schedules.polynomial(0.1, 10, power=0.0), "polynomial: power"),
        (lambda: schedules.snapshot_cosine(0.1, 10, 11), "snapshot_cosine: cycles"),
        (lambda: schedules.snapshot_cosine(0.1, 2**53, 2**20), r"snapshot_cosine: total_steps \* cycles"),
        (lambda: schedules.triangular(0.2, 0.1, 10), "triangular: max_lr"),
        (lambda: schedules.exp_range(0.1, 0.2, 10, 1.5), "exp_range: gamma"),
        (lambda: schedules.multistep(0.1, [5, 3]), "multistep: milestones must ascend"),
        (lambda: schedules.geometric(0.0, 0.1, 10), "geometric: min_lr"),
        (lambda: schedules.geometric(1e-300, 1e300, 10), "geometric: max_lr / min_lr"),
        (lambda: schedules.geometric(0.1, 1.0, 1), "geometric: num_steps"),
        (lambda: schedules.one_cycle(0.1, 10, 0.6, three_phase=True), "one_cycle: pct_start"),
        (lambda: schedules.one_cycle(0.1, 10, three_phase=1), "one_cycle: three_phase must be True or False"),
        (lambda: schedules.sgdr(0.1, 10, total_steps=20, cycles=2), "sgdr: give total_steps or cycles, got both"),
        (lambda: schedules.sgdr(0.1, 10, cycles=0), "sgdr: cycles"),
        (lambda: schedules.sgdr(0.1, 10, t_mult=0.5), "sgdr: t_mult must be >= 1 unless total_steps or cycles"),
        (lambda: schedules.sgdr(0.1, 10, warmup_steps=10), "sgdr: warmup_steps must be below t_0 = 10, got 10"),
        (lambda: schedules.sgdr(0.1, 10, 1.0001), "sgdr: t_mult 1.0001 from t_0 10 makes more than 10000 cycles"),
        (lambda: schedules.sgdr(0.1, 10, 2, cycles=99), "sgdr: cycles' sum of steps must be at most"),
        (lambda: schedules.sgdr(0.1, 10, 2.5, cycles=99), "sgdr: 99 cycles are longer than"),
        (lambda: schedules.tanh(0.1, 10, 3.0, 3.0), "tanh: upper must be a finite number > 3 and <= 300, got 3.0"),
        (lambda: schedules.tanh(0.1, 10, -400.0), "tanh: lower"),
        (lambda: schedules.inverse_time(0.1, 1.0, 5, staircase=1), "inverse_time: staircase must be True or False"),
        (lambda: schedules.piecewise_linear([3, 3], [0.1, 0.2]), "piecewise_linear: steps must ascend"),
        (lambda: schedules.piecewise_linear([3, 5], [0.1]), "piecewise_linear: values must be 2 numbers for 2 steps"),
        (lambda: schedules.cyclic(0.1, 0.2, 5, lambda k: 1.0), "cyclic: amplitude must be a Schedule or a list"),
        (lambda: schedules.noise(seed=2**63), "noise: seed"),
        (lambda: schedules.cooldown(0.1, 9, shape="exponential"), "cooldown: eta_min of an exponential cool-down"),
        (lambda: schedules.wsd(0.1, 1, 9, shape="exponential"), "wsd: eta_min of an exponential cool-down"),
        (lambda: schedules.wsd(0.1, 10, 9).decay_at(9), "WSD.decay_at: step must be an integer >= 10, got 9"),
        (lambda: schedules.untuned_warmup(0.1, 1.0), "untuned_warmup: beta2"),
        (lambda: schedules.add(schedules.constant(0.1), -1), "Schedule: factor"),
        (lambda: schedules.minimum(), "minimum: expected at least one"),
        (lambda: schedules.cosine(0.1, 10).every(0), "every: period"),
        (lambda: schedules.cosine(0.1, 10).advance(-1), "advance: steps"),
        (lambda: schedules.cosine(0.1, 10).scale_batch(0, 3), "scale_batch: from_batch"),
        (lambda: schedules.cosine(0.1, 10).scale_batch(3, 3, "cube"), "scale_batch: rule"),
        (lambda: schedules.cosine(0.1, 10).after_warmup(3, style="x"), "warmup: style"),
        (lambda: schedules.noise(0.1).stretch(2), "stretch: a noise"),
        (lambda: schedules.from_callable(3, 10), "from_callable: function must be callable"),
        (lambda: schedules.from_callable(lambda k: math.nan, 10), r"from_callable: function\[0\]"),
        (lambda: schedules.from_callable(lambda k: "x", 10), r"from_callable: function\[0\]"),
        (lambda: schedules.sequence(), "sequence: expected at least one"),
        (lambda: schedules.sequence(schedules.constant(0.1, 3), 3), "sequence: part must be a Schedule"),
        (lambda: schedules.constant(0.1) >> schedules.constant(0.2), "has no end, so nothing can follow it"),
        (lambda: schedules.constant(0.1).repeat(), "repeat: .* has no end"),
        (lambda: schedules.warmup(0, 0.1).repeat(), "repeat"),
        (lambda: schedules.cosine(0.1, 10).repeat(0), "repeat: count"),
        (lambda: schedules.cosine(0.1, 10).clip(0.2, 0.1), "clip: hi"),
        (lambda: schedules.cosine(0.1, 10).clip(lo=math.nan), "clip: lo"),
        (lambda: schedules.cosine(0.1, 10).delay(-1), "delay: steps"),
        (lambda: schedules.cosine(0.1, 10).stretch(0.0), "stretch: factor"),
        (lambda: schedules.cosine(0.1, 10).stretch(math.inf), "stretch: factor"),
        (lambda: schedules.table([0.1]).stretch(2), "stretch: a table"),
        (lambda: schedules.cosine(0.1, 10) * -1, "Schedule: factor"),
        (lambda: schedules.cosine(0.1, 10) * math.nan, "Schedule: factor"),
        (lambda: schedules.cosine(0.1, 10) * True, "Schedule: factor"),
        (lambda: schedules.cosine(0.1, 2**53).repeat(2**53), "longer than"),
        (lambda: schedules.cosine(0.1, 10)(-1), "Schedule: step"),
        (lambda: schedules.cosine(0.1, 10)(1.5), "Schedule: step"),
        (lambda: schedules.cosine(0.1, 10)("1"), "Schedule: step"),
        (lambda: schedules.cosine(0.1, 10)(True), "Schedule: step"),
        (lambda: schedules.cosine(0.1, 10)(10**30), "Schedule: step"),
        (lambda: schedules.cosine(0.1, 10).values(-1), "Schedule.values: n"),
        (lambda: schedules.cosine(0.1, 10).values(3, start=-1), "Schedule.values: start"),
        (lambda: schedules.sgdr(0.1, 10).values(), "no end, so n must be given"),
        (lambda: schedules.sgdr(0.1, 10).cycle_ends(), "no end, so n must be given"),
        (lambda: schedules.sgdr(0.1, 10).boundaries(), "no end, so n must be given"),
        (lambda: schedules.cosine(0.1, 10).ascii(width=1), "Schedule.ascii: width"),
        (lambda: schedules.cosine(0.1, 10).ascii(steps=0), "steps"),
        (lambda: schedules.cosine(0.1, 10).is_cycle_end(-1), "Schedule: step"),
    ],
)
def test_bad_combination(make: Callable[[], object], match: str) -> None:
    with pytest.raises((ValueError, TypeError), match=match):
        make()


@pytest.mark.parametrize("other", [3, "x", None, [0.1]])
def test_operators_refuse_other_things(other: Any) -> None:
    cosine = schedules.cosine(0.1, 10)
    with pytest.raises(TypeError):
        cosine >> other
    with pytest.raises(TypeError):
        other >> cosine
    if not isinstance(other, int):
        with pytest.raises(TypeError):
            cosine * other


def test_deep_nesting_is_refused_when_it_is_made() -> None:
    def nest(levels: int) -> Schedule:
        schedule = schedules.cosine(0.1, 10)
        for _ in range(levels):
            schedule = (schedule * 0.9).clip(hi=0.5)
        return schedule

    assert nest(15)(0) == pytest.approx(0.1 * 0.9**15)
    with pytest.raises(ValueError, match="nested more than 32 deep"):
        nest(16)


def test_chains_are_one_level() -> None:
    cosine = schedules.cosine(0.1, 10)
    chain = scaled = cosine
    for _ in range(100):
        chain, scaled = chain >> cosine, scaled * 0.5
    assert chain(1_005) == cosine(5)
    assert scaled(5) == cosine(5) / 2**100


def described(**changes: Any) -> dict[str, Any]:
    return {**schedules.cosine(0.1, 10).to_dict(), **changes}


@pytest.mark.parametrize(
    "bad",
    [
        None,
        3,
        [],
        "cosine(0.1, 10)",
        {},
        described(format=2),
        described(format=None),
        described(kind="sine"),
        described(kind=None),
        described(kind=["cosine"]),
        described(lr=-1.0),
        described(lr=None),
        described(total_steps=0),
        described(extra=1),
        {"format": 1, "kind": "cosine"},
        {"format": 1, "kind": "sequence", "parts": []},
        {"format": 1, "kind": "sequence", "parts": [3]},
        {"format": 1, "kind": "sequence", "parts": "ab"},
        {"format": 1, "kind": "product", "parts": []},
        {"format": 1, "kind": "repeat", "parts": [{"kind": "constant", "lr": 0.1}]},
        {"format": 1, "kind": "repeat", "parts": [{"kind": "constant", "lr": 0.1, "total_steps": 2}], "n": 2},
        {"format": 1, "kind": "clip", "parts": [{"kind": "constant", "lr": 0.1}, {"kind": "constant", "lr": 0.1}]},
        {"format": 1, "kind": "number", "value": math.nan},
        {"format": 1, "kind": "one_cycle", "part": "beta"},
        {"format": 1, "kind": "one_cycle", "part": "lr"},
        {"format": 1, "kind": "__class__"},
    ],
    ids=lambda bad: json.dumps(bad)[:60],
)
def test_from_dict_refuses(bad: Any) -> None:
    with pytest.raises((ValueError, TypeError)) as caught:
        from_dict(bad)
    assert ": " in str(caught.value)
    assert caught.type in (ValueError, TypeError)
