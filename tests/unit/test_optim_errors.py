"""What is refused: torch's own errors where torch has the class, and the texts of the others."""

from __future__ import annotations

import inspect
import math
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import thalweg as tw

sys.path.insert(0, str(Path(__file__).parents[1]))
from parity.optimizer_cases import NAMES, class_of, torch_of

BAD: dict[str, list[Any]] = {
    "lr": [-1.0, math.nan, torch.ones(2), torch.tensor(-0.5)],
    "eps": [-1e-8, math.nan],
    "weight_decay": [-0.1, math.nan],
    "betas": [(1.0, 0.9), (-0.1, 0.9), (0.9, 1.0), (0.9, math.nan)],
    "momentum": [-0.5],
    "nesterov": [True],
    "rho": [-0.1, 1.1],
    "alpha": [-0.5],
    "lr_decay": [-0.5],
    "initial_accumulator_value": [-1.0],
    "momentum_decay": [-0.2],
    "etas": [(1.0, 1.2), (0.0, 1.2), (0.5, 1.0), (1.2, 0.5)],
}


def refusal(make: Any, options: dict[str, Any]) -> Exception | None:
    try:
        make([nn.Parameter(torch.zeros(1))], **options)
    except Exception as error:
        return error
    return None


def parameters_of(name: str) -> set[str]:
    return set(inspect.signature(torch_of(name) or class_of(name)).parameters)


TORCHS = [
    (name, {option: value})
    for name in NAMES
    if torch_of(name) is not None
    for option, values in BAD.items()
    if option in parameters_of(name)
    for value in values
    if refusal(torch_of(name), {option: value}) is not None
]


@pytest.mark.parametrize(("name", "options"), TORCHS, ids=[f"{n}-{o}" for n, o in TORCHS])
def test_errors_are_torchs(name: str, options: dict[str, Any]) -> None:
    theirs, ours = refusal(torch_of(name), options), refusal(class_of(name), options)
    assert type(ours) is type(theirs)
    assert str(theirs) in str(ours)
    group = {"params": [nn.Parameter(torch.zeros(1))], **options}
    assert type(refusal(lambda params: class_of(name)([group]), {})) is type(theirs), "in a group too"


def test_the_table_knows_every_option_that_torch_checks() -> None:
    checked = set()
    for name in NAMES:
        if torch_of(name) is not None:
            source = inspect.getsource(torch_of(name).__init__)
            checked |= set(re.findall(r"if not 0\.0 <=? (\w+)", source))
    assert checked <= set(BAD)
    assert {next(iter(options)) for _, options in TORCHS} == set(BAD)


@pytest.mark.parametrize("name", [n for n in NAMES if "fused" in parameters_of(n)])
@pytest.mark.parametrize("other", ["foreach", "differentiable"])
def test_flags_that_exclude_each_other(name: str, other: str) -> None:
    options = {"fused": True, other: True}
    theirs, ours = refusal(torch_of(name), options), refusal(class_of(name), options)
    assert type(ours) is type(theirs) is RuntimeError
    assert str(theirs) in str(ours)


def test_signatures_begin_with_torchs() -> None:
    """Order, defaults and kinds of all that torch has."""
    for name in NAMES:
        if torch_of(name) is not None:
            theirs, ours = (list(inspect.signature(k).parameters.values()) for k in (torch_of(name), class_of(name)))
            assert [(p.name, p.default, p.kind) for p in ours[: len(theirs)]] == [
                (p.name, p.default, p.kind) for p in theirs
            ], name


