"""Landscape points per second: two tiers of ours against plain torch in its forms and against other packages.

All by turns in one process, each at its own best settings; beside every speed the error against float64.
"""

from __future__ import annotations

import contextlib
import functools
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from comparison import quartiles
from landscape_nets import SAMPLES, Array, Problem, problem
from landscape_packages import PACKAGES
from landscape_sides import (
    CHECKED,
    TOLERANCE,
    Absent,
    Build,
    References,
    Side,
    best_batch,
    loader,
    loop,
    ours,
    through_compiler,
    vmapped,
)

EXACT, BEST, LOOP = "thalweg, exact tier", "thalweg, rounding tier", "hand-written loop"
OURS = {EXACT: "exact", BEST: "rounding"}


@dataclass(frozen=True)
class Plan:
    """How much of a network is timed.

    Attributes:
        best: Points of a call of the rounding tier. Its products of the data are made anew in every call, so for a
            network that takes milliseconds it has many.
        points: Of the others.
        slow: Of those that fetch a number from every batch, or come as packages.
        rounds: Calls of each.
        references: Points whose losses are computed in float64.
        large: A point takes seconds: values are checked on a part of the data, and only the exact tier and the loop are
            called more than once. With one thread there are 2,000 samples and nobody else but the rounding tier.
    """

    best: int
    points: int
    slow: int
    rounds: int
    references: int
    large: bool = False


PLANS = {
    "MLP": Plan(128, 16, 4, 4, 16),
    "LeNet-5": Plan(16, 3, 2, 3, 3),
    "ResNet-20": Plan(8, 1, 1, 3, 1, large=True),
}
TINY = Plan(8, 2, 2, 1, 8)  # where nothing is timed


@functools.lru_cache(maxsize=len(PLANS))
def prepared(net: str, samples: int) -> tuple[Problem, References]:
    """A network with its float64 losses, for both numbers of threads."""
    made = problem(net, samples)
    return made, References(made)


def builds(whole: Problem, plan: Plan, all_threads: bool, timed: bool) -> Iterator[tuple[str, Build, int]]:
    """(name, how it is built, points of a call)."""
    batch = best_batch(whole, timed, plan.large)
    yield EXACT, partial(ours, tier="exact", batch=batch), plan.points
    yield BEST, partial(ours, tier="rounding", batch=None), plan.best
    yield LOOP, partial(loop, batch=batch), plan.points
    if plan.large and not all_threads:
        return
    yield "loop over a DataLoader", loader, plan.slow
    yield "torch.func.vmap", vmapped, plan.points
    yield "torch.compile in the loop", partial(through_compiler, batch=batch), plan.points
    if all_threads and not plan.large:
        for name, build in PACKAGES.items():
            yield name, build, plan.slow


def checked(build: Build, count: int, whole: Problem, references: References, plan: Plan, timed: bool) -> Side:
    """A side whose values are within TOLERANCE of float64."""
    side = build(whole, count, timed)
    if not (plan.large and timed):
        sure(references.error(side, side.run(), plan.references))
        return side
    if side.trial is not None:
        part, values = side.trial
        sure(References(part).error(side, values, plan.references))
        return side
    part = whole.part(CHECKED)
    with contextlib.suppress(Absent):  # compiles for whole batches only, and is compared afterwards, as all are
        small = build(part, count, False)
        sure(References(part).error(small, small.run(), plan.references))
    return side


def sure(error: float) -> float:
    """The error, which has to be within TOLERANCE."""
    assert error < TOLERANCE, f"relative error {error:.2g} against float64"
    return error


def by_turns(sides: Mapping[str, Side], plan: Plan) -> tuple[dict[str, list[float]], dict[str, Array]]:
    """Seconds per point of every side, each round begun by another; and the values of the last calls."""
    names = list(sides)
    times: dict[str, list[float]] = {name: [] for name in names}
    values: dict[str, Array] = {}
    for turn in range(plan.rounds):
        for at in range(len(names)):
            name = names[(at + turn) % len(names)]
            if plan.large and turn and name not in (EXACT, LOOP):
                continue
            started = time.perf_counter()
            values[name] = sides[name].run()
            times[name].append((time.perf_counter() - started) / len(sides[name].points))
    return times, values


def rows(case: str, sides: Mapping[str, Side], references: References, plan: Plan) -> Iterator[dict[str, Any]]:
    """One row for each side, with the ratio of its time to that of both tiers of ours.

    Round by round: a machine that slows down for a while slows all sides of a round. A side with one call has that one in
    every round.
    """
    times, values = by_turns(sides, plan)
    for name, side in sides.items():
        ratios = {tier: quartiles(np.divide(times[name], times[us])) for us, tier in OURS.items() if name not in OURS}
        middle = statistics.median(times[name])
        yield {
            "table": "landscape",
            "case": case,
            "threads": torch.get_num_threads(),
            "who": name,
            "note": side.note,
            "points": len(side.points),
            "rounds": len(times[name]),
            "point_us": middle * 1e6,
            "point_spread_us": [min(times[name]) * 1e6, max(times[name]) * 1e6],
            "points_per_second": 1 / middle,
            "error": sure(references.error(side, values[name], plan.references)),
            "error_points": min(plan.references, len(side.points)),
            "ratios": ratios,  # quartiles of the rounds
            **side.facts,
        }


@pytest.mark.filterwarnings("ignore")  # of other packages and of torch's compiler
@pytest.mark.parametrize("net", list(PLANS))
def test_points_per_second(
    record: Callable[[Sequence[dict[str, Any]]], None], thread_count: int, net: str, request: pytest.FixtureRequest
) -> None:
    timed = not request.config.getoption("benchmark_disable")
    all_threads = request.node.callspec.params["thread_count"] == "all"
    if not timed:
        torch.set_num_threads(1)  # so little work is not worth more; the fixture puts back what was
    plan = PLANS[net] if timed else replace(TINY, large=PLANS[net].large)
    samples = SAMPLES if all_threads or not plan.large else SAMPLES // 5
    whole, references = prepared(net, samples if timed else 8 if plan.large else 48)
    case = f"{net}, {len(whole.y):,} samples"
    sides, absent = {}, []
    for name, build, count in builds(whole, plan, all_threads, timed):
        try:
            sides[name] = checked(build, count, whole, references, plan, timed)
        except Absent as error:
            absent.append(
                {"table": "landscape", "case": case, "threads": thread_count, "who": name, "absent": str(error)}
            )
    found = list(rows(case, sides, references, plan)) if timed else []
    record([*found, *absent])
