"""Directions, trajectories, projection, planes: answers that are known without the code."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from thalweg import landscape as ls


def net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3))
    nn.init.normal_(model[1].bias)  # zero weights would have directions of length zero
    return model


def flat(tensors: object) -> np.ndarray:
    return np.concatenate([t.detach().double().numpy().ravel() for t in tensors])  # type: ignore[attr-defined]


def test_filter_norm_gives_every_slice_the_norm_of_the_weights(rng: np.random.Generator) -> None:
    model = net(int(rng.integers(100)))
    with torch.no_grad():
        model[0].weight[1] = 0.0
    for vector in ls.random_directions(model, 2, seed=int(rng.integers(1000)), ignore=None).vectors:
        for direction, weight in zip(vector, model.parameters(), strict=True):
            rows = len(weight) if weight.dim() > 1 else 1
            np.testing.assert_allclose(
                direction.reshape(rows, -1).norm(dim=1),
                weight.detach().reshape(rows, -1).norm(dim=1),
                rtol=1e-5,
                atol=1e-9,
            )
        assert not vector[0][1].any()
        assert np.isfinite(flat(vector)).all()


@pytest.mark.parametrize("norm", ["layer", "model", "weight", "none"])
def test_other_norms(norm: str) -> None:
    model = net()
    vector = ls.random_directions(model, 1, norm=norm, ignore=None).vectors[0]
    weights = list(model.parameters())
    if norm == "layer":
        np.testing.assert_allclose(
            [float(v.norm()) for v in vector], [float(w.detach().norm()) for w in weights], rtol=1e-5
        )
    elif norm == "model":
        np.testing.assert_allclose(np.linalg.norm(flat(vector)), np.linalg.norm(flat(weights)), rtol=1e-5)
    elif norm == "weight":
        drawn = ls.random_directions(model, 1, norm="none", ignore=None).vectors[0]
        np.testing.assert_allclose(flat(vector), flat(drawn) * flat(weights), rtol=1e-5)
    else:
        assert abs(flat(vector).std() - 1) < 0.15


def test_bias_and_batchnorm_are_ignored_by_default_and_by_name() -> None:
    model = net()
    directions = ls.random_directions(model)
    zero = [n for n, v in zip(directions.names, directions.vectors[0], strict=True) if not v.any()]
    assert zero == ["0.bias", "1.weight", "1.bias", "3.bias"]
    named = ls.random_directions(model, ignore=r"^3\.")
    assert [n for n, v in zip(named.names, named.vectors[0], strict=True) if not v.any()] == ["3.weight", "3.bias"]


def test_draws_depend_on_seed_direction_and_tensor_alone() -> None:
    model = net()
    a, b = ls.random_directions(model, 2, seed=7), ls.random_directions(model, 3, seed=7)
    assert all(torch.equal(x, y) for x, y in zip(a.vectors[1], b.vectors[1], strict=True))
    assert not torch.equal(a.vectors[0][0], a.vectors[1][0])
    assert not torch.equal(a.vectors[0][0], ls.random_directions(model, 1, seed=8).vectors[0][0])
    assert abs(a.cosine) < 0.35


def test_orthogonalize_makes_a_right_angle_and_keeps_lengths() -> None:
    model = net()
    plain, right = ls.random_directions(model, 3), ls.random_directions(model, 3, orthogonalize=True)
    gram = np.array([[flat(u) @ flat(v) for u in right.vectors] for v in right.vectors])
    assert np.abs(gram - np.diag(np.diag(gram))).max() < 1e-5
    np.testing.assert_allclose(right.norms, plain.norms, rtol=1e-5)


def planted(model: nn.Module, coordinates: np.ndarray, basis: list[list[torch.Tensor]]) -> ls.Trajectory:
    track = ls.Trajectory(model)
    start = [p.detach().clone() for p in model.parameters()]
    for a, b in coordinates:
        with torch.no_grad():
            for p, w, u, v in zip(model.parameters(), start, *basis, strict=True):
                p.copy_(w + float(a) * u + float(b) * v)
        track.record(place=(a, b))
    with torch.no_grad():
        for p, w in zip(model.parameters(), start, strict=True):
            p.copy_(w)
    return track


def test_projection_solves_for_oblique_directions_of_any_length(rng: np.random.Generator) -> None:
    model = net().double()
    u = [torch.from_numpy(rng.normal(size=p.shape)) * 30 for p in model.parameters()]
    v = [0.8 * x + 0.1 * torch.from_numpy(rng.normal(size=x.shape)) for x in u]
    coordinates = rng.uniform(-2, 2, (9, 2))
    track = planted(model, coordinates, [u, v])
    names = [n for n, _ in model.named_parameters()]
    directions = ls.from_tensors(model, dict(zip(names, u, strict=True)), dict(zip(names, v, strict=True)))
    got, off = ls.project(directions, list(model.parameters()), [list(p.values()) for p in track.points])
    np.testing.assert_allclose(got, coordinates, rtol=1e-8, atol=1e-8)
    assert float(off.max()) < 1e-6


def test_pca_finds_a_planted_plane_and_centres_at_the_last_point(rng: np.random.Generator) -> None:
    model = net().double()
    basis = [[torch.from_numpy(rng.normal(size=p.shape)) for p in model.parameters()] for _ in range(2)]
    track = planted(model, rng.normal(size=(12, 2)) * [3, 1], basis)
    directions = ls.pca_directions(track)
    assert sum(directions.extra["explained_variance"]) == pytest.approx(1, abs=1e-12)
    coordinates, off = ls.project(directions, directions.origin, [list(p.values()) for p in track.points])
    np.testing.assert_allclose(coordinates[-1], 0, atol=1e-9)
    assert float(off.max()) < 1e-7
    assert directions.cosine == pytest.approx(0, abs=1e-9)
    (x0, x1, nx), (y0, y1, ny) = ls.span(directions, track, n=20)
    assert x0 < float(coordinates[:, 0].min()) < float(coordinates[:, 0].max()) < x1
    assert y0 < float(coordinates[:, 1].min()) < float(coordinates[:, 1].max()) < y1
    assert max(nx, ny) == 20


def test_pca_of_a_random_walk_explains_six_over_pi_squared() -> None:
    """Antognini & Sohl-Dickstein: 61 % and 15 % without any structure; many dimensions, many steps."""
    model = nn.Linear(2000, 10, bias=False)
    track = ls.Trajectory(model)
    generator = torch.Generator().manual_seed(0)
    for _ in range(100):
        with torch.no_grad():
            model.weight += torch.randn(model.weight.shape, generator=generator)
        track.record()
    extra = ls.pca_directions(track, center="mean").extra
    np.testing.assert_allclose(extra["explained_variance"], extra["random_walk_null"], rtol=0.08)


def test_plane_has_the_three_models_at_their_coordinates() -> None:
    models = [net(seed).double() for seed in range(3)]
    directions = ls.plane(*models)
    states = [list(m.parameters()) for m in models]
    coordinates, off = ls.project(directions, states[0], states)
    np.testing.assert_allclose(coordinates, directions.extra["coordinates"], atol=1e-9)
    assert float(off.max()) < 1e-7
    np.testing.assert_allclose(directions.norms, 1, rtol=1e-12)
    with pytest.raises(ValueError, match="on one line"):
        ls.plane(models[0], models[1], models[1])


def test_barrier_of_two_wells() -> None:
    """L(w) = (w² - 1)²: the barrier between -1 and 1 is 1 at w = 0; no barrier within a well."""
    model = nn.Linear(1, 1, bias=False)
    ev = ls.Evaluator(model, lambda m, batch: ((m.weight**2 - 1) ** 2).sum(), (torch.ones(1, 1), torch.ones(1, 1)))
    wells = [{"weight": torch.tensor([[w]])} for w in (-1.0, 1.0, 0.9)]
    found = ls.barriers(wells, ev, n=5)
    assert found.heights[0, 1] == pytest.approx(1.0, abs=1e-6)
    assert np.array_equal(found.heights, found.heights.T)
    assert found.heights[1, 2] < 1e-3
    assert found.curves[0, 1, 2] == pytest.approx(1.0)


def test_sharpness_of_a_quadratic() -> None:
    """L = |w|² / 2 around w: (L(w+ρd) + L(w-ρd))/2 - L(w) = ρ² |d|² / 2 with |d| = |w| filter by filter."""
    model = nn.Linear(6, 4, bias=False)
    ev = ls.Evaluator(model, lambda m, batch: (m.weight.double() ** 2).sum() / 2, (torch.ones(1, 6), torch.ones(1, 4)))
    found = ls.sharpness(ev, rho=0.3, n=5)
    np.testing.assert_allclose(found.rises, 0.3**2 * float((model.weight.detach() ** 2).sum()) / 2, rtol=1e-5)
    assert found.standard_error < 1e-5


def test_barrier_of_accuracy_is_its_fall() -> None:
    class Share(nn.Module):
        """Scores that are right for a share 1 - w² of the samples."""

        def __init__(self, w: float) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.tensor(w))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            right = x >= 1 - self.w.square()
            return torch.stack([right.float(), 1 - right.float()], 1)

    x = torch.arange(100) / 100
    a, b = Share(-1.0), Share(1.0)
    ev = ls.Evaluator(a, "cross_entropy", (x, torch.zeros(100, dtype=torch.long)), metrics=("loss", "accuracy"))
    found = ls.barriers([a, b], ev, n=5, metric="accuracy")
    assert found.curves[0, 1].tolist() == pytest.approx([1, 0.25, 0, 0.25, 1], abs=0.011)
    assert found.heights[0, 1] == found.heights[1, 0] == pytest.approx(1.0)


def test_barrier_curves_are_lines_and_meet_the_models() -> None:
    models = [net(seed) for seed in range(3)]
    data = (torch.randn(11, 2, 4, 4), torch.randint(0, 3, (11,)))
    ev = ls.Evaluator(models[0], "cross_entropy", data)
    found = ls.barriers([m.state_dict() for m in models], ev, n=6)
    for i, j in ((0, 1), (1, 2), (0, 2)):
        assert np.array_equal(found.curves[i, j], ev.line((models[i], models[j]), (0, 1, 6)).values["loss"])
        assert found.curves[i, j, -1] == ev.at(models[j])["loss"] == found.curves[j, j, 0]


def test_between_leads_from_one_model_to_the_other() -> None:
    a, b = net(0), net(1)
    direction = ls.between(a, b.state_dict())
    expected = [y.detach() - x.detach() for x, y in zip(a.parameters(), b.parameters(), strict=True)]
    np.testing.assert_allclose(flat(direction.vectors[0]), flat(expected), rtol=1e-6)
    coordinates, off = ls.project(direction, direction.origin, [list(m.parameters()) for m in (a, b)])
    np.testing.assert_allclose(coordinates[:, 0], [0, 1], atol=1e-6)
    assert float(off.max()) < 1e-5
    with pytest.raises(ValueError, match="same weights"):
        ls.between(a, a)


def test_frozen_parameters_can_stand_still() -> None:
    model = net()
    model[0].weight.requires_grad_(False)
    assert ls.random_directions(model).vectors[0][0].any()
    still = ls.random_directions(model, include_frozen=False)
    assert not still.vectors[0][0].any()
    assert still.vectors[0][4].any()
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="every parameter is ignored"):
        ls.random_directions(model, include_frozen=False)


@pytest.mark.parametrize("norm", ["filter", "layer", "model", "weight", "none"])
def test_directions_have_the_same_bits_for_every_number_of_threads(threads: int, norm: str) -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(300, 400), nn.Linear(400, 2))
    many = ls.random_directions(model, seed=4, norm=norm, ignore=None, orthogonalize=True)
    torch.set_num_threads(1)
    one = ls.random_directions(model, seed=4, norm=norm, ignore=None, orthogonalize=True)
    assert all(
        torch.equal(a, b) for v, w in zip(many.vectors, one.vectors, strict=True) for a, b in zip(v, w, strict=True)
    )
    assert many.norms == one.norms
    assert many.cosine == one.cosine


@pytest.mark.parametrize("center", ["last", "mean"])
def test_pca_equals_the_singular_value_decomposition(rng: np.random.Generator, center: str) -> None:
    model = nn.Sequential(nn.Linear(300, 250), nn.Linear(250, 1)).double()  # more entries than one chunk
    track = ls.Trajectory(model)
    for _ in range(6):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += torch.from_numpy(rng.normal(size=parameter.shape))
        track.record()
    points = np.stack([flat(point.values()) for point in track.points])
    points = points - (points[-1] if center == "last" else points.mean(0))
    _, singular, rows = np.linalg.svd(points, full_matrices=False)
    found = ls.pca_directions(track, n=3, center=center)
    np.testing.assert_allclose(found.extra["explained_variance"], (singular**2 / (singular**2).sum())[:3], rtol=1e-9)
    for vector, row in zip(found.vectors, rows, strict=False):
        assert abs(flat(vector) @ row) == pytest.approx(1, abs=1e-9)


def parallel(model: nn.Module) -> None:
    one = {"3.bias": torch.ones(3)}
    ls.project(ls.from_tensors(model, one, {"3.bias": 2 * torch.ones(3)}), list(model.parameters()), [])


BAD = [
    (lambda m: ls.random_directions(m, 0), ValueError, "n must be"),
    (lambda m: ls.random_directions(m, norm="max"), ValueError, "norm must be one of"),
    (lambda m: ls.random_directions(m, ignore="("), ValueError, "regular expression"),
    (lambda m: ls.random_directions(m, seed=-1), ValueError, "seed"),
    (lambda m: ls.from_tensors(m, {"nope": torch.ones(1)}), ValueError, "no parameter called nope"),
    (lambda m: ls.from_tensors(m, {"3.bias": torch.ones(4)}), ValueError, r"expected '3.bias' with shape \(3,\)"),
    (lambda m: ls.from_tensors(m), ValueError, "at least one direction"),
    (lambda m: ls.from_tensors(m, {"3.bias": torch.full((3,), torch.nan)}), ValueError, "must be real and finite"),
    (lambda m: ls.random_directions(m, ignore=""), ValueError, "every parameter is ignored"),
    (lambda m: ls.between(m, nn.Linear(2, 2)), ValueError, "is it another model"),
    (lambda m: parallel(m), ValueError, "directions are parallel"),
    (lambda m: ls.project(ls.random_directions(m), [torch.ones(2)], []), ValueError, "the same shapes"),
    (lambda m: ls.pca_directions(ls.Trajectory(m)), ValueError, "at least 3 recorded points"),
    (lambda m: ls.pca_directions([1]), TypeError, "must be a Trajectory"),
    (lambda m: ls.plane(m, m, {"a": torch.ones(1)}), ValueError, "is it another model"),
    (lambda m: ls.barriers([m], None), TypeError, "Evaluator"),
]


@pytest.mark.parametrize("case", range(len(BAD)))
def test_bad_input(case: int) -> None:
    build, kind, text = BAD[case]
    with pytest.raises(kind, match=text):
        build(net())


def test_filters_may_be_rescaled_one_by_one_where_layers_may_not() -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 8, bias=False), nn.ReLU(), nn.Linear(8, 3, bias=False)).double()
    model[2].weight.requires_grad_(False)  # its filters mix the factors: it stays
    factors = 4.0 ** torch.arange(-4, 4, dtype=torch.float64)
    other = copy.deepcopy(model)
    with torch.no_grad():
        other[0].weight *= factors[:, None]
        other[2].weight /= factors
    data = torch.randn(50, 6, dtype=torch.float64), torch.randint(0, 3, (50,))

    def line(m: nn.Module, norm: str) -> np.ndarray:
        direction = ls.random_directions(m, 1, norm=norm, seed=2, include_frozen=False)
        return ls.Evaluator(m, "cross_entropy", data).line(direction, (-1, 1, 9)).values["loss"]

    np.testing.assert_allclose(line(model, "filter"), line(other, "filter"), rtol=1e-9)
    assert np.abs(line(model, "layer") - line(other, "layer")).max() > 1e-3


def test_directions_of_many_parameters_are_nearly_at_right_angles(rng: np.random.Generator) -> None:
    """The cosine of independent directions has the standard deviation 1/sqrt(P)."""
    model = nn.Linear(400, 300, bias=False)
    cosines = [ls.random_directions(model, seed=int(rng.integers(2**40)) + i).cosine for i in range(8)]
    assert max(map(abs, cosines)) < 5 / math.sqrt(120_000)
    assert min(map(abs, cosines)) > 0
    assert np.std(cosines) > 0.2 / math.sqrt(120_000)


def test_a_plane_has_the_losses_of_its_three_models_and_of_what_lies_between() -> None:
    models = [net(seed).double().eval() for seed in range(3)]
    data = torch.randn(20, 2, 4, 4, dtype=torch.float64), torch.randint(0, 3, (20,))
    for m in models[1:]:
        m[1].load_state_dict({**m[1].state_dict(), **dict(models[0][1].named_buffers())})
    directions = ls.plane(*models)
    corners = np.array(directions.extra["coordinates"])
    shares = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.2, 0.3, 0.5], [1.5, -1, 0.5]])
    ev = ls.Evaluator(models[0], "cross_entropy", data)
    found = ev.points(directions, shares @ corners).values["loss"]
    for share, loss in zip(shares, found, strict=True):
        mixed = copy.deepcopy(models[0])
        with torch.no_grad():
            for p, *ends in zip(mixed.parameters(), *(m.parameters() for m in models), strict=True):
                p.copy_(sum(float(s) * e for s, e in zip(share, ends, strict=True)))
        assert loss == pytest.approx(ls.Evaluator(mixed, "cross_entropy", data).at()["loss"], rel=1e-10)
