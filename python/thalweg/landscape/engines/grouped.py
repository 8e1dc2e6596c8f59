"""Engines that evaluate several points with one pass over the data, perhaps some groups at a time in threads.

Same real numbers as the plain engine, other rounding. Knows sources of outputs, not how they come about.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from .._cells import DeviceCells, HostCells
from . import Array, Done, Task


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
    """

    def __init__(self, task: Task, source: Source, points: int, workers: int, device: torch.device) -> None:
        self._task, self._source, self._points, self._workers, self._device = task, source, points, workers, device
        self._prepared = False
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
        if self._workers == 1:
            sums = [self._finished(self._sums(group), len(group), done) for group in groups]
        else:
            with _single_threads() as threads, ThreadPoolExecutor(self._workers, initializer=threads) as pool:
                parts = pool.map(self._sums, groups)
                sums = [self._finished(part, len(group), done) for part, group in zip(parts, groups, strict=True)]
        return torch.cat(sums).cpu().numpy() if sums else np.empty((0, self._task.measure.columns))

    def _finished(self, sums: Tensor, count: int, done: Done) -> Tensor:
        for _ in range(count):
            done()
        return sums[:count]

    def _sums(self, points: Array) -> Tensor:
        """Running sums of one group, float64 [points, columns], where the model is."""
        whole = np.concatenate([points, np.repeat(points[-1:], self._points - len(points), axis=0)])
        columns = self._task.measure.columns
        with torch.inference_mode():
            cells: list[Any] = [
                HostCells(columns) if self._device.type == "cpu" else DeviceCells(1, columns, self._device)
                for _ in whole
            ]
            at = self._source.at(torch.from_numpy(whole).to(self._device))
            for index, batch in enumerate(self._task.batches):
                for cell, output in zip(cells, self._source.outputs(index, at), strict=True):
                    self._task.measure.add_output(output, batch, cell)
            if self._device.type == "cpu":
                return torch.tensor([cell.totals for cell in cells], dtype=torch.float64)
            return torch.cat([cell.totals for cell in cells])


@contextmanager
def _single_threads() -> Iterator[Callable[[], None]]:
    """One thread for torch's operations, here and in threads that call the function that this gives."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # of the process, for threads that come after, and of this one
    try:
        yield lambda: torch.set_num_threads(1)
    finally:
        torch.set_num_threads(threads)
