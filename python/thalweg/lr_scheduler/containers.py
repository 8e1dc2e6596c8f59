"""torch-named compositions of schedulers on one optimizer: SequentialLR, ChainedScheduler."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from torch.optim import lr_scheduler
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.optimizer import Optimizer

from ._planned import Restored
from ._targets import copy, write
from .cyclic import CyclicLR

# torch's classes that write a function of the step, whatever rate they find; the last two have a scale of their own.
_OVERWRITING = (
    lr_scheduler.LambdaLR,
    lr_scheduler.CosineAnnealingWarmRestarts,
    lr_scheduler.CyclicLR,
    lr_scheduler.OneCycleLR,
)
_ABSOLUTE = (lr_scheduler.CyclicLR, lr_scheduler.OneCycleLR)


def _base_rates(scheduler: Any) -> list[Any] | None:
    """Base rates of the scheduler that acts first."""
    while hasattr(scheduler, "_schedulers"):
        children, milestones = scheduler._schedulers, getattr(scheduler, "_milestones", ())
        scheduler = children[bisect_right(milestones, 0)]
    return getattr(scheduler, "base_lrs", None)


def _begin(scheduler: Any) -> None:
    """Do a scheduler's first step again, on the rates that are there."""
    _rewind(scheduler)
    scheduler._initial_step()


def _rewind(scheduler: Any) -> None:
    for child in getattr(scheduler, "_schedulers", ()):
        _rewind(child)
    if hasattr(scheduler, "last_epoch"):  # a ChainedScheduler has none
        scheduler.last_epoch = -1


class _Container(Restored):
    """A scheduler of schedulers that may itself be a part of a SequentialLR, at any place."""

    __slots__ = ()
    _schedulers: Any

    def _begin_parts(self) -> None:
        raise NotImplementedError

    def _update_lr(self, epoch: int | None = None) -> None:
        """What SequentialLR calls with 0 when this one's turn comes."""
        if epoch != 0:
            raise ValueError(f"{type(self).__name__}: expected a jump to step 0, got {epoch}")
        for group, base in zip(self.optimizer.param_groups, _base_rates(self) or (), strict=False):
            write(group, "lr", base)
        self._begin_parts()

    def _initial_step(self) -> None:
        self._begin_parts()
        self._remember_home()


