"""Adaptive refinement of a grid: cells are split while their middle differs from what their corners say.

Knows shapes and values, no model. What is not evaluated stays NaN; only `filled` interpolates, and only when asked.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ._ledger import Indices, Ledger

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
_WIDTH = 8  # places between the corners of a first cell


class Cell(NamedTuple):
    """Rows y0 … y1 and columns x0 … x1 of a grid; the corners belong to it."""

    y0: int
    y1: int
    x0: int
    x1: int

    @property
    def middle(self) -> tuple[int, int]:
        """Row and column in which it is split; where it is one place wide, its first."""
        return (self.y0 + self.y1) // 2, (self.x0 + self.x1) // 2

    @property
    def whole(self) -> bool:
        """Whether no place lies between its corners."""
        return self.y1 - self.y0 <= 1 and self.x1 - self.x0 <= 1

    def corners(self) -> list[tuple[int, int]]:
        """Its corners, row by row."""
        return [(y, x) for y in (self.y0, self.y1) for x in (self.x0, self.x1)]

    def places(self) -> list[tuple[int, int]]:
        """The new corners when it is split."""
        ym, xm = self.middle
        three = itertools.product((self.y0, ym, self.y1), (self.x0, xm, self.x1))
        return sorted(set(three) - set(self.corners()))

    def parts(self) -> list[Cell]:
        """The cells that it is split into."""
        ym, xm = self.middle
        rows = [(self.y0, ym), (ym, self.y1)] if self.y1 - self.y0 > 1 else [(self.y0, self.y1)]
        columns = [(self.x0, xm), (xm, self.x1)] if self.x1 - self.x0 > 1 else [(self.x0, self.x1)]
        return [Cell(*row, *column) for row in rows for column in columns]

    def bilinear(self, values: Array, y: int, x: int) -> float:
        """What its corners say about a place in it."""
        v = (y - self.y0) / max(self.y1 - self.y0, 1)
        u = (x - self.x0) / max(self.x1 - self.x0, 1)
        a, b, c, d = (float(values[place]) for place in self.corners())
        return (1 - v) * ((1 - u) * a + u * b) + v * ((1 - u) * c + u * d)


def first_cells(shape: tuple[int, int]) -> list[Cell]:
    """Cells that cover a grid."""
    rows, columns = (_spans(n) for n in shape)
    return [Cell(*row, *column) for row in rows for column in columns]


def _spans(n: int) -> list[tuple[int, int]]:
    count = max(1, round((n - 1) / _WIDTH))
    edges = [round(i * (n - 1) / count) for i in range(count + 1)]
    return list(itertools.pairwise(edges))


class Refinement:
    """The points of one round after the other, from the values of those before.

    Args:
        shape: (ny, nx).
        tolerance: A cell is split further where a value differs by more from what its corners say; NaN and infinity do.
        values: Makes the values [ny * nx] of the metric that decides from a ledger's sums.
    """

    def __init__(self, shape: tuple[int, int], tolerance: float, values: Callable[[Array], Array]) -> None:
        self._shape, self._tolerance, self._values = shape, tolerance, values
        self._cells = first_cells(shape)
        self._asked: set[tuple[int, int]] = set()
        self._round = 0

    def __call__(self, ledger: Ledger) -> Indices:
        """Indices of the next round; none when no cell is left to split."""
        self._round += 1
        if self._round == 1:
            return self._new(place for cell in self._cells for place in cell.corners())
        if self._round > 2:  # the first cells are all split: what their corners say has not been looked at yet
            values = self._values(ledger.sums).reshape(self._shape)
            self._cells = [part for cell in self._cells if self._rough(cell, values) for part in cell.parts()]
        self._cells = [cell for cell in self._cells if not cell.whole]
        return self._new(place for cell in self._cells for place in cell.places())

    def _rough(self, cell: Cell, values: Array) -> bool:
        gaps = [values[place] - cell.bilinear(values, *place) for place in cell.places()]
        return any(not abs(gap) <= self._tolerance for gap in gaps)

    def _new(self, places: Iterator[tuple[int, int]]) -> Indices:
        fresh = sorted(set(places) - self._asked)
        self._asked.update(fresh)
        return np.array([y * self._shape[1] + x for y, x in fresh], dtype=np.int64)


def filled(values: Array, evaluated: Mask) -> Array:
    """Values [ny, nx] with those that were not evaluated put in from the corners of their cell."""
    out: Array = values.copy()
    cells = first_cells((values.shape[0], values.shape[1]))
    while cells:
        cell = cells.pop()
        if cell.whole:
            continue
        if evaluated[cell.middle]:
            cells.extend(cell.parts())
            continue
        for y, x in itertools.product(range(cell.y0, cell.y1 + 1), range(cell.x0, cell.x1 + 1)):
            if not evaluated[y, x]:
                out[y, x] = cell.bilinear(values, y, x)
    return out
