"""A schedule as text."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ._schedule import Schedule


def draw(schedule: Schedule, width: int, height: int, steps: int) -> str:
    """Columns of `*` between the smallest and largest value of the steps that a column stands for."""
    edges = np.linspace(0, steps, width + 1).astype(np.int64)
    rows = [[" "] * width for _ in range(height)]
    if steps <= 1_000_000:
        values = schedule.values(steps)
        spans = [values[a : max(b, a + 1)] for a, b in pairwise(edges)]
    else:
        spans = [np.array([schedule(int(a))]) for a in edges[:-1]]
    spans = [span for span in spans if span.size]
    low, high = min(s.min() for s in spans), max(s.max() for s in spans)
    scale = (height - 1) / (high - low) if high > low else 0.0
    for column, span in enumerate(spans):
        bottom, top = (round((v - low) * scale) for v in (span.min(), span.max()))
        for row in range(bottom, top + 1):
            rows[height - 1 - row][column] = "*"
    labels = [f"{high:.3g}", *[""] * (height - 2), f"{low:.3g}"]
    margin = max(map(len, labels))
    lines = [f"{label:>{margin}} |{''.join(row)}".rstrip() for label, row in zip(labels, rows, strict=True)]
    axis = " " * margin + " +" + "-" * width
    foot = f"0{steps - 1:>{width - 1}}"
    return "\n".join([*lines, axis, " " * (margin + 2) + foot + "  step"])
