"""The second half of the report: landscape, saddle, cost of a step, all numbers, conditions. Measures nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..report import Report
from . import conclusions, conclusions_checks, conclusions_valley, figures, figures_valley, interactive
from .book import Book
from .config import SETTINGS
from .runs import TITLES
from .stats import mean_se
from .timing import TITLES as TIMED

if TYPE_CHECKING:
    from .run import Material


def valley(report: Report, book: Book, material: Material) -> None:
    """Part (d): the path on its landscape, and the random plane."""
    found = material.results["landscape"]
    section = report.section("The path through the valley")
    section.text(
        "The weights of the SGDR run were recorded along the way. Principal components find the plane that holds most of the "
        "path; the training loss is then evaluated on a grid in this plane, over all training images, with BatchNorm statistics "
        "taken anew at every point. The path does not lie in the plane exactly, so the loss at a snapshot and the loss at its "
        "place in the picture differ; both are given."
    )
    book.picture(
        section,
        "path",
        figures_valley.path(material.valleys),
        "Training loss around the path of the SGDR run (seed 0), contour levels evenly spaced in the logarithm of the excess over "
        "the minimum. The path is red where the learning rate is high and yellow where it is low; circles are the numbered snapshots.",
    )
    book.conclude(section, [conclusions_valley.path(found[setting], setting) for setting in SETTINGS])
    for setting in reversed(SETTINGS):
        section.interactive(
            interactive.valley(material.valleys[setting]),
            f"{conclusions.title(setting)}: the same plane as a surface to turn. Height is the logarithm of the excess loss.",
            height=560,
        )
    section.heading("Another cut: a random plane")
    section.text(
        "The PCA plane is chosen to show the path. A random plane through the last snapshot shows the surroundings: two Gaussian "
        "directions, each filter scaled to the norm of the network's own filter, so that the scale of the weights does not "
        "matter and the two settings can be compared."
    )
    book.picture(
        section,
        "random_plane",
        figures_valley.random_plane(material.valleys),
        "Training loss in a filter-normalised random plane; the circle is the last snapshot.",
    )
    book.conclude(section, [conclusions_valley.random_plane(found)])


def basins(report: Report, book: Book, material: Material) -> None:
    """Part (d): barriers and sharpness."""
    found = material.results["landscape"]
    section = report.section("Does a restart leave its basin?")
    section.text(
        "Walk in a straight line from one snapshot to another and watch the training loss. If it rises above the line between "
        "the two ends, there is a barrier between them and they lie in different basins. For scale, the last row is a run from "
        "another random start."
    )
    book.picture(
        section,
        "barriers",
        figures_valley.barriers(material.valleys),
        "Top: height of the barrier between each pair. Bottom: the loss along some of these lines.",
    )
    book.conclude(section, [conclusions_valley.barriers(found[setting], setting) for setting in SETTINGS])
    section.heading("Sharper or flatter?")
    section.text(
        "Sharpness here is how much the training loss rises when every filter is moved in a random direction by a quarter of "
        "its norm. It is measured six times per cycle along the SGDR run."
    )
    book.picture(
        section,
        "sharpness",
        figures_valley.sharpness(material.valleys, material.config),
        "Sharpness along the run, with its standard error over the directions.",
    )
    book.conclude(section, [conclusions_valley.sharpness(found[setting], setting) for setting in SETTINGS])


def saddle(report: Report, book: Book, material: Material) -> None:
    """Part (d): the saddle in two parameters."""
    section = report.section("A saddle, where small rates get stuck")
    section.text(
        "Two parameters make visible what is hard to see in ten thousand. The surface 25x²/2 + (y² − 1)²/4 is steep along x and "
        "flat along y near the saddle at the origin, where the gradient nearly vanishes. Plain gradient descent starts close to "
        "the ridge with four learning rates."
    )
    book.picture(
        section,
        "saddle",
        figures_valley.saddle(material.descents),
        "Left: the paths on the contours of the loss. Right: loss and learning rate at each update; the rate that is held at the "
        "peak leaves the picture.",
    )
    book.conclude(section, [conclusions.saddle(material.results["saddle"])])


def step_time(report: Report, book: Book, material: Material) -> None:
    """Part (e)."""
    shares = material.results["timings"]["step"]
    section = report.section("What a training step costs")
    section.text(
        "For a network this small the optimizer and the scheduler are a real part of the time. The three contestants take turns "
        f"step by step; the figure shows medians of {material.config.repeats} steps on one thread. These are the only numbers "
        "on this page that change from run to run."
    )
    book.picture(
        section,
        "step_time",
        figures.step_time(shares),
        "Time of one step, and the part of it that is optimizer and schedule.",
    )
    book.conclude(section, [conclusions.timing(shares)], timed=True)


def checks(report: Report, book: Book, material: Material) -> None:
    """Whether the verdicts on the ensemble hold with another weight decay."""
    section, sizes = report.section("Would other settings say the same?"), material.config
    found = material.results["other_weight_decay"]
    section.text(
        f"Weight decay {sizes.weight_decay:g} was set by hand. The runs behind the ensembles are therefore repeated with "
        f"{sizes.other_weight_decay:g}, with the same rates, images, starts and batches. A verdict that changes is about the "
        "setting, not about the method."
    )
    for setting in SETTINGS:
        section.table(
            ["difference", "test error (points)", "NLL (nats)"],
            conclusions_checks.other_rows(found, setting),
            f"{conclusions.title(setting)}, weight decay {sizes.other_weight_decay:g}: mean paired difference with its 95% "
            "interval; negative favours the first.",
        )
        book.conclude(section, [conclusions_checks.weight_decay(material.results, setting)])


def numbers(report: Report, book: Book, material: Material) -> None:
    """All methods in both settings."""
    section = report.section("All numbers")
    count = material.config.seeds
    for setting in SETTINGS:
        section.table(
            ["method", "test error (%)", "NLL (nats)", "calibration error (%)"],
            rows(material.results, setting),
            f"{conclusions.title(setting)}: mean ± standard error over {count} seed{'' if count == 1 else 's'}.",
        )
    section.heading("The comparisons of the summary")
    for setting in SETTINGS:
        section.table(
            ["difference", "test error (points)", "NLL (nats)"],
            conclusions_checks.differences(material.results, setting),
            f"{conclusions.title(setting)}: mean paired difference with its 95% interval (Student's t); negative favours the "
            "first; an asterisk: still clear after Holm's correction for all comparisons in both tables. The single run in it is the one with the lowest test error, chosen in hindsight: the hardest to beat.",
        )


def rows(results: dict[str, Any], setting: str) -> list[tuple[str, ...]]:
    """Return (method, error, NLL, calibration error) of a setting, means ± standard errors over the seeds."""
    found = []
    for method, values in results["methods"][setting].items():
        cells = []
        for key, factor, digits in (("error", 100.0, 2), ("nll", 1.0, 4), ("ece", 100.0, 1)):
            mean, se = mean_se([factor * value for value in values[key]])
            cells.append(f"{mean:.{digits}f}" + ("" if np.isnan(se) else f" ± {se:.{digits}f}"))
        found.append((TITLES[method], *cells))
    return found


def conditions(report: Report, book: Book, material: Material) -> None:
    """Versions, threads, seeds, limits."""
    section, sizes = report.section("Conditions and limits"), material.config
    found = material.results["conditions"]
    section.table(["what", "value"], [(key.replace("_", " "), str(value)) for key, value in found.items()])
    section.bullets(
        [
            f"Seeds 0 to {sizes.seeds - 1}: each draws its own split, labels, start and batches, shared by all methods. Figures of "
            "single runs and landscapes show seed 0.",
            "All seeds draw from the same 1,797 images, so their test images overlap and the seeds are not quite independent: "
            "the intervals are somewhat too narrow for new images.",
            "The learning rates come from the range test of seed 0 in each setting and are not tuned further. It sees training "
            "images of seed 0 only, but some of these are test images of other seeds.",
            "A small network on small images. On easy data with few errors left, differences between methods drown in noise; that "
            "is a result about these data, not about the methods.",
            "All numbers but the times are in `results.json`; two runs on the same machine give the same ones. The time of a "
            f"step was taken for: {'; '.join(TIMED.values())}.",
        ]
    )
