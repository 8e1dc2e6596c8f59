"""Warm-up, stable, decay; and the cool-down by itself."""

from __future__ import annotations

from typing import Any

from .. import _check
from ._plan import Tree
from ._registry import constructor
from ._schedule import Schedule, length, rate
from .shapes import constant, leaf, wave_length
from .units import Steps
from .warmup import STYLES, WARMUP_SHAPES, warmup

# Shapes of a cool-down and the core's nodes.
_NODES = {"linear": "linear", "cosine": "cosine", "1-sqrt": "sqrt", "exponential": "geometric", "1-square": "square"}


@constructor
def cooldown(
    lr: float, total_steps: Steps, eta_min: float = 0.0, shape: str = "1-sqrt", end: str = "exclusive"
) -> Schedule:
    r"""Cool-down, the end of a run: :math:`f(t) = \eta_{min} + (lr - \eta_{min})\,g(t/T)`.

    Args:
        lr: Value at step 0.
        total_steps: Length in steps.
        eta_min: Value from the end on, at most `lr`; > 0 for "exponential".
        shape: g(p): "linear" 1 - p, "cosine" (1 + cos(πp))/2, "1-sqrt" 1 - √p, "1-square" 1 - p²; "exponential" falls
            by the same factor in every step, lr (η_min/lr)^p.
        end: "exclusive": T = total_steps, `eta_min` is first met after the last step. "inclusive": T = total_steps - 1,
            the last step uses `eta_min` itself.

    Returns:
        The schedule.

    Raises:
        ValueError: An argument is out of its range.

    Example:
        >>> import thalweg as tw
        >>> tw.schedules.cooldown(0.1, total_steps=4).values(5)[[0, 1, 4]]
        array([0.1 , 0.05, 0.  ])

    References:
        Hägele et al.: Scaling laws and compute-optimal training beyond fixed training durations, arXiv 2405.18392.
    """
    tree = _falling("cooldown", lr, total_steps, eta_min, shape, end)
    total_steps = length("cooldown", "total_steps", total_steps)
    arguments = {"lr": float(lr), "total_steps": total_steps, "eta_min": float(eta_min), "shape": shape, "end": end}
    return leaf("cooldown", arguments, tree, total_steps, endless=False)


def _falling(who: str, lr: float, total_steps: Any, eta_min: float, shape: str, end: str) -> Tree:
    name = "total_steps" if who == "cooldown" else "decay_steps"
    lr, total = rate(who, "lr", lr), length(who, name, total_steps)
    _check.choice(who, "shape", shape, tuple(_NODES))
    eta_min = rate(who, "eta_min", eta_min, lr)
    n = wave_length(who, total, end)
    if shape == "exponential":
        _check.real(who, "eta_min of an exponential cool-down", eta_min, above=0)
    if n == 0:
        return Tree("constant", (eta_min,))
    if shape == "exponential":
        return Tree("geometric", (lr, eta_min, n))
    return Tree(_NODES[shape], (lr, eta_min, 0.0, float(n)))


class WSD(Schedule):
    """What `wsd` returns: a schedule whose cool-down can be moved.

    Example:
        >>> import thalweg as tw
        >>> run = tw.schedules.wsd(0.1, warmup_steps=100, decay_steps=200)
        >>> run.total_steps is None, run.decay_at(1_000).total_steps
        (True, 1200)
    """

    __slots__ = ()

    def decay_at(self, step: int, decay_steps: int | None = None) -> Schedule:
        """The schedule that is this one up to `step` and cools down from there.

        Args:
            step: First step of the cool-down, not within the warm-up.
            decay_steps: Length of the cool-down; default: as before.

        Returns:
            The new schedule; this one stays what it is.

        Raises:
            ValueError: The step lies within the warm-up.

        Example:
            >>> import thalweg as tw
            >>> run = tw.schedules.wsd(0.1, warmup_steps=0, decay_steps=4)
            >>> run.decay_at(3).values(8)[[2, 3, 4, 7]]
            array([0.1 , 0.1 , 0.05, 0.  ])
        """
        arguments = dict(self._arguments)
        first = arguments["warmup_steps"]
        arguments["stable_steps"] = _check.integer("WSD.decay_at", "step", step, first) - first
        if decay_steps is not None:
            arguments["decay_steps"] = decay_steps
        return wsd(**arguments)


@constructor
def wsd(
    lr: float,
    warmup_steps: Steps,
    decay_steps: Steps,
    stable_steps: Steps | None = None,
    eta_min: float = 0.0,
    shape: str = "1-sqrt",
    start: float = 0.0,
    style: str = "default",
    warmup_shape: str = "linear",
    end: str = "exclusive",
) -> WSD:
    r"""Warm-up, stable, decay: a ramp up to `lr`, `lr`, and a cool-down to `eta_min` whenever the run shall end.

    Args:
        lr: Value of the stable part.
        warmup_steps: Length of the warm-up, ≥ 0.
        decay_steps: Length of the cool-down, ≥ 0.
        stable_steps: Length of the stable part; None: without end, until `decay_at(step)` says where.
        eta_min: Value after the cool-down, at most `lr`.
        shape: Of the cool-down, as in `cooldown`: "linear", "cosine", "1-sqrt", "exponential", "1-square".
        start: Value that the warm-up leaves.
        style: Where the warm-up stands, as in `warmup`.
        warmup_shape: Of the warm-up, as in `warmup`.
        end: Whether the last step uses `eta_min`, as in `cooldown`.

    Returns:
        The schedule; `decay_at(step)` gives the one that cools down from there.

    Raises:
        ValueError: An argument is out of its range.

    Example:
        >>> import thalweg as tw
        >>> s = tw.schedules.wsd(0.1, warmup_steps=10, stable_steps=80, decay_steps=20, shape="linear")
        >>> s.total_steps, s(50), s(100)
        (110, 0.1, 0.05)

    References:
        Hu et al.: MiniCPM, arXiv 2404.06395; Hägele et al., arXiv 2405.18392.
    """
    lr = rate("wsd", "lr", lr)
    rise = length("wsd", "warmup_steps", warmup_steps, 0)
    fall = length("wsd", "decay_steps", decay_steps, 0)
    stable = None if stable_steps is None else length("wsd", "stable_steps", stable_steps, 0)
    _check.choice("wsd", "style", style, tuple(STYLES))
    _check.choice("wsd", "warmup_shape", warmup_shape, WARMUP_SHAPES)
    tail = _falling("wsd", lr, max(fall, 1), eta_min, shape, end)
    parts = warmup(rise, lr, rate("wsd", "start", start), style, warmup_shape)
    if stable is None:
        parts = parts >> constant(lr)
    elif stable > 0:
        parts = parts >> constant(lr, stable)
    total = None if stable is None else rise + stable + fall
    tree = parts._tree
    if stable is not None:
        begin = rise + stable
        last = Tree("constant", (float(eta_min),)) if fall == 0 else tail
        pieces = () if begin == 0 else tree.children or (tree,)
        begins = (*(tree.fields[0] if tree.kind == "sequence" else (0,) * len(pieces)), begin)
        tree = Tree("sequence", (begins,), (*pieces, last)) if pieces else last
    arguments = {
        "lr": lr, "warmup_steps": rise, "decay_steps": fall, "stable_steps": stable, "eta_min": float(eta_min),
        "shape": shape, "start": float(start), "style": style, "warmup_shape": warmup_shape, "end": end,
    }  # fmt: skip
    return WSD("wsd", arguments, tree, total)
