"""The Schedule value: calls, arrays, composition, cycles, value semantics, degenerate sizes."""

from __future__ import annotations

import copy
import json
import pickle

import numpy as np
import pytest

from thalweg import schedules
from thalweg.schedules import Schedule, from_dict
from thalweg.schedules._plan import NODES, Tree
from thalweg.schedules._registry import COMBINATIONS, COMPOSITIONS


def catalogue() -> dict[str, Schedule]:
    """One of each kind, composed ones too."""
    cosine = schedules.cosine(0.1, 90, 1e-5)
    return {
        "constant": schedules.constant(0.1),
        "constant_t": schedules.constant(0.1, 7),
        "linear": schedules.linear(0.1, 60, 0.3),
        "step": schedules.step(0.1, 10, 0.5),
        "step_t": schedules.step(0.1, 10, 0.5, total_steps=35),
        "multistep": schedules.multistep(0.1, [3, 3, 40], 0.5),
        "exponential": schedules.exponential(0.1, 0.99),
        "polynomial": schedules.polynomial(0.1, 60, 2.5, 1e-3),
        "cosine": cosine,
        "cosine_inclusive": schedules.cosine(0.1, 90, end="inclusive"),
        "geometric": schedules.geometric(1e-6, 1.0, 50),
        "table": schedules.table([0.3, 0.1, 0.2]),
        "sgdr": schedules.sgdr(0.1, 10, 2, 1e-3, 0.9),
        "sgdr_t": schedules.sgdr(0.1, 10, 2, 1e-3, total_steps=45),
        "snapshot_ceil": schedules.snapshot_cosine(0.1, 100, 7),
        "snapshot_even": schedules.snapshot_cosine(0.1, 100, 7, "even", 1e-3),
        "triangular": schedules.triangular(0.01, 0.1, 8, 5),
        "triangular2": schedules.triangular2(0.01, 0.1, 8),
        "exp_range": schedules.exp_range(0.01, 0.1, 8, 0.99, total_steps=80),
        "one_cycle": schedules.one_cycle(0.1, 100).lr,
        "one_cycle_momentum": schedules.one_cycle(0.1, 100, three_phase=True, anneal="linear").momentum,
        "warmup": schedules.warmup(5, 0.1, 0.01),
        "warmup_cosine": schedules.warmup(5, 0.1, 0.01, "plus1", "cosine"),
        "warmup_sqrt": schedules.warmup(9, 0.1, 0.01, "hf", "1-sqrt"),
        "exponential_warmup": schedules.exponential_warmup(0.1, 7.5, 0.01),
        "untuned_warmup": schedules.untuned_warmup(0.1, 0.95),
        "untuned_warmup_exponential": schedules.untuned_warmup(0.1, 0.95, "exponential"),
        "linear_inclusive": schedules.linear(0.1, 60, 0.3, "inclusive"),
        "polynomial_inclusive": schedules.polynomial(0.1, 60, 2.5, 1e-3, "inclusive"),
        "polynomial_k": schedules.polynomial(0.1, 60, 1.5, 1e-3, k=2.5),
        "cosine_power": schedules.cosine(0.1, 90, 1e-3, exponent=1.5),
        "cosine_k": schedules.cosine(0.1, 90, 1e-3, "inclusive", k=3.0),
        "rex": schedules.rex(0.1, 70, 1e-3),
        "tanh": schedules.tanh(0.1, 70, eta_min=1e-3),
        "flat_cosine": schedules.flat_cosine(0.1, 70, 0.72, 1e-3),
        "inverse_time": schedules.inverse_time(0.1, 0.3, 20),
        "inverse_time_staircase": schedules.inverse_time(0.1, 0.3, 20, staircase=True, total_steps=90),
        "inverse_sqrt": schedules.inverse_sqrt(0.1, 30),
        "noam": schedules.noam(64, 12),
        "piecewise_constant": schedules.piecewise_constant([4, 20], [0.1, 0.3, 0.2]),
        "piecewise_linear": schedules.piecewise_linear([3, 20, 31], [0.1, 0.3, 0.2]),
        "piecewise_cosine": schedules.piecewise_cosine([0, 20, 31], [0.1, 0.3, 0.2]),
        "cyclic": schedules.cyclic(0.01, 0.1, 8, [1.0, 0.5, 0.25]),
        "cyclic_position": schedules.cyclic(0.01, 0.1, 8, schedules.linear(1.0, 9, 0.5), "position"),
        "cyclic_step": schedules.cyclic(0.01, 0.1, 8, schedules.cosine(1.0, 80), "step", 5, total_steps=80),
        "noise": schedules.noise(0.3, 7),
        "noise_uniform": schedules.noise(0.3, 7, "uniform", total_steps=50),
        "cooldown": schedules.cooldown(0.1, 40, 0.01),
        "cooldown_square": schedules.cooldown(0.1, 40, 0.01, "1-square", "inclusive"),
        "cooldown_exponential": schedules.cooldown(0.1, 40, 0.01, "exponential"),
        "wsd": schedules.wsd(0.1, 10, 30, 40, 1e-3),
        "wsd_open": schedules.wsd(0.1, 10, 30, shape="cosine"),
        "sgdr_warm": schedules.sgdr(0.1, 10, 2, 1e-3, warmup_steps=4, warmup_start=0.0),
        "sgdr_growing": schedules.sgdr(0.1, 10, 1.3, 1e-3, 0.9, warmup_steps=3),
        "sgdr_shrinking": schedules.sgdr(0.1, 40, 0.6, 1e-3, cycles=6),
        "sgdr_shrinking_t": schedules.sgdr(0.1, 40, 0.6, 1e-3, total_steps=70),
        "sgdr_cycles": schedules.sgdr(0.1, 10, 2, cycles=3),
        "add": cosine + schedules.warmup(9, 1.0) + 0.5,
        "minimum": schedules.minimum(cosine, schedules.linear(0.2, 120), 0.08),
        "maximum": schedules.maximum(schedules.sgdr(0.1, 10), 0.03),
        "every": schedules.sgdr(0.1, 3, 2).every(7),
        "advance": schedules.sgdr(0.1, 10, 2).advance(13),
        "after_warmup": cosine.after_warmup(8, style="timm", shape="cosine"),
        "sequence": schedules.warmup(5, 0.1) >> cosine,
        "endless_sequence": schedules.warmup(5, 0.1) >> schedules.sgdr(0.1, 10, 3),
        "product": cosine * schedules.warmup(9, 1.0) * 0.5,
        "repeat": (schedules.warmup(5, 0.1) >> cosine).repeat(3),
        "repeat_cycles": (schedules.warmup(5, 0.1) >> schedules.sgdr(0.1, 10, total_steps=20)).repeat(),
        "clip": schedules.sgdr(0.1, 10).clip(0.02, 0.07),
        "clip_low": cosine.clip(lo=0.02),
        "delay": cosine.delay(11),
        "nested": ((cosine * 2.0).clip(hi=0.15) >> (schedules.linear(0.1, 5) * cosine).repeat(2)) * 0.1,
    }


