"""The evaluator on a device: fifteen lines of plain torch there, every mode, an untouched model, directions."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import thalweg as tw
from thalweg import _testing
from thalweg.landscape import Evaluator, _points, random_directions

pytestmark = pytest.mark.cuda

METRICS = ("loss", "accuracy", "top5", "confidence", "stderr")
COORDINATES = np.array([[0.0, 0.0], [0.5, -1.0], [-0.3, 0.2], [1.0, 1.0], [0.1, 0.7]])


def conv_net(device: torch.device) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(4 * 36, 7)
    )
    model(torch.randn(20, 1, 6, 6))
    return model.to(device)


def images(n: int = 50) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, 1, 6, 6, generator=generator), torch.randint(0, 7, (n,), generator=generator)


def everything(model: nn.Module) -> dict[str, Any]:
    """Bytes, modes and flags of a model, and the state of the generators."""
    out: dict[str, Any] = {k: v.detach().cpu().numpy().tobytes() for k, v in model.state_dict().items()}
    out |= {f"mode {name}": module.training for name, module in model.named_modules()}
    out |= {f"flag {name}": (p.requires_grad, p.grad is None) for name, p in model.named_parameters()}
    out["generator"] = torch.get_rng_state().numpy().tobytes()
    if torch.cuda.is_initialized():
        out["device generator"] = torch.cuda.get_rng_state().numpy().tobytes()
    return out


@contextmanager
def deterministic() -> Iterator[None]:
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True), torch.inference_mode():
        yield


def plain_values(model: nn.Module, directions: Any, x: torch.Tensor, y: torch.Tensor, size: int) -> dict[str, Any]:
    """Loss and accuracies at COORDINATES as plain torch gives them."""
    plain = copy.deepcopy(model).eval()
    weights = [p.detach().clone() for p in plain.parameters()]
    found: dict[str, Any] = {"loss": [], "accuracy": [], "top5": []}
    with deterministic():
        for a, b in COORDINATES.tolist():
            for p, w, d1, d2 in zip(plain.parameters(), weights, *directions.vectors, strict=True):
                p.copy_((w + a * d1) + b * d2)
            total, first, five = 0.0, 0, 0
            for xb, yb in zip(x.split(size), y.split(size), strict=True):
                out = plain(xb)
                total += nn.functional.cross_entropy(out, yb).item() * len(yb)
                first += int((out.argmax(1) == yb).sum())
                five += int((out.topk(5).indices == yb[:, None]).any(1).sum())
            for name, value in (("loss", total), ("accuracy", first), ("top5", five)):
                found[name].append(value / len(y))
    return found


@pytest.mark.parametrize("size", [7, 16, 50])
def test_equals_fifteen_lines_of_torch_on_the_device_bit_for_bit(device: torch.device, size: int) -> None:
    model = conv_net(device)
    x, y = (t.to(device) for t in images())
    directions = random_directions(model, seed=size, ignore=None)
    ev = Evaluator(model, nn.CrossEntropyLoss(), (x, y), METRICS, batch_size=size)
    result = ev.points(directions, COORDINATES)
    for name, expected in plain_values(model, directions, x, y, size).items():
        assert result.values[name].tolist() == expected, name


def test_all_metrics_agree_with_numpy(device: torch.device) -> None:
    model = conv_net(device)
    x, y = (t.to(device) for t in images())

    def margin(output: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return output.gather(1, targets[:, None])[:, 0] - output.mean(1)

    metrics = (*METRICS, margin, ("largest", lambda output, targets: output.abs().amax()))
    values = Evaluator(model, "cross_entropy", (x, y), metrics, batch_size=16).at()
    with deterministic():
        chunks = [copy.deepcopy(model).eval()(part).double().cpu() for part in x.split(16)]
    scores, targets = torch.cat(chunks), y.cpu()
    each = nn.functional.cross_entropy(scores, targets, reduction="none").numpy()
    assert values["loss"] == pytest.approx(each.mean(), rel=1e-6)
    assert values["stderr"] == pytest.approx(each.std(ddof=1) / np.sqrt(50), rel=1e-5)
    assert values["confidence"] == pytest.approx(scores.softmax(1).amax(1).mean().item(), rel=1e-6)
    assert values["accuracy"] == (scores.argmax(1) == targets).double().mean().item()
    assert values["margin"] == pytest.approx(
        (scores.gather(1, targets[:, None])[:, 0] - scores.mean(1)).mean().item(), rel=1e-5, abs=1e-6
    )
    largest = sum(float(chunk.abs().amax()) * len(chunk) for chunk in chunks) / 50
    assert values["largest"] == pytest.approx(largest, rel=1e-6)


def test_grid_line_and_points_give_the_same_bits_in_any_order(device: torch.device) -> None:
    model = conv_net(device)
    ev = Evaluator(model, "cross_entropy", images(), METRICS, batch_size=16)
    directions = random_directions(model)
    surface = ev.grid(directions, x=(-1, 1, 4), y=(-0.5, 0.7, 3))
    xs, ys = np.meshgrid(surface.x, surface.y)
    coordinates = np.stack([xs.ravel(), ys.ravel()], 1)
    order = np.random.default_rng(0).permutation(12)
    shuffled = ev.points(directions, coordinates[order])
    line = ev.line(directions, (-1, 1, 4))
    along = ev.points(directions, [[a, 0.0] for a in line.alphas])
    for name in METRICS:
        assert np.array_equal(surface.values[name].ravel()[order], shuffled.values[name]), name
        assert np.array_equal(line.values[name], along.values[name]), name


def test_line_between_models_meets_both_ends_exactly(device: torch.device) -> None:
    a, b = conv_net(device), conv_net(device)
    for parameter in b.parameters():
        nn.init.normal_(parameter)
    with torch.no_grad():
        b.train()(torch.randn(20, 1, 6, 6).to(device) * 3)  # other BatchNorm statistics
    ev = Evaluator(a, "cross_entropy", images(), batch_size=20)
    losses = ev.line((a, b.state_dict()), (0, 1, 5)).values["loss"]
    assert losses[0] == ev.at()["loss"]
    assert losses[-1] == ev.at(b)["loss"] == Evaluator(b, "cross_entropy", images(), batch_size=20).at()["loss"]
    barriers = tw.landscape.barriers([a, b], ev, n=5)
    assert np.array_equal(barriers.curves[0, 1], losses)


@pytest.mark.parametrize("options", [{}, {"bn": "batch"}, {"bn": "recalibrate"}, {"train_mode": True}])
def test_every_mode_starts_each_point_afresh(device: torch.device, options: dict[str, Any]) -> None:
    model = conv_net(device)
    before = everything(model)
    ev = Evaluator(model, "cross_entropy", images(), batch_size=16, **options)
    directions = random_directions(model)
    there, back = (ev.points(directions, c).values["loss"] for c in (COORDINATES, COORDINATES[::-1].copy()))
    assert np.array_equal(there, back[::-1])
    assert len(set(there.tolist())) == len(COORDINATES)
    assert everything(model) == before


class Counting(nn.Module):
    """A buffer that every forward pass changes in place and by a new tensor, and reads."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("other", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.other = self.other + 1
        return self.linear(x) * (self.calls + self.other)


