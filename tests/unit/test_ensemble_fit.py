"""Choosing members, weights and temperature on validation data, and the report on test data."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from thalweg.ensemble import Ensemble, Metrics, SnapshotCollector, diversity, metrics

Data = tuple[torch.Tensor, torch.Tensor]


class Table(nn.Module):
    """Logits of a few inputs, looked up: the prediction is the weight."""

    def __init__(self, n: int, classes: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(n, classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.logits[x]


def collected(*members: torch.Tensor) -> SnapshotCollector:
    """A collector that holds members with the given logits [n, classes], at steps 1, 2, …"""
    model = Table(*members[0].shape)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    snaps = SnapshotCollector(model, optimizer, when="every:1")
    for logits in members:
        model.logits.data.copy_(logits)
        model.logits.grad = torch.zeros_like(model.logits)
        optimizer.step()
    return snaps


def noisy(seed: int, quality: float, n: int = 400, classes: int = 4) -> torch.Tensor:
    """Logits that know class n % classes, as well as `quality` says."""
    generator = torch.Generator().manual_seed(seed)
    truth = nn.functional.one_hot(torch.arange(n) % classes, classes)
    return torch.randn(n, classes, generator=generator) + quality * truth


def data(n: int = 400, classes: int = 4) -> Data:
    return torch.arange(n), torch.arange(n) % classes


def test_without_data_all_members_count_alike() -> None:
    ens = collected(noisy(0, 1), noisy(1, 1), noisy(2, 1)).ensemble()
    assert ens.weights.tolist() == pytest.approx([1 / 3] * 3)
    assert ens.temperature == 1
    assert ens.steps == [1, 2, 3]
    assert ens.fit_report is not None
    assert ens.fit_report.fit == "equal"
    assert "no validation data" in ens.fit_report.why
    assert collected(noisy(0, 1), noisy(1, 1)).ensemble(m=1).steps == [2]
    assert collected(noisy(0, 1)).ensemble(temperature=2.0).temperature == 2.0


def test_weights_are_the_best_there_are() -> None:
    snaps = collected(noisy(0, 1.9), noisy(1, 2.0), noisy(2, 1.9))
    ens = snaps.ensemble(data(), fit="weights", temperature=1.0)
    assert ens.m == 3
    x, y = data()
    best = metrics(ens(x), y).nll
    p = torch.stack([snapshot.state["logits"].double().softmax(1) for snapshot in snaps.snapshots])
    rng = np.random.default_rng(0)
    for w in rng.dirichlet(np.ones(3), 300):
        assert best <= metrics((torch.from_numpy(w)[:, None, None] * p).sum(0), y).nll + 1e-6
    equal = snaps.ensemble(data(), fit="weights", temperature=1.0, prior=1e7)
    np.testing.assert_allclose(equal.weights, 1 / 3, atol=1e-3)


def test_members_without_weight_are_left_out() -> None:
    snaps = collected(noisy(0, 3.0), noisy(0, 3.0) * 0.0, noisy(1, 3.0))
    ens = snaps.ensemble(data(), fit="weights")
    assert ens.steps == [1, 3]
    assert ens.fit_report is not None
    assert ens.fit_report.dropped == {2: "its fitted weight is 0"}


def test_last_m_by_validation_loss() -> None:
    snaps = collected(noisy(0, -3), noisy(1, -2), noisy(2, 2), noisy(3, 2), noisy(4, 2))
    ens = snaps.ensemble(data(), fit="last-m")
    assert ens.steps == [3, 4, 5]
    assert ens.weights.tolist() == pytest.approx([1 / 3] * 3)
    assert ens.fit_report is not None
    assert set(ens.fit_report.dropped) == {1, 2}
    given = snaps.ensemble(data(), fit="last-m", m=4)
    assert given.steps == [2, 3, 4, 5]
    assert given.fit_report is not None
    assert given.fit_report.why == "asked for"


def test_auto_takes_weights_where_they_help() -> None:
    snaps = collected(noisy(0, 3.0), noisy(1, 3.0), noisy(2, 0.2), noisy(3, 0.2))
    ens = snaps.ensemble(data())
    report = ens.fit_report
    assert report is not None
    assert report.fit == "weights"
    assert "cross-validated nll lower" in report.why
    assert report.candidates["weights"]["loss"] < report.candidates["last-m"]["loss"]
    assert ens.weights[:2].sum() > 0.9


def test_auto_takes_equal_weights_where_fitting_cannot_help() -> None:
    chosen = []
    for seed in range(12):
        snaps = collected(*(noisy(100 * seed + i, 1.0, n=60) for i in range(5)))
        report = snaps.ensemble(data(60)).fit_report
        assert report is not None
        chosen.append(report.fit)
    assert chosen.count("last-m") >= 8


def test_dead_members_are_left_out_by_auto() -> None:
    dead = torch.full((400, 4), 0.0)
    dead[:, 2] = 30.0  # a diverged net: sure, and always of the same class
    snaps = collected(noisy(0, 2), dead, noisy(1, 2))
    report = snaps.ensemble(data()).fit_report
    assert report is not None
    assert report.dropped == {2: "it predicts no better than the class frequencies"}
    hopeless = collected(dead, dead).ensemble(data())
    assert hopeless.m >= 1


def test_few_samples_decide_nothing() -> None:
    snaps = collected(noisy(0, 1, n=8), noisy(1, 1, n=8))
    report = snaps.ensemble(data(8)).fit_report
    assert report is not None
    assert (report.fit, report.m, report.temperature) == ("equal", 2, 1.0)
    assert "too few" in report.why


@pytest.mark.parametrize("scale", [0.3, 1.0, 5.0])
def test_temperature(scale: float) -> None:
    snaps = collected(scale * noisy(0, 1.5), scale * noisy(1, 1.5))
    x, y = data()
    plain = snaps.ensemble(fit="equal")
    fitted = snaps.ensemble(data(), fit="equal", temperature="fit")
    assert metrics(fitted(x), y).nll <= metrics(plain(x), y).nll
    for t in np.linspace(0.1, 8, 60):
        other = Ensemble(snaps.model, snaps.state_dicts(), temperature=float(t))
        assert metrics(fitted(x), y).nll <= metrics(other(x), y).nll + 1e-6
    auto = snaps.ensemble(data(), fit="equal")
    assert auto.temperature in (1.0, pytest.approx(fitted.temperature))
    if scale == 5.0:
        assert auto.temperature > 1.2
        assert auto.fit_report is not None
        assert set(auto.fit_report.candidates) == {"temperature 1", "temperature fitted"}


@pytest.mark.parametrize("seed", range(3))
def test_report_against_its_parts(seed: int) -> None:
    snaps = collected(*(noisy(10 * seed + i, 1.0) for i in range(4)))
    x, y = data()
    ens = snaps.ensemble(data(), fit="weights", temperature=1.7)
    report = ens.report([(x[:150], y[:150]), (x[150:], y[150:])])
    assert report.ensemble == metrics(ens(x), y) or report.ensemble.nll == pytest.approx(
        metrics(ens(x), y).nll, abs=1e-6
    )
    p = torch.stack([member(x).double().softmax(1) for member in ens.members])
    for i, member in enumerate(report.members):
        assert member.to_dict() == pytest.approx(metrics(p[i], y).to_dict(), abs=1e-6)
    for m, point in enumerate(report.last_m, 1):
        assert point.to_dict() == pytest.approx(metrics(p[-m:].mean(0), y).to_dict(), abs=1e-6)
    torch.testing.assert_close(report.correlation, diversity(p).correlation, atol=1e-6, rtol=0)
    assert torch.equal(report.disagreement, diversity(p).disagreement)
    assert ens.last_m_curve(data()) == list(report.last_m)
    plain = json.loads(json.dumps(report.to_dict()))
    assert plain["steps"] == ens.steps
    assert plain["temperature"] == 1.7
    assert len(plain["last_m"]) == ens.m
    assert "last 2, equal weights" in str(report)
    assert ens.fit_report is not None
    json.dumps(ens.fit_report.to_dict())
    assert "weights" in str(ens.fit_report)


def test_logit_combination() -> None:
    snaps = collected(noisy(0, 2), noisy(1, 2), noisy(2, 0.1))
    ens = snaps.ensemble(data(), combine="logit")
    assert ens.combine == "logit"
    x, y = data()
    z = torch.stack([m(x).double() for m in ens.members])
    expected = metrics((z.mean(0) / ens.temperature).softmax(1), y)
    assert ens.report(data()).ensemble.to_dict() == pytest.approx(expected.to_dict(), abs=1e-6)


def test_regression() -> None:
    truth = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    members = [
        truth + s * torch.randn(50, 2, generator=torch.Generator().manual_seed(i)) for i, s in enumerate((3, 1, 1))
    ]
    snaps = collected(*members)
    val = (torch.arange(50), truth)
    ens = snaps.ensemble(val, combine="mean")
    assert ens.steps == [2, 3]
    assert ens.fit_report is not None
    assert ens.fit_report.loss == "mse"
    report = ens.report(val)
    assert report.ensemble.mse == pytest.approx(
        ((members[1] + members[2]) / 2 - truth).square().mean().item(), rel=1e-5
    )
    assert report.members[0].mae == pytest.approx((members[1] - truth).abs().mean().item(), rel=1e-5)
    assert len(report.last_m) == 2
    with pytest.raises(ValueError, match="no classes"):
        report.correlation
    json.dumps(report.to_dict())
    with pytest.raises(ValueError, match="targets must have the shape of the outputs"):
        ens.report((torch.arange(50), truth[:, 0]))


def test_positions_of_a_sequence_count_as_samples() -> None:
    class Sequence(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.z = nn.Parameter(torch.randn(3, 5))

        def forward(self, x: torch.Tensor) -> torch.Tensor:  # [n, 5] -> [n, classes, 5]
            return self.z + x[:, None]

    torch.manual_seed(0)
    models = [Sequence() for _ in range(3)]
    ens = Ensemble(models[0], [m.state_dict() for m in models])
    x, y = torch.randn(7, 5), torch.randint(0, 3, (7, 5))
    found = ens.report((x, y)).ensemble
    expected = metrics(ens(x).movedim(1, 2).reshape(-1, 3), y.reshape(-1))
    assert found.to_dict() == pytest.approx(expected.to_dict(), abs=1e-6)


def test_many_kinds_of_data() -> None:
    snaps = collected(noisy(0, 1), noisy(1, 1))
    x, y = data()
    dataset = torch.utils.data.TensorDataset(x, y)
    expected: Metrics = snaps.ensemble().report((x, y)).ensemble
    for given in (
        dataset,
        torch.utils.data.DataLoader(dataset, 33),
        [(x[:7], y[:7]), (x[7:], y[7:])],
        zip([x], [y], strict=True),
    ):
        found = snaps.ensemble().report(given).ensemble
        assert found.to_dict() == pytest.approx(expected.to_dict(), abs=1e-12)


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ([], ValueError, "hold no samples"),
        ((torch.arange(0), torch.arange(0)), ValueError, "hold no samples"),
        ((torch.arange(3), torch.arange(2)), ValueError, "same length, got 3 and 2"),
        ("data", TypeError, "pair of tensors"),
        (5, TypeError, "pair of tensors"),
        ([torch.arange(3)], TypeError, r"each batch must be a pair \(inputs, targets\)"),
        ([{"x": 1}], TypeError, "each batch must be a pair"),
        ([(torch.arange(3), [0, 1, 2])], TypeError, "targets of a batch must be a tensor"),
        ((torch.arange(3), torch.full((3,), 9)), ValueError, r"class numbers in \[0, 4\)"),
        ((torch.arange(3), torch.zeros(3, 4)), ValueError, "targets must have shape"),
    ],
)
def test_bad_data(given: Any, error: type[Exception], text: str) -> None:
    snaps = collected(noisy(0, 1))
    with pytest.raises(error, match=text):
        snaps.ensemble(given, fit="equal", temperature="fit")
    with pytest.raises(error, match=text):
        snaps.ensemble().report(given)


@pytest.mark.parametrize(
    ("kwargs", "error", "text"),
    [
        ({"fit": "best"}, ValueError, "fit must be one of 'auto', 'equal', 'last-m', 'weights', got 'best'"),
        ({"fit": "weights"}, ValueError, "need val_data"),
        ({"fit": "last-m"}, ValueError, "need val_data"),
        ({"temperature": "fit"}, ValueError, "need val_data"),
        ({"temperature": -1.0}, ValueError, "temperature must be a finite number > 0"),
        ({"temperature": "warm"}, ValueError, "temperature must be one of"),
        ({"m": 3}, ValueError, r"m must be at most the number of healthy members \(2\), got 3"),
        ({"m": 0}, ValueError, "m must be an integer >= 1, got 0"),
        ({"prior": -1.0}, ValueError, "prior"),
        ({"combine": "sum"}, ValueError, "combine must be one of"),
        ({"combine": "logit", "fit": "weights", "val_data": data()}, ValueError, "fit='weights' needs combine='prob'"),
        ({"combine": "mean", "temperature": 2.0}, ValueError, "has no temperature"),
    ],
)
def test_bad_requests(kwargs: dict[str, Any], error: type[Exception], text: str) -> None:
    snaps = collected(noisy(0, 1), noisy(1, 1))
    with pytest.raises(error, match=text):
        snaps.ensemble(**kwargs)
