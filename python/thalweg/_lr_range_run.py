"""The training steps of a range test: batches, loss, update, and when to stop. Restores nothing itself."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from . import _check, _data
from ._lr_range_analysis import MIN_POINTS, Array, cap_of, level_and_noise
from ._preserve import unwrap

WHO = "range_test"
_IN_A_ROW = 3  # losses above the cap that end the test


def model_step(
    model: nn.Module, loss_of: Callable[[nn.Module, Any], Any], batches: Any, optimizer: torch.optim.Optimizer
) -> Callable[[], Any]:
    stream = _endless(batches)
    device = next((p.device for p in unwrap(model).parameters()), torch.device("cpu"))

    def step() -> Any:
        batch = _data.to_device(next(stream), device)
        optimizer.zero_grad(set_to_none=True)
        with torch.enable_grad():
            loss = loss_of(model, batch)
            _check.instance(WHO, "the loss", loss, torch.Tensor, "a tensor that backward() works on")
            value = _number(loss)
            if math.isfinite(value):
                loss.backward()
                optimizer.step()
        return value

    return step


def _endless(batches: Any) -> Iterator[Any]:
    """Yield batches, from the start again after the last; end only where there is no start."""
    source = _data.as_batches(WHO, batches)
    rounds = 0
    while True:
        count = 0
        for batch in source():
            count += 1
            yield batch
        if not count and not rounds:
            raise ValueError(f"{WHO}: batches is empty")
        if not count:
            return
        if not rounds and not isinstance(batches, torch.Tensor) and not _data.is_pair(batches):
            warnings.warn(f"{WHO}: batches ended after {count}; started again from the first", stacklevel=2)
        rounds += 1


def _number(loss: Any) -> float:
    if isinstance(loss, torch.Tensor):
        if loss.numel() != 1:
            raise ValueError(f"{WHO}: the loss must be a scalar, got shape {list(loss.shape)}; take its mean")
        return float(loss.detach())
    if isinstance(loss, bool) or not isinstance(loss, (int, float, np.floating, np.integer)):
        raise TypeError(
            f"{WHO}: the step must return the loss, a number or a scalar tensor, got {_check.describe(loss)}"
        )
    return float(loss)


def run_ramp(
    step: Callable[[], Any], set_lr: Callable[[float], None], lrs: Array, stop_early: bool, bar: Any
) -> tuple[Array, str]:
    """Train along `lrs`; return the losses, up to and with the first that is not finite, and why they end early."""
    losses: list[float] = []
    for lr in lrs:
        set_lr(float(lr))
        try:
            loss = _number(step())
        except StopIteration:
            return np.asarray(losses), f"the batches ended before lr {lr:.3g}"
        losses.append(loss)
        bar.update()
        if not math.isfinite(loss):
            if len(losses) <= MIN_POINTS:
                raise ValueError(
                    f"{WHO}: the loss is {loss} at step {len(losses)}, lr {lr:.3g}; it must be finite at the start: "
                    "check model and data, or lower min_lr"
                )
            return np.asarray(losses), f"the loss is {loss} at lr {lr:.3g}"
        if stop_early and _diverged(losses, len(lrs)):
            return np.asarray(losses), f"the loss has diverged at lr {lr:.3g}"
    return np.asarray(losses), ""


def _diverged(losses: list[float], total: int) -> bool:
    head = max(MIN_POINTS, total // 10)
    if len(losses) < head + _IN_A_ROW:
        return False
    level, noise = level_and_noise(np.asarray(losses[:head]))
    return min(losses[-_IN_A_ROW:]) > cap_of(level, noise)
