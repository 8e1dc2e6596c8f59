"""A curve -> phases, a suggestion with its interval, advice. NumPy; knows no model, no optimizer."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ._lr_range_curve import FLAT_DROP, Array, Curve, Reading, head, level_and_noise, prepare, read, smoothing
from ._lr_range_rules import RULES

_EVIDENCE = 5.0  # standard errors of a smoothed point that a drop must exceed to count
_REPLICAS = 200
_FEW_IN_DESCENT = 8  # points
OWN_RULES: dict[str, Callable[[Reading], float]] = {
    "descent": lambda found: found.descent,
    "geometric": lambda found: found.geometric,
    "steepest": lambda found: found.steepest,
    "half_drop": lambda found: found.half_drop,
    "min/3": lambda found: found.minimum - math.log(3),
    "min/10": lambda found: found.minimum - math.log(10),
}


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


def analyse_curve(lrs: Array, losses: Array, blew_up: bool, rule: str, peers: dict[str, float]) -> Analysis:
    """Find phases and suggestion of a finite curve of at least MIN_POINTS points.

    Args:
        lrs: [n] learning rates, rising.
        losses: [n] raw losses.
        blew_up: Whether the next loss was not finite, which is divergence at the last learning rate.
        rule: Name of the candidate that is suggested.
        peers: Other packages' suggestions for this curve.
    """
    curve = prepare(lrs, losses)
    found = read(curve)
    if reason := _no_descent(curve, found):
        advice = [] if found.divergence is not None or blew_up else [_end_higher(lrs)]
        if "only rises" in reason:
            advice.append(_start_lower(lrs))
        return Analysis(curve.smooth, None, reason, None, {}, peers, None, 0.0, tuple(advice))
    curve = prepare(lrs, losses, found.drop)
    found = read(curve)
    if found.divergence is None and blew_up:
        found.divergence = float(curve.x[-1])
    phases = _phases(curve, found)
    candidates = {**{name: _as_lr(mark(found)) for name, mark in OWN_RULES.items()}, **peers}
    low = float(curve.x[0]) if found.flat_end is None else found.flat_end
    high = found.minimum if found.divergence is None else min(found.minimum, found.divergence - math.log(2))
    chosen = candidates.get(rule)
    interval, near = (None, 0.0) if chosen is None else _interval(curve, rule, math.log(chosen))
    return Analysis(
        smoothed=curve.smooth,
        suggestion=chosen,
        reason="" if chosen is not None else f"the rule {rule!r} has no answer for this curve",
        bounds=(_as_lr(low), _as_lr(max(high, low))),
        phases=phases,
        candidates=candidates,
        interval=interval,
        confidence=near * 0.5 ** (3 - len(phases)),
        advice=_advice(curve, phases, interval),
    )


def _no_descent(curve: Curve, found: Reading) -> str:
    """Return why the curve shows no descent; empty if it does."""
    needed = _EVIDENCE * curve.error(found.index_minimum + 1)
    if found.drop > needed:
        least = curve.level - found.drop
        early = found.index_minimum < head(len(curve.x))
        return f"the loss is least ({least:.3g}) at the start and only rises from there" if early else ""
    fall = f"falls by {found.drop:.2g} at most" if found.drop > 0 else "never falls"
    return (
        f"the loss starts at {curve.level:.3g} and {fall}, where noise alone explains {needed:.2g}; the model may be "
        "trained already, or the learning rates too small"
    )


def _as_lr(x: float) -> float:
    return math.exp(x)


def _phases(curve: Curve, found: Reading) -> dict[str, tuple[float, float]]:
    first, last = float(curve.x[0]), float(curve.x[-1])
    decline = float(curve.smooth[0] - curve.smooth[min(head(len(curve.x)), len(curve.x) - 1)])
    flat = found.flat_end is not None and decline <= FLAT_DROP * found.drop + 2 * curve.error(found.index_minimum + 1)
    begin = first if found.flat_end is None else found.flat_end
    phases = {"flat": (_as_lr(first), _as_lr(begin))} if flat else {}
    phases["descent"] = (_as_lr(begin if flat else first), _as_lr(found.minimum))
    if found.divergence is not None:
        phases["divergence"] = (_as_lr(found.divergence), _as_lr(last))
    return phases


def _interval(curve: Curve, rule: str, suggestion: float) -> tuple[tuple[float, float], float]:
    """Return the 90 % interval of the suggestion, and the share of the replicas within a factor 2 of it."""
    errors = _errors(curve, rule)
    if not len(errors):
        return (_as_lr(suggestion), _as_lr(suggestion)), 0.0
    low, high = (suggestion + float(np.quantile(errors, q)) for q in (0.05, 0.95))
    near = float(np.mean(np.abs(errors) <= math.log(2)))
    return (_as_lr(min(low, suggestion)), _as_lr(max(high, suggestion))), near


def _errors(curve: Curve, rule: str) -> Array:
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
        if rule in OWN_RULES:
            replica = Curve(curve.x, raw, smooth, level_and_noise(raw)[0], curve.noise, curve.width)
            suggestions.append(OWN_RULES[rule](read(replica)))
            continue
        lr = RULES[rule](np.exp(curve.x), raw, len(raw))
        suggestions.append(math.nan if lr is None else math.log(lr))
    found = np.asarray(suggestions)
    return found[1:][np.isfinite(found[1:])] - found[0] if np.isfinite(found[0]) else np.empty(0)


def _end_higher(lrs: Array) -> str:
    return f"end higher: no divergence up to {lrs[-1]:.2g}; try max_lr={lrs[-1] * 10:.2g}"


def _start_lower(lrs: Array) -> str:
    return f"start lower: no flat phase at {lrs[0]:.2g}; try min_lr={lrs[0] / 100:.2g}"


def _advice(
    curve: Curve, phases: dict[str, tuple[float, float]], interval: tuple[float, float] | None
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
    elif interval is not None and math.log10(interval[1] / interval[0]) > 0.3:
        advice.append("more steps or repeats=3: the noise leaves more than 0.3 decades open")
    return tuple(advice)
