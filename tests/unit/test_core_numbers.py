"""The core's internals: Philox, normal variates, 16-bit conversions."""

from __future__ import annotations

import functools
import math
import operator

import mpmath
import numpy as np
import pytest
import torch

from thalweg import _core, _testing

# Known answers of the Random123 distribution (kat_vectors, philox4x32 with 10 rounds).
VECTORS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), VECTORS)
def test_philox_known_answers(counter: tuple[int, ...], key: tuple[int, ...], expected: tuple[int, ...]) -> None:
    assert _testing.philox4x32(list(counter), list(key)) == expected


def test_normal_quantile_against_fifty_digits(rng: np.random.Generator) -> None:
    u = np.concatenate([rng.uniform(0, 1, 40), 2.0 ** -rng.uniform(2, 33, 40), 1 - 2.0 ** -rng.uniform(2, 33, 40)])
    with mpmath.workdps(50):
        exact = [float(mpmath.sqrt(2) * mpmath.erfinv(2 * mpmath.mpf(x) - 1)) for x in u]
    np.testing.assert_allclose(_testing.normal_quantile(u), exact, rtol=2e-14, atol=1e-15)


def test_portable_log(rng: np.random.Generator) -> None:
    x = np.concatenate([2.0 ** -rng.uniform(0, 40, 5000), [1.0, 0.5, np.sqrt(0.5), 2.0**-33]])
    np.testing.assert_allclose(_testing.portable_log(x), np.log(x), rtol=5e-16, atol=2e-16)


def test_normals_are_normal_and_depend_on_seed_stream_and_index() -> None:
    n = 400_000
    z = _testing.philox_normal(7, 3, np.arange(n, dtype=np.uint64)).astype(np.float64)
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((z**power).mean() - moment) < 5 * math.sqrt(variance / n)
    assert abs(np.corrcoef(z[:-1], z[1:])[0, 1]) < 5 / math.sqrt(n)
    other = _testing.philox_normal(7, 4, np.arange(1000, dtype=np.uint64))
    assert abs(np.corrcoef(z[:1000], other)[0, 1]) < 0.2
    assert not np.array_equal(_testing.philox_normal(8, 3, np.arange(10, dtype=np.uint64)), z[:10].astype(np.float32))


def test_fill_normal_equals_the_single_draws(threads: int) -> None:
    for n in (0, 1, 5, 10_001):
        out = torch.empty(n)
        _core.fill_normal(out, 5, 2**33 + 1, threads)
        assert np.array_equal(out.numpy(), _testing.philox_normal(5, 2**33 + 1, np.arange(n, dtype=np.uint64)))


def test_all_bfloat16_values_convert_and_back() -> None:
    bits = np.arange(65536, dtype=np.uint16)
    wide = _testing.bfloat16_to_float(bits)
    expected = torch.from_numpy(bits.view(np.int16)).view(torch.bfloat16).float().numpy()
    np.testing.assert_array_equal(wide, expected)
    back = _testing.float_to_bfloat16(wide)
    finite = ~np.isnan(wide)
    assert np.array_equal(back[finite], bits[finite])
    assert np.isnan(_testing.bfloat16_to_float(back[~finite])).all()


def test_all_float16_values_convert_and_back() -> None:
    bits = np.arange(65536, dtype=np.uint16)
    wide = _testing.float16_to_float(bits)
    np.testing.assert_array_equal(wide, bits.view(np.float16).astype(np.float32))
    back = _testing.float_to_float16(wide)
    finite = ~np.isnan(wide)
    assert np.array_equal(back[finite], bits[finite])
    assert np.isnan(_testing.float16_to_float(back[~finite])).all()


@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
def test_rounding_to_sixteen_bits_equals_torch(rng: np.random.Generator, kind: str) -> None:
    """Random floats of every exponent, every halfway case between neighbours, and one ulp to each side of it."""
    to_wide = getattr(_testing, f"{kind}_to_float")
    positive = to_wide(np.arange(0x7F80 if kind == "bfloat16" else 0x7C00, dtype=np.uint16)).astype(np.float64)
    halfway = ((positive[:-1] + positive[1:]) / 2).astype(np.float32)
    random = rng.integers(0, 2**32, 300_000, dtype=np.uint64).astype(np.uint32).view(np.float32)
    edge = np.float32([65504, 65519.99, 65520, 65536, 3.4e38, np.inf, 0, 2**-24, 2**-25, 2**-26, 2**-14])
    values = np.concatenate(
        [halfway, np.nextafter(halfway, np.float32(0)), np.nextafter(halfway, np.float32(9e9)), random, edge]
    )
    values = np.concatenate([values, -values])
    got = to_wide(getattr(_testing, f"float_to_{kind}")(values))
    expected = torch.from_numpy(values).to(getattr(torch, kind)).float().numpy()
    np.testing.assert_array_equal(got, expected)


