"""16-bit training, moving averages, zeroed gradients, clipping by value: what the options promise, on any device."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import thalweg as tw

pytestmark = pytest.mark.cuda

CLASSES = [
    (tw.optim.SGD, torch.optim.SGD, {"momentum": 0.9}),
    (tw.optim.SGD, torch.optim.SGD, {}),
    (tw.optim.AdamW, torch.optim.AdamW, {"amsgrad": True}),
]
SHAPES = ((33, 5), (8,), (), (0,), (4099,))


def params(device: torch.device, dtype: torch.dtype, seed: int = 0) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(s, generator=generator).to(device, dtype)) for s in SHAPES]


def give(values: list[nn.Parameter], seed: int, dtype: torch.dtype | None = None) -> None:
    """Gradients that are bfloat16 numbers whatever type they are given in."""
    generator = torch.Generator().manual_seed(seed)
    for p in values:
        g = torch.randn(p.shape, generator=generator).bfloat16()
        if dtype not in (None, p.dtype):
            p.grad_dtype = None  # torch then lets a gradient have another type
        p.grad = g.to(p.device, dtype or p.dtype)


def states(opt: torch.optim.Optimizer, name: str) -> list[torch.Tensor]:
    return [opt.state[p][name] for g in opt.param_groups for p in g["params"]]


def equal(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("ours", "theirs", "options"), CLASSES)
def test_sixteen_bits_are_as_close_to_float64_as_torch(
    device: torch.device, ours: Any, theirs: Any, options: dict[str, Any], dtype: torch.dtype
) -> None:
    runs = []
    for make, kind in ((ours, dtype), (theirs, dtype), (theirs, torch.float64)):
        values = [nn.Parameter(p.detach().to(kind)) for p in params(device, dtype)]
        opt = make(values, lr=0.01, **options)
        for k in range(20):
            give(values, k)
            opt.step()
        runs.append([p.detach().double() for p in values])
    for mine, torchs, exact in zip(*runs, strict=True):
        if mine.numel():
            eps = torch.finfo(dtype).eps
            error, peer = (mine - exact).abs(), (torchs - exact).abs()
            assert float(error.mean()) <= 1.1 * float(peer.mean()) + 0.1 * eps
            assert float(error.max()) <= 1.5 * float(peer.max()) + 2 * eps * float(exact.abs().max())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("ours", "theirs", "options"), CLASSES)
def test_master_weights_are_the_float32_run(
    device: torch.device, ours: Any, theirs: Any, options: dict[str, Any], dtype: torch.dtype
) -> None:
    low = params(device, dtype)
    wide = [nn.Parameter(p.detach().float()) for p in low]
    a, b = ours(low, lr=0.01, master_weights=True, **options), ours(wide, lr=0.01, **options)
    for k in range(10):
        give(low, k)
        give(wide, k)
        a.step()
        b.step()
    assert equal(states(a, "master_param"), [p.detach() for p in wide])
    assert equal([p.detach() for p in low], [p.detach().to(dtype) for p in wide])
    again = ours([nn.Parameter(p.detach().clone()) for p in low], lr=9.0, master_weights=True, **options)
    again.load_state_dict(copy.deepcopy(a.state_dict()))
    for name in a.state[low[0]]:
        if name != "step":
            assert equal(states(a, name), states(again, name)), f"{name} must not be truncated"
    for o in (a, again):
        give(o.param_groups[0]["params"], 99)
        o.step()
    assert equal(states(a, "master_param"), states(again, "master_param"))


@pytest.mark.parametrize(("ours", "theirs", "options"), CLASSES)
def test_gradients_may_have_another_type(device: torch.device, ours: Any, theirs: Any, options: dict[str, Any]) -> None:
    a, b = params(device, torch.float32), params(device, torch.float32)
    one, two = ours(a, lr=0.01, max_grad_norm=1.0, **options), ours(b, lr=0.01, max_grad_norm=1.0, **options)
    for k in range(5):
        give(a, k, torch.bfloat16)
        give(b, k)
        one.step()
        two.step()
    assert equal([p.detach() for p in a], [p.detach() for p in b])


def test_states_in_bfloat16(device: torch.device) -> None:
    values = params(device, torch.float32)
    opt = tw.optim.AdamW(values, lr=0.01, state_dtype=torch.bfloat16)
    for k in range(5):
        give(values, k)
        opt.step()
    assert {s.dtype for s in states(opt, "exp_avg") + states(opt, "exp_avg_sq")} == {torch.bfloat16}
    peer = params(device, torch.float32)
    other = torch.optim.AdamW(peer, lr=0.01)
    for k in range(5):
        give(peer, k)
        other.step()
    for p, q in zip(values, peer, strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=2e-3)


def test_rounding_by_chance_is_unbiased_reproducible_and_resumes(device: torch.device) -> None:
    """A thousand steps of a thousandth of a bfloat16 ulp: to nearest nothing would move."""
    n = 4096
    ulp = 2.0**-7  # of bfloat16 in [1, 2)

    def run(steps: int, seed: int, resume_at: int | None = None) -> nn.Parameter:
        p = nn.Parameter(torch.ones(n, dtype=torch.bfloat16, device=device))
        opt = tw.optim.SGD([p], lr=1.0, stochastic_rounding=True, seed=seed)
        for k in range(steps):
            if k == resume_at:
                saved = copy.deepcopy(opt.state_dict())
                opt = tw.optim.SGD([p], lr=1.0, stochastic_rounding=True, seed=seed)
                opt.load_state_dict(saved)
            p.grad = torch.full_like(p, -ulp / 128)
            opt.step()
        return p

    p = run(128, 3)
    mean = float(p.detach().double().mean())
    assert mean == pytest.approx(1 + ulp, abs=6 * ulp / n**0.5)  # the sum of all steps, six standard errors
    assert torch.equal(run(128, 3).detach(), p.detach())
    assert torch.equal(run(128, 3, resume_at=50).detach(), p.detach())
    assert not torch.equal(run(128, 4).detach(), p.detach())
    nearest = nn.Parameter(torch.ones(n, dtype=torch.bfloat16, device=device))
    opt = tw.optim.SGD([nearest], lr=1.0)
    nearest.grad = torch.full_like(nearest, -ulp / 128)
    opt.step()
    assert bool((nearest == 1).all())


def test_replays_round_by_chance_as_eager_steps_do(device: torch.device, capture: Any) -> None:
    """The bits are keyed by the step that the device counts, so a graph does not repeat them."""
    a, b = params(device, torch.bfloat16), params(device, torch.bfloat16)
    one, two = (tw.optim.AdamW(v, lr=1e-3, stochastic_rounding=True, ema_decay=0.9, seed=9) for v in (a, b))
    for values, opt in ((a, one), (b, two)):
        give(values, 0)
        opt.step()
    with capture() as graph:
        two.step()
    seen = []
    for k in range(1, 6):
        for values in (a, b):
            generator = torch.Generator().manual_seed(k)
            for p in values:
                p.grad.copy_(torch.randn(p.shape, generator=generator))
        one.step()
        graph.replay()
        assert equal([p.detach() for p in a], [p.detach() for p in b])
        assert equal(states(one, "ema"), states(two, "ema"))
        seen.append(b[4].detach().clone())
    assert not torch.equal(seen[0] - seen[1], seen[1] - seen[2])


@pytest.mark.parametrize(("ours", "theirs", "options"), CLASSES)
def test_ema_is_torchs_averaged_model(device: torch.device, ours: Any, theirs: Any, options: dict[str, Any]) -> None:
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(7, 33), nn.Linear(33, 3)).to(device)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.8))
    opt = ours(model.parameters(), lr=0.05, ema_decay=0.8, skip_nonfinite=True, **options)
    for k in range(8):
        give(list(model.parameters()), k)
        if k == 4:
            next(model.parameters()).grad.view(-1)[3] = float("nan")
        opt.step()
        if k != 4:
            average.update_parameters(model)
        kept = [p.detach().clone() for p in model.parameters()]
        with opt.swap_ema():
            for p, q in zip(model.parameters(), average.module.parameters(), strict=True):
                torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7)
        assert equal(kept, [p.detach() for p in model.parameters()])


def test_swap_ema_gives_the_weights_back_after_an_error_and_asks_for_averages(device: torch.device) -> None:
    p = nn.Parameter(torch.zeros(3, device=device))
    with pytest.raises(RuntimeError, match="SGD: no moving average to swap in; pass ema_decay"):
        tw.optim.SGD([p], lr=1.0).swap_ema().__enter__()
    opt = tw.optim.SGD([p], lr=1.0, ema_decay=0.5)
    for _ in range(2):
        p.grad = torch.ones_like(p)
        opt.step()
    with pytest.raises(ZeroDivisionError), opt.swap_ema():
        assert p.tolist() == [-1.5] * 3
        raise ZeroDivisionError
    assert p.tolist() == [-2.0] * 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_are_zeroed_in_the_step_also_when_it_is_skipped(device: torch.device, dtype: torch.dtype) -> None:
    values = params(device, dtype)
    opt = tw.optim.AdamW(values, lr=0.1, zero_grad_in_step=True, skip_nonfinite=True)
    for bad in (False, True, False):
        before = [p.detach().clone() for p in values]
        give(values, 0)
        if bad:
            values[4].grad[4000] = float("inf")
        grads = [p.grad for p in values]
        opt.step()
        assert all(p.grad is g for p, g in zip(values, grads, strict=True)), "the same memory, as graphs need"
        assert not any(bool(g.count_nonzero()) for g in grads)
        assert equal(before, [p.detach() for p in values]) == bad


def test_gradients_of_any_strides_are_zeroed_and_may_have_another_type(device: torch.device) -> None:
    p = nn.Parameter(torch.ones(6, 8, device=device))
    p.grad_dtype = None
    p.grad = torch.ones(8, 6, device=device, dtype=torch.bfloat16).t()
    opt = tw.optim.SGD([p], lr=0.5, zero_grad_in_step=True)
    opt.step()
    assert torch.equal(p.detach(), torch.full((6, 8), 0.5, device=device))
    assert p.grad.stride() == (1, 6)
    assert not bool(p.grad.count_nonzero())


def test_clipping_by_value_equals_torch(device: torch.device) -> None:
    a, b = params(device, torch.float32), params(device, torch.float32)
    one, two = tw.optim.SGD(a, lr=0.1, max_grad_value=0.4), torch.optim.SGD(b, lr=0.1)
    for k in range(3):
        give(a, k)
        give(b, k)
        nn.utils.clip_grad_value_(b, 0.4)
        one.step()
        two.step()
    for p, q in zip(a, b, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7)


def test_everything_together_equals_torchs_separate_passes(device: torch.device) -> None:
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(7, 33), nn.Tanh(), nn.Linear(33, 3)).to(device)
    other = copy.deepcopy(model)
    x, y = torch.randn(50, 7).to(device), torch.randint(0, 3, (50,)).to(device)
    opt = tw.optim.AdamW(
        model.parameters(), lr=tw.schedules.cosine(0.02, total_steps=20), max_grad_norm=0.3, ema_decay=0.9,
        zero_grad_in_step=True,
    )  # fmt: skip
    peer = torch.optim.AdamW(other.parameters(), lr=0.02)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(peer, 20)
    average = AveragedModel(other, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    scalers = tw.amp.GradScaler(device.type), torch.amp.GradScaler(device.type)
    for _ in range(20):
        scalers[0].scale(nn.functional.cross_entropy(model(x), y)).backward()
        scalers[0].step(opt)
        scalers[0].update()
        scalers[1].scale(nn.functional.cross_entropy(other(x), y)).backward()
        scalers[1].unscale_(peer)
        nn.utils.clip_grad_norm_(other.parameters(), 0.3)
        scalers[1].step(peer)
        scalers[1].update()
        scheduler.step()
        average.update_parameters(other)
        peer.zero_grad()
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5)
    with opt.swap_ema():
        for p, q in zip(model.parameters(), average.module.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5)
