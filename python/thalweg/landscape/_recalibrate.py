"""BatchNorm with the statistics of the whole data, at every point. Knows no points and no metrics.

Layer by layer in the order of the forward pass: each layer's mean and variance are those of all its inputs, which come
from earlier layers that already normalise with theirs. This is what one batch of all the data would give in train mode.
"""

from __future__ import annotations

import functools
import logging
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .._preserve import modes, unwrap
from ..ensemble._batchnorm import Pooled
from ._batches import Batch, Data
from ._loss import Measure
from ._sweep import Stopped, Sweep

_LOG = logging.getLogger("thalweg.landscape")
_MOST_THREADS = 1024
_ACTIVATIONS = 4  # times the widest input of a layer: what a batch holds while it waits, shortcuts included

Visits = Callable[[], Iterable[int]]  # moves the model to one point after the other


class Statistics:
    """Mean and variance of the layers that are known at one point."""

    def __init__(self) -> None:
        self._known: dict[_BatchNorm, tuple[Tensor, Tensor]] = {}

    def __contains__(self, layer: _BatchNorm) -> bool:
        return layer in self._known

    def __len__(self) -> int:
        return len(self._known)

    def same_bits(self, other: Statistics) -> bool:
        """Tell whether both know the same, NaN included."""
        return self._known.keys() == other._known.keys() and all(
            torch.equal(a.view(torch.int64), b.view(torch.int64))
            for layer, values in self._known.items()
            for a, b in zip(values, other._known[layer], strict=True)
        )

    def write_one(self, layer: _BatchNorm) -> None:
        """One layer's into the model."""
        mean, variance = self._known[layer]
        assert layer.running_mean is not None
        assert layer.running_var is not None
        layer.running_mean.copy_(mean)
        layer.running_var.copy_(variance)

    def learn(self, layer: _BatchNorm, pooled: Pooled) -> None:
        """Take what was pooled over all batches."""
        self._known[layer] = pooled.population()

    def write(self) -> None:
        """Into the model."""
        for layer in self._known:
            self.write_one(layer)


