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
from ._cells import on_device
from ._saved import untouched

# Widest activation of one batch and most samples in it: what should stay in a core's cache (benchmarks/README.md has
# the figures); on a device what keeps all of it busy and leaves room for the network's other activations.
_HOST_BATCH = (1 << 21, 1 << 12)
_DEVICE_BATCH = (1 << 28, 1 << 14)

_TRIAL_SAMPLES = 4096

Batch = tuple[Any, Any, int]
Trial = Callable[[list[Batch]], float]  # seconds of one pass


def read_batches(
    model: nn.Module, params: Mapping[str, nn.Parameter], data: Any, batch_size: int | None, trial: Trial | None = None
) -> list[Batch]:
    """Batches (inputs, targets, samples) that stay in memory; `trial` times a list of batches to find their size."""
    device = next(iter(params.values())).device
    with random_state([data]):
        if isinstance(data, Dataset) and hasattr(data, "__getitem__") and hasattr(data, "__len__"):
            data, batch_size = _samples_of(data, batch_size)
        if _data.is_pair(data):
            inputs, targets = data
            inputs, targets = _resident(inputs, device), _resident(targets, device)
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
        return [(_resident(x, device), _resident(t, device), len(t)) for x, t in _data.labelled("Evaluator", data)]


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
            columns[place].update(value.detach().contiguous().reshape(-1).view(torch.uint8).cpu().numpy())
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


def _resident(value: Any, device: torch.device) -> Any:
    """The value where the model is; data on a device are not brought to a model on the CPU without being asked."""
    if device.type == "cpu":
        _check_on_cpu(value)
        return value
    try:
        return _data.to_device(value, device)
    except torch.OutOfMemoryError as error:
        raise torch.OutOfMemoryError(
            f"Evaluator: {device} has not enough memory for the data, which stay there; pass fewer samples "
            f"({(str(error).splitlines() or [''])[0]})"
        ) from error


def _check_on_cpu(value: Any) -> None:
    if isinstance(value, Tensor) and value.device.type != "cpu":
        raise ValueError(
            f"Evaluator: the model is on cpu and the data on {value.device}; move the data with .cpu() or the model to "
            "their device"
        )
    for entry in value.values() if isinstance(value, Mapping) else value if isinstance(value, (tuple, list)) else ():
        _check_on_cpu(entry)


def _cache_batch(model: nn.Module, params: Mapping[str, nn.Parameter], sample: Tensor) -> int:
    """Batch size from the widest activation of one sample, a power of two from 32 on; no timing involved."""
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
    room, most = _DEVICE_BATCH if on_device(next(iter(params.values()))) else _HOST_BATCH
    size = 32
    while size < most and 2 * size * widest * 4 <= room:
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
