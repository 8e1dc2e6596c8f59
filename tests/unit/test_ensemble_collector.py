"""When members are taken: each trigger against the weights saved by brute force at the learning rate's troughs."""

from __future__ import annotations

import copy
import random
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as ls

import thalweg as tw
from thalweg.ensemble import Memory, SnapshotCollector

State = dict[str, torch.Tensor]


def setup(lr: float = 0.1, seed: int = 0) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    return model, torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)


def train_step(model: nn.Module, optimizer: torch.optim.Optimizer, k: int) -> None:
    generator = torch.Generator().manual_seed(k)
    x, y = torch.randn(8, 3, generator=generator), torch.randn(8, 2, generator=generator)
    optimizer.zero_grad()
    nn.functional.mse_loss(model(x), y).backward()
    optimizer.step()


def run(
    model: nn.Module, optimizer: torch.optim.Optimizer, scheduler: Any, steps: int, every: int = 1
) -> tuple[list[float], list[State]]:
    """Train; return the rate of each update and the weights after it."""
    lrs, states = [], []
    for k in range(steps):
        lrs.append(max(float(group["lr"]) for group in optimizer.param_groups))
        train_step(model, optimizer, k)
        states.append(copy.deepcopy(model.state_dict()))
        if scheduler is not None and (k + 1) % every == 0:
            scheduler.step()
    return lrs, states


def troughs(lrs: list[float], finished: bool) -> list[int]:
    """Steps whose rate is the last of a lowest stretch between peaks at least twice as high, by brute force."""
    found = []
    peak = 0.0
    for k, lr in enumerate(lrs):
        peak = max(peak, lr)
        rises = k + 1 < len(lrs) and lrs[k + 1] > lr * (1 + 1e-9) and lrs[k + 1] > lr + 1e-12 * peak
        if lr <= peak / 2 and (rises or (k + 1 == len(lrs) and finished)):
            found.append(k)
            peak = 0.0
    return found


def at(model: nn.Module, states: list[State], k: int) -> State:
    """Parameters after update k; buffers too, but with the forward pass of the next update if there is one.

    The hook runs before an update and so after its forward pass: BatchNorm has seen one batch more, with the weights
    of the trough.
    """
    parameters = {name for name, _ in model.named_parameters()}
    after = states[min(k + 1, len(states) - 1)]
    return {name: states[k][name] if name in parameters else after[name] for name in states[k]}


def same(a: State, b: State) -> bool:
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


SCHEDULERS: dict[str, Callable[[torch.optim.Optimizer], Any]] = {
    "sgdr": lambda o: ls.CosineAnnealingWarmRestarts(o, T_0=7),
    "sgdr_t_mult_2": lambda o: ls.CosineAnnealingWarmRestarts(o, T_0=5, T_mult=2, eta_min=1e-3),
    "cyclic": lambda o: ls.CyclicLR(o, base_lr=0.01, max_lr=0.1, step_size_up=4, step_size_down=6),
    "cyclic_triangular2": lambda o: ls.CyclicLR(o, 0.001, 0.1, step_size_up=5, mode="triangular2"),
    "periodic_cosine": lambda o: ls.CosineAnnealingLR(o, T_max=9),
    "warm_up_and_restarts": lambda o: ls.SequentialLR(
        o,
        [ls.LinearLR(o, 0.1, total_iters=6), ls.CosineAnnealingWarmRestarts(o, T_0=8)],
        milestones=[6],
    ),
    "lambda_sawtooth": lambda o: ls.LambdaLR(o, lambda k: 1 - 0.9 * (k % 10) / 9),
}


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("steps", [40, 47])
@pytest.mark.parametrize("every", [1, 3])
def test_trough_oracle(name: str, steps: int, every: int) -> None:
    model, optimizer = setup()
    scheduler = SCHEDULERS[name](optimizer)
    snaps = SnapshotCollector(model, optimizer)
    lrs, states = run(model, optimizer, scheduler, steps * every, every)
    expected = troughs(lrs, finished=False)
    assert len(expected) >= 2
    assert [s.step - 1 for s in snaps.snapshots] == expected
    final = troughs(lrs, finished=True)
    snaps.finish()
    snaps.finish()
    assert [s.step - 1 for s in snaps.snapshots] == final
    for cycle, (snapshot, k) in enumerate(zip(snaps.snapshots, final, strict=True)):
        assert same(snapshot.state, at(model, states, k))
        assert snapshot.lr == lrs[k]
        assert snapshot.cycle == cycle
        assert snapshot.healthy


