"""What nvcc makes of the kernels: no spilled register, no architecture missing; the reader of its words."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from thalweg import _core

ROOT = Path(__file__).parents[2]
ARCHITECTURE = os.environ.get("CUDAARCHS", "90")


@pytest.fixture(scope="module")
def kernel_usage() -> ModuleType:
    spec = importlib.util.spec_from_file_location("kernel_usage", ROOT / "benchmarks" / "kernel_usage.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["kernel_usage"] = module  # a dataclass looks its module up
    spec.loader.exec_module(module)
    return module


SAMPLE = """\
nvcc warning : something else
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z5firstv' for 'sm_90'
ptxas info    : Function properties for _Z5firstv
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 32 registers, used 1 barriers, 8192 bytes smem
ptxas info    : Compile time = 7.219 ms
ptxas info    : Compiling entry function '_Z6secondv' for 'sm_90'
ptxas info    : Function properties for _Z6secondv
    24 bytes stack frame, 16 bytes spill stores, 8 bytes spill loads
ptxas info    : Used 80 registers, used 0 barriers, 24 bytes cumulative stack size
ptxas info    : Function properties for __internal_accurate_pow
    40 bytes stack frame, 4 bytes spill stores, 4 bytes spill loads
"""


def test_reader_of_ptxas(kernel_usage: ModuleType) -> None:
    first, second = kernel_usage.parse(SAMPLE)
    assert first == kernel_usage.Usage("_Z5firstv", "sm_90", 32, 8192, 0, 0, 0)
    assert second == kernel_usage.Usage("_Z6secondv", "sm_90", 80, 0, 24, 16, 8)
    table = kernel_usage.table([first, second])
    assert re.search(r"^ +80 +0 +24 +16 +8  _Z6secondv \(sm_90\)$", table, flags=re.MULTILINE)
    with pytest.raises(ValueError, match="did not describe _Z5firstv"):
        kernel_usage.parse(SAMPLE.replace("Used 32", "used up 32"))


@pytest.mark.skipif(shutil.which("c++filt") is None, reason="c++filt is not installed")
def test_names_are_readable(kernel_usage: ModuleType) -> None:
    symbol = "_ZN7thalweg4cuda12_GLOBAL__N_113update_kernelINS_3SgdEfEEvNS0_9StepTableElb"
    (name,) = kernel_usage.readable([symbol])
    assert name.endswith("update_kernel<Sgd, float>")
    assert "StepTable" not in name


@pytest.fixture(scope="module")
def configured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build folder with the flags of the module's own build; nothing is compiled in it."""
    if not _core.cuda_info()["compiled"]:
        pytest.skip("the module was built without CUDA")
    if _core.tensor_view(torch.empty(1))[3] >= 0:
        pytest.skip("the module is the emulated build")
    missing = [tool for tool in ("nvcc", "cmake") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not on PATH")
    folder = tmp_path_factory.mktemp("cuda")
    command = [
        "cmake", "-S", str(ROOT), "-B", str(folder), "-DTHALWEG_CUDA=ON", f"-DCMAKE_CUDA_ARCHITECTURES={ARCHITECTURE}",
        f"-DPython_EXECUTABLE={sys.executable}",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.slow
@pytest.mark.subprocess
def test_no_kernel_spills_registers(
    configured: Path, kernel_usage: ModuleType, show_kernels: Callable[[str], None]
) -> None:
    usages: list[Any] = kernel_usage.usage_of(configured)
    show_kernels(kernel_usage.table(usages))
    kernels = {re.split(r"[<(]", usage.kernel)[0] for usage in usages}
    written = {name for path in (ROOT / "cpp" / "cuda").glob("*.cu*") for name in kernels_of(path)}
    assert kernels == written  # none of them was overlooked
    assert not [usage for usage in usages if usage.spill_stores or usage.spill_loads]


def kernels_of(path: Path) -> list[str]:
    text = re.sub(r"__launch_bounds__\((?:[^()]|\([^()]*\))*\)", "", path.read_text())
    return re.findall(r"__global__\s+void\s+(\w+)\s*\(", text)
