"""torch.compile around a training step: one graph break for the optimizer, no recompiles, the numbers of the eager step."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter
from torch._dynamo.utils import counters

import thalweg as tw

pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # Dynamo reads it
KINDS = [
    pytest.param(
        lambda p: tw.optim.SGD(p, lr=tw.schedules.one_cycle(0.1, total_steps=1000).lr, momentum=0.9), id="SGD"
    ),
    pytest.param(
        lambda p: tw.optim.AdamW(p, lr=tw.schedules.one_cycle(0.01, total_steps=1000).lr, max_grad_norm=1.0), id="AdamW"
    ),
]


@pytest.fixture(autouse=True)
def fresh_dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def training(make: Callable[[Any], Any]) -> tuple[nn.Module, Any, Callable[[], Tensor]]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 1))
    optimizer = make(model.parameters())
    inputs, targets = torch.randn(16, 6), torch.randn(16, 1)

    def step() -> Tensor:
        loss = (model(inputs) - targets).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return model, optimizer, step


@pytest.mark.parametrize("make", KINDS)
def test_a_compiled_training_step(make: Callable[[Any], Any]) -> None:
    model, optimizer, step = training(make)
    counter = CompileCounter()
    compiled = torch.compile(step, backend=counter)
    losses = [compiled() for _ in range(3)]
    graphs = counter.frame_count
    with torch._dynamo.config.patch(error_on_recompile=True):
        losses += [compiled() for _ in range(997)]
    assert counter.frame_count == graphs
    places = [text for text in counters["graph_break"] if "backward" not in text and "zero_grad" not in text]  # torch's
    assert len(places) == 1
    assert "FusedOptimizer" in places[0]
    assert optimizer.schedule_step == 1000
    twin, _, eager = training(make)
    assert losses == [eager() for _ in range(1000)]
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), twin.parameters(), strict=True))


@pytest.mark.parametrize("make", KINDS)
def test_a_compiled_optimizer_step_alone(make: Callable[[Any], Any]) -> None:
    p, q = (nn.Parameter(torch.arange(5.0)) for _ in range(2))
    optimizer, eager, counter = make([p]), make([q]), CompileCounter()
    seen: list[int] = []
    optimizer.register_step_post_hook(lambda o, *_: seen.append(o.schedule_step))
    compiled = torch.compile(lambda: optimizer.step(), backend=counter)
    for k in range(50):
        for value in (p, q):
            value.grad = torch.full((5,), float(k))
        with torch._dynamo.config.patch(error_on_recompile=k > 2):
            compiled()
        eager.step()
    assert counter.frame_count == 0, "nothing of the step is traced"
    assert torch.equal(p, q)
    assert seen == list(range(1, 51))


def test_a_torch_scheduler_and_a_closure_in_a_compiled_function() -> None:
    p = nn.Parameter(torch.ones(4))
    optimizer = tw.optim.SGD([p], lr=0.5)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = p.sum()
        loss.backward()
        return loss.detach()

    compiled = torch.compile(lambda: optimizer.step(closure), backend="eager")
    for _ in range(20):
        compiled()
        scheduler.step()
    torch.testing.assert_close(p.detach(), torch.full((4,), 1.0 - sum(0.5 * 0.5**k for k in range(20))))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")  # inductor's own
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
def test_inductor() -> None:
    make = KINDS[1].values[0]
    model, _, step = training(make)
    compiled = torch.compile(step)
    losses = [float(compiled()) for _ in range(20)]
    _, _, eager = training(make)
    assert losses == pytest.approx([float(eager()) for _ in range(20)], rel=1e-4)
    assert losses[-1] < losses[0]
