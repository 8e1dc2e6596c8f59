"""Adadelta. The mathematics stands in cpp/include/thalweg/optimizers/adadelta.hpp."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT

from ..schedules import Schedule
from ._base import FusedOptimizer
from ._checks import StepOptions, check_implementation, check_lr, check_number

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Adadelta(FusedOptimizer):
    r"""Adadelta, as `torch.optim.Adadelta`, with the schedule inside the step.

    .. math::
        g_t &= \nabla f(\theta_{t-1}) + \lambda\,\theta_{t-1}, \qquad v_t = \rho\,v_{t-1} + (1-\rho)\,g_t^2 \\
        \Delta_t &= \frac{\sqrt{u_{t-1} + \epsilon}}{\sqrt{v_t + \epsilon}}\,g_t, \qquad
        u_t = \rho\,u_{t-1} + (1-\rho)\,\Delta_t^2 \\
        \theta_t &= \theta_{t-1} - \gamma_t\,\Delta_t

    Use:
        Where no learning rate can be tuned: the step has the parameter's own units, and lr = 1 is the method itself.

    Args:
        params: Parameters (float64, float32, bfloat16 or float16, any shape), named parameters, or param groups.
        lr: Learning rate γ: a number ≥ 0, a one-element tensor, or a Schedule; step k+1 uses `lr(k)`.
        rho: Decay rate ρ of both averages, in [0, 1], or a Schedule.
        eps: Added under both roots, ≥ 0; it sets the size of the first steps.
        weight_decay: Coupled (L2) weight decay λ ≥ 0, or a Schedule.
        foreach: Accepted for torch's signature; there is one implementation.
        capturable: CUDA graphs need no flag; with a Schedule it makes `group["lr"]` a tensor that the step keeps right.
        maximize: Ascend instead of descend.
        differentiable: Let autograd follow the steps; torch's class of this name does them then.
        options: Clipping, skipped steps, moving average, 16-bit training: see `StepOptions`.

    Raises:
        ValueError: A hyper-parameter is out of its range.
        TypeError: A hyper-parameter is not a number.

    Example:
        >>> import torch, thalweg as tw
        >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
        >>> opt = tw.optim.Adadelta([weight])
        >>> weight.grad = torch.tensor([3.0])
        >>> opt.step()
        >>> round(weight.item(), 6)
        0.996838

    References:
        Zeiler: Adadelta, arXiv 1212.5701, algorithm 1.
    """

    core_name = "adadelta"
    torch_class: type[Optimizer] | None = torch.optim.Adadelta

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor | Schedule = 1.0,
        rho: float | Schedule = 0.9,
        eps: float = 1e-6,
        weight_decay: float | Schedule = 0,
        foreach: bool | None = None,
        *,
        capturable: bool = False,
        maximize: bool = False,
        differentiable: bool = False,
        **options: Unpack[StepOptions],
    ) -> None:
        defaults = {
            "lr": lr,
            "rho": rho,
            "eps": eps,
            "weight_decay": weight_decay,
            "maximize": maximize,
            "capturable": capturable,
            "foreach": foreach,
            "differentiable": differentiable,
        }
        self._check_group(defaults)
        super().__init__(params, defaults, **options)

    def _check_group(self, group: dict[str, Any]) -> None:
        check_lr(group["lr"])
        check_number("rho value", group["rho"], most=1.0)
        check_number("epsilon value", group["eps"])
        check_number("weight_decay value", group["weight_decay"])
        check_implementation(type(self).__name__, group["foreach"], None, group["differentiable"])
