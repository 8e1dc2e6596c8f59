"""The Schedule: an immutable value that maps a step to a number. All values come from the core's plan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from .. import _check, _core
from ._boundaries import beginnings
from ._operators import Operators
from ._plan import Tree, compile_plan

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMAT = 1
_MAX_STEP = 2**61
MAX_LENGTH = 2**53


class Schedule(Operators):
    """A learning rate (or any hyper-parameter) as a function of the step.

    `s(k)` for k = 0, 1, 2 … is the value that update k+1 uses. A piece of length T covers steps [0, T) and holds f(T)
    afterwards, unless it is cyclic. Schedules are made by the constructors of this module, composed by `>>`, `*` and
    `+`, compared by value, hashable and picklable; evaluation is random access and exact to a few ulp at any step.
    Steps are whole numbers: between two updates there is no value that an optimizer could use.

    Example:
        >>> import thalweg as tw
        >>> s = tw.schedules.warmup(500, 0.1) >> tw.schedules.cosine(0.1, total_steps=9_500)
        >>> s(500), s.total_steps, s(20_000)
        (0.1, 10000, 0.0)
    """

    __slots__ = ("_arguments", "_children", "_hash", "_kind", "_plan", "_total_steps", "_tree")

    def __init__(
        self,
        kind: str,
        arguments: dict[str, Any],
        tree: Tree,
        total_steps: int | None,
        children: tuple[Schedule, ...] = (),
    ) -> None:
        """For the constructors of this package, which have checked the arguments."""
        if total_steps is not None and total_steps > _MAX_STEP:
            raise ValueError(f"{kind}: the schedule is longer than 2**61 steps")
        values = {
            "_kind": kind,
            "_arguments": tuple(arguments.items()),
            "_tree": tree,
            "_total_steps": total_steps,
            "_children": children,
            "_hash": None,
            "_plan": compile_plan(tree),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    _resolved: ClassVar[bool] = True  # False while lengths have units
    _kind: str
    _arguments: tuple[tuple[str, Any], ...]
    _tree: Tree
    _total_steps: int | None
    _children: tuple[Schedule, ...]
    _hash: int | None
    _plan: _core.Plan

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"Schedule: {name} cannot be set, schedules are immutable; build a new one")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"Schedule: {name} cannot be deleted, schedules are immutable")

    # ---- values ------------------------------------------------------------------------------------------

    @property
    def plan(self) -> _core.Plan:
        """The core's compiled plan."""
        return self._plan

    @property
    def total_steps(self) -> int | None:
        """Length in steps, or None for a schedule without an end."""
        return self._total_steps

    def __call__(self, step: int) -> float:
        """Value that update `step` + 1 uses; step ≥ 0."""
        if type(step) is not int or not 0 <= step <= _MAX_STEP:
            step = _check.integer("Schedule", "step", step, 0, _MAX_STEP)
        return self._plan.value_at(step)

    def values(self, n: int | None = None, start: int = 0) -> npt.NDArray[np.float64]:
        """Values of steps start … start + n - 1 in one call: float64 [n]. Default n: up to the end.

        Example:
            >>> import thalweg as tw
            >>> tw.schedules.step(1.0, step_size=2, gamma=0.5).values(5)
            array([1.  , 1.  , 0.5 , 0.5 , 0.25])
        """
        start = _check.integer("Schedule.values", "start", start, 0, _MAX_STEP)
        if n is None:
            n = max(self._length("values", "n") - start, 0)
        n = _check.integer("Schedule.values", "n", n, 0, 2**40)
        return self._plan.values(start, n)

    def _length(self, who: str, name: str) -> int:
        if self._total_steps is None:
            raise ValueError(f"Schedule.{who}: this schedule has no end, so {name} must be given")
        return self._total_steps

    # ---- cycles ------------------------------------------------------------------------------------------

    def cycle(self, step: int) -> int | None:
        """Number of the cycle that `step` lies in, from 0; None where there is none."""
        index = self._plan.cycle_at(_check.integer("Schedule", "step", step, 0, _MAX_STEP))[0]
        return None if index < 0 else int(index)

    def is_cycle_end(self, step: int) -> bool:
        """Whether `step` is the last one of its cycle: a snapshot is due after update `step` + 1.

        Example:
            >>> import thalweg as tw
            >>> s = tw.schedules.sgdr(0.05, t_0=1_000, t_mult=2)
            >>> s.is_cycle_end(999), s.is_cycle_end(1_000), s.is_cycle_end(2_999)
            (True, False, True)
        """
        index, position, length = self._plan.cycle_at(_check.integer("Schedule", "step", step, 0, _MAX_STEP))
        return bool(index >= 0 and position == length - 1)

    def cycle_ends(self, n: int | None = None) -> list[int]:
        """Last steps of all cycles that end within the first n steps (default: up to the end)."""
        n = _check.integer("Schedule.cycle_ends", "n", self._length("cycle_ends", "n") if n is None else n, 0)
        ends: list[int] = []
        for begin in sorted(self._beginnings(n)):
            index, position, length = self._plan.cycle_at(begin)
            end = begin + length - position - 1
            if index >= 0 and end < n and self.is_cycle_end(end):  # the last cycle may be cut short
                ends.append(end)
        return sorted(set(ends))

    def boundaries(self, n: int | None = None) -> list[int]:
        """Steps below n (default: the end) at which another piece or cycle begins, ascending; 0 is left out.

        Example:
            >>> import thalweg as tw
            >>> (tw.schedules.warmup(5, 0.1) >> tw.schedules.sgdr(0.1, t_0=10, t_mult=2)).boundaries(60)
            [5, 15, 35]
        """
        n = _check.integer("Schedule.boundaries", "n", self._length("boundaries", "n") if n is None else n, 0)
        return sorted(self._beginnings(n) - {0})

    def _beginnings(self, n: int) -> set[int]:
        return beginnings(self, n) if self._plan else set()  # units that are not resolved are refused

    # ---- pictures ----------------------------------------------------------------------------------------

    def ascii(self, width: int = 72, height: int = 12, steps: int | None = None) -> str:
        """A text picture of the first `steps` values, `width` by `height` characters."""
        from ._ascii import draw

        width = _check.integer("Schedule.ascii", "width", width, 2)
        height = _check.integer("Schedule.ascii", "height", height, 2)
        return draw(self, width, height, self._preview_steps(steps))

    def plot(self, ax: Axes | None = None, steps: int | None = None) -> Axes:
        """Draw the first `steps` values on `ax` (default: new axes) and return the axes."""
        from ..plot.schedules import schedule

        return schedule(self, ax, self._preview_steps(steps))

    def _preview_steps(self, steps: int | None) -> int:
        if steps is not None:
            return _check.integer("Schedule", "steps", steps, 1)
        if self._total_steps is not None:
            return max(self._total_steps, 1)
        index, _, length = self._plan.cycle_at(0)
        return 4 * int(length) if index >= 0 else 1000

    # ---- value semantics ---------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """A description of plain numbers, strings, lists and dicts, for JSON; `from_dict` reads it.

        Example:
            >>> import thalweg as tw
            >>> s = tw.schedules.cosine(0.1, total_steps=90) * 2
            >>> tw.schedules.from_dict(s.to_dict()) == s
            True
        """
        return {"format": FORMAT, **self._describe()}

    def _describe(self) -> dict[str, Any]:
        out: dict[str, Any] = {"kind": self._kind}
        for key, v in self._arguments:
            out[key] = v._describe() if isinstance(v, Schedule) else list(v) if isinstance(v, tuple) else v
        if self._children:
            out["parts"] = [child._describe() for child in self._children]
        return out

    def __eq__(self, other: object) -> bool:
        """Same curves in the same places, and so equal values at every step; the words may differ."""
        if not isinstance(other, Schedule):
            return NotImplemented
        if not other._resolved:
            return False
        return self._tree == other._tree and self._total_steps == other._total_steps

    def __hash__(self) -> int:
        if self._hash is None:
            object.__setattr__(self, "_hash", hash((self._tree, self._total_steps)))
        return hash(self._hash)

    def __reduce__(self) -> tuple[Any, ...]:
        from . import from_dict

        return from_dict, (self.to_dict(),)

    def __copy__(self) -> Schedule:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Schedule:
        return self

    def __repr__(self) -> str:
        from ._stretch import as_text

        return as_text(self)


def length(who: str, name: str, value: Any, minimum: int = 1) -> int:
    """Check a length in steps; float64, in which shapes are computed, holds every step up to the longest one."""
    steps = _check.integer(who, name, value, minimum)
    if steps > MAX_LENGTH:
        raise ValueError(f"{who}: {name} must be at most 2**53 steps, got {steps}")
    return steps


def rate(who: str, name: str, value: Any, maximum: float | None = None) -> float:
    """Check a learning rate or another hyper-parameter that a schedule moves: finite and ≥ 0."""
    return _check.real(who, name, value, 0, maximum)


def rates(who: str, name: str, values: Sequence[Any]) -> tuple[float, ...]:
    """Check a list of rates."""
    return tuple(rate(who, f"{name}[{i}]", value) for i, value in enumerate(values))
