"""What the torch-named schedulers share: the rate is the plan's, and another scheduler's factor is kept.

A torch scheduler is recursive: it multiplies the rate that it finds. Ours looks first whether that rate is where its own
curve was one step ago. Then nobody else acts, and the next rate is read from the curve, exact at any step; otherwise
torch's recursion goes on from the rate that is there. Both are the same in exact arithmetic.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

from .. import _core
from ..schedules._plan import Tree, compile_plan
from ._targets import write

_LAST = 2**53  # float64, in which shapes are computed, holds every step up to here


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
                write(group, "lr", float(rate))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__.copy()  # what the slots hold is found again


class Planned(Restored):
    """A scheduler with a closed form. Subclasses name torch's class as their second base and give `_curve`."""

    __slots__ = ("_compiled", "_here", "_left")
    _compiled: _core.RateWriter | None  # None: these arguments have no plan
    _left: list[Any]  # marks of the tensors that this scheduler filled
    _here: list[bool]  # which groups the step that is being done leaves on their curves

    _arguments: ClassVar[tuple[str, ...]]  # attributes that the curves come from
    _group_arguments: ClassVar[tuple[str, ...]] = ()  # and items of the groups
    _overwrites: ClassVar[bool] = False  # torch's class too writes a function of the step, whatever is there
    _counts: ClassVar[bool] = True  # torch's class keeps _step_count
    _last: ClassVar[str] = ""  # attribute with the step after which torch decides

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

    # ---- the curves --------------------------------------------------------------------------------------

    def _writer(self) -> _core.RateWriter | None:
        """The compiled curves, or None where these arguments have none."""
        compiled = getattr(self, "_compiled", None)
        if compiled is None or not compiled.matches(self.__dict__):
            try:
                compiled = self._compile()
            except (Unplanned, ValueError, TypeError, OverflowError, struct.error):
                compiled = None
            self._compiled = compiled
        return compiled

    def _compile(self) -> _core.RateWriter:
        trees = [self._curve(float(base), index) for index, base in enumerate(self.base_lrs)]
        momenta = self._momentum_curves()
        distinct, others = list(dict.fromkeys(trees)), list(dict.fromkeys(momenta))
        return _core.RateWriter(
            self.__dict__,
            self._arguments,
            self._group_arguments,
            [compile_plan(tree) for tree in distinct],
            [distinct.index(tree) for tree in trees],
            [compile_plan(tree) for tree in others],
            [others.index(tree) for tree in momenta],
            "betas" if getattr(self, "use_beta1", False) else "momentum",
            steps(getattr(self, self._last)) if self._last else _LAST,
            self._counts,
        )

    def _planned(self, step: Any) -> list[float] | None:
        """The curves' values at a step, one per group with a base rate; None: ask torch."""
        writer = self._writer()
        last = getattr(self, self._last) if self._last else _LAST
        if writer is None or type(step) is not int or not 0 <= step <= last:
            return None
        return writer.values(step)

    # ---- torch's interface -------------------------------------------------------------------------------

    def get_lr(self) -> list[float | Tensor]:
        """Learning rates of the current step, one per group: numbers, which fill a tensor as well."""
        groups = self.optimizer.param_groups
        now = self._planned(self.last_epoch) if self._get_lr_called_within_step else None
        self._here = [False] * len(groups)
        if now is None:
            return super().get_lr()
        self._write_momenta()
        rates: list[Any] = [group["lr"] for group in groups]
        self._here = [True] * len(now) if self._overwrites else self._on_curve(rates, now)
        self._here += [False] * (len(groups) - len(now))  # groups that were added have no base rate
        if not all(self._here):
            rates = self._recursive(now)
        for index, value in enumerate(now):
            if self._here[index]:
                rates[index] = value
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
        self._write_momenta()
        self._here = [True] * len(groups)
        return list(now)

    def _on_curve(self, rates: list[Any], now: list[float]) -> list[bool]:
        """Which groups have the rate that this scheduler alone would have left there."""
        left = getattr(self, "_left", ())
        here = [untouched(mark, rate) for mark, rate in zip(left, rates, strict=False)]
        here = (here + [False] * len(now))[: len(now)]
        if all(here):
            return here
        before = self.base_lrs if self.last_epoch == 0 else self._planned(self.last_epoch - 1) or now
        places: list[Sequence[Any]] = [before]
        if self._is_initial and self.last_epoch > 0:  # resumed: the rates may be restored already, or not at all
            places += [now, self.base_lrs]
        return [ok or any(same(rates[index], float(place[index])) for place in places) for index, ok in enumerate(here)]

    def _update_lr(self, epoch: int | None = None) -> None:
        self._here = []  # a subclass may answer without asking here
        super()._update_lr(epoch)
        groups, compiled = self.optimizer.param_groups, getattr(self, "_compiled", None)
        here = [] if type(self)._step_along is _never else self._here
        here = here + [False] * (len(groups) - len(here))
        numbers = all(here) and not any(isinstance(group["lr"], Tensor) for group in groups)
        self._left = [mark(group["lr"]) if ok else None for group, ok in zip(groups, here, strict=True)]
        if compiled is not None:
            compiled.leave([group["lr"] for group in groups] if numbers else [])

    def step(self, epoch: int | None = None) -> None:
        """Move to the next step and write its rates; `epoch` jumps there (deprecated in torch)."""
        if epoch is not None or not self._step_along():
            super().step(epoch)  # warns about a wrong order of calls in the first two steps

    def _step_along(self) -> bool:
        """The usual step: nobody else wrote, and all rates are numbers. False: nothing was done."""
        try:
            compiled = self._compiled
        except AttributeError:  # a copy
            return False
        return compiled is not None and compiled.advance(self.__dict__)

    def _write_momenta(self) -> None:
        if self._compiled is not None:
            self._compiled.write_momenta(self.optimizer.param_groups, self.last_epoch)

    def _write_back(self) -> None:
        super()._write_back()
        if self._planned(self.last_epoch) is not None:
            self._write_momenta()


def _never(scheduler: Planned) -> bool:
    return False


def has_begun(scheduler: Any) -> bool:
    """Whether a scheduler did its first step; torch counts the later parts of a SequentialLR back to -1."""
    while hasattr(scheduler, "_schedulers") and not hasattr(scheduler, "last_epoch"):
        scheduler = scheduler._schedulers[0]
    return bool(scheduler.last_epoch >= 0)


# ---- numbers -------------------------------------------------------------------------------------------------


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


def mark(rate: Any) -> Any:
    """What `untouched` recognises a tensor by: its version, so that a device is not waited for."""
    return (rate, rate._version) if isinstance(rate, Tensor) and not rate.is_inference() else None


def untouched(left: Any, rate: Any) -> bool:
    """Whether nobody wrote since `mark(rate)`."""
    return left is not None and left[0] is rate and bool(left[1] == rate._version)


def same(rate: Any, value: float) -> bool:
    """Whether a rate is `value` up to its rounding, or up to torch's recursion where torch wrote it."""
    digits = 4 * torch.finfo(rate.dtype).eps if isinstance(rate, Tensor) and rate.is_floating_point() else 0.0
    return abs(float(rate) - value) <= max(1e-9, digits) * abs(value)
