"""The training steps of a range test: batches, loss, update, and when to stop. Restores nothing itself."""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from . import _check, _data
from ._lr_range_curve import MIN_POINTS, Array, cap_of, level_and_noise
from ._lr_range_record import WHO, LossRecord, scalar
from ._preserve import modes, unwrap

_IN_A_ROW = 3  # losses above the cap that end the test


@dataclass(frozen=True)
class Training:
    """What one update of the four-argument form consists of."""

    model: nn.Module
    loss_of: Callable[[nn.Module, Any], Any]
    batches: Any
    optimizers: tuple[torch.optim.Optimizer, ...]
    accumulate: int = 1
    scaler: Any = None
    autocast: torch.dtype | None = None
    group: Any = None  # of processes, where the loss is averaged over them

    def start(self, order: int | None) -> Callable[[], Any]:
        """Return a function that makes one update and returns its loss; `order` seeds another order of the batches."""
        stream = _endless(self.batches, order)
        device = next((p.device for p in unwrap(self.model).parameters()), torch.device("cpu"))
        return lambda: self._update([_data.to_device(batch, device) for batch in self._next(stream)], device)

    def _next(self, stream: Iterator[Any]) -> list[Any]:
        """Take the batches of one update; with an iterator, all processes end when the first of them does."""
        batches, end = [], None
        try:
            batches = [next(stream) for _ in range(self.accumulate)]
        except StopIteration as stop:
            end = stop
        if self.group is not None and isinstance(self.batches, Iterator):
            ended = torch.tensor(float(end is not None), device=_home(self.group))
            dist.all_reduce(ended, group=self.group)
            if float(ended):
                raise StopIteration
        if end is not None:
            raise end
        return batches

    def _update(self, batches: list[Any], device: torch.device) -> Any:
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        total: Any = None
        with torch.enable_grad():
            for batch in batches:
                loss = self.loss(batch, device)
                _check.instance(WHO, "the loss", loss, torch.Tensor, "a tensor that backward() works on")
                part = scalar(loss)
                total = part if total is None else total + part
                loss = loss.reshape(()) / self.accumulate if self.accumulate > 1 else loss.reshape(())
                (loss if self.scaler is None else self.scaler.scale(loss)).backward()
            for optimizer in self.optimizers:
                optimizer.step() if self.scaler is None else self.scaler.step(optimizer)
        if self.scaler is not None:
            self.scaler.update()
        return total / self.accumulate if self.accumulate > 1 else total

    def loss(self, batch: Any, device: torch.device) -> Any:
        """The loss of one batch, under autocast where that was asked for."""
        if self.autocast is None:
            return self.loss_of(self.model, batch)
        with torch.autocast(device.type, dtype=self.autocast):
            return self.loss_of(self.model, batch)

    def validation(self, data: Any, count: int) -> Callable[[], Any]:
        """Return a function that measures the mean loss of the first `count` batches of `data` in eval mode."""
        inner = unwrap(self.model)
        device = next((p.device for p in inner.parameters()), torch.device("cpu"))
        batches = [
            _data.to_device(b, device) for _, b in zip(range(count), _data.as_batches(WHO, data)(), strict=False)
        ]
        if not batches:
            raise ValueError(f"{WHO}: validation is empty")

        def measure() -> Any:
            with modes(inner), torch.no_grad():
                inner.eval()
                same = Training(inner, self.loss_of, (), (), autocast=self.autocast)
                losses = [scalar(same.loss(batch, device)) for batch in batches]
            total: Any = sum(losses[1:], losses[0])
            return total / len(losses)

        return measure


def _home(group: Any) -> torch.device:
    return torch.device("cuda" if dist.get_backend(group) == "nccl" else "cpu")


def _endless(batches: Any, order: int | None) -> Iterator[Any]:
    """Yield batches, from the start again after the last; end only where there is no start.

    `order` seeds another order of what has a fixed one: the samples of a pair of tensors, the batches of a sequence.
    """
    generator = None if order is None else torch.Generator().manual_seed(order)
    rounds = 0
    while True:
        count = 0
        for batch in _data.as_batches(WHO, _shuffled(batches, generator))():
            count += 1
            yield batch
        if not count and not rounds:
            raise ValueError(f"{WHO}: batches is empty")
        if not count:
            return
        if not rounds and not isinstance(batches, torch.Tensor) and not _data.is_pair(batches):
            warnings.warn(f"{WHO}: batches ended after {count}; started again from the first", stacklevel=2)
        rounds += 1


