"""The landscape and metric kernels alone: documented order of sums, bits on every instruction set, special values."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from thalweg import _core, _testing

SIZES = (0, 1, 3, 17, 1023, 1024, 1025, 70_001)
SPECIAL = (0.0, -0.0, 1e-45, -1e-42, 1.17e-38, 3.4e38, -3.4e38, float("inf"), float("-inf"), float("nan"))


def documented_sum(values: np.ndarray) -> np.float64:
    """Index order within blocks of 1,024, block sums in order; cumsum adds one by one, unlike sum."""
    total = np.float64(0.0)
    with np.errstate(all="ignore"):
        for begin in range(0, len(values), 1024):
            total += np.cumsum(values[begin : begin + 1024])[-1]
    return total


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal to the bit; NaN of any payload equals NaN."""
    kind = {8: torch.int64, 4: torch.int32, 2: torch.int16}[a.element_size()]
    nan = a.isnan() & b.isnan()
    return a.dtype == b.dtype and bool(((a.view(kind) == b.view(kind)) | nan).all())


def awkward(n: int, generator: torch.Generator) -> torch.Tensor:
    """Random values of all magnitudes, with denormals, infinities and NaN among them."""
    values = torch.randn(n, generator=generator) * 10.0 ** torch.randint(-44, 38, (n,), generator=generator)
    values[: len(SPECIAL)] = torch.tensor(SPECIAL)[:n]
    return values


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sums_follow_the_documented_order_to_the_bit(
    isa: str, threads: int, dtype: torch.dtype, rng: np.random.Generator
) -> None:
    for n in SIZES:
        values = torch.from_numpy(rng.lognormal(sigma=4, size=n) * rng.choice([-1, 1], n)).to(dtype)
        wide = values.double().numpy()
        assert _core.sums(values, threads) == (documented_sum(wide), documented_sum(wide * wide)), n


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_squared_error_follows_the_same_order(
    isa: str, threads: int, dtype: torch.dtype, rng: np.random.Generator
) -> None:
    for n in SIZES:
        a, b = (torch.from_numpy(rng.normal(size=n)).to(dtype) for _ in range(2))
        assert _core.squared_error(a, b, threads) == documented_sum((a.double() - b.double()).numpy() ** 2), n


def test_sums_keep_nan_and_infinity(threads: int) -> None:
    values = torch.ones(70_001)
    values[69_000] = float("inf")
    assert _core.sums(values, threads) == (np.inf, np.inf)
    values[5] = float("-inf")
    total, squares = _core.sums(values, threads)
    assert np.isnan(total)
    assert squares == np.inf


@pytest.mark.parametrize("classes", [1, 2, 10, 33])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_correct_is_torch_argmax_with_the_first_of_equal_scores(
    isa: str, threads: int, dtype: torch.dtype, classes: int
) -> None:
    generator = torch.Generator().manual_seed(classes + threads)
    for rows in (0, 1, 5, 1025, 66_000):
        scores = torch.randint(0, 4, (rows, classes), generator=generator).to(dtype)  # many ties
        targets = torch.randint(0, classes, (rows,), generator=generator)
        expected = int((torch.from_numpy(scores.numpy().argmax(1) if rows else np.zeros(0, int)) == targets).sum())
        assert _core.count_correct(scores, targets.data_ptr(), threads) == expected, rows


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_row_with_nan_is_wrong_wherever_it_stands(place: int) -> None:
    for target in range(3):
        scores = torch.tensor([[1.0, 2.0, 3.0]])
        scores[0, place] = float("nan")
        targets = torch.tensor([target])
        assert _core.count_correct(scores, targets.data_ptr(), 1) == 0
    infinite, last = torch.tensor([[-np.inf, 0.0, np.inf]]), torch.tensor([2])
    assert _core.count_correct(infinite, last.data_ptr(), 1) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cross_entropy_of_rows_is_that_of_torch_in_float64(threads: int, dtype: torch.dtype) -> None:
    scores = torch.randn(3000, 7, generator=torch.Generator().manual_seed(0)).to(dtype) * 20
    targets = torch.randint(0, 7, (3000,), generator=torch.Generator().manual_seed(1))
    each = torch.nn.functional.cross_entropy(scores.double(), targets, reduction="none")
    total = _core.cross_entropy(scores, targets.data_ptr(), threads)
    assert total == pytest.approx(documented_sum(each.numpy()), rel=1e-13)
    assert total == _core.cross_entropy(scores, targets.data_ptr(), 1)
    for bad in (-1, 7):
        targets[5] = bad
        assert np.isnan(_core.cross_entropy(scores, targets.data_ptr(), threads))


@pytest.mark.parametrize("which", [w for n in range(1, 5) for w in itertools.product((True, False), repeat=n)])
def test_perturb_has_torch_bits_for_denormals_infinities_and_missing_directions(
    isa: str, threads: int, which: tuple[bool, ...]
) -> None:
    generator = torch.Generator().manual_seed(threads)
    weights = [awkward(n, generator) for n in SIZES]
    directions = [[awkward(n, generator).flip(0).contiguous() if use else None for n in SIZES] for use in which]
    out = [torch.full_like(w, 7.0) for w in weights]
    for point in (
        (0.0, 0.0, 0.0, 0.0),
        (0.1, -1.0 / 3.0, 1e-3, -7.0),
        (-1e-30, 1e30, 0.5, 2.0),
        (np.inf, 1.0, 1.0, 0.0),
    ):
        _core.Perturbation(out, weights, directions).perturb(point[: len(which)], threads)
        for i, w in enumerate(weights):
            expected = w
            for c, direction in zip(point, directions, strict=False):
                expected = expected if direction[i] is None else expected + c * direction[i]
            assert same_bits(out[i], expected), (len(w), point)


