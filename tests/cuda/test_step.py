"""Optimizers on the device: what torch's contract and the schedule inside ask, eager and replayed from a CUDA graph."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import thalweg as tw

pytestmark = pytest.mark.cuda

Capture = Callable[[], Any]
CLASSES = [
    (tw.optim.SGD, torch.optim.SGD, {"momentum": 0.9, "dampening": 0.2}),
    (tw.optim.SGD, torch.optim.SGD, {}),
    (tw.optim.Adam, torch.optim.Adam, {"amsgrad": True, "weight_decay": 0.01}),
    (tw.optim.AdamW, torch.optim.AdamW, {}),
]
SCHEDULE = tw.schedules.warmup(3, 0.1) >> tw.schedules.sgdr(0.1, t_0=4, t_mult=2, eta_min=1e-4)
SHAPES = ((4, 3), (5,), (), (0,), (8193,), (129, 65))


def params(device: torch.device, seed: int = 0, shapes: tuple[tuple[int, ...], ...] = SHAPES) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(s, generator=generator).to(device)) for s in shapes]


def grads(values: list[nn.Parameter], seed: int, scale: float = 1.0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(p.shape, generator=generator).to(p.device, p.dtype) * scale for p in values]


def give(values: list[nn.Parameter], seed: int, scale: float = 1.0) -> None:
    """New gradients in the memory of the old ones, as a graph's replay needs, or in new memory."""
    for p, g in zip(values, grads(values, seed, scale), strict=True):
        if p.grad is None:
            p.grad = g
        else:
            p.grad.copy_(g)


def twins(values: list[nn.Parameter]) -> list[nn.Parameter]:
    return [nn.Parameter(p.detach().clone()) for p in values]


