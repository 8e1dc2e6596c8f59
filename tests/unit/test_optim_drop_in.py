"""Drop-in use: every torch scheduler, GradScaler, closures, long runs; torch's optimizer under the same loop is the oracle."""

from __future__ import annotations

import gc
import tracemalloc
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler as ls

import thalweg as tw

PAIRS = [
    pytest.param(tw.optim.SGD, torch.optim.SGD, {"momentum": 0.9}, id="SGD"),
    pytest.param(tw.optim.Adam, torch.optim.Adam, {}, id="Adam"),
    pytest.param(tw.optim.AdamW, torch.optim.AdamW, {"weight_decay": 0.1}, id="AdamW"),
]
SCHEDULERS: dict[str, Callable[[Any], Any]] = {
    "LambdaLR": lambda o: ls.LambdaLR(o, lambda k: 1 / (1 + k)),
    "MultiplicativeLR": lambda o: ls.MultiplicativeLR(o, lambda k: 0.9),
    "StepLR": lambda o: ls.StepLR(o, 3, 0.5),
    "MultiStepLR": lambda o: ls.MultiStepLR(o, [2, 5, 5], 0.3),
    "ConstantLR": lambda o: ls.ConstantLR(o, 0.3, 4),
    "LinearLR": lambda o: ls.LinearLR(o, 0.25, 0.75, 5),
    "ExponentialLR": lambda o: ls.ExponentialLR(o, 0.9),
    "PolynomialLR": lambda o: ls.PolynomialLR(o, 8, 2.0),
    "CosineAnnealingLR": lambda o: ls.CosineAnnealingLR(o, 4, 1e-3),
    "CosineAnnealingWarmRestarts": lambda o: ls.CosineAnnealingWarmRestarts(o, 3, 2),
    "ReduceLROnPlateau": lambda o: ls.ReduceLROnPlateau(o, patience=1, factor=0.5),
    "CyclicLR": lambda o: ls.CyclicLR(o, 0.01, 0.1, 3, mode="triangular2"),
    "OneCycleLR": lambda o: ls.OneCycleLR(o, 0.2, total_steps=20, three_phase=True),
    "SWALR": lambda o: torch.optim.swa_utils.SWALR(o, 0.01, anneal_epochs=5),
    "SequentialLR": lambda o: ls.SequentialLR(
        o, [ls.LinearLR(o, 0.1, total_iters=4), ls.CosineAnnealingLR(o, 9)], milestones=[4]
    ),
    "ChainedScheduler": lambda o: ls.ChainedScheduler(
        [ls.ConstantLR(o, 0.5, 3), ls.ExponentialLR(o, 0.8)], optimizer=o
    ),
    "two at once": lambda o: _Two(ls.StepLR(o, 4, 0.5), ls.ReduceLROnPlateau(o, patience=0, factor=0.5)),
}


class _Two:
    def __init__(self, *schedulers: Any) -> None:
        self.schedulers = schedulers

    def step(self, metric: float) -> None:
        for scheduler in self.schedulers:
            advance(scheduler, metric)


def advance(scheduler: Any, metric: float) -> None:
    scheduler.step(metric) if isinstance(scheduler, (ls.ReduceLROnPlateau, _Two)) else scheduler.step()


def net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1))


