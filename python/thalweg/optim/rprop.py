"""Rprop. The mathematics stands in cpp/include/thalweg/optimizers/rprop.hpp."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT

from ..schedules import Schedule
from ._base import FusedOptimizer
from ._checks import StepOptions, check_implementation, check_lr, check_pair

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Rprop(FusedOptimizer):
    r"""Rprop, as `torch.optim.Rprop`: steps by the sign of the gradient alone, each weight with its own step size.

    .. math::
        \eta_t &= \begin{cases} \eta_+ & g_t g_{t-1} > 0 \\ \eta_- & g_t g_{t-1} < 0 \\ 1 & \text{otherwise} \end{cases}, \qquad
        s_t = \mathrm{clip}(\eta_t s_{t-1},\ s_{\min},\ s_{\max}), \qquad s_0 = \gamma \\
        \theta_t &= \theta_{t-1} - \mathrm{sign}(g_t)\,s_t, \qquad g_t := 0 \text{ where } \eta_t = \eta_-

    The learning rate is only the first step size of each weight, so that a schedule has no effect after the first step.

    Use:
        For full-batch training of small networks; signs of mini-batch gradients are too noisy for it.

    Args:
        params: Parameters (float64, float32, bfloat16 or float16, any shape), named parameters, or param groups.
        lr: First step size γ of every weight: a number ≥ 0, a one-element tensor, or a Schedule.
        etas: Factors 0 < η₋ < 1 < η₊ that shrink and grow a step size.
        step_sizes: Smallest and largest step size.
        capturable: CUDA graphs need no flag; with a Schedule it makes `group["lr"]` a tensor that the step keeps right.
        foreach: Accepted for torch's signature; there is one implementation.
        maximize: Ascend instead of descend.
        differentiable: Let autograd follow the steps; torch's class of this name does them then.
        options: Clipping, skipped steps, moving average, 16-bit training: see `StepOptions`.

    Raises:
        ValueError: A hyper-parameter is out of its range.
        TypeError: A hyper-parameter is not a number.

    Example:
        >>> import torch, thalweg as tw
        >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
        >>> opt = tw.optim.Rprop([weight], lr=0.1)
        >>> for grad in (3.0, 0.01):
        ...     weight.grad = torch.tensor([grad])
        ...     opt.step()
        >>> round(weight.item(), 6)
        0.78

    References:
        Riedmiller, Braun: A direct adaptive method for faster backpropagation learning: the Rprop algorithm, ICNN 1993.
    """

    core_name = "rprop"
    torch_class: type[Optimizer] | None = torch.optim.Rprop

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor | Schedule = 1e-2,
        etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50),
        *,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        **options: Unpack[StepOptions],
    ) -> None:
        defaults = {
            "lr": lr,
            "etas": etas,
            "step_sizes": step_sizes,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "capturable": capturable,
        }
        self._check_group(defaults)
        super().__init__(params, defaults, **options)

    def _check_group(self, group: dict[str, Any]) -> None:
        check_lr(group["lr"])
        check_pair(type(self).__name__, "etas", group["etas"])
        check_pair(type(self).__name__, "step_sizes", group["step_sizes"])
        shrink, grow = group["etas"]
        if not 0.0 < shrink < 1.0 < grow:
            raise ValueError(f"Invalid eta values: {shrink}, {grow}")
        check_implementation(type(self).__name__, group["foreach"], None, group["differentiable"])

    def _initial(self, name: str, param: Tensor, group: dict[str, Any]) -> float | Tensor:
        return float(group["lr"]) if name == "step_size" else 0.0
