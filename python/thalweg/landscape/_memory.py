"""The memory of the host and of devices. Knows no model."""

from __future__ import annotations

import os

import torch

_BYTES = 31 << 20  # glibc adapts to blocks of up to 32 MiB


def keep_freed_memory() -> None:
    """Let the C library keep freed activations instead of giving them back to the system after every batch.

    glibc maps blocks above a threshold of 128 KiB anew each time and returns free memory at the top of the heap; the
    system then clears every page again, which took half the time of a small ResNet's forward pass. The threshold
    follows the largest block that was ever mapped and freed, so one such block, never touched, is enough. Other C
    libraries do not mind.
    """
    torch.empty(_BYTES, dtype=torch.uint8)


def memory_of(device: torch.device) -> int | None:
    """Bytes of memory where tensors of this device are, or None where the system does not tell."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None
