"""Moves of a model's weights: in the plane of directions, between two models. Knows no loss and no data."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .. import _core
from ._saved import Saved, writable, write
from ._weights import DTYPES, like, pick, state_of
from .directions import Directions

MOST_DIRECTIONS = 4  # kMaxDirections of landscape.hpp


class Move:
    """Sets the weights to those of a point.

    Attributes:
        terms: Makes, for every weight that moves, by name, its value at the origin and its part of each direction (None
            where that is zero); None where the points are not linear combinations.
        moving: Their names.
    """

    terms: Callable[[], dict[str, list[Tensor | None]]] | None = None
    moving: Sequence[str] = ()

    def to(self, *coordinates: float) -> None:
        """The point with these coordinates."""

    def to_row(self, table: Tensor, cursor: Tensor) -> None:
        """The point in row `cursor` of a float64 table [points, coordinates]; all are on the weights' device."""


class _Moved(Move):
    def __init__(self, perturbation: _core.Perturbation, lerps: bool, strided: list[tuple[Tensor, Tensor]]) -> None:
        self._perturbation = perturbation
        self._lerps = lerps
        self._strided = strided
        self._threads = torch.get_num_threads()

    def to(self, *coordinates: float) -> None:
        if self._lerps:
            self._perturbation.lerp(coordinates[0], self._threads)
        else:
            self._perturbation.perturb(coordinates, self._threads)
        self._spread()

    def to_row(self, table: Tensor, cursor: Tensor) -> None:
        if self._lerps:
            self._perturbation.lerp_at(table, cursor)
        else:
            self._perturbation.perturb_at(table, cursor)
        self._spread()

    def _spread(self) -> None:
        for tensor, stand_in in self._strided:
            tensor.data.copy_(stand_in)


def in_plane(params: Mapping[str, nn.Parameter], saved: Saved, directions: Directions) -> Move:
    """A move to (a, b, ...), one coordinate for each of up to four directions: ((w + a d1) + b d2) + ..."""
    if not 1 <= len(directions) <= MOST_DIRECTIONS:
        raise ValueError(f"Evaluator: expected 1 to {MOST_DIRECTIONS} directions, got {len(directions)}")
    terms = directions.terms("Evaluator", params)
    tensors = list(params.values())
    origin = saved.weights
    if directions.origin is not None:
        origin = [
            torch.empty_like(t, requires_grad=False).copy_(o) for t, o in zip(tensors, directions.origin, strict=True)
        ]
    moving = [i for i in range(len(tensors)) if any(row[i] is not None for row in terms)]
    for i in set(range(len(tensors))) - set(moving):
        tensors[i].data.copy_(origin[i])  # stands still at every point
    outs, strided = _targets([tensors[i] for i in moving])
    starts = [_dense(origin[i]) for i in moving]
    perturbation = _core.Perturbation(outs, starts, [[row[i] for i in moving] for row in terms])
    move = _Moved(perturbation, False, strided)
    names = list(params)

    def stored() -> dict[str, list[Tensor | None]]:
        """The terms as tensors, drawn ones too."""
        made: dict[str, list[Tensor | None]] = {}
        for i, start in zip(moving, starts, strict=True):
            parts = (
                None if row[i] is None else like(tensors[i], vector[i]).contiguous()
                for row, vector in zip(terms, directions.vectors, strict=True)
            )
            made[names[i]] = [start.contiguous(), *parts]
        return made

    move.terms, move.moving = stored, [names[i] for i in moving]
    return move


def between(model: nn.Module, ends: tuple[Any, Any], still: Collection[str] = ()) -> Move:
    """A move to t: weights and floating-point buffers between two models, exact at both; those in `still` stay.

    What cannot lie between, such as BatchNorm's counter, is that of the first model.
    """
    who = "Evaluator.line"
    target = state_of(who, model)
    a, b = (pick(who, target, state_of(who, end)) for end in ends)
    tensors = list(target.values())
    written = {i for i, name in enumerate(target) if name not in still}
    moving = [i for i, t in enumerate(tensors) if i in written and _movable(t)]
    outs, strided = _targets([tensors[i] for i in moving])
    starts, stops = ([_dense(torch.empty_like(tensors[i]).copy_(s[i])) for i in moving] for s in (a, b))
    for i in written - set(moving):
        write(tensors[i], a[i])
    line = _core.Perturbation(outs, starts, [stops])
    return _Moved(line, True, strided)


def _movable(tensor: Tensor) -> bool:
    """Tell whether the core can move it: not empty, not sparse, of a type that it knows, with memory of its own."""
    own = tensor.layout == torch.strided and writable(tensor) is tensor
    return own and tensor.dtype in DTYPES and tensor.numel() > 0


def onto(model: nn.Module, state: nn.Module | Mapping[str, Tensor], still: Collection[str] = ()) -> None:
    """Copy another model's weights and buffers into this one, but for those in `still`."""
    target = state_of("Evaluator.at", model)
    values = pick("Evaluator.at", target, state_of("Evaluator.at", state))
    for (name, value), source in zip(target.items(), values, strict=True):
        if name not in still:
            write(value, source)


def _dense(tensor: Tensor) -> Tensor:
    """The tensor itself, or a copy without gaps."""
    return tensor if _core.tensor_view(tensor)[4] else tensor.clone(memory_format=torch.preserve_format)


def _targets(tensors: Sequence[Tensor]) -> tuple[list[Tensor], list[tuple[Tensor, Tensor]]]:
    """Where the core writes: the tensors themselves, or dense stand-ins that are copied over afterwards."""
    outs, strided = [], []
    for tensor in tensors:
        stand_in = _dense(tensor.detach())
        outs.append(stand_in)
        if stand_in.data_ptr() != tensor.data_ptr():
            strided.append((tensor, stand_in))
    return outs, strided
