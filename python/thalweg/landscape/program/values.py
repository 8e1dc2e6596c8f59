"""Values of a program: the same for all points, or one per point, perhaps as slices of one tensor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Stacked(NamedTuple):
    """One tensor [points, samples, ...] with the values of all points."""

    tensor: Tensor


Each = list[Any]  # one value per point
Value = Any  # Stacked, Each where the node varies, else whatever the model itself would have


def each_of(value: Stacked | Each) -> Each:
    """One value per point, without copies."""
    return list(value.tensor.unbind(0)) if isinstance(value, Stacked) else value


def stack_of(value: Stacked | Each) -> Tensor:
    """[points, ...], contiguous."""
    return value.tensor.contiguous() if isinstance(value, Stacked) else torch.stack(value)


def mapped(function: Callable[[Tensor], Tensor], value: Stacked | Each) -> Stacked | Each:
    """An element-wise function of every point's value."""
    if isinstance(value, Stacked):
        return Stacked(function(value.tensor))
    return [function(entry) for entry in value]
