"""Laws that every composed schedule obeys, on random expressions."""

from __future__ import annotations

import json
import pickle
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg import _core, schedules
from thalweg.schedules import Schedule, from_dict

RATES = st.one_of(st.just(0.0), st.floats(1e-9, 10.0))
LENGTHS = st.one_of(st.integers(1, 40), st.integers(1, 10**12))
SHORT = st.integers(1, 60)


LEAVES = ["constant", "linear", "cosine", "polynomial", "warmup", "step", "snapshot", "sgdr", "cycle", "table"]
ENDS = st.sampled_from(["exclusive", "inclusive"])
MORE = [
    "rex", "tanh", "cooldown", "k-decay", "flat", "inverse_sqrt", "restarts", "wsd", "piecewise", "cyclic", "noise", "approach",
]  # fmt: skip


@st.composite
def further(draw: st.DrawFn, kind: str, low: float, high: float, n: int) -> Schedule:
    """The other kinds of leaves."""
    if kind == "rex":
        return schedules.rex(high, n, low, draw(ENDS))
    if kind == "tanh":
        return schedules.tanh(high, n, draw(st.floats(-9, 0)), draw(st.floats(0.1, 9)), low)
    if kind == "cooldown":
        return schedules.cooldown(high, n, low, draw(st.sampled_from(["1-sqrt", "1-square"])), draw(ENDS))
    if kind == "k-decay":
        return schedules.cosine(high, n, low, draw(ENDS), draw(st.floats(0.2, 3)), draw(st.floats(0.2, 3)))
    if kind == "flat":
        return schedules.flat_cosine(high, n, draw(st.floats(0, 1)), low)
    if kind == "inverse_sqrt":
        return schedules.inverse_sqrt(high, draw(SHORT), total_steps=n)
    if kind == "restarts":
        t_0, ratio = draw(st.integers(2, 60)), draw(st.sampled_from([0.5, 0.7, 1, 1.3, 2, 2.5]))
        warm = draw(st.integers(0, t_0 - 1))
        return schedules.sgdr(high, t_0, ratio, low, cycles=draw(st.integers(1, 6)), warmup_steps=warm)
    if kind == "wsd":
        shape = draw(st.sampled_from(["linear", "cosine", "1-sqrt", "1-square"]))
        return schedules.wsd(high, draw(st.integers(0, 9)), draw(st.integers(0, 9)), n, low, shape, low)
    if kind == "piecewise":
        steps = sorted(draw(st.sets(st.integers(0, 90), min_size=2, max_size=5)))[-4:]
        values = draw(st.lists(RATES, min_size=len(steps), max_size=len(steps)))
        return draw(st.sampled_from([schedules.piecewise_linear, schedules.piecewise_cosine]))(steps, values)
    if kind == "cyclic":
        per = draw(st.sampled_from(["cycle", "position", "step"]))
        return schedules.cyclic(low, high, draw(SHORT), [1.0, 0.5, 0.25], per, total_steps=n)
    if kind == "noise":
        return schedules.noise(draw(st.floats(0.01, 1)), draw(st.integers(0, 2**62)), total_steps=n)
    return schedules.exponential_warmup(high, draw(st.floats(0.5, 99)), low, total_steps=n)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[float, float]:
    """(lower, upper)."""
    a, b = draw(RATES), draw(RATES)
    return min(a, b), max(a, b)


@st.composite
def finite(draw: st.DrawFn, lengths: Any = SHORT) -> Schedule:
    """A leaf with an end."""
    low, high = draw(pairs())
    n = draw(lengths)
    kind = draw(st.sampled_from(LEAVES + MORE))
    if kind in MORE:
        return draw(further(kind, low, high, n))
    if kind == "constant":
        return schedules.constant(high, n)
    if kind == "linear":
        return schedules.linear(high, n, low)
    if kind == "cosine":
        return schedules.cosine(high, n, low, draw(st.sampled_from(["exclusive", "inclusive"])))
    if kind == "polynomial":
        return schedules.polynomial(high, n, draw(st.floats(0.1, 5)), low)
    if kind == "warmup":
        return schedules.warmup(n, high, low, draw(st.sampled_from(["default", "hf", "plus1"])))
    if kind == "step":
        return schedules.step(high, draw(SHORT), draw(st.floats(0, 1)), total_steps=n)
    if kind == "snapshot":
        cycles, split = draw(st.integers(1, min(n, 9))), draw(st.sampled_from(["ceil", "even"]))
        return schedules.snapshot_cosine(high, n, cycles, split, low)
    if kind == "sgdr":
        return schedules.sgdr(high, draw(SHORT), draw(st.integers(1, 3)), low, total_steps=n)
    if kind == "cycle":
        return schedules.triangular2(low, high, draw(SHORT), draw(SHORT), total_steps=n)
    return schedules.table(draw(st.lists(RATES, min_size=1, max_size=8)))


