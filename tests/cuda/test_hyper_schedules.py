"""Momentum, betas and weight decay as schedules: against torch with the values written by hand before every step."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import thalweg as tw

pytestmark = pytest.mark.cuda

S = tw.schedules
CYCLE = S.one_cycle(0.1, total_steps=12)
DECAY = S.cosine(0.2, total_steps=12)
BETA = S.linear(0.8, total_steps=12, end_lr=0.95)
Capture = Callable[[], Any]


def params(device: torch.device) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(s, generator=generator).to(device)) for s in ((33, 5), (8,), ())]


def give(values: list[nn.Parameter], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for p in values:
        g = torch.randn(p.shape, generator=generator).to(p.device)
        if p.grad is None:
            p.grad = g
        else:
            p.grad.copy_(g)


def close(a: list[nn.Parameter], b: list[nn.Parameter]) -> None:
    for p, q in zip(a, b, strict=True):
        torch.testing.assert_close(p, q, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("nesterov", [False, True])
def test_one_cycle_with_its_momentum_inside_the_step(device: torch.device, nesterov: bool) -> None:
    a, b = params(device), params(device)
    opt = tw.optim.SGD(a, lr=CYCLE.lr, momentum=CYCLE.momentum, weight_decay=DECAY, nesterov=nesterov)
    peer = torch.optim.SGD(b, lr=1.0, momentum=0.9, nesterov=nesterov)
    for k in range(12):
        peer.param_groups[0].update(lr=CYCLE.lr(k), momentum=CYCLE.momentum(k), weight_decay=DECAY(k))
        group = opt.param_groups[0]
        assert (group["lr"], group["momentum"], group["weight_decay"]) == (CYCLE.lr(k), CYCLE.momentum(k), DECAY(k))
        give(a, k)
        give(b, k)
        opt.step()
        peer.step()
    close(a, b)


def test_betas_each_on_its_own_and_per_group(device: torch.device) -> None:
    a, b = params(device), params(device)
    opt = tw.optim.AdamW([{"params": a[:1], "betas": (BETA, 0.99)}, {"params": a[1:], "weight_decay": DECAY}], lr=0.01)
    peer = torch.optim.AdamW([{"params": b[:1]}, {"params": b[1:]}], lr=0.01)
    assert [sorted(names) for names in opt.hyper_schedules] == [["beta1"], ["weight_decay"]]
    for k in range(10):
        peer.param_groups[0]["betas"] = (BETA(k), 0.99)
        peer.param_groups[1]["weight_decay"] = DECAY(k)
        assert opt.param_groups[0]["betas"] == (BETA(k), 0.99)
        give(a, k)
        give(b, k)
        opt.step()
        peer.step()
    close(a, b)


def test_replays_move_every_schedule_on(device: torch.device, capture: Capture) -> None:
    a, b = params(device), params(device)
    opts = [tw.optim.SGD(v, lr=CYCLE.lr, momentum=CYCLE.momentum, weight_decay=DECAY) for v in (a, b)]
    for v, o in zip((a, b), opts, strict=True):
        give(v, 0)
        o.step()
    with capture() as graph:
        opts[1].step()
    for k in range(1, 12):
        give(a, k)
        give(b, k)
        opts[0].step()
        graph.replay()
        assert all(torch.equal(p, q) for p, q in zip(a, b, strict=True)), k
    opts[1].sync()
    assert opts[1].param_groups[0]["momentum"] == opts[0].param_groups[0]["momentum"] == CYCLE.momentum(12)


def test_a_momentum_that_passes_through_zero_keeps_its_buffer(device: torch.device) -> None:
    momentum = S.table([0.9, 0.0, 0.5, 0.0, 0.7])
    a, b = params(device), params(device)
    opt, peer = tw.optim.SGD(a, lr=0.1, momentum=momentum), torch.optim.SGD(b, lr=0.1, momentum=1e-300)
    for k in range(5):
        peer.param_groups[0]["momentum"] = momentum(k) or 1e-300  # torch drops the buffer's use at exactly zero
        give(a, k)
        give(b, k)
        opt.step()
        peer.step()
    close(a, b)


def test_checkpoints_pickles_and_copies_carry_the_schedules(device: torch.device) -> None:
    values = params(device)
    opt = tw.optim.AdamW(values, lr=CYCLE.lr, betas=(BETA, 0.99), weight_decay=DECAY)
    for k in range(4):
        give(values, k)
        opt.step()
    fresh = tw.optim.AdamW([nn.Parameter(p.detach().clone()) for p in values], lr=1.0)
    fresh.load_state_dict(copy.deepcopy(opt.state_dict()))
    twins = [fresh, copy.deepcopy(opt), pickle.loads(pickle.dumps(opt))]
    for k in range(4, 8):
        give(values, k)
        opt.step()
        for twin in twins:
            give(twin.param_groups[0]["params"], k)
            twin.step()
    for twin in twins:
        assert all(torch.equal(p, q) for p, q in zip(values, twin.param_groups[0]["params"], strict=True))
        assert twin.param_groups[0]["betas"] == (BETA(8), 0.99)


def test_a_foreign_write_takes_the_value_over(device: torch.device) -> None:
    values = params(device)
    opt = tw.optim.SGD(values, lr=CYCLE.lr, momentum=CYCLE.momentum)
    give(values, 0)
    opt.step()
    opt.param_groups[0]["momentum"] = 0.5
    give(values, 1)
    with pytest.warns(
        UserWarning, match=r"SGD: momentum of group 0 was set from outside to 0.5; its schedule is dropped"
    ):
        opt.step()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opt.step()
    assert opt.param_groups[0]["momentum"] == 0.5
    assert opt.param_groups[0]["lr"] == CYCLE.lr(3)
    assert opt.hyper_schedules == ({},)


def test_late_groups_begin_where_the_schedules_stand(device: torch.device) -> None:
    values, late = params(device), params(device)
    opt = tw.optim.SGD(values, lr=CYCLE.lr, momentum=CYCLE.momentum)
    for k in range(3):
        give(values, k)
        opt.step()
    opt.add_param_group({"params": late, "momentum": CYCLE.momentum})
    assert opt.param_groups[1]["momentum"] == CYCLE.momentum(3)
    assert opt.param_groups[1]["lr"] == CYCLE.lr(3)
