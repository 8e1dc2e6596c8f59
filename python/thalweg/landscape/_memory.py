"""The memory of the host and of devices. Knows no model."""

from __future__ import annotations

import os
from pathlib import Path

import torch

_BYTES = 31 << 20  # glibc adapts to blocks of up to 32 MiB
_SHARE = 0.5  # of the free memory that data may take; the rest is for activations


def keep_freed_memory() -> None:
    """Let the C library keep freed activations instead of giving them back to the system after every batch.

    glibc maps blocks above a threshold of 128 KiB anew each time and returns free memory at the top of the heap; the
    system then clears every page again, which took half the time of a small ResNet's forward pass. The threshold
    follows the largest block that was ever mapped and freed, so one such block, never touched, is enough. Other C
    libraries do not mind.
    """
    torch.empty(_BYTES, dtype=torch.uint8)


def default_budget(device: torch.device) -> int:
    """Half of the memory that is free where the model is: on a device of what torch can still get or reuse there."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(_SHARE * free)
    return int(_SHARE * min(_available(), _left_in_group()))


def _available() -> float:
    """Bytes that Linux can give to programs without swapping; infinite where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(float(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError, IndexError):
        return 2.0**62


def _left_in_group() -> float:
    """Bytes that a container's limit leaves."""
    try:
        limit, used = (Path(f"/sys/fs/cgroup/memory.{name}").read_text().strip() for name in ("max", "current"))
        return 2.0**62 if limit == "max" else max(0.0, float(limit) - float(used))
    except (OSError, ValueError):
        return 2.0**62


def memory_of(device: torch.device) -> int | None:
    """Bytes of memory where tensors of this device are, or None where the system does not tell."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None
