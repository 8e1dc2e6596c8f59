"""Warm-ups: ramps that come before another schedule, or beside it as a factor."""

from __future__ import annotations

from fractions import Fraction

from .. import _check
from ._plan import Tree
from ._registry import constructor
from ._schedule import Schedule, length, rate
from .shapes import leaf, optional_steps
from .units import Steps

# Shift and divisor of (k + shift) / (W + extra) in each team's convention.
STYLES = {"default": (1, 1), "hf": (0, 0), "timm": (0, 0), "plus1": (1, 0), "inclusive": (0, -1)}
WARMUP_SHAPES = ("linear", "cosine", "1-sqrt")


@constructor
def warmup(
    warmup_steps: Steps, lr: float, start: float = 0.0, style: str = "default", shape: str = "linear"
) -> Schedule:
    r"""Warm-up over W steps, then `lr`: :math:`f(k) = start + (lr - start)\,g(p(k))`.

    Args:
        warmup_steps: W ≥ 0 steps; 0 gives an empty piece that `>>` leaves out.
        lr: Value from step W on.
        start: Value that the ramp leaves.
        style: Where the ramp stands. "default": p = (k+1)/(W+1), no dead first step and no step twice at the peak
            when another schedule follows. "hf" and "timm": p = k/W, the first update has `start` (transformers,
            torch's LinearLR, timm). "plus1": p = (k+1)/W, the last warm-up step is at the peak already (llm.c,
            pytorch_warmup). "inclusive": p = k/(W-1), from `start` to the peak within the W steps.
        shape: g(p): "linear" p, "cosine" (1 - cos(πp))/2, "1-sqrt" 1 - √(1-p).

    Returns:
        The schedule, W steps long.

    Raises:
        ValueError: An argument is out of its range.

    Example:
        >>> import thalweg as tw
        >>> (tw.schedules.warmup(3, 1.0) >> tw.schedules.constant(1.0)).values(5)
        array([0.25, 0.5 , 0.75, 1.  , 1.  ])

    References:
        Goyal et al.: Accurate, large minibatch SGD, arXiv 1706.02677, section 2.2.
    """
    warmup_steps = length("warmup", "warmup_steps", warmup_steps, 0)
    lr, start = rate("warmup", "lr", lr), rate("warmup", "start", start)
    shift, extra = STYLES[_check.choice("warmup", "style", style, tuple(STYLES))]
    _check.choice("warmup", "shape", shape, WARMUP_SHAPES)
    begin, end = float(-shift), float(warmup_steps + extra - shift)
    tree = Tree("sqrt", (lr, start, end, begin))  # the curve of a 1-sqrt decay, run backwards
    if end <= begin:
        tree = Tree("constant", (lr,))
    elif shape != "1-sqrt":
        tree = Tree(shape, (start, lr, begin, end))
    arguments = {"warmup_steps": warmup_steps, "lr": lr, "start": start, "style": style, "shape": shape}
    return leaf("warmup", arguments, tree, warmup_steps, endless=False)


@constructor
def exponential_warmup(lr: float, tau: float, start: float = 0.0, total_steps: Steps | None = None) -> Schedule:
    r"""Warm-up that never quite ends: :math:`f(k) = start + (lr - start)\,(1 - e^{-(k+1)/\tau})`.

    Args:
        lr: Value that is approached.
        tau: Time constant in steps, > 0.
        start: Value that the ramp leaves.
        total_steps: Length in steps when another schedule follows; None: without end, as a factor beside another one.

    Returns:
        The schedule.

    Raises:
        ValueError: An argument is out of its range.

    Example:
        >>> import thalweg as tw
        >>> s = tw.schedules.exponential_warmup(1.0, tau=100.0) * tw.schedules.cosine(0.1, total_steps=1_000)
        >>> round(s(99), 4)
        0.0617

    References:
        Ma, Yarats: On the adequacy of untuned warmup for adaptive optimization, arXiv 1910.04209.
    """
    who = "exponential_warmup"
    lr, start = rate(who, "lr", lr), rate(who, "start", start)
    tau = _check.real(who, "tau", tau, above=0)
    total_steps = optional_steps(who, total_steps)
    arguments = {"lr": lr, "tau": tau, "start": start, "total_steps": total_steps}
    return leaf(who, arguments, Tree("approach", (start, lr, tau, -1.0)), total_steps, endless=True)


@constructor
def untuned_warmup(lr: float, beta2: float = 0.999, shape: str = "linear", start: float = 0.0) -> Schedule:
    r"""Warm-up whose length follows from Adam's `beta2`: :math:`W = 2/(1-\beta_2)`, or exponential: :math:`\tau = W/2`.

    Args:
        lr: Value after the warm-up.
        beta2: β₂ in [0, 1), taken as the decimal that it is written as: 0.999 gives 2,000 steps, not 1,999.
        shape: "linear": min(1, (k+1)/W) with W rounded to whole steps, and as long; "exponential": 1 - exp(-(k+1)/τ),
            without end.
        start: Value that the ramp leaves.

    Returns:
        The schedule.

    Raises:
        ValueError: An argument is out of its range.

    Example:
        >>> import thalweg as tw
        >>> s = tw.schedules.untuned_warmup(0.1, beta2=0.999)
        >>> s.total_steps, s(1_999)
        (2000, 0.1)

    References:
        Ma, Yarats: On the adequacy of untuned warmup for adaptive optimization, arXiv 1910.04209, section 5.
    """
    who = "untuned_warmup"
    lr, start = rate(who, "lr", lr), rate(who, "start", start)
    beta2 = _check.real(who, "beta2", beta2, 0, below=1)
    _check.choice(who, "shape", shape, ("linear", "exponential"))
    arguments = {"lr": lr, "beta2": beta2, "shape": shape, "start": start}
    period = 1 / (1 - Fraction(repr(beta2)))
    if shape == "exponential":
        return leaf(who, arguments, Tree("approach", (start, lr, float(period), -1.0)), None, endless=False)
    steps = length(who, "2 / (1 - beta2)", int(2 * period + Fraction(1, 2)))
    tree = Tree("linear", (start, lr, -1.0, float(steps - 1)))
    return leaf(who, arguments, tree, steps, endless=False)
