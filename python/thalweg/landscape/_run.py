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
    engine: Engine,
    points: Array,
    ledger: Ledger,
    done: Done,
    shown: Callable[[Ledger], object],
    told: Mapping[str, Any],
    rounds: Callable[[Ledger], Indices] | None = None,
    fixed: int | None = None,
) -> None:
    """Give every point of the ledger to the engine.

    Args:
        engine: Evaluates them.
        points: [points, coordinates].
        ledger: Open.
        done: Called when a point is finished.
        shown: Called after every call of the engine.
        told: To be told beside what the engine tells.
        rounds: Gives further indices when the ledger has none left, from the sums so far; none at the end.
        fixed: Points of every call; None: as many as take half a second.
    """
    group = getattr(engine, "group", 1)  # points that it takes at once
    size = fixed or group
    while True:
        while len(indices := ledger.next(size)):
            started = time.perf_counter()
            ledger.add(indices, engine.evaluate(points[indices], done))
            ledger.tell({**engine.told, **told})
            seconds = max(time.perf_counter() - started, 1e-9)
            most = min(_MOST, 2 * size, int(CALL_SECONDS * len(indices) / seconds))
            size = fixed or max(1, most // group) * group
            shown(ledger)
        more = rounds(ledger) if rounds is not None else ()
        if not len(more):
            return
        ledger.order = np.concatenate([ledger.order, more])
