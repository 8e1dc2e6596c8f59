"""Metrics of a point against NumPy and torch; data in every form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from thalweg.landscape import Evaluator, random_directions

ALL = ("loss", "accuracy", "top5", "confidence", "margin", "stderr", "l2")


def classifier(seed: int, classes: int = 9) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(57, 4, generator=generator)
    y = torch.randint(0, classes, (57,), generator=generator)
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, classes)), x, y


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_all_metrics_of_one_pass_against_numpy(seed: int, reduction: str) -> None:
    model, x, y = classifier(seed)
    criterion = nn.CrossEntropyLoss(reduction=reduction)
    found = Evaluator(model, criterion, (x, y), metrics=ALL, batch_size=10).at()
    assert criterion.reduction == reduction
    with torch.no_grad():
        scores = model(x).double().numpy()
    probabilities = np.exp(scores - scores.max(1, keepdims=True))
    probabilities /= probabilities.sum(1, keepdims=True)
    losses = -np.log(probabilities[np.arange(57), y])
    scale = 57 if reduction == "sum" else 1
    ranks = (-scores).argsort(axis=1, kind="stable")
    assert found["accuracy"] == (ranks[:, 0] == y.numpy()).mean()
    assert found["top5"] == (ranks[:, :5] == y.numpy()[:, None]).any(1).mean()
    np.testing.assert_allclose(found["loss"], losses.mean() * scale, rtol=1e-6)
    np.testing.assert_allclose(found["confidence"], probabilities.max(1).mean(), rtol=1e-6)
    others = np.where(np.arange(9) == y.numpy()[:, None], -np.inf, scores).max(1)
    np.testing.assert_allclose(found["margin"], (scores[np.arange(57), y] - others).mean(), rtol=1e-5)
    np.testing.assert_allclose(
        found["l2"], sum((p.detach().double().numpy() ** 2).sum() for p in model.parameters()), rtol=1e-12
    )
    np.testing.assert_allclose(found["stderr"], losses.std(ddof=1) / np.sqrt(57) * scale, rtol=1e-5)


def test_stderr_of_other_losses() -> None:
    model, x, _ = classifier(0)
    targets = torch.randn(57, 9)
    with torch.no_grad():
        each = ((model(x) - targets) ** 2).mean(1)
    expected = float(each.std() / 57**0.5)
    vector = lambda m, batch: ((m(batch[0]) - batch[1]) ** 2).mean(1)  # noqa: E731
    for loss in ("mse", nn.MSELoss(), nn.functional.mse_loss, vector):
        found = Evaluator(model, loss, (x, targets), metrics=("stderr", "loss"), batch_size=20).at()
        np.testing.assert_allclose(found["stderr"], expected, rtol=1e-5)
    assert np.isnan(Evaluator(model, "mse", (x[:1], targets[:1]), metrics=("stderr",)).at()["stderr"])
    for loss in (lambda m, batch: vector(m, batch).mean(), Plain()):
        with pytest.raises(ValueError, match="stderr needs the loss of every sample"):
            Evaluator(model, loss, (x, targets), metrics=("loss", "stderr"))


class Plain(nn.Module):
    """A loss without `reduction`."""

    def forward(self, output: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return (output - targets).abs().mean()


def test_scores_for_every_pixel() -> None:
    model = nn.Conv2d(2, 6, 1)
    x, y = torch.randn(7, 2, 3, 5), torch.randint(0, 6, (7, 3, 5))
    found = Evaluator(model, "cross_entropy", (x, y), metrics=ALL, batch_size=3).at()
    with torch.no_grad():
        scores = model(x)
    np.testing.assert_allclose(found["accuracy"], float((scores.argmax(1) == y).double().mean()), rtol=1e-12)
    np.testing.assert_allclose(found["confidence"], float(scores.softmax(1).amax(1).mean()), rtol=1e-6)


def test_ties_go_to_the_first_and_nan_is_wrong() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shift = nn.Parameter(torch.zeros(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.shift

    rows = torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0], [float("nan"), 1.0, 0.0], [0.0, 0.0, 0.0]])
    evaluate = lambda y: Evaluator(Fixed(), Plain(), (rows, torch.tensor(y)), metrics=("accuracy",)).at()["accuracy"]  # noqa: E731
    assert evaluate([0, 1, 1, 0]) == 0.75
    assert evaluate([1, 2, 0, 2]) == 0.0
    assert evaluate([-100, 7, 1, 0]) == 0.25, "a target that is no class is wrong, not a read past the end"


def test_margin_of_ties_and_of_what_is_no_number() -> None:
    model = Scores()
    inf, nan = float("inf"), float("nan")
    rows = [[1.0, 1.0, 0.0], [0.0, -inf, -2.0], [0.0, 2.0, -inf]]

    def margin(row: list[float], target: int) -> float:
        data = (torch.tensor([row]), torch.tensor([target]))
        return Evaluator(model, Plain(), data, metrics=("margin",)).at()["margin"]

    assert [margin(rows[0], t) for t in range(3)] == [0.0, 0.0, -1.0]
    assert [margin(rows[1], t) for t in range(3)] == [2.0, -inf, -2.0]
    assert margin(rows[2], 1) == 2.0
    for place in range(3):
        row = [1.0, 2.0, 3.0]
        row[place] = nan
        assert all(np.isnan(margin(row, t)) for t in range(3)), "NaN anywhere is NaN"
    assert np.isnan(margin([inf, inf, 0.0], 0))
    for target in (-100, -1, 3):
        assert np.isnan(margin(rows[0], target)), "a target that is no class"


class Scores(nn.Module):
    """Its inputs are its outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.shift


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("ignored", [-100, 2])
@pytest.mark.parametrize("pixels", [False, True])
def test_ignored_targets_count_in_no_metric(pixels: bool, ignored: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    shape = (23, 7, 3) if pixels else (23, 7)
    scores = torch.randn(shape, generator=generator, dtype=torch.float64)
    y = torch.randint(0, 7, shape[:1] + shape[2:], generator=generator)
    y[torch.rand(y.shape, generator=generator) < 0.3] = ignored
    weight = torch.rand(7, generator=generator, dtype=torch.float64)
    criterion = nn.CrossEntropyLoss(weight=weight, ignore_index=ignored)
    found = Evaluator(Scores().double(), criterion, (scores, y), metrics=ALL, batch_size=5).at()
    rows = scores.movedim(1, -1).reshape(-1, 7).numpy()
    targets = y.reshape(-1).numpy()
    keep = targets != ignored
    rows, kept = rows[keep], targets[keep]
    own = rows[np.arange(len(kept)), kept]
    probabilities = np.exp(rows) / np.exp(rows).sum(1, keepdims=True)
    others = np.where(np.arange(7) == kept[:, None], -np.inf, rows).max(1)
    losses, weights = -np.log(probabilities[np.arange(len(kept)), kept]), weight.numpy()[kept]
    ranks = (-rows).argsort(1, kind="stable")
    expected = {
        "loss": (losses * weights).sum() / weights.sum(),
        "accuracy": (ranks[:, 0] == kept).mean(),
        "top5": (ranks[:, :5] == kept[:, None]).any(1).mean(),
        "confidence": probabilities.max(1).mean(),
        "margin": (own - others).mean(),
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-12), name
    samples = np.arange(23).repeat(3 if pixels else 1)[keep]
    parts = [(losses * weights)[samples == i].sum() - expected["loss"] * weights[samples == i].sum() for i in range(23)]
    error = np.sqrt(np.square(parts).sum() * 23 / 22) / weights.sum()
    assert found["stderr"] == pytest.approx(error, rel=1e-9)


def test_stderr_of_weighted_losses_is_the_spread_over_samples_drawn_anew() -> None:
    """Against the bootstrap, which knows no formula."""
    generator = np.random.default_rng(0)
    scores, y = torch.from_numpy(generator.normal(size=(400, 4))), torch.from_numpy(generator.integers(0, 4, 400))
    criterion = nn.CrossEntropyLoss(weight=torch.tensor([0.2, 1.0, 3.0, 0.0]).double())
    found = Evaluator(Scores().double(), criterion, (scores, y), metrics=("stderr",)).at()["stderr"]
    draws = [torch.from_numpy(generator.integers(0, 400, 400)) for _ in range(2000)]
    spread = np.std([float(criterion(scores[d], y[d])) for d in draws])
    assert found == pytest.approx(spread, rel=0.1)


@pytest.mark.parametrize("kind", ["ragged", "soft"])
def test_batches_of_other_lengths_count_by_target_and_soft_targets_by_sample(kind: str) -> None:
    torch.manual_seed(0)
    if kind == "soft":
        batches = [(torch.randn(n, 4), torch.softmax(torch.randn(n, 4), 1)) for n in (3, 8)]
        whole = [torch.cat(parts) for parts in zip(*batches, strict=True)]
    else:
        batches = [(torch.randn(n, 4, k), torch.randint(0, 4, (n, k))) for n, k in ((3, 5), (8, 2))]
        flat = [(x.movedim(1, -1).reshape(-1, 4), y.reshape(-1)) for x, y in batches]
        whole = [torch.cat(parts) for parts in zip(*flat, strict=True)]
    found = Evaluator(Scores(), "cross_entropy", batches).at()["loss"]
    assert found == pytest.approx(float(nn.functional.cross_entropy(*whole)), rel=1e-6)


@pytest.mark.parametrize(
    ("metrics", "text"),
    [
        (("top5",), "at least 5 classes"),
        ((("name", 3),), "metric must be one of"),
        (("loss", ("loss", max)), "given twice"),
        ((), "metrics must be a list"),
    ],
)
def test_bad_metrics(metrics: Any, text: str) -> None:
    model, x, y = classifier(0, classes=3)
    with pytest.raises((ValueError, TypeError), match=text):
        Evaluator(model, "cross_entropy", (x, y), metrics=metrics)


def test_accuracy_says_what_it_needs() -> None:
    model, x, _ = classifier(0)
    with pytest.raises(ValueError, match=r"got scores of shape \(10, 9\) and targets of shape \(10, 9\)"):
        Evaluator(model, "mse", (x, torch.randn(57, 9)), metrics=("accuracy",), batch_size=10)


# ---- data -----------------------------------------------------------------------------------------------------


class Pairs(Dataset[Any]):
    """A data set that is not a TensorDataset; its samples have Python numbers as targets."""

    def __init__(self, x: torch.Tensor, y: torch.Tensor) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Any:
        return self.x[index], int(self.y[index])


def test_data_sets_give_the_values_of_their_tensors() -> None:
    model, x, y = classifier(3)
    want = Evaluator(model, "cross_entropy", (x, y), batch_size=10)
    for data in (TensorDataset(x, y), Pairs(x, y)):
        ev = Evaluator(model, "cross_entropy", data, batch_size=10)
        assert ev.at() == want.at()
        assert ev.count == 57
        meta = ev.points(random_directions(model), [[0.0, 0.0]]).metadata
        assert meta["batch_sizes"] == [10, 7]
        assert Evaluator(model, "cross_entropy", data).at() == Evaluator(model, "cross_entropy", (x, y)).at()
    loader = DataLoader(TensorDataset(x, y), batch_size=10)
    assert Evaluator(model, "cross_entropy", loader).at() == want.at()
    with pytest.raises(ValueError, match="DataLoader brings its own batches"):
        Evaluator(model, "cross_entropy", loader, batch_size="tune")
    with pytest.raises(ValueError, match="holds no samples"):
        Evaluator(model, "cross_entropy", Pairs(x[:0], y[:0]))


def test_batches_of_mappings() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 9)

        def forward(self, features: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
            return self.layer(features) * scale[:, None]

    _, x, y = classifier(0)
    batches = [
        ({"features": x[i : i + 20], "scale": torch.ones(len(x[i : i + 20]))}, y[i : i + 20]) for i in (0, 20, 40)
    ]
    model = Named()
    named = Evaluator(model, "cross_entropy", batches, metrics=("loss", "accuracy")).at()
    assert named == Evaluator(model.layer, "cross_entropy", (x, y), metrics=("loss", "accuracy"), batch_size=20).at()


def test_batches_that_only_the_loss_knows() -> None:
    """As Hugging Face's: dictionaries in, a data class with the loss out."""

    @dataclass
    class Output:
        loss: torch.Tensor
        logits: torch.Tensor

    class Language(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 9)

        def forward(self, features: torch.Tensor, labels: torch.Tensor) -> Output:
            logits = self.layer(features)
            return Output(nn.functional.cross_entropy(logits, labels), logits)

    _, x, y = classifier(1)
    model = Language()
    want = Evaluator(model.layer, "cross_entropy", (x, y), batch_size=20).at()
    by_name = [{"features": x[i : i + 20], "labels": y[i : i + 20]} for i in (0, 20, 40)]
    triples = [(x[i : i + 20], None, {"y": y[i : i + 20]}) for i in (0, 20, 40)]
    rows = [{"features": x[i], "labels": y[i]} for i in range(57)]
    hashes = set()
    for data, loss in (
        (by_name, lambda m, b: m(**b).loss),
        (DataLoader(rows, batch_size=20), lambda m, b: m(**b).loss),
        (triples, lambda m, b: m(b[0], b[2]["y"]).loss),
        ([(x, {"y": y})], lambda m, b: m(b[0], b[1]["y"]).loss),
    ):
        for budget in (None, 0):
            ev = Evaluator(model, loss, data, memory_budget=budget)
            assert ev.count == 57
            assert ev.at()["loss"] == pytest.approx(want["loss"], rel=1e-6)
            hashes.add(ev.line(random_directions(model, 1), (0, 0, 1)).metadata["data_hash"])
    assert len(hashes) == 3
    with pytest.raises(TypeError, match=r"got dict; give loss_fn\(model, batch\)"):
        Evaluator(model, "cross_entropy", by_name)


def test_numpy_arrays_are_data() -> None:
    model, x, y = classifier(2)
    assert (
        Evaluator(model, "cross_entropy", (x.numpy(), y.numpy())).at() == Evaluator(model, "cross_entropy", (x, y)).at()
    )


def test_hashes_tell_data_and_models_apart() -> None:
    model, x, y = classifier(0)

    def facts(data: Any, size: int | None = 10) -> dict[str, Any]:
        return Evaluator(model, "cross_entropy", data, batch_size=size).line(random_directions(model, 1)).metadata

    base = facts((x, y))
    other = x.clone()
    other[3, 1] += 1e-6
    assert facts((x, y), 7)["data_hash"] == base["data_hash"], "the same samples in other batches"
    assert facts((other, y))["data_hash"] != base["data_hash"]
    assert facts((x, (y + 1) % 9))["data_hash"] != base["data_hash"]
    assert facts((x, y))["weights_hash"] == base["weights_hash"]
    with torch.no_grad():
        model[0].bias[0] += 1
    assert facts((x, y))["weights_hash"] != base["weights_hash"]
    assert base["dtypes"] == ["float32"]
    assert base["samples"] == 57


@pytest.mark.parametrize(("width", "batch"), [(4096, 128), (512, 1024), (4, 4096)])
def test_default_batch_keeps_the_widest_activation_within_two_mebibytes(width: int, batch: int) -> None:
    model = nn.Sequential(nn.Linear(1, width, bias=False), nn.AdaptiveAvgPool1d(1))
    data = (torch.zeros(batch + 1, 1), torch.zeros(batch + 1, 1))
    found = Evaluator(model, "mse", data).line(random_directions(model, 1), (0, 0, 1))
    assert found.metadata["batch_sizes"] == [batch, 1]
