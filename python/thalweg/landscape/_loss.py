"""What is measured at a point: the user's loss, as torch computes it, and metrics from the same forward pass."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .. import _core
from .._check import describe
from .._criterion import criterion_of
from .._data import call

LossFn = Callable[..., Any] | nn.Module | str
Metric = Callable[[Any, Any], Any]


class Measure:
    """Evaluates one batch: loss and metrics, as numbers that add up over batches to a mean per sample."""

    def __init__(self, loss_fn: LossFn, metrics: Sequence[str | tuple[str, Metric] | Metric]) -> None:
        self.criterion, self.loss_fn, self.summed = _resolve_loss(loss_fn)
        self.names: list[str] = []
        self._custom: dict[str, Metric] = {}
        if isinstance(metrics, str) or not isinstance(metrics, Sequence) or not metrics:
            raise TypeError(f"Evaluator: metrics must be a list such as ('loss', 'accuracy'), got {describe(metrics)}")
        for metric in metrics:
            self._add(metric)
        if self.criterion is None and set(self.names) - {"loss"}:
            raise ValueError(
                "Evaluator: metrics beside the loss need the model's output; pass a criterion (a loss module or name) "
                "instead of loss_fn(model, batch)"
            )

    def _add(self, metric: str | tuple[str, Metric] | Metric) -> None:
        if metric in ("loss", "accuracy"):
            name = str(metric)
        elif isinstance(metric, tuple) and len(metric) == 2 and callable(metric[1]):
            name, self._custom[str(metric[0])] = str(metric[0]), metric[1]
        elif callable(metric):
            name = getattr(metric, "__name__", type(metric).__name__)
            self._custom[name] = metric
        else:
            raise ValueError(
                f"Evaluator: metric must be 'loss', 'accuracy' or a callable(output, targets), got {describe(metric)}"
            )
        if name in self.names:
            raise ValueError(f"Evaluator: metric {name!r} is given twice")
        self.names.append(name)

    def batch(self, model: nn.Module, inputs: Any, targets: Any, count: int) -> list[float]:
        """Sums over the samples of the batch, in the order of `names`."""
        if self.criterion is None:
            assert self.loss_fn is not None
            return [_total("loss_fn", self.loss_fn(model, (inputs, targets)), count, self.summed)]
        output = call(model, inputs)
        sums = []
        for name in self.names:
            if name == "loss":
                sums.append(_total("loss", self.criterion(output, targets), count, self.summed))
            elif name == "accuracy":
                sums.append(float(_correct(output, targets)))
            else:
                sums.append(_total(name, self._custom[name](output, targets), count, False))
        return sums

    def mean(self, name: str, total: float, count: int) -> float:
        """The value of the whole data set; a loss with reduction="sum" stays a sum."""
        return total if name == "loss" and self.summed else total / count


def _resolve_loss(loss_fn: LossFn) -> tuple[Callable[..., Any] | None, Callable[..., Any] | None, bool]:
    criterion = criterion_of("Evaluator", loss_fn)
    if criterion is None:
        assert not isinstance(loss_fn, str)
        return None, loss_fn, False
    return criterion, None, isinstance(loss_fn, nn.Module) and getattr(loss_fn, "reduction", "mean") == "sum"


def _total(name: str, value: Any, count: int, summed: bool) -> float:
    """The batch's sum in float64: of a batch mean times its samples, of a vector with one entry per sample."""
    if not isinstance(value, Tensor):
        if isinstance(value, (int, float)):
            return float(value) * count
        raise TypeError(f"Evaluator: {name} must return a tensor or a number, got {describe(value)}")
    if value.numel() == 1:
        return float(value) if summed else float(value) * count
    if value.dim() != 1 or value.shape[0] != count or not value.is_floating_point():
        raise ValueError(
            f"Evaluator: {name} must return a scalar or one float per sample, shape ({count},), got shape "
            f"{tuple(value.shape)} of {value.dtype}"
        )
    wide = value.detach() if value.dtype in (torch.float32, torch.float64) else value.detach().float()
    return float(_core.sums(wide.contiguous(), torch.get_num_threads())[0])


def _correct(output: Any, targets: Any) -> int:
    """Number of rows whose first maximum is at the target."""
    fits = isinstance(output, Tensor) and isinstance(targets, Tensor) and output.dim() == 2 and targets.dim() == 1
    if not fits or targets.is_floating_point():
        raise ValueError(
            "Evaluator: accuracy needs scores of shape (samples, classes) and integer targets of shape (samples,)"
        )
    scores = output if output.dtype in (torch.float32, torch.float64) else output.float()
    targets = targets.to(torch.int64).contiguous()
    return int(_core.count_correct(scores.contiguous(), targets.data_ptr(), torch.get_num_threads()))


def check_center(values: Mapping[str, float]) -> None:
    """A loss that is NaN at the model's own weights makes every picture empty: say so at once."""
    if math.isnan(values.get("loss", 0.0)):
        raise ValueError(
            "Evaluator: the loss is NaN at the model's own weights; check the data for NaN and the loss for log(0)"
        )
