"""What the optimizer tests run over: classes, options and peers, all derived from the registry and the references."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import thalweg as tw

sys.path.insert(0, str(Path(__file__).parents[1]))
from reference import REFERENCES

REGISTRY = tw._core.optimizers()
CLASSES = {c.core_name: n for n, c in vars(tw.optim).items() if isinstance(c, type) and hasattr(c, "core_name")}
CASES: list[tuple[str, dict[str, Any]]] = [
    (name, options) for name in REGISTRY if name in REFERENCES for options in REFERENCES[name].cases
]
IDS = [f"{name}-{'-'.join(options) or 'plain'}" for name, options in CASES]
NAMES = list(dict.fromkeys(name for name, _ in CASES))
SIZES = (0, 1, 3, 17, 1023, 4097)


def class_of(name: str) -> Any:
    return getattr(tw.optim, CLASSES[name])


def torch_of(name: str) -> Any:
    """torch's class of the same name, None where torch has none."""
    return class_of(name).torch_class


def fullest(name: str) -> dict[str, Any]:
    """The options with which an optimizer keeps the most states."""

    def states(options: dict[str, Any]) -> int:
        p = nn.Parameter(torch.ones(1))
        optimizer = class_of(name)([p], **options)
        p.grad = torch.ones(1)
        optimizer.step()
        return len(optimizer.state[p])

    return max(REFERENCES[name].cases, key=states)


def tensors(seed: int, dtype: torch.dtype, sizes: tuple[int, ...] = SIZES) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, generator=generator, dtype=torch.float64).to(dtype) for n in sizes]


def parameters(start: list[torch.Tensor]) -> list[nn.Parameter]:
    return [nn.Parameter(t.clone()) for t in start]


def give(params: list[nn.Parameter], seed: int, scale: float = 1.0) -> None:
    """Fresh gradients."""
    generator = torch.Generator().manual_seed(seed)
    for p in params:
        p.grad = (scale * torch.randn(p.shape, generator=generator, dtype=torch.float64)).to(p.dtype)


def steps(optimizer: torch.optim.Optimizer, params: list[nn.Parameter], seeds: range) -> None:
    for seed in seeds:
        give(params, seed)
        optimizer.step()


def contents(optimizer: torch.optim.Optimizer) -> list[np.ndarray]:
    """Parameters and all their states."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    states = [v for p in params for _, v in sorted(optimizer.state.get(p, {}).items())]
    return [t.detach().double().numpy().copy() for t in (*params, *states)]


def same_bits(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    """Equal values, and so equal bits up to the sign of zero; NaN equals NaN."""
    return len(a) == len(b) and all(np.array_equal(x, y, equal_nan=True) for x, y in zip(a, b, strict=True))
