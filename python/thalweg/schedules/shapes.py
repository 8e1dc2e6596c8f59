"""Ramps and annealing over a known number of steps: constant, linear, polynomial, cosine, REX, tanh, flat-then-cosine."""

from __future__ import annotations

import math
from typing import Any

from .. import _check
from ._plan import Tree
from ._registry import constructor
from ._schedule import Schedule, length, rate
from .units import Steps


def leaf(kind: str, arguments: dict[str, Any], tree: Tree, total_steps: int | None, *, endless: bool) -> Schedule:
    """A schedule of one node; an endless shape that is given a length holds f(T) from there on."""
    if endless and total_steps is not None:
        tree = Tree("hold", (total_steps,), (tree,))
    return Schedule(kind, arguments, tree, total_steps)


def optional_steps(who: str, total_steps: Steps | None) -> int | None:
    """Check the length of a schedule that may have none."""
    return None if total_steps is None else length(who, "total_steps", total_steps)


def wave_length(who: str, total_steps: int, end: str) -> int:
    """Steps from the first value of a ramp to its last, by the convention `end`."""
    return total_steps - (_check.choice(who, "end", end, ("exclusive", "inclusive")) == "inclusive")


def ramp(
    kind: str, arguments: dict[str, Any], node: str, ends: tuple[float, float], total_steps: int, end: str
) -> Schedule:
    """A ramp from ends[0] to ends[1]; of no length, it is its end."""
    n = wave_length(kind, total_steps, end)
    tree = Tree(node, (*ends, 0.0, float(n))) if n else Tree("constant", (ends[1],))
    return leaf(kind, arguments, tree, total_steps, endless=False)


def decayed(kind: str, arguments: dict[str, Any], shape: tuple[float, float, int]) -> Schedule:
    """A ramp from lr to eta_min whose clock or value has a power: shape is k, exponent, whether it is a wave."""
    n = wave_length(kind, arguments["total_steps"], arguments["end"])
    lr, eta_min = arguments["lr"], arguments["eta_min"]
    tree = Tree("decayed", (lr, eta_min, float(n), *shape)) if n else Tree("constant", (eta_min,))
    return leaf(kind, arguments, tree, arguments["total_steps"], endless=False)


@constructor
def constant(lr: float, total_steps: Steps | None = None) -> Schedule:
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
    total_steps = optional_steps("constant", total_steps)
    return leaf(
        "constant",
        {"lr": lr, "total_steps": total_steps},
        Tree("constant", (lr,)),
        total_steps,
        endless=False,
    )


