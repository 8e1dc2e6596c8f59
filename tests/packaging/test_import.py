"""Fresh interpreters: what an import loads, how many OpenMP runtimes, no driver needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from thalweg import _core

pytestmark = pytest.mark.subprocess


def fresh(code: str, **env: str) -> str:
    """Standard output of a new interpreter that ran `code`."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **env},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_loads_no_heavy_package() -> None:
    heavy = ["matplotlib", "plotly", "sklearn", "lightning", "transformers", "pandas", "scipy"]
    loaded = fresh(f"import sys, thalweg; print([m for m in {heavy!r} if m in sys.modules])")
    assert loaded.strip() == "[]"


@pytest.mark.parametrize("order", ["import torch, thalweg", "import thalweg, torch"])
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/maps")
def test_one_openmp_runtime_whatever_is_imported_first(order: str) -> None:
    code = (
        f"{order}\n"
        "import re\n"
        "p = torch.nn.Parameter(torch.ones(200_000)); p.grad = torch.ones(200_000)\n"
        "thalweg.optim.SGD([p]).step(); torch.ones(500_000).exp()\n"
        "maps = open('/proc/self/maps').read()\n"
        "print(sorted({m for m in re.findall(r'/\\S*lib(?:gomp|iomp5|omp)[^/\\s]*', maps)}))"
    )
    runtimes = eval(fresh(code))
    assert len(runtimes) == 1, runtimes


def test_threads_follow_torch() -> None:
    """torch.set_num_threads(1) leaves one thread to a large step: no worker of a second pool appears."""
    code = (
        "import torch, thalweg, os\n"
        "torch.set_num_threads(1)\n"
        "p = torch.nn.Parameter(torch.ones(2_000_000)); p.grad = torch.ones(2_000_000)\n"
        "o = thalweg.optim.AdamW([p]); before = len(os.listdir('/proc/self/task'))\n"
        "o.step(); o.step(); print(len(os.listdir('/proc/self/task')) - before)"
    )
    assert fresh(code).strip() == "0"


def test_no_driver_means_zero_devices_and_no_error() -> None:
    info = json.loads(
        fresh("import json, thalweg; print(json.dumps(thalweg._core.cuda_info()))", CUDA_VISIBLE_DEVICES="")
    )
    assert info["device_count"] == 0
    assert info["detail"]


def test_isa_is_forced_by_environment_and_refused_by_name() -> None:
    code = "from thalweg import _core; print(_core.isa_active())"
    assert fresh(code, THALWEG_CPU_ISA="base").strip() == "base"
    wrong = "from thalweg import _core\ntry:\n    _core.isa_active()\nexcept ValueError as e:\n    print(e)"
    assert "expected one of 'base', 'avx2', 'avx512', got 'sse9'" in fresh(wrong, THALWEG_CPU_ISA="sse9")


def test_missing_extra_is_named() -> None:
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "import thalweg as tw\n"
        "try:\n    tw.schedules.cosine(0.1, 10).plot()\n"
        "except ImportError as e:\n    print(e)"
    )
    assert 'pip install "thalweg[plot]"' in fresh(code)


def test_command_line_runs_as_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "thalweg", "info", "--json", "--check"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    info = json.loads(done.stdout)
    assert info["check"]["ok"]
    assert info["optimizers"] == sorted(_core.optimizers())
