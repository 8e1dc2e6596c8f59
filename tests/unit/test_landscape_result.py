"""Results: files, facts, figures, command line."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import torch
from torch import nn

mpl.use("Agg")

from matplotlib import pyplot

from thalweg.cli import main
from thalweg.landscape import Evaluator, Line, Points, Surface, Trajectory, load, pca_directions, span
from thalweg.plot._landscape_html import surface_page
from thalweg.plot._landscape_values import displayed, levels_of


@pytest.fixture
def surface() -> Surface:
    x, y = np.linspace(-1, 2, 7), np.linspace(0, 1, 5)
    loss = (x[None, :] - 0.5) ** 2 + 2 * (y[:, None] - 0.25) ** 2
    return Surface(x, y, {"loss": loss, "accuracy": 1 - loss}, {"samples": 3, "directions": None}, {"seconds": 0.5})


def test_round_trip_keeps_every_bit(tmp_path: Path, surface: Surface) -> None:
    surface.values["loss"][0, 0], surface.values["loss"][1, 1] = np.nan, np.inf
    back = load(surface.save(tmp_path / "s.npz"))
    assert isinstance(back, Surface)
    for a, b in ((surface.x, back.x), (surface.y, back.y), (surface.values["loss"], back.values["loss"])):
        assert a.tobytes() == b.tobytes()
    assert (back.metadata, back.timings) == (surface.metadata, surface.timings)
    line = Line(np.arange(3.0), {"loss": np.arange(3.0)}, {}, {})
    assert isinstance(load(line.save(tmp_path / "l.npz")), Line)
    points = Points(np.array([[0.1, 0.2]]), {"loss": np.ones(1)}, {"samples": 1}, {})
    kept = load(points.save(tmp_path / "p.npz"))
    assert isinstance(kept, Points)
    assert kept.coordinates.tolist() == [[0.1, 0.2]]


def test_a_saved_file_has_the_permissions_of_any_new_file(tmp_path: Path, surface: Surface) -> None:
    plain = tmp_path / "plain"
    plain.touch()
    assert surface.save(tmp_path / "s.npz").stat().st_mode == plain.stat().st_mode
    before = (tmp_path / "s.npz").read_bytes()
    surface.metadata["bad"] = object()
    with pytest.raises(TypeError):
        surface.save(tmp_path / "s.npz")
    assert (tmp_path / "s.npz").read_bytes() == before
    (tmp_path / "folder.npz").mkdir()
    del surface.metadata["bad"]
    with pytest.raises(IsADirectoryError, match="is a directory"):
        surface.save(tmp_path / "folder.npz")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder.npz", "plain", "s.npz"]


def test_minimum_skips_what_is_not_finite(surface: Surface) -> None:
    assert surface.minimum() == (0.5, 0.25, 0.0)
    surface.values["loss"][1, 3] = np.nan
    assert surface.minimum()[:2] != (0.5, 0.25)
    surface.values["loss"][:] = np.inf
    with pytest.raises(ValueError, match="no finite value"):
        surface.minimum()


@pytest.mark.parametrize("damage", ["truncate", "foreign", "empty", "pickle"])
def test_damaged_files_are_named(tmp_path: Path, surface: Surface, damage: str) -> None:
    path = surface.save(tmp_path / "s.npz")
    if damage == "truncate":
        path.write_bytes(path.read_bytes()[:200])
    elif damage == "foreign":
        np.savez(path, a=np.ones(3))
    elif damage == "pickle":
        np.savez(path, header=np.array([{}], dtype=object))
    else:
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="not a landscape of thalweg"):
        load(path)


def test_save_refuses_and_leaves_nothing(tmp_path: Path, surface: Surface) -> None:
    with pytest.raises(FileNotFoundError, match="no directory"):
        surface.save(tmp_path / "missing" / "s.npz")
    with pytest.raises(ValueError, match=r"must end in \.npz"):
        surface.save(tmp_path / "s.txt")
    surface.metadata["bad"] = object()
    with pytest.raises(TypeError):
        surface.save(tmp_path / "s.npz")
    assert not list(tmp_path.iterdir())


def test_figures_draw_on_the_axes_they_are_given(surface: Surface) -> None:
    figure, axes = pyplot.subplots(1, 2)
    assert surface.plot.contour(ax=axes[0], snapshots=np.array([[0.0, 0.5], [0.01, 0.5]])) is axes[0]
    assert surface.plot.heatmap(ax=axes[1], metric="accuracy") is axes[1]
    assert surface.plot.surface().get_zlabel() == "log10 of excess loss"
    labels = [t for t in axes[0].texts if t.get_text() in "12"]
    assert len({t.get_position()[1] for t in labels}) == 2, "numbers of close snapshots must not cover each other"
    line = Line(np.linspace(0, 1, 5), {"loss": np.arange(5.0)}, {})
    assert line.plot.line(ax=axes[0]) is line.plot(ax=axes[0]) is axes[0]
    with pytest.raises(ValueError, match="metric must be one of loss"):
        line.plot(metric="volume")
    surface.values["loss"][:] = np.nan
    with pytest.raises(ValueError, match="no finite number"):
        surface.plot.contour()
    pyplot.close("all")


def test_pictures_clip_infinity_and_leave_gaps_for_nan(surface: Surface) -> None:
    values = surface.values["loss"]
    largest = values.max()
    values[0, 0], values[1, 1], values[2, 2] = np.nan, np.inf, -np.inf
    shown = displayed(values)
    assert np.isnan(shown[0, 0])
    assert np.isnan(shown[2, 2])
    assert shown[1, 1] == np.nanmax(shown) == largest
    assert np.isinf(values[1, 1]), "only the picture is clipped"
    surface.plot.contour()
    levels = levels_of(values, "loss")
    assert (np.diff(np.diff(levels)) > 0).all(), "log-spaced: finer towards the minimum"
    np.testing.assert_allclose(np.diff(levels_of(surface.values["accuracy"], "accuracy"), 2), 0, atol=1e-12)
    pyplot.close("all")


def test_path_is_coloured_by_what_was_recorded() -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    track = Trajectory(model)
    for step in range(6):
        nn.init.normal_(model.weight)
        track.record(step=step, loss=float(step))
    directions = pca_directions(track)
    ev = Evaluator(model, "mse", (torch.randn(5, 3), torch.randn(5, 2)))
    surface = ev.grid(directions, *span(directions, track, n=7))
    by_loss = surface.plot.contour(trajectory=track)
    marks = by_loss.collections[-1]
    assert marks.get_array().tolist() == [0, 1, 2, 3, 4, 5]
    assert marks.norm is by_loss.collections[0].norm, "the true loss on the surface's own scale"
    by_step = surface.plot.contour(trajectory=track, colour_by="step").collections[-1]
    assert by_step.norm is not marks.norm
    with pytest.raises(ValueError, match="colour_by='lr' must be recorded"):
        surface.plot.contour(trajectory=track, colour_by="lr")
    x, y = by_loss.get_xlim(), by_loss.get_ylim()
    assert x[0] <= surface.x[0] < surface.x[-1] <= x[1]
    assert y[0] <= surface.y[0] < surface.y[-1] <= y[1]
    pyplot.close("all")


def test_html_is_self_contained(tmp_path: Path, surface: Surface) -> None:
    line = Line(np.linspace(0, 1, 5), {"loss": np.arange(5.0), "accuracy": np.ones(5)}, {})
    for path in (surface.to_html(tmp_path / "s.html"), line.to_html(tmp_path / "l.html")):
        page = path.read_text()
        assert "<script src=" not in page
        assert "Plotly.newPlot" in page
    assert sorted(p.name for p in tmp_path.iterdir()) == ["l.html", "s.html"]


def test_page_shows_surface_and_contours_and_switches_metrics(surface: Surface) -> None:
    surface.values["empty"] = np.full((5, 7), np.nan)
    figure = surface_page(surface, "accuracy")
    assert [(trace.type, trace.visible) for trace in figure.data] == [
        ("surface", True), ("contour", True), ("surface", False), ("contour", False)
    ]  # fmt: skip
    buttons = {b.label: b.args[0]["visible"] for b in figure.layout.updatemenus[0].buttons}
    assert buttons == {"accuracy": [True, True, False, False], "loss": [False, False, True, True]}
    np.testing.assert_array_equal(figure.data[0].z, surface.values["accuracy"])
    np.testing.assert_array_equal(figure.data[2].customdata, surface.values["loss"])


def test_command_line(tmp_path: Path, surface: Surface, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(surface.save(tmp_path / "s.npz"))
    assert main(["landscape", "plot", path, "--out", str(tmp_path / "a.png")]) == 0
    assert main(["landscape", "plot", path, "--out", str(tmp_path / "a.html"), "--metric", "accuracy"]) == 0
    assert (tmp_path / "a.png").stat().st_size > 5000
    capsys.readouterr()
    assert main(["landscape", "info", path, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["shape"] == [5, 7]
    assert main(["landscape", "plot", path, "--out", str(tmp_path / "b.png"), "--metric", "nope"]) == 1
    assert "metric must be one of loss, accuracy" in capsys.readouterr().err
    assert main(["landscape", "plot", path, "--out", str(tmp_path / "b.png"), "--kind", "line"]) == 1
    assert main(["landscape", "plot", path, "--out", str(tmp_path / "b.nope")]) == 1
    line = str(Line(np.linspace(0, 1, 5), {"loss": np.arange(5.0)}, {}).save(tmp_path / "l.npz"))
    assert main(["landscape", "plot", line, "--out", str(tmp_path / "l.svg")]) == 0
    assert main(["landscape", "plot", line, "--out", str(tmp_path / "l.html")]) == 0
    points = str(Points(np.ones((1, 2)), {"loss": np.full(1, np.inf)}, {}).save(tmp_path / "p.npz"))
    assert main(["landscape", "plot", points, "--out", str(tmp_path / "b.png")]) == 1
    capsys.readouterr()
    assert main(["landscape", "info", points, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ranges"] == {"loss": None}
    assert not list(tmp_path.glob("b.*")), "nothing half-written"
    assert main(["landscape", "info", str(tmp_path / "none.npz")]) == 1
    pyplot.close("all")
