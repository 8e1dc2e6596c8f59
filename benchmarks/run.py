"""Run all benchmarks on idle cores and write benchmarks/results/<cpu>.json: conditions and one row per measurement."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import thalweg as tw

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"


def cpu_name() -> str:
    """The processor's name as the operating system gives it."""
    try:
        found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), flags=re.MULTILINE)
    except OSError:
        found = None
    return found.group(1) if found else platform.processor() or platform.machine()


def busy_share(seconds: float = 2.0) -> float:
    """Share of all cores' time that somebody else uses; a busy core makes torch's small parallel regions look bad."""

    def read() -> tuple[int, int]:
        fields = [int(v) for v in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
        return sum(fields), fields[3] + fields[4]

    try:
        total0, idle0 = read()
        time.sleep(seconds)
        total1, idle1 = read()
    except OSError:
        return float("nan")
    return 1 - (idle1 - idle0) / max(total1 - total0, 1)


def commit() -> str:
    """The commit that is measured: THALWEG_COMMIT where it is set, else what git says, or "unknown"."""
    if given := os.environ.get("THALWEG_COMMIT"):
        return given
    if shutil.which("git") is None:
        return "unknown"
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def result_file(machine: str) -> Path:
    """Where the results of a machine of this name stand."""
    return RESULTS / (re.sub(r"[^a-z0-9]+", "-", machine.lower()).strip("-") + ".json")


def conditions() -> dict[str, object]:
    """Everything a reader needs to judge the numbers."""
    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "isa": tw._core.isa_active(),
        "busy_share_before": busy_share(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "thalweg": tw.__version__,
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d"),
    }


def main() -> int:
    """Run pytest-benchmark and boil its JSON down."""
    facts = conditions()
    if float(str(facts["busy_share_before"])) > 0.1:
        print(
            f"the cores are {facts['busy_share_before']:.0%} busy: the numbers would mislead; try again later",
            file=sys.stderr,
        )
        return 1
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw.json"
        command = [
            sys.executable, "-m", "pytest", "benchmarks", "-q", "-p", "no:cacheprovider", "--benchmark-enable",
            f"--benchmark-json={raw}", "--override-ini=addopts=--import-mode=importlib", *sys.argv[1:],
        ]  # fmt: skip
        status = subprocess.run(command, cwd=ROOT).returncode
        if status:
            return status
        found = [entry["extra_info"] for entry in json.loads(raw.read_text())["benchmarks"] if entry["extra_info"]]
        rows = [row for info in found for row in info.get("rows", [info])]
    target = result_file(f"{facts['cpu']} {facts['cores']} cores")
    target.write_text(json.dumps({"conditions": facts, "rows": rows}, indent=1) + "\n")
    print(f"wrote {target.relative_to(ROOT)}: {len(rows)} rows")
    return 0


if __name__ == "__main__":
    sys.exit(main())