CATALOGUE = catalogue()
each = pytest.mark.parametrize("schedule", CATALOGUE.values(), ids=CATALOGUE.keys())


@each
def test_values_are_the_calls(schedule: Schedule, isa: str) -> None:
    """To the bit, on every instruction set, from any start."""
    for start, n in ((0, 400), (37, 133), (10**9, 70), (2**53 - 20, 40)):
        values = schedule.values(n, start=start)
        assert values.dtype == np.float64
        np.testing.assert_array_equal(values, [schedule(start + k) for k in range(n)])


@each
def test_value_semantics(schedule: Schedule) -> None:
    assert catalogue()[next(k for k, v in CATALOGUE.items() if v is schedule)] == schedule
    assert from_dict(schedule.to_dict()) == schedule
    assert from_dict(json.loads(json.dumps(schedule.to_dict()))) == schedule
    assert pickle.loads(pickle.dumps(schedule)) == schedule
    assert hash(pickle.loads(pickle.dumps(schedule))) == hash(schedule)
    assert copy.deepcopy(schedule) is schedule
    assert copy.copy(schedule) is schedule
    assert schedule != schedule * 2.0
    assert schedule != 3
    assert {schedule: 1}[from_dict(schedule.to_dict())] == 1


@each
def test_held_after_the_end(schedule: Schedule) -> None:
    total = schedule.total_steps
    if total is None:
        with pytest.raises(ValueError, match="must be given"):
            schedule.values()
        return
    assert len(schedule.values()) == total
    np.testing.assert_array_equal(schedule.values(300, start=total), schedule(total))
    assert schedule(10**15) == schedule(total)


