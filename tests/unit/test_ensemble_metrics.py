"""Metrics and diversity against hand examples and plain NumPy loops in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from thalweg.ensemble import diversity, metrics


def reference(p: np.ndarray, y: np.ndarray) -> dict[str, float]:
    n, classes = p.shape
    error = nll = brier = 0.0
    bins: dict[int, list[tuple[float, float]]] = {}
    for row, truth in zip(p.astype(np.float64), y, strict=True):
        best = max(range(classes), key=lambda c: row[c])
        error += best != truth
        nll -= math.log(row[truth])
        brier += sum((row[c] - (c == truth)) ** 2 for c in range(classes))
        for k in range(15):
            if k / 15 < row[best] <= (k + 1) / 15:
                bins.setdefault(k, []).append((row[best], float(best == truth)))
    ece = sum(len(b) * abs(np.mean([h for _, h in b]) - np.mean([c for c, _ in b])) for b in bins.values())
    return {"error": error / n, "nll": nll / n, "brier": brier / n, "ece": ece / n, "n": n}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_against_loops(seed: int, classes: int) -> None:
    rng = np.random.default_rng([seed, classes])
    p = rng.dirichlet(np.full(classes, 0.5), 57)
    y = rng.integers(0, classes, 57)
    found = metrics(p, y).to_dict()
    for name, value in reference(p, y).items():
        assert found[name] == pytest.approx(value, rel=1e-12, abs=1e-12), name


def test_by_hand() -> None:
    found = metrics(torch.tensor([[0.8, 0.2], [0.4, 0.6]], dtype=torch.float64), torch.tensor([0, 0]))
    assert found.error == 0.5
    assert found.nll == pytest.approx(-(math.log(0.8) + math.log(0.4)) / 2)
    assert found.brier == pytest.approx((0.2**2 + 0.2**2 + 0.6**2 + 0.6**2) / 2)
    assert found.ece == pytest.approx((abs(1 - 0.8) + abs(0 - 0.6)) / 2)


def test_a_perfect_and_a_hopeless_prediction() -> None:
    sure = torch.eye(3)
    perfect = metrics(sure, torch.arange(3))
    assert (perfect.error, perfect.nll, perfect.brier, perfect.ece) == (0, 0, 0, 0)
    wrong = metrics(sure, torch.tensor([1, 2, 0]))
    assert (wrong.error, wrong.nll, wrong.brier, wrong.ece) == (1, math.inf, 2, 1)


@pytest.mark.parametrize("seed", range(5))
def test_diversity_against_numpy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(4), (5, 33))
    found = diversity(p)
    np.testing.assert_allclose(found.correlation, np.corrcoef(p.reshape(5, -1)), atol=1e-12)
    best = p.argmax(2)
    expected = [[np.mean(a != b) for b in best] for a in best]
    np.testing.assert_array_equal(found.disagreement, expected)


def test_a_constant_member_has_no_correlation() -> None:
    p = torch.full((2, 6, 3), 1 / 3, dtype=torch.float64)
    p[1] = torch.eye(3, dtype=torch.float64).repeat(2, 1)
    correlation = diversity(p).correlation
    assert correlation.isnan().sum() == 3
    assert correlation[1, 1] == 1
    assert diversity(p).to_dict()["correlation"][0] == [None, None]


@pytest.mark.parametrize(
    ("p", "y", "text"),
    [
        (torch.randn(4, 3), torch.zeros(4), "apply softmax"),
        (torch.full((4, 2), 0.5), torch.zeros(3), r"shape \[4\]"),
        (torch.full((4, 2), 0.5), torch.full((4,), 2), r"in \[0, 2\)"),
        (torch.full((4, 2), 0.5), torch.full((4,), -1), r"in \[0, 2\)"),
        (torch.full((4, 2), 0.5), torch.full((4,), 0.5), "fractions"),
        (torch.full((4, 2), 0.5), torch.zeros(4, 2), "one-hot"),
        (torch.zeros(0, 2), torch.zeros(0), "n >= 1"),
        (torch.full((4,), 0.5), torch.zeros(4), r"\[n, classes\]"),
        (torch.full((4, 2), math.nan), torch.zeros(4), "softmax"),
    ],
)
def test_bad_input(p: torch.Tensor, y: torch.Tensor, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        metrics(p, y)


@pytest.mark.parametrize("p", [torch.zeros(3, 2), torch.zeros(2, 0, 3), torch.zeros(2)])
def test_bad_diversity(p: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="diversity: probabilities must have shape"):
        diversity(p)
