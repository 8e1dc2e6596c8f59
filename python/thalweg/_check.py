"""Checks of arguments at the public border: one text form (who, which, expected, got). Knows no torch, no core."""

from __future__ import annotations

import math
import numbers
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def describe(value: Any) -> str:
    """Return `value` as an error message shows it: short, with its type when the text alone would mislead."""
    text = repr(value)
    if len(text) > 80:
        text = text[:77] + "..."
    if isinstance(value, (int, float, str, bool, type(None))):
        return text
    return f"{text} ({type(value).__name__})"


def integer(who: str, name: str, value: Any, minimum: int | None = None, maximum: int | None = None) -> int:
    """Return `value` as an int within [minimum, maximum]; bool and non-integral numbers are refused."""
    bounds = "" if minimum is None else f" >= {minimum}"
    bounds += "" if maximum is None else f"{' and' if bounds else ''} <= {maximum}"
    wanted = f"{who}: {name} must be an integer{bounds}, got {describe(value)}"
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(wanted)
    if not isinstance(value, numbers.Integral) and not float(value).is_integer():
        raise ValueError(wanted)
    number = int(float(value)) if not isinstance(value, numbers.Integral) else int(value)
    if (minimum is not None and number < minimum) or (maximum is not None and number > maximum):
        raise ValueError(wanted)
    return number


def real(
    who: str,
    name: str,
    value: Any,
    minimum: float | None = None,
    maximum: float | None = None,
    *,
    above: float | None = None,
    below: float | None = None,
) -> float:
    """Return `value` as a finite float; minimum and maximum are allowed themselves, above and below are not."""
    parts = [
        f"{sign} {bound:g}"
        for sign, bound in ((">=", minimum), (">", above), ("<=", maximum), ("<", below))
        if bound is not None
    ]
    wanted = f"{who}: {name} must be a finite number{' ' if parts else ''}{' and '.join(parts)}"
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{wanted}, got {describe(value)}")
    number = float(value)
    outside = (
        not math.isfinite(number)
        or (minimum is not None and number < minimum)
        or (maximum is not None and number > maximum)
        or (above is not None and number <= above)
        or (below is not None and number >= below)
    )
    if outside:
        raise ValueError(f"{wanted}, got {describe(value)}")
    return number


def choice(who: str, name: str, value: Any, allowed: Sequence[str]) -> str:
    """Return `value` when it is one of `allowed`."""
    if isinstance(value, str) and value in allowed:
        return value
    raise ValueError(f"{who}: {name} must be one of {', '.join(map(repr, allowed))}, got {describe(value)}")


def instance(who: str, name: str, value: Any, kind: type | tuple[type, ...], expected: str) -> None:
    """Raise TypeError unless `value` is an instance of `kind`, described as `expected`."""
    if not isinstance(value, kind):
        raise TypeError(f"{who}: {name} must be {expected}, got {describe(value)}")


def output_directory(who: str, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Return `path` as an existing, writable directory, created if need be; a non-empty one needs `overwrite`."""
    directory = Path(path)
    if directory.exists() and not directory.is_dir():
        raise NotADirectoryError(f"{who}: {directory} exists and is not a directory; choose another path")
    if not overwrite and directory.is_dir() and any(directory.iterdir()):
        raise FileExistsError(
            f"{who}: {directory} is not empty; choose another directory or allow overwriting its files"
        )
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise type(error)(f"{who}: cannot create directory {directory}: {error.strerror or error}") from None
    if not os.access(directory, os.W_OK | os.X_OK):
        raise PermissionError(f"{who}: cannot write into {directory}; check its permissions")
    return directory
