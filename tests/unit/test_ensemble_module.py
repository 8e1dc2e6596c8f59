"""The Ensemble module: probabilities against NumPy, loop against vmap, members, dtypes, pickling, bad input."""

from __future__ import annotations

import copy
import io
import logging
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from thalweg.ensemble import Ensemble


class Tied(nn.Module):
    """An embedding whose weight is also the output layer's, a buffer that is not saved, and an integer buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.mix = nn.Linear(6, 6)
        self.out = nn.Linear(6, 11, bias=False)
        self.out.weight = self.embed.weight
        self.register_buffer("shift", torch.linspace(0, 1, 6), persistent=False)
        self.register_buffer("calls", torch.tensor(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(torch.tanh(self.mix(self.embed(x) + self.shift))).movedim(-1, 1)


class Branching(nn.Module):
    """Control flow that depends on data, which vmap cannot run."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.linear(x)
        return out if out.sum() > 0 else -2 * out


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))


def cnn() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))


ZOO: list[tuple[Any, tuple[int, ...]]] = [(mlp, (7, 4)), (cnn, (7, 1, 4, 4)), (Branching, (7, 4))]


def states_of(make: Any, m: int, seed: int = 0) -> tuple[nn.Module, list[dict[str, torch.Tensor]]]:
    torch.manual_seed(seed)
    states = []
    for _ in range(m):
        model = make()
        for buffer in model.buffers():
            if buffer.is_floating_point():
                buffer.copy_(torch.rand_like(buffer) + 0.5)
        states.append(copy.deepcopy(model.state_dict()))
    return make(), states


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def member_logits(make: Any, states: list[dict[str, torch.Tensor]], x: torch.Tensor) -> list[np.ndarray]:
    result = []
    for state in states:
        model = make()
        model.load_state_dict(state)
        result.append(model.eval()(x).detach().double().numpy())
    return result


@pytest.mark.parametrize(("make", "shape"), ZOO)
@pytest.mark.parametrize("backend", ["auto", "loop", "vmap"])
@pytest.mark.parametrize("seed", range(3))
def test_probabilities_against_numpy(make: Any, shape: tuple[int, ...], backend: str, seed: int) -> None:
    model, states = states_of(make, 5, seed)
    x = torch.randn(shape)
    weights = np.random.default_rng(seed).dirichlet(np.ones(5))
    z = member_logits(make, states, x)
    ens = Ensemble(model, states, weights, backend=backend)
    expected = sum(w * softmax(member) for w, member in zip(weights, z, strict=True))
    out = ens(x)
    assert out.dtype == torch.float32
    np.testing.assert_allclose(out.numpy(), expected, atol=3e-6)
    assert torch.equal(out, ens(x))
    hot = Ensemble(model, states, weights, temperature=2.5, backend=backend)(x)
    tempered = expected ** (1 / 2.5)
    np.testing.assert_allclose(hot.numpy(), tempered / tempered.sum(1, keepdims=True), atol=3e-6)
    geometric = softmax(sum(w * member for w, member in zip(weights, z, strict=True)))
    out = Ensemble(model, states, weights, combine="logit", backend=backend)(x)
    np.testing.assert_allclose(out.numpy(), geometric, atol=3e-6)
    out = Ensemble(model, states, weights, combine="mean", backend=backend)(x)
    np.testing.assert_allclose(out.numpy(), sum(w * m for w, m in zip(weights, z, strict=True)), atol=3e-6)


def test_vmap_runs_where_it_can_and_says_where_not(caplog: pytest.LogCaptureFixture) -> None:
    model, states = states_of(mlp, 5)
    batched = Ensemble(model, states, backend="vmap")
    batched(torch.randn(3, 4))
    assert batched.backend_reason == ""
    model, states = states_of(Branching, 3)
    branching = Ensemble(model, states, backend="vmap")
    with caplog.at_level(logging.INFO, logger="thalweg"):
        branching(torch.randn(3, 4))
    assert "cannot run in one batch" in branching.backend_reason
    assert "one by one" in caplog.text


