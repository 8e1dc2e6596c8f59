"""Sources of outputs at several points: the model as a program, and torch.func.vmap over its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..._data import call
from .._batches import Batch
from ..program import Program, Refused

# Bytes of the widest values of a group of points. Convolutions that go point by point gain nothing from more points than
# the second cache takes; products of many points at once do (benchmarks/README.md).
_HOST = {True: 4 << 20, False: 16 << 20}
_DEVICE = 1 << 30

Terms = Mapping[str, Sequence[Tensor | None]]  # by parameter: W_0, D_1, …; None where a direction is zero


class Programmed:
    """The model as a program; see `thalweg.landscape.program`.

    Args:
        model: In the mode of its evaluation.
        terms: Of the weights that move.
        batches: The data.
        room: Bytes that stored products may take.

    Raises:
        Refused: The model cannot be a program.
    """

    def __init__(self, model: nn.Module, terms: Terms, batches: Sequence[Batch], room: int) -> None:
        for batch in batches:
            if not isinstance(batch.inputs, Tensor):
                raise Refused("the inputs of a batch are not one tensor")
        self._model, self._terms, self._batches, self._room = model, terms, batches, room
        self._program = Program(model, terms)

    def group(self) -> int:
        """Points that are best evaluated at once: as many as keep their values near the processor, or a device busy."""
        largest = max(range(len(self._batches)), key=lambda index: self._batches[index].samples)
        self._ready(largest)
        on_host = self._batches[0].inputs.device.type == "cpu"
        room, most = (_HOST[self._program.loops], 8) if on_host else (_DEVICE, 64)
        return max(1, min(most, room // max(1, self._program.width(largest))))

    def prepare(self) -> None:
        """Compute what all points share, within the room."""
        if not self._prepared() and self._program.reuses:
            self._program = Program(self._model, self._terms, reuse=False)
            self._prepared()

    def _prepared(self) -> bool:
        used = 0
        for index in range(len(self._batches)):
            used += self._ready(index)
            if used > self._room and self._program.reuses:
                return False
        return True

    def _ready(self, index: int) -> int:
        inputs = self._batches[index].inputs
        images = inputs.dim() == 4
        return self._program.prepare(index, inputs.contiguous(memory_format=torch.channels_last) if images else inputs)

    def at(self, coordinates: Tensor) -> Any:
        """See Source."""
        return self._program.at(coordinates)

    def outputs(self, index: int, at: Any) -> Sequence[Any]:
        """See Source."""
        return self._program.outputs(index, at)


class Vmapped:
    """torch.func.vmap of the model over its weights: for any model that vmap takes.

    Args:
        model: In the mode of its evaluation.
        terms: Of the weights that move.
        batches: The data.
    """

    def __init__(self, model: nn.Module, terms: Terms, batches: Sequence[Batch]) -> None:
        self._model, self._batches = model, batches
        self._basis = {
            name: torch.stack([torch.zeros_like(own[0]) if t is None else t for t in own])  # type: ignore[arg-type]
            for name, own in terms.items()
        }

    def group(self) -> int:
        """Points that are evaluated at once."""
        return 8 if self._batches[0].samples <= 1 << 11 else 1

    def prepare(self) -> None:
        """See Source."""

    def at(self, coordinates: Tensor) -> dict[str, Tensor]:
        """See Source."""
        weights = {}
        for name, basis in self._basis.items():
            c = coordinates.to(basis.dtype)
            weights[name] = (torch.cat([torch.ones_like(c[:, :1]), c], 1) @ basis.flatten(1)).view(-1, *basis.shape[1:])
        return weights

    def outputs(self, index: int, at: dict[str, Tensor]) -> Sequence[Any]:
        """See Source."""
        inputs = self._batches[index].inputs

        def forward(weights: dict[str, Tensor]) -> Any:
            return call(lambda *args, **kwargs: functional_call(self._model, weights, args, kwargs), inputs)

        return list(torch.func.vmap(forward)(at).unbind(0))
