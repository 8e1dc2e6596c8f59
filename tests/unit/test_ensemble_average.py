"""Means in weight space against float64 NumPy, BatchNorm statistics against the pooled formula, soups and barriers."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from thalweg.ensemble import average, reestimate_bn, soup

State = dict[str, torch.Tensor]


def net(bn: bool = True) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Linear(2, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 2)]
    return nn.Sequential(*(layer for layer in layers if bn or not isinstance(layer, nn.BatchNorm1d)))


def random_states(m: int, seed: int = 0, bn: bool = True) -> list[State]:
    torch.manual_seed(seed)
    states = []
    for i in range(m):
        model = net(bn)
        for buffer in model.buffers():
            buffer.copy_(torch.rand_like(buffer) + 1 if buffer.is_floating_point() else torch.tensor(i + 10))
        states.append(copy.deepcopy(model.state_dict()))
    return states


@pytest.mark.parametrize("m", [1, 2, 7])
@pytest.mark.parametrize("seed", range(3))
def test_mean_against_numpy(m: int, seed: int) -> None:
    states = random_states(m, seed)
    model = net()
    before = copy.deepcopy(model.state_dict())
    if m == 1:
        averaged = average(model, states)
    else:
        with pytest.warns(UserWarning, match="average: the BatchNorm statistics are the mean"):
            averaged = average(model, states)
    for name, value in averaged.state_dict().items():
        members = [state[name].double().numpy() for state in states]
        expected = members[-1] if name.endswith("tracked") else np.mean(members, axis=0)
        np.testing.assert_allclose(value.double().numpy(), expected, rtol=1e-7, err_msg=name)
        assert value.dtype == states[0][name].dtype
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not averaged.training
    assert all(p.requires_grad for p in averaged.parameters())
    averaged[0].weight.data.zero_()  # its own memory
    assert not (states[0]["0.weight"] == 0).all()


def test_weights_one_to_four() -> None:
    """The means 1, 1.5, 2, 2.5 of the first 1, 2, 3, 4 members: a known library gets three of them wrong."""
    model = nn.Linear(1, 1)
    states = [{"weight": torch.full((1, 1), float(k)), "bias": torch.zeros(1)} for k in (1, 2, 3, 4)]
    assert [average(model, states[:k]).weight.item() for k in (1, 2, 3, 4)] == [1, 1.5, 2, 2.5]
    assert average(model, states, kind="lawa", m=2).weight.item() == 3.5


def test_low_precision_is_summed_wide() -> None:
    model = nn.Linear(1, 1).to(torch.bfloat16)
    states = [
        {"weight": torch.full((1, 1), 1.0 + k / 128, dtype=torch.bfloat16), "bias": torch.zeros(1)} for k in range(3)
    ]
    assert average(model, states).weight.item() == 1.0 + 1 / 128


def test_ties_stay_tied() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
            self.b.weight = self.a.weight

    states = [Tied().state_dict() for _ in range(3)]
    averaged = average(Tied(), states)
    assert averaged.a.weight is averaged.b.weight


# --- BatchNorm


def pooled(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    values = x.double().transpose(0, 1).flatten(1)
    return values.mean(1), values.var(1)


@pytest.mark.parametrize("sizes", [[32], [16, 16], [30, 2], [2, 30], [7, 11, 14]])
@pytest.mark.parametrize("shape", [(3,), (3, 5), (3, 4, 2)])
def test_first_layer_is_exact(sizes: list[int], shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x = torch.randn(sum(sizes), *shape) * 3 + torch.linspace(0, 5, sum(sizes)).reshape(-1, *(1,) * len(shape))  # drifts
    layer: nn.Module = {1: nn.BatchNorm1d, 2: nn.BatchNorm1d, 3: nn.BatchNorm2d}[len(shape)](3)
    reestimate_bn(layer, list(x.split(sizes)))
    mean, variance = pooled(x)
    torch.testing.assert_close(layer.running_mean, mean.float(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(layer.running_var, variance.float(), rtol=1e-6, atol=1e-6)
    assert int(layer.num_batches_tracked) == len(sizes)


def test_inner_layers_see_normalised_inputs() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Dropout(0.5), nn.Linear(5, 3), nn.BatchNorm1d(3)
    )
    x = torch.randn(64, 4)
    reestimate_bn(model, x)
    h = model[0](x)
    mean, variance = pooled(h)
    biased = h.double().var(0, correction=0)
    inner = model[4](torch.relu((h.double() - mean) / (biased + model[1].eps).sqrt()).float())
    torch.testing.assert_close(model[1].running_var, variance.float(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(model[5].running_mean, pooled(inner)[0].float(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model[5].running_var, pooled(inner)[1].float(), rtol=1e-4, atol=1e-5)


def test_nothing_else_changes_and_errors_undo_everything() -> None:
    torch.manual_seed(0)
    model = net()
    model.train()
    model[3].eval()
    modes = [module.training for module in model.modules()]
    before = copy.deepcopy(model.state_dict())
    generator = torch.get_rng_state()
    x = torch.randn(32, 2, generator=torch.Generator())

    def broken() -> Any:
        yield x[:16]
        raise RuntimeError("disk on fire")

    with pytest.raises(RuntimeError, match="disk on fire"):
        reestimate_bn(model, broken())
    for data in ([], [x[:1, :, None]], torch.zeros(0, 2)):
        with pytest.raises((ValueError, RuntimeError)):
            reestimate_bn(model, data)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x), batch_size=5, shuffle=True)
    reestimate_bn(model, loader)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(before[name], value)}
    assert changed == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    assert [module.training for module in model.modules()] == modes
    assert model[1].momentum == 0.1
    assert torch.equal(generator, torch.get_rng_state())
    assert not any(module._forward_pre_hooks for module in model.modules())
    with pytest.raises(ValueError, match="hold no samples"):
        reestimate_bn(model, [])
    with pytest.raises(TypeError, match="model must be a torch"):
        reestimate_bn(3, x)  # type: ignore[arg-type]
    reestimate_bn(nn.Linear(2, 2), x)  # no BatchNorm: nothing to do


def test_one_value_per_channel_is_refused() -> None:
    layer = nn.BatchNorm2d(2)
    with pytest.raises(ValueError, match=r"at least two samples|more than 1 value"):
        reestimate_bn(layer, torch.zeros(1, 2, 1, 1))


# --- soups


def moons(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    angle = math.pi * torch.rand(n, generator=generator)
    y = torch.arange(n) % 2
    x = torch.stack([torch.cos(angle) * (1 - 2 * y) + y, torch.sin(angle) * (1 - 2 * y) + 0.4 * y], 1)
    return x + 0.1 * torch.randn(n, 2, generator=generator), y


def trained(seed: int, start: nn.Module | None = None, steps: int = 150, bn: bool = False) -> nn.Module:
    torch.manual_seed(seed)
    model = copy.deepcopy(start) if start is not None else net(bn)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    x, y = moons(300, 0)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model.eval()


def error(model: nn.Module, data: tuple[torch.Tensor, torch.Tensor]) -> float:
    return (model(data[0]).argmax(1) != data[1]).double().mean().item()


@pytest.mark.parametrize("method", ["uniform", "greedy"])
def test_soup_of_neighbours(method: str) -> None:
    start = trained(0)
    members = [trained(i, start.train(), steps=8) for i in range(1, 4)]
    val = moons(400, 1)
    cooked = soup(start, [m.state_dict() for m in members], val, method, steps=[8, 16, 24])
    report: Any = cooked.soup_report
    assert report.barrier <= 0.02
    assert report.error == pytest.approx(error(cooked, val))
    assert report.member_errors == pytest.approx({8 * (i + 1): error(m, val) for i, m in enumerate(members)})
    if method == "uniform":
        assert report.steps == (8, 16, 24)
        expected = average(start, [m.state_dict() for m in members])
        assert all(torch.equal(a, b) for a, b in zip(cooked.parameters(), expected.parameters(), strict=True))
    else:
        assert report.error <= min(report.member_errors.values())
        assert min(report.member_errors, key=lambda s: (report.member_errors[s], -s)) == report.steps[0]


def mirrored(model: nn.Module) -> State:
    """The same function with its hidden units in reverse order: as good, and far away in weight space."""
    state = {name: value.clone() for name, value in model.state_dict().items()}
    for name in ("0.weight", "0.bias"):
        state[name] = state[name].flip(0)
    state["3.weight"] = state["3.weight"].flip(1)
    return state


def test_soup_is_refused_across_a_barrier() -> None:
    model = trained(1)
    states = [model.state_dict(), mirrored(model)]
    val = moons(400, 1)
    single = error(model, val)
    with pytest.raises(ValueError, match=r"a barrier parts the members of steps 5 and 9.*force=True"):
        soup(model, states, val, "uniform", steps=[5, 9])
    greedy: Any = soup(model, states, val, "greedy").soup_report
    assert len(greedy.steps) == 1
    assert greedy.error == pytest.approx(single)
    assert greedy.barrier > 0.02
    assert greedy.barrier_between == (0, 1)
    assert not greedy.forced
    forced: Any = soup(model, states, val, "uniform", force=True).soup_report
    assert forced.forced
    assert forced.error == pytest.approx(single + forced.barrier)
    soup(model, states, val, "uniform", tolerance=1.0)


def test_soup_with_batchnorm_and_one_pass_data() -> None:
    start = trained(0, bn=True)
    states = [trained(i, start.train(), steps=8).state_dict() for i in range(1, 4)]
    x, _ = moons(300, 0)
    val = moons(100, 1)
    cooked = soup(start, states, iter([val]), "uniform", data=x)
    expected = average(start, states, data=x)
    assert all(
        torch.equal(a, b) for a, b in zip(cooked.state_dict().values(), expected.state_dict().values(), strict=True)
    )
    with pytest.warns(UserWarning, match="soup: the BatchNorm statistics are the mean"):
        soup(start, states, val, "uniform", force=True)


def test_a_soup_of_many_compares_with_the_last() -> None:
    model = trained(0)
    cooked: Any = soup(model, [model.state_dict()] * 8, moons(100, 1), "uniform")
    assert cooked.soup_report.barrier == 0
    assert len(cooked.soup_report.steps) == 8


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda m, s, v: average(m, []), "at least one member"),
        (lambda m, s, v: average(m, s, kind="ema"), "kind must be one of 'swa', 'lawa'"),
        (lambda m, s, v: average(m, s, kind="lawa"), "needs m"),
        (lambda m, s, v: average(m, s, m=3), r"m must be an integer >= 1 and <= 2, got 3"),
        (lambda m, s, v: soup(m, [], v), "at least one member"),
        (lambda m, s, v: soup(m, s, v, "best"), "method must be one of"),
        (lambda m, s, v: soup(m, s, v, tolerance=2), "tolerance"),
        (lambda m, s, v: soup(m, s, []), "hold no samples"),
        (lambda m, s, v: soup(m, [{}, {}], v), "lacks '0.weight'"),
    ],
)
def test_bad_arguments(call: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        call(net(False), random_states(2, bn=False), moons(20, 0))
