"""Reading curves with planted phases: known answers, noise, negative losses, any length, flat curves."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from thalweg.lr_range import RangeTestResult, analyse

Array = NDArray[np.float64]
FLAT_END, MIDDLE, DIVERGENCE = -3.5, -2.2, -0.7  # decades


def planted(
    n: int, noise: float, seed: int, low: float = -7.0, high: float = 1.0, offset: float = 0.0, scale: float = 1.0
) -> tuple[Array, Array]:
    """A logistic descent from 2.3 to 0.5 around 10^-2.2 and an exponential rise from 10^-0.7 on."""
    rng = np.random.default_rng(seed)
    t = np.linspace(low, high, n)
    loss = 2.3 - 1.8 / (1 + np.exp(-(t - MIDDLE) * 4.8 / (MIDDLE - FLAT_END)))
    loss = np.minimum(loss + 0.18 * np.exp((t - DIVERGENCE) * 8), 12.0)
    return 10.0**t, scale * (loss + noise * rng.standard_normal(n)) + offset


def truth() -> dict[str, float]:
    """The same curve without noise on a fine grid, read by the definitions of the marks."""
    lr, loss = planted(200_001, 0.0, 0)
    t = np.log10(lr)
    m = int(loss.argmin())
    drop = 2.3 - loss[m]
    floor = np.flatnonzero(loss < loss[m] + 0.1 * drop)
    minimum = (t[floor[0]] + t[floor[-1]]) / 2
    flat_end = t[np.flatnonzero(loss[:m] > 2.3 - 0.1 * drop)[-1]]
    rise = t[m + np.flatnonzero(loss[m:] > loss[m] + 0.25 * drop)[0]]
    done = (2.3 - loss[: m + 1]) / drop  # rises with t
    late = float(np.interp(np.linspace(0.5, 0.9, 4001), done, t[: m + 1]).mean())
    return {
        "flat_end": flat_end,
        "minimum": minimum,
        "divergence": rise,
        "descent": late,
        "geometric": (flat_end + minimum) / 2,
    }


@pytest.mark.parametrize("n", [50, 100, 200, 300, 1000])
@pytest.mark.parametrize(("offset", "scale"), [(0.0, 1.0), (-4.0, 1.0), (0.0, 1e-3), (1e3, 50.0)])
def test_planted_phases(n: int, offset: float, scale: float) -> None:
    expected = truth()
    found = [analyse(*planted(n, 0.05, seed, offset=offset, scale=scale)) for seed in range(12)]
    for r in found:
        assert r.observed == ("flat", "descent", "divergence")
        assert r.reason == ""
        assert r.advice == () or n == 50
    for rule in ("descent", "geometric"):
        suggestions = np.log10([r.candidates[rule] for r in found])
        assert abs(np.median(suggestions) - expected[rule]) < 0.08
        assert suggestions.std() < 0.08
    assert abs(np.median([math.log10(r.phases["flat"][1]) for r in found]) - expected["flat_end"]) < 0.1
    assert abs(np.median([math.log10(r.phases["descent"][1]) for r in found]) - expected["minimum"]) < 0.1
    assert abs(np.median([math.log10(r.phases["divergence"][0]) for r in found]) - expected["divergence"]) < 0.2


def test_the_length_of_the_ramp_moves_nothing() -> None:
    medians = [
        np.median([math.log10(float(analyse(*planted(n, 0.1, seed)).suggestion or 0)) for seed in range(10)])
        for n in (50, 100, 200, 500, 1000)
    ]
    assert max(medians) - min(medians) < 0.1


@pytest.mark.parametrize("noise", [0.02, 0.1, 0.3])
def test_false_abstentions(noise: float) -> None:
    abstained = [analyse(*planted(n, noise, seed)).suggestion is None for n in (50, 200) for seed in range(30)]
    assert np.mean(abstained) <= 0.02


@pytest.mark.parametrize("n", [50, 100, 200, 500])
@pytest.mark.parametrize("kind", ["gaussian", "heavy", "skewed", "diverging", "negative", "trained"])
def test_flat_curves_get_no_answer(n: int, kind: str) -> None:
    abstained = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        t = np.linspace(-7, 1, n)
        loss = {
            "gaussian": 0.05 + 0.02 * rng.standard_normal(n),
            "heavy": 1 + 0.1 * rng.standard_t(3, n),
            "skewed": 0.05 * np.exp(0.7 * rng.standard_normal(n)),
            "diverging": 0.05 + 0.02 * rng.standard_normal(n) + 0.1 * np.exp((t + 0.7) * 8),
            "negative": -2 + 0.3 * rng.standard_normal(n),
            "trained": 0.01 * rng.exponential(1.0, n),
        }[kind]
        r = analyse(10**t, loss)
        abstained.append(r.suggestion is None)
        assert (r.suggestion is None) == (r.reason != "") == (r.bounds is None)
    assert np.mean(abstained) >= 0.9


def test_a_constant_curve() -> None:
    r = analyse(np.logspace(-5, 0, 40), np.full(40, 0.7))
    assert r.suggestion is None
    assert "only rises" in r.reason or "never falls" in r.reason
    assert r.advice[0].startswith("end higher")
    r = analyse(np.logspace(-5, 0, 40), np.linspace(1, 3, 40))
    assert r.suggestion is None
    assert "only rises" in r.reason
    assert any(text.startswith("start lower") for text in r.advice)


def test_phases_that_were_not_seen_are_named() -> None:
    r = analyse(*planted(200, 0.02, 0, low=-2.4))
    assert r.observed == ("descent", "divergence")
    assert any(text.startswith("start lower") for text in r.advice)
    r = analyse(*planted(200, 0.02, 0, high=-1.6))
    assert r.observed == ("flat", "descent")
    assert any(text.startswith("end higher") for text in r.advice)
    assert r.confidence <= 0.5
    r = analyse(*planted(16, 0.01, 0))
    assert any(text.startswith("more steps") for text in r.advice)
    wide = analyse(*planted(60, 0.6, 1))
    assert wide.suggestion is None or any("more steps" in text for text in wide.advice)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_divergence(bad: float) -> None:
    lr, loss = planted(200, 0.02, 0)
    end = int(np.argmax(lr > 10**-1.2))
    loss[end] = bad
    r = analyse(lr, loss)
    assert len(r.lrs) == len(r.losses) == len(r.smoothed) == end
    assert "not finite at lr" in r.stopped
    assert r.observed == ("flat", "descent", "divergence")
    assert r.suggestion is not None
    json.dumps(r.to_dict(), allow_nan=False)


def test_candidates_bounds_interval_and_confidence() -> None:
    r = analyse(*planted(300, 0.05, 3))
    assert r.suggestion is not None
    assert r.bounds is not None
    assert r.interval is not None
    assert r.candidates["descent"] == r.suggestion
    assert r.candidates["geometric"] == pytest.approx(math.sqrt(r.phases["flat"][1] * r.phases["descent"][1]))
    assert r.candidates["min/3"] == pytest.approx(r.phases["descent"][1] / 3)
    assert r.candidates["min/10"] == pytest.approx(r.phases["descent"][1] / 10)
    assert abs(math.log10(r.candidates["steepest"]) - MIDDLE) < 0.15
    assert abs(math.log10(r.candidates["half_drop"]) - MIDDLE) < 0.1
    assert r.bounds[0] == r.phases["flat"][1] < r.suggestion < r.bounds[1] < r.phases["divergence"][0]
    assert r.interval[0] <= r.suggestion <= r.interval[1]
    assert r.confidence == pytest.approx(1.0)
    noisy = analyse(*planted(60, 0.3, 3))
    assert noisy.decades > r.decades
    assert noisy.confidence < 1.0


def test_the_interval_covers_the_spread() -> None:
    inside = []
    centre = np.median([math.log(float(analyse(*planted(200, 0.1, seed)).suggestion or 1)) for seed in range(200, 230)])
    for seed in range(30):
        r = analyse(*planted(200, 0.1, seed))
        assert r.interval is not None
        inside.append(math.log(r.interval[0]) <= centre <= math.log(r.interval[1]))
    assert np.mean(inside) >= 0.6


def test_smoothing_does_not_shift() -> None:
    lr = np.logspace(-6, 0, 400)
    step = np.where(np.log10(lr) < -3, 2.0, 1.0)
    r = analyse(lr, step)
    half = np.interp(-1.5, -r.smoothed, np.log10(r.lrs))
    assert abs(half + 3) < 0.02
    assert r.smoothed[0] == pytest.approx(2.0)
    assert r.smoothed[-1] == pytest.approx(1.0)


def test_same_curve_same_answer_and_scale_free() -> None:
    lr, loss = planted(200, 0.1, 5)
    a, b = analyse(lr, loss), analyse(lr, loss)
    assert a.to_dict() == b.to_dict()
    assert a.interval == b.interval
    c = analyse(lr * 1000, loss)
    assert c.suggestion == pytest.approx(1000 * float(a.suggestion or 0), rel=1e-9)


def test_linear_ramp() -> None:
    t = np.linspace(1e-5, 0.5, 400)
    loss = 2.3 - 1.8 / (1 + (0.02 / t) ** 2) + np.exp((t - 0.35) * 40)
    r = analyse(t, loss + 0.02 * np.random.default_rng(0).standard_normal(400))
    assert r.suggestion is not None
    assert 5e-3 < r.suggestion < 0.25
    assert "divergence" in r.observed


def test_round_trip_and_texts() -> None:
    r = analyse(*planted(120, 0.1, 2))
    again = RangeTestResult.from_dict(json.loads(json.dumps(r.to_dict())))
    assert again.to_dict() == r.to_dict()
    assert again.bounds == r.bounds
    assert isinstance(again.lrs, np.ndarray)
    text = str(r)
    for part in ("suggested lr", "flat", "descent", "divergence", "cyclical between"):
        assert part in text
    drawing = r.ascii(width=50, height=8)
    assert len(drawing.splitlines()) == 10
    assert all(mark in drawing for mark in "*|[]")
    assert max(map(len, drawing.splitlines())) <= 61
    shades = r.ascii(width=120).splitlines()[-2][11:]
    x = np.linspace(math.log10(r.lrs[0]), math.log10(r.lrs[-1]), 120)
    for name, shade in (("flat", "-"), ("descent", "\\"), ("divergence", "/")):
        assert f"{shade}{name}{shade}" in shades
        columns = [i for i, character in enumerate(shades) if character == shade]
        assert x[columns[0]] == pytest.approx(math.log10(r.phases[name][0]), abs=0.1)
        assert x[columns[-1]] == pytest.approx(math.log10(r.phases[name][1]), abs=0.1)
    flat = analyse(np.logspace(-5, 0, 40), np.full(40, 0.7))
    assert "no suggestion" in str(flat)
    assert "|" not in flat.ascii()
    with pytest.raises(ValueError, match="width must be an integer >= 20"):
        r.ascii(width=3)
    with pytest.raises(ValueError, match="must have the entries"):
        RangeTestResult.from_dict({"lrs": []})


@pytest.mark.parametrize(
    ("lrs", "losses", "text"),
    [
        ([1e-3] * 20, [1.0] * 20, "positive, finite and rising"),
        (np.linspace(-1, 1, 20), np.ones(20), "positive, finite and rising"),
        (np.logspace(-3, 0, 20), np.ones(19), "two lists of one length"),
        (np.ones((20, 2)), np.ones((20, 2)), "two lists of one length"),
        (np.logspace(-3, 0, 9), np.ones(9), "at least 10 finite losses are needed, got 9"),
        (np.logspace(-3, 0, 20), np.r_[math.nan, np.ones(19)], "at least 10 finite losses are needed, got 0"),
    ],
)
def test_bad_input(lrs: Any, losses: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        analyse(lrs, losses)
