"""LAMB. The mathematics stands in cpp/include/thalweg/optimizers/lamb.hpp."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.optim.optimizer import ParamsT

from ..schedules import Schedule
from ._base import FusedOptimizer
from ._checks import StepOptions, check_betas, check_lr, check_number

if TYPE_CHECKING:
    from typing_extensions import Unpack


class LAMB(FusedOptimizer):
    r"""LAMB: Adam whose step is scaled, tensor by tensor, to the norm of the weights.

    .. math::
        m_t &= \beta_1 m_{t-1} + (1-\beta_1)\,g_t, \qquad v_t = \beta_2 v_{t-1} + (1-\beta_2)\,g_t^2 \\
        u_t &= \frac{m_t / (1-\beta_1^t)}{\sqrt{v_t / (1-\beta_2^t)} + \epsilon} + \lambda\,\theta_{t-1}, \qquad
        r_t = \frac{\lVert\theta_{t-1}\rVert_2}{\lVert u_t\rVert_2} \\
        \theta_t &= \theta_{t-1} - \gamma_t\,r_t\,u_t

    The ratio r is 1 where either norm is 0, and where λ = 0 unless `always_adapt` is given. Clip the norm of all
    gradients as the authors do with `max_grad_norm=1.0`.

    Use:
        For very large batches, as in BERT pre-training with tens of thousands of sequences per step.

    Args:
        params: Parameters (float64, float32, bfloat16 or float16, any shape), named parameters, or param groups.
        lr: Learning rate γ: a number ≥ 0, a one-element tensor, or a Schedule; step k+1 uses `lr(k)`.
        betas: Decay rates β₁, β₂ of the two averages, each in [0, 1) or a Schedule.
        eps: Added to the denominator, ≥ 0.
        weight_decay: Weight decay λ ≥ 0, part of the scaled step, or a Schedule.
        bias_correction: Divide the averages by 1 - βᵗ.
        trust_clip: Let the ratio r be at most 1 (LAMBC).
        always_adapt: Scale where weight_decay is 0 too.
        maximize: Ascend instead of descend.
        options: Clipping, skipped steps, moving average, 16-bit training: see `StepOptions`.

    Raises:
        ValueError: A hyper-parameter is out of its range.
        TypeError: A hyper-parameter is not a number.

    Example:
        >>> import torch, thalweg as tw
        >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
        >>> opt = tw.optim.LAMB([weight], lr=0.1)
        >>> weight.grad = torch.tensor([3.0])
        >>> opt.step()
        >>> round(weight.item(), 6)
        0.9

    References:
        You, Li, Reddi, Hseu, Kumar, Bhojanapalli, Song, Demmel, Keutzer, Hsieh: Large batch optimization for deep
        learning, arXiv 1904.00962, algorithm 2.
    """

    core_name = "lamb"

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor | Schedule = 1e-3,
        betas: tuple[float | Schedule, float | Schedule] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float | Schedule = 0.01,
        bias_correction: bool = True,
        trust_clip: bool = False,
        always_adapt: bool = False,
        *,
        maximize: bool = False,
        **options: Unpack[StepOptions],
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "bias_correction": bias_correction,
            "trust_clip": trust_clip,
            "always_adapt": always_adapt,
            "maximize": maximize,
        }
        self._check_group(defaults)
        super().__init__(params, defaults, **options)

    def _check_group(self, group: dict[str, Any]) -> None:
        check_lr(group["lr"])
        check_number("epsilon value", group["eps"])
        check_betas(type(self).__name__, group["betas"])
        check_number("weight_decay value", group["weight_decay"])
