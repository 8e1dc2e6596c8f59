"""Rules that follow a metric: plateau and greedy. They are multipliers with a state; a Schedule stays a value."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from .. import _check


class Adaptive:
    """A multiplier that moves with a metric: what `Plateau` and `Greedy` share.

    A schedule is a value without a state, so the state lives here and in the bound scheduler:
    `schedule.bind(optimizer, multiplier=Plateau())`, then `scheduler.step(metric=loss)`.

    Example:
        >>> import thalweg as tw
        >>> isinstance(tw.schedules.Plateau(), tw.schedules.Adaptive)
        True
    """

    _STATE: tuple[str, ...] = ("multiplier", "best", "num_bad_epochs", "cooldown_counter", "recent")

    def __init__(self, mode: str, threshold: float, threshold_mode: str, torch_threshold: bool) -> None:
        who = type(self).__name__
        self.mode = _check.choice(who, "mode", mode, ("min", "max"))
        self.threshold = _check.real(who, "threshold", threshold, 0)
        self.threshold_mode = _check.choice(who, "threshold_mode", threshold_mode, ("rel", "abs"))
        _check.instance(who, "torch_threshold", torch_threshold, bool, "True or False")
        self.torch_threshold = torch_threshold
        self.reset()

    multiplier: float
    best: float
    num_bad_epochs: int
    cooldown_counter: int
    recent: list[float]

    def reset(self) -> None:
        """Forget every metric; the multiplier is 1 again."""
        self.multiplier = 1.0
        self.best = math.inf if self.mode == "min" else -math.inf
        self.num_bad_epochs = 0
        self.cooldown_counter = 0
        self.recent = []

    def is_better(self, metric: float, best: float) -> bool:
        """Whether `metric` beats `best` by more than the threshold; NaN never does."""
        falling = self.mode == "min"
        if self.threshold_mode == "abs":
            bound = best - self.threshold if falling else best + self.threshold
        else:  # torch takes the share of `best` with its sign, so that below zero worse counts as better
            toward_zero = falling if best >= 0 or self.torch_threshold else not falling
            bound = best * (1.0 - self.threshold if toward_zero else 1.0 + self.threshold)
        return metric < bound if falling else metric > bound

    def update(self, metric: float) -> bool:
        """Take one evaluation; True when the rule acted now."""
        raise NotImplementedError

    def settings(self) -> dict[str, Any]:
        """The arguments that build this rule, as plain numbers and strings."""
        return {name: value for name, value in vars(self).items() if name not in self._STATE}

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next `update` depends on, as plain numbers, strings, lists and dicts."""
        state = {name: getattr(self, name) for name in self._STATE}
        state["recent"] = list(self.recent)
        return {"kind": type(self).__name__, "settings": self.settings(), **state}

    def load_state_dict(self, state_dict: Mapping[str, Any], *, allow_change: bool = False) -> None:
        """Take over a saved state.

        Args:
            state_dict: What `state_dict()` returned.
            allow_change: Go on with this rule's own settings where the saved ones differ.

        Raises:
            TypeError: state_dict is not a dict.
            ValueError: It is the state of another rule, or its settings differ and `allow_change` is not set.
        """
        who = f"{type(self).__name__}.load_state_dict"
        _check.instance(who, "state_dict", state_dict, Mapping, "a dict")
        missing = [name for name in ("kind", "settings", *self._STATE) if name not in state_dict]
        if missing or state_dict["kind"] != type(self).__name__:
            raise ValueError(
                f"{who}: expected a state_dict of {type(self).__name__}, got one of "
                f"{_check.describe(state_dict.get('kind'))} without {', '.join(missing) or 'the same kind'}"
            )
        saved, own = state_dict["settings"], self.settings()
        if not allow_change and saved != own:
            differ = sorted(name for name in {*saved, *own} if saved.get(name) != own.get(name))
            raise ValueError(
                f"{who}: the saved rule has {', '.join(f'{n}={_check.describe(saved.get(n))}' for n in differ)}, this "
                f"one {', '.join(f'{n}={_check.describe(own.get(n))}' for n in differ)}; build the same one, or pass "
                "allow_change=True to go on with this one"
            )
        for name in self._STATE:
            setattr(self, name, state_dict[name])
        self.recent = list(state_dict["recent"])

    def __eq__(self, other: object) -> bool:
        """Same settings and same state."""
        return self.state_dict() == other.state_dict() if isinstance(other, Adaptive) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # a state that changes

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in self.settings().items())
        return f"{type(self).__name__}({settings})"


