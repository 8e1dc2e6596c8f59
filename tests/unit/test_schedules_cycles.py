"""Warm restarts: exact at every boundary, at any distance, for every factor."""

from __future__ import annotations

import numpy as np
import pytest

from thalweg import schedules


def starts(t_0: int, t_mult: int, limit: int) -> list[int]:
    """Integer sums, as the paper has them."""
    out, begin, length = [], 0, t_0
    while begin <= limit:
        out.append(begin)
        begin, length = begin + length, length * t_mult
    return out


@pytest.mark.parametrize("t_mult", [1, 2, 3, 10])
@pytest.mark.parametrize("t_0", [1, 2, 7, 10, 1_000])
def test_every_boundary_up_to_a_million(t_0: int, t_mult: int) -> None:
    """The first step of a cycle has the peak exactly, the one before is the last of its cycle."""
    schedule = schedules.sgdr(0.1, t_0, t_mult)
    expected = starts(t_0, t_mult, 10**6)
    for index, begin in enumerate(expected if len(expected) < 5_000 else expected[:: len(expected) // 5_000 + 1]):
        assert schedule(begin) == 0.1
        assert begin == 0 or schedule.is_cycle_end(begin - 1)
        assert not schedule.is_cycle_end(begin) or schedule.is_cycle_end(begin + 1) or t_0 == 1
        if len(expected) < 5_000:
            assert schedule.cycle(begin) == index
    values = schedule.values(10**6)
    begins = np.array(expected)
    begins = begins[begins < 10**6]
    assert np.all(values[begins] == 0.1)
    if t_0 > 1:
        assert np.flatnonzero(values == 0.1).tolist() == begins.tolist()
    assert np.all(values >= 0.0)
    assert np.all(values <= 0.1)


@pytest.mark.parametrize("t_mult", [1, 2, 3, 10])
def test_far_boundaries(t_mult: int) -> None:
    """Up to 10^18, where float64 no longer holds the step."""
    schedule = schedules.sgdr(0.1, 3, t_mult)
    far = [3 * (10**17 + i) for i in range(10)] if t_mult == 1 else starts(3, t_mult, 10**18)[-10:]
    for begin in far:
        assert schedule(begin) == 0.1
        assert schedule.is_cycle_end(begin - 1)
        assert not schedule.is_cycle_end(begin)


@pytest.mark.parametrize("decay", [1.0, 0.7, 0.5])
def test_decayed_peaks(decay: float) -> None:
    schedule = schedules.sgdr(0.1, 5, 2, eta_min=1e-3, decay=decay)
    for index, begin in enumerate(starts(5, 2, 10**5)):
        assert schedule(begin) == pytest.approx(max(0.1 * decay**index, 1e-3), rel=1e-15)
    assert schedule.values(10_000).min() >= 1e-3


@pytest.mark.parametrize(("total", "cycles"), [(10, 3), (100, 7), (1_000, 6), (97, 97), (10**6 + 1, 9), (5, 1)])
def test_even_split(total: int, cycles: int) -> None:
    """Cycle i begins at floor(i T / M), at the peak, and every cycle is complete."""
    schedule = schedules.snapshot_cosine(0.2, total, cycles, "even")
    begins = [i * total // cycles for i in range(cycles)]
    assert schedule.cycle_ends() == [*(b - 1 for b in begins[1:]), total - 1]
    assert all(schedule(b) == 0.2 for b in begins)


@pytest.mark.parametrize(("total", "cycles"), [(10, 3), (10, 6), (100, 7), (1_000, 6), (97, 97), (10**6 + 1, 9)])
def test_ceil_split(total: int, cycles: int) -> None:
    length = -(-total // cycles)
    schedule = schedules.snapshot_cosine(0.2, total, cycles)
    begins = list(range(0, total, length))
    assert schedule.cycle_ends() == [*(b - 1 for b in begins[1:]), total - 1]
    assert all(schedule(b) == 0.2 for b in begins)


def test_triangular_meets_its_bounds_exactly() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        base, top = sorted(float(x) for x in 10 ** rng.uniform(-6, 0, 2))
        up, down = (int(x) for x in rng.integers(1, 5_000, 2))
        schedule = schedules.triangular(base, top, up, down)
        for cycle in (0, 1, 17, 10**6):
            begin = cycle * (up + down)
            assert schedule(begin) == base
            assert schedule(begin + up) == top
            assert schedule.is_cycle_end(begin + up + down - 1)
        values = schedule.values(2 * (up + down))
        assert values.min() == base
        assert values.max() == top


def test_triangular2_and_exp_range_shrink() -> None:
    halved = schedules.triangular2(0.0, 0.8, 4)
    assert [halved(4 + 8 * i) for i in range(4)] == [0.8, 0.4, 0.2, 0.1]
    assert halved(8 * 3_000 + 4) == 0.0
    shrunk = schedules.exp_range(0.25, 1.25, 4, 0.5)
    assert shrunk(4) == 0.25 + 1.0 / 16
    assert shrunk(0) == shrunk(8) == 0.25
