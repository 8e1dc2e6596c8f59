"""The operators and methods by which schedules are composed; what they do is in compose.py."""

from __future__ import annotations

import numbers
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..lr_scheduler import ScheduleLR
    from ._schedule import Schedule


class Operators:
    """Composition, as methods of `Schedule`."""

    __slots__ = ()
    __array_ufunc__ = None  # a NumPy number times a schedule is ours, not an array

    def __rshift__(self: Schedule, other: Schedule) -> Schedule:  # type: ignore[misc]
        """`a >> b`: a for its length, then b, which starts at its own step 0."""
        from .compose import sequence

        return sequence(self, other) if isinstance(other, Operators) else NotImplemented

    def __mul__(self: Schedule, other: Schedule | float) -> Schedule:  # type: ignore[misc]
        """Product with another schedule or a number."""
        from .compose import product

        return product(self, other) if isinstance(other, (Operators, numbers.Real)) else NotImplemented

    def __add__(self: Schedule, other: Schedule | float) -> Schedule:  # type: ignore[misc]
        """Sum with another schedule or a number."""
        from .compose import add

        return add(self, other) if isinstance(other, (Operators, numbers.Real)) else NotImplemented

    __rmul__ = __mul__
    __radd__ = __add__

    def repeat(self: Schedule, count: int | None = None) -> Schedule:  # type: ignore[misc]
        """Run again and again, `count` times or without end; each repetition is a cycle."""
        from .compose import repeat

        return repeat(self, count)

    def clip(self: Schedule, lo: float | None = None, hi: float | None = None) -> Schedule:  # type: ignore[misc]
        """Limit the value to [lo, hi]; None leaves a side open."""
        from .compose import clip

        return clip(self, lo, hi)

    def delay(self: Schedule, steps: int | str) -> Schedule:  # type: ignore[misc]
        """Hold f(0) for `steps` steps first."""
        from .compose import delay

        return delay(self, steps)

    def advance(self: Schedule, steps: int | str) -> Schedule:  # type: ignore[misc]
        """Leave out the first `steps` steps: f(k + steps)."""
        from .compose import advance

        return advance(self, steps)

    def every(self: Schedule, period: int | str) -> Schedule:  # type: ignore[misc]
        """Move on only every `period` steps: f(⌊k / period⌋), e.g. a schedule that counts epochs."""
        from .compose import every

        return every(self, period)

    def stretch(self: Schedule, factor: float) -> Schedule:  # type: ignore[misc]
        """The same course in `factor` times the steps; every length is rounded to whole steps, at least 1."""
        from .compose import stretch

        return stretch(self, factor)

    def after_warmup(  # type: ignore[misc]
        self: Schedule, warmup_steps: int | str, start: float = 0.0, style: str = "default", shape: str = "linear"
    ) -> Schedule:
        """A warm-up to f(0), then this schedule; with style="timm" its clock runs from the first step on."""
        from .compose import after_warmup

        return after_warmup(self, warmup_steps, start, style, shape)

    def scale_batch(self: Schedule, from_batch: int, to_batch: int, rule: str = "linear") -> Schedule:  # type: ignore[misc]
        """The rate for another batch size: times to/from ("linear") or its square root ("sqrt")."""
        from .compose import scale_batch

        return scale_batch(self, from_batch, to_batch, rule)

    def resolve(self: Schedule, **rates: Any) -> Schedule:  # type: ignore[misc]
        """Turn lengths in epochs, samples, tokens and shares into steps; see `thalweg.schedules.resolve`."""
        from .units import resolve

        return resolve(self, **rates)

    def bind(self: Schedule, optimizer: Any, **options: Any) -> ScheduleLR:  # type: ignore[misc]
        """A torch LRScheduler that writes this schedule into any torch optimizer; see `thalweg.lr_scheduler`."""
        from ..lr_scheduler import ScheduleLR  # above this layer

        return ScheduleLR(optimizer, self, **options)
