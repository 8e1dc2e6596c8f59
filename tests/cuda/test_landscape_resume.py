"""Journals and shared runs on a device: a run that was interrupted goes on with the same bits and tells the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

import thalweg as tw
from thalweg.landscape._journal import read

pytestmark = pytest.mark.cuda

AXES: dict[str, Any] = {"x": (-1, 1, 9), "y": (-1, 2, 7), "progress": False}


def _evaluator(device: torch.device, **options: Any) -> tw.landscape.Evaluator:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3)).to(device)
    data = torch.randn(30, 5, device=device), torch.arange(30, device=device) % 3
    return tw.landscape.Evaluator(model, "cross_entropy", data, metrics=("loss", "accuracy", "stderr"), **options)


def _same(one: tw.landscape.Surface, other: tw.landscape.Surface) -> None:
    assert one.metadata == other.metadata
    for name, values in one.values.items():
        assert values.tobytes() == other.values[name].tobytes()


@pytest.mark.parametrize("bn", ["frozen", "recalibrate"])  # with a graph on a GPU, and without one
def test_an_interrupted_grid_goes_on(
    device: torch.device, tmp_path: Path, bn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ev, path = _evaluator(device, bn=bn), tmp_path / "run.sqlite"
    directions = tw.landscape.random_directions(ev.model)
    whole = ev.grid(directions, **AXES)
    monkeypatch.setattr("thalweg.landscape._grids._PREVIEW_SECONDS", 0.0)

    def interrupt(surface: tw.landscape.Surface) -> None:
        if torch.isfinite(torch.from_numpy(surface.values["loss"])).sum() > 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ev.grid(directions, **AXES, preview=interrupt, resume=path)
    assert 20 < len(read("test", path).indices) < 63
    _same(_evaluator(device, bn=bn).grid(directions, **AXES, resume=path), whole)
    _same(_evaluator(device, bn=bn).grid(directions, **AXES, resume=path), whole)  # nothing is left
    assert "graph" in whole.metadata
    assert len(read("test", path).indices) == 63


def test_a_shared_grid_has_the_same_bits(device: torch.device, tmp_path: Path) -> None:
    ev = _evaluator(device)
    directions = tw.landscape.random_directions(ev.model)
    shared = ev.grid(directions, **AXES, share=dist.HashStore(), resume=tmp_path / "run.sqlite")
    _same(shared, ev.grid(directions, **AXES))
