"""One run: points from a ledger to an engine and back, some at a time. Knows no model, no axes and no results."""

from __future__ import annotations

import time
from collections.abc import Callable

from ._ledger import Ledger
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
    fixed: int | None = None,
) -> Array:
    """Running sums [points, columns]; `shown` is called after every call of the engine, with `fixed` points if given."""
    size = fixed or 1
    with ledger:
        while len(indices := ledger.next(size)):
            started = time.perf_counter()
            ledger.add(indices, engine.evaluate(points[indices], done))
            ledger.tell(engine.told)
            seconds = max(time.perf_counter() - started, 1e-9)
            size = fixed or max(1, min(_MOST, 2 * size, int(CALL_SECONDS * len(indices) / seconds)))
            shown(ledger)
        return ledger.totals()
