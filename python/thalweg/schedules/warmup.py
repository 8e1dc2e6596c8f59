"""Warm-ups: ramps that come before another schedule."""

from __future__ import annotations

from .. import _check
from ._plan import Tree
from ._schedule import Schedule, length, rate
from .shapes import leaf

# Shift and divisor of (k + shift) / (W + extra) in each team's convention.
_STYLES = {"default": (1, 1), "hf": (0, 0), "plus1": (1, 0)}


def warmup(warmup_steps: int, lr: float, start: float = 0.0, style: str = "default") -> Schedule:
    r"""Linear warm-up over W steps, then `lr`: :math:`f(k) = start + (lr - start)\,p(k)`.

    Args:
        warmup_steps: W ≥ 0 steps; 0 gives an empty piece that `>>` leaves out.
        lr: Value from step W on.
        start: Value that the ramp leaves.
        style: Where the ramp stands. "default": p = (k+1)/(W+1), no dead first step and no step twice at the peak
            when another schedule follows. "hf": p = k/W, the first update has `start` (transformers). "plus1":
            p = (k+1)/W, the last warm-up step is at the peak already (llm.c, pytorch_warmup).

    Returns:
        The schedule, W steps long.

    Raises:
        ValueError: An argument is out of its range.

    Example:
        >>> import thalweg as tw
        >>> (tw.schedules.warmup(3, 1.0) >> tw.schedules.constant(1.0)).values(5)
        array([0.25, 0.5 , 0.75, 1.  , 1.  ])
    """
    warmup_steps = length("warmup", "warmup_steps", warmup_steps, 0)
    lr, start = rate("warmup", "lr", lr), rate("warmup", "start", start)
    _check.choice("warmup", "style", style, tuple(_STYLES))
    shift, extra = _STYLES[style]
    begin, end = float(-shift), float(warmup_steps + extra - shift)
    tree = Tree("linear", (start, lr, begin, end)) if end > begin else Tree("constant", (lr,))
    arguments = {"warmup_steps": warmup_steps, "lr": lr, "start": start, "style": style}
    return leaf("warmup", arguments, tree, warmup_steps, endless=False)
