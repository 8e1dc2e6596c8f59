"""Convolutions of 3 x 3 with a quarter of the multiplications: filters are transformed once, with their directions.

The transform of a filter is linear, so the terms W_0, D_1, … of a layer are transformed and a point's transformed filter
is their combination. Knows layers, no graph.

References: Lavin, Gray: Fast algorithms for convolutional neural networks, arXiv 1509.09308, section 4.2.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ... import _core
from .affine import Affine

_CHANNELS = 8  # kWinogradChannels of winograd.hpp
# G of F(4 x 4, 3 x 3): six evaluations of a filter's column.
_G = torch.tensor(
    [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]], dtype=torch.float64
) / 24  # fmt: skip


def suits(layer: Affine) -> bool:
    """Tell whether the core's kernel can be this layer: 3 x 3, stride 1, one zero around, float32 on the CPU."""
    module, weight = layer.module, layer.weights[0]
    if type(module) is not nn.Conv2d or weight is None or weight.dtype != torch.float32:
        return False
    plain = module.groups == 1 and module.padding_mode == "zeros" and module.padding in ((1, 1), "same")
    threes = (module.kernel_size, module.stride, module.dilation) == ((3, 3), (1, 1), (1, 1))
    whole = module.in_channels % _CHANNELS == 0 and module.out_channels % _CHANNELS == 0
    return plain and threes and whole and weight.device.type == "cpu" and _core.tensor_view(weight)[3] < 0


def as_flat(weight: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Transformed filters [36 * inputs * outputs], float64 rounded once, and how to view them at points."""
    outputs, inputs = weight.shape[:2]
    places = torch.einsum("ak,bl,oikl->abio", _G, _G, weight.double())
    return places.reshape(-1).to(weight.dtype), lambda flat: flat.view(-1, 36, inputs, outputs)


def convolved(x: Tensor, weight: Tensor, bias: Tensor | None, added: Tensor | None, relu: bool) -> Tensor:
    """X * weight + bias + added, and max(·, 0) of it; weight [36, inputs, outputs] is transformed."""
    x = x.contiguous(memory_format=torch.channels_last)
    shape = (len(x), weight.shape[2], *x.shape[2:])
    out = torch.empty(shape, memory_format=torch.channels_last)
    if added is not None:
        added = added.contiguous(memory_format=torch.channels_last)
    _core.convolve_3x3(x, weight, bias, added, out, relu, torch.get_num_threads())
    return out
