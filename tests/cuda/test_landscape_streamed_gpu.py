"""On a device: streamed data, BatchNorm statistics of all data, metrics of targets that count, volumes."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader, TensorDataset

from thalweg.landscape import Evaluator, random_directions

pytestmark = pytest.mark.cuda

METRICS = ("loss", "accuracy", "top5", "confidence", "margin", "stderr", "l2")


def net(device: torch.device) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
        nn.Linear(4 * 36, 8, bias=False), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 7),
    )  # fmt: skip
    model(torch.randn(20, 1, 6, 6))
    return model.to(device)


def images(n: int = 48) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, 1, 6, 6, generator=generator), torch.randint(0, 7, (n,), generator=generator)


def bits(model: nn.Module) -> dict[str, bytes]:
    return {name: value.detach().cpu().numpy().tobytes() for name, value in model.state_dict().items()}


@pytest.mark.parametrize(
    "options",
    [{}, {"bn": "batch"}, {"bn": "recalibrate"}, {"train_mode": True}, {"bn": "recalibrate", "train_mode": True}],
)
@pytest.mark.parametrize("source", ["loader", "pair"])
def test_streamed_data_give_the_bits_of_resident_data(
    device: torch.device, options: dict[str, Any], source: str
) -> None:
    model = net(device)
    before = bits(model)
    if source == "pair" and torch.device(device).type == "cpu":
        pytest.skip("the emulated device's memory is the host's: a pair is where it is needed")
    data: Any = images() if source == "pair" else DataLoader(TensorDataset(*images()), batch_size=16)
    size = 16 if source == "pair" else None
    directions = random_directions(model, ignore=None)
    coordinates = np.random.default_rng(0).uniform(-1, 1, (7, 2))
    found = []
    for budget in (None, 100):
        ev = Evaluator(model, "cross_entropy", data, METRICS, size, memory_budget=budget, **options)
        assert ev._evaluation.data.streamed == (budget is not None)
        found.append(ev.points(directions, coordinates))
    for name in METRICS:
        assert np.array_equal(found[0].values[name], found[1].values[name]), name
    assert found[1].metadata["graph_reason"] == "the data are streamed"
    assert found[0].metadata["data_hash"] == found[1].metadata["data_hash"]
    assert bits(model) == before


def test_a_shuffled_loader_with_pinned_memory(device: torch.device) -> None:
    model = net(device)
    loader = DataLoader(TensorDataset(*images()), batch_size=16, shuffle=True, pin_memory=device.type == "cuda")
    directions = random_directions(model)
    values = [
        Evaluator(model, "cross_entropy", loader, memory_budget=budget).line(directions, (-1, 1, 5)).values["loss"]
        for budget in (None, 100)
    ]
    assert np.array_equal(*values)


@pytest.mark.parametrize("way", ["side by side", "passes", "streamed"])
def test_recalibrated_is_one_batch_of_all_data(device: torch.device, way: str) -> None:
    model = net(device).double()
    x, y = images()
    x = x.double()
    directions = random_directions(model, ignore=None)
    data: Any = (x, y) if way != "streamed" else DataLoader(TensorDataset(x, y), batch_size=10)
    if way == "passes":
        data = (x.to(device), y.to(device))
    budget = None if way == "side by side" else 1000
    size = None if way == "streamed" else 10
    ev = Evaluator(model, "cross_entropy", data, batch_size=size, bn="recalibrate", memory_budget=budget)
    points = [(0.0, 0.0), (0.4, -0.6), (-1.0, 0.5)]
    ours = ev.points(directions, points).values["loss"]
    twin = copy.deepcopy(model).eval()
    for module in twin.modules():
        module.training = isinstance(module, _BatchNorm)
    weights = [p.detach().clone() for p in twin.parameters()]
    with torch.no_grad():
        for (a, b), loss in zip(points, ours, strict=True):
            for p, w, u, v in zip(twin.parameters(), weights, *directions.vectors, strict=True):
                p.copy_((w + a * u) + b * v)
            expected = float(nn.functional.cross_entropy(twin(x.to(device)), y.to(device)))
            assert loss == pytest.approx(expected, rel=1e-12)


def test_ignored_targets_and_margins(device: torch.device) -> None:
    model = net(device).double()
    x, y = images()
    x, y = x.double(), y.clone()
    y[::4] = -100
    y[16:32] = -100  # a batch of nothing else
    weight = torch.rand(7, dtype=torch.float64)
    criterion = nn.CrossEntropyLoss(weight=weight).to(device)
    found = Evaluator(model, criterion, (x, y), METRICS, 16).points(random_directions(model), [[0.0, 0.0]] * 4)
    with torch.no_grad():
        scores = copy.deepcopy(model).eval()(x.to(device)).cpu()[y >= 0]
    kept = y[y >= 0]
    loss = float(nn.functional.cross_entropy(scores, kept, weight))
    own = scores.gather(1, kept[:, None])[:, 0]
    others = scores.scatter(1, kept[:, None], -torch.inf).amax(1)
    expected = {
        "loss": loss,
        "accuracy": float((scores.argmax(1) == kept).double().mean()),
        "confidence": float(scores.softmax(1).amax(1).mean()),
        "margin": float((own - others).mean()),
        "l2": sum(float(p.detach().square().sum()) for p in model.parameters()),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(found.values[name], value, rtol=1e-10, err_msg=name)


def test_a_volume_has_the_values_of_points(device: torch.device) -> None:
    model = net(device)
    ev = Evaluator(model, "cross_entropy", images(), batch_size=16)
    directions = random_directions(model, 3)
    volume = ev.volume(directions, (-1, 1, 3), (-1, 1, 2), (0, 1, 2))
    rows = [[x, y, z] for z in volume.z for y in volume.y for x in volume.x]
    assert np.array_equal(volume.values["loss"].ravel(), ev.points(directions, rows).values["loss"])


def test_16_bit_weights_that_do_not_move_are_counted(device: torch.device) -> None:
    model = nn.Linear(36, 7).to(device, torch.bfloat16)
    x, y = images()
    ev = Evaluator(model, "cross_entropy", (x.flatten(1).bfloat16(), y))
    with pytest.warns(UserWarning, match="of the 16-bit weights do not move"):
        ev.line(random_directions(model, 1), (-0.0005, 0.0005, 3))
