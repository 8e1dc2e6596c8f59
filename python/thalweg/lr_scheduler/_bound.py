"""ScheduleLR: a thalweg schedule as a torch LRScheduler, for any torch optimizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.optimizer import Optimizer

from .. import _check
from ..schedules import Schedule, from_dict

_VERSION = 1


class ScheduleLR(LRScheduler):
    r"""Write a schedule into the param groups of any torch optimizer; made by `schedule.bind(optimizer)`.

    .. math:: \text{group["lr"]} = f(k) \quad\text{or, with } relative,\quad f(k)\cdot\text{initial\_lr}

    After `scheduler.step()` number k the groups hold f(k), the value of the next optimizer step, as with every torch
    scheduler. The value depends on the step alone: what another scheduler wrote is overwritten, nothing drifts, and
    loading a state_dict writes the learning rates. It may be one of the schedulers of torch's `SequentialLR`; in a
    `ChainedScheduler` the factors of the others are lost, so combine the schedules themselves by `*`.

    Args:
        optimizer: Any torch optimizer. A tensor `lr` is filled in place, never replaced.
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
        schedules = _one_per_group(schedule, len(groups))
        if momentum is not None:
            _check.instance("ScheduleLR", "momentum", momentum, Schedule, "a Schedule or None")
            if any("momentum" not in group and "betas" not in group for group in groups):
                raise ValueError(
                    f"ScheduleLR: {type(optimizer).__name__} has no momentum or betas to schedule; bind the learning "
                    "rate alone, e.g. bundle.lr.bind(optimizer)"
                )
        self.schedules = schedules
        self.momentum_schedule = momentum
        self.relative = bool(relative)
        # One value for every group, and nothing else to write: step() then takes its short way.
        self._uniform = isinstance(schedule, Schedule) and momentum is None and not self.relative
        super().__init__(optimizer, _check.integer("ScheduleLR", "last_epoch", last_epoch, -1))

    @property
    def schedule(self) -> Schedule:
        """The schedule of the first param group."""
        return self.schedules[0]

    # ---- values ------------------------------------------------------------------------------------------

    def get_lr(self) -> list[float | Tensor]:
        """Learning rates of the current step, one per group, in the types of the groups' own."""
        groups = self.optimizer.param_groups
        return [
            torch.full_like(group["lr"], value) if isinstance(group["lr"], Tensor) else value
            for group, value in zip(groups, self._values(max(self.last_epoch, 0)), strict=True)
        ]

    def _get_closed_form_lr(self) -> list[float | Tensor]:
        return self.get_lr()

    def _values(self, step: int) -> list[float]:
        groups = self.optimizer.param_groups
        for group in groups[len(self.schedules) :]:  # groups that were added follow the last schedule
            self.schedules.append(self.schedules[-1])
            self.base_lrs.append(_copy(group.setdefault("initial_lr", _copy(group["lr"]))))
        known: dict[int, float] = {}
        values: list[float] = []
        for schedule in self.schedules:
            value = known.get(id(schedule))
            if value is None:
                value = known[id(schedule)] = schedule.plan.value_at(step)
            values.append(value)
        if self.relative:
            return [value * float(base) for value, base in zip(values, self.base_lrs, strict=True)]
        return values

    # ---- stepping ----------------------------------------------------------------------------------------

    def step(self, epoch: int | None = None) -> None:
        """Move to the next step and write its values; `epoch` jumps there (deprecated in torch)."""
        if epoch is not None or self._step_count < 2 or not self._uniform:
            super().step(epoch)  # warns about a wrong order of calls in the first two steps
            return
        self._step_count += 1
        self.last_epoch = k = self.last_epoch + 1
        groups = self.optimizer.param_groups
        value = self.schedules[0].plan.value_at(k)
        plain = True
        for group in groups:
            if type(group["lr"]) is float:
                group["lr"] = value
            else:
                plain = False
                _write(group, "lr", value)
        self._last_lr = [value] * len(groups) if plain else [_copy(group["lr"]) for group in groups]

    def _update_lr(self, epoch: int | None = None) -> None:
        """What `step()` of torch's base class calls, and SequentialLR when this scheduler's turn comes."""
        self.last_epoch = self.last_epoch + 1 if epoch is None else int(epoch)
        step = max(self.last_epoch, 0)
        groups = self.optimizer.param_groups
        for group, value in zip(groups, self._values(step), strict=True):
            _write(group, "lr", value)
        self._last_lr = [_copy(group["lr"]) for group in groups]
        if self.momentum_schedule is not None:
            self._write_momentum(self.momentum_schedule(step))

    def _write_momentum(self, value: float) -> None:
        for group in self.optimizer.param_groups:
            if "momentum" in group:
                _write(group, "momentum", value)
            elif isinstance(group["betas"][0], Tensor):
                group["betas"][0].fill_(value)
            else:
                group["betas"] = (value, *group["betas"][1:])

    # ---- state -------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Step and description, as plain numbers, strings, lists and dicts."""
        rates = [float(lr) for lr in self._last_lr]
        return {
            "version": _VERSION,
            "last_epoch": self.last_epoch,
            "_step_count": self._step_count,
            "base_lrs": [float(lr) for lr in self.base_lrs],
            "_last_lr": rates,
            # Whether these rates are in force; in a SequentialLR those of another scheduler may be.
            "active": rates == [float(group["lr"]) for group in self.optimizer.param_groups],
            "relative": self.relative,
            "schedules": [schedule.to_dict() for schedule in self.schedules],
            "momentum": None if self.momentum_schedule is None else self.momentum_schedule.to_dict(),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any], *, allow_change: bool = False) -> None:
        """Take over step and learning rates, and write them into the optimizer.

        Args:
            state_dict: What `state_dict()` returned.
            allow_change: Continue with this scheduler's own schedule where the saved one is another, e.g. because the
                budget grew.

        Raises:
            TypeError: state_dict is not a dict.
            ValueError: The saved schedule differs and `allow_change` is not set, or this is no such state_dict.
        """
        _check.instance("ScheduleLR.load_state_dict", "state_dict", state_dict, Mapping, "a dict")
        if state_dict.get("version") != _VERSION:
            raise ValueError(
                f"ScheduleLR.load_state_dict: expected a state_dict of ScheduleLR, version {_VERSION}, got one with "
                f"version {_check.describe(state_dict.get('version'))}"
            )
        if not allow_change:
            self._refuse_change(state_dict)
        base_lrs = list(state_dict["base_lrs"])
        if len(base_lrs) != len(self.optimizer.param_groups):
            raise ValueError(
                f"ScheduleLR.load_state_dict: the state has {len(base_lrs)} param groups, the optimizer has "
                f"{len(self.optimizer.param_groups)}"
            )
        self.base_lrs = base_lrs
        self._step_count = int(state_dict["_step_count"])
        step = int(state_dict["last_epoch"])
        if state_dict["active"] and step >= 0:
            self._update_lr(step)
        else:
            self.last_epoch = step
            self._last_lr = list(state_dict["_last_lr"])

    def _refuse_change(self, state: Mapping[str, Any]) -> None:
        momentum = state["momentum"]
        saved = {
            "schedule": [from_dict(description) for description in state["schedules"]],
            "momentum": None if momentum is None else from_dict(momentum),
            "relative": state["relative"],
        }
        own = {"schedule": self.schedules, "momentum": self.momentum_schedule, "relative": self.relative}
        for name, value in saved.items():
            if value != own[name]:
                raise ValueError(
                    f"ScheduleLR.load_state_dict: the saved {name} is {_check.describe(value)}, this one is "
                    f"{_check.describe(own[name])}; load into the same one, or pass allow_change=True to go on with "
                    "this one from the saved step"
                )


def _one_per_group(schedule: Schedule | Sequence[Schedule], groups: int) -> list[Schedule]:
    if isinstance(schedule, Schedule):
        return [schedule] * groups
    if not isinstance(schedule, (list, tuple)):
        raise TypeError(
            "ScheduleLR: schedule must be a Schedule or a list with one per param group, got "
            f"{_check.describe(schedule)}; of a bundle use bundle.bind(optimizer)"
        )
    for index, item in enumerate(schedule):
        _check.instance("ScheduleLR", f"schedule[{index}]", item, Schedule, "a Schedule")
    if len(schedule) != groups:
        raise ValueError(f"ScheduleLR: expected {groups} schedules, one per param group, got {len(schedule)}")
    return list(schedule)


def _copy(value: float | Tensor) -> float | Tensor:
    return value.clone() if isinstance(value, Tensor) else value


def _write(group: dict[str, Any], key: str, value: float) -> None:
    """Fill a tensor in place, replace a number."""
    if isinstance(group[key], Tensor):
        group[key].fill_(value)
    else:
        group[key] = value
