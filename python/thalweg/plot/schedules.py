"""Figures of schedules."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..schedules import Schedule
from ._style import BLUE, GREY, axes_or_new, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MAX_POINTS = 4000


def schedule(schedule: Schedule, ax: Axes | None, steps: int) -> Axes:
    """Draw the first `steps` values, with a thin line where another piece or cycle begins."""
    with style():
        ax = axes_or_new(ax, height=3.2)
        if steps <= 1_000_000:
            k = np.arange(steps)
            values = schedule.values(steps)
        else:  # a curve has no more points than a screen
            k = np.unique(np.linspace(0, steps - 1, _MAX_POINTS).astype(np.int64))
            values = np.array([schedule(int(i)) for i in k])
        boundaries = schedule.boundaries(steps) if steps <= 10_000_000 else []
        if len(boundaries) <= 40:
            for boundary in boundaries:
                ax.axvline(boundary, color=GREY, linewidth=0.6, linestyle=":", zorder=0)
        ax.plot(k, values, color=BLUE)
        ax.set_xlabel("step")
        ax.set_ylabel("learning rate")
        return ax
