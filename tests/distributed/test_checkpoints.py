"""torch.distributed.checkpoint: saved by two processes, loaded by four, saved, loaded by one; the run goes on as it was."""

from __future__ import annotations

import copy
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    get_optimizer_state_dict,
    get_state_dict,
    set_optimizer_state_dict,
    set_state_dict,
)

sys.path.insert(0, str(Path(__file__).parent))
from processes import full, randn, run
from training import BATCH, Net, distributed

import thalweg as tw

pytestmark = [pytest.mark.distributed, pytest.mark.slow]

STEPS = 9  # of the whole run
SCHEDULE = tw.schedules.warmup(2, 0.05) >> tw.schedules.cosine(0.05, total_steps=STEPS - 2)
OPTIONS: dict[str, Any] = {"lr": SCHEDULE, "max_grad_norm": 0.3, "ema_decay": 0.8}


def _made(how: str) -> tuple[nn.Module, Any]:
    model = distributed(Net(torch.float64), how)
    return model, tw.optim.AdamW(model.parameters(), **OPTIONS)


def _train(model: nn.Module, optimizer: Any, steps: range) -> None:
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    own = slice(rank * BATCH // world, (rank + 1) * BATCH // world)
    for k in steps:
        optimizer.zero_grad()
        rows, wanted = (randn(seed, BATCH, n, dtype=torch.float64)[own] for seed, n in ((k, 5), (100 + k, 3)))
        (model(rows) - wanted).square().mean().backward()
        optimizer.step()


def _seen(model: nn.Module, optimizer: Any) -> dict[str, Any]:
    group = optimizer.param_groups[0]
    return {
        "weights": {name: full(p) for name, p in model.named_parameters()},
        "states": {name: {k: full(v) for k, v in optimizer.state[p].items()} for name, p in model.named_parameters()},
        "schedule": (optimizer.schedules, optimizer.schedule_step, group["lr"]),
    }


def _same(one: dict[str, Any], two: dict[str, Any], **tolerance: float) -> None:
    assert one["schedule"] == two["schedule"]
    for key in ("weights", "states"):
        torch.testing.assert_close(one[key], two[key], **tolerance)


def _leg(how: str, steps: range, source: str | None, target: str) -> dict[str, Any]:
    """Load, train on, save; what there is after loading and at the end."""
    model, optimizer = _made(how)
    loaded = None
    if source is not None:
        weights, states = get_state_dict(model, optimizer)
        dcp.load({"model": weights, "optimizer": states}, checkpoint_id=source)
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*set from outside")
            set_state_dict(model, optimizer, model_state_dict=weights, optim_state_dict=states)
        loaded = _seen(model, optimizer)
    _train(model, optimizer, steps)
    weights, states = get_state_dict(model, optimizer)
    dcp.save({"model": weights, "optimizer": states}, checkpoint_id=target)
    return {"loaded": loaded, "end": _seen(model, optimizer)}


def test_a_run_moves_between_numbers_of_processes(tmp_path: Path) -> None:
    legs = [("fsdp", 2, range(3)), ("hsdp", 4, range(3, 6)), ("fsdp", 1, range(6, 9))]
    before, source = None, None
    for how, world_size, steps in legs:
        target = str(tmp_path / f"after {steps.stop}")
        for result in run(_leg, world_size, tmp_path, how, steps, source, target):
            assert result["end"]["schedule"] == ((SCHEDULE,), steps.stop, SCHEDULE(steps.stop))
            if before is not None:
                _same(result["loaded"], before, rtol=0.0, atol=0.0)
        before, source = result["end"], target
    model, optimizer = _made("whole")
    _train(model, optimizer, range(STEPS))
    _same(before, _seen(model, optimizer), rtol=1e-10, atol=1e-12)


def _exchanged() -> dict[str, Any]:
    """States go to torch's class under FSDP2 and come back."""
    ends = []
    options = {"lr": 0.05, "weight_decay": 0.01}
    for kinds in ((tw.optim.AdamW,) * 3, (torch.optim.AdamW,) * 3, (tw.optim.AdamW, torch.optim.AdamW, tw.optim.AdamW)):
        model, saved = distributed(Net(torch.float64), "fsdp"), None
        for i, kind in enumerate(kinds):
            optimizer = kind(model.parameters(), **options)
            if saved is not None:
                set_optimizer_state_dict(model, optimizer, saved)
            _train(model, optimizer, range(3 * i, 3 * i + 3))
            saved = copy.deepcopy(get_optimizer_state_dict(model, optimizer))
        ends.append(([full(p) for p in model.parameters()], [float(s["step"]) for s in optimizer.state.values()]))
    return {"ends": ends}


def test_torch_goes_on_with_our_states_and_we_with_torchs(tmp_path: Path) -> None:
    for result in run(_exchanged, 2, tmp_path):
        first, *others = result["ends"]
        assert set(first[1]) == {9.0}
        for other in others:
            torch.testing.assert_close(other, first, rtol=1e-10, atol=1e-12)
