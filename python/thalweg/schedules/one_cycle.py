"""1cycle: one rise and one fall of the learning rate, with the momentum as its mirror image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .. import _check
from ._plan import Tree
from ._schedule import Schedule, length
from .units import Steps, Unresolved, has_units

if TYPE_CHECKING:
    from ..lr_scheduler import ScheduleLR


class Bundle:
    """Several hyper-parameters on one clock: `bundle.lr`, `bundle.momentum`; iterating gives (name, schedule).

    Example:
        >>> import thalweg as tw
        >>> b = tw.schedules.one_cycle(0.1, total_steps=100)
        >>> b.lr(99) < b.lr(0) < b.lr(29), b.momentum(0) > b.momentum(29)
        (True, True)
    """

    __slots__ = ("_schedules",)
    _schedules: dict[str, Schedule]

    def __init__(self, **schedules: Schedule) -> None:
        for name, schedule in schedules.items():
            _check.instance("Bundle", name, schedule, Schedule, "a Schedule")
        if "lr" not in schedules:
            raise ValueError(f"Bundle: expected a schedule called lr, got {', '.join(schedules) or 'none'}")
        object.__setattr__(self, "_schedules", dict(schedules))

    def __getattr__(self, name: str) -> Schedule:
        try:
            return self._schedules[name]
        except KeyError:
            raise AttributeError(f"Bundle has {', '.join(self._schedules)}, no {name}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"Bundle: {name} cannot be set, bundles are immutable; build a new one")

    def __iter__(self) -> Iterator[tuple[str, Schedule]]:
        return iter(self._schedules.items())

    def __eq__(self, other: object) -> bool:
        """Equal schedules under equal names."""
        return self._schedules == other._schedules if isinstance(other, Bundle) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(sorted(self._schedules.items(), key=lambda item: item[0])))

    def __reduce__(self) -> tuple[Any, ...]:
        return _bundle, (self._schedules,)

    def __repr__(self) -> str:
        return f"Bundle({', '.join(f'{name}={schedule!r}' for name, schedule in self)})"

    def bind(self, optimizer: Any, **options: Any) -> ScheduleLR:
        """A torch LRScheduler that writes all of them into any torch optimizer."""
        from ..lr_scheduler import ScheduleLR  # above this layer

        others: dict[str, Any] = {name: schedule for name, schedule in self if name != "lr"}
        return ScheduleLR(optimizer, self.lr, **others, **options)

    def resolve(self, **rates: Any) -> Bundle:
        """Every schedule with its lengths in steps; see `thalweg.schedules.resolve`."""
        return Bundle(**{name: schedule.resolve(**rates) for name, schedule in self})


def _bundle(schedules: dict[str, Schedule]) -> Bundle:
    return Bundle(**schedules)


def _wave(values: tuple[float, ...], ends: tuple[float, ...], total_steps: int, anneal: str) -> Schedule:
    """Waves from values[i] to values[i+1] that end at ends[i], real steps; empty ones are left out."""
    begins: list[int] = []
    pieces: list[Tree] = []
    begin = 0.0
    for a, b, end in zip(values[:-1], values[1:], ends, strict=True):
        if end <= begin:
            continue
        first = -(-begin // 1)  # the first whole step at or after `begin` belongs to this piece
        tree = Tree("cosine" if anneal == "cos" else "linear", (a, b, begin - first, end - first))
        if not begins or first > begins[-1]:
            begins.append(int(first))
            pieces.append(tree)
        else:  # the piece before has no whole step of its own
            pieces[-1] = tree
        begin = end
    if not pieces:
        begins, pieces = [0], [Tree("constant", (values[-1],))]
    root = pieces[0] if len(pieces) == 1 else Tree("sequence", (tuple(begins),), tuple(pieces))
    return Schedule("_wave", {}, root, total_steps)


def one_cycle(
    max_lr: float,
    total_steps: Steps,
    pct_start: float = 0.3,
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
    three_phase: bool = False,
    anneal: str = "cos",
    base_momentum: float = 0.85,
    max_momentum: float = 0.95,
    end: str = "inclusive",
) -> Bundle:
    r"""1cycle policy: up from max/div to max, down to the start divided by `final_div_factor`; momentum mirrored.

    The peak stands at step p = pct_start·T - 1 (a real number) and the end at T - 1, as in torch. With `three_phase`
    the rate is back at its start at 2p and falls to the end from there. Degenerate lengths have defined values: a
    phase without a step is left out, and the value is held after the end.

    Args:
        max_lr: Peak, > 0.
        total_steps: Length T in steps.
        pct_start: Share of the steps for the rise, in [0, 1]; at most 0.5 with three phases.
        div_factor: Start is max_lr / div_factor; > 0.
        final_div_factor: End is start / final_div_factor; > 0.
        three_phase: Use the three phases of the paper.
        anneal: "cos" or "linear".
        base_momentum: Momentum at the peak of the rate, in [0, 1].
        max_momentum: Momentum at both ends, in [0, 1].
        end: "inclusive": as above, the last step uses the end itself. "exclusive": the peak stands at pct_start·T and
            the end at T, as in fastai.

    Returns:
        A Bundle with `lr` and `momentum`.

    Raises:
        ValueError: An argument is out of its range.

    Example:
        >>> import thalweg as tw
        >>> b = tw.schedules.one_cycle(1.0, total_steps=10)
        >>> b.lr(0), b.lr(2), b.momentum(2)
        (0.04, 1.0, 0.85)

    References:
        Smith, Topin: Super-convergence, arXiv 1708.07120; Smith, arXiv 1803.09820.
    """
    who = "one_cycle"
    max_lr = _check.real(who, "max_lr", max_lr, above=0)
    _check.instance(who, "three_phase", three_phase, bool, "True or False")
    pct_start = _check.real(who, "pct_start", pct_start, 0, 0.5 if three_phase else 1)
    div_factor = _check.real(who, "div_factor", div_factor, above=0)
    final_div_factor = _check.real(who, "final_div_factor", final_div_factor, above=0)
    _check.choice(who, "anneal", anneal, ("cos", "linear"))
    base_momentum = _check.real(who, "base_momentum", base_momentum, 0, 1)
    max_momentum = _check.real(who, "max_momentum", max_momentum, 0, 1)
    early = int(_check.choice(who, "end", end, ("exclusive", "inclusive")) == "inclusive")
    arguments: dict[str, Any] = {
        "max_lr": max_lr, "total_steps": total_steps, "pct_start": pct_start, "div_factor": div_factor,
        "final_div_factor": final_div_factor, "three_phase": three_phase, "anneal": anneal,
        "base_momentum": base_momentum, "max_momentum": max_momentum, "end": end,
    }  # fmt: skip
    if has_units(who, arguments):
        return Bundle(**{name: Unresolved(who, {**arguments, "part": name}) for name in ("lr", "momentum")})
    arguments["total_steps"] = total_steps = length(who, "total_steps", total_steps)
    start = max_lr / div_factor
    final = start / final_div_factor
    peak, last = pct_start * total_steps - early, float(total_steps - early)
    lrs: tuple[float, ...] = (start, max_lr, final)
    momenta: tuple[float, ...] = (max_momentum, base_momentum, max_momentum)
    ends: tuple[float, ...] = (peak, last)
    if three_phase:
        lrs, momenta = (start, max_lr, start, final), (*momenta, max_momentum)
        ends = (peak, min(2 * peak, last), last)
    parts = {"lr": lrs, "momentum": momenta}
    waves = {name: _wave(values, ends, total_steps, anneal) for name, values in parts.items()}
    return Bundle(
        **{
            name: Schedule("one_cycle", {**arguments, "part": name}, wave._tree, total_steps)
            for name, wave in waves.items()
        }
    )
