"""torch-named cosine annealing, without and with warm restarts."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor
from torch.optim import lr_scheduler

from ..schedules import sgdr
from ..schedules._plan import Tree
from ._planned import Planned, number, steps
from ._targets import copy


class CosineAnnealingLR(Planned, lr_scheduler.CosineAnnealingLR):
    r"""torch's CosineAnnealingLR on a plan.

    .. math:: lr_k = \eta_{min} + (lr_0 - \eta_{min})\,(1 + \cos(\pi k/T_{max}))/2

    As torch's it rises again after T_max, with period 2 T_max; `thalweg.schedules.cosine` is held there. Args, attributes
    and exceptions are those of `torch.optim.lr_scheduler.CosineAnnealingLR`.

    Example:
        >>> import torch, thalweg as tw
        >>> opt = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.2)
        >>> scheduler = tw.lr_scheduler.CosineAnnealingLR(opt, T_max=2)
        >>> opt.step()
        >>> scheduler.step()
        >>> scheduler.get_last_lr()
        [0.1]

    References:
        Loshchilov, Hutter: SGDR, arXiv 1608.03983, equation 5.
    """

    _arguments = ("base_lrs", "T_max", "eta_min")

    def _curve(self, base: float, index: int) -> Tree:
        length, low = steps(self.T_max, 1), number(self.eta_min)
        down = Tree("cosine", (base, low, 0.0, float(length)))
        up = Tree("cosine", (low, base, 0.0, float(length)))
        return Tree("repeat", (2 * length, -1), (Tree("sequence", ((0, length),), (down, up)),))


class CosineAnnealingWarmRestarts(Planned, lr_scheduler.CosineAnnealingWarmRestarts):
    r"""torch's CosineAnnealingWarmRestarts on a plan, right at every restart.

    .. math:: lr_k = \eta_{min} + (lr_0 - \eta_{min})\,(1 + \cos(\pi T_{cur}/T_i))/2, \qquad T_{i+1} = T_{mult}\,T_i

    Unlike torch's, the cycle is found in integers (a logarithm of floats misses restarts of `step(epoch)`), `last_epoch`
    finds the cycle of a resumed run, and a param group that was added takes part with its own rate. Args, attributes and
    exceptions are otherwise those of `torch.optim.lr_scheduler.CosineAnnealingWarmRestarts`.

    Example:
        >>> import torch, thalweg as tw
        >>> opt = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.2)
        >>> scheduler = tw.lr_scheduler.CosineAnnealingWarmRestarts(opt, T_0=1, T_mult=3)
        >>> scheduler.step(121)
        >>> scheduler.get_last_lr(), scheduler.T_cur, scheduler.T_i
        ([0.2], 0, 243)

    References:
        Loshchilov, Hutter: SGDR, arXiv 1608.03983, equation 5.
    """

    _arguments = ("base_lrs", "T_0", "T_mult", "eta_min")
    _overwrites = True
    _counts = False

    def _curve(self, base: float, index: int) -> Tree:
        return sgdr(base, steps(self.T_0, 1), steps(self.T_mult, 1), number(self.eta_min))._tree

    def get_lr(self) -> list[float | Tensor]:
        """Learning rates of the current step, one per group: numbers, which fill a tensor as well."""
        groups = self.optimizer.param_groups
        for group in groups[len(self.base_lrs) :]:
            self.base_lrs.append(copy(group.setdefault("initial_lr", copy(group["lr"]))))
        if self.T_cur == int(self.T_cur):
            return super().get_lr()
        self._here = [False] * len(groups)
        return super(Planned, self).get_lr()  # torch's, between two steps; the plan has whole ones

    def _get_closed_form_lr(self) -> list[float | Tensor]:
        return self.get_lr()

    def step(self, epoch: float | None = None) -> None:
        """Move to the next step, or to a fractional epoch, and write the rates there."""
        if epoch is None:
            if type(self.T_cur) is int and self._step_along():
                writer: Any = self._compiled
                _, self.T_cur, self.T_i = writer.cycle_at(self.last_epoch)
                return
            epoch = 0 if self.last_epoch < 0 else self.last_epoch + 1 + self.T_cur % 1
        elif epoch < 0:
            raise ValueError(f"Expected non-negative epoch, but got {epoch}")
        self._move(epoch)

    def _update_lr(self, epoch: float | None = None) -> None:
        self._move(self.last_epoch + 1 if epoch is None else epoch)

    def _move(self, epoch: float) -> None:
        writer = self._writer()
        if writer is None:
            super(Planned, self).step(epoch)
            return
        whole = math.floor(epoch)
        position: Any
        _, position, self.T_i = writer.cycle_at(whole)
        self.T_cur = position + (epoch - whole)
        super()._update_lr(whole)
