"""ScheduleLR: other hyper-parameters, multipliers, events, history, jumps."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import numpy as np
import pytest
import torch

from thalweg import schedules
from thalweg.lr_scheduler import Event, ScheduleLR
from thalweg.schedules import Greedy, Plateau, bind

COSINE = schedules.warmup(3, 0.1) >> schedules.cosine(0.1, 20, 1e-4)
RAMP = schedules.linear(0.2, 10, 0.4)


def groups(n: int) -> list[dict[str, Any]]:
    return [{"params": [torch.nn.Parameter(torch.ones(2))]} for _ in range(n)]


def sgd(n: int = 1, **options: Any) -> torch.optim.SGD:
    return torch.optim.SGD(groups(n), lr=0.5, **options)


def adam(n: int = 1, **options: Any) -> torch.optim.Adam:
    return torch.optim.Adam(groups(n), lr=0.5, **options)


def walk(optimizer: torch.optim.Optimizer, scheduler: ScheduleLR, steps: int, metrics: Any = None) -> list[float]:
    """Rates used by `steps` updates; one metric each where there are any."""
    out = []
    for i in range(steps):
        out.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        scheduler.step(metric=None if metrics is None else metrics[i])
    return out


# ---- hyper-parameters --------------------------------------------------------------------------------------


def test_any_hyper_parameter_by_name() -> None:
    optimizer = adam(2, weight_decay=0.3)
    scheduler = COSINE.bind(optimizer, weight_decay=RAMP, eps=schedules.constant(1e-6))
    walk(optimizer, scheduler, 7)
    for group in optimizer.param_groups:
        assert (group["lr"], group["weight_decay"], group["eps"]) == (COSINE(7), RAMP(7), 1e-6)


def test_betas_one_or_both() -> None:
    optimizer = adam()
    scheduler = bind(optimizer, COSINE, betas=(RAMP, schedules.linear(0.9, 10, 0.8)))
    walk(optimizer, scheduler, 4)
    assert optimizer.param_groups[0]["betas"] == (RAMP(4), schedules.linear(0.9, 10, 0.8)(4))
    optimizer = adam()
    bind(optimizer, betas=(None, RAMP))
    assert optimizer.param_groups[0]["betas"] == (0.9, 0.2)
    assert optimizer.param_groups[0]["lr"] == 0.5
    bind(optimizer, beta1=RAMP)
    assert optimizer.param_groups[0]["betas"] == (0.2, 0.2)


def test_lists_per_group_and_none_leaves_a_group_alone() -> None:
    optimizer = sgd(3, weight_decay=0.3, momentum=0.9)
    scheduler = bind(optimizer, [COSINE, None, RAMP], weight_decay=[None, RAMP, None], momentum=RAMP)
    walk(optimizer, scheduler, 6)
    assert [g["lr"] for g in optimizer.param_groups] == [COSINE(6), 0.5, RAMP(6)]
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0.3, RAMP(6), 0.3]
    assert [g["momentum"] for g in optimizer.param_groups] == [RAMP(6)] * 3
    optimizer.param_groups[1]["lr"] = 0.7  # is the user's
    walk(optimizer, scheduler, 1)
    assert scheduler.get_last_lr() == [COSINE(7), 0.7, RAMP(7)]


def test_groups_added_later_follow_with_everything() -> None:
    optimizer = sgd(1, weight_decay=0.3)
    scheduler = COSINE.bind(optimizer, weight_decay=RAMP)
    walk(optimizer, scheduler, 2)
    optimizer.add_param_group(groups(1)[0])
    walk(optimizer, scheduler, 3)
    assert [g["weight_decay"] for g in optimizer.param_groups] == [RAMP(5)] * 2


def test_tensor_hyper_parameter_is_filled_in_place() -> None:
    optimizer = sgd(weight_decay=0.0)
    tensor = optimizer.param_groups[0]["weight_decay"] = torch.tensor(0.0, dtype=torch.float64)
    walk(optimizer, COSINE.bind(optimizer, weight_decay=RAMP), 0)
    assert optimizer.param_groups[0]["weight_decay"] is tensor
    assert float(tensor) == 0.2


# ---- multipliers -------------------------------------------------------------------------------------------


def test_plateau_composes_with_warmup_and_cosine() -> None:
    optimizer = sgd(2)
    rule, oracle = Plateau(patience=1, factor=0.5), Plateau(patience=1, factor=0.5)
    scheduler = COSINE.bind(optimizer, multiplier=rule)
    metrics = [1.0, 0.9, 0.95, 0.93, 0.91, 0.8, 0.85, 0.85, 0.85, 0.7]
    expected, factor = [], 1.0
    for k, metric in enumerate(metrics):
        expected.append(COSINE(k) * factor)
        oracle.update(metric)
        factor = oracle.multiplier
    assert walk(optimizer, scheduler, 10, metrics) == expected
    assert factor == 0.25
    assert [g["lr"] for g in optimizer.param_groups] == [COSINE(10) * 0.25] * 2
    optimizer.step()
    scheduler.step()  # no evaluation in this step
    assert optimizer.param_groups[0]["lr"] == COSINE(11) * 0.25


def test_greedy_grows_and_relative_keeps_ratios() -> None:
    optimizer = torch.optim.SGD([{**groups(1)[0], "lr": 1.0}, {**groups(1)[0], "lr": 0.25}], lr=1.0)
    factor = schedules.constant(0.5)
    scheduler = factor.bind(optimizer, multiplier=Greedy(patience=0, factor=0.5), relative=True)
    walk(optimizer, scheduler, 2, [3.0, 2.0])
    assert [g["lr"] for g in optimizer.param_groups] == [2.0, 0.5]


@pytest.mark.parametrize("step", [0, 1, 5, 12])
def test_resume_with_everything_is_exact(step: int) -> None:
    metrics = np.abs(1 + np.cumsum(np.random.default_rng(step).normal(0, 0.1, 40)))

    def make() -> tuple[torch.optim.Optimizer, ScheduleLR]:
        optimizer = adam(2, weight_decay=0.1)
        rule = Plateau(patience=1, cooldown=1, factor=0.5)
        return optimizer, bind(
            optimizer, [COSINE, RAMP], weight_decay=[RAMP, None], betas=(RAMP, None), multiplier=rule
        )

    optimizer, scheduler = make()
    walk(optimizer, scheduler, step, metrics)
    other, again = make()
    again.load_state_dict(json.loads(json.dumps(scheduler.state_dict())))
    for _ in range(15):
        for a, b in zip(optimizer.param_groups, other.param_groups, strict=True):
            assert {k: v for k, v in a.items() if k != "params"} == {k: v for k, v in b.items() if k != "params"}
        metric = metrics[scheduler.last_epoch]
        walk(optimizer, scheduler, 1, [metric])
        walk(other, again, 1, [metric])


def test_changed_multiplier_or_hyper_is_refused_unless_allowed() -> None:
    state = COSINE.bind(sgd(weight_decay=0.1), weight_decay=RAMP, multiplier=Plateau()).state_dict()
    with pytest.raises(ValueError, match="saved weight_decay"):
        COSINE.bind(sgd(weight_decay=0.1), multiplier=Plateau()).load_state_dict(state)
    with pytest.raises(ValueError, match="saved multiplier is 'Plateau', this one is None"):
        COSINE.bind(sgd(weight_decay=0.1), weight_decay=RAMP).load_state_dict(state)
    with pytest.raises(ValueError, match="the saved rule has patience=10"):
        COSINE.bind(sgd(weight_decay=0.1), weight_decay=RAMP, multiplier=Plateau(patience=3)).load_state_dict(state)
    COSINE.bind(sgd(weight_decay=0.1), multiplier=Plateau(patience=3)).load_state_dict(state, allow_change=True)


# ---- events, history, jumps --------------------------------------------------------------------------------


def test_events_at_cycle_ends_and_boundaries() -> None:
    schedule = schedules.warmup(3, 0.1) >> schedules.sgdr(0.1, 4, 2)
    optimizer = sgd()
    scheduler = schedule.bind(optimizer)
    ends: list[Event] = []
    begins: list[Event] = []
    steps: list[int] = []
    assert scheduler.on_cycle_end(ends.append) == ends.append
    scheduler.on_boundary(begins.append)
    scheduler.on_cycle_end(lambda event: steps.append(scheduler.last_epoch))
    walk(optimizer, scheduler, 40)
    assert [e.step for e in ends] == schedule.cycle_ends(40) == [6, 14, 30]
    assert [e.cycle for e in ends] == [0, 1, 2]
    assert [e.lr for e in ends] == [schedule(e.step) for e in ends]
    assert [e.step for e in begins] == schedule.boundaries(41) == [3, 7, 15, 31]
    assert [(e.cycle, e.lr) for e in begins] == [(schedule.cycle(e.step), schedule(e.step)) for e in begins]
    assert steps == [7, 15, 31]  # after the update, when the groups hold the next value


@pytest.mark.parametrize("first", [0, 999, 1_000, 5_000])
def test_boundaries_are_seen_wherever_one_begins(first: int) -> None:
    schedule = schedules.sgdr(0.1, 7)
    optimizer = sgd()
    scheduler = schedule.bind(optimizer)
    optimizer.step()
    scheduler.seek(first)
    seen: list[int] = []
    scheduler.on_boundary(lambda event: seen.append(event.step))
    for _ in range(2_500):
        scheduler._step_count += 1  # as if the optimizer stepped
        scheduler.step()
    assert seen == [k for k in range(first + 1, first + 2_501) if k % 7 == 0]


def test_history_is_bounded_and_off_by_default() -> None:
    optimizer = sgd(2)
    scheduler = bind(optimizer, [COSINE, RAMP], history=5)
    walk(optimizer, scheduler, 12)
    assert scheduler.history == [(k, [COSINE(k), RAMP(k)]) for k in range(8, 13)]
    assert COSINE.bind(sgd()).history == []


def test_seek_goes_anywhere_and_calls_nobody() -> None:
    optimizer = sgd()
    scheduler = schedules.sgdr(0.1, 4).bind(optimizer)
    called: list[Event] = []
    scheduler.on_cycle_end(called.append)
    for k in (9, 3, 0, 10**12):
        scheduler.seek(k)
        assert optimizer.param_groups[0]["lr"] == schedules.sgdr(0.1, 4)(k)
        assert scheduler.last_epoch == k
    assert not called
    with pytest.raises(ValueError, match="seek: step"):
        scheduler.seek(-1)


@pytest.mark.parametrize("found_inf", [True, torch.tensor(1.0), torch.tensor(2.0)])
def test_a_skipped_step_moves_nothing(found_inf: Any) -> None:
    optimizer = sgd()
    scheduler = COSINE.bind(optimizer, multiplier=Plateau(patience=0, factor=0.5))
    walk(optimizer, scheduler, 3)
    before = scheduler.state_dict()
    scheduler.step(metric=1.0, skipped=found_inf)
    assert scheduler.state_dict() == before
    scheduler.step(skipped=torch.tensor(0.0))
    assert scheduler.last_epoch == 4


def test_schedule_is_the_first_that_there_is() -> None:
    assert bind(sgd(2), [None, COSINE]).schedule == COSINE
    optimizer = sgd(weight_decay=0.1)
    cycles = schedules.sgdr(0.1, 4)
    scheduler = bind(optimizer, weight_decay=cycles)
    assert scheduler.schedule == cycles
    ends: list[Event] = []
    scheduler.on_cycle_end(ends.append)
    walk(optimizer, scheduler, 9)
    assert ends == [Event(3, 0, 0.5), Event(7, 1, 0.5)]


def test_copies_keep_rules_and_history() -> None:
    optimizer = sgd()
    scheduler = COSINE.bind(optimizer, multiplier=Plateau(patience=0, factor=0.5), history=9)
    walk(optimizer, scheduler, 4, [1.0, 2.0, 2.0, 2.0])
    for again in (copy.deepcopy(scheduler), pickle.loads(pickle.dumps(scheduler))):
        assert again.history == scheduler.history
        again.optimizer.step()
        again.step(metric=2.0)
        assert again.optimizer.param_groups[0]["lr"] == COSINE(5) * 0.5**4
    assert scheduler.multiplier is not None
    assert scheduler.multiplier.multiplier == 0.5**3


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (
            lambda: COSINE.bind(sgd(), weight_decayed=RAMP),
            "SGD has no number called weight_decayed in its groups; it has mom",
        ),
        (lambda: COSINE.bind(sgd(), params=RAMP), "SGD has no number called params"),
        (lambda: COSINE.bind(sgd(), nesterov=RAMP), "SGD has no number called nesterov"),
        (lambda: COSINE.bind(sgd(), lr=RAMP), "SGD has no number called lr"),
        (lambda: COSINE.bind(sgd(), beta2=RAMP), "SGD has no number called beta2"),
        (lambda: COSINE.bind(adam(), betas=RAMP), "betas must be two schedules or None"),
        (lambda: COSINE.bind(adam(), eps=0.1), "eps must be a Schedule or a list"),
        (lambda: COSINE.bind(adam(2), eps=[RAMP]), "expected 2 schedules, one per param group, got 1"),
        (lambda: COSINE.bind(sgd(), multiplier=0.5), "multiplier must be a Plateau, a Greedy or None, got 0.5"),
        (lambda: bind(sgd()), "ScheduleLR: expected at least one schedule, got none"),
        (lambda: COSINE.bind(sgd(), history=-1), "ScheduleLR: history must be an integer >= 0"),
        (lambda: COSINE.bind(sgd()).step(metric=1.0), "metric is for a multiplier, and there is none"),
    ],
)
def test_bad_input(make: Any, match: str) -> None:
    with pytest.raises((TypeError, ValueError), match=match):
        make()
