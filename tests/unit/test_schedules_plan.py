"""The core's Plan: bytes there and back, damaged bytes refused, sound whatever passes."""

from __future__ import annotations

import random
import struct

import numpy as np
import pytest

from thalweg import _core, schedules
from thalweg.schedules import Schedule

SAMPLES: list[Schedule] = [
    schedules.cosine(0.1, 90, 1e-5),
    schedules.multistep(0.1, [3, 3, 40], 0.5, total_steps=60),
    schedules.table([0.3, 0.1, 0.2]),
    (schedules.warmup(5, 0.1) >> schedules.sgdr(0.1, 10, 2) * schedules.triangular2(0.5, 1.0, 7)).clip(0.01, 0.09),
    (schedules.one_cycle(0.1, 40).lr >> schedules.snapshot_cosine(0.1, 50, 4) * 0.5).repeat(3),
    schedules.sgdr(0.1, 20, 1.4, warmup_steps=3).every(2) + schedules.noise(0.3, 5),
    schedules.minimum(schedules.sgdr(0.1, 9, 2, warmup_steps=3).advance(5), schedules.tanh(0.1, 70), 0.05),
    schedules.wsd(0.1, 9, 20, 30, 1e-3) * schedules.inverse_time(1.0, 0.1, 5) * schedules.exponential_warmup(1.0, 9.0),
    schedules.cosine(0.1, 50, k=2.0) >> schedules.rex(0.1, 20) >> schedules.inverse_sqrt(0.1, 9),
    schedules.geometric(1e-5, 1.0, 30) >> schedules.polynomial(1.0, 20, 2.0) >> schedules.exponential(0.1, 0.9),
]


@pytest.mark.parametrize("schedule", SAMPLES, ids=repr)
def test_bytes_there_and_back(schedule: Schedule) -> None:
    data = schedule.plan.to_bytes()
    again = _core.Plan(data)
    assert again.to_bytes() == data
    np.testing.assert_array_equal(again.values(0, 300), schedule.values(300))
    assert [again.cycle_at(k) for k in range(100)] == [schedule.plan.cycle_at(k) for k in range(100)]


@pytest.mark.parametrize("schedule", SAMPLES, ids=repr)
def test_steps_below_zero_count_as_zero(schedule: Schedule) -> None:
    assert schedule.plan.value_at(-1) == schedule.plan.value_at(-(2**62)) == schedule(0)


def words_of(schedule: Schedule) -> list[int]:
    data = schedule.plan.to_bytes()
    return list(struct.unpack(f"<{len(data) // 8}Q", data))


def plan_of(words: list[int]) -> _core.Plan:
    return _core.Plan(struct.pack(f"<{len(words)}Q", *words))


def bits(value: float) -> int:
    return int(struct.unpack("<Q", struct.pack("<d", value))[0])


def test_header() -> None:
    words = words_of(SAMPLES[0])
    for data in (
        b"",
        b"abc",
        b"\0" * 8,
        b"\0" * 64,
        SAMPLES[0].plan.to_bytes()[:-8],
        SAMPLES[0].plan.to_bytes() + b"\0" * 8,
    ):
        with pytest.raises(ValueError, match="plan"):
            _core.Plan(data)
    with pytest.raises(ValueError, match="not a plan of this version"):
        plan_of([words[0] + 1, *words[1:]])
    with pytest.raises(ValueError, match="root"):
        plan_of([*words[:2], words[2] + 1, *words[3:]])


