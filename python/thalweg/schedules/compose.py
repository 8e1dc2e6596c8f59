"""Composition of schedules: then, times, repeat, clip, delay, stretch; and a schedule as the text that builds it."""

from __future__ import annotations

from typing import Any

from .. import _check
from ._plan import Tree
from ._schedule import Schedule


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


def product(a: Schedule, b: Schedule | float) -> Schedule:
    """Values multiplied step by step; a number scales. It has an end if every part that is no number has one."""
    if not isinstance(b, Schedule):
        factor = _check.real("Schedule", "factor", b)
        b = Schedule("number", {"value": factor}, Tree("constant", (factor,)), None)
    parts = tuple(p for s in (a, b) for p in (s._children if s._kind == "product" else (s,)))
    lengths = [p.total_steps for p in parts if p._kind != "number"]
    total = (
        None if any(length is None for length in lengths) else max((n for n in lengths if n is not None), default=None)
    )
    return Schedule("product", {}, Tree("product", (), tuple(p._tree for p in parts)), total, parts)


def repeat(schedule: Schedule, count: int | None = None) -> Schedule:
    """The schedule again and again, `count` times (then held) or without end; each repetition is a cycle."""
    period = schedule.total_steps
    if not period:
        raise ValueError(f"repeat: {schedule!r} has no end to repeat from; give it total_steps >= 1")
    if count is not None:
        count = _check.integer("repeat", "count", count, 1)
    tree = Tree("repeat", (period, -1 if count is None else count), (schedule._tree,))
    return Schedule("repeat", {"count": count}, tree, None if count is None else period * count, (schedule,))


def clip(schedule: Schedule, lo: float, hi: float) -> Schedule:
    """Values limited to [lo, hi]."""
    lo = _check.real("clip", "lo", lo)
    hi = _check.real("clip", "hi", hi, lo)
    tree = Tree("clip", (lo, hi), (schedule._tree,))
    return Schedule("clip", {"lo": lo, "hi": hi}, tree, schedule.total_steps, (schedule,))


def delay(schedule: Schedule, steps: int) -> Schedule:
    """f(0) for `steps` steps, then the schedule."""
    from .shapes import constant

    steps = _check.integer("delay", "steps", steps, 0)
    return schedule if steps == 0 else sequence(constant(schedule(0), total_steps=steps), schedule)


# Arguments that are lengths in steps, and factors per step.
_LENGTHS = ("total_steps", "step_size", "step_size_down", "t_0", "warmup_steps", "num_steps")


def stretch(schedule: Schedule, factor: float) -> Schedule:
    """The same course in `factor` times the steps; lengths are rounded to whole steps, at least 1."""
    factor = _check.real("stretch", "factor", factor, above=0)
    if schedule._kind == "table":
        raise ValueError("stretch: a table has no course between its steps; build a longer table")
    arguments: dict[str, Any] = dict(schedule._arguments)
    for name, value in arguments.items():
        if name in _LENGTHS and value is not None:
            minimum = 0 if name == "warmup_steps" and value == 0 else 2 if name == "num_steps" else 1
            arguments[name] = max(minimum, round(value * factor))
        elif name == "milestones":
            arguments[name] = [round(m * factor) for m in value]
        elif name == "gamma" and schedule._kind in ("exponential", "exp_range"):
            arguments[name] = value ** (1 / factor)
    from . import build

    return build(schedule._kind, arguments, [stretch(part, factor) for part in schedule._children])


def as_text(schedule: Schedule) -> str:
    """The expression that builds the schedule."""
    arguments = dict(schedule._arguments)
    parts = [as_text(part) for part in schedule._children]
    if schedule._kind == "number":
        return f"{arguments['value']!r}"
    if schedule._kind == "sequence":
        return " >> ".join(parts)
    if schedule._kind in ("product", "repeat", "clip"):
        wrapped = [f"({t})" if c._kind == "sequence" else t for t, c in zip(parts, schedule._children, strict=True)]
        if schedule._kind == "product":
            return " * ".join(wrapped)
        inner = f"({wrapped[0]})" if schedule._children[0]._kind == "product" else wrapped[0]
        values = ", ".join(repr(v) for v in arguments.values() if v is not None)
        return f"{inner}.{schedule._kind}({values})"
    part = arguments.pop("part", None)
    given = ", ".join(f"{k}={list(v) if isinstance(v, tuple) else v!r}" for k, v in arguments.items() if v is not None)
    return f"{schedule._kind}({given})" + (f".{part}" if part else "")
