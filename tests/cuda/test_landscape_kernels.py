"""The landscape kernels on a device: the bits of torch's expression and of the generator, every type and alignment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import pytest
import torch

from thalweg import _core, _testing

pytestmark = pytest.mark.cuda

SIZES = (0, 1, 3, 17, 255, 8191, 8192, 8193, 20_001)
SPECIAL = (0.0, -0.0, 1e-45, -1e-42, 1.17e-38, 3.4e38, -3.4e38, float("inf"), float("-inf"), float("nan"))
TYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
Capture = Callable[[], AbstractContextManager[Any]]


def compute_type(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def awkward(n: int, seed: int) -> torch.Tensor:
    """Random values of all magnitudes, with denormals, infinities and NaN among them."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(n, generator=generator) * 10.0 ** torch.randint(-44, 38, (n,), generator=generator)
    values[: len(SPECIAL)] = torch.tensor(SPECIAL)[:n]
    return values[torch.randperm(n, generator=generator)]


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal to the bit; NaN of any payload equals NaN."""
    a, b = a.cpu(), b.cpu()
    kind = {8: torch.int64, 4: torch.int32, 2: torch.int16}[a.element_size()]
    return a.dtype == b.dtype and bool(((a.view(kind) == b.view(kind)) | (a.isnan() & b.isnan())).all())


def shifted(tensor: torch.Tensor, device: torch.device, by: int) -> torch.Tensor:
    """The same values on the device, `by` elements off an aligned address."""
    room = torch.empty(len(tensor) + by, dtype=tensor.dtype, device=device)
    room[by:] = tensor
    return room[by:]


@pytest.fixture(params=[(0, 0, 0, 0), (1, 1, 1, 1), (3, 3, 3, 3), (0, 1, 0, 2), (5, 5, 1, 1)])
def offsets(request: pytest.FixtureRequest) -> Iterator[tuple[int, int, int, int]]:
    """Elements by which out, weight and directions stand off an aligned address."""
    return request.param


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(
    "which",
    [(1, 1), (1, 0), (0, 1), (0, 0), (1,), (1, 1, 1), (0, 1, 1), (1, 1, 1, 1), (1, 0, 1, 1), (0, 0, 0, 1)],
    ids=lambda w: "".join(map(str, w)),
)
def test_perturb_has_the_bits_of_the_torch_expression(
    device: torch.device, offsets: tuple[int, ...], dtype: torch.dtype, which: tuple[int, ...]
) -> None:
    wide = compute_type(dtype)
    weights = [awkward(n, n).to(dtype) for n in SIZES]
    values = [[awkward(n, n + s).to(wide) if use else None for n in SIZES] for s, use in enumerate(which, start=1)]
    out = [shifted(torch.full_like(w, 7.0), device, offsets[0]) for w in weights]
    there = [shifted(w, device, offsets[1]) for w in weights]
    directions = [
        [None if v is None else shifted(v, device, offsets[2 + k % 2]) for v in row] for k, row in enumerate(values)
    ]
    perturbation = _core.Perturbation(out, there, directions)
    for point in (
        (0.0, 0.0, 0.0, 0.0),
        (0.1, -1.0 / 3.0, 1e-3, -7.0),
        (-1e-30, 1e30, 0.5, 2.0),
        (np.inf, 1.0, 1.0, 0.0),
    ):
        perturbation.perturb(point[: len(which)], 1)
        for i, w in enumerate(weights):
            expected = w.to(wide)
            for c, row in zip(point, values, strict=False):
                expected = expected if row[i] is None else expected + c * row[i]
            assert same_bits(out[i], expected.to(dtype) if any(which) else w), (len(w), point)


def test_tensors_of_all_types_move_in_one_launch(device: torch.device, capture: Capture) -> None:
    weights = [awkward(n, n).to(dtype).to(device) for dtype in TYPES for n in SIZES]
    first = [awkward(len(w), 5).to(compute_type(w.dtype)).to(device) for w in weights]
    out = [torch.zeros_like(w) for w in weights]
    perturbation = _core.Perturbation(out, weights, [first])
    with capture() as graph:
        perturbation.perturb([0.25], 1)
    launches = graph.replay()
    assert launches in (1, None)  # a GPU's graph does not count
    for o, w, u in zip(out, weights, first, strict=True):
        assert same_bits(o, (w.cpu().to(u.dtype) + 0.25 * u.cpu()).to(w.dtype))


@pytest.mark.parametrize("dtype", TYPES)
def test_lerp_meets_both_ends_to_the_bit_and_the_expression_between(
    device: torch.device, dtype: torch.dtype, offsets: tuple[int, ...]
) -> None:
    wide = compute_type(dtype)
    for n in SIZES:
        start, stop = (torch.randn(n, generator=torch.Generator().manual_seed(s)).to(dtype) for s in (n, n + 1))
        out = shifted(torch.zeros_like(start), device, offsets[0])
        ends = [shifted(start, device, offsets[1])], [shifted(stop, device, offsets[2])]
        line = _core.Perturbation([out], ends[0], [ends[1]])
        a, b = start.to(wide), stop.to(wide)
        for t in (0.0, 0.25, 0.49999, 0.5, 0.75, 1.0):
            line.lerp(t, 1)
            scale = torch.tensor(t, dtype=wide)
            expected = a + scale * (b - a) if scale < 0.5 else b - (1 - scale) * (b - a)
            assert same_bits(out, expected.to(dtype)), (n, t)
            if t in (0.0, 1.0):
                assert same_bits(out, (start, stop)[int(t)]), n


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_coordinates_come_from_the_row_of_the_cursor(device: torch.device, capture: Capture, width: int) -> None:
    rows = [[0.1, -0.3, 7.0, 1e-4], [1.0, 2.0, -1 / 3, 0.0], [-7.5, 0.7, 0.2, -2.0]]
    table = torch.tensor(rows, dtype=torch.float64, device=device)[:, :width].contiguous()
    values = torch.zeros(3, 1, dtype=torch.float64, device=device)
    cursor = torch.zeros(1, dtype=torch.int64, device=device)
    w, *ds = (awkward(1000, seed).to(device) for seed in range(width + 1))
    out = torch.empty_like(w)
    plane, reducer = _core.Perturbation([out], [w], [[d] for d in ds]), _core.Reducer(values, cursor)
    with capture() as graph:
        plane.perturb_at(table, cursor)
        reducer.advance()
    for row in table.cpu().tolist():
        graph.replay()
        expected = w.cpu()
        for c, d in zip(row, ds, strict=True):
            expected = expected + c * d.cpu()
        assert same_bits(out, expected)
    assert cursor.item() == 3


def test_one_coordinate_is_a_line(device: torch.device) -> None:
    table = torch.tensor([[0.25], [0.75]], dtype=torch.float64, device=device)
    cursor = torch.ones(1, dtype=torch.int64, device=device)
    w, u = (torch.randn(100, generator=torch.Generator().manual_seed(s)).to(device) for s in (1, 2))
    out = torch.empty_like(w)
    _core.Perturbation([out], [w], [[u]]).perturb_at(table, cursor)
    assert same_bits(out, w.cpu() + 0.75 * u.cpu())
    _core.Perturbation([out], [w], [[u]]).lerp_at(table, cursor)
    assert same_bits(out, u.cpu() - 0.25 * (u.cpu() - w.cpu()))


@pytest.mark.parametrize("by", [0, 1, 2, 3])
def test_normal_fill_is_the_generator_draw_by_draw(device: torch.device, by: int) -> None:
    for n, seed, stream in ((0, 0, 0), (1, 1, 0), (7, 2**63 - 1, 5), (9001, 42, (3 << 32) | 17)):
        out = shifted(torch.zeros(n), device, by)
        _core.fill_normal(out, seed, stream, 1)
        expected = _testing.philox_normal(seed, stream, np.arange(n, dtype=np.uint64)).astype(np.float32)
        assert out.cpu().numpy().tobytes() == expected.tobytes()


def test_errors_name_both_places(device: torch.device, real_device: torch.device) -> None:
    here, there = torch.zeros(4), torch.zeros(4, device=device)
    with pytest.raises(ValueError, match="CUDA device 0 and the host"):
        _core.Perturbation([there], [here], [[None]])
    table, cursor = torch.zeros(1, 2, dtype=torch.float64), torch.zeros(1, dtype=torch.int64)
    with pytest.raises(ValueError, match="the table on the host"):
        _core.Perturbation([there], [there], [[there], [None]]).perturb_at(table, cursor)
    with pytest.raises(ValueError, match="on a device use a Reducer"):
        _core.sums(there, 1)


def test_a_table_of_other_types_is_refused(device: torch.device) -> None:
    w, cursor = torch.zeros(4, device=device), torch.zeros(1, dtype=torch.int64, device=device)
    plane = _core.Perturbation([w], [w.clone()], [[w.clone()], [None]])
    wide = torch.zeros(3, 3, dtype=torch.float64, device=device)
    for table in (torch.zeros(3, 2, device=device), torch.zeros(3, dtype=torch.float64, device=device), wide):
        with pytest.raises(ValueError, match="float64 table"):
            plane.perturb_at(table, cursor)


@pytest.mark.slow
def test_more_than_2_to_the_31_elements(real_device: torch.device) -> None:
    n = 2**31 + 5
    out = torch.empty(n, device=real_device)
    _core.fill_normal(out, 3, 1, 1)
    for begin in (0, 2**31 - 8, n - 8):
        expected = _testing.philox_normal(3, 1, np.arange(begin, begin + 8, dtype=np.uint64)).astype(np.float32)
        assert out[begin : begin + 8].cpu().numpy().tobytes() == expected.tobytes()
    moved = torch.empty_like(out)
    _core.Perturbation([moved], [out], [[out]]).perturb([0.5], 1)
    for part, source in zip(moved.split(2**28), out.split(2**28), strict=True):
        assert torch.equal(part, source + 0.5 * source)
