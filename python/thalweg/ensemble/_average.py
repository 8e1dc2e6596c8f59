"""Means of members in weight space: SWA, LAWA and soups, refused across a barrier. Knows no optimizer and no store."""

from __future__ import annotations

import copy
import itertools
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from .. import _check
from .._preserve import unwrap
from ._batchnorm import batchnorm_layers, reestimate_bn
from ._evaluate import predict
from ._members import Members
from ._module import Ensemble
from ._snapshot import State

_PAIRS = 15  # up to this many midpoints are measured, all pairs; beyond, each member against the last


@dataclass(frozen=True)
class SoupReport:
    """What went into a soup.

    Attributes:
        method: "uniform" or "greedy".
        steps: Optimizer steps of the members in it, in the order in which they came in.
        error: Error of the soup on the validation data, in [0, 1].
        member_errors: Step -> error of that member alone.
        barrier: Largest rise of the error at a midpoint of two members over the worse of the two.
        barrier_between: Steps of those two members; None with a single member.
        forced: Whether a barrier above the tolerance was overridden.
    """

    method: str
    steps: tuple[int, ...]
    error: float
    member_errors: dict[int, float]
    barrier: float
    barrier_between: tuple[int, int] | None
    forced: bool

    def to_dict(self) -> dict[str, Any]:
        """Return everything in JSON's types."""
        return {**asdict(self), "member_errors": {str(s): e for s, e in self.member_errors.items()}}


def mean_state(states: Sequence[State]) -> State:
    """Return the mean of the floating-point entries, summed in float64; other entries are the last member's.

    Names that share a tensor share the mean.
    """
    done: dict[int, torch.Tensor] = {}
    result: State = {}
    for name, last in states[-1].items():
        if id(last) not in done:
            if last.is_floating_point():
                total = torch.zeros_like(last, dtype=torch.float64)
                for state in states:
                    total += state[name]
                done[id(last)] = (total / len(states)).to(last.dtype)
            else:
                done[id(last)] = last.clone()
        result[name] = done[id(last)]
    return result


def average(
    model: nn.Module,
    state_dicts: Sequence[State],
    *,
    kind: str = "swa",
    data: Any = None,
    m: int | None = None,
) -> nn.Module:
    """Return a copy of `model` in eval mode that holds the mean of the weights of `state_dicts`, oldest first.

    Args:
        model: The architecture; not changed.
        state_dicts: Members.
        kind: "swa" (all) or "lawa" (the last `m`).
        data: Training inputs for exact BatchNorm statistics (`reestimate_bn`).
        m: How many of the last members.

    Raises:
        ValueError: No members, `m` larger than their number, or "lawa" without `m`.

    Example:
        >>> import torch
        >>> from thalweg.ensemble import average
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> states = [{"weight": torch.tensor([[w]])} for w in (1.0, 2.0, 6.0)]
        >>> average(model, states).weight.item(), average(model, states, kind="lawa", m=2).weight.item()
        (3.0, 4.0)

    References:
        Izmailov et al., 2018, arXiv:1803.05407 (SWA); Kaddour, 2022, arXiv:2209.14981 (LAWA).
    """
    who = "average"
    _check.choice(who, "kind", kind, ("swa", "lawa"))
    if not state_dicts:
        raise ValueError(f"{who}: state_dicts must hold at least one member, got none")
    if kind == "lawa" and m is None:
        raise ValueError(f"{who}: kind='lawa' needs m, the number of last members, got None")
    used = state_dicts if m is None else state_dicts[-_check.integer(who, "m", m, 1, len(state_dicts)) :]
    return _with_statistics(who, _module(who, model, mean_state(used)), data, alone=len(used) == 1)


