"""RangeTestResult: what a learning-rate range test found, and what to do with it. Runs no training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from . import _check
from ._lr_range_curve import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .schedules import Schedule

_SHADES = {"flat": "-", "descent": "\\", "divergence": "/"}
_ARRAYS = ("lrs", "losses", "smoothed")


def lr_ratios(optimizers: Sequence[torch.optim.Optimizer]) -> list[float]:
    """Return each group's learning rate over the very first group's; all 1 where that says nothing (a rate of 0).

    It is taken from `initial_lr` where a scheduler keeps one.
    """
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    bases = [float(group.get("initial_lr", group["lr"])) for group in groups]
    if not all(math.isfinite(base) and base > 0 for base in bases):
        return [1.0] * len(bases)
    return [base / bases[0] for base in bases]


def write_lr(optimizer: torch.optim.Optimizer, values: list[float]) -> None:
    """Write one learning rate per group; a tensor is filled in place, as schedulers do."""
    for group, value in zip(optimizer.param_groups, values, strict=True):
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(value)
        else:
            group["lr"] = value


@dataclass(eq=False)
class RangeTestResult:
    """A learning-rate range test: the curve, its phases, a suggestion and how sure it is.

    Attributes:
        lrs: [n] learning rates of the first parameter group.
        losses: [n] raw loss at each; with repeats, their median. Ends before the first loss that is not
            finite.
        smoothed: [n] capped and smoothed losses that the phases are read from.
        suggestion: Learning rate to train with; None if the curve shows no descent (see `reason`).
        reason: Why there is no suggestion; empty otherwise.
        bounds: (base_lr, max_lr) for cyclical schedules, after Smith: the end of the flat phase, and where the loss
            stops falling or, if that is lower, half the rate where it has begun to diverge.
        phases: "flat", "descent", "divergence" -> (lowest, highest) learning rate of each phase that was
            seen.
        candidates: Every rule's learning rate; see `rule` of `range_test`. Where the curve is flat only other
            packages' rules, which do not look at that.
        interval: (low, high), 90 % of the suggestions from curves with resampled noise; batch noise only, not
            the spread over initialisations, which `repeats` shows.
        confidence: In [0, 1]: share of those suggestions within a factor 2 of `suggestion`, halved for each
            phase not seen.
        advice: What would make the test better, in words.
        stopped: Why the test ended before its last learning rate; empty if it did not.
        rule: The rule of the suggestion.
        curves: Raw losses of each repeat.
    """

    lrs: Array
    losses: Array
    smoothed: Array
    suggestion: float | None
    reason: str
    bounds: tuple[float, float] | None
    phases: dict[str, tuple[float, float]]
    candidates: dict[str, float]
    interval: tuple[float, float] | None
    confidence: float
    advice: tuple[str, ...]
    stopped: str = ""
    rule: str = "descent"
    curves: tuple[Array, ...] = field(default=(), repr=False)

    @property
    def observed(self) -> tuple[str, ...]:
        """Names of the phases that were seen."""
        return tuple(self.phases)

    @property
    def decades(self) -> float:
        """Width of `interval` in powers of ten; NaN without a suggestion."""
        return math.nan if self.interval is None else math.log10(self.interval[1] / self.interval[0])

    @property
    def decades_per_step(self) -> float:
        """Powers of ten per step of the ramp, its mean; the suggestion moves with it."""
        return float(math.log10(self.lrs[-1] / self.lrs[0]) / (len(self.lrs) - 1))

    def to_dict(self) -> dict[str, Any]:
        """Return everything in JSON's types."""
        plain: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        plain.update({name: plain[name].tolist() for name in _ARRAYS})
        plain["curves"] = [[loss if math.isfinite(loss) else None for loss in curve] for curve in self.curves]
        plain["phases"] = {name: list(limits) for name, limits in self.phases.items()}
        for name in ("bounds", "interval"):
            plain[name] = None if plain[name] is None else list(plain[name])
        plain["advice"] = list(self.advice)
        return plain

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> RangeTestResult:
        """Make the result again that `to_dict` described.

        Raises:
            ValueError: Entries are missing or unknown.
        """
        names = {f.name for f in fields(cls)}
        if not isinstance(plain, dict) or set(plain) != names:
            raise ValueError(
                f"RangeTestResult: the dictionary must have the entries {sorted(names)}, got {_check.describe(plain)}"
            )
        values = dict(plain)
        values.update({name: np.asarray(plain[name], dtype=np.float64) for name in _ARRAYS})
        values["curves"] = tuple(np.asarray(curve, dtype=np.float64) for curve in plain["curves"])
        values["phases"] = {name: tuple(limits) for name, limits in plain["phases"].items()}
        for name in ("bounds", "interval"):
            values[name] = None if plain[name] is None else tuple(plain[name])
        values["advice"] = tuple(plain["advice"])
        return cls(**values)

    def apply(self, *optimizers: torch.optim.Optimizer) -> float:
        """Write the suggestion into the optimizers of the test; groups keep the ratios of their learning rates.

        In a thalweg optimizer that runs a schedule this replaces the schedule by the constant, as any write
        of `group["lr"]` does.

        Returns:
            The learning rate of the first group.

        Raises:
            TypeError, ValueError: No optimizer; there is no suggestion.
        """
        if not optimizers:
            raise TypeError("RangeTestResult.apply: expected one optimizer or more, got none")
        for optimizer in optimizers:
            _check.instance(
                "RangeTestResult.apply", "optimizer", optimizer, torch.optim.Optimizer, "a torch.optim.Optimizer"
            )
        suggestion: float = self._needed("apply", self.suggestion)
        values = [suggestion * ratio for ratio in lr_ratios(optimizers)]
        for optimizer in optimizers:
            count = len(optimizer.param_groups)
            write_lr(optimizer, values[:count])
            del values[:count]
        return suggestion

    def cyclic(self, step_size: int, mode: str = "triangular", **options: Any) -> Schedule:
        """Return the cyclical schedule between `bounds`, half a cycle being `step_size` steps.

        Args:
            step_size: Steps.
            mode: "triangular", "triangular2" or "exp_range".
            options: Further arguments of the function of that name in `thalweg.schedules`.

        Raises:
            ValueError: There is no suggestion; `mode` is none of these.

        References:
            Smith, "Cyclical Learning Rates for Training Neural Networks", 2017, arXiv:1506.01186, section
            3.3.
        """
        from . import schedules

        _check.choice("RangeTestResult.cyclic", "mode", mode, ("triangular", "triangular2", "exp_range"))
        base_lr, max_lr = self._needed("cyclic", self.bounds)
        schedule: Schedule = getattr(schedules, mode)(base_lr, max_lr, step_size=step_size, **options)
        return schedule

    def one_cycle(self, total_steps: int, **options: Any) -> Schedule:
        """Return the 1cycle schedule of the learning rate whose peak is the upper one of `bounds`.

        Args:
            total_steps: Steps.
            options: Further arguments of `thalweg.schedules.one_cycle`.

        Raises:
            ValueError: There is no suggestion.

        References:
            Smith, Topin, "Super-Convergence", 2018, arXiv:1708.07120.
        """
        from .schedules import one_cycle

        peak = self._needed("one_cycle", self.bounds)[1]
        schedule: Schedule = one_cycle(peak, total_steps=total_steps, **options).lr
        return schedule

    def _needed(self, method: str, value: Any) -> Any:
        if value is None:
            raise ValueError(f"RangeTestResult.{method}: the test gave no suggestion: {self.reason}")
        return value

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the curve with its phases, the suggestion and the bounds; see `thalweg.plot.range_test`."""
        from .plot.range_test import range_test

        return range_test(self, ax)

    def ascii(self, width: int = 72, height: int = 12) -> str:
        r"""Return the smoothed curve as text: x is the learning rate (log), `|` the suggestion, `[ ]` the bounds.

        The line below is shaded by phase: `-` flat, `\` descent, `/` divergence, with their names where they fit.
        """
        who = "RangeTestResult.ascii"
        width, height = _check.integer(who, "width", width, 20), _check.integer(who, "height", height, 3)
        x = np.log10(self.lrs)
        span = max(float(x[-1] - x[0]), 1e-12)

        def column(lr: float) -> int:
            place = (math.log10(lr) - float(x[0])) / span * (width - 1)
            return min(max(round(place), 0), width - 1)

        low, high = float(self.smoothed.min()), float(self.smoothed.max())
        rows = [[" "] * width for _ in range(height)]
        marks = [] if self.suggestion is None else [(self.suggestion, "|")]
        marks += [] if self.bounds is None else [(self.bounds[0], "["), (self.bounds[1], "]")]
        for lr, mark in marks:
            for row in rows:
                row[column(lr)] = mark
        for place in range(width):
            value = float(np.interp(x[0] + span * place / (width - 1), x, self.smoothed))
            share = (high - value) / (high - low) if high > low else 0.5
            rows[min(round(share * (height - 1)), height - 1)][place] = "*"
        labels = [f"{high:>10.4g} ", *[" " * 11] * (height - 2), f"{low:>10.4g} "]
        lines = [label + "".join(row).rstrip() for label, row in zip(labels, rows, strict=True)]
        shades = [" "] * width
        for name, (begin, end) in self.phases.items():
            first, last = column(begin), column(end)
            shades[first : last + 1] = _SHADES[name] * (last + 1 - first)
            if last - first > len(name):
                middle = (first + last + 1 - len(name)) // 2
                shades[middle : middle + len(name)] = name
        lines.append(" " * 11 + "".join(shades).rstrip())
        left, right = f"{self.lrs[0]:.1e}", f"{self.lrs[-1]:.1e}"
        return "\n".join([*lines, " " * 11 + left + "lr".center(width - len(left) - len(right)) + right])

    def __str__(self) -> str:
        """Return the findings in a few lines."""
        if self.suggestion is None:
            head = f"no suggestion: {self.reason}"
        else:
            low, high = self.interval or (math.nan, math.nan)
            grade = "high" if self.confidence >= 0.9 else "medium" if self.confidence >= 0.5 else "low"
            head = (
                f"suggested lr {self.suggestion:.3g} (90 % interval {low:.3g} to {high:.3g}, "
                f"confidence {grade}: {self.confidence:.2f})"
            )
        ramp = f"{len(self.lrs)} steps from {self.lrs[0]:.3g} to {self.lrs[-1]:.3g}"
        lines = [f"range test, {ramp} ({self.decades_per_step:.2g} decades a step): {head}"]
        lines += [f"  {name:<10} {low:.3g} to {high:.3g}" for name, (low, high) in self.phases.items()]
        if self.bounds is not None:
            lines.append(f"  cyclical between {self.bounds[0]:.3g} and {self.bounds[1]:.3g}")
        lines += [f"  stopped: {self.stopped}"] if self.stopped else []
        lines += [f"  advice: {advice}" for advice in self.advice]
        return "\n".join(lines)