class Recalibration:
    """Finds the statistics.

    Data in memory go through the model once, side by side (see `_sweep`), when their activations fit; else, and when they
    are streamed, every batch runs once per layer, as far as that layer. Both have the same bits: the first point is
    computed both ways, and a model that does not bear the former (one that keeps a batch's intermediate values as
    attributes, say) gets the latter.

    Args:
        model: In the mode of its evaluation.
        measure: Knows how the model is called.
        data: The batches.
        room: Bytes that activations may take.
        without_gradients: How the model is run.

    Raises:
        ValueError: A layer keeps no statistics, is called twice, or batches reach the layers in different orders; the
            model draws random numbers or changes buffers.
    """

    def __init__(
        self,
        model: nn.Module,
        measure: Measure,
        data: Data,
        room: int,
        without_gradients: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        self._model, self._measure, self._data = unwrap(model), measure, data
        self._room, self._without_gradients = room, without_gradients
        self._names = {m: name for name, m in self._model.named_modules() if isinstance(m, _BatchNorm)}
        for layer, name in self._names.items():
            if layer.running_mean is None or layer.running_var is None:
                _refuse(name, "keeps no running statistics (track_running_stats=False), always those of a batch")
        self._checked = False  # that a forward pass leaves everything else as it is
        self._widest = 0  # bytes of the largest input of a layer
        self.side_by_side: bool | None = None  # None: not tried yet

    def serves(self, data: Data) -> bool:
        """Tell whether model and data are still those that it was made for."""
        layers = [module for module in self._model.modules() if isinstance(module, _BatchNorm)]
        return self._data is data and layers == list(self._names)

    def __call__(self) -> None:
        """Give the model the statistics of its present weights."""
        if not self._names:
            return
        if self.side_by_side:
            try:
                self._swept().write()
                return
            except torch.OutOfMemoryError:
                self.side_by_side = False
        (statistics,) = self.of_points(1, lambda: (0,))
        if self.side_by_side is None:
            self.side_by_side = self._fits() and self._agrees(statistics)
        statistics.write()

    def of_points(self, count: int, visits: Visits) -> list[Statistics]:
        """The statistics at several points; every pass over the data serves all of them."""
        known = [Statistics() for _ in range(count)]
        before = None if self._checked else _state_of(self._model)
        with self._in_eval_mode():
            while len(known[0]) < len(self._names) or before is not None:  # once beyond the last layer, for the checks
                if not self._next_layer(known, visits):
                    break
        if before is not None and not _same(before, _state_of(self._model)):
            raise ValueError(
                "Evaluator: the model draws random numbers or changes its buffers in eval mode, so the forward passes "
                "that bn='recalibrate' takes would differ; use bn='frozen' or bn='batch'"
            )
        self._checked = True
        return known

    def _next_layer(self, known: list[Statistics], visits: Visits) -> bool:
        """One pass over the data for the first layer that is not known yet; whether there was one."""
        pools: list[dict[_BatchNorm, Pooled]] = [{} for _ in known]
        for batch in self._data:
            for i in visits():
                known[i].write()
                self._to_unknown(batch, known[i], pools[i])
        for statistics, found in zip(known, pools, strict=True):
            self._check_order(list(found))
            for layer, pooled in found.items():
                statistics.learn(layer, pooled)
        return bool(pools[0])

    def _to_unknown(self, batch: Batch, known: Statistics, found: dict[_BatchNorm, Pooled]) -> None:
        """Run the model on a batch as far as the statistics are known, and add the next layer's inputs to `found`."""
        called: set[_BatchNorm] = set()

        def hook(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            assert isinstance(layer, _BatchNorm)
            self._check_first_call(layer, layer in called)
            called.add(layer)
            if layer not in known:
                values = args[0] if args else kwargs["input"]
                self._widest = max(self._widest, values.numel() * values.element_size())
                found.setdefault(layer, Pooled()).add(values)
                raise Stopped

        handles = [layer.register_forward_pre_hook(hook, with_kwargs=True) for layer in self._names]
        try:
            self._measure.output(self._model, batch)
        except Stopped:
            pass
        finally:
            for handle in handles:
                handle.remove()

    def _fits(self) -> bool:
        batches, on_host = len(self._data.sizes), not any(p.is_cuda for p in self._model.parameters())
        threads = batches * (torch.get_num_threads() if on_host else 1)  # OpenMP has a team for every thread
        return threads <= _MOST_THREADS and batches * self._widest * _ACTIVATIONS <= self._room

    def _agrees(self, statistics: Statistics) -> bool:
        """Tell whether all batches side by side give the same bits."""
        try:
            return self._swept().same_bits(statistics)
        except Exception as error:  # whatever a model does that cannot be interrupted
            _LOG.info("landscape: BatchNorm statistics by one pass per layer: %s", error)
            return False

    def _swept(self) -> Statistics:
        """The statistics at the model's present weights, all batches side by side."""
        known, found = Statistics(), dict[_BatchNorm, Pooled]()

        def arrived(layer: _BatchNorm, values: Tensor, again: bool) -> None:
            self._check_first_call(layer, again)
            found.setdefault(layer, Pooled()).add(values)

        def complete(layers: Sequence[_BatchNorm]) -> None:
            self._check_order(layers)
            known.learn(layers[0], found[layers[0]])
            known.write_one(layers[0])

        sweep = Sweep(list(self._names), arrived, complete, self._surroundings())
        with self._in_eval_mode():
            sweep.run([functools.partial(self._measure.output, self._model, batch) for batch in self._data])
        return known

    def _surroundings(self) -> Callable[[], AbstractContextManager[Any]]:
        """What torch keeps per thread, as it is here."""
        device = next(self._model.parameters()).device
        stream = torch.cuda.current_stream(device) if device.type == "cuda" else None
        lowered, dtype = torch.is_autocast_enabled(device.type), torch.get_autocast_dtype(device.type)

        @contextmanager
        def entered() -> Iterator[None]:
            with self._without_gradients(), torch.cuda.stream(stream), torch.autocast(device.type, dtype, lowered):
                yield

        return entered

    def _check_first_call(self, layer: _BatchNorm, again: bool) -> None:
        if again:
            _refuse(self._names[layer], "is called twice in a forward pass and has one set of statistics for both")

    def _check_order(self, layers: Sequence[_BatchNorm]) -> None:
        if len(layers) > 1:
            first, second = (self._names[layer] for layer in layers[:2])
            _refuse(first, f"and {second!r} are reached in another order by other batches")

    @contextmanager
    def _in_eval_mode(self) -> Iterator[None]:
        """Dropout off, compiled parts of the model run as they are written: hooks and early ends are not for graphs."""
        with modes(self._model), torch.compiler.set_stance("force_eager"):
            self._model.eval()
            yield


def _refuse(name: str, what: str) -> None:
    raise ValueError(
        f"Evaluator: BatchNorm layer {name!r} {what}; bn='recalibrate' needs the statistics of one input per layer over "
        "all the data, use bn='frozen' or bn='batch'"
    )


def _state_of(model: nn.Module) -> list[Any]:
    """Generators, and the buffers of all other layers."""
    state: list[Any] = [torch.get_rng_state(), random.getstate(), repr(np.random.get_state())]  # noqa: NPY002
    for module in model.modules():
        if not isinstance(module, _BatchNorm):
            state += [buffer.clone() for buffer in module._buffers.values() if buffer is not None]
    if any(p.is_cuda for p in model.parameters()):
        state += torch.cuda.get_rng_state_all()
    return state


def _same(before: list[Any], after: list[Any]) -> bool:
    return len(before) == len(after) and all(
        torch.equal(torch.as_tensor(a), torch.as_tensor(b)) if isinstance(a, (Tensor, np.ndarray)) else a == b
        for a, b in zip(before, after, strict=True)
    )
