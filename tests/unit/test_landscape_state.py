"""What evaluation must leave alone, and what every point must start from."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn

from thalweg import landscape as ls
from thalweg.landscape import Evaluator, from_tensors, random_directions

DATA = (torch.randn(12, 3, generator=torch.Generator().manual_seed(5)), torch.arange(12) % 2)
COORDINATES = np.array([[0.1, 0.2], [0.7, -0.4], [-0.5, 0.0], [0.0, 0.0], [0.3, 0.3]])


class Restless(nn.Module):
    """Changes whatever a forward pass can change: buffers in place and by assignment, attributes, a cache."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.register_buffer("in_place", torch.zeros(()))
        self.register_buffer("assigned", torch.zeros(()))
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.in_place += 1
        self.assigned = self.assigned + 1
        self.calls += 1
        self.cache = x * 2
        if "late" not in self._buffers:
            self.register_buffer("late", torch.ones(2))
        return self.layer(x) * (1 + 0.1 * self.in_place) + 0.1 * self.assigned


def test_a_restless_model_is_as_before() -> None:
    model = Restless()
    kept = model.in_place, model.assigned
    Evaluator(model, "cross_entropy", DATA, batch_size=5).grid(random_directions(model), (-1, 1, 3), (-1, 1, 2))
    assert (model.in_place, model.assigned) == kept
    assert all(not buffer.is_inference() and float(buffer) == 0 for buffer in model.buffers())
    assert [name for name, _ in model.named_buffers()] == ["in_place", "assigned"]
    assert model.calls == 0
    assert not hasattr(model, "cache")
    model(DATA[0]).sum().backward()  # no tensor of inference mode is left in the way of training


def test_every_point_starts_from_the_same_buffers() -> None:
    model = Restless()
    ev = Evaluator(model, "cross_entropy", DATA)
    directions = random_directions(model, ignore=None)
    order = [3, 0, 4, 2, 1]
    straight = ev.points(directions, COORDINATES).values["loss"]
    assert np.array_equal(straight[order], ev.points(directions, COORDINATES[order]).values["loss"])
    assert straight[3] == ev.at()["loss"]
    pair = (model.state_dict(), nn.init.normal_(model.layer.weight) is None or model.state_dict())
    ends = ev.line(pair, (0, 1, 3)).values["loss"]
    back = ev.line(pair, (1, 0, 3)).values["loss"]
    assert np.array_equal(ends, back[::-1])


