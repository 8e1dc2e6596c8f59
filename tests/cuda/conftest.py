"""The device of the CUDA tests: a GPU, or the host standing in for one (tests/emulation, see CONTRIBUTING.md)."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
import torch

from thalweg import _capture as _capture_module
from thalweg import _core

EMULATED = _core.tensor_view(torch.empty(1))[3] >= 0  # the emulated build takes host tensors for the device's


@pytest.fixture
def device() -> torch.device:
    """Where the tensors of a test live."""
    return torch.device("cpu" if EMULATED else "cuda")


@pytest.fixture
def real_device() -> torch.device:
    """For what only a GPU can show: torch's own kernels inside a graph, streams, speed."""
    if EMULATED:
        pytest.skip("the emulated build has no GPU")
    return torch.device("cuda")


class _EmulatedGraph:
    """What thalweg's kernels did during an emulated capture; torch's own operations are not in it."""

    def __init__(self) -> None:
        self.library = ctypes.CDLL(_core.__file__)
        self.number = -1

    def replay(self) -> int:
        """Do it again; returns the number of launches and copies."""
        return int(self.library.thalweg_emulated_replay(self.number))


@contextmanager
def _capture() -> Iterator[Any]:
    if not EMULATED:
        graph = torch.cuda.CUDAGraph()
        with _capture_module.capture(graph, torch.cuda.Stream()):
            yield graph
        return
    emulated = _EmulatedGraph()
    emulated.library.thalweg_emulated_capture_begin()
    try:
        yield emulated
    finally:
        emulated.number = emulated.library.thalweg_emulated_capture_end()


@pytest.fixture
def capture() -> Callable[[], AbstractContextManager[Any]]:
    """`with capture() as graph: ...` records the kernels of thalweg (and of torch, on a GPU); `graph.replay()`."""
    return _capture


@pytest.fixture
def failures() -> Iterator[Callable[[int, int], None]]:
    """`failures(devices, allocations)`: the emulated driver has so many devices and fails after so many allocations."""
    if not EMULATED:
        pytest.skip("a GPU cannot be asked to fail")
    library = ctypes.CDLL(_core.__file__)
    yield library.thalweg_emulated_failures
    library.thalweg_emulated_failures(1, -1)
