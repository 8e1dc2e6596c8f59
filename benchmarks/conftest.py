"""Shared by the benchmarks: alternating measurement of ours against a peer, both checked before they are timed."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch


def alternating(ours: Callable[[], Any], peer: Callable[[], Any], seconds: float) -> tuple[list[float], list[float]]:
    """Times of both in turn, ours first and second by turns, for about `seconds`; at least 5 rounds."""
    for warm in (ours, peer, ours, peer):
        warm()
    times: tuple[list[float], list[float]] = ([], [])
    gc.collect()
    gc.disable()  # as timeit does: whose turn a collection falls into is chance
    end = time.perf_counter() + seconds
    while len(times[0]) < 5 or time.perf_counter() < end:
        order = (0, 1) if len(times[0]) % 2 else (1, 0)
        for which in order:
            run = (ours, peer)[which]
            start = time.perf_counter()
            run()
            times[which].append(time.perf_counter() - start)
    gc.enable()
    return times


@pytest.fixture
def against(benchmark: Any) -> Callable[..., None]:
    """Measure ours against a peer in one process and record medians and their ratio in the benchmark's JSON.

    With --benchmark-disable, as in the tests, each is run once and nothing is timed.
    """

    def measure(
        row: str, case: str, peer_name: str, ours: Callable[[], Any], peer: Callable[[], Any], **more: Any
    ) -> None:
        seconds = more.pop("seconds", 2.0)
        if benchmark.disabled:
            ours()
            peer()
            benchmark(lambda: None)
            return
        a, b = alternating(ours, peer, seconds)
        benchmark.pedantic(ours, rounds=3, iterations=1)
        median_a, median_b = statistics.median(a), statistics.median(b)
        info = {
            "row": row,
            "case": case,
            "peer": peer_name,
            "threads": torch.get_num_threads(),
            "rounds": len(a),
            "ours_us": median_a * 1e6,
            "peer_us": median_b * 1e6,
            "ratio": median_b / median_a,
            "ours_spread": [min(a) * 1e6, max(a) * 1e6],
            "peer_spread": [min(b) * 1e6, max(b) * 1e6],
        }
        for key, value in more.items():
            info[key] = value(median_a) if callable(value) else value
        benchmark.extra_info.update(info)

    return measure


@pytest.fixture(params=["one", "all"])
def thread_count(request: pytest.FixtureRequest) -> Iterator[int]:
    """One thread and all of them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if request.param == "one" else before)
    yield torch.get_num_threads()
    torch.set_num_threads(before)
