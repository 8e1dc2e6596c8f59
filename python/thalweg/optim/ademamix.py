"""AdEMAMix. The mathematics stands in cpp/include/thalweg/optimizers/ademamix.hpp."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.optim.optimizer import ParamsT

from ..schedules import Schedule
from ._base import FusedOptimizer
from ._checks import StepOptions, check_betas, check_lr, check_number, check_steps

if TYPE_CHECKING:
    from typing_extensions import Unpack


class AdEMAMix(FusedOptimizer):
    r"""AdEMAMix: AdamW with a second, much slower average of the gradients.

    .. math::
        m^f_t &= \beta_1 m^f_{t-1} + (1-\beta_1)\,g_t, \qquad m^s_t = \beta_3(t)\,m^s_{t-1} + (1-\beta_3(t))\,g_t, \qquad
        v_t = \beta_2 v_{t-1} + (1-\beta_2)\,g_t^2 \\
        \theta_t &= (1 - \gamma_t\lambda)\,\theta_{t-1} - \gamma_t\,
            \frac{m^f_t / (1-\beta_1^t) + \alpha(t)\,m^s_t}{\sqrt{v_t / (1-\beta_2^t)} + \epsilon}

    During its warm-up α(t) grows linearly from 0, and β₃(t) from β₁ such that its half-life grows linearly.

    Use:
        For long runs where old gradients still help, as language models; give both warm-ups the length of the run.

    Args:
        params: Parameters (float64, float32, bfloat16 or float16, any shape), named parameters, or param groups.
        lr: Learning rate γ: a number ≥ 0, a one-element tensor, or a Schedule; step k+1 uses `lr(k)`.
        betas: Decay rates β₁ (fast), β₂ (squares), β₃ (slow), each in [0, 1) or a Schedule.
        alpha: Weight α ≥ 0 of the slow average.
        beta3_warmup: Steps until β₃ is reached; None for no warm-up.
        alpha_warmup: Steps until α is reached; None for no warm-up.
        eps: Added to the denominator, ≥ 0.
        weight_decay: Decoupled weight decay λ ≥ 0, or a Schedule.
        maximize: Ascend instead of descend.
        options: Clipping, skipped steps, moving average, 16-bit training: see `StepOptions`.

    Raises:
        ValueError: A hyper-parameter is out of its range.
        TypeError: A hyper-parameter is not a number.

    Example:
        >>> import torch, thalweg as tw
        >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
        >>> opt = tw.optim.AdEMAMix([weight], lr=0.1)
        >>> weight.grad = torch.tensor([3.0])
        >>> opt.step()
        >>> round(weight.item(), 6)
        0.89998

    References:
        Pagliardini, Ablin, Grangier: The AdEMAMix optimizer, arXiv 2409.03137, algorithm 1 and appendix A.1.
    """

    core_name = "ademamix"

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor | Schedule = 1e-3,
        betas: tuple[float | Schedule, float | Schedule, float | Schedule] = (0.9, 0.999, 0.9999),
        alpha: float | Schedule = 2.0,
        beta3_warmup: int | None = None,
        alpha_warmup: int | None = None,
        eps: float = 1e-8,
        weight_decay: float | Schedule = 0,
        *,
        maximize: bool = False,
        **options: Unpack[StepOptions],
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "alpha": alpha,
            "beta3_warmup": beta3_warmup,
            "alpha_warmup": alpha_warmup,
            "eps": eps,
            "weight_decay": weight_decay,
            "maximize": maximize,
        }
        self._check_group(defaults)
        super().__init__(params, defaults, **options)

    def _check_group(self, group: dict[str, Any]) -> None:
        check_lr(group["lr"])
        check_number("epsilon value", group["eps"])
        check_betas(type(self).__name__, group["betas"], 3)
        check_number("weight_decay value", group["weight_decay"])
        check_number("alpha value", group["alpha"])
        for name in ("beta3_warmup", "alpha_warmup"):
            if group[name] is not None:
                check_steps(type(self).__name__, name, group[name])
