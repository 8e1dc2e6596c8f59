"""One run: points from a ledger to an engine and back, some at a time. Knows no model, no axes and no results."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ._ledger import Indices, Ledger
from .engines import Array, Done, Engine

# A call of the engine lasts about this long: short enough that a kill or a preview waits little, long enough that
# the host's work between calls does not show.
CALL_SECONDS = 0.5
_MOST = 4096  # points of a call


def run(
    made: Callable[[], Engine],
    points: Array,
    ledger: Ledger,
    done: Done,
    shown: Callable[[Ledger], object],
    told: Mapping[str, Any],
    rounds: Callable[[Ledger], Indices] | None = None,
    fixed: int | None = None,
) -> None:
    """Give every point of the ledger to an engine, which is made when one is left.

    Args:
        made: Makes the engine.
        points: [points, coordinates].
        ledger: Open.
        done: Called when a point is finished.
        shown: Called after every call of the engine.
        told: To be told beside what the engine tells; may be filled by `made`.
        rounds: Gives the first indices, and further ones when the ledger has none left, from the sums so far; none at
            the end. None: the order that the ledger has.
        fixed: Points of every call; None: as many as take half a second.
    """
    if rounds is not None:
        ledger.order = rounds(ledger)
    engine, size = None, fixed or 1
    while _left(ledger, rounds):
        if engine is None:
            engine = made()
            group = getattr(engine, "group", 1)  # points that it takes at once
            size = fixed or group
        while len(indices := ledger.next(size)):
            started = time.perf_counter()
            ledger.add(indices, engine.evaluate(points[indices], done))
            ledger.tell({**engine.told, **told})
            seconds = max(time.perf_counter() - started, 1e-9)
            most = min(_MOST, 2 * size, int(CALL_SECONDS * len(indices) / seconds))
            size = fixed or max(1, most // group) * group
            shown(ledger)
    ledger.next(size)  # gives none; a shared ledger hears what the others have told


def _left(ledger: Ledger, rounds: Callable[[Ledger], Indices] | None) -> bool:
    """Whether a point is left, with as many further rounds as it takes."""
    while ledger.done[ledger.order].all():
        more = rounds(ledger) if rounds is not None else ()
        if not len(more):
            return False
        ledger.order = np.concatenate([ledger.order, more])
    return True
