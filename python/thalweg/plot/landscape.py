"""Figures of landscapes: contours, heat maps, 3-D surfaces, lines, barrier matrices. Knows results, no model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .._files import write_whole
from ..landscape import Barriers, Line, Surface, Trajectory
from . import _landscape_html
from ._landscape_planes import dress, filled_contours, level_bar, level_norm, mark_model, plane_axes
from ._landscape_preview import Preview as Preview
from ._landscape_values import axis_labels, displayed, heights, levels_of, line_label
from ._landscape_values import excess_levels as excess_levels
from ._landscape_volume import VolumePlots as VolumePlots
from ._style import BLUE, GREY, RED, SURFACE_MAP, axes_or_new, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = npt.NDArray[np.float64]


class SurfacePlots:
    """Figures of one surface; every method takes `ax`, returns the axes and neither shows nor saves."""

    def __init__(self, surface: Surface) -> None:
        self._surface = surface

    def contour(
        self,
        ax: Axes | None = None,
        metric: str = "loss",
        trajectory: Trajectory | None = None,
        snapshots: Array | None = None,
        colour_by: str | None = None,
    ) -> Axes:
        """Filled contours, log-spaced in the excess over the minimum.

        Args:
            ax: Axes to draw on; default: new ones.
            metric: Which metric.
            trajectory: Path to draw, projected into the plane.
            snapshots: [m, 2] coordinates to mark with their numbers 1 … m.
            colour_by: A key of the trajectory's metadata (such as "lr") that colours the path's points. Default: the
                metric itself, where it was recorded under its name: then the points have the true values on the
                surface's own scale, and those that stand out from it lie off the plane.

        Raises:
            ValueError: No finite value, an unknown metric or key, or a surface from a file (it has no directions).
        """
        surface = self._surface
        values = surface.filled(metric)
        with style():
            ax = plane_axes(ax, surface)
            levels = levels_of(values, metric)
            norm = level_norm(levels)
            level_bar(filled_contours(ax, surface, displayed(values), levels, norm), ax, levels, metric)
            _dress(ax, surface)
            if trajectory is not None:
                self._path(ax, trajectory, colour_by, metric, norm)
            if snapshots is not None:
                mark_numbers(ax, snapshots)
            return ax

    def _path(self, ax: Axes, trajectory: Trajectory, colour_by: str | None, metric: str, norm: Any) -> None:
        coordinates, _ = self._surface.project(trajectory)
        known = [m.get(colour_by or metric) for m in trajectory.metadata]
        complete = bool(known) and all(v is not None for v in known)
        if colour_by is not None and not complete:
            raise ValueError(f"contour: colour_by={colour_by!r} must be recorded with every point of the trajectory")
        ax.plot(*coordinates.T, color="black", linewidth=2.0, alpha=0.5, zorder=3)
        ax.plot(*coordinates.T, color="white", linewidth=1.0, alpha=0.9, zorder=3)
        marks: dict[str, Any] = {"s": 30, "zorder": 4, "edgecolors": "white", "linewidths": 0.8}
        if complete:
            same = (colour_by or metric) == metric  # on the surface's own scale: a mark that stands out is off-plane
            scale = {"cmap": SURFACE_MAP, "norm": norm} if same else {"cmap": "plasma"}
            points = ax.scatter(*coordinates.T, c=np.array(known, dtype=float), **scale, **marks)
            if not same:
                bar = ax.figure.colorbar(points, ax=ax, shrink=0.9, location="top", aspect=40, pad=0.02)
                bar.set_label(str(colour_by))
        else:
            ax.scatter(*coordinates.T, color=RED, **marks)
        x, y = self._surface.x, self._surface.y
        ax.set_xlim(min(x.min(), coordinates[:, 0].min()), max(x.max(), coordinates[:, 0].max()))
        ax.set_ylim(min(y.min(), coordinates[:, 1].min()), max(y.max(), coordinates[:, 1].max()))

    def heatmap(self, ax: Axes | None = None, metric: str = "loss", log: bool = False) -> Axes:
        """One coloured cell per grid point, nothing interpolated; `log` takes the contours' scale, else it is linear."""
        surface = self._surface
        values = surface.metric(metric)
        with style():
            ax = plane_axes(ax, surface)
            levels = levels_of(values, metric)
            drawn = ax.pcolormesh(
                surface.x, surface.y, displayed(values), cmap=SURFACE_MAP, shading="nearest",
                norm=level_norm(levels) if log else None,
            )  # fmt: skip
            if log:
                level_bar(drawn, ax, levels, metric)
            else:
                ax.figure.colorbar(drawn, ax=ax, shrink=0.9).set_label(metric)
            _dress(ax, surface)
            return ax

    def surface(self, ax: Axes | None = None, metric: str = "loss", log: bool = True) -> Axes:
        """A 3-D surface; `log` shows the logarithm of the excess over the minimum plus a thousandth of the range."""
        surface = self._surface
        z, label = heights(surface, metric, log)
        with style():
            ax = axes_or_new(ax, width=6.4, height=5.4, projection="3d")
            x, y = np.meshgrid(surface.x, surface.y)
            ax.plot_surface(x, y, z, cmap=SURFACE_MAP, linewidth=0, antialiased=True, rcount=120, ccount=120)
            first, second = axis_labels(surface)
            ax.set_xlabel(first.split(" (")[0], labelpad=9)
            ax.set_ylabel(second.split(" (")[0], labelpad=9)
            ax.set_zlabel(label, labelpad=7)
            ax.locator_params(nbins=5)
            ax.view_init(elev=38, azim=-60)
            ax.set_box_aspect(None, zoom=0.82)  # room for the labels
            return ax

    def figure(self, metric: str = "loss", trajectory: Array | None = None, snapshots: Array | None = None) -> Any:
        """An interactive plotly figure of the 3-D surface; paths and snapshots are [m, 3]: x, y, value."""
        return _landscape_html.scene(self._surface, metric, trajectory, snapshots)

    def html(self, path: str | os.PathLike[str], metric: str = "loss") -> Path:
        """Write surface and contours as one self-contained page, with a menu of the metrics."""
        return _write_page("Surface.to_html", path, _landscape_html.surface_page(self._surface, metric))


