"""The two modes of schedule-free optimizers: which of x and y the parameters are.

Knows no update rule but the relation of x, y and z.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .._check import describe
from ._base import FusedOptimizer
from ._checks import check_lr, check_number, check_steps
from ._mesh import local_of
from ._scheduled import hyper_of


class ScheduleFree(FusedOptimizer):
    """What the schedule-free optimizers share: parameters are y while training and the average x otherwise.

    A step takes the gradient at y = (1-b) z + b x, moves z, and takes z into the average x. The state holds z; x follows
    from y and z. b is the momentum or the first beta.
    """

    _interpolation: str  # the core's name of b
    _kept: dict[Tensor, tuple[list[Tensor], list[tuple[int, int, int]]]]  # what eval() replaced, and marks of by what

    @torch.no_grad()
    def eval(self) -> None:
        """Put the average x into the parameters, to evaluate or to save them; a second call does nothing.

        Example:
            >>> import torch, thalweg as tw
            >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
            >>> opt = tw.optim.SGDScheduleFree([weight], lr=0.5, momentum=0.5)
            >>> for _ in range(2):
            ...     weight.grad = torch.ones(1)
            ...     opt.step()
            >>> opt.eval()
            >>> weight.item(), opt.state[weight]["z"].item()
            (0.25, 0.0)
        """
        self._set_mode(False)

    @torch.no_grad()
    def train(self) -> None:
        """Put y back into the parameters, to go on training; a second call does nothing.

        Parameters that are as `eval()` left them get their y back bit for bit, others (1-b) z + b x.

        Example:
            >>> import torch, thalweg as tw
            >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
            >>> opt = tw.optim.AdamWScheduleFree([weight])
            >>> weight.grad = torch.ones(1)
            >>> opt.step()
            >>> before = weight.item()
            >>> opt.eval()
            >>> opt.train()
            >>> weight.item() == before
            True
        """
        self._set_mode(True)

    def _set_mode(self, training: bool) -> None:
        for group in self.param_groups:
            if group["train_mode"] == training:
                continue
            b = hyper_of(group, self._interpolation)
            for param in group["params"]:
                state = self.state.get(param, {})
                if "z" in state:
                    held = [state["master_param"], param] if "master_param" in state else [param]
                    (self._to_y if training else self._to_x)(held, state["z"], b)
            group["train_mode"] = training

    def _to_x(self, held: list[Tensor], z: Tensor, b: float) -> None:
        before = [tensor.detach().clone(memory_format=torch.preserve_format) for tensor in held]
        _interpolate(held, z, 1 - 1 / b)
        self._kept[held[-1]] = before, _marks(*held, z)

    def _to_y(self, held: list[Tensor], z: Tensor, b: float) -> None:
        before, marks = self._kept.pop(held[-1], ([], []))
        if marks == _marks(*held, z):
            for tensor, value in zip(held, before, strict=True):
                tensor.copy_(value)
        else:
            _interpolate(held, z, 1 - b)

    def _step(self, closure: Callable[[], float] | None = None) -> float | None:
        if not all(group["train_mode"] for group in self.param_groups):
            raise RuntimeError(
                f"{type(self).__name__}: step() in eval mode, in which the parameters are the average; call train() first"
            )
        return super()._step(closure)

    def _start_afresh(self) -> None:
        super()._start_afresh()
        self._kept = {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore; what eval() kept belonged to other tensors."""
        super().__setstate__(state)
        self._kept = {}

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, in the mode of the others."""
        if self.param_groups and isinstance(param_group, dict):
            param_group = {"train_mode": self.param_groups[0]["train_mode"], **param_group}
        super().add_param_group(param_group)

    def _initial(self, name: str, param: Tensor, group: dict[str, Any]) -> float | Tensor:
        if name == "z":
            return param.detach()
        return -1.0 if name == "lr_max" else 0.0

    def _check_group(self, group: dict[str, Any]) -> None:
        who, b = type(self).__name__, hyper_of(group, self._interpolation)
        name = {"beta1": "betas[0]"}.get(self._interpolation, self._interpolation)
        if isinstance(b, bool) or not isinstance(b, (int, float)):
            raise TypeError(
                f"{who}: {name} must be a number, got {describe(b)}; the average is read from y and z with it, so that it "
                "cannot change"
            )
        if not 0 < b < 1:
            raise ValueError(f"{who}: {name} must be in (0, 1), got {b}; for plain averaging take a small number")
        check_lr(group["lr"])
        check_number("weight_decay value", group["weight_decay"])
        check_steps(who, "warmup_steps", group["warmup_steps"])
        for power in ("r", "weight_lr_power"):
            check_number(f"{power} value", abs(group[power]))


def _marks(*tensors: Tensor) -> list[tuple[int, int, int]]:
    """Equal only while nobody has written to the tensors or given them other memory."""
    return [(id(tensor), tensor._version, local_of(tensor).data_ptr()) for tensor in tensors]


def _interpolate(held: list[Tensor], z: Tensor, weight: float) -> None:
    """held[0] = held[0] + weight (z - held[0]), in float32 at least; the parameter of a master follows it."""
    dtype = torch.float64 if held[0].dtype == torch.float64 else torch.float32
    value = torch.lerp(held[0].detach().to(dtype), z.to(dtype), weight)
    for tensor in held:
        tensor.copy_(value)