def test_catalogue_is_complete() -> None:
    kinds = {s._kind for s in CATALOGUE.values()}
    made = {"stretch", "delay", "after_warmup"}  # that give kinds of others
    assert {*schedules.CONSTRUCTORS, *COMBINATIONS, *COMPOSITIONS, "one_cycle"} - made <= kinds


def nodes_of(tree: Tree) -> set[str]:
    return {tree.kind}.union(*(nodes_of(child) for child in tree.children))


def test_catalogue_has_every_node_of_the_core() -> None:
    assert set().union(*(nodes_of(s._tree) for s in CATALOGUE.values())) == set(NODES)


def test_immutable() -> None:
    schedule = schedules.constant(0.1)
    with pytest.raises(AttributeError, match="immutable"):
        schedule.total_steps = 3  # type: ignore[misc]
    with pytest.raises(AttributeError, match="immutable"):
        del schedule._kind


def test_values_edges() -> None:
    schedule = schedules.cosine(0.1, 10)
    assert schedule.values(0).shape == (0,)
    assert schedule.values(start=25).shape == (0,)
    assert schedule.values(start=4).shape == (6,)
    assert schedule(np.int64(3)) == schedule(3)
    assert isinstance(schedule(np.int32(3)), float)


# ---- composition -------------------------------------------------------------------------------------------


def test_pieces_have_their_own_clock() -> None:
    a, b = schedules.linear(0.2, 4), schedules.step(1.0, 2, 0.5)
    np.testing.assert_array_equal((a >> b).values(12), [*a.values(4), *b.values(8)])
    assert (a >> a >> b) == (a >> (a >> b))


def test_empty_pieces_fall_out() -> None:
    cosine = schedules.cosine(0.1, 10)
    none = schedules.warmup(0, 0.5)
    assert none >> cosine == cosine
    assert cosine >> none == cosine
    assert none(0) == 0.5
    assert (none >> none).total_steps == 0


def test_product_and_numbers() -> None:
    cosine, linear = schedules.cosine(0.1, 10), schedules.linear(1.0, 30)
    assert (cosine * linear).total_steps == 30
    np.testing.assert_array_equal((cosine * linear).values(40), cosine.values(40) * linear.values(40))
    assert 2 * cosine == cosine * 2.0 == np.float64(2.0) * cosine == cosine * np.float32(2.0)
    assert (cosine * 2).total_steps == 10
    assert (cosine * schedules.sgdr(1.0, 5)).total_steps is None


