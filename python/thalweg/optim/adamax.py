"""Adamax. The mathematics stands in cpp/include/thalweg/optimizers/adamax.hpp."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT

from ..schedules import Schedule
from ._base import FusedOptimizer
from ._checks import StepOptions, check_betas, check_implementation, check_lr, check_number

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Adamax(FusedOptimizer):
    r"""Adamax: Adam with the infinity norm, as `torch.optim.Adamax`, with the schedule inside the step.

    .. math::
        g_t &= \nabla f(\theta_{t-1}) + \lambda\,\theta_{t-1} \\
        m_t &= \beta_1 m_{t-1} + (1-\beta_1)\,g_t, \qquad u_t = \max(\beta_2 u_{t-1},\ |g_t| + \epsilon) \\
        \theta_t &= \theta_{t-1} - \frac{\gamma_t}{1-\beta_1^t}\,\frac{m_t}{u_t}

    Use:
        As Adam, where single large gradients should shorten the steps for long: embeddings and sparse features.

    Args:
        params: Parameters (float64, float32, bfloat16 or float16, any shape), named parameters, or param groups.
        lr: Learning rate γ: a number ≥ 0, a one-element tensor, or a Schedule; step k+1 uses `lr(k)`.
        betas: Decay rates β₁ of the average and β₂ of the norm, each in [0, 1) or a Schedule.
        eps: Added to every |g|, ≥ 0.
        weight_decay: Coupled (L2) weight decay λ ≥ 0, or a Schedule.
        foreach: Accepted for torch's signature; there is one implementation.
        maximize: Ascend instead of descend.
        differentiable: Let autograd follow the steps; torch's class of this name does them then.
        capturable: CUDA graphs need no flag; with a Schedule it makes `group["lr"]` a tensor that the step keeps right.
        options: Clipping, skipped steps, moving average, 16-bit training: see `StepOptions`.

    Raises:
        ValueError: A hyper-parameter is out of its range.
        TypeError: A hyper-parameter is not a number.

    Example:
        >>> import torch, thalweg as tw
        >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
        >>> opt = tw.optim.Adamax([weight], lr=0.1)
        >>> weight.grad = torch.tensor([3.0])
        >>> opt.step()
        >>> round(weight.item(), 6)
        0.9

    References:
        Kingma, Ba: Adam, arXiv 1412.6980, algorithm 2.
    """

    core_name = "adamax"
    torch_class: type[Optimizer] | None = torch.optim.Adamax

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor | Schedule = 2e-3,
        betas: tuple[float | Schedule, float | Schedule] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float | Schedule = 0,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
        **options: Unpack[StepOptions],
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "capturable": capturable,
        }
        self._check_group(defaults)
        super().__init__(params, defaults, **options)

    def _check_group(self, group: dict[str, Any]) -> None:
        check_lr(group["lr"])
        check_number("epsilon value", group["eps"])
        check_betas(type(self).__name__, group["betas"])
        check_number("weight_decay value", group["weight_decay"])
        check_implementation(type(self).__name__, group["foreach"], None, group["differentiable"])
