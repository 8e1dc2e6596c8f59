"""Checks of hyper-parameters with torch's exception types and texts."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from .._check import describe
from ..schedules import Schedule


def check_implementation(who: str, foreach: bool | None, fused: bool | None, differentiable: bool) -> None:
    """Accept torch's implementation flags: thalweg has one implementation, so they choose nothing."""
    if fused and foreach:
        raise RuntimeError("`fused` and `foreach` cannot be `True` together.")
    if fused and differentiable:
        raise RuntimeError("`fused` does not support `differentiable`")
    if differentiable:
        raise RuntimeError(f"{who}: differentiable=True is not supported; use torch's optimizer for that")


def check_lr(lr: Any) -> None:
    """Check a learning rate as torch does; a Schedule has checked itself."""
    if isinstance(lr, Schedule):
        return
    if isinstance(lr, Tensor) and lr.numel() != 1:
        raise ValueError("Tensor lr must be 1-element")
    check_number("learning rate", lr)


def check_number(what: str, value: Any, below: float = math.inf) -> None:
    """Require 0 <= value < below, with torch's text; NaN and infinity are refused."""
    if isinstance(value, Tensor):
        if value.numel() != 1:
            raise ValueError(f"Tensor {what} must be 1-element")
    elif isinstance(value, bool) or not hasattr(value, "__float__"):
        raise TypeError(f"{what} must be a number, got {describe(value)}")
    if not 0.0 <= float(value) < below:
        raise ValueError(f"Invalid {what}: {value}")


def check_max_grad_norm(who: str, value: float | None) -> float | None:
    """Accept None or a number >= 0."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{who}: max_grad_norm must be a number or None, got {describe(value)}")
    if not float(value) >= 0.0:
        raise ValueError(f"{who}: max_grad_norm must be >= 0, got {value}")
    return float(value)