class Plateau(Adaptive):
    r"""Reduce when a metric stops improving: the rule of torch's `ReduceLROnPlateau` as a multiplier.

    .. math:: \mu \leftarrow \max(\mu\,\text{factor}, \text{min\_factor}) \quad\text{after } patience + 1 \text{ bad
        evaluations in a row, bad: not } m < best - threshold\,|best|

    Args:
        mode: "min" for a metric that should fall, "max" for one that should rise.
        factor: Factor of a reduction, in [0, 1).
        patience: Bad evaluations in a row that are borne; the next one reduces.
        threshold: Least improvement that counts, ≥ 0.
        threshold_mode: "rel": a share of \|best\|; "abs": a difference.
        cooldown: Evaluations after a reduction in which none is counted as bad.
        min_factor: The multiplier does not fall below it, in [0, 1].
        reference: "best": compare with the best metric ever. "window": with the best of the last `window` ones, so that
            one lucky evaluation does not make everything after it a plateau.
        window: Evaluations that "window" looks back on; at least 1.
        torch_threshold: torch's rule, best (1 ∓ threshold), under which a worse negative metric counts as better.

    Raises:
        ValueError: An argument is out of its range.

    Example:
        >>> import thalweg as tw
        >>> rule = tw.schedules.Plateau(factor=0.5, patience=1)
        >>> [rule.update(loss) for loss in (1.0, 0.9, 0.95, 0.93, 0.92)], rule.multiplier
        ([False, False, False, True, False], 0.5)
    """

    def __init__(
        self,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_factor: float = 0.0,
        reference: str = "best",
        window: int = 10,
        torch_threshold: bool = False,
    ) -> None:
        self.factor = _check.real("Plateau", "factor", factor, 0, below=1)
        self.patience = _check.integer("Plateau", "patience", patience, 0)
        self.cooldown = _check.integer("Plateau", "cooldown", cooldown, 0)
        self.min_factor = _check.real("Plateau", "min_factor", min_factor, 0, 1)
        self.reference = _check.choice("Plateau", "reference", reference, ("best", "window"))
        self.window = _check.integer("Plateau", "window", window, 1)
        super().__init__(mode, threshold, threshold_mode, torch_threshold)

    def update(self, metric: float) -> bool:
        """Take one evaluation; True when patience has run out now, also where `min_factor` stops the fall.

        Args:
            metric: A number or a tensor of one element; NaN counts as bad.

        Returns:
            Whether a reduction was due.
        """
        metric = float(metric)
        if self.is_better(metric, self.best):
            self.num_bad_epochs = 0
            if self.reference == "best":
                self.best = metric
        else:
            self.num_bad_epochs += 1
        if self.reference == "window" and not math.isnan(metric):
            self.recent = [*self.recent, metric][-self.window :]
            self.best = (min if self.mode == "min" else max)(self.recent)
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs <= self.patience:
            return False
        self.multiplier = max(self.multiplier * self.factor, self.min_factor)
        self.cooldown_counter = self.cooldown
        self.num_bad_epochs = 0
        return True