def test_metric_kernels_against_numpy(rng: np.random.Generator, threads: int) -> None:
    for n in (0, 1, 1023, 1024, 1025, 100_000):
        values = rng.normal(size=n).astype(np.float32) * 10.0 ** rng.integers(-3, 4, n).astype(np.float32)
        wide = values.astype(np.float64)
        total, squares = _core.sums(torch.from_numpy(values), threads)
        blocks = [wide[i : i + 1024] for i in range(0, n, 1024)]
        ordered = 0.0
        for block in blocks:
            part = 0.0
            for v in block:
                part += v
            ordered += part
        assert total == ordered, "the documented order: within blocks of 1,024, then block by block"
        np.testing.assert_allclose(squares, math.fsum(wide**2), rtol=1e-12)
        other = rng.normal(size=n).astype(np.float32)
        np.testing.assert_allclose(
            _core.squared_error(torch.from_numpy(values), torch.from_numpy(other), threads),
            math.fsum((wide - other.astype(np.float64)) ** 2), rtol=1e-12,
        )  # fmt: skip


def test_count_correct(rng: np.random.Generator) -> None:
    scores = rng.integers(0, 4, (5000, 6)).astype(np.float32)  # many ties: the first maximum counts
    targets = torch.from_numpy(rng.integers(0, 6, 5000))
    assert _core.count_correct(torch.from_numpy(scores), targets.data_ptr(), 2) == int(
        (scores.argmax(1) == targets.numpy()).sum()
    )
    broken = torch.tensor([[float("nan"), 1.0], [0.0, 1.0]])
    assert _core.count_correct(broken, torch.tensor([0, 1]).data_ptr(), 1) == 1, "a row with NaN is wrong"


@pytest.mark.parametrize("k", [1, 3, 6])
def test_count_among_the_largest(rng: np.random.Generator, threads: int, k: int) -> None:
    scores = rng.integers(0, 4, (3000, 6)).astype(np.float64)
    targets = rng.integers(-1, 7, 3000)
    largest = (-scores).argsort(axis=1, kind="stable")[:, :k]
    expected = int((largest == targets[:, None]).any(1).sum())
    tensor = torch.from_numpy(targets)
    assert _core.count_correct(torch.from_numpy(scores), tensor.data_ptr(), threads, k) == expected


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_products_in_their_documented_order(rng: np.random.Generator, threads: int, dtype: type) -> None:
    def one_by_one(terms: list[float]) -> float:
        return functools.reduce(operator.add, terms, 0.0)  # not sum(): Python 3.12 compensates its errors

    def ordered(terms: np.ndarray) -> float:
        return one_by_one([one_by_one(terms[i : i + 1024].tolist()) for i in range(0, len(terms), 1024)])

    for n in (0, 1, 1025, 80_000):
        a, b = (rng.normal(size=n).astype(dtype) for _ in range(2))
        got = _core.dot(torch.from_numpy(a), torch.from_numpy(b), threads)
        assert got == ordered(a.astype(np.float64) * b.astype(np.float64))
    rows = rng.normal(size=(7, 11_003)).astype(dtype)
    squares = _core.row_squares(torch.from_numpy(rows), 7, threads)
    assert squares.tolist() == [ordered(row.astype(np.float64) ** 2) for row in rows]


def test_reductions_do_not_flush_denormals(threads: int) -> None:
    tiny = torch.full((70_000,), 1e-40)
    expected = _core.sums(tiny, threads)[0]
    assert expected == pytest.approx(7e-36, rel=1e-4)
    if not torch.set_flush_denormal(True):
        pytest.skip("this CPU has no flush-to-zero")
    try:
        assert _core.sums(tiny, threads)[0] == expected
        assert _core.dot(tiny, torch.ones(70_000), threads) == expected
    finally:
        torch.set_flush_denormal(False)


def test_reductions_refuse_what_they_cannot_read() -> None:
    with pytest.raises(ValueError, match="dot: expected two tensors of one size"):
        _core.dot(torch.ones(3), torch.ones(4), 1)
    with pytest.raises(ValueError, match="sums: expected a dense float32 or float64"):
        _core.sums(torch.ones(4, dtype=torch.int64), 1)
    with pytest.raises(ValueError, match="rows of equal length"):
        _core.row_squares(torch.ones(5), 2, 1)
