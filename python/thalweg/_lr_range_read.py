"""Recorded curves -> a RangeTestResult. Runs no training."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from . import _check
from ._lr_range_analysis import OWN_RULES, analyse_curve
from ._lr_range_curve import MIN_POINTS, Array
from ._lr_range_record import WHO
from ._lr_range_result import RangeTestResult
from ._lr_range_rules import RULES, peer_suggestions


def analyse(lrs: Any, losses: Any, *, rule: str = "descent") -> RangeTestResult:
    """Read phases and a suggestion off a curve that was recorded elsewhere; `range_test` does the same with its own.

    Args:
        lrs: [n] learning rates, positive and rising.
        losses: [n] raw, unsmoothed losses; negative ones are fine. What follows the first NaN or infinity is
            dropped.
        rule: As in `range_test`.

    Returns:
        `RangeTestResult`.

    Raises:
        ValueError: Wrong shapes, learning rates that do not rise, or fewer than 10 finite losses.

    Example:
        >>> import numpy as np
        >>> from thalweg.lr_range import analyse
        >>> lr = np.logspace(-6, 1, 200)
        >>> loss = 2.3 - 1.8 / (1 + (1e-3 / lr) ** 2) + np.minimum(lr**2, 20)
        >>> r = analyse(lr, loss)
        >>> 1e-3 < r.suggestion < 1e-1
        True
    """
    x, y = np.asarray(lrs, dtype=np.float64), np.asarray(losses, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"analyse: lrs and losses must be two lists of one length, got shapes {x.shape} and {y.shape}")
    if not (np.isfinite(x).all() and (x > 0).all() and (np.diff(x) > 0).all()):
        raise ValueError("analyse: lrs must be positive, finite and rising")
    check_rule("analyse", rule)
    return read_curves(x, [y], [], rule=rule, who="analyse")


def check_rule(who: str, rule: Any) -> str:
    """Return a rule's name.

    Raises:
        ValueError: There is no such rule.
    """
    return _check.choice(who, "rule", rule, (*OWN_RULES, *RULES))


def read_curves(
    lrs: Array, curves: list[Array], stops: list[str], rule: str = "descent", who: str = WHO
) -> RangeTestResult:
    """Read the pointwise median of the curves of several runs; a run that ended counts as infinite from there on."""
    padded = np.full((len(curves), max(len(curve) for curve in curves)), math.inf)
    for row, curve in zip(padded, curves, strict=True):
        row[: len(curve)] = np.where(np.isfinite(curve), curve, math.inf)
    median = np.median(padded, axis=0)
    finite = np.isfinite(median)
    n = len(median) if finite.all() else int(np.argmin(finite))
    if n < MIN_POINTS:
        raise ValueError(f"{who}: at least {MIN_POINTS} finite losses are needed, got {n}")
    blew_up = any(len(curve) > n and not np.isfinite(curve[n]) for curve in curves)
    stopped = next((stop for stop in stops if stop), "") if n < len(lrs) else ""
    if n < len(lrs) and not stopped:
        stopped = f"the loss is not finite at lr {lrs[n]:.3g}"
    raw = curves[0] if len(curves) == 1 else median  # a rule may have its own way with NaN
    peers = peer_suggestions(lrs[: len(raw)], raw, len(lrs))
    return RangeTestResult(
        rule=rule,
        lrs=lrs[:n].copy(),
        losses=median[:n].copy(),
        stopped=stopped,
        curves=tuple(curves),
        **vars(analyse_curve(lrs[:n], median[:n], blew_up, rule, peers)),
    )
