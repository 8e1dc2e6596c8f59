"""Landscapes: what holds for any model, direction and place."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from thalweg import _core
from thalweg import landscape as ls

FLOATS = st.floats(-(2.0**99), 2.0**99, width=32)
SHAPES = st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=3), min_size=1, max_size=4)


class Bag(nn.Module):
    """Parameters of any shapes."""

    def __init__(self, shapes: list[list[int]], seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.items = nn.ParameterList(torch.randn(shape, generator=generator) for shape in shapes)


@given(st.lists(st.tuples(FLOATS, FLOATS), min_size=1, max_size=40), st.floats(0, 1))
def test_lerp_meets_both_ends_and_stays_between(pairs: list[tuple[float, float]], t: float) -> None:
    a, b = (torch.tensor(column) for column in zip(*pairs, strict=True))
    out = torch.empty_like(a)
    line = _core.Perturbation([out], [a], [[b]])
    line.lerp(0.0, 1)
    assert torch.equal(out, a)
    line.lerp(1.0, 1)
    assert torch.equal(out, b)
    line.lerp(t, 1)
    slack = 4e-7 * torch.maximum(a.abs(), b.abs())
    assert bool((out >= torch.minimum(a, b) - slack).all())
    assert bool((out <= torch.maximum(a, b) + slack).all())


@given(SHAPES, st.integers(0, 2**63 - 1), st.sampled_from(["filter", "layer", "model"]))
@settings(deadline=None, max_examples=60)
def test_normalised_directions_have_the_norms_of_the_weights(shapes: list[list[int]], seed: int, norm: str) -> None:
    model = Bag(shapes, seed % 1000)
    directions = ls.random_directions(model, 2, norm=norm, seed=seed, ignore=None)
    total = sum(float(p.detach().double().square().sum()) for p in model.parameters()) ** 0.5
    np.testing.assert_allclose(directions.norms, total, rtol=1e-5)
    assert abs(directions.cosine) <= 1 + 1e-6
    if norm == "filter":
        for value, weight in zip(directions.vectors[0], model.parameters(), strict=True):
            rows = len(weight) if weight.dim() > 1 else 1
            np.testing.assert_allclose(
                value.reshape(rows, -1).norm(dim=1), weight.detach().reshape(rows, -1).norm(dim=1), rtol=1e-5
            )


@given(SHAPES, st.integers(0, 1000), st.lists(st.tuples(st.floats(-9, 9), st.floats(-9, 9)), min_size=1, max_size=4))
@settings(deadline=None, max_examples=60)
def test_projection_returns_what_was_planted(
    shapes: list[list[int]], seed: int, coordinates: list[tuple[float, float]]
) -> None:
    model = Bag([[3, 3], *shapes], seed).double()
    u, v = ls.random_directions(model, norm="none", seed=seed, ignore=None).vectors
    v = tuple(5 * b + a for a, b in zip(u, v, strict=True))
    names = [name for name, _ in model.named_parameters()]
    oblique = ls.from_tensors(model, dict(zip(names, u, strict=True)), dict(zip(names, v, strict=True)))
    origin = [p.detach() for p in model.parameters()]
    states = [[w + a * x + b * y for w, x, y in zip(origin, u, v, strict=True)] for a, b in coordinates]
    found, off = ls.project(oblique, origin, states)
    np.testing.assert_allclose(found, coordinates, atol=1e-7)
    assert float(off.max()) < 1e-7


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 100))
@settings(deadline=None, max_examples=25)
def test_a_grid_is_its_points_row_by_row(nx: int, ny: int, seed: int) -> None:
    torch.manual_seed(seed)
    model = nn.Linear(2, 3)
    ev = ls.Evaluator(model, "cross_entropy", (torch.randn(6, 2), torch.arange(6) % 3))
    directions = ls.random_directions(model, seed=seed, ignore=None)
    surface = ev.grid(directions, (-1, 0.5, nx), (-0.2, 2, ny))
    for j, b in enumerate(surface.y):
        row = ev.points(directions, [[a, b] for a in surface.x]).values["loss"]
        assert np.array_equal(surface.values["loss"][j], row)
