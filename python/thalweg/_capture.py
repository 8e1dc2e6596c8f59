"""Capturing CUDA graphs so that a capture which fails leaves torch as it was, and says what could not be captured."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator
from pathlib import Path

import torch

_NOT_THE_USERS = (str(Path(torch.__file__).parent), str(Path(__file__).parent), contextlib.__file__)

_broken: list[torch.cuda.CUDAGraph] = []  # torch's allocator of pinned memory may still point to them


@contextlib.contextmanager
def capture(graph: torch.cuda.CUDAGraph, stream: torch.cuda.Stream) -> Iterator[None]:
    """Capture what runs on this device into `graph`; the work of other threads is not disturbed.

    After an error torch leaves the capture's stream current and, before 2.12, its allocator and its random generator
    in the capture, so that the next dropout anywhere would fail; all are put right here.
    """
    before = torch.cuda.current_stream(stream.device)
    pool = torch.cuda.graph_pool_handle()
    try:
        with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
            yield
    except BaseException:
        _broken.append(graph)
        torch.cuda.set_stream(before)
        _recover(stream, pool)
        raise


def _recover(stream: torch.cuda.Stream, pool: tuple[int, int]) -> None:
    with contextlib.suppress(RuntimeError):  # an end that torch has reached by itself
        torch._C._cuda_endAllocateToPool(stream.device.index or 0, pool)
    scratch = torch.zeros(1, device=stream.device)
    with torch.cuda.graph(torch.cuda.CUDAGraph(), stream=stream, capture_error_mode="thread_local"):
        scratch.add_(1)  # a capture that succeeds ends the generator's


def culprit(error: BaseException, handled: BaseException | None) -> str:
    """Where the user's own code stood when `error` came, as "file:line in function: source", or its text alone.

    The end of a broken capture raises another error on top of the one that broke it: the first one counts. What was
    being handled before the capture began (`handled`, from sys.exc_info()) is older and does not.
    """
    while error.__context__ is not None and error.__context__ is not handled:
        error = error.__context__
    own = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith((*_NOT_THE_USERS, "<"))]
    text = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    if not own:
        return text
    last = own[-1]
    return f"{last.filename}:{last.lineno} in {last.name}: {last.line} ({text})"
