"""ASGD. The mathematics stands in cpp/include/thalweg/optimizers/asgd.hpp."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT

from ..schedules import Schedule
from ._base import FusedOptimizer
from ._checks import StepOptions, check_implementation, check_lr, check_number

if TYPE_CHECKING:
    from typing_extensions import Unpack


class ASGD(FusedOptimizer):
    r"""Averaged stochastic gradient descent, as `torch.optim.ASGD`, with the schedule inside the step.

    .. math::
        g_t &= \nabla f(\theta_{t-1}) + w\,\theta_{t-1}, \qquad
        \theta_t = (1 - \lambda\eta_t)\,\theta_{t-1} - \eta_t\,g_t \\
        \bar\theta_t &= \bar\theta_{t-1} + \mu_t\,(\theta_t - \bar\theta_{t-1}), \qquad
        \eta_1 = \gamma_1,\ \mu_1 = 1 \\
        \eta_{t+1} &= \frac{\gamma_t}{(1 + \lambda\gamma_t t)^\alpha}, \qquad
        \mu_{t+1} = \frac{1}{\max(1,\ t - t_0)}

    As in torch, the step size η of a step comes from the learning rate of the step before: a schedule acts one step
    late. The average θ̄ is the state `ax`.

    Use:
        For convex problems and language models where the average of the last iterates is wanted; read it from the state
        `ax`.

    Args:
        params: Parameters (float64, float32, bfloat16 or float16, any shape), named parameters, or param groups.
        lr: Learning rate γ: a number ≥ 0, a one-element tensor, or a Schedule; step k+2 uses `lr(k)`, see above.
        lambd: Decay term λ, of the weights and of η.
        alpha: Power α of the decay of η.
        t0: Steps t₀ after which averaging begins.
        weight_decay: Coupled (L2) weight decay w ≥ 0, or a Schedule.
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
        >>> opt = tw.optim.ASGD([weight], lr=0.1, lambd=0.0, t0=0)
        >>> for _ in range(4):
        ...     weight.grad = torch.ones(1)
        ...     opt.step()
        >>> round(weight.item(), 6), round(opt.state[weight]["ax"].item(), 6)
        (0.6, 0.7)

    References:
        Polyak, Juditsky: Acceleration of stochastic approximation by averaging, SIAM J. Control Optim. 30, 1992.
        Bottou: Large-scale machine learning with stochastic gradient descent, COMPSTAT 2010.
    """

    core_name = "asgd"
    torch_class: type[Optimizer] | None = torch.optim.ASGD

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor | Schedule = 1e-2,
        lambd: float = 1e-4,
        alpha: float = 0.75,
        t0: float = 1e6,
        weight_decay: float | Schedule = 0,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
        **options: Unpack[StepOptions],
    ) -> None:
        defaults = {
            "lr": lr,
            "lambd": lambd,
            "alpha": alpha,
            "t0": t0,
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
        check_number("weight_decay value", group["weight_decay"])
        for name in ("lambd", "alpha"):
            check_number(f"{name} value", abs(group[name]))
        check_number("t0 value", 0 if group["t0"] == math.inf else abs(group["t0"]))  # infinity: never average
        check_implementation(type(self).__name__, group["foreach"], None, group["differentiable"])

    def _initial(self, name: str, param: Tensor, group: dict[str, Any]) -> float | Tensor:
        if name == "eta":
            return float(group["lr"])
        return 1.0 if name == "mu" else 0.0
