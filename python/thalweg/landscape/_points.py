"""What the evaluator prepares once: batches in memory, coordinates, tensors that the core may write."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from .. import _check, _core, _data
from .._preserve import random_state, unwrap
from . import _weights

# Activations of one batch that should stay in a core's cache (benchmarks/README.md has the figures).
_ACTIVATION_BYTES = 1 << 21

_TRIAL_SAMPLES = 4096

Batch = tuple[Any, Any, int]
Trial = Callable[[list[Batch]], float]  # seconds of one pass


def read_batches(
    model: nn.Module, params: Mapping[str, nn.Parameter], data: Any, batch_size: int | None, trial: Trial | None = None
) -> list[Batch]:
    """Batches (inputs, targets, samples) that stay in memory; `trial` times a list of batches to find their size."""
    with random_state([data]):
        if _data.is_pair(data):
            inputs, targets = data
            _check_device(inputs, targets)
            if len(inputs) != len(targets) or not len(targets):
                raise ValueError(
                    f"Evaluator: data must be inputs and targets of equal, positive length, got {len(inputs)} and "
                    f"{len(targets)}"
                )
            if trial is not None:
                batch_size = _fastest_batch(inputs[:_TRIAL_SAMPLES], targets[:_TRIAL_SAMPLES], trial)
            return _split(inputs, targets, batch_size or _cache_batch(model, params, inputs[:1]))
        batches = [(x, t, len(t)) for x, t in _data.labelled("Evaluator", data)]
    for x, t, _ in batches:
        _check_device(x, t)
    return batches


def _split(inputs: Tensor, targets: Tensor, size: int) -> list[Batch]:
    chunks = zip(torch.split(inputs, size), torch.split(targets, size), strict=True)
    return [(x, t, len(t)) for x, t in chunks]


def _fastest_batch(inputs: Tensor, targets: Tensor, trial: Trial) -> int:
    """The power of two in [32, 4096] with the fastest pass over a part of the data; each is tried three times."""
    sizes = [size for size in (32 << i for i in range(8)) if size <= max(32, len(targets))]
    times = {size: float("inf") for size in sizes}
    for _ in range(3):
        for size in sizes:
            times[size] = min(times[size], trial(_split(inputs, targets, size)))
    return min(times, key=times.__getitem__)


def _check_device(*values: Any) -> None:
    for value in values:
        if isinstance(value, Tensor) and value.device.type != "cpu":
            raise ValueError(f"Evaluator: the model is on cpu and the data on {value.device}; move the data to the CPU")


def _cache_batch(model: nn.Module, params: Mapping[str, nn.Parameter], sample: Tensor) -> int:
    """Batch size from the widest activation of one sample, a power of two in [32, 4096]; no timing involved."""
    widest = sample.numel()

    def watch(module: nn.Module, args: Any, output: Any) -> None:
        nonlocal widest
        if isinstance(output, Tensor):
            widest = max(widest, output.numel())

    handles = [m.register_forward_hook(watch) for m in unwrap(model).modules()]
    try:
        with _weights.untouched(model, params), torch.inference_mode():
            model.eval()
            _data.call(model, sample)
    except (RuntimeError, ValueError, IndexError, TypeError):
        return _data.BATCH  # a model that takes other inputs than this pair shows its own error at the first point
    finally:
        for handle in handles:
            handle.remove()
    size = 32
    while size < 4096 and 2 * size * widest * 4 <= _ACTIVATION_BYTES:
        size *= 2
    return size


def axis(who: str, name: str, value: Any) -> npt.NDArray[np.float64]:
    """(first, last, number) -> float64 coordinates."""
    if not isinstance(value, (tuple, list)) or len(value) != 3:
        raise TypeError(f"{who}: {name} must be (first, last, number of points), got {_check.describe(value)}")
    first, last = _check.real(who, f"{name}[0]", value[0]), _check.real(who, f"{name}[1]", value[1])
    number = _check.integer(who, f"{name}[2]", value[2], 1)
    if number > 1 and first == last:
        raise ValueError(f"{who}: {name} has {number} points from {first} to {last}; expected two different ends")
    return np.linspace(first, last, number)


def dense(tensor: Tensor) -> Tensor:
    """The tensor itself, or a copy without gaps."""
    return tensor if _core.tensor_view(tensor)[4] else tensor.clone(memory_format=torch.preserve_format)


def dense_targets(tensors: Sequence[Tensor]) -> tuple[list[Tensor], list[tuple[Tensor, Tensor]]]:
    """Where the core writes: the tensors themselves, or dense stand-ins that are copied over afterwards."""
    outs, strided = [], []
    for tensor in tensors:
        stand_in = dense(tensor.detach())
        outs.append(stand_in)
        if stand_in.data_ptr() != tensor.data_ptr():
            strided.append((tensor, stand_in))
    return outs, strided
