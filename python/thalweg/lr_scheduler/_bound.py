"""ScheduleLR: a thalweg schedule as a torch LRScheduler, for any torch optimizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.optimizer import Optimizer

from .. import _check
from ..schedules import Bundle, Schedule, from_dict


class ScheduleLR(LRScheduler):
    r"""Write a schedule into the param groups of any torch optimizer; made by `schedule.bind(optimizer)`.

    .. math:: \text{group["lr"]} = f(k) \quad\text{or, with } relative,\quad f(k)\cdot\text{initial\_lr}

    After `scheduler.step()` number k the groups hold f(k), the value of the next optimizer step, as with every torch
    scheduler. The value depends on the step alone: what another scheduler wrote is overwritten, and loading a
    state_dict writes the learning rates.

    Args:
        optimizer: Any torch optimizer.
        schedule: One schedule for all groups, or a list with one per group.
        momentum: A schedule for the momentum (`group["momentum"]`, or the first of `group["betas"]`), or None.
        relative: Multiply each group's initial learning rate instead of replacing it.
        last_epoch: Index of the last step that was done; -1 for a new run.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: The number of schedules differs from the number of groups, or there is no momentum to schedule.

    Example:
        >>> import torch, thalweg as tw
        >>> opt = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
        >>> scheduler = tw.schedules.cosine(0.2, total_steps=2).bind(opt)
        >>> for _ in range(2):
        ...     opt.step()
        ...     scheduler.step()
        ...     print(opt.param_groups[0]["lr"])
        0.1
        0.0
    """

    def __init__(
        self,
        optimizer: Optimizer,
        schedule: Schedule | Sequence[Schedule],
        *,
        momentum: Schedule | None = None,
        relative: bool = False,
        last_epoch: int = -1,
    ) -> None:
        _check.instance("ScheduleLR", "optimizer", optimizer, Optimizer, "a torch optimizer")
        groups = optimizer.param_groups
        if isinstance(schedule, Bundle):
            raise TypeError("ScheduleLR: schedule must be a Schedule, got a Bundle; call bundle.bind(optimizer)")
        schedules = [schedule] * len(groups) if isinstance(schedule, Schedule) else list(schedule)
        for item in schedules:
            _check.instance("ScheduleLR", "schedule", item, Schedule, "a Schedule or a list of them")
        if len(schedules) != len(groups):
            raise ValueError(f"ScheduleLR: expected {len(groups)} schedules, one per param group, got {len(schedules)}")
        if momentum is not None:
            _check.instance("ScheduleLR", "momentum", momentum, Schedule, "a Schedule or None")
            if any("momentum" not in group and "betas" not in group for group in groups):
                raise ValueError(f"ScheduleLR: {type(optimizer).__name__} has no momentum or betas to schedule")
        self.schedules = schedules
        self._distinct = set(schedules)
        self.momentum_schedule = momentum
        self.relative = bool(relative)
        super().__init__(optimizer, _check.integer("ScheduleLR", "last_epoch", last_epoch, -1))

    @property
    def schedule(self) -> Schedule:
        """The schedule of the first param group."""
        return self.schedules[0]

    def get_lr(self) -> list[float | Tensor]:
        """Learning rates of the current step, one per group."""
        return self._values(max(self.last_epoch, 0))

    def _get_closed_form_lr(self) -> list[float | Tensor]:
        return self.get_lr()

    def _values(self, step: int) -> list[float | Tensor]:
        if len(self.schedules) < len(self.optimizer.param_groups):  # groups that were added follow the last schedule
            self.schedules += [self.schedules[-1]] * (len(self.optimizer.param_groups) - len(self.schedules))
            self.base_lrs += [
                g.setdefault("initial_lr", g["lr"]) for g in self.optimizer.param_groups[len(self.base_lrs) :]
            ]
        known: dict[int, float] = {}
        values: list[float | Tensor] = []
        for schedule in self.schedules:
            value = known.get(id(schedule))
            if value is None:
                value = known[id(schedule)] = schedule.plan.value_at(step)
            values.append(value)
        if self.relative:
            return [value * float(base) for value, base in zip(values, self.base_lrs, strict=True)]
        return values

    def step(self, epoch: int | None = None) -> None:
        """Move to the next step and write its values; `epoch` jumps there (deprecated in torch)."""
        plain = len(self._distinct) == 1 and not self.relative and self.momentum_schedule is None
        if epoch is not None or self._step_count < 2 or not plain:
            super().step(epoch)  # warns about a wrong order of calls in the first two steps
            return
        self._step_count += 1
        self.last_epoch += 1
        value = self.schedules[0].plan.value_at(self.last_epoch)
        groups = self.optimizer.param_groups
        for group in groups:
            if type(group["lr"]) is float:
                group["lr"] = value
            else:
                _write_lr(group, value)
        self._last_lr = [value] * len(groups)

    def _update_lr(self, epoch: int | None = None) -> None:
        """What `step()` of torch's base class calls."""
        self.last_epoch = self.last_epoch + 1 if epoch is None else int(epoch)
        step = max(self.last_epoch, 0)
        self._last_lr = values = self._values(step)
        for group, value in zip(self.optimizer.param_groups, values, strict=True):
            _write_lr(group, value)
        if self.momentum_schedule is not None:
            self._write_momentum(self.momentum_schedule(step))

    def _write_momentum(self, value: float) -> None:
        for group in self.optimizer.param_groups:
            if "momentum" in group:
                group["momentum"] = value
            elif isinstance(group["betas"][0], Tensor):
                group["betas"][0].fill_(value)
            else:
                group["betas"] = (value, *group["betas"][1:])

    def state_dict(self) -> dict[str, Any]:
        """Step and description, as plain numbers, lists and dicts."""
        momentum = self.momentum_schedule
        return {
            "last_epoch": self.last_epoch,
            "_step_count": self._step_count,
            "base_lrs": [float(lr) for lr in self.base_lrs],
            "_last_lr": [float(lr) for lr in self._last_lr],
            "relative": self.relative,
            "schedules": [schedule.to_dict() for schedule in self.schedules],
            "momentum": None if momentum is None else momentum.to_dict(),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any], *, allow_change: bool = False) -> None:
        """Take over step and learning rates, and write them into the optimizer.

        Args:
            state_dict: What `state_dict()` returned.
            allow_change: Continue with this scheduler's own schedule where the saved one is another.

        Raises:
            ValueError: The saved schedule differs and `allow_change` is not set, or this is no such state_dict.
        """
        missing = {"last_epoch", "_step_count", "base_lrs", "schedules"} - set(state_dict)
        if missing:
            raise ValueError(
                f"ScheduleLR: this is not a state_dict of ScheduleLR, it lacks {', '.join(sorted(missing))}"
            )
        saved = [from_dict(description) for description in state_dict["schedules"]]
        momentum = state_dict.get("momentum")
        changed = (
            saved != self.schedules or (None if momentum is None else from_dict(momentum)) != self.momentum_schedule
        )
        if changed and not allow_change:
            raise ValueError(
                f"ScheduleLR: the saved schedule is {saved[0]!r}, this one is {self.schedules[0]!r}; load into the "
                "same schedule, or pass allow_change=True to go on with this one from the saved step"
            )
        self.base_lrs = list(state_dict["base_lrs"])
        self._step_count = int(state_dict["_step_count"])
        self._update_lr(int(state_dict["last_epoch"]))


def _write_lr(group: dict[str, Any], value: float | Tensor) -> None:
    """Fill a tensor in place, replace a number."""
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(value)
    else:
        group["lr"] = value
