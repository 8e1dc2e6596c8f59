"""Figures of volumes, of refined surfaces and of landscapes that are not finished."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402

from thalweg.landscape import Line, Surface, Volume  # noqa: E402
from thalweg.landscape._order import progressive  # noqa: E402
from thalweg.plot import _landscape_preview  # noqa: E402
from thalweg.plot._landscape_html import surface_page  # noqa: E402
from thalweg.plot._landscape_values import coarse, line_label  # noqa: E402
from thalweg.plot.landscape import Preview  # noqa: E402

RANDOM = {"directions": {"kind": "random", "norm": "filter"}}


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    pyplot.close("all")


def bowl(nz: int = 9, ny: int = 6, nx: int = 7) -> Volume:
    z, y, x = (np.linspace(-1, 1, n) for n in (nz, ny, nx))
    values = z[:, None, None] ** 2 + y[:, None] ** 2 + x**2
    return Volume(x, y, z, {"loss": values, "accuracy": 1 - values / 4}, RANDOM)


@pytest.mark.parametrize(
    ("nz", "most", "shown"),
    [
        (9, 6, ["−1", "−0.5", "0", "0.5", "1"]),  # the middle is among them
        (4, 6, ["−1", "−0.333", "0.333", "1"]),
        (8, 2, ["−1", "1"]),
        (1, 6, ["−1"]),
        (13, 7, ["−1", "−0.667", "−0.333", "0", "0.333", "0.667", "1"]),
    ],
)
def test_slices_are_planes_on_one_scale(nz: int, most: int, shown: list[str]) -> None:
    axes = bowl(nz).plot.slices(most=most)
    assert [ax.get_title(loc="left") for ax in axes] == [f"z = {z}" for z in shown]
    levels = {tuple(ax.collections[0].levels.tolist()) for ax in axes}
    assert len(levels) == 1
    (figure,) = {ax.figure for ax in axes}
    assert figure._supxlabel.get_text() == "random direction 1, in filter norms"
    figure.canvas.draw()
    boxes = [ax.get_tightbbox() for ax in axes]
    width, height = figure.canvas.get_width_height()
    assert all(0 <= b.x0 < b.x1 <= width and 0 <= b.y0 < b.y1 <= height for b in boxes), "nothing is cut off"
    assert all(a.y0 >= b.y1 or a.x1 <= b.x0 + 1 for a, b in itertools.pairwise(boxes)), "nothing overlaps"


def test_slices_keep_gaps_and_are_refused_where_there_is_nothing() -> None:
    volume = bowl()
    volume.values["loss"][0] = np.nan
    volume.values["loss"][4, 1, 1] = np.inf
    assert len(volume.plot.slices()) == 5
    assert len(volume.plot.slices("accuracy")) == 5
    with pytest.raises(ValueError, match=r"slices: most must be an integer >= 1"):
        volume.plot.slices(most=0)
    with pytest.raises(ValueError, match="metric must be one of loss, accuracy"):
        volume.plot.slices("margin")
    with pytest.raises(ValueError, match="expected at least 2 x 2 points, got 1 x 7"):
        bowl(ny=1).plot.slices()
    volume.values["loss"][:] = np.nan
    with pytest.raises(ValueError, match="no finite number"):
        volume.plot.slices()


@pytest.mark.parametrize("shape", [(51, 51), (9, 30), (1, 7), (5, 6, 7)])
def test_what_is_not_known_yet_looks_like_the_nearest_point_of_the_finest_level(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng()
    whole, order = rng.normal(size=shape), progressive(shape)
    for count in (1, 5, whole.size // 3, whole.size):
        partly = np.full(whole.size, np.nan)
        partly[order[:count]] = whole.ravel()[order[:count]]
        known = np.isfinite(partly).reshape(shape)
        shown = coarse(partly.reshape(shape))
        assert np.isfinite(shown).all()
        np.testing.assert_array_equal(shown[known], whole[known])
        for place in rng.integers(0, shape, (20, len(shape))).tolist():
            power = 0  # by hand, for one place after the other
            while True:
                step = 1 << power
                near = [min(int(i / step + 0.5), (n - 1) // step) * step for i, n in zip(place, shape, strict=True)]
                if known[tuple(near)]:
                    break
                power += 1
            assert shown[tuple(place)] == whole[tuple(near)]


def test_a_preview_is_drawn_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(_landscape_preview.time, "monotonic", lambda: now)
    path, volume = tmp_path / "so_far.png", bowl()
    surface = Surface(volume.x, volume.y, {"loss": volume.values["loss"][0]}, RANDOM)
    preview = Preview(path)
    preview(surface)
    assert not path.exists(), "not at once"
    now += 2
    preview(Surface(volume.x, volume.y, {"loss": np.full((6, 7), np.nan)}, RANDOM))
    assert not path.exists(), "nothing is known"
    preview(surface)
    first = path.stat().st_ino
    now += 1
    preview(surface)
    assert path.stat().st_ino == first
    now += 5
    preview(surface)
    assert path.stat().st_ino != first, "written anew and renamed"
    preview.draw(volume)
    assert [p.name for p in tmp_path.iterdir()] == ["so_far.png"]
    assert not pyplot.get_fignums()
    assert surface.values["loss"] is not None
    with pytest.raises(FileNotFoundError, match="no directory"):
        Preview(tmp_path / "missing" / "p.png").draw(surface)


def refined() -> Surface:
    x = np.linspace(0, 1, 9)
    known = np.zeros((9, 9), dtype=bool)
    known[::8, ::8] = known[::4, ::4] = True
    values = x[:, None] + 2 * x
    return Surface(x, x, {"loss": np.where(known, values, np.nan)}, {}, evaluated=known)


def test_pages_say_what_is_interpolated() -> None:
    surface = refined()
    figure = surface_page(surface, "loss")
    assert figure.layout.title.text == "9 × 9 points, 9 of them evaluated"
    for trace in figure.data:
        assert "loss %{customdata}<" in trace.hovertemplate
        assert trace.customdata[4][8] == "2.5"
        assert trace.customdata[0][1] == "≈ 0.25, interpolated"
        assert json.loads(trace.to_json())["customdata"][0][1] == "≈ 0.25, interpolated"
        assert np.isfinite(np.asarray(trace.z)).all()
    whole = Surface(surface.x, surface.y, {"loss": surface.filled()}, {})
    assert all("%{customdata:.5g}" in trace.hovertemplate for trace in surface_page(whole, "loss").data)


def test_heat_maps_of_refined_surfaces_show_what_is_known() -> None:
    surface = refined()
    for log in (False, True):
        mesh = surface.plot.heatmap(log=log).collections[0]
        np.testing.assert_array_equal(np.ma.getmaskarray(mesh.get_array()).reshape(9, 9), ~surface.evaluated)
    assert not np.ma.getmaskarray(np.ma.masked_invalid(surface.filled())).any()
    thin = Surface(surface.x, surface.y[:1], {"loss": surface.values["loss"][:1]}, {})
    with pytest.raises(ValueError, match="expected at least 2 x 2 points, got 1 x 9; draw a heat map"):
        thin.plot.contour()


def test_lines_say_what_they_lie_along() -> None:
    alphas = np.linspace(-0.5, 1.5, 5)
    line = {kind: Line(alphas, {"loss": alphas**2}, {"directions": {"kind": kind}}) for kind in ("between", "random")}
    assert line["between"].plot().get_xlabel() == "place on the line between the two models"
    assert line_label(line["random"]) == "random direction 1"
    assert line_label(Line(alphas, {"loss": alphas}, {})) == "place on the line"
    assert len(line["random"].plot().lines) == 2, "the model is at 0 and nothing is at 1"
    assert len(line["between"].plot().lines) == 3
