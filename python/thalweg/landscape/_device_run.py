"""One run over many points on a device: the first point as it comes, the others as replays of one CUDA graph.

Coordinates, cursor and running sums stay on the device; the host reads once, at the end.
"""

from __future__ import annotations

import functools
import logging
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ._cells import DeviceCells
from ._run import Array, Done, Task

_LOG = logging.getLogger("thalweg.landscape")
_LEAST_POINTS = 3  # below, a capture costs more than it saves
_IN_FLIGHT = 64  # points that the host may be ahead: enough to hide it, few enough for Ctrl-C


def on_device(task: Task, points: Array, done: Done, device: torch.device) -> tuple[Array, dict[str, Any]]:
    """Running sums [points, columns], and the conditions that a result shall tell."""
    with _side_stream(device), _deterministic_convolutions():
        table = _uploaded(points, device)
        cells = DeviceCells(len(points), task.measure.columns, device)
        progress = _Progress(done, device)

        def point() -> None:
            task.move.to_row(table, cells.cursor)
            task.add(cells)
            cells.advance()

        task.same.reset()
        point()  # warms up what a capture cannot: libraries' handles, memory of the reductions
        progress.launched()
        replay, reason = _captured(point, task, cells, len(points))
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


def _captured(
    point: Callable[[], None], task: Task, cells: DeviceCells, points: int
) -> tuple[Callable[[], None] | None, str | None]:
    """A replay of the point, or why there is none; the first point has been evaluated."""
    reason = _obstacle(task, cells, points)
    if reason is not None:
        _LOG.info("landscape: no CUDA graph: %s", reason)
        return None, reason
    graph = torch.cuda.CUDAGraph()
    stream = torch.cuda.current_stream(cells.device)
    handled = sys.exc_info()[1]
    try:
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            task.same.reset_buffers()
            point()
    except Exception as error:  # whatever users' code does that a graph cannot hold
        task.same.distrust()
        _end_capture_of_generator(cells)
        reason = f"the capture failed: {_first_of(error, handled)}"
        _LOG.warning("landscape: no CUDA graph, every point is launched by the host: %s", reason)
        return None, reason
    return graph.replay, None


def _first_of(error: BaseException, handled: BaseException | None) -> str:
    """What went wrong first: the end of a failed capture fails, too, and says less. `handled` is older than both."""
    while error.__context__ is not None and error.__context__ is not handled:
        error = error.__context__
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def _obstacle(task: Task, cells: DeviceCells, points: int) -> str | None:
    if points < _LEAST_POINTS:
        return f"{points} points are too few"
    if task.prepare is not None:
        return "the BatchNorm statistics are recalibrated at every point"
    if cells.took_host_numbers:
        return "the loss or a metric returns a number of the host, not a tensor on the device"
    if task.same.drew():
        return "the model, the loss or a metric draws random numbers"
    return None if cells.device.type == "cuda" else "the device has no graphs"


def _end_capture_of_generator(cells: DeviceCells) -> None:
    """A failed capture leaves torch's generator in capture; one that succeeds takes it out."""
    with torch.cuda.graph(
        torch.cuda.CUDAGraph(), stream=torch.cuda.current_stream(cells.device), capture_error_mode="thread_local"
    ):
        cells.totals.add_(0.0)  # never carried out


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
