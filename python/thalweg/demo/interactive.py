"""Interactive figures of the report, with plotly: curves to read off, surfaces to turn. Decides nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .._extras import require
from .config import SETTING_TITLES, SETTINGS, Config
from .figures import METHOD_COLOURS, smooth
from .landscape_part import Valley
from .runs import METHODS, TITLES, Pictures

_COLD = [[0.0, "#08306b"], [0.5, "#4292c6"], [1.0, "#c6dbef"]]
_HOT = [[0.0, "#ffff00"], [1.0, "#ff0000"]]  # as in the PNG figures: red is a high learning rate
_KEEP = 3  # every third update is enough for a screen


def runs(pictures: Mapping[str, Pictures], config: Config) -> Any:
    """Return learning rate above training loss; a menu chooses the setting, the legend the runs."""
    figure = require("plotly.subplots", "the demo's report").make_subplots(
        rows=2, cols=1, shared_xaxes=True, row_heights=[0.4, 0.6], vertical_spacing=0.06
    )
    window = config.steps_per_epoch
    for setting in SETTINGS:
        for method in METHODS:
            curve = pictures[setting].curves[method]
            losses = smooth(curve.losses, window)[::_KEEP]
            common = {
                "line": {"color": METHOD_COLOURS[method], "width": 2},
                "name": TITLES[method].replace(", last snapshot", ""),
                "legendgroup": method,
                "visible": setting == SETTINGS[0],
            }
            figure.add_scatter(
                x=(np.arange(len(curve.lrs)) / window)[::_KEEP].round(3),
                y=curve.lrs[::_KEEP].astype(np.float32),
                hovertemplate="epoch %{x:.1f}: learning rate %{y:.3g}",
                row=1,
                col=1,
                **common,
            )
            figure.add_scatter(
                x=((np.arange(len(losses)) * _KEEP + window / 2) / window).round(3),
                y=losses.astype(np.float32),
                hovertemplate="epoch %{x:.1f}: loss %{y:.3g}",
                showlegend=False,
                row=2,
                col=1,
                **common,
            )
    per_setting = 2 * len(METHODS)
    buttons = [
        {
            "label": SETTING_TITLES[setting],
            "method": "restyle",
            "args": ["visible", [index // per_setting == place for index in range(2 * per_setting)]],
        }
        for place, setting in enumerate(SETTINGS)
    ]
    figure.update_layout(
        margin={"l": 60, "r": 15, "t": 50, "b": 45},
        legend={"orientation": "h", "y": -0.14},
        updatemenus=[
            {"buttons": buttons, "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom", "showactive": True}
        ],
        hovermode="x",
    )
    figure.update_yaxes(title_text="learning rate", row=1, col=1)
    figure.update_yaxes(title_text="training loss", type="log", dtick=1, row=2, col=1)
    figure.update_xaxes(title_text="epoch", row=2, col=1)
    return figure


def valley(found: Valley) -> Any:
    """Return the PCA plane as a surface to turn, with the path coloured by learning rate, and the snapshots."""
    rows = found.snapshot_rows
    route = np.column_stack([found.coordinates, found.plane_loss])
    figure = found.pca.plot.figure(trajectory=route, snapshots=route[rows])
    surface, path, snapshots = figure.data
    surface.update(colorscale=_COLD)
    surface.colorbar.update(title={"text": "log10 excess<br>loss"}, len=0.55, thickness=14)
    lrs = [entry["lr"] for entry in found.trajectory.metadata]
    path.update(
        mode="lines",
        line={"color": lrs, "colorscale": _HOT, "width": 7},
        showlegend=False,
        customdata=np.column_stack([found.steps, lrs, found.plane_loss]),
        hovertemplate="update %{customdata[0]:.0f}<br>learning rate %{customdata[1]:.3g}<br>loss %{customdata[2]:.3g}"
        "<extra></extra>",
        hoverinfo=None,
    )
    losses = found.results["pca"]["snapshot_loss"]
    snapshots.update(
        customdata=np.column_stack([np.arange(1, len(rows) + 1), losses, found.plane_loss[rows]]),
        hovertemplate="snapshot %{customdata[0]:.0f}<br>its own loss %{customdata[1]:.3g}"
        "<br>loss in the plane %{customdata[2]:.3g}<extra></extra>",
        marker={"size": 5, "color": "#ffffff", "line": {"color": "#111827", "width": 2}},
    )
    figure.update_layout(
        showlegend=False,
        scene={
            "xaxis_title": "PC 1",
            "yaxis_title": "PC 2",
            "zaxis_title": "log10 excess loss",
            "aspectmode": "manual",
            "aspectratio": {"x": 1.25, "y": 1.0, "z": 0.55},
            "camera": {"eye": {"x": 0.75, "y": -1.45, "z": 1.0}, "center": {"x": 0, "y": 0, "z": -0.15}},
        },
    )
    return figure