@constructor
def linear(lr: float, total_steps: Steps, end_lr: float = 0.0, end: str = "exclusive") -> Schedule:
    r"""Straight line from `lr` to `end_lr`: :math:`f(k) = (lr\,(T-k) + end\_lr\,k)/T`, held after T.

    Args:
        lr: Value at step 0.
        total_steps: Length in steps.
        end_lr: Value from the end on.
        end: "exclusive": T = total_steps, `end_lr` is first met after the last step. "inclusive": T = total_steps - 1, the
            last step uses `end_lr` itself.

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
    arguments = {"lr": lr, "total_steps": total_steps, "end_lr": end_lr, "end": end}
    return ramp("linear", arguments, "linear", (lr, end_lr), total_steps, end)


@constructor
def polynomial(
    lr: float,
    total_steps: Steps,
    power: float = 1.0,
    eta_min: float = 0.0,
    end: str = "exclusive",
    k: float = 1.0,
) -> Schedule:
    r"""Polynomial decay: :math:`f(t) = \eta_{min} + (lr - \eta_{min})\,(1 - (t/T)^k)^p`.

    Args:
        lr: Value at step 0.
        total_steps: Length in steps.
        power: Exponent p > 0.
        eta_min: Value from the end on, at most `lr`.
        end: "exclusive": T = total_steps, `eta_min` is first met after the last step. "inclusive": T = total_steps - 1, the
            last step uses `eta_min` itself.
        k: Power of the clock, > 0: k-decay; 1 is the plain polynomial. Both: a power above 2 multiplies rounding.

    Returns:
        The schedule.

    Raises:
        ValueError: An argument is out of its range.

    Example:
        >>> import thalweg as tw
        >>> tw.schedules.polynomial(1.0, total_steps=4, power=2.0).values(5)
        array([1.    , 0.5625, 0.25  , 0.0625, 0.    ])

    References:
        Zhang, Li: k-decay, arXiv 2004.05909.
    """
    lr = rate("polynomial", "lr", lr)
    eta_min = rate("polynomial", "eta_min", eta_min, lr)
    total_steps = length("polynomial", "total_steps", total_steps)
    power = _check.real("polynomial", "power", power, above=0)
    k = _check.real("polynomial", "k", k, above=0)
    arguments = {"lr": lr, "total_steps": total_steps, "power": power, "eta_min": eta_min, "end": end, "k": k}
    if k != 1.0:
        return decayed("polynomial", arguments, (k, power, 0))
    n = wave_length("polynomial", total_steps, end)
    tree = Tree("polynomial", (lr, eta_min, n, power)) if n else Tree("constant", (eta_min,))
    return leaf("polynomial", arguments, tree, total_steps, endless=False)


@constructor
def cosine(
    lr: float, total_steps: Steps, eta_min: float = 0.0, end: str = "exclusive", exponent: float = 1.0, k: float = 1.0
) -> Schedule:
    r"""Half a cosine wave: :math:`f(t) = \eta_{min} + (lr - \eta_{min})\,((1 + \cos(\pi (t/T)^k))/2)^p`.

    Args:
        lr: Value at step 0.
        total_steps: Length in steps.
        eta_min: Value from the end on, at most `lr`.
        end: "exclusive": T = total_steps, `eta_min` is first met after the last step. "inclusive": T = total_steps - 1, the
            last step uses `eta_min` itself.
        exponent: Power p > 0 of the wave; 1 is the plain cosine. Beside k, or above 16, it multiplies rounding.
        k: Power of the clock, > 0: k-decay; above 1 the rate stays high for longer.

    Returns:
        The schedule.

    Raises:
        ValueError: An argument is out of its range.

    Example:
        >>> import thalweg as tw
        >>> tw.schedules.cosine(0.2, total_steps=2).values(3)
        array([0.2, 0.1, 0. ])

    References:
        Loshchilov, Hutter: SGDR, arXiv 1608.03983, equation 5; Zhang, Li: k-decay, arXiv 2004.05909.
    """
    lr = rate("cosine", "lr", lr)
    eta_min = rate("cosine", "eta_min", eta_min, lr)
    total_steps = length("cosine", "total_steps", total_steps)
    exponent = _check.real("cosine", "exponent", exponent, above=0)
    k = _check.real("cosine", "k", k, above=0)
    arguments = {
        "lr": lr, "total_steps": total_steps, "eta_min": eta_min, "end": end, "exponent": exponent, "k": k
    }  # fmt: skip
    if exponent == k == 1.0:
        return ramp("cosine", arguments, "cosine", (lr, eta_min), total_steps, end)
    return decayed("cosine", arguments, (k, exponent, 1))


@constructor
def rex(lr: float, total_steps: Steps, eta_min: float = 0.0, end: str = "exclusive") -> Schedule:
    r"""REX, reflected exponential: :math:`f(t) = \eta_{min} + (lr - \eta_{min})\,(1 - p)/(1 - p/2)`, :math:`p = t/T`.

    Args:
        lr: Value at step 0.
        total_steps: Length in steps.
        eta_min: Value from the end on, at most `lr`.
        end: "exclusive": T = total_steps, `eta_min` is first met after the last step. "inclusive": T = total_steps - 1, the
            last step uses `eta_min` itself.

    Returns:
        The schedule.

    Raises:
        ValueError: An argument is out of its range.

    Example:
        >>> import thalweg as tw
        >>> tw.schedules.rex(0.3, total_steps=2).values(3)
        array([0.3, 0.2, 0. ])

    References:
        Chen, Wolfe, Kyrillidis: REX, arXiv 2107.04197.
    """
    lr = rate("rex", "lr", lr)
    eta_min = rate("rex", "eta_min", eta_min, lr)
    total_steps = length("rex", "total_steps", total_steps)
    arguments = {"lr": lr, "total_steps": total_steps, "eta_min": eta_min, "end": end}
    return ramp("rex", arguments, "rex", (lr, eta_min), total_steps, end)


@constructor
def tanh(lr: float, total_steps: Steps, lower: float = -7.0, upper: float = 3.0, eta_min: float = 0.0) -> Schedule:
    r"""Hyperbolic-tangent decay: :math:`f(t) = \eta_{min} + (lr - \eta_{min})\,(1 - \tanh(L(1-p) + Up))/2`, :math:`p = t/T`.

    Args:
        lr: Upper end of the curve, which is approached as `lower` falls.
        total_steps: Length T in steps.
        lower: L, argument of tanh at step 0.
        upper: U > L, argument at step T.
        eta_min: Lower end of the curve, at most `lr`.

    Returns:
        The schedule.

    Raises:
        ValueError: An argument is out of its range.

    Example:
        >>> import thalweg as tw
        >>> tw.schedules.tanh(0.2, total_steps=2, lower=-4.0, upper=4.0)(1)
        0.1

    References:
        Hsueh et al.: Stochastic gradient descent with hyperbolic-tangent decay, arXiv 1806.01593.
    """
    lr = rate("tanh", "lr", lr)
    eta_min = rate("tanh", "eta_min", eta_min, lr)
    total_steps = length("tanh", "total_steps", total_steps)
    lower = _check.real("tanh", "lower", lower, -300, 300)
    upper = _check.real("tanh", "upper", upper, above=lower, maximum=300)
    arguments = {"lr": lr, "total_steps": total_steps, "lower": lower, "upper": upper, "eta_min": eta_min}
    tree = Tree("tanh", (lr, eta_min, float(total_steps), lower, upper))
    return leaf("tanh", arguments, tree, total_steps, endless=False)


@constructor
def flat_cosine(lr: float, total_steps: Steps, pct_start: float = 0.75, eta_min: float = 0.0) -> Schedule:
    r"""Flat, then half a cosine wave: :math:`f(t) = \eta_{min} + (lr - \eta_{min})(1 + \cos(\pi\max(0, t/T - s)/(1 - s)))/2`.

    Args:
        lr: Value of the flat part.
        total_steps: Length T in steps.
        pct_start: Share s of the flat part, in [0, 1]; the wave may begin between two steps.
        eta_min: Value from step T on, at most `lr`.

    Returns:
        The schedule.

    Raises:
        ValueError: An argument is out of its range.

    Example:
        >>> import thalweg as tw
        >>> tw.schedules.flat_cosine(0.2, total_steps=4, pct_start=0.5).values(5)
        array([0.2, 0.2, 0.2, 0.1, 0. ])

    References:
        Wright: fit_flat_cos, fastai 2.
    """
    who = "flat_cosine"
    lr = rate(who, "lr", lr)
    eta_min = rate(who, "eta_min", eta_min, lr)
    total_steps = length(who, "total_steps", total_steps)
    pct_start = _check.real(who, "pct_start", pct_start, 0, 1)
    begin = pct_start * total_steps
    first = math.ceil(begin)
    tree = Tree("cosine", (lr, eta_min, begin - first, float(total_steps - first)))
    if begin == total_steps:
        tree = Tree("constant", (lr,))
    elif first > 0:
        tree = Tree("sequence", ((0, first),), (Tree("constant", (lr,)), tree))
    arguments = {"lr": lr, "total_steps": total_steps, "pct_start": pct_start, "eta_min": eta_min}
    return leaf(who, arguments, tree, total_steps, endless=False)
