"""The losses of one run, kept on the device that computes them; the host looks at them late. Knows no model."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from . import _check
from ._lr_range_curve import Array

WHO = "range_test"
LAG = 16  # steps that the host may be ahead of a CUDA device before it looks at a loss


def scalar(loss: Any) -> torch.Tensor | float:
    """Return a loss as a number or a detached scalar tensor, where it is.

    Raises:
        TypeError, ValueError: It is neither.
    """
    if isinstance(loss, torch.Tensor):
        if loss.numel() != 1:
            raise ValueError(f"{WHO}: the loss must be a scalar, got shape {list(loss.shape)}; take its mean")
        return loss.detach().reshape(())
    if isinstance(loss, bool) or not isinstance(loss, (int, float, np.floating, np.integer)):
        raise TypeError(
            f"{WHO}: the step must return the loss, a number or a scalar tensor, got {_check.describe(loss)}"
        )
    return float(loss)


class LossRecord:
    """Losses of up to `capacity` steps, averaged over the processes of `group`.

    On a CUDA device a loss goes into a device buffer and from there into pinned memory, both in stream order; the
    host waits for no step but the one `lag` steps back. On a CPU, and for plain numbers, the lag is 0. What the host
    has seen depends on the step alone, so that all processes decide alike.
    """

    def __init__(self, capacity: int, lag: int | None = None, group: Any = None) -> None:
        self._capacity, self._lag, self._group = capacity, lag, group
        self._losses: torch.Tensor | None = None  # [capacity], on the device
        self._host = torch.empty(0, dtype=torch.float64)  # [capacity]
        self._events: list[Any] = []
        self._count = 0

    def _begin(self, device: torch.device) -> torch.Tensor:
        on_gpu = device.type == "cuda"
        if self._lag is None:
            self._lag = LAG if on_gpu else 0
        losses = torch.zeros(self._capacity, dtype=torch.float64, device=device)
        self._host = torch.zeros(self._capacity, dtype=torch.float64, pin_memory=True) if on_gpu else losses
        self._losses = losses
        return losses

    def _device_of(self, loss: torch.Tensor | float) -> torch.device:
        if isinstance(loss, torch.Tensor):
            return loss.device
        only_cuda = self._group is not None and dist.get_backend(self._group) == "nccl"
        return torch.device("cuda", torch.cuda.current_device()) if only_cuda else torch.device("cpu")

    def write(self, loss: torch.Tensor | float) -> None:
        """Add the loss of the next step."""
        losses = self._begin(self._device_of(loss)) if self._losses is None else self._losses
        here = losses[self._count]
        here.copy_(loss, non_blocking=True) if isinstance(loss, torch.Tensor) else here.fill_(loss)
        if self._group is not None:
            dist.all_reduce(here, group=self._group)
            here /= dist.get_world_size(self._group)
        if losses.device.type == "cuda":
            self._host[self._count].copy_(here, non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record(torch.cuda.current_stream(losses.device))
            self._events.append(event)
        self._count += 1

    def seen(self) -> Array:
        """Return the losses that may be looked at now: all but the last `lag`."""
        count = max(self._count - (self._lag or 0), 0)
        if self._events and count:
            self._events[count - 1].synchronize()  # long past, unless the device is `lag` steps behind
        return self._host[:count].numpy()

    def all(self) -> Array:
        """Return all losses; waits for the device."""
        if self._events:
            self._events[-1].synchronize()
        return np.array(self._host[: self._count].numpy())
