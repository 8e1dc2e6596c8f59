"""The evaluator on a GPU: graphs against eager points, refused captures, no synchronisation per point, conditions."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from thalweg.landscape import Evaluator, random_directions
from thalweg.landscape._saved import SameStart
from thalweg.landscape.engines import device as _device_run

pytestmark = [pytest.mark.cuda, pytest.mark.filterwarnings("ignore:Synchronization debug mode")]

COORDINATES = np.random.default_rng(0).uniform(-1, 1, (9, 2))


def conv_net(device: torch.device) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(8 * 36, 10)
    ).to(device)


def images(n: int = 300) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, 3, 8, 8, generator=generator), torch.randint(0, 10, (n,), generator=generator)


@pytest.fixture
def no_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_device_run, "obstacle", lambda *_: "switched off")


@pytest.fixture
def strict_loop(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Synchronisations are errors from the second point on until the host reads."""
    distrust, finish, captured = SameStart.distrust, _device_run.Progress.finish, _device_run.captured

    def begin_eager(self: SameStart) -> None:
        distrust(self)
        torch.cuda.set_sync_debug_mode("error")

    def begin(*args: Any) -> Any:
        replay = captured(*args)
        torch.cuda.set_sync_debug_mode("error")
        return replay

    def end(self: Any) -> None:
        finish(self)
        torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(_device_run, "captured", begin)
    monkeypatch.setattr(SameStart, "distrust", begin_eager)
    monkeypatch.setattr(_device_run.Progress, "finish", end)
    yield
    torch.cuda.set_sync_debug_mode("default")


METRICS = ("loss", "accuracy", "top5", "confidence", "stderr")


@pytest.mark.parametrize("bn", ["frozen", "batch"])
def test_replays_have_the_bits_of_eager_points(
    real_device: torch.device, bn: str, request: pytest.FixtureRequest
) -> None:
    model = conv_net(real_device)
    ev = Evaluator(model, "cross_entropy", images(), METRICS, batch_size=64, bn=bn)
    replayed = ev.points(random_directions(model), COORDINATES)
    assert replayed.metadata["graph"] is True, replayed.metadata
    request.getfixturevalue("no_graph")
    eager = ev.points(random_directions(model), COORDINATES)
    assert eager.metadata["graph_reason"] == "switched off"
    for name in METRICS:
        assert np.array_equal(replayed.values[name], eager.values[name]), name


def test_no_synchronisation_per_point_with_a_graph(real_device: torch.device, strict_loop: None) -> None:
    model = conv_net(real_device)
    ev = Evaluator(model, "cross_entropy", images(), METRICS, batch_size=64)
    assert ev.points(random_directions(model), COORDINATES, progress=True).metadata["graph"] is True


def test_no_synchronisation_per_point_without_one(real_device: torch.device, no_graph: None, strict_loop: None) -> None:
    model = conv_net(real_device)
    ev = Evaluator(model, "cross_entropy", images(), METRICS, batch_size=64)
    assert ev.points(random_directions(model), COORDINATES).metadata["graph"] is False


def item(loss: torch.Tensor) -> torch.Tensor:
    return loss if loss.item() > 0 else -loss


def whole_device(loss: torch.Tensor) -> torch.Tensor:
    torch.cuda.synchronize()  # torch does not report it: only the capture shows that it cannot be
    return loss


@pytest.mark.parametrize(("waits", "reason"), [(item, "waits for the device: "), (whole_device, "the capture failed")])
def test_a_loss_that_synchronises_falls_back_with_the_reason(
    real_device: torch.device, waits: Callable[[torch.Tensor], torch.Tensor], reason: str
) -> None:
    model = conv_net(real_device)

    def loss_fn(module: nn.Module, batch: Any) -> torch.Tensor:
        return waits(nn.functional.cross_entropy(module(batch[0]), batch[1]))

    before = {name: value.clone() for name, value in model.state_dict().items()}
    directions = random_directions(model)
    ev = Evaluator(model, loss_fn, images(), batch_size=64)
    result, again = (ev.points(directions, COORDINATES) for _ in range(2))
    for run in (result, again):
        assert run.metadata["graph"] is False
        assert reason in run.metadata["graph_reason"]
    plain = Evaluator(model, "cross_entropy", images(), batch_size=64).points(directions, COORDINATES)
    assert plain.metadata["graph"] is True, "a failed capture must not spoil the next one"
    assert np.array_equal(result.values["loss"], plain.values["loss"])
    assert np.array_equal(again.values["loss"], plain.values["loss"])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    torch.rand(1, device=real_device)  # the generator is not in capture any more
    torch.cuda.empty_cache()  # nor is the allocator


def test_cpu_and_gpu_agree_within_rounding(real_device: torch.device) -> None:
    model = conv_net(torch.device("cpu"))
    directions = random_directions(model)
    here = Evaluator(model, "cross_entropy", images(), batch_size=64).points(directions, COORDINATES)
    there = Evaluator(copy.deepcopy(model).to(real_device), "cross_entropy", images(), batch_size=64)
    precision = torch.backends.cudnn.conv.fp32_precision
    torch.backends.cudnn.conv.fp32_precision = "ieee"
    try:
        found = there.points(directions, COORDINATES)  # directions on the host are brought there
    finally:
        torch.backends.cudnn.conv.fp32_precision = precision
    np.testing.assert_allclose(found.values["loss"], here.values["loss"], rtol=2e-5)


def test_conditions_are_told(real_device: torch.device) -> None:
    model = conv_net(real_device)
    before = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    metadata = Evaluator(model, "cross_entropy", images()).points(random_directions(model), COORDINATES).metadata
    assert metadata["device"] == torch.cuda.get_device_name(real_device)
    assert metadata["cuda"] == torch.version.cuda
    assert set(metadata["fp32_precision"]) == {"matmul", "convolution"}
    assert metadata["batch_sizes"] == [300]
    assert (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark) == before


def test_data_and_models_elsewhere_are_named(real_device: torch.device) -> None:
    x, y = (t.to(real_device) for t in images())
    with pytest.raises(ValueError, match=r"the model is on cpu and the data on cuda:0"):
        Evaluator(conv_net(torch.device("cpu")), "cross_entropy", (x, y))
    model = conv_net(real_device)
    model[5].cpu()
    with pytest.raises(ValueError, match=r"'0\.weight' is on cuda:0 and '5\.weight' on cpu"):
        Evaluator(model, "cross_entropy", images())


def test_real_exhaustion_of_memory_leaves_the_model(real_device: torch.device) -> None:
    model = conv_net(real_device)
    full = False

    def loss_fn(module: nn.Module, batch: Any) -> torch.Tensor:
        if full:
            torch.empty(1 << 50, device=real_device)
        return nn.functional.cross_entropy(module(batch[0]), batch[1])

    ev = Evaluator(model, loss_fn, images())
    before, full = [p.detach().clone() for p in model.parameters()], True
    with pytest.raises(torch.OutOfMemoryError, match="choose a smaller batch_size"):
        ev.points(random_directions(model), COORDINATES)
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))
