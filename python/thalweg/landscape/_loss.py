"""What is measured at a point: the user's loss, as torch computes it, and metrics from the same forward pass."""

from __future__ import annotations

import copy
import functools
import itertools
import math
import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from .._check import describe
from .._criterion import criterion_of
from .._data import call
from . import _batches
from ._cells import Cells
from ._metrics import Batch, Counts, confidence, correct, floats, margin
from ._targets import Amounts, Targets

LossFn = Callable[..., Any] | nn.Module | str
Metric = Callable[[Any, Any], Any]
Sums = tuple[float, ...]

NAMED = ("loss", "accuracy", "top5", "confidence", "margin", "stderr", "l2")
HIGHER_IS_BETTER = ("accuracy", "top5", "confidence", "margin")
_NEED_NO_OUTPUT = {"loss", "stderr", "l2"}


@dataclass(frozen=True)
class _Quantity:
    """A value of a point: running sums over batches, and what becomes of them."""

    name: str
    width: int  # running sums, in neighbouring columns
    add: Callable[[Batch, Cells, int], None]  # to the columns from this one on
    finish: Callable[[Sums], float]


class Measure:
    """Evaluates batches: every quantity is a few running sums, turned into a value at the end.

    Args:
        loss_fn: See Evaluator.
        metrics: See Evaluator.
        params: The model's, for the metrics of the weights themselves.
    """

    def __init__(
        self, loss_fn: LossFn, metrics: Sequence[str | tuple[str, Metric] | Metric], params: Mapping[str, Tensor]
    ) -> None:
        self._criterion, self._loss_fn, self._summed = _resolve_loss(loss_fn)
        self._each = _per_sample(self._criterion)
        self._params = tuple(params.values())
        self.counts = Counts(Targets(self._criterion), Amounts(0))
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
        if self._criterion is None and set(self.names) - _NEED_NO_OUTPUT:
            raise ValueError(
                "Evaluator: metrics beside the loss need the model's output; pass a criterion (a loss module or name) "
                "instead of loss_fn(model, batch)"
            )
        callables = [loss_fn, *(m[1] if isinstance(m, tuple) else m for m in metrics)]
        self.modules = [part for part in callables if isinstance(part, nn.Module)]  # may have buffers of their own

    @property
    def takes_any_batch(self) -> bool:
        """Whether a batch may be something else than inputs and targets."""
        return self._criterion is None

    @property
    def takes_outputs(self) -> bool:
        """Whether all that is measured follows from the model's outputs."""
        return self._criterion is not None and "l2" not in self.names

    def add_output(self, output: Any, batch: _batches.Batch, cells: Cells) -> None:
        """Add one batch whose output is known."""
        self._add(self._measured(output, batch), cells)

    def add(self, model: nn.Module, batches: Iterable[_batches.Batch], cells: Cells) -> None:
        """Add all batches, and what belongs to the point itself, to the running sums."""
        for batch in batches:
            self.add_batch(model, batch, cells)
        self.add_point(cells)

    def add_batch(self, model: nn.Module, batch: _batches.Batch, cells: Cells) -> None:
        """Add one batch; it is gone before the next forward pass needs its memory."""
        self._add(self._forward(model, batch), cells)

    def add_point(self, cells: Cells) -> None:
        """Add what depends on the weights alone."""
        for name, start in zip(self.names, self._starts, strict=True):
            if name == "l2":
                for param in self._params:
                    if param.numel():
                        cells.moments(start, floats(param))

    def values(self, totals: Sequence[float]) -> list[float]:
        """The quantities, in the order of `names`, from the running sums [columns]."""
        return [
            q.finish(tuple(totals[start : start + q.width]))
            for q, start in zip(self._quantities, self._starts, strict=True)
        ]

    def output(self, model: nn.Module, batch: _batches.Batch) -> Any:
        """One forward pass, with nothing measured."""
        if self._criterion is None:
            return self._loss_fn(model, batch.inputs if batch.targets is None else (batch.inputs, batch.targets))
        return call(model, batch.inputs)

    def _add(self, batch: Batch, cells: Cells) -> None:
        for quantity, start in zip(self._quantities, self._starts, strict=True):
            quantity.add(batch, cells, start)

    def _forward(self, model: nn.Module, batch: _batches.Batch) -> Batch:
        output = self.output(model, batch)
        if self._criterion is None:
            return Batch(None, batch.targets, output, batch.samples, batch.weight)
        return self._measured(output, batch)

    def _measured(self, output: Any, batch: _batches.Batch) -> Batch:
        loss = self._criterion(output, batch.targets) if self._criterion is not None and self._has_loss else None
        return Batch(output, batch.targets, loss, batch.samples, batch.weight)

    @functools.cached_property
    def _has_loss(self) -> bool:
        return "loss" in self.names

    def _quantity(self, metric: str | tuple[str, Metric] | Metric) -> _Quantity:
        if isinstance(metric, str) and metric in NAMED:
            return self._named(metric)
        if isinstance(metric, tuple) and len(metric) == 2 and isinstance(metric[0], str) and callable(metric[1]):
            return self._custom(*metric)
        if isinstance(metric, (str, tuple)) or not callable(metric):
            raise ValueError(
                f"Evaluator: metric must be one of {', '.join(map(repr, NAMED))}, a callable(output, targets) or a "
                f"pair of name and callable, got {describe(metric)}"
            )
        return self._custom(getattr(metric, "__name__", type(metric).__name__), metric)

    def _named(self, name: str) -> _Quantity:
        if name == "loss":
            return _Quantity(name, 1, self._loss, self._mean_loss)
        if name == "stderr":
            return _Quantity(name, 3 if self.counts.targets.counts else 2, self._moments, self._standard_error)
        if name == "l2":
            return _Quantity(name, 2, lambda batch, cells, column: None, lambda sums: sums[1])
        add = {
            "accuracy": functools.partial(correct, 1, self.counts),
            "top5": functools.partial(correct, 5, self.counts),
            "confidence": functools.partial(confidence, self.counts),
            "margin": functools.partial(margin, self.counts),
        }[name]
        return _Quantity(name, 1, add, lambda sums: self.counts.mean(sums[0]))

    def _custom(self, name: str, metric: Metric) -> _Quantity:
        def add(batch: Batch, cells: Cells, column: int) -> None:
            _total(name, metric(batch.output, batch.targets), batch.count, batch.count, cells, column)

        return _Quantity(name, 1, add, lambda sums: sums[0] / self.counts.amounts.samples)

    def _loss(self, batch: Batch, cells: Cells, column: int) -> None:
        weight = 1.0 if self._summed else batch.weight
        if weight:  # a batch of nothing but ignored targets has the mean NaN
            _total("loss", batch.loss, batch.count, weight, cells, column)

    def _mean_loss(self, sums: Sums) -> float:
        amounts = self.counts.amounts
        divisor = amounts.samples if amounts.plain else amounts.weight
        return sums[0] if self._summed else sums[0] / divisor if divisor else math.nan

    def _moments(self, batch: Batch, cells: Cells, column: int) -> None:
        """Sum and sum of squares of the losses of single samples, and, if need be, of losses times weights."""
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
        value = value.detach().reshape(batch.count, -1)
        if self._summed or self.counts.amounts.plain:
            cells.moments(column, floats(value.sum(1) if self._summed else value.mean(1)))
            return
        losses = value.double().sum(1)
        weights = self.counts.targets.weights(batch.targets).reshape(batch.count, -1).sum(1)
        cells.moments(column, losses)
        cells.sum(column + 2, losses * weights)

    def _standard_error(self, sums: Sums) -> float:
        """Of a mean; of a ratio of sums (loss L over weight W) where targets are ignored or weighted: sum (L - mean W)^2."""
        amounts = self.counts.amounts
        n = amounts.samples
        if n < 2:
            return math.nan
        if self._summed or amounts.plain:
            squares, divisor = sums[1] - sums[0] * sums[0] / n, 1.0 if self._summed else float(n)
        else:
            mean, divisor = sums[0] / amounts.weight if amounts.weight else math.nan, amounts.weight
            squares = sums[1] - 2 * mean * sums[2] + mean * mean * amounts.squares
        if not math.isfinite(squares):
            return math.nan
        return math.sqrt(max(squares, 0.0) * n / (n - 1)) / divisor


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


