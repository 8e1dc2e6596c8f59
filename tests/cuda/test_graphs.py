"""Whole captured training steps, streams, synchronisation, sizes: what only a GPU can show."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import thalweg as tw

pytestmark = [pytest.mark.cuda, pytest.mark.usefixtures("real_device")]

SCHEDULE = tw.schedules.warmup(3, 0.05) >> tw.schedules.sgdr(0.05, t_0=5, t_mult=2, eta_min=1e-4)


def network() -> nn.Module:
    """Convolutions, BatchNorm, dropout: buffers and random numbers move with the steps."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3), nn.Linear(6 * 64, 5)
    ).cuda()


def batches(n: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(16, 1, 8, 8, generator=generator).cuda(), torch.randint(0, 5, (16,), generator=generator).cuda())
        for _ in range(n)
    ]


def optimizer_of(model: nn.Module, kind: str) -> Any:
    if kind == "sgd":
        return tw.optim.SGD(model.parameters(), lr=SCHEDULE, momentum=0.9, nesterov=True, max_grad_norm=1.0)
    return tw.optim.AdamW(model.parameters(), lr=SCHEDULE, max_grad_norm=1.0)


def everything(model: nn.Module, opt: torch.optim.Optimizer) -> list[torch.Tensor]:
    states = [v for p in model.parameters() for _, v in sorted(opt.state.get(p, {}).items()) if v is not None]
    return [*(t.detach().clone() for t in (*model.parameters(), *model.buffers())), *(v.clone() for v in states)]


