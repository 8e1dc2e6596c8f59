"""The base of every thalweg optimizer: torch's Optimizer contract on top of the core's TensorTable.

Knows nothing of any single update rule; that stands in one C++ functor per optimizer.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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
from .._check import describe
from ..schedules import Schedule, from_dict

_REGISTRY: dict[str, dict[str, Any]] = _core.optimizers()
_SCHEDULE_KEY = "thalweg_schedule"


class FusedOptimizer(Optimizer):
    """An optimizer whose step is one call into the core, with the scheduled learning rate inside.

    Subclasses name their functor in `core_name` and pass torch's defaults to `__init__`.

    Args:
        params: Parameters or param groups, as for any torch optimizer; `lr` may differ per group.
        defaults: torch's options of the group; `lr` is a float, a one-element tensor or a Schedule.
    """

    core_name: str  # of the functor in the core's registry
    _step_supports_amp_scaling = False

    def __init__(self, params: ParamsT, defaults: dict[str, Any]) -> None:
        self._schedules: list[Schedule | None] = []
        self._written: list[float | None] = []
        self._plans: list[Any] = []
        self._table: Any = None
        self._schedule_step = 0
        lr = defaults["lr"]
        self._default_schedule = lr if isinstance(lr, Schedule) else None
        if self._default_schedule is not None:
            defaults = {**defaults, "lr": self._default_schedule(0)}
        super().__init__(params, defaults)

    @property
    def schedules(self) -> tuple[Schedule | None, ...]:
        """The learning rate's schedule of each param group; None where it is a plain number."""
        return tuple(self._schedules)

    @property
    def schedule_step(self) -> int:
        """Steps done so far, as the schedules count them; the next step uses `schedule(schedule_step)`."""
        return self._schedule_step

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; its `lr` may be a Schedule, which starts at the optimizer's current step."""
        group = dict(param_group)
        lr = group.get("lr", self._default_schedule)
        schedule = lr if isinstance(lr, Schedule) else None
        if schedule is not None:
            group["lr"] = schedule(self._schedule_step)
        self._check_group({**self.defaults, **group})
        super().add_param_group(group)
        self._append_schedule(schedule)
        self._table = None

    def _append_schedule(self, schedule: Schedule | None) -> None:
        self._schedules.append(schedule)
        self._plans.append(None if schedule is None else schedule.plan)
        self._written.append(None if schedule is None else self.param_groups[-1]["lr"])

    def _follow_foreign_writes(self) -> None:
        """A group whose `lr` is not what its schedule wrote last belongs to the writer from now on."""
        for index, written in enumerate(self._written):
            if written is None:
                continue
            lr = self.param_groups[index]["lr"]
            if lr is written or (isinstance(lr, float) and lr == written):
                continue
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
        kept = (self._schedules, self._plans, self._written, self._schedule_step)
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
            self._schedules, self._plans, self._written, self._schedule_step = kept

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
        self._table.step(self.param_groups, self.state, self._plans, self._schedule_step, torch.get_num_threads())
        self._schedule_step += 1
        for index, plan in enumerate(self._plans):
            if plan is not None:
                self._written[index] = self.param_groups[index]["lr"]
        return loss

    # What the core asks of Python (see cpp/bindings/tensor_table.hpp):

    def _init_states(self, params: list[Tensor], counts: list[int]) -> None:
        """Create the missing ones of the first `count` state tensors of each parameter, as torch would.

        The `step` counters are views of one tensor: a step then reads and writes them side by side.
        """
        info = _REGISTRY[self.core_name]
        counters = torch.zeros(len(params), dtype=_scalar_dtype()).unbind()
        for param, count, counter in zip(params, counts, counters, strict=True):
            state = self.state[param]
            if info["counts_steps"] and "step" not in state:
                state["step"] = counter
            for name in info["state_names"][:count]:
                if state.get(name) is None:
                    state[name] = torch.zeros_like(param, memory_format=torch.preserve_format, requires_grad=False)

    def _adopt_state(self, param: Tensor, count: int) -> None:
        """Bring a loaded or re-laid state into the form that the core steps: host tensors laid out like `param`."""
        state = self.state[param]
        info = _REGISTRY[self.core_name]
        for name in info["state_names"][:count]:
            value = state[name]
            if value.shape != param.shape:
                raise ValueError(
                    f"{type(self).__name__}: state {name!r} of {self._name_of(param)} must have shape "
                    f"{tuple(param.shape)}, got {tuple(value.shape)}; load a state_dict of the same model"
                )
            state[name] = torch.empty_like(param, requires_grad=False).copy_(value)
        if info["counts_steps"]:
            state["step"] = torch.tensor(float(state["step"]), dtype=_scalar_dtype())

    @staticmethod
    def _dense_pair(param: Tensor) -> tuple[Tensor, Tensor]:
        """Dense copies of a parameter with gaps or of a gradient with other strides, laid out alike."""
        dense = param.detach().clone(memory_format=torch.preserve_format)
        grad = param.grad
        assert grad is not None
        return dense, torch.empty_like(dense).copy_(grad.detach())

    @staticmethod
    def _copy_back(pairs: list[tuple[Tensor, Tensor, Tensor]]) -> None:
        with torch.no_grad():
            for param, dense, _ in pairs:
                param.copy_(dense)

    def _explain(self, group: int, index: int) -> None:
        """Raise the error that says why this parameter cannot be stepped."""
        param: Tensor = self.param_groups[group]["params"][index]
        grad = param.grad
        assert grad is not None
        who = f"{type(self).__name__}: {self._name_of(param)}"
        if grad.layout != torch.strided or param.layout != torch.strided:
            kind = grad.layout if grad.layout != torch.strided else param.layout
            raise RuntimeError(
                f"{who} has a gradient with layout {kind}; expected a strided one. Does not support sparse "
                "gradients: use torch.optim.SparseAdam, or sparse=False in the embedding"
            )
        if param.device.type != "cpu" or grad.device != param.device:
            raise RuntimeError(
                f"{who} is on {param.device} and its gradient on {grad.device}; this version steps parameters on the "
                "CPU only. Move the model with model.cpu(), or use torch's optimizer"
            )
        if param.dtype not in (torch.float32, torch.float64) or grad.dtype != param.dtype:
            raise RuntimeError(
                f"{who} has dtype {param.dtype} and its gradient {grad.dtype}; expected both float32 or both "
                "float64. Cast the model with model.float(), or use torch's optimizer"
            )
        raise RuntimeError(f"{who} has shape {tuple(param.shape)} and its gradient {tuple(grad.shape)}")

    def _name_of(self, param: Tensor) -> str:
        """How an error calls a parameter: its place, and its name when the groups were built from named ones."""
        for g, group in enumerate(self.param_groups):
            for i, other in enumerate(group["params"]):
                if other is param:
                    names = group.get("param_names")
                    return f"parameter {i} of group {g}" + (f" ({names[i]!r})" if names else "")
        return "a parameter"

    def _check_group(self, group: dict[str, Any]) -> None:
        """Check the hyper-parameters of a group, with torch's exception types and texts."""

    def state_dict(self) -> dict[str, Any]:
        """Return torch's state_dict; a scheduled group also carries its schedule and position."""
        state = super().state_dict()
        for group, schedule in zip(state["param_groups"], self._schedules, strict=True):
            if schedule is not None:
                group[_SCHEDULE_KEY] = {"schedule": schedule.to_dict(), "step": self._schedule_step}
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state_dict of this class or of torch's class of the same name.

        A saved schedule is taken over with its position. Where none was saved, the schedule given at construction
        is kept and its position is the largest `step` of the loaded state.
        """
        own = list(self._schedules)
        super().load_state_dict(state_dict)
        saved = [group.pop(_SCHEDULE_KEY, None) for group in self.param_groups]
        steps = [entry["step"] for entry in saved if entry is not None]
        if not steps:
            steps = [int(float(s["step"])) for s in self.state.values() if s.get("step") is not None]
        self._schedule_step = max(steps, default=self._schedule_step)
        for index, entry in enumerate(saved):
            schedule = own[index] if entry is None else from_dict(entry["schedule"])
            self._schedules[index] = schedule
            self._plans[index] = None if schedule is None else schedule.plan
            self._written[index] = None
            if schedule is not None:
                self.param_groups[index]["lr"] = self._written[index] = schedule(self._schedule_step)
        self._table = None

    def __getstate__(self) -> dict[str, Any]:
        """What pickle and deepcopy keep: everything but the table of addresses."""
        state = dict(super().__getstate__())
        state.update(
            _schedules=list(self._schedules),
            _written=list(self._written),
            _schedule_step=self._schedule_step,
            _default_schedule=self._default_schedule,
        )
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore from pickle or load_state_dict; options that came later get their defaults."""
        super().__setstate__(state)
        if "_schedules" in state:
            self._plans = [None if s is None else s.plan for s in self._schedules]
        self._table = None
        for group in self.param_groups:
            for key, value in self.defaults.items():
                group.setdefault(key, value)


_step_with_hooks = Optimizer.profile_hook_step(FusedOptimizer._step)


def _scalar_dtype() -> torch.dtype:
    """Torch's dtype of a `step` tensor."""
    return torch.float64 if torch.get_default_dtype() == torch.float64 else torch.float32