class Greedy(Adaptive):
    r"""Grow while a metric improves, shrink while it does not: plateau both ways.

    .. math:: \mu \leftarrow \min(\mu/\text{factor}, \text{max\_factor}) \text{ after } patience + 1 \text{ good
        evaluations}, \quad \mu \leftarrow \max(\mu\,\text{factor}, \text{min\_factor}) \text{ after as many bad ones}

    Args:
        mode: "min" for a metric that should fall, "max" for one that should rise.
        factor: Factor of a reduction, and of a growth by its inverse; in (0, 1).
        patience: Evaluations of one kind in a row that are borne; the next one acts.
        threshold: Least improvement that counts, ≥ 0.
        threshold_mode: "rel": a share of \|best\|; "abs": a difference.
        cooldown: Evaluations that are ignored after a reduction.
        warmup: Evaluations that are ignored after a growth.
        min_factor: Floor of the multiplier, in (0, 1].
        max_factor: Ceiling of the multiplier, ≥ 1.
        window: The metric is the mean of the last `window` evaluations; 1: the evaluation itself.
        reset_after: Reductions at the floor after which the rule begins anew at 1; 0: never.
        torch_threshold: best (1 ∓ threshold) as torch and transformers have it.

    Raises:
        ValueError: An argument is out of its range.

    Example:
        >>> import thalweg as tw
        >>> rule = tw.schedules.Greedy(factor=0.5, patience=0)
        >>> [(rule.update(loss), rule.multiplier)[1] for loss in (3.0, 2.0, 2.5)]
        [2.0, 4.0, 2.0]

    References:
        GreedyLR, arXiv 2512.14527.
    """

    _STATE = (*Adaptive._STATE, "num_good_epochs", "warmup_counter", "floor_counter")
    num_good_epochs: int
    warmup_counter: int
    floor_counter: int

    def __init__(
        self,
        mode: str = "min",
        factor: float = 0.95,
        patience: int = 10,
        threshold: float = 1e-6,
        threshold_mode: str = "abs",
        cooldown: int = 0,
        warmup: int = 0,
        min_factor: float = 1e-3,
        max_factor: float = 10.0,
        window: int = 1,
        reset_after: int = 500,
        torch_threshold: bool = False,
    ) -> None:
        self.factor = _check.real("Greedy", "factor", factor, above=0, below=1)
        self.patience = _check.integer("Greedy", "patience", patience, 0)
        self.cooldown = _check.integer("Greedy", "cooldown", cooldown, 0)
        self.warmup = _check.integer("Greedy", "warmup", warmup, 0)
        self.min_factor = _check.real("Greedy", "min_factor", min_factor, above=0, maximum=1)
        self.max_factor = _check.real("Greedy", "max_factor", max_factor, 1)
        self.window = _check.integer("Greedy", "window", window, 1)
        self.reset_after = _check.integer("Greedy", "reset_after", reset_after, 0)
        super().__init__(mode, threshold, threshold_mode, torch_threshold)

    def reset(self) -> None:
        """Forget every metric; the multiplier is 1 again."""
        super().reset()
        self.num_good_epochs = self.warmup_counter = self.floor_counter = 0

    def update(self, metric: float) -> bool:
        """Take one evaluation.

        Args:
            metric: A number or a tensor of one element; NaN counts as bad, also for the mean it falls into.

        Returns:
            Whether the multiplier changed now.
        """
        before = self.multiplier
        self.recent = [*self.recent, float(metric)][-self.window :]
        mean = math.fsum(self.recent) / len(self.recent) if all(map(math.isfinite, self.recent)) else math.nan
        if self.cooldown_counter > 0 or self.warmup_counter > 0:
            waits = "cooldown_counter" if self.cooldown_counter > 0 else "warmup_counter"
            setattr(self, waits, getattr(self, waits) - 1)
            self.num_bad_epochs = self.num_good_epochs = 0
        elif self.is_better(mean, self.best):
            self.best = mean
            self.num_good_epochs, self.num_bad_epochs = self.num_good_epochs + 1, 0
        else:
            self.num_good_epochs, self.num_bad_epochs = 0, self.num_bad_epochs + 1
        if self.num_good_epochs > self.patience:
            self.multiplier = min(self.multiplier / self.factor, self.max_factor)
            self.warmup_counter, self.num_good_epochs, self.floor_counter = self.warmup, 0, 0
        elif self.num_bad_epochs > self.patience:
            self._shrink()
        return self.multiplier != before

    def _shrink(self) -> None:
        self.multiplier = max(self.multiplier * self.factor, self.min_factor)
        self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0
        if self.multiplier == self.min_factor:
            self.floor_counter += 1
            if 0 < self.reset_after <= self.floor_counter:
                self.reset()
