"""The evaluator: nothing changes, special models, metrics, bad input."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from thalweg.landscape import Evaluator, from_tensors, random_directions


def make() -> tuple[nn.Module, tuple[torch.Tensor, torch.Tensor]]:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Dropout(0.3), nn.Linear(6, 3))
    model(torch.randn(16, 4))
    return model, (torch.randn(25, 4), torch.randint(0, 3, (25,)))


def everything(model: nn.Module) -> dict[str, Any]:
    return {
        "state": {k: v.clone() for k, v in model.state_dict().items()},
        "addresses": [p.data_ptr() for p in model.parameters()],
        "grads": [p.grad for p in model.parameters()],
        "requires_grad": [p.requires_grad for p in model.parameters()],
        "modes": [m.training for m in model.modules()],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
        "rng": (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()),  # noqa: NPY002
    }


def assert_same(before: dict[str, Any], model: nn.Module) -> None:
    after = everything(model)
    for key in ("addresses", "requires_grad", "modes", "hooks"):
        assert before[key] == after[key], key
    assert all(torch.equal(v, after["state"][k]) for k, v in before["state"].items())
    assert all(a is b for a, b in zip(before["grads"], after["grads"], strict=True))
    assert torch.equal(before["rng"][0], after["rng"][0])
    assert before["rng"][1] == after["rng"][1]
    assert np.array_equal(before["rng"][2], after["rng"][2])


@pytest.mark.parametrize("bn", ["frozen", "batch", "recalibrate"])
@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_model_is_untouched_whatever_happens(bn: str, error: type[BaseException] | None) -> None:
    model, data = make()
    model[0].weight.requires_grad_(False)
    model[4].train(False)
    model[4].weight.grad = torch.ones_like(model[4].weight)
    calls = 0

    def metric(output: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        torch.rand(1), random.random(), np.random.rand()  # noqa: NPY002
        if error is not None and calls == 5:
            raise error("at a point")
        return output.mean()

    before = everything(model)
    run = lambda: Evaluator(model, "cross_entropy", data, metrics=("loss", metric), bn=bn).grid(  # noqa: E731
        random_directions(model), (-1, 1, 4), (-1, 1, 3)
    )
    if error is None:
        run()
    else:
        with pytest.raises(error, match="at a point"):
            run()
    assert calls >= 5
    assert_same(before, model)


def test_tied_weights_move_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(3, 3, bias=False)
            self.b = nn.Linear(3, 3, bias=False)
            self.b.weight = self.a.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(self.a(x))

    model = Tied().double()
    x, y = torch.randn(8, 3).double(), torch.randn(8, 3).double()
    direction = torch.randn(3, 3).double()
    line = Evaluator(model, "mse", (x, y)).line(from_tensors(model, {"a.weight": direction}), (-1, 1, 3))
    weight = model.a.weight.detach() + direction
    np.testing.assert_allclose(line.values["loss"][2], float(((x @ weight.T @ weight.T - y) ** 2).mean()), rtol=1e-12)


def test_weight_norm_moves_its_original_parameters() -> None:
    model = nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))
    ev = Evaluator(model, "mse", (torch.randn(5, 3), torch.randn(5, 2)))
    directions = random_directions(model, 1, ignore=None)
    assert any("original0" in name for name in directions.names)
    assert np.ptp(ev.line(directions, (-1, 1, 3)).values["loss"]) > 0


def test_strided_parameter_is_evaluated() -> None:
    model = nn.Linear(4, 4, bias=False)
    model.weight.data = torch.randn(4, 8)[:, ::2]
    data = (torch.randn(6, 4), torch.randn(6, 4))
    line = Evaluator(model, "mse", data).line(from_tensors(model, {"weight": torch.ones(4, 4)}), (0, 1, 2))
    expected = nn.functional.mse_loss(data[0] @ (model.weight.detach() + 1).T, data[1])
    np.testing.assert_allclose(line.values["loss"][1], expected.item(), rtol=1e-6)


def test_sum_reduction_adds_and_mean_is_weighted() -> None:
    model, data = make()
    summed = Evaluator(model, nn.CrossEntropyLoss(reduction="sum"), data, batch_size=10).at()["loss"]
    mean = Evaluator(model, nn.CrossEntropyLoss(), data, batch_size=10).at()["loss"]
    per_sample = Evaluator(model, nn.CrossEntropyLoss(reduction="none"), data, batch_size=10).at()["loss"]
    np.testing.assert_allclose([summed / 25, per_sample], mean, rtol=1e-6)


def test_tuned_batch_size_is_recorded_and_changes_nothing_else() -> None:
    model, data = make()
    before = everything(model)
    metrics = ("loss", "accuracy", "stderr")
    tuned = Evaluator(model, "cross_entropy", data, metrics, batch_size="tune")
    assert_same(before, model)
    assert tuned.count == 25
    size = tuned.line(random_directions(model, 1), (0, 1, 2)).metadata["batch_sizes"][0]
    assert tuned.at() == Evaluator(model, "cross_entropy", data, metrics, batch_size=size).at()


def test_loss_fn_with_model_and_batch() -> None:
    model, data = make()
    general = Evaluator(model, lambda m, batch: nn.functional.cross_entropy(m(batch[0]), batch[1]), data, batch_size=10)
    assert general.at() == Evaluator(model, "cross_entropy", data, batch_size=10).at()


def test_nan_and_infinity_stay() -> None:
    model = nn.Linear(1, 1, bias=False)
    ev = Evaluator(
        model, lambda m, batch: m.weight.detach().reshape(()) * 1e38 * 1e4, (torch.ones(2, 1), torch.ones(2, 1))
    )
    line = ev.line(from_tensors(model, {"weight": torch.full((1, 1), 1e5)}), (-1, 1, 3))
    assert line.values["loss"][0] == -np.inf
    assert line.values["loss"][2] == np.inf
    nan = Evaluator(
        model, lambda m, b: torch.where(m.weight > 2, torch.nan, m.weight).sum(), (torch.ones(2, 1), torch.ones(2, 1))
    )
    assert np.isnan(nan.line(from_tensors(model, {"weight": torch.full((1, 1), 5.0)}), (0, 1, 2)).values["loss"][1])


def test_custom_metrics_per_sample_and_named() -> None:
    def each(output: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(output, targets, reduction="none")

    model, data = make()
    metrics = ("loss", each, ("three", lambda output, targets: 3))
    at = Evaluator(model, "cross_entropy", data, batch_size=10, metrics=metrics).at()
    assert at["three"] == 3
    np.testing.assert_allclose(at["each"], at["loss"], rtol=1e-6)


def test_frozen_statistics_scale_and_batch_statistics_do_not() -> None:
    """With batch or recalibrated statistics the loss is constant along the scale of the weights before BatchNorm."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(4, 5, bias=False), nn.BatchNorm1d(5, eps=1e-14), nn.Tanh(), nn.Linear(5, 3)
    ).double()
    data = (torch.randn(30, 4).double(), torch.randint(0, 3, (30,)))
    scale = from_tensors(model, {"0.weight": model[0].weight.detach()})
    for bn, constant in (("frozen", False), ("batch", True), ("recalibrate", True)):
        losses = Evaluator(model, "cross_entropy", data, bn=bn, batch_size=30).line(scale, (-0.5, 3, 5)).values["loss"]
        assert (np.ptp(losses) < 1e-7) == constant, bn


