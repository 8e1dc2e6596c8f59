"""Planes that models span: through three of them, along a trajectory (PCA); projection into a plane."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import _check
from ._weights import direction_dtype, flat, gram, length, parameters, pick, state_of
from .directions import Directions
from .trajectory import Trajectory

_ENTRIES = 1 << 16  # entries of a parameter that PCA holds for all points at a time


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
    a, b, c = (flat(s, states[0][0].device) for s in states)
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
    parts = torch.split(vector, [p.numel() for p in params])
    return [part.reshape(p.shape).to(direction_dtype(p)) for part, p in zip(parts, params, strict=True)]


def between(model_a: Any, model_b: Any) -> Directions:
    r"""The direction from one model to another: :math:`d = b - a` with `origin` a.

    For the line between the two, `Evaluator.line((a, b))` meets both ends to the bit and moves BatchNorm's
    statistics too; this direction is for planes and projections.

    Args:
        model_a: The origin; a module (its parameters name what counts).
        model_b: Module or state_dict at coordinate 1.

    Returns:
        One direction.

    Raises:
        ValueError: The models are equal, or not of one architecture.

    Example:
        >>> import torch, thalweg as tw
        >>> a, b = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
        >>> len(tw.landscape.between(a, b))
        1
    """
    who = "between"
    params = parameters(who, model_a)
    start, stop = (pick(who, params, state_of(who, m)) for m in (model_a, model_b))
    vector = tuple(
        (b.detach().to(a.device, torch.float64) - a.detach().double()).to(direction_dtype(a))
        for a, b in zip(start, stop, strict=True)
    )
    if not length(vector):
        raise ValueError(f"{who}: the two models have the same weights; choose another second model")
    return Directions(tuple(params), (vector,), {"kind": "between"}, tuple(t.clone() for t in start))


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
        >>> [round(length, 6) for length in tw.landscape.pca_directions(track).norms]
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
    gram = sum(part @ part.T for part, _ in _offsets(trajectory, center))  # [points, points], the points are few
    values, vectors = torch.linalg.eigh(gram)
    values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
    if not float(values[n - 1]) > 1e-14 * max(float(values[0]), 1e-300):
        raise ValueError(f"{who}: the points span fewer than {n} directions; record more of the training")
    units, origin = _components(trajectory, center, vectors[:, :n])
    extra = {
        "explained_variance": (values[:n] / values.sum()).tolist(),
        "random_walk_null": [6 / (math.pi * k) ** 2 for k in range(1, n + 1)],
        "points": len(trajectory),
    }
    return Directions(trajectory.names, units, {"kind": "pca", "center": center}, origin, extra)


def _offsets(trajectory: Trajectory, center: str) -> Iterator[tuple[Tensor, Tensor]]:
    """(points minus centre [points, entries], centre [entries]) in float64, some entries at a time to save memory."""
    for name in trajectory.names:
        flats = [point[name].reshape(-1) for point in trajectory.points]
        for begin in range(0, flats[0].numel(), _ENTRIES):
            part = torch.stack([f[begin : begin + _ENTRIES] for f in flats]).double()
            middle = part[-1].clone() if center == "last" else part.mean(0)
            yield part - middle, middle


def _components(
    trajectory: Trajectory, center: str, vectors: Tensor
) -> tuple[tuple[tuple[Tensor, ...], ...], tuple[Tensor, ...]]:
    """Unit directions from the eigenvectors [points, n] of the Gram matrix, and the centre."""
    shapes = list(trajectory.points[0].values())
    parts = [(vectors.T @ part, middle) for part, middle in _offsets(trajectory, center)]
    whole = torch.cat([part for part, _ in parts], dim=1)
    whole /= whole.norm(dim=1, keepdim=True)
    origin = torch.cat([middle for _, middle in parts])
    return tuple(tuple(_split(unit, shapes)) for unit in whole), tuple(_split(origin, shapes))


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

    Raises:
        ValueError: The directions are parallel, or shapes do not agree.
    """
    shapes = [o.shape for o in origin]
    for found in (*directions.shapes, *([t.shape for t in tensors] for tensors in states)):
        if found != shapes:
            raise ValueError("project: weights, origin and directions must have the same shapes; is it another model?")
    basis = directions.vectors
    start = [o.detach().to(d.device, torch.float64) for o, d in zip(origin, basis[0], strict=True)]
    products = gram(basis, basis)
    lengths = products.diagonal().sqrt()
    angles = products / (lengths[:, None] * lengths)
    if not bool((torch.linalg.eigvalsh(angles.nan_to_num())[:1] > 1e-12).all()):
        raise ValueError("project: a direction is zero or the directions are parallel; choose others")
    coordinates = torch.empty(len(states), len(basis), dtype=torch.float64)
    distances = torch.empty(len(states), dtype=torch.float64)
    for i, state in enumerate(states):
        offset = [s.detach().to(o.device, torch.float64) - o for s, o in zip(state, start, strict=True)]
        coordinates[i] = torch.linalg.solve(products, gram(basis, [offset])[:, 0])
        for c, vector in zip(coordinates[i].tolist(), basis, strict=True):
            offset = [o - c * d.double() for o, d in zip(offset, vector, strict=True)]
        distances[i] = length(offset)
    return coordinates, distances


def span(
    directions: Directions, trajectory: Trajectory, n: int = 41, margin: float = 0.15
) -> tuple[tuple[float, float, int], tuple[float, float, int]]:
    """Axes x and y for `Evaluator.grid` that hold the whole trajectory with room around it.

    Args:
        directions: Two directions with an `origin`, such as `pca_directions` gives.
        trajectory: The path to hold.
        n: Points of the longer axis; the shorter one gets a share that keeps cells about square, at least 5.
        margin: Room on each side, as a share of the path's extent.

    Returns:
        ((x0, x1, nx), (y0, y1, ny)).

    Raises:
        ValueError: The directions have no origin, or are not two.

    Example:
        >>> import torch, thalweg as tw
        >>> model = torch.nn.Linear(2, 1)
        >>> track = tw.landscape.Trajectory(model)
        >>> for step in range(4):
        ...     _ = torch.nn.init.normal_(model.weight)
        ...     track.record()
        >>> x, y = tw.landscape.span(tw.landscape.pca_directions(track), track, n=21)
        >>> max(x[2], y[2])
        21
    """
    if len(directions) != 2 or directions.origin is None:
        raise ValueError("span: expected two directions with an origin, such as pca_directions(trajectory) gives")
    n = _check.integer("span", "n", n, 5)
    margin = _check.real("span", "margin", margin, 0)
    states = [list(point.values()) for point in trajectory.points]
    coordinates, _ = project(directions, directions.origin, states)
    low, high = coordinates.min(0).values, coordinates.max(0).values
    longest = float((high - low).max()) or 1.0
    axes = []
    for a, b in zip(low.tolist(), high.tolist(), strict=True):
        pad = max(margin * (b - a), 0.1 * longest)  # a flat path still gets a plane
        axes.append((a - pad, b + pad))
    longest = max(b - a for a, b in axes)
    x, y = ((a, b, max(5, round(n * (b - a) / longest))) for a, b in axes)
    return x, y
