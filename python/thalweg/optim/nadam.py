"""NAdam. The mathematics stands in cpp/include/thalweg/optimizers/nadam.hpp."""

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


class NAdam(FusedOptimizer):
    r"""NAdam: Adam with Nesterov's momentum, as `torch.optim.NAdam`, with the schedule inside the step.

    .. math::
        g_t &= \nabla f(\theta_{t-1}) + \lambda\,\theta_{t-1} \\
        \mu_t &= \beta_1 \bigl(1 - \tfrac12\,0.96^{t\psi}\bigr), \qquad M_t = \textstyle\prod_{i \le t} \mu_i \\
        m_t &= \beta_1 m_{t-1} + (1-\beta_1)\,g_t, \qquad v_t = \beta_2 v_{t-1} + (1-\beta_2)\,g_t^2 \\
        \theta_t &= \theta_{t-1} - \gamma_t\,\frac{\frac{1-\mu_t}{1-M_t}\,g_t + \frac{\mu_{t+1}}{1-M_{t+1}}\,m_t}
                                                  {\sqrt{v_t / (1-\beta_2^t)} + \epsilon}

    Use:
        As Adam, where looking one step ahead pays: recurrent networks and other slowly changing gradients.

    Args:
        params: Parameters (float64, float32, bfloat16 or float16, any shape), named parameters, or param groups.
        lr: Learning rate γ: a number ≥ 0, a one-element tensor, or a Schedule; step k+1 uses `lr(k)`.
        betas: Decay rates β₁, β₂ of the two averages, each in [0, 1) or a Schedule.
        eps: Added to the denominator, ≥ 0.
        weight_decay: Coupled (L2) weight decay λ ≥ 0, or a Schedule.
        momentum_decay: How fast the momentum approaches β₁, ψ ≥ 0.
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
        >>> opt = tw.optim.NAdam([weight], lr=0.1)
        >>> weight.grad = torch.tensor([3.0])
        >>> opt.step()
        >>> round(weight.item(), 6)
        0.894355

    References:
        Dozat: Incorporating Nesterov momentum into Adam, ICLR workshop 2016.
    """

    core_name = "nadam"
    torch_class: type[Optimizer] | None = torch.optim.NAdam

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor | Schedule = 2e-3,
        betas: tuple[float | Schedule, float | Schedule] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float | Schedule = 0,
        momentum_decay: float = 4e-3,
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
            "momentum_decay": momentum_decay,
            "decoupled_weight_decay": decoupled_weight_decay,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "differentiable": differentiable,
        }
        self._check_group(defaults)
        super().__init__(params, defaults, **options)

    def _check_group(self, group: dict[str, Any]) -> None:
        check_lr(group["lr"])
        check_number("epsilon value", group["eps"])
        check_betas(type(self).__name__, group["betas"])
        check_number("weight_decay value", group["weight_decay"])
        check_number("momentum_decay value", group["momentum_decay"])
        check_implementation(type(self).__name__, group["foreach"], None, group["differentiable"])

    def _initial(self, name: str, param: Tensor, group: dict[str, Any]) -> float | Tensor:
        return 1.0 if name == "mu_product" else 0.0
