"""Numbers as the README's tables show them."""

from __future__ import annotations


def duration(microseconds: float) -> str:
    """A time as people read it."""
    for unit, factor in (("h", 3.6e9), ("min", 60e6), ("s", 1e6), ("ms", 1e3)):
        if microseconds >= factor:
            return f"{microseconds / factor:.3g} {unit}"
    return f"{microseconds:.3g} µs"


def bold_ratio(low: float, ratio: float, high: float) -> str:
    """A ratio with its quartiles, bold where thalweg is not slower."""
    return f"{f'**{ratio:.2f}**' if ratio >= 1 else f'{ratio:.2f}'} ({low:.2f}–{high:.2f})"
