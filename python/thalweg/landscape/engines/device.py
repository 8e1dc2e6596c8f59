"""The engine of a CUDA device: the first point as it comes, the others as replays of one CUDA graph.

Coordinates, cursor and running sums stay on the device; the host reads once per call, of many points.
"""

from __future__ import annotations

import functools
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._cells import DeviceCells
from . import Array, Done, Task
from ._graph import Refusal, captured, obstacle, synchronisations

_LOG = logging.getLogger("thalweg.landscape")
_ROWS = 4096  # points whose coordinates and sums are on the device at a time
_IN_FLIGHT = 64  # points that the host may be ahead: enough to hide it, few enough for Ctrl-C


class Device:
    """See Engine; the graph, its coordinates and its sums serve all calls.

    Args:
        task: What a point is.
        device: Where.
        width: Coordinates of a point.
        planned: Points of the whole run: for a few, a capture costs more than it saves.
        refusal: From earlier runs.
    """

    def __init__(self, task: Task, device: torch.device, width: int, planned: int, refusal: Refusal) -> None:
        self._task, self._device, self._planned, self._refusal = task, device, planned, refusal
        rows = min(planned, _ROWS)
        self._table = torch.zeros(rows, width, dtype=torch.float64, device=device)
        self._cells = DeviceCells(rows, task.measure.columns, device)
        self._replay: Callable[[], None] | None = None
        self._reason: str | None = None
        self._warm = False  # a point has been evaluated

    @property
    def told(self) -> dict[str, Any]:
        """See Engine."""
        return {"graph": True} if self._reason is None else {"graph": False, "graph_reason": self._reason}

    def evaluate(self, points: Array, done: Done) -> Array:
        """See Engine; the host reads once per call."""
        parts = [self._some(points[i : i + len(self._table)], done) for i in range(0, len(points), len(self._table))]
        return np.concatenate(parts)

    def _some(self, points: Array, done: Done) -> Array:
        with side_stream(self._device), deterministic_convolutions():
            self._cells.restart()
            upload(points, self._table)
            progress = Progress(done, self._device)
            rest = len(points)
            if not self._warm:
                self._first()
                progress.launched()
                rest -= 1
            for _ in range(rest):
                if self._replay is None:
                    self._task.same.reset()
                    self._point()
                else:
                    self._replay()
                progress.launched()
            progress.finish()
            totals: Array = self._cells.totals[: len(points)].cpu().numpy()
        return totals

    def _point(self) -> None:
        self._task.move.to_row(self._table, self._cells.cursor)
        self._task.add(self._cells)
        self._cells.advance()

    def _from_start(self) -> None:
        self._task.same.reset_buffers()
        self._point()

    def _first(self) -> None:
        """The first point as it comes; then the graph for all others, or the reason why there is none."""
        self._warm = True
        self._task.same.reset()
        with synchronisations(self._device) as waits:
            self._point()  # warms up what a capture cannot: libraries' handles, memory of the reductions
        changes = _changes(self._task, self._cells)
        self._reason = obstacle(self._device, self._planned, waits, changes, self._refusal)
        if self._reason is None:
            self._replay = captured(self._from_start, self._device, self._refusal)
            self._reason = self._refusal.reason
        if self._replay is None:
            self._task.same.distrust()  # of what a failed capture seemed to write
            _LOG.info("landscape: no CUDA graph: %s", self._reason)


def _changes(task: Task, cells: DeviceCells) -> str | None:
    """What each point does anew and a graph would repeat, seen after the first point."""
    if task.prepare is not None:
        return "the BatchNorm statistics are recalibrated at every point"
    if cells.took_host_numbers:
        return "the loss or a metric returns a number of the host, not a tensor on the device"
    if task.same.drew():
        return "the model, the loss or a metric draws random numbers"
    return None


def upload(points: Array, table: Tensor) -> None:
    """The coordinates [points, width] into the first rows of the table, without waiting for the device."""
    rows = torch.from_numpy(np.ascontiguousarray(points))
    table[: len(points)].copy_(rows.pin_memory() if table.is_cuda else rows, non_blocking=True)


@functools.lru_cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """One stream for all runs on a device: torch keeps freed memory by stream."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


@contextmanager
def side_stream(device: torch.device) -> Iterator[None]:
    """Work on a stream that may be captured, between what the current one holds before and after."""
    if device.type != "cuda":
        yield
        return
    outside, side = torch.cuda.current_stream(device), _stream(device)
    side.wait_stream(outside)
    try:
        with torch.cuda.device(device), torch.cuda.stream(side):
            yield
    finally:
        outside.wait_stream(side)


@contextmanager
def deterministic_convolutions() -> Iterator[None]:
    """The same algorithm for the same shapes, always."""
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before


class Progress:
    """The bar follows the points that the device has finished; asks for them and never waits in a synchronisation."""

    def __init__(self, done: Done, device: torch.device) -> None:
        self._done = done
        self._device = device
        self._pending: deque[torch.cuda.Event] = deque()

    def launched(self) -> None:
        """A point more is on its way."""
        if self._device.type != "cuda":
            self._done()
            return
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._device))
        self._pending.append(event)
        self._follow(_IN_FLIGHT)

    def finish(self) -> None:
        """Follow the device to the last point."""
        self._follow(0)

    def _follow(self, most: int) -> None:
        """Return once at most `most` points are on their way."""
        while True:
            while self._pending and self._pending[0].query():  # type: ignore[no-untyped-call]
                self._pending.popleft()
                self._done()
            if len(self._pending) <= most:
                return
            time.sleep(1e-4)
