"""Other packages that draw planes, each called as it ships; their values are compared at their own points and directions."""

from __future__ import annotations

import contextlib
import copy
import importlib
import inspect
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import nn

from landscape_loops import loader_of
from landscape_nets import Array, Problem
from landscape_sides import Absent, Build, Side

# landscaper alone has a folder of its own (Makefile): it brings compiled packages along that nothing else here needs.
sys.path.append(str(Path(__file__).parents[1] / "build" / "landscaper"))


def package(name: str) -> Any:
    """A module, or Absent."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Absent(f"there is no {name} here ({error})") from None


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """What a package prints per point is its own business."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def square(problem: Problem, count: int) -> tuple[int, Array]:
    """Places per axis of a square grid of at least `count` points, and the places of one axis."""
    side = int(np.ceil(np.sqrt(count)))
    return side, np.linspace(-1, 1, side)


def mesh(rows: Array, columns: Array) -> Array:
    """[points, 2] of a grid, row by row: (row's, column's)."""
    return np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)


def loss_landscapes(problem: Problem, count: int, timed: bool) -> Side:
    """loss-landscapes: the plane through the model and the ends of both directions."""
    library, metrics = package("loss_landscapes"), package("loss_landscapes.metrics")
    steps, _ = square(problem, count)
    ends = [copy.deepcopy(problem.model) for _ in problem.vectors]
    for end, vector in zip(ends, problem.vectors, strict=True):
        for p, d in zip(end.parameters(), vector, strict=True):
            p.data.add_(d)
    metric = metrics.Loss(nn.CrossEntropyLoss(), problem.x, problem.y)

    def run() -> Array:
        grid = library.planar_interpolation(problem.model, *ends, metric, steps=steps, deepcopy_model=True)
        return np.asarray(grid, dtype=np.float64).ravel()

    # Row i has j = 1 ... n where i is even and j = 0 ... n - 1 where it is odd.
    places = [(i, j + (i % 2 == 0)) for i in range(steps) for j in range(steps)]
    note = "even rows are shifted by one place; all data in one batch"
    return Side(run, np.array(places, dtype=np.float64) / steps, note=note)


def losscape(problem: Problem, count: int, timed: bool) -> Side:
    """losscape: a mean over batches that is not weighted, so they are chosen to be of one size."""
    library = package("losscape.create_landscape")
    steps, axis = square(problem, count)
    batch = 125 if len(problem.y) % 125 == 0 else len(problem.y)
    loader = loader_of(problem, batch=batch)
    model = copy.deepcopy(problem.model)

    def run() -> Array:
        with silent(), mock.patch.object(library, "plt"):  # its picture is not part of the measurement
            _, _, losses = library.create_3D_losscape(
                model, loader, directions=problem.vectors, num_batches=len(loader), save_only=True, output_h5=False,
                num_points=steps,
            )  # fmt: skip
        return losses.ravel()

    points = mesh(axis, axis)[:, ::-1].copy()  # its rows are the second direction's
    return Side(run, points, note=f"batch {batch}; the mean over batches is not weighted; without its picture")


def loss_landscape_3d(problem: Problem, count: int, timed: bool) -> Side:
    """loss-landscape-3d: a state_dict and a pass over a DataLoader per point."""
    library = package("loss_landscape_3d")
    _, axis = square(problem, count)
    model = copy.deepcopy(problem.model)
    calculator = library.LossLandscapeCalculator(model, loader_of(problem), nn.CrossEntropyLoss())
    center = {k: v.clone() for k, v in model.state_dict().items()}
    x, y = (dict(zip(problem.directions.names, vector, strict=True)) for vector in problem.vectors)
    return Side(
        lambda: calculator.calculate(axis, axis, x, y, center).ravel(), mesh(axis, axis), note="DataLoader, batch 128"
    )


def gradfield(problem: Problem, count: int, timed: bool) -> Side:
    """gradfield: draws its directions itself."""
    library = package("gradfield")
    steps, axis = square(problem, count)
    landscape = library.model_loss_fn(problem.model, nn.CrossEntropyLoss(), problem.x, problem.y)
    inside = inspect.getclosurevars(landscape).nonlocals
    vectors = (inside["direction1"], inside["direction2"])

    def run() -> Array:
        return library.sample_grid(landscape, (-1.0, 1.0), (-1.0, 1.0), steps)["Z"].ravel()

    points = mesh(axis, axis)[:, ::-1].copy()  # its rows are the second direction's
    return Side(run, points, vectors, note="its own directions; all data in one batch")


def landscaper(problem: Problem, count: int, timed: bool) -> Side:
    """landscaper: moves by repeated addition, scales directions itself, and adds noise to its largest value."""
    library = package("landscaper.compute")
    steps, _ = square(problem, count)
    model, distance = copy.deepcopy(problem.model), 0.5
    batch = min(512, len(problem.y))

    def scalar(moved: nn.Module, _: Any) -> float:
        total = 0.0
        for xb, yb in zip(problem.x.split(batch), problem.y.split(batch), strict=True):
            total += nn.functional.cross_entropy(moved(xb), yb) * len(yb)
        return float(total) / len(problem.y)

    def run() -> Array:
        with silent():
            losses, _ = library.compute_loss_landscape(
                model, None, [list(vector) for vector in problem.vectors], scalar, steps, distance, 2, "cpu"
            )
        losses = losses.ravel()
        losses[np.argmax(losses)] = np.nan  # noise
        return losses

    size = float(torch.sqrt(sum(p.detach().square().sum() for p in model.parameters())))
    vectors = []
    for vector in problem.vectors:
        even = [d * (d.numel() ** 0.5 / (float(d.norm()) + 1e-10)) for d in vector]
        length = float(torch.sqrt(sum(d.square().sum() for d in even)))
        vectors.append([d * (size * distance / (steps / 2) / length) for d in even])
    places = np.arange(steps, dtype=np.float64) - steps // 2
    note = f"batch {batch}; normalises each tensor; noise on its largest value, which the error leaves out"
    return Side(run, mesh(places, places), tuple(vectors), note=note)


PACKAGES: dict[str, Build] = {
    "loss-landscapes": loss_landscapes,
    "losscape": losscape,
    "loss-landscape-3d": loss_landscape_3d,
    "gradfield": gradfield,
    "landscaper": landscaper,
}