def test_delay_stretch_clip() -> None:
    cosine = schedules.cosine(0.1, 10)
    np.testing.assert_array_equal(cosine.delay(4).values(), [*[0.1] * 4, *cosine.values()])
    assert cosine.delay(0) is cosine
    assert cosine.stretch(2.5) == schedules.cosine(0.1, 25)
    both = schedules.warmup(4, 0.1) >> schedules.sgdr(0.1, 10, 2)
    assert both.stretch(1.5) == schedules.warmup(6, 0.1) >> schedules.sgdr(0.1, 15, 2)
    assert schedules.multistep(0.1, [3, 9]).stretch(2) == schedules.multistep(0.1, [6, 18])
    assert schedules.constant(0.1, 3).stretch(0.01).total_steps == 1
    assert schedules.exponential(0.1, 0.25).stretch(2)(10) == pytest.approx(schedules.exponential(0.1, 0.25)(5))
    np.testing.assert_array_equal(cosine.clip(0.02, 0.08).values(), np.clip(cosine.values(), 0.02, 0.08))
    np.testing.assert_array_equal(cosine.clip(hi=0.08).values(), np.minimum(cosine.values(), 0.08))


def test_repeat() -> None:
    linear = schedules.linear(0.3, 3)
    np.testing.assert_array_equal(linear.repeat(3).values(12), [*np.tile(linear.values(), 3), 0, 0, 0])
    np.testing.assert_array_equal(linear.repeat().values(3, start=3 * 10**12), linear.values())


# ---- cycles ------------------------------------------------------------------------------------------------


@each
def test_cycle_ends_and_boundaries_agree_with_single_questions(schedule: Schedule) -> None:
    n = 260
    cycles = [schedule.cycle(k) for k in range(n)]
    ends = [k for k in range(n) if schedule.is_cycle_end(k)]
    assert schedule.cycle_ends(n) == ends
    starts = [k for k in range(1, n) if cycles[k] is not None and cycles[k] != cycles[k - 1]]
    assert set(starts) <= set(schedule.boundaries(n))
    assert schedule.boundaries(n) == sorted(set(schedule.boundaries(n)))
    numbers = [c for c in cycles if c is not None]
    assert numbers == sorted(numbers)
    assert set(numbers) == set(range(len(set(numbers))))


def test_what_a_cycle_is() -> None:
    assert schedules.cosine(0.1, 10).cycle_ends() == []
    assert schedules.cosine(0.1, 10).repeat(2).cycle_ends() == [9, 19]
    assert schedules.sgdr(0.1, 1_000).is_cycle_end(999)
    assert not schedules.sgdr(0.1, 1_000).is_cycle_end(1_000)
    warm = schedules.warmup(5, 0.1) >> schedules.sgdr(0.1, 10, 2)
    assert warm.cycle_ends(80) == [14, 34, 74]
    assert [warm.cycle(k) for k in (0, 4, 5, 14, 15)] == [None, None, 0, 0, 1]
    assert warm.boundaries(80) == [5, 15, 35, 75]
    assert schedules.snapshot_cosine(0.1, 10, 4).cycle_ends() == [2, 5, 8, 9]
    assert schedules.snapshot_cosine(0.1, 10, 4, "even").cycle_ends() == [1, 4, 6, 9]
    assert (schedules.linear(1.0, 40) * schedules.sgdr(0.1, 10)).cycle_ends(40) == [9, 19, 29, 39]


def test_cycles_of_earlier_pieces_and_repetitions_are_counted() -> None:
    twice = schedules.sgdr(0.1, 10, total_steps=20) >> schedules.triangular(0.1, 0.2, 3)
    assert [twice.cycle(k) for k in (0, 10, 20, 26)] == [0, 1, 2, 3]
    tail = (schedules.sgdr(0.1, 10, total_steps=20) * schedules.constant(1.0, 30)) >> schedules.sgdr(0.1, 10)
    assert [tail.cycle(k) for k in (19, 25, 30, 40)] == [1, None, 2, 3]
    again = (schedules.warmup(5, 0.1) >> schedules.sgdr(0.1, 10, total_steps=20)).repeat(2)
    assert again.cycle_ends() == [14, 24, 39, 49]
    assert [again.cycle(k) for k in (3, 5, 24, 26, 30, 49)] == [None, 0, 1, None, 2, 3]


# ---- degenerate sizes have defined values ------------------------------------------------------------------


