"""AdamW. The mathematics stands in cpp/include/thalweg/optimizers/adam.hpp."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT

from ..schedules import Schedule
from ._checks import StepOptions
from .adam import Adam

if TYPE_CHECKING:
    from typing_extensions import Unpack


class AdamW(Adam):
    r"""Adam with decoupled weight decay, as `torch.optim.AdamW`, with the schedule inside the step.

    .. math::
        m_t &= \beta_1 m_{t-1} + (1-\beta_1)\,g_t, \qquad v_t = \beta_2 v_{t-1} + (1-\beta_2)\,g_t^2 \\
        \theta_t &= (1 - \gamma_t\lambda)\,\theta_{t-1}
                  - \gamma_t\,\frac{m_t / (1-\beta_1^t)}{\sqrt{v_t / (1-\beta_2^t)} + \epsilon}

    Use:
        The default for transformers and for most networks that are not trained by SGD.

    Args:
        params: Parameters (float64, float32, bfloat16 or float16, any shape), named parameters, or param groups.
        lr: Learning rate γ: a number ≥ 0, a one-element tensor, or a Schedule; step k+1 uses `lr(k)`.
        betas: Decay rates β₁, β₂ of the two averages, each in [0, 1) or a Schedule.
        eps: Added to the denominator, ≥ 0.
        weight_decay: Decoupled weight decay λ ≥ 0, or a Schedule.
        amsgrad: Keep the largest second moment.
        maximize: Ascend instead of descend.
        foreach: Accepted for torch's signature; there is one implementation.
        capturable: CUDA graphs need no flag; with a Schedule it makes `group["lr"]` a tensor that the step keeps right.
        differentiable: Let autograd follow the steps; torch's class of this name does them then.
        fused: Accepted for torch's signature; there is one implementation.
        options: Clipping, skipped steps, moving average, 16-bit training: see `StepOptions`.

    Raises:
        ValueError: A hyper-parameter is out of its range.
        TypeError: A hyper-parameter is not a number.

    Example:
        >>> import torch, thalweg as tw
        >>> model = torch.nn.Linear(3, 1)
        >>> lr = tw.schedules.warmup(5, 0.1) >> tw.schedules.cosine(0.1, total_steps=95)
        >>> opt = tw.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01)
        >>> for _ in range(100):
        ...     opt.zero_grad()
        ...     model(torch.ones(4, 3)).square().mean().backward()
        ...     opt.step()
        >>> opt.schedule_step, opt.param_groups[0]["lr"]
        (100, 0.0)

    References:
        Loshchilov, Hutter: Decoupled weight decay regularization, arXiv 1711.05101, algorithm 2.
    """

    core_name = "adamw"
    torch_class: type[Optimizer] | None = torch.optim.AdamW

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor | Schedule = 1e-3,
        betas: tuple[float | Tensor | Schedule, float | Tensor | Schedule] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float | Schedule = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        **options: Unpack[StepOptions],
    ) -> None:
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            amsgrad,
            foreach=foreach,
            maximize=maximize,
            capturable=capturable,
            differentiable=differentiable,
            fused=fused,
            decoupled_weight_decay=True,
            **options,
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore; whatever was loaded, the decay stays decoupled."""
        for group in state.get("param_groups", ()):
            group["decoupled_weight_decay"] = True
        super().__setstate__(state)
