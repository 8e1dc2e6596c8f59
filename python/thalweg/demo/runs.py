"""Parts (b) and (c): one budget, five schedules, and the ensembles that two of the runs give. One seed, one setting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from .. import schedules
from ..ensemble import Metrics, SnapshotCollector, metrics
from ..schedules import Schedule
from .config import Config
from .data import Split
from .models import build
from .range_part import Rates, sgd
from .training import Curve, batch_order, probabilities, train

METHODS = ("constant", "step", "cosine", "triangular", "sgdr")
TITLES = {
    "constant": "constant rate",
    "step": "step decay",
    "cosine": "single cosine",
    "triangular": "triangular cycles",
    "sgdr": "SGDR, last snapshot",
    "best_snapshot": "SGDR, best snapshot on validation",
    "average": "averaged weights of the snapshots",
    "nocycle": "NoCycle ensemble",
    "snapshot": "snapshot ensemble",
    "fitted": "snapshot ensemble, fitted on validation",
}
NAMES = {  # in sentences
    "constant": "the constant rate",
    "step": "step decay",
    "cosine": "the single cosine",
    "triangular": "the triangular cycles",
    "sgdr": "the last SGDR snapshot alone",
    "best_snapshot": "the one snapshot that is best on validation",
    "average": "the averaged weights of the snapshots",
    "nocycle": "the NoCycle ensemble",
    "snapshot": "the snapshot ensemble",
    "fitted": "the snapshot ensemble fitted on validation",
}
STEP_GAMMA = 0.1

State = dict[str, Tensor]


def schedule_of(method: str, rates: Rates, config: Config) -> Schedule:
    """Return the learning rate of a method over the whole budget."""
    steps = config.steps
    if method == "constant":
        return schedules.constant(rates.suggestion)
    if method == "step":
        return schedules.step(rates.max_lr, step_size=steps // 3, gamma=STEP_GAMMA)
    if method == "cosine":
        return schedules.cosine(rates.max_lr, total_steps=steps)
    if method == "triangular":
        return schedules.triangular(rates.base_lr, rates.max_lr, step_size=steps // (2 * config.triangles))
    return schedules.snapshot_cosine(rates.max_lr, total_steps=steps, cycles=config.cycles)


@dataclass(eq=False)
class Pictures:
    """What the figures need of one seed: recorded while it trains.

    Attributes:
        curves: Losses and rates of each method.
        val_error: Validation error after each epoch, [epochs], of each method.
        learnt: Share of the wrong training labels that the network reproduces after each epoch, [epochs], of each
            method; empty when no label is wrong.
        path: (updates done, weights) along the SGDR run, from the start to the end.
        snapshots: (updates done, weights) of the SGDR run's members.
    """

    curves: dict[str, Curve] = field(default_factory=dict)
    val_error: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    learnt: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    path: list[tuple[int, State]] = field(default_factory=list)
    snapshots: list[tuple[int, State]] = field(default_factory=list)


def copy_state(model: nn.Module) -> State:
    """Return a copy of the model's parameters and buffers."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def run_method(
    method: str, config: Config, split: Split, rates: Rates, seed: int, pictures: Pictures | None = None
) -> dict[str, Any]:
    """Train one method and measure it on the test images.

    Returns:
        "metrics" of the final model; for "step" and "sgdr" also "report" of the ensemble of its snapshots (all weights
        equal), for "sgdr" also "fitted" and "best_snapshot" (metrics), chosen on validation images only, and "average"
        (metrics of the model whose weights are the mean of the snapshots', BatchNorm statistics taken anew).
    """
    model = build(seed)
    optimizer = sgd(model, schedule_of(method, rates, config), config)
    order = batch_order(len(split.y_train), config.batch_size, config.steps, seed)
    collector = None
    if method in ("step", "sgdr"):
        when = "auto" if method == "sgdr" else f"every:{config.cycle_steps}"
        collector = SnapshotCollector(model, optimizer, when=when)
    watch = None if pictures is None else _watch(method, model, split, config, pictures)
    curve = train(model, split.train, optimizer, order, after_step=watch)
    if pictures is not None:
        pictures.curves[method] = curve
    found: dict[str, Any] = {"metrics": measure(model, split)}
    if collector is not None:
        collector.finish()
        collector.close()
        if pictures is not None and method == "sgdr":
            pictures.snapshots = [(snapshot.step, snapshot.state) for snapshot in collector.snapshots]
        found |= _ensembles(collector, split, fitted=method == "sgdr")
    return found


