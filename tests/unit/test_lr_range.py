"""The range test: everything comes back bit for bit; both forms, groups, schedules, endings, bad input, digits."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from thalweg.ensemble import SnapshotCollector
from thalweg.lr_range import range_test

Batch = tuple[torch.Tensor, torch.Tensor]


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.Dropout(0.1), nn.ReLU(), nn.Linear(16, 3))


def toy(n: int = 256, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 6, generator=generator)
    return x, (x @ torch.randn(6, 3, generator=generator)).argmax(1)


def loader(seed: int = 0, batch: int = 8) -> torch.utils.data.DataLoader[Any]:
    generator = torch.Generator().manual_seed(seed)
    return torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(*toy(2048)), batch, shuffle=True, generator=generator
    )


def step(model: nn.Module, optimizer: torch.optim.Optimizer, data: Batch) -> torch.Tensor:
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(data[0]), data[1])
    loss.backward()
    optimizer.step()
    return loss


def fingerprint(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Everything that must come back, with the identity of what code may have cached."""

    def plain(value: Any) -> Any:
        return (id(value), value.detach().numpy().tobytes()) if isinstance(value, torch.Tensor) else value

    return {
        "parameters": [(n, id(p), p.requires_grad, plain(p.detach())[1]) for n, p in model.named_parameters()],
        "grads": [None if p.grad is None else plain(p.grad) for p in model.parameters()],
        "buffers": [(n, plain(b)) for n, b in model.named_buffers()],
        "modes": [m.training for m in model.modules()],
        "state": [
            {k: plain(v) for k, v in optimizer.state[p].items()} if p in optimizer.state else None
            for p in model.parameters()
        ],
        "groups": [{k: plain(v) for k, v in group.items() if k != "params"} for group in optimizer.param_groups],
        "torch": torch.get_rng_state().numpy().tobytes(),
        "numpy": np.random.get_state()[1].tobytes(),  # noqa: NPY002
        "random": random.getstate(),
        "attributes": {k: v for k, v in vars(optimizer).items() if isinstance(v, (int, float, str, bool, type(None)))},
    }


OPTIMIZERS: dict[str, Any] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-3, amsgrad=True),
    "adam_tensor_lr": lambda p: torch.optim.Adam(p, lr=torch.tensor(1e-3)),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=1e-3, centered=True),
    "rprop": lambda p: torch.optim.Rprop(p),
}


class Interrupting:
    """A criterion that raises at its 40th call."""

    def __init__(self, error: BaseException | None) -> None:
        self.calls, self.error = 0, error

    def __call__(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        self.calls += 1
        np.random.rand()  # noqa: NPY002
        random.random()
        if self.calls == 40 and self.error is not None:
            raise self.error
        return nn.functional.cross_entropy(model(batch[0]), batch[1])


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("error", [None, RuntimeError("cable pulled"), KeyboardInterrupt()])
@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.filterwarnings("ignore:range_test. batches ended")
def test_everything_comes_back(name: str, error: BaseException | None, trained: bool) -> None:
    model = net()
    optimizer = OPTIMIZERS[name](model.parameters())
    data = loader()
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 100)
    model[4].bias.requires_grad_(False)
    if trained:
        for _ in range(3):
            step(model, optimizer, toy())
    model[1].eval()
    before, source = fingerprint(model, optimizer), data.generator.get_state()
    objective = Interrupting(error)
    if error is None:
        range_test(model, objective, data, optimizer, num_steps=60, repeats=2)
    else:
        with pytest.raises(type(error)):
            range_test(model, objective, data, optimizer, num_steps=60)
    assert objective.calls >= 40
    assert fingerprint(model, optimizer) == before
    assert torch.equal(source, data.generator.get_state())
    assert scheduler.last_epoch == 0


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_training_goes_on_as_if_nothing_had_been(name: str) -> None:
    def train(tested: bool) -> list[torch.Tensor]:
        model = net()
        optimizer = OPTIMIZERS[name](model.parameters())
        snaps = SnapshotCollector(model, optimizer, when="every:2")
        for k in range(6):
            if tested and k in (0, 3):
                range_test(model, nn.CrossEntropyLoss(), toy(), optimizer, num_steps=30)
            step(model, optimizer, toy())
        assert [s.step for s in snaps.snapshots] == [2, 4, 6]  # hooks do not see the trial
        return [p.detach() for p in model.parameters()]

    assert all(torch.equal(a, b) for a, b in zip(train(False), train(True), strict=True))


