"""Programs over many points against the model itself at each point, in float64."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thalweg.landscape import Evaluator, from_tensors, random_directions
from thalweg.landscape.program import Program, Refused


class Residual(nn.Module):
    """Convolutions with BatchNorm, a shortcut that is in use twice, sums in place."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.a = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm_a, self.norm_b = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
        self.b = nn.Conv2d(width, width, (3, 1), padding=(1, 0), groups=2)
        self.head = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        y = self.norm_b(self.b(F.relu(self.norm_a(self.a(x)), inplace=True)))
        x = F.relu(x + y)
        x += torch.sigmoid(y)
        return self.head(x.mean((2, 3)))


class Shared(nn.Module):
    """Tied weights, a weight that no layer owns, a norm after a linear layer, several reads of one value."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6, bias=False)
        self.b.weight = self.a.weight
        self.scale = nn.Parameter(torch.randn(6))
        self.norm, self.layer_norm = nn.BatchNorm1d(6), nn.LayerNorm(6)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self.a(x))
        g = self.layer_norm(self.b(h) * self.scale + x)
        return self.head(torch.cat([h, g.tanh()], dim=1).view(x.size(0), -1))


class Late(nn.Module):
    """Only the end moves; the beginning is shared by both branches."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(6, 7), nn.Linear(7, 7), nn.Linear(7, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.first(x))
        return self.head(h + self.second(h))


class Tokens(nn.Module):
    """Layers over more dimensions than one, a convolution in one dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.mix, self.up, self.head = (
            nn.Conv1d(4, 4, 3, padding=1, padding_mode="circular"),
            nn.Linear(6, 9),
            nn.Linear(9, 5),
        )

    def forward(self, x: Tensor) -> Tensor:
        h = self.mix(self.embed(x))
        return self.head(F.gelu(self.up(h))).mean(1)


class Sequence(nn.Module):
    """Layers without a faster form: their weights are swapped point by point."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.gru = nn.Linear(5, 6), nn.GRU(6, 4, batch_first=True, num_layers=2)
        self.attention = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.attention(self.gru(self.first(x))[0])[:, -1])


def lenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 3, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True),
        nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.3), nn.Linear(16, 5),
    )  # fmt: skip


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(20, 9), nn.ReLU(), nn.Linear(9, 8), nn.Tanh(), nn.Linear(8, 5))


def images(*shape: int) -> Callable[[], Tensor]:
    return lambda: torch.randn(13, *shape)


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "mlp": (mlp, images(20)),
    "lenet": (lenet, images(1, 13, 13)),
    "residual": (Residual, images(3, 6, 6)),
    "shared": (Shared, images(6)),
    "late": (Late, images(6)),
    "sequence": (Sequence, images(3, 5)),
    "tokens": (Tokens, lambda: torch.randint(0, 11, (13, 4))),
}


def made(case: str, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, Tensor]:
    build, inputs = CASES[case]
    model, x = build().to(dtype), inputs()
    x = x.to(dtype) if x.is_floating_point() else x
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
            module.running_mean.normal_()
            module.running_var.uniform_(0.3, 2.0)
    return model.eval(), x


def terms_of(model: nn.Module, moves: Callable[[str], bool], directions: int) -> dict[str, list[Tensor | None]]:
    found: dict[str, list[Tensor | None]] = {}
    for place, (name, p) in enumerate(model.named_parameters()):
        if moves(name):
            parts = [torch.randn_like(p) if (place + d) % 3 else None for d in range(directions)]
            found[name] = [
                p.detach(),
                *(parts if any(t is not None for t in parts) else [torch.randn_like(p)] * directions),
            ]
    return found


def plain(model: nn.Module, x: Tensor, terms: dict[str, list[Tensor | None]], point: list[float]) -> Tensor:
    moved = copy.deepcopy(model)
    with torch.no_grad():
        params = dict(moved.named_parameters())
        for name, (_, *parts) in terms.items():
            for c, part in zip(point, parts, strict=True):
                if part is not None:
                    params[name] += c * part
        out: Tensor = moved(x.clone())
    return out


MOVES: dict[str, Callable[[str], bool]] = {
    "all": lambda name: True,
    "weights": lambda name: "norm" not in name and "bias" not in name,
    "head": lambda name: "head" in name or name.startswith(("4.", "8.")),
    "first": lambda name: name.startswith(("stem", "a.", "first", "mix", "0.")),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("moves", MOVES)
@pytest.mark.parametrize("reuse", [True, False])
@pytest.mark.parametrize("directions", [1, 3])
def test_outputs_are_the_model_s_at_every_point(case: str, moves: str, reuse: bool, directions: int) -> None:
    model, x = made(case)
    terms = terms_of(model, MOVES[moves], directions)
    assert terms
    before = {name: value.clone() for name, value in model.state_dict().items()}
    kept = x.clone()
    points = np.random.default_rng().normal(size=(4, directions))
    with torch.inference_mode():
        program = Program(model, terms, reuse)
        program.prepare(0, x)
        for _ in range(2):  # the second time nothing that is kept may have changed
            found = program.outputs(0, program.at(torch.from_numpy(points)))
            for out, point in zip(found, points.tolist(), strict=True):
                expected = plain(model, x, terms, point)
                torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))
    assert torch.equal(x, kept)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_what_cannot_be_traced_is_refused_with_the_reason() -> None:
    class Branch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) if x.sum() > 0 else x

    model = Branch()
    with pytest.raises(Refused, match="torch.fx cannot trace the model"):
        Program(model, {"layer.weight": [model.layer.weight.detach(), torch.ones(3, 3)]})
    half = nn.Linear(3, 3).to(torch.bfloat16)
    with pytest.raises(Refused, match="bfloat16"):
        Program(half, {"weight": [half.weight.detach(), torch.ones(3, 3)]})