def test_perturb_ignores_a_flush_to_zero_mode_of_the_caller(isa: str) -> None:
    weights, step = torch.full((40,), 1e-40), torch.full((40,), 1e-41)
    expected = (weights.double() + step.double()).float()
    out = torch.empty(40)
    if not torch.set_flush_denormal(True):
        pytest.skip("this CPU cannot flush denormals")
    try:
        _core.Perturbation([out], [weights], [[step]]).perturb([1.0], 1)
        still_flushing = float(torch.tensor(1e-40) * torch.tensor(0.5))
    finally:
        torch.set_flush_denormal(False)
    assert still_flushing == 0.0, "the caller's mode must be as before"
    assert float(expected[0]) > 0.0
    assert torch.equal(out.view(torch.int32), expected.view(torch.int32))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_lerp_meets_both_ends_to_the_bit_and_torch_between(isa: str, threads: int, dtype: torch.dtype) -> None:
    """torch.lerp has the same two branches, but may contract them into a fused multiply-add: two units apart."""
    generator = torch.Generator().manual_seed(threads)
    for n in (0, 1, 17, 70_001):
        start, stop = (torch.randn(n, generator=generator).to(dtype) for _ in range(2))
        out = torch.empty_like(start)
        line = _core.Perturbation([out], [start], [[stop]])
        line.lerp(0.0, threads)
        assert same_bits(out, start)
        line.lerp(1.0, threads)
        assert same_bits(out, stop)
        for t in (0.25, 0.49999, 0.5, 0.75):
            line.lerp(t, threads)
            exact = start.double() + t * (stop.double() - start.double())
            scale = torch.maximum(start.double().abs(), stop.double().abs())
            assert bool(((out.double() - exact).abs() <= 2 * torch.finfo(dtype).eps * scale).all()), (n, t)


def test_normal_fill_is_the_generator_draw_by_draw(threads: int) -> None:
    for n, seed, stream in ((0, 0, 0), (1, 1, 0), (7, 2**63 - 1, 5), (9001, 42, (3 << 32) | 17)):
        out = torch.empty(n)
        _core.fill_normal(out, seed, stream, threads)
        expected = _testing.philox_normal(seed, stream, np.arange(n, dtype=np.uint64)).astype(np.float32)
        assert out.numpy().tobytes() == expected.tobytes()


def test_perturbation_refuses_tensors_that_do_not_fit() -> None:
    good = torch.ones(4, 6)
    for bad in (torch.ones(4, 6)[:, ::2], torch.ones(6, 4), torch.ones(4, 6, dtype=torch.int32)):
        with pytest.raises(ValueError, match="Perturbation"):
            _core.Perturbation([torch.empty(4, 6)], [bad], [[good]])
    for directions in ([], [[good]] * 5):
        with pytest.raises(ValueError, match="expected 1 to 4 directions"):
            _core.Perturbation([torch.empty(4, 6)], [good], directions)
    plane = _core.Perturbation([torch.empty(4, 6)], [good], [[good], [None]])
    for point in ([], [1.0], [1.0, 2.0, 3.0]):
        with pytest.raises(ValueError, match=f"expected 2 coordinates, got {len(point)}"):
            plane.perturb(point, 1)
    with pytest.raises(ValueError, match="a line has one stored end"):
        plane.lerp(0.5, 1)
    with pytest.raises(ValueError, match="expected directions of the type of the weights"):
        _core.Perturbation(
            [torch.empty(2).bfloat16()], [torch.ones(2).bfloat16()], [[torch.ones(2).bfloat16()]]
        ).perturb([1.0], 1)


def test_draws_that_do_not_fit_are_refused() -> None:
    scales = torch.ones(3, dtype=torch.float64)
    for arguments in ((scales.float(),), (scales, True), (torch.ones(0, dtype=torch.float64),), (None, False, (0, 2))):
        with pytest.raises(ValueError, match="Draw"):
            _core.Draw(0, 0, *arguments)
    w, out = torch.ones(8), torch.empty(8)
    with pytest.raises(ValueError, match="3 scales on the host for a tensor of 8 elements"):
        _core.Perturbation([out], [w], [[_core.Draw(0, 0, scales)]])
    with pytest.raises(ValueError, match="swap does not fit"):
        _core.Perturbation([out], [w], [[_core.Draw(0, 0, swap=(3, 2))]])
    with pytest.raises(ValueError, match="all stored or all drawn"):
        _core.Perturbation([out], [w], [[_core.Draw(0, 0)], [w]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rows", [1, 7, 1001])
def test_drawn_values_are_variates_times_the_scale_of_their_row(
    isa: str, threads: int, dtype: torch.dtype, rows: int
) -> None:
    """Rows that end anywhere in the kernel's blocks; NumPy multiplies in float64 and rounds once."""
    for columns in (1, 3, 1023, 1024, 1030):
        scales = np.random.default_rng(rows).lognormal(sigma=3, size=rows)
        out = torch.empty(rows, columns, dtype=dtype)
        _core.fill_drawn(out, _core.Draw(11, 3, torch.from_numpy(scales)), None, threads)
        variates = _testing.philox_normal(11, 3, np.arange(rows * columns, dtype=np.uint64)).reshape(rows, columns)
        expected = (variates.astype(np.float64) * scales[:, None]).astype(out.numpy().dtype)
        assert out.numpy().tobytes() == expected.tobytes(), columns
