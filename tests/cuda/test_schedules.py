"""Schedules evaluated on the device against the host's values, for every shape and combination, up to 10^12 steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import thalweg as tw
from thalweg import _testing
from thalweg.schedules._plan import NODES, Tree

pytestmark = pytest.mark.cuda

S = tw.schedules
LONG = 10**12
SCHEDULES = {
    "constant": S.constant(0.3),
    "linear": S.linear(0.1, total_steps=LONG, end_lr=1e-5),
    "cosine": S.cosine(0.1, total_steps=LONG, eta_min=1e-7),
    "polynomial": S.polynomial(0.1, total_steps=LONG, power=2.3),
    "exponential": S.exponential(0.1, gamma=1 - 1e-11),
    "step": S.step(0.1, step_size=10**9, gamma=0.97),
    "multistep": S.multistep(0.1, milestones=[10, 10**6, 10**11], gamma=0.3),
    "sgdr": S.sgdr(0.1, t_0=1000, t_mult=3, eta_min=1e-6, decay=0.9),
    "sgdr, one length": S.sgdr(0.1, t_0=997, t_mult=1),
    "snapshot": S.snapshot_cosine(0.1, total_steps=10**10, cycles=7),
    "triangular": S.triangular(0.01, 0.1, 2000),
    "one_cycle": S.one_cycle(0.1, total_steps=LONG).lr,
    "warm-up then cosine": S.warmup(500, 0.1) >> S.cosine(0.1, total_steps=LONG, eta_min=1e-5),
    "geometric": S.geometric(1e-7, 10.0, num_steps=10**11),
    "hold": S.exponential(0.1, gamma=0.99, total_steps=777),
    "sequence": S.cosine(0.1, total_steps=1000)
    >> S.constant(0.01, total_steps=10**11)
    >> S.sgdr(0.1, t_0=10, t_mult=2),
    "repeat": S.cosine(0.1, total_steps=1000).repeat(10**8),
    "product and clip": (S.cosine(1.0, total_steps=LONG) * S.triangular(0.1, 1.0, 333)).clip(0.05, 0.9),
    "rex": S.rex(0.1, total_steps=LONG, eta_min=1e-6),
    "tanh": S.tanh(0.1, total_steps=LONG, eta_min=1e-6),
    "1-sqrt": S.cooldown(0.1, total_steps=LONG),
    "1-square": S.cooldown(0.1, total_steps=LONG, shape="1-square"),
    "k-decay": S.cosine(0.1, total_steps=LONG, eta_min=1e-6, k=3.0),
    "cosine with an exponent": S.cosine(0.1, total_steps=LONG, exponent=1.7),
    "polynomial with k-decay": S.polynomial(0.1, total_steps=LONG, power=1.5, k=2.0),
    "inverse time": S.inverse_time(0.1, decay_rate=0.5, decay_steps=10**6, staircase=True),
    "inverse square root": S.warmup(1000, 0.1) >> S.inverse_sqrt(0.1, timescale=1000),
    "exponential warm-up": S.exponential_warmup(0.1, tau=10.0**9),
    "noise": S.noise(0.5, seed=3, std=0.3),
    "uniform noise": S.noise(0.5, seed=3, distribution="uniform"),
    "restarts of real length": S.sgdr(0.1, t_0=1000, t_mult=1.3, eta_min=1e-6, decay=0.9, warmup_steps=100),
    "warm restarts": S.sgdr(0.1, t_0=1000, t_mult=2, eta_min=1e-6, warmup_steps=100, warmup_start=1e-3),
    "sum, minimum, maximum": S.maximum(S.minimum(S.cosine(1.0, total_steps=LONG) + 0.1, S.noise(0.2)), 0.5),
    "free amplitude, every": S.cyclic(0.01, 0.1, 2000, [1.0, 0.7, 0.5]),
    "advance": S.sgdr(0.1, t_0=1000, t_mult=2).advance(12345),
    "table": S.table(np.linspace(0.1, 0.0, 1001).tolist()),
}


def ulps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.abs(a - b) / np.spacing(np.maximum(np.abs(a), np.abs(b)))


@pytest.mark.parametrize("name", list(SCHEDULES))
def test_device_value_is_within_six_ulps_of_the_host(device: torch.device, name: str) -> None:
    schedule = SCHEDULES[name]
    rng = np.random.default_rng(0)
    steps = np.unique(
        np.concatenate([np.arange(3000), rng.integers(0, LONG, 2000), 10 ** np.arange(13), [LONG - 1, LONG, LONG + 7]])
    ).astype(np.int64)
    there = torch.from_numpy(steps).to(device)
    out = torch.full((len(steps),), float("nan"), dtype=torch.float64, device=device)
    _testing.values_cuda(schedule.plan.to_bytes(), there.data_ptr(), len(steps), out.data_ptr(), 0, 0)
    host = np.array([schedule(int(k)) for k in steps])
    got = out.cpu().numpy()
    worst = ulps(host, got)
    assert worst.max() <= 6, (
        f"step {steps[worst.argmax()]}: host {host[worst.argmax()]!r}, device {got[worst.argmax()]!r}"
    )
    differ = host.astype(np.float32) != got.astype(np.float32)
    if differ.any():  # only where the host's value lies on the border between two float32
        lower, upper = host.astype(np.float32)[differ], got.astype(np.float32)[differ]
        middle = (lower.astype(np.float64) + upper.astype(np.float64)) / 2
        assert (ulps(host[differ], middle) <= 6).all()


def kinds_in(tree: Tree) -> set[str]:
    return {tree.kind}.union(*(kinds_in(child) for child in tree.children))


def test_every_kind_of_node_is_covered() -> None:
    """A new shape must join the table above."""
    assert set().union(*(kinds_in(schedule._tree) for schedule in SCHEDULES.values())) == set(NODES)
