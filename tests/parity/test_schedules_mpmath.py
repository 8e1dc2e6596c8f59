"""Every shape against its textbook formula at 50 digits, for steps up to 10^12: at most 6 ulp, +2 per combinator."""

from __future__ import annotations

import random
from collections.abc import Callable

import mpmath
import numpy as np
import pytest
from mpmath import mpf

from thalweg import schedules
from thalweg.schedules import Schedule

LENGTHS = (1, 2, 3, 10, 1_000, 10**5, 10**6, 10**9, 10**12)
Case = tuple[Schedule, int, mpf]


@pytest.fixture(autouse=True)
def fifty_digits() -> None:
    mpmath.mp.dps = 50


def ulps(value: float, exact: mpf) -> float:
    """Distance in units of the last place of the exact value."""
    return float(abs(mpf(value) - exact) / mpf(float(np.spacing(abs(float(exact))))))


def length(draw: random.Random, minimum: int = 1) -> int:
    return max(minimum, draw.randint(1, draw.choice(LENGTHS)))


def step_in(draw: random.Random, total: int) -> int:
    """A step of [0, total], often near an end or the middle."""
    near = draw.randint(0, 20)
    return min(total, draw.choice([draw.randint(0, total), near, max(total - near, 0), total // 2, max(total - 1, 0)]))


def rates(draw: random.Random) -> tuple[float, float]:
    """(upper, lower) learning rates."""
    upper = 10 ** draw.uniform(-6, 1)
    return upper, draw.choice([0.0, upper * draw.random(), upper * 10 ** draw.uniform(-12, 0)])


def cosine_of(a: mpf, b: mpf, share: mpf) -> mpf:
    return b + (a - b) * (1 + mpmath.cospi(share)) / 2


def linear(draw: random.Random) -> Case:
    a, b = rates(draw)
    a, b = draw.choice([(a, b), (b, a)])
    n = length(draw)
    k = step_in(draw, n)
    return schedules.linear(a, n, b), k, (mpf(a) * (n - k) + mpf(b) * k) / n


def cosine(draw: random.Random) -> Case:
    a, b = rates(draw)
    n = length(draw)
    end = draw.choice(["exclusive", "inclusive"]) if n > 1 else "exclusive"
    wave = n - (end == "inclusive")
    k = step_in(draw, wave)
    return schedules.cosine(a, n, b, end), k, cosine_of(mpf(a), mpf(b), mpf(k) / wave)


def polynomial(draw: random.Random) -> Case:
    a, b = rates(draw)
    n = length(draw)
    power = draw.choice([1.0, 2.0, 0.5, 3.0, draw.uniform(0.001, 1), draw.uniform(1, 60)])
    k = step_in(draw, n)
    return schedules.polynomial(a, n, power, b), k, mpf(b) + (mpf(a) - mpf(b)) * (1 - mpf(k) / n) ** mpf(power)


def exponential(draw: random.Random) -> Case:
    k = draw.randint(0, 10**12)
    gamma = draw.choice([1 - 10 ** draw.uniform(-14, -10), 1.0, 1 + 10 ** draw.uniform(-14, -11)])
    a, _ = rates(draw)
    return schedules.exponential(a, gamma), k, mpf(a) * mpf(gamma) ** k


def geometric(draw: random.Random) -> Case:
    a, b = 10 ** draw.uniform(-9, 0), 10 ** draw.uniform(-9, 2)
    n = length(draw, 2)
    k = step_in(draw, n - 1)
    return schedules.geometric(a, b, n), k, mpf(a) * (mpf(b) / mpf(a)) ** (mpf(k) / (n - 1))


def step(draw: random.Random) -> Case:
    a, _ = rates(draw)
    size = length(draw)
    k = size * draw.randint(0, 60) + draw.choice([0, size - 1, draw.randint(0, size - 1)])
    gamma = draw.uniform(0.1, 1)
    return schedules.step(a, size, gamma), k, mpf(a) * mpf(gamma) ** (k // size)


def multistep(draw: random.Random) -> Case:
    a, _ = rates(draw)
    marks = sorted(draw.randint(0, draw.choice(LENGTHS)) for _ in range(draw.randint(1, 30)))
    k = max(0, draw.choice(marks) + draw.choice([-1, 0, 1, draw.randint(0, 10**12)]))
    gamma = draw.uniform(0.1, 1)
    return schedules.multistep(a, marks, gamma), k, mpf(a) * mpf(gamma) ** sum(m <= k for m in marks)


def sgdr(draw: random.Random) -> Case:
    a, b = rates(draw)
    t_0, t_mult = length(draw), draw.choice([1, 1, 2, 3, 10])
    decay = draw.choice([1.0, draw.uniform(0.5, 1)])
    k = draw.randint(0, min(10**12, t_0 * 200))
    begin, index, wave = 0, 0, t_0
    if t_mult == 1:
        index = k // t_0
        begin = index * t_0
    while k >= begin + wave:
        begin, index, wave = begin + wave, index + 1, wave * t_mult
    peak = max(mpf(a) * mpf(decay) ** index, mpf(b))
    return schedules.sgdr(a, t_0, t_mult, b, decay), k, cosine_of(peak, mpf(b), mpf(k - begin) / wave)


def snapshot_cosine(draw: random.Random) -> Case:
    a, b = rates(draw)
    n = length(draw)
    cycles = draw.randint(1, min(n, 40))
    k = draw.randint(0, n - 1)
    if draw.random() < 0.5:
        wave = -(-n // cycles)
        return schedules.snapshot_cosine(a, n, cycles, "ceil", b), k, cosine_of(mpf(a), mpf(b), mpf(k % wave) / wave)
    starts = [i * n // cycles for i in range(cycles + 1)]
    i = max(i for i in range(cycles) if starts[i] <= k)
    share = mpf(k - starts[i]) / (starts[i + 1] - starts[i])
    return schedules.snapshot_cosine(a, n, cycles, "even", b), k, cosine_of(mpf(a), mpf(b), share)


def triangular_family(draw: random.Random) -> Case:
    top, base = rates(draw)
    up, down = length(draw), draw.choice([None, length(draw)])
    period = up + (down or up)
    k = draw.randint(0, min(10**12, 50 * period))
    position = k % period
    height = mpf(position) / up if position <= up else mpf(period - position) / (down or up)
    kind = draw.choice(["triangular", "triangular2", "exp_range"])
    if kind == "exp_range":
        gamma = 1 - 10 ** draw.uniform(-13, -9)
        made = schedules.exp_range(base, top, up, gamma, down)
        height *= mpf(gamma) ** k
    else:
        made = getattr(schedules, kind)(base, top, up, down)
        height *= mpf(2) ** (-(k // period)) if kind == "triangular2" else 1
    return made, k, mpf(base) + (mpf(top) - mpf(base)) * height


def warmup(draw: random.Random) -> Case:
    a, b = rates(draw)
    n = length(draw)
    style = draw.choice(["default", "hf", "plus1"])
    k = draw.randint(0, n - 1)
    share = {"default": mpf(k + 1) / (n + 1), "hf": mpf(k) / n, "plus1": mpf(k + 1) / n}[style]
    return schedules.warmup(n, a, b, style), k, mpf(b) + (mpf(a) - mpf(b)) * share


def one_cycle(draw: random.Random) -> Case:
    top = 10 ** draw.uniform(-4, 1)
    n = length(draw, 10)
    pct = draw.uniform(0.2, 0.8)
    anneal = draw.choice(["cos", "linear"])
    k = step_in(draw, n - 1)
    peak = mpf(pct * n - 1)
    first = mpf(top / 25.0)
    a, b, share = (first, mpf(top), k / peak) if k <= peak else (mpf(top), first / 10000, (k - peak) / (n - 1 - peak))
    exact = cosine_of(a, b, share) if anneal == "cos" else a + (b - a) * share
    return schedules.one_cycle(top, n, pct, anneal=anneal).lr, k, exact


SHAPES: tuple[Callable[[random.Random], Case], ...] = (
    linear, cosine, polynomial, exponential, geometric, step, multistep,
    sgdr, snapshot_cosine, triangular_family, warmup,
)  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)
def test_shape_within_6_ulp(shape: Callable[[random.Random], Case], seed: int) -> None:
    draw = random.Random(f"{shape.__name__} {seed}")
    for _ in range(400):
        made, k, exact = shape(draw)
        if abs(exact) < mpf("1e-290"):  # denormal or zero: no relative accuracy to ask for
            assert abs(made(k) - exact) < mpf("1e-300")
        else:
            assert ulps(made(k), exact) <= 6, (made, k)


@pytest.mark.parametrize("seed", range(3))
def test_one_cycle_within_8_ulp(seed: int) -> None:
    """The end divided twice has two roundings of its own, and the foot is reached through a sequence."""
    draw = random.Random(seed)
    for _ in range(400):
        made, k, exact = one_cycle(draw)
        assert ulps(made(k), exact) <= 8, (made, k)


@pytest.mark.parametrize("seed", range(3))
def test_combinators_add_at_most_2_ulp(seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(200):
        a, k, x = cosine(draw)
        b, m, y = polynomial(draw)
        factor = 10 ** draw.uniform(-3, 3)
        assert ulps((a * factor)(k), x * mpf(factor)) <= 8
        n = a.total_steps
        assert n is not None
        if m < (b.total_steps or 0):
            assert ulps((a >> b)(n + m), y) <= 8
            assert ulps((a >> b).repeat(3)(2 * (n + b.total_steps) + n + m), y) <= 8
        z = mpf(b(k)) * x
        if z > mpf("1e-280"):
            assert ulps((a * b)(k), z) <= 8


def test_last_value_of_a_billion_steps() -> None:
    """(1 + cos) / 2 has no correct digit here."""
    n = 10**9
    exact = mpf(0.1) * (1 + mpmath.cospi(mpf(n - 1) / n)) / 2
    assert ulps(schedules.cosine(0.1, n)(n - 1), exact) <= 6
    assert ulps(float(schedules.cosine(0.1, n).values(1, start=n - 1)[0]), exact) <= 6