@pytest.mark.parametrize(
    "make",
    [
        lambda o: None,
        lambda o: ls.OneCycleLR(o, 0.1, total_steps=60),
        lambda o: ls.LinearLR(o, 0.01, total_iters=50),
        lambda o: ls.StepLR(o, 10),
        lambda o: ls.LambdaLR(o, lambda k: 1 + 0.3 * (-1) ** k),
    ],
)
def test_silent(make: Callable[[torch.optim.Optimizer], Any]) -> None:
    model, optimizer = setup()
    snaps = SnapshotCollector(model, optimizer)
    run(model, optimizer, make(optimizer), 50)
    assert snaps.snapshots == []


def test_plateau_is_silent() -> None:
    model, optimizer = setup()
    snaps = SnapshotCollector(model, optimizer)
    scheduler = ls.ReduceLROnPlateau(optimizer, factor=0.3, patience=1)
    for k in range(60):
        train_step(model, optimizer, k)
        scheduler.step(random.Random(k).random())
    assert snaps.snapshots == []


def test_rounding_of_recursive_schedulers_is_no_restart() -> None:
    model, optimizer = setup()
    snaps = SnapshotCollector(model, optimizer)
    for k in range(20):
        optimizer.param_groups[0]["lr"] = 0.1 if k < 5 else 1e-3 * (1 + 1e-15 * (k % 3))
        train_step(model, optimizer, k)
    assert snaps.snapshots == []


def test_finish_needs_a_fall() -> None:
    model, optimizer = setup()
    with SnapshotCollector(model, optimizer) as snaps:
        run(model, optimizer, None, 5)
    assert snaps.snapshots == []
    model, optimizer = setup()
    with SnapshotCollector(model, optimizer) as snaps:
        run(model, optimizer, ls.OneCycleLR(optimizer, 0.1, total_steps=30), 30)
    assert [s.step for s in snaps.snapshots] == [30]


def test_several_groups_and_tensor_lr() -> None:
    model, _ = setup()
    optimizer = torch.optim.SGD(
        [
            {"params": model[0].parameters(), "lr": torch.tensor(0.1)},
            {"params": model[2].parameters(), "lr": torch.tensor(0.01)},
        ]
    )
    scheduler = ls.CosineAnnealingWarmRestarts(optimizer, T_0=6)
    snaps = SnapshotCollector(model, optimizer)
    run(model, optimizer, scheduler, 20)
    assert [s.step for s in snaps.snapshots] == [6, 12, 18]


# --- schedules by interface


class Sawtooth:
    """The interface of a thalweg Schedule: cycles of 4 steps."""

    def __call__(self, k: int) -> float:
        return 0.1 * (1 - 0.9 * (k % 4) / 3)

    def is_cycle_end(self, k: int) -> bool:
        return k % 4 == 3

    def cycle(self, k: int) -> int:
        return k // 4


class Native(torch.optim.SGD):
    """The interface of a thalweg optimizer: it runs the schedule itself and may skip steps."""

    def __init__(self, params: Any, schedule: Sawtooth) -> None:
        super().__init__(params, lr=schedule(0))
        self.schedules = (schedule,)
        self.schedule_step = 0
        self.skip = False

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        if not self.skip:
            self.param_groups[0]["lr"] = self.schedules[0](self.schedule_step)
            super().step(closure)
            self.schedule_step += 1
            self.param_groups[0]["lr"] = self.schedules[0](self.schedule_step)