def loss_of(model: nn.Module, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (model(torch.randn(8, 3, generator=generator)) - 1).square().mean()


def hypers(optimizer: torch.optim.Optimizer) -> list[tuple[float, ...]]:
    groups = optimizer.param_groups
    return [(float(g["lr"]), *(g["betas"] if "betas" in g else (g["momentum"],))) for g in groups]


def test_every_scheduler_of_torch_is_in_the_table() -> None:
    public = {n for n, c in vars(ls).items() if isinstance(c, type) and issubclass(c, ls.LRScheduler) and n[0] != "_"}
    assert public - {"LRScheduler"} <= set(SCHEDULERS)


@pytest.mark.parametrize(("ours", "theirs", "options"), PAIRS)
@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("tensor_lr", [False, True], ids=["float", "tensor"])
def test_torchs_schedulers_drive_ours_as_torchs(
    ours: Any, theirs: Any, options: dict[str, Any], name: str, tensor_lr: bool
) -> None:
    traces, ends = [], []
    for kind in (ours, theirs):
        model = net()
        first, second = (list(layer.parameters()) for layer in (model[0], model[2]))
        lr = [torch.tensor(v, dtype=torch.float64) if tensor_lr else v for v in (0.05, 0.1)]
        optimizer = kind([{"params": first}, {"params": second, "lr": lr[1]}], lr=lr[0], **options)
        scheduler, trace = SCHEDULERS[name](optimizer), [hypers(optimizer)]
        for k in range(14):
            optimizer.zero_grad()
            loss_of(model, k).backward()
            optimizer.step()
            advance(scheduler, [3.0, 2.0, 2.5, 2.5][k % 4])
            trace.append(hypers(optimizer))
        traces.append(trace)
        ends.append(list(model.parameters()))
    assert traces[0] == traces[1]
    assert len(set(map(str, traces[0]))) >= 2, "the scheduler did something"
    torch.testing.assert_close(ends[0], ends[1], rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize(("ours", "theirs", "options"), PAIRS)
def test_an_update_uses_the_lr_that_stood_before_the_scheduler(ours: Any, theirs: Any, options: dict[str, Any]) -> None:
    """A step too early or too late would use another of these rates, which differ by a factor of ten."""
    moves = []
    for kind in (ours, theirs):
        p = nn.Parameter(torch.zeros(1, dtype=torch.float64))
        optimizer = kind([p], lr=1.0, **{**options, **({"momentum": 0.0} if "momentum" in options else {})})
        scheduler, move = ls.ExponentialLR(optimizer, 0.1), []
        for _ in range(4):
            p.grad, before = torch.ones_like(p), p.item()
            optimizer.step()
            scheduler.step()
            move.append(before - p.item())
        moves.append(move)
    assert moves[0] == pytest.approx(moves[1], rel=1e-12)


@pytest.mark.parametrize(("ours", "theirs", "options"), PAIRS)
@pytest.mark.parametrize("clip", [False, True])
def test_torchs_grad_scaler(ours: Any, theirs: Any, options: dict[str, Any], clip: bool) -> None:
    results = []
    for kind in (ours, theirs):
        model, scales = net(), []
        optimizer = kind(model.parameters(), lr=0.05, **options)
        scheduler = ls.OneCycleLR(optimizer, 0.1, total_steps=12)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=3)
        for k in range(10):
            optimizer.zero_grad()
            scaler.scale(loss_of(model, k)).backward()
            if k in (0, 5):
                model[0].weight.grad[0, 0] = float("inf")
            if clip:
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            before = scaler.get_scale()
            scaler.step(optimizer)
            scaler.update()
            if scaler.get_scale() >= before:
                scheduler.step()
            scales.append(scaler.get_scale())
        states = [optimizer.state[p] for p in model.parameters()]
        results.append((scales, hypers(optimizer), list(model.parameters()), states))
    assert results[0][:2] == results[1][:2]
    assert min(results[0][0]) < 2.0**10
    torch.testing.assert_close(results[0][2:], results[1][2:], rtol=4e-6, atol=4e-6)


def test_a_closure_and_misuse() -> None:
    p = nn.Parameter(torch.ones(2))
    optimizer = tw.optim.SGD([p], lr=0.5)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = p.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure) == 2.0
    assert torch.equal(p, torch.zeros(2))
    with pytest.raises(TypeError, match="'float' object is not callable"):
        optimizer.step(0.5)

    def broken() -> Tensor:
        raise ValueError("no data")

    with pytest.raises(ValueError, match="no data"):
        optimizer.step(broken)
    assert optimizer.schedule_step == 1
    optimizer.step(closure)
    assert optimizer.schedule_step == 2


@pytest.mark.parametrize("ours", [tw.optim.SGD, tw.optim.AdamW])
def test_long_runs_keep_no_objects(ours: Any) -> None:
    model = net()
    schedule = tw.schedules.sgdr(0.01, t_0=50, t_mult=2)
    optimizer = ours(model.parameters(), lr=schedule, max_grad_norm=1.0)

    def steps(n: int) -> tuple[int, int]:
        for k in range(n):
            optimizer.zero_grad()
            loss_of(model, k).backward()
            optimizer.step()
        optimizer.zero_grad()
        gc.collect()
        return len(gc.get_objects()), tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        steps(50)
        objects, memory = steps(50)
        after = steps(2_000)
    finally:
        tracemalloc.stop()
    assert after[0] - objects <= 20
    assert after[1] - memory < 2_000 * 8, "less than a pointer a step"


@pytest.mark.parametrize("ours", [tw.optim.SGD, tw.optim.Adam, tw.optim.AdamW])
def test_parameters_die_with_model_and_optimizer(ours: Any) -> None:
    model = net()
    optimizer = ours(model.parameters(), lr=tw.schedules.constant(0.1), weight_decay=0.1)
    scaler = torch.amp.GradScaler("cpu")
    for k in range(3):
        scaler.scale(loss_of(model, k)).backward()
        scaler.step(optimizer)
        scaler.update()
    optimizer.load_state_dict(optimizer.state_dict())
    loss_of(model, 0).backward()
    optimizer.step()
    watched = [weakref.ref(o) for p in model.parameters() for o in (p, p.grad, *optimizer.state[p].values())]
    gc.collect()
    gc.disable()
    try:
        del model, optimizer, scaler
        assert [ref() for ref in watched] == [None] * len(watched)
    finally:
        gc.enable()


def test_schedulers_find_no_fault_with_the_order_of_calls() -> None:
    """torch's schedulers count `optimizer.step` calls and warn when a step was missed; and only then."""
    for kind in (tw.optim.SGD, torch.optim.SGD):
        optimizer = kind([nn.Parameter(torch.ones(1))], lr=0.1)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            scheduler = ls.StepLR(optimizer, 3)
            scheduler.step()
        assert ["lr_scheduler.step()" in str(w.message) for w in caught] == [True], kind
        optimizer.step()
        scheduler.step()  # warnings are errors here
