"""Figures of landscapes: contours, heat maps, 3-D surfaces, lines, barrier matrices, interactive pages."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .._extras import require
from ..landscape import Barriers, Line, Surface, Trajectory
from ._style import BLUE, GREY, RED, SURFACE_MAP, axes_or_new, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = npt.NDArray[np.float64]


def excess_levels(values: Array, n: int = 14) -> Array:
    """Contour levels that are log-spaced in the excess over the smallest value: fine near the minimum."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        raise ValueError("plot: the values hold no finite number to draw")
    low, high = float(finite.min()), float(finite.max())
    span = high - low
    if span <= 0:
        return np.array([low, low + max(abs(low), 1.0) * 1e-6])
    return np.asarray(low + span * np.geomspace(1e-3, 1.0, n))


def axis_labels(surface: Surface) -> tuple[str, str]:
    """Names of the two axes, with the share of the variance where it is known."""
    recipe = surface.metadata.get("directions") or {}
    shares = recipe.get("explained_variance")
    if shares and len(shares) >= 2:
        return f"PC 1 ({shares[0]:.0%} of the path's variance)", f"PC 2 ({shares[1]:.0%})"
    if recipe.get("kind") == "random":
        return "random direction 1, in filter norms", "random direction 2"
    return "direction 1", "direction 2"


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
            colour_by: A key of the trajectory's metadata (such as "lr") that colours the path's points.
        """
        surface = self._surface
        values = surface.metric(metric)
        with style():
            ax = axes_or_new(ax, width=6.4, height=5.2)
            levels = excess_levels(values)
            shown = np.clip(np.where(np.isfinite(values), values, np.nan), None, levels[-1])
            drawn = ax.contourf(surface.x, surface.y, shown, levels=levels, cmap=SURFACE_MAP, extend="min")
            ax.contour(surface.x, surface.y, shown, levels=levels, colors="white", linewidths=0.35, alpha=0.6)
            bar = ax.figure.colorbar(drawn, ax=ax, shrink=0.9)
            bar.set_label(metric)
            ticks = levels[:: max(1, len(levels) // 5)]
            bar.set_ticks(ticks, labels=[f"{t:.3g}" for t in ticks])
            ax.grid(False)
            if trajectory is not None:
                self._path(ax, trajectory, colour_by)
            if snapshots is not None:
                mark_numbers(ax, snapshots)
            for label, set_label in zip(axis_labels(surface), (ax.set_xlabel, ax.set_ylabel), strict=True):
                set_label(label)
            return ax

    def _path(self, ax: Axes, trajectory: Trajectory, colour_by: str | None) -> None:
        coordinates, _ = self._surface.project(trajectory)
        ax.plot(*coordinates.T, color="white", linewidth=1.0, alpha=0.8, zorder=3)
        known = [m.get(colour_by) for m in trajectory.metadata] if colour_by else []
        if known and all(v is not None for v in known):
            points = ax.scatter(
                *coordinates.T,
                c=np.array(known, dtype=float),
                cmap="plasma",
                s=16,
                zorder=4,
                edgecolors="white",
                linewidths=0.3,
            )
            ax.figure.colorbar(points, ax=ax, shrink=0.9, location="top", aspect=40, pad=0.02).set_label(str(colour_by))
        else:
            ax.scatter(*coordinates.T, color=RED, s=8, zorder=4)
        ax.set_xlim(
            min(self._surface.x.min(), coordinates[:, 0].min()), max(self._surface.x.max(), coordinates[:, 0].max())
        )
        ax.set_ylim(
            min(self._surface.y.min(), coordinates[:, 1].min()), max(self._surface.y.max(), coordinates[:, 1].max())
        )

    def heatmap(self, ax: Axes | None = None, metric: str = "loss") -> Axes:
        """One coloured cell per grid point, linear scale, nothing interpolated."""
        surface = self._surface
        with style():
            ax = axes_or_new(ax, width=6.0, height=5.0)
            drawn = ax.pcolormesh(surface.x, surface.y, surface.metric(metric), cmap=SURFACE_MAP, shading="nearest")
            ax.figure.colorbar(drawn, ax=ax, shrink=0.9).set_label(metric)
            ax.grid(False)
            for label, set_label in zip(axis_labels(surface), (ax.set_xlabel, ax.set_ylabel), strict=True):
                set_label(label)
            return ax

    def surface(self, ax: Axes | None = None, metric: str = "loss", log: bool = True) -> Axes:
        """A 3-D surface; `log` shows the logarithm of the excess over the minimum plus a thousandth of the range."""
        surface = self._surface
        values = surface.metric(metric)
        with style():
            ax = axes_or_new(ax, width=6.4, height=5.4, projection="3d")
            levels = excess_levels(values)
            heights = np.where(np.isfinite(values), values, np.nan)
            if log:
                span = levels[-1] - np.nanmin(heights)
                heights = np.log10(heights - np.nanmin(heights) + 1e-3 * span)
            x, y = np.meshgrid(surface.x, surface.y)
            ax.plot_surface(x, y, heights, cmap=SURFACE_MAP, linewidth=0, antialiased=True, rcount=120, ccount=120)
            first, second = axis_labels(surface)
            ax.set_xlabel(first.split(" (")[0])
            ax.set_ylabel(second.split(" (")[0])
            ax.set_zlabel(f"log10 of excess {metric}" if log else metric)
            ax.view_init(elev=38, azim=-60)
            return ax

    def figure(self, metric: str = "loss", trajectory: Array | None = None, snapshots: Array | None = None) -> Any:
        """An interactive plotly figure of the 3-D surface; paths and snapshots are [m, 3]: x, y, value."""
        go = require("plotly.graph_objects", "an interactive surface")
        surface = self._surface
        values = surface.metric(metric)
        heights = np.where(np.isfinite(values), values, np.nan)
        low = float(np.nanmin(heights))
        offset = 1e-3 * (float(np.nanmax(heights)) - low) or 1e-12
        first, second = axis_labels(surface)

        def lift(z: Array) -> Array:
            return np.asarray(np.log10(np.maximum(z - low, 0) + offset))

        hover = f"x %{{x:.3f}}<br>y %{{y:.3f}}<br>{metric} %{{customdata:.4g}}<extra></extra>"
        figure = go.Figure(
            go.Surface(
                x=surface.x, y=surface.y, z=lift(heights), customdata=values, hovertemplate=hover,
                colorscale="Viridis", colorbar={"title": "log10 excess", "len": 0.6}, opacity=0.95,
            )
        )  # fmt: skip
        if trajectory is not None:
            figure.add_scatter3d(
                x=trajectory[:, 0], y=trajectory[:, 1], z=lift(trajectory[:, 2]) + 0.02, mode="lines",
                line={"color": "#D55E00", "width": 5}, name="path", hoverinfo="skip",
            )  # fmt: skip
        if snapshots is not None:
            figure.add_scatter3d(
                x=snapshots[:, 0], y=snapshots[:, 1], z=lift(snapshots[:, 2]) + 0.04, mode="markers+text",
                text=[str(i + 1) for i in range(len(snapshots))], textposition="top center",
                marker={"size": 5, "color": "#111827"}, name="snapshots", customdata=snapshots[:, 2], hovertemplate=hover,
            )  # fmt: skip
        figure.update_layout(
            margin={"l": 0, "r": 0, "t": 10, "b": 0},
            scene={"xaxis_title": first, "yaxis_title": second, "zaxis_title": f"log10 excess {metric}"},
            legend={"x": 0, "y": 1},
        )
        return figure

    def html(self, path: str | os.PathLike[str], metric: str = "loss") -> Path:
        """Write the interactive figure as one self-contained page."""
        target = Path(path)
        if not target.parent.is_dir():
            raise FileNotFoundError(f"Surface.to_html: no directory {target.parent}")
        page = self.figure(metric).to_html(include_plotlyjs=True, full_html=True)
        temporary = target.with_name(f".{target.name}.tmp")
        try:
            temporary.write_text(page, encoding="utf-8")
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        return target


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
            ax.plot(line.alphas, line.values[metric], color=BLUE if label is None else None, label=label)
            for end in (0.0, 1.0):
                if line.alphas[0] <= end <= line.alphas[-1]:
                    ax.axvline(end, color=GREY, linewidth=0.6, linestyle=":")
            ax.set_xlabel("place on the line")
            ax.set_ylabel(metric)
            return ax


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
