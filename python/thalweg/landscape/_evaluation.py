"""A model with its data, evaluated at points: modes, what every point starts from, the engine, the untouched model.

Knows no axes and no results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from tqdm.auto import tqdm

from .._preserve import unwrap
from . import _walk
from ._ledger import Indices, Ledger
from ._loss import Measure
from ._memory import keep_freed_memory, memory_of
from ._points import Batch
from ._run import run
from ._saved import SameStart, Saved, untouched
from .engines import Array, Engine, Task
from .engines.choice import Choice
from .engines.tiers import Tiers

BN_MODES = ("frozen", "recalibrate", "batch")
Start = Callable[[Saved], _walk.Move]  # makes the moves of a run, once the model is saved


@dataclass
class How:
    """How the points of a run are gone through.

    Attributes:
        what: Shown beside the progress bar.
        progress: Whether there is one.
        order: [points] every index once; None: as they come.
        shown: Called with the ledger after every call of the engine.
        ledger: Makes the ledger from order and columns.
    """

    what: str = "points"
    progress: bool = False
    order: Indices | None = None
    shown: Callable[[Ledger], object] = lambda ledger: None
    ledger: Callable[[Indices, int], Ledger] = Ledger


@dataclass
class Run:
    """Values by name, [points] each, and what a result shall tell about the run."""

    values: dict[str, Array]
    told: dict[str, Any]

    def first(self) -> dict[str, float]:
        """The values at the first point."""
        return {name: float(value[0]) for name, value in self.values.items()}


@dataclass
class Evaluation:
    """What is evaluated.

    Attributes:
        model: The user's.
        params: Its parameters as `_weights.parameters` has them.
        measure: What is measured.
        bn: BatchNorm's mode, see Evaluator.
        train_mode: See Evaluator.
        on_device: Whether the core takes the model's memory for a CUDA device's.
        batches: The data, where the model is.
        tier: See Evaluator.
        implementation: See Evaluator.
        draws: Whether a point has drawn random numbers so far.
        choice: How the engine of the last run was chosen; None where there was nothing to choose.
    """

    model: nn.Module
    params: Mapping[str, nn.Parameter]
    measure: Measure
    bn: str
    train_mode: bool
    on_device: bool
    tier: str = "exact"
    implementation: str = "auto"
    batches: Sequence[Batch] = ()
    draws: bool = False
    choice: Choice | None = None
    _tiers: Tiers | None = None

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(iter(self.params.values())).device

    @property
    def room(self) -> int:
        """Bytes that may be kept beside the data."""
        return (memory_of(self.device) or 1 << 32) // 4

    @property
    def samples(self) -> int:
        """Samples in all batches."""
        return sum(n for _, _, n in self.batches)

    def run(self, start: Start, points: Array, how: How) -> Run:
        """Values after each of the moves that `start` prepares; the model is as before afterwards."""
        keep_freed_memory()
        order = np.arange(len(points)) if how.order is None else how.order
        bar = tqdm(total=len(points), desc=how.what, unit="point", leave=False, disable=None if how.progress else True)
        with self._enough_memory(), bar, untouched(self.model, self.params) as saved, torch.inference_mode():
            self._evaluation_mode()
            move = start(saved)
            same = SameStart(self.model, self.device)
            ledger = how.ledger(order, self.measure.columns)

            def shown(ledger: Ledger) -> None:
                bar.n = int(ledger.done.sum())  # also those that came from a journal or another process
                how.shown(ledger)

            totals = run(self._engine(move, same, points), points, ledger, bar.update, shown)
            self.draws = self.draws or same.drew()
        return Run(self.values(totals), ledger.told)

    def values(self, totals: Array) -> dict[str, Array]:
        """Metrics by name, [points] each, from running sums [points, columns]; NaN where these are."""
        samples = self.samples
        values = np.array([self.measure.values(row, samples) for row in totals.tolist()])
        return {name: values[:, i].copy() for i, name in enumerate(self.measure.names)}

    def _engine(self, move: _walk.Move, same: SameStart, points: Array) -> Engine:
        prepare = self._recalibrate if self.bn == "recalibrate" else None
        task = Task(self.model, move, same, prepare, self.measure, self.batches)
        if self._tiers is None:
            frozen = self.bn == "frozen" and not self.train_mode
            self._tiers = Tiers(self.tier, self.implementation, frozen, self.room)
        engine, self.choice = self._tiers.engine(task, points, self.device, self.on_device)
        return engine

    def _evaluation_mode(self) -> None:
        self.model.train(self.train_mode)
        for module in unwrap(self.model).modules():
            if isinstance(module, _BatchNorm):
                module.training = self.bn == "batch"

    def _recalibrate(self) -> None:
        from ..ensemble import reestimate_bn

        reestimate_bn(self.model, ((x, t) for x, t, _ in self.batches))

    @contextmanager
    def _enough_memory(self) -> Iterator[None]:
        """Say what to do when a batch does not fit."""
        try:
            yield
        except torch.OutOfMemoryError as error:
            raise torch.OutOfMemoryError(
                f"Evaluator: {self.device} has not enough memory for batches of up to "
                f"{max(n for _, _, n in self.batches)} samples; choose a smaller batch_size. The model is as before "
                f"({(str(error).splitlines() or [''])[0]})"
            ) from error