def test_closure_form_restores_the_model_and_extras() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 1.0)
    data = toy()
    before, position = fingerprint(model, optimizer), copy.deepcopy(scheduler.state_dict())
    seen = []

    def closure() -> torch.Tensor:
        seen.append(optimizer.param_groups[0]["lr"])
        loss = step(model, optimizer, data)
        scheduler.step()
        return loss

    r = range_test(closure, optimizer, model=model, min_lr=1e-4, num_steps=50, restore=[scheduler], stop_early=False)
    assert seen == pytest.approx(np.geomspace(1e-4, 10, 50))
    assert r.lrs.tolist() == pytest.approx(seen)
    assert fingerprint(model, optimizer) == before
    assert scheduler.state_dict() == position
    frozen = [p.detach().clone() for p in model.parameters()]
    range_test(lambda: step(model, optimizer, data).item(), optimizer, num_steps=20)
    assert all(torch.equal(a, b) for a, b in zip(frozen, model.parameters(), strict=True))


@pytest.mark.parametrize(("mode", "grid"), [("exp", np.geomspace), ("linear", np.linspace)])
def test_rates_and_losses_are_those_of_a_plain_loop(mode: str, grid: Any) -> None:
    data = toy()
    lrs = grid(1e-4, 0.3, 40)
    reference = net()
    state = torch.get_rng_state()
    optimizer = torch.optim.SGD(reference.parameters(), lr=1.0)
    losses = []
    for lr in lrs:
        optimizer.param_groups[0]["lr"] = float(lr)
        losses.append(step(reference, optimizer, data).item())
    model = net()
    torch.set_rng_state(state)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    r = range_test(model, "cross_entropy", data, optimizer, min_lr=1e-4, max_lr=0.3, num_steps=40, mode=mode)
    np.testing.assert_allclose(r.lrs, lrs, rtol=1e-12)
    assert r.losses.tolist() == losses
    assert r.lrs[0] == 1e-4
    assert r.lrs[-1] == 0.3


def test_groups_keep_their_ratios() -> None:
    model = net()
    optimizer = torch.optim.SGD(
        [{"params": model[0].parameters(), "lr": 0.1}, {"params": model[4].parameters(), "lr": torch.tensor(0.01)}],
        lr=1.0,
    )
    seen = []

    def closure() -> float:
        seen.append([float(group["lr"]) for group in optimizer.param_groups])
        return step(model, optimizer, toy()).item()

    r = range_test(closure, optimizer, model=model, num_steps=30, stop_early=False)
    assert all(second == pytest.approx(first / 10, rel=1e-6) for first, second in seen)
    assert seen[0][0] == 1e-7
    if r.suggestion is not None:
        assert r.apply(optimizer) == r.suggestion
        assert [float(g["lr"]) for g in optimizer.param_groups] == pytest.approx([r.suggestion, r.suggestion / 10])


def test_modes() -> None:
    seen = []

    def objective(model: nn.Module, batch: Batch) -> torch.Tensor:
        seen.append([module.training for module in model.modules()])
        return nn.functional.cross_entropy(model(batch[0]), batch[1])

    model = net().eval()
    range_test(model, objective, toy(), torch.optim.SGD(model.parameters(), lr=0.1), num_steps=12)
    assert all(all(flags) for flags in seen)
    assert not model.training
    model.train()
    model[1].eval()
    seen.clear()
    range_test(model, objective, toy(), torch.optim.SGD(model.parameters(), lr=0.1), num_steps=12)
    assert all(flags == [True, True, False, True, True, True] for flags in seen)


# --- endings


def test_divergence_ends_the_test() -> None:
    model = net()
    r = range_test(
        model, "cross_entropy", toy(), torch.optim.SGD(model.parameters(), lr=0.1), max_lr=1e6, num_steps=150
    )
    assert len(r.losses) < 150
    assert "diverged" in r.stopped or "the loss is" in r.stopped
    assert "divergence" in r.observed
    assert r.suggestion is not None
    whole = range_test(
        model, "cross_entropy", toy(), torch.optim.SGD(model.parameters(), lr=0.1), num_steps=60, stop_early=False
    )
    assert len(whole.losses) == 60
    assert whole.stopped == ""


