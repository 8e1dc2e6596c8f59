"""Engines that evaluate several points with one pass over the data, perhaps some groups at a time in threads.

Same real numbers as the plain engine, other rounding. Knows sources of outputs, not how they come about.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from .._cells import DeviceCells, HostCells
from . import Array, Done, Task
from .device import Progress, deterministic_convolutions, upload


class Source(Protocol):
    """A model's outputs at several points."""

    def prepare(self) -> None:
        """Whatever all points share."""

    def at(self, coordinates: Tensor) -> Any:
        """What the batches need to know of points [points, directions]."""

    def outputs(self, index: int, at: Any) -> Sequence[Any]:
        """Outputs for batch number `index`, one per point."""


class Grouped:
    """See Engine.

    Args:
        task: What is measured, on which batches; its moves are not used.
        source: Outputs at several points.
        points: Of a group; a last group that is smaller is filled up, so that no value depends on how many there are.
        workers: Threads, each with groups of its own and none inside torch; 1: torch's own threads.
        device: Where.
        width: Coordinates of a point.
        on_device: Whether the core takes the device's memory for a CUDA device's: then sums stay there until the end
            of a call. One worker.
        arithmetic: Around each thread's work, such as autocast, which is a thread's own.
    """

    def __init__(
        self,
        task: Task,
        source: Source,
        points: int,
        workers: int,
        device: torch.device,
        width: int,
        on_device: bool,
        arithmetic: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._task, self._source, self._points, self._workers, self._device = task, source, points, workers, device
        self._arithmetic = arithmetic
        self._prepared = False
        self._there = _There(points, width, task.measure.columns, device) if on_device else None
        self.told: dict[str, Any] = {}

    @property
    def group(self) -> int:
        """Points that it takes at once."""
        return self._points * self._workers

    def evaluate(self, points: Array, done: Done) -> Array:
        """See Engine."""
        if not self._prepared:
            self._source.prepare()
            self._prepared = True
        starts = range(0, len(points), self._points)
        groups = [points[start : start + self._points] for start in starts]
        if not groups:
            return np.empty((0, self._task.measure.columns))
        if self._there is not None:
            return self._on_device(self._there, groups, done)
        if self._workers == 1:
            return np.concatenate([self._finished(self._sums(group), done) for group in groups])
        with _single_threads() as threads, ThreadPoolExecutor(self._workers, initializer=threads) as pool:
            return np.concatenate([self._finished(part, done) for part in pool.map(self._sums, groups)])

    def _finished(self, sums: Array, done: Done) -> Array:
        for _ in sums:
            done()
        return sums

    def _whole(self, points: Array) -> Array:
        return np.concatenate([points, np.repeat(points[-1:], self._points - len(points), axis=0)])

    def _sums(self, points: Array) -> Array:
        """Running sums [points, columns] of one group, on the host."""
        cells = [HostCells(self._task.measure.columns) for _ in range(self._points)]
        with torch.inference_mode(), self._arithmetic():
            at = self._source.at(torch.from_numpy(self._whole(points)))
            for index, batch in enumerate(self._task.batches):
                for cell, output in zip(cells, self._source.outputs(index, at), strict=True):
                    self._task.measure.add_output(output, batch, cell)
        return np.array([cell.totals for cell in cells[: len(points)]])

    def _on_device(self, there: _There, groups: Sequence[Array], done: Done) -> Array:
        """The same of all groups; the host launches them, stays a group ahead at most, and reads once."""
        progress, sums = Progress(done, self._device), []
        with torch.inference_mode(), deterministic_convolutions():
            for points in groups:
                there.cells.restart()
                upload(self._whole(points), there.table)
                at = self._source.at(there.table)
                for index, batch in enumerate(self._task.batches):
                    there.cells.rewind()
                    for output in self._source.outputs(index, at):
                        self._task.measure.add_output(output, batch, there.cells)
                        there.cells.advance()
                sums.append(there.cells.totals[: len(points)].clone())
                for _ in points:
                    progress.launched()
            progress.finish()
            return np.asarray(torch.cat(sums).cpu().numpy())


class _There:
    """Coordinates [points, width] and running sums of one group on a device, used again by the next one."""

    def __init__(self, points: int, width: int, columns: int, device: torch.device) -> None:
        self.table = torch.zeros(points, width, dtype=torch.float64, device=device)
        self.cells = DeviceCells(points, columns, device)


@contextmanager
def _single_threads() -> Iterator[Callable[[], None]]:
    """One thread for torch's operations, here and in threads that call the function that this gives."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # of the process, for threads that come after, and of this one
    try:
        yield lambda: torch.set_num_threads(1)
    finally:
        torch.set_num_threads(threads)
