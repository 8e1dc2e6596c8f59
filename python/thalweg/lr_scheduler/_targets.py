"""Where a scheduled value goes in a param group: a number, a tensor, one of a pair of betas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.optim.optimizer import Optimizer

from .. import _check
from ..schedules import Schedule

Given = Schedule | Sequence[Schedule | None] | None


def per_group(name: str, schedule: Given, groups: int) -> list[Schedule | None]:
    """One schedule for each group; None leaves a group's value alone."""
    if schedule is None or isinstance(schedule, Schedule):
        items: Sequence[Schedule | None] = [schedule] * groups
    elif isinstance(schedule, (list, tuple)):
        items = schedule
    else:
        raise TypeError(
            f"ScheduleLR: {name} must be a Schedule or a list with one per param group, got "
            f"{_check.describe(schedule)}; of a bundle use bundle.bind(optimizer)"
        )
    for index, item in enumerate(items):
        if item is not None:
            _check.instance("ScheduleLR", f"{name}[{index}]", item, Schedule, "a Schedule")
            item.plan  # noqa: B018  # units that are not resolved are refused here
    if len(items) != groups:
        raise ValueError(f"ScheduleLR: expected {groups} schedules, one per param group, got {len(items)}")
    return list(items)


def hyper_schedules(given: Mapping[str, Any], optimizer: Optimizer) -> dict[str, list[Schedule | None]]:
    """Schedules of other hyper-parameters by the name of what they write, checked against every group."""
    named: dict[str, Given] = {}
    for name, schedule in given.items():
        if name == "betas":
            if not isinstance(schedule, (list, tuple)) or len(schedule) != 2:
                raise TypeError(f"ScheduleLR: betas must be two schedules or None, got {_check.describe(schedule)}")
            named |= {f"beta{i + 1}": item for i, item in enumerate(schedule) if item is not None}
        elif schedule is not None:
            named[name] = schedule
    groups = optimizer.param_groups
    out = {name: per_group(name, schedule, len(groups)) for name, schedule in named.items()}
    for name, schedules in out.items():
        for group, item in zip(groups, schedules, strict=True):
            if item is not None:
                place(group, name, type(optimizer).__name__)
    return out


def place(group: Mapping[str, Any], name: str, optimizer: str = "the optimizer") -> tuple[str, int | None]:
    """(key, index) of a hyper-parameter: momentum is betas[0] where there is no momentum."""
    if name in ("beta1", "beta2") and "betas" in group:
        return "betas", int(name[-1]) - 1
    if name == "momentum" and name not in group:
        if "betas" not in group:
            raise ValueError(
                f"ScheduleLR: {optimizer} has no momentum or betas to schedule; bind the learning rate alone, e.g. "
                "bundle.lr.bind(optimizer)"
            )
        return "betas", 0
    known = [k for k, v in group.items() if isinstance(v, (int, float, Tensor)) and type(v) is not bool and k != "lr"]
    if name in known:
        return name, None
    raise ValueError(f"ScheduleLR: {optimizer} has no number called {name} in its groups; it has {', '.join(known)}")


def write_at(group: dict[str, Any], name: str, value: float) -> None:
    """Write a hyper-parameter where it is."""
    key, index = place(group, name)
    if index is None:
        write(group, key, value)
    elif isinstance(group[key][index], Tensor):
        group[key][index].fill_(value)
    else:
        group[key] = (*group[key][:index], value, *group[key][index + 1 :])


def write(group: dict[str, Any], key: str, value: float) -> None:
    """Fill a tensor in place, replace a number."""
    if isinstance(group[key], Tensor):
        group[key].fill_(value)
    else:
        group[key] = value


def copy(value: float | Tensor) -> float | Tensor:
    """The value of now: a tensor goes on changing in place."""
    return value.clone() if isinstance(value, Tensor) else value
