"""Directions in weight space: what they are, random ones with norms, those of the caller."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from .. import _check, _core
from .._preserve import unwrap
from ._weights import direction_dtype, dot, length, lengths, like, parameters, pick

NORMS = ("filter", "layer", "model", "weight", "none")
_TINY = 1e-10  # Li et al.'s guard: a direction of zero length stays zero


@dataclass(frozen=True)
class Directions:
    """One or more directions for the parameters of one model, and where they come from.

    Attributes:
        names: Parameter names, in the model's order.
        vectors: For each direction one tensor per parameter, shaped like it.
        recipe: How they were made, JSON-able.
        origin: Weights that stand at coordinate 0, or None for the evaluated model's own.
        extra: What was found out while making them, JSON-able, such as `explained_variance`.
    """

    names: tuple[str, ...]
    vectors: tuple[tuple[Tensor, ...], ...]
    recipe: dict[str, Any]
    origin: tuple[Tensor, ...] | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        """Number of directions."""
        return len(self.vectors)

    def __getitem__(self, chosen: slice) -> Directions:
        """Some of the directions: `directions[:1]`."""
        return replace(self, vectors=self.vectors[chosen])

    @property
    def norms(self) -> list[float]:
        """Euclidean length of each direction over all parameters."""
        return [length(vector) for vector in self.vectors]

    @property
    def cosine(self) -> float:
        """Cosine of the angle between the first two directions; NaN when there is one, or one of length 0."""
        return _cosine(self.vectors, self.norms)

    def matching(self, who: str, params: Mapping[str, Tensor]) -> list[list[Tensor | None]]:
        """The directions as dense tensors laid out like `params`; None where a direction is zero."""
        if self.names != tuple(params):
            own, others = (", ".join(list(names)[:3]) + "…" * (len(names) > 3) for names in (self.names, params))
            raise ValueError(
                f"{who}: the directions belong to parameters {own}, the model has {others}; make directions for this "
                "model"
            )
        out: list[list[Tensor | None]] = []
        for vector in self.vectors:
            row: list[Tensor | None] = []
            for (name, param), value in zip(params.items(), vector, strict=True):
                if value.shape != param.shape:
                    raise ValueError(
                        f"{who}: direction for {name!r} must have shape {tuple(param.shape)}, got {tuple(value.shape)}"
                    )
                row.append(like(param, value) if bool((value != 0).any()) else None)
            out.append(row)
        return out

    def describe(self) -> dict[str, Any]:
        """Recipe, lengths and angle, JSON-able."""
        norms = self.norms
        cosine = _cosine(self.vectors, norms)
        return {**self.recipe, **self.extra, "norms": norms, "cosine": None if math.isnan(cosine) else cosine}


def _cosine(vectors: Sequence[Sequence[Tensor]], norms: Sequence[float]) -> float:
    if len(vectors) < 2:
        return math.nan
    scale = norms[0] * norms[1]
    return dot(vectors[0], vectors[1]) / scale if scale else math.nan


def random_directions(
    model: nn.Module,
    n: int = 2,
    norm: str = "filter",
    seed: int = 0,
    ignore: str | None = "bias_bn",
    orthogonalize: bool = False,
    include_frozen: bool = True,
) -> Directions:
    r"""Gaussian directions, normalised filter by filter: :math:`d_{ij} \leftarrow d_{ij}\,\|w_{ij}\| / \|d_{ij}\|`.

    They are made where the model is, with the same bits on every device.

    Args:
        model: The model whose parameters give shapes and norms.
        n: Number of directions.
        norm: "filter": each slice along the first dimension gets the norm of the same slice of the weights (a
            convolution's output channel, a linear layer's output neuron; tensors with one dimension are one slice);
            "layer": each tensor; "model": all tensors together; "weight": entries are multiplied by the weights;
            "none": as drawn.
        seed: Key of the counter-based generator; direction i, tensor j and entry k have their own draw.
        ignore: "bias_bn" sets biases and normalisation layers to 0 as the paper's figures do; None keeps all; any
            other text is a regular expression of parameter names to set to 0.
        orthogonalize: Make each direction orthogonal to those before it, after normalisation; its length is kept.
        include_frozen: Whether parameters with `requires_grad=False` move.

    Returns:
        The directions; `cosine` tells the angle.

    Raises:
        TypeError, ValueError: An argument is not one of these.

    Example:
        >>> import torch, thalweg as tw
        >>> d = tw.landscape.random_directions(torch.nn.Linear(3, 2), seed=1)
        >>> len(d), float(d.vectors[0][1].abs().sum())
        (2, 0.0)

    References:
        Li, Xu, Taylor, Studer, Goldstein: Visualizing the loss landscape of neural nets, arXiv 1712.09913, section 4.
    """
    who = "random_directions"
    params = parameters(who, model)
    n = _check.integer(who, "n", n, 1)
    seed = _check.integer(who, "seed", seed, 0, 2**63 - 1)
    _check.choice(who, "norm", norm, NORMS)
    skip = _ignored(who, model, params, ignore)
    if not include_frozen:
        skip |= {name for name, param in params.items() if not param.requires_grad}
    if skip >= set(params):
        raise ValueError(f"{who}: every parameter is ignored, the directions would be zero; change `ignore`")
    vectors: list[list[Tensor]] = []
    for index in range(n):
        vector = []
        for place, (name, param) in enumerate(params.items()):
            draw = torch.empty(param.shape, dtype=torch.float32, device=param.device)
            _core.fill_normal(draw, seed, (index << 32) | place, torch.get_num_threads())
            vector.append(torch.zeros_like(draw) if name in skip else draw)
        vectors.append(_normalised(vector, list(params.values()), norm))
    if orthogonalize:
        _orthogonalise(vectors)
    finished = tuple(
        tuple(v.to(direction_dtype(p)) for v, p in zip(vector, params.values(), strict=True)) for vector in vectors
    )
    recipe = {
        "kind": "random", "seed": seed, "norm": norm, "ignore": ignore, "orthogonalize": bool(orthogonalize),
        "include_frozen": bool(include_frozen),
    }  # fmt: skip
    return Directions(tuple(params), finished, recipe)


def _ignored(who: str, model: nn.Module, params: Mapping[str, Tensor], ignore: str | None) -> set[str]:
    if ignore is None:
        return set()
    if ignore != "bias_bn":
        try:
            pattern = re.compile(ignore)
        except (re.error, TypeError) as error:
            raise ValueError(
                f"{who}: ignore must be 'bias_bn', None or a regular expression, got {ignore!r}: {error}"
            ) from None
        return {name for name in params if pattern.search(name)}
    norm_kinds = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
    norm_names = {
        f"{module_name}.{name}" if module_name else name
        for module_name, module in unwrap(model).named_modules()
        if isinstance(module, norm_kinds)
        for name, _ in module.named_parameters(recurse=False)
    }
    return {name for name in params if name in norm_names or name.rpartition(".")[2].startswith("bias")}


def _normalised(vector: list[Tensor], weights: list[Tensor], norm: str) -> list[Tensor]:
    """Scale a drawn vector; float64 arithmetic in one order whatever the number of threads, float64 result."""
    wide = [d.double() for d in vector]
    if norm == "none":
        return wide
    if norm == "weight":
        return [d * w.detach().double() for d, w in zip(wide, weights, strict=True)]
    if norm == "model":
        scale = length(weights) / (length(vector) + _TINY)
        return [d * scale for d in wide]
    out = []
    for d, w in zip(wide, weights, strict=True):
        if d.numel():
            rows = d.shape[0] if norm == "filter" and d.dim() > 1 else 1
            scales = lengths(w, rows) / (lengths(d, rows) + _TINY)
            d = (d.reshape(rows, -1) * scales[:, None]).reshape(d.shape)
        out.append(d)
    return out


def _orthogonalise(vectors: list[list[Tensor]]) -> None:
    """Gram-Schmidt in place; lengths are kept."""
    for i, vector in enumerate(vectors):
        target = length(vector)
        for other in vectors[:i]:
            square = dot(other, other)
            share = dot(vector, other) / square if square else 0.0
            vectors[i] = vector = [v - share * o for v, o in zip(vector, other, strict=True)]
        rest = length(vector)
        if rest > 0:
            vectors[i] = [v * (target / rest) for v in vector]


def from_tensors(model: nn.Module, *vectors: Mapping[str, Tensor]) -> Directions:
    """Directions that the caller made: one mapping of parameter name to tensor per direction; missing names are 0.

    Args:
        model: The model whose parameters are meant.
        vectors: One mapping per direction, tensors shaped like the parameters.

    Raises:
        ValueError: A name or shape does not fit the model, or a value is not finite.

    Example:
        >>> import torch, thalweg as tw
        >>> model = torch.nn.Linear(2, 1)
        >>> tw.landscape.from_tensors(model, {"bias": torch.ones(1)}).norms
        [1.0]
    """
    who = "from_tensors"
    params = parameters(who, model)
    built = []
    for vector in vectors:
        unknown = set(vector) - set(params)
        if unknown:
            raise ValueError(f"{who}: the model has no parameter called {', '.join(sorted(unknown))}")
        full = {**{name: torch.zeros_like(p, requires_grad=False) for name, p in params.items()}, **vector}
        tensors = tuple(value.detach() for value in pick(who, params, full))
        for name, value in zip(params, tensors, strict=True):
            if value.is_complex() or not bool(torch.isfinite(value).all()):
                raise ValueError(f"{who}: direction for {name!r} must be real and finite, got NaN, infinity or complex")
        built.append(tensors)
    if not built:
        raise ValueError(f"{who}: expected at least one direction, got none")
    return Directions(tuple(params), tuple(built), {"kind": "tensors"})
