"""One process that evaluates a grid: its points take a few milliseconds and leave a line in a log each.

Arguments: the result's .npz, the journal or "none", the log, how to share ("none", "torchrun" or the port of a TCPStore on
this host), and the rows of the grid.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
import torch
import torch.distributed as dist
from torch import Tensor, nn

import stand_in  # noqa: F401  # before thalweg
import thalweg as tw

COLUMNS, ROWS = 41, 37
LEASE = 1.0


class Logged:
    """A metric that takes a few milliseconds; every point has one batch."""

    def __init__(self, log: Path) -> None:
        self.file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.on = False

    def __call__(self, output: Tensor, targets: Tensor) -> Tensor:
        if self.on:
            time.sleep(0.003)
            os.write(self.file, b"%.6f\n" % time.monotonic())
        return -output.double().square().sum()


def evaluated(log: Path, resume: Path | None = None, share: Any = False, rows: int = ROWS) -> tw.landscape.Surface:
    """The grid; "ready" is printed when all is prepared."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)), torch.randn(30, 5)
    metric = Logged(log)
    ev = tw.landscape.Evaluator(
        model, "cross_entropy", (x, torch.arange(30) % 3), metrics=("loss", "accuracy", ("square", metric))
    )
    metric.on = True
    print("ready", flush=True)
    directions, x, y = tw.landscape.random_directions(model, seed=1), (-1, 1, COLUMNS), (-1, 2, rows)
    return ev.grid(directions, x, y, progress=False, resume=resume, share=share)


def main() -> None:
    """See above."""
    out, resume, log, how, rows = sys.argv[1:]
    share: Any = how == "torchrun"
    if how.isdigit():
        share = tw.landscape.Share(dist.TCPStore("127.0.0.1", int(how), is_master=False), lease=LEASE)
    elif share:
        share = tw.landscape.Share(lease=LEASE)
        log = f"{log}{os.environ['RANK']}"
        out = out.replace("RANK", os.environ["RANK"])
    surface = evaluated(Path(log), None if resume == "none" else Path(resume), share, int(rows))
    surface.save(out)


if __name__ == "__main__":
    main()
