"""Data as users have them -> batches on one device. Knows no model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from . import _check

BATCH = 256  # samples, where the data bring no batches of their own


def is_pair(data: Any) -> bool:
    """Tell whether `data` is a tuple of two tensors, inputs and targets; a list of two tensors is two batches."""
    return isinstance(data, tuple) and len(data) == 2 and all(isinstance(d, torch.Tensor) for d in data)


def labelled(who: str, data: Any) -> Iterator[tuple[Any, torch.Tensor]]:
    """Yield (inputs, targets) batches of a pair of tensors, a data set, or an iterable of batches.

    Raises:
        TypeError: `data` is none of these, or a batch is no pair.
        ValueError: No samples, or inputs and targets differ in number.
    """
    count = 0
    for batch in as_batches(who, data)():
        if isinstance(batch, Mapping) or not isinstance(batch, Sequence) or len(batch) != 2:
            raise TypeError(
                f"{who}: each batch must be a pair (inputs, targets), got {type(batch).__name__}; "
                "wrap the loader in a generator that yields pairs"
            )
        inputs, targets = batch
        if not isinstance(targets, torch.Tensor):
            raise TypeError(f"{who}: the targets of a batch must be a tensor, got {_check.describe(targets)}")
        if len(targets):
            count += len(targets)
            yield inputs, targets
    if not count:
        raise ValueError(f"{who}: the data hold no samples")


def unlabelled(who: str, data: Any) -> Iterator[Any]:
    """Yield the inputs of batches; `data` as for `labelled`, or without targets.

    A batch that is a tuple or list counts as (inputs, targets, ...): its first entry is taken.
    """
    count = 0
    for batch in as_batches(who, data)():
        yield batch[0] if isinstance(batch, (tuple, list)) else batch
        count += 1
    if not count:
        raise ValueError(f"{who}: the data hold no samples")


def as_batches(who: str, data: Any) -> Callable[[], Iterable[Any]]:
    """Return a function that starts a pass over the batches of `data`.

    Raises:
        TypeError, ValueError: `data` is nothing that holds batches, or inputs and targets differ in number.
    """
    if is_pair(data):
        inputs, targets = data
        if len(inputs) != len(targets):
            raise ValueError(
                f"{who}: inputs and targets must have the same length, got {len(inputs)} and {len(targets)}"
            )
        starts = range(0, len(targets), BATCH)
        return lambda: ((inputs[start : start + BATCH], targets[start : start + BATCH]) for start in starts)
    if isinstance(data, torch.Tensor):
        return lambda: (data[start : start + BATCH] for start in range(0, len(data), BATCH))
    if isinstance(data, Dataset) and hasattr(data, "__getitem__"):
        return lambda: DataLoader(data, batch_size=BATCH)
    if isinstance(data, (str, bytes, Mapping)) or not hasattr(data, "__iter__"):
        raise TypeError(
            f"{who}: data must be a pair of tensors (inputs, targets), a data set or an iterable of batches, got "
            f"{_check.describe(data)}"
        )
    return lambda: data


def to_device(value: Any, device: torch.device) -> Any:
    """Return `value` with every tensor inside moved to `device`."""
    if isinstance(value, torch.Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, Mapping):
        return {key: to_device(entry, device) for key, entry in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(to_device(entry, device) for entry in value)
    return value


def call(function: Callable[..., Any], inputs: Any) -> Any:
    """Call a model: a tuple or list of inputs as positional, a mapping as keyword arguments."""
    if isinstance(inputs, Mapping):
        return function(**inputs)
    if isinstance(inputs, (tuple, list)):
        return function(*inputs)
    return function(inputs)
