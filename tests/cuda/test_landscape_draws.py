"""Drawn directions on a device: the bits of the variates of the generator times their factors, in NumPy and torch."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from thalweg import _core, _testing
from thalweg import landscape as ls
from thalweg.landscape._drawn import swap_of
from thalweg.landscape._saved import Saved
from thalweg.landscape._walk import in_plane

pytestmark = pytest.mark.cuda

SHAPES = ((0, 3), (1, 1), (3, 1), (1, 17), (5, 51), (7, 292), (2, 1024), (2049, 1), (7, 661))
TYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
Capture = Callable[[], AbstractContextManager[Any]]


@functools.cache
def variates(seed: int, stream: int, numel: int) -> torch.Tensor:
    """Float64 values of the float32 variates, by the host's scalar definition."""
    drawn = _testing.philox_normal(seed, stream, np.arange(numel, dtype=np.uint64))
    return torch.from_numpy(np.atleast_1d(drawn).astype(np.float32).astype(np.float64))


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    kind = {8: torch.int64, 4: torch.int32, 2: torch.int16}[a.element_size()]
    return a.dtype == b.dtype and torch.equal(a.cpu().contiguous().view(kind), b.contiguous().view(kind))


def off_by(tensor: torch.Tensor, device: torch.device, by: int) -> torch.Tensor:
    room = torch.zeros(tensor.numel() + by, dtype=tensor.dtype, device=device)
    room[by:] = tensor.reshape(-1)
    return room[by:].view(tensor.shape)


