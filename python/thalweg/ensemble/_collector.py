"""SnapshotCollector: takes a member at each end of a cycle, by itself. Knows optimizers by their hooks."""

from __future__ import annotations

import logging
import secrets
import warnings
from types import TracebackType
from typing import Any

import torch
from torch import nn

from .. import _check
from .._preserve import unwrap
from ._collected import Collected
from ._snapshot import Snapshot, check_model, copy_state, is_finite
from ._store import Memory, Store
from ._trigger import (
    AtBoundCycleEnds,
    AtCycleEnds,
    AtTroughs,
    EveryN,
    LrWatch,
    Trigger,
    lr_of,
    native_schedule,
)

_LOG = logging.getLogger(__name__)
_WHO = "SnapshotCollector"
_WHEN = "'auto', 'lr-minimum', 'manual' or 'every:N' (N steps)"


class SnapshotCollector(Collected):
    r"""Collect a model at the end of every learning-rate cycle and make an ensemble of them.

    Training needs no extra call: hooks of the optimizer do the work. With a thalweg optimizer that is driven
    by a `Schedule` (or with `schedule=`) the member is taken right after the last update of a cycle. With any
    other optimizer and scheduler it is taken when the learning rate turns from falling to rising, just before
    the first update of the new cycle, so the weights are exactly those of the trough; the rate must have
    fallen to a half of its last peak before, which keeps warm-up, OneCycleLR, ReduceLROnPlateau and constant
    rates silent. The last trough, which no restart follows, is taken by `finish()`.

    Model, optimizer and random generators are only read.

    Args:
        model: The model in training.
        optimizer: The optimizer whose steps count.
        store: `Memory()` (default) or `Disk(path)`.
        schedule: A thalweg `Schedule` counted in optimizer steps, or the scheduler that `Schedule.bind`
            returned; for optimizers that do not run the schedule themselves, or with several schedules in
            several groups.
        when: "auto" (as above), "lr-minimum" (always watch the rate), "every:N" steps, or "manual" (only
            `take()`).
        on_error: "raise" stops the training when a snapshot cannot be stored; "warn" goes on without that
            member.

    Raises:
        TypeError: Wrong types, or a sharded (DTensor) model.
        ValueError: An unknown `when`, a lazy parameter, or a learning rate that lives on a device and that
            nothing but the device knows.
        OSError: The store cannot be written.

    Example:
        >>> import torch, thalweg as tw
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Linear(4, 3)
        >>> opt = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> cosine = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(opt, T_0=10)
        >>> x, y = torch.randn(64, 4), torch.arange(64) % 3
        >>> with tw.ensemble.SnapshotCollector(model, opt) as snaps:
        ...     for _ in range(30):
        ...         opt.zero_grad()
        ...         torch.nn.functional.cross_entropy(model(x), y).backward()
        ...         opt.step()
        ...         cosine.step()
        >>> [snapshot.step for snapshot in snaps.snapshots]
        [10, 20, 30]
        >>> snaps.ensemble()(x).shape
        torch.Size([64, 3])

    References:
        Huang et al., "Snapshot Ensembles: Train 1, get M for free", 2017, arXiv:1704.00109.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        store: Store | None = None,
        schedule: Any = None,
        when: str = "auto",
        on_error: str = "raise",
    ) -> None:
        self.model = unwrap(check_model(_WHO, model))
        _check.instance(_WHO, "optimizer", optimizer, torch.optim.Optimizer, "a torch.optim.Optimizer")
        self.optimizer = optimizer
        self.store: Store = Memory() if store is None else store
        if not all(hasattr(self.store, name) for name in ("begin", "put", "snapshots")):
            raise TypeError(f"{_WHO}: store must be Memory(...) or Disk(...), got {_check.describe(store)}")
        self._raises = _check.choice(_WHO, "on_error", on_error, ("raise", "warn")) == "raise"
        self._native = native_schedule(optimizer) if schedule is None else None
        self._trigger = self._make_trigger(schedule, when)
        self._counts_itself = not hasattr(optimizer, "schedule_step")
        self._run = secrets.token_hex(8)
        self._step = 0 if self._counts_itself else self._optimizer_steps()
        self._taken_at = -1
        self._taken = 0
        self._lr = float("nan")
        self._watch = LrWatch()
        self._began = False
        self._handles = [
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
        ]

    def _make_trigger(self, schedule: Any, when: str) -> Trigger:
        if not isinstance(when, str):
            raise TypeError(f"{_WHO}: when must be {_WHEN}, got {_check.describe(when)}")
        if when.startswith("every:"):
            text = when.removeprefix("every:")
            return EveryN(_check.integer(_WHO, "N of when='every:N'", int(text) if text.isdigit() else text, 1))
        if when == "manual":
            return Trigger()
        if when not in ("auto", "lr-minimum"):
            raise ValueError(f"{_WHO}: when must be {_WHEN}, got {when!r}")
        if schedule is not None and when == "auto":
            if hasattr(schedule, "is_cycle_end"):
                return AtCycleEnds(schedule)
            if hasattr(getattr(schedule, "schedule", None), "is_cycle_end") and hasattr(schedule, "last_epoch"):
                return AtBoundCycleEnds(schedule)
            raise TypeError(
                f"{_WHO}: schedule must be a thalweg Schedule or the scheduler of Schedule.bind(), got "
                f"{_check.describe(schedule)}; other schedulers need no argument, their learning rate is watched"
            )
        if self._native is not None and when == "auto":
            return AtCycleEnds(self._native)
        for index, group in enumerate(self.optimizer.param_groups):
            if isinstance(group["lr"], torch.Tensor) and group["lr"].device.type != "cpu":
                raise ValueError(
                    f"{_WHO}: lr of group {index} is a tensor on {group['lr'].device}; reading it would stop the "
                    "device at every step; give schedule=..., when='every:N' or when='manual'"
                )
        return AtTroughs()

    def _optimizer_steps(self) -> int:
        return int(self.optimizer.schedule_step)  # type: ignore[attr-defined]

    def _begin(self) -> None:
        if not self._began:
            self.store.begin(self._run)
            self._began = True

    def _before_step(self, *_: Any) -> None:
        self._begin()
        lr = lr_of(self.optimizer)
        restart = self._watch.coming(lr)
        if self._trigger.before(restart):
            self._take_due()
        self._lr = lr

    def _after_step(self, *_: Any) -> None:
        step = self._step + 1 if self._counts_itself else self._optimizer_steps()
        if step > self._step:  # not skipped
            self._step = step
            if self._trigger.after(step):
                self._take_due()

    def _take_due(self) -> None:
        if self._taken_at == self._step:
            return
        try:
            self.take()
        except OSError as error:
            if self._raises:
                raise
            self._taken_at = self._step
            warnings.warn(f"{_WHO}: no snapshot of step {self._step}: {error}", stacklevel=4)

    def take(self) -> Snapshot:
        """Take a member now and return it; a member of the same step is replaced."""
        self._begin()
        state = copy_state(_WHO, self.model)
        healthy = is_finite(state)
        if not healthy:
            warnings.warn(
                f"{_WHO}: the weights of step {self._step} are not finite; the member is marked unhealthy and left out "
                "of ensembles",
                stacklevel=3,
            )
        cycle = self._trigger.cycle(self._step) if self._step else 0
        if cycle is None:
            cycle = self._taken
        lr = self._lr if self._step else lr_of(self.optimizer)
        snapshot = self.store.put(Snapshot(self._step, cycle, lr, healthy), state)
        self._taken_at = self._step
        self._taken += 1
        _LOG.info("snapshot at step %d (cycle %d, lr %g)", snapshot.step, snapshot.cycle, snapshot.lr)
        return snapshot

    def finish(self) -> list[Snapshot]:
        """Take the last trough, after which no restart comes, unless it was taken; call it when training ends.

        It is a trough if the rate has fallen to a half of its last peak or less. With "every:N" and "manual"
        nothing is taken.

        Returns:
            All members, oldest first.
        """
        by_lr = isinstance(self._trigger, (AtTroughs, AtCycleEnds, AtBoundCycleEnds))
        if by_lr and self._step and (self._trigger.at_finish() or self._watch.fallen):
            self._take_due()
        return self.snapshots

    def close(self) -> None:
        """Take the hooks off the optimizer and let others write to the store; the members stay usable."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self.store.close()
        self._began = False

    def __enter__(self) -> SnapshotCollector:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.finish()
        finally:
            self.close()

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs to neither repeat nor skip a member; holds no objects that need pickle."""
        return {
            "version": 1,
            "run": self._run,
            "step": self._step,
            "taken_at": self._taken_at,
            "taken": self._taken,
            "lr": self._lr,
            "watch": self._watch.state_dict(),
            "trigger": self._trigger.state_dict(),
            "store": self.store.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue the run whose `state_dict` is given, in a collector made with the same arguments.

        Raises:
            ValueError: `state` is no state of a collector, or was saved by another kind of trigger.
            FileNotFoundError: The files of the members are not in the store's directory.
        """
        if not isinstance(state, dict) or state.get("version") != 1:
            raise ValueError(
                f"{_WHO}: state must come from SnapshotCollector.state_dict(), got {_check.describe(state)}"
            )
        if set(state["trigger"]) != set(self._trigger.state_dict()):
            raise ValueError(
                f"{_WHO}: the state was saved with another `schedule` or `when`; construct it the same way"
            )
        self.store.load_state_dict(state["store"])
        self._run, self._began = state["run"], False
        self._step, self._taken_at, self._taken = (
            int(state["step"]),
            int(state["taken_at"]),
            int(state["taken"]),
        )
        self._lr = float(state["lr"])
        self._watch.load_state_dict(state["watch"])
        self._trigger.load_state_dict(state["trigger"])
