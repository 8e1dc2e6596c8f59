"""Figure of a learning-rate range test. Knows the result, not how it was made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ._style import BLUE, GREEN, GREY, ORANGE, RED, SKY, axes_or_new, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .._lr_range_result import RangeTestResult

_PHASES = {"flat": GREY, "descent": GREEN, "divergence": RED}


def range_test(result: RangeTestResult, ax: Axes | None = None) -> Axes:
    """Draw loss against learning rate, phases shaded and named, suggestion and bounds marked; returns the axes."""
    with style():
        ax = axes_or_new(ax, 7.2, 4.2)
        ax.set_xscale("log")
        ax.plot(result.lrs, result.losses, ".", color=SKY, markersize=3, alpha=0.7, label="loss of a batch")
        ax.plot(result.lrs, result.smoothed, color=BLUE, label="smoothed, capped")
        low, high = _limits(result)
        ax.set_ylim(low, high)
        ax.set_xlim(float(result.lrs[0]), float(result.lrs[-1]))
        for name, (begin, end) in result.phases.items():
            ax.axvspan(begin, end, color=_PHASES[name], alpha=0.10, linewidth=0)
            place = float(np.sqrt(begin * end))
            share = np.log(place / result.lrs[0]) / np.log(result.lrs[-1] / result.lrs[0])
            side = "left" if share < 0.08 else "right" if share > 0.92 else "center"  # a name must not leave the axes
            place = {"left": float(result.lrs[0]), "right": float(result.lrs[-1]), "center": place}[side]
            box: dict[str, Any] = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 2.0}
            where: dict[str, Any] = {"ha": side, "va": "top", "transform": ax.get_xaxis_transform()}
            ax.text(place, 0.97, name, color=_PHASES[name], bbox=box, zorder=4, **where)
        if result.suggestion is not None:
            ax.axvline(result.suggestion, color=ORANGE, linewidth=2, label=f"suggestion {result.suggestion:.2g}")
            if result.interval is not None:
                ax.axvspan(*result.interval, color=ORANGE, alpha=0.25, linewidth=0)
        if result.bounds is not None:
            label = f"cyclical bounds {result.bounds[0]:.2g} to {result.bounds[1]:.2g}"
            for index, bound in enumerate(result.bounds):
                ax.axvline(bound, color=GREY, linestyle="--", linewidth=1.2, label=label if index == 0 else None)
        ax.set_xlabel("learning rate")
        ax.set_ylabel("loss")
        ax.set_title("Learning-rate range test" if result.suggestion is not None else "Range test: no suggestion")
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)  # inside it would cover a phase
    return ax


def _limits(result: RangeTestResult) -> tuple[float, float]:
    """Show the smooth curve and nearly all points; a few wild ones must not flatten the picture."""
    low = min(float(result.smoothed.min()), float(np.quantile(result.losses, 0.01)))
    high = float(result.smoothed.max())
    margin = 0.06 * (high - low) or 1.0
    return low - margin, high + 2.5 * margin
