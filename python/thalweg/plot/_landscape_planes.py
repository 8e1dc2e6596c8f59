"""What figures of planes share: axes, filled contours and their scale, the model's place. Knows coordinates and values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .._extras import require
from ..landscape import Surface, Volume
from ._style import SURFACE_MAP, axes_or_new

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = npt.NDArray[np.float64]


def level_norm(levels: Array) -> Any:
    """One step of colour per level."""
    return require("matplotlib.colors", "plotting").BoundaryNorm(levels, 256, extend="min")


def filled_contours(ax: Axes, plane: Surface | Volume, shown: Array, levels: Array, norm: Any) -> Any:
    """Draw values [ny, nx] as `displayed` gives them; returns what a colour bar needs."""
    if min(shown.shape) < 2:
        rows, columns = shown.shape
        raise ValueError(
            f"contour: expected at least 2 x 2 points, got {rows} x {columns}; draw a heat map, or evaluate a line"
        )
    drawn = ax.contourf(plane.x, plane.y, shown, levels=levels, cmap=SURFACE_MAP, norm=norm, extend="min")
    ax.contour(plane.x, plane.y, shown, levels=levels, colors="white", linewidths=0.35, alpha=0.6)
    return drawn


def level_bar(drawn: Any, axes: Axes | Sequence[Axes], levels: Array, metric: str) -> None:
    """The scale of filled contours."""
    figure = (axes if hasattr(axes, "figure") else axes[0]).figure
    bar = figure.colorbar(drawn, ax=axes, shrink=0.9)
    bar.set_label(metric)
    ticks = levels[:: max(1, len(levels) // 5)]
    bar.set_ticks(ticks, labels=[f"{t:.3g}" for t in ticks])
    bar.ax.minorticks_off()


def shape_of(plane: Surface | Volume) -> float | None:
    """Height over width of the plane, or None where it is too long to have one unit on both axes."""
    width, height = float(np.ptp(plane.x)), float(np.ptp(plane.y))
    ratio = height / width if width and height else 0.0
    return ratio if 0.5 <= ratio <= 2 else None


def plane_axes(ax: Axes | None, plane: Surface) -> Axes:
    """`ax`, or new axes as high as the plane needs, so that the colour bar is not longer than the plane."""
    height = 4.7 * (shape_of(plane) or 0.85)
    width = 6.4 if height <= 5.4 else 6.4 * 5.4 / height
    return axes_or_new(ax, width=max(width, 4.2), height=min(height, 5.4) + 0.6)


def dress(ax: Axes, plane: Surface | Volume) -> None:
    """Gaps in grey, one unit of length on both axes where the plane is not too long."""
    ax.grid(False)
    ax.set_facecolor("#D1D5DB")
    if shape_of(plane) is not None:
        ax.set_aspect("equal")


def mark_model(ax: Axes, plane: Surface | Volume) -> None:
    """A cross at the model, which is in the middle of random directions."""
    inside = plane.x.min() <= 0 <= plane.x.max() and plane.y.min() <= 0 <= plane.y.max()
    if inside and (plane.metadata.get("directions") or {}).get("kind") in ("random", "li2018"):
        ax.plot(0, 0, marker="+", markersize=9, color="white", markeredgewidth=1.4, zorder=5)
