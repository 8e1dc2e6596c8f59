"""ScheduleLR: a thalweg schedule as a torch LRScheduler, for any torch optimizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.optimizer import Optimizer

from .. import _check
from ..schedules import Adaptive, Schedule, from_dict
from ._events import Callback, Watch
from ._targets import Given, hyper_schedules, per_group, write_at
from ._targets import copy as _copy
from ._targets import write as _write

_VERSION = 2


class ScheduleLR(LRScheduler):
    r"""Write a schedule into the param groups of any torch optimizer; made by `schedule.bind(optimizer)`.

    .. math:: \text{group["lr"]} = f(k)\,\mu \quad\text{or, with } relative,\quad f(k)\,\mu\cdot\text{initial\_lr}

    After `scheduler.step()` number k the groups hold f(k), the value of the next optimizer step, as with every torch
    scheduler. The value depends on the step alone: what another scheduler wrote is overwritten, nothing drifts, and
    loading a state_dict writes the learning rates. It may be one of the schedulers of torch's `SequentialLR`; in a
    `ChainedScheduler` the factors of the others are lost, so combine the schedules themselves by `*`.

    Args:
        optimizer: Any torch optimizer. A tensor `lr` is filled in place, never replaced.
        schedule: One schedule for all groups, or a list with one per group; None leaves a learning rate alone.
        relative: Multiply each group's initial learning rate instead of replacing it.
        last_epoch: Index of the last step that was done; -1 for a new run.
        multiplier: A rule that follows a metric, `Plateau` or `Greedy`: its μ multiplies every learning rate, and
            `step(metric=…)` tells it the metric.
        history: Number of steps of which `history` keeps the rates; 0: none.
        hyper: Schedules of other numbers in the groups by their names, e.g. weight_decay=…, also as lists; momentum
            is `group["momentum"]` or the first of `group["betas"]`; betas=(…, …) takes two schedules or None.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: The number of schedules differs from the number of groups, a group has no such number, or a
            schedule has units that are not resolved.

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
        schedule: Given,
        *,
        relative: bool = False,
        last_epoch: int = -1,
        multiplier: Adaptive | None = None,
        history: int = 0,
        **hyper: Given,
    ) -> None:
        _check.instance("ScheduleLR", "optimizer", optimizer, Optimizer, "a torch optimizer")
        if multiplier is not None:
            _check.instance("ScheduleLR", "multiplier", multiplier, Adaptive, "a Plateau, a Greedy or None")
        self.schedules = per_group("schedule", schedule, len(optimizer.param_groups))
        self.hyper_schedules = hyper_schedules(hyper, optimizer)
        if not any(any(schedules) for schedules in (self.schedules, *self.hyper_schedules.values())):
            raise ValueError("ScheduleLR: expected at least one schedule, got none")
        self.relative = bool(relative)
        self.multiplier = multiplier
        watch, self._watch = Watch(history), Watch(0)  # nobody looks while torch makes its first step
        # One value for every group, and nothing else to write or tell: step() then takes its short way.
        self._short = isinstance(schedule, Schedule) and not (self.hyper_schedules or relative or multiplier or history)
        super().__init__(optimizer, _check.integer("ScheduleLR", "last_epoch", last_epoch, -1))
        self._watch = watch
        self._watch.history.append((self.last_epoch, [float(lr) for lr in self._last_lr]))

    @property
    def schedule(self) -> Schedule:
        """The schedule of the first param group, or where that has none, the first that there is."""
        named = [self.schedules, *self.hyper_schedules.values()]
        return next(schedule for schedules in named for schedule in schedules if schedule is not None)

    @property
    def history(self) -> list[tuple[int, list[float]]]:
        """The last steps and their rates, one per group, as many as the argument `history` said."""
        return list(self._watch.history)

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

    def _follow_groups(self) -> None:
        """Groups that were added follow the last schedule."""
        for group in self.optimizer.param_groups[len(self.schedules) :]:
            self.schedules.append(self.schedules[-1])
            self.base_lrs.append(_copy(group.setdefault("initial_lr", _copy(group["lr"]))))
            for schedules in self.hyper_schedules.values():
                schedules.append(schedules[-1])

    def _values(self, step: int) -> list[float]:
        self._follow_groups()
        factor = 1.0 if self.multiplier is None else self.multiplier.multiplier
        known: dict[int, float] = {}
        values: list[float] = []
        for group, schedule, base in zip(self.optimizer.param_groups, self.schedules, self.base_lrs, strict=True):
            if schedule is None:
                values.append(float(group["lr"]))
                continue
            value = known.get(id(schedule))
            if value is None:
                value = known[id(schedule)] = schedule.plan.value_at(step) * factor
            values.append(value * float(base) if self.relative else value)
        return values

    # ---- stepping ----------------------------------------------------------------------------------------

    def step(self, epoch: int | None = None, *, metric: float | None = None, skipped: Any = False) -> None:
        """Move to the next step and write its values.

        Args:
            epoch: Jump there (deprecated in torch; `seek` is the name of it here).
            metric: An evaluation for the multiplier, before the values are written.
            skipped: Whether the optimizer left this step out (AMP's found_inf): then nothing moves.

        Raises:
            ValueError: A metric without a multiplier that takes it.
        """
        if not self._short or epoch is not None or metric is not None or skipped is not False or self._step_count < 2:
            if not skipped:
                self._long_step(epoch, metric)
            return
        self._step_count += 1
        self.last_epoch = k = self.last_epoch + 1
        groups = self.optimizer.param_groups
        value = self.schedules[0].plan.value_at(k)  # type: ignore[union-attr]  # short: there is one
        plain = True
        for group in groups:
            if type(group["lr"]) is float:
                group["lr"] = value
            else:
                plain = False
                _write(group, "lr", value)
        self._last_lr = [value] * len(groups) if plain else [_copy(group["lr"]) for group in groups]

    def _long_step(self, epoch: int | None, metric: float | None) -> None:
        if metric is not None:
            if self.multiplier is None:
                raise ValueError(
                    "ScheduleLR.step: metric is for a multiplier, and there is none; bind(…, multiplier=Plateau())"
                )
            self.multiplier.update(metric)
        watched = self._watch.active and epoch is None
        before = float(self._last_lr[0]) if watched else 0.0
        super().step(epoch)  # warns about a wrong order of calls in the first two steps
        if watched:
            self._watch.moved(self.schedule, before, self.last_epoch, [float(lr) for lr in self._last_lr])

    def seek(self, step: int) -> None:
        """Go to any step ≥ 0, forwards or back, and write its values; callbacks are not called."""
        self._update_lr(_check.integer("ScheduleLR.seek", "step", step, 0))

    def _update_lr(self, epoch: int | None = None) -> None:
        """What torch's `step()` calls, and SequentialLR when this scheduler's turn comes."""
        self.last_epoch = self.last_epoch + 1 if epoch is None else int(epoch)
        step = max(self.last_epoch, 0)
        groups = self.optimizer.param_groups
        for group, schedule, value in zip(groups, self.schedules, self._values(step), strict=False):
            if schedule is not None:
                _write(group, "lr", value)
        self._last_lr = [_copy(group["lr"]) for group in groups]
        for name, schedules in self.hyper_schedules.items():
            for group, schedule in zip(groups, schedules, strict=True):
                if schedule is not None:
                    write_at(group, name, schedule.plan.value_at(step))

    # ---- events ------------------------------------------------------------------------------------------

    def on_cycle_end(self, callback: Callback) -> Callback:
        """Call `callback(event)` after the last update of each cycle of the first group's schedule.

        The event has the step of that update, the number of the cycle and the rate it used; returns the callback.
        """
        self._watch.cycle_end.append(callback)
        self._short = False
        return callback

    def on_boundary(self, callback: Callback) -> Callback:
        """Call `callback(event)` before the first update of each piece or cycle but the first.

        The event has the step of that update, its cycle (or None) and its rate; returns the callback.
        """
        self._watch.boundary.append(callback)
        self._short = False
        return callback

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
            "schedules": _described(self.schedules),
            "hyper": {name: _described(schedules) for name, schedules in self.hyper_schedules.items()},
            "multiplier": None if self.multiplier is None else self.multiplier.state_dict(),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any], *, allow_change: bool = False) -> None:
        """Take over step, multiplier and learning rates, and write them into the optimizer.

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
        if self.multiplier is not None and state_dict["multiplier"] is not None:
            self.multiplier.load_state_dict(state_dict["multiplier"], allow_change=allow_change)
        self.base_lrs = base_lrs
        self._step_count = int(state_dict["_step_count"])
        step = int(state_dict["last_epoch"])
        if state_dict["active"] and step >= 0:
            self._update_lr(step)
        else:
            self.last_epoch = step
            self._last_lr = list(state_dict["_last_lr"])

    def _refuse_change(self, state: Mapping[str, Any]) -> None:
        saved = {
            "schedule": _read(state["schedules"]),
            **{name: _read(schedules) for name, schedules in state["hyper"].items()},
            "relative": state["relative"],
            "multiplier": None if state["multiplier"] is None else state["multiplier"]["kind"],
        }
        own = {
            "schedule": self.schedules,
            **self.hyper_schedules,
            "relative": self.relative,
            "multiplier": None if self.multiplier is None else type(self.multiplier).__name__,
        }
        for name in {**saved, **own}:
            if saved.get(name) != own.get(name):
                raise ValueError(
                    f"ScheduleLR.load_state_dict: the saved {name} is {_check.describe(saved.get(name))}, this one is "
                    f"{_check.describe(own.get(name))}; load into the same one, or pass allow_change=True to go on "
                    "with this one from the saved step"
                )


def _described(schedules: Sequence[Schedule | None]) -> list[dict[str, Any] | None]:
    return [None if schedule is None else schedule.to_dict() for schedule in schedules]


def _read(descriptions: Sequence[dict[str, Any] | None]) -> list[Schedule | None]:
    return [None if description is None else from_dict(description) for description in descriptions]
