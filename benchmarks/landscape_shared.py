"""One of two processes that evaluate a grid of the MLP, alone and together by turns; the first prints its seconds.

    python landscape_shared.py RANK PORT SAMPLES SIDE ROUNDS

Times begin when both processes are there and ready, so starting them is not in it.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).parent))
from landscape_nets import problem
from thalweg.landscape import Evaluator, Surface

PROCESSES = 2


def main() -> int:
    """Evaluate, by turns; the first process compares both grids and prints."""
    rank, port, samples, side, rounds = map(int, sys.argv[1:])
    torch.set_num_threads(1)
    store = dist.TCPStore("127.0.0.1", port, is_master=False)
    net = problem("MLP", samples)
    evaluator = Evaluator(net.model, "cross_entropy", (net.x, net.y))
    axis = (-1.0, 1.0, side)

    def grid(share: object) -> tuple[Surface, float]:
        started = time.perf_counter()
        surface = evaluator.grid(net.directions, axis, axis, progress=False, share=share)
        return surface, time.perf_counter() - started

    def meet(name: str) -> None:
        store.add(name, 1)
        while store.add(name, 0) < PROCESSES:
            time.sleep(0.001)

    alone: list[float] = []
    together: list[float] = []
    evaluator.grid(net.directions, (-1.0, 1.0, 2), (-1.0, 1.0, 2), progress=False)  # warm
    for turn in range(rounds):
        meet(f"together/{turn}")
        shared, seconds = grid(store)
        store.set(f"seconds/{turn}/{rank}", repr(seconds))
        together.append(max(float(store.get(f"seconds/{turn}/{other}")) for other in range(PROCESSES)))
        meet(f"alone/{turn}")
        if rank == 0:  # the other one sleeps
            whole, seconds = grid(False)
            alone.append(seconds)
            if not (whole.values["loss"] == shared.values["loss"]).all():
                raise AssertionError("the shared grid is not the bits of the other")
    meet("end")
    if rank == 0:
        print(json.dumps({"alone": alone, "together": together}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
