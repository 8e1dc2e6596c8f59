"""Composition of schedules: then, times, plus, min, max, repeat, clip, delay, advance, every, stretch, warm-up."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

from .. import _check
from ._plan import Tree
from ._registry import combination, composition, number
from ._schedule import Schedule, length, rate
from .units import Steps


@combination
def sequence(*parts: Schedule) -> Schedule:
    """One schedule after the other; each starts at its own step 0. `a >> b` is `sequence(a, b)`.

    Args:
        parts: At least one schedule; all but the last must have an end.

    Returns:
        The schedule; it has an end if the last part has one.

    Raises:
        ValueError: A part other than the last has no end.

    Example:
        >>> import thalweg as tw
        >>> tw.schedules.sequence(tw.schedules.constant(1.0, 2), tw.schedules.constant(0.5)).values(4)
        array([1. , 1. , 0.5, 0.5])
    """
    if not parts:
        raise ValueError("sequence: expected at least one schedule, got none")
    flat: list[Schedule] = []
    for part in parts:
        _check.instance("sequence", "part", part, Schedule, "a Schedule")
        flat += part._children if part._kind == "sequence" else (part,)
    begin, begins, kept = 0, [], []
    for part in flat[:-1]:
        if part.total_steps is None:
            raise ValueError(f"sequence: {part!r} has no end, so nothing can follow it; give it total_steps")
        if part.total_steps > 0:
            begins.append(begin)
            kept.append(part)
            begin += part.total_steps
    last = flat[-1]
    if last.total_steps == 0 and kept:  # an empty last piece: the one before is held
        last = kept.pop()
        begin = begins.pop()
    begins.append(begin)
    kept.append(last)
    if len(kept) == 1:
        return kept[0]
    total = None if last.total_steps is None else begin + last.total_steps
    tree = Tree("sequence", (tuple(begins),), tuple(part._tree for part in kept))
    return Schedule("sequence", {}, tree, total, tuple(kept))


def _combined(kind: str, given: Sequence[Schedule | float]) -> Schedule:
    """Values combined step by step. It has an end if every part that is no number has one."""
    parts: list[Schedule] = []
    for item in given:
        part = item if isinstance(item, Schedule) else number(item)
        parts += part._children if part._kind == kind else (part,)
    if not parts:
        raise ValueError(f"{kind}: expected at least one schedule, got none")
    lengths = [p.total_steps for p in parts if p._kind != "number"]
    known = [n for n in lengths if n is not None]
    total = max(known, default=None) if len(known) == len(lengths) else None
    tree = Tree("sum" if kind == "add" else kind, (), tuple(p._tree for p in parts))
    return Schedule(kind, {}, tree, total, tuple(parts))


@combination
def product(*parts: Schedule | float) -> Schedule:
    """Values multiplied step by step; a number scales. `a * b` is `product(a, b)`.

    Args:
        parts: Schedules and numbers ≥ 0, at least one.

    Returns:
        The schedule; it has an end if every part that is no number has one.

    Raises:
        ValueError: A number is negative or not finite.

    Example:
        >>> import thalweg as tw
        >>> tw.schedules.product(tw.schedules.linear(1.0, 2), tw.schedules.constant(0.5), 3).values(3)
        array([1.5 , 0.75, 0.  ])
    """
    return _combined("product", parts)


@combination
def add(*parts: Schedule | float) -> Schedule:
    """Values added step by step. `a + b` is `add(a, b)`.

    Args:
        parts: Schedules and numbers ≥ 0, at least one.

    Returns:
        The schedule; it has an end if every part that is no number has one.

    Raises:
        ValueError: A number is negative or not finite.

    Example:
        >>> import thalweg as tw
        >>> (tw.schedules.linear(1.0, 2) + 0.25).values(3)
        array([1.25, 0.75, 0.25])
    """
    return _combined("add", parts)


@combination
def minimum(*parts: Schedule | float) -> Schedule:
    """The smallest value of each step.

    Args:
        parts: Schedules and numbers ≥ 0, at least one.

    Returns:
        The schedule; it has an end if every part that is no number has one.

    Raises:
        ValueError: A number is negative or not finite.

    Example:
        >>> import thalweg as tw
        >>> tw.schedules.minimum(tw.schedules.linear(1.0, 2), 0.75).values(3)
        array([0.75, 0.5 , 0.  ])
    """
    return _combined("minimum", parts)


@combination
def maximum(*parts: Schedule | float) -> Schedule:
    """The largest value of each step.

    Args:
        parts: Schedules and numbers ≥ 0, at least one.

    Returns:
        The schedule; it has an end if every part that is no number has one.

    Raises:
        ValueError: A number is negative or not finite.

    Example:
        >>> import thalweg as tw
        >>> tw.schedules.maximum(tw.schedules.linear(1.0, 2), 0.25).values(3)
        array([1.  , 0.5 , 0.25])
    """
    return _combined("maximum", parts)


@composition
def repeat(schedule: Schedule, count: int | None = None) -> Schedule:
    """The schedule again and again, `count` times (then held) or without end; each repetition is a cycle."""
    period = schedule.total_steps
    if not period:
        raise ValueError(f"repeat: {schedule!r} has no end to repeat from; give it total_steps >= 1")
    if count is not None:
        count = _check.integer("repeat", "count", count, 1)
    tree = Tree("repeat", (period, -1 if count is None else count), (schedule._tree,))
    return Schedule("repeat", {"count": count}, tree, None if count is None else period * count, (schedule,))


@composition
def clip(schedule: Schedule, lo: float | None = None, hi: float | None = None) -> Schedule:
    """Values limited to [lo, hi]; None leaves a side open."""
    lo = None if lo is None else rate("clip", "lo", lo)
    hi = None if hi is None else _check.real("clip", "hi", hi, lo or 0)
    limits = (0.0 if lo is None else lo, sys.float_info.max if hi is None else hi)
    tree = Tree("clip", limits, (schedule._tree,))
    return Schedule("clip", {"lo": lo, "hi": hi}, tree, schedule.total_steps, (schedule,))


@composition
def delay(schedule: Schedule, steps: Steps) -> Schedule:
    """f(0) for `steps` steps, then the schedule."""
    from .shapes import constant

    steps = _check.integer("delay", "steps", steps, 0)
    return schedule if steps == 0 else sequence(constant(schedule(0), total_steps=steps), schedule)


@composition
def advance(schedule: Schedule, steps: Steps) -> Schedule:
    """f(k + steps); a schedule that is shorter is held where it ended."""
    steps = length("advance", "steps", steps, 0)
    if steps == 0:
        return schedule
    total = None if schedule.total_steps is None else max(schedule.total_steps - steps, 0)
    return Schedule("advance", {"steps": steps}, Tree("advance", (steps,), (schedule._tree,)), total, (schedule,))


@composition
def every(schedule: Schedule, period: Steps) -> Schedule:
    """f(⌊k / period⌋): each value stands for `period` steps."""
    period = length("every", "period", period)
    total = None if schedule.total_steps is None else schedule.total_steps * period
    return Schedule("every", {"period": period}, Tree("every", (period,), (schedule._tree,)), total, (schedule,))


@composition
def after_warmup(
    schedule: Schedule, warmup_steps: Steps, start: float = 0.0, style: str = "default", shape: str = "linear"
) -> Schedule:
    """A warm-up to the schedule's first value, then the schedule; style "timm" does not delay it."""
    from .warmup import warmup

    ramp = warmup(warmup_steps, schedule(0), start, style, shape)
    return sequence(ramp, advance(schedule, ramp.total_steps or 0) if style == "timm" else schedule)


