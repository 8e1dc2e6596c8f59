"""BatchNorm's modes: whose statistics a point uses, and exact ones of all the data whatever the model."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from thalweg.landscape import Directions, Evaluator, _recalibrate, barriers, from_tensors, random_directions


class Residual(nn.Module):
    """Convolutions, a shortcut, two norms in one block."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.other = nn.BatchNorm2d(4)
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(100, 7), nn.BatchNorm1d(7), nn.Dropout(0.4), nn.Linear(7, 3))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.norm(self.first(x)))
        return self.head(torch.relu(self.other(self.second(h)) + h))


class Forgetful(Residual):
    """Keeps an intermediate value of the batch as an attribute: batches side by side would take each other's."""

    def forward(self, x: Tensor) -> Tensor:
        self.kept = torch.relu(self.norm(self.first(x)))
        return self.head(torch.relu(self.other(self.second(self.kept)) + self.kept))


def images(seed: int, n: int = 29) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 2, 5, 5, generator=generator, dtype=torch.float64)
    return x * 2 + torch.linspace(-1, 3, n)[:, None, None, None], torch.randint(0, 3, (n,), generator=generator)


def build(kind: type[nn.Module], seed: int) -> nn.Module:
    torch.manual_seed(seed)
    model = kind().double()
    for layer in model.modules():
        if isinstance(layer, _BatchNorm):
            nn.init.uniform_(layer.weight, 0.5, 1.5), nn.init.normal_(layer.running_mean)
    return model


def one_batch(model: nn.Module, data: tuple[Tensor, Tensor], directions: Directions, points: Any) -> list[float]:
    """All the data as one batch, BatchNorm in train mode, on a copy of the model."""
    model = copy.deepcopy(model).eval()
    for module in model.modules():
        module.training = isinstance(module, _BatchNorm)
    weights = [p.detach().clone() for p in model.parameters()]
    losses = []
    with torch.no_grad():
        for a, b in points:
            for p, w, u, v in zip(model.parameters(), weights, *directions.vectors, strict=True):
                p.copy_((w + a * u) + b * v)
            losses.append(float(nn.functional.cross_entropy(model(data[0]), data[1])))
    return losses


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("batch", [4, 13, 29])
@pytest.mark.parametrize("way", ["side by side", "passes", "streamed", "forgetful"])
def test_recalibrated_is_one_batch_of_all_data(way: str, batch: int, seed: int) -> None:
    model, (x, y) = build(Forgetful if way == "forgetful" else Residual, seed), images(seed)
    directions = random_directions(model, ignore=None, seed=seed)
    points = np.random.default_rng(seed).uniform(-1, 1, (4, 2))
    data: Any = (x, y)
    if way == "streamed":
        data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=batch)
    budget = {"passes": 1000, "streamed": 1000}.get(way)
    size = None if way == "streamed" else batch
    ev = Evaluator(model, "cross_entropy", data, bn="recalibrate", memory_budget=budget, batch_size=size)
    ours = ev.points(directions, points).values["loss"]
    np.testing.assert_allclose(ours, one_batch(model, (x, y), directions, points), rtol=1e-12)


def spied(monkeypatch: pytest.MonkeyPatch) -> list[_recalibrate.Recalibration]:
    """The recalibrations that are made from now on."""
    made: list[_recalibrate.Recalibration] = []
    original = _recalibrate.Recalibration.__init__

    def init(self: _recalibrate.Recalibration, *args: Any) -> None:
        made.append(self)
        original(self, *args)

    monkeypatch.setattr(_recalibrate.Recalibration, "__init__", init)
    return made


