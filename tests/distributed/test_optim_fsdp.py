"""FSDP2 over 2 and 4 processes, replicas of shards too: as one process on the whole batch, with every option."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
from processes import full, run
from training import STEPS, poison_one, train

import thalweg as tw

pytestmark = [pytest.mark.distributed, pytest.mark.slow]

SCHEDULE = tw.schedules.cosine(0.05, total_steps=STEPS, eta_min=0.01)
DECAY = 0.8
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "SGD": ("SGD", {"lr": 0.05, "momentum": 0.9, "nesterov": True}),
    "Adam, schedule": ("Adam", {"lr": SCHEDULE, "weight_decay": 0.01}),
    "AdamW, norm": ("AdamW", {"lr": 0.05, "max_grad_norm": 0.3}),
    "AdamW, everything": (
        "AdamW",
        {"lr": SCHEDULE, "amsgrad": True, "max_grad_norm": 0.3, "ema_decay": DECAY, "zero_grad_in_step": True},
    ),
    "SGD, norm": ("SGD", {"lr": SCHEDULE, "max_grad_norm": 0.2, "ema_decay": DECAY}),
}


def _ours(case: str) -> Any:
    name, options = CASES[case]
    return lambda params: getattr(tw.optim, name)(params, **options)


def _everything(how: str) -> dict[str, Any]:
    """What every process returns: trainings with each case, steps with a NaN, with loss scalers."""
    results: dict[str, Any] = {case: train(how, _ours(case)) for case in CASES}
    measured: list[float] = []

    def measure(k: int, model: nn.Module, optimizer: Any) -> None:
        measured.append(float(full(nn.utils.clip_grad_norm_(model.parameters(), float("inf")))))

    results["measured"] = (train(how, _ours("AdamW, norm"), before=measure)["norms"], measured)

    def poison(k: int, model: nn.Module, optimizer: Any) -> None:
        if k in (0, 3):
            poison_one(model)

    def skipping(params: Any) -> Any:
        return tw.optim.AdamW(params, lr=SCHEDULE, skip_nonfinite=True, max_grad_norm=0.3)

    results["a NaN"] = train(how, skipping, before=poison)
    for name, scaler in (("torch", torch.amp.GradScaler), ("thalweg", tw.amp.GradScaler)):

        def scaled(params: Any) -> Any:
            return tw.optim.AdamW(params, lr=SCHEDULE)

        made = scaler("cpu", init_scale=2.0**10)
        results[f"{name}'s scaler"] = train(how, scaled, torch.float32, poison, made)

    def told(k: int, model: nn.Module, optimizer: Any) -> None:  # by a scaler of its own, which knows of no mesh
        last = how == "whole" or dist.get_rank() == dist.get_world_size() - 1
        optimizer.found_inf = torch.tensor(1.0 if last and k in (0, 3) else 0.0)

    results["found_inf"] = train(how, lambda params: tw.optim.SGD(params, lr=SCHEDULE, momentum=0.9), before=told)
    return results


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    return _everything("whole")


def _each(hows: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    return {how: _everything(how) for how in hows}


@pytest.mark.parametrize(("world_size", "hows"), [(2, ("fsdp",)), (4, ("fsdp", "hsdp"))])
def test_as_one_process(tmp_path: Path, whole: dict[str, Any], world_size: int, hows: tuple[str, ...]) -> None:
    first, *others = run(_each, world_size, tmp_path, hows)
    for other in others:
        torch.testing.assert_close(other, first, rtol=0, atol=0, equal_nan=True, msg="the processes differ")
    for how in hows:
        _compare(first[how], whole)


def _compare(first: dict[str, Any], whole: dict[str, Any]) -> None:
    for case, expected in whole.items():
        scaled = "scaler" in case  # float32
        tolerance = {"rtol": 1e-4, "atol": 1e-5} if scaled else {"rtol": 1e-10, "atol": 1e-12}
        torch.testing.assert_close(
            first[case], expected, **tolerance, equal_nan=True, msg=lambda text, case=case: f"{case}: {text}"
        )
    norms, measured = first["measured"]
    torch.testing.assert_close(norms, measured, rtol=1e-12, atol=0)


def test_the_whole_is_what_torch_does(whole: dict[str, Any]) -> None:
    """The one process that the others are compared with, against torch's optimizers, clipping and a plain average."""

    def clipped(norm: float | None, scheduled: bool) -> Any:
        def step(k: int, model: nn.Module, optimizer: Any) -> None:
            if scheduled:
                optimizer.param_groups[0]["lr"] = SCHEDULE(k)
            if norm is not None:
                nn.utils.clip_grad_norm_(model.parameters(), norm)
            optimizer.step()

        return step

    for case, (name, options) in CASES.items():
        known = {key: value for key, value in options.items() if key not in ("max_grad_norm", "ema_decay")}
        known.pop("zero_grad_in_step", None)
        scheduled = known["lr"] is SCHEDULE
        theirs = {**known, "lr": SCHEDULE(0) if scheduled else known["lr"]}
        kind = getattr(torch.optim, name)
        expected = train(
            "whole",
            lambda params, kind=kind, theirs=theirs: kind(params, **theirs),
            stepping=clipped(options.get("max_grad_norm"), scheduled),
        )
        torch.testing.assert_close(whole[case]["weights"], expected["weights"], rtol=1e-9, atol=1e-12, msg=case)
        if "ema_decay" in options:
            average = expected["weights"][0]
            for weights in expected["weights"][1:]:
                average = [DECAY * a + (1 - DECAY) * w for a, w in zip(average, weights, strict=True)]
            torch.testing.assert_close([s["ema"] for s in whole[case]["states"]], average, rtol=1e-9, atol=1e-12)
    assert max(whole["AdamW, norm"]["norms"]) > 0.3, "clipping has something to do"
    assert (whole["a NaN"]["step"], whole["found_inf"]["step"]) == (STEPS - 2, STEPS - 2)
    assert whole["torch's scaler"]["scale"] == whole["thalweg's scaler"]["scale"] == 2.0**8
