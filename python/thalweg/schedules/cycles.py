"""Cyclical learning rates: triangular waves with an amplitude that is kept, halved, decayed or given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import _check
from ._plan import Tree
from ._registry import constructor
from ._schedule import Schedule, length, rate, rates
from .shapes import leaf, optional_steps
from .tables import table
from .units import Steps


@constructor
def triangular(
    base_lr: float,
    max_lr: float,
    step_size: Steps,
    step_size_down: Steps | None = None,
    total_steps: Steps | None = None,
) -> Schedule:
    r"""Cyclical learning rate: straight up in `step_size` steps, straight down again.

    .. math:: f(k) = base + (max - base)\,w(k), \qquad w = \text{triangle wave in } [0, 1]

    Args:
        base_lr: Lower bound, the value at step 0.
        max_lr: Upper bound, met at step `step_size`; ≥ base_lr.
        step_size: Steps from base to max.
        step_size_down: Steps from max to base; default `step_size`.
        total_steps: Length in steps; None: without end.

    Returns:
        The schedule; one cycle goes up and down.

    Raises:
        ValueError: An argument is out of its range.

    Example:
        >>> import thalweg as tw
        >>> tw.schedules.triangular(0.0, 1.0, step_size=2).values(6)
        array([0. , 0.5, 1. , 0.5, 0. , 0.5])

    References:
        Smith: Cyclical learning rates for training neural networks, arXiv 1506.01186, section 3.1.
    """
    return _triangular("triangular", base_lr, max_lr, step_size, step_size_down, total_steps, 0, 1.0)


@constructor
def triangular2(
    base_lr: float,
    max_lr: float,
    step_size: Steps,
    step_size_down: Steps | None = None,
    total_steps: Steps | None = None,
) -> Schedule:
    r"""As `triangular`, with the amplitude halved after each cycle: :math:`w(k)\,2^{-cycle}`.

    Args:
        base_lr: Lower bound, the value at step 0.
        max_lr: Upper bound of the first cycle; ≥ base_lr.
        step_size: Steps from base to max.
        step_size_down: Steps from max to base; default `step_size`.
        total_steps: Length in steps; None: without end.

    Returns:
        The schedule.

    Raises:
        ValueError: An argument is out of its range.

    Example:
        >>> import thalweg as tw
        >>> tw.schedules.triangular2(0.0, 1.0, step_size=2).values(8)
        array([0.  , 0.5 , 1.  , 0.5 , 0.  , 0.25, 0.5 , 0.25])

    References:
        Smith, arXiv 1506.01186, section 3.1.
    """
    return _triangular("triangular2", base_lr, max_lr, step_size, step_size_down, total_steps, 1, 1.0)


@constructor
def exp_range(
    base_lr: float,
    max_lr: float,
    step_size: Steps,
    gamma: float,
    step_size_down: Steps | None = None,
    total_steps: Steps | None = None,
) -> Schedule:
    r"""As `triangular`, with the amplitude shrinking in every step: :math:`w(k)\,\gamma^k`.

    Args:
        base_lr: Lower bound, the value at step 0.
        max_lr: Upper bound of the unscaled wave; ≥ base_lr.
        step_size: Steps from base to max.
        gamma: Factor per step, in (0, 1], e.g. 0.99994.
        step_size_down: Steps from max to base; default `step_size`.
        total_steps: Length in steps; None: without end.

    Returns:
        The schedule.

    Raises:
        ValueError: An argument is out of its range.

    Example:
        >>> import thalweg as tw
        >>> tw.schedules.exp_range(0.0, 1.0, step_size=1, gamma=0.5).values(4)
        array([0.   , 0.5  , 0.   , 0.125])

    References:
        Smith, arXiv 1506.01186, section 3.1.
    """
    gamma = _check.real("exp_range", "gamma", gamma, above=0, maximum=1)
    return _triangular("exp_range", base_lr, max_lr, step_size, step_size_down, total_steps, 2, gamma)


@constructor
def cyclic(
    base_lr: float,
    max_lr: float,
    step_size: Steps,
    amplitude: Schedule | Sequence[float],
    per: str = "cycle",
    step_size_down: Steps | None = None,
    total_steps: Steps | None = None,
) -> Schedule:
    r"""As `triangular`, with an amplitude of your own: :math:`f(k) = base + (max - base)\,w(k)\,A`.

    Args:
        base_lr: Lower bound, the value at step 0.
        max_lr: Upper bound where the amplitude is 1; ≥ base_lr.
        step_size: Steps from base to max.
        amplitude: A as a schedule, or as a table of numbers ≥ 0 whose last one is held.
        per: What A counts: "cycle" (A(0) in the first one), "position" (steps since the cycle began), or "step".
        step_size_down: Steps from max to base; default `step_size`.
        total_steps: Length in steps; None: without end.

    Returns:
        The schedule.

    Raises:
        TypeError: The amplitude is neither a schedule nor a list of numbers.
        ValueError: An argument is out of its range.

    Example:
        >>> import thalweg as tw
        >>> tw.schedules.cyclic(0.0, 1.0, step_size=1, amplitude=[1.0, 0.5]).values(6)
        array([0. , 1. , 0. , 0.5, 0. , 0.5])

    References:
        Smith, arXiv 1506.01186, section 3.1.
    """
    base_lr = rate("cyclic", "base_lr", base_lr)
    max_lr = _check.real("cyclic", "max_lr", max_lr, base_lr)
    up = length("cyclic", "step_size", step_size)
    down = up if step_size_down is None else length("cyclic", "step_size_down", step_size_down)
    total_steps = optional_steps("cyclic", total_steps)
    _check.choice("cyclic", "per", per, ("cycle", "position", "step"))
    if not isinstance(amplitude, Schedule):
        _check.instance("cyclic", "amplitude", amplitude, (list, tuple), "a Schedule or a list of numbers")
        if not amplitude:
            raise ValueError("cyclic: amplitude must not be empty; use triangular for an amplitude of 1")
        amplitude = table(rates("cyclic", "amplitude", amplitude))
    arguments: dict[str, Any] = {
        "base_lr": base_lr, "max_lr": max_lr, "step_size": up, "amplitude": amplitude, "per": per,
        "step_size_down": down, "total_steps": total_steps,
    }  # fmt: skip
    height = amplitude._tree
    if per == "cycle":
        height = Tree("every", (up + down,), (height,))
    elif per == "position":
        height = Tree("repeat", (up + down, -1), (height,))
    wave = Tree("triangular", (0.0, max_lr - base_lr, up, down, 0, 1.0))
    tree = Tree("sum", (), (Tree("constant", (base_lr,)), Tree("product", (), (wave, height))))
    return leaf("cyclic", arguments, tree, total_steps, endless=True)


def _triangular(
    who: str,
    base_lr: float,
    max_lr: float,
    step_size: Steps,
    step_size_down: Steps | None,
    total_steps: Steps | None,
    mode: int,
    gamma: float,
) -> Schedule:
    base_lr = rate(who, "base_lr", base_lr)
    max_lr = _check.real(who, "max_lr", max_lr, base_lr)
    up = length(who, "step_size", step_size)
    down = up if step_size_down is None else length(who, "step_size_down", step_size_down)
    if total_steps is not None:
        total_steps = length(who, "total_steps", total_steps)
    arguments: dict[str, Any] = {
        "base_lr": base_lr,
        "max_lr": max_lr,
        "step_size": up,
        "step_size_down": down,
    }
    if who == "exp_range":
        arguments["gamma"] = gamma
    arguments["total_steps"] = total_steps
    tree = Tree("triangular", (base_lr, max_lr, up, down, mode, gamma))
    return leaf(who, arguments, tree, total_steps, endless=True)
