"""Optimizer steps against torch's fused ones: many small tensors, a network-sized list, one large tensor."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import thalweg as tw

sys.path.insert(0, str(Path(__file__).parent))
from peers import bytes_per_step

# 300 tensors, about 10 M elements, sized like a ResNet's convolutions, biases and normalisations.
RESNET = [n for width in (64, 128, 256) for n in [width] * 60 + [width * width] * 20 + [width * width * 2] * 20]
CASES: dict[str, list[int]] = {
    "1,000 x 8": [8] * 1000,
    "160 x 64": [64] * 160,
    "400 x 1,000": [1000] * 400,
    f"{len(RESNET)} tensors, {sum(RESNET) / 1e6:.1f} M": RESNET,
    "1 x 16 M": [16_000_000],
}
OPTIONS: dict[str, dict[str, Any]] = {"AdamW": {"lr": 1e-3}, "SGD": {"lr": 1e-3, "momentum": 0.9}}


def parameters(sizes: list[int], seed: int) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    params = [nn.Parameter(torch.randn(n, generator=generator)) for n in sizes]
    for p in params:
        p.grad = torch.randn(p.shape, generator=generator)
    return params


@pytest.mark.parametrize("name", ["AdamW", "SGD"])
@pytest.mark.parametrize("case", list(CASES))
def test_step(
    against: Callable[..., None], copy_bandwidth: Callable[[], float], thread_count: int, name: str, case: str,
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    timed = not request.config.getoption("benchmark_disable")
    sizes = CASES[case] if timed else [min(n, 1000) for n in CASES[case][:50]]
    mine, theirs = parameters(sizes, 0), parameters(sizes, 0)
    ours = getattr(tw.optim, name)(mine, **OPTIONS[name])
    peer = getattr(torch.optim, name)(theirs, fused=True, **OPTIONS[name])
    for _ in range(3):
        ours.step()
        peer.step()
    for a, b in zip(mine, theirs, strict=True):  # the result first, then the time
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    elements = sum(sizes)
    more: dict[str, Any] = {}
    if timed and elements > 1_000_000:
        bandwidth, moved = copy_bandwidth(), bytes_per_step(ours)
        more = {"copy_gb_s": bandwidth / 1e9, "bandwidth_share": lambda s: moved / s / bandwidth}
    against(f"{name} step", case, "torch fused", ours.step, peer.step, elements=elements, seconds=3.0, **more)


@pytest.mark.filterwarnings("ignore")  # of torch's compiler, of its own deprecations
@pytest.mark.parametrize("peer_name", ["foreach", "compiled"])
@pytest.mark.parametrize("case", ["160 x 64", "400 x 1,000", "1 x 16 M"])
def test_step_against_other_implementations(
    against: Callable[..., None], thread_count: int, case: str, peer_name: str, request: pytest.FixtureRequest
) -> None:
    """torch's default and a compiled step, which takes up to minutes to compile; here only the steps after that count."""
    timed = not request.config.getoption("benchmark_disable")
    if peer_name == "compiled" and not (timed and shutil.which("c++")):
        pytest.skip("compiles only when it is timed and there is a C++ compiler")
    sizes = CASES[case] if timed else [min(n, 1000) for n in CASES[case][:50]]
    mine, theirs = parameters(sizes, 0), parameters(sizes, 0)
    ours = tw.optim.AdamW(mine, **OPTIONS["AdamW"])
    peer = torch.optim.AdamW(theirs, foreach=True, **OPTIONS["AdamW"])
    step = peer.step if peer_name == "foreach" else torch.compile(peer.step)
    for _ in range(3):
        ours.step()
        step()
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    against("AdamW step", case, f"torch {peer_name}", ours.step, step, elements=sum(sizes), seconds=2.0)


@pytest.mark.parametrize("case", ["160 x 64", "400 x 1,000"])
def test_step_with_cold_caches(against: Callable[..., None], thread_count: int, case: str) -> None:
    """Nothing of the optimizers is left in the caches when a step begins: the worst that a training loop can do."""
    mine, theirs = parameters(CASES[case], 0), parameters(CASES[case], 0)
    ours = tw.optim.AdamW(mine, **OPTIONS["AdamW"])
    peer = torch.optim.AdamW(theirs, fused=True, **OPTIONS["AdamW"])
    spoiler = torch.ones(16_000_000)  # 64 MB
    for _ in range(3):
        ours.step()
        peer.step()
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    against(
        "AdamW step, caches cleared before it", case, "torch fused", ours.step, peer.step,
        seconds=3.0, between=lambda: spoiler.mul_(1.0),
    )  # fmt: skip


def test_schedule_in_the_step(against: Callable[..., None], thread_count: int) -> None:
    """A scheduled step against torch's fused step followed by its scheduler."""
    mine, theirs = parameters([64] * 160, 0), parameters([64] * 160, 0)
    ours = tw.optim.AdamW(mine, lr=tw.schedules.cosine(1e-3, total_steps=10**7))
    peer = torch.optim.AdamW(theirs, lr=1e-3, fused=True)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(peer, 10**7)

    def step() -> None:
        peer.step()
        scheduler.step()

    for _ in range(3):
        ours.step()
        step()
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    against("AdamW step + cosine schedule", "160 x 64", "torch fused + scheduler", ours.step, step, seconds=3.0)


@pytest.mark.parametrize("case", ["160 x 64", "300 tensors, 5.2 M", "1 x 16 M"])
def test_everything_around_a_step(
    against: Callable[..., None], copy_bandwidth: Callable[[], float], thread_count: int, case: str,
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    """Schedule, clipping by norm, AdamW, moving average and zeroed gradients: one call against torch's five."""
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    timed = not request.config.getoption("benchmark_disable")
    sizes = CASES[case] if timed else [min(n, 1000) for n in CASES[case][:50]]
    mine, theirs = parameters(sizes, 0), parameters(sizes, 0)
    grads = [p.grad.clone() for p in theirs]  # the same ones at every step: both sides zero theirs
    total = 10**7
    ours = tw.optim.AdamW(
        mine,
        lr=tw.schedules.cosine(1e-3, total_steps=total),
        max_grad_norm=1.0,
        ema_decay=0.999,
        zero_grad_in_step=True,
    )
    model = torch.nn.ParameterList(theirs)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.999))
    peer = torch.optim.AdamW(theirs, lr=1e-3, fused=True)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(peer, total)

    def step() -> None:
        torch.nn.utils.clip_grad_norm_(theirs, 1.0)
        peer.step()
        scheduler.step()
        average.update_parameters(model)
        peer.zero_grad(set_to_none=False)

    for _ in range(3):
        for values in (mine, theirs):
            for p, g in zip(values, grads, strict=True):
                p.grad.copy_(g)
        ours.step()
        step()
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    for p, b in zip(mine, average.module.parameters(), strict=True):
        torch.testing.assert_close(ours.state[p]["ema"], b.detach(), rtol=1e-5, atol=1e-6)
    elements = sum(sizes)
    more: dict[str, Any] = {}
    if timed and elements > 1_000_000:
        bandwidth = copy_bandwidth()
        more = {"copy_gb_s": bandwidth / 1e9, "bandwidth_share": lambda s: (28 + 4 + 8 + 4) * elements / s / bandwidth}
    against(
        "schedule + clip + AdamW + EMA + zero", case, "torch's five calls", ours.step, step, elements=elements,
        seconds=3.0, **more,
    )  # fmt: skip
