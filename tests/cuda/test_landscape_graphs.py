"""When an evaluator on a device replays a graph and when it does not: seen in the emulated build, too."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from thalweg import _core
from thalweg.landscape import Evaluator, from_tensors, random_directions
from thalweg.landscape.engines import _graph
from thalweg.landscape.engines import device as _device_run

pytestmark = pytest.mark.cuda

COORDINATES = np.array([[0.0, 0.0], [0.5, -1.0], [-0.3, 0.2], [1.0, 1.0], [0.1, 0.7]])
Capture = Callable[[], AbstractContextManager[Any]]


class _FakeGraph:
    """Stands in for torch's graph in the emulated build: holds what thalweg's kernels did."""

    def __init__(self) -> None:
        self.replays = 0

    def replay(self) -> None:
        self.recorded.replay()
        self.replays += 1


@pytest.fixture
def ended() -> list[tuple[int, int]]:
    """Pools of captures that were taken out of torch's allocator."""
    return []


@pytest.fixture
def emulated_graphs(monkeypatch: pytest.MonkeyPatch, capture: Capture, ended: list[Any]) -> list[_FakeGraph]:
    """Graphs that were captured; torch's own operations are not in them."""
    if not _core.tensor_view(torch.empty(1))[3] >= 0:
        pytest.skip("only for the emulated build")
    made: list[_FakeGraph] = []

    @contextmanager
    def graph(target: _FakeGraph, stream: Any, capture_error_mode: str, pool: Any = None) -> Iterator[None]:
        assert capture_error_mode == "thread_local"
        try:
            with capture() as target.recorded:
                yield
        except Exception:
            raise RuntimeError("the end of a failed capture") from None
        made.append(target)

    for name, stand_in in (
        ("CUDAGraph", _FakeGraph), ("graph", graph), ("set_stream", lambda stream: None),
        ("current_stream", lambda device: SimpleNamespace(device=torch.device("cpu"))),
        ("graph_pool_handle", lambda: (0, 1)),
    ):  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, stand_in)
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", lambda device, pool: ended.append(pool), raising=False)
    real_obstacle = _graph.obstacle

    def obstacle(*args: Any) -> str | None:
        reason = real_obstacle(*args)
        return None if reason == "the device has no graphs" else reason

    monkeypatch.setattr(_device_run, "obstacle", obstacle)
    return made


def first_weight(module: nn.Module, batch: Any) -> torch.Tensor:
    """A loss without an operation of torch: the memory of a weight."""
    return module.weight.reshape(-1)[0]


def test_points_after_the_first_are_replays(device: torch.device, emulated_graphs: list[_FakeGraph]) -> None:
    model = nn.Linear(3, 2, bias=False)
    data = (torch.randn(6, 3), torch.randn(6, 2))
    d1, d2 = torch.randn(2, 3), torch.randn(2, 3)
    ev = Evaluator(model, first_weight, data, batch_size=4)
    result = ev.points(from_tensors(model, {"weight": d1}, {"weight": d2}), COORDINATES)
    w = model.weight.detach()
    expected = [float(((w + a * d1) + b * d2)[0, 0]) for a, b in COORDINATES.tolist()]
    assert result.values["loss"].tolist() == [(v * 4 + v * 2) / 6 for v in expected]
    assert result.metadata["graph"] is True
    assert "graph_reason" not in result.metadata
    assert [graph.replays for graph in emulated_graphs] == [len(COORDINATES) - 1]


