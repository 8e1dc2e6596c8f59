"""Adam. The mathematics stands in cpp/include/thalweg/optimizers/adam.hpp."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT

from ..schedules import Schedule
from ._base import FusedOptimizer
from ._checks import (
    StepOptions,
    check_betas,
    check_implementation,
    check_lr,
    check_number,
    check_tensors_with_foreach,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Adam(FusedOptimizer):
    r"""Adam, as `torch.optim.Adam`, with the schedule inside the step.

    .. math::
        g_t &= \nabla f(\theta_{t-1}) + \lambda\,\theta_{t-1} \\
        m_t &= \beta_1 m_{t-1} + (1-\beta_1)\,g_t, \qquad v_t = \beta_2 v_{t-1} + (1-\beta_2)\,g_t^2 \\
        \theta_t &= \theta_{t-1} - \gamma_t\,\frac{m_t / (1-\beta_1^t)}{\sqrt{v_t / (1-\beta_2^t)} + \epsilon}

    With `amsgrad` the largest :math:`v` so far stands in the denominator.

    Use:
        When a first try should work without much tuning and no weight decay is wanted; otherwise AdamW.

    Args:
        params: Parameters (float64, float32, bfloat16 or float16, any shape), named parameters, or param groups.
        lr: Learning rate γ: a number ≥ 0, a one-element tensor, or a Schedule; step k+1 uses `lr(k)`.
        betas: Decay rates β₁, β₂ of the two averages, each in [0, 1) or a Schedule.
        eps: Added to the denominator, ≥ 0.
        weight_decay: Coupled (L2) weight decay λ ≥ 0, or a Schedule.
        amsgrad: Keep the largest second moment.
        foreach: Accepted for torch's signature; there is one implementation.
        maximize: Ascend instead of descend.
        capturable: CUDA graphs need no flag; with a Schedule it makes `group["lr"]` a tensor that the step keeps right.
        differentiable: Let autograd follow the steps; torch's class of this name does them then.
        fused: Accepted for torch's signature; there is one implementation.
        decoupled_weight_decay: Decay as AdamW does.
        options: Clipping, skipped steps, moving average, 16-bit training: see `StepOptions`.

    Raises:
        ValueError: A hyper-parameter is out of its range.
        TypeError: A hyper-parameter is not a number.

    Example:
        >>> import torch, thalweg as tw
        >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
        >>> opt = tw.optim.Adam([weight], lr=0.1)
        >>> weight.grad = torch.tensor([3.0])
        >>> opt.step()
        >>> round(weight.item(), 6)
        0.9

    References:
        Kingma, Ba: Adam, arXiv 1412.6980, algorithm 1. Reddi, Kale, Kumar: arXiv 1904.09237, algorithm 2.
    """

    core_name = "adam"
    torch_class: type[Optimizer] | None = torch.optim.Adam

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor | Schedule = 1e-3,
        betas: tuple[float | Tensor | Schedule, float | Tensor | Schedule] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float | Schedule = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
        **options: Unpack[StepOptions],
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "differentiable": differentiable,
            "fused": fused,
            "decoupled_weight_decay": decoupled_weight_decay,
        }
        self._check_group(defaults)
        super().__init__(params, defaults, **options)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore; the decay is what the groups say, also where they come from another class."""
        super().__setstate__(state)
        for group in self.param_groups:
            self._choose_core(group)

    def _choose_core(self, group: dict[str, Any]) -> None:
        """Take the functor whose decay is that of the group; one optimizer has one functor."""
        name = "adamw" if group["decoupled_weight_decay"] else "adam"
        others = [g for g in self.param_groups if g["decoupled_weight_decay"] != group["decoupled_weight_decay"]]
        if others:
            raise ValueError(
                f"{type(self).__name__}: decoupled_weight_decay must be the same in all groups, got True and False; "
                "give each kind an optimizer"
            )
        self.core_name = name

    def _check_group(self, group: dict[str, Any]) -> None:
        check_tensors_with_foreach(group, {"lr": group["lr"]})
        check_lr(group["lr"])
        check_number("epsilon value", group["eps"])
        betas = group["betas"]
        check_betas(type(self).__name__, betas)
        if isinstance(betas[0], Tensor) != isinstance(betas[1], Tensor):
            raise ValueError("betas must be either both floats or both Tensors")
        check_tensors_with_foreach(group, {"betas[0]": betas[0], "betas[1]": betas[1]})
        check_number("weight_decay value", group["weight_decay"])
        if "param_groups" in self.__dict__:
            self._choose_core(group)
        check_implementation(type(self).__name__, group["foreach"], group["fused"], group["differentiable"])
