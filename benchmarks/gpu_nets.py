"""Networks of the benchmarks as plain modules: a small CNN and the residual networks of CIFAR."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def small_cnn() -> nn.Module:
    """Three convolutions with BatchNorm for [n, 3, 32, 32] and 10 classes."""
    layers: list[nn.Module] = []
    for inputs, outputs, stride in ((3, 32, 1), (32, 64, 2), (64, 128, 2)):
        # no bias: its gradient before a BatchNorm is rounding noise, and Adam makes whole steps of it
        layers += [nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10))


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut without parameters (He et al. 2016, option A)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.a = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.b = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm_a, self.norm_b = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)
        self.stride, self.missing = stride, outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm_b(self.b(torch.relu(self.norm_a(self.a(x)))))
        if self.missing:
            x = nn.functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.missing))
        return torch.relu(x + y)


def cifar_resnet(depth: int) -> nn.Module:
    """A residual network for 32 x 32 images (1512.03385, 4.2): 3 stages of `depth` blocks, 16, 32 and 64 channels."""
    blocks: list[nn.Module] = []
    width = 16
    for stage in (16, 32, 64):
        blocks += [Block(width if i == 0 else stage, stage, 2 if i == 0 and stage > 16 else 1) for i in range(depth)]
        width = stage
    head = [nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    return nn.Sequential(*head, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def resnet56() -> nn.Module:
    """The network of the landscape paper (1712.09913)."""
    return cifar_resnet(9)


@torch.no_grad()
def settle_batchnorm(model: nn.Module, x: Tensor) -> None:
    """Give the BatchNorms the statistics of `x`, so that activations stay near 1 as in a trained network."""
    model.train()
    model(x)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    model(x)
    model.eval()
