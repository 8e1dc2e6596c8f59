"""The plain engine: one point after the other on the host, each batch through torch."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._cells import HostCells
from . import Array, Done, Task


class Loop:
    """See Engine."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self.told: dict[str, Any] = {}

    def evaluate(self, points: Array, done: Done) -> Array:
        """See Engine."""
        task = self._task
        totals = np.empty((len(points), task.measure.columns))
        for i, point in enumerate(points.tolist()):
            cells = HostCells(task.measure.columns)
            task.same.reset()
            task.move.to(*point)
            self._add(cells)
            totals[i] = cells.totals
            done()
        return totals

    def _add(self, cells: HostCells) -> None:
        """Add the batches' shares at the weights that the model has now."""
        self._task.add(cells)