def soup(
    model: nn.Module,
    state_dicts: Sequence[State],
    val_data: Any,
    method: str = "greedy",
    *,
    data: Any = None,
    force: bool = False,
    tolerance: float = 0.02,
    steps: Sequence[int] | None = None,
) -> nn.Module:
    """Return a copy of `model` that holds a mean of members chosen on validation data, if no barrier parts them.

    The mean of two networks is a network between them, which is good only if the loss does not rise on the
    way. So the error at the midpoint of members is measured first. "uniform" averages all and is refused
    (ValueError) if the error rises there by more than `tolerance` over the worse of the two; "greedy" starts
    from the best member, goes through the others by falling accuracy, keeps one only if the error does not
    rise, and passes over those behind a barrier.

    Args:
        model: The architecture; not changed.
        state_dicts: Members of a classifier.
        val_data: Validation data, as for `SnapshotCollector.ensemble`.
        method: "uniform" or "greedy".
        data: Training inputs for exact BatchNorm statistics at every mean that is measured.
        force: Average across a barrier all the same.
        tolerance: Rise of the error that still is no barrier, in [0, 1].
        steps: Names of the members in the report; their indices by default.

    Returns:
        A module in eval mode; its attribute `soup_report` is a `SoupReport`.

    Example:
        >>> import torch
        >>> from thalweg.ensemble import soup
        >>> model = torch.nn.Linear(1, 2, bias=False)
        >>> states = [{"weight": torch.tensor([[w], [-w]])} for w in (1.0, 3.0)]
        >>> soup(model, states, (torch.ones(4, 1), torch.zeros(4, dtype=torch.long)), method="uniform").weight[0].item()
        2.0

    References:
        Wortsman et al., "Model soups", 2022, arXiv:2203.05482, recipe 1 (greedy).
    """
    who = "soup"
    _check.choice(who, "method", method, ("uniform", "greedy"))
    tolerance = _check.real(who, "tolerance", tolerance, 0.0, 1.0)
    kitchen = _Kitchen(model, list(state_dicts), val_data, data)
    names = list(range(len(state_dicts))) if steps is None else list(steps)
    rises = kitchen.midpoint_rises()
    worst = max(rises, key=lambda pair: rises[pair], default=None)
    barrier = rises[worst] if worst is not None else 0.0
    behind = {pair for pair, rise in rises.items() if rise > tolerance}
    if method == "uniform":
        if behind and not force:
            assert worst is not None
            raise ValueError(
                f"{who}: a barrier parts the members of steps {names[worst[0]]} and {names[worst[1]]}: halfway the "
                f"validation error is {barrier:.1%} above the worse of the two (tolerance {tolerance:.1%}); use "
                "method='greedy', an ensemble, or force=True"
            )
        chosen = list(range(len(state_dicts)))
    else:
        chosen = kitchen.greedy(set() if force else behind)
    module = kitchen.cook(chosen)
    report = SoupReport(
        method=method,
        steps=tuple(names[i] for i in chosen),
        error=kitchen.error(module),
        member_errors={names[i]: error for i, error in enumerate(kitchen.errors)},
        barrier=barrier,
        barrier_between=None if worst is None else (names[worst[0]], names[worst[1]]),
        forced=bool(behind) and force,
    )
    module.soup_report = report  # type: ignore[assignment]
    return module


class _Kitchen:
    """Members, their errors, and means of them measured on validation data."""

    def __init__(self, model: nn.Module, states: list[State], val_data: Any, data: Any) -> None:
        if not states:
            raise ValueError("soup: state_dicts must hold at least one member, got none")
        self.model, self.states, self.data = model, states, data
        batches = val_data if not hasattr(val_data, "__next__") else list(val_data)  # read many times
        self.val_data = batches
        self.errors = [self.error(self._plain(i)) for i in range(len(states))]

    def _plain(self, index: int) -> nn.Module:
        return _module("soup", self.model, self.states[index])

    def error(self, module: nn.Module) -> float:
        """Validation error of a module."""
        alone = Ensemble(module, [module.state_dict()])
        found = predict("soup", alone, self.val_data)
        wrong = sum((log_p[0].argmax(1) != y).sum().item() for log_p, y in found.chunks(alone))
        return wrong / found.n

    def cook(self, chosen: Sequence[int]) -> nn.Module:
        """Return the mean of the chosen members."""
        module = _module("soup", self.model, mean_state([self.states[i] for i in chosen]))
        return _with_statistics("soup", module, self.data, alone=len(chosen) == 1)

    def midpoint_rises(self) -> dict[tuple[int, int], float]:
        """Return (i, j) -> error at the midpoint minus that of the worse end."""
        count = len(self.states)
        pairs = list(itertools.combinations(range(count), 2))
        if len(pairs) > _PAIRS:
            pairs = [(i, count - 1) for i in range(count - 1)]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*BatchNorm statistics.*")  # said once, by the soup itself
            middles = {pair: self.error(self.cook(pair)) for pair in pairs}
        return {(i, j): middle - max(self.errors[i], self.errors[j]) for (i, j), middle in middles.items()}

    def greedy(self, behind: set[tuple[int, int]]) -> list[int]:
        """Choose members by falling accuracy while the error of their mean does not rise."""
        order = sorted(range(len(self.states)), key=lambda i: (self.errors[i], -i))
        chosen, best = order[:1], self.errors[order[0]]
        for candidate in order[1:]:
            if any((min(i, candidate), max(i, candidate)) in behind for i in chosen):
                continue
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*BatchNorm statistics.*")
                error = self.error(self.cook([*chosen, candidate]))
            if error <= best:
                chosen, best = [*chosen, candidate], error
        return chosen


def _module(who: str, model: nn.Module, state: State) -> nn.Module:
    """Return a copy of `model` with the weights of `state`; a copy of its own, so that it can be trained or saved."""
    copied: nn.Module = copy.deepcopy(Members(who, unwrap(model), [state], "loop").member(0))
    for (_, parameter), (_, original) in zip(copied.named_parameters(), unwrap(model).named_parameters(), strict=True):
        parameter.requires_grad_(original.requires_grad)
    return copied


def _with_statistics(who: str, module: nn.Module, data: Any, alone: bool) -> nn.Module:
    if alone or not batchnorm_layers(module):
        return module
    if data is None:
        warnings.warn(
            f"{who}: the BatchNorm statistics are the mean of the members'; give data=<training inputs> for exact ones",
            stacklevel=4,
        )
    else:
        reestimate_bn(module, data)
    return module
