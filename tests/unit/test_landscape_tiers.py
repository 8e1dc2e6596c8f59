"""The approximate tier against autocast by hand, what is told of engine and time, complete journals."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from thalweg.landscape import Evaluator, random_directions
from thalweg.landscape._evaluation import Evaluation
from thalweg.landscape._journal import read
from thalweg.landscape.engines.choice import Choice
from thalweg.landscape.engines.tiers import Tiers

POINTS = np.random.default_rng(0).uniform(-1, 1, (13, 2))


def net() -> tuple[nn.Module, tuple[torch.Tensor, torch.Tensor]]:
    model = nn.Sequential(nn.Linear(12, 30), nn.ReLU(), nn.Linear(30, 20), nn.Tanh(), nn.Linear(20, 5))
    return model, (torch.randn(90, 12), torch.randint(0, 5, (90,)))


def with_gradient(model: nn.Module, batch: Any) -> torch.Tensor:
    """A loss that takes a gradient, so that points are evaluated outside inference mode."""
    with torch.enable_grad():
        x = batch[0].requires_grad_()
        loss = F.cross_entropy(model(x), batch[1])
        return loss + 0 * torch.autograd.grad(loss, x)[0].sum()


def autocast_by_hand(model: nn.Module, directions: Any, data: Any) -> list[float]:
    found, plain = [], copy.deepcopy(model).eval()
    weights = [p.detach().clone() for p in plain.parameters()]
    for a, b in POINTS.tolist():
        with torch.no_grad():
            for p, w, d, e in zip(plain.parameters(), weights, *directions.vectors, strict=True):
                p.copy_((w + a * d) + b * e)
            total = 0.0
            for x, y in zip(data[0].split(40), data[1].split(40), strict=True):
                with torch.autocast("cpu", torch.bfloat16):  # entered anew: nothing is cached over points
                    total += F.cross_entropy(plain(x), y).item() * len(y)
        found.append(total / len(data[1]))
    return found


@pytest.mark.parametrize("loss", ["cross_entropy", with_gradient])
def test_the_plain_loop_in_bf16_is_autocast(loss: Any) -> None:
    model, data = net()
    directions = random_directions(model)
    ev = Evaluator(
        model, loss, data, batch_size=40, tier="approximate", precision="bf16", implementation="loop"
    )  # fmt: skip
    assert ev.points(directions, POINTS).values["loss"].tolist() == autocast_by_hand(model, directions, data)


@pytest.mark.parametrize("implementation", ["program", "threads", "vmap", "auto"])
def test_the_error_probe_is_measured(implementation: str, threads: int) -> None:
    if implementation == "threads" and threads == 1:
        pytest.skip("one thread has no groups to share")
    torch.set_num_threads(threads)
    model, data = net()
    directions = random_directions(model)
    exact = Evaluator(model, "cross_entropy", data).points(directions, POINTS).values["loss"]
    ev = Evaluator(
        model, "cross_entropy", data, tier="approximate", precision="bf16", implementation=implementation
    )  # fmt: skip
    result = ev.points(directions, POINTS)
    gaps = np.abs(result.values["loss"] - exact)
    assert 0 < gaps.max() < 0.02
    probe = result.metadata["error_probe"]
    assert probe == {
        "points": 13,
        "largest_absolute": gaps.max(),
        "largest_relative": (gaps / exact).max(),
        "finite_alike": True,
    }


def test_models_and_lines_between_them_have_a_tier_too() -> None:
    (model, data), (other, _) = net(), net()
    exact = Evaluator(model, "cross_entropy", data)
    ev = Evaluator(model, "cross_entropy", data, tier="approximate", precision="bf16")
    assert ev.at() == exact.at()
    assert ev.at(other) == exact.at(other)
    found = ev.line((model, other), (0, 1, 5))
    gaps = np.abs(found.values["loss"] - exact.line((model, other), (0, 1, 5)).values["loss"])
    assert 0 < gaps.max() == found.metadata["error_probe"]["largest_absolute"]
    assert "the points lie between two models" in str(ev.choice)
    quick = Evaluator(model, "cross_entropy", data, tier="rounding").line((model, other), (0, 1, 5))
    assert quick.values["loss"].tolist() == exact.line((model, other), (0, 1, 5)).values["loss"].tolist()


def test_every_run_says_how_and_how_long(caplog: pytest.LogCaptureFixture) -> None:
    model, data = net()
    directions = random_directions(model)
    with caplog.at_level(logging.INFO, "thalweg.landscape"):
        ev = Evaluator(model, "cross_entropy", data)
        assert ev.choice is not None
        assert ev.choice.seconds is not None
        assert 0 < ev.choice.seconds < 60
        assert not caplog.messages, "of single models there is nothing to say"
        ev.grid(directions, (-1, 1, 5), (-1, 1, 3))
        before = ev.choice
        ev.at()
        assert ev.choice is before
        assert caplog.messages[0].startswith("landscape: exact tier, loop (loop: ")
        assert ": 15 points, about " in caplog.messages[0]
        caplog.clear()
        quick = Evaluator(model, "cross_entropy", data, tier="rounding")
        quick.grid(directions, (-1, 1, 5), (-1, 1, 3))
        quick.grid(directions, (-1, 1, 9), (-1, 1, 9), refine=0.1)
        first, second = caplog.messages
        assert first.startswith(f"landscape: rounding tier, {quick.choice}: 15 points, about ")
        assert ": up to 81 points, about " in second


def test_times_in_words() -> None:
    choice = Choice("program", {"loop": "3 ms/point", "program": "1 ms/point"}, 0.001)
    assert str(choice) == "program (loop: 3 ms/point; program: 1 ms/point)"
    assert choice.predicted(1500) == "about 1.5 s"
    assert choice.predicted(600_000) == "about 10 min"
    assert choice.predicted(9_000_000) == "about 2.5 h"
    assert Choice("vmap", {"vmap": "as asked for"}).predicted(5) == "not timed"


@pytest.mark.parametrize("tier", ["exact", "rounding", "approximate"])
@pytest.mark.parametrize("refine", [None, 0.05])
def test_a_complete_journal_needs_no_engine(
    tier: str, refine: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, data = net()
    directions = random_directions(model)
    precision = "bf16" if tier == "approximate" else None
    axes: Any = {"x": (-1, 1, 17), "y": (-1, 1, 9), "refine": refine, "resume": tmp_path / "run.sqlite"}
    whole = Evaluator(model, "cross_entropy", data, tier=tier, precision=precision).grid(directions, **axes)
    ev = Evaluator(model, "cross_entropy", data, tier=tier, precision=precision)

    def none(*args: Any) -> Any:
        raise AssertionError("no engine is needed")

    for name in ("exact", "choice", "named"):
        monkeypatch.setattr(Tiers, name, none)
    again = ev.grid(directions, **axes)
    assert ev.choice is None
    np.testing.assert_array_equal(again.values["loss"], whole.values["loss"])
    assert again.metadata == whole.metadata
    assert ("error_probe" in again.metadata) == (tier == "approximate")


def test_an_error_probe_that_a_kill_has_prevented_is_made_up_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, data = net()
    directions, axes = random_directions(model), {"x": (-1, 1, 5), "y": (-1, 1, 5)}
    ev = Evaluator(model, "cross_entropy", data, tier="approximate", precision="bf16")

    class Killed(Exception):
        pass

    def die(*args: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Evaluation, "_probe", die)
        with pytest.raises(Killed):
            ev.grid(directions, **axes, resume=tmp_path / "run.sqlite")
    again = ev.grid(directions, **axes, resume=tmp_path / "run.sqlite")
    assert ev.choice is None
    assert again.metadata["error_probe"]["largest_absolute"] > 0
    told = read("test", tmp_path / "run.sqlite").told
    assert told["error_probe"] == again.metadata["error_probe"]
