"""Averaged probabilities: an ensemble is never worse than the mean of its members (Jensen), whatever they say."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from thalweg.ensemble import Ensemble, diversity, metrics


@given(seed=st.integers(0, 2**31), m=st.integers(1, 6), classes=st.integers(2, 7), scale=st.floats(0.01, 30.0))
@settings(max_examples=60, deadline=None)
def test_nll_and_brier(seed: int, m: int, classes: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    model = nn.Linear(5, classes, dtype=torch.float64)
    states = [
        {
            "weight": scale * torch.randn(classes, 5, generator=generator, dtype=torch.float64),
            "bias": torch.randn(classes, generator=generator, dtype=torch.float64),
        }
        for _ in range(m)
    ]
    weights = np.random.default_rng(seed).dirichlet(np.ones(m))
    x = torch.randn(17, 5, generator=generator, dtype=torch.float64)
    y = torch.randint(0, classes, (17,), generator=generator)
    report = Ensemble(model, states, weights).report((x, y))
    for name in ("nll", "brier"):
        mean = sum(w * getattr(member, name) for w, member in zip(weights, report.members, strict=True))
        assert getattr(report.ensemble, name) <= mean + 1e-9 * (1 + abs(mean)), name
        last = report.last_m
        assert (
            getattr(last[-1], name)
            <= np.mean([getattr(member, name) for member in report.members]) * (1 + 1e-9) + 1e-12
        )
        assert getattr(last[0], name) == getattr(report.members[-1], name)


@given(seed=st.integers(0, 2**31), m=st.integers(1, 5), n=st.integers(1, 12), classes=st.integers(2, 6))
@settings(max_examples=60, deadline=None)
def test_ranges_and_symmetry(seed: int, m: int, n: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(classes, 0.3), (m, n))
    y = rng.integers(0, classes, n)
    found = metrics(p[0], y)
    assert 0 <= found.error <= 1
    assert 0 <= found.brier <= 2
    assert 0 <= found.ece <= 1
    assert found.nll >= 0
    order = rng.permutation(n)
    again = metrics(p[0][order], y[order])
    assert np.allclose(list(found.to_dict().values()), list(again.to_dict().values()), rtol=1e-12, equal_nan=True)
    matrices = diversity(p)
    for matrix in (matrices.correlation, matrices.disagreement):
        assert torch.equal(matrix.nan_to_num(), matrix.T.nan_to_num())
    assert bool((matrices.disagreement.diagonal() == 0).all())
    assert bool(((matrices.disagreement >= 0) & (matrices.disagreement <= 1)).all())
