"""What the torch-named schedulers share: the rate is the plan's, and another scheduler's factor is kept.

A torch scheduler is recursive: it multiplies the rate that it finds. Ours looks first whether that rate is where its own
curve was one step ago. Then nobody else acts, and the next rate is read from the curve, exact at any step; otherwise
torch's recursion goes on from the rate that is there. Both are the same in exact arithmetic.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

from ..schedules._plan import Tree, compile_plan
from ._bound import _write

_LAST = 2**53  # float64, in which shapes are computed, holds every step up to here
_ELSEWHERE = object()  # mark of a rate that is not on the curve


class Unplanned(Exception):
    """These arguments have no plan; torch's own code does the step."""


class Restored(LRScheduler):
    """A scheduler whose `load_state_dict` also writes the rates, unless the optimizer's own were loaded before."""

    # Slots, because torch's state_dict is the whole of __dict__.
    __slots__ = ("_home",)

    def _initial_step(self) -> None:
        super()._initial_step()
        self._remember_home()

    def _remember_home(self) -> None:
        """Optimizer.load_state_dict makes new groups, so the first one tells whether it was called since."""
        self._home = self.optimizer.param_groups[0]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over torch's or our state, and write its learning rates into the optimizer.

        An optimizer that was loaded before has the right ones; they are left alone. A scheduler that waits for its turn
        in a SequentialLR writes nothing.

        Args:
            state_dict: What `state_dict()` of this class or of torch's returned.
        """
        super().load_state_dict(state_dict)
        home = getattr(self, "_home", None)
        self._remember_home()
        if home is self._home and has_begun(self):
            self._write_back()

    def _write_back(self) -> None:
        groups = self.optimizer.param_groups
        if len(self._last_lr) == len(groups):
            for group, rate in zip(groups, self._last_lr, strict=True):
                _write(group, "lr", float(rate))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__.copy()  # what the slots hold is found again


class Curves:
    """Compiled curves, one per group: distinct plans, and which one each group has."""

    __slots__ = ("place", "plans", "value_at")

    def __init__(self, trees: Sequence[Tree]) -> None:
        distinct = list(dict.fromkeys(trees))
        self.plans = [compile_plan(tree) for tree in distinct]
        self.place = [distinct.index(tree) for tree in trees]
        self.value_at = self.plans[0].value_at if len(distinct) == 1 else None  # the one of all groups

    def values(self, step: int) -> list[Any]:
        found = [plan.value_at(step) for plan in self.plans]
        return [found[place] for place in self.place]


class _Compiled(NamedTuple):
    key: tuple[Any, ...]  # the arguments that the curves come from
    last: int  # from the step after it on torch decides
    rates: Curves
    momenta: Curves | None


class Planned(Restored):
    """A scheduler with a closed form. Subclasses name torch's class as their second base and give `_curve`."""

    __slots__ = ("_compiled", "_here", "_left")
    _compiled: _Compiled | None  # None: these arguments have no plan
    _left: list[Any]  # what this scheduler left in each group: the number, (tensor, version), or _ELSEWHERE
    _here: list[bool]  # which groups the step that is being done leaves on their curves

    _read: ClassVar[Any]  # (scheduler) -> a tuple of everything that the curves depend on; lists among it are copied
    _overwrites: ClassVar[bool] = False  # torch's class too writes a function of the step, whatever is there

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        # A user's subclass with its own get_lr must be asked at every step.
        ours = cls.__module__.startswith(f"{__package__}.")
        if not ours and {"get_lr", "_update_lr"} & cls.__dict__.keys():
            cls._step_along = _never  # type: ignore[assignment]

    def _curve(self, base: float, index: int) -> Tree:
        """The curve of group `index` with this base rate."""
        raise NotImplementedError

    def _momentum_curves(self) -> list[Tree]:
        return []

    def _last_planned(self) -> int:
        return _LAST

    # ---- the curves --------------------------------------------------------------------------------------

    def _curves(self) -> _Compiled | None:
        key = self._read(self)
        try:
            compiled = self._compiled
            if compiled is not None and compiled.key == key:
                return compiled
        except AttributeError:  # not compiled yet, or a copy
            pass
        key = tuple(list(part) if isinstance(part, list) else part for part in key)
        try:
            trees = [self._curve(real(base), index) for index, base in enumerate(self.base_lrs)]
            momenta = self._momentum_curves()
            self._compiled = _Compiled(key, self._last_planned(), Curves(trees), Curves(momenta) if momenta else None)
        except (Unplanned, ValueError, TypeError, OverflowError, struct.error):
            self._compiled = None
        return self._compiled

    def _planned(self, step: Any) -> list[float] | None:
        """The curves' values at a step, one per group with a base rate; None: ask torch."""
        curves = self._curves()
        if curves is None or type(step) is not int or not 0 <= step <= curves.last:
            return None
        return curves.rates.values(step)

    # ---- torch's interface -------------------------------------------------------------------------------

    def get_lr(self) -> list[float | Tensor]:
        """Learning rates of the current step, one per group, in the types of the groups' own."""
        groups = self.optimizer.param_groups
        now = self._planned(self.last_epoch) if self._get_lr_called_within_step else None
        self._here = [False] * len(groups)
        if now is None:
            return super().get_lr()
        self._write_momenta(self.last_epoch)
        rates: list[Any] = [group["lr"] for group in groups]
        self._here = [True] * len(now) if self._overwrites else self._on_curve(rates, now)
        self._here += [False] * (len(groups) - len(now))  # groups that were added have no base rate
        if not all(self._here):
            rates = self._recursive(now)
        for index, value in enumerate(now):
            if self._here[index]:
                rates[index] = typed(groups[index]["lr"], value)
        return rates

    def _recursive(self, now: list[float]) -> list[float | Tensor]:
        if self.last_epoch > 0:
            return super().get_lr()
        # torch's recursion starts one step too far where the first step is not its constructor's.
        factors = [value / float(base) if base else 1.0 for value, base in zip(now, self.base_lrs, strict=True)]
        factors += [1.0] * (len(self.optimizer.param_groups) - len(now))
        return [group["lr"] * factor for group, factor in zip(self.optimizer.param_groups, factors, strict=True)]

    def _get_closed_form_lr(self) -> list[float | Tensor]:
        groups = self.optimizer.param_groups
        now = self._planned(self.last_epoch)
        if now is None or len(now) != len(groups):
            self._here = [False] * len(groups)
            closed: Any = getattr(super(), "_get_closed_form_lr", super().get_lr)
            return list(closed())
        self._write_momenta(self.last_epoch)
        self._here = [True] * len(groups)
        return [typed(group["lr"], value) for group, value in zip(groups, now, strict=True)]

    def _on_curve(self, rates: list[Any], now: list[float]) -> list[bool]:
        """Which groups have the rate that this scheduler alone would have left there."""
        left = getattr(self, "_left", None)
        if left is None or len(left) != len(rates):
            left = [_ELSEWHERE] * len(rates)
        here = [untouched(mark, rate) for mark, rate in zip(left, rates, strict=True)][: len(now)]
        if all(here):
            return here
        places: list[Sequence[Any]] = [
            self.base_lrs if self.last_epoch == 0 else self._planned(self.last_epoch - 1) or now
        ]
        if self._is_initial and self.last_epoch > 0:  # resumed: the rates may be restored already, or not at all
            places += [now, self.base_lrs]
        return [ok or any(same(rates[index], float(place[index])) for place in places) for index, ok in enumerate(here)]

    def _update_lr(self, epoch: int | None = None) -> None:
        super()._update_lr(epoch)
        groups = self.optimizer.param_groups
        if all(self._here) and not any(isinstance(rate, Tensor) for rate in self._last_lr):
            self._left = self._last_lr
        else:
            self._left = [mark(group["lr"]) if ok else _ELSEWHERE for group, ok in zip(groups, self._here, strict=True)]

    def step(self, epoch: int | None = None) -> None:
        """Move to the next step and write its rates; `epoch` jumps there (deprecated in torch)."""
        if epoch is not None or self._step_count < 2 or not self._step_along():
            super().step(epoch)  # warns about a wrong order of calls in the first two steps

    def _step_along(self) -> bool:
        """The step when nobody else wrote and all rates are numbers; False: nothing was done."""
        try:
            curves, left = self._compiled, self._left
        except AttributeError:  # a copy
            return False
        groups = self.optimizer.param_groups
        step = self.last_epoch + 1
        if curves is None or step > curves.last or len(left) != len(groups) or self._read(self) != curves.key:
            return False
        for group, rate in zip(groups, left):  # noqa: B905  (their lengths are equal)
            if group["lr"] is not rate:
                return False
        rates: list[Any]
        value_at = curves.rates.value_at
        if value_at is not None:
            value = value_at(step)
            for group in groups:
                group["lr"] = value
            rates = [value] * len(groups)
        else:
            rates = curves.rates.values(step)
            for group, value in zip(groups, rates, strict=True):
                group["lr"] = value
        self._left = self._last_lr = rates
        if curves.momenta is not None:
            self._write_momenta(step)
        self._step_count += 1
        self.last_epoch = step
        return True

    def _write_momenta(self, step: int) -> None:
        """What cycles beside the rate; nothing here."""

    def _write_back(self) -> None:
        super()._write_back()
        if self._planned(self.last_epoch) is not None:
            self._write_momenta(self.last_epoch)


