"""Models of every build against a plain loop, bit for bit; what cannot be evaluated is named."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from thalweg.landscape import Directions, Evaluator, from_tensors, random_directions

X, Y = torch.randn(23, 4, generator=torch.Generator().manual_seed(1)), torch.arange(23) % 3
COORDINATES = [(0.0, 0.0), (0.5, -0.7), (-1.0, 0.3)]


class Tied(nn.Module):
    """Weights used twice: by one Parameter, and by a view of its memory."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(4, 4, bias=False) for _ in range(3))
        self.b.weight = self.a.weight
        self.c.weight = nn.Parameter(self.a.weight.detach().view(4, 4))
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.c(torch.tanh(self.b(torch.tanh(self.a(x)))))))


class Sequence(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.rnn = kind(1, 5, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x[..., None])[0][:, -1])


class Padded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 4, padding_idx=0, max_norm=1.5)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.embedding((x.abs() * 3).long().clamp(max=6)).mean(1))


class Odd(nn.Module):
    """An empty parameter, a scalar one, one without gradient, one that is not used; buffers of odd kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.layer.bias.requires_grad_(False)
        self.unused = nn.Linear(2, 2)
        self.empty, self.scale = nn.Parameter(torch.zeros(0, 3)), nn.Parameter(torch.tensor(1.5))
        self.register_buffer("none", None)
        self.register_buffer("expanded", torch.ones(1).expand(3))
        self.register_buffer("sparse", torch.eye(3).to_sparse())
        self.register_buffer("tiny", torch.ones(3).to(torch.float8_e4m3fn))
        self.register_buffer("wave", torch.ones(3, dtype=torch.complex64))
        self.register_buffer("mask", torch.ones(3, dtype=torch.bool))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) * self.scale + self.expanded


def mlp() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 3))
    model(torch.randn(20, 4))
    return model


def old_weight_norm() -> nn.Module:
    with pytest.warns(FutureWarning):
        return nn.utils.weight_norm(nn.Linear(4, 3))


KINDS: dict[str, Callable[[], nn.Module]] = {
    "tied": Tied,
    "weight_norm": lambda: parametrizations.weight_norm(nn.Linear(4, 3)),
    "old weight_norm": old_weight_norm,
    "spectral_norm": lambda: parametrizations.spectral_norm(nn.Linear(4, 3)),
    "old spectral_norm": lambda: nn.utils.spectral_norm(nn.Linear(4, 3)),
    "orthogonal": lambda: parametrizations.orthogonal(nn.Linear(4, 3)),
    "lstm": lambda: Sequence(nn.LSTM),
    "gru": lambda: Sequence(nn.GRU),
    "padding": Padded,
    "odd": Odd,
    "train mode": lambda: mlp().train(),
    "frozen": lambda: mlp().requires_grad_(False),
    "data parallel": lambda: nn.DataParallel(mlp()),
    "averaged": lambda: torch.optim.swa_utils.AveragedModel(mlp()),
    "compiled": lambda: torch.compile(mlp(), backend="eager"),
    "traced": lambda: torch.fx.symbolic_trace(mlp().eval()),
}


def plain(model: nn.Module, directions: Directions, size: int) -> list[float]:
    """The loop that anybody would write, on the model itself, put back afterwards."""
    named = dict(getattr(model, "_orig_mod", model).named_parameters())
    params = [named[name] for name in directions.names]
    weights = [p.detach().clone() for p in params]
    state, modes = copy.deepcopy(model.state_dict()), [(m, m.training) for m in model.modules()]
    model.eval()
    losses = []
    with torch.no_grad():
        for a, b in COORDINATES:
            for p, w, u, v in zip(params, weights, *directions.vectors, strict=True):
                p.copy_((w + a * u) + b * v)
            total = 0.0
            for x, y in zip(X.split(size), Y.split(size), strict=True):
                total += float(nn.functional.cross_entropy(model(x), y)) * len(y)
            losses.append(total / len(Y))
    for name, value in state.items():
        if "expanded" not in name and "sparse" not in name:
            model.state_dict()[name].copy_(value)
    for module, mode in modes:
        module.training = mode
    return losses


def fingerprint(model: nn.Module) -> list[Any]:
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    dense = {name: t.detach().to_dense() if t.is_sparse else t.detach() for name, t in tensors.items()}
    flags = [(name, p.requires_grad, p.grad is None, p.data_ptr()) for name, p in model.named_parameters()]
    modules = [(m.training, sorted(m.__dict__), len(m._forward_hooks)) for m in model.modules()]
    bits = {name: t.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() for name, t in dense.items()}
    return [bits, flags, modules, torch.get_rng_state().numpy().tobytes()]


@pytest.mark.parametrize("size", [10, 23])
@pytest.mark.parametrize("kind", list(KINDS))
def test_every_build_has_the_bits_of_plain_torch_and_stays_as_it_is(kind: str, size: int) -> None:
    torch.manual_seed(size)
    model = KINDS[kind]()
    directions = random_directions(model, ignore=None, seed=size)
    before = fingerprint(model)
    ours = Evaluator(model, "cross_entropy", (X, Y), batch_size=size).points(directions, COORDINATES).values["loss"]
    assert fingerprint(model) == before
    assert ours.tolist() == plain(model, directions, size)
    assert np.ptp(ours) > 0


@pytest.mark.parametrize("kind", ["odd", "tied", "spectral_norm", "compiled", "averaged"])
def test_lines_between_models_of_every_build_meet_both_ends(kind: str) -> None:
    a, b = KINDS[kind](), KINDS[kind]()
    before = fingerprint(a)
    ev = Evaluator(a, "cross_entropy", (X, Y), batch_size=10)
    losses = ev.line((a, b), (0, 1, 4)).values["loss"]
    assert losses[0] == ev.at()["loss"] == ev.at(a)["loss"]
    assert losses[-1] == ev.at(b)["loss"] == Evaluator(b, "cross_entropy", (X, Y), batch_size=10).at()["loss"]
    assert losses[0] != losses[-1]
    assert fingerprint(a) == before


def test_scripted_models() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        model = torch.jit.script(nn.Sequential(nn.Linear(4, 3)))
    directions = random_directions(model, ignore=None)
    ours = Evaluator(model, "cross_entropy", (X, Y), batch_size=10).points(directions, COORDINATES).values["loss"]
    assert ours.tolist() == plain(model, directions, 10)


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("bn", ["interpolate", "batch", "recalibrate"])
def test_distributed_data_parallel_is_the_model_inside(group: None, bn: str) -> None:
    inner = mlp()
    values = []
    for model in (inner, nn.parallel.DistributedDataParallel(inner)):
        ev = Evaluator(model, "cross_entropy", (X, Y), bn=bn, batch_size=10)
        values.append(ev.points(random_directions(model, seed=1), COORDINATES).values["loss"])
    assert np.array_equal(*values)


# ---- losses with a life of their own ---------------------------------------------------------------------------


def test_losses_that_take_gradients() -> None:
    """Such as those of physics-informed networks: the equation's residual holds derivatives by the inputs."""
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    x = torch.linspace(0, 1, 12, dtype=torch.float64)[:, None]

    def residual(m: nn.Module, batch: Any) -> Tensor:
        with torch.enable_grad():
            place = batch[0].clone().requires_grad_()
            value = m(place)
            (slope,) = torch.autograd.grad(value.sum(), place, create_graph=True)
        return (slope + value).square().mean()

    direction = random_directions(model, 1, ignore=None)
    before = fingerprint(model)
    for data in ((x, x), torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, x), batch_size=12)):
        ev = Evaluator(model, residual, data, memory_budget=0)
        losses = ev.line(direction, (-0.5, 0.5, 3)).values["loss"]
        for alpha, loss in zip((-0.5, 0.0, 0.5), losses, strict=True):
            twin = copy.deepcopy(model)
            with torch.no_grad():
                for p, d in zip(twin.parameters(), direction.vectors[0], strict=True):
                    p.add_(alpha * d)
            assert loss == pytest.approx(residual(twin, (x, x)).item(), rel=1e-12)
    assert fingerprint(model) == before
    with pytest.raises(RuntimeError, match="does not require grad"):  # gradients do not help: the loss's own error
        Evaluator(model, lambda m, b: torch.autograd.grad(m(b[0]).sum(), b[0])[0], (x, x))


