"""The conditions of a GPU measurement: device, driver, versions, clocks, who else is busy. Knows no row."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import time
from typing import Any

import numpy as np
import torch

import thalweg as tw
from run import busy_share, commit, cpu_name

# What nvidia-smi is asked for; some cards and virtual ones answer "[N/A]", which is kept.
QUERY = (
    "driver_version", "pstate", "clocks.sm", "clocks.mem", "clocks.max.sm", "clocks.max.mem", "power.draw", "power.limit",
    "temperature.gpu", "utilization.gpu", "ecc.mode.current", "mig.mode.current", "persistence_mode",
)  # fmt: skip


def nvidia_smi(fields: tuple[str, ...], device: int = 0) -> dict[str, str]:
    """What nvidia-smi says of one GPU; empty where there is no nvidia-smi or it refuses."""
    if shutil.which("nvidia-smi") is None:
        return {}
    done = subprocess.run(
        ["nvidia-smi", f"--id={device}", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"],
        capture_output=True,
        text=True,
    )
    values = [value.strip() for value in done.stdout.strip().split(",")]
    return dict(zip(fields, values, strict=True)) if done.returncode == 0 and len(values) == len(fields) else {}


def version_text(version: int) -> str:
    """CUDA's number of a version as people write it."""
    return f"{version // 1000}.{version % 1000 // 10}"


def conditions() -> dict[str, Any]:
    """Everything a reader needs to judge the numbers."""
    cuda = tw._core.cuda_info()
    facts: dict[str, Any] = {
        "host": cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "busy_share_before": busy_share(),
        "cuda_of_build": version_text(cuda["runtime_version"]),
        "cuda_of_driver": version_text(cuda["driver_version"]),
        "torch": torch.__version__,
        "cuda_of_torch": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "thalweg": tw.__version__,
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d"),
    }
    if torch.cuda.is_available():
        device = torch.cuda.get_device_properties(0)
        facts |= {
            "gpu": device.name,
            "gpus": torch.cuda.device_count(),
            "memory_gib": round(device.total_memory / 2**30, 1),
            "multiprocessors": device.multi_processor_count,
            "capability": f"{device.major}.{device.minor}",
            "nvidia_smi": nvidia_smi(QUERY),
        }
    return facts
