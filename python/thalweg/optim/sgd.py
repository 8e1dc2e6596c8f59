"""SGD with momentum, Nesterov's momentum and weight decay. The mathematics stands in cpp/include/.../sgd.hpp."""

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


class SGD(FusedOptimizer):
    r"""Stochastic gradient descent, as `torch.optim.SGD`, with the schedule inside the step.

    .. math::
        g_t &= \nabla f(\theta_{t-1}) + \lambda\,\theta_{t-1} \\
        b_t &= \mu\,b_{t-1} + (1-\tau)\,g_t, \qquad b_1 = g_1 \\
        \theta_t &= \theta_{t-1} - \gamma_t\,(g_t + \mu\,b_t)\ \text{(Nesterov)}
                  \quad\text{or}\quad \theta_{t-1} - \gamma_t\,b_t

    Use:
        For convolutional networks with a tuned learning rate and schedule, where it often generalises best, and
        wherever memory is short: momentum is its only state.

    Args:
        params: Parameters (float64, float32, bfloat16 or float16, any shape), named parameters, or param groups.
        lr: Learning rate γ: a number ≥ 0, a one-element tensor, or a Schedule; step k+1 uses `lr(k)`.
        momentum: Momentum μ ≥ 0, or a Schedule; 0 keeps no state.
        dampening: Dampening τ of the gradient in the momentum buffer.
        weight_decay: Coupled (L2) weight decay λ ≥ 0, or a Schedule.
        nesterov: Nesterov's momentum; needs momentum > 0 and dampening = 0.
        maximize: Ascend instead of descend.
        foreach: Accepted for torch's signature; there is one implementation.
        differentiable: Let autograd follow the steps; torch's class of this name does them then.
        fused: Accepted for torch's signature; there is one implementation.
        options: Clipping, skipped steps, moving average, 16-bit training: see `StepOptions`.

    Raises:
        ValueError: A hyper-parameter is out of its range.
        TypeError: A hyper-parameter is not a number.

    Example:
        >>> import torch, thalweg as tw
        >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
        >>> opt = tw.optim.SGD([weight], lr=tw.schedules.cosine(0.5, total_steps=2))
        >>> for _ in range(2):
        ...     weight.grad = torch.ones(1)
        ...     opt.step()
        >>> weight.item(), opt.param_groups[0]["lr"]
        (0.25, 0.0)

    References:
        Sutskever, Martens, Dahl, Hinton: On the importance of initialization and momentum in deep learning, ICML 2013.
    """

    core_name = "sgd"
    torch_class: type[Optimizer] | None = torch.optim.SGD

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor | Schedule = 1e-3,
        momentum: float | Schedule = 0,
        dampening: float = 0,
        weight_decay: float | Tensor | Schedule = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
        **options: Unpack[StepOptions],
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
            "foreach": foreach,
            "differentiable": differentiable,
            "fused": fused,
        }
        self._check_group(defaults)
        super().__init__(params, defaults, **options)

    def _check_group(self, group: dict[str, Any]) -> None:
        check_lr(group["lr"])
        check_number("momentum value", group["momentum"])
        check_number("weight_decay value", group["weight_decay"])
        used = isinstance(group["momentum"], Schedule) or group["momentum"] > 0
        if group["nesterov"] and (not used or group["dampening"] != 0):
            raise ValueError("Nesterov momentum requires a momentum and zero dampening")
        check_number("dampening value", abs(group["dampening"]))
        check_implementation("SGD", group["foreach"], group["fused"], group["differentiable"])
