"""Other packages' ways from a curve to one learning rate, written from their descriptions. NumPy; knows no model.

Each rule smooths, stops and trims as its package does, so that on the same raw losses it gives the same answer,
mistakes included. None stands for what is an error there.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Rule = Callable[[Array, Array, int], "float | None"]


def peer_suggestions(lrs: Array, losses: Array, num_steps: int) -> dict[str, float]:
    """Return rule -> learning rate of every rule that has an answer.

    Args:
        lrs: [n] learning rates.
        losses: [n] raw losses, also those that are not finite.
        num_steps: Steps that the test was to have; some rules leave out a share of them.
    """
    found = {}
    with np.errstate(all="ignore"):
        for name, rule in RULES.items():
            lr = rule(lrs, losses, num_steps)
            if lr is not None:
                found[name] = float(lr)
    return found


def _corrected_average(losses: Array, offset: int) -> Array:
    """Exponential average a_k = 0.98·a_{k−1} + 0.02·y_k over 1 − 0.98^{k+offset}; offset 1 removes the bias of a_0 = 0."""
    averages, average = np.empty(len(losses)), 0.0
    for k, loss in enumerate(losses):
        average = 0.98 * average + 0.02 * loss
        averages[k] = average / (1 - 0.98 ** (k + offset))
    return averages


def _plain_average(losses: Array) -> Array:
    """Exponential average with weight 0.05 for the new loss, begun with the first one."""
    averages = losses.astype(np.float64)
    for k in range(1, len(losses)):
        averages[k] = 0.05 * averages[k] + 0.95 * averages[k - 1]
    return averages


def _until_above(values: Array, factor: float, start: int = 0) -> int:
    """Return how many values there are up to the first that exceeds `factor` times the least so far.

    A NaN exceeds nothing and is never the least; a negative least is exceeded at once.
    """
    best = np.inf
    for k, value in enumerate(values):
        best = value if value < best else best
        if k >= start and value > factor * best:
            return k + 1
    return len(values)


def _fastai(rule: Callable[[Array, Array], float | None]) -> Rule:
    """Corrected average, stop above 4 times the best, the first tenth and the last 5 left out, NaN cut off."""

    def suggestion(lrs: Array, losses: Array, num_steps: int) -> float | None:
        smooth = _corrected_average(losses, 1)
        kept = slice(num_steps // 10, max(_until_above(smooth, 4.0) - 5, 0))
        x, y = lrs[kept], smooth[kept]
        bad = np.flatnonzero(np.isnan(y))
        stop = int(bad[0]) if len(bad) else len(y)
        return rule(x[:stop], y[:stop]) if stop > 1 else None

    return suggestion


def _valley(lrs: Array, losses: Array) -> float:
    """Half-way point of the longest decreasing subsequence, by its length; its start is taken as end minus length."""
    lengths = np.ones(len(losses), dtype=np.int64)
    for i in range(1, len(losses)):
        longer = lengths[:i][losses[:i] > losses[i]]
        lengths[i] = 1 + (longer.max() if len(longer) else 0)
    end = int(np.argmax(lengths))
    third = int(lengths[end]) / 3
    return float(lrs[end - int(lengths[end]) + int(third) + int(third / 2)])


def _slide(lrs: Array, losses: Array) -> float | None:
    """From the right, a window of 15 points goes left while the slopes at its ends differ by more than 0.005."""
    if len(losses) < 16:
        return None
    slope = np.gradient(losses)
    right, left = -1, -16
    lr = lrs[left]
    while left >= -len(losses) and abs(slope[right] - slope[left]) > 0.005:
        lr = lrs[left]
        right, left = right - 1, left - 1
    return float(lr)


def _minimum(lrs: Array, losses: Array) -> float:
    """A tenth of the rate of the least loss."""
    return float(lrs[np.argmin(losses)]) / 10


def _steep(lrs: Array, losses: Array) -> float:
    """The left end of the steepest fall over ln lr."""
    return float(lrs[np.argmin(np.diff(losses) / np.diff(np.log(lrs)))])


def _lightning(by_rate: bool) -> Rule:
    """Steepest gradient over lr itself (since 2.5.3) or over the index (before), of an average that is corrected late."""

    def suggestion(lrs: Array, losses: Array, num_steps: int) -> float | None:
        smooth = _corrected_average(losses, 2)
        stop = _until_above(smooth, 4.0, start=1)
        x, y = lrs[10 : max(stop - 1, 0)], smooth[10 : max(stop - 1, 0)]
        finite = np.isfinite(y)
        x, y = x[finite], y[finite]
        if len(y) < 2:
            return None
        return float(x[np.argmin(np.gradient(y, x, edge_order=1) if by_rate else np.gradient(y))])

    return suggestion


def _lr_finder(lrs: Array, losses: Array, num_steps: int) -> float | None:
    """Steepest by index; the first 10 and last 5 points left out, the rising part not. A NaN wins."""
    smooth = _plain_average(losses)
    stop = _until_above(smooth, 5.0)
    if stop < 17:
        return None
    return float(lrs[10 : stop - 5][np.argmin(np.gradient(smooth[10 : stop - 5]))])


def _ignite(lrs: Array, losses: Array, num_steps: int) -> float | None:
    """Steepest by index before the least. (The package notes the rate of the next step beside each loss.)"""
    smooth = _plain_average(losses)
    smooth = smooth[: _until_above(smooth, 5.0)]
    falling = smooth[: int(np.argmin(smooth)) + 1]
    if len(falling) < 3:
        return None
    return float(lrs[1 + np.argmin(0.5 * (falling[2:] - falling[:-2]))])


RULES: dict[str, Rule] = {
    "valley": _fastai(_valley),
    "slide": _fastai(_slide),
    "minimum/10": _fastai(_minimum),
    "steep": _fastai(_steep),
    "lightning": _lightning(by_rate=True),
    "lightning<2.5.3": _lightning(by_rate=False),
    "ignite": _ignite,
    "lr_finder": _lr_finder,
}
