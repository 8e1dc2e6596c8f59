"""16-bit weights that a small step does not move. Knows no loss and no data."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ._cells import on_device
from ._ledger import Array
from ._walk import Move

_MANY = 0.1  # of the weights that should move; fewer do not show
_FAR = 2.0**20  # times the smallest step: there every weight moves that has a direction


def unmoved(params: Mapping[str, Tensor], move: Move, coordinates: Array) -> float:
    """Share of the 16-bit weights in motion that are the same at the smallest step as at zero; the weights change."""
    narrow = [p for p in params.values() if p.dtype in (torch.bfloat16, torch.float16)]
    steps = coordinates[(coordinates != 0).any(axis=1)]
    if not narrow or not len(steps):
        return 0.0
    smallest = steps[np.abs(steps).max(axis=1).argmin()]
    rows = np.stack([0 * smallest, smallest, _FAR * smallest])
    table = torch.tensor(rows, dtype=torch.float64, device=narrow[0].device)
    found = []
    for i, row in enumerate(rows.tolist()):
        if on_device(narrow[0]):
            move.to_row(table, torch.tensor([i], device=table.device))
        else:
            move.to(*row)
        found.append([p.detach().clone() for p in narrow])
    still = moving = 0
    for zero, near, far in zip(*found, strict=True):
        moves = far != zero
        moving += int(moves.sum())
        still += int((moves & (near == zero)).sum())
    return still / moving if moving else 0.0


def warn_of_unmoved(params: Mapping[str, Tensor], move: Move, coordinates: Array) -> None:
    """Say when much of a picture's finest step is lost in the weights' rounding."""
    share = unmoved(params, move, coordinates)
    if share > _MANY:
        warnings.warn(
            f"Evaluator: {share:.0%} of the 16-bit weights do not move at the smallest coordinate, which is below half "
            "of their last digit: the landscape is that of rounded weights; evaluate model.float() for a smooth one, or "
            "take larger steps",
            UserWarning,
            stacklevel=2,
        )
