"""A model with its data, evaluated at points: modes, what every point starts from, the engine, the untouched model.

Knows no axes and no results.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from tqdm.auto import tqdm

from .. import _check
from .._preserve import unwrap
from . import _walk
from ._batches import Data, Resident
from ._ledger import Indices, Ledger
from ._loss import Measure, check_center
from ._memory import default_budget, keep_freed_memory
from ._points import Reader
from ._recalibrate import Recalibration
from ._run import run
from ._saved import SameStart, Saved, untouched
from ._targets import Amounts
from .engines import Array, Engine, Task
from .engines.approximate import error_of, places_to_probe
from .engines.choice import Choice
from .engines.streamed import POINTS_PER_PASS
from .engines.tiers import Tiers

_LOG = logging.getLogger("thalweg.landscape")
BN_MODES = ("interpolate", "frozen", "recalibrate", "batch")
_WANTS_GRADIENTS = ("does not require grad", "Inference tensors cannot be saved", "Inference tensor")
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
        rounds: Gives the points one round after the other, see `_run.run`; None: all at once.
    """

    what: str = "points"
    progress: bool = False
    order: Indices | None = None
    shown: Callable[[Ledger], object] = lambda ledger: None
    ledger: Callable[[Indices, int], Ledger] = Ledger
    rounds: Callable[[Ledger], Indices] | None = None


