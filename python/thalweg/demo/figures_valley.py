"""Figures of part (d), drawn with matplotlib: path, planes, barriers, sharpness, saddle. Decides nothing, saves nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .._extras import require
from ..landscape import Surface
from ..plot._style import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SURFACE_MAP, style
from ..plot.landscape import excess_levels, mark_numbers
from . import saddle as saddle_part
from .config import SETTING_TITLES, SETTINGS, Config
from .figures import canvas
from .landscape_part import Valley
from .saddle import Descent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SURFACE_MAP = "Blues_r"  # low is dark; leaves the warm colours to the path
_LR_MAP = "autumn_r"  # red is hot: a high learning rate
_SADDLE_COLOURS = {"small": "black", "cyclical": RED, "mean": BLUE, "peak": PURPLE}


def _contours(ax: Axes, surface: Surface, levels: Any) -> Any:
    """Fill between `levels`, each band with a colour of its own; returns what a colour bar needs."""
    colours = require("matplotlib.colors", "the demo")
    loss = np.clip(surface.metric("loss"), levels[0], levels[-1])
    norm = colours.BoundaryNorm(levels, 256)
    drawn = ax.contourf(surface.x, surface.y, loss, levels=levels, cmap=_SURFACE_MAP, norm=norm)
    ax.contour(surface.x, surface.y, loss, levels=levels, colors="white", linewidths=0.4, alpha=0.7)
    ax.grid(False)
    return drawn


def _loss_bar(figure: Figure, ax: Any, drawn: Any, levels: Any) -> None:
    bar = figure.colorbar(drawn, ax=ax, shrink=0.9, spacing="uniform")
    ticks = levels[::2]
    bar.set_ticks(ticks, labels=[f"{tick:.3g}" for tick in ticks])
    bar.ax.minorticks_off()
    bar.set_label("training loss")


def _levels(surface: Surface) -> Any:
    """Return contour levels from the lowest value up, evenly spaced in the logarithm of the excess over it."""
    loss = surface.metric("loss")
    return np.concatenate([[loss.min()], excess_levels(loss, 13)])


def draw_path(ax: Axes, valley: Valley) -> Any:
    """Draw the path of the run on `ax`, coloured by learning rate, with its snapshots; returns the points."""
    x, y = valley.coordinates.T
    lrs = [entry["lr"] for entry in valley.trajectory.metadata]
    ax.plot(x, y, color="black", linewidth=0.7, alpha=0.6, zorder=3)
    points = ax.scatter(x, y, c=lrs, cmap=_LR_MAP, s=17, zorder=4, edgecolors="black", linewidths=0.2)
    ax.plot(x[0], y[0], marker="X", markersize=9, color="white", markeredgecolor="black", zorder=6)
    ax.annotate(
        "start", (x[0], y[0]), (0, 11), textcoords="offset points", ha="center", fontsize=9, fontweight="bold",
        color="black", zorder=7,
    )  # fmt: skip
    mark_numbers(ax, valley.coordinates[valley.snapshot_rows])
    return points


def path(valleys: Mapping[str, Valley]) -> Figure:
    """Draw the PCA planes with the path coloured by learning rate and every snapshot, one panel per setting."""
    with style():
        figure = canvas(13.0, 6.2)
        for ax, setting in zip(figure.subplots(1, 2), SETTINGS, strict=True):
            valley = valleys[setting]
            levels = _levels(valley.pca)
            drawn = _contours(ax, valley.pca, levels)
            points = draw_path(ax, valley)
            figure.colorbar(points, ax=ax, location="bottom", shrink=0.7, aspect=40).set_label("learning rate")
            _loss_bar(figure, ax, drawn, levels)
            shares = valley.results["pca"]["explained_variance"]
            ax.set_xlabel(f"PC 1 ({shares[0]:.0%} of the path's variance)")
            ax.set_ylabel(f"PC 2 ({shares[1]:.0%})")
            ax.set_title(SETTING_TITLES[setting])
        return figure


def hero(valley: Valley, lrs: Any, config: Config) -> Figure:
    """Draw the learning rate with its snapshots beside the path through the valley: the package in one picture."""
    with style():
        figure = canvas(12.0, 4.6)
        left, right = figure.subplots(1, 2, width_ratios=[1.0, 1.15])
        epochs = np.arange(len(lrs)) / config.steps_per_epoch
        left.plot(epochs, lrs, color=RED)
        ends = np.arange(1, config.cycles + 1) * config.cycle_steps / config.steps_per_epoch
        for index, end in enumerate(ends, 1):
            left.plot(end, lrs.min(), "o", color="white", markeredgecolor="black", zorder=5)
            left.annotate(
                str(index), (end, lrs.min()), (0, 9), textcoords="offset points", ha="center", fontsize=9,
                fontweight="bold",
            )  # fmt: skip
        left.set_xlabel("epoch")
        left.set_ylabel("learning rate")
        left.set_title("Warm restarts, a snapshot at the end of every cycle")
        _contours(right, valley.pca, _levels(valley.pca))
        points = draw_path(right, valley)
        figure.colorbar(points, ax=right, shrink=0.9, pad=0.02).set_label("learning rate")
        right.set_xlabel("PC 1")
        right.set_ylabel("PC 2")
        right.set_title("The same run on its loss landscape")
        return figure


def random_plane(valleys: Mapping[str, Valley]) -> Figure:
    """Draw the filter-normalised random planes around the last snapshots, with one scale of levels."""
    with style():
        figure = canvas(12.0, 5.0)
        axes = figure.subplots(1, 2)
        values = [valleys[setting].random.metric("loss") for setting in SETTINGS]
        low, high = min(v.min() for v in values), max(v.max() for v in values)
        levels = np.geomspace(low, high, 15)
        for ax, setting in zip(axes, SETTINGS, strict=True):
            drawn = _contours(ax, valleys[setting].random, levels)
            ax.plot(0, 0, marker="o", color="white", markeredgecolor="black")
            ax.set_aspect("equal")
            ax.set_xlabel("direction 1, in filter norms")
            ax.set_ylabel("direction 2, in filter norms")
            ax.set_title(SETTING_TITLES[setting])
        _loss_bar(figure, list(axes), drawn, levels)
        return figure


def barriers(valleys: Mapping[str, Valley]) -> Figure:
    """Draw the barrier matrices, and the loss along the lines between neighbours and to the independent run."""
    with style():
        figure = canvas(12.0, 9.0)
        axes = figure.subplots(2, 2, height_ratios=[1.25, 1.0])
        for column, setting in enumerate(SETTINGS):
            found = valleys[setting].barriers
            _matrix(figure, axes[0, column], found.heights, SETTING_TITLES[setting])
            ax, m = axes[1, column], len(found.heights) - 1
            for i in range(m - 1):
                label = "neighbouring snapshots" if i == 0 else None
                ax.plot(found.alphas, found.curves[i, i + 1], color=BLUE, linewidth=1.2, label=label)
            ax.plot(found.alphas, found.curves[0, m - 1], color=GREEN, linewidth=2, label="first to last snapshot")
            ax.plot(
                found.alphas,
                found.curves[m - 1, m],
                color=ORANGE,
                linewidth=2,
                label="last snapshot to the run from another start",
            )
            ax.set_yscale("log")
            ax.set_xlabel("place on the line between the two models")
        axes[1, 0].set_ylabel("training loss")
        figure.legend(*axes[1, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
        return figure


def _matrix(figure: Figure, ax: Axes, heights: Any, name: str) -> None:
    m = len(heights)
    shown = np.where(np.eye(m, dtype=bool), np.nan, heights)
    image = ax.imshow(shown, cmap=SURFACE_MAP, vmin=0)
    top = float(np.nanmax(shown)) or 1.0
    for (i, j), value in np.ndenumerate(shown):
        if i != j:
            text = f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"
            ax.text(
                j,
                i,
                text,
                ha="center",
                va="center",
                fontsize=8.5,
                color="white" if value < 0.55 * top else "black",
            )
    labels = [*(str(i + 1) for i in range(m - 1)), "other\nstart"]
    ax.set_xticks(range(m), labels)
    ax.set_yticks(range(m), labels)
    ax.set_xlabel("snapshot")
    ax.set_ylabel("snapshot")
    ax.grid(False)
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
    ax.set_title(name)
    figure.colorbar(image, ax=ax, shrink=0.85, label="barrier in training loss")


def sharpness(valleys: Mapping[str, Valley], config: Config) -> Figure:
    """Draw the sharpness along the run, with restarts marked and the places before and after them."""
    with style():
        figure = canvas(11.0, 4.3)
        for ax, setting in zip(figure.subplots(1, 2), SETTINGS, strict=True):
            valley = valleys[setting]
            epochs = valley.sharp_steps / config.steps_per_epoch
            ends = valley.sharp_steps % config.cycle_steps == 0
            for k in range(1, config.cycles):
                ax.axvline(
                    k * config.cycle_steps / config.steps_per_epoch,
                    color=GREY,
                    linewidth=0.8,
                    linestyle=":",
                    label="restart" if k == 1 else None,
                )
            ax.errorbar(epochs, valley.sharp, yerr=valley.sharp_se, color=BLUE, linewidth=1.2, capsize=2, zorder=2)
            ax.plot(
                epochs[ends],
                valley.sharp[ends],
                "o",
                color=RED,
                markersize=6,
                label="end of a cycle: snapshot",
                zorder=3,
            )
            ax.set_ylim(bottom=0)
            ax.set_xlabel("epoch")
            ax.set_title(SETTING_TITLES[setting])
        figure.axes[0].set_ylabel("rise of the training loss")
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
        return figure


def saddle(descents: Mapping[str, Descent]) -> Figure:
    """Draw the four paths on the contours of the saddle, and loss and learning rate against updates."""
    with style():
        figure = canvas(12.0, 5.2)
        grid = figure.add_gridspec(2, 2, width_ratios=[1.0, 1.2])
        left = figure.add_subplot(grid[:, 0])
        x, y = np.linspace(-0.75, 0.75, 161), np.linspace(-0.45, 1.25, 161)
        height = saddle_part.surface(x, y)
        levels = [0.002, 0.02, 0.06, 0.12, 0.18, 0.22, 0.25, 0.3, 0.4, 0.7, 1.5, 3, 6]
        left.contourf(x, y, np.log10(height + 1e-3), levels=24, cmap=_SURFACE_MAP)
        left.contour(x, y, height, levels=levels, colors="white", linewidths=0.4, alpha=0.7)
        left.grid(False)
        looks = {"mean": ("-", 5.0, 3), "cyclical": (".-", 1.0, 4), "small": ("-", 2.5, 5)}
        for name, (form, width, order) in looks.items():
            left.plot(
                *descents[name].path.T, form, color=_SADDLE_COLOURS[name], linewidth=width, markersize=3.5, zorder=order
            )
        left.plot(*descents["small"].path[-1], "s", color="black", markersize=6, zorder=6)
        left.plot(*saddle_part.START, marker="X", markersize=9, color="white", markeredgecolor="black", zorder=6)
        last = tuple(descents["small"].path[-1])
        notes = (
            (saddle_part.START, "start", (-4, 12)),
            (last, "small rate, at the end", (14, 22)),
            ((0, 1), "minimum", (14, 6)),
            ((0, 0), "saddle", (14, -20)),
        )
        for place, text, offset in notes:
            left.annotate(
                text, place, offset, textcoords="offset points", fontsize=9, zorder=7,
                bbox={"boxstyle": "round,pad=0.2", "fc": "white", "ec": "none", "alpha": 0.85},
                arrowprops={"arrowstyle": "-", "lw": 0.7},
            )  # fmt: skip
        left.set_xlim(x[0], x[-1])
        left.set_ylim(y[0], y[-1])
        left.set_xlabel("x, steep")
        left.set_ylabel("y, flat at the saddle")
        left.set_title("Three paths from (0.6, 0.02)")
        top, bottom = figure.add_subplot(grid[0, 1]), figure.add_subplot(grid[1, 1])
        for name, run in descents.items():
            top.plot(run.losses, color=_SADDLE_COLOURS[name], label=run.title)
            bottom.plot(run.lrs, color=_SADDLE_COLOURS[name])
        top.set_yscale("log")
        top.set_ylim(1e-6, 1e3)
        top.set_ylabel("loss")
        top.set_title("Loss and learning rate")
        limit = 2 / saddle_part.CURVATURE
        line = bottom.axhline(
            limit, color=GREY, linewidth=1.2, linestyle=":", label=f"unstable if held above {limit:g}"
        )
        bottom.set_ylabel("learning rate")
        bottom.set_xlabel("update")
        handles, labels = top.get_legend_handles_labels()
        figure.legend([*handles, line], [*labels, line.get_label()], loc="outside lower center", ncols=5, fontsize=8.5)
        return figure
