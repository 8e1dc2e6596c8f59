"""Who evaluates a plane in the benchmarks of the landscape: two tiers of ours, and plain torch in its forms."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from landscape_loops import compiled, fastest, hand_written, in_float64, loader_of, stacked, with_loader
from landscape_nets import Array, Problem, Vectors, coordinates
from thalweg.landscape import Directions, Evaluator

TOLERANCE = 1e-4  # relative, against float64; a float32 sum over a deep network's outputs keeps within it
CHECKED = 512  # samples on which a large network's values are checked before it is timed
TRIAL = 512  # samples of the trial that chooses an implementation
BATCHES = (16, 32, 64, 128, 256, 512, 1024, 2048)
CHUNKS = (2, 4, 8, 16)


class Absent(Exception):
    """This peer is not here; the text says why."""


@dataclass(frozen=True)
class Side:
    """One of those who are compared.

    Args:
        run: Gives the losses at `points`; NaN where a package puts in something else on purpose.
        points: [n, 2], what one call evaluates, in the order of its values.
        vectors: The directions that belong to `points`; None: the problem's.
        note: What a reader has to know.
        facts: For the results as they are.
        trial: Losses that are known already, of a part of the data.
    """

    run: Callable[[], Array]
    points: Array
    vectors: Vectors | None = None
    note: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    trial: tuple[Problem, Array] | None = None


Build = Callable[[Problem, int, bool], Side]  # of a problem, a number of points, and whether it will be timed


class References:
    """Float64 losses of one problem, computed once per place."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._known: dict[
            tuple[int, bytes], tuple[Vectors | None, Array]
        ] = {}  # with the directions whose id is the key

    def error(self, side: Side, values: Array, most: int) -> float:
        """The largest relative error of the first `most` values."""
        points = side.points[:most]
        key = (id(side.vectors), points.tobytes())
        if key not in self._known:
            self._known[key] = side.vectors, in_float64(_along(self._problem, side.vectors), points)
        expected = self._known[key][1]
        return float(np.nanmax(np.abs(values[: len(points)] - expected) / expected))


def _along(problem: Problem, vectors: Vectors | None) -> Problem:
    """The problem with the plane of these directions."""
    if vectors is None:
        return problem
    made = Directions(problem.directions.names, tuple(vectors), {"kind": "given"})
    return Problem(problem.model, problem.x, problem.y, made)


def best_batch(problem: Problem, timed: bool, large: bool) -> int:
    """The batch size at which the hand-written loop is fastest; sought on at most 2,048 samples."""
    part = problem.part(max(BATCHES))
    if not timed:
        return len(part.y)
    passes = 1 if large else 3
    return fastest(lambda batch: hand_written(part, coordinates(1), batch), BATCHES, passes)


def ours(problem: Problem, count: int, timed: bool, tier: str, batch: int | None) -> Side:
    """A tier of ours with its products of the data; the trial that chooses is timed by itself."""
    points = coordinates(count)
    make = partial(Evaluator, problem.model, "cross_entropy", tier=tier)
    if tier == "exact":
        evaluator = make(data=(problem.x, problem.y), batch_size=batch)
        return Side(lambda: evaluator.points(problem.directions, points).values["loss"], points, facts={"batch": batch})
    part = problem.part(TRIAL)
    trial = make(data=(part.x, part.y), batch_size=batch)
    started = time.perf_counter()
    values = trial.points(problem.directions, points).values["loss"]
    seconds = time.perf_counter() - started
    name = trial.choice.name
    chosen = make(data=(problem.x, problem.y), batch_size=batch, implementation=name)
    facts = {"implementation": name, "trial_seconds": seconds, "choice": str(trial.choice)}
    run = lambda: chosen.points(problem.directions, points).values["loss"]  # noqa: E731
    return Side(run, points, note=name, facts=facts, trial=(part, values))


def loop(problem: Problem, count: int, timed: bool, batch: int) -> Side:
    """The hand-written loop."""
    points = coordinates(count)
    return Side(lambda: hand_written(problem, points, batch), points, note=f"batch {batch}", facts={"batch": batch})


def loader(problem: Problem, count: int, timed: bool) -> Side:
    """The DataLoader loop, without workers or with two, whichever is faster."""
    points = coordinates(count)
    best = _fastest_workers(problem.part(2048) if count == 1 else problem) if timed else 0
    data = loader_of(problem, best)
    note = f"batch 128, {best} workers, one .item() per batch"
    return Side(lambda: with_loader(problem, points, data), points, note=note, facts={"workers": best})


def _fastest_workers(problem: Problem) -> int:
    """0 or 2, where processes can be started."""
    loaders = {workers: loader_of(problem, workers) for workers in (0, 2)}
    try:
        with_loader(problem, coordinates(1), loaders[2])
    except (RuntimeError, OSError):  # no processes, or no memory that they could share
        return 0
    return fastest(lambda workers: with_loader(problem, coordinates(1), loaders[workers]), (0, 2), 2)


def vmapped(problem: Problem, count: int, timed: bool) -> Side:
    """`torch.func.vmap`, at the best of some chunks and batches."""
    batch, chunk = min(128, len(problem.y)), 2
    if timed:
        large = count == 1  # so large that few samples tell
        part = problem.part(256 if large else 1024)
        settings = [(b, c) for b in ((64, 256) if large else (256, 1024)) for c in CHUNKS[: 1 if large else None]]
        per_point = {s: _seconds(lambda s=s: stacked(part, coordinates(s[1]), *s)) / s[1] for s in settings}
        batch, chunk = min(per_point, key=per_point.__getitem__)
    points = coordinates(-(-count // chunk) * chunk)
    note = f"{chunk} points at a time, batch {batch}"
    return Side(lambda: stacked(problem, points, batch, chunk), points, note=note)


def _seconds(run: Callable[[], object]) -> float:
    """The shorter of two runs."""
    times = []
    for _ in range(2):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return min(times)


def through_compiler(problem: Problem, count: int, timed: bool, batch: int) -> Side:
    """The hand-written loop around a compiled network; it compiles here, before anything is timed."""
    if not timed:
        raise Absent("compiles only when it is timed")
    if shutil.which(os.environ.get("CXX", "c++")) is None:
        raise Absent("there is no C++ compiler here")
    points = coordinates(count)
    try:
        forward = compiled(problem)
        hand_written(problem, points[:1], batch, forward)
    except Exception as error:  # of a compiler anything
        raise Absent(f"torch.compile fails here: {(str(error).splitlines() or [type(error).__name__])[0]}") from None
    return Side(lambda: hand_written(problem, points, batch, forward), points, note=f"batch {batch}")
