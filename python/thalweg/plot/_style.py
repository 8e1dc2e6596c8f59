"""One look for every figure: colours, figure sizes, axes. matplotlib is imported only when a figure is drawn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .._extras import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette: told apart by colour-blind readers, and in grey by their order of lightness.
BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, YELLOW, GREY = "#CC79A7", "#56B4E9", "#F0E442", "#6B7280"
COLOURS = (BLUE, RED, GREEN, ORANGE, PURPLE, SKY, GREY, YELLOW)
SURFACE_MAP = "viridis"
DIVERGING_MAP = "RdBu_r"

_RC: dict[str, Any] = {
    "figure.dpi": 110,
    "savefig.dpi": 150,
    "savefig.bbox": "tight",
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E5E7EB",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.6,
}


@contextmanager
def style() -> Iterator[Any]:
    """Apply the look to figures made inside; yields `matplotlib.pyplot`. Global settings come back afterwards."""
    matplotlib = require("matplotlib", "plotting")
    pyplot = require("matplotlib.pyplot", "plotting")
    from cycler import cycler

    with matplotlib.rc_context({**_RC, "axes.prop_cycle": cycler(color=COLOURS)}):
        yield pyplot


def axes_or_new(ax: Axes | None, width: float = 6.4, height: float = 4.0, **subplot: Any) -> Axes:
    """Return `ax`, or the axes of a new figure of width x height inches; call it inside `style()`."""
    if ax is not None:
        return ax
    pyplot = require("matplotlib.pyplot", "plotting")
    figure = pyplot.figure(figsize=(width, height), layout="constrained")
    return figure.add_subplot(1, 1, 1, **subplot)