def test_nan_stops_and_keeps_the_prefix() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    calls = []

    def closure() -> float:
        calls.append(1)
        return 1.0 / len(calls) if len(calls) < 30 else math.nan

    r = range_test(closure, optimizer, num_steps=100)
    assert len(calls) == 30
    assert len(r.losses) == 29
    assert "the loss is nan at lr" in r.stopped
    for bad in (math.nan, math.inf):
        with pytest.raises(ValueError, match=f"the loss is {bad} at step 1, lr 1e-07; it must be finite at the start"):
            range_test(lambda bad=bad: bad, optimizer, num_steps=100)


def test_negative_losses_are_not_divergence() -> None:
    model = nn.Linear(6, 2)
    x, _ = toy()
    y = x[:, :1] * 0.01

    def nll(model: nn.Module, batch: Batch) -> torch.Tensor:
        mean, log_sd = model(batch[0]).split(1, dim=1)
        return (log_sd + 0.5 * ((batch[1] - mean) / log_sd.exp()).square()).mean()

    r = range_test(model, nll, (x, y), torch.optim.Adam(model.parameters()), num_steps=300, min_lr=1e-6)
    assert r.losses.min() < 0
    assert r.suggestion is not None
    assert 1e-4 < r.suggestion < 1.0


def test_batches_that_end_start_again() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.warns(UserWarning, match="batches ended after 8; started again"):
        r = range_test(model, "cross_entropy", loader(batch=256), optimizer, num_steps=30)
    assert len(r.losses) == 30

    def once(n: int) -> Iterator[Batch]:
        return (toy(32, seed=i) for i in range(n))

    with pytest.warns(UserWarning, match="batches ended after 20"):
        r = range_test(model, "cross_entropy", once(20), optimizer, num_steps=30)
    assert len(r.losses) == 20
    assert "the batches ended" in r.stopped
    with pytest.warns(UserWarning, match="batches ended"), pytest.raises(ValueError, match="at least 10 finite losses"):
        range_test(model, "cross_entropy", once(5), optimizer, num_steps=30)
    with pytest.raises(ValueError, match="batches is empty"):
        range_test(model, "cross_entropy", [], optimizer)


def test_repeats_take_the_median() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    r = range_test(model, "cross_entropy", toy(2048), optimizer, num_steps=40, repeats=3, stop_early=False, max_lr=1.0)
    assert len(r.curves) == 3
    np.testing.assert_array_equal(r.losses, np.median(r.curves, axis=0))
    assert r.curves[0][0] != r.curves[1][0]  # Dropout goes on drawing


# --- thalweg's optimizers and schedules


def test_native_optimizer_keeps_schedule_and_position() -> None:
    import thalweg as tw

    schedule = tw.schedules.sgdr(0.1, t_0=5)

    def train(tested: bool) -> tuple[list[torch.Tensor], Any]:
        model = net()
        optimizer = tw.optim.SGD(model.parameters(), lr=schedule, momentum=0.9)
        snaps = SnapshotCollector(model, optimizer)
        for k in range(12):
            if tested and k in (0, 7):
                before = fingerprint(model, optimizer)
                range_test(model, "cross_entropy", toy(), optimizer, num_steps=30)
                assert fingerprint(model, optimizer) == before
                assert optimizer.schedules == (schedule,)
                assert optimizer.schedule_step == k
            step(model, optimizer, toy())
        return [p.detach() for p in model.parameters()], snaps.snapshots

    plain, snapshots = train(False)
    tested, again = train(True)
    assert all(torch.equal(a, b) for a, b in zip(plain, tested, strict=True))
    assert [(s.step, s.cycle, s.lr) for s in snapshots] == [(s.step, s.cycle, s.lr) for s in again]
    assert [(s.step, s.cycle) for s in snapshots] == [(5, 0), (10, 1)]
    assert snapshots[0].lr == schedule(4)


def test_schedules_from_the_result() -> None:
    model = net()
    r = range_test(model, "cross_entropy", toy(), torch.optim.SGD(model.parameters(), lr=0.1), num_steps=100)
    assert r.bounds is not None
    cyclic = r.cyclic(10)
    assert cyclic(0) == pytest.approx(r.bounds[0])
    assert cyclic(10) == pytest.approx(r.bounds[1])
    assert cyclic(20) == pytest.approx(r.bounds[0])
    assert max(r.one_cycle(50).values(50)) == pytest.approx(r.bounds[1])
    flat = range_test(lambda: 1.0, torch.optim.SGD(model.parameters(), lr=0.1), num_steps=20)
    for act in (
        lambda: flat.cyclic(3),
        lambda: flat.one_cycle(9),
        lambda: flat.apply(torch.optim.SGD(model.parameters())),
    ):
        with pytest.raises(ValueError, match="the test gave no suggestion"):
            act()


