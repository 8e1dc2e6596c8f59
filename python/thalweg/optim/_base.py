"""The base of every thalweg optimizer: torch's Optimizer contract on top of the core's TensorTable.

Knows nothing of any single update rule; that stands in one C++ functor per optimizer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, overload

import torch
from torch import Tensor
from torch.autograd import _profiler_enabled  # type: ignore[attr-defined]
from torch.optim.optimizer import (
    Optimizer,
    ParamsT,
    _global_optimizer_post_hooks,
    _global_optimizer_pre_hooks,
)

from .. import _core
from ..schedules import Schedule, from_dict
from ._checks import check_max_grad_norm
from ._requests import REGISTRY
from ._scheduled import ScheduledGroups

_SCHEDULE_KEY = "thalweg_schedule"
_SKIPPED, _CAPTURED = 1, 2  # what TensorTable.step returns beside 0


class FusedOptimizer(ScheduledGroups):
    """An optimizer whose step is one call into the core, with the scheduled learning rate inside.

    Subclasses name their functor in `core_name` and pass torch's defaults to `__init__`.

    Args:
        params: Parameters or param groups, as for any torch optimizer; `lr` may differ per group.
        defaults: torch's options of the group; `lr` is a float, a one-element tensor or a Schedule.
        max_grad_norm: Largest norm of all gradients together that enters an update, or None.
        skip_nonfinite: Whether a step with an infinite or NaN gradient is skipped.
    """

    _step_supports_amp_scaling = True

    def __init__(
        self,
        params: ParamsT,
        defaults: dict[str, Any],
        max_grad_norm: float | None = None,
        skip_nonfinite: bool = False,
    ) -> None:
        self._schedules, self._written, self._plans = [], [], []
        self._table = None
        self._schedule_step = 0
        self.max_grad_norm = check_max_grad_norm(type(self).__name__, max_grad_norm)
        self.skip_nonfinite = bool(skip_nonfinite)
        self._start_afresh()
        lr = defaults["lr"]
        self._default_schedule = lr if isinstance(lr, Schedule) else None
        if self._default_schedule is not None:
            defaults = {**defaults, "lr": self._default_schedule(0)}
        super().__init__(params, defaults)

    def _start_afresh(self) -> None:
        """What neither pickle nor deepcopy carry: everything that knows an address or a device."""
        self._clocks, self._norms = {}, {}
        self._found_inf_out = None
        self._graphed = []
        self._unsure = self._captured = False
        if "_counts" not in self.__dict__:
            self._counts = {}

    @property
    def grad_norm(self) -> Tensor | None:
        """Norm of all gradients in the last step before clipping, float64 on their device; None without clipping."""
        return next(iter(self._norms.values()), None)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; its `lr` may be a Schedule, which starts at the optimizer's current step."""
        self._catch_up()
        group = dict(param_group)
        lr = group.get("lr", self._default_schedule)
        schedule = lr if isinstance(lr, Schedule) else None
        if schedule is not None:
            group["params"] = group["params"] if isinstance(group["params"], Tensor) else list(group["params"])
            group["lr"] = self._start_value(schedule, {**self.defaults, **group})
        self._check_group({**self.defaults, **group})
        super().add_param_group(group)
        self._append_schedule(schedule)
        self._table = None

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Perform one optimization step.

        Args:
            closure: Re-evaluates the model and returns the loss; called once, with gradients enabled.

        Returns:
            What the closure returned, or None.
        """
        # torch wraps every step in a profiler range and a walk over hooks, about 9 µs; here only when they are wanted.
        hooked = self._optimizer_step_pre_hooks or self._optimizer_step_post_hooks
        if hooked or _global_optimizer_pre_hooks or _global_optimizer_post_hooks or _profiler_enabled():
            return _step_with_hooks(self) if closure is None else _step_with_hooks(self, closure)
        return self._step(closure)

    step.hooked = True  # type: ignore[attr-defined]  # torch must not wrap it again

    def _step(self, closure: Callable[[], float] | None = None) -> float | None:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._follow_foreign_writes()
        if self._table is None:
            self._table = _core.TensorTable(self.core_name, self)
        controlled = self._controlled()
        result = self._table.step(
            self.param_groups, self.state, self._plans, self._schedule_step, torch.get_num_threads(), controlled
        )
        if result == _CAPTURED:
            self._captured = True
            self._keep_for_replays()
        self._unsure = self._captured or self._unsure or (controlled and bool(self._clocks))
        if result in (_SKIPPED, _CAPTURED):
            return loss
        self._schedule_step += 1
        for index, plan in enumerate(self._plans):
            if plan is not None:
                self._written[index] = self.param_groups[index]["lr"]
        return loss

    def _keep_for_replays(self) -> None:
        """A graph writes to what it was captured with, also after load_state_dict() put other tensors in its place."""
        states = [value for state in self.state.values() for value in state.values()]
        self._graphed.append([*states, *self._counts.values(), *self._clocks.values(), *self._norms.values()])

    def _check_group(self, group: dict[str, Any]) -> None:
        """Check the hyper-parameters of a group, with torch's exception types and texts."""

    def state_dict(self) -> dict[str, Any]:
        """Return torch's state_dict; a scheduled group also carries its schedule and position."""
        self._catch_up()
        state = super().state_dict()
        for group, schedule in zip(state["param_groups"], self._schedules, strict=True):
            if isinstance(group["lr"], Tensor) and schedule is not None:
                group["lr"] = schedule(self._schedule_step)
            if schedule is not None:
                group[_SCHEDULE_KEY] = {"schedule": schedule.to_dict(), "step": self._schedule_step}
        self._as_torch_keeps_them(state)
        return state

    def _as_torch_keeps_them(self, state: dict[str, Any]) -> None:
        """On a device: `step` on the host unless fused or capturable, no state before the first step that was done."""
        devices = {p.device for p in self.state if p.device in self._clocks}
        if not devices:
            return
        groups = {i: group for group in state["param_groups"] for i in group["params"]}
        params = [p for group in self.param_groups for p in group["params"]]
        entries = {
            i: entry
            for i, entry in state["state"].items()
            if params[i].device in devices and not (groups[i].get("fused") or groups[i].get("capturable"))
        }
        counted = [i for i in entries if isinstance(entries[i].get("step"), Tensor)]
        if counted:  # one copy from each device instead of one per parameter
            for device in devices:
                there = [i for i in counted if params[i].device == device]
                if there:
                    values = torch.stack([entries[i]["step"].reshape(()) for i in there]).cpu()
                    for i, value in zip(there, values.unbind(), strict=True):
                        state["state"][i] = {**entries[i], "step": value.clone()}
        fresh = [i for i in state["state"] if params[i] in self._counts]
        for i in fresh:
            if float(self._counts[params[i]]) == 0:
                state["state"][i] = {**state["state"][i], **dict.fromkeys(REGISTRY[self.core_name]["state_names"])}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state_dict of this class or of torch's class of the same name.

        A saved schedule is taken over with its position. Where none was saved, the schedule given at construction
        is kept and its position is the largest `step` of the loaded state.
        """
        own = list(self._schedules)
        self._counts = {}
        super().load_state_dict(state_dict)
        saved = [group.pop(_SCHEDULE_KEY, None) for group in self.param_groups]
        steps = [entry["step"] for entry in saved if entry is not None]
        if not steps:
            steps = [int(float(s["step"])) for s in self.state.values() if s.get("step") is not None]
        self._unsure = self._captured
        self._set_schedule_step(max(steps, default=self._schedule_step))
        for index, entry in enumerate(saved):
            schedule = own[index] if entry is None else from_dict(entry["schedule"])
            self._schedules[index] = schedule
            self._plans[index] = None if schedule is None else schedule.plan
            self._written[index] = None
            if schedule is not None:
                group = self.param_groups[index]
                group["lr"] = self._written[index] = self._start_value(schedule, group)
        self._table = None

    def __getstate__(self) -> dict[str, Any]:
        """What pickle and deepcopy keep: everything but the table of addresses and what lies on a device."""
        self._catch_up()
        state = dict(super().__getstate__())
        state.update(
            _schedules=list(self._schedules),
            _written=list(self._written),
            _schedule_step=self._schedule_step,
            _default_schedule=self._default_schedule,
            _counts=self._counts,
            max_grad_norm=self.max_grad_norm,
            skip_nonfinite=self.skip_nonfinite,
        )
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore from pickle or load_state_dict; options that came later get their defaults."""
        super().__setstate__(state)
        if "_schedules" in state:
            self._plans = [None if s is None else s.plan for s in self._schedules]
            self._start_afresh()
        self._table = None
        for group in self.param_groups:
            for key, value in self.defaults.items():
                group.setdefault(key, value)


_step_with_hooks = Optimizer.profile_hook_step(FusedOptimizer._step)
