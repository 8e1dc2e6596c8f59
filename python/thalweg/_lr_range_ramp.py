"""The learning rates of a range test, and those of the next one where the first did not show enough. Runs nothing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from . import _check
from ._lr_range_curve import MIN_POINTS, Array
from ._lr_range_record import WHO
from ._lr_range_result import RangeTestResult
from .schedules import Schedule

_MOST = 10_000  # steps of a test that was made longer


def rates(min_lr: Any, max_lr: Any, num_steps: Any, mode: Any) -> Array:
    """Return the [n] rates of a test, rising.

    Raises:
        ValueError: Bad limits; a schedule that does not rise.
    """
    n = _check.integer(WHO, "num_steps", num_steps, MIN_POINTS)
    if isinstance(mode, Schedule):
        lrs = np.asarray(mode.values(n), dtype=np.float64)
        if not (np.isfinite(lrs).all() and lrs[0] > 0 and (np.diff(lrs) > 0).all()):
            raise ValueError(
                f"{WHO}: a schedule as mode must be positive and rise in each of the {n} steps, got {mode!r}"
            )
        return lrs
    low = _check.real(WHO, "min_lr", min_lr, above=0.0)
    high = _check.real(WHO, "max_lr", max_lr, above=low)
    if _check.choice(WHO, "mode", mode, ("exp", "linear")) == "linear":
        return np.linspace(low, high, n)
    lrs = np.exp(np.linspace(math.log(low), math.log(high), n))
    lrs[0], lrs[-1] = low, high
    return lrs


def wider(result: RangeTestResult, lrs: Array) -> Array | None:
    """Return the rates that show the phases that were not seen, as many steps a decade; None where all were.

    The start goes down by two decades, the end up by one.
    """
    rose = result.suggestion is None and "only rises" in result.reason
    low = lrs[0] / 100 if "flat" not in result.phases and (rose or result.phases) else lrs[0]
    ended = "divergence" in result.phases or rose or bool(result.stopped)
    high = lrs[-1] if ended else lrs[-1] * 10
    if (low, high) == (lrs[0], lrs[-1]):
        return None
    share = math.log(high / low) / math.log(lrs[-1] / lrs[0])
    return rates(float(low), float(high), min(round((len(lrs) - 1) * share) + 1, _MOST), "exp")


def narrower(result: RangeTestResult, lrs: Array) -> Array | None:
    """Return as many rates from a tenth of the end of the flat phase to three times the start of divergence.

    None where there is no suggestion, or the range was no wider.
    """
    if result.suggestion is None or result.bounds is None:
        return None
    low = max(float(lrs[0]), result.bounds[0] / 10)
    rise = result.phases.get("divergence", (float(lrs[-1]),))[0]
    high = min(float(lrs[-1]), 3 * rise)
    if not low < high or (low, high) == (lrs[0], lrs[-1]):
        return None
    return rates(low, high, len(lrs), "exp")
