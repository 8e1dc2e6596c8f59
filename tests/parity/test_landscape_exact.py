"""The evaluator against plain torch and analytic landscapes."""

from __future__ import annotations

import copy
import random

import numpy as np
import pytest
import torch
from torch import nn

import thalweg as tw
from thalweg.landscape import Evaluator, from_tensors, random_directions


def conv_net() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(4 * 36, 5)
    )
    model(torch.randn(20, 1, 6, 6))
    return model


@pytest.mark.parametrize("isa_name", tw._core.isa_supported())
@pytest.mark.parametrize("batch_size", [7, 16, 50])
def test_equals_fifteen_lines_of_torch_bit_for_bit(isa_name: str, batch_size: int) -> None:
    model = conv_net()
    x, y = torch.randn(50, 1, 6, 6), torch.randint(0, 5, (50,))
    directions = random_directions(model, seed=batch_size, ignore=None)
    before = tw._core.isa_active()
    tw._core.isa_force(isa_name)
    ev = Evaluator(model, nn.CrossEntropyLoss(), (x, y), metrics=("loss", "accuracy"), batch_size=batch_size)
    surface = ev.grid(directions, x=(-1.0, 0.7, 6), y=(-0.3, 1.1, 4))
    tw._core.isa_force(before)

    plain = copy.deepcopy(model).eval()
    weights = [p.detach().clone() for p in plain.parameters()]
    losses, hits = np.empty((4, 6)), np.empty((4, 6))
    with torch.no_grad():
        for i, b in enumerate(np.linspace(-0.3, 1.1, 4)):
            for j, a in enumerate(np.linspace(-1.0, 0.7, 6)):
                for p, w, d1, d2 in zip(plain.parameters(), weights, *directions.vectors, strict=True):
                    p.copy_((w + float(a) * d1) + float(b) * d2)
                total, correct = 0.0, 0
                for xb, yb in zip(x.split(batch_size), y.split(batch_size), strict=True):
                    out = plain(xb)
                    total += nn.functional.cross_entropy(out, yb).item() * len(yb)
                    correct += int((out.argmax(1) == yb).sum())
                losses[i, j], hits[i, j] = total / 50, correct / 50
    assert np.array_equal(surface.values["loss"], losses)
    assert np.array_equal(surface.values["accuracy"], hits)


def test_order_of_points_does_not_matter() -> None:
    model = conv_net()
    ev = Evaluator(model, "cross_entropy", (torch.randn(30, 1, 6, 6), torch.randint(0, 5, (30,))))
    directions = random_directions(model)
    coordinates = np.random.default_rng(0).uniform(-1, 1, (15, 2))
    order = np.random.default_rng(1).permutation(15)
    straight = ev.points(directions, coordinates).values["loss"]
    shuffled = ev.points(directions, coordinates[order]).values["loss"]
    assert np.array_equal(straight[order], shuffled)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 2e-6)])
def test_linear_regression_has_its_six_coefficients(dtype: torch.dtype, tolerance: float) -> None:
    """L(a, b) = c0 + c1 a + c2 b + c3 a² + c4 ab + c5 b² with coefficients from float64 NumPy."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(40, 3, generator=generator, dtype=dtype)
    y = torch.randn(40, 1, generator=generator, dtype=dtype)
    model = nn.Linear(3, 1, bias=False).to(dtype)
    d1, d2 = (torch.randn(1, 3, generator=generator, dtype=dtype) for _ in range(2))
    ev = Evaluator(model, "mse", (x, y), batch_size=40)
    surface = ev.grid(from_tensors(model, {"weight": d1}, {"weight": d2}), x=(-0.5, 2.0, 7), y=(-1.5, 0.5, 4))
    wide = [t.detach().double().numpy() for t in (x, y, model.weight, d1, d2)]
    residual = wide[0] @ wide[2].T - wide[1]
    u, v = wide[0] @ wide[3].T, wide[0] @ wide[4].T
    a, b = np.meshgrid(surface.x, surface.y)
    expected = (
        (residual**2).mean() + 2 * (residual * u).mean() * a + 2 * (residual * v).mean() * b
        + (u**2).mean() * a**2 + 2 * (u * v).mean() * a * b + (v**2).mean() * b**2
    )  # fmt: skip
    np.testing.assert_allclose(surface.values["loss"], expected, rtol=tolerance)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_deep_linear_net_is_a_polynomial_of_twice_its_depth(depth: int) -> None:
    torch.manual_seed(depth)
    model = nn.Sequential(*(nn.Linear(4, 4, bias=False) for _ in range(depth))).double()
    ev = Evaluator(model, "mse", (torch.randn(9, 4).double(), torch.randn(9, 4).double()))
    direction = random_directions(model, 1, seed=depth)
    fit = ev.line(direction, (-1, 1, 2 * depth + 1))
    polynomial = np.polynomial.Polynomial.fit(fit.alphas, fit.values["loss"], 2 * depth)
    other = ev.line(direction, (-0.93, 0.97, 51))
    np.testing.assert_allclose(other.values["loss"], polynomial(other.alphas), rtol=1e-9)


def test_relu_rescaling_changes_nothing_under_filter_normalisation() -> None:
    """(c W1, W2 / c) is the same function; filter-normalised planes of both agree for the same draws."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8, bias=False), nn.ReLU(), nn.Linear(8, 3, bias=False)).double()
    scaled = copy.deepcopy(model)
    with torch.no_grad():
        scaled[0].weight.mul_(16.0)
        scaled[2].weight.div_(16.0)
    data = (torch.randn(30, 5).double(), torch.randint(0, 3, (30,)))
    grids = {}
    for norm in ("filter", "none"):
        grids[norm] = [
            Evaluator(m, "cross_entropy", data)
            .grid(random_directions(m, norm=norm, seed=3), (-1, 1, 5), (-1, 1, 3))
            .values["loss"]
            for m in (model, scaled)
        ]
    np.testing.assert_allclose(*grids["filter"], rtol=1e-9)
    assert np.abs(grids["none"][0] - grids["none"][1]).max() > 0.1