def direction(kind: str, seed: int, stream: int, weight: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """A whole direction, float64."""
    drawn = variates(seed, stream, weight.numel()).reshape(weight.shape)
    return drawn * {"one": 1.0, "row": scales[:, None], "weight": weight.double()}[kind]


def draw(kind: str, seed: int, stream: int, scales: torch.Tensor, device: torch.device) -> _core.Draw:
    return _core.Draw(seed, stream, scales.to(device) if kind == "row" else None, kind == "weight")


@pytest.mark.parametrize("offset", [(0, 0), (1, 1), (3, 3), (0, 1), (2, 0)])
@pytest.mark.parametrize("kind", ["one", "row", "weight"])
@pytest.mark.parametrize("dtype", TYPES)
def test_drawn_directions_move_weights_as_the_expression_says(
    device: torch.device, dtype: torch.dtype, kind: str, offset: tuple[int, int]
) -> None:
    wide = torch.promote_types(dtype, torch.float32)
    generator = torch.Generator().manual_seed(3)
    point = [0.3, -1.7, 1 / 3, 0.01]
    for rows, columns in SHAPES:
        weight = torch.randn(rows, columns, generator=generator).to(dtype)
        scales = torch.rand(max(rows, 1), generator=generator, dtype=torch.float64) * 3
        if kind == "row" and not rows:
            continue
        out, there = off_by(torch.zeros_like(weight), device, offset[0]), off_by(weight, device, offset[1])
        for count in range(1, 5):
            terms = [[draw(kind, 77, (k << 32) | 5, scales, device)] for k in range(count)]
            _core.Perturbation([out], [there], terms).perturb(point[:count], 1)
            expected = weight.to(wide)
            for k in range(count):
                expected = expected + point[k] * direction(kind, 77, (k << 32) | 5, weight, scales).to(wide)
            assert same_bits(out, expected.to(dtype)), (rows, columns, count)


@pytest.mark.parametrize("by", [0, 1, 2, 3])
@pytest.mark.parametrize("kind", ["one", "row", "weight"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_whole_direction_is_written_with_the_same_bits(
    device: torch.device, dtype: torch.dtype, kind: str, by: int
) -> None:
    for (rows, columns), of in zip(SHAPES[1:], (*TYPES, *TYPES), strict=True):
        weight = torch.randn(rows, columns).to(of)
        scales = torch.rand(rows, dtype=torch.float64)
        out = off_by(torch.zeros(rows, columns, dtype=dtype), device, by)
        _core.fill_drawn(out, draw(kind, 5, 9, scales, device), weight.to(device), 1)
        assert same_bits(out, direction(kind, 5, 9, weight, scales).to(dtype)), (rows, columns)


@pytest.mark.parametrize("kind", ["one", "row", "weight"])
def test_layouts_of_the_memory_count_elements_by_their_dimensions(device: torch.device, kind: str) -> None:
    plain = torch.randn(6, 5, 3, 7)
    scales = torch.rand(6, dtype=torch.float64)
    d = variates(8, 2, plain.numel()).reshape(plain.shape)
    d = (d * {"one": 1.0, "row": scales[:, None, None, None], "weight": plain.double()}[kind]).float()
    for laid in (
        plain.contiguous(memory_format=torch.channels_last),
        plain.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2),
    ):
        weight = laid.to(device)
        out = torch.empty_like(weight)
        term = _core.Draw(
            8, 2, scales.to(device) if kind == "row" else None, kind == "weight", swap_of(weight) or (0, 0)
        )
        _core.Perturbation([out], [weight], [[term]]).perturb([0.25], 1)
        assert same_bits(out, plain + 0.25 * d)


def test_stored_and_drawn_tensors_of_all_types_move_in_two_launches(device: torch.device, capture: Capture) -> None:
    weights = [torch.randn(3000).to(dtype).to(device) for dtype in TYPES for _ in range(2)]
    stored = [torch.randn(3000, dtype=torch.promote_types(w.dtype, torch.float32), device=device) for w in weights]
    terms = [_core.Draw(1, i) if i % 2 else d for i, d in enumerate(stored)]
    out = [torch.zeros_like(w) for w in weights]
    table = torch.tensor([[0.0, 0.5], [0.25, -0.75]], dtype=torch.float64, device=device)
    cursor = torch.ones(1, dtype=torch.int64, device=device)
    plane = _core.Perturbation(out, weights, [terms, [None] * 8])
    with capture() as graph:
        plane.perturb_at(table, cursor)
    assert graph.replay() in (2, None)  # a GPU's graph does not count
    for i, (o, w, d) in enumerate(zip(out, weights, stored, strict=True)):
        values = variates(1, i, 3000).to(d.dtype) if i % 2 else d.cpu()
        assert same_bits(o, (w.cpu().to(d.dtype) + 0.25 * values).to(w.dtype))


@pytest.mark.parametrize("norm", ["filter", "layer", "model", "weight", "none"])
def test_directions_of_a_model_are_the_same_stored_drawn_and_on_the_host(device: torch.device, norm: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 5), nn.Flatten(), nn.Linear(9, 33), nn.LayerNorm(33)).to(device)
    model[0].to(memory_format=torch.channels_last)
    stored, drawn = (
        ls.random_directions(model, 4, norm=norm, seed=4, ignore=None, storage=s) for s in ("dense", "procedural")
    )
    for u, v in zip(stored.vectors, drawn.vectors, strict=True):
        assert all(torch.equal(x, y) and x.device == y.device for x, y in zip(u, v, strict=True))
    params = dict(model.named_parameters())
    ends = []
    for directions in (stored, drawn):
        saved = Saved(model, params)
        with torch.no_grad():
            in_plane(params, saved, directions).to(0.1, -0.2, 0.3, 2.0)
            ends.append([p.detach().clone() for p in params.values()])
            saved.restore()
    assert all(torch.equal(a.view(torch.int32), b.view(torch.int32)) for a, b in zip(*ends, strict=True))
    on_host = ls.random_directions(model.cpu(), 4, norm=norm, seed=4, ignore=None, storage="dense")
    for u, v in zip(stored.vectors, on_host.vectors, strict=True):
        assert all(torch.equal(x.cpu(), y) for x, y in zip(u, v, strict=True))


def test_scales_elsewhere_are_refused(device: torch.device, real_device: torch.device) -> None:
    w = torch.ones(4, device=device)
    with pytest.raises(ValueError, match="scales on the host for a tensor of 4 elements on CUDA device 0"):
        _core.Perturbation([w.clone()], [w], [[_core.Draw(0, 0, torch.ones(2, dtype=torch.float64))]])