def test_buffers_start_afresh_at_every_point(device: torch.device) -> None:
    model, data = Counting().to(device), (torch.randn(9, 4), torch.randn(9, 2))
    before = everything(model)
    ev = Evaluator(model, "mse", data, batch_size=5)
    losses = ev.points(random_directions(model), np.zeros((6, 2))).values["loss"]
    assert len(set(losses.tolist())) == 1
    assert everything(model) == before


def test_the_model_is_untouched_after_an_exception(device: torch.device) -> None:
    model = conv_net(device)
    model(images()[0].to(device)).sum().backward()
    gradients = [p.grad for p in model.parameters()]
    calls = 0

    def loss_fn(module: nn.Module, batch: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls > 2:
            raise RuntimeError("no more")
        return nn.functional.cross_entropy(module(batch[0]), batch[1])

    ev = Evaluator(model, loss_fn, images(), batch_size=50)
    before = everything(model)
    with pytest.raises(RuntimeError, match="no more"):
        ev.points(random_directions(model), COORDINATES)
    assert everything(model) == before
    assert all(p.grad is g for p, g in zip(model.parameters(), gradients, strict=True))


def test_out_of_memory_is_one_clear_error(device: torch.device) -> None:
    model = conv_net(device)
    full = False

    def loss_fn(module: nn.Module, batch: Any) -> torch.Tensor:
        if full:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 TiB\nand more lines")
        return nn.functional.cross_entropy(module(batch[0]), batch[1])

    ev = Evaluator(model, loss_fn, images(), batch_size=30)
    before, full = everything(model), True
    with pytest.raises(torch.OutOfMemoryError, match=r"batches of up to 30 samples; choose a smaller .*\(CUDA out of"):
        ev.points(random_directions(model), COORDINATES)
    assert everything(model) == before


def test_data_that_do_not_fit_are_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(value: Any, device: torch.device) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 TiB\nand more lines")

    monkeypatch.setattr(_points._data, "to_device", full)
    with pytest.raises(
        torch.OutOfMemoryError, match=r"cuda:1 has not enough memory for the data.*smaller memory_budget.*1 TiB\)$"
    ):
        _points._resident(torch.ones(3), torch.device("cuda:1"))


def test_random_directions_have_the_bits_of_the_generator(device: torch.device) -> None:
    model = conv_net(device)
    directions = random_directions(model, norm="none", seed=5, ignore=None)
    for index, vector in enumerate(directions.vectors):
        for place, tensor in enumerate(vector):
            numbers = np.arange(tensor.numel(), dtype=np.uint64)
            expected = _testing.philox_normal(5, (index << 32) | place, numbers).astype(np.float32)
            assert tensor.device == next(model.parameters()).device
            assert tensor.cpu().numpy().tobytes() == expected.tobytes()


@pytest.mark.parametrize("norm", ["filter", "layer", "model", "weight", "none"])
@pytest.mark.parametrize("orthogonalize", [False, True])
def test_random_directions_are_those_of_the_cpu(real_device: torch.device, norm: str, orthogonalize: bool) -> None:
    model = conv_net(torch.device("cpu"))
    there = random_directions(copy.deepcopy(model).to(real_device), norm=norm, orthogonalize=orthogonalize)
    here = random_directions(model, norm=norm, orthogonalize=orthogonalize)
    for a, b in zip(here.vectors, there.vectors, strict=True):
        assert all(torch.equal(x, y.cpu()) for x, y in zip(a, b, strict=True))
    assert here.describe() == there.describe()


def test_projection_finds_planted_coordinates(device: torch.device) -> None:
    model = conv_net(device)
    directions = random_directions(model, norm="none", ignore=None)
    origin = [p.detach().clone() for p in model.parameters()]
    track = tw.landscape.Trajectory(model)
    for a, b in COORDINATES.tolist():
        with torch.no_grad():
            for p, w, d1, d2 in zip(model.parameters(), origin, *directions.vectors, strict=True):
                p.copy_(w + a * d1 + b * d2)
        track.record()
    states = [list(point.values()) for point in track.points]  # on the host
    found, distance = tw.landscape.project(directions, origin, states)
    np.testing.assert_allclose(found.numpy(), COORDINATES, atol=1e-6)
    assert float(distance.max()) < 1e-4
