"""Results: files, facts, figures, command line."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest

mpl.use("Agg")

from matplotlib import pyplot

from thalweg.cli import main
from thalweg.landscape import Line, Surface, load


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
    surface.values["loss"][:] = np.nan
    with pytest.raises(ValueError, match="no finite number"):
        surface.plot.contour()
    pyplot.close("all")


def test_html_is_self_contained(tmp_path: Path, surface: Surface) -> None:
    page = surface.to_html(tmp_path / "s.html").read_text()
    assert "<script src=" not in page
    assert "Plotly.newPlot" in page
    assert [p.name for p in tmp_path.iterdir()] == ["s.html"]


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
    assert main(["landscape", "info", str(tmp_path / "none.npz")]) == 1
    pyplot.close("all")
