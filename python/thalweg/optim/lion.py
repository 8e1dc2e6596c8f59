"""Lion. The mathematics stands in cpp/include/thalweg/optimizers/lion.hpp."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.optim.optimizer import ParamsT

from ..schedules import Schedule
from ._base import FusedOptimizer
from ._checks import StepOptions, check_betas, check_lr, check_number

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Lion(FusedOptimizer):
    r"""Lion: steps by the sign of the momentum, with decoupled weight decay.

    .. math::
        u_t &= \mathrm{sign}\bigl(\beta_1 m_{t-1} + (1-\beta_1)\,g_t\bigr) \\
        \theta_t &= (1 - \gamma_t\lambda)\,\theta_{t-1} - \gamma_t\,u_t, \qquad m_t = \beta_2 m_{t-1} + (1-\beta_2)\,g_t

    Use:
        In place of AdamW with one state instead of two; take a learning rate 3 to 10 times smaller and a weight decay
        as much larger.

    Args:
        params: Parameters (float64, float32, bfloat16 or float16, any shape), named parameters, or param groups.
        lr: Learning rate γ: a number ≥ 0, a one-element tensor, or a Schedule; step k+1 uses `lr(k)`.
        betas: Weight β₁ of the momentum in the step and its decay rate β₂, each in [0, 1) or a Schedule.
        weight_decay: Decoupled weight decay λ ≥ 0, or a Schedule.
        maximize: Ascend instead of descend.
        options: Clipping, skipped steps, moving average, 16-bit training: see `StepOptions`.

    Raises:
        ValueError: A hyper-parameter is out of its range.
        TypeError: A hyper-parameter is not a number.

    Example:
        >>> import torch, thalweg as tw
        >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
        >>> opt = tw.optim.Lion([weight], lr=0.1)
        >>> weight.grad = torch.tensor([3.0])
        >>> opt.step()
        >>> round(weight.item(), 6)
        0.9

    References:
        Chen, Liang, Huang, Real, Wang, Liu, Pham, Dong, Luong, Hsieh, Lu, Le: Symbolic discovery of optimization
        algorithms, arXiv 2302.06675, program 1.
    """

    core_name = "lion"

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor | Schedule = 1e-4,
        betas: tuple[float | Schedule, float | Schedule] = (0.9, 0.99),
        weight_decay: float | Schedule = 0,
        *,
        maximize: bool = False,
        **options: Unpack[StepOptions],
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "weight_decay": weight_decay,
            "maximize": maximize,
        }
        self._check_group(defaults)
        super().__init__(params, defaults, **options)

    def _check_group(self, group: dict[str, Any]) -> None:
        check_lr(group["lr"])
        check_betas(type(self).__name__, group["betas"])
        check_number("weight_decay value", group["weight_decay"])
