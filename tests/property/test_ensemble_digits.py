"""What snapshot ensembles are known to do, on real digits with 20 % of the training labels re-drawn; paired over seeds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import thalweg as tw
from thalweg.ensemble import EnsembleReport, SnapshotCollector

CYCLES, EPOCHS = 5, 10

Run = tuple[SnapshotCollector, EnsembleReport, Any]


def one_run(seed: int) -> Run:
    """Train by warm restarts on noisy labels; return the collector, the report on clean test data, validation data."""
    from sklearn.datasets import load_digits

    torch.manual_seed(seed)
    images, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels)
    train, val, test = torch.randperm(len(x)).split([600, 300, len(x) - 900])
    noisy = y.clone()
    drawn = train[torch.rand(600) < 0.2]
    noisy[drawn] = torch.randint(0, 10, (len(drawn),))
    model = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 10))
    schedule = tw.schedules.sgdr(0.2, t_0=EPOCHS * 19)
    optimizer = tw.optim.SGD(model.parameters(), lr=schedule, momentum=0.9, weight_decay=5e-4)
    with SnapshotCollector(model, optimizer) as snaps:
        for _ in range(CYCLES * EPOCHS):
            for batch in train[torch.randperm(600)].split(32):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x[batch]), noisy[batch]).backward()
                optimizer.step()
    return snaps, snaps.ensemble(fit="equal").report((x[test], y[test])), ((x[val], y[val]), (x[test], y[test]))


@pytest.fixture(scope="module")
def runs() -> list[Run]:
    return [one_run(seed) for seed in range(3)]


def test_the_ensemble_beats_its_last_member(runs: list[Run]) -> None:
    for snaps, report, _ in runs:
        assert len(snaps.snapshots) == CYCLES
        assert report.ensemble.nll < report.members[-1].nll
        assert report.ensemble.error < report.members[-1].error
        nll = [point.nll for point in report.last_m]
        assert nll[-1] < nll[0]


def test_neighbours_are_the_most_alike(runs: list[Run]) -> None:
    for _, report, _ in runs:
        c = report.correlation
        near = c.diagonal(1).mean()
        far = (c.triu(2).sum() / (c.triu(2) != 0).sum()).item()
        assert near > far


def test_fitting_on_validation_data_helps_and_on_training_data_need_not(runs: list[Run]) -> None:
    gains = []
    for snaps, report, (val, test) in runs:
        fitted = snaps.ensemble(val).report(test).ensemble
        gains.append(report.ensemble.nll - fitted.nll)
    assert sum(gains) > 0


def test_there_is_no_barrier_between_gentle_snapshots(runs: list[Run]) -> None:
    for snaps, report, (val, test) in runs:
        with pytest.warns(UserWarning, match="BatchNorm"):
            soup: Any = snaps.soup(val, "uniform", tolerance=0.03)
        assert soup.soup_report.barrier < 0.03
        error = (soup(test[0]).argmax(1) != test[1]).double().mean().item()
        assert abs(error - report.ensemble.error) < 0.04
