"""Where the running sums of a point go: floats on the host, or a row of a table on the device. Knows no model."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from .. import _core


def on_device(tensor: Tensor) -> bool:
    """Tell whether the core takes this tensor's memory for a CUDA device's."""
    return tensor.device.type in ("cpu", "cuda") and _core.tensor_view(tensor)[3] >= 0


class Cells(Protocol):
    """Running sums in float64, by column; every method adds to them. Float tensors are contiguous float32 or float64."""

    def number(self, column: int, value: Tensor | float, weight: float) -> None:
        """Add value * weight; a tensor has one element."""

    def sum(self, column: int, values: Tensor) -> None:
        """Add the sum of all values."""

    def moments(self, column: int, values: Tensor) -> None:
        """Add the sum to `column` and the sum of squares to the next one."""

    def correct(self, column: int, scores: Tensor, targets: Tensor, k: int, weight: float) -> None:
        """Add the share of rows [rows, classes] with the int64 target among the k largest, times `weight`."""


class HostCells:
    """One point on the host."""

    def __init__(self, columns: int) -> None:
        self.totals = [0.0] * columns

    def number(self, column: int, value: Tensor | float, weight: float) -> None:
        """See Cells."""
        self.totals[column] += float(value) * weight

    def sum(self, column: int, values: Tensor) -> None:
        """See Cells."""
        self.totals[column] += _core.sums(values, torch.get_num_threads())[0]

    def moments(self, column: int, values: Tensor) -> None:
        """See Cells."""
        for place, value in enumerate(_core.sums(values, torch.get_num_threads()), start=column):
            self.totals[place] += value

    def correct(self, column: int, scores: Tensor, targets: Tensor, k: int, weight: float) -> None:
        """See Cells."""
        count = _core.count_correct(scores, targets.data_ptr(), torch.get_num_threads(), k)
        self.totals[column] += count * weight / len(scores)


class DeviceCells:
    """All points on a device, the current one in the row of a cursor there; nothing here waits for the device."""

    def __init__(self, points: int, columns: int, device: torch.device) -> None:
        self.device = device
        self.totals = torch.zeros(points, columns, dtype=torch.float64, device=device)
        self.cursor = torch.zeros(1, dtype=torch.int64, device=device)
        self.took_host_numbers = False  # a graph would repeat them at every point
        self._reducer = _core.Reducer(self.totals, self.cursor)

    def restart(self) -> None:
        """Go to the first row, all sums zero."""
        self.totals.zero_()
        self.cursor.zero_()

    def rewind(self) -> None:
        """Go to the first row and keep the sums."""
        self.cursor.zero_()

    def advance(self) -> None:
        """Go to the next point."""
        self._reducer.advance()

    def number(self, column: int, value: Tensor | float, weight: float) -> None:
        """See Cells."""
        if not isinstance(value, Tensor) or value.device != self.device:
            self.took_host_numbers = True
            value = float(value)
        elif not value.is_floating_point():
            value = value.double()
        self._reducer.number(column, value, weight)

    def sum(self, column: int, values: Tensor) -> None:
        """See Cells."""
        self._reducer.sum(column, values)

    def moments(self, column: int, values: Tensor) -> None:
        """See Cells."""
        self._reducer.sum_and_squares(column, values)

    def correct(self, column: int, scores: Tensor, targets: Tensor, k: int, weight: float) -> None:
        """See Cells."""
        self._reducer.count_correct(column, scores, targets, k, weight, len(scores))