@pytest.mark.parametrize(
    ("nodes", "match"),
    [
        ([[99, 0]], "unknown kind"),
        ([[1, bits(float("nan"))]], "not finite"),
        ([[1, bits(float("inf"))]], "not finite"),
        ([[2, bits(0.1), bits(0.2), bits(5.0), bits(5.0)]], "ramp must end"),
        ([[7, bits(0.1), bits(0.5), 0]], "length"),
        ([[8, bits(0.1), bits(0.5), 2, 5, 3]], "milestones must ascend"),
        ([[8, bits(0.1), bits(0.5), 2**63, 5]], "impossible length"),
        ([[9, bits(0.1), bits(0.0), 0, 1, bits(1.0), 2**64 - 1]], "length"),
        ([[9, bits(0.1), bits(0.0), 1, 1, bits(1.0), 0]], "length not 0"),
        ([[10, bits(0.1), bits(0.0), 5, 6, 0]], "more cycles than steps"),
        ([[10, bits(0.1), bits(0.0), 2**60, 2**59, 0]], "too large"),
        ([[11, bits(0.1), bits(0.2), 3, 3, 7, bits(1.0)]], "mode"),
        ([[13, bits(0.1), bits(0.2), bits(5.0), bits(5.0)]], "elsewhere"),
        ([[16, bits(0.1), bits(0.2), bits(0.0), bits(1.0), bits(2.0)]], "end after"),
        ([[17, bits(0.1), bits(-1.0), bits(5.0)]], "rate"),
        ([[18, bits(0.1), bits(5.0), bits(0.0)]], "shift"),
        ([[19, bits(0.1), bits(0.2), bits(0.0), bits(-1.0)]], "time constant"),
        ([[30, bits(0.1), bits(0.2), bits(9.0), bits(0.0), bits(1.0), 0]], "power"),
        ([[31, bits(0.1), 0, bits(0.5), bits(0.6), 3]], "quantiles"),
        ([[32, *[bits(0.1)] * 3, 0, *[bits(0.1)] * 3, 1, 0]], "begin at step 0 and end"),
        ([[32, *[bits(0.1)] * 3, 0, *[bits(0.1)] * 3, 3, 0, 5, 5]], "must ascend"),
        ([[33, *[bits(0.1)] * 3, 2**60, *[bits(0.1)] * 3, 5, 1, 9]], "warm-up"),
        ([[33, *[bits(0.1)] * 3, 1, *[bits(0.1)] * 3, 5, 1, 0]], "total length"),
        ([[1, bits(0.1)], [28, 3, 0]], "period"),
        ([[1, bits(0.1)], [29, 3, 2**64 - 1]], "negative"),
        ([[12, 0]], "impossible length"),
        ([[12, 5, bits(0.1)]], "ends inside|impossible"),
        ([[1, bits(0.1)], [23, 3, 0, 5]], "period"),
        ([[1, bits(0.1)], [22, 3, bits(0.2), bits(0.1)]], "lo <= hi"),
        ([[1, bits(0.1)], [24, 3, 2**64 - 1]], "negative"),
        ([[1, bits(0.1)], [24, 4, 1]], "stand before"),
        ([[24, 3, 1]], "stand before"),
        ([[1, bits(0.1)], [21, 2, 3, 3]], "only parent"),
        ([[1, bits(0.1)], [1, bits(0.1)]], "no parent"),
        ([[1, bits(0.1)], [1, bits(0.1)], [20, 2, 1, 5, 3, 5]], "begin at step 0"),
        ([[1, bits(0.1)], [1, bits(0.1)], [20, 2, 0, 0, 3, 5]], "follow each other"),
    ],
)  # fmt: skip
def test_node_that_is_not_sound(nodes: list[list[int]], match: str) -> None:
    flat = [word for node in nodes for word in node]
    root = 3 + len(flat) - len(nodes[-1])
    with pytest.raises(ValueError, match=match):
        plan_of([_core.PLAN_MAGIC, 3 + len(flat), root, *flat])


def test_too_deep_is_refused() -> None:
    words = [1, bits(0.1)]
    offset = 3
    for _ in range(32):
        words += [24, offset, 5]
        offset = 3 + len(words) - 3
    with pytest.raises(ValueError, match="nested more than 32 deep"):
        plan_of([_core.PLAN_MAGIC, 3 + len(words), offset, *words])


@pytest.mark.parametrize("seed", range(4))
def test_whatever_passes_is_safe(seed: int) -> None:
    """Random damage is refused or gives a plan whose array equals its single values."""
    draw = random.Random(seed)
    refused = 0
    for _ in range(1_500):
        words = words_of(draw.choice(SAMPLES))
        for _ in range(draw.randint(1, 3)):
            place = draw.randrange(len(words))
            flipped = words[place] ^ (1 << draw.randrange(64))
            small, large = draw.randrange(30), draw.choice([2**63, 2**64 - 1])
            words[place] = draw.choice([small, large, bits(draw.random()), flipped])
        try:
            plan = plan_of(words)
        except ValueError:
            refused += 1
            continue
        steps = [draw.randrange(200), draw.randrange(2**40), 2**61]
        for start in steps:
            values = plan.values(start, 5)
            np.testing.assert_array_equal(values, [plan.value_at(start + k) for k in range(5)])
            index, position, length = plan.cycle_at(start)
            assert index == -1 or 0 <= position < length
    assert 300 < refused < 1_450
