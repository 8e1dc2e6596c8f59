"""Schedules of param groups, of lr and other hyper-parameters: who has one, where they stand, what the host sees of it.

Knows no update rule. The truth on a CUDA device is a clock there, which the kernels advance; the host mirrors it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from operator import is_
from typing import Any

import torch
from torch import Tensor

from .._check import describe
from ..schedules import Schedule
from ._requests import REGISTRY, CoreRequests


class ScheduledGroups(CoreRequests):
    """The part of an optimizer that keeps the schedules of its groups."""

    _schedules: list[Schedule | None]  # of lr
    _others: list[dict[str, Schedule]]  # of the core's hyper-parameters beside it, by the core's names
    _plans: list[list[tuple[int, Any]]]  # the core's form of each; index -1 is lr
    _written: list[float | Tensor | None]  # what the schedule put into group["lr"] last
    _others_written: list[dict[str, float]]
    _matched: list[dict[str, Any]]  # the groups that these lists belong to, in their order
    _default_schedule: Schedule | None
    _unsure: bool  # the device may have done other steps than the host counted
    _captured: bool  # a CUDA graph holds a step
    _table: Any
    _torch_only: str | None  # why torch does every step; None where the core does

    @property
    def schedules(self) -> tuple[Schedule | None, ...]:
        """The learning rate's schedule of each param group; None where it is a plain number."""
        return tuple(self._schedules)

    @property
    def hyper_schedules(self) -> tuple[dict[str, Schedule], ...]:
        """Schedules of each group beside that of lr, by name: "momentum", "beta1", "beta2", "weight_decay"."""
        return tuple(dict(others) for others in self._others)

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
        """Every scheduled value for the next step; a tensor is filled, never replaced."""
        for index, others in enumerate(self._others):
            for name, other in others.items():
                value = self._others_written[index][name] = other(self._schedule_step)
                set_hyper(self.param_groups[index], name, value)
        for index, schedule in enumerate(self._schedules):
            if schedule is None:
                continue
            lr = self.param_groups[index]["lr"]
            if isinstance(lr, Tensor):
                lr.fill_(schedule(self._schedule_step))
            else:
                self.param_groups[index]["lr"] = lr = schedule(self._schedule_step)
            self._written[index] = lr

    def _append_schedules(self, lr: Schedule | None, others: dict[str, Schedule]) -> None:
        """Of the group that was added last."""
        group = self.param_groups[-1]
        self._schedules.append(lr)
        self._others.append(others)
        self._written.append(None if lr is None else group["lr"])
        self._others_written.append({name: hyper_of(group, name) for name in others})
        self._plans.append(self._plans_of(len(self._schedules) - 1))
        self._matched.append(group)

    def _match_groups(self) -> None:
        """After `param_groups` was edited by hand each group has the schedules that it had before.

        Where all of its dicts were replaced, as a functional swap does, the places count.
        """
        groups = self.param_groups
        if len(self._matched) == len(groups) and all(map(is_, self._matched, groups)):
            return
        places = {id(group): place for place, group in enumerate(self._matched)}
        old = [places.get(id(group)) for group in groups]
        if len(old) == len(self._matched) and all(place is None for place in old):
            self._matched = list(groups)
            return
        self._schedules = [None if place is None else self._schedules[place] for place in old]
        self._written = [None if place is None else self._written[place] for place in old]
        self._others = [{} if place is None else self._others[place] for place in old]
        self._others_written = [{} if place is None else self._others_written[place] for place in old]
        self._plans = [self._plans_of(index) for index in range(len(old))]
        self._matched = list(groups)

    def _plans_of(self, index: int) -> list[tuple[int, Any]]:
        lr = self._schedules[index]
        names = REGISTRY[self.core_name]["hyper_names"]
        others = [(names.index(name), schedule.plan) for name, schedule in self._others[index].items()]
        return others if lr is None else [(-1, lr.plan), *others]

    def _take_schedules(self, group: dict[str, Any]) -> dict[str, Schedule]:
        """Replace the schedules in a new group, those of lr aside, by their values; return them by the core's names."""
        found: dict[str, Schedule] = {}
        for name in REGISTRY[self.core_name]["hyper_names"]:
            key, element = place_of(name)
            value = group.get(key, self.defaults.get(key))
            if element is not None:
                value = value[element] if isinstance(value, (tuple, list)) and len(value) > element else None
            if isinstance(value, Schedule):
                found[name] = value
        for name, schedule in found.items():
            group.setdefault(place_of(name)[0], self.defaults.get(place_of(name)[0]))
            set_hyper(group, name, schedule(self._schedule_step))
        return found

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

    def _remember_written(self) -> None:
        """What the core has just put into the groups is the schedules' own."""
        for index, plans in enumerate(self._plans):
            if plans:
                group = self.param_groups[index]
                if self._schedules[index] is not None:
                    self._written[index] = group["lr"]
                for name in self._others[index]:
                    self._others_written[index][name] = hyper_of(group, name)

    def _follow_foreign_writes(self) -> bool:
        """What is not what its schedule wrote last belongs to the writer from now on.

        Returns:
            Whether this step only makes states: torch.distributed.checkpoint sets lr to 0 for one step before there are
            any, and then back. The schedules stay where they are.
        """
        idle = False
        self._match_groups()
        for index, written in enumerate(self._written):
            if written is not None:
                lr = self.param_groups[index]["lr"]
                if lr is written or (isinstance(lr, float) and lr == written):
                    continue
                if not self.state and float(lr) == 0:
                    idle = True
                else:
                    self._give_up(index, "lr", lr)
        for index, others in enumerate(self._others_written):
            for name, value in list(others.items()):
                now = hyper_of(self.param_groups[index], name)
                if now is not value and now != value:
                    self._give_up(index, name, now)
        return idle

    def _give_up(self, index: int, name: str, value: Any) -> None:
        who = f"{type(self).__name__}: {name} of group {index} was set from outside to {describe(value)}"
        if self._table is not None and self._table.capturing():
            raise RuntimeError(
                f"{who} while a CUDA graph is captured; its replays would follow neither. Set it before the capture"
            )
        if name == "lr":
            self._schedules[index] = self._written[index] = None
        else:
            del self._others[index][name], self._others_written[index][name]
        self._plans[index] = self._plans_of(index)
        warnings.warn(
            f"{who}; its schedule is dropped and this value is used. Pass {name} as a number if another scheduler drives "
            "it.",
            stacklevel=6,
        )

    @contextmanager
    def _lr_override(self) -> Iterator[Callable[[Sequence[float]], None]]:
        """Lets a range test drive the learning rates: schedules are set aside and come back afterwards."""
        self._catch_up()
        kept = (self._schedules, self._plans, self._written)
        step = self._schedule_step
        others = [{name: hyper_of(g, name) for name in o} for g, o in zip(self.param_groups, self._others, strict=True)]
        lrs = [group["lr"] for group in self.param_groups]
        empty: list[Any] = [None] * len(self.param_groups)
        self._schedules, self._written = empty, list(empty)
        self._plans = [self._plans_of(index) for index in range(len(self.param_groups))]

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
            for group, values_of, written in zip(self.param_groups, others, self._others_written, strict=True):
                for name, value in values_of.items():
                    set_hyper(group, name, value)
                    written[name] = value
            self._set_schedule_step(step)


def place_of(name: str) -> tuple[str, int | None]:
    """Where torch keeps a hyper-parameter of the core: "beta1" is element 0 of "betas", and so every number from 1 on."""
    return (name[:-1] + "s", int(name[-1]) - 1) if name[-1] in "123456789" else (name, None)


def hyper_of(group: dict[str, Any], name: str) -> Any:
    """A hyper-parameter of a group by the core's name."""
    key, element = place_of(name)
    return group[key] if element is None else group[key][element]


def set_hyper(group: dict[str, Any], name: str, value: float) -> None:
    """Write a hyper-parameter of a group by the core's name; pairs are replaced, as others may hold the old one."""
    key, element = place_of(name)
    if element is None:
        group[key] = value
    else:
        group[key] = (*group[key][:element], value, *group[key][element + 1 :])
