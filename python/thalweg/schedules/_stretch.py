"""A schedule in another number of steps, and a schedule as the text that builds it: both walk its description."""

from __future__ import annotations

import math
from typing import Any

from ._schedule import Schedule
from .units import LENGTHS

_MAY_BE_EMPTY = ("warmup_steps", "steps")  # lengths that may be 0
_CHAINS = {"sequence": " >> ", "product": " * ", "add": " + "}


def stretched(schedule: Schedule, factor: float) -> Schedule:
    """Every length times `factor`, rounded, at least 1; factors per step by their root."""
    from ._registry import build

    kind = schedule._kind
    if kind in ("table", "noise"):
        raise ValueError(f"stretch: a {kind} has no course between its steps; build a longer one")
    arguments: dict[str, Any] = dict(schedule._arguments)
    for name, value in arguments.items():
        if isinstance(value, Schedule):  # an amplitude moves with the steps unless it counts cycles
            arguments[name] = value if arguments.get("per") == "cycle" else stretched(value, factor)
        elif value is None:
            continue
        elif name in LENGTHS and isinstance(value, tuple):
            arguments[name] = [round(m * factor) for m in value]
        elif name in LENGTHS:
            minimum = 0 if name in _MAY_BE_EMPTY and value == 0 else 2 if name == "num_steps" else 1
            arguments[name] = max(minimum, round(value * factor))
        elif name == "gamma" and kind in ("exponential", "exp_range"):
            arguments[name] = value ** (1 / factor)
        elif name == "tau":
            arguments[name] = value * factor
        elif name == "beta2":
            arguments[name] = 1 - (1 - value) / factor
        elif name == "factor" and kind == "noam":  # its peak falls with the root of the warm-up
            arguments[name] = value * math.sqrt(factor)
    # The steps below an `every` are not steps of the run.
    parts = schedule._children if kind == "every" else [stretched(part, factor) for part in schedule._children]
    return build(kind, arguments, parts)


def as_text(schedule: Schedule) -> str:
    """The expression that builds the schedule."""
    from ._registry import COMPOSITIONS

    kind = schedule._kind
    arguments = dict(schedule._arguments)
    parts = [as_text(part) for part in schedule._children]
    if kind == "number":
        return f"{arguments['value']!r}"
    if kind in _CHAINS:
        loose = [k for k in _CHAINS if k != kind]
        inside = [f"({t})" if c._kind in loose else t for t, c in zip(parts, schedule._children, strict=True)]
        return _CHAINS[kind].join(inside)
    part = arguments.pop("part", None)
    given = ", ".join(f"{k}={_value(v)}" for k, v in arguments.items() if v is not None)
    if kind in COMPOSITIONS:
        inner = f"({parts[0]})" if schedule._children[0]._kind in _CHAINS else parts[0]
        return f"{inner}.{kind}({given})"
    return f"{kind}({', '.join(parts) or given})" + (f".{part}" if part else "")


def _value(value: Any) -> str:
    return as_text(value) if isinstance(value, Schedule) else repr(list(value) if isinstance(value, tuple) else value)
