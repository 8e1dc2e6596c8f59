"""Directions in weight space: what they are, random ones with norms, those of the caller."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from .. import _check, _core
from .._preserve import unwrap
from ._drawn import DrawnVector
from ._memory import memory_of
from ._norms import LI2018_NORMS, NORMS, drawn_vector
from ._weights import direction_dtype, dot, length, like, parameters, pick

STYLES = ("paper", "li2018")
_SHARE_OF_MEMORY = 16  # storage="auto" stores directions that take at most one part in so many


@dataclass(frozen=True)
class Directions:
    """One or more directions for the parameters of one model, and where they come from.

    Attributes:
        names: Parameter names, in the model's order.
        vectors: For each direction one tensor per parameter, shaped like it; those of procedural directions are made
            whenever they are asked for.
        recipe: How they were made, JSON-able.
        origin: Weights that stand at coordinate 0, or None for the evaluated model's own.
        extra: What was found out while making them, JSON-able, such as `explained_variance`.
    """

    names: tuple[str, ...]
    vectors: tuple[Sequence[Tensor], ...]
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
    def shapes(self) -> list[list[torch.Size]]:
        """The tensors' shapes, for each direction; makes none of them."""
        return [[part.shape for part in (v.parts if isinstance(v, DrawnVector) else v)] for v in self.vectors]

    @cached_property
    def norms(self) -> list[float]:
        """Euclidean length of each direction over all parameters."""
        return [length(vector) for vector in self.vectors]

    @cached_property
    def cosine(self) -> float:
        """Cosine of the angle between the first two directions; NaN when there is one, or one of length 0."""
        if len(self) < 2:
            return math.nan
        scale = self.norms[0] * self.norms[1]
        return dot(self.vectors[0], self.vectors[1]) / scale if scale else math.nan

    @property
    def storage(self) -> str:
        """Whether the tensors are kept ("dense") or made on demand ("procedural")."""
        return "procedural" if all(isinstance(v, DrawnVector) for v in self.vectors) else "dense"

    def matching(self, who: str, params: Mapping[str, Tensor]) -> list[list[Tensor | None]]:
        """The directions as dense tensors laid out like `params`; None where a direction is zero."""
        self._check_fit(who, params)
        return [
            [
                like(param, value) if bool((value != 0).any()) else None
                for param, value in zip(params.values(), vector, strict=True)
            ]
            for vector in self.vectors
        ]

    def terms(self, who: str, params: Mapping[str, Tensor]) -> list[list[Tensor | _core.Draw | None]]:
        """The same for the kernel that moves weights: recipes where the directions are procedural."""
        drawn = [vector for vector in self.vectors if isinstance(vector, DrawnVector)]
        if len(drawn) < len(self):
            return [[*row] for row in self.matching(who, params)]
        self._check_fit(who, params)
        return [[part.term(param) for part, param in zip(v.parts, params.values(), strict=True)] for v in drawn]

    def _check_fit(self, who: str, params: Mapping[str, Tensor]) -> None:
        if self.names != tuple(params):
            own, others = (", ".join(list(names)[:3]) + "…" * (len(names) > 3) for names in (self.names, params))
            raise ValueError(
                f"{who}: the directions belong to parameters {own}, the model has {others}; make directions for this "
                "model"
            )
        for shapes in self.shapes:
            for (name, param), shape in zip(params.items(), shapes, strict=True):
                if shape != param.shape:
                    raise ValueError(
                        f"{who}: direction for {name!r} must have shape {tuple(param.shape)}, got {tuple(shape)}"
                    )

    def describe(self) -> dict[str, Any]:
        """Recipe, lengths and angle, JSON-able."""
        cosine = None if math.isnan(self.cosine) else self.cosine
        return {**self.recipe, **self.extra, "norms": list(self.norms), "cosine": cosine}

    def write_li2018(self, path: str | os.PathLike[str]) -> Path:
        """Write an HDF5 file that Li et al.'s code reads (one or two directions), whole or not at all; needs h5py."""
        from ._hdf5 import write_directions  # uses this module

        return write_directions(path, self)


def random_directions(
    model: nn.Module,
    n: int = 2,
    norm: str = "filter",
    seed: int = 0,
    ignore: str | None = "bias_bn",
    orthogonalize: bool = False,
    include_frozen: bool = True,
    storage: str = "auto",
    style: str = "paper",
) -> Directions:
    r"""Gaussian directions, normalised filter by filter: :math:`d_{ij} \leftarrow d_{ij}\,\|w_{ij}\| / \|d_{ij}\|`.

    They are made where the model is, with the same bits on every device and in every storage. A procedural direction is
    not stored: the kernel that moves the weights draws it again, entry by entry, at every point. On one core with
    AVX2 that takes 7 ms per million entries and direction (14 ms where the weights lie channels last) against 0.1 ms for
    reading a stored one: the normal transform is the cost.

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
        storage: "dense" tensors; "procedural": nothing but one factor per filter, layer or model (norm "weight" takes
            the weights themselves, which must then stay as they are); "auto": dense while all directions together take
            at most 1/16 of the memory of the host or device where the model is, or cannot be procedural.
        style: "paper", or "li2018" as the authors' code has it: tensors with one dimension are ignored ("bias_bn") or,
            with None, move along their own weights; norms also "dfilter" and "dlayer" (length 1), and no "model".

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
    _check.choice(who, "style", style, STYLES)
    _check.choice(who, "norm", norm, NORMS if style == "paper" else LI2018_NORMS)
    if style == "li2018" and ignore == "bias_bn":
        skip = {name for name, param in params.items() if param.dim() <= 1}
    else:
        skip = _ignored(who, model, params, ignore)
    if not include_frozen:
        skip |= {name for name, param in params.items() if not param.requires_grad}
    if skip >= set(params):
        raise ValueError(f"{who}: every parameter is ignored, the directions would be zero; change `ignore`")
    drawn = [drawn_vector(params, seed, index, norm, skip, style) for index in range(n)]
    if _storage(who, storage, params, n, norm, orthogonalize) == "procedural":
        finished: tuple[Sequence[Tensor], ...] = tuple(drawn)
    elif orthogonalize:
        wide = [[part.make(torch.float64) for part in vector.parts] for vector in drawn]
        _orthogonalise(wide)
        finished = tuple(
            tuple(v.to(part.dtype) for v, part in zip(vector, recipe.parts, strict=True))
            for vector, recipe in zip(wide, drawn, strict=True)
        )
    else:
        finished = tuple(tuple(vector) for vector in drawn)
    recipe = {
        "kind": "random", "seed": seed, "norm": norm, "ignore": ignore, "orthogonalize": bool(orthogonalize),
        "include_frozen": bool(include_frozen), **({"style": style} if style != "paper" else {}),
    }  # fmt: skip
    return Directions(tuple(params), finished, recipe)


def _storage(who: str, storage: str, params: Mapping[str, Tensor], n: int, norm: str, orthogonalize: bool) -> str:
    """Where the directions will be: the rule of storage="auto"."""
    _check.choice(who, "storage", storage, ("auto", "dense", "procedural"))
    if storage == "procedural" and orthogonalize:
        raise ValueError(
            f"{who}: storage='procedural' cannot hold orthogonalised directions, which are sums of several draws; "
            "use storage='dense' or orthogonalize=False"
        )
    if storage != "auto":
        return storage
    size = n * sum(param.numel() * direction_dtype(param).itemsize for param in params.values())
    room = memory_of(next(iter(params.values())).device)
    stored = orthogonalize or norm == "weight" or room is None or size * _SHARE_OF_MEMORY <= room
    return "dense" if stored else "procedural"


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
