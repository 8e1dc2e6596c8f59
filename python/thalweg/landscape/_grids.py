"""Values on grids along two and three directions: `Evaluator.grid` and `Evaluator.volume` are defined here."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _check
from ._evaluation import How
from ._keeping import Keeping
from ._ledger import Array, Ledger
from ._order import progressive
from ._points import axis
from ._refine import Mask, Refinement
from .directions import Directions
from .result import Surface, Volume

if TYPE_CHECKING:
    from .evaluator import Evaluator

Axis = tuple[float, float, int]
Shaped = Callable[[Mapping[str, Array], dict[str, Any]], Any]  # a result from values [points] and metadata
_PREVIEW_SECONDS = 1.0  # at least, between two previews


def grid(
    evaluator: Evaluator,
    directions: Directions,
    x: Axis = (-1, 1, 51),
    y: Axis = (-1, 1, 51),
    progress: bool = True,
    preview: Callable[[Surface], object] | None = None,
    resume: str | os.PathLike[str] | None = None,
    share: Any = False,
    refine: float | None = None,
) -> Surface:
    r"""Values on a grid in the plane of two directions, coarse to fine: :math:`(w + \alpha d_1) + \beta d_2`.

    Args:
        evaluator: The evaluator itself, in a call of its method.
        directions: Two directions.
        x: (first, last, number) along the first direction: the columns.
        y: (first, last, number) along the second direction: the rows.
        progress: Show a progress bar when standard error is a terminal.
        preview: Called now and then with the surface so far, NaN where it is not known yet.
        resume: A file (SQLite) that is written along the way, and from which the same call goes on after a kill, with
            the same bits; complete, it gives the result at once.
        share: True: share the points with the other processes, under torchrun or in a process group; all get the
            whole result, and write `run.rank0.sqlite` … beside `resume`. Or a `torch.distributed.Store`, or a `Share`.
        refine: Evaluate a coarse grid and only those cells further in which a value of the first metric differs by
            more than this from what the cell's corners say (bilinearly). The other points stay NaN in `values`, the
            result's `evaluated` tells which are known, and `filled` interpolates. None: every point.

    Returns:
        A Surface; `values[name]` has shape (ny, nx).

    Raises:
        ValueError: Other than two directions, or an axis that is empty or not finite; `resume` is damaged or belongs
            to a run with other weights, data, directions, axes or conditions; `refine` together with `share`.
        RuntimeError: Another process works with `resume`, or `share` has nobody to share with.

    Example:
        >>> import torch, thalweg as tw
        >>> model, x = torch.nn.Linear(3, 2), torch.randn(20, 3)
        >>> ev = tw.landscape.Evaluator(model, "cross_entropy", (x, torch.zeros(20, dtype=torch.long)))
        >>> ev.grid(tw.landscape.random_directions(model), x=(-1, 1, 5), y=(-1, 1, 3)).values["loss"].shape
        (3, 5)
    """
    who = "Evaluator.grid"
    _check.instance(who, "directions", directions, Directions, "Directions")
    if len(directions) != 2:
        raise ValueError(f"{who}: expected two directions, got {len(directions)}; use line() for one")
    xs, ys = axis(who, "x", x), axis(who, "y", y)
    shape = len(ys), len(xs)
    coords = np.stack(np.broadcast_arrays(xs[None, :], ys[:, None]), axis=-1).reshape(-1, 2)
    started = time.perf_counter()
    weights = (p.detach().clone() for p in evaluator._evaluation.params.values())
    origin = tuple(weights) if directions.origin is None else directions.origin

    def made(values: Mapping[str, Array], told: dict[str, Any], done: Mask | None = None) -> Surface:
        shaped = {name: value.reshape(shape) for name, value in values.items()}
        mask = None if done is None or done.all() else done.reshape(shape)
        spent = timings(started, len(coords) if done is None else int(done.sum()))
        return Surface(xs, ys, shaped, told, spent, directions, origin, mask)

    how = How("landscape", progress, progressive(shape), previews(evaluator, preview, made))
    if refine is not None:
        how.rounds = _refinement(evaluator, shape, _check.real(who, "refine", refine, 0), share)
    run = evaluator._in_plane(directions, coords, how, Keeping(who, resume, share))
    told = run.told if refine is None else {**run.told, "refine": float(refine)}
    return made(run.values, told, run.done)


def _refinement(evaluator: Evaluator, shape: tuple[int, int], tolerance: float, share: Any) -> Refinement:
    if share is not False:
        raise ValueError(
            "Evaluator.grid: refine and share do not go together, as each round needs the values of the one before; "
            "leave one of them out"
        )
    evaluation, name = evaluator._evaluation, evaluator.metrics[0]
    return Refinement(shape, tolerance, lambda sums: evaluation.values(sums)[name])


def volume(
    evaluator: Evaluator,
    directions: Directions,
    x: Axis = (-1, 1, 15),
    y: Axis = (-1, 1, 15),
    z: Axis = (-1, 1, 15),
    progress: bool = True,
    preview: Callable[[Volume], object] | None = None,
    resume: str | os.PathLike[str] | None = None,
    share: Any = False,
) -> Volume:
    r"""Values on a grid along three directions, coarse to fine: :math:`((w + \alpha d_1) + \beta d_2) + \gamma d_3`.

    Args:
        evaluator: The evaluator itself, in a call of its method.
        directions: Three directions.
        x: (first, last, number) along the first direction, the last axis of the values.
        y: (first, last, number) along the second direction.
        z: (first, last, number) along the third direction, the first axis of the values.
        progress: Show a progress bar when standard error is a terminal.
        preview: Called now and then with the volume so far, NaN where it is not known yet.
        resume: As of `grid`.
        share: As of `grid`.

    Returns:
        A Volume; `values[name]` has shape (nz, ny, nx).

    Raises:
        ValueError: Other than three directions, or an axis that is empty or not finite.

    Example:
        >>> import torch, thalweg as tw
        >>> model, x = torch.nn.Linear(3, 2), torch.randn(20, 3)
        >>> ev = tw.landscape.Evaluator(model, "cross_entropy", (x, torch.zeros(20, dtype=torch.long)))
        >>> ev.volume(tw.landscape.random_directions(model, 3), (-1, 1, 4), (-1, 1, 3), (0, 1, 2)).values["loss"].shape
        (2, 3, 4)
    """
    who = "Evaluator.volume"
    _check.instance(who, "directions", directions, Directions, "Directions")
    if len(directions) != 3:
        raise ValueError(f"{who}: expected three directions, got {len(directions)}; use grid() for two")
    xs, ys, zs = (axis(who, name, value) for name, value in zip("xyz", (x, y, z), strict=True))
    grids = np.broadcast_arrays(xs, ys[:, None], zs[:, None, None])
    coords = np.stack(grids, axis=-1).reshape(-1, 3)
    shape = len(zs), len(ys), len(xs)
    started = time.perf_counter()

    def made(values: Mapping[str, Array], told: dict[str, Any]) -> Volume:
        shaped = {name: value.reshape(shape) for name, value in values.items()}
        return Volume(xs, ys, zs, shaped, told, timings(started, len(coords)))

    how = How("volume", progress, progressive(shape), previews(evaluator, preview, made))
    run = evaluator._in_plane(directions, coords, how, Keeping(who, resume, share))
    return made(run.values, run.told)


def previews(evaluator: Evaluator, preview: Callable[[Any], object] | None, made: Shaped) -> Callable[[Ledger], object]:
    """Calls `preview` with what a ledger has, at most every second."""
    last = time.perf_counter()

    def shown(ledger: Ledger) -> None:
        nonlocal last
        if preview is not None and time.perf_counter() - last >= _PREVIEW_SECONDS:
            preview(made(evaluator._evaluation.values(ledger.sums), {"preview": True}))
            last = time.perf_counter()

    return shown


def timings(started: float, points: int) -> dict[str, float]:
    """Seconds since then, and points in each."""
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "points_per_second": points / seconds}
