"""Directions that are not stored: the bits of stored ones, for every norm, type and layout, and next to no memory."""

from __future__ import annotations

import copy
import math
import pickle
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from thalweg import _core
from thalweg import landscape as ls
from thalweg.landscape import directions as module
from thalweg.landscape._drawn import swap_of
from thalweg.landscape._saved import Saved
from thalweg.landscape._walk import in_plane

NORMS = ["filter", "layer", "model", "weight", "none"]


def net(seed: int = 0) -> nn.Module:
    """Rows that end within and between blocks of four, more entries than one block of the kernel, a zero filter."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(3, 7, 3), nn.BatchNorm2d(7), nn.Flatten(), nn.Linear(28, 50), nn.Linear(50, 31))
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    with torch.no_grad():
        model[0].weight[2] = 0
    return model


def from_the_paper(model: nn.Module, seed: int, index: int, norm: str) -> list[torch.Tensor]:
    """The variates of the generator and the norms of section 4, in torch; every parameter takes part."""
    params = [p.detach() for p in model.parameters()]
    draws = []
    for place, param in enumerate(params):
        draw = torch.empty(param.shape)
        _core.fill_normal(draw, seed, (index << 32) | place, 1)
        draws.append(draw.double())
    if norm == "model":
        ratio = math.sqrt(sum(float(p.double().square().sum()) for p in params))
        ratio /= math.sqrt(sum(float(d.square().sum()) for d in draws))
        return [d * ratio for d in draws]
    out = []
    for d, w in zip(draws, (p.double() for p in params), strict=True):
        if norm == "filter" and d.dim() > 1:
            rows = d.flatten(1).norm(dim=1), w.flatten(1).norm(dim=1)
            out.append((d.flatten(1) * (rows[1] / rows[0])[:, None]).reshape(d.shape))
        else:
            out.append(d * {"weight": w, "none": 1.0}.get(norm, w.norm() / d.norm()))
    return out


def moved(model: nn.Module, directions: ls.Directions, point: list[float]) -> list[torch.Tensor]:
    model = copy.deepcopy(model)
    params = dict(model.named_parameters())
    with torch.no_grad():
        in_plane(params, Saved(model, params), directions).to(*point)
    return [p.detach().clone() for p in params.values()]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("storage", ["dense", "procedural"])
def test_directions_are_those_of_the_paper(norm: str, storage: str, rng: np.random.Generator) -> None:
    model, seed = net(int(rng.integers(100))), int(rng.integers(2**60))
    directions = ls.random_directions(model, 2, norm=norm, seed=seed, ignore=None, storage=storage)
    assert directions.storage == storage
    for index, vector in enumerate(directions.vectors):
        for got, expected in zip(vector, from_the_paper(model, seed, index, norm), strict=True):
            torch.testing.assert_close(got.double(), expected, rtol=3e-7, atol=1e-12)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("ignore", ["bias_bn", None, r"^3\."])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_procedural_directions_move_the_weights_to_the_bits_of_stored_ones(
    dtype: torch.dtype, ignore: str | None, norm: str
) -> None:
    model = net(3).to(dtype)
    dense, drawn = (
        ls.random_directions(model, 4, norm=norm, seed=9, ignore=ignore, storage=s) for s in ("dense", "procedural")
    )
    for u, v in zip(dense.vectors, drawn.vectors, strict=True):
        assert all(torch.equal(x, y) and x.dtype == y.dtype for x, y in zip(u, v, strict=True))
    assert dense.norms == drawn.norms
    assert dense.describe() == drawn.describe()
    point = [0.3, -1.7, 0.01, 1 / 3]
    for n in range(1, 5):
        for a, b in zip(moved(model, dense[:n], point[:n]), moved(model, drawn[:n], point[:n]), strict=True):
            assert torch.equal(a.view(torch.uint8), b.view(torch.uint8))


def test_the_move_is_the_expression_in_torch(isa: str, threads: int) -> None:
    model = net(1)
    directions = ls.random_directions(model, 3, seed=2, ignore=None, storage="procedural")
    point = [0.7, -0.2, 0.123]
    for got, w, *ds in zip(moved(model, directions, point), model.parameters(), *directions.vectors, strict=True):
        expected = w.detach()
        for c, d in zip(point, ds, strict=True):
            expected = expected + c * d
        assert torch.equal(got.view(torch.int32), expected.view(torch.int32))


LAYOUTS = {
    "channels last": lambda w: w.contiguous(memory_format=torch.channels_last),
    "transposed": lambda w: w.permute(1, 0, 2, 3).contiguous().permute(1, 0, 2, 3),
    "turned": lambda w: w.permute(2, 3, 0, 1).contiguous().permute(2, 3, 0, 1),
    "reversed": lambda w: w.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
    "with gaps": lambda w: torch.stack([w, w], -1)[..., 0],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("norm", NORMS)
def test_any_layout_of_the_weights_gives_the_same_point(isa: str, norm: str, layout: str) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(5, 14, (3, 17))
    other = copy.deepcopy(plain)
    other.weight = nn.Parameter(LAYOUTS[layout](plain.weight.detach()))
    assert torch.equal(other.weight, plain.weight)
    assert not other.weight.is_contiguous()
    directions = [ls.random_directions(m, seed=5, norm=norm, storage="procedural") for m in (plain, other)]
    ends = [moved(m, d, [0.5, -0.25]) for m, d in zip((plain, other), directions, strict=True)]
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


def test_swap_is_the_order_of_the_memory(rng: np.random.Generator) -> None:
    """Against the places that torch itself tells, for every order of dimensions."""
    known = 0
    for _ in range(200):
        sizes = [int(n) for n in rng.integers(1, 5, int(rng.integers(1, 6)))]
        order = [int(i) for i in rng.permutation(len(sizes))]
        tensor = torch.arange(math.prod(sizes)).reshape(sizes)
        laid = tensor.permute(order).contiguous().permute([int(i) for i in np.argsort(order)])
        in_memory = laid.as_strided((laid.numel(),), (1,)).tolist()  # element numbers in order of the memory
        swap = swap_of(laid)
        if swap is None:
            assert in_memory != tensor.reshape(-1).tolist()
            continue
        known += 1
        a, b = swap
        expected = [(m // (a * b) * b + m % b) * a + m // b % a for m in range(laid.numel())]
        assert in_memory == expected
    assert known > 50


def test_memory_is_that_of_the_factors() -> None:
    """Bytes that the interpreter's tensors hold: of 4 MB of weights, directions keep the 2,000 scales of their rows."""
    import gc

    model = nn.Linear(1000, 1000)

    def held() -> int:
        gc.collect()
        storages = {
            t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()
            for t in gc.get_objects()
            if type(t) in (torch.Tensor, nn.Parameter) and t.layout == torch.strided
        }
        return sum(storages.values())

    before = held()
    drawn = ls.random_directions(model, 2, storage="procedural")
    assert held() - before <= 2 * 1000 * 8 + 64
    assert all(math.isfinite(n) for n in drawn.norms)
    params = dict(model.named_parameters())
    saved = Saved(model, params)
    before = held()
    with torch.no_grad():
        move = in_plane(params, saved, drawn)
        move.to(0.1, 0.2)
    assert held() - before <= 64
    dense = ls.random_directions(model, 2, storage="dense")
    assert held() - before >= 8_000_000, "the count sees stored directions"
    assert len(dense) == 2


