"""Checks of hyper-parameters, with torch's exception types and texts, and of the options that torch has not."""

from __future__ import annotations

import math
from typing import Any, TypedDict

import torch
from torch import Tensor

from .._check import describe
from ..schedules import Schedule


def check_implementation(who: str, foreach: bool | None, fused: bool | None, differentiable: bool) -> None:
    """Accept torch's implementation flags: they choose nothing but `differentiable`, whose steps torch does."""
    if fused and foreach:
        raise RuntimeError(f"{who}: `fused` and `foreach` cannot be `True` together.")
    if fused and differentiable:
        raise RuntimeError(f"{who}: `fused` does not support `differentiable`")


def check_tensors_with_foreach(group: dict[str, Any], values: dict[str, Any]) -> None:
    """Refuse what torch's foreach implementation refuses, for those who ask for it."""
    for name, value in values.items():
        if isinstance(value, Tensor) and group["foreach"] and not group["capturable"]:
            raise ValueError(f"{name} as a Tensor is not supported for capturable=False and foreach=True")


def check_lr(lr: Any) -> None:
    """Check a learning rate as torch does; a Schedule has checked itself."""
    if isinstance(lr, Schedule):
        return
    if isinstance(lr, Tensor) and lr.numel() != 1:
        raise ValueError("Tensor lr must be 1-element")
    check_number("learning rate", lr)


def check_number(what: str, value: Any, below: float = math.inf, most: float = math.inf) -> None:
    """Require 0 <= value < below and <= most, with torch's text; NaN and infinity are refused.

    A Schedule has checked itself.
    """
    if isinstance(value, Schedule):
        return
    if isinstance(value, Tensor):
        if value.numel() != 1:
            raise ValueError(f"Tensor {what} must be 1-element")
    elif isinstance(value, bool) or not hasattr(value, "__float__"):
        raise TypeError(f"{what} must be a number, got {describe(value)}")
    if not 0.0 <= float(value) < below or float(value) > most:
        raise ValueError(f"Invalid {what}: {value}")


def check_betas(who: str, betas: Any, count: int = 2) -> None:
    """Check the decay rates of `count` averages, each in [0, 1), with torch's text."""
    if not isinstance(betas, (tuple, list)) or len(betas) != count:
        kind = {2: "a pair of", 3: "three"}[count]
        raise TypeError(f"{who}: betas must be {kind} numbers, got {betas!r}")
    for index, beta in enumerate(betas):
        check_number(f"beta parameter at index {index}", beta, below=1.0)


def check_pair(who: str, name: str, values: Any) -> None:
    """Require two numbers."""
    numbers = isinstance(values, (tuple, list)) and all(
        isinstance(v, (int, float)) and not isinstance(v, bool) for v in values
    )
    if not numbers or len(values) != 2:
        raise TypeError(f"{who}: {name} must be a pair of numbers, got {values!r}")


def check_steps(who: str, name: str, value: Any) -> None:
    """Check the length of a warm-up in steps."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{who}: {name} must be an integer, got {describe(value)}")
    if value < 0:
        raise ValueError(f"{who}: {name} must be >= 0 steps, got {value}")


class StepOptions(TypedDict, total=False):
    """What every optimizer takes beside torch's arguments.

    max_grad_norm: Clip the norm of all gradients together to this in the step itself; the gradients stay as they are.
    max_grad_value: Then clip every element to [-max_grad_value, max_grad_value].
    skip_nonfinite: Skip steps whose gradients hold NaN or infinity: parameters, state and schedule stay.
    ema_decay: Keep a moving average of every parameter, `ema` in its state; see `swap_ema`.
    zero_grad_in_step: Zero the gradients after their use, in the same pass.
    master_weights: Update float32 copies of 16-bit parameters, `master_param` in their state.
    stochastic_rounding: Round bfloat16 parameters up or down by chance, unbiased; needs no master weights.
    state_dtype: torch.float32 or torch.bfloat16 for the states; by default float32 beside master weights, otherwise the
        parameter's.
    seed: Of stochastic rounding: same seed, same bits.
    """

    max_grad_norm: float | None
    max_grad_value: float | None
    skip_nonfinite: bool
    ema_decay: float | None
    zero_grad_in_step: bool
    master_weights: bool
    stochastic_rounding: bool
    state_dtype: torch.dtype | None
    seed: int


DEFAULTS: StepOptions = {
    "max_grad_norm": None,
    "max_grad_value": None,
    "skip_nonfinite": False,
    "ema_decay": None,
    "zero_grad_in_step": False,
    "master_weights": False,
    "stochastic_rounding": False,
    "state_dtype": None,
    "seed": 0,
}


def check_options(who: str, options: StepOptions) -> StepOptions:
    """Complete and check the options; unknown names are a TypeError as for any keyword argument."""
    unknown = sorted(set(options) - set(DEFAULTS))
    if unknown:
        raise TypeError(f"{who}.__init__() got an unexpected keyword argument {unknown[0]!r}")
    full: StepOptions = {**DEFAULTS, **options}
    _check_limit(who, "max_grad_norm", full["max_grad_norm"])
    _check_limit(who, "max_grad_value", full["max_grad_value"])
    decay = full["ema_decay"]
    if decay is not None and (isinstance(decay, bool) or not isinstance(decay, (int, float)) or not 0 <= decay < 1):
        raise ValueError(f"{who}: ema_decay must be a number in [0, 1) or None, got {describe(decay)}")
    if full["state_dtype"] not in (None, torch.float32, torch.bfloat16):
        raise ValueError(
            f"{who}: state_dtype must be torch.float32, torch.bfloat16 or None, got {describe(full['state_dtype'])}"
        )
    if full["master_weights"] and full["stochastic_rounding"]:
        raise ValueError(
            f"{who}: master_weights and stochastic_rounding exclude each other; master weights need no rounding by chance"
        )
    seed = full["seed"]
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise ValueError(f"{who}: seed must be an integer in [0, 2^63), got {describe(seed)}")
    return full


def _check_limit(who: str, name: str, value: Any) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{who}: {name} must be a number or None, got {describe(value)}")
    if not float(value) >= 0.0:
        raise ValueError(f"{who}: {name} must be >= 0, got {value}")
