"""Adan. The mathematics stands in cpp/include/thalweg/optimizers/adan.hpp."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.optim.optimizer import ParamsT

from ..schedules import Schedule
from ._base import FusedOptimizer
from ._checks import StepOptions, check_betas, check_lr, check_number

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Adan(FusedOptimizer):
    r"""Adan: adaptive Nesterov momentum from gradients and their differences.

    .. math::
        d_t &= g_t - g_{t-1}, \qquad d_1 = 0 \\
        m_t &= \beta_1 m_{t-1} + (1-\beta_1)\,g_t, \qquad v_t = \beta_2 v_{t-1} + (1-\beta_2)\,d_t \\
        n_t &= \beta_3 n_{t-1} + (1-\beta_3)\,(g_t + \beta_2 d_t)^2 \\
        \theta_t &= \frac{1}{1 + \gamma_t\lambda} \left( \theta_{t-1} - \gamma_t\,
            \frac{m_t / (1-\beta_1^t) + \beta_2 v_t / (1-\beta_2^t)}{\sqrt{n_t / (1-\beta_3^t)} + \epsilon} \right)

    With `no_prox` the weights are multiplied by 1 - γλ before the step instead. The βs are the rates of decay, one
    minus those of the paper.

    Use:
        For large vision and language models at large learning rates and batches; it keeps four states per weight.

    Args:
        params: Parameters (float64, float32, bfloat16 or float16, any shape), named parameters, or param groups.
        lr: Learning rate γ: a number ≥ 0, a one-element tensor, or a Schedule; step k+1 uses `lr(k)`.
        betas: Decay rates β₁, β₂, β₃ of the three averages, each in [0, 1) or a Schedule.
        eps: Added to the denominator, ≥ 0.
        weight_decay: Decoupled weight decay λ ≥ 0, or a Schedule.
        no_prox: Decay as AdamW does instead of proximally.
        maximize: Ascend instead of descend.
        options: Clipping, skipped steps, moving average, 16-bit training: see `StepOptions`.

    Raises:
        ValueError: A hyper-parameter is out of its range.
        TypeError: A hyper-parameter is not a number.

    Example:
        >>> import torch, thalweg as tw
        >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
        >>> opt = tw.optim.Adan([weight], lr=0.1)
        >>> weight.grad = torch.tensor([3.0])
        >>> opt.step()
        >>> round(weight.item(), 6)
        0.9

    References:
        Xie, Zhou, Li, Lin, Yan: Adan, arXiv 2208.06677, algorithm 1.
    """

    core_name = "adan"

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor | Schedule = 1e-3,
        betas: tuple[float | Schedule, float | Schedule, float | Schedule] = (0.98, 0.92, 0.99),
        eps: float = 1e-8,
        weight_decay: float | Schedule = 0,
        no_prox: bool = False,
        *,
        maximize: bool = False,
        **options: Unpack[StepOptions],
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "no_prox": no_prox,
            "maximize": maximize,
        }
        self._check_group(defaults)
        super().__init__(params, defaults, **options)

    def _check_group(self, group: dict[str, Any]) -> None:
        check_lr(group["lr"])
        check_number("epsilon value", group["eps"])
        check_betas(type(self).__name__, group["betas"], 3)
        check_number("weight_decay value", group["weight_decay"])
