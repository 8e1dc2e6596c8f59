"""The base of every thalweg optimizer: torch's Optimizer contract on top of the core's TensorTable.

Knows nothing of any single update rule; that stands in one C++ functor per optimizer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, overload

import torch
from torch import Tensor
from torch._compile import _disable_dynamo
from torch.autograd import _profiler_enabled  # type: ignore[attr-defined]
from torch.optim.optimizer import (
    Optimizer,
    ParamsT,
    _global_optimizer_post_hooks,
    _global_optimizer_pre_hooks,
)

from .. import _core
from ..schedules import Schedule, from_dict
from ._checks import DEFAULTS, StepOptions, check_options
from ._scheduled import ScheduledGroups
from ._state_dict import as_torch_keeps_them, steps_of, undo_casts
from ._torch_path import NeedsTorch, step_as_torch, watchers, why_torch_only

if TYPE_CHECKING:
    from typing_extensions import Unpack

_SCHEDULE_KEY = "thalweg_schedule"
_SKIPPED, _CAPTURED = 1, 2  # what TensorTable.step returns beside 0


class FusedOptimizer(ScheduledGroups):
    """An optimizer whose step is one call into the core, with the scheduled learning rate inside.

    Subclasses name their functor in `core_name` and pass torch's defaults to `__init__`.

    Args:
        params: Parameters or param groups, as for any torch optimizer; `lr` may differ per group.
        defaults: torch's options of the group; `lr` is a float, a one-element tensor or a Schedule.
        options: What every optimizer takes beside torch's arguments, see StepOptions.
    """

    _step_supports_amp_scaling = True

    def __init__(self, params: ParamsT, defaults: dict[str, Any], **options: Unpack[StepOptions]) -> None:
        self._schedules, self._others, self._written, self._others_written, self._plans = [], [], [], [], []
        self._matched = []
        self._table = self._torch_only = None
        self._schedule_step = 0
        self.__dict__.update(check_options(type(self).__name__, options))
        self._start_afresh()
        lr = defaults["lr"]
        self._default_schedule = lr if isinstance(lr, Schedule) else None
        if self._default_schedule is not None:
            defaults = {**defaults, "lr": self._default_schedule(0)}
        super().__init__(params, defaults)

    def _start_afresh(self) -> None:
        """What neither pickle nor deepcopy carry: everything that knows an address or a device."""
        self._clocks, self._norms, self._made, self._mesh_classes, self._shared = {}, {}, {}, {}, {}
        self._graphed, self._found_inf_out = [], None
        self._unsure = self._captured = False
        self.__dict__.setdefault("_counts", {})

    @property
    def grad_norm(self) -> Tensor | None:
        """Norm of all gradients in the last step before clipping, float64 on their device; None without clipping."""
        return next(iter(self._norms.values()), None)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; its `lr` may be a Schedule, which starts at the optimizer's current step."""
        self._catch_up()
        given: Any = param_group
        if not isinstance(given, dict):
            raise TypeError(f"{type(self).__name__}: param_group must be a dict, but got {type(given)}")
        group = dict(given)
        lr = group.get("lr", self._default_schedule)
        schedule = lr if isinstance(lr, Schedule) else None
        if schedule is not None:
            group["params"] = group["params"] if isinstance(group["params"], Tensor) else list(group["params"])
            group["lr"] = self._start_value(schedule, {**self.defaults, **group})
        self._check_group({**self.defaults, **group})
        others = self._take_schedules(group)
        super().add_param_group(group)
        self._append_schedules(schedule, others)
        self._torch_only = self._torch_only or why_torch_only(self.param_groups[-1])
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
        # Dynamo, which knows this full name alone, would guard on every lr and recompile: one graph break instead.
        return _step_untraced(self, closure) if torch.compiler.is_compiling() else self._hooked_step(closure)

    step.hooked = True  # type: ignore[attr-defined]  # torch must not wrap it again

    def _hooked_step(self, closure: Callable[[], float] | None) -> float | None:
        # torch wraps every step in a profiler range and a walk over hooks, about 9 µs; here only when they are wanted.
        hooked = self._optimizer_step_pre_hooks or self._optimizer_step_post_hooks
        wanted = hooked or _global_optimizer_pre_hooks or _global_optimizer_post_hooks or _profiler_enabled()
        if wanted and type(self).step is FusedOptimizer.step:  # torch has wrapped the step of a subclass
            return _step_with_hooks(self) if closure is None else _step_with_hooks(self, closure)
        return self._step(closure)

    def _step(self, closure: Callable[[], float] | None = None) -> float | None:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        driven = any(self._plans) or len(self._plans) != len(self.param_groups)  # else there is nothing to walk over
        idle = driven and self._follow_foreign_writes()
        if self._torch_only or watchers():
            self._step_as_torch(self._torch_only or "this step is traced", idle)
            return loss
        if self._table is None:
            self._table = self._new_table()
        controlled = self._controlled()
        plans = [[]] * len(self._plans) if idle else self._plans
        # torch's GradScaler expects the gradients unscaled, as its own optimizers leave them; ours leaves them alone.
        unscale = controlled and self._found_inf_out is None and self.__dict__.get("grad_scale") is not None
        try:
            result = self._table.step(
                self.param_groups, self.state, plans, self._schedule_step, torch.get_num_threads(), controlled, unscale
            )
        except NeedsTorch as reason:
            self._step_as_torch(str(reason), idle)
            return loss
        if result == _CAPTURED:
            self._captured = True
            self._keep_for_replays()
        self._unsure = self._captured or self._unsure or (controlled and bool(self._clocks))
        if result in (_SKIPPED, _CAPTURED):
            return loss
        if idle:
            self._set_schedule_step(self._schedule_step)  # a device's clock has moved on
        else:
            self._schedule_step += 1
            if driven:
                self._remember_written()
        return loss

    def _step_as_torch(self, why: str, idle: bool) -> None:
        self._catch_up()
        if step_as_torch(self, self.torch_class, why) and not idle:
            self._set_schedule_step(self._schedule_step + 1)
            self._write_rates()

    def _new_table(self) -> Any:
        numbers = {torch.float32: 1, torch.bfloat16: 2}  # of the core's DType
        return _core.TensorTable(
            self.core_name,
            self,
            master_weights=self.master_weights,
            stochastic_rounding=self.stochastic_rounding,
            zero_grad=self.zero_grad_in_step,
            ema_decay=-1.0 if self.ema_decay is None else self.ema_decay,
            state_dtype=-1 if self.state_dtype is None else numbers[self.state_dtype],
        )

    @contextmanager
    def swap_ema(self) -> Iterator[None]:
        """Within the context the parameters are their moving averages; afterwards what they were, bit for bit.

        Raises:
            RuntimeError: The optimizer keeps no averages, or has not stepped yet.

        Example:
            >>> import torch, thalweg as tw
            >>> p = torch.nn.Parameter(torch.zeros(1))
            >>> opt = tw.optim.SGD([p], lr=1.0, ema_decay=0.5)
            >>> for _ in range(2):
            ...     p.grad = torch.ones(1)
            ...     opt.step()
            >>> with opt.swap_ema():
            ...     print(p.item())
            -1.5
            >>> p.item()
            -2.0
        """
        pairs = [
            (p, self.state[p]["ema"]) for g in self.param_groups for p in g["params"] if "ema" in self.state.get(p, {})
        ]
        if not pairs:
            raise RuntimeError(
                f"{type(self).__name__}: no moving average to swap in; pass ema_decay and step at least once"
            )
        with torch.no_grad():
            kept = [p.detach().clone(memory_format=torch.preserve_format) for p, _ in pairs]
            for p, ema in pairs:
                p.copy_(ema)
        try:
            yield
        finally:
            with torch.no_grad():
                for (p, _), value in zip(pairs, kept, strict=True):
                    p.copy_(value)

    def _check_group(self, group: dict[str, Any]) -> None:
        """Check the hyper-parameters of a group, with torch's exception types and texts."""

    def state_dict(self) -> dict[str, Any]:
        """Return torch's state_dict; a scheduled group also carries its schedule and position."""
        self._catch_up()
        self._match_groups()
        state = super().state_dict()
        for group, schedule in zip(state["param_groups"], self._schedules, strict=True):
            if isinstance(group["lr"], Tensor) and schedule is not None:
                group["lr"] = schedule(self._schedule_step)
        for group, schedule, others in zip(state["param_groups"], self._schedules, self._others, strict=True):
            if schedule is not None or others or self.stochastic_rounding:  # whose bits the step keys
                group[_SCHEDULE_KEY] = {
                    "schedule": None if schedule is None else schedule.to_dict(),
                    "others": {name: other.to_dict() for name, other in others.items()},
                    "step": self._schedule_step,
                }
        as_torch_keeps_them(self, state)
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state_dict of this class or of torch's class of the same name.

        A saved schedule is taken over with its position. Where none was saved, the schedule given at construction
        is kept and its position is the largest `step` of the loaded state.
        """
        self._match_groups()
        own, own_others = list(self._schedules), list(self._others)
        self._counts = {}
        given = [state_dict]
        recorder = self.register_load_state_dict_pre_hook(lambda _, changed: given.append(changed))  # by other hooks
        try:
            super().load_state_dict(state_dict)
        finally:
            recorder.remove()
        undo_casts(self, given[-1])
        saved = [group.pop(_SCHEDULE_KEY, None) for group in self.param_groups]
        steps = [entry["step"] for entry in saved if entry is not None] or steps_of(self)
        self._unsure = self._captured
        self._set_schedule_step(max(steps, default=self._schedule_step))
        for index, entry in enumerate(saved):
            entry = {"schedule": None, "others": {}, **(entry or {})}
            lr = from_dict(entry["schedule"]) if entry["schedule"] is not None else own[index]
            others = {name: from_dict(other) for name, other in entry["others"].items()} or own_others[index]
            self._schedules[index], self._others[index] = lr, others
            self._written[index], self._others_written[index] = None, {}
            self._plans[index] = self._plans_of(index)
            if lr is not None:
                group = self.param_groups[index]
                group["lr"] = self._start_value(lr, group)
        self._write_rates()
        self._table = None

    def __getstate__(self) -> dict[str, Any]:
        """What pickle and deepcopy keep: everything but the table of addresses and what lies on a device."""
        self._catch_up()
        state = dict(super().__getstate__())
        state.update(
            _schedules=list(self._schedules),
            _others=[dict(others) for others in self._others],
            _written=list(self._written),
            _others_written=[dict(written) for written in self._others_written],
            _schedule_step=self._schedule_step,
            _default_schedule=self._default_schedule,
            _counts=self._counts,
            **{name: self.__dict__[name] for name in DEFAULTS},
        )
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore from pickle or load_state_dict; options that came later get their defaults."""
        super().__setstate__(state)
        if "_schedules" in state:
            self._plans = [self._plans_of(index) for index in range(len(self._schedules))]
            self._start_afresh()
        self._table = None
        if self.torch_class is None:
            self.defaults.pop("differentiable", None)  # torch's own has just put it there
        for group in self.param_groups:
            for key, value in self.defaults.items():
                group.setdefault(key, value)
        self._matched = list(self.param_groups)
        self._torch_only = next(filter(None, map(why_torch_only, self.param_groups)), None)


_step_untraced = _disable_dynamo(FusedOptimizer._hooked_step)
_step_with_hooks: Callable[..., float | None] = Optimizer.profile_hook_step(lambda o, *closure: o._step(*closure))