OWN: list[tuple[str, dict[str, Any], type[Exception], str]] = [
    *(
        (name, options, error, text)
        for name in NAMES
        if torch_of(name) is None
        for options, error, text in [
            ({"lr": -1.0}, ValueError, "Invalid learning rate: -1.0"),
            ({"lr": torch.ones(2)}, ValueError, "Tensor lr must be 1-element"),
            ({"lr": "0.1"}, TypeError, "learning rate must be a number, got '0.1'"),
            ({"weight_decay": -0.1}, ValueError, "Invalid weight_decay value: -0.1"),
            ({"momentums": 1}, TypeError, "unexpected keyword argument 'momentums'"),
        ]
    ),
    ("lion", {"betas": (0.9, 1.0)}, ValueError, "Invalid beta parameter at index 1: 1.0"),
    ("lion", {"betas": 0.9}, TypeError, "Lion: betas must be a pair of numbers, got 0.9"),
    ("adan", {"betas": (0.9, 0.99)}, TypeError, r"Adan: betas must be three numbers, got \(0.9, 0.99\)"),
    ("adan", {"eps": -1.0}, ValueError, "Invalid epsilon value: -1.0"),
    ("ademamix", {"betas": (0.9, 0.99, -1.0)}, ValueError, "Invalid beta parameter at index 2: -1.0"),
    ("ademamix", {"alpha": -1.0}, ValueError, "Invalid alpha value: -1.0"),
    ("ademamix", {"eps": math.nan}, ValueError, "Invalid epsilon value: nan"),
    ("ademamix", {"alpha_warmup": -1}, ValueError, "AdEMAMix: alpha_warmup must be >= 0 steps, got -1"),
    ("ademamix", {"beta3_warmup": 1.5}, TypeError, "AdEMAMix: beta3_warmup must be an integer, got 1.5"),
    ("lamb", {"betas": (0.9, 1.0)}, ValueError, "Invalid beta parameter at index 1: 1.0"),
    ("lamb", {"eps": -1.0}, ValueError, "Invalid epsilon value: -1.0"),
    ("rprop", {"etas": 0.5}, TypeError, "Rprop: etas must be a pair of numbers, got 0.5"),
    ("rprop", {"step_sizes": (1, 2, 3)}, TypeError, r"Rprop: step_sizes must be a pair of numbers, got \(1, 2, 3\)"),
    ("asgd", {"lambd": math.nan}, ValueError, "Invalid lambd value: nan"),
    ("asgd", {"alpha": math.inf}, ValueError, "Invalid alpha value: inf"),
    ("asgd", {"t0": math.nan}, ValueError, "Invalid t0 value: nan"),
    ("sgd_schedule_free", {"momentum": 0.0}, ValueError, r"SGDScheduleFree: momentum must be in \(0, 1\), got 0.0"),
    ("sgd_schedule_free", {"momentum": 1.0}, ValueError, r"SGDScheduleFree: momentum must be in \(0, 1\), got 1.0"),
    (
        "sgd_schedule_free",
        {"momentum": tw.schedules.constant(0.9)},
        TypeError,
        "SGDScheduleFree: momentum must be a number, got .*cannot change",
    ),
    (
        "adamw_schedule_free",
        {"betas": (0.0, 0.9)},
        ValueError,
        r"AdamWScheduleFree: betas\[0\] must be in \(0, 1\), got 0.0",
    ),
    ("adamw_schedule_free", {"betas": (0.9, 1.0)}, ValueError, "Invalid beta parameter at index 1: 1.0"),
    ("adamw_schedule_free", {"eps": -1.0}, ValueError, "Invalid epsilon value: -1.0"),
    ("adamw_schedule_free", {"warmup_steps": -1}, ValueError, "AdamWScheduleFree: warmup_steps must be >= 0 steps"),
    ("sgd_schedule_free", {"warmup_steps": True}, TypeError, "SGDScheduleFree: warmup_steps must be an integer"),
    ("sgd_schedule_free", {"r": math.nan}, ValueError, "Invalid r value: nan"),
    ("sgd_schedule_free", {"weight_lr_power": math.inf}, ValueError, "Invalid weight_lr_power value: inf"),
]


@pytest.mark.parametrize(("name", "options", "error", "text"), OWN, ids=[f"{n}-{o}" for n, o, *_ in OWN])
def test_own_errors(name: str, options: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        class_of(name)([nn.Parameter(torch.zeros(1))], **options)


def test_infinite_t0_of_asgd_never_averages() -> None:
    p = nn.Parameter(torch.ones(1))
    optimizer = tw.optim.ASGD([p], lr=0.1, t0=math.inf)
    for _ in range(3):
        p.grad = torch.ones(1)
        optimizer.step()
    assert torch.equal(optimizer.state[p]["ax"], p.detach())


@pytest.mark.parametrize("name", NAMES)
def test_every_hyper_parameter_that_may_be_a_schedule_is_one(name: str) -> None:
    """lr, momentum, betas, weight_decay, rho and alpha; the group shows its value for the next step."""
    options = {key: None for key in ("lr", "momentum", "weight_decay", "rho") if key in parameters_of(name)}
    if name == "sgd_schedule_free":
        del options["momentum"]  # it must stay what it is
    if name in ("rmsprop", "ademamix"):
        options["alpha"] = None
    line = tw.schedules.linear(0.5, total_steps=4, end_lr=0.75)
    given: dict[str, Any] = dict.fromkeys(options, line)
    betas = class_of(name)([nn.Parameter(torch.zeros(1))]).defaults.get("betas")
    if betas is not None:
        given["betas"] = tuple(line if i or name != "adamw_schedule_free" else b for i, b in enumerate(betas))
    p = nn.Parameter(torch.ones(3))
    optimizer = class_of(name)([p], **given)
    twin = nn.Parameter(torch.ones(3))
    plain = class_of(name)([twin])
    for k in range(6):
        now = {key: line(k) for key in options}
        if betas is not None:
            now["betas"] = tuple(line(k) if isinstance(b, tw.schedules.Schedule) else b for b in given["betas"])
        group = optimizer.param_groups[0]
        assert {key: group[key] for key in now} == now
        plain.param_groups[0].update(now)
        p.grad, twin.grad = torch.full((3,), 1.0 + k), torch.full((3,), 1.0 + k)
        optimizer.step()
        plain.step()
    assert torch.equal(p, twin)
