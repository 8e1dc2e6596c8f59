"""Arithmetic with fewer bits, and how far it is from float32: around any engine. Knows no axes and no results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from ... import _check
from . import Array, Done, Engine

PRECISIONS = ("bf16", "tf32")
_PROBED = 16


def check_precision(tier: str, precision: str | None, device: torch.device) -> str | None:
    """The precision, which only the approximate tier has."""
    if (tier == "approximate") != (precision is not None):
        raise ValueError(
            f"Evaluator: tier='approximate' and precision go together, got tier={tier!r} with precision={precision!r}; "
            f"precision is one of {', '.join(map(repr, PRECISIONS))}"
        )
    if precision is None:
        return None
    if _check.choice("Evaluator", "precision", precision, PRECISIONS) == "tf32" and device.type != "cuda":
        raise ValueError(f"Evaluator: precision 'tf32' is CUDA's, the model is on {device}; use 'bf16'")
    return precision


@contextmanager
def lowered(precision: str, device: torch.device) -> Iterator[None]:
    """Matrix products and convolutions in bfloat16 (autocast, of this thread), or in TF32 on a CUDA device."""
    if precision == "bf16":
        # Without its cache of converted weights, which does not notice that weights move.
        with torch.autocast(device.type, torch.bfloat16, cache_enabled=False):
            yield
        return
    matmul, convolution = torch.backends.cuda.matmul, torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before = matmul.fp32_precision, convolution.fp32_precision
    matmul.fp32_precision = convolution.fp32_precision = "tf32"
    try:
        yield
    finally:
        matmul.fp32_precision, convolution.fp32_precision = before


class Approximate:
    """See Engine; another engine with fewer bits.

    Args:
        engine: Does the work.
        precision: One of PRECISIONS.
        device: Where.
    """

    def __init__(self, engine: Engine, precision: str, device: torch.device) -> None:
        self._engine, self._precision, self._device = engine, precision, device

    @property
    def group(self) -> int:
        """Points that it takes at once."""
        return int(getattr(self._engine, "group", 1))

    @property
    def told(self) -> Mapping[str, Any]:
        """See Engine."""
        return self._engine.told

    def evaluate(self, points: Array, done: Done) -> Array:
        """See Engine."""
        with lowered(self._precision, self._device):
            return self._engine.evaluate(points, done)


def places_to_probe(points: Array, losses: Array) -> list[int]:
    """Which points tell most about an error: the centre, the lowest, the highest, the corners, others evenly spread."""
    distances = np.linalg.norm(points, axis=1)
    finite = np.where(np.isfinite(losses), losses, np.nan)
    found = [int(distances.argmin()), int(distances.argmax())]
    if not np.isnan(finite).all():
        found += [int(np.nanargmin(finite)), int(np.nanargmax(finite))]
    for signs in np.stack(np.meshgrid(*[(-1.0, 1.0)] * points.shape[1]), -1).reshape(-1, points.shape[1]):
        found.append(int((points @ signs).argmax()))
    spread = np.linspace(0, len(points) - 1, min(_PROBED, len(points))).round().astype(int).tolist()
    return list(dict.fromkeys(found + spread))[:_PROBED]


def error_of(losses: Array, exact: Array) -> dict[str, float | int]:
    """Largest errors of losses against those in full precision, JSON-able."""
    gaps = np.abs(losses - exact)
    relative = gaps / np.maximum(np.abs(exact), np.finfo(np.float64).tiny)
    both = np.isfinite(losses) & np.isfinite(exact)
    agree = np.array_equal(np.isfinite(losses), np.isfinite(exact))
    worst = (float(gaps[both].max()), float(relative[both].max())) if both.any() else (0.0, 0.0)
    return {"points": len(losses), "largest_absolute": worst[0], "largest_relative": worst[1], "finite_alike": agree}
