"""torch-named decays: steps, powers, constant and linear factors, polynomials."""

from __future__ import annotations

from torch.optim import lr_scheduler

from ..schedules._plan import Tree
from ._planned import Planned, Unplanned, number, steps


class StepLR(Planned, lr_scheduler.StepLR):
    r"""torch's StepLR on a plan: :math:`lr_k = lr_0\,\gamma^{\lfloor k/S \rfloor}`.

    Args, attributes and exceptions are those of `torch.optim.lr_scheduler.StepLR`.

    Example:
        >>> import torch, thalweg as tw
        >>> opt = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
        >>> scheduler = tw.lr_scheduler.StepLR(opt, step_size=2, gamma=0.5)
        >>> for _ in range(4):
        ...     opt.step()
        ...     scheduler.step()
        >>> opt.param_groups[0]["lr"]
        0.25
    """

    _arguments = ("base_lrs", "step_size", "gamma")

    def _curve(self, base: float, index: int) -> Tree:
        return Tree("step", (base, number(self.gamma), steps(self.step_size, 1)))


class MultiStepLR(Planned, lr_scheduler.MultiStepLR):
    r"""torch's MultiStepLR on a plan: :math:`lr_k = lr_0\,\gamma^{\#\{m_i \le k\}}`.

    Args, attributes and exceptions are those of `torch.optim.lr_scheduler.MultiStepLR`.

    Example:
        >>> import torch, thalweg as tw
        >>> opt = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
        >>> scheduler = tw.lr_scheduler.MultiStepLR(opt, milestones=[1, 3], gamma=0.5)
        >>> for _ in range(3):
        ...     opt.step()
        ...     scheduler.step()
        >>> opt.param_groups[0]["lr"]
        0.25
    """

    _arguments = ("base_lrs", "milestones", "gamma")

    def _curve(self, base: float, index: int) -> Tree:
        milestones = tuple(steps(milestone) for milestone in sorted(self.milestones.elements()))
        return Tree("multistep", (base, number(self.gamma), milestones)) if milestones else Tree("constant", (base,))


class ExponentialLR(Planned, lr_scheduler.ExponentialLR):
    r"""torch's ExponentialLR on a plan: :math:`lr_k = lr_0\,\gamma^k`.

    Args, attributes and exceptions are those of `torch.optim.lr_scheduler.ExponentialLR`.

    Example:
        >>> import torch, thalweg as tw
        >>> opt = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
        >>> scheduler = tw.lr_scheduler.ExponentialLR(opt, gamma=0.5)
        >>> opt.step()
        >>> scheduler.step()
        >>> scheduler.get_last_lr()
        [0.5]
    """

    _arguments = ("base_lrs", "gamma")

    def _curve(self, base: float, index: int) -> Tree:
        return Tree("exponential", (base, number(self.gamma)))


class ConstantLR(Planned, lr_scheduler.ConstantLR):
    r"""torch's ConstantLR on a plan: :math:`lr_k = c\,lr_0` for k < T, :math:`lr_0` from T on.

    Unlike torch's, `factor=0` does not divide by zero at step T, and `total_iters=0` has no effect instead of a lasting
    one. Args, attributes and exceptions are otherwise those of `torch.optim.lr_scheduler.ConstantLR`.

    Example:
        >>> import torch, thalweg as tw
        >>> opt = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
        >>> scheduler = tw.lr_scheduler.ConstantLR(opt, factor=0.5, total_iters=2)
        >>> scheduler.get_last_lr()
        [0.5]
    """

    _arguments = ("base_lrs", "factor", "total_iters")

    def _curve(self, base: float, index: int) -> Tree:
        length = steps(self.total_iters)
        after = Tree("constant", (base,))
        low = Tree("constant", (base * number(self.factor),))
        return Tree("sequence", ((0, length),), (low, after)) if length else after


class LinearLR(Planned, lr_scheduler.LinearLR):
    r"""torch's LinearLR on a plan: :math:`lr_k = lr_0\,(s\,(T-k) + e\,k)/T`, held from T on.

    Unlike torch's, `total_iters=0` is at the end at once instead of at the start for ever. Args, attributes and
    exceptions are otherwise those of `torch.optim.lr_scheduler.LinearLR`.

    Example:
        >>> import torch, thalweg as tw
        >>> opt = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
        >>> scheduler = tw.lr_scheduler.LinearLR(opt, start_factor=0.5, total_iters=2)
        >>> opt.step()
        >>> scheduler.step()
        >>> scheduler.get_last_lr()
        [0.75]
    """

    _arguments = ("base_lrs", "start_factor", "end_factor", "total_iters")

    def _curve(self, base: float, index: int) -> Tree:
        length = steps(self.total_iters)
        start, end = base * number(self.start_factor), base * number(self.end_factor)
        return Tree("linear", (start, end, 0.0, float(length))) if length else Tree("constant", (end,))


class PolynomialLR(Planned, lr_scheduler.PolynomialLR):
    r"""torch's PolynomialLR on a plan: :math:`lr_k = lr_0\,(1 - k/T)^p`, 0 from T on.

    Args, attributes and exceptions are those of `torch.optim.lr_scheduler.PolynomialLR`.

    Example:
        >>> import torch, thalweg as tw
        >>> opt = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
        >>> scheduler = tw.lr_scheduler.PolynomialLR(opt, total_iters=2, power=2.0)
        >>> opt.step()
        >>> scheduler.step()
        >>> scheduler.get_last_lr()
        [0.25]
    """

    _arguments = ("base_lrs", "total_iters", "power")

    def _curve(self, base: float, index: int) -> Tree:
        power = number(self.power)
        if power <= 0:
            raise Unplanned
        return Tree("polynomial", (base, 0.0, steps(self.total_iters, 1), power))