# --- real data


def digits() -> Batch:
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return torch.tensor(x, dtype=torch.float32) / 16, torch.tensor(y)


class Shuffled:
    """Batches in a new order at each pass."""

    def __init__(self, data: Batch) -> None:
        self.data = data

    def __iter__(self) -> Iterator[Batch]:
        return ((self.data[0][i], self.data[1][i]) for i in torch.randperm(1500).split(64))


@pytest.mark.parametrize("name", ["sgd", "adamw"])
@pytest.mark.filterwarnings("ignore:range_test. batches ended")
def test_digits_the_spread_over_seeds_is_small(name: str) -> None:
    data = digits()
    suggestions = []
    for seed in range(6):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        optimizer = OPTIMIZERS[name](model.parameters())
        r = range_test(model, nn.CrossEntropyLoss(), Shuffled(data), optimizer, num_steps=200)
        assert r.observed == ("flat", "descent", "divergence")
        suggestions.append(math.log10(float(r.suggestion or math.nan)))
    assert np.std(suggestions) < 0.12
    assert {"sgd": -2.5, "adamw": -3.5}[name] < np.median(suggestions) < {"sgd": -0.3, "adamw": -1.0}[name]


@pytest.mark.filterwarnings("ignore:range_test. batches ended")
def test_a_trained_model_gets_no_answer() -> None:
    data = digits()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(40):
        for batch in Shuffled(data):
            step(model, optimizer, batch)
    answers = [range_test(model, "cross_entropy", Shuffled(data), optimizer).suggestion for _ in range(4)]
    assert answers.count(None) >= 3


# --- bad input


@pytest.mark.parametrize(
    ("kwargs", "error", "text"),
    [
        ({"min_lr": 0.0}, ValueError, "min_lr must be a finite number > 0, got 0"),
        ({"min_lr": -1e-3}, ValueError, "min_lr"),
        ({"max_lr": 1e-9}, ValueError, "max_lr must be a finite number > 1e-07, got 1e-09"),
        ({"max_lr": math.inf}, ValueError, "max_lr"),
        ({"num_steps": 9}, ValueError, "num_steps must be an integer >= 10, got 9"),
        ({"num_steps": 2.5}, ValueError, "num_steps"),
        ({"mode": "log"}, ValueError, "mode must be one of 'exp', 'linear', got 'log'"),
        ({"repeats": 0}, ValueError, "repeats must be an integer >= 1"),
        ({"restore": [3]}, TypeError, "restore must hold objects with state_dict"),
        ({"model": 3}, TypeError, "model must be a torch.nn.Module or None"),
    ],
)
def test_bad_options(kwargs: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=f"range_test: .*{text}"):
        range_test(lambda: 1.0, torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1), **kwargs)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        (lambda m, o: (m,), TypeError, r"expected \(model, loss_fn, batches, optimizer\)"),
        (lambda m, o: (m, o), TypeError, "expected"),
        (lambda m, o: (m, "cross_entropy", toy(), None), TypeError, "optimizer must be a torch.optim.Optimizer"),
        (lambda m, o: (lambda: 1.0, "sgd"), TypeError, "optimizer must be"),
        (lambda m, o: (m, "no_such_loss", toy(), o), ValueError, "loss_fn must be one of .* got 'no_such_loss'"),
        (lambda m, o: (m, 3, toy(), o), TypeError, "loss_fn must be"),
        (lambda m, o: (m, "cross_entropy", 5, o), TypeError, "batches must be an iterable"),
        (lambda m, o: (m, "cross_entropy", [torch.zeros(3, 6)], o), TypeError, "each batch must be a pair"),
        (lambda m, o: (m, nn.CrossEntropyLoss(reduction="none"), toy(), o), ValueError, "must be a scalar, got shape"),
        (lambda m, o: (m, lambda model, batch: 1.0, toy(), o), TypeError, "a tensor that backward"),
        (lambda m, o: (lambda: None, o), TypeError, "must return the loss"),
        (lambda m, o: (lambda: torch.zeros(2), o), ValueError, "scalar"),
    ],
)
def test_bad_arguments(arguments: Any, error: type[Exception], text: str) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = fingerprint(model, optimizer)
    with pytest.raises(error, match=text):
        range_test(*arguments(model, optimizer))
    assert fingerprint(model, optimizer) == before
