"""Loss against learning rate -> a smooth curve and its marks. NumPy on x = ln lr; knows no model, no optimizer."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

MIN_POINTS = 10
_REFERENCE = 0.1  # share of the curve, from its start, whose median is the reference level
_WIDTH = 1 / 40  # sd of the Gaussian smoother, as a share of the number of points
FLAT_DROP = 0.10  # of the whole drop: where the flat phase has ended
_FLOOR = 0.10  # of the whole drop: the floor of the valley, whose middle is the minimum
_RISE = 0.25  # of the whole drop: where divergence has begun
_LATE = 0.5, 0.9  # of the whole drop: the part of the descent whose middle is the suggestion
_MAD = 0.6744897501960817  # median absolute deviation of a standard normal number


@dataclass
class Curve:
    """A curve prepared for reading: capped, smoothed, with its noise measured. All arrays [n]."""

    x: Array  # ln lr
    capped: Array
    smooth: Array
    level: float  # reference level, the loss of the flat phase
    noise: float  # sd of one raw point, from the curve alone
    width: float  # sd of the smoother, points

    def error(self, stop: int) -> float:
        """Standard error of a smoothed point, from the residuals of points [0, stop) around the smooth curve.

        A Gaussian of sd w averages 2√π·w points, and pulls the smooth curve towards each point by the inverse
        of that.
        """
        averaged = 2 * math.sqrt(math.pi) * self.width
        residual = float(np.std((self.capped - self.smooth)[: max(stop, 5)]))
        return residual / (1 - 1 / averaged) / math.sqrt(averaged)


@dataclass
class Reading:
    """What one curve says; learning rates as x = ln lr."""

    drop: float  # reference level minus minimum
    flat_end: float | None
    minimum: float
    divergence: float | None
    steepest: float
    half_drop: float
    descent: float  # middle of the late descent
    index_minimum: int

    @property
    def geometric(self) -> float:
        """Middle between the end of the flat phase and the minimum."""
        return self.minimum if self.flat_end is None else (self.flat_end + self.minimum) / 2


def head(n: int) -> int:
    """Return how many points at the start make the reference level."""
    return max(5, math.ceil(_REFERENCE * n))


def level_and_noise(losses: Array) -> tuple[float, float]:
    """Return the reference level (median of the first tenth) and the sd of a point (from first differences, robust)."""
    level = float(np.median(losses[: head(len(losses))]))
    differences = np.diff(losses)
    deviation = float(np.median(np.abs(differences - np.median(differences)))) if len(differences) else 0.0
    return level, deviation / (_MAD * math.sqrt(2))


def cap_of(level: float, noise: float) -> float:
    """Return the height above which a loss counts as diverged; no ratio of losses, so negative ones work too."""
    return level + max(abs(level), 20 * noise)


def smoothing(values: Array, width: float) -> Array:
    """Average with a Gaussian of sd `width` points, symmetric (no lag), ends reflected; over the last axis."""
    radius = min(max(1, math.ceil(4 * width)), values.shape[-1] - 1)
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / width) ** 2)
    kernel /= kernel.sum()
    padded = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(radius, radius)], mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, len(kernel), axis=-1)
    return np.asarray(windows @ kernel)


def prepare(lrs: Array, losses: Array, drop: float = math.inf) -> Curve:
    """Cap and smooth a finite curve; where the drop is known, one drop above the level is high enough for a cap.

    What lies above says only that the run diverged; smoothing must not smear its height into the valley.
    """
    level, noise = level_and_noise(losses)
    capped = np.minimum(losses, min(cap_of(level, noise), level + max(drop, 5 * noise)))
    width = max(1.0, len(losses) * _WIDTH)
    return Curve(np.log(lrs), capped, smoothing(capped, width), level, noise, width)


def read(curve: Curve) -> Reading:
    """Find the phases of a curve that has a drop."""
    x, s = curve.x, curve.smooth
    m = int(np.argmin(s))
    drop = curve.level - float(s[m])
    minimum = _floor_middle(x, s, m, float(s[m]) + _FLOOR * max(drop, 0.0))
    flat_end = _last_above(x[: m + 1], s[: m + 1], curve.level - FLAT_DROP * drop)
    rise = np.flatnonzero(s[m:] > s[m] + _RISE * drop)
    divergence = None
    if len(rise):
        i = m + int(rise[0])
        divergence = _crossing(x, s, i - 1, float(s[m]) + _RISE * drop)
    start = 0 if flat_end is None else int(np.searchsorted(x[: m + 1], flat_end, side="right")) - 1
    start = max(0, min(start, m - 1))
    slope = np.gradient(s, x) if len(x) > 1 else np.zeros(1)
    steepest = start + int(np.argmin(slope[start : m + 1]))
    half = _last_above(x[: m + 1], s[: m + 1], curve.level - 0.5 * drop)
    return Reading(
        drop=drop,
        flat_end=flat_end,
        minimum=minimum,
        divergence=divergence,
        steepest=float(x[steepest]),
        half_drop=float(x[0]) if half is None else half,
        descent=_middle(x[: m + 1], s[: m + 1], curve.level, drop),
        index_minimum=m,
    )


def _middle(x: Array, s: Array, level: float, drop: float) -> float:
    """Return the mean of x(q), where the share q of the drop is done, over q from 0.5 to 0.9.

    As an area, x_0 + ∫ clip((r − 0.1)/0.4, 0, 1) dx with r = 1 − q: every point of the descent has its say, and
    noise averages out.
    """
    begin, end = _LATE
    remaining = 1 - (level - s) / drop if drop > 0 else np.zeros_like(s)
    return float(x[0] + np.trapezoid(np.clip((remaining - (1 - end)) / (end - begin), 0, 1), x))


def _floor_middle(x: Array, s: Array, m: int, height: float) -> float:
    """Return the middle of the stretch around point m on which `s` stays below `height`.

    On a wide floor noise decides where the least point lies; the middle hardly moves.
    """
    above = np.flatnonzero(s > height)
    left, right = above[above < m], above[above > m]
    low = float(x[0]) if not len(left) else _crossing(x, s, int(left[-1]), height)
    high = float(x[-1]) if not len(right) else _crossing(x, s, int(right[0]) - 1, height)
    return (low + high) / 2


def _last_above(x: Array, s: Array, height: float) -> float | None:
    """Return where `s` falls below `height` for good; None if it is below from the start."""
    above = np.flatnonzero(s >= height)
    if not len(above):
        return None
    last = int(above[-1])
    return float(x[last]) if last == len(s) - 1 else _crossing(x, s, last, height)


def _crossing(x: Array, s: Array, i: int, height: float) -> float:
    """Return where the straight line from point i to i + 1 meets `height`."""
    share = (height - s[i]) / (s[i + 1] - s[i])
    return float(x[i] + share * (x[i + 1] - x[i]))
