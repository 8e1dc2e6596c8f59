"""What is measured at a point: the user's loss, as torch computes it, and metrics from the same forward pass."""

from __future__ import annotations

import copy
import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .._check import describe
from .._criterion import criterion_of
from .._data import call
from ._cells import Cells

LossFn = Callable[..., Any] | nn.Module | str
Metric = Callable[[Any, Any], Any]
Sums = tuple[float, ...]

NAMED = ("loss", "accuracy", "top5", "confidence", "stderr")
HIGHER_IS_BETTER = ("accuracy", "top5", "confidence")


@dataclass
class Batch:
    """One batch after its forward pass; `output` is None for a loss_fn(model, batch)."""

    output: Any
    targets: Any
    loss: Any
    count: int  # samples


@dataclass(frozen=True)
class _Quantity:
    """A value of a point: running sums over batches, and what becomes of them."""

    name: str
    width: int  # running sums, in neighbouring columns
    add: Callable[[Batch, Cells, int], None]  # to the columns from this one on
    finish: Callable[[Sums, int], float]  # (sums, samples)


class Measure:
    """Evaluates batches: every quantity is a few running sums, turned into a value at the end."""

    def __init__(self, loss_fn: LossFn, metrics: Sequence[str | tuple[str, Metric] | Metric]) -> None:
        self._criterion, self._loss_fn, self._summed = _resolve_loss(loss_fn)
        self._each = _per_sample(self._criterion)
        if isinstance(metrics, str) or not isinstance(metrics, Sequence) or not metrics:
            raise TypeError(f"Evaluator: metrics must be a list such as ('loss', 'accuracy'), got {describe(metrics)}")
        self._quantities = [self._quantity(metric) for metric in metrics]
        self.names = tuple(quantity.name for quantity in self._quantities)
        ends = list(itertools.accumulate(quantity.width for quantity in self._quantities))
        self._starts = [end - quantity.width for end, quantity in zip(ends, self._quantities, strict=True)]
        self.columns = ends[-1]  # running sums of a point
        for name in self.names:
            if self.names.count(name) > 1:
                raise ValueError(f"Evaluator: metric {name!r} is given twice; name callables as ('name', callable)")
        if self._criterion is None and set(self.names) - {"loss", "stderr"}:
            raise ValueError(
                "Evaluator: metrics beside the loss need the model's output; pass a criterion (a loss module or name) "
                "instead of loss_fn(model, batch)"
            )

    def add(self, model: nn.Module, batches: Sequence[tuple[Any, Any, int]], cells: Cells) -> None:
        """Add all batches to the running sums; a batch is gone before the next forward pass needs its memory."""
        for inputs, targets, count in batches:
            self._add(self._forward(model, inputs, targets, count), cells)

    @property
    def takes_outputs(self) -> bool:
        """Whether all that is measured follows from the model's outputs."""
        return self._criterion is not None

    def add_output(self, output: Any, targets: Any, count: int, cells: Cells) -> None:
        """Add one batch whose output is known."""
        assert self._criterion is not None
        loss = self._criterion(output, targets) if self._has_loss else None
        self._add(Batch(output, targets, loss, count), cells)

    def values(self, totals: Sequence[float], samples: int) -> list[float]:
        """The quantities, in the order of `names`, from the running sums [columns] of so many samples."""
        return [
            q.finish(tuple(totals[start : start + q.width]), samples)
            for q, start in zip(self._quantities, self._starts, strict=True)
        ]

    def _add(self, batch: Batch, cells: Cells) -> None:
        for quantity, start in zip(self._quantities, self._starts, strict=True):
            quantity.add(batch, cells, start)

    def _forward(self, model: nn.Module, inputs: Any, targets: Any, count: int) -> Batch:
        if self._criterion is None:
            return Batch(None, targets, self._loss_fn(model, (inputs, targets)), count)
        output = call(model, inputs)
        return Batch(output, targets, self._criterion(output, targets) if self._has_loss else None, count)

    @functools.cached_property
    def _has_loss(self) -> bool:
        return "loss" in self.names

    def _quantity(self, metric: str | tuple[str, Metric] | Metric) -> _Quantity:
        if metric == "loss":
            return _Quantity("loss", 1, lambda b, *to: _total("loss", b.loss, b.count, self._summed, *to), self._mean)
        if metric == "stderr":
            return _Quantity("stderr", 2, self._moments, self._standard_error)
        if metric in ("accuracy", "top5"):
            k = 5 if metric == "top5" else 1
            return _Quantity(str(metric), 1, functools.partial(_correct, k), _mean)
        if metric == "confidence":
            return _Quantity("confidence", 1, _confidence, _mean)
        if isinstance(metric, tuple) and len(metric) == 2 and isinstance(metric[0], str) and callable(metric[1]):
            return _custom(*metric)
        if isinstance(metric, (str, tuple)) or not callable(metric):
            raise ValueError(
                f"Evaluator: metric must be one of {', '.join(map(repr, NAMED))}, a callable(output, targets) or a "
                f"pair of name and callable, got {describe(metric)}"
            )
        return _custom(getattr(metric, "__name__", type(metric).__name__), metric)

    def _mean(self, sums: Sums, samples: int) -> float:
        return sums[0] if self._summed else sums[0] / samples

    def _moments(self, batch: Batch, cells: Cells, column: int) -> None:
        """Sum and sum of squares of the losses of single samples."""
        value = batch.loss
        if not _is_per_sample(value, batch.count):
            if self._each is None:
                raise ValueError(
                    "Evaluator: stderr needs the loss of every sample; pass a criterion with a `reduction`, or a "
                    "loss_fn(model, batch) that returns one value per sample"
                )
            value = self._each(batch.output, batch.targets)
        if not isinstance(value, Tensor) or not value.dim() or len(value) != batch.count:
            raise ValueError('Evaluator: stderr needs one loss per sample from the criterion with reduction="none"')
        cells.moments(column, _floats(value.reshape(batch.count, -1).mean(1)))

    def _standard_error(self, sums: Sums, samples: int) -> float:
        if samples < 2:
            return math.nan
        variance = (sums[1] - sums[0] * sums[0] / samples) / (samples - 1)
        error = math.sqrt(max(variance, 0.0) / samples) if math.isfinite(variance) else math.nan
        return error * samples if self._summed else error


