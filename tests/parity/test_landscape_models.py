"""Landscapes of many kinds of models against plain torch bit for bit, and against answers known from theory."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from thalweg.landscape import Directions, Evaluator, from_tensors, plane, random_directions

Data = tuple[Tensor, Tensor]


class Recurrent(nn.Module):
    """Embedding with a padding index, GRU, classifier on the last state."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 5, padding_idx=0)
        self.gru = nn.GRU(5, 6, batch_first=True)
        self.head = nn.Linear(6, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.gru(self.embedding(tokens))[1][-1])


def images(n: int) -> Data:
    return torch.randn(n, 2, 6, 6), torch.randint(0, 4, (n,))


def conv() -> nn.Module:
    model = nn.Sequential(
        nn.Conv2d(2, 5, 3, bias=False), nn.BatchNorm2d(5), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Dropout(0.5), nn.Linear(20, 4),
    )  # fmt: skip
    model(torch.randn(16, 2, 6, 6) * 2)  # running statistics that differ from 0 and 1
    return model


def transformer() -> nn.Module:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    return nn.Sequential(layer, nn.Flatten(), nn.Linear(24, 4))


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[int], Data]]] = {
    "conv": (conv, images),
    "channels last": (lambda: conv().to(memory_format=torch.channels_last), images),
    "recurrent": (Recurrent, lambda n: (torch.randint(0, 11, (n, 7)), torch.randint(0, 4, (n,)))),
    "transformer": (transformer, lambda n: (torch.randn(n, 3, 8), torch.randint(0, 4, (n,)))),
    "bfloat16": (
        lambda: nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 4)).bfloat16(),
        lambda n: (torch.randn(n, 6).bfloat16(), torch.randint(0, 4, (n,))),
    ),
    "float64": (
        lambda: nn.Sequential(nn.Linear(6, 9), nn.LayerNorm(9), nn.Tanh(), nn.Linear(9, 4)).double(),
        lambda n: (torch.randn(n, 6).double(), torch.randint(0, 4, (n,))),
    ),
}


def plain_torch(
    model: nn.Module,
    criterion: Callable[[Tensor, Tensor], Tensor],
    data: Data,
    batch: int,
    directions: Directions,
    coordinates: Sequence[tuple[float, float]],
    batch_statistics: bool = False,
) -> np.ndarray:
    """The loop that anybody would write, on a copy of the model."""
    model = copy.deepcopy(model).eval()
    for module in model.modules():
        module.training = batch_statistics and isinstance(module, _BatchNorm)
    weights = [p.detach().clone() for p in model.parameters()]
    losses = np.empty(len(coordinates))
    with torch.no_grad():
        for i, (a, b) in enumerate(coordinates):
            for p, w, u, v in zip(model.parameters(), weights, *directions.vectors, strict=True):
                p.copy_((w.to(u.dtype) + a * u) + b * v)
            total = 0.0
            for x, y in zip(data[0].split(batch), data[1].split(batch), strict=True):
                total += float(criterion(model(x), y)) * len(y)
            losses[i] = total / len(data[1])
    return losses


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("case", list(CASES))
def test_every_kind_of_model_has_the_bits_of_plain_torch(case: str, seed: int) -> None:
    torch.manual_seed(seed)
    build, draw = CASES[case]
    model, data = build(), draw(23)
    directions = random_directions(model, seed=seed, ignore=None)
    coordinates = np.random.default_rng(seed).uniform(-1, 1, (5, 2))
    ours = Evaluator(model, "cross_entropy", data, batch_size=10).points(directions, coordinates).values["loss"]
    expected = plain_torch(model, nn.functional.cross_entropy, data, 10, directions, coordinates.tolist())
    assert np.array_equal(ours, expected)
    assert np.ptp(ours) > 0


@pytest.mark.parametrize("reduction", ["mean", "none", "sum"])
@pytest.mark.parametrize(
    "options",
    [
        {"ignore_index": -100, "label_smoothing": 0.1},
        {"weight": torch.tensor([1.0, 0.25, 3.0, 0.0])},
        {"weight": torch.tensor([1.0, 0.25, 3.0, 0.5]), "ignore_index": 2},
    ],
)
def test_ignored_and_weighted_targets_count_as_in_one_batch(reduction: str, options: dict[str, object]) -> None:
    """The mean over all data is that over the targets that count, whatever the batches: torch's own of one batch."""
    torch.manual_seed(2)
    model, (x, y) = conv().double(), images(21)
    x = x.double()
    y[::3] = int(options.get("ignore_index", 1))
    y[8:16] = y[0]  # a batch that may hold nothing else
    options = {k: v.double() if isinstance(v, Tensor) else v for k, v in options.items()}
    criterion = nn.CrossEntropyLoss(**options, reduction=reduction)
    directions = random_directions(model)
    ours = Evaluator(model, criterion, (x, y), batch_size=8).points(directions, [[0.3, -0.2]]).values["loss"]
    whole = nn.CrossEntropyLoss(**options, reduction="sum" if reduction == "sum" else "mean")
    expected = plain_torch(model, whole, (x, y), 21, directions, [(0.3, -0.2)])
    np.testing.assert_allclose(ours, expected, rtol=1e-12)


