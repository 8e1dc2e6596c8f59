"""Volumes and points in up to four directions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from thalweg import landscape as ls
from thalweg.landscape import Evaluator, Volume, from_tensors, random_directions


def regression(seed: int) -> tuple[nn.Module, tuple[torch.Tensor, torch.Tensor]]:
    torch.manual_seed(seed)
    return nn.Linear(5, 1, bias=False).double(), (torch.randn(30, 5).double(), torch.randn(30, 1).double())


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_points_in_several_directions_are_the_quadratic_form(count: int, seed: int) -> None:
    """Least squares: the loss at w + sum of c_i d_i, from float64 NumPy."""
    model, (x, y) = regression(seed)
    vectors = [torch.randn(1, 5).double() for _ in range(count)]
    directions = from_tensors(model, *({"weight": v} for v in vectors))
    coordinates = np.random.default_rng(seed).uniform(-2, 2, (6, count))
    found = Evaluator(model, "mse", (x, y)).points(directions, coordinates).values["loss"]
    weights = model.weight.detach().numpy() + coordinates @ np.concatenate([v.numpy() for v in vectors])
    expected = ((x.numpy() @ weights.T - y.numpy()) ** 2).mean(0)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_volume_has_its_axes_and_the_values_of_points(tmp_path: Path) -> None:
    model, data = regression(2)
    directions = random_directions(model, 3, norm="none")
    ev = Evaluator(model, "mse", data, metrics=("loss", "l2"))
    seen: list[Volume] = []
    volume = ev.volume(directions, x=(-1, 1, 4), y=(0.5, 2, 3), z=(-2, 0, 2), preview=seen.append)
    assert (volume.x.tolist(), volume.z.tolist()) == (np.linspace(-1, 1, 4).tolist(), [-2.0, 0.0])
    assert volume.values["loss"].shape == (2, 3, 4)
    for k, z in enumerate(volume.z):
        for j, y in enumerate(volume.y):
            row = ev.points(directions, [[x, y, z] for x in volume.x])
            for name in ("loss", "l2"):
                assert np.array_equal(volume.values[name][k, j], row.values[name])
    x, y, z, value = volume.minimum()
    assert value == volume.values["loss"].min() == ev.points(directions, [[x, y, z]]).values["loss"][0]
    assert volume.minimum("l2")[3] == volume.values["l2"].min()
    back = ls.load(volume.save(tmp_path / "volume.npz"))
    assert isinstance(back, Volume)
    assert back.metadata == volume.metadata
    for name in ("x", "y", "z"):
        assert np.array_equal(getattr(back, name), getattr(volume, name))
    for name in ("loss", "l2"):
        assert np.array_equal(back.values[name], volume.values[name])
    with pytest.raises(ValueError, match="metric must be one of loss, l2"):
        volume.metric("accuracy")
    empty = Volume(volume.x, volume.y, volume.z, {"loss": np.full((2, 3, 4), np.nan)}, {})
    with pytest.raises(ValueError, match=r"Volume.minimum: loss has no finite value"):
        empty.minimum()


def test_a_volume_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    model, data = regression(3)
    directions, calls = random_directions(model, 3, norm="none"), 0

    def stop(output: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 15:
            raise KeyboardInterrupt
        return output.mean()

    axes = {"x": (-1, 1, 4), "y": (-1, 1, 3), "z": (-1, 1, 3)}
    ev = Evaluator(model, "mse", data, metrics=("loss", stop))
    with pytest.raises(KeyboardInterrupt):
        ev.volume(directions, **axes, resume=tmp_path / "run.sqlite")
    resumed = ev.volume(directions, **axes, resume=tmp_path / "run.sqlite")
    assert np.array_equal(resumed.values["loss"], ev.volume(directions, **axes).values["loss"])
    assert calls < 15 + 36 + 36


def test_bad_volumes_are_clear_errors() -> None:
    model, data = regression(4)
    ev = Evaluator(model, "mse", data)
    with pytest.raises(ValueError, match=r"volume: expected three directions, got 2; use grid"):
        ev.volume(random_directions(model, 2, norm="none"))
    with pytest.raises(ValueError, match=r"volume: z\[2\]"):
        ev.volume(random_directions(model, 3, norm="none"), z=(0, 1, 0))
    with pytest.raises(ValueError, match="1 to 4 directions, got 5"):
        ev.points(random_directions(model, 5, norm="none"), np.zeros((1, 5)))
    with pytest.raises(ValueError, match=r"shape \(points, 3\) for 3 direction"):
        ev.points(random_directions(model, 3, norm="none"), np.zeros((1, 2)))
