"""The two forms of a range test's arguments -> what one trial does. Checks them; runs nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from . import _check
from ._criterion import objective_of
from ._lr_range_record import WHO
from ._lr_range_run import Training


@dataclass(frozen=True)
class Trial:
    """One range test, whichever form it was asked for in.

    Attributes:
        start: From the seed of the batches' order (None: as they come) to the function that makes one update.
        measure: Makes the function that measures the validation loss; None where the training loss is read.
        model: None where the closure form names none.
        optimizers: At least one.
        sources: Data whose generators are restored.
        group: Of processes over which losses are averaged.
    """

    start: Callable[[int | None], Callable[[], Any]]
    measure: Callable[[], Callable[[], Any]] | None
    model: nn.Module | None
    optimizers: tuple[torch.optim.Optimizer, ...]
    sources: tuple[Any, ...]
    group: Any


def trial_of(args: tuple[Any, ...], model: Any, distributed: Any, options: dict[str, Any]) -> Trial:
    """Return the trial that (model, loss_fn, batches, optimizer) or (step_closure, optimizer) asks for.

    Args:
        args: The positional arguments.
        model: The model of the closure form.
        distributed: Whether losses are averaged over processes; None where the model says so itself.
        options: accumulate, scaler, autocast, validation, validation_batches.

    Raises:
        TypeError, ValueError: Something does not fit.
    """
    if len(args) == 4 and isinstance(args[0], nn.Module):
        return _with_model(args, _group(distributed, args[0]), options)
    if len(args) == 2 and callable(args[0]) and not isinstance(args[0], nn.Module):
        return _with_closure(args, model, distributed, options)
    raise TypeError(
        f"{WHO}: expected (model, loss_fn, batches, optimizer) or (step_closure, optimizer), got "
        f"({', '.join(type(arg).__name__ for arg in args)})"
    )


def _with_model(args: tuple[Any, ...], group: Any, options: dict[str, Any]) -> Trial:
    model, loss_fn, batches, optimizer = args
    optimizers = as_optimizers(optimizer)
    if isinstance(batches, (str, bytes)) or not (hasattr(batches, "__iter__") or hasattr(batches, "__getitem__")):
        raise TypeError(f"{WHO}: batches must be an iterable of batches, got {_check.describe(batches)}")
    scaler, autocast, validation = options["scaler"], options["autocast"], options["validation"]
    if scaler is not None:
        _check.instance(WHO, "scaler", scaler, torch.amp.GradScaler, "a torch.amp.GradScaler or None")
    if autocast is not None:
        _check.instance(WHO, "autocast", autocast, torch.dtype, "a torch.dtype or None")
    training = Training(
        model,
        objective_of(WHO, loss_fn),
        batches,
        optimizers,
        _check.integer(WHO, "accumulate", options["accumulate"], 1),
        scaler,
        autocast,
        group,
    )
    measure = None
    if validation is not None:
        count = _check.integer(WHO, "validation_batches", options["validation_batches"], 1)
        measure = lambda: training.validation(validation, count)  # noqa: E731
    return Trial(training.start, measure, model, optimizers, (batches, validation), group)


def _with_closure(args: tuple[Any, ...], model: Any, distributed: Any, options: dict[str, Any]) -> Trial:
    step, optimizers, validation = args[0], as_optimizers(args[1]), options["validation"]
    if model is not None:
        _check.instance(WHO, "model", model, nn.Module, "a torch.nn.Module or None")
    if options["accumulate"] != 1 or options["scaler"] is not None or options["autocast"] is not None:
        raise ValueError(
            f"{WHO}: accumulate, scaler and autocast belong to the form (model, loss_fn, batches, optimizer); "
            "a closure does them itself, and names its scaler in restore="
        )
    if validation is not None and not callable(validation):
        raise TypeError(
            f"{WHO}: with a closure, validation must be a function that returns the loss, got "
            f"{_check.describe(validation)}"
        )
    measure = None if validation is None else lambda: validation
    return Trial(lambda order: step, measure, model, optimizers, (), _group(distributed, model))


def _group(distributed: Any, model: nn.Module | None) -> Any:
    """The processes over which losses are averaged: those of a DistributedDataParallel model, or all if asked for."""
    inner = getattr(model, "_orig_mod", model)
    if distributed is None:
        return inner.process_group if isinstance(inner, nn.parallel.DistributedDataParallel) else None
    _check.instance(WHO, "distributed", distributed, bool, "True, False or None")
    if not distributed:
        return None
    if not (dist.is_available() and dist.is_initialized()):
        raise ValueError(f"{WHO}: distributed=True needs a process group; call torch.distributed.init_process_group")
    return dist.group.WORLD


def as_optimizers(optimizer: Any) -> tuple[torch.optim.Optimizer, ...]:
    """Return one optimizer, or several in a list or tuple, as a tuple.

    Raises:
        TypeError, ValueError: It holds something else, nothing, or one of them twice.
    """
    found: Sequence[Any] = optimizer if isinstance(optimizer, (list, tuple)) else (optimizer,)
    if not found:
        raise ValueError(f"{WHO}: optimizer must be an optimizer or a list of optimizers, got an empty list")
    for entry in found:
        _check.instance(WHO, "optimizer", entry, torch.optim.Optimizer, "a torch.optim.Optimizer")
    if len({id(entry) for entry in found}) < len(found):
        raise ValueError(f"{WHO}: optimizer must not hold the same optimizer twice")
    return tuple(found)