def test_one_step() -> None:
    assert schedules.cosine(0.1, 1).values(2).tolist() == [0.1, 0.0]
    assert schedules.cosine(0.1, 1, end="inclusive").values(2).tolist() == [0.0, 0.0]
    assert schedules.linear(0.1, 1, 0.2).values(2).tolist() == [0.1, 0.2]
    assert schedules.polynomial(0.1, 1).values(2).tolist() == [0.1, 0.0]
    assert schedules.sgdr(0.1, 1).values(3).tolist() == [0.1] * 3
    assert schedules.snapshot_cosine(0.1, 3, 3).values(5).tolist() == [0.1, 0.1, 0.1, 0.0, 0.0]
    assert schedules.triangular(0.1, 0.2, 1).values(3).tolist() == [0.1, 0.2, 0.1]
    assert schedules.warmup(1, 0.1, style="plus1").values(2).tolist() == [0.1, 0.1]


@pytest.mark.parametrize("total", [1, 2, 3, 5])
@pytest.mark.parametrize("pct", [0.0, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("three_phase", [False, True])
def test_one_cycle_degenerate(total: int, pct: float, three_phase: bool) -> None:
    if three_phase and pct > 0.5:
        with pytest.raises(ValueError, match="pct_start"):
            schedules.one_cycle(0.1, total, pct, three_phase=True)
        return
    bundle = schedules.one_cycle(0.1, total, pct, three_phase=three_phase)
    lr, momentum = bundle.lr.values(total + 3), bundle.momentum.values(total + 3)
    assert np.all((lr > 0) & (lr <= 0.1))
    assert np.all((momentum >= 0.85) & (momentum <= 0.95))
    assert np.all(lr[total - 1 :] == lr[total - 1])
    if pct == 0.0 and total > 1 and not three_phase:
        assert lr[0] == 0.1  # no room to rise: begin at the peak
    if pct == 1.0 and total > 1:
        assert lr[total - 1] == 0.1  # no room to fall


def test_ends_are_met_exactly() -> None:
    for n in (2, 3, 7, 200, 9973):
        values = schedules.geometric(1e-7, 10.0, n).values(n + 1)
        assert values[0] == 1e-7
        assert values[n - 1] == values[n] == 10.0
        assert np.all(np.diff(values[:n]) > 0)
    assert schedules.one_cycle(0.1, 10).lr(2) == 0.1
    assert schedules.linear(0.1, 7, 0.3)(7) == 0.3


def test_a_run_that_goes_too_far_does_not_restart() -> None:
    for schedule in (
        schedules.sgdr(0.1, 10, 2, 1e-4, total_steps=30),
        schedules.snapshot_cosine(0.1, 30, 3, eta_min=1e-4),
        schedules.snapshot_cosine(0.1, 31, 3, "even", 1e-4),
    ):
        end = schedule.total_steps
        assert end is not None
        assert schedule(end) == 1e-4 < schedule(end - 1) < 0.01
    cut = schedules.sgdr(0.1, 10, total_steps=25)
    assert cut(25) == cut(10**9) == schedules.sgdr(0.1, 10)(25)
    cut = schedules.snapshot_cosine(0.1, 10, 4)  # cycles of 3, 3, 3, 1 steps
    assert cut(10) == cut(99) == schedules.cosine(0.1, 3)(1)


# ---- text --------------------------------------------------------------------------------------------------


@each
def test_ascii(schedule: Schedule) -> None:
    drawing = schedule.ascii(width=40, height=6)
    lines = drawing.splitlines()
    assert len(lines) == 8
    assert drawing.isascii()
    assert all(len(line) < 70 for line in lines)
    assert sum(line.count("*") for line in lines) >= 40


def test_repr_is_the_expression() -> None:
    names = {name: getattr(schedules, name) for name in (*schedules.CONSTRUCTORS, *COMBINATIONS, "one_cycle")}
    for schedule in CATALOGUE.values():
        assert eval(repr(schedule), {"__builtins__": {}}, names) == schedule
