"""Schedules through given points: constant, straight or cosine from one to the next."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from .. import _check
from ._plan import Tree
from ._registry import constructor
from ._schedule import Schedule, length, rates
from .shapes import leaf, optional_steps
from .units import Steps


@constructor
def piecewise_constant(steps: Sequence[Steps], values: Sequence[float], total_steps: Steps | None = None) -> Schedule:
    r"""Given values, changed at given steps: :math:`f(k) = v_i`, i the number of steps :math:`m_j \le k`.

    Args:
        steps: Steps m_j at which the value changes, ascending.
        values: One value more than there are steps.
        total_steps: Length in steps; None: without end.

    Returns:
        The schedule.

    Raises:
        ValueError: The steps do not ascend, or the number of values does not fit.

    Example:
        >>> import thalweg as tw
        >>> tw.schedules.piecewise_constant([2, 3], [0.1, 0.05, 0.01]).values(5)
        array([0.1 , 0.1 , 0.05, 0.01, 0.01])
    """
    who = "piecewise_constant"
    at, v = _points(who, steps, values, extra=1)
    total_steps = optional_steps(who, total_steps)
    pieces = [Tree("constant", (value,)) for value in v]
    begins = (0, *at)
    if at and at[0] == 0:  # the first value has no step
        pieces, begins = pieces[1:], at
    tree = Tree("sequence", (begins,), tuple(pieces)) if len(pieces) > 1 else pieces[0]
    arguments = {"steps": at, "values": v, "total_steps": total_steps}
    return leaf(who, arguments, tree, total_steps, endless=True)


@constructor
def piecewise_linear(steps: Sequence[Steps], values: Sequence[float]) -> Schedule:
    r"""Straight lines through given points: :math:`f(m_i) = v_i`.

    Args:
        steps: Steps m_i of the points, ascending.
        values: Values v_i of the points, as many; the first and the last one are held outside.

    Returns:
        The schedule, as long as its last point says.

    Raises:
        ValueError: The steps do not ascend, or the number of values does not fit.

    Example:
        >>> import thalweg as tw
        >>> tw.schedules.piecewise_linear([0, 2, 4], [0.0, 1.0, 0.5]).values(6)
        array([0.  , 0.5 , 1.  , 0.75, 0.5 , 0.5 ])
    """
    return _through("piecewise_linear", "linear", steps, values)


@constructor
def piecewise_cosine(steps: Sequence[Steps], values: Sequence[float]) -> Schedule:
    r"""Half cosine waves through given points: :math:`f(m_i) = v_i`, flat at each of them.

    Args:
        steps: Steps m_i of the points, ascending.
        values: Values v_i of the points, as many; the first and the last one are held outside.

    Returns:
        The schedule, as long as its last point says.

    Raises:
        ValueError: The steps do not ascend, or the number of values does not fit.

    Example:
        >>> import thalweg as tw
        >>> tw.schedules.piecewise_cosine([0, 2, 4], [0.0, 1.0, 0.5]).values(6)
        array([0.  , 0.5 , 1.  , 0.75, 0.5 , 0.5 ])
    """
    return _through("piecewise_cosine", "cosine", steps, values)


def _points(who: str, steps: Any, values: Any, extra: int) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Checked steps and values; `extra`: how many values there are more."""
    _check.instance(who, "steps", steps, (list, tuple, range), "a list of steps")
    _check.instance(who, "values", values, (list, tuple), "a list of numbers")
    at = tuple(length(who, f"steps[{i}]", m, 0) for i, m in enumerate(steps))
    if any(b <= a for a, b in pairwise(at)):
        raise ValueError(f"{who}: steps must ascend, got {list(at)}")
    if not at and extra == 0:
        raise ValueError(f"{who}: steps must not be empty; use constant(lr) for one value")
    if len(values) != len(at) + extra:
        raise ValueError(f"{who}: values must be {len(at) + extra} numbers for {len(at)} steps, got {len(values)}")
    return at, rates(who, "values", values)


def _through(who: str, shape: str, steps: Any, values: Any) -> Schedule:
    at, v = _points(who, steps, values, extra=0)
    pieces = [
        Tree(shape, (v[i], v[i + 1], 0.0, float(at[i + 1] - at[i]))) for i in range(len(at) - 1)
    ]  # the last one holds its end
    begins = at[:-1]
    if at[0] > 0 or len(at) == 1:
        pieces.insert(0, Tree("constant", (v[0],)))
        begins = (0, *begins)
    tree = Tree("sequence", (begins,), tuple(pieces)) if len(pieces) > 1 else pieces[0]
    return leaf(who, {"steps": at, "values": v}, tree, at[-1], endless=False)