def test_a_loss_module_starts_every_point_afresh_and_stays_as_it_is() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))
            self.scale = nn.Parameter(torch.tensor(2.0))

        def forward(self, output: Tensor, targets: Tensor) -> Tensor:
            self.calls += 1
            self.last = output
            return self.scale * self.calls * nn.functional.cross_entropy(output, targets)

    model, loss = mlp(), Counting()
    zero = from_tensors(model, {})
    values = Evaluator(model, loss, (X, Y)).points(zero, [[0.0], [1.0], [2.0]]).values["loss"]
    assert len(set(values.tolist())) == 1
    assert values[0] == pytest.approx(2 * Evaluator(model, "cross_entropy", (X, Y)).at()["loss"], rel=1e-6)
    assert float(loss.calls) == 0
    assert not hasattr(loss, "last")


@pytest.mark.parametrize("value", [3, np.float32(3), torch.tensor([[3.0]]), torch.tensor(3), True])
def test_losses_may_be_any_number(value: Any) -> None:
    assert Evaluator(mlp(), lambda m, b: value, (X, Y)).at()["loss"] == float(value)


# ---- 16 bits ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bit_weights_that_do_not_move_are_counted(dtype: torch.dtype) -> None:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(4, 200), nn.Linear(200, 3)).to(dtype)
    directions = random_directions(model, ignore=None)
    ev = Evaluator(model, "cross_entropy", (X.to(dtype), Y))
    step = 2.0**-10 if dtype == torch.bfloat16 else 2.0**-13
    stuck = total = 0
    for p, d in zip(model.parameters(), directions.vectors[0], strict=True):
        stuck += int(((p.detach().float() + step * d).to(dtype) == p).sum())
        total += p.numel()
    assert 0.1 < stuck / total < 0.9
    with pytest.warns(UserWarning, match=rf"{stuck / total:.0%} of the 16-bit weights do not move .*model.float"):
        ev.points(directions, [[0.5, 0.5], [step, 0.0], [0.0, 0.0]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ev.points(directions, [[1.0, 0.0], [0.0, 0.0]])
        ev.points(from_tensors(model, {}), [[1e-9], [0.0]])  # nothing should move
        wide = copy.deepcopy(model).float()
        Evaluator(wide, "cross_entropy", (X, Y)).points(directions, [[1e-6, 0.0]])


# ---- what cannot be evaluated ----------------------------------------------------------------------------------


def with_parameter(value: Tensor) -> nn.Module:
    model = nn.Linear(4, 3)
    model.register_parameter("extra", nn.Parameter(value, requires_grad=False))
    return model


def with_buffer(value: Tensor) -> nn.Module:
    model = nn.Linear(4, 3)
    model.register_buffer("extra", value)
    return model


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (lambda: nn.LazyLinear(3), "parameter 'weight' is not initialised"),
        (
            lambda: nn.Sequential(nn.Linear(4, 3), nn.LazyBatchNorm1d(affine=False)),
            "buffer '1.running_mean' is not init",
        ),
        (lambda: with_buffer(torch.zeros(2, device="meta")), "buffer 'extra' is on meta"),
        (lambda: with_parameter(torch.zeros(2, device="meta")), "parameter 'extra' is .* on meta"),
        (lambda: with_parameter(torch.zeros(2, dtype=torch.int8)), "parameter 'extra' is torch.int8"),
        (lambda: with_parameter(torch.zeros(2, dtype=torch.complex64)), "parameter 'extra' is torch.complex64"),
        (
            lambda: torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(4, 3)), {nn.Linear}),
            "no parameters; layers that were quantised",
        ),
    ],
)
def test_what_cannot_move_is_named(model: Callable[[], nn.Module], text: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        built = model()
    with pytest.raises(ValueError, match=text):
        Evaluator(built, "cross_entropy", (X, Y))


def test_complex_losses_are_refused() -> None:
    with pytest.raises(ValueError, match="loss must return a scalar or one float per sample"):
        Evaluator(mlp(), lambda m, b: torch.tensor(1j), (X, Y))


def test_parameters_made_in_inference_mode() -> None:
    with torch.inference_mode():
        model = nn.Linear(4, 3)
    directions = random_directions(model, ignore=None)
    before = model.weight.clone()
    ours = Evaluator(model, "cross_entropy", (X, Y)).points(directions, COORDINATES).values["loss"]
    assert torch.equal(model.weight, before)
    assert ours.tolist() == plain_inference(model, directions)


def plain_inference(model: nn.Module, directions: Directions) -> list[float]:
    twin = nn.Linear(4, 3)
    with torch.no_grad():
        for p, w in zip(twin.parameters(), model.parameters(), strict=True):
            p.copy_(w)
    return plain(twin, directions, 23)
