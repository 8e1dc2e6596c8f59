"""Shared by the benchmarks: alternating measurement of ours against a peer, both checked before they are timed."""

from __future__ import annotations

import gc
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from comparison import compared

# Scripts that import each other by name, which pytest's import mode does not do; tests/unit/test_benchmarks_gpu.py has them.
collect_ignore_glob = ["gpu*.py", "run_gpu.py"]

BLOCK_SECONDS = 0.004  # a block of calls is timed as one


def calls_per_block(run: Callable[[], Any]) -> int:
    """How many calls make a block: short ones are repeated, as timeit does, long ones stand alone."""
    start = time.perf_counter()
    run()
    return max(1, math.ceil(BLOCK_SECONDS / max(time.perf_counter() - start, 1e-7)))


def alternating(
    ours: Callable[[], Any], peer: Callable[[], Any], seconds: float, between: Callable[[], Any] | None
) -> tuple[list[float], list[float]]:
    """Seconds per call of both, block by block in turn, who is first by turns too; at least 5 rounds.

    With `between`, it runs untimed before every call, and every call is timed alone.
    """
    runs = (ours, peer)
    for _ in range(2):
        ours()
        peer()
    calls = [1 if between else calls_per_block(run) for run in runs]
    times: tuple[list[float], list[float]] = ([], [])
    gc.collect()
    gc.disable()  # as timeit does: whose turn a collection falls into is chance
    end = time.perf_counter() + seconds
    while len(times[0]) < 5 or time.perf_counter() < end:
        order = (0, 1) if len(times[0]) % 2 else (1, 0)
        for which in order:
            run, count = runs[which], calls[which]
            if between:
                between()
            start = time.perf_counter()
            for _ in range(count):
                run()
            times[which].append((time.perf_counter() - start) / count)
    gc.enable()
    return times


@pytest.fixture
def against(benchmark: Any) -> Callable[..., None]:
    """Measure ours against a peer in one process and record medians and the median ratio in the benchmark's JSON.

    With --benchmark-disable, as in the tests, each is run once and nothing is timed.
    """

    def measure(
        row: str, case: str, peer_name: str, ours: Callable[[], Any], peer: Callable[[], Any], **more: Any
    ) -> None:
        seconds = more.pop("seconds", 2.0)
        between = more.pop("between", None)
        if benchmark.disabled:
            ours()
            peer()
            benchmark(lambda: None)
            return
        a, b = alternating(ours, peer, seconds, between)
        benchmark.pedantic(ours, rounds=3, iterations=1)
        info = compared(row, case, peer_name, a, b)
        for key, value in more.items():
            info[key] = value(statistics.median(a)) if callable(value) else value
        benchmark.extra_info.update(info)

    return measure


@pytest.fixture
def record(benchmark: Any) -> Callable[[Sequence[dict[str, Any]]], None]:
    """Put rows that a benchmark has made itself into the benchmark's JSON."""

    def add(rows: Sequence[dict[str, Any]]) -> None:
        benchmark.pedantic(lambda: None, rounds=1, iterations=1)
        benchmark.extra_info["rows"] = list(rows)

    return add


@pytest.fixture(params=["one", "all"])
def thread_count(request: pytest.FixtureRequest) -> Iterator[int]:
    """One thread and all of them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if request.param == "one" else before)
    yield torch.get_num_threads()
    torch.set_num_threads(before)


@pytest.fixture
def copy_bandwidth() -> Callable[[], float]:
    """Call it for the bytes per second of a plain copy, read plus written, of 256 MB; the best of five."""

    def measure() -> float:
        source, target = torch.ones(32_000_000), torch.empty(32_000_000)
        times = []
        for _ in range(6):
            start = time.perf_counter()
            target.copy_(source)
            times.append(time.perf_counter() - start)
        return 256e6 / min(times[1:])

    return measure