def tensors(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    """Parameters and states, in order."""
    found = []
    for group in optimizer.param_groups:
        for p in group["params"]:
            found.append(p.detach())
            found += [v for _, v in sorted(optimizer.state.get(p, {}).items()) if isinstance(v, torch.Tensor)]
    return found


def copies(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [t.clone() for t in tensors(optimizer)]


def equal(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize(("ours", "theirs", "options"), CLASSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_follows_torch_with_its_scheduler(
    device: torch.device, ours: Any, theirs: Any, options: dict[str, Any], dtype: torch.dtype
) -> None:
    """Ten steps of a cosine against torch's optimizer and scheduler in float64; a gradient is missing in one step."""
    mine = [nn.Parameter(p.detach().to(dtype)) for p in params(device)]
    wide = [nn.Parameter(p.detach().double().cpu()) for p in mine]
    opt = ours(mine, lr=tw.schedules.cosine(0.05, total_steps=10), **options)
    peer = theirs(wide, lr=0.05, **options)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(peer, 10)
    for k in range(10):
        give(mine, k)
        for p, w in zip(mine, wide, strict=True):
            w.grad = p.grad.double().cpu()
        if k == 4:
            mine[1].grad = wide[1].grad = None
        opt.step()
        peer.step()
        scheduler.step()
        assert opt.param_groups[0]["lr"] == pytest.approx(peer.param_groups[0]["lr"], rel=1e-12, abs=1e-17)
    tolerance = 3e-6 if dtype == torch.float32 else 1e-13
    for p, w in zip(mine, wide, strict=True):
        torch.testing.assert_close(p.detach().double().cpu(), w.detach(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("ours", "theirs", "options"), CLASSES)
def test_replays_equal_eager_steps_with_the_schedule_moving_on(
    device: torch.device, capture: Capture, ours: Any, theirs: Any, options: dict[str, Any]
) -> None:
    eager = params(device)
    graphed = twins(eager)
    a = ours(eager, lr=SCHEDULE, max_grad_norm=30.0, **options)
    b = ours(graphed, lr=SCHEDULE, max_grad_norm=30.0, **options)
    for values, opt in ((eager, a), (graphed, b)):
        give(values, 0)
        opt.step()
    with capture() as graph:
        b.step()
    assert b.schedule_step == 1  # captured, not done
    for k in range(1, 30):
        give(eager, k)
        give(graphed, k)
        a.step()
        if k % 7 == 3:
            b.step()  # an eager step between replays does no harm
        else:
            graph.replay()
        assert equal(tensors(a), tensors(b)), f"step {k}"
        assert b.sync() == k + 1
        assert b.param_groups[0]["lr"] == SCHEDULE(k + 1) == a.param_groups[0]["lr"]


def test_a_whole_run_of_replays_keeps_the_rate_without_the_host(device: torch.device, capture: Capture) -> None:
    """SGD on a gradient of ones subtracts the rate itself: the parameter shows the sum of all rates used."""
    p = nn.Parameter(torch.zeros(3, dtype=torch.float64, device=device))
    p.grad = torch.ones_like(p)
    opt = tw.optim.SGD([p], lr=SCHEDULE)
    opt.step()
    used = [-float(p.detach()[0])]
    with capture() as graph:
        opt.step()
    for _ in range(40):
        before = float(p.detach()[0])
        graph.replay()
        used.append(before - float(p.detach()[0]))
    assert used == pytest.approx([SCHEDULE(k) for k in range(41)], rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("found", [1.0, 2.0])
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(("ours", "theirs", "options"), CLASSES)
def test_found_inf_leaves_everything_as_it_was(
    device: torch.device, ours: Any, theirs: Any, options: dict[str, Any], found: float, first: bool
) -> None:
    values = params(device)
    reference = twins(values)
    opt = ours(values, lr=SCHEDULE, **options)
    other = ours(reference, lr=SCHEDULE, **options)
    if not first:
        for v, o in ((values, opt), (reference, other)):
            give(v, 0)
            o.step()
    before = copies(opt)
    give(values, 1, float("inf"))
    opt.found_inf = torch.full((), found, device=device)
    opt.grad_scale = torch.full((), 1024.0, device=device)
    opt.step()
    del opt.found_inf, opt.grad_scale
    assert first or equal(before, tensors(opt))
    assert equal([p.detach() for p in values], [p.detach() for p in reference])
    assert opt.sync() == (0 if first else 1)
    for k in range(2, 5):  # and what follows is what would have followed
        for v, o in ((values, opt), (reference, other)):
            give(v, k)
            o.step()
    assert equal(tensors(opt), tensors(other))


def test_a_skipped_first_step_survives_a_checkpoint(device: torch.device) -> None:
    """SGD's first buffer is the gradient without dampening, also when the first step was skipped before saving."""
    values = params(device)
    reference = twins(values)
    opt = tw.optim.SGD(values, lr=0.1, momentum=0.9, dampening=0.5)
    give(values, 0)
    opt.found_inf = torch.ones((), device=device)
    opt.step()
    del opt.found_inf
    again = tw.optim.SGD(values, lr=0.1, momentum=0.9, dampening=0.5)
    again.load_state_dict(opt.state_dict())
    twin = copy.deepcopy(opt)
    other = tw.optim.SGD(reference, lr=0.1, momentum=0.9, dampening=0.5)
    for v, o in ((values, again), (reference, other), (twin.param_groups[0]["params"], twin)):
        give(v, 1)
        o.step()
    assert equal(tensors(again), tensors(other))
    assert equal(tensors(twin), tensors(other))


@pytest.mark.parametrize("scaler_class", [torch.amp.GradScaler, tw.amp.GradScaler])
@pytest.mark.parametrize(("ours", "theirs", "options"), CLASSES)
def test_grad_scaler(device: torch.device, ours: Any, theirs: Any, options: dict[str, Any], scaler_class: Any) -> None:
    """Scaled losses, an overflow in the first and in a later step, clipping: as the unscaled run without those steps."""
    values = params(device)
    reference = twins(values)
    opt = ours(values, lr=SCHEDULE, max_grad_norm=0.7, **options)
    other = ours(reference, lr=SCHEDULE, max_grad_norm=0.7, **options)
    scaler = scaler_class(device.type, init_scale=2.0**10, growth_interval=3)
    scales = []
    for k in range(9):
        overflow = k in (0, 4)
        loss = sum((p * g).sum() for p, g in zip(values, grads(values, k), strict=True))
        opt.zero_grad()
        scaler.scale(loss).backward()
        if overflow:
            values[1].grad[0] = float("nan") if k else float("inf")
        before = scaler.get_scale()
        scaler.step(opt)
        scaler.update()
        scales.append(scaler.get_scale())
        if not overflow:
            give(reference, k)
            other.step()
            left = 1.0 if scaler_class is torch.amp.GradScaler else before
            for p, q in zip(
                values, reference, strict=True
            ):  # torch's leaves gradients unscaled, ours does not touch them
                torch.testing.assert_close(p.grad, q.grad * left)
        assert equal(tensors(opt), tensors(other)) or (
            k == 0 and equal([p.data for p in values], [p.data for p in reference])
        )
    assert scales == [512.0, 512.0, 512.0, 1024.0, 512.0, 512.0, 512.0, 1024.0, 1024.0]
    assert opt.sync() == 7


def test_scaler_and_clip_equal_torch_separate_passes(device: torch.device) -> None:
    values = params(device)
    reference = twins(values)
    opt = tw.optim.AdamW(values, lr=0.01, max_grad_norm=0.5)
    peer = torch.optim.AdamW(reference, lr=0.01)
    scaler, other = tw.amp.GradScaler(device.type), torch.amp.GradScaler(device.type)
    for k in range(5):
        for v, o, s in ((values, opt, scaler), (reference, peer, other)):
            o.zero_grad()
            s.scale(sum((p * g).sum() for p, g in zip(v, grads(v, k), strict=True))).backward()
        scaler.step(opt)
        other.unscale_(peer)
        norm = nn.utils.clip_grad_norm_(reference, 0.5)
        other.step(peer)
        scaler.update()
        other.update()
        assert opt.grad_norm is not None
        assert float(opt.grad_norm) == pytest.approx(float(norm), rel=1e-6)
    for p, q in zip(values, reference, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


def test_skip_nonfinite(device: torch.device) -> None:
    values = params(device)
    opt = tw.optim.AdamW(values, lr=SCHEDULE, skip_nonfinite=True)
    give(values, 0)
    opt.step()
    before = copies(opt)
    give(values, 1)
    values[4].grad[7000] = float("nan")
    opt.step()
    assert equal(before, tensors(opt))
    assert opt.sync() == 1
    plain = tw.optim.AdamW(twins(values), lr=SCHEDULE)
    give(plain.param_groups[0]["params"], 1)
    plain.param_groups[0]["params"][4].grad[7000] = float("nan")
    plain.step()  # without it, what torch does
    assert plain.param_groups[0]["params"][4][7000].isnan()


def test_strides_and_views(device: torch.device) -> None:
    """Channels-last, a gradient laid out otherwise, a parameter with gaps, misaligned views."""

    def build() -> list[nn.Parameter]:
        generator = torch.Generator().manual_seed(3)
        draw = lambda *s: torch.randn(*s, generator=generator)  # noqa: E731
        return [
            nn.Parameter(draw(4, 3, 5, 5).to(device).to(memory_format=torch.channels_last)),
            nn.Parameter(draw(6, 8).to(device).t()),
            nn.Parameter(draw(10, 8).to(device)[:, ::2]),
            nn.Parameter(draw(1001).to(device)[1:]),
        ]

    mine, theirs = build(), build()
    opt = tw.optim.AdamW(mine, lr=0.01)
    peer = torch.optim.AdamW(theirs, lr=0.01)
    for k in range(4):
        for values in (mine, theirs):
            for p, g in zip(values, grads(values, k), strict=True):
                p.grad = g.contiguous()
        opt.step()
        peer.step()
    for p, q in zip(mine, theirs, strict=True):
        assert p.stride() == q.stride()
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("count", [3, 465])
def test_many_groups_each_with_its_own_schedule_and_decay(device: torch.device, count: int) -> None:
    values = params(device, shapes=tuple((n % 5 + 1,) for n in range(2 * count)))
    single = twins(values)
    lrs = [tw.schedules.cosine(0.1 / (i + 1), total_steps=20) for i in range(count)]
    decays = [0.01 * (i % 3) for i in range(count)]
    split = lambda v, i: v[2 * i : 2 * i + 2]  # noqa: E731
    opt = tw.optim.AdamW([{"params": split(values, i), "lr": lrs[i], "weight_decay": decays[i]} for i in range(count)])
    each = [tw.optim.AdamW(split(single, i), lr=lrs[i], weight_decay=decays[i]) for i in range(count)]
    for k in range(3):
        for v in (values, single):
            for p, g in zip(v, grads(v, k), strict=True):
                p.grad = g
        for i in range(5, count - 5):  # most groups sit out a step: groups without tensors are no groups of the table
            if k == 1 and i % 100:
                for p in (*split(values, i), *split(single, i)):
                    p.grad = None
        opt.step()
        for other in each:
            other.step()
    assert equal([p.detach() for p in values], [p.detach() for p in single])
    assert [g["lr"] for g in opt.param_groups] == [s(3) for s in lrs]


def test_step_without_any_gradient_moves_the_schedule_only(device: torch.device) -> None:
    values = params(device)
    opt = tw.optim.AdamW(values, lr=SCHEDULE)
    give(values, 0)
    opt.step()
    before = copies(opt)
    opt.zero_grad()
    opt.step()
    assert equal(before, tensors(opt))
    assert opt.sync() == 2


def test_state_dict_moves_to_torch_and_back(device: torch.device) -> None:
    for ours, theirs, options in CLASSES:
        values, reference = params(device), params(device)
        opt, peer = ours(values, lr=0.05, **options), theirs(reference, lr=0.05, **options)
        for k in range(3):
            for v, o in ((values, opt), (reference, peer)):
                give(v, k)
                o.step()
        mine, torchs = opt.state_dict()["state"], peer.state_dict()["state"]
        assert mine.keys() == torchs.keys()
        for i in mine:
            kinds = [{k: (v.shape, v.dtype, v.device) for k, v in s[i].items()} for s in (mine, torchs)]
            assert kinds[0] == kinds[1]
        a, b = theirs(twins(values), lr=9.0, **options), ours(twins(reference), lr=9.0, **options)
        file = io.BytesIO()
        torch.save(opt.state_dict(), file)
        file.seek(0)
        a.load_state_dict(torch.load(file, weights_only=True))
        b.load_state_dict(copy.deepcopy(peer.state_dict()))
        for k in range(3, 6):
            for o in (opt, peer, a, b):
                give(o.param_groups[0]["params"], k)
                o.step()
        for o in (peer, a, b):
            for p, q in zip(values, o.param_groups[0]["params"], strict=True):
                torch.testing.assert_close(p, q, rtol=1e-5, atol=2e-6)


def test_resume_of_a_replayed_run_is_bit_exact(device: torch.device, capture: Capture) -> None:
    values = params(device)
    opt = tw.optim.AdamW(values, lr=SCHEDULE)
    give(values, 0)
    opt.step()
    with capture() as graph:
        opt.step()
    for k in range(1, 6):
        give(values, k)
        graph.replay()
    resumed = twins(values)
    again = tw.optim.AdamW(resumed, lr=SCHEDULE)
    again.load_state_dict(copy.deepcopy(opt.state_dict()))
    assert again.schedule_step == 6
    assert again.param_groups[0]["lr"] == SCHEDULE(6)
    for k in range(6, 9):
        give(values, k)
        graph.replay()
        give(resumed, k)
        again.step()
    assert equal(tensors(opt), tensors(again))


def test_add_param_group_after_a_capture_leaves_the_graph_alone(device: torch.device, capture: Capture) -> None:
    values, late = params(device), params(device, 5)
    opt = tw.optim.AdamW(values, lr=SCHEDULE)
    give(values, 0)
    opt.step()
    with capture() as graph:
        opt.step()
    graph.replay()
    opt.add_param_group({"params": late})
    assert opt.param_groups[1]["lr"] == SCHEDULE(2)
    give(late, 1)
    opt.step()
    moved = [p.detach().clone() for p in late]
    graph.replay()
    assert equal(moved, [p.detach() for p in late])
    assert opt.sync() == 4


def test_two_optimizers_and_two_captures(device: torch.device, capture: Capture) -> None:
    sets = [params(device, s) for s in range(2)]
    eager = [twins(v) for v in sets]
    opts = [tw.optim.AdamW(sets[0], lr=SCHEDULE), tw.optim.SGD(sets[1], lr=SCHEDULE, momentum=0.9)]
    others = [tw.optim.AdamW(eager[0], lr=SCHEDULE), tw.optim.SGD(eager[1], lr=SCHEDULE, momentum=0.9)]
    for v, o in zip(sets + eager, opts + others, strict=True):
        give(v, 0)
        o.step()
    graphs = []
    for o in (opts[0], opts[1], opts[0]):
        with capture() as graph:
            o.step()
        graphs.append(graph)
    for k, which in enumerate((0, 1, 2, 1, 0)):
        for v in sets + eager:
            give(v, k + 1)
        graphs[which].replay()
        others[which % 2].step()
    for o, other in zip(opts, others, strict=True):
        assert equal(tensors(o), tensors(other))


def test_tensor_lr_is_read_on_the_device(device: torch.device, capture: Capture) -> None:
    values, reference = params(device), params(device)
    lr = torch.tensor(0.1, device=device)
    opt = tw.optim.SGD(values, lr=lr)
    other = tw.optim.SGD(reference, lr=0.1)
    for v, o in ((values, opt), (reference, other)):
        give(v, 0)
        o.step()
    with capture() as graph:
        opt.step()
    lr.fill_(0.025)
    other.param_groups[0]["lr"] = float(lr)
    graph.replay()
    other.step()
    for p, q in zip(values, reference, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7)
    assert opt.param_groups[0]["lr"] is lr


def test_capturable_with_a_schedule_makes_lr_a_tensor_that_follows(device: torch.device, capture: Capture) -> None:
    values = params(device)
    opt = tw.optim.AdamW(values, lr=SCHEDULE, capturable=True)
    lr = opt.param_groups[0]["lr"]
    assert isinstance(lr, torch.Tensor)
    assert float(lr) == SCHEDULE(0)
    give(values, 0)
    opt.step()
    with capture() as graph:
        opt.step()
    for k in range(2, 12):
        graph.replay()
        assert opt.param_groups[0]["lr"] is lr
        assert float(lr) == pytest.approx(SCHEDULE(k), rel=1e-14)
    again = tw.optim.AdamW(twins(values), lr=SCHEDULE, capturable=True)
    again.load_state_dict(opt.state_dict())
    assert float(again.param_groups[0]["lr"]) == SCHEDULE(11)


def test_what_a_capture_cannot_hold_is_refused_by_name(device: torch.device, capture: Capture) -> None:
    values = params(device)
    opt = tw.optim.AdamW([(f"layer.{i}", p) for i, p in enumerate(values)], lr=SCHEDULE)
    give(values, 0)

    def attempt() -> None:
        with capture():
            opt.step()

    with pytest.raises(RuntimeError, match="step once before"):
        attempt()
    opt.step()
    before = copies(opt)
    values[2].grad = None
    with pytest.raises(RuntimeError, match=r"parameter 2 of group 0 \('layer.2'\) has no gradient"):
        attempt()
    give(values, 1)
    opt.param_groups[0]["lr"] = 0.5
    with pytest.raises(RuntimeError, match="lr of group 0 was set from outside"):
        attempt()
    assert equal(before, tensors(opt))


def test_range_test_drives_the_rates_and_gives_the_clock_back(device: torch.device) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 3)).to(device)
    x, y = torch.randn(64, 4).to(device), torch.randint(0, 3, (64,)).to(device)
    opt = tw.optim.AdamW(model.parameters(), lr=SCHEDULE)
    nn.functional.cross_entropy(model(x), y).backward()
    opt.step()
    before = copies(opt)
    result = tw.range_test(model, "cross_entropy", [(x, y)] * 60, opt, min_lr=1e-5, max_lr=1.0, num_steps=60)
    assert len(result.losses) > 10
    assert equal(before, tensors(opt))
    assert opt.sync() == 1
    assert opt.param_groups[0]["lr"] == SCHEDULE(1)


def test_a_driver_too_old_or_no_device_is_one_error_and_nothing_happens(device: torch.device, failures: Any) -> None:
    values = params(device)
    opt = tw.optim.AdamW(values, lr=SCHEDULE)
    give(values, 0)
    before = copies(opt)
    failures(0, -1)
    with pytest.raises(
        tw.CudaError, match=r"no usable CUDA device \(CUDA driver version is insufficient.*Update the driver"
    ):
        opt.step()
    assert equal(before, tensors(opt))
    assert not opt.state
    assert opt.schedule_step == 0
    failures(1, -1)
    opt.step()
    assert opt.sync() == 1


@pytest.mark.parametrize("steps_before", [0, 2])
def test_no_memory_for_the_table_is_one_error_and_nothing_happens(
    device: torch.device, failures: Any, steps_before: int
) -> None:
    values, reference = params(device), params(device)
    opt, other = tw.optim.AdamW(values, lr=SCHEDULE), tw.optim.AdamW(reference, lr=SCHEDULE)
    for k in range(steps_before):
        for v, o in ((values, opt), (reference, other)):
            give(v, k)
            o.step()
    more = [nn.Parameter(torch.ones(30_000, device=device)) for _ in range(50)]  # the table has to grow
    twin = twins(more)
    opt.add_param_group({"params": more})
    other.add_param_group({"params": twin})
    for v in (values + more, reference + twin):
        give(v, 9)
    before = copies(opt)
    failures(1, 0)
    with pytest.raises(tw.CudaError, match="allocating device memory failed: out of memory"):
        opt.step()
    assert equal(before, tensors(opt))
    assert opt.schedule_step == steps_before
    failures(1, -1)
    for o in (opt, other):
        o.step()
    assert equal(tensors(opt), tensors(other))


def test_other_devices_are_refused_by_name() -> None:
    p = nn.Parameter(torch.zeros(3, device="meta"))
    p.grad = torch.ones(3, device="meta")
    opt = tw.optim.SGD([("encoder.weight", p)], lr=0.1)
    with pytest.raises(
        RuntimeError, match=r"'encoder.weight'\) is on meta; thalweg steps parameters on the CPU and on NVIDIA"
    ):
        opt.step()
