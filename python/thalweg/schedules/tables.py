"""Schedules of given values: a table, and any Python function tabulated once, so that a device can read it too."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .. import _check
from ._plan import Tree
from ._registry import constructor
from ._schedule import Schedule, length, rates
from .shapes import leaf


@constructor
def table(values: Sequence[float]) -> Schedule:
    """The given values one after the other; the last one is held.

    Args:
        values: Value of each step, ≥ 0, at least one; a list, an array or a one-dimensional CPU tensor.

    Returns:
        The schedule.

    Raises:
        TypeError: values is no list of numbers.
        ValueError: The list is empty, or a value is negative or not finite.

    Example:
        >>> import thalweg as tw
        >>> tw.schedules.table([0.1, 0.2, 0.05])(2)
        0.05
    """
    if isinstance(values, (str, bytes)) or not hasattr(values, "__iter__"):
        raise TypeError(f"table: values must be a list of numbers, got {_check.describe(values)}")
    plain = values.tolist() if hasattr(values, "tolist") else values  # arrays and CPU tensors
    numbers = rates("table", "values", list(plain))
    if not numbers:
        raise ValueError("table: values must not be empty")
    return leaf("table", {"values": numbers}, Tree("table", (numbers,)), len(numbers), endless=False)


def from_callable(function: Callable[[int], float], total_steps: int) -> Schedule:
    """Any function of the step, evaluated once per step into a table.

    Args:
        function: Called with 0 … total_steps - 1; returns a finite number ≥ 0.
        total_steps: Length in steps; the last value is held.

    Returns:
        The schedule, a `table`.

    Raises:
        TypeError: The function is not callable or returns no number.
        ValueError: A value is negative or not finite, or `total_steps` is not positive.

    Example:
        >>> import thalweg as tw
        >>> tw.schedules.from_callable(lambda k: 1 / (k + 1), total_steps=4)(3)
        0.25
    """
    if not callable(function):
        raise TypeError(f"from_callable: function must be callable, got {_check.describe(function)}")
    total_steps = length("from_callable", "total_steps", total_steps)
    return table(rates("from_callable", "function", [function(k) for k in range(total_steps)]))
