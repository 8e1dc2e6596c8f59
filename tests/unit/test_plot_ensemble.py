"""Figures of ensembles and range tests: drawn on the axes that were given, every mark there, nothing shown or left open."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from thalweg.ensemble import Ensemble
from thalweg.lr_range import analyse

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402

from thalweg.plot import ensemble as draw  # noqa: E402
from thalweg.plot.range_test import range_test as draw_range_test  # noqa: E402


@pytest.fixture(autouse=True)
def _close() -> Iterator[None]:
    yield
    plt.close("all")


def report(m: int = 4, combine: Any = "prob") -> Any:
    torch.manual_seed(0)
    model = torch.nn.Linear(5, 3)
    states = [{k: torch.randn_like(v) for k, v in model.state_dict().items()} for _ in range(m)]
    y = torch.randn(40, 3) if combine == "mean" else torch.randint(0, 3, (40,))
    return Ensemble(model, states, combine=combine, steps=[10 * i for i in range(1, m + 1)]).report(
        (torch.randn(40, 5), y)
    )


def curve(flat: bool = False) -> Any:
    t = np.linspace(-6, 1, 200)
    loss = np.ones(200) if flat else 2 - 1.5 / (1 + np.exp(-5 * (t + 3))) + np.minimum(np.exp((t + 0.5) * 8), 9)
    return analyse(10**t, loss + 0.01 * np.random.default_rng(0).standard_normal(200))


def test_last_m_and_members() -> None:
    r = report()
    _, (left, right) = plt.subplots(1, 2)
    assert draw.last_m(r, left) is left
    assert left.lines[0].get_ydata().tolist() == [point.nll for point in r.last_m]
    assert draw.members(r, right, metric="error") is right
    assert [bar.get_height() for bar in right.patches] == [member.error for member in r.members]
    assert [text.get_text() for text in right.texts] == ["0.25"] * 4
    assert [label.get_text() for label in right.get_xticklabels()] == ["10", "20", "30", "40"]


@pytest.mark.parametrize("m", [1, 2, 6, 12])
def test_matrices(m: int) -> None:
    r = report(m)
    ax = draw.correlation(r)
    shown = np.ma.filled(ax.images[0].get_array(), np.nan)
    expected = r.correlation.numpy()
    off = ~np.eye(m, dtype=bool) if m > 1 else np.ones((1, 1), dtype=bool)
    np.testing.assert_array_equal(shown[off], expected[off])
    ax = draw.disagreement(r)
    assert len(ax.texts) == (m * (m - 1) if m <= 10 and m > 1 else int(m == 1))


@pytest.mark.parametrize(("combine", "panels"), [("prob", 4), ("mean", 2)])
def test_overview(combine: str, panels: int) -> None:
    axes = report(combine=combine).plot()
    assert len(axes) == panels
    axes[0].figure.canvas.draw()
    figure = plt.figure()
    assert report(combine=combine).plot(figure)[0].figure is figure


def test_range_test() -> None:
    r = curve()
    _, ax = plt.subplots()
    assert draw_range_test(r, ax) is ax
    assert {text.get_text() for text in ax.texts} == {"flat", "descent", "divergence"}
    verticals = [line.get_xdata()[0] for line in ax.lines[2:]]
    assert verticals == [r.suggestion, *r.bounds]
    assert ax.get_xscale() == "log"
    flat = curve(flat=True).plot()
    assert "no suggestion" in flat.get_title(loc="left")
    assert len(flat.lines) == 2


def test_the_users_settings_stay() -> None:
    before = dict(matplotlib.rcParams)
    curve().plot()
    report().plot()
    assert dict(matplotlib.rcParams) == before
