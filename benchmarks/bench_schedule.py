"""Schedules: `scheduler.step()` against torch's, whole arrays against NumPy."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch

import thalweg as tw


@pytest.mark.parametrize("groups", [1, 64])
@pytest.mark.parametrize("peer_name", ["CosineAnnealingLR", "OneCycleLR"])
def test_scheduler_step(against: Callable[..., None], groups: int, peer_name: str) -> None:
    def optimizer() -> torch.optim.Optimizer:
        return torch.optim.SGD([{"params": [torch.nn.Parameter(torch.ones(1))]} for _ in range(groups)], lr=0.1)

    total = 10**8
    ours_optimizer, peer_optimizer = optimizer(), optimizer()
    peer: torch.optim.lr_scheduler.LRScheduler
    if peer_name == "CosineAnnealingLR":
        ours = tw.schedules.cosine(0.1, total).bind(ours_optimizer)
        peer = torch.optim.lr_scheduler.CosineAnnealingLR(peer_optimizer, total)
    else:
        ours = tw.schedules.one_cycle(0.1, total).lr.bind(ours_optimizer)
        peer = torch.optim.lr_scheduler.OneCycleLR(peer_optimizer, 0.1, total_steps=total, cycle_momentum=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no optimizer steps in between, on purpose
        for _ in range(50):
            ours.step()
            peer.step()
        np.testing.assert_allclose(ours.get_last_lr(), peer.get_last_lr(), rtol=1e-9)
        against(
            "scheduler.step()", f"{groups} group{'s' if groups > 1 else ''}, {peer_name}", "torch", ours.step, peer.step
        )


DROP_INS = {
    "StepLR": {"step_size": 1000, "gamma": 0.99},
    "CosineAnnealingLR": {"T_max": 10**8},
    "OneCycleLR": {"max_lr": 0.1, "total_steps": 10**8},  # with its momentum
}


@pytest.mark.parametrize("groups", [1, 64])
@pytest.mark.parametrize("name", DROP_INS)
def test_drop_in_step(against: Callable[..., None], groups: int, name: str) -> None:
    """The torch-named class against torch's own, with the same arguments."""
    schedulers = []
    for module in (tw.lr_scheduler, torch.optim.lr_scheduler):
        params = [{"params": [torch.nn.Parameter(torch.ones(1))]} for _ in range(groups)]
        optimizer = torch.optim.SGD(params, lr=0.1, momentum=0.9)
        schedulers.append(getattr(module, name)(optimizer, **DROP_INS[name]))
    ours, peer = schedulers
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no optimizer steps in between, on purpose
        for _ in range(50):
            ours.step()
            peer.step()
        np.testing.assert_allclose(ours.get_last_lr(), peer.get_last_lr(), rtol=1e-9)
        case = f"{groups} group{'s' if groups > 1 else ''}, {name}"
        against("drop-in scheduler.step()", case, "torch", ours.step, peer.step)


def test_values_of_a_cosine(against: Callable[..., None]) -> None:
    n = 1_000_000
    schedule = tw.schedules.cosine(0.1, total_steps=n, eta_min=1e-3)

    def numpy() -> np.ndarray:
        return 1e-3 + (0.1 - 1e-3) * (1 + np.cos(np.pi * np.arange(n) / n)) / 2

    np.testing.assert_allclose(schedule.values(n), numpy(), rtol=1e-12)
    against("values(1,000,000) of a cosine", "1 thread", "NumPy", lambda: schedule.values(n), numpy)
