"""Shared by all tests: random generators, instruction sets, one report header; stands in sanitized modules if asked."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch


def _stand_in(folder: Path) -> None:
    """Load _core and _testing from `folder` (a build with sanitizers) before thalweg asks for them."""
    for name in ("_core", "_testing"):
        (path,) = folder.glob(f"{name}.*.so")
        spec = importlib.util.spec_from_file_location(f"thalweg.{name}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[f"thalweg.{name}"] = module
        spec.loader.exec_module(module)


if folder := os.environ.get("THALWEG_TEST_MODULES"):
    _stand_in(Path(folder))

import thalweg  # noqa: E402

for _name in ("_core", "_testing"):  # an import that finds a loaded module does not set the package's attribute
    if f"thalweg.{_name}" in sys.modules:
        setattr(thalweg, _name, sys.modules[f"thalweg.{_name}"])

from thalweg import _core  # noqa: E402


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
