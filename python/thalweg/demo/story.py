"""The report: the story in order, a figure and its conclusion at each step. Measures nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..report import Report, Section
from . import conclusions, conclusions_valley, figures, figures_valley, interactive
from .config import SETTING_TITLES, SETTINGS
from .runs import TITLES
from .stats import mean_se
from .timing import TITLES as TIMED
from .words import Conclusion, short

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .run import Material

_PER_FIGURE = 0.9  # seconds, for the progress bar's estimate


class _Book:
    """Saves figures as PNG files, puts them into the report, and keeps all conclusions for results.json."""

    def __init__(self, folder: Path, done: Callable[[float], None]) -> None:
        self.folder, self.done = folder, done
        self.conclusions: list[dict[str, str]] = []
        self.timed: list[dict[str, str]] = []

    def picture(self, section: Section, name: str, figure: Figure, caption: str) -> None:
        path = self.folder / f"{name}.png"
        figure.savefig(path, dpi=130, metadata={"Software": None})
        section.image(path, caption)
        self.done(_PER_FIGURE)

    def conclude(self, section: Section, found: Iterable[Conclusion], timed: bool = False) -> None:
        for conclusion in found:
            section.conclusion(conclusion.text, conclusion.verdict)
            entry = {"section": section.anchor, "verdict": conclusion.verdict, "text": conclusion.text}
            (self.timed if timed else self.conclusions).append(entry)


def write(folder: Path, material: Material, done: Callable[[float], None]) -> None:
    """Write report.html and all figures into `folder`; add all conclusions to the results."""
    book = _Book(folder, done)
    results = material.results
    report = Report(
        "A descent, end to end",
        "What learning-rate schedules, warm restarts and snapshot ensembles do to a small network, measured on real data",
    )
    lead(report, material)
    chapters = (opening, data, range_test, runs, ensembles, diversity, valley, basins, saddle, step_time, numbers, conditions)
    for chapter in chapters:
        chapter(report, book, material)
    summary = conclusions.summary(results)
    report.summary([*summary, conclusions.timing(results["timings"]["step"])])
    results["summary"] = [conclusion._asdict() for conclusion in summary]
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
        f"repeated with {count}, in two settings: the digits as they are, and with {sizes.noise:.0%} of the "
        "training labels re-drawn.",
        "The list compares methods pair by pair over the seeds on test images that no run has seen. **Helped** or **hurt** "
        "means that the 95 % interval of the mean difference excludes zero, **mixed** that error and NLL disagree. NLL, the "
        "negative log-likelihood, is what the true class costs in nats: it also punishes false confidence. The intervals are "
        "not corrected for the number of comparisons, so take a narrow miss as a narrow miss.",
    )


def opening(report: Report, book: _Book, material: Material) -> None:
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


def data(report: Report, book: _Book, material: Material) -> None:
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


def range_test(report: Report, book: _Book, material: Material) -> None:
    """Part (a)."""
    section = report.section("Range test: which rates are worth trying")
    section.text(
        f"One short run of {material.config.range_steps} updates raises the learning rate from {short(1e-5)} to 10, a little with "
        "each batch. Where it is too small, nothing happens; then the loss falls; then it diverges. All rates of the runs below "
        "come from here: the constant run uses the suggestion, the triangular one moves between the bounds, and the decaying "
        "ones start at the upper bound."
    )
    book.picture(
        section,
        "range_test",
        figures.range_tests(material.ranges),
        "Loss of each batch against the learning rate of that update. The network and the optimizer are afterwards as if the "
        "test had not happened.",
    )
    book.conclude(section, [conclusions.range_test(material.results["range_test"])])


def runs(report: Report, book: _Book, material: Material) -> None:
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
    book.conclude(section, [conclusions.curves(errors)])
    section.interactive(
        interactive.runs(material.pictures, material.config),
        "The same curves to read off: the menu changes the setting, a click in the legend hides a run.",
        height=560,
    )
    section.heading("The same numbers as torch")
    section.text(
        "The step-decay run once more with `torch.optim.SGD` and `torch.optim.lr_scheduler.StepLR`, on the same batches from "
        "the same start."
    )
    book.picture(
        section,
        "same_as_torch",
        figures.twins(material.twins, material.config),
        "Left: both training-loss curves, one over the other. Right: their difference at each update, in two precisions.",
    )
    book.conclude(section, [conclusions.twin(material.results["twin"])])


def ensembles(report: Report, book: _Book, material: Material) -> None:
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
        "Read the figure from right to left: the last member alone, then the last two together, up to all of them. The open "
        "circles are the members one by one."
    )
    single = {
        s: float(np.mean(results["methods"][s][conclusions.best_single(results, s)]["error"])) for s in SETTINGS
    }
    book.picture(
        section,
        "members",
        figures.members(results["ensemble"], single),
        "Means over the seeds with standard errors. A point at member i with a full marker is the ensemble of members i to the "
        "last. The dashed line is the best of the single runs.",
    )
    book.conclude(section, [conclusions.last_m(results, setting) for setting in SETTINGS])


def diversity(report: Report, book: _Book, material: Material) -> None:
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


def valley(report: Report, book: _Book, material: Material) -> None:
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
        "the minimum. The path is bright where the learning rate is high; circles are the numbered snapshots.",
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


def basins(report: Report, book: _Book, material: Material) -> None:
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


def saddle(report: Report, book: _Book, material: Material) -> None:
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


def step_time(report: Report, book: _Book, material: Material) -> None:
    """Part (e)."""
    shares = material.results["timings"]["step"]
    section = report.section("What a training step costs")
    section.text(
        "For a network this small the optimizer and the scheduler are a real part of the time. The three contestants take turns "
        f"step by step; the figure shows medians of {material.config.repeats} steps on one thread. These are the only numbers "
        "on this page that change from run to run."
    )
    book.picture(
        section, "step_time", figures.step_time(shares), "Time of one step, and the part of it that is optimizer and schedule."
    )
    book.conclude(section, [conclusions.timing(shares)], timed=True)


def numbers(report: Report, book: _Book, material: Material) -> None:
    """All methods in both settings."""
    section = report.section("All numbers")
    count = material.config.seeds
    for setting in SETTINGS:
        section.table(
            ["method", "test error (%)", "NLL (nats)", "calibration error (%)"],
            rows(material.results, setting),
            f"{conclusions.title(setting)}: mean ± standard error over {count} seed{'' if count == 1 else 's'}.",
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


def conditions(report: Report, book: _Book, material: Material) -> None:
    """Versions, threads, seeds, limits."""
    section, sizes = report.section("Conditions and limits"), material.config
    found = material.results["conditions"]
    section.table(["what", "value"], [(key.replace("_", " "), str(value)) for key, value in found.items()])
    section.bullets(
        [
            f"Seeds 0 to {sizes.seeds - 1}: each draws its own split, labels, start and batches, shared by all methods. Figures of "
            "single runs and landscapes show seed 0.",
            "The learning rates come from the range test of seed 0 in each setting and are not tuned further; weight decay is the "
            "same everywhere.",
            "A small network on small images. On easy data with few errors left, differences between methods drown in noise; that "
            "is a result about these data, not about the methods.",
            "All numbers but the times are in `results.json`; two runs on the same machine give the same ones. The time of a "
            f"step was taken for: {'; '.join(TIMED.values())}.",
        ]
    )
