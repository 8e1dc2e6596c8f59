"""The other kinds of schedule against their formulas at 50 digits, up to 10^12 steps: 6 ulp per shape, +2 per combinator."""

from __future__ import annotations

import random
from collections.abc import Callable
from fractions import Fraction

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


def end_of(draw: random.Random, n: int) -> tuple[str, int]:
    """A convention and the length of the ramp that it gives."""
    end = draw.choice(["exclusive", "inclusive"]) if n > 1 else "exclusive"
    return end, n - (end == "inclusive")


def mix(a: float, b: float, share: mpf) -> mpf:
    return mpf(b) + (mpf(a) - mpf(b)) * share


def wave(p: mpf) -> mpf:
    return (1 + mpmath.cospi(p)) / 2


def rex(draw: random.Random) -> Case:
    (a, b), n = rates(draw), length(draw)
    end, wide = end_of(draw, n)
    k = step_in(draw, wide)
    p = mpf(k) / wide
    return schedules.rex(a, n, b, end), k, mix(a, b, (1 - p) / (1 - p / 2))


def tanh(draw: random.Random) -> Case:
    (a, b), n = rates(draw), length(draw)
    low = draw.choice([-7.0, draw.uniform(-20, 0)])
    high = draw.choice([3.0, low + draw.uniform(0.1, 30)])
    k = step_in(draw, n)
    x = (mpf(low) * (n - k) + mpf(high) * k) / n
    return schedules.tanh(a, n, low, high, b), k, mix(a, b, 1 / (1 + mpmath.exp(2 * x)))


def cooldown(draw: random.Random) -> Case:
    (a, b), n = rates(draw), length(draw)
    end, wide = end_of(draw, n)
    k = step_in(draw, wide)
    p = mpf(k) / wide
    shape = draw.choice(["linear", "cosine", "1-sqrt", "1-square", "exponential"])
    if shape == "exponential":
        b = b or a / 1000
        return schedules.cooldown(a, n, b, shape, end), k, mpf(a) * (mpf(b) / mpf(a)) ** p
    share = {"linear": 1 - p, "cosine": wave(p), "1-sqrt": 1 - mpmath.sqrt(p), "1-square": 1 - p**2}[shape]
    return schedules.cooldown(a, n, b, shape, end), k, mix(a, b, share)


def k_decay_cosine(draw: random.Random) -> Case:
    (a, b), n = rates(draw), length(draw)
    end, wide = end_of(draw, n)
    power, step = draw.choice([1.5, 2.0, 0.5, draw.uniform(0.2, 6)]), step_in(draw, wide)
    made = schedules.cosine(a, n, b, end, k=power)
    return made, step, mix(a, b, wave((mpf(step) / wide) ** mpf(power)))


def k_decay_polynomial(draw: random.Random) -> Case:
    (a, b), n = rates(draw), length(draw)
    end, wide = end_of(draw, n)
    step, k, power = step_in(draw, wide), draw.uniform(0.2, 6), draw.choice([1.0, 0.5, draw.uniform(0.1, 2)])
    exact = mix(a, b, (1 - (mpf(step) / wide) ** mpf(k)) ** mpf(power))
    return schedules.polynomial(a, n, power, b, end, k), step, exact


def cosine_exponent(draw: random.Random) -> Case:
    (a, b), n = rates(draw), length(draw)
    k, exponent = step_in(draw, n), draw.choice([0.5, 2.0, draw.uniform(0.1, 2), draw.uniform(2, 16)])
    return schedules.cosine(a, n, b, exponent=exponent), k, mix(a, b, wave(mpf(k) / n) ** mpf(exponent))


def flat_cosine(draw: random.Random) -> Case:
    (a, b), n = rates(draw), length(draw)
    pct = draw.choice([0.0, 0.5, 0.75, 1.0, draw.random()])
    begin = mpf(pct * n)
    k = step_in(draw, n) if pct < 1 else draw.randint(0, n)
    share = mpf(0) if begin == n or k <= begin else (k - begin) / (n - begin)
    return schedules.flat_cosine(a, n, pct, b), k, mix(a, b, wave(share))