@pytest.mark.parametrize(
    ("kind", "budget", "expected"), [(Residual, None, True), (Residual, 1000, False), (Forgetful, None, False)]
)
def test_batches_go_side_by_side_where_they_can(
    monkeypatch: pytest.MonkeyPatch, kind: type[nn.Module], budget: int | None, expected: bool
) -> None:
    made = spied(monkeypatch)
    model, calls = build(kind, 2).float(), 0

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1

    model.register_forward_pre_hook(count)
    x, y = images(2)
    ev = Evaluator(model, "cross_entropy", (x.float(), y), bn="recalibrate", memory_budget=budget, batch_size=10)
    batches, layers, points = 3, 3, 6
    first = layers + 1 + (budget is None) + 1  # passes at the first point: layers, the check, side by side, the loss
    assert calls == batches * first
    calls = 0
    threads = threading.active_count()
    values = ev.line(random_directions(model, 1), (-1, 1, points)).values["loss"]
    assert threading.active_count() == threads
    assert made[-1].side_by_side == expected
    assert calls == batches * points * ((1 if expected else layers) + 1), "what the model bears is found out once"
    other = Evaluator(model, "cross_entropy", (x.float(), y), bn="recalibrate", memory_budget=0, batch_size=10)
    assert np.array_equal(values, other.line(random_directions(model, 1), (-1, 1, 6)).values["loss"])


@pytest.mark.parametrize("bn", ["recalibrate", "batch"])
def test_the_scale_before_batchnorm_does_not_matter(bn: str) -> None:
    """Equal to 12 digits along d = W, as the layer's output does not change (eps aside)."""
    model, data = build(Residual, 3), images(3)
    for layer in model.modules():
        if isinstance(layer, _BatchNorm):
            layer.eps = 1e-300
    ev = Evaluator(model, "cross_entropy", data, bn=bn, batch_size=29 if bn == "batch" else 10)
    for name in ("first.weight", "second.weight", "head.1.weight"):
        direction = {name: model.get_parameter(name).detach()}
        if name == "head.1.weight":
            direction["head.1.bias"] = model.get_parameter("head.1.bias").detach()
        losses = ev.line(from_tensors(model, direction), (-0.5, 3, 6)).values["loss"]
        np.testing.assert_allclose(losses, losses[0], rtol=1e-12)
    frozen = Evaluator(model, "cross_entropy", data).line(from_tensors(model, direction), (-0.5, 3, 6)).values["loss"]
    assert np.ptp(frozen) > 1e-3


def test_dropout_is_off_for_the_statistics_and_on_for_the_loss() -> None:
    model, data = build(Residual, 4), images(4)
    zero = from_tensors(model, {})
    still = Evaluator(model, "cross_entropy", data, bn="recalibrate").points(zero, [[0.0]]).values["loss"][0]
    torch.manual_seed(0)
    noisy = Evaluator(model, "cross_entropy", data, bn="recalibrate", train_mode=True).points(zero, [[0.0], [1.0]])
    assert noisy.values["loss"][0] == noisy.values["loss"][1] != still
    twin = copy.deepcopy(model).train()
    hidden = []
    twin.head[3].register_forward_pre_hook(lambda _, inputs: hidden.append(inputs[0]))
    torch.manual_seed(0)
    with torch.no_grad():
        for layer in twin.modules():
            layer.training = isinstance(layer, (_BatchNorm, nn.Dropout))
        expected = float(nn.functional.cross_entropy(twin(data[0]), data[1]))
    assert noisy.values["loss"][0] == pytest.approx(expected, rel=1e-12)


def test_layers_that_were_not_reached_keep_their_statistics() -> None:
    class Spare(Residual):
        def __init__(self) -> None:
            super().__init__()
            self.spare = nn.BatchNorm1d(3)

    model, data = build(Spare, 5), images(5)
    plain = build(Residual, 5)
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if "spare" not in k})
    values = [Evaluator(m, "cross_entropy", data, bn="recalibrate", batch_size=10).at() for m in (model, plain)]
    assert values[0] == values[1]


def test_compiled_models_and_losses_of_model_and_batch() -> None:
    model, data = build(Residual, 6), images(6)
    loss = lambda m, batch: nn.functional.cross_entropy(m(batch[0]), batch[1])  # noqa: E731
    expected = Evaluator(model, "cross_entropy", data, bn="recalibrate", batch_size=10).at()
    assert Evaluator(model, loss, data, bn="recalibrate", batch_size=10).at() == expected
    compiled = torch.compile(model, backend="eager")
    assert Evaluator(compiled, "cross_entropy", data, bn="recalibrate", batch_size=10).at() == expected


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.last = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm(self.last(self.norm(x))))


