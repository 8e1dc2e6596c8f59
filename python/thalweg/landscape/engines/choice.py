"""Which engine evaluates a run: what can, checked and timed on a few points. Knows no axes and no results."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from .._batches import Batch, Resident
from ..program import Refused
from . import Array, Engine, Task

_TRIAL_SAMPLES = 512
# Relative; what sums of a deep network may differ by, and no wrong program would: in float32, and with 8 or 11 bits.
ROUNDING, FEWER_BITS = 1e-4, 3e-2

Build = Callable[[Task], Engine]  # raises Refused


@dataclass
class Choice:
    """What was found out.

    Attributes:
        name: The engine that was taken.
        reasons: By name, why: seconds per point in the trial, or why it cannot.
        seconds: Predicted for one point, or None.
    """

    name: str
    reasons: dict[str, str]
    seconds: float | None = None

    def __str__(self) -> str:
        """One line for people."""
        return f"{self.name} ({'; '.join(f'{name}: {why}' for name, why in self.reasons.items())})"

    def predicted(self, points: int) -> str:
        """How long so many points are expected to take, in words."""
        if self.seconds is None:
            return "not timed"
        seconds = self.seconds * points
        if seconds < 90:
            return f"about {seconds:.2g} s"
        return f"about {seconds / 60:.0f} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"


def choose(
    task: Task, builds: Mapping[str, Build], points: Array, instead: dict[str, str], agree: float, wanted: str = "auto"
) -> Choice:
    """The fastest engine that agrees with the first one of `builds`, on some points and a part of the data.

    Args:
        task: The run's.
        builds: Engines by name; the first is the plain one, which is always right.
        points: Of the run, [n, coordinates].
        instead: Engines that are tried only where the one named here cannot.
        agree: Relative difference from the plain one that is due to rounding.
        wanted: The engine that was asked for, which is checked and timed all the same, or "auto".

    Raises:
        ValueError: That one cannot evaluate this run, or its values differ.
    """
    kept = _some(task)
    part, samples = replace(task, batches=kept), sum(kept.sizes)
    scale = sum(batch.samples for batch in task.batches) / samples
    reference: Array | None = None
    times: dict[str, float] = {}
    reasons: dict[str, str] = {}
    for name, build in builds.items():
        if instead.get(name) in times:
            continue
        try:
            engine = build(part)
            rows = points[np.arange(max(2, getattr(engine, "group", 1))) % len(points)]
            values = engine.evaluate(rows[:2], _nothing)
            started = time.perf_counter()
            engine.evaluate(rows, _nothing)
            seconds = (time.perf_counter() - started) / len(rows)
        except (Refused, RuntimeError, ValueError, TypeError) as error:
            if reference is None:
                raise  # what the plain loop cannot do nobody can
            reasons[name] = (str(error).splitlines() or [type(error).__name__])[0]
            continue
        if reference is None:
            reference = values
        elif not _agrees(values, reference, samples, agree):
            reasons[name] = "its values differ from the plain loop's"
            continue
        times[name] = seconds * scale
        reasons[name] = f"{seconds * scale * 1e3:.3g} ms/point"
    if wanted != "auto" and wanted not in times:
        raise ValueError(
            f"Evaluator: implementation {wanted!r} cannot evaluate this run: {reasons[wanted]}; choose 'auto'"
        )
    best = min(times, key=times.__getitem__) if wanted == "auto" else wanted
    return Choice(best, reasons, times[best])


def _some(task: Task) -> Resident:
    """The first batches, about as many samples as a trial needs."""
    kept: list[Batch] = []
    for batch in task.batches:
        kept.append(batch)
        if sum(b.samples for b in kept) >= _TRIAL_SAMPLES:
            break
    return Resident(kept)


def _agrees(values: Array, reference: Array, samples: int, agree: float) -> bool:
    """Whether running sums are the same but for roundings; a sample whose two largest scores are close may go over."""
    both = zip(values.ravel().tolist(), reference.ravel().tolist(), strict=True)
    return all(
        math.isclose(a, b, rel_tol=agree, abs_tol=agree * samples + 2)
        or (not math.isfinite(a) and not math.isfinite(b))
        for a, b in both
    )


def _nothing() -> None:
    pass