def inverse_time(draw: random.Random) -> Case:
    (a, _), n, r = rates(draw), length(draw), 10 ** draw.uniform(-6, 3)
    stairs = draw.random() < 0.5
    k = draw.randint(0, min(10**12, 50 * n))
    quotient = mpf(k // n) if stairs else mpf(k) / n
    return schedules.inverse_time(a, r, n, stairs), k, mpf(a) / (1 + mpf(r) * quotient)


def inverse_sqrt(draw: random.Random) -> Case:
    (a, _), n, shift = rates(draw), length(draw), draw.choice([None, length(draw)])
    k = draw.choice([draw.randint(0, 10**12), draw.randint(0, 100)])
    exact = mpf(a) * mpmath.sqrt(mpf(n) / (k + (shift or n)))
    return schedules.inverse_sqrt(a, n, shift), k, exact


def exponential_warmup(draw: random.Random) -> Case:
    (a, b), tau = rates(draw), 10 ** draw.uniform(0, 10)
    k = int(tau * draw.choice([0, draw.random() * 1e-3, draw.random(), 30 * draw.random()]))
    return schedules.exponential_warmup(a, tau, b), k, mix(b, a, mpmath.exp(-mpf(k + 1) / mpf(tau)))


def untuned_warmup(draw: random.Random) -> Case:
    (a, b), beta2 = rates(draw), draw.choice([0.9, 0.99, 0.999, 0.9999, 0.95])
    rest = 1 - Fraction(str(beta2))
    if draw.random() < 0.5:
        n = int(2 / rest)
        k = draw.randint(0, n - 1)
        return schedules.untuned_warmup(a, beta2, "linear", b), k, mix(b, a, 1 - mpf(k + 1) / n)
    k = draw.randint(0, int(20 / rest))
    share = mpmath.exp(-mpf(k + 1) * mpf(rest.numerator) / rest.denominator)
    return schedules.untuned_warmup(a, beta2, "exponential", b), k, mix(b, a, share)


def warmup_shapes(draw: random.Random) -> Case:
    (a, b), n = rates(draw), length(draw, 2)
    style, shape = draw.choice(["default", "hf", "timm", "plus1", "inclusive"]), draw.choice(["cosine", "1-sqrt"])
    k = step_in(draw, n - 1)
    wide = {"default": n + 1, "inclusive": n - 1}.get(style, n)
    p = mpf(k + (style in ("default", "plus1"))) / wide
    share = (1 - mpmath.cospi(p)) / 2 if shape == "cosine" else 1 - mpmath.sqrt(1 - p)
    return schedules.warmup(n, a, b, style, shape), k, mix(b, a, 1 - share)


def noam(draw: random.Random) -> Case:
    d, w, factor = draw.randint(1, 4096), length(draw), 10 ** draw.uniform(-3, 3)
    s = 1 + draw.choice([draw.randint(0, w), draw.randint(0, 10**12), w - 1, w])
    exact = mpf(factor) / mpmath.sqrt(d) * min(1 / mpmath.sqrt(s), s * mpf(w) ** mpf(-1.5))
    return schedules.noam(d, w, factor), s - 1, exact


def piecewise(draw: random.Random) -> Case:
    steps = sorted(draw.sample(range(10**3 if draw.random() < 0.5 else 10**12), draw.randint(2, 9)))
    values = [10 ** draw.uniform(-6, 1) for _ in steps]
    i = draw.randrange(len(steps) - 1)
    k = steps[i] + step_in(draw, steps[i + 1] - steps[i])
    p = mpf(k - steps[i]) / (steps[i + 1] - steps[i])
    if draw.random() < 0.5:
        return schedules.piecewise_linear(steps, values), k, mix(values[i], values[i + 1], 1 - p)
    return schedules.piecewise_cosine(steps, values), k, mix(values[i], values[i + 1], wave(p))


def cyclic(draw: random.Random) -> Case:
    top, base = rates(draw)
    up, down = draw.randint(1, 10**5), draw.randint(1, 10**5)
    heights = [draw.uniform(0, 2) for _ in range(5)]
    k = draw.randint(0, 12 * (up + down))
    cycle, at = divmod(k, up + down)
    height = mpf(at) / up if at <= up else mpf(up + down - at) / down
    exact = mpf(base) + (mpf(top) - mpf(base)) * height * mpf(heights[min(cycle, 4)])
    return schedules.cyclic(base, top, up, heights, "cycle", down), k, exact


def restart(draw: random.Random) -> Case:
    """Real, shrinking and whole factors, with a warm-up in each cycle; beginnings by rational arithmetic."""
    a, b = rates(draw)
    t_0, cycles = draw.randint(2, draw.choice([10, 1_000, 10**6])), draw.randint(1, 20)
    m, decay = draw.choice([2, 3, 1, 1.5, 0.5, 1.1, 0.7, round(draw.uniform(0.3, 2.5), 3)]), draw.uniform(0.5, 1)
    warm, start = draw.choice([0, draw.randint(0, t_0 - 1)]), 10 ** draw.uniform(-6, 1)
    lengths = [max(1, (2 * t_0 * Fraction(str(m)) ** i + 1) // 2) for i in range(cycles)]
    made = schedules.sgdr(a, t_0, m, b, decay, cycles=cycles, warmup_steps=warm, warmup_start=start)
    assert made.total_steps == sum(lengths)
    i = draw.randrange(cycles)
    at, ramp = step_in(draw, lengths[i] - 1), min(warm, lengths[i] - 1)
    peak = max(mpf(a) * mpf(decay) ** i, mpf(b))
    if at < ramp:
        exact = mpf(start) + (peak - mpf(start)) * (at + 1) / (ramp + 1)
    else:
        exact = mpf(b) + (peak - mpf(b)) * wave(mpf(at - ramp) / (lengths[i] - ramp))
    return made, sum(lengths[:i]) + at, exact


SHAPES: tuple[Callable[[random.Random], Case], ...] = (
    rex, tanh, cooldown, k_decay_cosine, k_decay_polynomial, cosine_exponent, inverse_time, inverse_sqrt,
    exponential_warmup, untuned_warmup, warmup_shapes, restart,
)  # fmt: skip
COMPOSED: tuple[Callable[[random.Random], Case], ...] = (flat_cosine, noam, piecewise, cyclic)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shape", SHAPES + COMPOSED, ids=lambda shape: shape.__name__)
def test_within_6_ulp_and_2_per_combinator(shape: Callable[[random.Random], Case], seed: int) -> None:
    draw = random.Random(f"{shape.__name__} {seed}")
    bound = 6 if shape in SHAPES else 8
    for _ in range(400):
        made, k, exact = shape(draw)
        if abs(exact) < mpf("1e-290"):
            assert abs(made(k) - exact) < mpf("1e-300")
        else:
            assert ulps(made(k), exact) <= bound, (made, k)


@pytest.mark.parametrize("seed", range(3))
def test_sums_minima_maxima(seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(200):
        a, k, x = rex(draw)
        b, _, _ = cooldown(draw)
        y = mpf(b(k))
        assert ulps((a + b)(k), x + y) <= 8
        assert schedules.minimum(a, b)(k) == min(a(k), b(k))
        assert schedules.maximum(a, b)(k) == max(a(k), b(k))


@pytest.mark.parametrize("power", [1.5, 3.0, 5.0])
def test_k_decay_at_its_ends_over_a_trillion_steps(power: float) -> None:
    """1 - cos and 1 - u have no digit left there."""
    n = 10**12
    for k in (1, 2, n - 2, n - 1):
        exact = mpf(0.1) * wave((mpf(k) / n) ** mpf(power))
        assert ulps(schedules.cosine(0.1, n, k=power)(k), exact) <= 6


@pytest.mark.parametrize("distribution", ["uniform", "normal"])
def test_noise_is_the_quantile_of_its_draw(distribution: str) -> None:
    """Philox4x32-10 and the normal quantile written out here; both ends of the draw are open."""
    amplitude, std, seed = 0.5, 0.3, 2**40 + 17
    made = schedules.noise(amplitude, seed, distribution, std)
    low = mpmath.ncdf(-mpf(amplitude) / mpf(std))
    for k in (0, 1, 5, 10**6, 2**33 + 3, 10**12):
        u = draw_of(seed, k)
        if distribution == "uniform":
            x = mpf(amplitude) * (2 * u - 1)
        else:
            quantile = low + u * (1 - 2 * low)
            x = mpf(std) * mpmath.sqrt(2) * mpmath.erfinv(2 * quantile - 1)
        assert ulps(made(k), 1 + x) <= 6


def draw_of(seed: int, step: int) -> mpf:
    """The 52 bits of the step's block, in (0, 1)."""
    word, key = [step & 0xFFFFFFFF, step >> 32, 0, 0], [seed & 0xFFFFFFFF, seed >> 32]
    for _ in range(10):
        a, b = 0xD2511F53 * word[0], 0xCD9E8D57 * word[2]
        word = [(b >> 32) ^ word[1] ^ key[0], b & 0xFFFFFFFF, (a >> 32) ^ word[3] ^ key[1], a & 0xFFFFFFFF]
        key = [(key[0] + 0x9E3779B9) & 0xFFFFFFFF, (key[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return (mpf((word[0] << 32 | word[1]) >> 12) + mpf(1) / 2) / 2**52
