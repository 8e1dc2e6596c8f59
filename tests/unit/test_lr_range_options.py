"""Options of the range test: accumulation, loss scaling, validation, several optimizers, repeats, late losses."""

from __future__ import annotations

import copy
import math
import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import thalweg as tw
from thalweg.lr_range import range_test

Batch = tuple[torch.Tensor, torch.Tensor]
LRS = np.geomspace(1e-4, 0.3, 30)
RAMP: dict[str, Any] = {"min_lr": 1e-4, "max_lr": 0.3, "num_steps": 30, "progress": False}


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))


def batches(count: int, size: int = 16, seed: int = 0) -> list[Batch]:
    generator = torch.Generator().manual_seed(seed)
    teacher = torch.randn(6, 3, generator=generator)
    inputs = [torch.randn(size, 6, generator=generator) for _ in range(count)]
    return [(x, (x @ teacher).argmax(1)) for x in inputs]


def sgd(model: nn.Module, lr: float = 0.5) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)


def everything(value: Any) -> Any:
    """All that an object holds, bits of tensors included."""
    if isinstance(value, torch.Tensor):
        return value.dtype, value.detach().numpy().tobytes()
    if isinstance(value, dict):
        return {key: everything(entry) for key, entry in value.items()}
    return repr(value)


def held(model: nn.Module) -> Any:
    """Parameters and buffers, and which tensors they are."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return everything(tensors), {name: id(tensor) for name, tensor in tensors.items()}


def test_accumulated_batches_are_one_update() -> None:
    data = batches(60)
    model, optimizer = net(), None
    optimizer = sgd(model)
    losses = []
    for k, lr in enumerate(LRS):
        optimizer.param_groups[0]["lr"] = float(lr)
        optimizer.zero_grad()
        parts = []
        for x, y in data[2 * k : 2 * k + 2]:
            loss = nn.functional.cross_entropy(model(x), y)
            (loss / 2).backward()
            parts.append(loss.detach())
        optimizer.step()
        losses.append(float((parts[0] + parts[1]) / 2))
    model = net()
    r = range_test(model, "cross_entropy", data, sgd(model), accumulate=2, **RAMP)
    assert r.losses.tolist() == losses


@pytest.mark.parametrize("scaler_of", [torch.amp.GradScaler, tw.amp.GradScaler])
@pytest.mark.parametrize("optimizer_of", [torch.optim.AdamW, tw.optim.AdamW])
@pytest.mark.parametrize("used", [False, True])
def test_loss_scaling(scaler_of: Any, optimizer_of: Any, used: bool) -> None:
    data = batches(30)

    def step(model: nn.Module, optimizer: Any, scaler: Any, batch: Batch) -> torch.Tensor:
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = nn.functional.cross_entropy(model(batch[0]), batch[1])
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss

    def begin() -> tuple[Any, Any, Any]:
        model = net()
        optimizer, scaler = optimizer_of(model.parameters(), lr=1e-3), scaler_of("cpu", growth_interval=7)
        if used:
            step(model, optimizer, scaler, data[0])
        return model, optimizer, scaler

    model, optimizer, scaler = begin()
    losses = []
    for lr, batch in zip(LRS, data, strict=True):
        optimizer.param_groups[0]["lr"] = float(lr)
        losses.append(step(model, optimizer, scaler, batch).item())
    model, optimizer, scaler = begin()
    before = everything(vars(scaler)), held(model)
    r = range_test(
        model, "cross_entropy", data, optimizer, scaler=scaler, autocast=torch.bfloat16, stop_early=False, **RAMP
    )
    assert r.losses.tolist() == losses
    assert (everything(vars(scaler)), held(model)) == before
    source = iter(data)
    closed = range_test(
        lambda: step(model, optimizer, scaler, next(source)),
        optimizer, model=model, restore=[scaler], stop_early=False, **RAMP,
    )  # fmt: skip
    assert closed.losses.tolist() == losses
    assert (everything(vars(scaler)), held(model)) == before


@pytest.mark.parametrize("every", [1, 3])
def test_validation_loss_on_a_subset(every: int) -> None:
    data, unseen = batches(30), batches(5, seed=1)
    model = net()
    optimizer, losses = sgd(model), []
    for k, (lr, (x, y)) in enumerate(zip(LRS, data, strict=True)):
        if k % every == 0:
            model.eval()
            with torch.no_grad():
                parts = [nn.functional.cross_entropy(model(a), b) for a, b in unseen[:2]]
            losses.append(float((parts[0] + parts[1]) / 2))
            model.train()
        optimizer.param_groups[0]["lr"] = float(lr)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    model = net()
    before = held(model)
    options = {"validation": unseen, "validation_batches": 2, "validate_every": every, "stop_early": False}
    r = range_test(model, "cross_entropy", data, sgd(model), **options, **RAMP)
    np.testing.assert_allclose(r.lrs, LRS[::every], rtol=1e-12)
    assert r.losses.tolist() == losses
    assert held(model) == before
    closed = range_test(
        lambda: 1.0, sgd(model), validation=iter(losses).__next__, validate_every=every, stop_early=False, **RAMP
    )
    assert closed.losses.tolist() == losses


def test_several_optimizers_keep_their_ratios_and_come_back() -> None:
    model = net()
    groups = [{"params": model[0].parameters(), "lr": 0.1}, {"params": model[1].parameters(), "lr": 0.05}]
    optimizers = [torch.optim.SGD(groups, lr=1.0, momentum=0.9), tw.optim.AdamW(model[3].parameters(), lr=0.001)]
    seen = []

    def objective(model: nn.Module, batch: Batch) -> torch.Tensor:
        seen.append([group["lr"] for optimizer in optimizers for group in optimizer.param_groups])
        return nn.functional.cross_entropy(model(batch[0]), batch[1])

    before = held(model), [copy.deepcopy(o.state_dict()) for o in optimizers]
    r = range_test(model, objective, batches(30), optimizers, stop_early=False, **RAMP)
    np.testing.assert_allclose(seen, LRS[:, None] * [1.0, 0.5, 0.01], rtol=1e-12)
    assert held(model) == before[0]
    assert [o.state_dict() for o in optimizers] == before[1]
    assert r.suggestion is not None
    assert r.apply(*optimizers) == r.suggestion
    found = [group["lr"] for optimizer in optimizers for group in optimizer.param_groups]
    assert found == pytest.approx([r.suggestion, r.suggestion / 2, r.suggestion / 100])


def test_both_optimizers_step() -> None:
    model = net()
    optimizers = [sgd(model[0]), sgd(model[3])]
    together = range_test(model, "cross_entropy", batches(30), optimizers, stop_early=False, **RAMP)
    model = net()
    parts = [*model[0].parameters(), *model[3].parameters()]
    one = range_test(
        model, "cross_entropy", batches(30), torch.optim.SGD(parts, lr=0.5, momentum=0.9), stop_early=False, **RAMP
    )
    assert together.losses.tolist() == one.losses.tolist()


def test_repeats_take_lists_and_tensors_in_another_order() -> None:
    data = batches(30)
    whole = torch.cat([x for x, _ in data] * 16), torch.cat([y for _, y in data] * 16)  # 30 batches of 256
    for source in (data, whole):
        model = net()
        optimizer = sgd(model)
        r = range_test(model, "cross_entropy", source, optimizer, repeats=3, stop_early=False, **RAMP)
        first = [nn.functional.cross_entropy(net()(x), y).item() for x, y in data]
        if source is data:
            assert r.curves[0][0] == first[0]
            assert all(any(curve[0] == pytest.approx(f, rel=1e-6) for f in first) for curve in r.curves)
        assert len({curve[0] for curve in r.curves}) == 3
        assert r.losses.tolist() == np.median(r.curves, axis=0).tolist()


def test_a_seed_makes_runs_alike_and_leaves_no_trace() -> None:
    def test(seed: int | None) -> list[list[float]]:
        model = nn.Sequential(net(), nn.Dropout(0.5))
        torch.manual_seed(int(torch.randint(1000, ())) + len(str(seed)))
        r = range_test(model, "cross_entropy", batches(30), sgd(model), seed=seed, repeats=2, stop_early=False, **RAMP)
        return [curve.tolist() for curve in r.curves]

    first = test(5)
    torch.manual_seed(99)
    state = torch.get_rng_state(), np.random.get_state()[1].tobytes(), random.getstate()  # noqa: NPY002
    again = test_state = test(5)
    assert first == again == test_state
    assert first[1] == test(6)[0]  # repeat i has seed + i
    assert np.random.get_state()[1].tobytes() == state[1]  # noqa: NPY002
    assert random.getstate() == state[2]


def test_reinitialise_draws_new_weights_for_repeats_only() -> None:
    model = net()
    before = held(model)
    starts = []

    def objective(model: nn.Module, batch: Batch) -> torch.Tensor:
        starts.append(model[0].weight.detach().clone())
        return nn.functional.cross_entropy(model(batch[0]), batch[1])

    range_test(
        model, objective, batches(30), sgd(model), repeats=3, seed=0, stop_early=False,
        reinitialise=lambda: (model[0].reset_parameters(), model[3].weight.zero_()), **RAMP,
    )  # fmt: skip
    assert torch.equal(starts[0], model[0].weight)
    assert len({start.numpy().tobytes() for start in starts[::30]}) == 3
    assert held(model) == before


def valley(optimizer: torch.optim.Optimizer, seen: list[float]) -> Any:
    """A step whose loss depends on the learning rate alone: flat to 1e-4, least at 1e-2, diverging from 1."""

    def closure() -> float:
        seen.append(optimizer.param_groups[0]["lr"])
        t = math.log10(seen[-1])
        return 2.3 - 1.8 / (1 + math.exp(-(t + 3) * 4)) + 0.1 * math.exp((t + 0.3) * 6)

    return closure


def test_extend_goes_on_until_all_phases_are_seen() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    seen: list[float] = []
    r = range_test(valley(optimizer, seen), optimizer, min_lr=1e-3, max_lr=1e-2, num_steps=21, extend=4)
    assert r.observed == ("flat", "descent", "divergence")
    firsts = [lr for before, lr in zip([math.inf, *seen], seen, strict=False) if lr < before]
    lasts = [lr for lr, after in zip(seen, [*seen[1:], 0.0], strict=True) if after < lr]
    assert firsts == pytest.approx([1e-3, 1e-5, 1e-5, 1e-5])
    assert lasts[:3] == pytest.approx([1e-2, 1e-1, 1.0])
    np.testing.assert_allclose(np.diff(np.log10(seen[21:40])), 0.05, rtol=1e-9)  # as many steps a decade
    seen.clear()
    range_test(valley(optimizer, seen), optimizer, num_steps=50, extend=4)
    assert len(seen) <= 50  # all phases are seen at once


def test_refine_looks_again_at_what_matters() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    seen: list[float] = []
    coarse = range_test(valley(optimizer, seen), optimizer, num_steps=60)
    fine = range_test(valley(optimizer, seen), optimizer, num_steps=60, refine=True)
    assert fine.lrs[0] == pytest.approx(coarse.bounds[0] / 10)
    assert fine.lrs[-1] <= 3 * coarse.phases["divergence"][0] * (1 + 1e-9)
    assert fine.decades_per_step < 0.7 * coarse.decades_per_step
    assert fine.suggestion == pytest.approx(coarse.suggestion, rel=0.15)  # nothing is learned here, so nothing moves
    seen.clear()
    assert range_test(lambda: seen.append(1) or 1.0, optimizer, num_steps=20, refine=True).suggestion is None
    assert len(seen) == 20


def test_a_schedule_gives_the_rates() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    schedule = tw.schedules.linear(1e-3, 10, 1e-2) >> tw.schedules.linear(1e-2, 40, 10.0)
    seen: list[float] = []
    range_test(valley(optimizer, seen), optimizer, mode=schedule, num_steps=50, stop_early=False)
    assert seen == schedule.values(50).tolist()
    with pytest.raises(ValueError, match="a schedule as mode must be positive and rise"):
        range_test(lambda: 1.0, optimizer, mode=tw.schedules.cosine(0.1, total_steps=50), num_steps=50)
    for kwargs in ({"extend": 1}, {"refine": True}):
        with pytest.raises(ValueError, match="mode must be 'exp'"):
            range_test(lambda: 1.0, optimizer, mode="linear", num_steps=50, **kwargs)


@pytest.mark.parametrize("error", [RuntimeError("cable pulled"), KeyboardInterrupt()])
def test_an_error_leaves_scaler_and_all_optimizers_as_they_were(error: BaseException) -> None:
    model = net()
    optimizers = [tw.optim.AdamW(model[0].parameters(), lr=tw.schedules.cosine(0.1, total_steps=9)), sgd(model[3])]
    scaler = tw.amp.GradScaler("cpu")
    calls = []

    def objective(model: nn.Module, batch: Batch) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 20:
            raise error
        return nn.functional.cross_entropy(model(batch[0]), batch[1])

    def state() -> Any:
        states = [
            [everything(o.state_dict()) for o in optimizers],
            optimizers[0].schedules,
            optimizers[0].schedule_step,
        ]
        return held(model), states, everything(vars(scaler)), torch.get_rng_state().tolist()

    before = state()
    with pytest.raises(type(error)):
        range_test(model, objective, batches(30), optimizers, scaler=scaler, repeats=2, seed=3, **RAMP)
    assert len(calls) == 20
    assert state() == before


@pytest.mark.parametrize("lag", [0, 3, 16])
def test_a_late_look_gives_the_same_result(lag: int) -> None:
    """The host looks `lag` steps later: more steps are run, the curve and its end are the same."""
    calls = []

    def closure() -> torch.Tensor:
        calls.append(1)
        k = len(calls)
        return torch.tensor(2.0 - 0.01 * k if k < 60 else math.inf)

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    r = range_test(closure, optimizer, num_steps=100, lag=lag)
    assert len(calls) == 60 + lag
    assert len(r.losses) == 59
    assert "the loss is inf at lr" in r.stopped
    assert r.losses.tolist() == [float(torch.tensor(2.0 - 0.01 * k)) for k in range(1, 60)]
    calls.clear()
    diverging = range_test(
        lambda: calls.append(1) or (1.0 if len(calls) < 50 else 1.0 + 3.0 * (len(calls) - 49)), optimizer,
        num_steps=100, lag=lag,
    )  # fmt: skip
    assert len(diverging.losses) == 52
    assert "diverged" in diverging.stopped


def test_an_early_end_within_the_lag_is_seen() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    losses = iter([*np.linspace(2, 1, 95), *[math.nan] * 5])
    r = range_test(lambda: next(losses), optimizer, num_steps=100, lag=16)
    assert len(r.losses) == 95
    assert "the loss is nan" in r.stopped


@pytest.mark.parametrize(
    ("kwargs", "error", "text"),
    [
        ({"accumulate": 0}, ValueError, "accumulate must be an integer >= 1"),
        ({"scaler": 3}, TypeError, "scaler must be a torch.amp.GradScaler or None"),
        ({"autocast": "bf16"}, TypeError, "autocast must be a torch.dtype or None"),
        ({"validation": 3}, TypeError, "data must be"),
        ({"validation": []}, ValueError, "validation is empty"),
        ({"validation": batches(1), "validate_every": 4}, ValueError, "validate_every must be at least 10, got 30 / 4"),
        ({"rule": "best"}, ValueError, "rule must be one of"),
        ({"seed": -1}, ValueError, "seed must be an integer >= 0"),
        ({"reinitialise": 3}, TypeError, "reinitialise must be a function or None"),
        ({"lag": -1}, ValueError, "lag must be an integer >= 0"),
        ({"distributed": 1}, TypeError, "distributed must be True, False or None"),
        ({"distributed": True}, ValueError, "distributed=True needs a process group"),
    ],
)
def test_bad_options(kwargs: dict[str, Any], error: type[Exception], text: str) -> None:
    model = net()
    with pytest.raises(error, match=f"range_test: .*{text}"):
        range_test(model, "cross_entropy", batches(30), sgd(model), **{**RAMP, **kwargs})


def test_bad_options_of_a_closure() -> None:
    optimizer = sgd(net())
    for kwargs in ({"accumulate": 2}, {"scaler": torch.amp.GradScaler("cpu")}, {"autocast": torch.bfloat16}):
        with pytest.raises(ValueError, match="a closure does them itself"):
            range_test(lambda: 1.0, optimizer, **kwargs)
    with pytest.raises(TypeError, match="validation must be a function that returns the loss"):
        range_test(lambda: 1.0, optimizer, validation=batches(1))
    with pytest.raises(ValueError, match="the same optimizer twice"):
        range_test(lambda: 1.0, [optimizer, optimizer])
    with pytest.raises(ValueError, match="got an empty list"):
        range_test(lambda: 1.0, [])
    with pytest.raises(TypeError, match="expected one optimizer or more"):
        range_test(lambda: 1.0, optimizer, num_steps=20).apply()
