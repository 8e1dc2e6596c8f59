"""Linear layers and convolutions, whose outputs are linear in their weights.

With weights W = W_0 + Σ c_j D_j (biases and a BatchNorm folded in) the outputs for an input that no point
changes are W_0 x + Σ c_j (D_j x): the products are computed once. Knows no graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .operations import has_hooks
from .values import Each, Stacked, each_of, stack_of

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def is_affine(module: nn.Module | None) -> bool:
    """Tell whether the layer is one of torch's own, without hooks, parametrisations or other people's overrides."""
    plain = type(module) in LAYERS and not hasattr(module, "parametrizations")
    return plain and module is not None and not has_hooks(module)


@dataclass
class Affine:
    """One layer at weights that move.

    Attributes:
        module: Gives the arithmetic (stride, padding …), not the numbers.
        weights: [1 + directions] of W_0, D_1, …; None where a direction leaves the weight alone.
        biases: Likewise; empty for a layer without.
    """

    module: nn.Module
    weights: list[Tensor | None]
    biases: list[Tensor | None]

    def fold(self, norm: Any) -> None:
        """Take a frozen BatchNorm that follows into the numbers: y -> s y + t, float64, rounded once."""
        mean, var, weight, bias = (
            None if value is None else value.detach().double()
            for value in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
        )
        scale = (var + norm.eps).rsqrt()
        scale = scale if weight is None else scale * weight
        shift = (0 if bias is None else bias) - mean * scale
        dtype = self.weights[0].dtype  # type: ignore[union-attr]
        self.weights = [
            None if w is None else (w.double() * scale.reshape(-1, *[1] * (w.dim() - 1))).to(dtype)
            for w in self.weights
        ]
        biases = self.biases or [None] * len(self.weights)
        base = shift if biases[0] is None else biases[0].double() * scale + shift
        self.biases = [base.to(dtype)] + [None if b is None else (b.double() * scale).to(dtype) for b in biases[1:]]

    @property
    def is_convolution(self) -> bool:
        """Whether the first dimension after the samples is channels."""
        return not isinstance(self.module, nn.Linear)

    def apply(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The layer's own arithmetic with these numbers."""
        if self.is_convolution:
            out: Tensor = self.module._conv_forward(x, weight, bias)  # type: ignore[operator]
            return out
        return nn.functional.linear(x, weight, bias)

    def products(self, x: Tensor) -> Basis:
        """W_0 x, D_1 x, … for an input that is the same for all points; a direction that does nothing is left out."""
        kept, parts = [], []
        for place, weight in enumerate(self.weights):
            bias = self.biases[place] if self.biases else None
            if weight is None and bias is None:
                continue
            weight = torch.zeros_like(self.weights[0]) if weight is None else weight  # type: ignore[arg-type]
            kept.append(place)
            parts.append(
                channels_last(self.apply(x, weight, bias)) if self.is_convolution else self.apply(x, weight, bias)
            )
        return Basis(torch.stack([part.reshape(-1) for part in parts]), parts[0].shape, kept, self.is_convolution)

    def at_points(self, x: Stacked | Each, weights: Tensor, biases: Tensor | None) -> Stacked | Each:
        """Outputs for inputs and weights [points, ...] that both depend on the point."""
        if self.is_convolution:
            places = zip(each_of(x), weights, biases if biases is not None else [None] * len(weights), strict=True)
            return [self.apply(part, weight, bias) for part, weight, bias in places]
        inputs = stack_of(x)
        flat = inputs.reshape(len(inputs), -1, inputs.shape[-1])
        turned = weights.transpose(1, 2)
        out = torch.bmm(flat, turned) if biases is None else torch.baddbmm(biases[:, None], flat, turned)
        return Stacked(out.reshape(*inputs.shape[:-1], out.shape[-1]))


@dataclass
class Basis:
    """What a layer makes of one batch for each of its weights' terms.

    Attributes:
        terms: [terms, entries] in the order of memory.
        shape: Of an output: channels last for convolutions.
        kept: The coefficient of each term; 0 is the constant 1.
        convolution: Whether the channels go back to the second place.
    """

    terms: Tensor
    shape: torch.Size
    kept: Sequence[int]
    convolution: bool

    def at(self, coefficients: Tensor) -> Stacked:
        """The outputs at points with these coefficients [points, 1 + directions]."""
        out = (coefficients[:, list(self.kept)] @ self.terms).view(len(coefficients), *self.shape)
        return Stacked(out.movedim(-1, 2) if self.convolution else out)


def channels_last(value: Tensor) -> Tensor:
    """[samples, channels, ...] -> [samples, ..., channels], contiguous."""
    return value.movedim(1, -1).contiguous()


def as_flat(weight: Tensor) -> tuple[Tensor, Any]:
    """The entries of a weight in the order in which kernels want them, and how to view them as weights [points, ...]."""
    if weight.dim() == 4:  # a convolution in two dimensions, channels last
        out, inner, high, wide = weight.shape
        return weight.permute(0, 2, 3, 1).reshape(-1), lambda flat: flat.view(-1, out, high, wide, inner).permute(
            0, 1, 4, 2, 3
        )
    shape = weight.shape
    return weight.reshape(-1), lambda flat: flat.view(-1, *shape)
