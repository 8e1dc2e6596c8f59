"""Decays: step, multistep, exponential, inverse time, inverse square root, Noam; and the ramp of a range test."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .. import _check
from ._plan import Tree
from ._registry import constructor
from ._schedule import Schedule, length, rate
from .shapes import leaf, optional_steps
from .units import Steps


@constructor
def step(lr: float, step_size: Steps, gamma: float = 0.1, total_steps: Steps | None = None) -> Schedule:
    r"""Step decay: :math:`f(k) = lr\,\gamma^{\lfloor k/S \rfloor}`.

    Args:
        lr: Value at step 0.
        step_size: S, steps between two decays.
        gamma: Factor of a decay, ≥ 0.
        total_steps: Length in steps; None: without end.

    Returns:
        The schedule.

    Raises:
        ValueError: An argument is out of its range.

    Example:
        >>> import thalweg as tw
        >>> tw.schedules.step(1.0, step_size=3, gamma=0.5).values(7)
        array([1.  , 1.  , 1.  , 0.5 , 0.5 , 0.5 , 0.25])
    """
    lr, gamma = rate("step", "lr", lr), _check.real("step", "gamma", gamma, 0)
    step_size = length("step", "step_size", step_size)
    total_steps = optional_steps("step", total_steps)
    arguments = {"lr": lr, "step_size": step_size, "gamma": gamma, "total_steps": total_steps}
    return leaf("step", arguments, Tree("step", (lr, gamma, step_size)), total_steps, endless=True)


@constructor
def multistep(lr: float, milestones: Sequence[Steps], gamma: float = 0.1, total_steps: Steps | None = None) -> Schedule:
    r"""Step decay at given steps: :math:`f(k) = lr\,\gamma^{\#\{m_i \le k\}}`.

    Args:
        lr: Value at step 0.
        milestones: Steps m_i at which the value is multiplied, ascending; a repeated one counts twice.
        gamma: Factor of a decay, ≥ 0.
        total_steps: Length in steps; None: without end.

    Returns:
        The schedule.

    Raises:
        ValueError: The milestones do not ascend, or an argument is out of its range.

    Example:
        >>> import thalweg as tw
        >>> tw.schedules.multistep(1.0, [2, 4], gamma=0.5).values(5)
        array([1.  , 1.  , 0.5 , 0.5 , 0.25])
    """
    lr, gamma = rate("multistep", "lr", lr), _check.real("multistep", "gamma", gamma, 0)
    _check.instance("multistep", "milestones", milestones, (list, tuple, range), "a list of steps")
    steps = tuple(length("multistep", f"milestones[{i}]", m, 0) for i, m in enumerate(milestones))
    if list(steps) != sorted(steps):
        raise ValueError(f"multistep: milestones must ascend, got {list(steps)}")
    if not steps:
        raise ValueError("multistep: milestones must not be empty; use constant(lr) for no decay")
    total_steps = optional_steps("multistep", total_steps)
    arguments = {"lr": lr, "milestones": steps, "gamma": gamma, "total_steps": total_steps}
    return leaf("multistep", arguments, Tree("multistep", (lr, gamma, steps)), total_steps, endless=True)


@constructor
def exponential(lr: float, gamma: float, total_steps: Steps | None = None) -> Schedule:
    r"""Exponential decay: :math:`f(k) = lr\,\gamma^k`.

    Args:
        lr: Value at step 0.
        gamma: Factor of one step, ≥ 0.
        total_steps: Length in steps; None: without end.

    Returns:
        The schedule.

    Raises:
        ValueError: An argument is out of its range.

    Example:
        >>> import thalweg as tw
        >>> tw.schedules.exponential(1.0, gamma=0.5)(3)
        0.125
    """
    lr, gamma = rate("exponential", "lr", lr), _check.real("exponential", "gamma", gamma, 0)
    total_steps = optional_steps("exponential", total_steps)
    arguments = {"lr": lr, "gamma": gamma, "total_steps": total_steps}
    return leaf("exponential", arguments, Tree("exponential", (lr, gamma)), total_steps, endless=True)


@constructor
def inverse_time(
    lr: float, decay_rate: float, decay_steps: Steps = 1, staircase: bool = False, total_steps: Steps | None = None
) -> Schedule:
    r"""Inverse-time decay: :math:`f(t) = lr / (1 + r\,t/S)`, with the quotient t/S rounded down as a staircase.

    Args:
        lr: Value at step 0.
        decay_rate: r ≥ 0.
        decay_steps: S, steps in which the denominator grows by r.
        staircase: Move once every S steps only.
        total_steps: Length in steps; None: without end.

    Returns:
        The schedule.

    Raises:
        ValueError: An argument is out of its range.

    Example:
        >>> import thalweg as tw
        >>> tw.schedules.inverse_time(1.0, decay_rate=0.5, decay_steps=2).values(5)[::2]
        array([1.        , 0.66666667, 0.5       ])

    References:
        Robbins, Monro: A stochastic approximation method, 1951; keras InverseTimeDecay.
    """
    who = "inverse_time"
    lr, decay_rate = rate(who, "lr", lr), rate(who, "decay_rate", decay_rate)
    decay_steps = length(who, "decay_steps", decay_steps)
    _check.instance(who, "staircase", staircase, bool, "True or False")
    total_steps = optional_steps(who, total_steps)
    tree = Tree("inverse_time", (lr, decay_rate, 1.0 if staircase else float(decay_steps)))
    if staircase:
        tree = Tree("every", (decay_steps,), (tree,))
    arguments = {
        "lr": lr, "decay_rate": decay_rate, "decay_steps": decay_steps, "staircase": staircase,
        "total_steps": total_steps,
    }  # fmt: skip
    return leaf(who, arguments, tree, total_steps, endless=True)


@constructor
def inverse_sqrt(lr: float, timescale: Steps, shift: Steps | None = None, total_steps: Steps | None = None) -> Schedule:
    r"""Inverse square root: :math:`f(t) = lr\,\sqrt{\tau / (t + s)}`.

    Args:
        lr: Value at step 0 while s = τ.
        timescale: τ in steps; with a warm-up before, usually its length.
        shift: s in steps; default τ, so that the curve goes on where a warm-up of τ steps ended.
        total_steps: Length in steps; None: without end.

    Returns:
        The schedule.

    Raises:
        ValueError: An argument is out of its range.

    Example:
        >>> import thalweg as tw
        >>> s = tw.schedules.warmup(100, 0.1, style="hf") >> tw.schedules.inverse_sqrt(0.1, timescale=100)
        >>> s(100), s(400)
        (0.1, 0.05)

    References:
        Raffel et al.: T5, arXiv 1910.10683, section 3.1.2; Zhai et al.: Scaling vision transformers, arXiv 2106.04560.
    """
    who = "inverse_sqrt"
    lr = rate(who, "lr", lr)
    timescale = length(who, "timescale", timescale)
    shift = timescale if shift is None else length(who, "shift", shift)
    total_steps = optional_steps(who, total_steps)
    arguments = {"lr": lr, "timescale": timescale, "shift": shift, "total_steps": total_steps}
    tree = Tree("inverse_sqrt", (lr, float(timescale), float(shift)))
    return leaf(who, arguments, tree, total_steps, endless=True)


@constructor
def noam(d_model: int, warmup_steps: Steps, factor: float = 1.0, total_steps: Steps | None = None) -> Schedule:
    r"""The Transformer's schedule: :math:`f(k) = c\,d^{-1/2} \min((k+1)^{-1/2}, (k+1)\,W^{-3/2})`.

    Args:
        d_model: Width d of the model.
        warmup_steps: W ≥ 0; the peak stands at step W - 1.
        factor: c ≥ 0.
        total_steps: Length in steps; None: without end.

    Returns:
        The schedule.

    Raises:
        ValueError: An argument is out of its range.

    Example:
        >>> import thalweg as tw
        >>> s = tw.schedules.noam(d_model=64, warmup_steps=4)
        >>> s(1), s(3), s(15)
        (0.03125, 0.0625, 0.03125)

    References:
        Vaswani et al.: Attention is all you need, arXiv 1706.03762, equation 3.
    """
    d_model = _check.integer("noam", "d_model", d_model, 1)
    warmup_steps = length("noam", "warmup_steps", warmup_steps, 0)
    factor = rate("noam", "factor", factor)
    total_steps = optional_steps("noam", total_steps)
    w = max(warmup_steps, 1)
    peak = factor / math.sqrt(d_model * w)
    tree = Tree("inverse_sqrt", (peak, float(w), float(w + 1)))
    rise = Tree("linear", (0.0, peak, -1.0, float(w - 1)))
    tree = Tree("sequence", ((0, w),), (rise, tree))
    arguments = {"d_model": d_model, "warmup_steps": warmup_steps, "factor": factor, "total_steps": total_steps}
    return leaf("noam", arguments, tree, total_steps, endless=True)


@constructor
def geometric(min_lr: float, max_lr: float, num_steps: Steps) -> Schedule:
    r"""Ramp of a range test, both ends met exactly: :math:`f(k) = min\_lr\,(max\_lr/min\_lr)^{k/(n-1)}`.

    Args:
        min_lr: Value at step 0, > 0.
        max_lr: Value at step n - 1, > 0.
        num_steps: Number n ≥ 2 of steps.

    Returns:
        The schedule.

    Raises:
        ValueError: An argument is out of its range.

    Example:
        >>> import thalweg as tw
        >>> tw.schedules.geometric(1e-4, 1.0, num_steps=5).values(5)
        array([1.e-04, 1.e-03, 1.e-02, 1.e-01, 1.e+00])

    References:
        Smith: Cyclical learning rates, arXiv 1506.01186, section 3.3.
    """
    min_lr = _check.real("geometric", "min_lr", min_lr, above=0)
    max_lr = _check.real("geometric", "max_lr", max_lr, above=0)
    _check.real("geometric", "max_lr / min_lr", max_lr / min_lr, above=0)
    num_steps = length("geometric", "num_steps", num_steps, 2)
    arguments = {"min_lr": min_lr, "max_lr": max_lr, "num_steps": num_steps}
    return leaf("geometric", arguments, Tree("geometric", (min_lr, max_lr, num_steps - 1)), num_steps, endless=False)