class Bound:
    """The interface of the scheduler that Schedule.bind returns."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer, self.schedule, self.last_epoch = optimizer, Sawtooth(), 0

    def step(self) -> None:
        self.last_epoch += 1
        self.optimizer.param_groups[0]["lr"] = self.schedule(self.last_epoch)


def test_native_schedule_fires_right_after_the_last_update_of_a_cycle() -> None:
    model, _ = setup()
    optimizer = Native(model.parameters(), Sawtooth())
    snaps = SnapshotCollector(model, optimizer)
    states = []
    for k in range(10):
        train_step(model, optimizer, k)
        states.append(copy.deepcopy(model.state_dict()))
        assert len(snaps.snapshots) == (k + 1) // 4
    assert [(s.step, s.cycle) for s in snaps.snapshots] == [(4, 0), (8, 1)]
    assert all(same(s.state, states[s.step - 1]) for s in snaps.snapshots)
    assert snaps.snapshots[0].lr == pytest.approx(0.01)


def test_skipped_steps_count_for_nothing() -> None:
    model, _ = setup()
    optimizer = Native(model.parameters(), Sawtooth())
    snaps = SnapshotCollector(model, optimizer)
    every = SnapshotCollector(model, optimizer, when="every:2")
    for k in range(16):
        optimizer.skip = k % 2 == 1
        train_step(model, optimizer, k)
    assert [s.step for s in snaps.snapshots] == [4, 8]
    assert [s.step for s in every.snapshots] == [2, 4, 6, 8]


@pytest.mark.parametrize("every", [1, 3])
def test_bound_schedule(every: int) -> None:
    model, optimizer = setup()
    bound = Bound(optimizer)
    with SnapshotCollector(model, optimizer, schedule=bound) as snaps:
        _, states = run(model, optimizer, bound, 12 * every, every)
    assert [(s.step, s.cycle) for s in snaps.snapshots] == [(4 * every, 0), (8 * every, 1), (12 * every, 2)]
    assert all(same(s.state, at(model, states, s.step - 1)) for s in snaps.snapshots)


def test_schedule_given_for_a_foreign_optimizer() -> None:
    model, optimizer = setup()
    snaps = SnapshotCollector(model, optimizer, schedule=Sawtooth())
    run(model, optimizer, None, 9)
    assert [(s.step, s.cycle) for s in snaps.snapshots] == [(4, 0), (8, 1)]


# --- thalweg's own optimizers and schedules


@pytest.mark.parametrize("t_mult", [1, 2])
@pytest.mark.parametrize("groups", [1, 2])
def test_thalweg_optimizer(t_mult: int, groups: int) -> None:
    schedule = tw.schedules.sgdr(0.1, t_0=4, t_mult=t_mult)
    model, _ = setup()
    params: Any = model.parameters()
    if groups == 2:
        params = [{"params": model[0].parameters(), "lr": 0.01}, {"params": model[2].parameters()}]
    optimizer = tw.optim.SGD(params, lr=schedule, momentum=0.9)
    snaps = SnapshotCollector(model, optimizer)
    _, states = run(model, optimizer, None, 13)
    ends = [k for k in range(13) if schedule.is_cycle_end(k)]
    assert len(ends) >= 2
    assert [(s.step, s.cycle) for s in snaps.snapshots] == [(k + 1, schedule.cycle(k)) for k in ends]
    assert all(same(s.state, states[s.step - 1]) for s in snaps.snapshots)
    if groups == 1:
        assert [s.lr for s in snaps.snapshots] == [schedule(k) for k in ends]
    assert len(snaps.finish()) == len(ends) + (schedule(12) <= 0.05)


def test_a_composed_schedule_without_cycles_is_watched() -> None:
    piece = tw.schedules.cosine(0.1, total_steps=5)
    schedule = piece >> piece >> piece
    model, _ = setup()
    optimizer = tw.optim.SGD(model.parameters(), lr=schedule)
    with SnapshotCollector(model, optimizer) as snaps:
        run(model, optimizer, None, 15)
    assert [s.step for s in snaps.snapshots] == [5, 10, 15]


def test_thalweg_schedule_bound_to_a_torch_optimizer() -> None:
    schedule = tw.schedules.warmup(3, 0.1) >> tw.schedules.sgdr(0.1, t_0=4)
    model, optimizer = setup()
    bound = schedule.bind(optimizer)
    given = SnapshotCollector(model, optimizer, schedule=bound)
    watched = SnapshotCollector(model, optimizer)
    run(model, optimizer, bound, 16)
    assert [s.step for s in given.snapshots] == [7, 11, 15]
    assert [s.step for s in watched.snapshots] == [7, 11, 15]
    assert [s.cycle for s in given.snapshots] == [schedule.cycle(s.step - 1) for s in given.snapshots]


def test_thalweg_run_resumes() -> None:
    schedule = tw.schedules.sgdr(0.1, t_0=4)
    for stop in range(1, 13):
        model, _ = setup()
        optimizer = tw.optim.AdamW(model.parameters(), lr=schedule)
        first = SnapshotCollector(model, optimizer)
        run(model, optimizer, None, stop)
        saved = copy.deepcopy((model.state_dict(), optimizer.state_dict(), first.state_dict()))
        model, _ = setup(seed=1)
        optimizer = tw.optim.AdamW(model.parameters(), lr=schedule)
        second = SnapshotCollector(model, optimizer)
        for part, state in zip((model, optimizer, second), saved, strict=True):
            part.load_state_dict(state)
        for k in range(stop, 13):
            train_step(model, optimizer, k)
        assert [s.step for s in second.snapshots] == [4, 8, 12]


# --- other triggers, life


def test_every_and_manual() -> None:
    model, optimizer = setup()
    every = SnapshotCollector(model, optimizer, when="every:4")
    manual = SnapshotCollector(model, optimizer, when="manual")
    run(model, optimizer, None, 9)
    taken = manual.take()
    assert [s.step for s in every.finish()] == [4, 8]
    assert [s.step for s in manual.finish()] == [9]
    assert taken.lr == 0.1
    with torch.no_grad():
        model[0].weight.zero_()
    assert not same(taken.state, model.state_dict())
    assert same(manual.take().state, model.state_dict())
    assert len(manual.snapshots) == 1


def test_training_is_untouched() -> None:
    plain, optimizer = setup()
    expected = run(plain, optimizer, ls.CosineAnnealingWarmRestarts(optimizer, T_0=5), 20)[1][-1]
    model, optimizer = setup()
    scheduler = ls.CosineAnnealingWarmRestarts(optimizer, T_0=5)
    generators = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    with SnapshotCollector(model, optimizer) as snaps:
        run(model, optimizer, scheduler, 20)
        x, y = torch.randn(30, 3, generator=torch.Generator()), torch.arange(30) % 2
        loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), 7, shuffle=True)
        grads = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        snaps.ensemble(loader).report(loader)
        snaps.soup(loader, data=x)
    assert torch.equal(generators[0], torch.get_rng_state())
    assert np.array_equal(generators[1], np.random.get_state()[1])  # noqa: NPY002
    assert generators[2] == random.getstate()
    assert same(model.state_dict(), expected)
    assert model.training
    assert all(torch.equal(g, p.grad) for g, p in zip(grads, model.parameters(), strict=True))


def test_close_takes_the_hooks_off() -> None:
    model, optimizer = setup()
    snaps = SnapshotCollector(model, optimizer, when="every:1")
    run(model, optimizer, None, 2)
    snaps.close()
    snaps.close()
    run(model, optimizer, None, 2)
    assert [s.step for s in snaps.snapshots] == [1, 2]
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks


def test_an_exception_in_training_takes_no_last_member() -> None:
    model, optimizer = setup()
    scheduler = ls.CosineAnnealingWarmRestarts(optimizer, T_0=5)
    snaps = SnapshotCollector(model, optimizer)

    def training() -> None:
        with snaps:
            run(model, optimizer, scheduler, 9)
            raise RuntimeError("out of luck")

    with pytest.raises(RuntimeError, match="out of luck"):
        training()
    assert [s.step for s in snaps.snapshots] == [5]


def test_memory_keeps_the_last() -> None:
    model, optimizer = setup()
    snaps = SnapshotCollector(model, optimizer, store=Memory(keep_last=2), when="every:1")
    _, states = run(model, optimizer, None, 5)
    assert [s.step for s in snaps.snapshots] == [4, 5]
    assert same(snaps.state_dicts()[0], states[3])


def test_unhealthy_members_are_marked_and_left_out() -> None:
    model, optimizer = setup()
    snaps = SnapshotCollector(model, optimizer, when="manual")
    run(model, optimizer, None, 1)
    snaps.take()
    run(model, optimizer, None, 1)
    with torch.no_grad():
        model[0].weight[0, 0] = float("nan")
    with pytest.warns(UserWarning, match="step 2 are not finite"):
        snaps.take()
    assert [s.healthy for s in snaps.snapshots] == [True, False]
    assert len(snaps.state_dicts()) == 1
    ens = snaps.ensemble()
    assert ens.m == 1
    assert ens.fit_report is not None
    assert ens.fit_report.dropped == {2: "its weights are not finite"}
    nothing = SnapshotCollector(*setup(), when="manual")
    for action in (nothing.ensemble, nothing.average, lambda: nothing.soup(None)):
        with pytest.raises(ValueError, match="no healthy snapshot yet"):
            action()


@pytest.mark.parametrize("name", ["sgdr_t_mult_2", "cyclic", "warm_up_and_restarts"])
@pytest.mark.parametrize("stop", [*range(1, 22, 2), 10, 20])
def test_resume_neither_repeats_nor_skips(name: str, stop: int) -> None:
    model, optimizer = setup()
    scheduler = SCHEDULERS[name](optimizer)
    whole = SnapshotCollector(model, optimizer)
    run(model, optimizer, scheduler, 40)
    whole.finish()

    model, optimizer = setup()
    scheduler = SCHEDULERS[name](optimizer)
    first = SnapshotCollector(model, optimizer)
    run(model, optimizer, scheduler, stop)
    saved = copy.deepcopy((model.state_dict(), optimizer.state_dict(), scheduler.state_dict(), first.state_dict()))
    model, optimizer = setup(seed=1)
    scheduler = SCHEDULERS[name](optimizer)
    second = SnapshotCollector(model, optimizer)
    for part, state in zip((model, optimizer, scheduler, second), saved, strict=True):
        part.load_state_dict(state)
    for k in range(stop, 40):
        train_step(model, optimizer, k)
        scheduler.step()
    second.finish()
    assert [s.to_dict() for s in second.snapshots] == [s.to_dict() for s in whole.snapshots]
    assert all(same(a.state, b.state) for a, b in zip(second.snapshots, whole.snapshots, strict=True))


def test_resume_refuses_what_does_not_fit() -> None:
    model, optimizer = setup()
    snaps = SnapshotCollector(model, optimizer)
    with pytest.raises(ValueError, match=r"must come from SnapshotCollector\.state_dict"):
        snaps.load_state_dict({})
    with pytest.raises(ValueError, match="construct it the same way"):
        SnapshotCollector(model, optimizer, schedule=Bound(optimizer)).load_state_dict(snaps.state_dict())


def test_state_dict_loads_without_pickles(tmp_path: Any) -> None:
    model, optimizer = setup()
    snaps = SnapshotCollector(model, optimizer, when="every:1")
    run(model, optimizer, None, 2)
    torch.save(snaps.state_dict(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    other = SnapshotCollector(model, optimizer, when="every:1")
    other.load_state_dict(state)
    assert all(same(a.state, b.state) for a, b in zip(other.snapshots, snaps.snapshots, strict=True))


@pytest.mark.parametrize(
    ("kwargs", "error", "text"),
    [
        ({"model": 3}, TypeError, "model must be a torch.nn.Module, got int"),
        ({"optimizer": None}, TypeError, "optimizer must be a torch.optim.Optimizer, got None"),
        ({"store": "snaps"}, TypeError, "store must be Memory"),
        ({"when": "sometimes"}, ValueError, "when must be 'auto', 'lr-minimum', 'manual' or 'every:N'"),
        ({"when": 5}, TypeError, "when must be"),
        ({"when": "every:0"}, ValueError, "N of when='every:N' must be an integer >= 1, got 0"),
        ({"when": "every:x"}, TypeError, "N of when='every:N'"),
        ({"schedule": 0.1}, TypeError, "schedule must be a thalweg Schedule"),
        ({"on_error": "ignore"}, ValueError, "on_error must be one of 'raise', 'warn'"),
    ],
)
def test_bad_arguments(kwargs: dict[str, Any], error: type[Exception], text: str) -> None:
    model, optimizer = setup()
    with pytest.raises(error, match=text):
        SnapshotCollector(**{"model": model, "optimizer": optimizer, **kwargs})
    assert not optimizer._optimizer_step_pre_hooks


def test_lr_on_a_device_needs_another_trigger() -> None:
    model, optimizer = setup()
    optimizer.param_groups[0]["lr"] = torch.tensor(0.1, device="meta")
    with pytest.raises(ValueError, match="lr of group 0 is a tensor on meta"):
        SnapshotCollector(model, optimizer)
    with warnings.catch_warnings():
        SnapshotCollector(model, optimizer, when="every:3").close()
