"""Schedules of one shape: constant, ramps and decays. The values come from cpp/include/thalweg/schedule_shapes.hpp."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import _check
from ._plan import Tree
from ._schedule import Schedule, length, rate


def leaf(kind: str, arguments: dict[str, Any], tree: Tree, total_steps: int | None, *, endless: bool) -> Schedule:
    """A schedule of one node; an endless shape that is given a length holds f(T) from there on."""
    if endless and total_steps is not None:
        tree = Tree("hold", (total_steps,), (tree,))
    return Schedule(kind, arguments, tree, total_steps)


def _optional_steps(who: str, total_steps: int | None) -> int | None:
    return None if total_steps is None else length(who, "total_steps", total_steps)


def constant(lr: float, total_steps: int | None = None) -> Schedule:
    r"""The same value at every step: :math:`f(k) = lr`.

    Args:
        lr: The value, ≥ 0.
        total_steps: Length in steps when another schedule follows; None: without end.

    Returns:
        The schedule.

    Raises:
        ValueError: `lr` is negative or not finite, or `total_steps` is not positive.

    Example:
        >>> import thalweg as tw
        >>> tw.schedules.constant(0.1)(1_000_000)
        0.1
    """
    lr = rate("constant", "lr", lr)
    total_steps = _optional_steps("constant", total_steps)
    return leaf(
        "constant",
        {"lr": lr, "total_steps": total_steps},
        Tree("constant", (lr,)),
        total_steps,
        endless=False,
    )


def linear(lr: float, total_steps: int, end_lr: float = 0.0) -> Schedule:
    r"""Straight line from `lr` to `end_lr`: :math:`f(k) = (lr\,(T-k) + end\_lr\,k)/T`.

    Args:
        lr: Value at step 0.
        total_steps: Length T in steps; `end_lr` is met at step T.
        end_lr: Value from step T on.

    Returns:
        The schedule.

    Raises:
        ValueError: A value is negative or not finite, or `total_steps` is not positive.

    Example:
        >>> import thalweg as tw
        >>> tw.schedules.linear(1.0, total_steps=4).values(5)
        array([1.  , 0.75, 0.5 , 0.25, 0.  ])
    """
    lr, end_lr = rate("linear", "lr", lr), rate("linear", "end_lr", end_lr)
    total_steps = length("linear", "total_steps", total_steps)
    tree = Tree("linear", (lr, end_lr, 0.0, float(total_steps)))
    arguments = {"lr": lr, "total_steps": total_steps, "end_lr": end_lr}
    return leaf("linear", arguments, tree, total_steps, endless=False)


def step(lr: float, step_size: int, gamma: float = 0.1, total_steps: int | None = None) -> Schedule:
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
    total_steps = _optional_steps("step", total_steps)
    arguments = {"lr": lr, "step_size": step_size, "gamma": gamma, "total_steps": total_steps}
    return leaf("step", arguments, Tree("step", (lr, gamma, step_size)), total_steps, endless=True)


def multistep(lr: float, milestones: Sequence[int], gamma: float = 0.1, total_steps: int | None = None) -> Schedule:
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
    total_steps = _optional_steps("multistep", total_steps)
    arguments = {"lr": lr, "milestones": steps, "gamma": gamma, "total_steps": total_steps}
    return leaf("multistep", arguments, Tree("multistep", (lr, gamma, steps)), total_steps, endless=True)


def exponential(lr: float, gamma: float, total_steps: int | None = None) -> Schedule:
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
    total_steps = _optional_steps("exponential", total_steps)
    arguments = {"lr": lr, "gamma": gamma, "total_steps": total_steps}
    return leaf("exponential", arguments, Tree("exponential", (lr, gamma)), total_steps, endless=True)


def polynomial(lr: float, total_steps: int, power: float = 1.0, eta_min: float = 0.0) -> Schedule:
    r"""Polynomial decay: :math:`f(k) = \eta_{min} + (lr - \eta_{min})(1 - k/T)^p`.

    Args:
        lr: Value at step 0.
        total_steps: Length T in steps; `eta_min` is met at step T.
        power: Exponent p > 0.
        eta_min: Value from step T on, at most `lr`.

    Returns:
        The schedule.

    Raises:
        ValueError: An argument is out of its range.

    Example:
        >>> import thalweg as tw
        >>> tw.schedules.polynomial(1.0, total_steps=4, power=2.0).values(5)
        array([1.    , 0.5625, 0.25  , 0.0625, 0.    ])
    """
    lr = rate("polynomial", "lr", lr)
    eta_min = rate("polynomial", "eta_min", eta_min, lr)
    total_steps = length("polynomial", "total_steps", total_steps)
    power = _check.real("polynomial", "power", power, above=0)
    arguments = {"lr": lr, "total_steps": total_steps, "power": power, "eta_min": eta_min}
    return leaf(
        "polynomial",
        arguments,
        Tree("polynomial", (lr, eta_min, total_steps, power)),
        total_steps,
        endless=False,
    )


def cosine(lr: float, total_steps: int, eta_min: float = 0.0, end: str = "exclusive") -> Schedule:
    r"""Half a cosine wave: :math:`f(k) = \eta_{min} + (lr - \eta_{min})\,(1 + \cos(\pi k/T))/2`.

    Args:
        lr: Value at step 0.
        total_steps: Length in steps.
        eta_min: Value from the end on, at most `lr`.
        end: "exclusive": T = total_steps, `eta_min` is first met after the last step. "inclusive":
            T = total_steps - 1, the last step uses `eta_min` itself.

    Returns:
        The schedule.

    Raises:
        ValueError: An argument is out of its range.

    Example:
        >>> import thalweg as tw
        >>> tw.schedules.cosine(0.2, total_steps=2).values(3)
        array([0.2, 0.1, 0. ])

    References:
        Loshchilov, Hutter: SGDR, arXiv 1608.03983, equation 5.
    """
    lr = rate("cosine", "lr", lr)
    eta_min = rate("cosine", "eta_min", eta_min, lr)
    total_steps = length("cosine", "total_steps", total_steps)
    _check.choice("cosine", "end", end, ("exclusive", "inclusive"))
    wave = total_steps if end == "exclusive" else total_steps - 1
    tree = Tree("cosine", (lr, eta_min, 0.0, float(wave))) if wave else Tree("constant", (eta_min,))
    arguments = {"lr": lr, "total_steps": total_steps, "eta_min": eta_min, "end": end}
    return leaf("cosine", arguments, tree, total_steps, endless=False)


def geometric(min_lr: float, max_lr: float, num_steps: int) -> Schedule:
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
