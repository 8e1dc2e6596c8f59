"""Lengths in epochs, samples, tokens and shares of the run: schedules that wait for `resolve` to become steps."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, NoReturn

from .. import _check
from ._schedule import Schedule

Steps = int | str  # a number of steps, or a text such as "10ep"

# Arguments that are lengths in steps; `stretch` scales them, units may stand in their place.
LENGTHS = frozenset(
    {
        "total_steps", "step_size", "step_size_down", "t_0", "warmup_steps", "num_steps", "milestones", "steps",
        "stable_steps", "decay_steps", "timescale", "shift", "period",
    }
)  # fmt: skip
_UNITS = {
    **dict.fromkeys(("st", "step", "steps"), "step"),
    **dict.fromkeys(("ep", "epoch", "epochs"), "epoch"),
    **dict.fromkeys(("sp", "sample", "samples"), "sample"),
    **dict.fromkeys(("tok", "token", "tokens"), "token"),
    "%": "share",
}
_RATES = {"epoch": "steps_per_epoch", "sample": "samples_per_step", "token": "tokens_per_step", "share": "total_steps"}
_TERM = re.compile(r"([0-9][0-9_]*(?:\.[0-9_]*)?(?:e[+-]?[0-9]+)?)\s*([a-z]+|%)", re.IGNORECASE)
_KNOWN = "'100st', '10ep', '2_000_000tok', '50_000sp', '3%', 'rest' or a sum such as '1ep+50st'"


def parse(who: str, name: str, text: str) -> list[tuple[Fraction, str]]:
    """The terms of a quantity: (amount, unit); the unit of "rest" is "rest"."""
    if text.strip() == "rest":
        return [(Fraction(1), "rest")]
    terms = []
    for part in text.split("+") if "e+" not in text.lower() else [text]:
        match = _TERM.fullmatch(part.strip())
        unit = _UNITS.get(match[2].lower()) if match else None
        if match is None or unit is None:
            raise ValueError(
                f"{who}: {name} must be a number of steps or a text such as {_KNOWN}, got {_check.describe(text)}"
            )
        terms.append((Fraction(match[1].replace("_", "")), unit))
    return terms


def has_units(who: str, arguments: Mapping[str, Any]) -> bool:
    """Whether a length among the arguments is a text, checked to be a quantity, or a schedule among them has one."""
    found = False
    for name, value in arguments.items():
        found |= isinstance(value, Unresolved)
        if name in LENGTHS:
            lists = name == "milestones" or who.startswith("piecewise")  # a text in place of a list is no length
            items = value if isinstance(value, (list, tuple)) else [] if lists else [value]
            for item in items:
                if isinstance(item, str):
                    parse(who, name, item)
                    found = True
    return found


class Unresolved(Schedule):
    """A schedule with lengths in epochs, samples, tokens or shares: it can be composed, described and resolved.

    Example:
        >>> import thalweg as tw
        >>> s = tw.schedules.warmup("1ep", 0.1) >> tw.schedules.cosine(0.1, "9ep")
        >>> s.resolve(steps_per_epoch=391).total_steps
        3910
    """

    __slots__ = ()
    _resolved = False

    def __init__(self, kind: str, arguments: dict[str, Any], children: tuple[Schedule, ...] = ()) -> None:
        """For the constructors of this package."""
        frozen = {k: tuple(v) if isinstance(v, list) else v for k, v in arguments.items()}
        values = {"_kind": kind, "_arguments": tuple(frozen.items()), "_children": children, "_hash": None}
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _refuse(self) -> NoReturn:
        raise ValueError(
            f"Schedule: {self!r} has units that are not resolved; call .resolve(steps_per_epoch=, samples_per_step=, "
            "tokens_per_step=, total_steps=) first"
        )

    @property
    def _plan(self) -> NoReturn:  # type: ignore[override]
        self._refuse()

    @property
    def _tree(self) -> NoReturn:  # type: ignore[override]
        self._refuse()

    @property
    def _total_steps(self) -> NoReturn:  # type: ignore[override]
        self._refuse()

    def __eq__(self, other: object) -> bool:
        """Same description."""
        if not isinstance(other, Schedule):
            return NotImplemented
        return isinstance(other, Unresolved) and self._describe() == other._describe()

    def __hash__(self) -> int:
        return hash(repr(self))


def resolve(
    schedule: Schedule,
    steps_per_epoch: float | None = None,
    samples_per_step: float | None = None,
    tokens_per_step: float | None = None,
    total_steps: Steps | None = None,
) -> Schedule:
    r"""Turn every length into whole steps, rounded to the nearest, halves up.

    .. math:: \text{steps} = \lfloor x\,\text{rate} + 1/2 \rfloor, \qquad \text{"3\%"} = 0.03\,\text{total\_steps}

    Args:
        schedule: A schedule, with or without units.
        steps_per_epoch: Optimizer steps in an epoch.
        samples_per_step: Samples that one optimizer step uses, all processes and accumulation counted.
        tokens_per_step: Tokens that one optimizer step uses.
        total_steps: Steps of the run, for shares and for "rest": what the pieces before leave of it.

    Returns:
        The schedule in steps; the same object if there was nothing to resolve.

    Raises:
        ValueError: A rate that is needed was not given, or a length does not fit its constructor.

    Example:
        >>> import thalweg as tw
        >>> s = tw.schedules.warmup("3%", 0.1) >> tw.schedules.cosine(0.1, "rest")
        >>> tw.schedules.resolve(s, total_steps=1_000).boundaries()
        [30]
    """
    rates: dict[str, Fraction] = {}
    given = {"epoch": steps_per_epoch, "sample": samples_per_step, "token": tokens_per_step}
    for unit, value in given.items():
        if value is not None:
            rates[unit] = Fraction(repr(_check.real("resolve", _RATES[unit], value, above=0)))
    if isinstance(total_steps, str):
        total_steps = _to_steps("resolve", "total_steps", total_steps, rates, None)
    if total_steps is not None:
        rates["share"] = Fraction(_check.integer("resolve", "total_steps", total_steps, 0))
    return _resolve(schedule, rates, total_steps)


def _resolve(schedule: Schedule, rates: Mapping[str, Fraction], left: int | None) -> Schedule:
    """`left`: steps of the run that the pieces before do not use."""
    from ._registry import build

    if not isinstance(schedule, Unresolved):
        return schedule
    parts: list[Schedule] = []
    for child in schedule._children:
        parts.append(_resolve(child, rates, left))
        if schedule._kind == "sequence" and left is not None:
            left = max(left - (parts[-1].total_steps or 0), 0)
    arguments: dict[str, Any] = {}
    for name, value in schedule._arguments:
        if isinstance(value, Schedule):
            value = _resolve(value, rates, left)
        elif name in LENGTHS and isinstance(value, str):
            value = _to_steps(schedule._kind, name, value, rates, left)
        elif name in LENGTHS and isinstance(value, tuple):
            value = [_to_steps(schedule._kind, name, v, rates, left) if isinstance(v, str) else v for v in value]
        arguments[name] = value
    return build(schedule._kind, arguments, parts)


def _to_steps(who: str, name: str, text: str, rates: Mapping[str, Fraction], left: int | None) -> int:
    total = Fraction(0)
    for amount, unit in parse(who, name, text):
        if unit == "step":
            total += amount
            continue
        rate = None if left is None and unit == "rest" else Fraction(left or 0) if unit == "rest" else rates.get(unit)
        if rate is None:
            needed = _RATES.get(unit, "total_steps")
            raise ValueError(f"resolve: {who}: {name}={text!r} needs {needed}; pass resolve({needed}=…)")
        if unit in ("sample", "token"):
            total += amount / rate
        else:
            total += amount * rate / (100 if unit == "share" else 1)
    return math.floor(total + Fraction(1, 2))
