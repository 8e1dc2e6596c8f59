"""The engines of a tier for one run, by name. Knows what they need, not how they work."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

import torch

from ..._preserve import unwrap
from ..program import Refused
from . import Array, Engine, Task
from ._graph import Refusal
from .choice import Build, Choice, choose
from .device import Device
from .grouped import Grouped
from .loop import Loop
from .prefix import Prefixed
from .sources import Programmed, Vmapped

TIERS = ("exact", "rounding")
IMPLEMENTATIONS = ("auto", "loop", "program", "threads", "vmap")
_FEW = 8  # points from which preparing pays
_GROUP = {"cpu": (1 << 14, 8), "cuda": (1 << 19, 64)}  # samples, and points, that are evaluated at once


@dataclass
class Tiers:
    """What the engine of a run is chosen from.

    Attributes:
        tier: See Evaluator.
        implementation: A name, or "auto" for the fastest.
        frozen: Whether every forward pass is a function of weights and inputs alone.
        room: Bytes that may be kept beside the data.
        refusal: Of CUDA graphs, from earlier runs.
        chosen: By the names of the weights that move, from earlier runs.
    """

    tier: str
    implementation: str
    frozen: bool
    room: int
    refusal: Refusal = field(default_factory=Refusal)
    chosen: dict[tuple[str, ...], Choice] = field(default_factory=dict)

    def engine(self, task: Task, points: Array, device: torch.device, on_device: bool) -> tuple[Engine, Choice | None]:
        """The engine for these points; in the exact tier all have the same bits, so nothing is timed."""

        def plain(part: Task) -> Engine:
            if on_device:
                return Device(part, device, points.shape[1], len(points), self.refusal)
            return Loop(part)

        if self.tier == "exact":
            return self._exact(task, plain, on_device), None
        builds: dict[str, Build] = {"loop": plain}
        for name in ("program", "threads", "vmap"):
            builds[name] = functools.partial(self._grouped, name, device)
        if self.implementation != "auto" and task.move.terms is not None:
            return self._named(task, builds), None
        if (obstacle := self._obstacle(task, len(points))) is not None:
            return plain(task), Choice("loop", {"others": obstacle})
        known = self.chosen.get(tuple(task.move.moving))
        if known is not None:
            return builds[known.name](task), known
        engine, choice = choose(task, builds, points, {"vmap": "program"})
        self.chosen[tuple(task.move.moving)] = choice
        return engine, choice

    def _exact(self, task: Task, plain: Build, on_device: bool) -> Engine:
        if on_device or not self.frozen or task.move.terms is None or not task.measure.takes_outputs:
            return plain(task)
        try:
            return Prefixed(task, self._moving(task), self.room)
        except Refused:
            return plain(task)

    def _named(self, task: Task, builds: dict[str, Build]) -> Engine:
        try:
            return builds[self.implementation](task)
        except Refused as error:
            raise ValueError(
                f"Evaluator: implementation {self.implementation!r} cannot evaluate this run: {error}; choose 'auto'"
            ) from None

    @staticmethod
    def _moving(task: Task) -> list[int]:
        params = dict(unwrap(task.model).named_parameters())
        return [params[name].data_ptr() for name in task.move.moving]

    def _obstacle(self, task: Task, points: int = _FEW) -> str | None:
        """Why points cannot be evaluated together, or None."""
        if not self.frozen:
            return "the forward pass depends on more than weights and inputs (BatchNorm's mode, train mode)"
        if task.move.terms is None:
            return "the points lie between two models, or are one"
        if not task.measure.takes_outputs:
            return "a loss_fn(model, batch) hides the model's outputs"
        return None if points >= _FEW else f"{points} points are too few"

    def _grouped(self, name: str, device: torch.device, task: Task) -> Engine:
        if (obstacle := self._obstacle(task)) is not None:
            raise Refused(obstacle)
        workers = torch.get_num_threads() if name == "threads" else 1
        if name == "threads" and (workers == 1 or device.type != "cpu"):
            raise Refused("there is one thread" if device.type == "cpu" else "the device has its own")
        assert task.move.terms is not None  # or there would be an obstacle
        terms = task.move.terms()
        made: Any = (
            Vmapped(task.model, terms, task.batches)
            if name == "vmap"
            else Programmed(task.model, terms, task.batches, self.room)
        )
        samples, most = _GROUP[device.type]
        points = max(1, min(most, samples // max(n for _, _, n in task.batches)))
        return Grouped(task, made, points, workers, device)