@pytest.fixture
def deterministic() -> Any:
    """The same kernels in eager steps and in the graph."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
        yield


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
@pytest.mark.parametrize("amp", [None, "torch", "thalweg"])
@pytest.mark.usefixtures("deterministic")
def test_replays_equal_eager_training(kind: str, amp: str | None) -> None:
    """Losses, weights, buffers, states, rates: N replays are N eager steps, with loss scaling and float16 too."""
    data = batches(12)
    make = {None: lambda: None, "torch": torch.amp.GradScaler, "thalweg": tw.amp.GradScaler}[amp]
    runs = []
    for graphed in (False, True):
        model = network()
        opt = optimizer_of(model, kind)
        scaler = make() if amp is None else make("cuda", init_scale=2.0**8, growth_interval=4)
        dtype = None if amp is None else torch.float16
        torch.manual_seed(7)
        losses, rates = [], []
        if graphed:
            before = everything(model, opt)
            step = tw.graphs.capture_step(model, "cross_entropy", opt, data[0], scaler=scaler, autocast=dtype)
            assert all(torch.equal(a, b) for a, b in zip(before, everything(model, opt), strict=False))
            assert opt.schedule_step == 0
            torch.manual_seed(7)
        for batch in data:
            if graphed:
                losses.append(step(batch))
            else:
                opt.zero_grad()
                with torch.autocast("cuda", dtype=dtype or torch.float16, enabled=dtype is not None):
                    loss = nn.functional.cross_entropy(model(batch[0]), batch[1])
                if scaler is None:
                    loss.backward()
                    opt.step()
                else:
                    scaler.scale(loss).backward()
                    scaler.step(opt)
                    scaler.update()
                losses.append(loss.detach())
            opt.sync()
            rates.append(opt.param_groups[0]["lr"])
        runs.append(
            (torch.stack(losses), rates, everything(model, opt), None if scaler is None else scaler.get_scale())
        )
    eager, replayed = runs
    assert torch.equal(eager[0], replayed[0])
    assert eager[1] == replayed[1] == [SCHEDULE(k + 1) for k in range(12)]
    assert all(torch.equal(a, b) for a, b in zip(eager[2], replayed[2], strict=True))
    assert eager[3] == replayed[3]


@pytest.mark.usefixtures("deterministic")
def test_eager_steps_between_replays_do_no_harm() -> None:
    data = batches(9)
    results = []
    for graphed in (False, True):
        model = network().eval()  # without random numbers, whose order differs between the two
        opt = optimizer_of(model, "adamw")
        step = tw.graphs.capture_step(model, "cross_entropy", opt, data[0]) if graphed else None
        for k, batch in enumerate(data):
            if step is not None and k % 3 != 1:
                step(batch)
                continue
            opt.zero_grad()
            nn.functional.cross_entropy(model(batch[0]), batch[1]).backward()
            opt.step()
        results.append(everything(model, opt))
        assert opt.sync() == 9
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_the_loss_stays_on_the_device_and_nothing_waits() -> None:
    model, data = network(), batches(4)
    opt = optimizer_of(model, "adamw")
    step = tw.graphs.capture_step(model, "cross_entropy", opt, data[0])
    try:
        torch.cuda.set_sync_debug_mode("error")
        losses = [step(batch) for batch in data * 3]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(loss.is_cuda for loss in losses)
    assert len({float(loss) for loss in losses}) == len(losses)


def test_eager_steps_do_not_wait_for_the_device() -> None:
    model, data = network(), batches(3)
    opt = optimizer_of(model, "adamw")
    scaler = tw.amp.GradScaler("cuda")

    def train(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
        opt.zero_grad(set_to_none=True)
        scaler.scale(nn.functional.cross_entropy(model(batch[0]), batch[1])).backward()
        scaler.step(opt)
        scaler.update()

    train(data[0])
    try:
        torch.cuda.set_sync_debug_mode("error")
        for batch in data * 5:
            train(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert opt.sync() == 16


def test_errors_name_what_cannot_be_captured_and_leave_everything_as_it_was() -> None:
    model, data = network(), batches(1)
    opt = optimizer_of(model, "sgd")

    def peeks(net: nn.Module, batch: Any) -> torch.Tensor:
        loss = nn.functional.cross_entropy(net(batch[0]), batch[1])
        return loss if loss.item() > 0 else loss * 2

    before = everything(model, opt)
    rng = torch.cuda.get_rng_state()
    stream = torch.cuda.current_stream()
    with pytest.raises(RuntimeError, match=r"test_graphs.py:\d+ in peeks: return loss if loss.item\(\) > 0"):
        tw.graphs.capture_step(model, peeks, opt, data[0])
    assert torch.cuda.current_stream() == stream
    assert torch.equal(rng, torch.cuda.get_rng_state())
    after = everything(model, opt)
    assert len(before) == len(after)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    torch.rand(3, device="cuda")  # the generator works outside a capture
    step = tw.graphs.capture_step(model, "cross_entropy", opt, data[0])  # and a second try succeeds
    step(data[0])


def test_a_parameter_without_gradient_is_named() -> None:
    model = network()
    model.unused = nn.Linear(2, 2).cuda()
    opt = optimizer_of(model, "sgd")
    forward = lambda net, batch: nn.functional.cross_entropy(net[:6](batch[0]), batch[1])  # noqa: E731
    with pytest.raises(RuntimeError, match="'?unused.weight'? gets no gradient"):
        tw.graphs.capture_step(model, forward, opt, batches(1)[0])
    model.unused.requires_grad_(False)
    tw.graphs.capture_step(model, forward, opt, batches(1)[0])


def test_a_changed_number_and_another_batch_are_refused() -> None:
    model, data = network(), batches(1)
    opt = tw.optim.SGD(model.parameters(), lr=0.1)
    step = tw.graphs.capture_step(model, "cross_entropy", opt, data[0])
    step(data[0])
    with pytest.raises(ValueError, match=r"tensor 0 of the batch must have shape \(16, 1, 8, 8\)"):
        step((data[0][0][:7], data[0][1][:7]))
    opt.param_groups[0]["lr"] = 0.2
    with pytest.raises(RuntimeError, match="the graph holds"):
        step(data[0])
    opt.param_groups[0]["lr"] = 0.1
    opt.load_state_dict(opt.state_dict())
    with pytest.raises(RuntimeError, match="state was replaced after the capture"):
        step(data[0])


def test_another_stream_than_the_default() -> None:
    values = [nn.Parameter(torch.randn(100_003, device="cuda")) for _ in range(3)]
    twins = copy.deepcopy(values)
    a, b = tw.optim.AdamW(values, lr=SCHEDULE), tw.optim.AdamW(twins, lr=SCHEDULE)
    stream = torch.cuda.Stream()
    torch.cuda.synchronize()
    for k in range(20):
        generator = torch.Generator(device="cuda").manual_seed(k)
        grads = [torch.randn(p.shape, device="cuda", generator=generator) for p in values]
        for p, g in zip(values, grads, strict=True):
            p.grad = g
        a.step()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            torch.cuda._sleep(200_000)  # a step on the wrong stream would read gradients that are not there yet
            for p, g in zip(twins, grads, strict=True):
                p.grad = torch.empty_like(g)
                p.grad.copy_(g)
            b.step()
        torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    assert all(torch.equal(p, q) for p, q in zip(values, twins, strict=True))


@pytest.mark.slow
def test_more_than_two_to_the_31_elements() -> None:
    free, _ = torch.cuda.mem_get_info()
    n = 2**31 + 8195
    if free < 2.2 * 4 * n:
        pytest.skip(f"needs {2.2 * 4 * n / 2**30:.0f} GiB of free device memory")
    p = nn.Parameter(torch.zeros(n, device="cuda"))
    p.grad = torch.zeros(n, device="cuda")
    ends = torch.tensor([0, 2**31 - 1, 2**31, n - 2, n - 1], device="cuda")
    p.grad[ends] = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0], device="cuda")
    opt = tw.optim.SGD([p], lr=1.0, max_grad_norm=1.0)
    opt.step()
    assert float(opt.grad_norm) == pytest.approx(55.0**0.5, rel=1e-12)
    expected = -torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]) / 55.0**0.5
    torch.testing.assert_close(p.detach()[ends].cpu(), expected, rtol=1e-5, atol=0)
    assert int(p.detach().count_nonzero()) == 5
    del p, opt
    torch.cuda.empty_cache()


def test_a_gradient_on_another_device_is_refused_by_name() -> None:
    p = nn.Parameter(torch.zeros(3, device="cuda"))
    q = nn.Parameter(torch.zeros(3))
    q.grad = torch.ones(3)
    opt = tw.optim.SGD([p, q], lr=0.1, max_grad_norm=1.0)
    p.grad = torch.ones(3, device="cuda")
    with pytest.raises(ValueError, match="need all parameters on one device"):
        opt.step()
    assert torch.equal(p.detach().cpu(), torch.zeros(3))
    both = tw.optim.SGD([p, q], lr=0.1)
    both.step()
    assert torch.equal(p.detach().cpu(), q.detach())


def test_out_of_memory_leaves_the_state_as_it_was() -> None:
    free, _ = torch.cuda.mem_get_info()
    n = int(free * 0.3) // 4
    p = nn.Parameter(torch.zeros(n, device="cuda"))
    p.grad = torch.ones(n, device="cuda")  # two tensors fit, two states on top do not
    opt = tw.optim.AdamW([p], lr=0.1)
    with pytest.raises(torch.OutOfMemoryError):
        opt.step()
    assert not opt.state
    assert float(p.detach().abs().max()) == 0
    assert opt.schedule_step == 0
    del p, opt
    torch.cuda.empty_cache()
