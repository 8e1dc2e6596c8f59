"""Part (e): how much of a training step is schedule and optimizer, torch against thalweg. Only times; trains nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from .. import optim, schedules
from .config import Config
from .data import Split
from .models import build

TITLES = {
    "torch": "torch SGD + CosineAnnealingWarmRestarts",
    "torch fused": "the same, fused=True",
    "thalweg": "thalweg SGD, schedule inside",
}
_LR, _WARM_UP = 1e-3, 20


def _contestants(config: Config) -> dict[str, tuple[torch.nn.Module, torch.optim.Optimizer, Callable[[], None]]]:
    """Return model, optimizer and "optimizer step plus schedule" of each; all have the same shapes and numbers."""
    found: dict[str, tuple[torch.nn.Module, torch.optim.Optimizer, Callable[[], None]]] = {}
    cycle = config.cycle_steps
    for name in TITLES:
        model = build(0)
        options: dict[str, Any] = {
            "momentum": config.momentum,
            "nesterov": True,
            "weight_decay": config.weight_decay,
        }
        if name == "thalweg":
            ours = optim.SGD(model.parameters(), lr=schedules.sgdr(_LR, t_0=cycle), **options)
            found[name] = (model, ours, ours.step)
            continue
        theirs = torch.optim.SGD(model.parameters(), lr=_LR, fused=name == "torch fused" or None, **options)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(theirs, T_0=cycle)
        found[name] = (model, theirs, _both(theirs, scheduler))
    return found


def _both(optimizer: torch.optim.Optimizer, scheduler: torch.optim.lr_scheduler.LRScheduler) -> Callable[[], None]:
    def step() -> None:
        optimizer.step()
        scheduler.step()

    return step


def measure(config: Config, split: Split) -> dict[str, Any]:
    """Time every contestant in turn, again and again, and return medians.

    Returns:
        Per contestant the microseconds of "gradient" (zero_grad, forward, backward) and "update" (optimizer and
        schedule), and "share", the update's part of the two together. Their sum is a whole training step.
    """
    contestants = _contestants(config)
    inputs, labels = (tensor[: config.batch_size] for tensor in split.train)
    times: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in contestants}
    for turn in range(config.repeats + _WARM_UP):
        for name, (model, optimizer, update) in contestants.items():
            begin = time.perf_counter()
            optimizer.zero_grad()
            cross_entropy(model(inputs), labels).backward()  # type: ignore[no-untyped-call]
            middle = time.perf_counter()
            update()
            end = time.perf_counter()
            if turn >= _WARM_UP:
                times[name][0].append(middle - begin)
                times[name][1].append(end - middle)
    result: dict[str, Any] = {}
    for name, (gradient, update_times) in times.items():
        both = [1e6 * median(gradient), 1e6 * median(update_times)]
        result[name] = {"gradient_us": both[0], "update_us": both[1], "share": both[1] / sum(both)}
    return result