def _write_page(who: str, path: str | os.PathLike[str], figure: Any) -> Path:
    page = figure.to_html(include_plotlyjs=True, full_html=True).encode()
    return write_whole(who, path, lambda file: file.write(page))


def _dress(ax: Axes, surface: Surface) -> None:
    """Labels and what all planes have."""
    for label, set_label in zip(axis_labels(surface), (ax.set_xlabel, ax.set_ylabel), strict=True):
        set_label(label)
    dress(ax, surface)
    mark_model(ax, surface)


def mark_numbers(ax: Axes, coordinates: Array) -> None:
    """Numbered markers; those that would cover each other are moved apart along the vertical."""
    span = (ax.get_ylim()[1] - ax.get_ylim()[0]) or 1.0
    width = (ax.get_xlim()[1] - ax.get_xlim()[0]) or 1.0
    placed: list[tuple[float, float]] = []
    for number, (x, y) in enumerate(coordinates, start=1):
        ax.plot(x, y, marker="o", markersize=5, color="white", markeredgecolor="black", zorder=6)
        label = y + 0.045 * span
        while any(abs(label - b) < 0.06 * span and abs(x - a) < 0.05 * width for a, b in placed):
            label += 0.06 * span
        placed.append((x, label))
        ax.annotate(
            str(number), (x, y), (x, label), ha="center", va="center", fontsize=9, fontweight="bold", zorder=7,
            bbox={"boxstyle": "circle,pad=0.18", "fc": "white", "ec": "black", "lw": 0.6},
            arrowprops={"arrowstyle": "-", "lw": 0.6, "color": "black"},
        )  # fmt: skip


class LinePlots:
    """Figures of one line: call it."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def __call__(self, ax: Axes | None = None, metric: str = "loss", label: str | None = None) -> Axes:
        """Draw the values along the line."""
        line = self._line
        with style():
            ax = axes_or_new(ax, height=3.6)
            ax.plot(line.alphas, line.metric(metric), color=BLUE if label is None else None, label=label)
            random = (line.metadata.get("directions") or {}).get("kind") == "random"
            for end in (0.0,) if random else (0.0, 1.0):
                if line.alphas[0] <= end <= line.alphas[-1]:
                    ax.axvline(end, color=GREY, linewidth=0.6, linestyle=":")
            ax.set_xlabel(line_label(line))
            ax.set_ylabel(metric)
            return ax

    line = __call__

    def html(self, path: str | os.PathLike[str]) -> Path:
        """Write one self-contained page, with a menu of the metrics."""
        return _write_page("Line.to_html", path, _landscape_html.line_page(self._line))


def barrier_matrix(barriers: Barriers, ax: Axes | None = None) -> Axes:
    """Heat map of the heights with the numbers in the cells."""
    with style():
        ax = axes_or_new(ax, width=5.2, height=4.6)
        m = len(barriers.heights)
        drawn = ax.imshow(barriers.heights, cmap="viridis", vmin=0)
        top = float(np.nanmax(barriers.heights)) or 1.0
        for i in range(m):
            for j in range(m):
                if i != j:
                    value = barriers.heights[i, j]
                    ax.text(
                        j,
                        i,
                        f"{value:.2g}",
                        ha="center",
                        va="center",
                        fontsize=8,
                        color="white" if value < 0.6 * top else "black",
                    )
        ax.set_xticks(range(m), labels=[str(i + 1) for i in range(m)])
        ax.set_yticks(range(m), labels=[str(i + 1) for i in range(m)])
        ax.set_xlabel("snapshot")
        ax.set_ylabel("snapshot")
        ax.grid(False)
        ax.figure.colorbar(drawn, ax=ax, shrink=0.85).set_label(f"barrier in {barriers.metric}")
        return ax
