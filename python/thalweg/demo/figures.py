"""Figures of parts (a) to (c) and (e), drawn with matplotlib from what was measured. Decides nothing, saves nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .._extras import require
from ..lr_range import RangeTestResult
from ..plot._style import BLUE, COLOURS, GREEN, GREY, ORANGE, PURPLE, RED, SKY, style
from ..plot.range_test import range_test as draw_range_test
from .config import SETTING_TITLES, SETTINGS, Config
from .data import Split
from .runs import METHODS, TITLES, Pictures
from .stats import mean_se
from .timing import TITLES as TIMED
from .training import Curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

METHOD_COLOURS = dict(zip(METHODS, (GREY, BLUE, GREEN, ORANGE, RED), strict=True))
ENSEMBLE_COLOURS = {"snapshot": RED, "nocycle": BLUE}


def canvas(width: float, height: float) -> Figure:
    """Return an empty figure of width x height inches; call it inside `style()`."""
    figure: Figure = require("matplotlib.figure", "the demo").Figure(figsize=(width, height), layout="constrained")
    return figure


def smooth(values: Any, window: int) -> Any:
    """Return the running mean over `window` values, [len(values) - window + 1]."""
    return np.convolve(np.asarray(values, dtype=np.float64), np.full(window, 1.0 / window), mode="valid")


def digits(split: Split, noisy: Split, rows: int = 3, columns: int = 12) -> Figure:
    """Draw training images with the label that training sees; wrong ones stand out."""
    with style():
        figure = canvas(9.0, 0.62 * rows * 9.0 / columns * 2.0)
        axes = figure.subplots(rows, columns)
        for index, ax in enumerate(axes.flat):
            ax.imshow(-split.x_train[index, 0].numpy(), cmap="gray")
            ax.set_axis_off()
            true, given = int(split.y_train[index]), int(noisy.y_train[index])
            wrong = given != true
            text = f"{given}, not {true}" if wrong else str(given)
            ax.set_title(
                text,
                fontsize=9,
                color=RED if wrong else "black",
                fontweight="bold" if wrong else "normal",
                loc="center",
            )
        return figure


def range_tests(results: Mapping[str, RangeTestResult]) -> Figure:
    """Draw both range tests side by side."""
    with style():
        figure = canvas(11.0, 4.9)
        for ax, setting in zip(figure.subplots(1, 2), SETTINGS, strict=True):
            draw_range_test(results[setting], ax)
            ax.set_title(SETTING_TITLES[setting])
        return figure


def runs(pictures: Mapping[str, Pictures], config: Config) -> Figure:
    """Draw learning rate, training loss and validation error of the five runs, one column per setting."""
    with style():
        figure = canvas(11.0, 9.0)
        axes = figure.subplots(3, 2, sharex=True)
        window = config.steps_per_epoch
        for column, setting in enumerate(SETTINGS):
            top, middle, bottom = axes[:, column]
            seen = pictures[setting]
            for method in METHODS:
                colour, curve = METHOD_COLOURS[method], seen.curves[method]
                top.plot(np.arange(len(curve.lrs)) / window, curve.lrs, color=colour, label=_run_title(method))
                losses = smooth(curve.losses, window)
                middle.plot((np.arange(len(losses)) + window / 2) / window, losses, color=colour)
                errors = seen.val_error[method]
                bottom.plot(np.arange(1, len(errors) + 1), 100 * errors, color=colour, linewidth=1.2)
            top.set_title(SETTING_TITLES[setting])
            top.set_ylim(bottom=0)
            middle.set_yscale("log")
            bottom.set_yscale("log")
            _percent_ticks(bottom)
            bottom.set_xlabel("epoch")
        for ax, label in zip(
            axes[:, 0],
            ("learning rate", "training loss, mean of an epoch", "validation error (%)"),
            strict=True,
        ):
            ax.set_ylabel(label)
        figure.legend(
            *axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(METHODS), fontsize=10
        )
        return figure


def _run_title(method: str) -> str:
    return "SGDR (snapshot cosine)" if method == "sgdr" else TITLES[method]


def _percent_ticks(ax: Axes) -> None:
    ticker = require("matplotlib.ticker", "the demo")
    low, high = ax.get_ylim()
    ticks = [t for t in (0.5, 1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100) if low <= t <= high]
    ax.yaxis.set_major_locator(ticker.FixedLocator(ticks))
    ax.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_minor_locator(ticker.NullLocator())


def twins(curves: Mapping[str, Mapping[str, Curve]], config: Config) -> Figure:
    """Draw thalweg's and torch's step decay over each other, and the difference of the two loss curves."""
    with style():
        figure = canvas(11.0, 3.8)
        left, right = figure.subplots(1, 2)
        window = config.steps_per_epoch
        ours, theirs = (smooth(curves["float32"][name].losses, window) for name in ("thalweg", "torch"))
        epochs = (np.arange(len(ours)) + window / 2) / window
        left.plot(epochs, ours, color=SKY, linewidth=4.5, label="thalweg SGD, schedule inside")
        left.plot(epochs, theirs, color="black", linewidth=1.1, linestyle="--", label="torch SGD + StepLR")
        left.set_yscale("log")
        left.set_ylabel("training loss, mean of an epoch")
        left.set_title("The same curve")
        left.legend()
        for name, colour in (("float32", ORANGE), ("float64", GREEN)):
            difference = np.abs(curves[name]["thalweg"].losses - curves[name]["torch"].losses)
            shown = np.maximum(difference, 1e-17)
            right.plot(np.arange(1, len(shown) + 1) / window, shown, ".", markersize=2.5, color=colour, label=name)
        right.set_yscale("log")
        right.set_ylim(3e-18, 1)
        right.set_ylabel("|loss difference|, each update")
        right.set_title("How far apart (0 is drawn at 1e-17)")
        right.legend(markerscale=4, loc="center right")
        for ax in (left, right):
            ax.set_xlabel("epoch")
        return figure


def methods(results: Mapping[str, Any], shown: Sequence[str]) -> Figure:
    """Draw test error and NLL of every method: a dot per seed, mean and its standard error."""
    with style():
        figure = canvas(11.0, 0.42 * len(shown) * 2 + 1.8)
        axes = figure.subplots(2, 2, sharey=True)
        for row, setting in enumerate(SETTINGS):
            for ax, (measure, factor, label) in zip(
                axes[row], (("error", 100.0, "test error (%)"), ("nll", 1.0, "test NLL (nats)")), strict=True
            ):
                for place, method in enumerate(shown):
                    values = factor * np.asarray(results[setting][method][measure])
                    mean, se = mean_se(values.tolist())
                    ensemble = method in ("snapshot", "fitted", "nocycle")
                    colour = RED if method in ("snapshot", "fitted") else BLUE if ensemble else GREY
                    spread = place + np.linspace(-0.18, 0.18, len(values)) if len(values) > 1 else [place]
                    ax.plot(values, spread, "o", color=colour, markersize=3.5, alpha=0.45, markeredgewidth=0)
                    ax.errorbar(
                        mean, place, xerr=se, color=colour, marker="D", markersize=5.5, capsize=3, linewidth=1.6
                    )
                ax.set_yticks(range(len(shown)), [TITLES[method] for method in shown])
                ax.set_ylim(len(shown) - 0.4, -0.6)
                ax.set_xlim(left=0)
                if row == 1:
                    ax.set_xlabel(label)
            axes[row, 0].set_title(SETTING_TITLES[setting])
        return figure


def members(ensembles: Mapping[str, Any], single: Mapping[str, float]) -> Figure:
    """Draw members alone and last-m ensembles, means over seeds with standard errors.

    Args:
        ensembles: Per setting, results["ensemble"][setting].
        single: Per setting, the mean test error of the best single run, as a line.
    """
    with style():
        figure = canvas(11.0, 9.6)
        axes = figure.subplots(3, 2)
        labels = {"snapshot": "SGDR snapshots", "nocycle": "NoCycle: snapshots of step decay"}
        for column, setting in enumerate(SETTINGS):
            alone, error, nll = axes[:, column]
            for kind, colour in ENSEMBLE_COLOURS.items():
                found = ensembles[setting][kind]
                _means(alone, found["members"]["error"], colour, labels[kind], 100.0)
                _means(error, found["last_m"]["error"], colour, labels[kind], 100.0)
                _means(nll, found["last_m"]["nll"], colour, labels[kind], 1.0)
            for ax in (alone, error):
                ax.axhline(100 * single[setting], color="black", linewidth=1, linestyle="--", label="best single run")
            alone.set_title(SETTING_TITLES[setting])
            alone.set_xlabel("which member, alone")
            for ax in (error, nll):
                ax.set_xlabel("m: how many of the last members together")
            for ax in axes[:, column]:
                ax.set_xticks(range(1, len(ensembles[setting]["snapshot"]["members"]["error"][0]) + 1))
        for ax, label in zip(
            axes[:, 0],
            ("test error of one member (%)", "test error of the last m (%)", "test NLL of the last m"),
            strict=True,
        ):
            ax.set_ylabel(label)
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
        return figure


def _means(ax: Axes, values: Any, colour: str, label: str, factor: float) -> None:
    """Draw the mean over the seeds of values [seeds, m] with error bars."""
    found = [mean_se(column) for column in (factor * np.asarray(values, dtype=np.float64)).T.tolist()]
    means, errors = ([pair[i] for pair in found] for i in (0, 1))
    ax.errorbar(
        range(1, len(found) + 1), means, yerr=errors, fmt="o-", color=colour, capsize=2.5, markersize=5, label=label
    )


def diversity(ensembles: Mapping[str, Any], config: Config) -> Figure:
    """Draw the correlation of the members' probabilities, snapshots beside NoCycle, on one colour scale."""
    with style():
        figure = canvas(10.5, 8.6)
        axes = figure.subplots(2, 2)
        for row, setting in enumerate(SETTINGS):
            both = [np.asarray(ensembles[setting][kind]["correlation"]) for kind in ENSEMBLE_COLOURS]
            low = min(matrix.min() for matrix in both)
            for ax, matrix, kind in zip(axes[row], both, ENSEMBLE_COLOURS, strict=True):
                shown = np.where(np.eye(len(matrix), dtype=bool), np.nan, matrix)
                image = ax.imshow(shown, cmap="viridis", vmin=low, vmax=1.0)
                middle = (low + 1.0) / 2
                for (i, j), value in np.ndenumerate(shown):
                    if i != j:
                        ax.text(
                            j,
                            i,
                            f"{value:.3f}",
                            ha="center",
                            va="center",
                            fontsize=8.5,
                            color="white" if value < middle else "black",
                        )
                labels = [str((i + 1) * config.cycle_steps // config.steps_per_epoch) for i in range(len(matrix))]
                ax.set_xticks(range(len(matrix)), labels)
                ax.set_yticks(range(len(matrix)), labels)
                ax.grid(False)
                ax.tick_params(length=0)
                for spine in ax.spines.values():
                    spine.set_visible(False)
                ax.set_title(f"{SETTING_TITLES[setting]}: {TITLES[kind]}", fontsize=10)
                if row == 1:
                    ax.set_xlabel("epoch at which the member was taken")
            axes[row, 0].set_ylabel("epoch at which the member was taken")
            figure.colorbar(image, ax=list(axes[row]), shrink=0.8, label="correlation of probabilities")
        return figure


def step_time(shares: Mapping[str, Any]) -> Figure:
    """Draw the parts of a training step as stacked bars."""
    with style():
        figure = canvas(9.0, 2.6)
        ax = figure.subplots()
        names = list(TIMED)
        gradient = [shares[name]["gradient_us"] for name in names]
        update = [shares[name]["update_us"] for name in names]
        places = np.arange(len(names))
        ax.barh(places, gradient, color=COLOURS[5], label="zero_grad, forward, backward")
        ax.barh(places, update, left=gradient, color=PURPLE, label="optimizer and schedule")
        for place, name in enumerate(names):
            total = gradient[place] + update[place]
            ax.text(total, place, f"  {update[place]:.0f} µs, {shares[name]['share']:.1%}", va="center", fontsize=9)
        ax.set_yticks(places, [TIMED[name] for name in names])
        ax.invert_yaxis()
        ax.set_xlim(0, 1.3 * max(a + b for a, b in zip(gradient, update, strict=True)))
        ax.set_xlabel("median time of one training step (µs)")
        ax.grid(axis="y", visible=False)
        figure.legend(loc="outside upper center", ncols=2)
        return figure
