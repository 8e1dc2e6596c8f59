"""Figures of volumes: planes along the third direction. Knows results, no model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .. import _check
from .._extras import require
from ..landscape import Volume
from ._landscape_planes import dress, filled_contours, level_bar, level_norm, mark_model, shape_of
from ._landscape_values import axis_labels, displayed, levels_of
from ._style import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class VolumePlots:
    """Figures of one volume; nothing is shown or saved."""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume

    def slices(self, metric: str = "loss", most: int = 6) -> list[Axes]:
        """Filled contours of planes along z, with one scale of colours for all of them.

        Args:
            metric: Which metric.
            most: Planes that are shown at most, evenly spread from the first to the last; of an odd number of planes an
                odd number, so that the middle one is among them.

        Returns:
            Their axes, in a new figure.

        Raises:
            ValueError: No finite value, an unknown metric, or planes of fewer than 2 x 2 points.
        """
        volume = self._volume
        values = displayed(volume.metric(metric))
        levels = levels_of(values, metric)
        count = min(_check.integer("slices", "most", most, 1), len(volume.z))
        count -= len(volume.z) % 2 > count % 2
        places = np.unique(np.linspace(0, len(volume.z) - 1, count).round().astype(int)).tolist()
        with style():
            axes, norm = _panels(volume, len(places)), level_norm(levels)
            for ax, place in zip(axes, places, strict=True):
                drawn = filled_contours(ax, volume, values[place], levels, norm)
                dress(ax, volume)
                ax.set_title(f"z = {volume.z[place]:.3g}".replace("-", "−"))
                ax.locator_params(nbins=4)
                if np.isclose(volume.z[place], 0):
                    mark_model(ax, volume)
            first, second = axis_labels(volume)
            axes[0].figure.supxlabel(first, fontsize="medium")
            axes[0].figure.supylabel(second, fontsize="medium")
            level_bar(drawn, axes, levels, metric)
            return axes


def _panels(volume: Volume, count: int) -> list[Axes]:
    """Axes of a new figure, in one row or two."""
    columns = count if count <= 5 else -(-count // 2)
    rows = -(-count // columns)
    height = 2.1 * (shape_of(volume) or 0.85)
    figure = require("matplotlib.pyplot", "plotting").figure(
        figsize=(max(2.3 * columns + 1.4, 4.2), (height + 0.4) * rows + 0.4), layout="constrained"
    )
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    axes: Sequence[Axes] = grid.ravel().tolist()
    for spare in axes[count:]:
        spare.set_axis_off()
        axes[len(axes) - columns - 1].tick_params(labelbottom=True)
    return list(axes[:count])
