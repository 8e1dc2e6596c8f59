"""When a snapshot is due: at the cycle ends of a schedule, at troughs of a watched learning rate, or every n steps.

Knows schedules and optimizers by their interface only (`is_cycle_end`, `cycle`, `schedules`,
`schedule_step`).
"""

from __future__ import annotations

import math
from typing import Any

import torch

FALL = 2.0  # the learning rate must have fallen by this factor since its last peak to make a trough
_RISE = 1e-12  # of the peak: smaller rises are rounding of recursive schedulers, not restarts


def lr_of(optimizer: torch.optim.Optimizer) -> float:
    """Return the largest learning rate of the parameter groups; NaN where reading it would wait for a device."""
    values = [
        math.nan if isinstance(lr, torch.Tensor) and lr.device.type != "cpu" else float(lr)
        for lr in (group["lr"] for group in optimizer.param_groups)
    ]
    return max(values) if not any(map(math.isnan, values)) else math.nan


class LrWatch:
    """Tells when the learning rate of the coming step rises for the first time after it had fallen.

    The weights before that step are exactly those of the trough. Steps at which the rate stays the same (a
    plateau, or a scheduler that moves once an epoch) change nothing, and neither do rises before the rate has
    halved (warm-up, noise).
    """

    def __init__(self) -> None:
        self.peak = 0.0
        self.low = 0.0

    def coming(self, lr: float) -> bool:
        """Look at the learning rate of the coming step; True: the step starts a new cycle, so a snapshot is due now."""
        if math.isnan(lr):
            return False
        restart = self.fallen and lr > self.low + _RISE * self.peak
        if restart or lr >= self.peak:
            self.peak = self.low = lr
        self.low = min(self.low, lr)
        return restart

    @property
    def fallen(self) -> bool:
        """Whether the rate has fallen far enough since its peak for its lowest point to be a trough."""
        return self.peak > 0 and self.low * FALL <= self.peak

    def state_dict(self) -> dict[str, float]:
        """Return peak and lowest value since."""
        return {"peak": self.peak, "low": self.low}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Continue where `state_dict` was taken."""
        self.peak, self.low = float(state["peak"]), float(state["low"])


class Trigger:
    """Decides before (`before`) and after (`after`) each optimizer step; every kind of trigger counts the same way.

    `before(watch_says_restart)` and `after(step)` return True when the current weights are a member. `step`
    is the number of optimizer steps done that were not skipped.
    """

    def before(self, restart: bool) -> bool:
        """Whether a member is due before the coming step."""
        return False

    def after(self, step: int) -> bool:
        """Whether a member is due after step number `step` (from 1)."""
        return False

    def at_finish(self) -> bool:
        """Whether a cycle has ended that `before` would only report at the next step."""
        return False

    def cycle(self, step: int) -> int | None:
        """Number of the cycle that step number `step` belongs to, where the trigger knows it."""
        return None

    def state_dict(self) -> dict[str, int]:
        """Return what the trigger counts by itself."""
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue where `state_dict` was taken."""


class AtTroughs(Trigger):
    """Foreign schedulers: the watched learning rate decides."""

    def before(self, restart: bool) -> bool:
        return restart


class EveryN(Trigger):
    """Every `n` steps."""

    def __init__(self, n: int) -> None:
        self.n = n

    def after(self, step: int) -> bool:
        return step % self.n == 0


class AtCycleEnds(Trigger):
    """A schedule that counts optimizer steps: thalweg's optimizers, or a schedule given by the user.

    A schedule composed of pieces may rise and fall without knowing cycles; until it has named one cycle end, the
    watched learning rate decides.
    """

    def __init__(self, schedule: Any) -> None:
        self.schedule = schedule
        self.names_ends = False

    def before(self, restart: bool) -> bool:
        return restart and not self.names_ends

    def after(self, step: int) -> bool:
        end = bool(self.schedule.is_cycle_end(step - 1))
        self.names_ends |= end
        return end

    def cycle(self, step: int) -> int | None:
        index: int | None = self.schedule.cycle(step - 1)
        return index

    def state_dict(self) -> dict[str, int]:
        return {"names_ends": int(self.names_ends)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.names_ends = bool(state["names_ends"])


class AtBoundCycleEnds(Trigger):
    """A schedule bound to a torch optimizer: its own counter may move once a step or once an epoch.

    So a member is due before the first step of a new schedule position, when a cycle ended at the old one.
    """

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler
        self.position = int(scheduler.last_epoch)
        self.ended = 0

    def _any_end(self, stop: int) -> bool:
        ends = [k for k in range(self.position, stop) if self.scheduler.schedule.is_cycle_end(k)]
        self.ended = ends[-1] if ends else self.ended
        return bool(ends)

    def before(self, restart: bool) -> bool:
        position = int(self.scheduler.last_epoch)
        due = self._any_end(position)
        self.position = position
        return due

    def at_finish(self) -> bool:
        return self._any_end(int(self.scheduler.last_epoch) + 1)

    def cycle(self, step: int) -> int | None:
        index: int | None = self.scheduler.schedule.cycle(self.ended)
        return index

    def state_dict(self) -> dict[str, int]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.position = int(state["position"])


def native_schedule(optimizer: torch.optim.Optimizer) -> Any:
    """Return the first Schedule that drives a learning rate inside `optimizer` (thalweg's optimizers), or None."""
    return next((s for s in getattr(optimizer, "schedules", ()) if hasattr(s, "is_cycle_end")), None)
