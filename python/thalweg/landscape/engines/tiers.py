"""The engines of a tier for one run, by name. Knows what they need, not how they work."""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any

import torch

from ..._preserve import unwrap
from .._batches import Resident, Streamed
from ..program import Refused
from . import Array, Engine, Task
from ._graph import Refusal
from .approximate import Approximate, lowered
from .choice import FEWER_BITS, ROUNDING, Choice, choose
from .device import Device
from .grouped import Grouped
from .loop import Loop
from .prefix import Prefixed
from .sources import Programmed, Vmapped
from .streamed import OnDevice, OnHost

TIERS = ("exact", "rounding", "approximate")
IMPLEMENTATIONS = ("auto", "loop", "program", "threads", "vmap")
_FEW = 8  # points from which preparing pays


@dataclass
class Tiers:
    """What the engine of a run is chosen from.

    Attributes:
        implementation: A name, or "auto" for the fastest.
        precision: Of the approximate tier, or None.
        room: Bytes that may be kept beside the data.
        device: The model's.
        on_device: Whether the core takes its memory for a CUDA device's.
        frozen: Whether every forward pass is a function of weights and inputs alone.
        refusal: Of CUDA graphs, from earlier runs.
        chosen: By the names of the weights that move, from earlier runs.
    """

    implementation: str
    precision: str | None
    room: int
    device: torch.device
    on_device: bool
    frozen: bool = False
    refusal: Refusal = field(default_factory=Refusal)
    chosen: dict[tuple[str, ...], Choice] = field(default_factory=dict)

    def exact(self, task: Task, points: Array) -> Engine:
        """The engine for these points with the bits of plain torch."""
        able = self.frozen and task.measure.takes_outputs and isinstance(task.batches, Resident)
        if not self.on_device and able and self._starts_still(task):
            with suppress(Refused):
                return Prefixed(task, self._moving(task), self.room)
        return self._plain(task, points)

    def choice(self, task: Task, points: Array) -> Choice:
        """Which engine shall evaluate these points of a plane, by a trial where several can."""
        wanted = self.implementation
        if wanted == "loop":
            return Choice("loop", {"loop": "as asked for"})
        lies_between = task.move.terms is None
        if (wanted == "auto" or lies_between) and (obstacle := self._obstacle(task, len(points))) is not None:
            return Choice("loop", {"others": f"not together: {obstacle}"})
        key = tuple(task.move.moving)
        if key not in self.chosen:
            names = IMPLEMENTATIONS[1:] if wanted == "auto" else ("loop", wanted)
            builds = {name: functools.partial(self._built, name, points=points) for name in names}
            agree = ROUNDING if self.precision is None else FEWER_BITS
            self.chosen[key] = choose(task, builds, points, {"vmap": "program"}, agree, wanted)
        return self.chosen[key]

    def named(self, name: str, task: Task, points: Array) -> Engine:
        """The engine of this name.

        Raises:
            ValueError: It cannot evaluate this run.
        """
        try:
            return self._built(name, task, points)
        except Refused as error:
            raise ValueError(
                f"Evaluator: implementation {name!r} cannot evaluate this run: {error}; choose 'auto'"
            ) from None

    def _built(self, name: str, task: Task, points: Array) -> Engine:
        engine = self._plain(task, points) if name == "loop" else self._grouped(name, task, points.shape[1])
        return engine if self.precision is None else Approximate(engine, self.precision, self.device)

    def _plain(self, task: Task, points: Array) -> Engine:
        if isinstance(task.batches, Streamed):
            return OnDevice(task, self.device, len(points), points.shape[1]) if self.on_device else OnHost(task)
        if self.on_device:
            return Device(task, self.device, points.shape[1], len(points), self.refusal)
        return Loop(task)

    @staticmethod
    def _starts_still(task: Task) -> bool:
        """Whether it is worth looking for layers at the beginning that stand still: the first weight does."""
        first = next(iter(dict(unwrap(task.model).named_parameters())), None)
        return task.move.terms is not None and first not in task.move.moving

    @staticmethod
    def _moving(task: Task) -> list[int]:
        params = dict(unwrap(task.model).named_parameters())
        return [params[name].data_ptr() for name in task.move.moving]

    def _obstacle(self, task: Task, points: int = _FEW) -> str | None:
        """Why points cannot be evaluated together, or None."""
        if not self.frozen:
            return "the forward pass depends on more than weights and inputs (BatchNorm's mode, train mode, random numbers)"
        if not isinstance(task.batches, Resident):
            return "the data are streamed; a larger memory_budget keeps them"
        if task.move.terms is None:
            return "the points lie between two models"
        if not task.measure.takes_outputs:
            return "what is measured does not follow from the model's outputs (a loss_fn(model, batch), or l2)"
        return None if points >= _FEW else f"{points} points are too few"

    def _grouped(self, name: str, task: Task, width: int) -> Engine:
        if (obstacle := self._obstacle(task)) is not None:
            raise Refused(obstacle)
        workers = torch.get_num_threads() if name == "threads" else 1
        if name == "threads" and (workers == 1 or self.on_device):
            raise Refused("the device has its own" if self.on_device else "there is one thread")
        if name == "vmap" and self.precision == "bf16":
            raise Refused("torch.func.vmap leaves autocast aside")
        assert task.move.terms is not None  # or there would be an obstacle
        params = dict(unwrap(task.model).named_parameters())
        size = sum(params[name].numel() * params[name].element_size() for name in task.move.moving)
        if 2 * size * (1 + width) > self.room:  # the terms, and their copy in one piece
            raise Refused(f"weights and directions of {size >> 20} MiB each take more memory than there is room for")
        terms, batches = task.move.terms(), list(task.batches)
        vmap = name == "vmap"
        made: Any = Vmapped(task.model, terms, batches) if vmap else Programmed(task.model, terms, batches, self.room)
        return Grouped(task, made, made.group(), workers, self.device, width, self.on_device, self._arithmetic)

    def _arithmetic(self) -> AbstractContextManager[None]:
        return nullcontext() if self.precision is None else lowered(self.precision, self.device)
