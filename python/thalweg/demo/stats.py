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
        p: Two-sided p-value of t (n - 1 degrees of freedom); NaN for one pair.
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
    p: float
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
    student = require("scipy.stats", "the demo").t
    reach = float(student.ppf((1 + LEVEL) / 2, n - 1)) * se if n > 1 else math.nan
    p = math.nan if n == 1 else 1.0 if math.isnan(t) else float(2 * student.sf(abs(t), n - 1))
    return Paired(
        n,
        float(first.mean()),
        float(second.mean()),
        mean,
        se,
        t,
        p,
        mean - reach,
        mean + reach,
        int((d < 0).sum()),
        int((d == 0).sum()),
        int((d > 0).sum()),
    )


def holm(p_values: Sequence[float]) -> list[bool]:
    """Return which of the comparisons stay clear when all of them are judged together, at the level of one.

    The smallest p is compared with α/k for k comparisons, the next with α/(k-1), and so on; the first that fails ends
    it. α is 1 - LEVEL. Holds whatever the dependence between the comparisons. NaN never stays.

    References:
        Holm: A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6, 1979.
    """
    kept = [False] * len(p_values)
    order = sorted(range(len(p_values)), key=lambda i: math.inf if math.isnan(p_values[i]) else p_values[i])
    for rank, i in enumerate(order):
        if not p_values[i] <= (1 - LEVEL) / (len(p_values) - rank):
            break
        kept[i] = True
    return kept


def mean_se(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and its standard error (NaN for one value)."""
    array = np.asarray(values, dtype=np.float64)
    se = float(array.std(ddof=1) / math.sqrt(len(array))) if len(array) > 1 else math.nan
    return float(array.mean()), se