@pytest.mark.parametrize("source", ["torch", "numpy", "python"])
def test_every_point_draws_the_same_numbers(source: str) -> None:
    draw = {"torch": lambda: float(torch.rand(())), "numpy": np.random.rand, "python": random.random}[source]
    model = nn.Linear(3, 2)

    def loss(m: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return nn.functional.cross_entropy(m(batch[0]), batch[1]) + draw()

    ev = Evaluator(model, loss, DATA)
    directions = random_directions(model)
    values = ev.points(directions, COORDINATES).values["loss"]
    assert np.array_equal(values[::-1], ev.points(directions, COORDINATES[::-1]).values["loss"])
    first = draw()
    ev.at()
    assert draw() != first, "the caller's own stream goes on"


def test_train_mode_drops_the_same_units_at_every_point() -> None:
    model = nn.Sequential(nn.Linear(3, 50), nn.BatchNorm1d(50), nn.Dropout(0.5), nn.Linear(50, 2))
    still = Evaluator(model, "cross_entropy", DATA)
    noisy = Evaluator(model, "cross_entropy", DATA, train_mode=True)
    zero = from_tensors(model, {})
    torch.manual_seed(0)
    values = noisy.points(zero[:1], [[0.0], [1.0], [2.0]]).values["loss"]
    assert len(set(values)) == 1
    assert values[0] != still.at()["loss"]
    torch.manual_seed(0)
    model.train()
    model[1].eval()
    with torch.no_grad():
        assert values[0] == float(nn.functional.cross_entropy(model(DATA[0]), DATA[1]))
    with pytest.raises(TypeError, match="train_mode must be True or False"):
        Evaluator(model, "cross_entropy", DATA, train_mode="yes")


def test_gradients_cannot_be_added_to_meanwhile() -> None:
    model = nn.Linear(3, 2)
    model.weight.grad = torch.ones(2, 3)
    kept = model.weight.grad

    def loss(m: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        with torch.inference_mode(False), torch.enable_grad():
            value = (m.weight * 2).sum()
            value.backward()
        return value.detach()

    Evaluator(model, loss, DATA).at()
    assert model.weight.grad is kept
    assert torch.equal(kept, torch.ones(2, 3))
    assert model.bias.grad is None


def test_interrupt_while_putting_back_still_puts_back(monkeypatch: pytest.MonkeyPatch) -> None:
    from thalweg.landscape import _saved

    model = nn.Linear(3, 2)
    ev = Evaluator(model, "cross_entropy", DATA)
    before = [p.detach().clone() for p in model.parameters()]
    original, calls = _saved.Saved.restore, []

    def restore(self: _saved.Saved) -> None:
        calls.append(1)
        if len(calls) == 1:
            raise KeyboardInterrupt
        original(self)

    monkeypatch.setattr(_saved.Saved, "restore", restore)
    with pytest.raises(KeyboardInterrupt):
        ev.points(random_directions(model), COORDINATES)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_hooks_stay_and_are_called() -> None:
    model = nn.Linear(3, 2)
    seen = []
    handle = model.register_forward_hook(lambda *_: seen.append(1))
    Evaluator(model, "cross_entropy", DATA).at()
    assert seen
    count = len(seen)
    model(DATA[0])
    assert len(seen) == count + 1
    handle.remove()
    assert not model._forward_hooks


def test_old_weight_norm_leaves_a_model_that_trains() -> None:
    """It stores the effective weight as a plain attribute in every forward pass."""
    with pytest.warns(FutureWarning):
        model = nn.utils.weight_norm(nn.Linear(3, 2))
    weight = model.weight
    Evaluator(model, "cross_entropy", DATA).line(random_directions(model, 1, ignore=None), (-1, 1, 3))
    assert model.weight is weight
    model(DATA[0]).sum().backward()


# ---- parameters that share memory ---------------------------------------------------------------------------


class Shared(nn.Module):
    def __init__(self, *parameters: torch.Tensor) -> None:
        super().__init__()
        for i, parameter in enumerate(parameters):
            self.register_parameter(f"p{i}", nn.Parameter(parameter))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def test_views_of_one_memory_move_with_their_holder() -> None:
    base = torch.arange(12.0)
    model = Shared(base[:4], base.view(3, 4), base[4:8])
    directions = from_tensors(model, {"p1": torch.ones(3, 4)})
    assert directions.names == ("p1",)
    line = Evaluator(model, lambda m, b: m.p0.sum() + m.p2.sum(), DATA).line(directions, (0, 1, 2))
    assert line.values["loss"].tolist() == [28.0, 36.0]
    transposed = Shared(square := torch.randn(3, 3), square.T)
    assert random_directions(transposed, ignore=None).names == ("p0",)


def test_memory_shared_in_part_is_refused() -> None:
    base = torch.arange(10.0)
    with pytest.raises(ValueError, match="'p0' and 'p1' share a part of their memory"):
        random_directions(Shared(base[:6], base[4:]), ignore=None)
    random_directions(Shared(base[:5], base[5:]), ignore=None)  # side by side is fine
    interleaved = random_directions(Shared(base[::2], base[1::2], base[::2]), ignore=None)
    assert interleaved.names == ("p0", "p1")


@pytest.mark.parametrize(
    ("parameter", "text"),
    [
        (torch.ones(2, dtype=torch.complex64), "complex64"),
        (torch.ones(2, 2).to_sparse(), "sparse"),
        (torch.ones(1).expand(4), "expanded"),
        (torch.ones(2).to(torch.float8_e4m3fn), "float8"),
    ],
)
def test_parameters_that_cannot_move_are_named(parameter: torch.Tensor, text: str) -> None:
    with pytest.raises(ValueError, match=rf"parameter 'p0' is .*{text}"):
        ls.Trajectory(Shared(parameter))
    lazy = nn.LazyLinear(3)
    with pytest.raises(ValueError, match="not initialised"):
        ls.Trajectory(lazy)
