"""What the evaluator prepares once: batches in memory or streamed, coordinates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset, default_collate

from .. import _check, _data
from .._preserve import random_state, unwrap
from ._batches import Batch, Data, DataHash, Generators, Host, Resident, Streamed, bytes_of, digest_of, tensors_in
from ._cells import on_device
from ._memory import default_budget
from ._saved import untouched
from ._targets import Amounts, Counted, amounts_of

# Widest activation of one batch and most samples in it: what should stay in a core's cache (benchmarks/README.md has
# the figures); on a device what keeps all of it busy and leaves room for the network's other activations.
_HOST_BATCH = (1 << 21, 1 << 12)
_DEVICE_BATCH = (1 << 28, 1 << 14)

_TRIAL_SAMPLES = 4096

Trial = Callable[[Resident], float]  # seconds of one pass
Count = Callable[[Any, int], Counted]


@dataclass
class Reader:
    """Reads data once, keeps them where the model is or, when they are larger than the budget, prepares passes.

    Attributes:
        model: The user's.
        params: Its parameters.
        count: Targets of a batch, from (targets, samples).
        whole: Batches may be anything, as a loss_fn(model, batch) takes them as they are.
        budget: Bytes that the data may take where the model is; None: half of what is free there.
        batch_size: For tensors and data sets; None: a rule.
        trial: Times batches to find their size, or None.
    """

    model: nn.Module
    params: Mapping[str, nn.Parameter]
    count: Count
    whole: bool
    budget: int | None
    batch_size: int | None
    trial: Trial | None
    amounts: Amounts = field(default_factory=lambda: Amounts(0))

    @property
    def device(self) -> torch.device:
        """The model's."""
        return next(iter(self.params.values())).device

    def read(self, data: Any) -> Data:
        """The batches; `amounts` are known afterwards."""
        with random_state([data]):
            self.budget = default_budget(self.device) if self.budget is None else self.budget
            if isinstance(data, Dataset) and hasattr(data, "__getitem__") and hasattr(data, "__len__"):
                data, self.batch_size = self._samples_of(data)
            start, pair = Generators.now(data), _pair(data)
            if pair is None and (self.batch_size is not None or self.trial is not None):
                raise ValueError(
                    f"Evaluator: batch_size is for a pair of tensors or a data set; this {type(data).__name__} brings "
                    "its own batches, leave batch_size out"
                )
            if pair is None:
                return self._first_pass(data, lambda: self._batches_of(data), start, None)
            _check_place(pair, self.device)
            if self.trial is not None:
                first = _resident(tuple(t[:_TRIAL_SAMPLES] for t in pair), self.device)
                self.batch_size = _fastest_batch(first[0], first[1], self.trial)
            size = self.batch_size or _cache_batch(self.model, self.params, _resident(pair[0][:1], self.device))
            return self._first_pass(data, lambda: _split(pair[0], pair[1], size), start, pair)

    def _first_pass(
        self, data: Any, source: Callable[[], Iterable[Host]], start: Generators, pair: tuple[Tensor, Tensor] | None
    ) -> Data:
        """Hash and count every batch; keep them while they fit."""
        assert self.budget is not None
        kept: list[Host] | None = []
        total, counted, digests, size = DataHash(), [], [], 0
        for batch in start.reading(data, source):
            _check_place(batch, self.device)
            total.add(*batch[:2])
            counted.append(self.count(*batch[1:]))
            digests.append(digest_of(batch))
            size += _cost(batch, self.device, pair is not None or isinstance(data, (list, tuple)))
            kept = None if kept is None or size > self.budget else kept
            if kept is not None and pair is None:
                kept.append(_resident(batch, self.device))
        if not counted:
            raise ValueError("Evaluator: the data hold no samples")
        self.amounts, weights = amounts_of(counted)
        sizes = [c.samples for c in counted]
        if kept is not None:
            if pair is not None:  # whole, so that batches lie one after the other
                whole = _resident(pair, self.device)
                kept = list(_split(whole[0], whole[1], sizes[0]))
            return Resident([Batch(*b, w) for b, w in zip(kept, weights, strict=True)], total.hexdigest())
        if hasattr(data, "__next__"):
            raise ValueError(
                f"Evaluator: the data ({size:,} bytes) are larger than memory_budget ({self.budget:,} bytes) and are read "
                f"once per pass, which a {type(data).__name__} cannot repeat; pass a DataLoader or raise memory_budget"
            )
        return Streamed(source, data, self.device, start, sizes, weights, digests, total.hexdigest())

    def _samples_of(self, data: Any) -> tuple[Any, int | None]:
        """A data set as one pair of tensors, or as a loader of batches where it is something else or too large."""
        if not len(data):
            raise ValueError("Evaluator: the data set holds no samples")
        assert self.budget is not None
        size = self.batch_size
        if type(data) is TensorDataset:
            whole: Any = data.tensors
        elif bytes_of(data[0]) * len(data) > self.budget:
            first = _pair_of(default_collate([data[0]]))
            if size is None and first is not None:
                size = _cache_batch(self.model, self.params, _resident(first[0], self.device))
            return DataLoader(data, batch_size=size or _data.BATCH), None
        else:
            whole = default_collate([data[i] for i in range(len(data))])
        pair = _pair_of(whole)
        return (pair, size) if pair is not None else (DataLoader(data, batch_size=size or _data.BATCH), None)

    def _batches_of(self, data: Any) -> Iterator[Host]:
        for batch in _data.as_batches("Evaluator", data)():
            pair = isinstance(batch, Sequence) and len(batch) == 2 and isinstance(batch[1], Tensor)
            if pair and batch[1].dim():
                found = batch[0], batch[1], len(batch[1])
            elif self.whole:
                found = batch, None, next((len(t) for t in tensors_in(batch) if t.dim()), 1)
            else:
                raise TypeError(
                    "Evaluator: each batch must be a pair (inputs, targets) with a tensor of targets, got "
                    f"{type(batch).__name__}; give loss_fn(model, batch), which takes batches as they come"
                )
            if found[2]:
                yield found