def composed(leaves: st.SearchStrategy[Schedule], style: str = "default") -> st.SearchStrategy[Schedule]:
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.builds(lambda a, b: a >> b, inner, inner),
            st.builds(lambda a, b: a * b, inner, inner),
            st.builds(lambda a, x: a * x, inner, st.floats(0, 3)),
            st.builds(lambda a, n: a.repeat(n) if a.total_steps else a, inner, st.integers(1, 4)),
            st.builds(lambda a, p: a.clip(*p), inner, pairs()),
            st.builds(lambda a, n: a.delay(n), inner, st.integers(0, 9)),
            st.builds(lambda a, b: a + b, inner, inner),
            st.builds(schedules.minimum, inner, inner),
            st.builds(schedules.maximum, inner, inner),
            st.builds(lambda a, n: a.every(n), inner, st.integers(1, 4)),
            st.builds(lambda a, n: a.advance(n) if a.total_steps > n else a, inner, st.integers(0, 9)),
            st.builds(lambda a, n: a.after_warmup(n, style=style), inner, st.integers(0, 9)),
        ),
        max_leaves=6,
    )


FINITE = composed(finite())
STEPS = st.one_of(st.integers(0, 300), st.integers(0, 10**13))


@given(FINITE, st.integers(0, 500), st.integers(0, 80))
@settings(deadline=None, max_examples=200)
def test_values_are_the_calls(schedule: Schedule, start: int, n: int) -> None:
    np.testing.assert_array_equal(schedule.values(n, start), [schedule(start + k) for k in range(n)])


@given(finite(LENGTHS), STEPS)
@settings(deadline=None, max_examples=200)
def test_far_values_are_the_calls(schedule: Schedule, start: int) -> None:
    np.testing.assert_array_equal(schedule.values(20, start), [schedule(start + k) for k in range(20)])


@given(FINITE, FINITE, STEPS)
@settings(deadline=None, max_examples=200)
def test_then(a: Schedule, b: Schedule, k: int) -> None:
    both, n = a >> b, a.total_steps
    assert n is not None
    assert both.total_steps == n + (b.total_steps or 0)
    assert both(n + k) == b(k)
    if k < n:
        assert both(k) == a(k)


@given(FINITE, FINITE, FINITE)
@settings(deadline=None, max_examples=50)
def test_then_and_times_are_associative(a: Schedule, b: Schedule, c: Schedule) -> None:
    assert (a >> b) >> c == a >> (b >> c)
    assert (a * b) * c == a * (b * c)


@given(FINITE, FINITE, STEPS, st.floats(0, 10))
@settings(deadline=None, max_examples=100)
def test_times(a: Schedule, b: Schedule, k: int, factor: float) -> None:
    assert (a * b)(k) == (b * a)(k) or abs((a * b)(k) / (b * a)(k) - 1) < 1e-14
    assert (a * factor) == (factor * a)
    if a._kind != "product":
        assert (a * factor)(k) == a(k) * factor


@given(FINITE, pairs(), STEPS)
@settings(deadline=None, max_examples=100)
def test_clip(a: Schedule, limits: tuple[float, float], k: int) -> None:
    assert a.clip(*limits)(k) == min(max(a(k), limits[0]), limits[1])


@given(FINITE, st.integers(1, 5), STEPS)
@settings(deadline=None, max_examples=100)
def test_repeat(a: Schedule, count: int, k: int) -> None:
    n = a.total_steps
    assert n
    assert a.repeat()(k) == a(k % n)
    assert a.repeat(count)(k) == (a(k % n) if k < n * count else a(n))
    assert a.repeat(count).total_steps == n * count


@given(FINITE, st.integers(0, 40), STEPS)
@settings(deadline=None, max_examples=100)
def test_delay(a: Schedule, n: int, k: int) -> None:
    assert a.delay(n)(n + k) == a(k)
    assert a.delay(n)(min(n, k)) == a(0)


@given(FINITE)
@settings(deadline=None, max_examples=100)
def test_round_trips(schedule: Schedule) -> None:
    assert from_dict(schedule.to_dict()) == schedule
    assert from_dict(json.loads(json.dumps(schedule.to_dict()))) == schedule
    assert pickle.loads(pickle.dumps(schedule)) == schedule
    data = schedule.plan.to_bytes()
    assert from_dict(schedule.to_dict()).plan.to_bytes() == data
    np.testing.assert_array_equal(_core.Plan(data).values(0, 50), schedule.values(50))


