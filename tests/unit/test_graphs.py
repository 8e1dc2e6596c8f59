"""capture_step's checks, which need no device."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import thalweg as tw
from thalweg._capture import culprit


def test_a_model_on_the_cpu_is_refused_by_name() -> None:
    model = nn.Sequential(nn.Linear(3, 2))
    opt = tw.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(RuntimeError, match=r"capture_step: expected a model on one CUDA device, got '0.weight' on cpu"):
        tw.graphs.capture_step(model, "mse", opt, (torch.ones(1, 3), torch.ones(1, 2)))
    assert not opt.state
    assert model[0].weight.grad is None


def test_other_optimizers_are_refused() -> None:
    model = nn.Linear(3, 2)
    with pytest.raises(TypeError, match="expected an optimizer of thalweg.optim, got SGD"):
        tw.graphs.capture_step(model, "mse", torch.optim.SGD(model.parameters(), lr=0.1), ())  # type: ignore[arg-type]


def test_warmup_is_checked() -> None:
    model = nn.Linear(3, 2)
    with pytest.raises(ValueError, match="warmup"):
        tw.graphs.capture_step(model, "mse", tw.optim.SGD(model.parameters(), lr=0.1), (), warmup=0)


def test_culprit_is_the_users_own_line() -> None:
    def users_loss(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(x, torch.ones(5))  # sizes do not fit

    try:
        users_loss(torch.ones(3))
    except RuntimeError as error:
        text = culprit(error, None)
    assert "test_graphs.py:" in text
    assert "in users_loss: return torch.nn.functional.linear" in text
