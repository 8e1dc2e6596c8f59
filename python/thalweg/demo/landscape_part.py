"""Part (d): the valley of the SGDR run: path, planes, barriers, sharpness. Measures only; figures and words stand elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from ..landscape import (
    Barriers,
    Evaluator,
    Surface,
    Trajectory,
    barriers,
    pca_directions,
    random_directions,
    sharpness,
)
from .config import Config
from .data import Split
from .models import build
from .range_part import Rates, sgd
from .runs import Pictures, State, copy_state, schedule_of
from .stats import paired
from .training import batch_order, train

Array = npt.NDArray[np.float64]

RHO = 0.25  # distance of the sharpness, as a share of each filter's norm
DIRECTIONS = 8
OTHER_SEED = 1000  # start and batches of the independent run
_MARGIN = 0.15


@dataclass(frozen=True, eq=False)
class Valley:
    """What the figures of one setting draw.

    Attributes:
        trajectory: The path of the SGDR run.
        steps: [points] updates done at each point of the path.
        coordinates: [points, 2] the path in the PCA plane.
        plane_loss: [points] training loss at these coordinates, in the plane.
        snapshot_rows: Rows of the path that are snapshots.
        pca: The PCA plane.
        random: The filter-normalised random plane around the last snapshot.
        barriers: Between the snapshots, and an independent run as the last row.
        sharp_steps: Updates at which sharpness was measured.
        sharp: The sharpness there.
        sharp_se: Its standard error over the directions.
        results: The numbers for results.json.
    """

    trajectory: Trajectory
    steps: npt.NDArray[np.int64]
    coordinates: Array
    plane_loss: Array
    snapshot_rows: list[int]
    pca: Surface
    random: Surface
    barriers: Barriers
    sharp_steps: npt.NDArray[np.int64]
    sharp: Array
    sharp_se: Array
    results: dict[str, Any]


def run(config: Config, split: Split, rates: Rates, pictures: Pictures, done: Callable[[float], None]) -> Valley:
    """Measure the valley; `done` is told the share of the work that has been done since its last call.

    The loss is that of the training labels over all training images at once, with BatchNorm statistics of these
    images at every point ("batch"): statistics that were frozen at one point would be wrong at all others.
    """
    model = build(0)
    schedule = schedule_of("sgdr", rates, config)
    trajectory = Trajectory(model)
    for step, state in pictures.path:
        model.load_state_dict(state)
        trajectory.record(step=step, lr=schedule(min(step, config.steps - 1)))
    evaluator = Evaluator(
        model,
        "cross_entropy",
        split.train,
        metrics=("loss", "accuracy"),
        batch_size=len(split.y_train),
        bn="batch",
    )
    directions = pca_directions(trajectory)
    corner = evaluator.grid(directions, x=(0, 0, 1), y=(0, 0, 1), progress=False)
    coordinates, off_plane = corner.project(trajectory)
    pca = evaluator.grid(
        directions,
        x=_reach(coordinates[:, 0], config.grid),
        y=_reach(coordinates[:, 1], config.grid),
        progress=False,
    )
    done(0.35)
    random = evaluator.grid(
        random_directions(model, seed=0), x=(-1, 1, config.grid), y=(-1, 1, config.grid), progress=False
    )
    done(0.35)

    steps = np.array([step for step, _ in pictures.path])
    rows = [int(np.flatnonzero(steps == step)[0]) for step, _ in pictures.snapshots]
    states = [state for _, state in pictures.snapshots]
    other = independent_run(config, split, rates)
    between = barriers([*states, other], evaluator, n=config.barrier_points, progress=False)
    done(0.15)
    sharp_steps, sharp, sharp_se = _sharpness(config, evaluator, pictures)
    done(0.15)

    plane_loss = evaluator.points(directions, coordinates).values["loss"]
    results = {
        "pca": {
            "explained_variance": directions.extra["explained_variance"],
            "random_walk_null": directions.extra["random_walk_null"],
            "snapshot_coordinates": coordinates[rows].tolist(),
            "snapshot_off_plane": off_plane[rows].tolist(),
            "snapshot_plane_loss": plane_loss[rows].tolist(),
            "snapshot_loss": [evaluator.at(state)["loss"] for state in states],
            "snapshot_distance": _distances(trajectory, rows),
            "start_distance": _distances(trajectory, [0, rows[0]])[0],
            "lowest": list(pca.minimum()),
        },
        "random": _ring(random),
        "barriers": between.heights.tolist(),
        "sharpness": _restarts(config, sharp_steps, sharp),
        "seconds": pca.timings["seconds"] + random.timings["seconds"],
    }
    return Valley(
        trajectory, steps, coordinates, plane_loss, rows, pca, random, between, sharp_steps, sharp, sharp_se, results
    )


def _reach(values: Array, points: int) -> tuple[float, float, int]:
    low, high = float(values.min()), float(values.max())
    margin = _MARGIN * (high - low)
    return low - margin, high + margin, points


def _distances(trajectory: Trajectory, rows: Sequence[int]) -> list[float]:
    """Return the distance in weight space from each of `rows` to the next."""
    points = [trajectory.points[row] for row in rows]
    return [
        float(sum((a[name].double() - b[name].double()).square().sum() for name in a)) ** 0.5
        for a, b in pairwise(points)
    ]


def independent_run(config: Config, split: Split, rates: Rates) -> State:
    """Train one SGDR run from another start and other batches on the same images; return its last snapshot."""
    model = build(OTHER_SEED)
    order = batch_order(len(split.y_train), config.batch_size, config.steps, OTHER_SEED)
    train(model, split.train, sgd(model, schedule_of("sgdr", rates, config), config), order)
    return copy_state(model)


def _ring(surface: Surface) -> dict[str, float]:
    """Return the loss at the centre of a random plane and its mean on the border, and where it is lowest."""
    loss = surface.metric("loss")
    border = np.concatenate([loss[0], loss[-1], loss[1:-1, 0], loss[1:-1, -1]])
    middle = len(surface.y) // 2, len(surface.x) // 2
    x, y, low = surface.minimum()
    return {
        "center": float(loss[middle]),
        "border": float(border.mean()),
        "lowest": low,
        "lowest_x": x,
        "lowest_y": y,
    }


def _sharpness(config: Config, evaluator: Evaluator, pictures: Pictures) -> tuple[npt.NDArray[np.int64], Array, Array]:
    """Return updates, sharpness and its standard error at a sixth of a cycle apart, starting with the first cycle."""
    stride = max(1, round(len([s for s, _ in pictures.path if s < config.cycle_steps]) / 6))
    chosen = pictures.path[stride::stride]
    found = []
    for _, state in chosen:
        evaluator.model.load_state_dict(state)
        found.append(sharpness(evaluator, rho=RHO, n=DIRECTIONS))
    steps = np.array([step for step, _ in chosen])
    return steps, np.array([s.mean for s in found]), np.array([s.standard_error for s in found])


def _restarts(config: Config, steps: npt.NDArray[np.int64], sharp: Array) -> dict[str, Any]:
    """Return the sharpness right before each restart and at the next place measured after it, and their comparison."""
    rows = [int(np.flatnonzero(steps == k * config.cycle_steps)[0]) for k in range(1, config.cycles)]
    before, after = [float(sharp[row]) for row in rows], [float(sharp[row + 1]) for row in rows]
    return {
        "rho": RHO,
        "before": before,
        "after": after,
        "updates_after": int(steps[rows[0] + 1] - steps[rows[0]]),
        "comparison": paired(before, after).to_dict(),
    }
