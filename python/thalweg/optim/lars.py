"""LARS. The mathematics stands in cpp/include/thalweg/optimizers/lars.hpp."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.optim.optimizer import ParamsT

from ..schedules import Schedule
from ._base import FusedOptimizer
from ._checks import StepOptions, check_lr, check_number

if TYPE_CHECKING:
    from typing_extensions import Unpack


class LARS(FusedOptimizer):
    r"""LARS: SGD whose gradient is scaled, tensor by tensor, to a share of the norm of the weights.

    .. math::
        r_t &= \eta\,\frac{\lVert\theta_{t-1}\rVert_2}{\lVert g_t\rVert_2 + \lambda\,\lVert\theta_{t-1}\rVert_2 + \epsilon} \\
        b_t &= \mu\,b_{t-1} + (1-\tau)\,r_t\,(g_t + \lambda\,\theta_{t-1}), \qquad
        \theta_t = \theta_{t-1} - \gamma_t\,b_t

    As in torch's SGD the learning rate stands outside the buffer, whose first value is the scaled gradient itself. The
    ratio r is 1 where either norm is 0, and where λ = 0 unless `always_adapt` is given: give biases and norms a group
    without weight decay, as is usual.

    Use:
        For very large batches of images with momentum SGD, as in ImageNet training with thousands of them per step.

    Args:
        params: Parameters (float64, float32, bfloat16 or float16, any shape), named parameters, or param groups.
        lr: Learning rate γ: a number ≥ 0, a one-element tensor, or a Schedule; step k+1 uses `lr(k)`.
        momentum: Momentum μ ≥ 0, or a Schedule; 0 keeps no state.
        dampening: Dampening τ of the gradient in the momentum buffer.
        weight_decay: Weight decay λ ≥ 0, part of the scaled gradient, or a Schedule.
        nesterov: Nesterov's momentum; needs momentum > 0 and dampening = 0.
        trust_coeff: Trust coefficient η ≥ 0.
        eps: Added to the denominator, ≥ 0.
        trust_clip: Let r·γ be at most γ (LARC): r becomes min(r / γ, 1).
        always_adapt: Scale where weight_decay is 0 too.
        maximize: Ascend instead of descend.
        options: Clipping, skipped steps, moving average, 16-bit training: see `StepOptions`.

    Raises:
        ValueError: A hyper-parameter is out of its range.
        TypeError: A hyper-parameter is not a number.

    Example:
        >>> import torch, thalweg as tw
        >>> weight = torch.nn.Parameter(torch.tensor([2.0]))
        >>> opt = tw.optim.LARS([weight], lr=0.5, trust_coeff=0.1, always_adapt=True)
        >>> weight.grad = torch.tensor([3.0])
        >>> opt.step()
        >>> round(weight.item(), 6)
        1.9

    References:
        You, Gitman, Ginsburg: Large batch training of convolutional networks, arXiv 1708.03888, algorithm 1.
    """

    core_name = "lars"

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor | Schedule = 1.0,
        momentum: float | Schedule = 0,
        dampening: float = 0,
        weight_decay: float | Schedule = 0,
        nesterov: bool = False,
        trust_coeff: float = 0.001,
        eps: float = 1e-8,
        trust_clip: bool = False,
        always_adapt: bool = False,
        *,
        maximize: bool = False,
        **options: Unpack[StepOptions],
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "trust_coeff": trust_coeff,
            "eps": eps,
            "trust_clip": trust_clip,
            "always_adapt": always_adapt,
            "maximize": maximize,
        }
        self._check_group(defaults)
        super().__init__(params, defaults, **options)

    def _check_group(self, group: dict[str, Any]) -> None:
        check_lr(group["lr"])
        check_number("momentum value", group["momentum"])
        check_number("weight_decay value", group["weight_decay"])
        check_number("trust_coeff value", group["trust_coeff"])
        check_number("epsilon value", group["eps"])
        used = isinstance(group["momentum"], Schedule) or group["momentum"] > 0
        if group["nesterov"] and (not used or group["dampening"] != 0):
            raise ValueError("Nesterov momentum requires a momentum and zero dampening")
        check_number("dampening value", abs(group["dampening"]))
