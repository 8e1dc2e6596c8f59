"""One run over many points: what a point does, and the loop on the host. Knows no axes and no results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from ._cells import Cells, HostCells
from ._loss import Measure
from ._points import Batch
from ._saved import SameStart
from ._walk import Move

Array = npt.NDArray[np.float64]
Done = Callable[[], object]  # called when a point is finished


@dataclass
class Task:
    """A model in the mode of its evaluation, with all that a point needs.

    Attributes:
        model: Set to the weights of a point by `move`.
        move: Where the points lie.
        same: What every point starts from.
        prepare: Called at every point before the batches, or None.
        measure: What is measured.
        batches: The data, where the model is.
    """

    model: nn.Module
    move: Move
    same: SameStart
    prepare: Callable[[], None] | None
    measure: Measure
    batches: Sequence[Batch]

    def add(self, cells: Cells) -> None:
        """Add the batches' shares at the weights that the model has now."""
        if self.prepare is not None:
            self.prepare()
        self.measure.add(self.model, self.batches, cells)


def on_host(task: Task, points: Array, done: Done) -> tuple[Array, dict[str, Any]]:
    """Running sums [points, columns], and the conditions that a result shall tell."""
    totals = np.empty((len(points), task.measure.columns))
    for i, point in enumerate(points.tolist()):
        cells = HostCells(task.measure.columns)
        task.same.reset()
        task.move.to(*point)
        task.add(cells)
        totals[i] = cells.totals
        done()
    return totals, {}
