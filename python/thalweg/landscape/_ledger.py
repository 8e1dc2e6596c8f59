"""Which points of a run are left, and the sums of those that are done. Knows no model, no file, no other process."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


class Ledger:
    """The points of a run in the order of their evaluation, with the running sums of each.

    A driver does `with ledger: while len(indices := ledger.next(size)): ledger.add(indices, sums)`, and then takes
    `totals()`. Leaving the block frees what a ledger holds (files, claims), after an exception too.

    Args:
        order: [points] every index from 0 to points - 1 once.
        columns: Running sums of a point.
    """

    def __init__(self, order: Indices, columns: int) -> None:
        self.order = np.asarray(order, dtype=np.int64)
        self.sums: Array = np.full((len(self.order), columns), np.nan)
        self.done = np.zeros(len(self.order), dtype=bool)  # by index
        self.told: dict[str, Any] = {}  # by the engine, about how the points were computed
        self._cursor = 0  # in `order`; everything before it is done or given out

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Free what the ledger holds."""

    def next(self, size: int) -> Indices:
        """Up to `size` indices to evaluate now, in `order`; none when nothing is left."""
        left = self.order[self._cursor :]
        found = np.flatnonzero(~self.done[left])[:size]
        self._cursor += int(found[-1]) + 1 if len(found) else len(left)
        return left[found]

    def add(self, indices: Indices, sums: Array) -> None:
        """Keep the sums [n, columns] of points that `next` gave."""
        self.sums[indices] = sums
        self.done[indices] = True

    def tell(self, told: Mapping[str, Any]) -> None:
        """Keep what the engine tells about the points that were added."""
        self.told = dict(told)

    def totals(self) -> Array:
        """Running sums [points, columns], once every point is done."""
        return self.sums