def _shuffled(batches: Any, generator: torch.Generator | None) -> Any:
    if generator is None:
        return batches
    if _data.is_pair(batches):
        rows = torch.randperm(len(batches[1]), generator=generator)
        return tuple(part[rows.to(part.device)] for part in batches)
    if isinstance(batches, torch.Tensor):
        return batches[torch.randperm(len(batches), generator=generator).to(batches.device)]
    if isinstance(batches, (list, tuple)):
        return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]
    return batches


@dataclass(frozen=True)
class Repeats:
    """How the runs of one test differ."""

    count: int
    seed: int | None
    reinitialise: Callable[[], Any] | None

    def begin(self, run: int) -> int | None:
        """Seed the generators, draw new weights after the first run; return the seed of the batches' order."""
        if self.seed is not None:
            torch.manual_seed(self.seed + run)
            np.random.seed((self.seed + run) % 2**32)  # noqa: NPY002 - the generator that users' code may draw from
            random.seed(self.seed + run)
        if run and self.reinitialise is not None:
            with torch.no_grad():
                self.reinitialise()
        return None if not run and self.seed is None else (self.seed or 0) + run


@dataclass(frozen=True)
class Ramp:
    """How one run goes through its learning rates."""

    lrs: Array  # [n]
    stop_early: bool = True
    every: int = 1  # a loss is recorded in each `every`-th step
    lag: int | None = None
    group: Any = None

    @property
    def recorded(self) -> Array:
        """[ceil(n / every)] learning rates of which there is a loss."""
        return self.lrs[:: self.every]

    def run(
        self, step: Callable[[], Any], measure: Callable[[], Any] | None, set_lr: Callable[[float], None], bar: Any
    ) -> tuple[Array, str]:
        """Train along the rates; return the losses, up to and with the first bad one, and why they end early.

        The loss is what `step` returns, measured before its update, or what `measure` says just before the step.
        """
        record = LossRecord(len(self.recorded), self.lag, self.group)
        looked, ended = 0, ""
        for k, lr in enumerate(self.lrs):
            set_lr(float(lr))
            due = k % self.every == 0
            try:
                before = scalar(measure()) if measure is not None and due else None
                loss = scalar(step())
            except StopIteration:
                ended = f"the batches ended before lr {lr:.3g}"
                break
            if due:
                record.write(loss if before is None else before)
            bar.update()
            seen = record.seen()
            if stop := self._look(seen, looked):
                return seen[: stop[0]].copy(), stop[1]
            looked = len(seen)
        losses = record.all()
        stop = self._look(losses, looked)
        return (losses[: stop[0]], stop[1]) if stop else (losses, ended)

    def _look(self, losses: Array, start: int) -> tuple[int, str] | None:
        """Look at losses[start:]; return how many losses count and why the run is over, if it is."""
        for count in range(start + 1, len(losses) + 1):
            loss, lr = losses[count - 1], self.recorded[count - 1]
            if not math.isfinite(loss):
                if count <= MIN_POINTS:
                    raise ValueError(
                        f"{WHO}: the loss is {loss} at step {count}, lr {lr:.3g}; it must be finite at the start: "
                        "check model and data, or lower min_lr"
                    )
                return count, f"the loss is {loss} at lr {lr:.3g}"
            if self.stop_early and _diverged(losses[:count], len(self.recorded)):
                return count, f"the loss has diverged at lr {lr:.3g}"
        return None


def _diverged(losses: Array, total: int) -> bool:
    head = max(MIN_POINTS, total // 10)
    if len(losses) < head + _IN_A_ROW:
        return False
    level, noise = level_and_noise(losses[:head])
    return bool(min(losses[-_IN_A_ROW:]) > cap_of(level, noise))
