"""The range test on a GPU: losses stay there, no step waits for the device, everything comes back."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from thalweg import _lr_range_state
from thalweg.lr_range import range_test

pytestmark = pytest.mark.cuda


def _net(device: torch.device) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 3)).to(device)


def test_no_step_waits_for_the_device(real_device: torch.device) -> None:
    model = _net(real_device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    x = torch.randn(64, 6, device=real_device)
    y = torch.randint(3, (64,), device=real_device)
    start = [p.detach().clone() for p in model.parameters()]
    calls: list[int] = []

    def closure() -> torch.Tensor:
        calls.append(1)
        if len(calls) == 5:
            torch.cuda.set_sync_debug_mode("error")
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        if len(calls) == 55:
            torch.cuda.set_sync_debug_mode("default")
        return loss

    try:
        late = range_test(closure, optimizer, model=model, num_steps=60, max_lr=1.0, progress=False)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(calls) == 60
    calls.extend([1] * 100)  # no debug mode from here on
    at_once = range_test(closure, optimizer, model=model, num_steps=60, max_lr=1.0, lag=0, progress=False)
    torch.testing.assert_close(torch.tensor(late.losses), torch.tensor(at_once.losses), rtol=1e-4, atol=0)
    assert all(torch.equal(a, b) for a, b in zip(start, model.parameters(), strict=True))


def test_copies_go_to_the_host_where_memory_is_short(
    real_device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    parameters = list(_net(real_device).parameters())
    assert _lr_range_state.keeper(parameters)(parameters[0]).device == parameters[0].device
    monkeypatch.setattr(_lr_range_state, "free_memory", lambda device: 1)
    assert _lr_range_state.keeper(parameters)(parameters[0]).device.type == "cpu"
