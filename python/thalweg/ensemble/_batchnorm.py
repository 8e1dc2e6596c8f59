"""BatchNorm statistics of given weights, computed anew over data. Knows no ensemble."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from .. import _data
from .._preserve import modes, random_state
from ._snapshot import check_model


def batchnorm_layers(model: nn.Module) -> dict[str, _BatchNorm]:
    """Return the BatchNorm layers that keep running statistics, by name."""
    return {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, _BatchNorm) and layer.running_mean is not None and layer.running_var is not None
    }


def reestimate_bn(model: nn.Module, data: Any) -> None:
    r"""Compute the running statistics of all BatchNorm layers of `model` anew, in place, exactly over `data`.

    One pass with BatchNorm alone in train mode (Dropout stays off). Each layer's mean and variance are those
    of all its inputs together, batches weighted by their size: Σ within batches plus Σ between batches,
    unbiased (n − 1), in float64. `torch.optim.swa_utils.update_bn` instead averages per batch and leaves the
    between-batch part out.

    On an error everything is as before. Modes, generators, momentum and gradients do not change.

    Args:
        model: Module whose averaged or interpolated weights need statistics of their own.
        data: Inputs: a tensor, `(inputs, targets)`, a data set, or an iterable of such batches.

    Raises:
        ValueError: No data, or a layer saw a single value per channel.

    Example:
        >>> import torch
        >>> from thalweg.ensemble import reestimate_bn
        >>> model = torch.nn.BatchNorm1d(1)
        >>> reestimate_bn(model, torch.tensor([[1.0], [2.0], [6.0]]))
        >>> model.running_mean, model.running_var
        (tensor([3.]), tensor([7.]))

    References:
        Chan, Golub, LeVeque, "Algorithms for computing the sample variance", 1983 (pooling of parts).
    """
    who = "reestimate_bn"
    layers = batchnorm_layers(check_model(who, model))
    if not layers:
        return
    saved = {name: {key: value.clone() for key, value in layer.named_buffers()} for name, layer in layers.items()}
    pooled = {name: Pooled() for name in layers}
    handles = [layer.register_forward_pre_hook(_watch(pooled[name])) for name, layer in layers.items()]
    device = next(iter(layers.values())).running_mean.device  # type: ignore[union-attr]
    try:
        with torch.no_grad(), random_state([data]), modes(model):
            model.eval()
            for layer in layers.values():
                layer.train()
            batches = 0
            for inputs in _data.unlabelled(who, data):
                _data.call(model, _data.to_device(inputs, device))
                batches += 1
            results = {name: found.result(who, name) for name, found in pooled.items()}
        _write(layers, results, batches)
    except BaseException:
        for name, layer in layers.items():
            for key, value in layer.named_buffers():
                value.copy_(saved[name][key])
        raise
    finally:
        for handle in handles:
            handle.remove()


def _write(
    layers: dict[str, _BatchNorm], results: dict[str, tuple[torch.Tensor, torch.Tensor] | None], batches: int
) -> None:
    with torch.no_grad():
        for name, layer in layers.items():
            assert layer.running_mean is not None
            assert layer.running_var is not None
            result = results[name]
            if result is None:  # the layer was not run: its statistics stay
                continue
            layer.running_mean.copy_(result[0])
            layer.running_var.copy_(result[1])
            if layer.num_batches_tracked is not None:
                layer.num_batches_tracked.fill_(batches)


class Pooled:
    """Count, mean and sum of squared deviations of one layer's inputs, per channel, pooled over batches."""

    def __init__(self) -> None:
        self.count = 0
        self.mean: torch.Tensor | None = None
        self.squares: torch.Tensor | None = None

    def add(self, inputs: torch.Tensor) -> None:
        values = inputs.detach().to(torch.float64)  # [samples, channels, ...]
        channels, rest = values.shape[1], [dim for dim in range(values.dim()) if dim != 1]
        count = values.numel() // channels if channels else 0
        if not count:
            return
        mean = values.mean(rest)
        squares = (values - mean.view(1, channels, *[1] * (values.dim() - 2))).square_().sum(rest)
        if self.mean is None or self.squares is None:
            self.count, self.mean, self.squares = count, mean, squares
            return
        total = self.count + count
        delta = mean - self.mean
        self.squares = self.squares + squares + delta.square() * (self.count * count / total)
        self.mean = self.mean + delta * (count / total)
        self.count = total

    def population(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and biased variance, as BatchNorm normalises with."""
        assert self.mean is not None
        assert self.squares is not None
        return self.mean, self.squares / self.count

    def result(self, who: str, name: str) -> tuple[torch.Tensor, torch.Tensor] | None:
        if self.mean is None or self.squares is None:
            return None
        if self.count < 2:
            raise ValueError(f"{who}: layer {name!r} saw one value per channel; give at least two samples")
        return self.mean, self.squares / (self.count - 1)


def _watch(pooled: Pooled) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    def hook(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        pooled.add(inputs[0])

    return hook
