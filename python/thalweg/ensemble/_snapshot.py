"""A snapshot: one member of a run, its place in the run and its weights. Knows no store, no optimizer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

State = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Snapshot:
    """One member: where in the run it was taken, and its weights, which are read when asked for.

    Attributes:
        step: Optimizer steps done when it was taken.
        cycle: Number of the cycle that it ends, from 0.
        lr: Learning rate of the last step before it (the largest of the parameter groups); NaN if it was not
            known.
        healthy: False when a weight or buffer is NaN or infinite.
    """

    step: int  # steps
    cycle: int
    lr: float
    healthy: bool = True
    load: Callable[[], State] = field(default=dict, repr=False, compare=False)

    @property
    def state(self) -> State:
        """The state_dict on the CPU, by torch's names; from a disk it is read and verified at each access."""
        return self.load()

    def to_dict(self) -> dict[str, Any]:
        """Return the place in the run, without weights; made of JSON's types."""
        return {"step": self.step, "cycle": self.cycle, "lr": self.lr, "healthy": self.healthy}


def copy_state(who: str, model: nn.Module) -> State:
    """Return CPU copies of all parameters and persistent buffers; tied tensors are copied once and stay tied."""
    copies: dict[tuple[Any, ...], torch.Tensor] = {}
    state: State = {}
    with torch.no_grad():
        for name, value in model.state_dict(keep_vars=True).items():
            if not isinstance(value, torch.Tensor) or not hasattr(value, "untyped_storage"):
                raise TypeError(
                    f"{who}: state_dict entry {name!r} must be a tensor, got {type(value).__name__}; keep extra state "
                    "that is no tensor outside of the model"
                )
            key = _place(value)
            if key not in copies:
                copies[key] = value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
            state[name] = copies[key]
    return state


def _place(value: torch.Tensor) -> tuple[Any, ...]:
    """Return what makes two names the same tensor. An empty tensor has no address, so it is only itself."""
    if value.numel() == 0:
        return (id(value),)
    return (value.device, value.data_ptr(), tuple(value.shape), value.stride(), value.dtype)


def is_finite(state: State) -> bool:
    """Tell whether no floating-point entry holds NaN or infinity."""
    return all(bool(torch.isfinite(value).all()) for value in state.values() if value.is_floating_point())


def check_model(who: str, model: object) -> nn.Module:
    """Return `model` if its weights can be copied here: a module, materialised, not sharded."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"{who}: model must be a torch.nn.Module, got {type(model).__name__}")
    for name, parameter in model.named_parameters():
        if nn.parameter.is_lazy(parameter):
            raise ValueError(f"{who}: parameter {name!r} is lazy; run the model once on a batch first")
        if type(parameter).__name__ == "DTensor" or type(parameter.data).__name__ == "DTensor":
            raise TypeError(
                f"{who}: parameter {name!r} is a DTensor (sharded); gather the full model on one rank and pass that"
            )
    return model
