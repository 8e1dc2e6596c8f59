"""What a figure of a landscape shows of the values: heights, contour levels, axis labels. Draws nothing."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..landscape import Line, Surface, Volume
from ..landscape._loss import HIGHER_IS_BETTER

Array = npt.NDArray[np.float64]

_FLOOR = 1e-3  # of the range, added before the logarithm


def displayed(values: Array) -> Array:
    """The values as a picture can hold them: +inf at the largest finite value, -inf as a gap like NaN."""
    finite = np.isfinite(values)
    if not finite.any():
        raise ValueError("plot: the values hold no finite number to draw")
    shown = np.where(np.isposinf(values), values[finite].max(), values)
    return np.where(np.isfinite(shown), shown, np.nan)


def coarse(values: Array) -> Array:
    """Values of a grid that is evaluated coarse to fine: what is still NaN gets the nearest one of the finest level."""
    out = np.full_like(values, np.nan)
    for power in range(max(values.shape).bit_length(), -1, -1):
        step = 1 << power
        nearest = [
            np.minimum((np.arange(n) + step // 2) // step, (n - 1) // step) * step for n in values.shape
        ]  # of the places that are multiples of the step
        level = values[np.ix_(*nearest)]
        out = np.where(np.isnan(level), out, level)
    return out


def excess_levels(values: Array, n: int = 14) -> Array:
    """Contour levels that are log-spaced in the excess over the smallest value: fine near the minimum."""
    shown = displayed(values)
    low, high = float(np.nanmin(shown)), float(np.nanmax(shown))
    span = high - low
    if span <= 0:
        return np.array([low, low + max(abs(low), 1.0) * 1e-6])
    return np.asarray(low + span * np.geomspace(_FLOOR, 1.0, n))


def levels_of(values: Array, metric: str, n: int = 14) -> Array:
    """Contour levels: log-spaced in the excess, evenly spaced for metrics of which more is better."""
    levels = excess_levels(values, n)
    if metric in HIGHER_IS_BETTER and len(levels) > 2:
        return np.linspace(float(np.nanmin(displayed(values))), levels[-1], n)
    return levels


def heights(surface: Surface, metric: str, log: bool = True) -> tuple[Array, str]:
    """Heights of a 3-D picture and their name: the logarithm of the excess, or the value where more is better."""
    values = displayed(surface.filled(metric))
    if metric in HIGHER_IS_BETTER or not log:
        return values, metric
    return lifted(surface, metric, values), f"log10 of excess {metric}"


def lifted(surface: Surface, metric: str, values: Array) -> Array:
    """Heights, on the scale of `heights`, of values measured elsewhere."""
    if metric in HIGHER_IS_BETTER:
        return values
    shown = displayed(surface.filled(metric))
    low = float(np.nanmin(shown))
    floor = _FLOOR * (float(np.nanmax(shown)) - low) or 1e-12
    return np.asarray(np.log10(np.maximum(values - low, 0) + floor))


def line_label(line: Line) -> str:
    """Name of the axis of a line."""
    kind = (line.metadata.get("directions") or {}).get("kind")
    if kind == "between":
        return "place on the line between the two models"
    return axis_labels(line)[0] if kind else "place on the line"


def axis_labels(result: Line | Surface | Volume) -> tuple[str, str]:
    """Names of the two axes, with the share of the variance where it is known."""
    recipe = result.metadata.get("directions") or {}
    shares = recipe.get("explained_variance")
    if shares and len(shares) >= 2:
        return f"PC 1 ({shares[0]:.0%} of the path's variance)", f"PC 2 ({shares[1]:.0%})"
    if recipe.get("kind") == "random":
        unit = {"filter": ", in filter norms", "layer": ", in layer norms", "model": ", in norms of the model"}
        return f"random direction 1{unit.get(str(recipe.get('norm')), '')}", "random direction 2"
    if recipe.get("kind") == "plane":
        return "distance along a → b", "distance towards c"
    return "direction 1", "direction 2"
