"""The demo's network: a small convolutional net with BatchNorm for 8x8 images. Knows no data."""

from __future__ import annotations

import torch
from torch import nn

from .data import CLASSES


def build(seed: int) -> nn.Sequential:
    """Return the network with weights drawn from `seed`; torch's generator is left as it was.

    [n, 1, 8, 8] -> two 3x3 convolutions (8 and 16 channels, the first with stride 2) -> 32 hidden units -> [n, 10];
    BatchNorm and ReLU after each layer but the last; 9,858 parameters.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 8, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(256, 32, bias=False),
            nn.BatchNorm1d(32),
            nn.ReLU(),
            nn.Linear(32, CLASSES),
        )
