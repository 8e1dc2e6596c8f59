"""Landscape points per second against a good hand-written loop, both at the batch size that is best for the loop."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from thalweg.landscape import Directions, Evaluator, random_directions


class Residual(nn.Module):
    """Two convolutions with BatchNorm and a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.a, self.b = (nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(2))
        self.norm_a, self.norm_b = nn.BatchNorm2d(width), nn.BatchNorm2d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.norm_b(self.b(torch.relu(self.norm_a(self.a(x))))))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10))


def lenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    )  # fmt: skip


def resnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), *(Residual(16) for _ in range(3)),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    )  # fmt: skip


NETS = {
    "MLP": (mlp, (784,), 10_000),
    "LeNet": (lenet, (1, 28, 28), 10_000),
    "small ResNet": (resnet, (3, 32, 32), 1_000),
}
BATCHES = (32, 64, 128, 256, 512, 1024)


def hand_written(
    model: nn.Module, x: torch.Tensor, y: torch.Tensor, directions: Directions, points: np.ndarray, batch: int
) -> np.ndarray:
    """What a careful person writes: data resident, inference mode, in-place update, one sync per point."""
    model.eval()
    params = list(model.parameters())
    weights = [p.detach().clone() for p in params]
    losses = np.empty(len(points))
    with torch.inference_mode():
        for i, (a, b) in enumerate(points.tolist()):
            for p, w, u, v in zip(params, weights, *directions.vectors, strict=True):
                p.copy_(w).add_(u * a).add_(v * b)
            total = torch.zeros((), dtype=torch.float64)
            for xb, yb in zip(x.split(batch), y.split(batch), strict=True):
                total += nn.functional.cross_entropy(model(xb), yb) * len(yb)
            losses[i] = total.item() / len(y)
        for p, w in zip(params, weights, strict=True):
            p.copy_(w)
    return losses


def fastest_batch(
    model: nn.Module, x: torch.Tensor, y: torch.Tensor, directions: Directions, points: np.ndarray
) -> int:
    """The batch size at which the hand-written loop is fastest: the best of three passes each, by turns."""
    times = dict.fromkeys(BATCHES, np.inf)
    for _ in range(3):
        for batch in BATCHES:
            start = time.perf_counter()
            hand_written(model, x, y, directions, points, batch)
            times[batch] = min(times[batch], time.perf_counter() - start)
    return min(times, key=times.__getitem__)


@pytest.mark.parametrize("net", list(NETS))
def test_points_per_second(
    against: Callable[..., None], thread_count: int, net: str, request: pytest.FixtureRequest
) -> None:
    timed = not request.config.getoption("benchmark_disable")
    build, shape, samples = NETS[net]
    if not timed:
        samples = 64
    torch.manual_seed(0)
    model = build()
    x, y = torch.randn(samples, *shape), torch.randint(0, 10, (samples,))
    directions = random_directions(model, seed=1)
    count = {"MLP": 24, "LeNet": 3, "small ResNet": 3}[net] if timed else 2
    points = np.random.default_rng(0).uniform(-1, 1, (count, 2))
    best = fastest_batch(model, x, y, directions, points[:1]) if timed else samples
    evaluator = Evaluator(model, "cross_entropy", (x, y), batch_size=best)
    ours = lambda: evaluator.points(directions, points).values["loss"]  # noqa: E731
    peer = lambda: hand_written(model, x, y, directions, points, best)  # noqa: E731
    np.testing.assert_allclose(ours(), peer(), rtol=1e-5)
    against(
        "landscape, exact tier", f"{net}, {samples:,} samples", f"hand-written loop, batch {best}", ours, peer, seconds=20.0,
        points_per_second=lambda seconds: count / seconds,
    )  # fmt: skip