def test_batch_statistics_have_the_bits_of_batchnorm_in_train_mode() -> None:
    torch.manual_seed(3)
    model, data = conv(), images(26)
    directions = random_directions(model)
    coordinates = [(0.5, -0.1), (-1.0, 0.25)]
    ours = Evaluator(model, "cross_entropy", data, batch_size=12, bn="batch").points(directions, coordinates)
    expected = plain_torch(model, nn.functional.cross_entropy, data, 12, directions, coordinates, True)
    assert np.array_equal(ours.values["loss"], expected)


def test_recalibrated_statistics_are_those_of_the_whole_data_set() -> None:
    """Whatever the batches: float64 mean and population variance over all samples and pixels at once."""
    torch.manual_seed(4)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 4)).double()
    x, y = images(29)
    x = x.double() * 3 + 1
    directions = random_directions(model)
    for a, b in ((0.0, 0.0), (0.7, -0.4)):
        twin = copy.deepcopy(model).eval()
        with torch.no_grad():
            for p, u, v in zip(twin.parameters(), *directions.vectors, strict=True):
                p.add_(a * u + b * v)
            features = twin[0](x).transpose(0, 1).flatten(1)
            twin[1].running_mean.copy_(features.mean(1))
            twin[1].running_var.copy_(features.var(1, correction=0))
            expected = float(nn.functional.cross_entropy(twin(x), y))
        for batch in (5, 29):
            ev = Evaluator(model, "cross_entropy", (x, y), batch_size=batch, bn="recalibrate")
            ours = ev.points(directions, [[a, b]]).values["loss"][0]
            assert ours == pytest.approx(expected, rel=1e-12), (a, b, batch)


def test_softmax_regression_is_convex_along_every_line(rng: np.random.Generator) -> None:
    torch.manual_seed(int(rng.integers(1000)))
    model = nn.Linear(5, 3).double()
    data = (torch.randn(40, 5).double(), torch.randint(0, 3, (40,)))
    directions = random_directions(model, norm="none", seed=int(rng.integers(1000)), ignore=None)
    loss = Evaluator(model, "cross_entropy", data).grid(directions, (-3, 2, 9), (-1, 4, 7)).values["loss"]
    for bend in (
        np.diff(loss, 2, axis=0),
        np.diff(loss, 2, axis=1),
        loss[2:, 2:] + loss[:-2, :-2] - 2 * loss[1:-1, 1:-1],
        loss[2:, :-2] + loss[:-2, 2:] - 2 * loss[1:-1, 1:-1],
    ):
        assert bend.min() > -1e-12
        assert bend.max() > 1e-3


def test_second_differences_are_the_curvature_and_average_to_the_trace() -> None:
    """Bottcher & Wheeler, arXiv 2208.13219: in a random plane one sees the mean of the Hessian's eigenvalues."""
    torch.manual_seed(5)
    model = nn.Linear(12, 1, bias=False).double()
    x, y = torch.randn(50, 12).double() * torch.linspace(0.1, 3, 12), torch.randn(50, 1).double()
    hessian = 2 * (x.T @ x / 50).numpy()
    directions = random_directions(model, 300, norm="none", ignore=None, seed=6)
    ev = Evaluator(model, "mse", (x, y))
    found = []
    for vector in directions.vectors:
        one = from_tensors(model, {"weight": vector[0]})
        low, middle, high = ev.points(one, [[-0.5], [0.0], [0.5]]).values["loss"]
        d = vector[0].double().numpy().ravel()
        found.append((low - 2 * middle + high) / 0.25)
        assert found[-1] == pytest.approx(d @ hessian @ d, rel=1e-9)
    error = np.std(found, ddof=1) / np.sqrt(len(found))
    assert abs(np.mean(found) - np.trace(hessian)) < 4 * error


def test_plane_through_three_models_shows_their_own_losses() -> None:
    models = []
    for seed in range(3):
        torch.manual_seed(seed)
        models.append(nn.Sequential(nn.Linear(4, 7), nn.Tanh(), nn.Linear(7, 3)).double())
    data = (torch.randn(30, 4).double(), torch.randint(0, 3, (30,)))
    directions = plane(*models)
    ev = Evaluator(models[1], "cross_entropy", data)  # the plane's origin is the first model, not the evaluated one
    seen = ev.points(directions, directions.extra["coordinates"]).values["loss"]
    np.testing.assert_allclose(seen, [ev.at(model)["loss"] for model in models], rtol=1e-12)


def test_a_range_without_the_origin_and_axes_of_one_point() -> None:
    torch.manual_seed(7)
    model, data = conv(), images(12)
    directions = random_directions(model)
    ev = Evaluator(model, "cross_entropy", data)
    wide = ev.grid(directions, x=(0.5, 1.5, 3), y=(-2.0, -1.0, 2))
    single = ev.grid(directions, x=(1.0, 1.0, 1), y=(-2.0, -2.0, 1))
    assert single.values["loss"].shape == (1, 1)
    assert single.values["loss"][0, 0] == wide.values["loss"][0, 1]


def test_a_point_that_overflows_leaves_the_others_as_they_are() -> None:
    torch.manual_seed(8)
    model, data = conv(), images(12)
    directions = random_directions(model)
    ev = Evaluator(model, "cross_entropy", data)
    calm = ev.points(directions, [[0.1, 0.2], [-0.3, 0.4]]).values["loss"]
    wild = ev.points(directions, [[0.1, 0.2], [1e30, 1e30], [-0.3, 0.4]]).values["loss"]
    assert not np.isfinite(wild[1])
    assert np.array_equal(wild[[0, 2]], calm)
