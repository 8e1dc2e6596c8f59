"""Shared by all tests: random generators, instruction sets, one report header."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
import stand_in  # noqa: F401  # before thalweg
from thalweg import _core


def pytest_report_header() -> list[str]:
    cuda = _core.cuda_info()
    return [
        (
            f"thalweg {_core.__version__}: {_core.isa_active()} of {', '.join(_core.isa_supported())}; "
            f"OpenMP {_core.openmp_compiled()}, {torch.get_num_threads()} threads; "
            f"CUDA built {cuda['compiled']}, {cuda['device_count']} devices"
        ),
        f"torch {torch.__version__}, numpy {np.__version__}",
    ]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without a device, CUDA tests are skipped; THALWEG_REQUIRE_CUDA=1 turns that into a failure."""
    if _core.cuda_info()["device_count"] > 0 or os.environ.get("THALWEG_REQUIRE_CUDA") == "1":
        return
    for item in items:
        if "cuda" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(params=[0, 1, 2])
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Three generators with different seeds."""
    return np.random.default_rng(request.param)


@pytest.fixture(params=_core.isa_compiled())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every instruction set of the build, forced; those that this CPU cannot run are reported as not run."""
    if request.param not in _core.isa_supported():
        pytest.skip(f"this CPU cannot run {request.param}")
    before = _core.isa_active()
    _core.isa_force(request.param)
    yield request.param
    _core.isa_force(before)


@pytest.fixture(params=[1, 2, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """Thread counts of torch, and so of thalweg."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)