@pytest.mark.parametrize("tier", ["exact", "rounding"])
def test_a_rescaled_filter_before_batchnorm_is_the_same_function(tier: str) -> None:
    """A convolution times c with the mean times c and the variance times c²: filter-normalised planes agree, others do not."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4, eps=1e-30), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)
    )
    model.double()(torch.randn(50, 1, 6, 6).double())
    scaled = copy.deepcopy(model)
    c = torch.tensor([16.0, 0.125, 4.0, 0.5]).double()
    with torch.no_grad():
        scaled[0].weight.mul_(c[:, None, None, None])
        scaled[1].running_mean.mul_(c)
        scaled[1].running_var.mul_(c * c)
    data = (torch.randn(30, 1, 6, 6).double(), torch.randint(0, 3, (30,)))
    grids = {}
    for norm in ("filter", "none"):
        grids[norm] = [
            Evaluator(m, "cross_entropy", data, tier=tier)
            .grid(random_directions(m, norm=norm, seed=3), (-1, 1, 5), (-1, 1, 3))
            .values["loss"]
            for m in (model, scaled)
        ]
    np.testing.assert_allclose(*grids["filter"], rtol=1e-9)
    assert np.abs(grids["none"][0] - grids["none"][1]).max() > 0.1


def test_line_between_models_meets_both_ends_exactly() -> None:
    a, b = conv_net(), conv_net()
    for parameter in b.parameters():
        torch.nn.init.normal_(parameter)
    b(torch.randn(20, 1, 6, 6) * 3)  # other BatchNorm statistics
    data = (torch.randn(33, 1, 6, 6), torch.randint(0, 5, (33,)))
    ev = Evaluator(a, "cross_entropy", data, batch_size=10)
    losses = ev.line((a, b.state_dict()), (0, 1, 4)).values["loss"]
    assert losses[0] == Evaluator(a, "cross_entropy", data, batch_size=10).at()["loss"]
    assert losses[-1] == Evaluator(b, "cross_entropy", data, batch_size=10).at()["loss"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_perturbation_has_the_bits_of_the_torch_expression(isa: str, threads: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(threads)
    direction_dtype = dtype if dtype in (torch.float32, torch.float64) else torch.float32
    w = [torch.randn(n, generator=generator).to(dtype) for n in (0, 1, 3, 17, 1023, 70_000)]
    d1, d2 = ([torch.randn(t.shape, generator=generator).to(direction_dtype) for t in w] for _ in range(2))
    second = [None if i == 3 else d for i, d in enumerate(d2)]
    out = [torch.empty_like(t) for t in w]
    tw._core.Perturbation(out, w, [d1, second]).perturb([0.3, -1.7], threads)
    for o, t, x, y in zip(out, w, d1, second, strict=True):
        wide = t.to(direction_dtype) + 0.3 * x
        expected = (wide if y is None else wide + -1.7 * y).to(dtype)
        assert torch.equal(o, expected)


def test_data_loader_batches_are_kept_and_generators_untouched() -> None:
    model = conv_net()
    x, y = torch.randn(20, 1, 6, 6), torch.randint(0, 5, (20,))
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=6)
    state = (torch.get_rng_state(), random.getstate())
    ev = Evaluator(model, "cross_entropy", loader)
    assert ev.at() == Evaluator(model, "cross_entropy", (x, y), batch_size=6).at()
    assert torch.equal(torch.get_rng_state(), state[0])
    assert random.getstate() == state[1]
