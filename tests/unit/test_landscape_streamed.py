"""Data larger than the memory budget: the bits of resident data, few passes, little memory, an untouched model."""

from __future__ import annotations

import gc
import random
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from thalweg.landscape import Evaluator, random_directions

METRICS = ("loss", "accuracy", "top5", "confidence", "margin", "stderr", "l2")


def data(seed: int, n: int = 53) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 4, generator=generator), torch.randint(0, 6, (n,), generator=generator)


def net() -> nn.Module:
    model = nn.Sequential(
        nn.Linear(4, 9), nn.BatchNorm1d(9), nn.Tanh(), nn.Dropout(0.3), nn.Linear(9, 9), nn.BatchNorm1d(9),
        nn.ReLU(), nn.Linear(9, 6),
    )  # fmt: skip
    model(torch.randn(30, 4))
    return model


def loader(seed: int, **options: Any) -> DataLoader[Any]:
    return DataLoader(TensorDataset(*data(seed)), batch_size=12, **options)


def passes(ev: Evaluator) -> int:
    return ev._evaluation.data.passes  # type: ignore[union-attr]


def pair(build: Callable[[], Any], *args: Any, **options: Any) -> tuple[Evaluator, Evaluator]:
    """Evaluators with resident and with streamed data, the same otherwise."""
    model = args[0]
    resident = Evaluator(model, *args[1:], build(), **options)
    streamed = Evaluator(model, *args[1:], build(), **options, memory_budget=100)
    assert not resident._evaluation.data.streamed
    assert streamed._evaluation.data.streamed
    return resident, streamed


def assert_same_values(resident: Evaluator, streamed: Evaluator, seed: int, count: int = 7) -> None:
    directions = random_directions(resident.model, ignore=None, seed=seed)
    coordinates = np.random.default_rng(seed).uniform(-1, 1, (count, 2))
    a, b = (ev.points(directions, coordinates) for ev in (resident, streamed))
    for name, values in a.values.items():
        assert np.array_equal(values, b.values[name]), name
    assert np.ptp(a.values["loss"]) > 0
    assert b.metadata["streamed"] is True
    keys = ("data_hash", "samples", "batch_sizes", "weights_hash")
    assert [a.metadata[key] for key in keys] == [b.metadata[key] for key in keys]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("bn", ["interpolate", "frozen", "batch", "recalibrate"])
def test_streamed_data_give_the_bits_of_resident_data(bn: str, seed: int) -> None:
    torch.manual_seed(seed)
    assert_same_values(*pair(lambda: loader(seed), net(), "cross_entropy", metrics=METRICS, bn=bn), seed)


@pytest.mark.parametrize("bn", ["interpolate", "batch", "recalibrate"])
def test_dropout_draws_the_same_numbers(bn: str) -> None:
    torch.manual_seed(2)
    assert_same_values(*pair(lambda: loader(2), net(), "cross_entropy", bn=bn, train_mode=True), 2)


@pytest.mark.parametrize("bn", ["interpolate", "batch", "recalibrate"])
def test_streamed_data_in_fewer_bits(bn: str) -> None:
    torch.manual_seed(1)
    options = {"metrics": METRICS, "bn": bn, "tier": "approximate", "precision": "bf16", "implementation": "loop"}
    assert_same_values(*pair(lambda: loader(1), net(), "cross_entropy", **options), 1)