BAD = [
    (lambda m, d: Evaluator(m, "cross_entropy", (d[0][:0], d[1][:0])), ValueError, "equal, positive length"),
    (lambda m, d: Evaluator(m, "cross_entropy", (d[0], d[1][:3])), ValueError, "equal, positive length"),
    (lambda m, d: Evaluator(m, "nonsense", d), ValueError, "loss_fn must be one of"),
    (lambda m, d: Evaluator(m, 3, d), TypeError, "loss_fn must be"),
    (lambda m, d: Evaluator("model", "mse", d), TypeError, "must be a torch.nn.Module"),
    (lambda m, d: Evaluator(nn.ReLU(), "mse", d), ValueError, "no parameters"),
    (lambda m, d: Evaluator(m, "cross_entropy", d, metrics=("volume",)), ValueError, "metric must be"),
    (lambda m, d: Evaluator(m, "cross_entropy", d, metrics="loss"), TypeError, "metrics must be a list"),
    (lambda m, d: Evaluator(m, "cross_entropy", d, metrics=("loss", "loss")), ValueError, "given twice"),
    (lambda m, d: Evaluator(m, lambda a, b: 1, d, metrics=("accuracy",)), ValueError, "need the model's output"),
    (lambda m, d: Evaluator(m, "cross_entropy", d, bn="magic"), ValueError, "bn must be one of"),
    (lambda m, d: Evaluator(m, "cross_entropy", d, batch_size=0), ValueError, "batch_size"),
    (lambda m, d: Evaluator(m, "cross_entropy", (d[0] * float("nan"), d[1])), ValueError, "NaN at the model's own"),
    (lambda m, d: Evaluator(m, "cross_entropy", d).grid(random_directions(m, 1)), ValueError, "two directions"),
    (lambda m, d: Evaluator(m, "cross_entropy", d).grid(random_directions(m), x=(0, 1, 0)), ValueError, r"x\[2\]"),
    (
        lambda m, d: Evaluator(m, "cross_entropy", d).grid(random_directions(m), x=(0, float("inf"), 3)),
        ValueError,
        r"x\[1\]",
    ),
    (
        lambda m, d: Evaluator(m, "cross_entropy", d).grid(random_directions(m), x=(1, 1, 3)),
        ValueError,
        "different ends",
    ),
    (
        lambda m, d: Evaluator(m, "cross_entropy", d).grid(random_directions(nn.Linear(2, 2))),
        ValueError,
        "belong to parameters",
    ),
    (lambda m, d: Evaluator(m, "cross_entropy", d).line((m, nn.Linear(2, 2))), ValueError, "is it another model"),
    (
        lambda m, d: Evaluator(m, "cross_entropy", d).points(random_directions(m), [[0.0, float("nan")]]),
        ValueError,
        "finite",
    ),
    (lambda m, d: Evaluator(m.to("meta"), "cross_entropy", d), ValueError, "meta"),
]


@pytest.mark.parametrize("case", range(len(BAD)))
def test_bad_input_is_a_clear_error(case: int) -> None:
    build, kind, text = BAD[case]
    model, data = make()
    with pytest.raises(kind, match=text):
        build(model, data)
