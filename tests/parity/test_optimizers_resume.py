"""Every optimizer, interrupted: state_dicts, copies, torch's class and back. The oracle is the run that was not."""

from __future__ import annotations

import copy
import io
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import thalweg as tw

sys.path.insert(0, str(Path(__file__).parents[1]))
from parity.optimizer_cases import (
    CASES,
    IDS,
    NAMES,
    class_of,
    contents,
    fullest,
    parameters,
    same_bits,
    steps,
    tensors,
    torch_of,
)

SIZES = (5, 1, 0, 300)
WITH_TORCH = [(name, options) for name, options in CASES if torch_of(name) is not None]


def started(name: str, options: dict[str, Any], **own: Any) -> tuple[Any, list[nn.Parameter]]:
    """An optimizer on a schedule, after six steps."""
    lr = tw.schedules.warmup(3, 0.1) >> tw.schedules.sgdr(0.1, t_0=4, t_mult=2, eta_min=0.01)
    params = parameters(tensors(0, torch.float32, SIZES))
    optimizer = class_of(name)(params, lr=lr, **options, **own)
    steps(optimizer, params, range(6))
    return optimizer, params


def saved_and_loaded(optimizer: Any) -> Any:
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
@pytest.mark.parametrize("how", ["state_dict", "deepcopy", "pickle"])
def test_resume_in_the_middle_has_the_same_bits(name: str, options: dict[str, Any], how: str) -> None:
    optimizer, params = started(name, options)
    if how == "state_dict":
        twin = parameters([p.detach() for p in params])
        again = class_of(name)(twin, lr=optimizer.schedules[0], **options)
        again.load_state_dict(saved_and_loaded(optimizer))
    else:
        again = copy.deepcopy(optimizer) if how == "deepcopy" else pickle.loads(pickle.dumps(optimizer))
        twin = again.param_groups[0]["params"]
    assert again.schedule_step == 6
    assert again.param_groups[0]["lr"] == optimizer.schedules[0](6)
    assert set(again.param_groups[0]) == set(optimizer.param_groups[0])
    assert same_bits(contents(again), contents(optimizer))
    steps(optimizer, params, range(6, 15))
    steps(again, twin, range(6, 15))
    assert same_bits(contents(again), contents(optimizer))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("own", [{"ema_decay": 0.9}, {"state_dtype": torch.bfloat16}], ids=["ema", "bfloat16"])
def test_own_states_resume_too(name: str, own: dict[str, Any]) -> None:
    options = fullest(name)
    optimizer, params = started(name, options, **own)
    twin = parameters([p.detach() for p in params])
    again = class_of(name)(twin, lr=9.0, **options, **own)
    again.load_state_dict(saved_and_loaded(optimizer))
    steps(optimizer, params, range(6, 9))
    steps(again, twin, range(6, 9))
    assert same_bits(contents(again), contents(optimizer))


@pytest.mark.parametrize(("name", "options"), WITH_TORCH)
def test_state_dict_moves_to_torch_and_back(name: str, options: dict[str, Any]) -> None:
    ours, theirs = class_of(name), torch_of(name)
    a, b = (parameters(tensors(0, torch.float32, SIZES)) for _ in range(2))
    one, two = ours(a, lr=0.05, **options), theirs(b, lr=0.05, **options)
    steps(one, a, range(3))
    steps(two, b, range(3))
    saved = [o.state_dict() for o in (one, two)]
    assert saved[0]["param_groups"][0].keys() == saved[1]["param_groups"][0].keys()
    for x, y in zip(saved[0]["state"].values(), saved[1]["state"].values(), strict=True):
        assert {k: (v.shape, v.dtype) for k, v in x.items()} == {k: (v.shape, v.dtype) for k, v in y.items()}
    a2, b2 = (parameters([p.detach() for p in side]) for side in (b, a))
    to_ours, to_theirs = ours(a2, lr=9.0, **options), theirs(b2, lr=9.0, **options)
    to_ours.load_state_dict(copy.deepcopy(saved[1]))
    to_theirs.load_state_dict(copy.deepcopy(saved[0]))
    for optimizer, params in ((one, a), (two, b), (to_ours, a2), (to_theirs, b2)):
        steps(optimizer, params, range(3, 6))
    for mine, torchs in ((a2, b), (b2, a)):
        for p, q in zip(mine, torchs, strict=True):
            torch.testing.assert_close(p, q, rtol=4e-6, atol=4e-6)
    c = parameters([p.detach() for p in b2])
    back = ours(c, lr=9.0, **options)
    back.load_state_dict(copy.deepcopy(to_theirs.state_dict()))
    for optimizer, params in ((to_theirs, b2), (back, c)):
        steps(optimizer, params, range(6, 9))
    for p, q in zip(c, b2, strict=True):
        torch.testing.assert_close(p, q, rtol=4e-6, atol=4e-6)
