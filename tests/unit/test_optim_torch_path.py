"""What the core cannot hold is stepped by torch's class: same numbers, hooks once, schedules go on, clear errors."""

from __future__ import annotations

import copy
import functools
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

import thalweg as tw

sys.path.insert(0, str(Path(__file__).parents[1]))
from parity.optimizer_cases import CLASSES, NAMES, class_of, torch_of
from reference import REFERENCES

PAIRS = [
    pytest.param(class_of(name), torch_of(name), REFERENCES[name].cases[1], id=CLASSES[name])
    for name in NAMES
    if torch_of(name)
]


def randn(seed: int, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def both(ours: Any, theirs: Any, options: dict[str, Any], use: Callable[[Any, list[nn.Parameter]], None]) -> Any:
    """Run the same on our class and torch's; return parameters and optimizers of each."""
    results = []
    for kind in (ours, theirs):
        values = [nn.Parameter(randn(1, 3, dtype=torch.complex64)), nn.Parameter(randn(2, 4, 2))]
        optimizer = kind(values, lr=0.1, **options)
        use(optimizer, values)
        results.append((values, optimizer))
    return results


def assert_same_states(one: Any, two: Any) -> None:
    for a, b in zip(one.state_dict()["state"].values(), two.state_dict()["state"].values(), strict=True):
        assert a.keys() == b.keys()
        for key in a:
            torch.testing.assert_close(a[key], b[key])


@pytest.mark.parametrize(("ours", "theirs", "options"), PAIRS)
def test_complex_parameters(ours: Any, theirs: Any, options: dict[str, Any]) -> None:
    def use(optimizer: Any, values: list[nn.Parameter]) -> None:
        for k in range(6):
            values[0].grad = randn(10 + k, 3, dtype=torch.complex64) if k in (1, 2, 4) else None  # the others are ours
            values[1].grad = randn(20 + k, 4, 2)
            optimizer.step()

    (a, one), (b, two) = both(ours, theirs, options, use)
    torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)
    assert_same_states(one, two)


@pytest.mark.parametrize(
    ("ours", "theirs", "options"),
    [
        (tw.optim.SGD, torch.optim.SGD, {}),
        (tw.optim.SGD, torch.optim.SGD, {"momentum": 0.9}),
        (tw.optim.Adagrad, torch.optim.Adagrad, {"lr_decay": 0.1, "initial_accumulator_value": 0.5}),
    ],
)
def test_sparse_gradients(ours: Any, theirs: Any, options: dict[str, Any]) -> None:
    tables = [nn.Embedding(6, 2, sparse=True) for _ in range(2)]
    tables[1].load_state_dict(tables[0].state_dict())
    pairs = zip((ours, theirs), tables, strict=True)
    optimizers = [kind(table.parameters(), lr=0.1, **options) for kind, table in pairs]
    for k in range(4):
        for optimizer, table in zip(optimizers, tables, strict=True):
            optimizer.zero_grad()
            table(torch.tensor([k, k, 5])).square().sum().backward()
            assert table.weight.grad.is_sparse
            with torch.sparse.check_sparse_tensor_invariants():
                optimizer.step()
    torch.testing.assert_close(tables[0].weight, tables[1].weight, rtol=0, atol=0)
    for table, optimizer in zip(tables, optimizers, strict=True):
        if "momentum" not in options:  # otherwise its buffer is sparse by now, to which torch adds nothing dense either
            table.weight.grad = torch.ones(6, 2)
            optimizer.step()
    torch.testing.assert_close(tables[0].weight, tables[1].weight)


@pytest.mark.parametrize("ours", [tw.optim.Adam, tw.optim.AdamW])
def test_sparse_gradients_of_adam_are_refused_by_name(ours: Any) -> None:
    table = nn.Embedding(4, 2, sparse=True)
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match=r"parameter 0 of group 0 \('weight'\).*sparse gradients: use torch"):
        ours(table.named_parameters()).step()


@pytest.mark.parametrize(("ours", "theirs", "options"), PAIRS)
def test_differentiable_steps(ours: Any, theirs: Any, options: dict[str, Any]) -> None:
    def gradient_of(kind: Any) -> Tensor:
        """Of a loss after two steps by the point before them and a gradient's scale."""
        start, scale = randn(3, 5, dtype=torch.float64).requires_grad_(), torch.tensor(2.0, dtype=torch.float64)
        scale.requires_grad_()
        p = start.clone()
        known = {k: v for k, v in options.items() if k != "amsgrad"}  # whose second step torch cannot follow
        optimizer = kind([p], lr=0.1, differentiable=True, **known)
        for k in range(2):
            p.grad = scale * randn(30 + k, 5, dtype=torch.float64)
            optimizer.step()
        return torch.cat([g.reshape(-1) for g in torch.autograd.grad(p.square().sum(), (start, scale))])

    try:
        expected = gradient_of(theirs)
    except RuntimeError as error:  # of Adamax and Rprop torch cannot follow the second step either
        with pytest.raises(RuntimeError, match=re.escape(str(error)[:60])):
            gradient_of(ours)
        return
    assert float(expected.abs().min()) > 0
    torch.testing.assert_close(gradient_of(ours), expected, rtol=0, atol=0)


@pytest.mark.parametrize(("ours", "theirs", "options"), PAIRS)
def test_a_parameter_that_stands_twice_is_stepped_twice(ours: Any, theirs: Any, options: dict[str, Any]) -> None:
    start, results = randn(4, 9), []
    for kind in (ours, theirs):
        p = nn.Parameter(start.clone())
        with pytest.warns(UserWarning, match="duplicate parameters"):
            optimizer = kind([p, p], lr=0.1, **options)
        for clone in (optimizer, copy.deepcopy(optimizer)):
            p = clone.param_groups[0]["params"][0]
            p.grad = randn(5, 9)
            clone.step()
            results.append(p)
    torch.testing.assert_close(results[:2], results[2:], rtol=0, atol=0)


