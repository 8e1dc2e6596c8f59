"""What a bound schedule tells while it is stepped: ends of cycles, boundaries, its history."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from .. import _check
from ..schedules import Schedule


class Event(NamedTuple):
    """What a callback gets.

    Example:
        >>> from thalweg.lr_scheduler import Event
        >>> Event(step=9, cycle=0, lr=0.1).step
        9
    """

    step: int  # of the update that ended the cycle, or of the first one after the boundary
    cycle: int | None
    lr: float  # of the first param group, as that update used or will use it


Callback = TypeVar("Callback", bound=Callable[[Event], object])


class Watch:
    """Callbacks and history of one scheduler; the schedule is `ScheduleLR.schedule`."""

    def __init__(self, history: int) -> None:
        self.cycle_end: list[Callable[[Event], object]] = []
        self.boundary: list[Callable[[Event], object]] = []
        size = _check.integer("ScheduleLR", "history", history, 0)
        self.history: deque[tuple[int, list[float]]] = deque(maxlen=size)
        self._known = 0  # boundaries below this step are in _boundaries
        self._boundaries: frozenset[int] = frozenset()

    @property
    def active(self) -> bool:
        """Whether anybody wants to know."""
        return bool(self.cycle_end or self.boundary or self.history.maxlen)

    def moved(self, schedule: Schedule, before: float, step: int, rates: list[float]) -> None:
        """After the step from `step` - 1 to `step`, whose first rates were `before` and rates[0]."""
        if self.history.maxlen:
            self.history.append((step, rates))
        if self.cycle_end and schedule.is_cycle_end(step - 1):
            event = Event(step - 1, schedule.cycle(step - 1), before)
            for callback in list(self.cycle_end):
                callback(event)
        if self.boundary and self._is_boundary(schedule, step):
            event = Event(step, schedule.cycle(step), rates[0])
            for callback in list(self.boundary):
                callback(event)

    def _is_boundary(self, schedule: Schedule, step: int) -> bool:
        if step >= self._known:  # twice as far each time, so that all looks together cost what the last one does
            self._known = max(1_000, 2 * step)
            self._boundaries = frozenset(schedule.boundaries(self._known))
        return step in self._boundaries
