"""Adagrad. The mathematics stands in cpp/include/thalweg/optimizers/adagrad.hpp."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT

from ..schedules import Schedule
from ._base import FusedOptimizer
from ._checks import StepOptions, check_implementation, check_lr, check_number

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Adagrad(FusedOptimizer):
    r"""Adagrad, as `torch.optim.Adagrad`, with the schedule inside the step.

    .. math::
        g_t &= \nabla f(\theta_{t-1}) + \lambda\,\theta_{t-1}, \qquad s_t = s_{t-1} + g_t^2, \qquad s_0 = a \\
        \theta_t &= \theta_{t-1} - \frac{\gamma_t}{1 + (t-1)\,\eta}\,\frac{g_t}{\sqrt{s_t} + \epsilon}

    The states exist from construction on, as in torch. Sparse gradients are stepped by torch's class.

    Use:
        For sparse features and convex problems; its steps only ever shrink, so that no schedule is needed.

    Args:
        params: Parameters (float64, float32, bfloat16 or float16, any shape), named parameters, or param groups.
        lr: Learning rate γ: a number ≥ 0, a one-element tensor, or a Schedule; step k+1 uses `lr(k)`.
        lr_decay: Decay η ≥ 0 of the learning rate.
        weight_decay: Coupled (L2) weight decay λ ≥ 0, or a Schedule.
        initial_accumulator_value: What the sums begin with, a ≥ 0; a group's own value counts for its parameters.
        eps: Added to the denominator, ≥ 0.
        foreach: Accepted for torch's signature; there is one implementation.
        maximize: Ascend instead of descend.
        differentiable: Let autograd follow the steps; torch's class of this name does them then.
        fused: Accepted for torch's signature; there is one implementation.
        options: Clipping, skipped steps, moving average, 16-bit training: see `StepOptions`.

    Raises:
        ValueError: A hyper-parameter is out of its range.
        TypeError: A hyper-parameter is not a number.

    Example:
        >>> import torch, thalweg as tw
        >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
        >>> opt = tw.optim.Adagrad([weight], lr=0.1)
        >>> weight.grad = torch.tensor([3.0])
        >>> opt.step()
        >>> round(weight.item(), 6)
        0.9

    References:
        Duchi, Hazan, Singer: Adaptive subgradient methods for online learning and stochastic optimization, JMLR 12,
        2011.
    """

    core_name = "adagrad"
    torch_class: type[Optimizer] | None = torch.optim.Adagrad

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor | Schedule = 1e-2,
        lr_decay: float = 0,
        weight_decay: float | Schedule = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        **options: Unpack[StepOptions],
    ) -> None:
        defaults = {
            "lr": lr,
            "lr_decay": lr_decay,
            "eps": eps,
            "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "fused": fused,
        }
        self._check_group(defaults)
        super().__init__(params, defaults, **options)
        every = [p for group in self.param_groups for p in group["params"]]
        self._init_states(every, [1] * len(every), copies=False)

    def share_memory(self) -> None:
        """Move the sums to shared memory, for training by several processes, as torch's class does.

        Example:
            >>> import torch, thalweg as tw
            >>> weight = torch.nn.Parameter(torch.zeros(3))
            >>> opt = tw.optim.Adagrad([weight])
            >>> opt.share_memory()
            >>> opt.state[weight]["sum"].is_shared()
            True
        """
        for group in self.param_groups:
            for param in group["params"]:
                self.state[param]["sum"].share_memory_()

    def _check_group(self, group: dict[str, Any]) -> None:
        check_lr(group["lr"])
        for name in ("lr_decay", "weight_decay", "initial_accumulator_value"):
            check_number(f"{name} value", group[name])
        check_number("epsilon value", group["eps"])
        check_implementation(type(self).__name__, group["foreach"], group["fused"], group["differentiable"])

    def _initial(self, name: str, param: Tensor, group: dict[str, Any]) -> float | Tensor:
        if name != "sum":
            return 0.0
        value = float(group["initial_accumulator_value"])
        return torch.full_like(param, complex(value, value)) if param.is_complex() else value
