"""DDP over 2 and 4 processes: as torch's optimizer there, as one process on the whole batch, the same in every process."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

sys.path.insert(0, str(Path(__file__).parent))
from processes import randn, run
from training import STEPS, train

import thalweg as tw

pytestmark = [pytest.mark.distributed, pytest.mark.slow]

OPTIONS: dict[str, dict[str, Any]] = {
    "SGD": {"lr": 0.05, "momentum": 0.9, "nesterov": True},
    "Adam": {"lr": 0.05, "weight_decay": 0.01},
    "AdamW": {"lr": 0.05, "amsgrad": True},
}
OWN = {"lr": tw.schedules.cosine(0.05, total_steps=STEPS), "max_grad_norm": 0.3, "ema_decay": 0.8}


def _zero(kind: Any) -> list[Any]:
    """Four steps under ZeroRedundancyOptimizer: the weights, and how many states the first process gathers."""
    from torch.distributed.optim import ZeroRedundancyOptimizer  # warns of itself

    torch.manual_seed(0)
    plain = nn.Linear(5, 4)
    zero = ZeroRedundancyOptimizer(plain.parameters(), kind, lr=0.05)
    model = DistributedDataParallel(plain)
    for k in range(4):
        zero.zero_grad()
        model(randn(k, 2, 5)).square().mean().backward()
        zero.step()
    zero.consolidate_state_dict(to=0)
    entries = len(zero.state_dict()["state"]) if torch.distributed.get_rank() == 0 else 2
    return [entries, *(p.detach() for p in plain.parameters())]


def _trainings(how: str, mine: bool) -> dict[str, Any]:
    kinds = tw.optim if mine else torch.optim
    found: dict[str, Any] = {
        name: train(how, lambda params, name=name, options=options: getattr(kinds, name)(params, **options))
        for name, options in OPTIONS.items()
    }
    if mine:
        found["own"] = train(how, lambda params: tw.optim.AdamW(params, **OWN))
    return found


def _in_process() -> dict[str, Any]:
    zero = [_zero(kind) for kind in (tw.optim.AdamW, torch.optim.AdamW)]
    return {"ours": _trainings("ddp", mine=True), "theirs": _trainings("ddp", mine=False), "zero": zero}


@pytest.mark.parametrize("world_size", [2, 4])
def test_as_torch_and_as_one_process(tmp_path: Path, world_size: int) -> None:
    first, *others = run(_in_process, world_size, tmp_path)
    for other in others:
        torch.testing.assert_close(other, first, rtol=0, atol=0, msg="the processes differ")
    whole = _trainings("whole", mine=True)
    torch.testing.assert_close(first["ours"], whole, rtol=1e-10, atol=1e-12)
    for name in OPTIONS:
        ours, theirs = (first[whose][name]["weights"] for whose in ("ours", "theirs"))
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12, msg=f"{name} differs from torch's")
    torch.testing.assert_close(first["zero"][0], first["zero"][1], rtol=2e-6, atol=2e-6)
    assert first["zero"][0][0] == 2