def measure(model: nn.Module, split: Split) -> Metrics:
    """Return the metrics of a model on the test images."""
    return metrics(probabilities(model, split.x_test), split.y_test)


def _ensembles(collector: SnapshotCollector, split: Split, fitted: bool) -> dict[str, Any]:
    report = collector.ensemble(fit="equal").report(split.test)
    if not fitted:
        return {"report": report}
    tuned = collector.ensemble(split.val)
    on_val = tuned.report(split.val).members
    best = min(range(len(on_val)), key=lambda i: (on_val[i].error, on_val[i].nll))
    tuned_report = tuned.report(split.test)
    return {
        "report": report,
        "fitted": tuned_report.ensemble,
        "weights": list(tuned_report.weights),
        "temperature": tuned_report.temperature,
        "best_snapshot": report.members[best],
        "best_index": best,
        "average": measure(collector.average("swa", data=split.x_train), split),
    }


def _watch(method: str, model: nn.Module, split: Split, config: Config, pictures: Pictures) -> Callable[[int], None]:
    """Return what looks at the run after each update: validation error and wrong labels learnt each epoch, SGDR's path."""
    errors = pictures.val_error[method] = np.empty(config.epochs)
    wrong = split.y_train != split.true_train
    x_wrong, y_wrong = split.x_train[wrong], split.y_train[wrong]
    if len(y_wrong):
        pictures.learnt[method] = np.empty(config.epochs)
    every = path_stride(config)
    if method == "sgdr":
        pictures.path.append((0, copy_state(model)))

    def after_step(step: int) -> None:
        if step % config.steps_per_epoch == 0:
            epoch = step // config.steps_per_epoch - 1
            best = probabilities(model, split.x_val).argmax(1)
            errors[epoch] = (best != split.y_val).double().mean().item()
            if len(y_wrong):
                best = probabilities(model, x_wrong).argmax(1)
                pictures.learnt[method][epoch] = (best == y_wrong).double().mean().item()
        if method == "sgdr" and step % every == 0:
            pictures.path.append((step, copy_state(model)))

    return after_step


def path_stride(config: Config) -> int:
    """Updates between two recorded points of the path: a divisor of the cycle, so that snapshots are on it."""
    target = max(1, config.steps // 150)
    return max(d for d in range(1, target + 1) if config.cycle_steps % d == 0)


def torch_twin(config: Config, split: Split, rates: Rates, seed: int, dtype: torch.dtype) -> dict[str, Curve]:
    """Train step decay twice on the same batches: thalweg's SGD with its schedule, torch's SGD with StepLR."""
    order = batch_order(len(split.y_train), config.batch_size, config.steps, seed)
    data = (split.x_train.to(dtype), split.y_train)
    model = build(seed).to(dtype)
    ours = train(model, data, sgd(model, schedule_of("step", rates, config), config), order)
    model = build(seed).to(dtype)
    theirs = torch.optim.SGD(
        model.parameters(),
        lr=rates.max_lr,
        momentum=config.momentum,
        nesterov=True,
        weight_decay=config.weight_decay,
    )
    scheduler = torch.optim.lr_scheduler.StepLR(theirs, step_size=config.steps // 3, gamma=STEP_GAMMA)
    return {"thalweg": ours, "torch": train(model, data, theirs, order, scheduler=scheduler)}
