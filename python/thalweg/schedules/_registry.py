"""The constructors and compositions by name, and building a schedule from its description through them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar, cast

from .. import _check
from ._plan import Tree
from ._schedule import FORMAT, Schedule, rate
from .units import Unresolved, has_units

_P = ParamSpec("_P")
_S = TypeVar("_S", bound=Schedule)
_T = TypeVar("_T")

# Every kind of leaf and the constructor that checks and builds it; filled by @constructor.
CONSTRUCTORS: dict[str, Callable[..., Schedule]] = {}
# Compositions of one schedule with arguments, and of any number without; filled by @composition and @combination.
COMPOSITIONS: dict[str, Callable[..., Schedule]] = {}
COMBINATIONS: dict[str, Callable[..., Schedule]] = {}


def constructor(function: Callable[_P, _S]) -> Callable[_P, _S]:
    """Register a constructor; with units among its arguments it gives a schedule that waits for `resolve`."""
    name = function.__name__
    signature = inspect.signature(function)

    @functools.wraps(function)
    def construct(*args: _P.args, **kwargs: _P.kwargs) -> _S:
        if any(isinstance(value, (str, list, tuple, Schedule)) for value in (*args, *kwargs.values())):
            arguments = signature.bind(*args, **kwargs).arguments
            if has_units(name, arguments):
                return cast("_S", Unresolved(name, dict(arguments)))
        return function(*args, **kwargs)

    CONSTRUCTORS[name] = construct
    return construct


def composition(function: Callable[_P, Schedule]) -> Callable[_P, Schedule]:
    """Register a composition whose first argument is a schedule; units wait for `resolve`."""
    name = function.__name__
    signature = inspect.signature(function)

    @functools.wraps(function)
    def compose(*args: _P.args, **kwargs: _P.kwargs) -> Schedule:
        arguments = dict(signature.bind(*args, **kwargs).arguments)
        if has_units(name, arguments):
            return Unresolved(name, arguments, (arguments.pop("schedule"),))
        return function(*args, **kwargs)

    COMPOSITIONS[name] = compose
    return compose


def combination(function: Callable[..., Schedule]) -> Callable[..., Schedule]:
    """Register a composition of any number of schedules."""
    name = function.__name__

    @functools.wraps(function)
    def combine(*parts: Schedule | float) -> Schedule:
        if any(isinstance(part, Unresolved) for part in parts):
            flat: list[Schedule] = []
            for part in parts:
                if name == "sequence":
                    _check.instance(name, "part", part, Schedule, "a Schedule")
                schedule = part if isinstance(part, Schedule) else number(part)
                flat += schedule._children if schedule._kind == name else (schedule,)
            return Unresolved(name, {}, tuple(flat))
        return function(*parts)

    COMBINATIONS[name] = combine
    return combine


def number(value: float) -> Schedule:
    """A number as a part of a product or a sum: it has no length of its own."""
    value = rate("Schedule", "factor", value)
    return Schedule("number", {"value": value}, Tree("constant", (value,)), None)


def build(kind: str, arguments: Mapping[str, Any], parts: Sequence[Schedule] = ()) -> Schedule:
    """Build a schedule from its description, through the constructor that checks it."""
    who = "schedules.from_dict"
    if kind in COMBINATIONS:
        if arguments or not parts:
            raise ValueError(
                f"{who}: a {kind} has at least one part and nothing else, got {_check.describe(arguments)}"
            )
        return COMBINATIONS[kind](*parts)
    if kind in COMPOSITIONS:
        if len(parts) != 1:
            raise ValueError(f"{who}: a {kind} of {len(parts)} parts cannot be")
        return checked_call(kind, COMPOSITIONS[kind], {"schedule": parts[0], **arguments})
    if parts:
        raise ValueError(f"{who}: {_check.describe(kind)} has no parts, got {len(parts)}")
    if kind == "number":
        return checked_call(kind, number, arguments)
    if kind == "one_cycle":
        return _one_cycle_part(dict(arguments))
    if kind not in CONSTRUCTORS:
        raise ValueError(f"{who}: unknown kind {_check.describe(kind)}; this version knows {', '.join(CONSTRUCTORS)}")
    return checked_call(kind, CONSTRUCTORS[kind], arguments)


def checked_call(kind: str, function: Callable[..., _T], arguments: Mapping[str, Any]) -> _T:
    """Call with arguments that a file brought: a name that is missing or too many is a ValueError."""
    try:
        inspect.signature(function).bind(**arguments)
    except TypeError as error:
        raise ValueError(f"schedules.from_dict: {kind}: {error}") from None
    return function(**arguments)


def _one_cycle_part(options: dict[str, Any]) -> Schedule:
    from .one_cycle import one_cycle

    part = _check.choice("schedules.from_dict", "part", options.pop("part", None), ("lr", "momentum"))
    schedule: Schedule = getattr(checked_call("one_cycle", one_cycle, options), part)
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
    arguments = {k: _from_part(v) if isinstance(v, Mapping) else v for k, v in description.items()}
    kind = arguments.pop("kind", None)
    if not isinstance(kind, str):
        raise ValueError(f"{who}: kind must be the name of a constructor, got {_check.describe(kind)}")
    parts: Any = arguments.pop("parts", ())
    _check.instance(who, "parts", parts, (list, tuple), "a list of schedules")
    return build(kind, arguments, [_from_part(part) for part in parts])
