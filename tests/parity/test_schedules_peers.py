"""Other libraries' schedules, their published formulas written out, against ours: all steps, relative 1e-12."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from thalweg import schedules as S
from thalweg.schedules import Schedule

RNG = np.random.default_rng()


def same(ours: Schedule, theirs: Callable[[int], float], steps: int, *, low: float = 1e-13) -> None:
    """`low`: where the peer's own cancellation (1 + cos near the end) leaves it nothing, an absolute bound."""
    np.testing.assert_allclose(ours.values(steps), [theirs(k) for k in range(steps)], rtol=1e-12, atol=low)


def draw() -> tuple[float, int, int, float]:
    """(lr, warm-up, total, floor)."""
    total = int(RNG.integers(20, 400))
    lr = float(10 ** RNG.uniform(-4, 0))
    return lr, int(RNG.integers(1, total // 2)), total, lr * float(RNG.uniform(0, 0.5))


# ---- transformers: factors of the base rate, warm-up k / W ---------------------------------------------------


@pytest.mark.parametrize("trial", range(10))
def test_transformers_linear_and_cosine(trial: int) -> None:
    lr, w, n, floor = draw()

    def linear(k: int) -> float:
        return lr * (k / w if k < w else max(0.0, (n - k) / max(1, n - w)))

    def cosine(k: int) -> float:
        p = (k - w) / max(1, n - w)
        return lr * (k / w if k < w else max(0.0, 0.5 * (1 + math.cos(math.pi * p))))

    def min_lr(k: int) -> float:
        r = floor / lr
        p = (k - w) / max(1, n - w)
        return lr * (k / w if k < w else max(0.0, 0.5 * (1 + math.cos(math.pi * p)) * (1 - r) + r))

    same(S.linear(lr, n - w).after_warmup(w, style="hf"), linear, n + 1)
    same(S.cosine(lr, n - w).after_warmup(w, style="hf"), cosine, n + 1)
    same(S.cosine(lr, n - w, floor).after_warmup(w, style="hf"), min_lr, n + 1)


@pytest.mark.parametrize("trial", range(10))
def test_transformers_polynomial_inverse_sqrt_hard_restarts(trial: int) -> None:
    lr, w, n, floor = draw()
    power, cycles = float(RNG.uniform(0.5, 3)), int(RNG.integers(1, 5))
    timescale = int(RNG.integers(w, 3 * w))

    def polynomial(k: int) -> float:
        if k < w:
            return lr * k / w
        return floor if k > n else (lr - floor) * (1 - (k - w) / (n - w)) ** power + floor

    def inverse_sqrt(k: int) -> float:
        return lr * (k / w if k < w else 1 / math.sqrt((k + timescale - w) / timescale))

    def restarts(k: int) -> float:
        p = (k - w) / max(1, n - w)
        if k < w:
            return lr * k / w
        return 0.0 if p >= 1 else lr * max(0.0, 0.5 * (1 + math.cos(math.pi * ((cycles * p) % 1.0))))

    same(S.polynomial(lr, n - w, power, floor).after_warmup(w, style="hf"), polynomial, n + 5)
    same(S.warmup(w, lr, style="hf") >> S.inverse_sqrt(lr, timescale), inverse_sqrt, 3 * n)
    length = 4 * (n - w)  # a multiple, so that the peer's real cycles begin at whole steps
    n = w + length * cycles
    same(S.sgdr(lr, length, cycles=cycles).after_warmup(w, style="hf"), restarts, n + 5, low=1e-11)


@pytest.mark.parametrize("trial", range(10))
@pytest.mark.parametrize("shape", ["linear", "cosine", "1-sqrt"])
def test_transformers_wsd(shape: str, trial: int) -> None:
    lr, w, d, floor = draw()
    stable = int(RNG.integers(0, 100))
    r = floor / lr
    rise = {
        "linear": lambda p: p,
        "cosine": lambda p: 0.5 * (1 - math.cos(math.pi * p)),
        "1-sqrt": lambda p: 1 - math.sqrt(1 - p),
    }
    fall = {
        "linear": lambda p: 1 - p,
        "cosine": lambda p: 0.5 * (1 + math.cos(math.pi * p)),
        "1-sqrt": lambda p: 1 - math.sqrt(p),
    }

    def wsd(k: int) -> float:
        if k < w:
            return lr * (rise[shape](k / w) * (1 - r) + r)
        if k < w + stable:
            return lr
        if k < w + stable + d:
            return lr * (fall[shape]((k - w - stable) / d) * (1 - r) + r)
        return lr * r

    ours = S.wsd(lr, w, d, stable, floor, shape, start=floor, style="hf", warmup_shape=shape)
    same(ours, wsd, w + stable + d + 5)
    open_end = S.wsd(lr, w, d, None, floor, shape, start=floor, style="hf", warmup_shape=shape)
    assert open_end.decay_at(w + stable) == ours


def test_transformers_warmup_rate_of_the_min_lr_cosine() -> None:
    """r + (1 - r) k / (W - 1): the third convention of that module."""
    lr, w, start = 0.3, 7, 0.01
    same(S.warmup(w, lr, start, style="inclusive"), lambda k: start + (lr - start) * min(k / (w - 1), 1), 12)


# ---- timm ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trial", range(10))
@pytest.mark.parametrize("prefix", [False, True])
def test_timm_cosine_with_k_decay(prefix: bool, trial: int) -> None:
    lr, w, n, floor = draw()
    k_decay, start = float(RNG.uniform(0.5, 3)), lr / 100

    def cosine(t: int) -> float:
        if t < w:
            return start + t * (lr - start) / w
        t -= w if prefix else 0
        if t >= n:
            return floor
        return floor + 0.5 * (lr - floor) * (1 + math.cos(math.pi * t**k_decay / n**k_decay))

    style = "hf" if prefix else "timm"
    same(S.cosine(lr, n, floor, k=k_decay).after_warmup(w, start, style), cosine, n + w + 5)


@pytest.mark.parametrize("trial", range(10))
def test_timm_restarts_with_decay_and_limit(trial: int) -> None:
    lr, _, _, floor = draw()
    t_0, mul, limit = int(RNG.integers(2, 30)), int(RNG.integers(1, 4)), int(RNG.integers(1, 6))
    decay = float(RNG.uniform(0.5, 1))

    def cosine(t: int) -> float:
        i, begin, length = 0, 0, t_0
        while t >= begin + length:
            i, begin, length = i + 1, begin + length, length * mul
        peak = lr * decay**i
        return floor if i >= limit else floor + 0.5 * (peak - floor) * (1 + math.cos(math.pi * (t - begin) / length))

    ours = S.sgdr(lr, t_0, mul, floor, decay, cycles=limit)
    if lr * decay ** (limit - 1) >= floor:  # below the floor timm's wave stands on its head
        same(ours, cosine, (ours.total_steps or 0) + 20)


@pytest.mark.parametrize("trial", range(10))
def test_timm_tanh_polynomial_step_multistep(trial: int) -> None:
    lr, _, n, floor = draw()
    low, high = float(RNG.uniform(-9, -3)), float(RNG.uniform(1, 5))
    power, k_decay, gamma = float(RNG.uniform(0.5, 2)), float(RNG.uniform(0.5, 3)), float(RNG.uniform(0.1, 1))
    marks = sorted(int(m) for m in RNG.integers(2, n, 5))

    def tanh(t: int) -> float:
        p = t / n
        return floor + 0.5 * (lr - floor) * (1 - math.tanh(low * (1 - p) + high * p))

    same(S.tanh(lr, n, low, high, floor), tanh, n)
    poly = S.polynomial(lr, n, power, floor, k=k_decay)
    same(poly, lambda t: floor + (lr - floor) * (1 - t**k_decay / n**k_decay) ** power, n)
    same(S.step(lr, 7, gamma), lambda t: lr * gamma ** (t // 7), n)
    # timm's multistep changes one step early: our milestones minus one.
    early = S.multistep(lr, [m - 1 for m in marks], gamma)
    same(early, lambda t: lr * gamma ** sum(m <= t + 1 for m in marks), n)


# ---- keras, optax, fastai, llm.c, pytorch_warmup, torch ------------------------------------------------------


@pytest.mark.parametrize("trial", range(10))
def test_keras_inverse_time_and_restarts(trial: int) -> None:
    lr, w, n, _ = draw()
    rate = float(RNG.uniform(0, 3))
    same(S.inverse_time(lr, rate, w), lambda t: lr / (1 + rate * t / w), n)
    same(S.inverse_time(lr, rate, w, staircase=True), lambda t: lr / (1 + rate * math.floor(t / w)), n)


@pytest.mark.parametrize("trial", range(10))
def test_optax_cosine_exponent_and_join(trial: int) -> None:
    lr, w, n, floor = draw()
    exponent, alpha = float(RNG.uniform(0.5, 3)), floor / lr

    def decay(t: int) -> float:
        return lr * ((1 - alpha) * (0.5 * (1 + math.cos(math.pi * min(t, n) / n))) ** exponent + alpha)

    same(S.cosine(lr, n, floor, exponent=exponent), decay, n + 5, low=1e-10)
    joined = S.linear(0.0, w, lr) >> S.cosine(lr, n, floor, exponent=exponent)
    same(joined, lambda t: lr * t / w if t < w else decay(t - w), n + w, low=1e-10)


@pytest.mark.parametrize("trial", range(10))
def test_fastai_flat_cosine_and_one_cycle(trial: int) -> None:
    """Position k / n; each phase a cosine from one value to the next."""
    lr, _, n, _ = draw()
    pct = float(RNG.uniform(0.1, 0.9))

    def anneal(a: float, b: float, p: float) -> float:
        return a + (1 + math.cos(math.pi * (1 - p))) * (b - a) / 2

    def flat(k: int) -> float:
        p = k / n
        return lr if p < pct else anneal(lr, 0.0, (p - pct) / (1 - pct))

    def cycle(k: int, low: float, high: float, end: float) -> float:
        p = k / n
        return anneal(low, high, p / pct) if p < pct else anneal(high, end, (p - pct) / (1 - pct))

    same(S.flat_cosine(lr, n, pct), flat, n)
    bundle = S.one_cycle(lr, n, pct, 25.0, 1e5 / 25, end="exclusive")
    same(bundle.lr, lambda k: cycle(k, lr / 25, lr, lr / 1e5), n)
    same(bundle.momentum, lambda k: cycle(k, 0.95, 0.85, 0.95), n)


@pytest.mark.parametrize("trial", range(5))
def test_llm_c_and_pytorch_warmup(trial: int) -> None:
    lr, w, n, _ = draw()
    d = int(RNG.integers(2, n // 2))

    def llm_c(k: int) -> float:
        if k < w:
            return lr * (k + 1) / w
        return lr if k < n - d else lr * (1 - math.sqrt((k - (n - d)) / d))

    if n - d > w:
        same(S.wsd(lr, w, d, n - d - w, style="plus1"), llm_c, n)
    beta2 = float(RNG.choice([0.9, 0.95, 0.99, 0.999]))
    linear = S.untuned_warmup(1.0, beta2) >> S.constant(1.0)
    same(linear, lambda k: min(1.0, (k + 1) / round(2 / (1 - beta2))), n)
    same(S.untuned_warmup(1.0, beta2, "exponential"), lambda k: 1 - math.exp(-(k + 1) * (1 - beta2)), n)
    tau = float(RNG.uniform(1, 500))
    same(S.exponential_warmup(lr, tau), lambda k: lr * (1 - math.exp(-(k + 1) / tau)), n)


def test_noam() -> None:
    d, w = 512, 4000
    same(S.noam(d, w), lambda k: d**-0.5 * min((k + 1) ** -0.5, (k + 1) * w**-1.5), 9_000)


@pytest.mark.parametrize("mode", ["cycle", "iterations"])
def test_torch_cyclic_with_a_scale_function(mode: str) -> None:
    import torch

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    table = [1.0, 0.4, 0.7, 0.2] if mode == "cycle" else [1 / (1 + 0.01 * k) for k in range(200)]
    first = 1 if mode == "cycle" else 0  # torch counts cycles from 1
    theirs = torch.optim.lr_scheduler.CyclicLR(
        optimizer, 0.01, 0.3, 6, 9, scale_fn=lambda x: table[min(int(x) - first, len(table) - 1)], scale_mode=mode,
        cycle_momentum=False,
    )  # fmt: skip
    expected = []
    for _ in range(90):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()
    per = "cycle" if mode == "cycle" else "step"
    np.testing.assert_allclose(S.cyclic(0.01, 0.3, 6, table, per, 9).values(90), expected, rtol=1e-12)


def test_batch_scaling_rules() -> None:
    base = S.cosine(0.1, 50)
    assert base.scale_batch(256, 8192) == base * 32.0
    assert base.scale_batch(256, 64, rule="sqrt") == base * 0.5
