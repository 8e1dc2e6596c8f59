"""What the evaluator prepares once: batches in memory, their hash, coordinates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import xxhash
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset, default_collate

from .. import _check, _data
from .._preserve import random_state, unwrap
from ._saved import untouched

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
        if isinstance(data, Dataset) and hasattr(data, "__getitem__") and hasattr(data, "__len__"):
            data, batch_size = _samples_of(data, batch_size)
        if _data.is_pair(data):
            inputs, targets = data
            _check_device(inputs, targets)
            if not inputs.dim() or not targets.dim() or len(inputs) != len(targets) or not len(targets):
                raise ValueError(
                    "Evaluator: data must be inputs and targets of equal, positive length, got shapes "
                    f"{tuple(inputs.shape)} and {tuple(targets.shape)}"
                )
            if trial is not None:
                batch_size = _fastest_batch(inputs[:_TRIAL_SAMPLES], targets[:_TRIAL_SAMPLES], trial)
            return _split(inputs, targets, batch_size or _cache_batch(model, params, inputs[:1]))
        if batch_size is not None or trial is not None:
            raise ValueError(
                f"Evaluator: batch_size is for a pair of tensors or a data set; this {type(data).__name__} brings its "
                "own batches, leave batch_size out"
            )
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


def _samples_of(data: Any, batch_size: int | None) -> tuple[Any, int | None]:
    """A data set as one pair of tensors, or, where its samples are something else, as a loader of batches."""
    if not len(data):
        raise ValueError("Evaluator: the data set holds no samples")
    whole = data.tensors if type(data) is TensorDataset else default_collate([data[i] for i in range(len(data))])
    if isinstance(whole, (list, tuple)) and len(whole) == 2 and all(isinstance(part, Tensor) for part in whole):
        return tuple(whole), batch_size
    return DataLoader(data, batch_size=batch_size or _data.BATCH), None


def hash_of_data(batches: Sequence[Batch]) -> str:
    """xxh3 of every tensor of every sample; the division into batches does not count."""
    columns: dict[str, Any] = {}

    def add(place: str, value: Any) -> None:
        if isinstance(value, Tensor):
            if place not in columns:
                columns[place] = xxhash.xxh3_128(f"{value.dtype}:{tuple(value.shape[1:])}".encode())
            columns[place].update(value.detach().contiguous().reshape(-1).view(torch.uint8).numpy())
        elif isinstance(value, Mapping):
            for key in value:
                add(f"{place}.{key}", value[key])
        elif isinstance(value, (tuple, list)):
            for i, entry in enumerate(value):
                add(f"{place}.{i}", entry)

    for inputs, targets, _ in batches:
        add("inputs", inputs)
        add("targets", targets)
    summary = "".join(f"{name}:{columns[name].hexdigest()};" for name in sorted(columns))
    return str(xxhash.xxh3_128_hexdigest(summary.encode()))


def _check_device(*values: Any) -> None:
    for value in values:
        if isinstance(value, Tensor) and value.device.type != "cpu":
            raise ValueError(f"Evaluator: the model is on cpu and the data on {value.device}; move the data to the CPU")
        if isinstance(value, Mapping):
            _check_device(*value.values())
        elif isinstance(value, (tuple, list)):
            _check_device(*value)


def _cache_batch(model: nn.Module, params: Mapping[str, nn.Parameter], sample: Tensor) -> int:
    """Batch size from the widest activation of one sample, a power of two in [32, 4096]; no timing involved."""
    widest = sample.numel()

    def watch(module: nn.Module, args: Any, output: Any) -> None:
        nonlocal widest
        if isinstance(output, Tensor):
            widest = max(widest, output.numel())

    handles = [m.register_forward_hook(watch) for m in unwrap(model).modules()]
    try:
        with untouched(model, params), torch.inference_mode():
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
