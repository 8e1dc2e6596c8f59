"""Interactive figures of landscapes (plotly): surface and contours side by side, lines. Knows results, no model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .._extras import require
from ..landscape import Line, Surface
from ._landscape_values import axis_labels, heights, lifted, line_label
from ._style import COLOURS

Array = npt.NDArray[np.float64]

_WHO = "an interactive landscape"
_SCALE = "Viridis"


def scene(surface: Surface, metric: str, trajectory: Array | None, snapshots: Array | None) -> Any:
    """The 3-D surface alone; paths and snapshots are [m, 3]: x, y, value."""
    go = require("plotly.graph_objects", _WHO)
    figure = go.Figure(_surface(go, surface, metric, True, {"title": heights(surface, metric)[1], "len": 0.6}))
    if trajectory is not None:
        z = lifted(surface, metric, trajectory[:, 2]) + 0.02
        figure.add_scatter3d(
            x=trajectory[:, 0], y=trajectory[:, 1], z=z, mode="lines", line={"color": "#D55E00", "width": 5},
            name="path", hoverinfo="skip",
        )  # fmt: skip
    if snapshots is not None:
        z = lifted(surface, metric, snapshots[:, 2]) + 0.04
        figure.add_scatter3d(
            x=snapshots[:, 0], y=snapshots[:, 1], z=z, mode="markers+text", textposition="top center",
            text=[str(i + 1) for i in range(len(snapshots))], marker={"size": 5, "color": "#111827"}, name="snapshots",
            customdata=snapshots[:, 2], hovertemplate=_hover(metric),
        )  # fmt: skip
    figure.update_layout(
        margin={"l": 0, "r": 0, "t": 10, "b": 0}, scene=_axes(surface, metric), legend={"x": 0, "y": 1}
    )
    return figure


def _surface(go: Any, surface: Surface, metric: str, visible: bool, bar: dict[str, Any] | None) -> Any:
    return go.Surface(
        x=surface.x, y=surface.y, z=heights(surface, metric)[0], **_told(surface, metric), colorscale=_SCALE,
        opacity=0.95, visible=visible, showscale=bar is not None, colorbar=bar,
    )  # fmt: skip


def _contours(go: Any, surface: Surface, metric: str, visible: bool) -> Any:
    z, label = heights(surface, metric)
    return go.Contour(
        x=surface.x, y=surface.y, z=z, **_told(surface, metric), colorscale=_SCALE, visible=visible, ncontours=20,
        colorbar={"title": {"text": label, "side": "right"}},
    )  # fmt: skip


def _told(surface: Surface, metric: str) -> dict[str, Any]:
    """What is shown of a point; of a refined surface's that were not evaluated, that they are interpolated."""
    if surface.evaluated is None:
        return {"customdata": surface.metric(metric), "hovertemplate": _hover(metric)}
    values = np.char.mod("%.5g", surface.filled(metric)).astype(object)
    words = np.where(surface.evaluated, values, "≈ " + values + ", interpolated")
    return {"customdata": words, "hovertemplate": _hover(metric).replace(":.5g", "")}


def _hover(metric: str) -> str:
    return f"x %{{x:.4g}}<br>y %{{y:.4g}}<br>{metric} %{{customdata:.5g}}<extra></extra>"


def _axes(surface: Surface, metric: str) -> dict[str, Any]:
    first, second = (label.split(" (")[0] for label in axis_labels(surface))
    return {
        "xaxis": {"title": {"text": first}},
        "yaxis": {"title": {"text": second}},
        "zaxis": {"title": {"text": heights(surface, metric)[1]}},
        "camera": {"eye": {"x": 1.2, "y": -2.0, "z": 1.25}, "center": {"x": -0.1, "y": 0, "z": -0.15}},
    }


def surface_page(surface: Surface, metric: str) -> Any:
    """Surface and contours side by side; a menu chooses the metric when there are several."""
    go = require("plotly.graph_objects", _WHO)
    names = [metric, *(name for name in surface.values if name != metric)]
    names = [name for name in names if np.isfinite(surface.metric(name)).any()]
    figure = require("plotly.subplots", _WHO).make_subplots(
        rows=1, cols=2, specs=[[{"type": "scene"}, {"type": "xy"}]], horizontal_spacing=0.06
    )
    for name in names:
        figure.add_trace(_surface(go, surface, name, name == metric, None), row=1, col=1)
        figure.add_trace(_contours(go, surface, name, name == metric), row=1, col=2)
    first, second = axis_labels(surface)
    figure.update_xaxes(title={"text": first}, row=1, col=2)
    figure.update_yaxes(title={"text": second}, row=1, col=2)
    figure.update_layout(
        scene=_axes(surface, metric), height=680, margin={"l": 10, "r": 10, "t": 60, "b": 50},
        title={"text": _title(surface), "x": 0.5},
    )  # fmt: skip
    buttons = [
        {
            "label": name,
            "method": "update",
            "args": [
                {"visible": [other == name for other in names for _ in range(2)]},
                {"scene.zaxis.title.text": heights(surface, name)[1]},
            ],
        }
        for name in names
    ]
    _menu(figure, buttons)
    return figure


def line_page(line: Line) -> Any:
    """The values along a line; a menu chooses the metric when there are several."""
    go = require("plotly.graph_objects", _WHO)
    names = list(line.values)
    figure = go.Figure()
    for i, name in enumerate(names):
        figure.add_scatter(
            x=line.alphas, y=line.values[name], mode="lines+markers", name=name, visible=i == 0,
            line={"color": COLOURS[i % len(COLOURS)]}, hovertemplate=f"%{{x:.4g}}<br>{name} %{{y:.5g}}<extra></extra>",
        )  # fmt: skip
    figure.update_layout(
        template="plotly_white", height=520, margin={"l": 60, "r": 20, "t": 60, "b": 50}, showlegend=False,
        xaxis={"title": {"text": line_label(line)}}, yaxis={"title": {"text": names[0]}},
    )  # fmt: skip
    _menu(
        figure,
        [
            {
                "label": name,
                "method": "update",
                "args": [{"visible": [other == name for other in names]}, {"yaxis.title.text": name}],
            }
            for name in names
        ],
    )
    return figure


def _menu(figure: Any, buttons: Sequence[dict[str, Any]]) -> None:
    if len(buttons) > 1:
        menu = {"buttons": list(buttons), "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"}
        figure.update_layout(updatemenus=[menu])


def _title(surface: Surface) -> str:
    samples = surface.metadata.get("samples")
    shape = f"{len(surface.x)} × {len(surface.y)} points"
    if surface.evaluated is not None:
        shape += f", {int(surface.evaluated.sum()):,} of them evaluated"
    return shape if samples is None else f"{shape}, {samples:,} samples"
