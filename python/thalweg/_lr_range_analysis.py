"""Loss against learning rate -> three phases and a suggestion. NumPy on x = ln lr; knows no model, no optimizer."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

MIN_POINTS = 10
OWN_RULES = ("geometric", "steepest", "half_drop", "min/3", "min/10")
_REFERENCE = 0.1  # share of the curve, from its start, whose median is the reference level
_WIDTH = 1 / 40  # sd of the Gaussian smoother, as a share of the number of points
_FLAT_DROP = 0.10  # of the whole drop: where the flat phase has ended
_FLOOR = 0.10  # of the whole drop: the floor of the valley, whose middle is the minimum
_RISE = 0.25  # of the whole drop: where divergence has begun
_EVIDENCE = 5.0  # standard errors of a smoothed point that a drop must exceed to count
_REPLICAS = 200
_FEW_IN_DESCENT = 8  # points
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
    index_minimum: int
    suggestion: float = field(init=False)

    def __post_init__(self) -> None:
        self.suggestion = self.minimum if self.flat_end is None else (self.flat_end + self.minimum) / 2


def _head(n: int) -> int:
    """Return how many points at the start make the reference level."""
    return max(5, math.ceil(_REFERENCE * n))


def level_and_noise(losses: Array) -> tuple[float, float]:
    """Return the reference level (median of the first tenth) and the sd of a point (from first differences, robust)."""
    level = float(np.median(losses[: _head(len(losses))]))
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
    flat_end = _last_above(x[: m + 1], s[: m + 1], curve.level - _FLAT_DROP * drop)
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
        index_minimum=m,
    )


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


@dataclass
class Analysis:
    """What `analyse` found; learning rates in their own unit. Names as in RangeTestResult."""

    smoothed: Array
    suggestion: float | None
    reason: str
    bounds: tuple[float, float] | None
    phases: dict[str, tuple[float, float]]
    candidates: dict[str, float]
    interval: tuple[float, float] | None
    confidence: float
    advice: tuple[str, ...]


def analyse_curve(lrs: Array, losses: Array, blew_up: bool, rule: str = "geometric", peers=None) -> Analysis:
    """Find phases and suggestion of a finite curve of at least MIN_POINTS points.

    Args:
        lrs: [n] learning rates, rising.
        losses: [n] raw losses.
        blew_up: Whether the next loss was not finite, which is divergence at the last learning rate.
    """
    curve = prepare(lrs, losses)
    found = read(curve)
    if reason := _no_descent(curve, found):
        advice = [] if found.divergence is not None or blew_up else [_end_higher(lrs)]
        if "only rises" in reason:
            advice.append(_start_lower(lrs))
        return Analysis(curve.smooth, None, reason, None, {}, {}, None, 0.0, tuple(advice))
    curve = prepare(lrs, losses, found.drop)
    found = read(curve)
    if found.divergence is None and blew_up:
        found.divergence = float(curve.x[-1])
    phases = _phases(curve, found)
    errors = _errors(curve)
    low, high = (found.suggestion + float(np.quantile(errors, q)) for q in (0.05, 0.95))
    interval = _as_lr(min(low, found.suggestion)), _as_lr(max(high, found.suggestion))
    near = float(np.mean(np.abs(errors) <= math.log(2)))
    low = float(curve.x[0]) if found.flat_end is None else found.flat_end
    high = found.minimum if found.divergence is None else min(found.minimum, found.divergence - math.log(2))
    return Analysis(
        smoothed=curve.smooth,
        suggestion=_as_lr(found.suggestion),
        reason="",
        bounds=(_as_lr(low), _as_lr(max(high, low))),
        phases=phases,
        candidates=_candidates(found),
        interval=interval,
        confidence=near * 0.5 ** (3 - len(phases)),
        advice=_advice(curve, found, phases, interval),
    )


def _no_descent(curve: Curve, found: Reading) -> str:
    """Return why the curve shows no descent; empty if it does."""
    needed = _EVIDENCE * curve.error(found.index_minimum + 1)
    if found.drop > needed:
        least = curve.level - found.drop
        early = found.index_minimum < _head(len(curve.x))
        return f"the loss is least ({least:.3g}) at the start and only rises from there" if early else ""
    fall = f"falls by {found.drop:.2g} at most" if found.drop > 0 else "never falls"
    return (
        f"the loss starts at {curve.level:.3g} and {fall}, where noise alone explains {needed:.2g}; the model may be "
        "trained already, or the learning rates too small"
    )


def _as_lr(x: float) -> float:
    return math.exp(x)


def _candidates(found: Reading) -> dict[str, float]:
    return {
        "geometric": _as_lr(found.suggestion),
        "steepest": _as_lr(found.steepest),
        "half_drop": _as_lr(found.half_drop),
        "min/3": _as_lr(found.minimum) / 3,
        "min/10": _as_lr(found.minimum) / 10,
    }


def _phases(curve: Curve, found: Reading) -> dict[str, tuple[float, float]]:
    first, last = float(curve.x[0]), float(curve.x[-1])
    decline = float(curve.smooth[0] - curve.smooth[min(_head(len(curve.x)), len(curve.x) - 1)])
    flat = found.flat_end is not None and decline <= _FLAT_DROP * found.drop + 2 * curve.error(found.index_minimum + 1)
    begin = first if found.flat_end is None else found.flat_end
    phases = {"flat": (_as_lr(first), _as_lr(begin))} if flat else {}
    phases["descent"] = (_as_lr(begin if flat else first), _as_lr(found.minimum))
    if found.divergence is not None:
        phases["divergence"] = (_as_lr(found.divergence), _as_lr(last))
    return phases


def _errors(curve: Curve) -> Array:
    """Return errors of ln suggestion on curves whose residuals have random signs.

    A wild bootstrap: noise may change along the curve. The truth of that world is what the smooth curve
    itself, smoothed once more as the replicas are, says.
    """
    generator = np.random.default_rng(0)  # its own: the same curve gives the same interval
    residuals = (curve.capped - curve.smooth) / (1 - 1 / (2 * math.sqrt(math.pi) * curve.width))
    signs = generator.integers(0, 2, (_REPLICAS + 1, len(residuals))) * 2.0 - 1.0
    signs[0] = 0.0
    drawn = curve.smooth + signs * residuals
    suggestions = []
    for raw, smooth in zip(drawn, smoothing(drawn, curve.width), strict=True):
        replica = Curve(curve.x, raw, smooth, level_and_noise(raw)[0], curve.noise, curve.width)
        suggestions.append(read(replica).suggestion)
    return np.asarray(suggestions[1:]) - suggestions[0]


def _end_higher(lrs: Array) -> str:
    return f"end higher: no divergence up to {lrs[-1]:.2g}; try max_lr={lrs[-1] * 10:.2g}"


def _start_lower(lrs: Array) -> str:
    return f"start lower: no flat phase at {lrs[0]:.2g}; try min_lr={lrs[0] / 100:.2g}"


def _advice(
    curve: Curve, found: Reading, phases: dict[str, tuple[float, float]], interval: tuple[float, float]
) -> tuple[str, ...]:
    lrs = np.exp(curve.x)
    advice = []
    if "flat" not in phases:
        advice.append(_start_lower(lrs))
    if "divergence" not in phases:
        advice.append(_end_higher(lrs))
    low, high = phases["descent"]
    descent = int(((lrs >= low) & (lrs <= high)).sum())
    if descent < _FEW_IN_DESCENT:
        advice.append(f"more steps: only {descent} points in the descent; try num_steps={4 * len(lrs)}")
    elif math.log10(interval[1] / interval[0]) > 0.3:
        advice.append("more steps or repeats=3: the noise leaves more than 0.3 decades open")
    return tuple(advice)