def scale_batch(schedule: Schedule, from_batch: int, to_batch: int, rule: str = "linear") -> Schedule:
    r"""The schedule for another batch size.

    .. math:: f(k)\,B'/B \quad\text{(linear)}, \qquad f(k)\,\sqrt{B'/B} \quad\text{(sqrt)}

    Args:
        schedule: The schedule that suits `from_batch`.
        from_batch: Samples per step B, at least 1.
        to_batch: Samples per step B' of the new run.
        rule: "linear" (with a warm-up, for SGD) or "sqrt" (for Adam and its kin).

    Returns:
        The schedule, multiplied.

    Raises:
        ValueError: An argument is out of its range.

    Example:
        >>> import thalweg as tw
        >>> tw.schedules.scale_batch(tw.schedules.constant(0.1), 256, 1024, rule="sqrt")(0)
        0.2

    References:
        Goyal et al.: Accurate, large minibatch SGD, arXiv 1706.02677; Krizhevsky, arXiv 1404.5997.
    """
    from_batch = _check.integer("scale_batch", "from_batch", from_batch, 1)
    to_batch = _check.integer("scale_batch", "to_batch", to_batch, 1)
    _check.choice("scale_batch", "rule", rule, ("linear", "sqrt"))
    factor = to_batch / from_batch
    return product(schedule, factor if rule == "linear" else math.sqrt(factor))


@composition
def stretch(schedule: Schedule, factor: float) -> Schedule:
    """The same course in `factor` times the steps; lengths are rounded to whole steps, at least 1."""
    from ._stretch import stretched

    return stretched(schedule, _check.real("stretch", "factor", factor, above=0))