def test_vmap_that_would_be_wrong_is_found() -> None:
    class Counting(nn.Module):
        calls = 0

        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            Counting.calls += 1
            return self.linear(x) * (2.0 if Counting.calls == 1 else 1.0)

    model, states = states_of(Counting, 4)
    x = torch.randn(3, 4)
    out = Ensemble(model, states, backend="vmap")
    expected = Ensemble(model, states, backend="loop")
    Counting.calls = 0
    found = out(x)
    assert "disagree" in out.backend_reason
    assert torch.equal(found, expected(x))


def test_ties_and_buffers() -> None:
    model, states = states_of(Tied, 3)
    x = torch.randint(0, 11, (5, 7))
    z = member_logits(Tied, states, x)
    for backend in ("loop", "vmap"):
        ens = Ensemble(model, states, backend=backend)
        out = ens(x)
        assert out.shape == (5, 11, 7)
        np.testing.assert_allclose(out.numpy(), sum(softmax(m) for m in z) / 3, atol=3e-6)
    member = ens.members[1]
    assert member.out.weight is member.embed.weight
    assert int(member.calls) == 3
    assert torch.equal(member.shift, model.shift)


def test_members_are_modules_that_share_memory() -> None:
    model, states = states_of(mlp, 3)
    ens = Ensemble(model, states)
    assert len(ens.members) == 3
    assert [type(member) for member in ens.members] == [nn.Sequential] * 3
    for state, member in zip(states, ens.members, strict=True):
        assert not member.training
        for name, value in member.state_dict().items():
            assert torch.equal(value, state[name]), name
    assert len(ens.members[1:]) == 2
    with pytest.raises(IndexError):
        ens.members[3]
    x = torch.randn(2, 4)
    before = ens(x)
    with torch.no_grad():
        ens.members[0][4].bias += torch.tensor([1.0, 0.0, 0.0])
    assert not torch.equal(before, ens(x))
    assert torch.equal(states[0]["4.bias"] + torch.tensor([1.0, 0.0, 0.0]), ens.members[0][4].bias)


def test_the_model_stays_as_it_is() -> None:
    model, states = states_of(mlp, 3)
    model.train()
    before = copy.deepcopy(model.state_dict())
    ens = Ensemble(model, states)
    ens.train()
    x = torch.randn(6, 4)
    first = ens(x)
    assert torch.equal(first, ens(x))  # Dropout off, BatchNorm not updated
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_gradients_reach_the_input_only() -> None:
    model, states = states_of(mlp, 3)
    ens = Ensemble(model, states)
    x = torch.randn(2, 4, requires_grad=True)
    ens(x)[:, 0].sum().backward()
    assert x.grad is not None
    assert list(ens.parameters()) == []


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_dtypes(dtype: torch.dtype) -> None:
    model, states = states_of(mlp, 4)
    x = torch.randn(6, 4)
    expected = Ensemble(model, states)(x)
    out = Ensemble(model, states).to(dtype)(x.to(dtype))
    assert out.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(out.float(), expected, atol=3e-2 if dtype != torch.float64 else 1e-6, rtol=0)
    assert Ensemble(model, states, [1, 2, 3, 4]).to(dtype).weights.tolist() == [0.1, 0.2, 0.3, 0.4]


def test_binary_and_probability_outputs() -> None:
    model, states = states_of(lambda: nn.Linear(4, 1), 3)
    x = torch.randn(5, 4)
    p = sum(1 / (1 + np.exp(-z)) for z in member_logits(lambda: nn.Linear(4, 1), states, x)) / 3
    out = Ensemble(model, states, outputs="binary")(x)
    np.testing.assert_allclose(out.numpy(), np.concatenate([1 - p, p], 1), atol=1e-6)

    def soft() -> nn.Module:
        return nn.Sequential(nn.Linear(4, 3), nn.Softmax(1))

    model, states = states_of(soft, 3)
    out = Ensemble(model, states, outputs="probabilities")(x)
    np.testing.assert_allclose(out.numpy(), sum(member_logits(soft, states, x)) / 3, atol=1e-6)


