"""How the GPU benchmarks measure: device time by events, host time, launches, copy bandwidth. Knows no row."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from thalweg import _core

BLOCK_SECONDS = 0.02  # a block of calls is timed as one: what the first call needs to reach the device is lost in it
Run = Callable[[], Any]


class Session:
    """The device, and how long to measure on it.

    With `dry`, every row goes the same way with tiny sizes and a call or two, so its times say nothing; the host then
    stands in for a GPU where there is none.
    """

    def __init__(self, dry: bool = False, seconds: float = 1.0) -> None:
        self.cuda = torch.cuda.is_available() and _core.cuda_info()["device_count"] > 0
        self.device = torch.device("cuda" if self.cuda else "cpu")
        self.dry = dry
        self.seconds = 0.0 if dry else seconds

    def sizes(self, sizes: Sequence[int]) -> list[int]:
        """The sizes of a row; in a dry run a few small tensors with the same remainders modulo 4."""
        return [64 + n % 4 for n in sizes[:5]] if self.dry else list(sizes)

    def number(self, full: int, dry: int) -> int:
        """One number of a row: as it stands, or the one of a dry run."""
        return dry if self.dry else full

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.cuda:
            torch.cuda.synchronize()

    def graph(self, run: Run, then: Run | None = None, warm_up: int = 3) -> Run:
        """`run` as the replay of a CUDA graph, after a few runs on a side stream; without a GPU `run` itself.

        `then` is host work that follows every run and every replay.
        """

        def call(do: Run) -> None:
            do()
            if then is not None:
                then()

        if not self.cuda:
            for _ in range(warm_up):
                call(run)
            return lambda: call(run)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(warm_up):
                call(run)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            run()
        return graph.replay if then is None else lambda: call(graph.replay)

    def block(self, run: Run, calls: int) -> float:
        """Seconds per call of `calls` calls in a row, from the first one's start to the last one's end on the device."""
        self.synchronize()
        if not self.cuda:
            start = time.perf_counter()
            for _ in range(calls):
                run()
            return (time.perf_counter() - start) / calls
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        for _ in range(calls):
            run()
        last.record()
        last.synchronize()
        return first.elapsed_time(last) / 1e3 / calls

    def calls_per_block(self, run: Run) -> int:
        """How many calls make a block; long ones stand alone."""
        if self.dry or self.block(run, 1) > 10 * BLOCK_SECONDS:
            return 1
        return max(1, min(5000, round(BLOCK_SECONDS / max(self.block(run, 3), 1e-7))))

    def by_turns(self, runs: Sequence[Run], rounds: int | None = None) -> list[list[float]]:
        """Seconds per call, [runs][rounds]: blocks of calls in turn, each round begins with another one.

        At least 5 rounds, and as many as fit into the time; or as many as are asked for, of single calls.
        """
        calls = [1 if rounds else self.calls_per_block(run) for run in runs]
        least = 2 if self.dry else rounds or 5
        times: list[list[float]] = [[] for _ in runs]
        gc.collect()
        gc.disable()  # as timeit does: whose turn a collection falls into is chance
        try:
            end = time.perf_counter() + (0.0 if rounds else self.seconds * len(runs))
            while len(times[0]) < least or time.perf_counter() < end:
                begin = len(times[0]) % len(runs)
                for which in [*range(begin, len(runs)), *range(begin)]:
                    times[which].append(self.block(runs[which], calls[which]))
        finally:
            gc.enable()
        return times

    def host_seconds(self, run: Run) -> float:
        """Median host time of one call that finds the device idle and does not wait for it."""
        times = []
        for _ in range(2 if self.dry else 20):
            self.synchronize()
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
        self.synchronize()
        return statistics.median(times)

    def launches(self, run: Run) -> int | None:
        """Kernels that one call runs on the device, copies and fills not counted; None where nobody can tell."""
        if not self.cuda:
            return None
        from torch.profiler import ProfilerActivity, profile

        self.synchronize()
        try:
            with profile(activities=[ProfilerActivity.CUDA]) as profiler:
                run()
                self.synchronize()
            names = [e.name for e in profiler.events() if _on_device(e)]
        except RuntimeError:  # another profiler holds the device, or the host forbids it
            return None
        return len([name for name in names if not name.startswith(("Memcpy", "Memset"))]) or None

    def copy_bandwidth(self) -> float:
        """Bytes per second, read plus written, of a large copy on the device: the fastest of 20."""
        count = self.number(1 << 29, 1 << 10)
        source = torch.ones(count, dtype=torch.float32, device=self.device)
        target = torch.empty_like(source)
        times = [self.block(lambda: target.copy_(source), 1) for _ in range(22)]
        return 2 * 4 * count / min(times[2:])


def _on_device(event: Any) -> bool:
    """Whether a profiler's event is the device's own work, not the shadow of a name that the host gave to a range."""
    named_by_host = getattr(event, "is_user_annotation", False) or "#" in event.name
    return event.device_type == torch.autograd.DeviceType.CUDA and not named_by_host


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


@contextmanager
def precision(session: Session, name: str) -> Iterator[None]:
    """Torch's own switches: fp32 without TF32 anywhere, TF32 everywhere, or autocast to bfloat16."""
    switches = torch.backends.cuda.matmul, torch.backends.cudnn.conv
    before = [switch.fp32_precision for switch in switches]
    with ExitStack() as stack:
        for switch, value in zip(switches, before, strict=True):
            stack.callback(setattr, switch, "fp32_precision", value)
            switch.fp32_precision = "tf32" if name == "tf32" else "ieee"
        if name == "bf16":  # its cache would keep the first point's weights
            stack.enter_context(torch.autocast(session.device.type, torch.bfloat16, cache_enabled=False))
        yield
