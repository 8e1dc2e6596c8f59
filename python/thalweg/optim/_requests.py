"""What the core's TensorTable asks of Python (see cpp/bindings/tensor_table.hpp): states, counters, controls, errors.

Knows no update rule and no schedule.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer

from .. import _core
from ._mesh import MeshRequests, is_dtensor, local_of
from ._torch_path import NeedsTorch, why_torch

REGISTRY: dict[str, dict[str, Any]] = _core.optimizers()

_Control = tuple[float | None, float | None, bool, int, Tensor | None, Tensor | None, Tensor | None, Tensor | None]


class CoreRequests(MeshRequests):
    """The part of an optimizer that answers the core."""

    core_name: str  # of the functor in the core's registry
    torch_class: type[Optimizer] | None = None  # steps what the core cannot
    max_grad_norm: float | None
    max_grad_value: float | None
    skip_nonfinite: bool
    ema_decay: float | None
    zero_grad_in_step: bool
    master_weights: bool
    stochastic_rounding: bool
    state_dtype: torch.dtype | None
    seed: int
    _schedule_step: int
    _clocks: dict[torch.device, Tensor]  # per CUDA device: updates that the schedules have seen there
    _counts: dict[Tensor, Tensor]  # per parameter on a device: its steps, where torch's state has no such entry
    _norms: dict[torch.device, Tensor]  # per device: norm of the last step's gradients
    _graphed: list[list[Any]]  # what captured steps write to
    _made: dict[Tensor, list[str]]  # per parameter: the states that were created last
    _found_inf_out: Tensor | None  # where a GradScaler wants to read whether the step was skipped

    def _initial(self, name: str, param: Tensor, group: dict[str, Any]) -> float | Tensor:
        """What a state starts from, for subclasses: a number fills it, a tensor is copied."""
        return 0.0

    def _init_states(self, params: list[Tensor], masks: list[int], copies: bool = True) -> None:
        """Create the missing ones of the states that each mask names, and the 0-d ones, as torch would.

        The 0-d states of one name on a device are views of one tensor: a step then reads and writes them side by side.
        Copies of the parameters are left for the first step by those who create states earlier.
        """
        groups = self._groups_of(params)
        made: dict[Tensor, list[str]] = {param: [] for param in params}
        try:
            for name in self._scalar_names():
                missing = [p for p in params if name not in self.state[p]]
                starts = [float(self._initial(name, p, groups[p])) for p in missing]
                for param, value in zip(missing, _packed(missing, starts, self._scalar_dtype(name)), strict=True):
                    self.state[param][name] = value
                    made[param].append(name)
            for param, mask in zip(params, masks, strict=True):
                state = self.state[param]
                for name in kept_states(self.core_name, mask):
                    if state.get(name) is None:
                        start, dtype = self._initial(name, param, groups[param]), self._dtypes(param)["state"]
                        state[name] = (
                            torch.full_like(param, start, dtype=dtype, requires_grad=False)
                            if not isinstance(start, Tensor)
                            else _copy(start, dtype)
                        )
                        made[param].append(name)
                for name, dtype in self._copies(param).items():
                    if copies and name not in state:
                        state[name] = _copy(param, dtype)
                        made[param].append(name)
        except BaseException:  # out of memory, Ctrl-C: as if nothing had been asked
            self._made.update(made)
            self._forget_states(params)
            raise
        self._made.update(made)

    def _groups_of(self, params: list[Tensor]) -> dict[Tensor, dict[str, Any]]:
        wanted = set(params)
        return {p: group for group in self.param_groups for p in group["params"] if p in wanted}

    def _scalar_names(self) -> list[str]:
        """Names of the 0-d states."""
        info = REGISTRY[self.core_name]
        return (["step"] if info["counts_steps"] else []) + list(info["scalar_names"])

    def _scalar_dtype(self, name: str) -> torch.dtype:
        """Torch's type of a 0-d state; float64 for those that torch does not have, so that long sums go on growing."""
        return scalar_dtype() if name == "step" or self.torch_class is not None else torch.float64

    def _dtypes(self, param: Tensor) -> dict[str, torch.dtype]:
        """Types of a parameter's state tensors, its moving average and its master weights."""
        low = param.dtype in (torch.bfloat16, torch.float16)
        if param.dtype == torch.float64:
            state = torch.float64
        else:
            state = self.state_dtype or (torch.float32 if low and self.master_weights else param.dtype)
        return {"state": state, "ema": torch.float32 if low else param.dtype, "master_param": torch.float32}

    def _copies(self, param: Tensor) -> dict[str, torch.dtype]:
        """Names and types of the states that begin as copies of the parameter."""
        low = param.dtype in (torch.bfloat16, torch.float16)
        wanted = (("master_param", self.master_weights and low), ("ema", self.ema_decay is not None))
        return {name: self._dtypes(param)[name] for name, wants in wanted if wants}

    def _forget_states(self, params: list[Tensor]) -> None:
        """Drop what was created in a step which was then skipped, and only that: other states may have been loaded."""
        for param in params:
            for name in self._made.pop(param, ()):
                self.state[param].pop(name, None)
        self._drop_empty_states(params)

    def _drop_empty_states(self, params: list[Tensor]) -> None:
        for param in params:
            if param in self.state and not self.state[param]:
                del self.state[param]

    def _adopt_state(self, param: Tensor, mask: int) -> None:
        """Bring a loaded or re-laid state into the form that the core steps: on the device and laid out as `param`."""
        state = self.state[param]
        wanted = dict.fromkeys(kept_states(self.core_name, mask), self._dtypes(param)["state"]) | self._copies(param)
        for name, dtype in wanted.items():
            value = self._as_sharded(param, name, state[name])
            if value.shape != param.shape:
                raise ValueError(
                    f"{type(self).__name__}: state {name!r} of {self._name_of(param)} must have shape "
                    f"{tuple(param.shape)}, got {tuple(value.shape)}; load a state_dict of the same model"
                )
            state[name] = torch.empty_like(param, dtype=dtype, requires_grad=False).copy_(value)
        for name in self._scalar_names():
            value = state[name]
            value = value.reshape(()) if isinstance(value, Tensor) else torch.tensor(float(value))
            state[name] = value.to(device=param.device, dtype=self._scalar_dtype(name), copy=True)

    def _count_of(self, param: Tensor, first: bool) -> Tensor:
        count = self._counts.get(param)
        if count is None or first:
            self._counts[param] = count = torch.full(
                (), 0.0 if first else 1.0, dtype=torch.float32, device=param.device
            )
        return count

    def _clock(self, param: Tensor) -> Tensor:
        clock = self._clocks.get(param.device)
        if clock is None:
            others = list(self._clocks.values())  # a device may have skipped steps that the host counts
            clock = others[0].to(param.device) if others else torch.tensor(self._schedule_step, device=param.device)
            self._clocks[param.device] = clock
        return clock

    def _keep_for_replays(self) -> None:
        """A graph writes to what it was captured with, also after load_state_dict() put other tensors in its place."""
        states = [value for state in self.state.values() for value in state.values()]
        kept = (self._counts, self._clocks, self._norms, self._shared)
        self._graphed.append([*states, *(value for each in kept for value in each.values())])

    def _controlled(self) -> bool:
        """Tell whether `_control` has anything to say in this step."""
        own = self.__dict__
        return (
            own["max_grad_norm"] is not None
            or own["max_grad_value"] is not None
            or own["stochastic_rounding"]
            or own["skip_nonfinite"]
            or own["_found_inf_out"] is not None
            or own.get("found_inf") is not None  # this and grad_scale are set by GradScaler for the step alone
            or own.get("grad_scale") is not None
        )

    def _control(self, param: Tensor) -> _Control:
        """Everything that stands before the update, as tensors on the device of `param`."""

        def there(value: Any) -> Tensor | None:
            if value is None:
                return None
            return torch.as_tensor(value).to(device=param.device, dtype=torch.float32, non_blocking=True)

        norm = None
        if self.max_grad_norm is not None:
            norm = self._norms.get(param.device)
            if norm is None:
                norm = self._norms[param.device] = torch.zeros((), dtype=torch.float64, device=param.device)
        folded = self._found_inf_out is not None
        found_inf = there(self.__dict__.get("found_inf"))
        return (
            self.max_grad_norm,
            self.max_grad_value,
            self.skip_nonfinite or folded,
            self.seed,
            there(self.__dict__.get("grad_scale")),
            found_inf if found_inf is None or not self._mesh_classes else self._found_anywhere(found_inf),
            self._found_inf_out,
            norm,
        )

    @staticmethod
    def _dense_pair(param: Tensor) -> tuple[Tensor, Tensor]:
        """Dense copies of a parameter with gaps or of a gradient with other strides, laid out alike."""
        dense = local_of(param).detach().clone(memory_format=torch.preserve_format)
        grad = local_of(param.grad)
        return dense, torch.empty_like(dense, dtype=grad.dtype).copy_(grad.detach())

    @staticmethod
    def _copy_back(pairs: list[tuple[Tensor, Tensor, Tensor]], grads: bool) -> None:
        with torch.no_grad():
            for param, dense, grad in pairs:
                local_of(param).copy_(dense)
                if grads and param.grad is not None:
                    local_of(param.grad).copy_(grad)

    def _explain(self, group: int, index: int) -> None:
        """Raise the error that says why this parameter cannot be stepped."""
        param: Tensor = self.param_groups[group]["params"][index]
        grad: Any = param.grad
        who = f"{type(self).__name__}: {self._name_of(param)}"
        if is_dtensor(grad) and not is_dtensor(param):
            raise RuntimeError(
                f"{who} is a {type(param).__name__} and its gradient a DTensor on {grad.device_mesh}; expected both of one "
                "kind. Distribute the parameter too, or pass grad.full_tensor()"
            )
        if why := why_torch(param, self.torch_class):
            raise NeedsTorch(f"{self._name_of(param)} {why}")
        if grad is None:
            raise RuntimeError(
                f"{who} has no gradient while a CUDA graph is captured: its replays would leave it out for ever. Freeze "
                "it with requires_grad_(False), or use it in the loss"
            )
        if grad.layout != torch.strided or param.layout != torch.strided:
            kind = grad.layout if grad.layout != torch.strided else param.layout
            raise RuntimeError(
                f"{who} has a gradient with layout {kind}; expected a strided one. Does not support sparse "
                "gradients: use torch.optim.SparseAdam, or sparse=False in the embedding"
            )
        if grad.device != param.device:
            raise RuntimeError(
                f"{who} is on {param.device} and its gradient on {grad.device}; expected both on one device. Move the "
                "model before the optimizer is made, and let backward() fill the gradients"
            )
        if param.device.type not in ("cpu", "cuda") or (param.is_cuda and torch.version.hip):
            fused = self.param_groups[group].get("fused")  # torch's words, for those who asked for it
            asked = " (`fused=True` requires all the params to be floating point Tensors there)" if fused else ""
            raise RuntimeError(
                f"{who} is on {param.device}; thalweg steps parameters on the CPU and on NVIDIA GPUs{asked}. Move the "
                "model with model.cpu(), or use torch's optimizer"
            )
        known = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
        if param.dtype not in known or grad.dtype not in known:
            raise RuntimeError(
                f"{who} has dtype {param.dtype} and its gradient {grad.dtype}; expected float64, float32, bfloat16 or "
                "float16. Cast the model with model.float(), or use torch's optimizer"
            )
        if not param.is_cuda and param.shape == grad.shape:
            raise RuntimeError(f"{who} is on the CPU and cannot be part of a CUDA graph; move the model to the device")
        raise RuntimeError(f"{who} has shape {tuple(param.shape)} and its gradient {tuple(grad.shape)}")

    def _name_of(self, param: Tensor) -> str:
        """How an error calls a parameter: its place, and its name when the groups were built from named ones."""
        for g, group in enumerate(self.param_groups):
            for i, other in enumerate(group["params"]):
                if other is param:
                    names = group.get("param_names")
                    return f"parameter {i} of group {g}" + (f" ({names[i]!r})" if names else "")
        return "a parameter"


def kept_states(core_name: str, mask: int) -> list[str]:
    """Names of the state tensors that a mask of the core has set."""
    return [name for i, name in enumerate(REGISTRY[core_name]["state_names"]) if mask >> i & 1]


def _copy(value: Tensor, dtype: torch.dtype) -> Tensor:
    return value.detach().to(dtype, copy=True, memory_format=torch.preserve_format)


def _packed(params: list[Tensor], values: list[float], dtype: torch.dtype) -> list[Tensor]:
    """One 0-d tensor per parameter on its device; those of a device are views of one tensor."""
    of_device: dict[torch.device, list[float]] = {}
    for param, value in zip(params, values, strict=True):
        of_device.setdefault(param.device, []).append(value)
    views = {d: iter(torch.tensor(v, dtype=dtype, device=d).unbind()) for d, v in of_device.items()}
    return [next(views[param.device]) for param in params]


def scalar_dtype() -> torch.dtype:
    """Torch's dtype of a `step` tensor."""
    return torch.float64 if torch.get_default_dtype() == torch.float64 else torch.float32