@dataclass
class Run:
    """Values by name, [points] each, and what a result shall tell about the run."""

    values: dict[str, Array]
    told: dict[str, Any]
    done: npt.NDArray[np.bool_]

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
        data: The batches.
        tier: See Evaluator.
        implementation: See Evaluator.
        precision: See Evaluator.
        budget: Bytes that data, and activations of BatchNorm's recalibration, may take; None: half of what is free.
        draws: Whether a point has drawn random numbers so far.
        choice: How the engine of the last run over points was chosen; None where none was left to evaluate.
    """

    model: nn.Module
    params: Mapping[str, nn.Parameter]
    measure: Measure
    bn: str
    train_mode: bool
    on_device: bool
    tier: str = "exact"
    implementation: str = "auto"
    precision: str | None = None
    data: Data = field(default_factory=lambda: Resident([]))
    draws: bool = False
    budget: int | None = None
    choice: Choice | None = None
    _recalibration: Recalibration | None = None  # knows from earlier runs what the model bears
    _first: float = 0.0  # seconds of the first point, at the model's own weights
    _spent: float = 0.0  # seconds of the last run, without what prepares it
    _without_gradients: Callable[[], AbstractContextManager[Any]] = torch.inference_mode

    @functools.cached_property
    def _tiers(self) -> Tiers:
        return Tiers(self.implementation, self.precision, self.room, self.device, self.on_device)

    @property
    def room(self) -> int:
        """Bytes that may be kept beside the data."""
        return default_budget(self.device) if self.budget is None else self.budget

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(iter(self.params.values())).device

    @property
    def samples(self) -> int:
        """Samples in all batches."""
        return sum(self.data.sizes)

    @property
    def still(self) -> set[str]:
        """Names of the statistics that stay as the model has them whatever model is loaded."""
        if self.bn != "frozen":
            return set()
        return {
            f"{place}.{name}".removeprefix(".")
            for place, module in unwrap(self.model).named_modules()
            if isinstance(module, _NormBase)
            for name, _ in module.named_buffers(recurse=False)
        }

    def read(self, data: Any, batch_size: int | str | None, budget: int | None) -> None:
        """Read the data once; see Evaluator."""
        tune = batch_size == "tune"
        size = None if tune or batch_size is None else _check.integer("Evaluator", "batch_size", batch_size, 1)
        if budget is not None:
            budget = _check.integer("Evaluator", "memory_budget", budget, 0)
        trial = self._seconds if tune else None
        targets = self.measure.counts.targets
        reader = Reader(
            self.model, self.params, targets.count, self.measure.takes_any_batch, budget, size, trial
        )  # fmt: skip
        self.data, self.budget = reader.read(data), budget
        self.measure.counts.amounts = reader.amounts

    def center(self) -> dict[str, float]:
        """Values at the model's own weights; a loss that takes gradients is found out here and gets them from now on."""
        try:
            values = self._at_model()
        except RuntimeError as error:
            if not any(text in str(error) for text in _WANTS_GRADIENTS):
                raise
            self._without_gradients = torch.no_grad  # inside, the loss may enable them
            values = self._at_model()
        self._first = self._spent
        self.choice = self._plain()
        check_center(values)
        return values

    def _plain(self, why: str = "") -> Choice:
        """The plain engine, and what the first point, which is the slowest, says of its time."""
        if self.data.streamed:
            why = f"{why}a pass over the data took {self._first:.3g} s at first and serves many points"
            return Choice("loop", {"loop": why})
        return Choice("loop", {"loop": f"{why}{self._first * 1e3:.3g} ms for the first point"}, self._first)

    def _seconds(self, batches: Resident) -> float:
        """Time of one pass over these batches."""
        self.data, self.measure.counts.amounts = batches, Amounts(sum(batches.sizes))
        started = time.perf_counter()
        self._at_model()
        return time.perf_counter() - started

    def _at_model(self) -> dict[str, float]:
        return self.run(lambda saved: _walk.Move(), np.empty((1, 0)), How()).first()

    def run(self, start: Start, points: Array, how: How) -> Run:
        """Values after each of the moves that `start` prepares; the model is as before afterwards."""
        keep_freed_memory()
        order = np.arange(len(points)) if how.order is None else how.order
        bar = tqdm(total=len(points), desc=how.what, unit="point", leave=False, disable=None if how.progress else True)
        whole = nn.ModuleList([self.model, *self.measure.modules])
        with self._enough_memory(), bar, untouched(whole, self.params) as saved, self._without_gradients():
            self._evaluation_mode()
            move = start(saved)
            same = SameStart(whole, self.device)  # after the move was made: a state that is loaded counts as the start
            task = Task(self.model, move, same, self._statistics(), self.measure, self.data)
            with how.ledger(order, self.measure.columns) as ledger:

                def shown(ledger: Ledger) -> None:
                    bar.n = int(ledger.done.sum())  # also those that came from a journal or another process
                    how.shown(ledger)

                told: dict[str, Any] = {}
                self.choice = None if points.shape[1] else self.choice

                def made() -> Engine:
                    engine = self._engine(task, points, ledger, told)
                    if points.shape[1]:
                        self._announce(how, bar, ledger)
                    return engine

                size = POINTS_PER_PASS if self.data.streamed else None
                started = time.perf_counter()
                run(made, points, ledger, bar.update, shown, told, how.rounds, size)
                self._spent = time.perf_counter() - started
                totals = ledger.totals()
                self._probe(task, points, totals, ledger)
            self.draws = self.draws or same.drawn or same.drew()
        return Run(self.values(totals), dict(ledger.told), ledger.done)

    def _statistics(self) -> Recalibration | None:
        """What finds BatchNorm's statistics, the same object in all runs: it learns what the model bears."""
        if self.bn == "recalibrate" and (self._recalibration is None or not self._recalibration.serves(self.data)):
            self._recalibration = Recalibration(self.model, self.measure, self.data, self.room, self._without_gradients)
        return self._recalibration

    def _engine(self, task: Task, points: Array, ledger: Ledger, told: dict[str, Any]) -> Engine:
        """The engine, the one that a journal or another process has begun with; fills what a result tells of it."""
        tiers = self._tiers
        tiers.frozen = self.bn in ("frozen", "interpolate") and not self.train_mode and not self.draws
        if not points.shape[1]:  # one model
            return tiers.exact(task, points)
        if self.tier == "exact":
            self.choice = self._plain()
            return tiers.exact(task, points)
        name = ledger.told.get("implementation")
        if name is None:
            self.choice = tiers.choice(task, points)
            if self.choice.seconds is None:  # there was no trial
                self.choice = self._plain(f"{next(iter(self.choice.reasons.values()))}; ")
            ledger.tell({"implementation": self.choice.name})
            name = ledger.told["implementation"]
        if self.choice is None or self.choice.name != name:
            self.choice = Choice(name, {name: "as this run has begun"})
        told["implementation"] = name
        return tiers.named(name, task, points)

    def _announce(self, how: How, bar: Any, ledger: Ledger) -> None:
        """Say how the points that are left will be evaluated."""
        assert self.choice is not None
        bar.n = bar.initial = int(ledger.done.sum())
        left = len(ledger.done) - bar.n
        if self.tier != "exact":
            bar.set_description(f"{how.what} ({self.choice.name})")
        words = f"{left:,} points" if how.rounds is None else f"up to {left:,} points"
        _LOG.info("landscape: %s tier, %s: %s, %s", self.tier, self.choice, words, self.choice.predicted(left))

    def _probe(self, task: Task, points: Array, totals: Array, ledger: Ledger) -> None:
        """Tell how far approximate losses are from those in the model's own precision, at points that tell most."""
        wanted = self.tier == "approximate" and points.shape[1] and "loss" in self.measure.names
        if not wanted or "error_probe" in ledger.told:
            return
        known = np.flatnonzero(ledger.done)
        losses = self.values(totals)["loss"]
        places = known[places_to_probe(points[known], losses[known])]
        exact = self.values(self._tiers.exact(task, points[places]).evaluate(points[places], lambda: None))["loss"]
        ledger.tell({**ledger.told, "error_probe": error_of(losses[places], exact)})

    def values(self, totals: Array) -> dict[str, Array]:
        """Metrics by name, [points] each, from running sums [points, columns]; NaN where these are."""
        values = np.array([self.measure.values(row) for row in totals.tolist()])
        return {name: values[:, i].copy() for i, name in enumerate(self.measure.names)}

    def _evaluation_mode(self) -> None:
        self.model.train(self.train_mode)
        for module in unwrap(self.model).modules():
            if isinstance(module, _BatchNorm):
                module.training = self.bn == "batch"

    @contextmanager
    def _enough_memory(self) -> Iterator[None]:
        """Say what to do when a batch does not fit."""
        try:
            yield
        except torch.OutOfMemoryError as error:
            raise torch.OutOfMemoryError(
                f"Evaluator: {self.device} has not enough memory for batches of up to "
                f"{max(self.data.sizes)} samples; choose a smaller batch_size. The model is as before "
                f"({(str(error).splitlines() or [''])[0]})"
            ) from error