KINDS = [
    nn.ReLU(inplace=True),
    nn.LeakyReLU(0.2),
    nn.ELU(),
    nn.GELU("tanh"),
    nn.SiLU(),
    nn.Mish(),
    nn.Tanh(),
    nn.Sigmoid(),
    nn.Softplus(2),
    nn.Hardtanh(),
    nn.Sequential(nn.BatchNorm1d(6), nn.Identity()),
    nn.LayerNorm(6),
    nn.BatchNorm1d(6, affine=False),
    nn.LayerNorm(6, elementwise_affine=False),
    nn.Dropout(0.9),
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: type(kind).__name__)
@pytest.mark.parametrize("bias", [True, False])
def test_batched_layers(kind: nn.Module, bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def make() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(12, 6, bias=bias), copy.deepcopy(kind), nn.Linear(6, 3))

    model, states = states_of(make, 5)
    for state in states:
        for name, value in state.items():
            if value.is_floating_point():
                value.add_(torch.randn_like(value).abs() if "var" in name else torch.randn_like(value))
    x = torch.randn(9, 3, 4)
    ens = Ensemble(model, states)
    expected = sum(softmax(z) for z in member_logits(make, states, x)) / 5
    assert expected.std(0).min() > 0.01
    np.testing.assert_allclose(ens(x).numpy(), expected, atol=3e-6)
    monkeypatch.setattr(type(ens._members), "_loop", lambda *_: pytest.fail("the loop ran"))
    np.testing.assert_allclose(ens(x).numpy(), expected, atol=3e-6)  # verified once, now alone
    with torch.no_grad():
        for member in ens.members:
            member[1].weight.zero_()
    assert not np.allclose(ens(x).numpy(), expected, atol=1e-3)  # weights are read anew


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 3)),
        lambda: nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 3)),
        lambda: nn.Sequential(nn.Linear(4, 3), nn.Softmax(1)),
        lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)), nn.Linear(4, 3)),
        lambda: nn.Sequential(*[nn.Linear(4, 4)] * 3, nn.Linear(4, 3)),
    ],
)
def test_what_is_not_plain_is_left_to_the_loop(make: Any) -> None:
    model, states = states_of(make, 4)
    x = torch.randn(5, 4)
    before = x.clone()
    np.testing.assert_allclose(
        Ensemble(model, states)(x).numpy(),
        sum(softmax(z) for z in member_logits(make, states, x.clone())) / 4,
        atol=2e-6,
    )
    assert torch.equal(before, x) or isinstance(model[0], nn.ReLU)
    hooked, states = states_of(lambda: nn.Sequential(nn.Linear(4, 3)), 3)
    hooked[0].register_forward_hook(lambda module, inputs, output: 2 * output)
    z = member_logits(lambda: nn.Sequential(nn.Linear(4, 3)), states, before)
    np.testing.assert_allclose(Ensemble(hooked, states)(before).numpy(), sum(softmax(2 * m) for m in z) / 3, atol=2e-6)


@pytest.mark.parametrize("backend", ["loop", "vmap"])
def test_recurrent_members(backend: str) -> None:
    def lstm() -> nn.Module:
        return nn.LSTM(4, 3, batch_first=True)

    model, states = states_of(lstm, 3)
    x = torch.randn(5, 6, 4)
    expected = 0.0
    for state in states:
        member = lstm()
        member.load_state_dict(state)
        expected = expected + torch.softmax(member(x)[0][:, -1], 1) / 3
    ens = Ensemble(model, states, extract=lambda out: out[0][:, -1], backend=backend)
    torch.testing.assert_close(ens(x), expected)


def test_extract_and_several_inputs() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 3)

        def forward(self, a: torch.Tensor, scale: float = 1.0) -> dict[str, torch.Tensor]:
            return {"logits": self.linear(a) * scale}

    model, states = states_of(Two, 2)
    x = torch.randn(5, 4)
    ens = Ensemble(model, states, extract=lambda out: out["logits"])
    expected = sum(torch.softmax(2 * (x @ s["linear.weight"].T + s["linear.bias"]), 1) for s in states) / 2
    torch.testing.assert_close(ens(x, scale=2.0), expected)
    with pytest.raises(TypeError, match="extract=lambda"):
        Ensemble(model, states)(x)


