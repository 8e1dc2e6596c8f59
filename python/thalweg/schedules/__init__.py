"""Learning-rate schedules as values: exact, immutable, composable; evaluated by one definition in the core."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from .. import _check
from . import compose
from ._plan import Tree
from ._schedule import FORMAT, rate
from ._schedule import Schedule as Schedule
from .adaptive import Adaptive as Adaptive
from .adaptive import Greedy as Greedy
from .adaptive import Plateau as Plateau
from .compose import sequence as sequence
from .cycles import exp_range as exp_range
from .cycles import sgdr as sgdr
from .cycles import snapshot_cosine as snapshot_cosine
from .cycles import triangular as triangular
from .cycles import triangular2 as triangular2
from .one_cycle import Bundle as Bundle
from .one_cycle import one_cycle as one_cycle
from .shapes import constant as constant
from .shapes import cosine as cosine
from .shapes import exponential as exponential
from .shapes import geometric as geometric
from .shapes import linear as linear
from .shapes import multistep as multistep
from .shapes import polynomial as polynomial
from .shapes import step as step
from .tables import from_callable as from_callable
from .tables import table as table
from .warmup import warmup as warmup

_T = TypeVar("_T")

# Every kind of leaf and the constructor that checks and builds it.
CONSTRUCTORS = {
    function.__name__: function
    for function in (
        constant, linear, step, multistep, exponential, polynomial, cosine, geometric, table,
        sgdr, snapshot_cosine, triangular, triangular2, exp_range, warmup,
    )
}  # fmt: skip


def build(kind: str, arguments: Mapping[str, Any], parts: Sequence[Schedule] = ()) -> Schedule:
    """Build a schedule from its description, through the constructor that checks it."""
    who = "schedules.from_dict"
    if arguments and kind in ("sequence", "product"):
        raise ValueError(f"{who}: a {kind} has parts alone, got also {', '.join(map(str, arguments))}")
    if kind == "sequence":
        return compose.sequence(*parts)
    if kind in ("product", "repeat", "clip"):
        if not parts or (kind != "product" and len(parts) != 1):
            raise ValueError(f"{who}: a {kind} of {len(parts)} parts cannot be")
        if kind == "product":
            result = parts[0]
            for part in parts[1:]:
                result = result * (part(0) if part._kind == "number" else part)
            return result
        compose_one: Callable[..., Schedule] = getattr(parts[0], kind)
        return _checked_call(kind, compose_one, arguments)
    if kind == "number":
        value = rate(who, "value", arguments.get("value"))
        return Schedule("number", {"value": value}, Tree("constant", (value,)), None)
    if kind == "one_cycle":
        return _one_cycle_part(dict(arguments))
    constructor = CONSTRUCTORS.get(kind)
    if constructor is None:
        raise ValueError(f"{who}: unknown kind {_check.describe(kind)}; this version knows {', '.join(CONSTRUCTORS)}")
    return _checked_call(kind, constructor, arguments)


def _checked_call(kind: str, function: Callable[..., _T], arguments: Mapping[str, Any]) -> _T:
    """Call with arguments that a file brought: a name that is missing or too many is a ValueError."""
    try:
        inspect.signature(function).bind(**arguments)
    except TypeError as error:
        raise ValueError(f"schedules.from_dict: {kind}: {error}") from None
    return function(**arguments)


def _one_cycle_part(options: dict[str, Any]) -> Schedule:
    part = _check.choice("schedules.from_dict", "part", options.pop("part", None), ("lr", "momentum"))
    schedule: Schedule = getattr(_checked_call("one_cycle", one_cycle, options), part)
    return schedule


def from_dict(description: Mapping[str, Any]) -> Schedule:
    """Build the schedule that `Schedule.to_dict()` described.

    Args:
        description: What `to_dict` returned, also after a round trip through JSON.

    Returns:
        The schedule, equal to the one described.

    Raises:
        TypeError: The description is not a mapping.
        ValueError: Another format, an unknown kind, or arguments out of their range.

    Example:
        >>> import thalweg as tw
        >>> tw.schedules.from_dict({"format": 1, "kind": "constant", "lr": 0.1})(7)
        0.1
    """
    _check.instance("schedules.from_dict", "description", description, Mapping, "a dict of Schedule.to_dict()")
    if description.get("format") != FORMAT:
        raise ValueError(
            f"schedules.from_dict: expected format {FORMAT}, got {_check.describe(description.get('format'))}; "
            "it was written by another version of thalweg"
        )
    return _from_part({key: value for key, value in description.items() if key != "format"})


def _from_part(description: Mapping[str, Any]) -> Schedule:
    who = "schedules.from_dict"
    _check.instance(who, "description", description, Mapping, "a dict with a kind")
    arguments = dict(description)
    kind = arguments.pop("kind", None)
    if not isinstance(kind, str):
        raise ValueError(f"{who}: kind must be the name of a constructor, got {_check.describe(kind)}")
    parts = arguments.pop("parts", ())
    _check.instance(who, "parts", parts, (list, tuple), "a list of schedules")
    return build(kind, arguments, [_from_part(part) for part in parts])
