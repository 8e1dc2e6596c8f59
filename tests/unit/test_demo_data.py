"""The demo's data, network, batches and path: stratified, disjoint, noise on the training labels only, seeded."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from thalweg.demo.config import config
from thalweg.demo.data import load
from thalweg.demo.models import build
from thalweg.demo.runs import path_stride
from thalweg.demo.training import batch_order


@pytest.fixture(params=[0, 1, 7])
def seed(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def test_split_is_a_partition_with_the_data_sets_labels(seed: int) -> None:
    digits = load_digits()
    split = load(seed=seed)
    rows = torch.cat(split.rows).numpy()
    assert np.array_equal(np.sort(rows), np.arange(1797))
    for part, labels in zip(split.rows, (split.true_train, split.y_val, split.y_test), strict=True):
        assert np.array_equal(labels.numpy(), digits.target[part.numpy()])
    mean, std = digits.images[split.rows[0]].mean(), digits.images[split.rows[0]].std()
    for part, images in zip(split.rows, (split.x_train, split.x_val, split.x_test), strict=True):
        expected = (digits.images[part.numpy()] - mean) / std
        np.testing.assert_allclose(images[:, 0].numpy(), expected, rtol=1e-5, atol=1e-5)


def test_split_is_stratified(seed: int) -> None:
    split = load(seed=seed)
    shares = np.bincount(load_digits().target) / 1797
    for labels in (split.true_train, split.y_val, split.y_test):
        counts = np.bincount(labels.numpy(), minlength=10)
        assert np.abs(counts - shares * len(labels)).max() <= 1.5


@pytest.mark.parametrize("noise", [0.0, 0.2, 0.5, 1.0])
def test_noise_touches_only_its_share_of_the_training_labels(seed: int, noise: float) -> None:
    clean, noisy = load(seed=seed), load(noise, seed=seed)
    for name in ("x_train", "x_val", "y_val", "x_test", "y_test", "true_train"):
        assert torch.equal(getattr(clean, name), getattr(noisy, name)), name
    assert int(noisy.redrawn.sum()) == round(noise * 600)
    changed = noisy.y_train != noisy.true_train
    assert not bool((changed & ~noisy.redrawn).any())
    assert torch.equal(clean.y_train, clean.true_train)
    if noise:
        hit = 1 - int(changed.sum()) / int(noisy.redrawn.sum())  # a uniform draw hits the old label one time in ten
        assert 0.02 < hit < 0.22
        drawn = np.bincount(noisy.y_train[noisy.redrawn].numpy(), minlength=10)
        assert drawn.min() > 0


def test_split_depends_on_the_seed_and_on_nothing_else() -> None:
    first, again, other = load(0.2, seed=3), load(0.2, seed=3), load(0.2, seed=4)
    assert torch.equal(first.x_train, again.x_train)
    assert torch.equal(first.y_train, again.y_train)
    assert not torch.equal(first.rows[0], other.rows[0])


@pytest.mark.parametrize("noise", [-0.1, 1.5, float("nan")])
def test_bad_noise_is_refused(noise: float) -> None:
    with pytest.raises(ValueError, match="demo: noise must be a finite number"):
        load(noise)


def test_network_is_seeded_and_leaves_the_generator_alone() -> None:
    before = torch.get_rng_state()
    first, again, other = build(0), build(0), build(1)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first[0].weight, again[0].weight)
    assert not torch.equal(first[0].weight, other[0].weight)
    assert first(torch.zeros(5, 1, 8, 8)).shape == (5, 10)
    assert sum(p.numel() for p in first.parameters()) == 9_858


def test_batches_are_passes_over_the_images(seed: int) -> None:
    order = batch_order(70, 32, 7, seed)
    assert len(order) == 7
    assert all(len(batch) == 32 for batch in order)
    for first, second in zip(order[0:6:2], order[1:6:2], strict=True):  # two batches a pass, no image twice
        both = torch.cat([first, second])
        assert len(both.unique()) == 64
        assert int(both.min()) >= 0
        assert int(both.max()) < 70
    assert all(torch.equal(a, b) for a, b in zip(order, batch_order(70, 32, 7, seed), strict=True))
    assert not torch.equal(order[0], batch_order(70, 32, 7, seed + 1)[0])


@pytest.mark.parametrize("budget", ["default", "full", "smoke"])
def test_every_budget_is_consistent(budget: str) -> None:
    sizes = config(budget)
    assert sizes.steps % sizes.cycles == 0
    assert sizes.steps % 3 == 0
    assert sizes.steps % (2 * sizes.triangles) == 0
    assert sizes.cycle_steps % path_stride(sizes) == 0
    assert sizes.cycles in (5, 6) or budget == "smoke"
    assert config(budget, 4).seeds == 4
    assert config("default").seeds >= 3
    assert config("full").seeds == 10


def test_bad_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="demo: budget must be one of 'default', 'full', 'smoke', got 'huge'"):
        config("huge")
    with pytest.raises(ValueError, match="demo: seeds must be an integer >= 1 and <= 100, got 0"):
        config("default", 0)
