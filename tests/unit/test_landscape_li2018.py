"""Li et al.'s code: its directions, and its files as it would write them (h5py calls here, not our writer)."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from thalweg import _core
from thalweg import landscape as ls

NORMS = ["filter", "layer", "weight", "dfilter", "dlayer", "none"]


@pytest.fixture
def h5py() -> object:
    return pytest.importorskip("h5py", reason="needs h5py, of the extra hdf5")


def net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3))
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    model(torch.randn(5, 2, 4, 4))
    return model.eval()


def as_that_code(model: nn.Module, seed: int, index: int, norm: str, ignore: str | None) -> list[torch.Tensor]:
    """Its rules in float32: slices of tensors with more than one dimension are scaled, the others are 0 or the weights."""
    out = []
    for place, parameter in enumerate(model.parameters()):
        w = parameter.detach()
        d = torch.empty(w.shape)
        _core.fill_normal(d, seed, (index << 32) | place, 1)
        if d.dim() <= 1:
            d = torch.zeros_like(w) if ignore == "biasbn" else w.clone()
        elif norm == "filter":
            d = torch.stack([part * (old.norm() / (part.norm() + 1e-10)) for part, old in zip(d, w, strict=True)])
        elif norm == "layer":
            d = d * (w.norm() / d.norm())
        elif norm == "weight":
            d = d * w
        elif norm == "dfilter":
            d = torch.stack([part / (part.norm() + 1e-10) for part in d])
        elif norm == "dlayer":
            d = d / d.norm()
        out.append(d)
    return out


@pytest.mark.parametrize("storage", ["dense", "procedural"])
@pytest.mark.parametrize("ignore", ["bias_bn", None])
@pytest.mark.parametrize("norm", NORMS)
def test_the_style_has_the_rules_of_that_code(norm: str, ignore: str | None, storage: str) -> None:
    model = net()
    directions = ls.random_directions(model, 2, norm=norm, seed=3, ignore=ignore, style="li2018", storage=storage)
    theirs = "biasbn" if ignore else None
    for index, vector in enumerate(directions.vectors):
        for got, expected in zip(vector, as_that_code(model, 3, index, norm, theirs), strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-6, atol=0)
    one_dimensional = [v for v in directions.vectors[0] if v.dim() <= 1]
    kept = [p.detach() for p in model.parameters() if p.dim() <= 1]
    for got, weight in zip(one_dimensional, kept, strict=True):
        assert torch.equal(got, weight if ignore is None else torch.zeros_like(weight))


def test_weights_that_are_directions_are_those_at_the_time() -> None:
    model = net()
    before = model[3].bias.detach().clone()
    directions = ls.random_directions(model, ignore=None, style="li2018", storage="procedural")
    with torch.no_grad():
        model[3].bias.zero_()
    assert torch.equal(directions.vectors[0][5], before)


def test_styles_have_their_own_norms() -> None:
    with pytest.raises(ValueError, match="norm must be one of .*dfilter"):
        ls.random_directions(net(), norm="model", style="li2018")
    with pytest.raises(ValueError, match="norm must be one of .*model"):
        ls.random_directions(net(), norm="dfilter")
    with pytest.raises(ValueError, match="style must be one of"):
        ls.random_directions(net(), style="li2017")


# ---- direction files ----------------------------------------------------------------------------------------------


def write_lists(h5py: object, path: Path, **lists: list[torch.Tensor]) -> Path:
    """A group per direction and a dataset per tensor, called by its number."""
    with h5py.File(path, "w") as file:  # type: ignore[attr-defined]
        for name, tensors in lists.items():
            group = file.create_group(name)
            for i, tensor in enumerate(tensors):
                group.create_dataset(str(i), data=tensor.numpy())
    return path


def randoms(tensors: object) -> list[torch.Tensor]:
    return [torch.randn(t.shape) for t in tensors]  # type: ignore[attr-defined]


def test_a_direction_file_over_the_parameters_is_read(h5py: object, tmp_path: Path) -> None:
    model = net()
    x, y = (randoms(model.parameters()) for _ in range(2))
    both = ls.read_li2018(write_lists(h5py, tmp_path / "d.h5", xdirection=x, ydirection=y), model)
    for vector, written in zip(both.vectors, (x, y), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(vector, written, strict=True))
    assert both.recipe["dir_type"] == "weights"
    one = ls.read_li2018(write_lists(h5py, tmp_path / "one.h5", xdirection=y), model)
    assert len(one) == 1
    assert one.recipe["hash"] != both.recipe["hash"]


def test_more_than_nine_tensors_keep_their_numbers(h5py: object, tmp_path: Path) -> None:
    """HDF5 lists names by the alphabet: 0, 1, 10, 11, 2."""
    model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(6)))
    x = randoms(model.parameters())
    got = ls.read_li2018(write_lists(h5py, tmp_path / "d.h5", xdirection=x), model)
    assert all(torch.equal(a, b) for a, b in zip(got.vectors[0], x, strict=True))


def test_a_direction_file_over_the_state_dict_is_read_without_its_buffers(h5py: object, tmp_path: Path) -> None:
    model = net()
    state = model.state_dict()
    x = [torch.randn(t.shape) if t.dim() > 1 else torch.zeros(t.shape) for t in state.values()]
    got = ls.read_li2018(write_lists(h5py, tmp_path / "d.h5", xdirection=x), model)
    names = [name for name, _ in model.named_parameters()]
    by_name = dict(zip(state, x, strict=True))
    assert all(torch.equal(a, by_name[name]) for a, name in zip(got.vectors[0], names, strict=True))
    assert got.recipe["dir_type"] == "states"
    assert got.recipe["dropped"] == []
    x[list(state).index("1.running_var")] += 1
    with pytest.warns(UserWarning, match=r"1\.running_var"):
        got = ls.read_li2018(write_lists(h5py, tmp_path / "d.h5", xdirection=x), model)
    assert got.recipe["dropped"] == ["1.running_var"]


def test_what_does_not_fit_is_named(h5py: object, tmp_path: Path) -> None:
    model = net()
    x = randoms(model.parameters())
    path = tmp_path / "d.h5"
    with pytest.raises(ValueError, match=r"expected 6 \(weights\) or 9 \(states\).*got 5 in xdirection"):
        ls.read_li2018(write_lists(h5py, path, xdirection=x[:5]), model)
    with pytest.raises(ValueError, match=r"expected 9 \(states\).*got 6"):
        ls.read_li2018(write_lists(h5py, path, xdirection=x), model, dir_type="states")
    with pytest.raises(ValueError, match=r"ydirection/4 must have the shape \(3, 16\) of '3.weight', got \(16, 3\)"):
        ls.read_li2018(write_lists(h5py, path, xdirection=x, ydirection=[*x[:4], x[4].T, x[5]]), model)
    with pytest.raises(ValueError, match="no group 'xdirection' but zdirection"):
        ls.read_li2018(write_lists(h5py, path, zdirection=x), model)
    with pytest.raises(ValueError, match="none called '5'"):
        with h5py.File(write_lists(h5py, path, xdirection=x), "r+") as file:  # type: ignore[attr-defined]
            file.move("xdirection/5", "xdirection/7")
        ls.read_li2018(path, model)
    x[0][0, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"'0.weight' must be real and finite"):
        ls.read_li2018(write_lists(h5py, path, xdirection=x), model)
    with pytest.raises(FileNotFoundError, match="no file"):
        ls.read_li2018(tmp_path / "none.h5", model)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="not an HDF5 file"):
        ls.read_li2018(path, model)


@pytest.mark.parametrize("storage", ["dense", "procedural"])
def test_written_directions_are_what_that_code_reads(h5py: object, tmp_path: Path, storage: str) -> None:
    model = net()
    directions = ls.random_directions(model, style="li2018", ignore=None, storage=storage)
    with h5py.File(directions.write_li2018(tmp_path / "d.h5"), "r") as file:  # type: ignore[attr-defined]
        assert sorted(file) == ["xdirection", "ydirection"]
        for name, vector in zip(("xdirection", "ydirection"), directions.vectors, strict=True):
            stored = [file[name][str(i)] for i in range(len(file[name]))]
            assert [s.dtype for s in stored] == [np.float32] * 6
            assert all(np.array_equal(s, v.numpy()) for s, v in zip(stored, vector, strict=True))
    with h5py.File(directions[:1].write_li2018(tmp_path / "d.h5"), "r") as file:  # type: ignore[attr-defined]
        assert sorted(file) == ["xdirection"]


def test_files_are_written_whole_or_not_at_all(h5py: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directions = ls.random_directions(net(), 3)
    path = tmp_path / "d.h5"
    path.write_bytes(b"before")
    with pytest.raises(ValueError, match="one or two directions, got 3"):
        directions.write_li2018(path)
    with pytest.raises(ValueError, match=r"must end in \.h5"):
        directions[:2].write_li2018(tmp_path / "d.npz")
    monkeypatch.setattr("os.fsync", lambda handle: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        directions[:2].write_li2018(path)
    assert path.read_bytes() == b"before"
    assert [p.name for p in tmp_path.iterdir()] == ["d.h5"]


def test_without_h5py_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r"Directions.write_li2018 needs h5py.*thalweg\[hdf5\]"):
        ls.random_directions(net()).write_li2018(tmp_path / "d.h5")


# ---- surface files ------------------------------------------------------------------------------------------------


def write_surface(h5py: object, path: Path, x: np.ndarray, y: np.ndarray | None, done: int | None = None) -> Path:
    """As its `crunch` goes: arrays of -1 shaped (nx, ny), filled by flat index with coordinates of meshgrid(x, y)."""
    shape = x.shape if y is None else (len(x), len(y))
    losses, accuracies = -np.ones(shape), -np.ones(shape)
    if y is None:
        coordinates = x[:, None]
    else:
        xs, ys = np.meshgrid(x, y)
        coordinates = np.c_[xs.ravel(), ys.ravel()]
    for i, point in list(enumerate(coordinates))[:done]:
        losses.ravel()[i] = value_at(*point)
        accuracies.ravel()[i] = 100.0 * share_at(*point)
    with h5py.File(path, "w") as file:  # type: ignore[attr-defined]
        file["dir_file"] = "directions.h5"
        file["xcoordinates"] = x
        if y is not None:
            file["ycoordinates"] = y
        file["train_loss"], file["train_acc"] = losses, accuracies
    return path


def value_at(x: float, y: float = 0.0) -> float:
    return 10 + 3 * x + x * y + 0.1 * y * y


def share_at(x: float, y: float = 0.0) -> float:
    return 0.5 + 0.01 * x - 0.02 * y


@pytest.mark.parametrize(("nx", "ny"), [(4, 4), (3, 5), (5, 2), (1, 3)])
def test_a_surface_of_theirs_has_its_values_at_their_coordinates(
    h5py: object, tmp_path: Path, nx: int, ny: int
) -> None:
    x, y = np.linspace(-1, 1.5, nx), np.linspace(-2, 1, ny)
    surface = ls.load(write_surface(h5py, tmp_path / "s.h5", x, y))
    assert isinstance(surface, ls.Surface)
    assert np.array_equal(surface.x, x)
    assert np.array_equal(surface.y, y)
    for row, b in enumerate(y):
        for column, a in enumerate(x):
            assert surface.values["loss"][row, column] == value_at(a, b)
            assert surface.values["accuracy"][row, column] == pytest.approx(share_at(a, b), rel=1e-15)


def test_points_that_it_has_not_evaluated_are_nan(h5py: object, tmp_path: Path) -> None:
    x, y = np.linspace(-1, 1, 3), np.linspace(0, 1, 3)
    surface = ls.load(write_surface(h5py, tmp_path / "s.h5", x, y, done=4))
    expected = np.arange(9).reshape(3, 3) >= 4
    for values in surface.values.values():
        assert np.array_equal(np.isnan(values), expected)


def test_a_line_of_theirs(h5py: object, tmp_path: Path) -> None:
    x = np.linspace(-0.5, 1.5, 7)
    line = ls.load(write_surface(h5py, tmp_path / "l.h5", x, None))
    assert isinstance(line, ls.Line)
    assert np.array_equal(line.values["loss"], [value_at(a) for a in x])


def test_a_surface_of_ours_is_what_their_plots_read(h5py: object, tmp_path: Path) -> None:
    """plot_2D draws contour(X, Y, Z) with X, Y = meshgrid(x, y); h52vtp flattens all three."""
    x, y = np.linspace(-1, 1, 3), np.linspace(0, 1, 4)
    xs, ys = np.meshgrid(x, y)
    values = {"my/metric": xs - ys, "loss": value_at(xs, ys), "accuracy": share_at(xs, ys)}  # type: ignore[arg-type]
    values["loss"][1, 2] = np.nan
    surface = ls.Surface(x, y, values, {"bn": "frozen"}, {"seconds": 2.0})
    path = surface.to_hdf5(tmp_path / "s.h5")
    with h5py.File(path, "r") as file:  # type: ignore[attr-defined]
        drawn = np.meshgrid(file["xcoordinates"][:], file["ycoordinates"][:])
        assert file["train_loss"].shape == drawn[0].shape
        assert np.array_equal(file["train_loss"][:], values["loss"], equal_nan=True)
        assert np.array_equal(file["train_acc"][:], 100 * share_at(*drawn))  # type: ignore[arg-type]
    again = ls.load(path)
    assert isinstance(again, ls.Surface)
    assert list(again.values) == list(values)
    assert np.array_equal(again.values["loss"], values["loss"], equal_nan=True)
    np.testing.assert_allclose(again.values["accuracy"], values["accuracy"], rtol=1e-15)
    assert np.array_equal(again.values["my/metric"], values["my/metric"])
    assert again.metadata == surface.metadata
    assert again.timings == surface.timings
    line = ls.Line(x, {"loss": x**2}, {"bn": "batch"})
    again_line = ls.load(line.to_hdf5(tmp_path / "l.hdf5"))
    assert isinstance(again_line, ls.Line)
    assert np.array_equal(again_line.values["loss"], x**2)
    assert again_line.metadata == {"bn": "batch"}


def test_a_loss_of_minus_one_of_ours_stays(h5py: object, tmp_path: Path) -> None:
    line = ls.Line(np.arange(3.0), {"loss": np.array([-1.0, 0.0, 1.0])}, {})
    assert ls.load(line.to_hdf5(tmp_path / "l.h5")).values["loss"].tolist() == [-1, 0, 1]


def test_other_hdf5_files_are_refused(h5py: object, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:  # type: ignore[attr-defined]
        file["something"] = np.ones(3)
    with pytest.raises(ValueError, match="no 'xcoordinates' but something"):
        ls.load(tmp_path / "a.h5")
    with h5py.File(tmp_path / "b.h5", "w") as file:  # type: ignore[attr-defined]
        file["xcoordinates"], file["ycoordinates"], file["train_loss"] = np.ones(3), np.ones(2), np.ones(5)
    with pytest.raises(ValueError, match="no values for its 2 x 3 coordinates"):
        ls.load(tmp_path / "b.h5")
    (tmp_path / "c.h5").write_bytes(b"not HDF5")
    with pytest.raises(ValueError, match="not an HDF5 file"):
        ls.load(tmp_path / "c.h5")


def test_an_imported_direction_gives_the_losses_of_their_loop(h5py: object, tmp_path: Path) -> None:
    """Weights + (d0 a + d1 b), summed in float64 and rounded, mean over batches by samples: one part in 10^5."""
    model = net(2)
    data = torch.randn(40, 2, 4, 4), torch.randint(0, 3, (40,))
    x, y = (as_that_code(model, 9, i, "filter", "biasbn") for i in range(2))
    directions = ls.read_li2018(write_lists(h5py, tmp_path / "d.h5", xdirection=x, ydirection=y), model)
    surface = ls.Evaluator(model, "cross_entropy", data, metrics=("loss", "accuracy"), batch_size=16).grid(
        directions, (-1, 1, 3), (-0.5, 1, 2)
    )
    weights = [p.detach().clone() for p in model.parameters()]
    for row, b in enumerate(surface.y):
        for column, a in enumerate(surface.x):
            with torch.no_grad():
                for p, w, u, v in zip(model.parameters(), weights, x, y, strict=True):
                    p.copy_(w + torch.from_numpy(u.numpy() * np.float64(a) + v.numpy() * np.float64(b)).float())
                scores = model(data[0])
                loss = float(nn.functional.cross_entropy(scores, data[1]))
                share = float((scores.argmax(1) == data[1]).float().mean())
            assert surface.values["loss"][row, column] == pytest.approx(loss, rel=1e-5)
            assert surface.values["accuracy"][row, column] == pytest.approx(share, abs=1e-7)
