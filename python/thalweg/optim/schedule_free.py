"""Schedule-free SGD and AdamW. The mathematics stands in cpp/include/thalweg/optimizers/schedule_free.hpp."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.optim.optimizer import ParamsT

from ..schedules import Schedule
from ._checks import StepOptions, check_betas, check_number
from ._schedule_free import ScheduleFree

if TYPE_CHECKING:
    from typing_extensions import Unpack


class SGDScheduleFree(ScheduleFree):
    r"""Schedule-free SGD: momentum by averaging, which takes the place of a decaying learning rate.

    .. math::
        y_t &= (1-\mu)\,z_{t-1} + \mu\,x_{t-1}, \qquad g_t = \nabla f(y_t) + \lambda\,y_t \\
        z_t &= z_{t-1} - \gamma_t\,g_t, \qquad x_t = (1 - c_t)\,x_{t-1} + c_t\,z_t \\
        c_t &= w_t \Big/ \textstyle\sum_{i \le t} w_i, \qquad w_t = t^r \max_{i \le t} \gamma_i^p

    z are the iterates of plain SGD, x is their average and what the method converges to, y is where gradients are taken.
    The parameters are y while training; `eval()` puts x in their place and `train()` y. BatchNorm's running statistics
    are those of y: before an evaluation, call `eval()`, send some training batches through the model in its training
    mode, and only then evaluate, for instance by `torch.optim.swa_utils.update_bn`.
    z is a state, but holds weights: with 16-bit parameters use `master_weights`, and leave `state_dtype` alone.

    Use:
        In place of SGD with a schedule, when the length of the run is not known; the learning rate is larger, 1 to 50
        times that of SGD.

    Args:
        params: Parameters (float64, float32, bfloat16 or float16, any shape), named parameters, or param groups.
        lr: Learning rate γ: a number ≥ 0, a one-element tensor, or a Schedule; step k+1 uses `lr(k)`.
        momentum: How near y is to x, μ in (0, 1); it must stay what it is.
        weight_decay: Coupled (L2) weight decay λ ≥ 0 at y, or a Schedule.
        warmup_steps: Steps of a linear warm-up of γ.
        r: Power of the step in the weights of the average.
        weight_lr_power: Power p of the learning rate in the weights of the average.
        foreach: Accepted for the authors' signature; there is one implementation.
        maximize: Ascend instead of descend.
        options: Clipping, skipped steps, moving average, 16-bit training: see `StepOptions`.

    Raises:
        ValueError: A hyper-parameter is out of its range.
        TypeError: A hyper-parameter is not a number.
        RuntimeError: In `step()`: the parameters are x, as `eval()` was called and not `train()`.

    Example:
        >>> import torch, thalweg as tw
        >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
        >>> opt = tw.optim.SGDScheduleFree([weight], lr=0.1)
        >>> for _ in range(200):
        ...     weight.grad = 2 * weight.detach()
        ...     opt.step()
        >>> opt.eval()
        >>> abs(weight.item()) < 0.05
        True

    References:
        Defazio, Yang, Mehta, Mishchenko, Khaled, Cutkosky: The road less scheduled, arXiv 2405.15682, equations 1 to 4.
    """

    core_name = "sgd_schedule_free"
    _interpolation = "momentum"

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor | Schedule = 1.0,
        momentum: float = 0.9,
        weight_decay: float | Schedule = 0,
        warmup_steps: int = 0,
        r: float = 0.0,
        weight_lr_power: float = 2.0,
        foreach: bool | None = True,
        *,
        maximize: bool = False,
        **options: Unpack[StepOptions],
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "r": r,
            "warmup_steps": warmup_steps,
            "train_mode": True,
            "weight_lr_power": weight_lr_power,
            "weight_decay": weight_decay,
            "foreach": foreach,
            "maximize": maximize,
        }
        self._check_group(defaults)
        super().__init__(params, defaults, **options)


class AdamWScheduleFree(ScheduleFree):
    r"""Schedule-free AdamW: AdamW whose momentum is an average that takes the place of a decaying learning rate.

    .. math::
        y_t &= (1-\beta_1)\,z_{t-1} + \beta_1\,x_{t-1}, \qquad g_t = \nabla f(y_t), \qquad
        v_t = \beta_2 v_{t-1} + (1-\beta_2)\,g_t^2 \\
        z_t &= z_{t-1} - \gamma_t \left( \frac{g_t}{\sqrt{v_t / (1-\beta_2^t)} + \epsilon} + \lambda\,y_t \right), \qquad
        x_t = (1 - c_t)\,x_{t-1} + c_t\,z_t \\
        c_t &= w_t \Big/ \textstyle\sum_{i \le t} w_i, \qquad w_t = t^r \max_{i \le t} \gamma_i^p

    z are the plain iterates, x is their average and what the method converges to, y is where gradients are taken. The
    parameters are y while training; `eval()` puts x in their place and `train()` y. BatchNorm's running statistics are
    those of y: before an evaluation, call `eval()`, send some training batches through the model in its training mode,
    and only then evaluate, for instance by `torch.optim.swa_utils.update_bn`.
    z is a state, but holds weights: with 16-bit parameters use `master_weights`, and leave `state_dtype` alone.

    Use:
        In place of AdamW with a schedule, when the length of the run is not known; the learning rate is 1 to 10 times
        that of AdamW.

    Args:
        params: Parameters (float64, float32, bfloat16 or float16, any shape), named parameters, or param groups.
        lr: Learning rate γ: a number ≥ 0, a one-element tensor, or a Schedule; step k+1 uses `lr(k)`.
        betas: How near y is to x, β₁ in (0, 1), which must stay what it is; decay rate β₂ in [0, 1) or a Schedule.
        eps: Added to the denominator, ≥ 0.
        weight_decay: Weight decay λ ≥ 0 at y, beside the adaptive step, or a Schedule.
        warmup_steps: Steps of a linear warm-up of γ.
        r: Power of the step in the weights of the average.
        weight_lr_power: Power p of the learning rate in the weights of the average.
        foreach: Accepted for the authors' signature; there is one implementation.
        maximize: Ascend instead of descend.
        options: Clipping, skipped steps, moving average, 16-bit training: see `StepOptions`.

    Raises:
        ValueError: A hyper-parameter is out of its range.
        TypeError: A hyper-parameter is not a number.
        RuntimeError: In `step()`: the parameters are x, as `eval()` was called and not `train()`.

    Example:
        >>> import torch, thalweg as tw
        >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
        >>> opt = tw.optim.AdamWScheduleFree([weight], lr=0.05)
        >>> for _ in range(200):
        ...     weight.grad = 2 * weight.detach()
        ...     opt.step()
        >>> opt.eval()
        >>> abs(weight.item()) < 0.05
        True

    References:
        Defazio, Yang, Mehta, Mishchenko, Khaled, Cutkosky: The road less scheduled, arXiv 2405.15682, algorithm 1.
    """

    core_name = "adamw_schedule_free"
    _interpolation = "beta1"

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor | Schedule = 0.0025,
        betas: tuple[float, float | Schedule] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float | Schedule = 0,
        warmup_steps: int = 0,
        r: float = 0.0,
        weight_lr_power: float = 2.0,
        foreach: bool | None = True,
        *,
        maximize: bool = False,
        **options: Unpack[StepOptions],
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "r": r,
            "warmup_steps": warmup_steps,
            "train_mode": True,
            "weight_lr_power": weight_lr_power,
            "weight_decay": weight_decay,
            "foreach": foreach,
            "maximize": maximize,
        }
        self._check_group(defaults)
        super().__init__(params, defaults, **options)

    def _check_group(self, group: dict[str, Any]) -> None:
        check_betas(type(self).__name__, group["betas"])
        check_number("epsilon value", group["eps"])
        super()._check_group(group)
