"""Noise as a factor, drawn from the step alone: the same after a resume, in any order, on any device."""

from __future__ import annotations

import math

from .. import _check
from ._plan import Tree
from ._registry import constructor
from ._schedule import Schedule
from .shapes import leaf, optional_steps
from .units import Steps

_LEAST = 2.0**-53  # of a quantile: the normal draw is cut at 8.2 standard deviations at the latest


@constructor
def noise(
    amplitude: float = 0.67,
    seed: int = 0,
    distribution: str = "normal",
    std: float = 1.0,
    total_steps: Steps | None = None,
) -> Schedule:
    r"""A random factor around 1: :math:`f(k) = 1 + x_k`, :math:`|x_k| \le amplitude`, to be multiplied with a schedule.

    x is drawn by Philox4x32-10 from (seed, k), without a state.

    Args:
        amplitude: Bound of x, in (0, 1].
        seed: Key of the draws, in [0, 2⁶³).
        distribution: "normal": with standard deviation `std`, truncated at ± amplitude; "uniform".
        std: Standard deviation of the normal distribution before it is truncated, > 0.
        total_steps: Length in steps; None: without end.

    Returns:
        The schedule.

    Raises:
        ValueError: An argument is out of its range.

    Example:
        >>> import thalweg as tw
        >>> s = tw.schedules.cosine(0.1, total_steps=100) * tw.schedules.noise(0.1, seed=1)
        >>> 0.9 <= s(50) / 0.05 <= 1.1
        True

    References:
        Salmon et al.: Parallel random numbers: as easy as 1, 2, 3, SC'11; timm's lr_noise.
    """
    amplitude = _check.real("noise", "amplitude", amplitude, above=0, maximum=1)
    seed = _check.integer("noise", "seed", seed, 0, 2**63 - 1)
    _check.choice("noise", "distribution", distribution, ("normal", "uniform"))
    std = _check.real("noise", "std", std, above=0)
    total_steps = optional_steps("noise", total_steps)
    arguments = {
        "amplitude": amplitude, "seed": seed, "distribution": distribution, "std": std, "total_steps": total_steps
    }  # fmt: skip
    low = max(math.erfc(amplitude / std / math.sqrt(2)) / 2, _LEAST)  # quantile of -amplitude
    if distribution == "uniform":
        tree = Tree("noise", (amplitude, 1, _LEAST, 0.0, seed))
    else:
        tree = Tree("noise", (std, 0, low, 1 - 2 * low, seed))
    return leaf("noise", arguments, tree, total_steps, endless=True)
