"""Part (a): the learning-rate range test, and the rates that every run of a setting takes from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from .. import optim
from ..lr_range import RangeTestResult, range_test
from .config import Config
from .data import Split
from .models import build
from .training import batch_order

MIN_LR, MAX_LR = 1e-5, 10.0
_FALLBACK = (0.01, (0.001, 0.1))


@dataclass(frozen=True, eq=False)
class Rates:
    """Learning rates of one setting.

    Attributes:
        suggestion: For the constant schedule.
        base_lr: Lower end of the triangular schedule.
        max_lr: Upper end of the triangular schedule, and the peak of step decay, cosine and SGDR.
        measured: False when the range test gave no suggestion and these are the usual values instead.
    """

    suggestion: float
    base_lr: float
    max_lr: float
    measured: bool


def sgd(model: torch.nn.Module, lr: Any, config: Config) -> optim.SGD:
    """Return thalweg's SGD as every run uses it; `lr` is a number or a schedule."""
    return optim.SGD(
        model.parameters(), lr=lr, momentum=config.momentum, nesterov=True, weight_decay=config.weight_decay
    )


def run(config: Config, split: Split, seed: int) -> RangeTestResult:
    """Run the range test on the training images of `split` with the network of `seed`."""
    model = build(seed)
    inputs, labels = split.train
    order = batch_order(len(labels), config.batch_size, config.range_steps, seed)
    return range_test(
        model,
        torch.nn.functional.cross_entropy,
        [(inputs[rows], labels[rows]) for rows in order],
        sgd(model, MIN_LR, config),
        min_lr=MIN_LR,
        max_lr=MAX_LR,
        num_steps=config.range_steps,
        progress=False,
    )


def rates(result: RangeTestResult) -> Rates:
    """Return the rates that follow from a range test, in two digits; usual ones when it abstained."""
    if result.suggestion is None or result.bounds is None:
        suggestion, bounds = _FALLBACK
        return Rates(suggestion, *bounds, measured=False)
    suggestion, base_lr, max_lr = (float(f"{value:.2g}") for value in (result.suggestion, *result.bounds))
    return Rates(suggestion, base_lr, max_lr, measured=True)
