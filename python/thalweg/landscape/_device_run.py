"""One run over many points on a device: the first point as it comes, the others as replays of one CUDA graph.

Coordinates, cursor and running sums stay on the device; the host reads once, at the end.
"""

from __future__ import annotations

import functools
import logging
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ._cells import DeviceCells
from ._graph import Refusal, captured, obstacle, synchronisations
from ._run import Array, Done, Task

_LOG = logging.getLogger("thalweg.landscape")
_IN_FLIGHT = 64  # points that the host may be ahead: enough to hide it, few enough for Ctrl-C


def on_device(
    task: Task, points: Array, done: Done, device: torch.device, refusal: Refusal
) -> tuple[Array, dict[str, Any]]:
    """Running sums [points, columns], and the conditions that a result shall tell."""
    with _side_stream(device), _deterministic_convolutions():
        table = _uploaded(points, device)
        cells = DeviceCells(len(points), task.measure.columns, device)
        progress = _Progress(done, device)

        def point() -> None:
            task.move.to_row(table, cells.cursor)
            task.add(cells)
            cells.advance()

        def from_start() -> None:
            task.same.reset_buffers()
            point()

        task.same.reset()
        with synchronisations(device) as waits:
            point()  # warms up what a capture cannot: libraries' handles, memory of the reductions
        progress.launched()
        reason = obstacle(device, len(points), waits, _changes(task, cells), refusal)
        replay = None
        if reason is None:
            replay, reason = captured(from_start, device, refusal), refusal.reason
        if replay is None:
            task.same.distrust()  # of what a failed capture seemed to write
            _LOG.info("landscape: no CUDA graph: %s", reason)
        for _ in range(len(points) - 1):
            if replay is None:
                task.same.reset()
                point()
            else:
                replay()
            progress.launched()
        progress.finish()
        totals = cells.totals.cpu().numpy()
    return totals, {"graph": True} if reason is None else {"graph": False, "graph_reason": reason}


def _changes(task: Task, cells: DeviceCells) -> str | None:
    """What each point does anew and a graph would repeat, seen after the first point."""
    if task.prepare is not None:
        return "the BatchNorm statistics are recalibrated at every point"
    if cells.took_host_numbers:
        return "the loss or a metric returns a number of the host, not a tensor on the device"
    if task.same.drew():
        return "the model, the loss or a metric draws random numbers"
    return None


def _uploaded(points: Array, device: torch.device) -> Tensor:
    """The coordinates [points, width] on the device, without waiting for it."""
    table = torch.from_numpy(points.copy())
    return table.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else table


@functools.lru_cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """One stream for all runs on a device: torch keeps freed memory by stream."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


@contextmanager
def _side_stream(device: torch.device) -> Iterator[None]:
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
def _deterministic_convolutions() -> Iterator[None]:
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before


class _Progress:
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


def conditions(device: torch.device) -> dict[str, Any]:
    """What the bits of a result depend on beside the program, JSON-able."""
    if device.type != "cuda":
        return {"device": device.type}
    return {
        "device": torch.cuda.get_device_name(device),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        "fp32_precision": {
            "matmul": torch.backends.cuda.matmul.fp32_precision,
            "convolution": torch.backends.cudnn.conv.fp32_precision,  # type: ignore[attr-defined]
        },
    }
