"""Mixture weights against Karush-Kuhn-Tucker conditions and a plain EM run; temperature against a fine grid."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from thalweg.ensemble import fit_temperature, fit_weights


def predictions(seed: int, m: int, n: int, alike: float = 0.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    own = torch.randn(m, n, dtype=torch.float64, generator=generator)
    common = torch.randn(1, n, dtype=torch.float64, generator=generator)
    return torch.nn.functional.logsigmoid(alike * 4 * common + (1 - alike) * own + torch.linspace(-1, 1, m)[:, None])


def nll(log_true: torch.Tensor, w: np.ndarray) -> float:
    return float(-np.log(w @ np.exp(log_true.numpy())).mean())


def plain_em(log_true: torch.Tensor, rounds: int) -> np.ndarray:
    p = np.exp(log_true.numpy())
    w = np.full(len(p), 1 / len(p))
    for _ in range(rounds):
        w = w * (p / (w @ p)).mean(1)
    return w


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("m", "n", "alike"), [(1, 9, 0.0), (2, 50, 0.0), (6, 300, 0.0), (6, 300, 0.95), (12, 40, 0.5)])
def test_optimality(seed: int, m: int, n: int, alike: float) -> None:
    log_true = predictions(seed, m, n, alike)
    found = fit_weights(log_true)
    w = found.weights.numpy()
    p = np.exp(log_true.numpy())
    slope = (p / (w @ p)).mean(1)
    assert w.min() >= 0
    assert w.sum() == pytest.approx(1, abs=1e-12)
    assert slope.max() <= 1 + 1.1e-8  # no direction on the simplex goes down by more
    assert found.gap <= 1e-8
    np.testing.assert_allclose(slope[w > 1e-3], 1, atol=1e-4)
    assert found.nll == pytest.approx(nll(log_true, w), abs=1e-12)
    assert found.nll <= nll(log_true, plain_em(log_true, 3000)) + 1e-12
    assert (np.diff(found.history) <= 0).all()


def test_em_is_what_the_first_round_does_at_least() -> None:
    log_true = predictions(3, 5, 80)
    one = fit_weights(log_true, max_iterations=1)
    assert one.history[1] <= nll(log_true, plain_em(log_true, 1)) + 1e-15


def test_against_a_grid() -> None:
    log_true = predictions(1, 2, 60)
    grid = np.linspace(0, 1, 20001)
    best = min(nll(log_true, np.array([a, 1 - a])) for a in grid)
    assert fit_weights(log_true).nll == pytest.approx(best, abs=1e-8)
    assert fit_weights(log_true).nll <= best + 1e-12


def test_equal_members_keep_equal_weights() -> None:
    log_true = predictions(0, 1, 50).expand(4, -1)
    np.testing.assert_allclose(fit_weights(log_true).weights, 0.25)


def test_a_useless_member_gets_nothing() -> None:
    log_true = predictions(0, 3, 200)
    log_true = torch.cat([log_true, log_true.amin(0, keepdim=True) - 5])
    assert fit_weights(log_true).weights[-1] < 1e-9


def test_impossible_samples() -> None:
    log_true = predictions(0, 3, 50)
    log_true[0, :10] = -math.inf
    some = fit_weights(log_true)
    assert some.weights[0] < 1
    assert math.isfinite(some.nll)
    log_true[:, 5] = -math.inf
    assert fit_weights(log_true).nll == math.inf
    assert fit_weights(log_true).gap <= 1e-8


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("prior", [0.1, 3.0, 1e6])
def test_prior(seed: int, prior: float) -> None:
    log_true = predictions(seed, 4, 60)
    found = fit_weights(log_true, prior=prior)
    w = found.weights.numpy()
    p = np.exp(log_true.numpy())
    total = 60 * (p / (w @ p)).mean(1) + prior / w
    np.testing.assert_allclose(total, 60 + 4 * prior, rtol=1e-5)
    assert (np.diff(found.history) <= 0).all()
    free = fit_weights(log_true).weights.numpy()
    assert np.abs(w - 0.25).max() < np.abs(free - 0.25).max()
    if prior == 1e6:
        np.testing.assert_allclose(w, 0.25, atol=1e-4)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0])
def test_temperature_against_a_grid(seed: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(200, 5, dtype=torch.float64, generator=generator) * 2
    y = torch.distributions.Categorical(logits=logits).probs.cumsum(1)
    y = (torch.rand(200, 1, dtype=torch.float64, generator=generator) > y).sum(1).clamp(max=4)
    log_p = (logits * scale).log_softmax(1)

    def value(t: float) -> float:
        return -(log_p / t).log_softmax(1).gather(1, y[:, None]).mean().item()

    t = fit_temperature(log_p, y)
    grid = np.exp(np.linspace(math.log(0.05), math.log(20), 4001))
    assert value(t) <= min(map(value, grid)) + 1e-10
    assert t == pytest.approx(scale, rel=0.35)


def test_temperature_at_its_bounds_and_with_zeros() -> None:
    sure = torch.tensor([[0.9, 0.1], [0.2, 0.8]], dtype=torch.float64).log()
    assert fit_temperature(sure, torch.tensor([0, 1])) == pytest.approx(0.05, rel=1e-6)
    assert fit_temperature(sure, torch.tensor([1, 0])) == pytest.approx(20, rel=1e-6)
    hard = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.3, 0.7]], dtype=torch.float64).log()
    assert 0.05 <= fit_temperature(hard, torch.tensor([0, 1, 1])) <= 20.0001
