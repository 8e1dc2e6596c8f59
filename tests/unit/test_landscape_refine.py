"""Adaptive refinement: which points are evaluated, how far the interpolated ones are, what is never made up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

import thalweg as tw
from thalweg.landscape import Evaluator, random_directions
from thalweg.landscape._ledger import Ledger
from thalweg.landscape._refine import Refinement, filled

Array = npt.NDArray[np.float64]


def refined(function: Array, tolerance: float) -> tuple[Array, npt.NDArray[np.bool_]]:
    ledger = Ledger(np.arange(function.size), 1)
    rounds = Refinement((function.shape[0], function.shape[1]), tolerance, lambda sums: sums[:, 0])
    asked: list[int] = []
    while len(indices := rounds(ledger)):
        ledger.add(indices, function.ravel()[indices][:, None])
        asked += indices.tolist()
    assert len(set(asked)) == len(asked)
    return ledger.sums[:, 0].reshape(function.shape), ledger.done.reshape(function.shape)


@pytest.mark.parametrize("shape", [(51, 51), (33, 17), (5, 9), (1, 30), (30, 1), (2, 2), (1, 1), (64, 3)])
def test_a_bump_is_found_with_few_points(shape: tuple[int, int]) -> None:
    y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    bump = np.exp(-20 * ((x - 0.3) ** 2 + (y + 0.2) ** 2)) + x
    values, known = refined(bump, 0.01)
    assert known[0, 0]
    assert known[-1, -1]
    assert np.array_equal(np.isnan(values), ~known)
    assert np.array_equal(values[known], bump[known])
    np.testing.assert_allclose(filled(values, known), bump, atol=0.02)
    if shape == (51, 51):
        assert known.mean() < 0.4


def test_bilinear_functions_need_the_first_two_rounds_only() -> None:
    y, x = np.meshgrid(np.arange(41.0), np.arange(57.0), indexing="ij")
    plane = 3 + 2 * x - y + 0.1 * x * y
    values, known = refined(plane, 1e-9)
    assert known.mean() < 0.08
    np.testing.assert_allclose(filled(values, known), plane, rtol=1e-12, atol=1e-12)


def test_tolerance_zero_and_values_that_are_not_finite_are_refined_to_the_end() -> None:
    rough = np.random.default_rng().normal(size=(23, 31))
    values, known = refined(rough, 0.0)
    assert known.all()
    assert np.array_equal(values, rough)
    assert refined(np.full((23, 31), np.nan), 1.0)[1].all()


def evaluator() -> Evaluator:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
    return Evaluator(model, "cross_entropy", (torch.randn(40, 4), torch.randint(0, 3, (40,))), ("loss", "accuracy"))


def test_known_points_have_the_bits_of_the_whole_grid(tmp_path: Path) -> None:
    ev = evaluator()
    directions = random_directions(ev.model)
    whole = ev.grid(directions, (-1, 1, 33), (-0.5, 0.5, 21))
    part = ev.grid(directions, (-1, 1, 33), (-0.5, 0.5, 21), refine=0.05)
    assert whole.evaluated is None
    assert part.evaluated is not None
    assert 0.05 < part.evaluated.mean() < 0.9
    for name in ("loss", "accuracy"):
        assert np.array_equal(part.values[name][part.evaluated], whole.values[name][part.evaluated])
        assert np.isnan(part.values[name][~part.evaluated]).all()
    assert np.abs(part.filled("loss") - whole.values["loss"]).max() < 0.1
    assert part.metadata["refine"] == 0.05
    loaded = tw.landscape.load(part.save(tmp_path / "part.npz"))
    assert isinstance(loaded, tw.landscape.Surface)
    assert loaded.evaluated is not None
    assert np.array_equal(loaded.evaluated, part.evaluated)
    assert np.array_equal(loaded.filled("loss"), part.filled("loss"))


def test_a_refined_grid_resumes_with_the_same_bits(tmp_path: Path) -> None:
    ev = evaluator()
    directions = random_directions(ev.model)

    class Enough(Exception):
        pass

    plain = ev.grid(directions, (-1, 1, 33), (-1, 1, 33), refine=0.02)
    slow = evaluator()
    calls = 0

    def hook(*args: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 60:
            raise Enough

    slow.model.register_forward_hook(hook)
    with pytest.raises(Enough):
        slow.grid(directions, (-1, 1, 33), (-1, 1, 33), refine=0.02, resume=tmp_path / "run.sqlite")
    resumed = ev.grid(directions, (-1, 1, 33), (-1, 1, 33), refine=0.02, resume=tmp_path / "run.sqlite")
    assert np.array_equal(resumed.values["loss"], plain.values["loss"], equal_nan=True)
    again = ev.grid(directions, (-1, 1, 33), (-1, 1, 33), refine=0.02, resume=tmp_path / "run.sqlite")
    assert np.array_equal(again.values["loss"], plain.values["loss"], equal_nan=True)


def test_refine_is_refused_where_it_cannot_be() -> None:
    ev = evaluator()
    with pytest.raises(ValueError, match="refine and share do not go together"):
        ev.grid(random_directions(ev.model), refine=0.1, share=True)
    with pytest.raises(ValueError, match="refine"):
        ev.grid(random_directions(ev.model), refine=-1.0)
