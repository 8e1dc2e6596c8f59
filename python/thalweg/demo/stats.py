"""Paired comparisons over seeds: mean difference, its standard error, Student's t, wins. Knows no experiment."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .._extras import require

LEVEL = 0.95
ENOUGH = 3  # pairs below which no claim is made


@dataclass(frozen=True)
class Paired:
    """Differences a - b of paired values, where lower is better.

    Attributes:
        n: Pairs.
        mean_a: Mean of a.
        mean_b: Mean of b.
        mean: Mean difference; negative when a is lower.
        se: Standard error of the mean difference; NaN for one pair.
        t: Student's t, mean / se.
        low: Lower end of the 95% interval of the mean difference (n - 1 degrees of freedom).
        high: Its upper end.
        wins: Pairs in which a is lower.
        ties: Pairs that are equal.
        losses: Pairs in which a is higher.
    """

    n: int
    mean_a: float
    mean_b: float
    mean: float
    se: float
    t: float
    low: float
    high: float
    wins: int
    ties: int
    losses: int

    @property
    def verdict(self) -> str:
        """Return "helped" or "hurt" when the 95% interval excludes 0 over at least 3 pairs, else "none"."""
        if self.n < ENOUGH or not (self.high < 0 or self.low > 0):
            return "none"
        return "helped" if self.high < 0 else "hurt"

    def to_dict(self) -> dict[str, Any]:
        """Return the values and the verdict by name."""
        return {**asdict(self), "verdict": self.verdict}


def paired(a: Sequence[float], b: Sequence[float]) -> Paired:
    """Compare `a` with `b`, pair by pair; lower is better.

    Raises:
        ValueError: The lists are empty or of different lengths.
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.ndim != 1 or first.shape != second.shape or not len(first):
        raise ValueError(f"paired: a and b must be lists of one positive length, got {first.shape} and {second.shape}")
    d = first - second
    n, mean = len(d), float(d.mean())
    se = float(d.std(ddof=1) / math.sqrt(n)) if n > 1 else math.nan
    if se > 0:
        t = mean / se
    else:
        t = math.nan if n == 1 or mean == 0 else math.copysign(math.inf, mean)
    reach = float(require("scipy.stats", "the demo").t.ppf((1 + LEVEL) / 2, n - 1)) * se if n > 1 else math.nan
    return Paired(
        n,
        float(first.mean()),
        float(second.mean()),
        mean,
        se,
        t,
        mean - reach,
        mean + reach,
        int((d < 0).sum()),
        int((d == 0).sum()),
        int((d > 0).sum()),
    )


def mean_se(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and its standard error (NaN for one value)."""
    array = np.asarray(values, dtype=np.float64)
    se = float(array.std(ddof=1) / math.sqrt(len(array))) if len(array) > 1 else math.nan
    return float(array.mean()), se
