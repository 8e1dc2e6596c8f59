"""The reductions on a device: the documented order of additions to the bit, ties, NaN, cells, captures."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import pytest
import torch

from thalweg import _core

pytestmark = pytest.mark.cuda

SIZES = (0, 1, 3, 31, 33, 1023, 1024, 1025, 2049, 70_001)
FLOATS = (torch.float32, torch.float64)
Capture = Callable[[], AbstractContextManager[Any]]


def documented_sum(values: np.ndarray) -> float:
    """Index order within blocks of 1,024, block sums in order; cumsum adds one by one, unlike sum."""
    total = np.float64(0.0)
    with np.errstate(all="ignore"):
        for begin in range(0, len(values), 1024):
            total += np.cumsum(values[begin : begin + 1024])[-1]
    return float(total)


def cells(device: torch.device, columns: int = 1, rows: int = 1) -> torch.Tensor:
    return torch.zeros(rows, columns, dtype=torch.float64, device=device)


def values_of(n: int, dtype: torch.dtype, device: torch.device, by: int = 0, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng([n, seed])
    values = torch.from_numpy(rng.lognormal(sigma=4, size=n + by) * rng.choice([-1, 1], n + by))
    return values.to(dtype).to(device)[by:]


@pytest.mark.parametrize("by", [0, 1])
@pytest.mark.parametrize("dtype", FLOATS)
def test_sums_products_and_errors_follow_the_documented_order(
    device: torch.device, dtype: torch.dtype, by: int
) -> None:
    for n in SIZES:
        a, b = (values_of(n, dtype, device, by, seed) for seed in (1, 2))
        wide, other = (t.double().cpu().numpy() for t in (a, b))
        out = cells(device, 5)
        reducer = _core.Reducer(out)
        reducer.sum(0, a)
        reducer.sum_and_squares(1, a)
        reducer.squared_error(3, a, b)
        reducer.dots(4, [a], [b])
        terms = (wide, wide, wide * wide, (wide - other) ** 2, wide * other)
        assert out[0].tolist() == [documented_sum(term) for term in terms], n


@pytest.mark.parametrize("dtype", FLOATS)
def test_row_squares_are_the_sums_of_each_row(device: torch.device, dtype: torch.dtype) -> None:
    for rows, columns in ((1, 1), (5, 9), (33, 27), (70, 1024), (3, 2500), (1, 40_000)):
        values = values_of(rows * columns, dtype, device).reshape(rows, columns)
        out = cells(device, rows)
        _core.Reducer(out).row_squares(0, values, rows)
        wide = values.double().cpu().numpy() ** 2
        assert out[0].tolist() == [documented_sum(row) for row in wide], (rows, columns)


def test_all_pairs_of_vectors_in_one_call(device: torch.device) -> None:
    vectors = [values_of(n, FLOATS[n % 2], device) for n in (5, 3000, 0, 8)]
    out = cells(device, 4)
    _core.Reducer(out).dots(0, vectors, vectors)
    assert out[0].tolist() == [documented_sum(v.double().cpu().numpy() ** 2) for v in vectors]


def test_nan_and_infinity_stay(device: torch.device) -> None:
    values = torch.ones(70_001, device=device)
    values[69_000] = math.inf
    out = cells(device, 2, rows=2)
    _core.Reducer(out).sum_and_squares(0, values)
    assert out[0].tolist() == [math.inf, math.inf]
    values[5] = -math.inf
    _core.Reducer(out[1:]).sum_and_squares(0, values)
    assert math.isnan(out[1, 0].item())
    assert out[1, 1].item() == math.inf


@pytest.mark.parametrize("k", [1, 2, 5])
@pytest.mark.parametrize("classes", [5, 10, 31, 32, 33, 100])
@pytest.mark.parametrize("dtype", FLOATS)
def test_count_is_the_place_in_a_stable_order(device: torch.device, dtype: torch.dtype, classes: int, k: int) -> None:
    generator = torch.Generator().manual_seed(classes)
    for rows in (0, 1, 31, 33, 1025):
        scores = torch.randint(0, 4, (rows, classes), generator=generator).to(dtype)  # many ties
        targets = torch.randint(-1, classes + 1, (rows,), generator=generator)
        if rows > 3:
            scores[3, 2] = math.nan
        first = np.argsort(-scores.numpy(), axis=1, kind="stable")[:, :k]
        hit = (first == targets.numpy()[:, None]).any(1) & ~np.isnan(scores.numpy()).any(1)
        out = cells(device)
        _core.Reducer(out).count_correct(0, scores.to(device), targets.to(device), k)
        assert out.item() == int(hit.sum()), rows


@pytest.mark.parametrize("dtype", FLOATS)
def test_cross_entropy_of_rows(device: torch.device, dtype: torch.dtype) -> None:
    scores = torch.randn(1500, 7, generator=torch.Generator().manual_seed(0)).to(dtype) * 20
    targets = torch.randint(0, 7, (1500,), generator=torch.Generator().manual_seed(1))
    out = cells(device, 3)
    reducer = _core.Reducer(out)
    reducer.cross_entropy(0, scores.to(device), targets.to(device))
    exact = torch.nn.functional.cross_entropy(scores.double(), targets, reduction="sum").item()
    assert out[0, 0].item() == pytest.approx(exact, rel=1e-13)
    reducer.cross_entropy(1, torch.zeros(1, 4, dtype=dtype, device=device), torch.tensor([4], device=device))
    assert math.isnan(out[0, 1].item())
    reducer.cross_entropy(2, torch.tensor([[0.0, math.inf]], dtype=dtype, device=device), targets[:1].to(device) * 0)
    assert math.isnan(out[0, 2].item())


def test_cells_take_weight_divisor_row_and_column(device: torch.device) -> None:
    out, cursor = cells(device, 4, rows=3), torch.ones(1, dtype=torch.int64, device=device)
    reducer = _core.Reducer(out, cursor)
    scores, targets = torch.eye(6, device=device), torch.arange(6, device=device)
    reducer.count_correct(3, scores, targets, 1, 2.0, 5.0)
    reducer.count_correct(3, scores, targets, 1, 2.0, 5.0)
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        reducer.number(0, torch.tensor(0.1, dtype=dtype, device=device), 3.0)
    reducer.advance()
    reducer.number(2, 0.1, 3.0)
    expected = np.zeros((3, 4))
    expected[1, 3] = 6 * 2.0 / 5.0 + 6 * 2.0 / 5.0
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        expected[1, 0] += torch.tensor(0.1, dtype=dtype).item() * 3.0
    expected[2, 2] = 0.1 * 3.0
    assert np.array_equal(out.cpu().numpy(), expected)
    assert cursor.item() == 2


def test_a_captured_point_replays_row_by_row(device: torch.device, capture: Capture) -> None:
    out, cursor = cells(device, 3, rows=5), torch.zeros(1, dtype=torch.int64, device=device)
    reducer = _core.Reducer(out, cursor)
    values = values_of(3000, torch.float32, device)
    loss = torch.tensor(0.75, device=device)

    def point() -> None:
        reducer.sum_and_squares(0, values)
        reducer.number(2, loss, 2.0)
        reducer.advance()

    point()
    with capture() as graph:
        point()
    for row in range(1, 5):
        values.mul_(2)
        loss.add_(1)
        graph.replay()
        wide = values.double().cpu().numpy()
        assert out[row].tolist() == [documented_sum(wide), documented_sum(wide * wide), (0.75 + row) * 2]
    assert cursor.item() == 5


def test_a_capture_cannot_be_the_first_to_need_memory(device: torch.device, capture: Capture) -> None:
    reducer = _core.Reducer(cells(device))
    values = torch.ones(5, device=device)
    with capture():
        values.add_(1)  # a graph without anything in it makes torch warn
        with pytest.raises(_core.CudaError, match="before the capture"):
            reducer.sum(0, values)


def test_what_does_not_fit_is_refused(device: torch.device) -> None:
    out = cells(device, 2)
    reducer = _core.Reducer(out)
    values, targets = torch.ones(4, 3, device=device), torch.zeros(4, dtype=torch.int64, device=device)
    for wrong in (
        lambda: reducer.sum(2, values),
        lambda: reducer.sum(-1, values),
        lambda: reducer.sum_and_squares(1, values),
        lambda: reducer.row_squares(0, values, 4),
        lambda: reducer.row_squares(0, values, 5),
        lambda: reducer.sum(0, values[:, ::2]),
        lambda: reducer.sum(0, values.bfloat16()),
        lambda: reducer.squared_error(0, values, values.double()),
        lambda: reducer.dots(0, [values], []),
        lambda: reducer.dots(0, [values], [values.double()]),
        lambda: reducer.count_correct(0, values, targets[:3], 1),
        lambda: reducer.number(0, values),
        lambda: reducer.advance(),
        lambda: _core.Reducer(out.float()),
        lambda: _core.Reducer(out[0]),
    ):
        with pytest.raises(ValueError, match="Reducer"):
            wrong()
    assert not out.any()


def test_tensors_elsewhere_are_named(real_device: torch.device) -> None:
    reducer = _core.Reducer(cells(real_device))
    with pytest.raises(ValueError, match=r"CUDA device 0, values on the CPU; move it"):
        reducer.sum(0, torch.ones(3))
    with pytest.raises(ValueError, match="expected values on a CUDA device"):
        _core.Reducer(cells(torch.device("cpu")))


@pytest.mark.parametrize("dtype", FLOATS)
def test_device_and_cpu_agree_to_the_bit(real_device: torch.device, dtype: torch.dtype) -> None:
    for n in SIZES:
        a, b = (values_of(n, dtype, torch.device("cpu"), seed=seed) for seed in (1, 2))
        out = cells(real_device, 4)
        reducer = _core.Reducer(out)
        reducer.sum_and_squares(0, a.to(real_device))
        reducer.squared_error(2, a.to(real_device), b.to(real_device))
        reducer.dots(3, [a.to(real_device)], [b.to(real_device)])
        assert out[0].tolist() == [*_core.sums(a, 1), _core.squared_error(a, b, 1), _core.dot(a, b, 1)]
