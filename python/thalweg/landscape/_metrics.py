"""Metrics of one batch from the model's scores, added to running sums. Knows no model and no loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .._check import describe
from ._cells import Cells
from ._targets import Amounts, Targets


@dataclass
class Batch:
    """One batch after its forward pass; `output` is None for a loss_fn(model, batch)."""

    output: Any
    targets: Any
    loss: Any
    count: int  # samples
    weight: float  # of its mean loss


@dataclass
class Counts:
    """What the criterion makes of targets, and how many there are in all."""

    targets: Targets
    amounts: Amounts

    def add_mean(self, values: Tensor, batch: Batch, cells: Cells, column: int) -> None:
        """Add the mean of each sample's values [samples, ...], or, where targets are ignored, those of the others."""
        if self.amounts.plain or not self.targets.countable(batch.targets):
            values = values if values.dim() == 1 else values.reshape(batch.count, -1).mean(1)
        else:
            values = values.where(self.targets.keep(batch.targets), values.new_zeros(()))
        cells.sum(column, values.contiguous())

    def mean(self, total: float) -> float:
        """Of all samples, or of all targets that are not ignored."""
        if self.amounts.plain:
            return total / self.amounts.samples
        return total / self.amounts.kept if self.amounts.kept else float("nan")


def floats(value: Tensor) -> Tensor:
    """Contiguous float32 or float64, as the core's reductions take."""
    value = value.detach()
    return (value if value.dtype in (torch.float32, torch.float64) else value.float()).contiguous()


def _scores(name: str, batch: Batch) -> Tensor:
    """The output as scores [samples, classes, ...]."""
    if not isinstance(batch.output, Tensor) or batch.output.dim() < 2 or not batch.output.is_floating_point():
        raise ValueError(f"Evaluator: {name} needs scores of shape (samples, classes, ...) from the model")
    return batch.output


def _classes(name: str, scores: Tensor, targets: Any) -> Tensor:
    """The targets as classes [samples, ...], int64."""
    whole = isinstance(targets, Tensor) and not targets.is_floating_point() and not targets.is_complex()
    if not whole or targets.shape != scores.shape[:1] + scores.shape[2:]:
        got = f"shape {tuple(targets.shape)} of {targets.dtype}" if isinstance(targets, Tensor) else describe(targets)
        raise ValueError(
            f"Evaluator: {name} needs scores of shape (samples, classes, ...) and integer targets of shape "
            f"(samples, ...), got scores of shape {tuple(scores.shape)} and targets of {got}"
        )
    classes: Tensor = targets.to(torch.int64).contiguous()
    return classes


def correct(k: int, counts: Counts, batch: Batch, cells: Cells, column: int) -> None:
    """Add the samples with the target among the k largest scores; with several targets per sample, their share."""
    name = "accuracy" if k == 1 else "top5"
    scores = _scores(name, batch)
    wanted = _classes(name, scores, batch.targets)
    if scores.shape[1] < k:
        raise ValueError(f"Evaluator: top5 needs at least 5 classes, got {scores.shape[1]}; use accuracy")
    rows = floats(scores.movedim(1, -1).reshape(-1, scores.shape[1]))
    weight = float(batch.count)
    if not counts.amounts.plain and counts.targets.countable(batch.targets):
        wanted = wanted.where(counts.targets.keep(wanted), wanted.new_full((), -1))  # no class: never correct
        weight = float(len(rows))
    cells.correct(column, rows, wanted, k, weight)


def confidence(counts: Counts, batch: Batch, cells: Cells, column: int) -> None:
    """Add the largest softmax probabilities."""
    counts.add_mean(floats(_scores("confidence", batch)).softmax(1).amax(1), batch, cells, column)


def margin(counts: Counts, batch: Batch, cells: Cells, column: int) -> None:
    """Add the target's score minus the largest other one; NaN where a score is, and where the target is no class."""
    scores = floats(_scores("margin", batch))
    wanted = _classes("margin", scores, batch.targets).unsqueeze(1)
    if scores.shape[1] < 2:
        raise ValueError(f"Evaluator: margin needs at least 2 classes, got {scores.shape[1]}")
    inside = (wanted >= 0) & (wanted < scores.shape[1])
    place = wanted.where(inside, wanted.new_zeros(()))
    own, others = scores.gather(1, place), scores.scatter(1, place, -torch.inf)
    value = (own - others.amax(1, keepdim=True)).where(inside, scores.new_full((), torch.nan))
    counts.add_mean(value.squeeze(1), batch, cells, column)