@given(finite(LENGTHS), STEPS)
@settings(deadline=None, max_examples=300)
def test_leaves_stay_within_their_rates(schedule: Schedule, k: int) -> None:
    arguments = dict(schedule._arguments)
    names = ("lr", "eta_min", "end_lr", "start", "base_lr", "max_lr")
    rates = [arguments[name] for name in names if arguments.get(name) is not None]
    if schedule._kind == "table":
        rates = list(schedule._arguments[0][1])
    if schedule._kind.startswith("piecewise"):
        rates = arguments["values"]
    if schedule._kind == "noise":
        rates = [1 - arguments["amplitude"], 1 + arguments["amplitude"]]
    low = 0.0 if schedule._kind in ("step", "inverse_sqrt") else min(rates)
    low, high = (low, max(rates)) if schedule._kind != "constant" else (rates[0], rates[0])
    slack = 1e-15 * high if schedule._kind in ("noise", "cyclic") else 0.0  # 1 + x and base + height round
    assert low - slack <= schedule(k) <= high + slack


@given(FINITE, FINITE, STEPS)
@settings(deadline=None, max_examples=100)
def test_plus_minimum_maximum(a: Schedule, b: Schedule, k: int) -> None:
    assert schedules.minimum(a, b)(k) == min(a(k), b(k))
    assert schedules.maximum(a, b)(k) == max(a(k), b(k))
    if a._kind != "add" and b._kind != "add":
        assert (a + b)(k) == a(k) + b(k)


@given(FINITE, st.integers(1, 7), STEPS)
@settings(deadline=None, max_examples=100)
def test_every_and_advance(a: Schedule, n: int, k: int) -> None:
    assert a.every(n)(k) == a(k // n)
    assert a.advance(n)(k) == a(k + n)
    assert a.every(n).total_steps == n * (a.total_steps or 0)


@given(FINITE)
@settings(deadline=None, max_examples=150)
def test_cycles(schedule: Schedule) -> None:
    n = min(schedule.total_steps or 0, 400) + 5
    assert schedule.cycle_ends(n) == [k for k in range(n) if schedule.is_cycle_end(k)]
    cycles = [schedule.cycle(k) for k in range(n)]
    numbers = [c for c in cycles if c is not None]
    assert numbers == sorted(numbers)
    changes = {k for k in range(1, n) if cycles[k] is not None and cycles[k] != cycles[k - 1]}
    assert changes <= set(schedule.boundaries(n))


@given(FINITE)
@settings(deadline=None, max_examples=100)
def test_stretch_by_one_changes_nothing(schedule: Schedule) -> None:
    if "table" not in repr(schedule) and "noise" not in repr(schedule):
        assert schedule.stretch(1) == schedule


@st.composite
def scalable(draw: st.DrawFn) -> Schedule:
    """Leaves whose doubled lengths give the same curve at doubled steps, to the bit."""
    low, high = draw(pairs())
    n = draw(SHORT)
    return draw(
        st.sampled_from(
            [
                schedules.linear(high, n, low),
                schedules.cosine(high, n, low),
                schedules.polynomial(high, n, 1.5, low),
                schedules.warmup(n, high, low, "hf"),
                schedules.rex(high, n, low),
                schedules.cooldown(high, n, low),
                schedules.cosine(high, n, low, k=2.5),
                schedules.piecewise_cosine([0, n, n + 4], [low, high, low]),
                schedules.inverse_time(high, 0.3, n, total_steps=3 * n),
                schedules.cyclic(low, high, n, [1.0, 0.5], total_steps=5 * n),
                schedules.linear(high, n, low).every(3),
                schedules.sgdr(high, n + 3, 2, low, total_steps=5 * n).advance(n),
                schedules.step(high, n, 0.5, total_steps=3 * n),
                schedules.sgdr(high, n, 2, low, total_steps=5 * n),
                schedules.multistep(high, [n, n + 3], 0.5, total_steps=2 * n),
            ]
        )
    )


# Warm-ups from k/W: the default, (k+1)/(W+1), counts a step before the first and is another ramp at twice the length.
@given(composed(scalable(), style="hf"), st.integers(0, 300))
@settings(deadline=None, max_examples=150)
def test_stretch_by_two(schedule: Schedule, k: int) -> None:
    total = schedule.total_steps
    assert total is not None
    assert schedule.stretch(2).total_steps == 2 * total
    assert schedule.stretch(2)(2 * k) == schedule(k)
