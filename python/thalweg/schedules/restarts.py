"""Warm restarts: SGDR and the snapshot cosine. They know their own cycle ends."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from .. import _check
from ._plan import Tree
from ._registry import constructor
from ._schedule import MAX_LENGTH, Schedule, length, rate
from .shapes import leaf, optional_steps
from .units import Steps
from .warmup import STYLES

_MAX_CYCLES = 10_000  # in a list of cycles


@constructor
def sgdr(
    lr: float,
    t_0: Steps,
    t_mult: float = 1,
    eta_min: float = 0.0,
    decay: float = 1.0,
    total_steps: Steps | None = None,
    cycles: int | None = None,
    warmup_steps: Steps = 0,
    warmup_start: float | None = None,
    style: str = "default",
) -> Schedule:
    r"""Cosine annealing with warm restarts, exact at every boundary.

    .. math:: f(k) = \eta_{min} + (lr\,d^i - \eta_{min})\,(1 + \cos(\pi T_{cur}/T_i))/2, \qquad
        T_i = \max(1, \lfloor T_0 m^i + 1/2 \rfloor)

    Args:
        lr: Peak of the first cycle.
        t_0: Length of the first cycle in steps.
        t_mult: m > 0, factor from one cycle's length to the next. A fraction counts as the decimal that it is written
            as and is powered exactly; below 1, `total_steps` or `cycles` must say where the cycles end.
        eta_min: Lower end of the wave, at most `lr`.
        decay: d > 0, factor from one cycle's peak to the next; no peak falls below `eta_min`.
        total_steps: Length in steps; None: without end. The curve is held where it stands then: at the foot when a
            cycle is just complete, never at the next peak.
        cycles: Number of cycles, instead of `total_steps`.
        warmup_steps: Steps of a straight ramp that begins each cycle and shortens its wave; below t_0. A cycle that is
            no longer than that keeps one step for its wave.
        warmup_start: Value that this ramp leaves; default `eta_min`.
        style: Where the ramp stands, as in `warmup`.

    Returns:
        The schedule; `is_cycle_end(t_0 - 1)` is true.

    Raises:
        ValueError: An argument is out of its range, or there would be more than 10,000 cycles of different lengths.

    Example:
        >>> import thalweg as tw
        >>> s = tw.schedules.sgdr(0.1, t_0=1, t_mult=3)
        >>> [k for k in range(1, 200) if s(k) == 0.1]
        [1, 4, 13, 40, 121]
        >>> tw.schedules.sgdr(0.1, t_0=8, t_mult=0.5, cycles=4).cycle_ends()
        [7, 11, 13, 14]

    References:
        Loshchilov, Hutter: SGDR, arXiv 1608.03983, equation 5.
    """
    lr = rate("sgdr", "lr", lr)
    eta_min = rate("sgdr", "eta_min", eta_min, lr)
    t_0 = length("sgdr", "t_0", t_0)
    t_mult = _check.real("sgdr", "t_mult", t_mult, above=0)
    decay = _check.real("sgdr", "decay", decay, above=0)
    total_steps = optional_steps("sgdr", total_steps)
    cycles = None if cycles is None else _check.integer("sgdr", "cycles", cycles, 1)
    if cycles is not None and total_steps is not None:
        raise ValueError(f"sgdr: give total_steps or cycles, got both ({total_steps} and {cycles})")
    warmup_steps = length("sgdr", "warmup_steps", warmup_steps, 0)
    if warmup_steps >= t_0:
        raise ValueError(f"sgdr: warmup_steps must be below t_0 = {t_0}, got {warmup_steps}")
    start = eta_min if warmup_start is None else rate("sgdr", "warmup_start", warmup_start)
    shift, extra = STYLES[_check.choice("sgdr", "style", style, tuple(STYLES))]
    m: float = int(t_mult) if t_mult.is_integer() else t_mult
    arguments: dict[str, Any] = {
        "lr": lr, "t_0": t_0, "t_mult": m, "eta_min": eta_min, "decay": decay, "total_steps": total_steps,
        "cycles": cycles, "warmup_steps": warmup_steps, "warmup_start": warmup_start, "style": style,
    }  # fmt: skip
    restart = (lr, eta_min, decay, warmup_steps, start, float(-shift), float(warmup_steps + extra - shift))
    if isinstance(m, int):
        end = total_steps
        if cycles is not None:  # T_0 + T_0 m + … in integers
            end = length("sgdr", "cycles' sum of steps", t_0 * (cycles if m == 1 else (m**cycles - 1) // (m - 1)))
        m, last = length("sgdr", "t_mult", m), -1 if end is None else end
        tree = Tree("sgdr", (lr, eta_min, t_0, m, decay, last))
        if warmup_steps:
            tree = Tree("warm_sgdr", (*restart, t_0, m, last))
        return leaf("sgdr", arguments, tree, end, endless=False)
    begins = _beginnings(t_0, m, cycles, total_steps)
    tree = Tree("listed", (*restart, begins))
    if total_steps is not None and total_steps < begins[-1]:  # cut within a cycle
        tree = Tree("hold", (total_steps,), (tree,))
    end = begins[-1] if cycles is not None else total_steps
    return leaf("sgdr", arguments, tree, end, endless=False)


def _beginnings(t_0: int, t_mult: float, cycles: int | None, total_steps: int | None) -> tuple[int, ...]:
    """First steps of the cycles and the end of the last one; far beyond any run where nothing ends them."""
    if t_mult < 1 and cycles is None and total_steps is None:
        raise ValueError(f"sgdr: t_mult must be >= 1 unless total_steps or cycles is given, got {t_mult}")
    ratio = Fraction(repr(t_mult))
    above, below = t_0, 1  # T_0 m^i, not reduced
    begins = [0]
    end = MAX_LENGTH if total_steps is None else total_steps
    while len(begins) <= cycles if cycles is not None else begins[-1] < end:
        begins.append(begins[-1] + max(1, (2 * above + below) // (2 * below)))
        above, below = above * ratio.numerator, below * ratio.denominator
        if begins[-1] > MAX_LENGTH and cycles is not None:
            raise ValueError(f"sgdr: {cycles} cycles are longer than 2**53 steps; give fewer cycles")
        if len(begins) > _MAX_CYCLES + 1:
            raise ValueError(
                f"sgdr: t_mult {t_mult} from t_0 {t_0} makes more than {_MAX_CYCLES} cycles; give fewer cycles or steps"
            )
    return tuple(begins)


@constructor
def snapshot_cosine(lr: float, total_steps: Steps, cycles: int, split: str = "ceil", eta_min: float = 0.0) -> Schedule:
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
