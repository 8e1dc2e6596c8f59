"""What the landscape benchmarks evaluate: an MLP, LeNet-5 and the ResNet-20 of CIFAR, with data and directions."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from gpu_nets import cifar_resnet, settle_batchnorm
from thalweg.landscape import Directions, random_directions

Array = npt.NDArray[np.float64]
Vectors = Sequence[Sequence[Tensor]]  # [directions][parameters]
SAMPLES = 10_000


def mlp() -> nn.Module:
    """784-256-128-10."""
    return nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10))


def lenet() -> nn.Module:
    """LeNet-5 for 28 x 28 images, with ReLU and max-pooling as it is written today."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    )  # fmt: skip


NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "MLP": (mlp, (784,)),
    "LeNet-5": (lenet, (1, 28, 28)),
    "ResNet-20": (lambda: cifar_resnet(3), (3, 32, 32)),
}


@dataclass(frozen=True)
class Problem:
    """A network in eval mode, its data, and a plane through its weights."""

    model: nn.Module
    x: Tensor  # [samples, *shape]
    y: Tensor  # [samples], classes
    directions: Directions

    @property
    def vectors(self) -> Vectors:
        """The two directions."""
        return self.directions.vectors

    def part(self, samples: int) -> Problem:
        """The same with the first samples alone."""
        return replace(self, x=self.x[:samples], y=self.y[:samples])

    def doubled(self) -> Problem:
        """The same in float64, from the float32 numbers."""
        vectors = tuple([d.double() for d in vector] for vector in self.vectors)
        return replace(
            self, model=copy.deepcopy(self.model).double(), x=self.x.double(),
            directions=replace(self.directions, vectors=vectors),
        )  # fmt: skip


def problem(net: str, samples: int = SAMPLES) -> Problem:
    """A network with random weights and data; its BatchNorms have the statistics of some of these data."""
    build, shape = NETS[net]
    torch.manual_seed(0)
    model = build()
    x, y = torch.randn(samples, *shape), torch.randint(0, 10, (samples,))
    settle_batchnorm(model, x[:256])
    return Problem(model, x, y, random_directions(model, seed=1))


def coordinates(count: int) -> Array:
    """Points of the plane [count, 2]; a larger count has the smaller one's points first."""
    return np.random.default_rng(0).uniform(-1, 1, (count, 2))
