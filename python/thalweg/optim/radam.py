"""RAdam. The mathematics stands in cpp/include/thalweg/optimizers/radam.hpp."""

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


class RAdam(FusedOptimizer):
    r"""RAdam: Adam with rectified variance, as `torch.optim.RAdam`, with the schedule inside the step.

    .. math::
        g_t &= \nabla f(\theta_{t-1}) + \lambda\,\theta_{t-1} \\
        m_t &= \beta_1 m_{t-1} + (1-\beta_1)\,g_t, \qquad v_t = \beta_2 v_{t-1} + (1-\beta_2)\,g_t^2 \\
        \rho_\infty &= \frac{2}{1-\beta_2} - 1, \qquad \rho_t = \rho_\infty - \frac{2 t \beta_2^t}{1-\beta_2^t} \\
        r_t &= \sqrt{\frac{(\rho_t-4)(\rho_t-2)\,\rho_\infty}{(\rho_\infty-4)(\rho_\infty-2)\,\rho_t}} \\
        \theta_t &= \theta_{t-1} - \gamma_t\,\frac{m_t}{1-\beta_1^t} \cdot
            \begin{cases} r_t \sqrt{1-\beta_2^t} \,/\, (\sqrt{v_t} + \epsilon) & \rho_t > 5 \\ 1 & \text{otherwise} \end{cases}

    Use:
        Instead of Adam with a warm-up: the first steps are plain momentum until the second moment is trustworthy.

    Args:
        params: Parameters (float64, float32, bfloat16 or float16, any shape), named parameters, or param groups.
        lr: Learning rate γ: a number ≥ 0, a one-element tensor, or a Schedule; step k+1 uses `lr(k)`.
        betas: Decay rates β₁, β₂ of the two averages, each in [0, 1) or a Schedule.
        eps: Added to the denominator, ≥ 0.
        weight_decay: Coupled (L2) weight decay λ ≥ 0, or a Schedule.
        decoupled_weight_decay: Decay as AdamW does.
        foreach: Accepted for torch's signature; there is one implementation.
        maximize: Ascend instead of descend.
        capturable: CUDA graphs need no flag; with a Schedule it makes `group["lr"]` a tensor that the step keeps right.
        differentiable: Let autograd follow the steps; torch's class of this name does them then.
        options: Clipping, skipped steps, moving average, 16-bit training: see `StepOptions`.

    Raises:
        ValueError: A hyper-parameter is out of its range.
        TypeError: A hyper-parameter is not a number.

    Example:
        >>> import torch, thalweg as tw
        >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
        >>> opt = tw.optim.RAdam([weight], lr=0.1)
        >>> weight.grad = torch.tensor([3.0])
        >>> opt.step()
        >>> round(weight.item(), 6)
        0.7

    References:
        Liu, Jiang, He, Chen, Liu, Gao, Han: On the variance of the adaptive learning rate and beyond, arXiv 1908.03265,
        algorithm 2.
    """

    core_name = "radam"
    torch_class: type[Optimizer] | None = torch.optim.RAdam

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor | Schedule = 1e-3,
        betas: tuple[float | Schedule, float | Schedule] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float | Schedule = 0,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        **options: Unpack[StepOptions],
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "decoupled_weight_decay": decoupled_weight_decay,
            "differentiable": differentiable,
        }
        self._check_group(defaults)
        super().__init__(params, defaults, **options)

    def _check_group(self, group: dict[str, Any]) -> None:
        check_lr(group["lr"])
        check_number("epsilon value", group["eps"])
        check_betas(type(self).__name__, group["betas"])
        check_number("weight_decay value", group["weight_decay"])
        check_implementation(type(self).__name__, group["foreach"], None, group["differentiable"])