def test_the_peak_of_a_point_is_that_of_the_weights() -> None:
    """Resident memory while points are drawn, seen from another thread: far below one stored direction of 80 MB."""
    model = nn.Linear(5000, 4000, bias=False)
    drawn = ls.random_directions(model, 2, norm="none", storage="procedural")
    params = dict(model.named_parameters())
    saved = Saved(model, params)
    peak, stop = 0, threading.Event()

    def resident() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096

    def watch() -> None:
        nonlocal peak
        while not stop.is_set():
            peak = max(peak, resident())
            time.sleep(0.002)

    with torch.no_grad():
        before = resident()
        move = in_plane(params, saved, drawn)
        thread = threading.Thread(target=watch)
        thread.start()
        move.to(0.5, 0.5)
        stop.set()
        thread.join()
    assert 0 < peak - before + 1 < 20e6


def test_auto_stores_what_is_small_against_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Linear(100, 100)  # 2 directions of 10,100 float32: 80,800 bytes
    assert ls.random_directions(model).storage == "dense"
    monkeypatch.setattr(module, "memory_of", lambda device: 16 * 80_800)
    assert ls.random_directions(model).storage == "dense"
    monkeypatch.setattr(module, "memory_of", lambda device: 16 * 80_800 - 1)
    assert ls.random_directions(model).storage == "procedural"
    assert ls.random_directions(model, 1).storage == "dense"
    assert ls.random_directions(model, orthogonalize=True).storage == "dense"
    assert ls.random_directions(model, norm="weight").storage == "dense"
    monkeypatch.setattr(module, "memory_of", lambda device: None)
    assert ls.random_directions(model).storage == "dense"


