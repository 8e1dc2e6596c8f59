"""Plain feed-forward models, all members at once as batched matrix products. Knows no ensemble, only stacked weights.

For small models the loop over members spends its time between operations, and vmap more so; a `baddbmm` per layer
spends it in one. Only models that are a Sequential of the layers below qualify: their meaning is known in full.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

Value = Callable[[str], torch.Tensor]  # name of a parameter or buffer -> its stack, [m, ...]
Layer = Callable[[torch.Tensor, Value], torch.Tensor]  # [m, n, features] -> [m, n, features]

_ELEMENTWISE = (nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Mish, nn.Tanh, nn.Sigmoid, nn.Softplus, nn.Hardtanh)
_IN_CACHE = 262_144  # activations of all members up to which a CPU's cache holds them; beyond, the loop is as fast
_NOTHING = (nn.Identity, nn.Dropout)  # in eval mode


class Program:
    """The layers of a qualifying model, to run on [m, n, features]."""

    def __init__(self, flattens: bool, layers: list[Layer], width: int) -> None:
        self.flattens, self.layers, self.width = flattens, layers, width

    def takes(self, x: torch.Tensor, m: int) -> bool:
        """Whether the layers mean what they assume for this input, and are faster than the loop."""
        fits = x.is_floating_point() and (x.ndim >= 2 if self.flattens else x.ndim == 2)
        return fits and (x.device.type != "cpu" or m * len(x) * self.width <= _IN_CACHE)

    def __call__(self, x: torch.Tensor, m: int, value: Value) -> torch.Tensor:
        """Run m members on one batch [n, ...]; returns [m, n, features]."""
        h = x.flatten(1).expand(m, -1, -1)
        for layer in self.layers:
            h = layer(h, value)
        return h


def program_of(model: nn.Module) -> Program | None:
    """Return the program of `model`, or None if it is not a plain Sequential that begins with a Linear layer."""
    leaves = _leaves("", model)
    if leaves is None:
        return None
    flattens = False
    layers: list[Layer] = []
    width = 0
    for name, module in leaves:
        kind = type(module)
        if isinstance(module, nn.Flatten) and not layers and module.start_dim == 1 and module.end_dim == -1:
            flattens = True
        elif isinstance(module, nn.Linear) and kind is nn.Linear:
            layers.append(_linear(name, module.bias is not None))
            width = max(width, module.out_features)
        elif kind in _NOTHING:
            continue
        elif not layers:  # what an in-place or normalising layer does to the input itself is left to the loop
            return None
        elif isinstance(module, nn.BatchNorm1d) and kind is nn.BatchNorm1d and module.running_mean is not None:
            layers.append(_batch_norm(name, module))
        elif isinstance(module, nn.LayerNorm) and kind is nn.LayerNorm and len(module.normalized_shape) == 1:
            layers.append(_layer_norm(name, module))
        elif kind in _ELEMENTWISE:
            layers.append(_elementwise(module))
        else:
            return None
    return Program(flattens, layers, width) if layers else None


def _leaves(prefix: str, module: nn.Module) -> list[tuple[str, nn.Module]] | None:
    """Return the layers of nested Sequentials in order; None if a hook may change what a module does."""
    if module._forward_hooks or module._forward_pre_hooks:
        return None
    if type(module) is not nn.Sequential:
        return [(prefix, module)]
    found = []
    for name, child in module.named_children():
        inner = _leaves(f"{prefix}.{name}" if prefix else name, child)
        if inner is None:
            return None
        found += inner
    return found if len(list(module.named_children())) == len(module) else None


def _name(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def _linear(prefix: str, has_bias: bool) -> Layer:
    weight, bias = _name(prefix, "weight"), _name(prefix, "bias")

    def layer(h: torch.Tensor, value: Value) -> torch.Tensor:
        w = value(weight).transpose(1, 2)
        return torch.baddbmm(value(bias)[:, None], h, w) if has_bias else torch.bmm(h, w)

    return layer


def _batch_norm(prefix: str, module: nn.BatchNorm1d) -> Layer:
    names = {name: _name(prefix, name) for name in ("running_mean", "running_var", "weight", "bias")}
    affine, eps = module.affine, module.eps

    def layer(h: torch.Tensor, value: Value) -> torch.Tensor:
        scale = (value(names["running_var"]) + eps).rsqrt()
        if affine:
            scale = scale * value(names["weight"])
        shift = -value(names["running_mean"]) * scale
        if affine:
            shift = shift + value(names["bias"])
        return torch.addcmul(shift[:, None], h, scale[:, None])

    return layer


def _layer_norm(prefix: str, module: nn.LayerNorm) -> Layer:
    shape, eps = module.normalized_shape, module.eps
    weight = None if module.weight is None else _name(prefix, "weight")
    bias = None if module.bias is None else _name(prefix, "bias")

    def layer(h: torch.Tensor, value: Value) -> torch.Tensor:
        h = nn.functional.layer_norm(h, shape, eps=eps)
        if weight is not None:
            h = h * value(weight)[:, None]
        return h if bias is None else h + value(bias)[:, None]

    return layer


def _elementwise(module: nn.Module) -> Layer:
    def layer(h: torch.Tensor, value: Value) -> torch.Tensor:
        result: torch.Tensor = module(h)
        return result

    return layer
