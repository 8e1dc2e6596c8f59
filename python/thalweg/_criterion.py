"""A loss as users give it -> a criterion(output, targets), or a function of (model, batch). Knows no model and no data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from . import _check, _data

NAMED: dict[str, Callable[..., Any]] = {
    "cross_entropy": nn.functional.cross_entropy,
    "mse": nn.functional.mse_loss,
    "l1": nn.functional.l1_loss,
    "nll": nn.functional.nll_loss,
    "bce_with_logits": nn.functional.binary_cross_entropy_with_logits,
}


def criterion_of(who: str, loss_fn: Any) -> Callable[..., Any] | None:
    """Return the criterion(output, targets) that `loss_fn` is, or None where it is a loss_fn(model, batch).

    A loss module, a function of torch.nn.functional and a name in NAMED are criteria.

    Raises:
        TypeError, ValueError: `loss_fn` is neither callable nor a known name.
    """
    if isinstance(loss_fn, str):
        if loss_fn not in NAMED:
            raise ValueError(f"{who}: loss_fn must be one of {', '.join(NAMED)} or a callable, got {loss_fn!r}")
        return NAMED[loss_fn]
    if isinstance(loss_fn, nn.Module):
        return loss_fn
    if not callable(loss_fn):
        raise TypeError(
            f"{who}: loss_fn must be a loss module, a name, or a callable loss_fn(model, batch), got "
            f"{_check.describe(loss_fn)}"
        )
    return loss_fn if getattr(loss_fn, "__module__", "") == "torch.nn.functional" else None


def objective_of(who: str, loss_fn: Any) -> Callable[[nn.Module, Any], Any]:
    """Return loss_fn as a function of (model, batch); a criterion takes batches that are pairs (inputs, targets)."""
    criterion = criterion_of(who, loss_fn)
    if criterion is None:
        as_given: Callable[[nn.Module, Any], Any] = loss_fn
        return as_given

    def objective(model: nn.Module, batch: Any) -> Any:
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            raise TypeError(
                f"{who}: with a criterion each batch must be a pair (inputs, targets), got {type(batch).__name__}; "
                "give loss_fn(model, batch) instead"
            )
        return criterion(_data.call(model, batch[0]), batch[1])

    return objective
