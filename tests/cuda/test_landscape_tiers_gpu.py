"""The rounding and approximate tiers on a device: values, bits, where the sums are, what is waited for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from thalweg.landscape import Evaluator, random_directions
from thalweg.landscape.engines import grouped, streamed
from thalweg.landscape.engines.device import Device
from thalweg.landscape.engines.grouped import Grouped

pytestmark = [pytest.mark.cuda, pytest.mark.filterwarnings("ignore:Synchronization debug mode")]

METRICS = ("loss", "accuracy", "top5", "confidence", "margin", "stderr")
POINTS = np.random.default_rng().uniform(-1, 1, (29, 2))
AXES: Any = {"x": (-1, 1, 9), "y": (-0.5, 1, 5)}


def net(device: torch.device) -> nn.Module:
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(24, 7),
    )  # fmt: skip
    model(torch.randn(20, 1, 6, 6))  # statistics that are not zero and one
    return model.to(device)


def images(device: torch.device, n: int = 50) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(n, 1, 6, 6).to(device), torch.randint(0, 7, (n,)).to(device)


@pytest.fixture
def ieee(device: torch.device) -> Iterator[None]:
    """float32 as it is, so that the tiers differ by roundings alone."""
    conv, matmul = torch.backends.cudnn.conv, torch.backends.cuda.matmul
    before = conv.fp32_precision, matmul.fp32_precision
    conv.fp32_precision = matmul.fp32_precision = "ieee"
    yield
    conv.fp32_precision, matmul.fp32_precision = before


@pytest.fixture
def no_sums_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*args: Any) -> None:
        raise AssertionError("the sums belong on the device")

    for module in (grouped, streamed):
        monkeypatch.setattr(module, "HostCells", refused)


@pytest.mark.parametrize("implementation", ["auto", "loop", "program", "vmap"])
def test_rounding_has_the_exact_tier_s_values(
    device: torch.device, implementation: str, ieee: None, no_sums_on_the_host: None
) -> None:
    model, data = net(device), images(device)
    directions = random_directions(model, seed=3)
    exact = Evaluator(model, "cross_entropy", data, METRICS, batch_size=16).grid(directions, **AXES)
    ev = Evaluator(model, "cross_entropy", data, METRICS, batch_size=16, tier="rounding", implementation=implementation)
    quick = ev.grid(directions, **AXES)
    for name in ("loss", "confidence", "margin", "stderr"):
        np.testing.assert_allclose(quick.values[name], exact.values[name], rtol=5e-5, atol=2e-6, err_msg=name)
    for name in ("accuracy", "top5"):
        assert np.abs(quick.values[name] - exact.values[name]).max() <= 1 / 50 + 1e-12
    if implementation == "auto":
        assert ev.choice is not None
        assert ev.choice.reasons["threads"] == "the device has its own"
        assert "ms/point" in ev.choice.reasons["program"], ev.choice


@pytest.mark.parametrize("implementation", ["program", "vmap"])
def test_values_depend_on_no_other_points(device: torch.device, implementation: str, no_sums_on_the_host: None) -> None:
    model, data = net(device), images(device)
    directions = random_directions(model)
    ev = Evaluator(model, "cross_entropy", data, METRICS, batch_size=16, tier="rounding", implementation=implementation)
    whole, order = ev.points(directions, POINTS), np.random.default_rng().permutation(29)[:11]
    part = ev.points(directions, POINTS[order])
    for name in METRICS:
        np.testing.assert_array_equal(part.values[name], whole.values[name][order], err_msg=name)


def test_a_resumed_run_has_the_same_bits(device: torch.device, tmp_path: Path) -> None:
    model, data = net(device), images(device)
    directions = random_directions(model)

    class Enough(Exception):
        pass

    def evaluator() -> Evaluator:
        return Evaluator(model, "cross_entropy", data, batch_size=16, tier="rounding", implementation="program")

    plain = evaluator().points(directions, POINTS)
    calls, evaluate = 0, Grouped.evaluate

    def few(self: Grouped, points: Any, done: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise Enough
        return evaluate(self, points, done)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Grouped, "group", 8)
        patch.setattr(Grouped, "evaluate", few)
        with pytest.raises(Enough):
            evaluator().points(directions, POINTS, resume=tmp_path / "run.sqlite")
    resumed = evaluator().points(directions, POINTS, resume=tmp_path / "run.sqlite")
    np.testing.assert_array_equal(resumed.values["loss"], plain.values["loss"])


@pytest.mark.parametrize("implementation", ["loop", "program"])
def test_bf16_with_its_error(device: torch.device, implementation: str, no_sums_on_the_host: None) -> None:
    model, data = net(device), images(device)
    directions = random_directions(model)
    exact = Evaluator(model, "cross_entropy", data, batch_size=16).points(directions, POINTS).values["loss"]
    ev = Evaluator(
        model, "cross_entropy", data, batch_size=16, tier="approximate", precision="bf16",
        implementation=implementation,
    )  # fmt: skip
    result = ev.points(directions, POINTS)
    gaps = np.abs(result.values["loss"] - exact)
    assert 0 < gaps.max() < 0.05
    assert 0 < result.metadata["error_probe"]["largest_absolute"] <= gaps.max()
    assert ev.at()["loss"] == Evaluator(model, "cross_entropy", data, batch_size=16).at()["loss"]


def test_tf32_with_its_error(real_device: torch.device, ieee: None) -> None:
    model, data = net(real_device), images(real_device)
    directions = random_directions(model)
    exact = Evaluator(model, "cross_entropy", data, batch_size=16).points(directions, POINTS).values["loss"]
    ev = Evaluator(model, "cross_entropy", data, batch_size=16, tier="approximate", precision="tf32")
    result = ev.points(directions, POINTS)
    assert 0 < np.abs(result.values["loss"] - exact).max() < 0.01
    assert torch.backends.cudnn.conv.fp32_precision == "ieee", "as before"


def test_tf32_is_refused_on_the_host() -> None:
    model = nn.Linear(3, 2)
    with pytest.raises(ValueError, match="'tf32' is CUDA's, the model is on cpu"):
        Evaluator(
            model, "cross_entropy", (torch.ones(4, 3), torch.zeros(4).long()), tier="approximate", precision="tf32"
        )


@contextmanager
def _strict() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_the_host_reads_once_per_call(real_device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits for the device between the groups; the progress follows events."""
    model, data = net(real_device), images(real_device)
    ev = Evaluator(model, "cross_entropy", data, METRICS, batch_size=16, tier="rounding", implementation="program")
    directions = random_directions(model)
    ev.points(directions, POINTS)  # warms up
    finish, begin = grouped.Progress.finish, grouped.Progress.__init__
    guards = []

    def started(self: Any, *args: Any) -> None:
        begin(self, *args)
        guards.append(_strict())
        guards[-1].__enter__()

    def finished(self: Any) -> None:
        finish(self)
        guards.pop().__exit__(None, None, None)

    monkeypatch.setattr(grouped.Progress, "__init__", started)
    monkeypatch.setattr(grouped.Progress, "finish", finished)
    coordinates = np.random.default_rng().uniform(-1, 1, (300, 2))
    assert np.isfinite(ev.points(directions, coordinates, progress=True).values["loss"]).all()


def test_the_plain_loop_of_a_tier_is_the_device_s(device: torch.device) -> None:
    model, data = net(device), images(device)
    ev = Evaluator(model, "cross_entropy", data, tier="rounding", implementation="loop")
    metadata = ev.points(random_directions(model), POINTS).metadata
    assert "graph" in metadata, f"{Device.__name__} tells whether it had one"
    assert metadata["implementation"] == "loop"