def _never(scheduler: Planned) -> bool:
    return False


def has_begun(scheduler: Any) -> bool:
    """Whether a scheduler did its first step; torch counts the later parts of a SequentialLR back to -1."""
    while hasattr(scheduler, "_schedulers") and not hasattr(scheduler, "last_epoch"):
        scheduler = scheduler._schedulers[0]
    return bool(scheduler.last_epoch >= 0)


# ---- numbers -------------------------------------------------------------------------------------------------


def real(value: Any) -> float:
    """A number as a float."""
    return float(value)


def number(value: Any) -> float:
    """A plain number as a float; a tensor has no place in a plan, as it may change."""
    if isinstance(value, Tensor):
        raise Unplanned
    return float(value)


def steps(value: Any, minimum: int = 0) -> int:
    """A whole number of steps."""
    if isinstance(value, Tensor) or value != int(value) or not minimum <= value <= _LAST:
        raise Unplanned
    return int(value)


def typed(like: Any, value: float) -> float | Tensor:
    """A value in the type of the rate that is there."""
    return torch.full_like(like, value) if isinstance(like, Tensor) else value


def mark(rate: Any) -> Any:
    """What `untouched` recognises a rate by; of a tensor its version, so that a device is not waited for."""
    if not isinstance(rate, Tensor):
        return rate
    return _ELSEWHERE if rate.is_inference() else (rate, rate._version)


def untouched(left: Any, rate: Any) -> bool:
    """Whether nobody wrote since `mark(rate)`."""
    if isinstance(rate, Tensor):
        return isinstance(left, tuple) and left[0] is rate and left[1] == rate._version
    return left is rate


def same(rate: Any, value: float) -> bool:
    """Whether a rate is `value` up to its rounding, or up to torch's recursion where torch wrote it."""
    digits = 4 * torch.finfo(rate.dtype).eps if isinstance(rate, Tensor) and rate.is_floating_point() else 0.0
    return abs(float(rate) - value) <= max(1e-9, digits) * abs(value)
