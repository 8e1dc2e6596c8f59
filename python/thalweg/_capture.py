"""Capturing CUDA graphs so that a capture which fails leaves torch as it was, and says what could not be captured."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

_LIBRARIES = (str(Path(torch.__file__).parent), str(Path(__file__).parent))


@contextmanager
def capture(graph: torch.cuda.CUDAGraph, stream: torch.cuda.Stream) -> Iterator[None]:
    """Capture what runs on this device into `graph`; the work of other threads is not disturbed.

    After an error torch leaves the capture's stream current, its random generator marked as being captured, so that the
    next dropout anywhere would fail, and its allocator waiting for the capture's end; all are put right here.
    """
    before = torch.cuda.current_stream(stream.device)
    generator = torch.cuda.default_generators[stream.device.index or 0]
    fresh = generator.clone_state()
    pool = torch.cuda.graph_pool_handle()
    try:
        with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
            yield
    except BaseException:
        torch.cuda.set_stream(before)
        generator.graphsafe_set_state(fresh)
        with suppress(RuntimeError):  # an end that torch has reached by itself
            torch._C._cuda_endAllocateToPool(stream.device.index or 0, pool)
        raise


def culprit(error: BaseException) -> str:
    """Where the user's own code stood when `error` came, as "file:line in function: source", or its text alone."""
    frames = traceback.extract_tb(_first(error).__traceback__)
    own = [f for f in frames if not f.filename.startswith((*_LIBRARIES, "<"))]
    text = str(_first(error)).strip().splitlines() or [type(error).__name__]
    if not own:
        return text[0]
    last = own[-1]
    return f"{last.filename}:{last.lineno} in {last.name}: {last.line} ({text[0]})"


def _first(error: BaseException) -> BaseException:
    """The error that came first: ending the broken capture raises another one on top of it."""
    while error.__context__ is not None and isinstance(error.__context__, Exception):
        error = error.__context__
    return error