class SequentialLR(_Container, lr_scheduler.SequentialLR):
    """torch's SequentialLR: one scheduler after the other, each from its own step 0 on.

    Unlike torch's, the rates start from the first scheduler's base rates, also when a later one (OneCycleLR) has written
    its own into the groups, and a ChainedScheduler or SequentialLR may stand at any place. Args, attributes and
    exceptions are otherwise those of `torch.optim.lr_scheduler.SequentialLR`.

    Example:
        >>> import torch, thalweg as tw
        >>> opt = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
        >>> warm_up = tw.lr_scheduler.LinearLR(opt, start_factor=0.5, total_iters=2)
        >>> decay = tw.lr_scheduler.ExponentialLR(opt, gamma=0.9)
        >>> scheduler = tw.lr_scheduler.SequentialLR(opt, [warm_up, decay], milestones=[2])
        >>> rates = []
        >>> for _ in range(4):
        ...     rates += scheduler.get_last_lr()
        ...     opt.step()
        ...     scheduler.step()
        >>> rates
        [0.5, 0.75, 1.0, 0.9]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        schedulers: list[LRScheduler],
        milestones: list[int],
        last_epoch: int = -1,
    ) -> None:
        groups = optimizer.param_groups if isinstance(optimizer, Optimizer) else []
        first = bisect_right(milestones, 0)
        bases = _base_rates(schedulers[first]) if first < len(schedulers) else None
        kept = [group.get("initial_lr") for group in groups]
        if bases is not None and len(bases) == len(groups) and None not in kept:
            for group, base in zip(groups, bases, strict=True):
                group["initial_lr"] = base  # what torch resets the rates to
        try:
            super().__init__(optimizer, schedulers, milestones, last_epoch)
        finally:
            for group, rate in zip(groups, kept, strict=True):
                if rate is not None:
                    group["initial_lr"] = rate
        self._remember_home()

    def _begin_parts(self) -> None:
        for scheduler in self._schedulers:
            _rewind(scheduler)
        self.last_epoch = 0
        current = self._schedulers[bisect_right(self._milestones, 0)]
        _begin(current)
        self._last_lr = current.get_last_lr()


class ChainedScheduler(_Container, lr_scheduler.ChainedScheduler):
    """torch's ChainedScheduler: the factors of several schedulers, multiplied.

    Unlike torch's, a scheduler that writes a function of the step (LambdaLR, CosineAnnealingWarmRestarts, CyclicLR,
    OneCycleLR) does not wipe out the others' factors; MultiplicativeLR and SWALR, which have no closed form, are lost
    beside one as in torch. Args, attributes and exceptions are otherwise those of
    `torch.optim.lr_scheduler.ChainedScheduler`.

    Example:
        >>> import torch, thalweg as tw
        >>> opt = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
        >>> warm_up = tw.lr_scheduler.LinearLR(opt, start_factor=0.5, total_iters=2)
        >>> waves = tw.lr_scheduler.CosineAnnealingWarmRestarts(opt, T_0=4)
        >>> scheduler = tw.lr_scheduler.ChainedScheduler([warm_up, waves])
        >>> scheduler.get_last_lr()
        [0.5]
    """

    def __init__(self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None = None) -> None:
        super().__init__(schedulers, optimizer)
        self._remember_home()
        self._combine()

    def step(self) -> None:  # type: ignore[override]
        """Step every scheduler, and write the product."""
        super().step()
        self._combine()

    def _begin_parts(self) -> None:
        for scheduler in self._schedulers:
            _begin(scheduler)
        self._last_lr = [copy(group["lr"]) for group in self.optimizer.param_groups]
        self._combine()

    def _combine(self) -> None:
        rates = self._product()
        if rates is None:
            return
        groups = self.optimizer.param_groups
        for group, rate in zip(groups, rates, strict=True):
            write(group, "lr", rate)
        self._last_lr = [copy(group["lr"]) for group in groups]
        self._schedulers[-1]._last_lr = [copy(group["lr"]) for group in groups]

    def _product(self) -> list[float] | None:
        """Product of the parts' closed forms where torch's loop would lose some; None where its loop is right."""
        parts = list(self._schedulers)
        if len(parts) < 2 or not any(isinstance(part, _OVERWRITING) for part in parts):
            return None
        own: list[list[float]] = []
        scale: list[float] | None = None
        for part in parts:
            values, bases = _own_rates(part), [float(base) for base in getattr(part, "base_lrs", ())]
            if values is None or len(values) != len(bases) or 0.0 in bases:
                return None
            if isinstance(part, _ABSOLUTE):
                if scale is not None:
                    return None
                scale = values
            else:
                own.append([value / base for value, base in zip(values, bases, strict=True)])
                first = bases
        rates = list(first if scale is None else scale)
        for factors in own:
            rates = [rate * factor for rate, factor in zip(rates, factors, strict=True)]
        return rates


def _own_rates(scheduler: Any) -> list[float] | None:
    """What a scheduler that has just been stepped would write if it were alone; None: it has no closed form."""
    if isinstance(scheduler, CyclicLR):  # built after another one, its first rate is still the other's
        return scheduler._planned(scheduler.last_epoch) or [float(rate) for rate in scheduler._last_lr]
    if isinstance(scheduler, _OVERWRITING):
        return [float(rate) for rate in scheduler._last_lr]
    closed = getattr(scheduler, "_get_closed_form_lr", None)
    return None if closed is None else [float(rate) for rate in closed()]
