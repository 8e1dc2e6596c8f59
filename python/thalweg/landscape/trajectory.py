"""The path of a training through weight space, recorded point by point on the host."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ._weights import parameters


class Trajectory:
    """Copies of a model's parameters along its training.

    Args:
        model: The model that is trained; its parameters are copied at every `record()`.

    Example:
        >>> import torch, thalweg as tw
        >>> track = tw.landscape.Trajectory(torch.nn.Linear(2, 1))
        >>> track.record(lr=0.1)
        >>> len(track), track.metadata[0]
        (1, {'lr': 0.1})
    """

    def __init__(self, model: nn.Module) -> None:
        self._params = parameters("Trajectory", model)
        self.names = tuple(self._params)
        self.points: list[dict[str, Tensor]] = []
        self.metadata: list[dict[str, Any]] = []

    def __len__(self) -> int:
        """Number of recorded points."""
        return len(self.points)

    def record(self, **metadata: Any) -> None:
        """Copy the parameters as they are now; `metadata` (step, lr, loss …) is kept with the point."""
        with torch.no_grad():
            point = {
                n: p.detach().to("cpu", torch.promote_types(p.dtype, torch.float32), copy=True)
                for n, p in self._params.items()
            }
        self.points.append(point)
        self.metadata.append(metadata)
