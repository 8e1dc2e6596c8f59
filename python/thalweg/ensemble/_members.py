"""The members of an ensemble as one stacked tensor per weight, and ways to run them. Knows no probabilities.

The loop runs ordinary modules whose weights are views into the stacks; vmap runs all members in one batched
call.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from .._preserve import unwrap
from ._batched import program_of
from ._snapshot import State, check_model

_LOG = logging.getLogger(__name__)
_SMALL = 2_000_000  # weights per member up to which a GPU waits for launches, not for memory
Run = Callable[[Callable[..., Any]], torch.Tensor]


class Members(nn.Module):
    """m members: `stacked__<name>` buffers of shape [m, ...], and a skeleton of the model without weights."""

    _skeleton: nn.Module
    _built: list[nn.Module]
    _verified: dict[Any, bool]

    def __init__(self, who: str, model: nn.Module, state_dicts: Sequence[State], backend: str) -> None:
        super().__init__()
        model = unwrap(check_model(who, model))
        if not state_dicts:
            raise ValueError(f"{who}: state_dicts must hold at least one member, got none")
        self.m = len(state_dicts)
        self.backend = backend
        self.reason = ""
        own = _own_tensors(model)
        persistent = {name for name in model.state_dict(keep_vars=True) if name in own}
        meta: dict[int, torch.Tensor] = {}
        self._meta: dict[str, torch.Tensor] = {}
        self._place: dict[str, str] = {}  # name in the model -> name of its buffer here
        for name, value in own.items():
            blank: torch.Tensor = torch.empty_like(value, device="meta")
            if isinstance(value, nn.Parameter):
                blank = nn.Parameter(blank, requires_grad=False)
            meta[id(value)] = self._meta[name] = blank
            self._place[name] = _mangled("stacked__" if name in persistent else "shared__", name)
            if name in persistent:
                self.register_buffer(self._place[name], _stack(who, name, value, state_dicts))
            else:
                self.register_buffer(self._place[name], value.detach().clone(), persistent=False)
        for state in state_dicts:
            _check_names(who, set(model.state_dict()), state)
        self._persistent = persistent
        try:
            skeleton = copy.deepcopy(model, dict(meta))
        except RuntimeError as error:
            raise TypeError(f"{who}: the model cannot be copied: {error}") from error
        self.__dict__["_skeleton"] = skeleton.eval()  # not registered: its tensors hold nothing
        self.__dict__["_built"] = []
        self.__dict__["_verified"] = {}
        self._program = program_of(skeleton)
        self.weights_each = sum(value.numel() for value in own.values())

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_built": [], "_verified": {}}

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Members:
        self._built.clear()
        self._verified.clear()
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def _value(self, name: str) -> torch.Tensor:
        value = self._buffers[self._place[name]]
        assert value is not None
        return value

    def member(self, index: int) -> nn.Module:
        """Return member `index` as a new ordinary module in eval mode; its tensors are views into the stacks."""
        memo: dict[int, Any] = {}
        for name, blank in self._meta.items():
            value = self._value(name)[index] if name in self._persistent else self._value(name)
            memo[id(blank)] = nn.Parameter(value, requires_grad=False) if isinstance(blank, nn.Parameter) else value
        module: nn.Module = copy.deepcopy(self._skeleton, memo)
        return module.eval()

    def modules_in_use(self) -> list[nn.Module]:
        """Return the modules that the loop runs, built once."""
        if not self._built:
            self._built.extend(self.member(index) for index in range(self.m))
        return self._built

    def forward(self, run: Run, plain: torch.Tensor | None) -> torch.Tensor:
        """Run all members; returns [m, ...].

        Args:
            run: Calls what it is given as the user's model, and returns a tensor.
            plain: The input, if a call is nothing but model(input); None otherwise.
        """
        fast = self._fast(run, plain)
        if fast is None:
            return self._loop(run)
        key = (self._one.device, self._one.dtype, None if plain is None else plain.ndim)
        if self._verified.get(key) is False:
            return self._loop(run)
        try:
            out = fast()
        except Exception as error:  # whatever the user's code does in a batch of members, the loop is right
            return self._fall_back(key, f"they cannot run in one batch: {error}", run)
        if key not in self._verified:
            if not _agree(out, self._loop(run)):
                return self._fall_back(key, "one batch and the loop disagree on this model", run)
            self._verified[key] = True
        return out

    @property
    def _one(self) -> torch.Tensor:
        return self._value(next(iter(self._meta)))

    def _fast(self, run: Run, plain: torch.Tensor | None) -> Callable[[], torch.Tensor] | None:
        """Choose the way to run by fixed rules, so that the same call always gives the same bits."""
        if self.m == 1 or self.backend == "loop" or not self._meta:
            return None
        program = self._program
        if self.backend == "auto" and program is not None and plain is not None and program.takes(plain, self.m):
            return lambda: program(plain, self.m, self._value)
        if self.backend == "vmap" or (self._one.device.type != "cpu" and self.weights_each <= _SMALL):
            return lambda: self._vmap(run)
        return None

    def _fall_back(self, key: Any, reason: str, run: Run) -> torch.Tensor:
        self._verified[key] = False
        self.reason = reason
        _LOG.info("Ensemble: members run one by one: %s", reason)
        return self._loop(run)

    def _loop(self, run: Run) -> torch.Tensor:
        return torch.stack([run(module) for module in self.modules_in_use()])

    def _vmap(self, run: Run) -> torch.Tensor:
        shared = {name: self._value(name) for name in self._meta if name not in self._persistent}
        stacked = {name: self._value(name) for name in self._meta if name in self._persistent}

        def one(state: Mapping[str, torch.Tensor]) -> torch.Tensor:
            def model(*args: Any, **kwargs: Any) -> Any:
                return torch.func.functional_call(self._skeleton, {**state, **shared}, args, kwargs)

            return run(model)

        result: torch.Tensor = torch.func.vmap(one)(stacked)
        return result


class MemberList(Sequence[nn.Module]):
    """The members as ordinary modules, made when asked for; they share memory with the ensemble."""

    def __init__(self, members: Members) -> None:
        self._members = members

    def __len__(self) -> int:
        return self._members.m

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self._members.member(i) for i in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        return self._members.member(place)

    def __iter__(self) -> Iterator[nn.Module]:
        return (self._members.member(index) for index in range(len(self)))


def _own_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return parameters and buffers by name, tied ones under their first name only."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _mangled(kind: str, name: str) -> str:
    return kind + name.replace(".", "/")


def _stack(who: str, name: str, like: torch.Tensor, states: Sequence[State]) -> torch.Tensor:
    stacked = torch.empty((len(states), *like.shape), dtype=like.dtype, device=like.device)
    for index, state in enumerate(states):
        if name not in state:
            raise ValueError(f"{who}: state_dicts[{index}] lacks {name!r}; give state_dicts of this model")
        value = state[name]
        if not isinstance(value, torch.Tensor) or value.shape != like.shape:
            got = list(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
            raise ValueError(
                f"{who}: state_dicts[{index}][{name!r}] must be a tensor of shape {list(like.shape)}, got {got}"
            )
        stacked[index].copy_(value)
    return stacked


def _check_names(who: str, expected: set[str], state: State) -> None:
    extra = sorted(set(state) - expected)
    if extra:
        raise ValueError(f"{who}: the model has no {extra[0]!r}; give state_dicts of this model")


def _agree(out: torch.Tensor, expected: torch.Tensor) -> bool:
    if out.shape != expected.shape or out.dtype != expected.dtype:
        return False
    tolerance = {torch.float64: 1e-9, torch.float32: 1e-4}.get(out.dtype, 5e-2)
    scale = expected.detach().abs().nan_to_num(0.0, 0.0, 0.0).max().clamp(min=1e-30) if expected.numel() else 1.0
    return torch.allclose(out / scale, expected / scale, rtol=0.0, atol=tolerance, equal_nan=True)
