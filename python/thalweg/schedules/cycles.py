"""Cyclic schedules: warm restarts, snapshot cosine, triangular waves. They know their own cycle ends."""

from __future__ import annotations

from typing import Any

from .. import _check
from ._plan import Tree
from ._schedule import Schedule, length, rate
from .shapes import leaf


def sgdr(
    lr: float,
    t_0: int,
    t_mult: int = 1,
    eta_min: float = 0.0,
    decay: float = 1.0,
    total_steps: int | None = None,
) -> Schedule:
    r"""Cosine annealing with warm restarts, exact at every boundary.

    .. math:: f(k) = \eta_{min} + (lr\,d^i - \eta_{min})\,(1 + \cos(\pi T_{cur}/T_i))/2, \qquad T_{i+1} = m\,T_i

    Args:
        lr: Peak of the first cycle.
        t_0: Length of the first cycle in steps.
        t_mult: m ≥ 1, integer factor from one cycle's length to the next.
        eta_min: Lower end of the wave, at most `lr`.
        decay: d > 0, factor from one cycle's peak to the next; no peak falls below `eta_min`.
        total_steps: Length in steps; None: without end. The curve is held where it stands then: at the foot when a
            cycle is just complete, never at the next peak.

    Returns:
        The schedule; `is_cycle_end(t_0 - 1)` is true.

    Raises:
        ValueError: An argument is out of its range.

    Example:
        >>> import thalweg as tw
        >>> s = tw.schedules.sgdr(0.1, t_0=1, t_mult=3)
        >>> [k for k in range(1, 200) if s(k) == 0.1]
        [1, 4, 13, 40, 121]

    References:
        Loshchilov, Hutter: SGDR, arXiv 1608.03983, equation 5.
    """
    lr = rate("sgdr", "lr", lr)
    eta_min = rate("sgdr", "eta_min", eta_min, lr)
    t_0, t_mult = length("sgdr", "t_0", t_0), length("sgdr", "t_mult", t_mult)
    decay = _check.real("sgdr", "decay", decay, above=0)
    if total_steps is not None:
        total_steps = length("sgdr", "total_steps", total_steps)
    arguments = {
        "lr": lr, "t_0": t_0, "t_mult": t_mult, "eta_min": eta_min, "decay": decay, "total_steps": total_steps
    }  # fmt: skip
    end = -1 if total_steps is None else total_steps
    tree = Tree("sgdr", (lr, eta_min, t_0, t_mult, decay, end))
    return leaf("sgdr", arguments, tree, total_steps, endless=False)


def snapshot_cosine(lr: float, total_steps: int, cycles: int, split: str = "ceil", eta_min: float = 0.0) -> Schedule:
    r"""M equal cosine cycles within a fixed budget, as snapshot ensembles use them.

    .. math:: f(k) = \eta_{min} + (lr - \eta_{min})\,(1 + \cos(\pi\,(k \bmod L)/L))/2, \qquad L = \lceil T/M \rceil

    Args:
        lr: Peak of every cycle (0.1 or 0.2 in the paper).
        total_steps: Budget T in steps.
        cycles: Number M of cycles, at most T.
        split: "ceil" as in the paper: when M does not divide T the last cycle is cut short, above `eta_min`.
            "even": the remainder is spread, so every cycle comes down. The curve is held where it stands at T.
        eta_min: Lower end of the wave, at most `lr`.

    Returns:
        The schedule; the last step of each cycle is a cycle end.

    Raises:
        ValueError: An argument is out of its range.

    Example:
        >>> import thalweg as tw
        >>> tw.schedules.snapshot_cosine(0.2, total_steps=100, cycles=5).cycle_ends()
        [19, 39, 59, 79, 99]

    References:
        Huang et al.: Snapshot ensembles, arXiv 1704.00109, equation 2.
    """
    who = "snapshot_cosine"
    lr = rate(who, "lr", lr)
    eta_min = rate(who, "eta_min", eta_min, lr)
    total_steps = length(who, "total_steps", total_steps)
    cycles = _check.integer(who, "cycles", cycles, 1, total_steps)
    if total_steps * cycles > 2**60:
        raise ValueError(f"{who}: total_steps * cycles must be at most 2**60, got {total_steps} and {cycles}")
    _check.choice(who, "split", split, ("ceil", "even"))
    tree = Tree("split", (lr, eta_min, total_steps, cycles, int(split == "even")))
    arguments = {"lr": lr, "total_steps": total_steps, "cycles": cycles, "split": split, "eta_min": eta_min}
    return leaf(who, arguments, tree, total_steps, endless=False)


def triangular(
    base_lr: float,
    max_lr: float,
    step_size: int,
    step_size_down: int | None = None,
    total_steps: int | None = None,
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


def triangular2(
    base_lr: float,
    max_lr: float,
    step_size: int,
    step_size_down: int | None = None,
    total_steps: int | None = None,
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


def exp_range(
    base_lr: float,
    max_lr: float,
    step_size: int,
    gamma: float,
    step_size_down: int | None = None,
    total_steps: int | None = None,
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


def _triangular(
    who: str,
    base_lr: float,
    max_lr: float,
    step_size: int,
    step_size_down: int | None,
    total_steps: int | None,
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