def test_a_failed_capture_falls_back_and_says_why(
    device: torch.device, emulated_graphs: list[_FakeGraph], ended: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    calls = 0

    def loss_fn(module: nn.Module, batch: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 3:  # check of the own weights, first point, capture
            raise RuntimeError("operation not permitted when stream is capturing")
        return first_weight(module, batch)

    model, data = nn.Linear(3, 2, bias=False), (torch.randn(6, 3), torch.randn(6, 2))
    before, generator = model.weight.detach().clone(), torch.get_rng_state()
    direction = from_tensors(model, {"weight": torch.ones(2, 3)})
    ev = Evaluator(model, loss_fn, data, batch_size=6)
    with caplog.at_level(logging.WARNING, logger="thalweg.landscape"):
        result = ev.line(direction, (0.0, 3.0, 4))
    assert result.values["loss"].tolist() == [float(before[0, 0] + t) for t in range(4)]
    assert result.metadata["graph"] is False
    assert "operation not permitted when stream is capturing" in result.metadata["graph_reason"]
    assert result.metadata["graph_reason"] in caplog.text
    assert [graph.replays for graph in emulated_graphs] == [0]  # the one that ends the generator's capture
    assert torch.equal(model.weight, before)
    assert torch.equal(torch.get_rng_state(), generator)
    assert ended == [(0, 1)]
    again = ev.line(direction, (0.0, 3.0, 4))
    assert again.metadata["graph_reason"] == result.metadata["graph_reason"]
    assert np.array_equal(again.values["loss"], result.values["loss"])
    assert len(emulated_graphs) == 1, "no second try"


@pytest.mark.parametrize(
    ("options", "metrics", "coordinates", "reason"),
    [
        ({}, ("loss",), COORDINATES[:2], "2 points are too few"),
        ({"bn": "recalibrate"}, ("loss",), COORDINATES, "recalibrated at every point"),
        ({"train_mode": True}, ("loss",), COORDINATES, "draws random numbers"),
        ({}, (("half", lambda output, targets: 0.5),), COORDINATES, "returns a number of the host"),
    ],
)
def test_what_a_graph_cannot_hold_is_told(
    device: torch.device, options: dict[str, Any], metrics: Any, coordinates: np.ndarray, reason: str
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3)).to(device)
    data = (torch.randn(50, 4), torch.randint(0, 3, (50,)))
    ev = Evaluator(model, "cross_entropy", data, metrics, batch_size=25, **options)
    metadata = ev.points(random_directions(model), coordinates).metadata
    assert metadata["graph"] is False
    assert reason in metadata["graph_reason"]


def test_waits_are_noticed_and_other_warnings_pass_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU: torch's debug mode stood in for by the warnings that it gives."""
    modes = ["default"]
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: 0)
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    with warnings.catch_warnings(record=True) as passed:
        warnings.simplefilter("always")
        with _graph.synchronisations(torch.device("cuda")) as waits:
            assert modes[-1] == "warn"
            warnings.warn("called a synchronizing CUDA operation (Triggered internally)", UserWarning, stacklevel=1)
            warnings.warn("of the user's own", UserWarning, stacklevel=1)
    assert [str(warning.message) for warning in passed] == ["of the user's own"]
    assert modes[-1] == "default"
    assert len(waits) == 1
    assert waits[0].startswith(__file__)
    reason = _graph.obstacle(torch.device("cuda"), 9, waits, None, _graph.Refusal())
    assert reason is not None
    assert "waits for the device" in reason
    assert _graph.obstacle(torch.device("cuda"), 9, [], None, _graph.Refusal()) is None


def test_progress_follows_the_device_and_keeps_close(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU: events that become true one by one, each time somebody asks."""
    recorded, finished, shown, most = [], 0, 0, 0

    class Event:
        def record(self, stream: Any) -> None:
            recorded.append(self)

        def query(self) -> bool:
            nonlocal finished, most
            most = max(most, len(recorded) - finished)
            if recorded.index(self) < finished:
                return True
            finished += 1
            return False

    def done() -> None:
        nonlocal shown
        shown += 1
        assert shown <= finished

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    progress = _device_run.Progress(done, torch.device("cuda"))
    for _ in range(200):
        progress.launched()
    assert shown >= 200 - _device_run._IN_FLIGHT
    progress.finish()
    assert shown == 200
    assert most <= _device_run._IN_FLIGHT + 1
