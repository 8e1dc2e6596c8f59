"""The report: the story in order, a figure and its conclusion at each step; here its first half. Measures nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..report import Report
from . import conclusions, conclusions_checks, figures, figures_valley, interactive
from . import story_valley as tail
from .book import Book
from .config import SETTING_TITLES, SETTINGS
from .words import short

if TYPE_CHECKING:
    from .run import Material


def write(folder: Path, material: Material, done: Callable[[float], None]) -> None:
    """Write report.html and all figures into `folder`; add all conclusions to the results."""
    book = Book(folder, done)
    results = material.results
    report = Report(
        "A descent, end to end",
        "What learning-rate schedules, warm restarts and snapshot ensembles do to a small network, measured on real data",
    )
    lead(report, material)
    first = (opening, data, range_test, runs, ensembles, diversity)
    second = (tail.valley, tail.basins, tail.saddle, tail.step_time, tail.checks, tail.numbers, tail.conditions)
    for chapter in (*first, *second):
        chapter(report, book, material)
    summary = conclusions.summary(results)
    report.summary(conclusions.ordered([*summary, conclusions.timing(results["timings"]["step"])]))
    results["summary"] = [conclusion._asdict() for conclusion in conclusions.ordered(summary)]
    results["conclusions"] = book.conclusions
    results["timings"]["conclusions"] = book.timed
    report.write(folder / "report.html")


def lead(report: Report, material: Material) -> None:
    """Say what was done and how to read the summary."""
    sizes = material.config
    count = f"{sizes.seeds} seed" + ("s" if sizes.seeds != 1 else "")
    report.lead(
        f"Small convolutional networks learn handwritten digits. Every run has the same budget of {sizes.steps} updates, and "
        f"within a seed the same images, the same start and the same batches; only the learning rate differs. Everything is "
        f"repeated with {count}, in two settings: **plain digits**, and **noisy labels**, where {sizes.noise:.0%} of the "
        "training labels are re-drawn at random.",
        "The list compares methods pair by pair over the seeds on test images that no run has seen. **Helped** or **hurt** "
        "means that the 95% interval of the mean difference excludes zero in error or in NLL, **mixed** that the two disagree. "
        "NLL, the negative log-likelihood, is what the true class costs in nats: it also punishes false confidence. "
        + conclusions_checks.together(material.results),
    )


def opening(report: Report, book: Book, material: Material) -> None:
    """One picture of the idea."""
    section = report.section("The idea in one picture")
    section.text(
        "A training run that lowers its learning rate settles somewhere on the loss surface. SGDR raises the rate again, lets "
        "the run wander, and lowers it once more; at the end of each cycle a snapshot of the weights is kept. The snapshots "
        "predict together: an ensemble for the price of one run. Whether that pays, where the run really goes, and what the "
        "cycles do to it is what this page measures."
    )
    curve = material.pictures["noisy"].curves["sgdr"]
    figure = figures_valley.hero(material.valleys["noisy"], curve.lrs, material.config)
    book.picture(
        section,
        "thalweg",
        figure,
        f"Left: the learning rate of the SGDR run, {SETTING_TITLES['noisy']}, with its snapshots. Right: the same run, drawn "
        "on the training loss in the plane that holds most of its path. Dark is low.",
    )


def data(report: Report, book: Book, material: Material) -> None:
    """The data and the two settings."""
    sizes, section = material.config, report.section("The data")
    section.text(
        "The images are the 1,797 handwritten digits inside scikit-learn, 8 by 8 pixels each, split by class into training, "
        "validation and test parts. The network has two convolutions and one hidden layer with BatchNorm, about ten thousand "
        f"weights. It learns with SGD, Nesterov momentum {sizes.momentum:g}, weight decay {sizes.weight_decay:g}, batches of "
        f"{sizes.batch_size}, for {sizes.epochs} epochs.",
        "The second setting stands for real, imperfect labels: a share of the training labels is drawn anew at random. A "
        "network this size can learn them by heart, which is where ensembles are known to help.",
    )
    book.picture(
        section,
        "digits",
        figures.digits(material.splits["plain"], material.splits["noisy"]),
        "Training images of the second setting with the label that training sees; wrong ones in red.",
    )
    book.conclude(section, [conclusions.data(material.results["data"])])


def range_test(report: Report, book: Book, material: Material) -> None:
    """Part (a)."""
    section = report.section("Range test: which rates are worth trying")
    section.text(
        f"One short run of {material.config.range_steps} updates raises the learning rate from {short(1e-5)} to 10, a little with "
        "each batch. Where it is too small, nothing happens; then the loss falls; then it diverges. All rates of the runs below "
        "come from here, rounded to two digits: the constant run uses the suggestion, the triangular one moves between the bounds, "
        "and the decaying ones start at the upper bound."
    )
    book.picture(
        section,
        "range_test",
        figures.range_tests(material.ranges),
        "Loss of each batch against the learning rate of that update. The network and the optimizer are afterwards as if the "
        "test had not happened.",
    )
    book.conclude(section, [conclusions.range_test(material.results["range_test"])])


def runs(report: Report, book: Book, material: Material) -> None:
    """Part (b): the curves, and torch's beside thalweg's."""
    section = report.section("One budget, five schedules")
    section.text(
        "A constant rate; step decay, divided by ten after each third; a single cosine; triangular cycles between the bounds; "
        "and SGDR, cosine cycles of equal length that restart at the top. The optimizer reads the schedule itself, there is no "
        "scheduler to step."
    )
    book.picture(
        section,
        "schedules",
        figures.runs(material.pictures, material.config),
        "Learning rate, training loss and validation error of seed 0. Validation labels are never re-drawn.",
    )
    errors = {s: {m: e.tolist() for m, e in material.pictures[s].val_error.items()} for s in SETTINGS}
    book.conclude(section, [conclusions.curves(errors, {"noisy": material.results["memorised"]})])
    section.interactive(
        interactive.runs(material.pictures, material.config),
        "The same curves to read off: the menu changes the setting, a click in the legend hides a run.",
        height=560,
    )
    section.heading("The same numbers as torch")
    section.text(
        "The step-decay run with noisy labels once more with `torch.optim.SGD` and `torch.optim.lr_scheduler.StepLR`, on the "
        "same batches from the same start."
    )
    book.picture(
        section,
        "same_as_torch",
        figures.twins(material.twins, material.config),
        "Left: both training-loss curves, one over the other. Right: their difference at each update, in two precisions.",
    )
    book.conclude(section, [conclusions.twin(material.results["twin"])])


def ensembles(report: Report, book: Book, material: Material) -> None:
    """Part (c): all methods, members, last-m."""
    results = material.results
    section = report.section("Does the ensemble pay?")
    section.text(
        "The snapshots' probabilities are averaged with equal weights. They compete with the single runs of the same budget, "
        "with their own last member, and with a **NoCycle ensemble**: as many equally spaced snapshots of the step-decay run. "
        "Three more rows use the same snapshots otherwise: the single snapshot that is best on the validation images (a kind of "
        "early stopping), one network with the mean of all snapshots' weights, and an ensemble whose weights and temperature "
        "are fitted on the validation images."
    )
    shown = list(results["methods"][SETTINGS[0]])
    book.picture(
        section,
        "methods",
        figures.methods(results["methods"], shown),
        "One dot per seed; the diamond is the mean with its standard error. Red: ensembles of SGDR snapshots. Blue: NoCycle. "
        "Grey: a single network.",
    )
    book.conclude(section, [conclusions.methods(results, setting) for setting in SETTINGS])
    section.heading("How many members help")
    section.text(
        "Top: each member alone, in the order in which they were taken. Below: the last member, the last two together, and so "
        "on up to all of them."
    )
    single = {s: float(np.mean(results["methods"][s][conclusions.best_single(results, s)]["error"])) for s in SETTINGS}
    book.picture(
        section,
        "members",
        figures.members(results["ensemble"], single),
        "Means over the seeds with standard errors. The dashed line is the best of the single runs.",
    )
    book.conclude(section, [conclusions.last_m(results, setting) for setting in SETTINGS])


def diversity(report: Report, book: Book, material: Material) -> None:
    """Part (c): how much the members differ."""
    section = report.section("How different are the members?")
    section.text(
        "An ensemble of equals gains nothing. The matrices show how strongly the members' predicted probabilities correlate on "
        "the test images: 1 means the same predictions."
    )
    book.picture(
        section,
        "diversity",
        figures.diversity(material.results["ensemble"], material.config),
        "Correlation of class probabilities between members, mean over the seeds; each row of panels has one colour scale.",
    )
    book.conclude(section, [conclusions.diversity(material.results, setting) for setting in SETTINGS])
