"""torch-named policies that cycle the momentum beside the rate: CyclicLR, OneCycleLR."""

from __future__ import annotations

from typing import Any

from torch.optim import lr_scheduler

from ..schedules._plan import Tree
from ..schedules.one_cycle import _wave
from ._planned import Planned, Unplanned, number, steps

_MODES = {"triangular": 0, "triangular2": 1, "exp_range": 2}


class _Cycling(Planned):
    """A policy that writes the momentum, or the first of the betas, too."""

    __slots__ = ()
    _overwrites = True
    cycle_momentum: bool
    use_beta1: bool


class CyclicLR(_Cycling, lr_scheduler.CyclicLR):
    r"""torch's CyclicLR on a plan: between `base_lr` and `max_lr` in straight lines, the momentum against it.

    .. math:: lr_k = base + (max - base)\,w(k)\,s, \qquad s = 1,\ 2^{-cycle}\ \text{or}\ \gamma^k

    With a `scale_fn` of the user's own, or sizes that are no whole steps, the values are torch's. Args, attributes and
    exceptions are those of `torch.optim.lr_scheduler.CyclicLR`.

    Example:
        >>> import torch, thalweg as tw
        >>> opt = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0, momentum=0.9)
        >>> scheduler = tw.lr_scheduler.CyclicLR(opt, base_lr=0.1, max_lr=0.5, step_size_up=1)
        >>> opt.step()
        >>> scheduler.step()
        >>> opt.param_groups[0]["lr"], opt.param_groups[0]["momentum"]
        (0.5, 0.8)

    References:
        Smith: Cyclical learning rates for training neural networks, arXiv 1506.01186, section 3.1.
    """

    _arguments = ("base_lrs", "max_lrs", "total_size", "step_ratio", "mode", "gamma", "_scale_fn_custom",
                  "cycle_momentum", "base_momentums", "max_momentums")  # fmt: skip

    def _triangle(self, low: Any, high: Any) -> Tree:
        if self._scale_fn_custom is not None:
            raise Unplanned
        total = steps(self.total_size, 2)
        exact = total * self.step_ratio
        up = round(exact)
        if abs(exact - up) > 1e-9 * total:
            raise Unplanned
        gamma = number(self.gamma) if self.mode == "exp_range" else 1.0
        return Tree("triangular", (number(low), number(high), up, total - up, _MODES[self.mode], gamma))

    def _curve(self, base: float, index: int) -> Tree:
        return self._triangle(base, self.max_lrs[index])

    def _momentum_curves(self) -> list[Tree]:
        if not self.cycle_momentum:
            return []
        bounds = zip(self.max_momentums, self.base_momentums, strict=True)
        return [self._triangle(high, low) for high, low in bounds]


class OneCycleLR(_Cycling, lr_scheduler.OneCycleLR):
    r"""torch's OneCycleLR on a plan: one rise to `max_lr`, one fall below the start, the momentum against it.

    Unlike torch's, the step after the last one holds the end instead of rising again, and totals in which a phase has no
    step have defined values: the phase is left out. Args, attributes and exceptions are otherwise those of
    `torch.optim.lr_scheduler.OneCycleLR`.

    Example:
        >>> import torch, thalweg as tw
        >>> opt = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0, momentum=0.9)
        >>> scheduler = tw.lr_scheduler.OneCycleLR(opt, max_lr=1.0, total_steps=10)
        >>> for _ in range(2):
        ...     opt.step()
        ...     scheduler.step()
        >>> opt.param_groups[0]["lr"], opt.param_groups[0]["momentum"]
        (1.0, 0.85)

    References:
        Smith, Topin: Super-convergence, arXiv 1708.07120; Smith, arXiv 1803.09820.
    """

    _arguments = ("total_steps", "_schedule_phases", "_anneal_func_type", "cycle_momentum")
    _group_arguments = ("initial_lr", "max_lr", "min_lr", "base_momentum", "max_momentum")
    _last = "total_steps"  # torch refuses to go further, in its own words

    def _phases(self, group: dict[str, Any], what: str) -> Tree:
        anneal = self.__dict__.get("_anneal_func_type")
        if anneal not in ("cos", "linear"):  # a state of an older torch brings its own function
            raise Unplanned
        phases: list[Any] = self._schedule_phases
        names = [phases[0][f"start_{what}"], *(phase[f"end_{what}"] for phase in phases)]
        values = tuple(number(group[name]) for name in names)
        total = steps(self.total_steps, 1)
        wave = _wave(values, tuple(number(phase["end_step"]) for phase in phases), total, anneal)
        return Tree("hold", (total - 1,), (wave._tree,))

    def _curve(self, base: float, index: int) -> Tree:
        return self._phases(self.optimizer.param_groups[index], "lr")

    def _momentum_curves(self) -> list[Tree]:
        return [self._phases(group, "momentum") for group in self.optimizer.param_groups] if self.cycle_momentum else []
