"""One CUDA graph for the points of a run: whether it can be, the capture, the way back from one that failed.

Knows what a point is called and nothing of what it does.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from ..._capture import capture, culprit

_LOG = logging.getLogger("thalweg.landscape")
_LEAST_POINTS = 3  # below, a capture costs more than it saves


@dataclass
class Refusal:
    """Why a capture failed, once one has: each costs the memory that it had taken, so there is no second try."""

    reason: str | None = None


def obstacle(device: torch.device, points: int, waits: list[str], changes: str | None, refusal: Refusal) -> str | None:
    """Why the points cannot be replays of a graph, or None.

    Args:
        device: Where the points are evaluated.
        points: How many.
        waits: What the first point waited for the device with.
        changes: Why a replay would repeat what each point does anew, or None.
        refusal: From earlier runs.
    """
    if points < _LEAST_POINTS:
        return f"{points} points are too few"
    if changes is not None:
        return changes
    if waits:
        return f"the model, the loss or a metric waits for the device: {waits[0]}"
    if refusal.reason is not None:
        return refusal.reason
    return None if device.type == "cuda" else "the device has no graphs"


@contextmanager
def synchronisations(device: torch.device) -> Iterator[list[str]]:
    """What waits for the device meanwhile, where torch can tell; other warnings go on to whoever listens."""
    found: list[str] = []
    if device.type != "cuda" or torch.cuda.get_sync_debug_mode() != 0:
        yield found
        return
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            yield found
    finally:
        torch.cuda.set_sync_debug_mode("default")
        for warning in caught:
            text = str(warning.message)
            if "synchronizing CUDA operation" in text:
                found.append(f"{warning.filename}:{warning.lineno}")
            elif "ynchronization debug mode" not in text:
                warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def captured(point: Callable[[], None], device: torch.device, refusal: Refusal) -> Callable[[], None] | None:
    """A replay of `point`, captured on the current stream and not carried out; None, with the reason in `refusal`."""
    graph = torch.cuda.CUDAGraph()
    handled = sys.exc_info()[1]
    try:
        with capture(graph, torch.cuda.current_stream(device)):
            point()
    except Exception as error:  # whatever users' code does that a graph cannot hold
        refusal.reason = f"the capture failed: {culprit(error, handled)}"
        _LOG.warning("landscape: no CUDA graph, the host launches every operation: %s", refusal.reason)
        return None
    return graph.replay
