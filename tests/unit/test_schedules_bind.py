"""ScheduleLR: any torch optimizer, tensor rates, groups, momentum, states, torch's own containers."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler

import thalweg as tw
from thalweg import schedules
from thalweg.lr_scheduler import ScheduleLR

COSINE = schedules.warmup(3, 0.1) >> schedules.cosine(0.1, 20, 1e-4)


def params(groups: int = 1) -> list[dict[str, Any]]:
    return [{"params": [torch.nn.Parameter(torch.ones(2))]} for _ in range(groups)]


def sgd(groups: int = 1, lr: Any = 0.5, **options: Any) -> torch.optim.SGD:
    made = params(groups)
    for group in made:
        group["lr"] = lr.clone() if isinstance(lr, torch.Tensor) else lr
    return torch.optim.SGD(made, lr=0.5, **options)


def walk(optimizer: torch.optim.Optimizer, scheduler: Any, steps: int, group: int = 0) -> list[float]:
    """Rates used by `steps` updates."""
    out = []
    for _ in range(steps):
        out.append(float(optimizer.param_groups[group]["lr"]))
        optimizer.step()
        scheduler.step()
    return out


OPTIMIZERS = ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "NAdam", "RAdam", "Adadelta", "Adamax", "ASGD", "Rprop"]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_torch_optimizer(name: str) -> None:
    optimizer = getattr(torch.optim, name)(params())
    scheduler = COSINE.bind(optimizer)
    assert isinstance(scheduler, lr_scheduler.LRScheduler)
    assert walk(optimizer, scheduler, 30) == COSINE.values(30).tolist()
    assert scheduler.get_last_lr() == [COSINE(30)]
    assert scheduler.last_epoch == 30


def test_thalwegs_own_optimizer() -> None:
    optimizer = tw.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.5)
    assert walk(optimizer, COSINE.bind(optimizer), 25) == COSINE.values(25).tolist()


def test_groups_share_or_have_their_own() -> None:
    optimizer = sgd(3)
    scheduler = COSINE.bind(optimizer)
    walk(optimizer, scheduler, 5)
    assert [g["lr"] for g in optimizer.param_groups] == [COSINE(5)] * 3
    optimizer = sgd(2)
    other = schedules.step(0.3, 2)
    scheduler = ScheduleLR(optimizer, [COSINE, other])
    walk(optimizer, scheduler, 5)
    assert scheduler.get_last_lr() == [COSINE(5), other(5)] == [g["lr"] for g in optimizer.param_groups]


def test_relative_keeps_ratios() -> None:
    optimizer = torch.optim.SGD([{**params()[0], "lr": 1.0}, {**params()[0], "lr": 0.25}], lr=1.0)
    factor = schedules.cosine(1.0, 20)
    scheduler = factor.bind(optimizer, relative=True)
    walk(optimizer, scheduler, 7)
    assert [g["lr"] for g in optimizer.param_groups] == [factor(7) * 1.0, factor(7) * 0.25]


@pytest.mark.parametrize("relative", [False, True])
def test_group_added_later_follows(relative: bool) -> None:
    optimizer = sgd()
    scheduler = COSINE.bind(optimizer, relative=relative)
    walk(optimizer, scheduler, 4)
    optimizer.add_param_group({**params()[0], "lr": 0.25})
    walk(optimizer, scheduler, 2)
    assert optimizer.param_groups[0]["lr"] == COSINE(6) * (0.5 if relative else 1.0)
    assert optimizer.param_groups[1]["lr"] == COSINE(6) * (0.25 if relative else 1.0)
    assert len(scheduler.get_last_lr()) == 2


@pytest.mark.parametrize("relative", [False, True])
def test_tensor_rate_is_filled_in_place(relative: bool) -> None:
    optimizer = sgd(2, lr=torch.tensor(0.5, dtype=torch.float64))
    tensors = [g["lr"] for g in optimizer.param_groups]
    scheduler = COSINE.bind(optimizer, relative=relative)
    for k in range(6):
        assert all(g["lr"] is t for g, t in zip(optimizer.param_groups, tensors, strict=True))
        assert [float(t) for t in tensors] == [COSINE(k) * (0.5 if relative else 1.0)] * 2
        last = scheduler.get_last_lr()
        assert all(isinstance(x, torch.Tensor) and x is not t for x, t in zip(last, tensors, strict=True))
        assert [float(x) for x in last] == [float(t) for t in tensors]
        optimizer.step()
        scheduler.step()


def test_bundle_writes_momentum_or_first_beta() -> None:
    bundle = schedules.one_cycle(0.1, 20)
    for optimizer in (sgd(2, momentum=0.9), torch.optim.RMSprop(params(), momentum=0.9)):
        scheduler = bundle.bind(optimizer)
        walk(optimizer, scheduler, 8)
        assert all(g["momentum"] == bundle.momentum(8) and g["lr"] == bundle.lr(8) for g in optimizer.param_groups)
    adam = torch.optim.AdamW(params(), betas=(0.9, 0.98))
    scheduler = bundle.bind(adam)
    assert adam.param_groups[0]["betas"] == (0.95, 0.98)
    walk(adam, scheduler, 8)
    assert adam.param_groups[0]["betas"] == (bundle.momentum(8), 0.98)
    beta = torch.tensor(0.9, dtype=torch.float64)
    options: dict[str, Any] = {"lr": torch.tensor(0.1), "betas": (beta, torch.tensor(0.99))}
    tensors = torch.optim.Adam(params(), **options, capturable=True, foreach=False)
    bundle.bind(tensors)
    assert tensors.param_groups[0]["betas"][0] is beta
    assert float(beta) == 0.95


def test_bundle_needs_something_to_write_to() -> None:
    with pytest.raises(ValueError, match="Adagrad has no momentum or betas"):
        schedules.one_cycle(0.1, 20).bind(torch.optim.Adagrad(params()))


# ---- order of calls, epochs --------------------------------------------------------------------------------


def test_torchs_warnings_are_kept() -> None:
    optimizer = sgd()
    scheduler = COSINE.bind(optimizer)
    with pytest.warns(UserWarning, match=r"`lr_scheduler.step\(\)` before `optimizer.step\(\)`"):
        scheduler.step()
    optimizer.step()
    scheduler.step()
    with pytest.warns(UserWarning, match="epoch parameter"):
        scheduler.step(11)
    assert optimizer.param_groups[0]["lr"] == COSINE(11)
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == COSINE(12)


def test_get_lr_changes_nothing() -> None:
    optimizer = sgd(2)
    scheduler = COSINE.bind(optimizer)
    walk(optimizer, scheduler, 5)
    assert scheduler.get_lr() == [COSINE(5)] * 2
    assert scheduler.last_epoch == 5


def test_last_epoch_resumes_as_in_torch() -> None:
    optimizer = sgd()
    with pytest.raises(KeyError, match="initial_lr"):
        COSINE.bind(optimizer, last_epoch=6)
    optimizer.param_groups[0]["initial_lr"] = 0.5
    scheduler = COSINE.bind(optimizer, last_epoch=6)
    assert walk(optimizer, scheduler, 5) == COSINE.values(5, start=7).tolist()


# ---- states ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [0, 1, 2, 7, 23])
@pytest.mark.parametrize("kind", ["single", "list", "relative", "bundle"])
def test_resume_is_exact(step: int, kind: str) -> None:
    def make() -> tuple[torch.optim.Optimizer, ScheduleLR]:
        optimizer = sgd(2, momentum=0.9)
        if kind == "bundle":
            return optimizer, schedules.one_cycle(0.1, 30).bind(optimizer)
        schedule: Any = [COSINE, schedules.step(0.3, 4)] if kind == "list" else COSINE
        return optimizer, ScheduleLR(optimizer, schedule, relative=kind == "relative")

    optimizer, scheduler = make()
    walk(optimizer, scheduler, step)
    file = io.BytesIO()
    torch.save(scheduler.state_dict(), file)
    file.seek(0)
    other, again = make()
    again.load_state_dict(torch.load(file, weights_only=True))
    assert [g["lr"] for g in other.param_groups] == [g["lr"] for g in optimizer.param_groups]
    assert again.get_last_lr() == scheduler.get_last_lr()
    assert other.param_groups[0]["momentum"] == optimizer.param_groups[0]["momentum"]
    assert walk(other, again, 9, group=1) == walk(optimizer, scheduler, 9, group=1)


def test_another_schedule_is_refused_unless_allowed() -> None:
    optimizer = sgd()
    scheduler = COSINE.bind(optimizer)
    walk(optimizer, scheduler, 7)
    state = scheduler.state_dict()
    longer = schedules.cosine(0.1, 50)
    other = sgd()
    resumed = longer.bind(other)
    with pytest.raises(ValueError, match="allow_change=True"):
        resumed.load_state_dict(state)
    assert (resumed.last_epoch, other.param_groups[0]["lr"]) == (0, 0.1)
    resumed.load_state_dict(state, allow_change=True)
    assert (resumed.last_epoch, other.param_groups[0]["lr"]) == (7, longer(7))
    with pytest.raises(ValueError, match="relative"):
        COSINE.bind(sgd(), relative=True).load_state_dict(state)
    with pytest.raises(ValueError, match="momentum"):
        ScheduleLR(sgd(momentum=0.9), COSINE, momentum=COSINE).load_state_dict(state)
    with pytest.raises(ValueError, match="schedule"):
        COSINE.bind(sgd(2)).load_state_dict(state)


@pytest.mark.parametrize("bad", [None, 3, {}, {"last_epoch": 3}, {"version": 3}])
def test_state_of_something_else(bad: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"ScheduleLR\.load_state_dict"):
        COSINE.bind(sgd()).load_state_dict(bad)


def test_copies() -> None:
    optimizer = sgd()
    scheduler = COSINE.bind(optimizer)
    walk(optimizer, scheduler, 5)
    for again in (copy.deepcopy(scheduler), pickle.loads(pickle.dumps(scheduler))):
        assert again.optimizer is not optimizer
        again.optimizer.step()
        again.step()
        assert again.optimizer.param_groups[0]["lr"] == COSINE(6)
    assert optimizer.param_groups[0]["lr"] == COSINE(5)


def test_no_reference_cycle() -> None:
    optimizer = sgd()
    scheduler = weakref.ref(COSINE.bind(optimizer))
    gc.disable()
    try:
        assert scheduler() is None
    finally:
        gc.enable()


# ---- inside torch's containers -----------------------------------------------------------------------------


def sequential(optimizer: torch.optim.Optimizer, ours_first: bool) -> lr_scheduler.SequentialLR:
    ours = schedules.cosine(0.1, 20).bind(optimizer)
    theirs = lr_scheduler.StepLR(optimizer, 4)
    return lr_scheduler.SequentialLR(optimizer, [ours, theirs] if ours_first else [theirs, ours], [10])


@pytest.mark.parametrize("ours_first", [False, True])
def test_sequential_lr(ours_first: bool) -> None:
    optimizer = sgd()
    values = walk(optimizer, sequential(optimizer, ours_first), 20)
    cosine = schedules.cosine(0.1, 20).values(10)
    steps = 0.5 * 0.1 ** (np.arange(10) // 4)
    expected = [*cosine, *steps] if ours_first else [*steps, *cosine]
    np.testing.assert_allclose(values, expected, rtol=1e-14)


@pytest.mark.parametrize("ours_first", [False, True])
@pytest.mark.parametrize("step", [0, 3, 9, 10, 11, 16])
def test_sequential_lr_resumes(ours_first: bool, step: int) -> None:
    """Loading must not put the rate of the scheduler that is not on duty into the optimizer."""
    optimizer = sgd()
    scheduler = sequential(optimizer, ours_first)
    walk(optimizer, scheduler, step)
    other = sgd()
    again = sequential(other, ours_first)
    other.load_state_dict(optimizer.state_dict())
    again.load_state_dict(scheduler.state_dict())
    assert other.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]
    assert walk(other, again, 12) == walk(optimizer, scheduler, 12)


def test_chained_scheduler_steps_it() -> None:
    optimizer = sgd()
    chained = lr_scheduler.ChainedScheduler([lr_scheduler.ExponentialLR(optimizer, 0.9), COSINE.bind(optimizer)])
    assert walk(optimizer, chained, 12) == COSINE.values(12).tolist()
    assert chained.get_last_lr() == [COSINE(12)]


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: COSINE.bind(3), "optimizer must be a torch optimizer"),
        (lambda: ScheduleLR(sgd(), 3), "schedule must be a Schedule or a list"),
        (lambda: ScheduleLR(sgd(), schedules.one_cycle(0.1, 9)), "bundle.bind"),
        (lambda: ScheduleLR(sgd(), ["x"]), r"schedule\[0\]"),
        (lambda: ScheduleLR(sgd(2), [COSINE]), "expected 2 schedules"),
        (lambda: ScheduleLR(sgd(), COSINE, momentum=0.9), "momentum must be a Schedule or a list"),
        (lambda: COSINE.bind(sgd(), last_epoch=-2), "last_epoch"),
    ],
)
def test_bad_input_leaves_the_optimizer_alone(make: Any, match: str) -> None:
    with pytest.raises((TypeError, ValueError), match=match):
        make()
