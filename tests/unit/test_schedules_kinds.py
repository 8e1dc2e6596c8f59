"""Restarts of any length, noise, WSD, warm-ups and free amplitudes: boundaries, degenerate sizes, what each promises."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from thalweg import schedules

# ---- restarts ----------------------------------------------------------------------------------------------


def exact_starts(t_0: int, t_mult: str, count: int) -> list[int]:
    """Beginnings of `count` cycles and the end of the last, by rational arithmetic."""
    starts = [0]
    for i in range(count):
        starts.append(starts[-1] + max(1, math.floor(t_0 * Fraction(t_mult) ** i + Fraction(1, 2))))
    return starts


def test_no_wrong_boundary_in_ten_thousand() -> None:
    rng = np.random.default_rng()
    checked = 0
    while checked < 10_000:
        t_0 = int(rng.integers(1, 10 ** int(rng.integers(1, 7))))
        t_mult = str(
            rng.choice(["1", "2", "3", "10", "1.5", "1.1", "0.7", "0.9", "0.5", f"{rng.uniform(0.4, 2.5):.3f}"])
        )
        growth = max(Fraction(t_mult), 1)
        count = min(200, int(12 / math.log10(growth)) + 1 if growth > 1 else 200)
        starts = exact_starts(t_0, t_mult, count)
        if starts[-1] > 2**53:
            continue
        schedule = schedules.sgdr(0.1, t_0, float(t_mult), cycles=count)
        assert schedule.total_steps == starts[-1]
        for i, begin in enumerate(starts[:-1]):
            assert schedule(begin) == 0.1, (t_0, t_mult, i)
            assert schedule.cycle(begin) == i
            assert schedule.is_cycle_end(starts[i + 1] - 1)
            assert starts[i + 1] - begin == 1 or not schedule.is_cycle_end(begin)
            checked += 1
        assert schedule(starts[-1]) == 0.0
        assert schedule.cycle(starts[-1]) is None


def test_a_factor_is_the_decimal_that_it_is_written_as() -> None:
    """10 · 0.7 is 7 steps though the float64 nearest to 0.7 lies below it; 0.1 · 3 is no 0.30000000000000004."""
    assert schedules.sgdr(0.1, 10, 0.7, cycles=3).cycle_ends() == [9, 16, 21]
    assert schedules.sgdr(0.1, 10, 1.1, cycles=3).cycle_ends() == [9, 20, 32]
    assert schedules.sgdr(0.1, 4, 2.0) == schedules.sgdr(0.1, 4, 2)


def test_growth_without_an_end_reaches_beyond_every_run() -> None:
    schedule = schedules.sgdr(0.1, 7, 1.3)
    starts = exact_starts(7, "1.3", 130)
    assert schedule.total_steps is None
    for begin in starts[:100:9]:
        assert schedule(begin) == 0.1
    assert schedule.cycle(2**53 - 1) == next(i for i, s in enumerate(starts) if s > 2**53 - 1) - 1


@pytest.mark.parametrize("total", [1, 39, 40, 41, 63, 64, 70, 78, 90])
def test_shrinking_cycles_are_held_at_the_end_of_the_run(total: int) -> None:
    free, cut = schedules.sgdr(0.1, 40, 0.6, cycles=9), schedules.sgdr(0.1, 40, 0.6, total_steps=total)
    np.testing.assert_array_equal(cut.values(total), free.values(total))
    starts = exact_starts(40, "0.6", 9)
    held = 0.0 if total in starts else free(total)
    np.testing.assert_array_equal(cut.values(9, start=total), held)


@pytest.mark.parametrize("style", ["default", "hf", "plus1", "inclusive"])
@pytest.mark.parametrize("t_mult", [1, 2, 1.5])
def test_a_warmup_begins_each_cycle(t_mult: float, style: str) -> None:
    schedule = schedules.sgdr(0.1, 10, t_mult, 0.02, 0.8, cycles=4, warmup_steps=4, warmup_start=0.01, style=style)
    pieces = []
    for i, length in enumerate(np.diff(exact_starts(10, str(t_mult), 4)).tolist()):
        peak = max(0.1 * 0.8**i, 0.02)
        piece = schedules.warmup(4, peak, 0.01, style) >> schedules.cosine(peak, length - 4, 0.02)
        pieces.append(piece.values(length))
    np.testing.assert_allclose(schedule.values(), np.concatenate(pieces), rtol=1e-15)


def test_a_cycle_shorter_than_its_warmup_keeps_a_step_for_the_wave() -> None:
    schedule = schedules.sgdr(0.1, 8, 0.5, cycles=4, warmup_steps=3)
    assert schedule.values(15)[[3, 11, 13, 14]].tolist() == [0.1, 0.1, 0.1, 0.1]
    assert schedule.values(15)[[0, 8, 12]].tolist() == [0.025, 0.025, 0.05]


# ---- noise -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("distribution", ["uniform", "normal"])
def test_noise_has_its_distribution(distribution: str) -> None:
    n, amplitude, std = 40_000, 0.5, 0.3
    schedule = schedules.noise(amplitude, int(np.random.default_rng().integers(2**62)), distribution, std)
    x = np.sort(schedule.values(n) - 1) / amplitude
    assert np.all(np.abs(x) <= 1)
    if distribution == "uniform":
        below = (x + 1) / 2
    else:
        phi = np.vectorize(lambda z: math.erfc(-z / math.sqrt(2)) / 2)
        cut = phi(-amplitude / std)
        below = (phi(x * amplitude / std) - cut) / (1 - 2 * cut)
    distance = np.max(np.abs(below - (np.arange(n) + 0.5) / n))
    assert distance < 3 / math.sqrt(n)  # Kolmogorov: exceeded once in thirty million runs


def test_noise_depends_on_seed_and_step_alone() -> None:
    a, b = schedules.noise(0.5, 1), schedules.noise(0.5, 2)
    steps = [10**12, 3, 0, 7, 3]
    assert [a(k) for k in steps] == [a(k) for k in reversed(steps)][::-1]
    assert a(3) != b(3)
    assert len(set(a.values(1_000))) == 1_000
    assert abs(np.corrcoef(a.values(4_000)[:-1], a.values(4_000)[1:])[0, 1]) < 0.08  # five standard deviations
    assert schedules.noise(1.0, std=1e9).values(1_000).min() >= 0.0


# ---- WSD ---------------------------------------------------------------------------------------------------


def test_decay_at_gives_a_new_value_and_keeps_the_past() -> None:
    run = schedules.wsd(0.1, 10, 20, eta_min=1e-3)
    assert run.total_steps is None
    assert run(10**9) == 0.1
    done = run.decay_at(500)
    assert run.total_steps is None
    assert done.total_steps == 520
    np.testing.assert_array_equal(done.values(501), run.values(501))
    np.testing.assert_array_equal(done.values(20, start=500), schedules.cooldown(0.1, 20, 1e-3).values(20))
    assert done(520) == done(10**6) == 1e-3
    assert run.decay_at(500, decay_steps=50).total_steps == 550
    assert done.decay_at(700).total_steps == 720  # a decision can be taken back
    assert run.decay_at(10)(10) == 0.1
    assert schedules.from_dict(done.to_dict()).decay_at(700) == done.decay_at(700)
    assert done.boundaries() == []  # one kind; its pieces are its own affair


@pytest.mark.parametrize("shape", ["linear", "cosine", "1-sqrt", "1-square", "exponential"])
@pytest.mark.parametrize(
    "sizes", [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1), (5, 0, 5), (0, 5, 5), (5, 5, 0)]
)
def test_wsd_degenerate(shape: str, sizes: tuple[int, int, int]) -> None:
    w, stable, d = sizes
    schedule = schedules.wsd(0.1, w, d, stable, 1e-3, shape)
    values = schedule.values(sum(sizes) + 4)
    assert schedule.total_steps == sum(sizes)
    assert np.all((values > 0) & (values <= 0.1))
    assert np.all(values[sum(sizes) :] == 1e-3)
    np.testing.assert_array_equal(values[w : w + stable], 0.1)
    if d:
        assert values[w + stable] == 0.1


# ---- degenerate sizes of the others ------------------------------------------------------------------------


def test_one_step_of_everything() -> None:
    s = schedules
    for made in (s.rex(0.1, 1), s.cooldown(0.1, 1), s.cosine(0.1, 1, k=2.0), s.polynomial(0.1, 1, k=2.0)):
        assert made.values(3).tolist() == [0.1, 0.0, 0.0]
    for made in (
        s.rex(0.1, 1, end="inclusive"), s.linear(0.1, 1, end="inclusive"), s.cooldown(0.1, 1, end="inclusive"),
        s.polynomial(0.1, 1, end="inclusive"), s.polynomial(0.1, 1, end="inclusive", k=2.0),
        s.cosine(0.1, 1, end="inclusive", exponent=2.0),
    ):  # fmt: skip
        assert made.values(3).tolist() == [0.0, 0.0, 0.0]
    assert s.tanh(0.2, 1, -300.0, 300.0).values(3) == pytest.approx([0.2, *[0.2 * math.exp(-600)] * 2], rel=1e-12)
    assert s.flat_cosine(0.1, 1, 0.0).values(3).tolist() == [0.1, 0.0, 0.0]
    assert s.flat_cosine(0.1, 1, 1.0).values(3).tolist() == [0.1, 0.1, 0.1]
    assert s.inverse_sqrt(0.1, 1).values(4)[[0, 3]].tolist() == [0.1, 0.05]
    assert s.noam(1, 0).values(4)[[0, 3]].tolist() == s.noam(1, 1).values(4)[[0, 3]].tolist() == [1.0, 0.5]
    assert s.untuned_warmup(0.1, 0.0).values(3).tolist() == [0.05, 0.1, 0.1]
    assert s.piecewise_linear([0], [0.3]).values(2).tolist() == [0.3, 0.3]
    assert s.piecewise_constant([], [0.3]).values(2).tolist() == [0.3, 0.3]
    assert s.piecewise_constant([0], [0.3, 0.1]).values(2).tolist() == [0.1, 0.1]
    assert s.sgdr(0.1, 1, 0.5, cycles=3).values(5).tolist() == [0.1, 0.1, 0.1, 0.0, 0.0]
    assert s.wsd(0.1, 0, 0, 0).values(2).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("style", ["default", "hf", "timm", "plus1", "inclusive"])
@pytest.mark.parametrize("shape", ["linear", "cosine", "1-sqrt"])
@pytest.mark.parametrize("steps", [0, 1, 2, 9])
def test_warmups_rise_and_end_at_the_rate(style: str, shape: str, steps: int) -> None:
    schedule = schedules.warmup(steps, 0.1, 0.01, style, shape)
    values = schedule.values(steps + 3)
    assert np.all(np.diff(values) >= 0)
    assert np.all(values[steps:] == 0.1)
    assert np.all(values >= 0.01)
    if steps > 1:
        assert (values[0] == 0.01) == (style in ("hf", "timm", "inclusive"))
        assert (values[steps - 1] == 0.1) == (style in ("plus1", "inclusive"))


def test_warmup_as_long_as_the_run() -> None:
    """What divides by zero elsewhere."""
    for style in ("default", "hf", "plus1", "inclusive"):
        schedule = schedules.warmup(10, 0.1, style=style) >> schedules.cosine(0.1, 1)
        assert schedule.values(12)[[10, 11]].tolist() == [0.1, 0.0]
    timm = schedules.cosine(0.1, 10).after_warmup(10, style="timm")
    assert timm.total_steps == 10
    assert timm(10) == schedules.warmup(10, 0.1, style="hf")(10)


# ---- every, advance, free amplitudes -----------------------------------------------------------------------


def test_a_schedule_that_counts_epochs() -> None:
    epochs = schedules.multistep(0.1, [3, 5], total_steps=8)
    steps = epochs.every(391)
    assert steps.total_steps == 8 * 391
    assert [steps(k) for k in (0, 3 * 391 - 1, 3 * 391, 5 * 391)] == [epochs(0), epochs(2), epochs(3), epochs(5)]
    cycles = schedules.sgdr(0.1, 2, 2).every(10)
    assert cycles.cycle_ends(150) == [19, 59, 139]
    assert cycles.boundaries(150) == [20, 60, 140]
    assert [cycles.cycle(k) for k in (0, 19, 20, 59, 60)] == [0, 0, 1, 1, 2]


def test_advance_leaves_out_the_beginning() -> None:
    schedule = schedules.sgdr(0.1, 10, 2)
    later = schedule.advance(12)
    np.testing.assert_array_equal(later.values(50), schedule.values(50, start=12))
    assert later.cycle_ends(60) == [17, 57]
    assert [later.cycle(k) for k in (0, 17, 18)] == [0, 0, 1]
    assert schedule.advance(10).cycle_ends(60) == [19, 59]
    assert schedules.cosine(0.1, 10).advance(10**12)(5) == 0.0
    assert (schedules.warmup(5, 0.1) >> schedule).advance(3).cycle(1) is None


@pytest.mark.parametrize("per", ["cycle", "position", "step"])
def test_cyclic_multiplies_its_amplitude(per: str) -> None:
    amplitude = schedules.linear(1.0, 30, 0.2)
    schedule = schedules.cyclic(0.01, 0.1, 4, amplitude, per, 6)
    wave = schedules.triangular(0.0, 0.1 - 0.01, 4, 6)
    for k in range(60):
        count = {"cycle": k // 10, "position": k % 10, "step": k}[per]
        assert schedule(k) == 0.01 + wave(k) * amplitude(count)
    assert schedule.cycle_ends(40) == [9, 19, 29, 39]


def test_combinations_of_lengths_and_cycles() -> None:
    cosine, cycles = schedules.cosine(0.1, 30), schedules.sgdr(0.1, 10)
    assert (cosine + 0.5).total_steps == 30
    assert (cosine + cycles).total_steps is None
    assert schedules.minimum(cosine, schedules.linear(0.1, 40)).total_steps == 40
    assert schedules.maximum(0.05, cycles).cycle_ends(30) == [9, 19, 29]
    assert 0.5 + cosine == cosine + 0.5
    assert schedules.add(cosine, 0.25, 0.25)(30) == 0.5


def test_as_many_kinds_as_promised() -> None:
    assert len({*schedules.CONSTRUCTORS, "one_cycle", "from_callable", "Plateau", "Greedy"}) >= 26
