"""RMSprop. The mathematics stands in cpp/include/thalweg/optimizers/rmsprop.hpp."""

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


class RMSprop(FusedOptimizer):
    r"""RMSprop with momentum and centering, as `torch.optim.RMSprop`, with the schedule inside the step.

    .. math::
        g_t &= \nabla f(\theta_{t-1}) + \lambda\,\theta_{t-1} \\
        v_t &= \alpha v_{t-1} + (1-\alpha)\,g_t^2, \qquad a_t = \alpha a_{t-1} + (1-\alpha)\,g_t \\
        d_t &= \sqrt{v_t} + \epsilon \quad\text{or, centered,}\quad \sqrt{\max(v_t - a_t^2,\ 0)} + \epsilon \\
        b_t &= \mu\,b_{t-1} + g_t / d_t, \qquad \theta_t = \theta_{t-1} - \gamma_t\,b_t

    Where rounding makes the centered variance negative it counts as 0; torch's class makes NaN of it.

    Use:
        For recurrent networks and reinforcement learning, where it is the customary choice.

    Args:
        params: Parameters (float64, float32, bfloat16 or float16, any shape), named parameters, or param groups.
        lr: Learning rate γ: a number ≥ 0, a one-element tensor, or a Schedule; step k+1 uses `lr(k)`.
        alpha: Decay rate α ≥ 0 of the averages, or a Schedule.
        eps: Added to the denominator, ≥ 0.
        weight_decay: Coupled (L2) weight decay λ ≥ 0, or a Schedule.
        momentum: Momentum μ ≥ 0, or a Schedule; 0 keeps no buffer.
        centered: Divide by the standard deviation instead of the root mean square.
        capturable: CUDA graphs need no flag; with a Schedule it makes `group["lr"]` a tensor that the step keeps right.
        foreach: Accepted for torch's signature; there is one implementation.
        maximize: Ascend instead of descend.
        differentiable: Let autograd follow the steps; torch's class of this name does them then.
        options: Clipping, skipped steps, moving average, 16-bit training: see `StepOptions`.

    Raises:
        ValueError: A hyper-parameter is out of its range.
        TypeError: A hyper-parameter is not a number.

    Example:
        >>> import torch, thalweg as tw
        >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
        >>> opt = tw.optim.RMSprop([weight], lr=0.01)
        >>> weight.grad = torch.tensor([3.0])
        >>> opt.step()
        >>> round(weight.item(), 6)
        0.9

    References:
        Hinton: Neural networks for machine learning, lecture 6e, 2012. Graves: arXiv 1308.0850 (centered).
    """

    core_name = "rmsprop"
    torch_class: type[Optimizer] | None = torch.optim.RMSprop

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor | Schedule = 1e-2,
        alpha: float | Schedule = 0.99,
        eps: float = 1e-8,
        weight_decay: float | Schedule = 0,
        momentum: float | Schedule = 0,
        centered: bool = False,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        **options: Unpack[StepOptions],
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "alpha": alpha,
            "eps": eps,
            "centered": centered,
            "weight_decay": weight_decay,
            "capturable": capturable,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
        }
        self._check_group(defaults)
        super().__init__(params, defaults, **options)

    def _check_group(self, group: dict[str, Any]) -> None:
        check_lr(group["lr"])
        check_number("epsilon value", group["eps"])
        for name in ("momentum", "weight_decay", "alpha"):
            check_number(f"{name} value", group[name])
        check_implementation(type(self).__name__, group["foreach"], None, group["differentiable"])
