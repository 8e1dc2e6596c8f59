"""Batches of data: kept where the model is, or read anew in every pass and checked to be the same. Knows no model."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
import xxhash
from torch import Tensor

from .. import _data
from .._preserve import generators_of, random_state


class Batch(NamedTuple):
    """One batch, where the model is.

    Attributes:
        inputs: What the model is called with; the whole batch when `targets` is None.
        targets: For the criterion, or None: then only a loss_fn(model, batch) knows what they are.
        samples: How many.
        weight: Of the batch's mean loss among those of the others; see `_targets`.
    """

    inputs: Any
    targets: Any
    samples: int
    weight: float


Host = tuple[Any, Any, int]  # inputs, targets, samples of a batch as it was read


@dataclass
class Resident:
    """Batches that stay in memory."""

    batches: Sequence[Batch]
    hash: str = ""
    streamed = False

    @property
    def sizes(self) -> list[int]:
        """Samples of each batch."""
        return [batch.samples for batch in self.batches]

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.batches)


@dataclass
class Streamed:
    """Batches that are read anew in every pass, of which a device holds two.

    The generators that the data draw from start every pass as they started the first one, so that a shuffled loader
    gives one order. What is read is compared with the first pass all the same.

    Attributes:
        source: Starts a pass over the batches on the host.
        data: The user's, for its generators.
        device: Where the model is.
        start: Generators at the start of the first pass.
        sizes: Samples of each batch.
        weights: As of `Batch`.
        digests: Of each batch in the first pass.
        hash: Of the data.
        passes: How many were begun, the first one not counted.
    """

    source: Callable[[], Iterable[Host]]
    data: Any
    device: torch.device
    start: Generators
    sizes: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    digests: list[int] = field(default_factory=list)
    hash: str = ""
    passes: int = 0
    streamed = True

    def __iter__(self) -> Iterator[Batch]:
        self.passes += 1
        read = 0
        for read, (batch, digest) in enumerate(self._ahead(), start=1):
            if read > len(self.digests) or digest != self.digests[read - 1]:
                self._refuse(f"batch {read - 1} differs")
            yield Batch(*batch, self.weights[read - 1])
        if read < len(self.digests):
            self._refuse(f"{read} batches came instead of {len(self.digests)}")

    def _refuse(self, what: str) -> None:
        raise ValueError(
            f"Evaluator: the data are larger than memory_budget and are read once per pass, but {what} from the first "
            "pass; expected the same batches in the same order (no shuffling or augmentation with generators of its "
            "own), or raise memory_budget so that the data are kept"
        )

    def _ahead(self) -> Iterator[tuple[Host, int]]:
        """Batches where the model is, and digests; the copy of the next one runs while a batch is computed with."""
        batches = self.start.reading(self.data, self.source)
        if self.device.type != "cuda":
            for batch in batches:
                yield _at(batch, self.device), digest_of(batch)
            return
        copies = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        waiting: tuple[Host, int, torch.cuda.Event] | None = None
        for batch in batches:
            with torch.cuda.stream(copies):
                there = _at(_pinned(batch), self.device), digest_of(batch), copies.record_event()
            if waiting is not None:
                yield self._arrived(*waiting)
            waiting = there
        if waiting is not None:
            yield self._arrived(*waiting)

    def _arrived(self, batch: Host, digest: int, copied: torch.cuda.Event) -> tuple[Host, int]:
        stream = torch.cuda.current_stream(self.device)
        stream.wait_event(copied)
        for tensor in tensors_in(batch):
            if tensor.is_cuda:
                tensor.record_stream(stream)
        return batch, digest


Data = Resident | Streamed


@dataclass
class Generators:
    """The states of the generators that data may draw from: torch's, numpy's, Python's and the loader's own."""

    everyones: tuple[Any, ...]
    own: list[Tensor]

    @classmethod
    def now(cls, data: Any) -> Generators:
        """As they are."""
        return cls(_everyones(), [generator.get_state() for generator in generators_of([data])])

    def reading(self, data: Any, source: Callable[[], Iterable[Host]]) -> Iterator[Host]:
        """One pass that starts with these states; between two batches the generators are the caller's."""
        state = self.everyones
        with _swapped(generators_of([data]), self.own):
            iterator = None
            while True:
                with random_state():
                    _set_everyones(state)
                    iterator = iter(source()) if iterator is None else iterator
                    batch = next(iterator, None)
                    state = _everyones()
                if batch is None:
                    return
                yield batch


def _everyones() -> tuple[Any, ...]:
    return torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002


def _set_everyones(state: tuple[Any, ...]) -> None:
    torch.set_rng_state(state[0])
    np.random.set_state(state[1])  # noqa: NPY002
    random.setstate(state[2])


@contextmanager
def _swapped(generators: Sequence[torch.Generator], states: Sequence[Tensor]) -> Iterator[None]:
    before = [generator.get_state() for generator in generators]
    try:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
        yield
    finally:
        for generator, state in zip(generators, before, strict=True):
            generator.set_state(state)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Every tensor inside, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (Mapping, tuple, list)):
        for entry in value.values() if isinstance(value, Mapping) else value:
            yield from tensors_in(entry)


def bytes_of(value: Any) -> int:
    """Memory of every tensor inside."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors_in(value))


def digest_of(value: Any) -> int:
    """xxh3 of every tensor inside."""
    digest = xxhash.xxh3_64()
    for tensor in tensors_in(value):
        digest.update(f"{tensor.dtype}:{tuple(tensor.shape)}".encode())
        digest.update(raw(tensor))
    return int(digest.intdigest())


def raw(tensor: Tensor) -> Any:
    """The bytes of a tensor, on the host."""
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).cpu().numpy()


def _at(batch: Host, device: torch.device) -> Host:
    inputs, targets, samples = batch
    return _data.to_device(inputs, device), _data.to_device(targets, device), samples


def _pinned(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value if value.is_cuda else value.pin_memory()
    if isinstance(value, Mapping):
        return {key: _pinned(entry) for key, entry in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(_pinned(entry) for entry in value)
    return value


class DataHash:
    """xxh3 of every tensor of every sample; the division into batches does not count."""

    def __init__(self) -> None:
        self._columns: dict[str, Any] = {}

    def add(self, inputs: Any, targets: Any) -> None:
        """The next batch."""
        self._add("inputs", inputs)
        self._add("targets", targets)

    def _add(self, place: str, value: Any) -> None:
        if isinstance(value, Tensor):
            if place not in self._columns:
                self._columns[place] = xxhash.xxh3_128(f"{value.dtype}:{tuple(value.shape[1:])}".encode())
            self._columns[place].update(raw(value))
        elif isinstance(value, Mapping):
            for key in value:
                self._add(f"{place}.{key}", value[key])
        elif isinstance(value, (tuple, list)):
            for i, entry in enumerate(value):
                self._add(f"{place}.{i}", entry)

    def hexdigest(self) -> str:
        """Of all columns, in order of their names."""
        summary = "".join(f"{name}:{self._columns[name].hexdigest()};" for name in sorted(self._columns))
        return str(xxhash.xxh3_128_hexdigest(summary.encode()))
