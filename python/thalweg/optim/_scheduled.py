"""Learning-rate schedules of param groups: which group has one, where they stand, what the host sees of it.

Knows no update rule. The truth on a CUDA device is a clock there, which the kernels advance; the host mirrors it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from .._check import describe
from ..schedules import Schedule
from ._requests import CoreRequests


class ScheduledGroups(CoreRequests):
    """The part of an optimizer that keeps the schedules of its groups."""

    _schedules: list[Schedule | None]
    _plans: list[Any]  # the core's form of each
    _written: list[float | Tensor | None]  # what the schedule put into group["lr"] last
    _default_schedule: Schedule | None
    _unsure: bool  # the device may have done other steps than the host counted
    _captured: bool  # a CUDA graph holds a step
    _table: Any

    @property
    def schedules(self) -> tuple[Schedule | None, ...]:
        """The learning rate's schedule of each param group; None where it is a plain number."""
        return tuple(self._schedules)

    @property
    def schedule_step(self) -> int:
        """Steps done so far, as the schedules count them; the next step uses `schedule(schedule_step)`.

        After replays of a CUDA graph, and where a device may have skipped steps, `sync()` brings it up to date.
        """
        return self._schedule_step

    def sync(self) -> int:
        """Bring `schedule_step` and every scheduled `group["lr"]` up to date with the device, and wait for it.

        Needed only where the device did what the host did not see: replays of a CUDA graph, steps that a GradScaler or
        `skip_nonfinite` made it skip. `state_dict()` does it by itself.

        Returns:
            The steps done so far, as the schedules count them.

        Example:
            >>> import torch, thalweg as tw
            >>> opt = tw.optim.SGD([torch.nn.Parameter(torch.zeros(3))], lr=tw.schedules.cosine(0.1, total_steps=10))
            >>> opt.sync()
            0
        """
        if self._clocks:
            self._schedule_step = int(next(iter(self._clocks.values())))
            self._write_rates()
            self._unsure = self._captured  # its replays go on unseen
        return self._schedule_step

    def _catch_up(self) -> None:
        if self._unsure:
            self.sync()

    def _set_schedule_step(self, step: int) -> None:
        self._schedule_step = step
        for clock in self._clocks.values():
            clock.fill_(step)

    def _write_rates(self) -> None:
        """Every scheduled group's `lr` for the next step; a tensor is filled, never replaced."""
        for index, schedule in enumerate(self._schedules):
            if schedule is None:
                continue
            lr = self.param_groups[index]["lr"]
            if isinstance(lr, Tensor):
                lr.fill_(schedule(self._schedule_step))
            else:
                self.param_groups[index]["lr"] = lr = schedule(self._schedule_step)
            self._written[index] = lr

    def _append_schedule(self, schedule: Schedule | None) -> None:
        self._schedules.append(schedule)
        self._plans.append(None if schedule is None else schedule.plan)
        self._written.append(None if schedule is None else self.param_groups[-1]["lr"])

    def _start_value(self, schedule: Schedule, group: dict[str, Any]) -> float | Tensor:
        """`lr` of a new group: a number, or with `capturable` a tensor on the device that the kernels keep right."""
        value = schedule(self._schedule_step)
        if not group.get("capturable"):
            return value
        params = group["params"]
        first = params if isinstance(params, Tensor) else next(iter(params), None)
        first = first[1] if isinstance(first, tuple) else first
        device = first.device if isinstance(first, Tensor) else None
        return torch.tensor(value, dtype=torch.float64, device=device)

    def _follow_foreign_writes(self) -> None:
        """A group whose `lr` is not what its schedule wrote last belongs to the writer from now on."""
        for index, written in enumerate(self._written):
            if written is None:
                continue
            lr = self.param_groups[index]["lr"]
            if lr is written or (isinstance(lr, float) and lr == written):
                continue
            if self._table is not None and self._table.capturing():
                raise RuntimeError(
                    f"{type(self).__name__}: lr of group {index} was set from outside to {describe(lr)} while a CUDA "
                    "graph is captured; its replays would follow neither. Set it before the capture"
                )
            self._drop_schedule(index)
            warnings.warn(
                f"{type(self).__name__}: lr of group {index} was set from outside to {describe(lr)}; its schedule is "
                "dropped and this value is used. Pass lr as a number if another scheduler drives it.",
                stacklevel=4,
            )

    def _drop_schedule(self, index: int) -> None:
        self._schedules[index] = self._plans[index] = self._written[index] = None

    @contextmanager
    def _lr_override(self) -> Iterator[Callable[[Sequence[float]], None]]:
        """Lets a range test drive the learning rates: schedules are set aside and come back afterwards."""
        self._catch_up()
        kept = (self._schedules, self._plans, self._written)
        step = self._schedule_step
        lrs = [group["lr"] for group in self.param_groups]
        empty: list[Any] = [None] * len(self.param_groups)
        self._schedules, self._plans, self._written = empty, list(empty), list(empty)

        def set_lr(values: Sequence[float]) -> None:
            for group, value in zip(self.param_groups, values, strict=True):
                if isinstance(group["lr"], Tensor):
                    group["lr"].fill_(value)
                else:
                    group["lr"] = value

        values = [float(lr) for lr in lrs]
        try:
            yield set_lr
        finally:
            set_lr(values)
            for group, lr in zip(self.param_groups, lrs, strict=True):
                group["lr"] = lr
            self._schedules, self._plans, self._written = kept
            self._set_schedule_step(step)
