"""The two modes of schedule-free optimizers: x for evaluation, y for training."""

from __future__ import annotations

import copy
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import thalweg as tw

sys.path.insert(0, str(Path(__file__).parents[1]))
from parity.optimizer_cases import contents, give, parameters, same_bits, steps, tensors
from reference import REFERENCES

KINDS = [tw.optim.SGDScheduleFree, tw.optim.AdamWScheduleFree]
SIZES = (5, 1, 0, 300)


def trained(kind: Any, dtype: torch.dtype = torch.float32, **options: Any) -> tuple[Any, list[nn.Parameter]]:
    params = parameters(tensors(0, dtype, SIZES))
    optimizer = kind(params, lr=0.05, **options)
    steps(optimizer, params, range(4))
    return optimizer, params


def values(params: list[nn.Parameter]) -> list[torch.Tensor]:
    return [p.detach().clone() for p in params]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("b", [0.9, 0.5, 0.25])
def test_eval_gives_the_average_of_the_reference(kind: Any, b: float) -> None:
    option = {"momentum": b} if kind is tw.optim.SGDScheduleFree else {"betas": (b, 0.99)}
    start = tensors(0, torch.float64, SIZES)
    params = parameters(start)
    optimizer = kind(params, lr=0.05, warmup_steps=3, **option)
    oracles = [REFERENCES[kind.core_name](warmup_steps=3, **option) for _ in params]
    now = [p.numpy() for p in start]
    for k in range(10):
        give(params, k)
        now = [o.step(v, p.grad.numpy(), 0.05) for o, v, p in zip(oracles, now, params, strict=True)]
        optimizer.step()
    optimizer.eval()
    for p, oracle in zip(params, oracles, strict=True):
        np.testing.assert_allclose(p.detach().numpy(), oracle.states["x"], rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("storage", ["float32", "bfloat16", "master"])
def test_train_gives_back_the_bits_and_both_may_come_twice(kind: Any, storage: str) -> None:
    dtype = torch.float32 if storage == "float32" else torch.bfloat16
    optimizer, params = trained(kind, dtype, master_weights=storage == "master")
    other, others = trained(kind, dtype, master_weights=storage == "master")
    before = contents(optimizer)
    optimizer.eval()
    average = contents(optimizer)
    assert not same_bits(average, before)
    if storage == "master":
        for p in params:
            assert torch.equal(p.detach(), optimizer.state[p]["master_param"].bfloat16())
    optimizer.eval()
    assert same_bits(contents(optimizer), average)
    optimizer.train()
    optimizer.train()
    assert same_bits(contents(optimizer), before)
    steps(optimizer, params, range(4, 8))
    steps(other, others, range(4, 8))
    assert same_bits(contents(optimizer), contents(other))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("write", ["in place", "memory", "state"])
def test_what_was_changed_meanwhile_is_the_new_average(kind: Any, write: str) -> None:
    optimizer, params = trained(kind)
    optimizer.eval()
    p, untouched = params[3], params[0]
    y = values([untouched])[0]
    if write == "in place":
        with torch.no_grad():
            p.add_(1.0)
    elif write == "memory":
        p.data = p.data + 1.0
    else:
        optimizer.state[p]["z"].add_(1.0)
    x, z = p.detach().double(), optimizer.state[p]["z"].double()
    optimizer.train()
    torch.testing.assert_close(p.detach().double(), 0.9 * x + 0.1 * z, rtol=3e-7, atol=3e-7)
    assert not torch.equal(untouched, y)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["state_dict", "deepcopy", "pickle"])
def test_the_mode_survives_and_y_comes_back_within_rounding(kind: Any, how: str) -> None:
    optimizer, params = trained(kind)
    y = values(params)
    optimizer.eval()
    if how == "state_dict":
        twin = parameters(values(params))
        again = kind(twin, lr=9.0)
        again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    else:
        again = copy.deepcopy(optimizer) if how == "deepcopy" else pickle.loads(pickle.dumps(optimizer))
        twin = again.param_groups[0]["params"]
    assert [g["train_mode"] for g in again.param_groups] == [False]
    with pytest.raises(RuntimeError, match=rf"{kind.__name__}: step\(\) in eval mode.*call train\(\) first"):
        steps(again, twin, range(1))
    again.train()
    for p, before in zip(twin, y, strict=True):
        torch.testing.assert_close(p.detach(), before, rtol=1e-6, atol=1e-6)
    steps(again, twin, range(4, 6))


@pytest.mark.parametrize("kind", KINDS)
def test_step_in_eval_mode_changes_nothing_and_names_the_remedy(kind: Any) -> None:
    optimizer, params = trained(kind)
    optimizer.eval()
    before = contents(optimizer)
    give(params, 9)
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"call train\(\) first"):
            optimizer.step()
        optimizer.register_step_pre_hook(lambda *_: None)  # the other way into a step
    assert same_bits(contents(optimizer), before)
    optimizer.register_step_pre_hook(lambda o, *_: o.train())
    optimizer.step()


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_without_state_and_new_groups(kind: Any) -> None:
    params = parameters(tensors(0, torch.float32, SIZES))
    optimizer = kind(params[:2], lr=0.05)
    start = values(params)
    params[0].grad = torch.ones_like(params[0])
    optimizer.step()
    optimizer.eval()
    optimizer.add_param_group({"params": params[2:]})
    assert [g["train_mode"] for g in optimizer.param_groups] == [False, False]
    assert not torch.equal(params[0], start[0]), "stepped"
    assert all(torch.equal(p, s) for p, s in zip(params[1:], start[1:], strict=True))
    optimizer.train()
    assert all(torch.equal(p, s) for p, s in zip(params[1:], start[1:], strict=True))
    assert len(optimizer.state) == 1
    steps(optimizer, params, range(2))


@pytest.mark.parametrize("kind", KINDS)
def test_modes_record_no_graph(kind: Any) -> None:
    optimizer, params = trained(kind)
    optimizer.eval()
    optimizer.train()
    assert all(p.is_leaf and p.requires_grad and p.grad_fn is None for p in params)