class Branching(nn.Module):
    """Which norm comes first hangs on the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.last = nn.BatchNorm1d(3), nn.BatchNorm1d(3), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        first, second = (self.a, self.b) if float(x[0, 0]) > 0 else (self.b, self.a)
        return self.last(second(first(x)))


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (Twice(), "'norm' is called twice in a forward pass"),
        (Branching(), "'b' are reached in another order|'a' are reached in another order"),
        (nn.BatchNorm1d(3, track_running_stats=False), "'' keeps no running statistics"),
        (nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5), nn.RReLU()), None),
    ],
)
def test_what_has_no_statistics_of_layers_is_refused(model: nn.Module, text: str | None) -> None:
    x = torch.randn(12, 3)
    x[:6, 0], x[6:, 0] = 1.0, -1.0
    make: Callable[[], Evaluator] = lambda: Evaluator(  # noqa: E731
        model, "cross_entropy", (x, torch.zeros(12, dtype=torch.long)), batch_size=6, bn="recalibrate"
    )
    if text is None:
        make()
        return
    with pytest.raises(ValueError, match=text):
        make()


def test_a_model_that_draws_in_eval_mode_is_refused() -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(3)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(x) + torch.randn(3)

    data = (torch.randn(9, 3), torch.zeros(9, dtype=torch.long))
    with pytest.raises(ValueError, match="draws random numbers or changes its buffers in eval mode"):
        Evaluator(Noisy(), "cross_entropy", data, bn="recalibrate")


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_inside_a_thread_ends_all_of_them(error: type[BaseException]) -> None:
    model, (x, y) = build(Residual, 7), images(7)
    fail, calls = False, 0

    class Trap(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            nonlocal calls
            calls += fail
            if fail and threading.current_thread() is not threading.main_thread() and calls > 8:
                raise error("in a batch")
            return x

    model.head.insert(0, Trap())
    ev = Evaluator(model, "cross_entropy", (x, y), bn="recalibrate", batch_size=5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    threads, fail = threading.active_count(), True
    directions = random_directions(model, 1)
    with pytest.raises(error, match="in a batch"):
        ev.line(directions, (-1, 1, 5))
    assert calls > 8
    assert threading.active_count() == threads
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


# ---- whose statistics ----------------------------------------------------------------------------------------------


def two_models() -> tuple[nn.Module, nn.Module]:
    return build(Residual, 8), build(Residual, 9)


def test_on_a_line_between_models_statistics_move_or_stay() -> None:
    (a, b), data = two_models(), images(8)
    t = 0.25
    for bn in ("interpolate", "frozen"):
        mixed = copy.deepcopy(a)
        state = {}
        for name, value in a.state_dict().items():
            moves = value.is_floating_point() and (bn == "interpolate" or "running" not in name)
            state[name] = torch.lerp(value, b.state_dict()[name], t) if moves else value
        mixed.load_state_dict(state)
        with torch.no_grad():
            expected = float(nn.functional.cross_entropy(mixed.eval()(data[0]), data[1]))
        ev = Evaluator(a, "cross_entropy", data, bn=bn)
        line = ev.line((a, b), (0, 1, 5))
        assert line.values["loss"][1] == pytest.approx(expected, rel=1e-12)
        assert line.metadata["bn"] == bn
        assert line.values["loss"][-1] == ev.at(b)["loss"], "the end is what `at` gives, in every mode"
        assert line.values["loss"][0] == ev.at()["loss"]
    assert Evaluator(a, "cross_entropy", data).line((a, b), (0, 1, 2)).metadata["bn"] == "interpolate"


def test_frozen_statistics_are_the_models_own_everywhere() -> None:
    (a, b), data = two_models(), images(8)
    mixed = copy.deepcopy(b)
    mixed.load_state_dict({**b.state_dict(), **{k: v for k, v in a.state_dict().items() if "running" in k}})
    frozen = Evaluator(a, "cross_entropy", data, bn="frozen")
    own = Evaluator(a, "cross_entropy", data)
    assert frozen.at(b)["loss"] == own.at(mixed)["loss"] != own.at(b)["loss"]
    directions = random_directions(a)
    planes = [ev.points(directions, [[0.3, 0.1]]).values["loss"][0] for ev in (frozen, own)]
    assert planes[0] == planes[1], "directions say nothing about statistics"
    for ev in (frozen, own):
        found = barriers([a, b], ev, n=3)
        assert found.curves[0, 1][-1] == ev.at(b)["loss"]