def _resolve_loss(loss_fn: LossFn) -> tuple[Callable[..., Any] | None, Callable[..., Any], bool]:
    criterion = criterion_of("Evaluator", loss_fn)
    if criterion is None:
        assert callable(loss_fn)
        return None, loss_fn, False
    return criterion, criterion, isinstance(loss_fn, nn.Module) and getattr(loss_fn, "reduction", "mean") == "sum"


def _per_sample(criterion: Callable[..., Any] | None) -> Callable[..., Any] | None:
    """The criterion with reduction="none", or None where it has no such thing."""
    if isinstance(criterion, nn.Module):
        if not hasattr(criterion, "reduction"):
            return None
        single = copy.copy(criterion)
        single.__dict__["reduction"] = "none"
        return single
    return None if criterion is None else functools.partial(criterion, reduction="none")


def _custom(name: str, metric: Metric) -> _Quantity:
    return _Quantity(name, 1, lambda b, *to: _total(name, metric(b.output, b.targets), b.count, False, *to), _mean)


def _mean(sums: Sums, samples: int) -> float:
    return sums[0] / samples


def _is_per_sample(value: Any, count: int) -> bool:
    return isinstance(value, Tensor) and value.dim() == 1 and value.shape[0] == count and value.is_floating_point()


def _floats(value: Tensor) -> Tensor:
    """Contiguous float32 or float64, as the core's reductions take."""
    value = value.detach()
    return (value if value.dtype in (torch.float32, torch.float64) else value.float()).contiguous()


def _total(name: str, value: Any, count: int, summed: bool, cells: Cells, column: int) -> None:
    """Add the batch's sum in float64: of a batch mean times its samples, of a vector with one entry per sample."""
    if not isinstance(value, Tensor):
        if not isinstance(value, (int, float)):
            raise TypeError(f"Evaluator: {name} must return a tensor or a number, got {describe(value)}")
        cells.number(column, float(value), count)
    elif value.numel() == 1:
        cells.number(column, value.detach(), 1 if summed else count)
    elif _is_per_sample(value, count):
        cells.sum(column, _floats(value))
    else:
        raise ValueError(
            f"Evaluator: {name} must return a scalar or one float per sample, shape ({count},), got shape "
            f"{tuple(value.shape)} of {value.dtype}"
        )


def _scores(name: str, batch: Batch) -> Tensor:
    """The output as scores [samples, classes, ...]."""
    if not isinstance(batch.output, Tensor) or batch.output.dim() < 2 or not batch.output.is_floating_point():
        raise ValueError(f"Evaluator: {name} needs scores of shape (samples, classes, ...) from the model")
    return batch.output


def _correct(k: int, batch: Batch, cells: Cells, column: int) -> None:
    """Add the samples with the target among the k largest scores; with several targets per sample, their share."""
    name = "accuracy" if k == 1 else "top5"
    scores, targets = _scores(name, batch), batch.targets
    whole = isinstance(targets, Tensor) and not targets.is_floating_point() and not targets.is_complex()
    if not whole or targets.shape != scores.shape[:1] + scores.shape[2:]:
        got = f"shape {tuple(targets.shape)} of {targets.dtype}" if isinstance(targets, Tensor) else describe(targets)
        raise ValueError(
            f"Evaluator: {name} needs scores of shape (samples, classes, ...) and integer targets of shape "
            f"(samples, ...), got scores of shape {tuple(scores.shape)} and targets of {got}"
        )
    if scores.shape[1] < k:
        raise ValueError(f"Evaluator: top5 needs at least 5 classes, got {scores.shape[1]}; use accuracy")
    rows = _floats(scores.movedim(1, -1).reshape(-1, scores.shape[1]))
    wanted = targets.to(torch.int64).contiguous()
    cells.correct(column, rows, wanted, k, batch.count)


def _confidence(batch: Batch, cells: Cells, column: int) -> None:
    """Add over the samples the largest softmax probability."""
    scores = _floats(_scores("confidence", batch))
    largest = scores.softmax(1).amax(1).reshape(batch.count, -1).mean(1)
    cells.sum(column, largest.contiguous())


def check_center(values: Mapping[str, float]) -> None:
    """A loss that is NaN at the model's own weights makes every picture empty: say so at once."""
    if math.isnan(values.get("loss", 0.0)):
        raise ValueError(
            "Evaluator: the loss is NaN at the model's own weights; check the data for NaN and the loss for log(0)"
        )
