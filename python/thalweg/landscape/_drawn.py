"""Directions that are not stored: the recipe of each tensor, and the tensor itself on demand. Knows no norms."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import torch
from torch import Tensor

from .. import _core
from ._weights import direction_dtype, hash_of, like

_SURELY_SEEN = 1e-30  # times the smallest variate (3e-10) this is still more than float32's smallest number


@dataclass(frozen=True)
class Drawn:
    """One tensor of a direction: variate k of the stream, times the scale of its row or its weight, rounded once.

    Attributes:
        shape: Of the parameter.
        dtype: Of the direction.
        device: Where the tensor is made.
        seed: Key of the generator.
        stream: Number of the stream.
        scales: [rows] float64 factors, or None.
        weight: The parameter whose entries are the factors, or None.
        weight_hash: Of that parameter as it was.
        fixed: Values that are not drawn, or None.
        is_zero: Whether no entry differs from 0.
    """

    shape: torch.Size
    dtype: torch.dtype
    device: torch.device
    seed: int = 0
    stream: int = 0
    scales: Tensor | None = None
    weight: Tensor | None = None
    weight_hash: str = ""
    fixed: Tensor | None = None
    is_zero: bool = False

    def make(self, dtype: torch.dtype | None = None) -> Tensor:
        """The tensor, contiguous, in the direction's type or in `dtype`."""
        out = torch.zeros(self.shape, dtype=dtype or self.dtype, device=self.device)
        if self.is_zero:
            return out
        if self.fixed is not None:
            return out.copy_(self.fixed)
        weight = None if self.weight is None else self._checked(self.weight).to(self.device).contiguous()
        _core.fill_drawn(out, self._draw(self.device, (1, 1)), weight, torch.get_num_threads())
        return out

    def term(self, param: Tensor) -> Tensor | _core.Draw | None:
        """What the kernel needs to move `param`: None, the recipe, or stored values where a recipe cannot be used."""
        if self.is_zero:
            return None
        swap = swap_of(torch.empty_like(param, device="meta"))
        if self.fixed is not None or swap is None or direction_dtype(param) != self.dtype:
            return like(param, self.make())
        if self.weight is not None:
            self._checked(param)
        return self._draw(param.device, swap)

    def _draw(self, device: torch.device, swap: tuple[int, int]) -> _core.Draw:
        scales = None if self.scales is None else self.scales.to(device)
        return _core.Draw(self.seed, self.stream, scales, self.weight is not None, swap)

    def _checked(self, weight: Tensor) -> Tensor:
        if hash_of({"": weight}) != self.weight_hash:
            raise ValueError(
                "random_directions: the weights have changed since these directions were made, and with norm='weight' "
                "they are the factors; make new directions, or make them with storage='dense'"
            )
        return weight.detach()


def vanishes(drawn: Drawn) -> bool:
    """Tell whether every entry of this direction is 0, by its factors where they tell and else by looking."""
    if not drawn.shape.numel():
        return True
    factors = drawn.scales if drawn.weight is None else drawn.weight.detach()
    if drawn.fixed is None and (factors is None or not float(factors.abs().max()) < _SURELY_SEEN):
        return False
    return not bool((drawn.make() != 0).any())


class DrawnVector(Sequence[Tensor]):
    """A direction's tensors, made when they are asked for and not kept."""

    def __init__(self, parts: Sequence[Drawn]) -> None:
        self.parts = tuple(parts)

    def __len__(self) -> int:
        """Number of tensors."""
        return len(self.parts)

    def __iter__(self) -> Iterator[Tensor]:
        """One after the other, so that only one need be there at a time."""
        return (part.make() for part in self.parts)

    @overload
    def __getitem__(self, place: int) -> Tensor: ...
    @overload
    def __getitem__(self, place: slice) -> DrawnVector: ...
    def __getitem__(self, place: int | slice) -> Tensor | DrawnVector:
        """A tensor, or a part of the direction that makes its tensors on demand, too."""
        return DrawnVector(self.parts[place]) if isinstance(place, slice) else self.parts[place].make()


def swap_of(tensor: Tensor) -> tuple[int, int] | None:
    """(a, b) where element ((o a + i) b + j) of the memory is element ((o b + j) a + i) of the dimensions, or None.

    Of that kind are a run of dimensions that memory keeps and then two blocks that memory has in the other order:
    channels last, transposed matrices; (1, 1) is a contiguous tensor. Only for tensors without gaps.
    """
    sizes = [(size, stride) for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if size != 1]
    order = sorted(range(len(sizes)), key=lambda i: -sizes[i][1])  # dimensions from the slowest to the fastest
    kept = next((k for k, place in enumerate(order) if place != k), len(order))
    rest = order[kept:]
    if not rest:
        return 1, 1
    turn, end = rest.index(kept), len(order)
    if rest != [*range(end - turn, end), *range(kept, end - turn)]:
        return None
    first, second = (math.prod(sizes[i][0] for i in part) for part in (rest[:turn], rest[turn:]))
    return first, second
