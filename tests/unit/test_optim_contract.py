"""What torch asks of an optimizer, and what the schedule inside adds."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from typing import Any

import pytest
import torch
from torch import nn

import thalweg as tw

PAIRS = [(tw.optim.SGD, torch.optim.SGD), (tw.optim.Adam, torch.optim.Adam), (tw.optim.AdamW, torch.optim.AdamW)]
STATEFUL = [(tw.optim.SGD, torch.optim.SGD, {"momentum": 0.9}), *((a, b, {"amsgrad": True}) for a, b in PAIRS[1:])]


def params(seed: int = 0, sizes: tuple[tuple[int, ...], ...] = ((4, 3), (5,), ())) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(s, generator=generator)) for s in sizes]


def give_grads(values: list[nn.Parameter], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for p in values:
        p.grad = torch.randn(p.shape, generator=generator)


def steps(optimizer: torch.optim.Optimizer, values: list[nn.Parameter], n: int, seed: int) -> None:
    for k in range(n):
        give_grads(values, 1000 * seed + k)
        optimizer.step()


def same(a: list[nn.Parameter], b: list[nn.Parameter], tolerance: float = 0.0) -> bool:
    return all(torch.allclose(x, y, rtol=0, atol=tolerance) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("ours", [p[0] for p in PAIRS])
def test_pickle_and_deepcopy_carry_everything(ours: Any) -> None:
    values = params()
    optimizer = ours(values, lr=tw.schedules.triangular(0.01, 0.1, 5))
    steps(optimizer, values, 3, 1)
    for clone in (pickle.loads(pickle.dumps(optimizer)), copy.deepcopy(optimizer)):
        twin = clone.param_groups[0]["params"]
        assert clone.schedule_step == 3
        assert clone.schedules == optimizer.schedules
        steps(clone, twin, 4, 2)
        reference = copy.deepcopy(optimizer)
        steps(reference, reference.param_groups[0]["params"], 4, 2)
        assert same(twin, reference.param_groups[0]["params"])


def test_groups_have_their_own_schedules_and_options() -> None:
    values = params()
    fast, slow = tw.schedules.constant(0.5), tw.schedules.linear(0.1, total_steps=2)
    optimizer = tw.optim.SGD([{"params": values[:1]}, {"params": values[1:2], "lr": slow}], lr=fast)
    optimizer.add_param_group({"params": values[2:], "lr": 0.25})
    start = [p.detach().clone() for p in values]
    for k in range(2):
        for p in values:
            p.grad = torch.ones_like(p)
        optimizer.step()
        assert [g["lr"] for g in optimizer.param_groups] == [0.5, slow(k + 1), 0.25]
    for p, s, lr in zip(values, start, (1.0, 0.15, 0.5), strict=True):
        torch.testing.assert_close(p.detach(), s - lr)


def test_foreign_write_takes_the_group_over_and_warns_once() -> None:
    values = params()
    optimizer = tw.optim.SGD(values, lr=tw.schedules.cosine(0.1, total_steps=10))
    steps(optimizer, values, 2, 0)
    optimizer.param_groups[0]["lr"] = 0.7
    with pytest.warns(UserWarning, match="lr of group 0 was set from outside to 0.7"):
        steps(optimizer, values, 1, 1)
    steps(optimizer, values, 2, 2)  # warnings are errors here: no second one
    assert optimizer.param_groups[0]["lr"] == 0.7
    assert optimizer.schedules == (None,)


def test_torch_scheduler_drives_a_float_lr() -> None:
    a, b = params(), params()
    ours, theirs = tw.optim.SGD(a, lr=0.1, momentum=0.9), torch.optim.SGD(b, lr=0.1, momentum=0.9)
    schedulers = [torch.optim.lr_scheduler.OneCycleLR(o, 0.5, total_steps=10) for o in (ours, theirs)]
    for k in range(9):
        for optimizer, values, scheduler in zip((ours, theirs), (a, b), schedulers, strict=True):
            give_grads(values, k)
            optimizer.step()
            scheduler.step()
    assert ours.param_groups[0]["lr"] == theirs.param_groups[0]["lr"]
    assert same(a, b, 1e-6)


def test_hooks_run_in_torchs_order_and_closure_runs_once_with_gradients() -> None:
    from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

    values, seen = params(), []
    optimizer = tw.optim.AdamW(values, lr=0.1)
    optimizer.register_step_pre_hook(lambda *a: seen.append("local pre"))
    optimizer.register_step_post_hook(lambda *a: seen.append("local post"))
    handles = [
        register_optimizer_step_pre_hook(lambda *a: seen.append("global pre")),
        register_optimizer_step_post_hook(lambda *a: seen.append("global post")),
    ]

    def closure() -> torch.Tensor:
        seen.append(f"closure {torch.is_grad_enabled()}")
        give_grads(values, 0)
        return torch.tensor(3.0)

    try:
        with torch.no_grad():
            assert optimizer.step(closure) == 3.0
    finally:
        for handle in handles:
            handle.remove()
    assert seen == ["global pre", "local pre", "closure True", "local post", "global post"]


def test_autograd_sees_the_write() -> None:
    p = nn.Parameter(torch.ones(3))
    loss = (p * p).sum()
    p.grad = torch.ones(3)
    before = p._version
    tw.optim.SGD([p], lr=0.1).step()
    assert p._version > before
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
    assert torch.equal(p.grad, torch.ones(3)), "gradients stay as they are"
    assert p.grad_fn is None


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_layouts_of_parameter_and_gradient(ours: Any, theirs: Any) -> None:
    """channels-last, transposed gradients, parameters with gaps, gradients that are views."""
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(4, 3, 5, 6, generator=generator)
    layouts = [
        base.clone().to(memory_format=torch.channels_last),
        base.clone(),
        torch.randn(8, 6, generator=generator)[::2, ::3],
        torch.randn(5, 7, generator=generator).t(),
    ]
    a = [nn.Parameter(t.clone(memory_format=torch.preserve_format)) for t in layouts]
    a[2].data = torch.randn(8, 6, generator=generator)[::2, ::3]  # clone() closed the gaps
    b = [nn.Parameter(p.detach().clone()) for p in a]
    one, two = ours(a, lr=0.1, weight_decay=0.1), theirs(b, lr=0.1, weight_decay=0.1)
    for _ in range(3):
        for x, y in zip(a, b, strict=True):
            g = torch.randn(x.shape, generator=generator)
            x.grad = g.to(memory_format=torch.channels_last) if g.dim() == 4 else g.t().contiguous().t()
            y.grad = g.clone()
        one.step()
        two.step()
    assert same(a, b, 2e-6)


@pytest.mark.parametrize(("ours", "theirs", "options"), STATEFUL)
def test_swapped_tensors_are_noticed(ours: Any, theirs: Any, options: dict[str, Any]) -> None:
    """Parameter data, whole state dicts and single state tensors are replaced between steps."""
    a, b = params(), params()
    one, two = ours(a, lr=0.1, **options), theirs(b, lr=0.1, **options)
    for round_ in range(4):
        for optimizer, values in ((one, a), (two, b)):
            steps(optimizer, values, 2, round_)
            if round_ == 0:
                values[0].data = values[0].data.clone() + 1
            elif round_ == 1:
                optimizer.state[values[1]] = {k: v.clone() for k, v in optimizer.state[values[1]].items()}
            elif round_ == 2:
                name = next(k for k in optimizer.state[values[0]] if k != "step")
                optimizer.state[values[0]][name] = torch.zeros_like(values[0])
                optimizer.state[values[0]]["note"] = "a key of the user's own"
    assert same(a, b, 2e-6)


def test_frozen_missing_and_late_gradients() -> None:
    a, b = params(), params()
    one, two = tw.optim.AdamW(a, lr=0.1), torch.optim.AdamW(b, lr=0.1)
    one.step()
    assert not one.state
    for k in range(6):
        for values, optimizer in ((a, one), (b, two)):
            give_grads(values, k)
            values[1].grad = None if k < 3 else values[1].grad
            values[0].grad = None if 2 <= k < 4 else values[0].grad
            optimizer.step()
    assert same(a, b, 1e-6)
    assert [float(one.state[p]["step"]) for p in a] == [4.0, 3.0, 6.0]


def test_hyper_parameters_are_read_at_each_step() -> None:
    a, b = params(), params()
    one, two = tw.optim.Adam(a, lr=torch.tensor(0.1)), torch.optim.Adam(b, lr=torch.tensor(0.1))
    for k in range(5):
        for values, optimizer in ((a, one), (b, two)):
            group = optimizer.param_groups[0]
            group["lr"].fill_(0.1 / (k + 1))
            group["betas"] = (0.5 + 0.05 * k, 0.9)
            group["weight_decay"] = 0.1 * k
            group["amsgrad"] = k >= 2
            give_grads(values, k)
            if k == 2:  # torch does not create the late state by itself
                for p in values:
                    optimizer.state[p]["max_exp_avg_sq"] = torch.zeros_like(p)
            optimizer.step()
    assert same(a, b, 1e-6)


def test_nothing_is_kept_alive() -> None:
    values = params()
    optimizer = tw.optim.AdamW(values, lr=tw.schedules.constant(0.1))
    steps(optimizer, values, 2, 0)
    gradient = weakref.ref(values[0].grad)
    optimizer.zero_grad()
    assert gradient() is None, "the optimizer must not hold gradients"
    watched = weakref.ref(optimizer)
    gc.disable()
    try:
        del optimizer
        assert watched() is None, "no reference cycle"
    finally:
        gc.enable()


def test_grad_scaler_skips_a_step_with_infinite_gradients() -> None:
    values = params()
    optimizer = tw.optim.SGD(values, lr=tw.schedules.linear(0.1, total_steps=10), momentum=0.9)
    scaler = torch.amp.GradScaler("cpu")
    start = [p.detach().clone() for p in values]
    for k in range(3):
        optimizer.zero_grad()
        loss = sum((p * (k + 1)).sum() for p in values)
        scaler.scale(loss).backward()
        if k == 0:
            values[0].grad[0, 0] = float("inf")
        scaler.step(optimizer)
        scaler.update()
        if k == 0:
            assert same(values, [nn.Parameter(s) for s in start])
            assert optimizer.sync() == 0
            assert not optimizer.state
    assert optimizer.schedule_step == 2
    first, second = 2.0, 3.0  # momentum's first value is the gradient itself
    expected = start[1] - 0.1 * first - 0.09 * (0.9 * first + second)
    torch.testing.assert_close(values[1].detach(), expected)


BAD: list[tuple[Any, type[Exception], str]] = [
    (lambda: tw.optim.SGD([], lr=0.1), ValueError, "empty parameter list"),
    (lambda: tw.optim.SGD(torch.ones(2), lr=0.1), TypeError, "iterable of Tensors"),
    (lambda: tw.optim.SGD(params(), lr=-0.1), ValueError, "Invalid learning rate: -0.1"),
    (lambda: tw.optim.SGD(params(), lr=float("nan")), ValueError, "Invalid learning rate: nan"),
    (lambda: tw.optim.SGD(params(), lr="fast"), TypeError, "learning rate must be a number, got 'fast'"),
    (lambda: tw.optim.SGD(params(), lr=torch.ones(2)), ValueError, "Tensor lr must be 1-element"),
    (lambda: tw.optim.SGD(params(), momentum=-1), ValueError, "Invalid momentum value: -1"),
    (lambda: tw.optim.SGD(params(), weight_decay=float("inf")), ValueError, "Invalid weight_decay value"),
    (lambda: tw.optim.SGD(params(), nesterov=True), ValueError, "Nesterov momentum requires a momentum"),
    (lambda: tw.optim.Adam(params(), betas=(1.0, 0.9)), ValueError, "Invalid beta parameter at index 0: 1.0"),
    (lambda: tw.optim.Adam(params(), betas=(0.9, float("nan"))), ValueError, "Invalid beta parameter at index 1: nan"),
    (lambda: tw.optim.Adam(params(), betas=0.9), TypeError, "betas must be a pair"),
    (lambda: tw.optim.Adam(params(), betas=(torch.tensor(0.9), 0.9)), ValueError, "both floats or both Tensors"),
    (lambda: tw.optim.AdamW(params(), eps=-1), ValueError, "Invalid epsilon value: -1"),
    (
        lambda: tw.optim.AdamW(params(), differentiable=True, fused=True),
        RuntimeError,
        "does not support `differentiable`",
    ),
    (lambda: tw.optim.AdamW(params(), foreach=True, fused=True), RuntimeError, "cannot be `True` together"),
    (lambda: tw.optim.SGD([{"params": params(), "lr": -1.0}], lr=0.1), ValueError, "Invalid learning rate: -1.0"),
]


@pytest.mark.parametrize("case", range(len(BAD)))
def test_bad_arguments(case: int) -> None:
    build, kind, text = BAD[case]
    with pytest.raises(kind, match=text):
        build()


@pytest.mark.parametrize("ours", [tw.optim.Adam, tw.optim.AdamW])
def test_torchs_flags_are_refused_where_torch_refuses_them(ours: Any) -> None:
    with pytest.raises(ValueError, match="lr as a Tensor is not supported for capturable=False and foreach=True"):
        ours(params(), lr=torch.tensor(0.1), foreach=True)
    betas = torch.tensor(0.9), torch.tensor(0.99)
    with pytest.raises(ValueError, match=r"betas\[0\] as a Tensor is not supported for capturable=False"):
        ours(params(), betas=betas, foreach=True)
    ours(params(), betas=betas)
    meta = nn.Parameter(torch.zeros(2, device="meta"))
    meta.grad = torch.zeros(2, device="meta")
    with pytest.raises(RuntimeError, match="`fused=True` requires all the params to be floating point Tensors"):
        ours([meta], fused=True).step()
    with pytest.raises(RuntimeError, match="parameter 0 of group 0 is on meta; thalweg steps"):
        ours([meta]).step()


def test_refused_parameters_are_named_and_nothing_is_written() -> None:
    good, sparse = nn.Parameter(torch.ones(3)), nn.Embedding(4, 2, sparse=True)
    tiny = nn.Parameter(torch.ones(2).to(torch.float8_e5m2))
    sparse(torch.tensor([1])).sum().backward()
    for p in (good, tiny):
        p.grad = torch.ones_like(p)
    cases = [
        (sparse.weight, "sparse gradients"),
        (tiny, "dtype torch.float8_e5m2"),
    ]
    for bad, text in cases:
        optimizer = tw.optim.AdamW([("first", good), ("second", bad)], lr=tw.schedules.constant(0.1))
        with pytest.raises(RuntimeError, match=f"parameter 1 of group 0 \\('second'\\).*{text}"):
            optimizer.step()
        assert torch.equal(good, torch.ones(3))
        assert optimizer.schedule_step == 0
        assert not optimizer.state


def test_loaded_state_of_another_shape_is_refused_by_name() -> None:
    small, large = [nn.Parameter(torch.ones(2))], [nn.Parameter(torch.ones(3))]
    donor = tw.optim.AdamW(small)
    steps(donor, small, 1, 0)
    receiver = tw.optim.AdamW(large)
    receiver.load_state_dict(donor.state_dict())
    with pytest.raises(
        ValueError, match=r"state 'exp_avg' of parameter 0 of group 0 must have shape \(3,\), got \(2,\)"
    ):
        steps(receiver, large, 1, 0)
    assert torch.equal(large[0], torch.ones(3))