def test_schedules_go_on_and_hooks_run_once() -> None:
    schedule, momentum = tw.schedules.cosine(0.2, total_steps=6), tw.schedules.linear(0.5, total_steps=6, end_lr=0.9)
    scheduled, manual = (nn.Parameter(randn(6, 3, dtype=torch.complex64)) for _ in range(2))
    ours = tw.optim.SGD([scheduled], lr=schedule, momentum=momentum)
    theirs = torch.optim.SGD([manual], lr=1.0, momentum=0.5)
    seen: list[str] = []
    ours.register_step_pre_hook(lambda *_: seen.append("pre"))
    ours.register_step_post_hook(lambda *_: seen.append("post"))
    for k in range(5):
        theirs.param_groups[0].update(lr=schedule(k), momentum=momentum(k))
        for p, optimizer in ((scheduled, ours), (manual, theirs)):
            p.grad = randn(40 + k, 3, dtype=torch.complex64)
            optimizer.step()
        assert (ours.param_groups[0]["lr"], ours.param_groups[0]["momentum"]) == (schedule(k + 1), momentum(k + 1))
    assert ours.schedule_step == 5
    assert seen == ["pre", "post"] * 5
    torch.testing.assert_close(scheduled, manual, rtol=0, atol=0)


def test_a_grad_scaler_unscales_and_skips() -> None:
    p = nn.Parameter(torch.ones(2, dtype=torch.complex64))
    optimizer = tw.optim.SGD([p], lr=tw.schedules.linear(0.5, total_steps=10), momentum=0.9)
    optimizer.grad_scale = torch.tensor(4.0)
    for found, expected, steps in ((2.0, 1.0, 0), (0.0, 0.5, 1)):  # two devices found something; none did
        optimizer.found_inf = torch.tensor(found)
        p.grad = torch.full((2,), 4.0, dtype=torch.complex64)
        optimizer.step()
        assert torch.equal(p.detach(), torch.full((2,), expected, dtype=torch.complex64))
        assert optimizer.schedule_step == steps
        assert len(optimizer.state) == steps


@pytest.mark.parametrize(
    "options", [{"max_grad_norm": 1.0}, {"max_grad_value": 1.0}, {"skip_nonfinite": True}, {"ema_decay": 0.9}]
)
def test_what_torch_does_not_know_is_refused(options: dict[str, Any]) -> None:
    p = nn.Parameter(torch.ones(2, dtype=torch.complex64))
    optimizer = tw.optim.AdamW([("weight", p)], **options)
    p.grad = torch.ones_like(p)
    (name,) = options
    with pytest.raises(RuntimeError, match=rf"AdamW: .*\('weight'\) has dtype torch.complex64.*knows no {name};"):
        optimizer.step()
    assert torch.equal(p, torch.ones_like(p))
    assert not optimizer.state


def test_a_trace_holds_the_step() -> None:
    p, q = (nn.Parameter(torch.arange(3.0)) for _ in range(2))
    ours, theirs = tw.optim.SGD([p], lr=0.1, momentum=0.9), torch.optim.SGD([q], lr=0.1, momentum=0.9)
    codes = []
    for value, optimizer in ((p, ours), (q, theirs)):
        value.grad = torch.ones(3)
        optimizer.step()

        def step(value: nn.Parameter, optimizer: Any, grad: Tensor) -> Tensor:
            value.grad = grad
            optimizer.step()
            return value.detach()

        graph = make_fx(functools.partial(step, value, optimizer))(torch.ones(3)).graph
        codes.append([node.target for node in graph.nodes if "record" not in str(node.target)])
    assert codes[0] == codes[1]
    assert torch.ops.aten.add_.Tensor in codes[0]


def test_a_dispatch_mode_sees_the_writes() -> None:
    class Log(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(func)
            return func(*args, **(kwargs or {}))

    seen: list[Any] = []
    p = nn.Parameter(torch.ones(3))
    optimizer = tw.optim.SGD([p], lr=0.5)
    p.grad = torch.ones(3)
    with Log():
        optimizer.step()
    assert torch.ops.aten.add_.Tensor in seen
    optimizer.step()
    assert torch.equal(p, torch.zeros(3))


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
def test_fake_tensors_have_no_memory_to_write_to() -> None:
    with FakeTensorMode():
        p = nn.Parameter(torch.randn(3, 4))
        optimizer = tw.optim.AdamW([p], lr=tw.schedules.cosine(0.1, total_steps=5))
        p.grad = torch.randn(3, 4)
        optimizer.step()
    optimizer.step()
    assert optimizer.schedule_step == 2
    assert optimizer.state[p]["exp_avg"].shape == (3, 4)


@pytest.mark.parametrize(("ours", "theirs", "options"), PAIRS)
def test_steps_inside_inference_mode(ours: Any, theirs: Any, options: dict[str, Any]) -> None:
    results = []
    for kind in (ours, theirs):
        p = nn.Parameter(randn(7, 5))
        optimizer = kind([p], lr=0.1, **options)
        for k in range(4):
            p.grad = randn(50 + k, 5)
            with torch.inference_mode(mode=kind is ours and k < 2):  # torch's states could not be written later
                optimizer.step()
        results.append(p)
    torch.testing.assert_close(results[0], results[1])