@pytest.mark.parametrize("implementation", ["auto", "program", "threads", "vmap", "loop"])
@pytest.mark.parametrize("case", ["mlp", "lenet", "residual"])
def test_the_rounding_tier_has_the_exact_tier_s_values(case: str, implementation: str, threads: int) -> None:
    if implementation == "threads" and threads == 1:
        pytest.skip("one thread has no groups to share")
    torch.set_num_threads(threads)
    model, x = made(case, torch.float32)
    y = torch.randint(0, 5, (len(x),))
    directions = random_directions(model, seed=3)
    metrics = ("loss", "accuracy", "confidence", "stderr")
    exact = Evaluator(model, "cross_entropy", (x, y), metrics, batch_size=5)
    quick = Evaluator(
        model, "cross_entropy", (x, y), metrics, batch_size=5, tier="rounding", implementation=implementation
    )
    before = {name: value.clone() for name, value in model.state_dict().items()}
    a = exact.grid(directions, (-1, 1, 5), (-0.5, 1, 3))
    b = quick.grid(directions, (-1, 1, 5), (-0.5, 1, 3))
    for name in ("loss", "confidence", "stderr"):
        np.testing.assert_allclose(b.values[name], a.values[name], rtol=2e-5, atol=1e-6, err_msg=name)
    assert np.abs(b.values["accuracy"] - a.values["accuracy"]).max() <= 1 / len(x) + 1e-12
    assert (a.metadata["tier"], b.metadata["tier"]) == ("exact", "rounding")
    assert torch.get_num_threads() == threads
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    if implementation == "auto":
        assert quick.choice is not None
        assert "ms/point" in quick.choice.reasons["loop"]


@pytest.mark.parametrize("case", ["sequence", "tokens", "shared"])
def test_threads_do_not_meet(case: str) -> None:
    torch.set_num_threads(2)
    model, x = made(case, torch.float32)
    y = torch.randint(0, 5, (len(x),))
    directions = random_directions(model, ignore=None)
    points = np.random.default_rng().uniform(-1, 1, (200, 2))
    exact = Evaluator(model, "cross_entropy", (x, y)).points(directions, points).values["loss"]
    ev = Evaluator(model, "cross_entropy", (x, y), tier="rounding", implementation="threads")
    for _ in range(3):
        np.testing.assert_allclose(ev.points(directions, points).values["loss"], exact, rtol=1e-4)
    plain = Evaluator(model, "cross_entropy", (x, y)).points(directions, points).values["loss"]
    np.testing.assert_array_equal(plain, exact)


def test_values_do_not_depend_on_the_points_beside_them() -> None:
    model, x = made("lenet", torch.float32)
    y = torch.randint(0, 5, (len(x),))
    ev = Evaluator(model, "cross_entropy", (x, y), tier="rounding", implementation="program")
    directions = random_directions(model)
    points = np.random.default_rng(0).uniform(-1, 1, (29, 2))
    whole = ev.points(directions, points).values["loss"]
    order = np.random.default_rng(1).permutation(29)[:11]
    np.testing.assert_array_equal(ev.points(directions, points[order]).values["loss"], whole[order])


def test_layers_that_stand_still_are_computed_once_with_the_same_bits() -> None:
    model, x = made("residual", torch.float32)
    y = torch.randint(0, 5, (len(x),))
    head = from_tensors(model, {"head.weight": torch.randn(5, 4)}, {"head.bias": torch.randn(5)})
    calls: list[Any] = []
    ev = Evaluator(model, "cross_entropy", (x, y), batch_size=4)
    model.a.register_forward_hook(lambda *args: calls.append(None))
    surface = ev.grid(head, (-1, 1, 4), (-1, 1, 3))
    assert len(calls) == 2 * (len(x) // 4 + 1)  # batches, once to keep and once to compare, not times points
    plainly = Evaluator(model, lambda m, batch: F.cross_entropy(m(batch[0]), batch[1]), (x, y), batch_size=4)
    np.testing.assert_array_equal(surface.values["loss"], plainly.grid(head, (-1, 1, 4), (-1, 1, 3)).values["loss"])
    assert len(calls) > 12


def test_an_implementation_that_cannot_is_refused_by_name() -> None:
    model, x = made("mlp", torch.float32)
    y = torch.randint(0, 5, (len(x),))
    ev = Evaluator(
        model,
        lambda m, batch: F.cross_entropy(m(batch[0]), batch[1]),
        (x, y),
        tier="rounding",
        implementation="program",
    )
    with pytest.raises(ValueError, match=r"implementation 'program' cannot .*does not follow from the model's outputs"):
        ev.grid(random_directions(model), (-1, 1, 5), (-1, 1, 3))
    with pytest.raises(ValueError, match="tier"):
        Evaluator(model, "cross_entropy", (x, y), tier="fast")