def _is_per_sample(value: Any, count: int) -> bool:
    return isinstance(value, Tensor) and value.dim() == 1 and value.shape[0] == count and value.is_floating_point()


def _total(name: str, value: Any, count: int, weight: float, cells: Cells, column: int) -> None:
    """Add the batch's sum in float64: of a batch mean times its weight, of a vector with one entry per sample."""
    if not isinstance(value, Tensor):
        if not isinstance(value, numbers.Real):
            raise TypeError(f"Evaluator: {name} must return a tensor or a number, got {describe(value)}")
        cells.number(column, float(value), weight)
    elif value.numel() == 1 and not value.is_complex():
        cells.number(column, value.detach(), weight)
    elif _is_per_sample(value, count):
        cells.sum(column, floats(value))
    else:
        raise ValueError(
            f"Evaluator: {name} must return a scalar or one float per sample, shape ({count},), got shape "
            f"{tuple(value.shape)} of {value.dtype}"
        )


def check_center(values: Mapping[str, float]) -> None:
    """A loss that is NaN at the model's own weights makes every picture empty: say so at once."""
    if math.isnan(values.get("loss", 0.0)):
        raise ValueError(
            "Evaluator: the loss is NaN at the model's own weights; check the data for NaN and the loss for log(0)"
        )
