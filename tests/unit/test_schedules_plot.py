"""Figures of schedules: what is drawn, and nothing is left behind in matplotlib's settings."""

from __future__ import annotations

import numpy as np
import pytest

from thalweg import schedules

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("agg")
from matplotlib import pyplot as plt  # noqa: E402


@pytest.fixture(autouse=True)
def closed_figures() -> object:
    yield
    plt.close("all")


def test_curve_is_the_values() -> None:
    schedule = schedules.warmup(5, 0.1) >> schedules.sgdr(0.1, 10)
    before = dict(matplotlib.rcParams)
    ax = schedule.plot(steps=50)
    assert dict(matplotlib.rcParams) == before
    x, y = ax.lines[-1].get_data()
    np.testing.assert_array_equal(x, np.arange(50))
    np.testing.assert_array_equal(y, schedule.values(50))
    assert ax.get_xlabel() == "step"
    assert ax.get_ylabel() == "learning rate"


def test_given_axes_and_default_length() -> None:
    _, ax = plt.subplots()
    assert schedules.cosine(0.1, 80).plot(ax) is ax
    assert len(ax.lines[-1].get_xdata()) == 80


def test_a_trillion_steps_are_drawn_from_a_few_points() -> None:
    ax = schedules.cosine(0.1, 10**12).plot()
    x, y = ax.lines[-1].get_data()
    assert len(x) < 10_000
    assert x[-1] == 10**12 - 1
    assert y[0] == 0.1
