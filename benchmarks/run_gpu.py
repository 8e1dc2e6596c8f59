"""`make gpu`: build for the GPU at hand, test on it, measure; tests and measurements run whatever became of the other.

Works in the current Python environment and needs no network. Writes build/gpu/pytest.log and the benchmarks' JSON; both
are also copied into the folder OUT where that is set. `run_gpu.py sanitize` is `make gpu-sanitize`.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
WORK = ROOT / "build" / "gpu"
SECONDS = 530.0  # of the whole run: what is not done by then is ended and reported
TEST_SECONDS = 200.0  # of the tests at most, so that the measurements are left their time
SPARE_SECONDS = 40.0  # what the last row may take beyond the time at which no other is begun
TOOLS = ("scikit_build_core", "pybind11", "pytest")  # beside the dependencies in pyproject.toml
# The project's own options ask for plugins and make errors of warnings: rules for its development, not for this GPU.
PYTEST = (
    sys.executable, "-m", "pytest", "tests/cuda", "-q", "-ra", "-p", "no:cacheprovider",
    "--override-ini=addopts=--import-mode=importlib", "--override-ini=filterwarnings=default",
)  # fmt: skip
# Every kind of kernel once or twice. Graphs need the caching allocator, which hides errors from memcheck; tests of
# exhausted memory provoke errors.
SELECTION = os.environ.get(
    "SANITIZE",
    "(norm or groups or strides or found_inf or metrics or launch or cursor or fill or lerp or schedules) "
    "and not graph and not capture and not replay and not memory",
)


def missing() -> list[str]:
    """Names of what this environment lacks."""
    listed = re.search(r"^dependencies = \[(.*)\]$", (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE)
    assert listed is not None
    modules = [*re.findall(r'"([A-Za-z0-9_]+)', listed.group(1)), *TOOLS]
    absent = [name for name in modules if importlib.util.find_spec(name) is None]
    if shutil.which("cmake") is None and importlib.util.find_spec("cmake") is None:
        absent.append("cmake")
    return absent if cuda_tool("nvcc") else [*absent, "nvcc"]


def cuda_tool(name: str) -> str | None:
    """Where a program of the CUDA toolkit is: on PATH, or in the usual folder."""
    folders = [os.environ.get("CUDA_HOME", "/usr/local/cuda") + "/bin"]
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(folders))


def architecture() -> str:
    """CMake's name of the first GPU's architecture, e.g. 90."""
    import torch

    if not torch.cuda.is_available():
        raise SystemExit(f"make gpu: expected a CUDA device, torch {torch.__version__} of {sys.executable} finds none")
    major, minor = torch.cuda.get_device_capability(0)
    return f"{major}{minor}"


def follow(command: Sequence[str], seconds: float, log: Path | None = None, **env: str) -> int:
    """Run a command, showing its output and keeping it in `log`; 124 when the time was up, as timeout(1) has it."""
    print("+", shlex.join(command), flush=True)
    limited = ["timeout", "--kill-after=10", f"{max(seconds, 1):.0f}", *command]
    with subprocess.Popen(
        limited, cwd=ROOT, env={**os.environ, **env}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        kept = []
        for text in process.stdout:
            print(text, end="", flush=True)
            kept.append(text)
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("".join(kept))
        if folder := os.environ.get("OUT"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            shutil.copy(log, folder)
    return process.returncode


def in_words(status: int) -> str:
    """An exit status as the summary says it."""
    return {0: "passed", 124: "ended, the time was up"}.get(status, f"failed with exit status {status}")


def install(seconds: float) -> int:
    """Build for this GPU and install into this environment."""
    arch = architecture()
    command = [
        sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-index", "--no-build-isolation",
        "--no-deps", f"--config-settings=build-dir=build/gpu-{arch}", ".",
    ]  # fmt: skip
    cores = str(len(os.sched_getaffinity(0)))
    nvcc = cuda_tool("nvcc") or "nvcc"
    return follow(command, seconds, THALWEG_CUDA="ON", CUDAARCHS=arch, CUDACXX=nvcc, CMAKE_BUILD_PARALLEL_LEVEL=cores)


def everything(options: Sequence[str]) -> int:
    """Install, test, measure; `options` go to gpu.py."""
    started = time.monotonic()
    left = lambda: SECONDS - (time.monotonic() - started)  # noqa: E731
    if status := install(left()):
        print(f"make gpu: the build {in_words(status)}; nothing was tested or measured", file=sys.stderr)
        return 1
    built = time.monotonic() - started
    tests = follow(PYTEST, min(TEST_SECONDS, left()), WORK / "pytest.log", THALWEG_REQUIRE_CUDA="1")
    tested = time.monotonic() - started
    limit = f"--limit={max(left() - SPARE_SECONDS, 1):.0f}"
    measured = follow([sys.executable, "benchmarks/gpu.py", limit, *options], left())
    print(f"build: passed, {built:.0f} s")
    print(f"tests: {in_words(tests)}, {tested - built:.0f} s ({(WORK / 'pytest.log').relative_to(ROOT)})")
    print(f"benchmarks: {in_words(measured)}, {time.monotonic() - started - tested:.0f} s")
    return int(tests != 0 or measured != 0)


def sanitize() -> int:
    """memcheck and racecheck over some tests of the installed thalweg; 2 when it cannot be run here."""
    tool = cuda_tool("compute-sanitizer")
    if tool is None:
        print(
            "make gpu-sanitize: not run, compute-sanitizer is not here (it is a part of the CUDA toolkit)",
            file=sys.stderr,
        )
        return 2
    probe = "import torch; torch.ones(1, device='cuda').add_(1); torch.cuda.synchronize()"
    if follow([tool, "--error-exitcode=86", sys.executable, "-c", probe], 120):
        print("make gpu-sanitize: not run, this host does not allow compute-sanitizer (see above)", file=sys.stderr)
        return 2
    # every tensor an allocation of its own: memcheck then sees where it ends
    environment = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1", "THALWEG_REQUIRE_CUDA": "1"}
    tests = [*PYTEST, "-x", "-m", "not slow", "-k", SELECTION]
    # calls of the runtime that fail are exceptions anyway, and some tests ask for them
    checks = {"memcheck": ["--report-api-errors=no"], "racecheck": []}
    statuses = {}
    for check, options in checks.items():
        command = [tool, f"--tool={check}", "--error-exitcode=86", *options, *tests]
        statuses[check] = follow(command, SECONDS / 2, WORK / f"{check}.log", **environment)
    for check, status in statuses.items():
        print(f"{check}: {in_words(status)}")
    return int(any(statuses.values()))


def main() -> int:
    """`sanitize`, or options for gpu.py."""
    if absent := missing():
        print(f"make gpu: {sys.executable} lacks {', '.join(absent)}; install them first", file=sys.stderr)
        return 1
    return sanitize() if sys.argv[1:] == ["sanitize"] else everything(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
