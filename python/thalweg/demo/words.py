"""Sentences from measured numbers: what helped, what made no clear difference, what hurt. Nothing is decided in advance."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from .stats import ENOUGH, Paired


class Conclusion(NamedTuple):
    """A sentence and its verdict: "helped", "none", "hurt", "mixed" or "note"."""

    verdict: str
    text: str


class Measure(NamedTuple):
    """How a quantity is written: its name, the factor to the unit, digits, the unit."""

    name: str
    factor: float
    digits: int
    unit: str


MEASURES = {
    "error": Measure("test error", 100.0, 1, "%"),
    "nll": Measure("NLL", 1.0, 3, ""),
}


def number(value: float, digits: int = 3) -> str:
    """Write a number with `digits` decimals and a real minus sign."""
    if not math.isfinite(value):
        return "unknown" if math.isnan(value) else ("∞" if value > 0 else "−∞")
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("-")
    return text.replace("-", "−")


def short(value: float, digits: int = 2) -> str:
    """Write a number with `digits` significant digits, such as a learning rate."""
    return f"{value:.{digits}g}".replace("-", "−")


def shown(value: float, measure: str) -> str:
    """Write a value of a measure with its unit."""
    m = MEASURES[measure]
    return f"{number(m.factor * value, m.digits)}{m.unit}"


def plural(count: int, noun: str) -> str:
    """Write a count with its noun."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def listed(items: Sequence[str]) -> str:
    """Join words with commas and a last "and"."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def combined(verdicts: Iterable[str]) -> str:
    """Return one verdict for several: mixed when one helped and one hurt."""
    found = set(verdicts)
    if {"helped", "hurt"} <= found or "mixed" in found:
        return "mixed"
    return "helped" if "helped" in found else "hurt" if "hurt" in found else "none"


def seeds_of(pair: Paired) -> str:
    """Write in how many seeds the first was lower."""
    text = f"lower with {pair.wins} of {plural(pair.n, 'seed')}"
    return text + (f", equal with {pair.ties}" if pair.ties else "")


def compared(pair: Paired, measure: str) -> str:
    """Write one comparison: both values, whether the difference is clear, the seeds."""
    text = f"{MEASURES[measure].name} {shown(pair.mean_a, measure)} against {shown(pair.mean_b, measure)}"
    if pair.n < ENOUGH:
        return f"{text} (only {plural(pair.n, 'seed')}: too few for a claim)"
    if pair.verdict == "none":
        return f"{text}, no clear difference ({seeds_of(pair)})"
    if pair.verdict == "hurt":
        return f"{text}, higher with {pair.losses} of {plural(pair.n, 'seed')}"
    return f"{text}, {seeds_of(pair)}"


def interval(pair: Paired, measure: str) -> str:
    """Write the mean difference with its 95% interval."""
    m = MEASURES[measure]
    mean, low, high = (number(m.factor * value, m.digits) for value in (pair.mean, pair.low, pair.high))
    return mean if math.isnan(pair.low) else f"{mean} ({low} to {high})"


def comparison(where: str, subject: str, other: str, pairs: dict[str, Paired]) -> Conclusion:
    """Compare `subject` with `other` in every measure of `pairs`; lower is better in each."""
    parts = "; ".join(compared(pair, measure) for measure, pair in pairs.items())
    text = f"**{capital(where)}, {subject} against {other}:** {parts}."
    return Conclusion(combined(pair.verdict for pair in pairs.values()), text)


def capital(text: str) -> str:
    """Return `text` with its first letter as a capital."""
    return text[:1].upper() + text[1:]


def trend(values: Sequence[float], measure: str) -> str:
    """Say how a measure moves along a list, from its first to its last entry, and where it is lowest."""
    falls = sum(b < a for a, b in pairwise(values))
    steps = len(values) - 1
    best = min(range(len(values)), key=lambda i: values[i])
    if steps and falls == steps:
        how = "falls with every further member"
    elif steps and falls == 0:
        how = "falls with no further member"
    else:
        how = f"falls with {falls} of {steps} further members and is lowest with the last {best + 1}"
    return f"{MEASURES[measure].name} {how} ({shown(values[0], measure)} alone, {shown(values[-1], measure)} with all)"
