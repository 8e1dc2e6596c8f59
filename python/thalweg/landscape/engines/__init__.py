"""Engines evaluate points: all of them give the running sums that the same few lines of plain torch would give.

`loop` is the plain one on the host, `device` replays one CUDA graph per point. Knows no axes, no files, no results.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch import nn

from .._batches import Batch
from .._cells import Cells
from .._loss import Measure
from .._recalibrate import Recalibration
from .._saved import SameStart
from .._walk import Move

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
    prepare: Recalibration | None
    measure: Measure
    batches: Iterable[Batch]

    def passes(self) -> Generator[Batch, None, None]:
        """One pass over the batches; close it when it is left early."""
        yield from self.batches

    def add(self, cells: Cells) -> None:
        """Add the batches' shares at the weights that the model has now."""
        if self.prepare is not None:
            self.prepare()
        self.measure.add(self.model, self.batches, cells)


class Engine(Protocol):
    """Evaluates points of one task; lives for one run."""

    @property
    def told(self) -> Mapping[str, Any]:
        """What a result shall tell about how it was computed, once a point has been evaluated; JSON-able."""

    def evaluate(self, points: Array, done: Done) -> Array:
        """Running sums [n, columns] at points [n, coordinates], in their order."""
