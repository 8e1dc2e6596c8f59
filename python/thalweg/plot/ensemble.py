"""Figures of an ensemble: members, last-m curve, diversity matrices. Knows the report, not the models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .._extras import require
from ._style import BLUE, GREY, ORANGE, RED, SURFACE_MAP, axes_or_new, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..ensemble import EnsembleReport

_NAMES = {
    "error": "test error",
    "nll": "NLL (nats)",
    "brier": "Brier score",
    "ece": "calibration error",
    "mse": "MSE",
}


def last_m(report: EnsembleReport, ax: Axes | None = None, metric: str | None = None) -> Axes:
    """Draw a metric of the equally weighted last m members against m, ensemble and last member as lines."""
    with style():
        ax = axes_or_new(ax)
        metric = metric or _default(report)
        m = np.arange(1, len(report.last_m) + 1)
        values = [getattr(point, metric) for point in report.last_m]
        ax.plot(m, values, "o-", color=BLUE, label="last m, equal weights")
        ax.axhline(getattr(report.ensemble, metric), color=ORANGE, label="ensemble as fitted")
        ax.axhline(getattr(report.members[-1], metric), color=GREY, linestyle="--", label="last member alone")
        bottom, top = ax.get_ylim()
        ax.set_ylim(bottom, top + 0.35 * (top - bottom))  # room for the legend
        ax.set_xticks(m)
        ax.set_xlabel("m, members counted from the last")
        ax.set_ylabel(_NAMES.get(metric, metric))
        ax.set_title("How many members help")
        ax.legend(loc="upper right")
    return ax


def members(report: EnsembleReport, ax: Axes | None = None, metric: str | None = None) -> Axes:
    """Draw a metric of each member as bars, its weight above, and the ensemble as a line."""
    with style():
        ax = axes_or_new(ax)
        metric = metric or _default(report)
        values = [getattr(member, metric) for member in report.members]
        places = np.arange(len(values))
        ax.bar(places, values, color=BLUE, width=0.65, label="member (its weight inside)")
        for place, value, weight in zip(places, values, report.weights, strict=True):
            ax.text(float(place), 0.02 * value, f"{weight:.2f}", ha="center", va="bottom", fontsize=8, color="white")
        ax.axhline(getattr(report.ensemble, metric), color=RED, label="ensemble")
        ax.set_xticks(places, [str(step) for step in report.steps])
        ax.set_ylim(0, max([*values, getattr(report.ensemble, metric)]) * 1.3 or 1.0)
        ax.set_xlabel("member: optimizer step at which it was taken")
        ax.set_ylabel(_NAMES.get(metric, metric))
        ax.set_title("Members and their ensemble")
        ax.legend(loc="upper left", ncols=2)
    return ax


def correlation(report: EnsembleReport, ax: Axes | None = None) -> Axes:
    """Draw the correlation of the members' probabilities as a matrix."""
    return _matrix(report, np.asarray(report.correlation), ax, "Correlation of probabilities", "{:.3f}")


def disagreement(report: EnsembleReport, ax: Axes | None = None) -> Axes:
    """Draw the share of samples on which two members differ as a matrix."""
    return _matrix(report, np.asarray(report.disagreement) * 100, ax, "Disagreement (% of samples)", "{:.1f}")


def overview(report: EnsembleReport, figure: Figure | None = None) -> list[Axes]:
    """Draw members, last-m curve and, for classifiers, both matrices on one figure; returns the axes."""
    with style():
        pyplot = require("matplotlib.pyplot", "plotting")
        rows = 1 if report.diversity is None else 2
        if figure is None:
            figure = pyplot.figure(figsize=(10, 4 * rows), layout="constrained")
        axes = list(np.ravel(figure.subplots(rows, 2)))
        drawn = [members(report, axes[0]), last_m(report, axes[1])]
        if rows == 2:
            drawn += [correlation(report, axes[2]), disagreement(report, axes[3])]
    return drawn


def _default(report: EnsembleReport) -> str:
    return "nll" if hasattr(report.ensemble, "nll") else "mse"


def _matrix(report: EnsembleReport, values: Any, ax: Axes | None, title: str, form: str) -> Axes:
    with style():
        ax = axes_or_new(ax, 5.2, 4.4)
        m = len(values)
        shown = np.where(np.eye(m, dtype=bool), np.nan, values) if m > 1 else values  # the diagonal says nothing
        image = ax.imshow(shown, cmap=SURFACE_MAP)
        ax.figure.colorbar(image, ax=ax, shrink=0.85)
        middle = (np.nanmin(shown) + np.nanmax(shown)) / 2 if np.isfinite(shown).any() else 0.0
        if m <= 10:
            for (i, j), value in np.ndenumerate(shown):
                if np.isfinite(value):
                    colour = "black" if value > middle else "white"
                    ax.text(j, i, form.format(value), ha="center", va="center", fontsize=8, color=colour)
        labels = [str(step) for step in report.steps]
        ax.set_xticks(range(m), labels, rotation=45 if m > 6 else 0)
        ax.set_yticks(range(m), labels)
        ax.grid(False)
        for side in ("left", "bottom"):
            ax.spines[side].set_visible(False)
        ax.tick_params(length=0)
        ax.set_xlabel("optimizer step of the member")
        ax.set_title(title)
    return ax