class Restless(nn.Module):
    """Later batches depend on earlier ones: buffers changed in place and by assignment, draws of all generators."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 6)
        self.register_buffer("in_place", torch.zeros(()))
        self.register_buffer("assigned", torch.zeros(()))
        self.register_buffer("grows", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.in_place += 1
        self.assigned = self.assigned + x.mean()
        self.grows = torch.cat([self.grows, x[:1, 0]])
        noise = float(torch.rand(())) + random.random() + np.random.rand()  # noqa: NPY002
        return self.layer(x) * (noise + 0.1 * self.in_place) + self.assigned + self.grows.sum()


def test_a_model_whose_batches_hang_together() -> None:
    torch.manual_seed(3)
    model = Restless()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    resident, streamed = pair(lambda: loader(3), model, "cross_entropy")
    torch.manual_seed(4), random.seed(4), np.random.seed(4)  # noqa: NPY002
    assert_same_values(resident, streamed, 3)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_spectral_norm_goes_on_from_batch_to_batch_on_a_line() -> None:
    torch.manual_seed(5)
    a, b = (nn.utils.parametrizations.spectral_norm(nn.Linear(4, 6)) for _ in range(2))
    lines = [
        ev.line((a, b), (0, 1, 5)).values["loss"] for ev in pair(lambda: loader(5), a, "cross_entropy", train_mode=True)
    ]
    assert np.array_equal(*lines)


def test_passes_are_few() -> None:
    model = net()
    ev = pair(lambda: loader(6), model, "cross_entropy")[1]
    assert passes(ev) == 1, "the values at the centre"
    directions = random_directions(model)
    ev.line(directions, (-1, 1, 257))
    assert passes(ev) == 3, "257 points are two passes of up to 256"
    ev = pair(lambda: loader(6), model, "cross_entropy", bn="recalibrate")[1]
    before = passes(ev)
    ev.grid(directions, x=(-1, 1, 4), y=(-1, 1, 4))
    layers = 2
    assert passes(ev) - before == layers + 1, "one per layer and one for the loss"


class Watched(Dataset[Any]):
    """Counts the samples that are alive, as weak references to their tensors."""

    def __init__(self) -> None:
        self.x, self.y = data(7, 400)
        self.alive: list[weakref.ref[Tensor]] = []
        self.most = 0

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Any:
        x = self.x[index].clone()
        self.alive = [ref for ref in self.alive if ref() is not None] + [weakref.ref(x)]
        self.most = max(self.most, len(self.alive))
        return x, self.y[index]


def test_memory_held_is_two_batches_at_most() -> None:
    watched, held, most = Watched(), [], 0

    def collate(samples: list[Any]) -> Any:
        nonlocal held, most
        batch = torch.stack([s[0] for s in samples]), torch.stack([s[1] for s in samples])
        gc.collect(0)
        held = [ref for ref in held if ref() is not None] + [weakref.ref(batch[0])]
        most = max(most, len(held))
        return batch

    source = DataLoader(watched, batch_size=16, collate_fn=collate)
    model = net()
    ev = Evaluator(model, "cross_entropy", source, memory_budget=1000)
    most = 0
    ev.line(random_directions(model, 1), (-1, 1, 4))
    assert 1 <= most <= 3
    assert watched.most <= 17


# ---- what is read ------------------------------------------------------------------------------------------------


def test_the_budget_is_what_the_data_may_take() -> None:
    x, y = data(8)
    size = x.numel() * 4 + y.numel() * 8
    model = net()
    for budget, streamed in ((size - 1, True), (size, False), (None, False)):
        ev = Evaluator(model, "cross_entropy", loader(8), memory_budget=budget)
        assert ev._evaluation.data.streamed == streamed
    for kept in ((x, y), [(x[:20], y[:20]), (x[20:], y[20:])], TensorDataset(x, y)):  # the caller's own memory
        assert not Evaluator(model, "cross_entropy", kept, memory_budget=0)._evaluation.data.streamed
    for bad, kind in ((-1, ValueError), (1.5, ValueError), ("1 GB", TypeError)):
        with pytest.raises(kind, match="memory_budget must be an integer >= 0"):
            Evaluator(model, "cross_entropy", (x, y), memory_budget=bad)


class Pairs(Dataset[Any]):
    def __init__(self, seed: int) -> None:
        self.x, self.y = data(seed)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Any:
        return self.x[index], int(self.y[index])


@pytest.mark.parametrize("size", [None, 10])
def test_a_data_set_larger_than_the_budget_has_the_same_batches(size: int | None) -> None:
    torch.manual_seed(9)
    assert_same_values(*pair(lambda: Pairs(9), net(), "cross_entropy", batch_size=size), 9)


@pytest.mark.parametrize("own", [False, True])
def test_a_shuffled_loader_gives_the_order_of_its_first_pass(own: bool) -> None:
    model = net()
    source = loader(10, shuffle=True, generator=torch.Generator().manual_seed(1) if own else None)
    state = torch.get_rng_state(), source.generator.get_state() if own else None
    resident = Evaluator(model, "cross_entropy", source)
    streamed = Evaluator(model, "cross_entropy", source, memory_budget=100)
    assert_same_values(resident, streamed, 10)
    assert torch.equal(state[0], torch.get_rng_state())
    assert not own or torch.equal(state[1], source.generator.get_state())


def test_augmentation_repeats_itself() -> None:
    class Noisy(Pairs):
        def __getitem__(self, index: int) -> Any:
            return self.x[index] + torch.randn(4) * random.random(), int(self.y[index])

    model = net()
    source = DataLoader(Noisy(11), batch_size=10, shuffle=True)
    assert_same_values(*(Evaluator(model, "cross_entropy", source, memory_budget=b) for b in (None, 100)), 11)


def test_data_that_do_not_repeat_are_refused() -> None:
    x, y = data(12)

    class Changing:
        """Every pass is another one."""

        def __init__(self, kind: str) -> None:
            self.kind, self.passes = kind, 0

        def __iter__(self) -> Iterator[Any]:
            self.passes += 1
            last = {"short": 40, "long": 53 + 20}.get(self.kind, 53) if self.passes > 2 else 53
            for i in range(0, last, 10):
                shift = self.passes if self.kind == "values" and i == 20 and self.passes > 2 else 0
                yield torch.cat([x, x])[i : i + 10] + shift, torch.cat([y, y])[i : i + 10]

    model = net()
    for kind, text in (
        ("values", "batch 2 differs"),
        ("short", "4 batches came instead of 6"),
        ("long", "batch 6 differs"),
    ):
        ev = Evaluator(model, "cross_entropy", Changing(kind), memory_budget=100)
        with pytest.raises(ValueError, match=rf"{text} from the first pass; expected the same batches.*memory_budget"):
            ev.line(random_directions(model, 1), (0, 1, 3))
        Evaluator(model, "cross_entropy", Changing(kind)).line(random_directions(model, 1), (0, 1, 3))
    once = ((x[i : i + 10], y[i : i + 10]) for i in range(0, 53, 10))
    with pytest.raises(ValueError, match=r"generator cannot repeat; pass a DataLoader or raise memory_budget"):
        Evaluator(model, "cross_entropy", once, memory_budget=100)


# ---- nothing changes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("bn", ["interpolate", "recalibrate", "batch"])
def test_an_error_in_the_middle_of_a_pass_leaves_everything(bn: str, error: type[BaseException]) -> None:
    torch.manual_seed(13)
    model, calls = net(), 0
    model[4].weight.requires_grad_(False)
    model[0].weight.grad = torch.ones_like(model[0].weight)

    def metric(output: Tensor, targets: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        torch.rand(1), random.random(), np.random.rand()  # noqa: NPY002
        if calls == 12:
            raise error("at a point")
        return output.mean()

    source = loader(13, shuffle=True, generator=torch.Generator())
    ev = Evaluator(model, "cross_entropy", source, metrics=("loss", metric), bn=bn, memory_budget=100)

    def state() -> list[Any]:
        tensors = [*model.state_dict().values(), torch.get_rng_state(), source.generator.get_state()]
        modules = [(m.training, len(m._forward_pre_hooks), set(m.__dict__)) for m in model.modules()]
        flags = [(id(p), p.requires_grad, p.grad is None) for p in model.parameters()]
        numpy = np.random.get_state()[1].tobytes()  # noqa: NPY002
        return [[t.numpy().tobytes() for t in tensors], modules, flags, random.getstate(), numpy]

    before = state()
    with pytest.raises(error, match="at a point"):
        ev.grid(random_directions(model), (-1, 1, 3), (-1, 1, 3))
    assert calls == 12
    assert state() == before
    assert ev.at() == ev.at()
