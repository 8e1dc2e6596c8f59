"""Engines for data that do not stay in memory: one pass over the batches serves many points.

Every point gets each batch's share in the order of the batches, so its sums have the bits that resident data give.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import numpy as np
import torch

from .._cells import Cells, DeviceCells, HostCells
from .._recalibrate import Statistics
from .._saved import Changes
from . import Array, Done, Task
from .device import Progress, deterministic_convolutions, side_stream, upload

POINTS_PER_PASS = 256


class _Streamed:
    """What both engines do; they differ in where coordinates and sums are."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self.told: dict[str, Any] = {"streamed": True}

    def evaluate(self, points: Array, done: Done) -> Array:
        """See Engine."""
        size = POINTS_PER_PASS
        return np.concatenate([self._some(points[i : i + size], done) for i in range(0, len(points), size)])

    def _some(self, points: Array, done: Done) -> Array:
        raise NotImplementedError

    def _visits(self) -> Iterator[tuple[int, Cells]]:
        """Move the model to every point of a call, one after the other."""
        raise NotImplementedError

    def _passes(self, count: int, done: Done) -> None:
        """Add every batch to every point."""
        task = self._task
        known: list[Statistics] | None = None
        if task.prepare is not None:
            known = task.prepare.of_points(count, lambda: (i for i, _ in self._visits()))
        changes: list[Changes | None] = [None] * count
        with closing(task.passes()) as batches:
            for batch in batches:
                for i, cells in self._visits():
                    if known is not None:
                        known[i].write()
                    task.same.resume(changes[i])
                    task.measure.add_batch(task.model, batch, cells)
                    changes[i] = task.same.changes(thorough=i == 0)
        for _, cells in self._visits():
            task.measure.add_point(cells)
            done()


class OnHost(_Streamed):
    """See Engine."""

    def _some(self, points: Array, done: Done) -> Array:
        self._points = points.tolist()
        self._cells = [HostCells(self._task.measure.columns) for _ in points]
        self._passes(len(points), done)
        return np.array([cells.totals for cells in self._cells])

    def _visits(self) -> Iterator[tuple[int, Cells]]:
        for i, (point, cells) in enumerate(zip(self._points, self._cells, strict=True)):
            self._task.same.reset()
            self._task.move.to(*point)
            yield i, cells


class OnDevice(_Streamed):
    """See Engine; the host launches every operation and reads once per call.

    Args:
        task: What a point is.
        device: Where.
        planned: Points of the whole run.
        width: Coordinates of a point.
    """

    def __init__(self, task: Task, device: torch.device, planned: int, width: int) -> None:
        super().__init__(task)
        rows = min(planned, POINTS_PER_PASS)
        self.told |= {"graph": False, "graph_reason": "the data are streamed"}
        self._device = device
        self._table = torch.zeros(rows, width, dtype=torch.float64, device=device)
        self._cells = DeviceCells(rows, task.measure.columns, device)
        self._count = 0

    def _some(self, points: Array, done: Done) -> Array:
        self._count = len(points)
        with side_stream(self._device), deterministic_convolutions():
            self._cells.restart()
            upload(points, self._table)
            self._passes(len(points), done)
            totals: Array = self._cells.totals[: len(points)].cpu().numpy()
        return totals

    def _visits(self) -> Iterator[tuple[int, Cells]]:
        self._cells.rewind()
        progress = Progress(lambda: None, self._device)
        for i in range(self._count):
            self._task.same.reset()
            self._task.move.to_row(self._table, self._cells.cursor)
            yield i, self._cells
            self._cells.advance()
            progress.launched()
