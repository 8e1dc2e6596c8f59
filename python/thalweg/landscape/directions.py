"""Directions in weight space: random with norms, PCA of a trajectory, between models, planes through models."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from .. import _check, _core
from .._preserve import unwrap
from ._weights import direction_dtype, flat, like, parameters, pick, state_of
from .trajectory import Trajectory

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
    """

    names: tuple[str, ...]
    vectors: tuple[tuple[Tensor, ...], ...]
    recipe: dict[str, Any]
    origin: tuple[Tensor, ...] | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        """Number of directions."""
        return len(self.vectors)

    @property
    def norms(self) -> list[float]:
        """Euclidean length of each direction over all parameters."""
        return [float(flat(vector).norm()) for vector in self.vectors]

    @property
    def cosine(self) -> float:
        """Cosine of the angle between the first two directions; NaN when there is one, or one of length 0."""
        if len(self.vectors) < 2:
            return math.nan
        a, b = flat(self.vectors[0]), flat(self.vectors[1])
        scale = float(a.norm() * b.norm())
        return float(a @ b) / scale if scale else math.nan

    def matching(self, who: str, params: Mapping[str, Tensor]) -> list[list[Tensor | None]]:
        """The directions as dense tensors laid out like `params`; None where a direction is zero."""
        if self.names != tuple(params):
            raise ValueError(
                f"{who}: the directions belong to parameters {', '.join(self.names[:3])}…, the model has "
                f"{', '.join(list(params)[:3])}…; make directions for this model"
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
        cosine = self.cosine
        return {**self.recipe, **self.extra, "norms": self.norms, "cosine": None if math.isnan(cosine) else cosine}


def random_directions(
    model: nn.Module,
    n: int = 2,
    norm: str = "filter",
    seed: int = 0,
    ignore: str | None = "bias_bn",
    orthogonalize: bool = False,
) -> Directions:
    r"""Gaussian directions, normalised filter by filter: :math:`d_{ij} \leftarrow d_{ij}\,\|w_{ij}\| / \|d_{ij}\|`.

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
    vectors: list[list[Tensor]] = []
    for index in range(n):
        vector = []
        for place, (name, param) in enumerate(params.items()):
            draw = torch.empty(param.shape, dtype=torch.float32)
            _core.fill_normal(draw, seed, (index << 32) | place, torch.get_num_threads())
            vector.append(torch.zeros_like(draw) if name in skip else draw)
        vectors.append(_normalised(vector, list(params.values()), norm))
    if orthogonalize:
        _orthogonalise(vectors)
    finished = tuple(
        tuple(v.to(direction_dtype(p)) for v, p in zip(vector, params.values(), strict=True)) for vector in vectors
    )
    recipe = {
        "kind": "random", "seed": seed, "norm": norm, "ignore": ignore, "orthogonalize": bool(orthogonalize)
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
    """Scale a drawn vector; float64 arithmetic, float64 result."""
    wide = [(d.double(), w.detach().double()) for d, w in zip(vector, weights, strict=True)]
    if norm == "none":
        return [d for d, _ in wide]
    if norm == "weight":
        return [d * w for d, w in wide]
    if norm == "model":
        length = math.sqrt(sum(float(d.square().sum()) for d, _ in wide))
        target = math.sqrt(sum(float(w.square().sum()) for _, w in wide))
        return [d * (target / (length + _TINY)) for d, _ in wide]
    out = []
    for d, w in wide:
        if not d.numel():
            out.append(d)
            continue
        rows = d.shape[0] if norm == "filter" and d.dim() > 1 else 1
        flat_d, flat_w = d.reshape(rows, -1), w.reshape(rows, -1)
        scale = flat_w.norm(dim=1) / (flat_d.norm(dim=1) + _TINY)
        out.append((flat_d * scale[:, None]).reshape(d.shape))
    return out


def _orthogonalise(vectors: list[list[Tensor]]) -> None:
    """Gram-Schmidt in place; lengths are kept."""
    for i, vector in enumerate(vectors):
        length = flat(vector).norm()
        for other in vectors[:i]:
            b = flat(other)
            share = float(flat(vector) @ b / (b @ b)) if float(b @ b) else 0.0
            vectors[i] = vector = [v - share * o for v, o in zip(vector, other, strict=True)]
        rest = float(flat(vector).norm())
        if rest > 0:
            vectors[i] = [v * (float(length) / rest) for v in vector]


def from_tensors(model: nn.Module, *vectors: Mapping[str, Tensor]) -> Directions:
    """Directions that the caller made: one mapping of parameter name to tensor per direction; missing names are 0.

    Raises:
        ValueError: A name or shape does not fit the model.

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
        full = {**{name: torch.zeros_like(p) for name, p in params.items()}, **vector}
        built.append(tuple(pick(who, params, full)))
    if not built:
        raise ValueError(f"{who}: expected at least one direction, got none")
    return Directions(tuple(params), tuple(built), {"kind": "tensors"})


def plane(model_a: Any, model_b: Any, model_c: Any) -> Directions:
    r"""The plane through three models, orthonormal: :math:`u = b - a`, v the part of c - a orthogonal to u.

    Args:
        model_a: The origin; a module (its parameters name what counts).
        model_b: Module or state_dict on the first axis.
        model_c: Module or state_dict off that axis.

    Returns:
        Two unit directions with `origin` = a; `extra["coordinates"]` has the three models' coordinates.

    Raises:
        ValueError: The models lie on one line, or are not of one architecture.

    Example:
        >>> import torch, thalweg as tw
        >>> a, b, c = (torch.nn.Linear(2, 1) for _ in range(3))
        >>> tw.landscape.plane(a, b, c).extra["coordinates"][0]
        [0.0, 0.0]

    References:
        Garipov et al.: Loss surfaces, mode connectivity, arXiv 1802.10026, appendix A.1.
    """
    who = "plane"
    params = parameters(who, model_a)
    states = [pick(who, params, state_of(who, m)) for m in (model_a, model_b, model_c)]
    a, b, c = (flat(s) for s in states)
    u, w = b - a, c - a
    along = float(w @ u / (u @ u)) if float(u @ u) else math.nan
    v = w - along * u
    if not float(u.norm()) or float(v.norm()) <= 1e-12 * float(w.norm()):
        raise ValueError(f"{who}: the three models lie on one line; choose another third model or use a line")
    unit_u, unit_v = u / u.norm(), v / v.norm()
    coordinates = [[0.0, 0.0], [float(u.norm()), 0.0], [float(w @ unit_u), float(v.norm())]]
    vectors = tuple(tuple(_split(unit, list(params.values()))) for unit in (unit_u, unit_v))
    origin = tuple(t.clone() for t in states[0])
    return Directions(tuple(params), vectors, {"kind": "plane"}, origin, {"coordinates": coordinates})


def _split(vector: Tensor, params: Sequence[Tensor]) -> list[Tensor]:
    parts = vector.split([p.numel() for p in params])
    return [part.reshape(p.shape).to(direction_dtype(p)) for part, p in zip(parts, params, strict=True)]


def pca_directions(trajectory: Trajectory, n: int = 2, center: str = "last") -> Directions:
    r"""Principal directions of a trajectory, unit length, with the share of the variance that each explains.

    Args:
        trajectory: At least n + 1 recorded points.
        n: Number of directions.
        center: Point that stands at the origin: "last" (as the paper has it) or "mean".

    Returns:
        Directions with `origin` at the centre; `extra` has `explained_variance` and `random_walk_null`, the shares
        6/(π²k²) that a mere random walk in many dimensions would show.

    Raises:
        ValueError: Too few points, or the points do not move.

    Example:
        >>> import torch, thalweg as tw
        >>> model = torch.nn.Linear(2, 1)
        >>> track = tw.landscape.Trajectory(model)
        >>> for step in range(5):
        ...     _ = torch.nn.init.normal_(model.weight)
        ...     track.record()
        >>> tw.landscape.pca_directions(track).norms
        [1.0, 1.0]

    References:
        Li et al., arXiv 1712.09913, section 7.2. Antognini, Sohl-Dickstein: PCA of high dimensional random walks,
        arXiv 1806.08805.
    """
    who = "pca_directions"
    _check.instance(who, "trajectory", trajectory, Trajectory, "a Trajectory")
    n = _check.integer(who, "n", n, 1)
    _check.choice(who, "center", center, ("last", "mean"))
    if len(trajectory) < n + 1:
        raise ValueError(f"{who}: {n} directions need at least {n + 1} recorded points, got {len(trajectory)}")
    points = torch.stack([flat(list(p.values())) for p in trajectory.points])
    origin = points[-1] if center == "last" else points.mean(0)
    offsets = points - origin
    gram = offsets @ offsets.T  # [points, points]: the parameters may be millions, the points are few
    values, vectors = torch.linalg.eigh(gram)
    values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
    if not float(values[n - 1]) > 1e-14 * max(float(values[0]), 1e-300):
        raise ValueError(f"{who}: the points span fewer than {n} directions; record more of the training")
    units = (vectors[:, :n].T @ offsets) / values[:n].sqrt()[:, None]
    units = units / units.norm(dim=1, keepdim=True)
    shapes = list(trajectory.points[0].values())
    extra = {
        "explained_variance": (values[:n] / values.sum()).tolist(),
        "random_walk_null": [6 / (math.pi * k) ** 2 for k in range(1, n + 1)],
        "points": len(trajectory),
    }
    built = tuple(tuple(_split(unit, shapes)) for unit in units)
    return Directions(trajectory.names, built, {"kind": "pca", "center": center}, tuple(_split(origin, shapes)), extra)


def project(
    directions: Directions, origin: Sequence[Tensor], states: Sequence[Sequence[Tensor]]
) -> tuple[Tensor, Tensor]:
    r"""Coordinates of weights in the plane, and their distance from it: solve :math:`(D^T D)\,c = D^T (w - w_0)`.

    Args:
        directions: Any directions, of any length and angle.
        origin: The weights at coordinate 0, one tensor per parameter.
        states: Weights to project.

    Returns:
        Coordinates [states, directions] and off-plane distances [states], float64.
    """
    basis = torch.stack([flat(vector) for vector in directions.vectors])
    offsets = torch.stack([flat(list(s)) for s in states]) - flat(list(origin))
    coordinates = torch.linalg.solve(basis @ basis.T, basis @ offsets.T).T
    return coordinates, (offsets - coordinates @ basis).norm(dim=1)