def test_what_procedural_cannot_do_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="procedural.*orthogonal"):
        ls.random_directions(net(), orthogonalize=True, storage="procedural")
    with pytest.raises(ValueError, match="storage must be one of"):
        ls.random_directions(net(), storage="sparse")


def test_weights_that_are_factors_must_stay() -> None:
    model = net()
    directions = ls.random_directions(model, norm="weight", storage="procedural")
    other = net(1)
    with pytest.raises(ValueError, match="have changed"):
        moved(other, directions, [0.1, 0.1])
    with torch.no_grad():
        model[3].weight += 1
    with pytest.raises(ValueError, match="have changed"):
        directions.vectors[0][4]
    assert directions.vectors[0][0].any(), "other tensors are as they were"


def test_everything_that_directions_are_used_for_works_on_demand() -> None:
    model = net(2)
    data = (torch.randn(8, 3, 4, 4), torch.randint(0, 31, (8,)))
    dense, drawn = (ls.random_directions(model, seed=1, storage=s) for s in ("dense", "procedural"))
    assert drawn.cosine == dense.cosine
    ev = ls.Evaluator(model, "cross_entropy", data)
    surfaces = [ev.grid(d, (-1, 1, 3), (-1, 0.5, 2)) for d in (dense, drawn)]
    assert np.array_equal(surfaces[0].values["loss"], surfaces[1].values["loss"])
    assert surfaces[0].metadata == surfaces[1].metadata
    assert np.array_equal(ev.line(drawn, (0, 1, 3)).values["loss"], ev.line(dense, (0, 1, 3)).values["loss"])
    track = ls.Trajectory(model)
    track.record()
    for a, b in zip(surfaces[0].project(track), surfaces[1].project(track), strict=True):
        assert np.array_equal(a, b)
    again = pickle.loads(pickle.dumps(drawn))
    assert all(torch.equal(x, y) for x, y in zip(again.vectors[1], dense.vectors[1], strict=True))
    assert len(drawn.vectors[0]) == len(dense.vectors[0])
    assert torch.equal(drawn.vectors[0][1:][2], dense.vectors[0][3])


def test_another_type_than_that_of_the_directions_gives_the_point_of_stored_ones() -> None:
    """Directions of a float32 model for its float64 copy: rounded to float32 first."""
    model = net(4)
    wide = copy.deepcopy(model).double()
    dense, drawn = (ls.random_directions(model, seed=3, storage=s) for s in ("dense", "procedural"))
    for a, b in zip(moved(wide, dense, [0.1, 0.7]), moved(wide, drawn, [0.1, 0.7]), strict=True):
        assert torch.equal(a, b)


def test_tiny_weights_are_looked_at() -> None:
    """Scales too small for float32: the direction is zero, the weights stay, the sign of their zeros, too."""
    model = nn.Linear(3, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[-0.0, 1e-45, 0.0], [-0.0, 0.0, 0.0]]))
    for storage in ("dense", "procedural"):
        directions = ls.random_directions(model, 1, seed=6, storage=storage)
        zero = directions.terms("test", dict(model.named_parameters()))[0][0] is None
        assert zero == (not directions.vectors[0][0].any())
    ends = [moved(model, ls.random_directions(model, 1, seed=6, storage=s), [2.0])[0] for s in ("dense", "procedural")]
    assert torch.equal(ends[0].view(torch.int32), ends[1].view(torch.int32))


def test_a_journal_of_stored_directions_goes_on_with_procedural_ones(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 4)
    ev = ls.Evaluator(model, "cross_entropy", (torch.randn(6, 4), torch.randint(0, 4, (6,))))
    grids = [
        ev.grid(ls.random_directions(model, seed=5, storage=s), (-1, 1, 3), (-1, 1, 2), resume=tmp_path / "run.sqlite")
        for s in ("dense", "procedural")
    ]
    assert np.array_equal(grids[0].values["loss"], grids[1].values["loss"])