def _pair(data: Any) -> tuple[Tensor, Tensor] | None:
    """Data that are a pair of tensors or NumPy arrays, checked."""
    if isinstance(data, tuple) and len(data) == 2 and all(isinstance(part, np.ndarray) for part in data):
        data = torch.from_numpy(data[0]), torch.from_numpy(data[1])
    if not _data.is_pair(data):
        return None
    inputs, targets = data
    if not inputs.dim() or not targets.dim() or len(inputs) != len(targets) or not len(targets):
        raise ValueError(
            "Evaluator: data must be inputs and targets of equal, positive length, got shapes "
            f"{tuple(inputs.shape)} and {tuple(targets.shape)}"
        )
    return inputs, targets


def _pair_of(whole: Any) -> tuple[Tensor, Tensor] | None:
    """A collated pair of tensors, or None."""
    if isinstance(whole, (list, tuple)) and len(whole) == 2 and all(isinstance(part, Tensor) for part in whole):
        return whole[0], whole[1]
    return None


def _cost(batch: Host, device: torch.device, lasting: bool) -> int:
    """Bytes that keeping the batch takes; nothing where it is the user's own memory and in place."""
    return sum(t.numel() * t.element_size() for t in tensors_in(batch) if not (lasting and t.device == device))


def _split(inputs: Tensor, targets: Tensor, size: int) -> Iterator[Host]:
    for x, t in zip(torch.split(inputs, size), torch.split(targets, size), strict=True):
        yield x, t, len(t)


def _fastest_batch(inputs: Tensor, targets: Tensor, trial: Trial) -> int:
    """The power of two in [32, 4096] with the fastest pass over a part of the data; each is tried three times."""
    sizes = [size for size in (32 << i for i in range(8)) if size <= max(32, len(targets))]
    times = {size: float("inf") for size in sizes}
    for _ in range(3):
        for size in sizes:
            batches = Resident([Batch(*b, float(b[2])) for b in _split(inputs, targets, size)])
            times[size] = min(times[size], trial(batches))
    return min(times, key=times.__getitem__)


def _resident(value: Any, device: torch.device) -> Any:
    """The value where the model is."""
    if device.type == "cpu":
        return value
    try:
        return _data.to_device(value, device)
    except torch.OutOfMemoryError as error:
        raise torch.OutOfMemoryError(
            f"Evaluator: {device} has not enough memory for the data, which stay there; pass a smaller memory_budget, "
            f"so that they are streamed ({(str(error).splitlines() or [''])[0]})"
        ) from error


def _check_place(value: Any, device: torch.device) -> None:
    """Data on a device are not brought to a model on the CPU without being asked."""
    for tensor in tensors_in(value) if device.type == "cpu" else ():
        if tensor.device.type != "cpu":
            raise ValueError(
                f"Evaluator: the model is on cpu and the data on {tensor.device}; move the data with .cpu() or the "
                "model to their device"
            )


def _cache_batch(model: nn.Module, params: Mapping[str, nn.Parameter], sample: Tensor) -> int:
    """Batch size from the widest activation of one sample, a power of two from 32 on; no timing involved."""
    widest = sample.numel()

    def watch(module: nn.Module, args: Any, output: Any) -> None:
        nonlocal widest
        if isinstance(output, Tensor):
            widest = max(widest, output.numel())

    handles = []
    try:
        handles = [m.register_forward_hook(watch) for m in unwrap(model).modules()]
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