def test_state_dict_pickle_and_deepcopy() -> None:
    model, states = states_of(mlp, 3)
    x = torch.randn(2, 4)
    ens = Ensemble(model, states, [3, 2, 1], temperature=1.5, steps=[10, 20, 30])
    out = ens(x)
    other = Ensemble(model, states[::-1])
    file = io.BytesIO()
    torch.save(ens.state_dict(), file)
    file.seek(0)
    other(x)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other(x), out)
    assert other.steps == [10, 20, 30]
    copied = copy.deepcopy(ens)
    assert torch.equal(copied(x), out)
    with torch.no_grad():
        copied.members[0][0].weight.zero_()
    assert torch.equal(ens(x), out)


def test_compiled_and_ddp_names_are_not_needed() -> None:
    model, states = states_of(mlp, 2)
    wrapped = torch.compile(model, backend="eager")
    x = torch.randn(2, 4)
    assert torch.equal(Ensemble(wrapped, states)(x), Ensemble(model, states)(x))


@pytest.mark.parametrize(
    ("kwargs", "error", "text"),
    [
        ({"weights": [1.0]}, ValueError, "weights must be 2 finite numbers"),
        ({"weights": [1.0, -1.0]}, ValueError, "weights must be 2"),
        ({"weights": [0.0, 0.0]}, ValueError, "not all 0"),
        ({"weights": [float("nan"), 1.0]}, ValueError, "weights must be 2"),
        ({"temperature": 0.0}, ValueError, "temperature must be a finite number > 0, got 0"),
        ({"temperature": float("nan")}, ValueError, "temperature"),
        ({"temperature": "hot"}, TypeError, "temperature"),
        ({"temperature": 2.0, "combine": "mean"}, ValueError, "must be 1 with combine='mean'"),
        ({"combine": "vote"}, ValueError, "combine must be one of 'prob', 'logit', 'mean', got 'vote'"),
        ({"outputs": "raw"}, ValueError, "outputs must be one of"),
        ({"backend": "cuda"}, ValueError, "backend must be one of"),
        ({"steps": [1]}, ValueError, "one entry per member"),
        ({"extract": 3}, TypeError, "extract must be a function"),
    ],
)
def test_bad_arguments(kwargs: dict[str, Any], error: type[Exception], text: str) -> None:
    model, states = states_of(mlp, 2)
    with pytest.raises(error, match=text):
        Ensemble(model, states, **kwargs)


def test_bad_states() -> None:
    model, states = states_of(mlp, 2)
    with pytest.raises(ValueError, match="at least one member"):
        Ensemble(model, [])
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, got str"):
        Ensemble("model", states)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"state_dicts\[1\] lacks '0.weight'"):
        Ensemble(model, [states[0], {}])
    with pytest.raises(
        ValueError, match=r"state_dicts\[0\]\['0.weight'\] must be a tensor of shape \[8, 4\], got \[1\]"
    ):
        Ensemble(model, [{**states[0], "0.weight": torch.zeros(1)}])
    with pytest.raises(ValueError, match="the model has no 'extra'"):
        Ensemble(model, [{**states[0], "extra": torch.zeros(1)}])
    with pytest.raises(ValueError, match="lazy"):
        Ensemble(nn.LazyLinear(3), states)


def test_bad_calls() -> None:
    model, states = states_of(mlp, 2)
    with pytest.raises(ValueError, match="the input is on meta, the members on cpu"):
        Ensemble(model, states)(torch.zeros(2, 4, device="meta"))
    model, states = states_of(lambda: nn.Linear(4, 1), 2)
    with pytest.raises(ValueError, match="outputs='binary'"):
        Ensemble(model, states)(torch.zeros(2, 4))
    model, states = states_of(mlp, 2)
    with pytest.raises(ValueError, match=r"\[batch\] or \[batch, 1\]"):
        Ensemble(model, states, outputs="binary")(torch.zeros(2, 4))
