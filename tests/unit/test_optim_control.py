"""Clipping, loss scaling and skipped steps on the CPU: the tests of the device, on the host, and the arguments' checks."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import thalweg as tw

sys.path.insert(0, str(Path(__file__).parents[1]))
from cuda.test_step import (
    test_a_skipped_first_step_survives_a_checkpoint,  # noqa: F401
    test_found_inf_leaves_everything_as_it_was,  # noqa: F401
    test_grad_scaler,  # noqa: F401
    test_scaler_and_clip_equal_torch_separate_passes,  # noqa: F401
    test_skip_nonfinite,  # noqa: F401
)


@pytest.fixture
def device() -> torch.device:
    return torch.device("cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("max_norm", [0.0, 0.3, 1e6, math.inf])
def test_clipping_equals_torch(dtype: torch.dtype, max_norm: float) -> None:
    generator = torch.Generator().manual_seed(0)
    sizes = (0, 1, 17, 9001)
    start = [torch.randn(n, generator=generator, dtype=dtype) for n in sizes]
    mine, theirs = ([nn.Parameter(t.clone()) for t in start] for _ in range(2))
    opt, peer = tw.optim.SGD(mine, lr=0.1, max_grad_norm=max_norm), torch.optim.SGD(theirs, lr=0.1)
    for _ in range(3):
        for p, q in zip(mine, theirs, strict=True):
            p.grad = torch.randn(p.shape, generator=generator, dtype=dtype)
            q.grad = p.grad.clone()
        kept = [p.grad.clone() for p in mine]
        norm = nn.utils.clip_grad_norm_(theirs, max_norm)
        opt.step()
        peer.step()
        assert opt.grad_norm is not None
        assert float(opt.grad_norm) == pytest.approx(float(norm), rel=1e-6 if dtype == torch.float32 else 1e-14)
        assert all(torch.equal(p.grad, g) for p, g in zip(mine, kept, strict=True)), "gradients stay as they are"
    eps = torch.finfo(dtype).eps
    for p, q in zip(mine, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=8 * eps, atol=8 * eps)


@pytest.mark.parametrize(
    ("value", "error"), [(-1.0, ValueError), (math.nan, ValueError), ("1", TypeError), (True, TypeError)]
)
def test_max_grad_norm_is_checked(value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="AdamW: max_grad_norm must be"):
        tw.optim.AdamW([nn.Parameter(torch.zeros(1))], max_grad_norm=value)


def test_scaler_without_gradients_says_so() -> None:
    opt = tw.optim.SGD([nn.Parameter(torch.zeros(2))], lr=0.1)
    scaler = tw.amp.GradScaler("cpu")
    scaler.scale(torch.ones(()))
    scaler.step(opt)
    with pytest.raises(AssertionError, match="No inf checks were recorded"):
        scaler.update()


def test_scaler_steps_other_optimizers_and_unscaled_gradients_as_torch() -> None:
    for make in (torch.optim.SGD, tw.optim.SGD):
        p = nn.Parameter(torch.ones(2))
        opt = make([p], lr=0.5)
        scaler = tw.amp.GradScaler("cpu", init_scale=8.0)
        scaler.scale((p * 3).sum()).backward()
        scaler.unscale_(opt)
        assert torch.equal(p.grad, torch.full((2,), 3.0))
        scaler.step(opt)
        with pytest.raises(RuntimeError, match="step\\(\\) has already been called"):
            scaler.step(opt)
        scaler.update()
        assert torch.equal(p.detach(), torch.full((2,), -0.5))
