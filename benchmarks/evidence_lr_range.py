"""Evidence for the range test: ours and other packages' finders on four real tasks; writes results/lr_range_evidence.json.

    python benchmarks/evidence_lr_range.py --peers FOLDER

FOLDER holds the other packages, installed with `pip install --no-deps --target`. Every part is written to --out when it is
done; a second call goes on where the first ended. One thread. `make evidence` does both.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

import range_peers
import range_tasks
from range_tasks import GRID, OPTIMIZERS, TASKS, Task
from thalweg.lr_range import range_test

OUT = Path(__file__).parent / "results" / "lr_range_evidence.json"
SEEDS = range(20)  # methods were chosen on seeds 100 to 119
GRID_SEEDS = range(5)
TRAINED_SEEDS = range(5)
TRAINING = {"SGD": 1e-2, "AdamW": 3e-3}, 1000  # rates that fall to 0, steps: how the trained models came about
PEER_STEPS = 100  # their default


def ours(task: Task, model: nn.Module, optimizer: torch.optim.Optimizer, batches: Any, **options: Any) -> float | None:
    """The suggestion of one range test; an error counts as a text."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loss = lambda net, batch: task.loss(net(batch[0]), batch[1])  # noqa: E731
        return range_test(model, loss, batches, optimizer, progress=False, **options).suggestion


def redraw(model: nn.Module) -> Callable[[], None]:
    """A function that draws new weights, as each layer does by itself."""
    layers = [layer for layer in model.modules() if hasattr(layer, "reset_parameters")]
    return lambda: [layer.reset_parameters() for layer in layers] and None


def begin(task: Task, optimizer: str, seed: int, weights: Any = None) -> tuple[Task, nn.Module, Any, Any]:
    """The network of `seed`, or one with `weights`, its optimizer and its batches."""
    model, opt, batches = range_tasks.start(task, optimizer, seed, 1e-3)
    if weights is not None:
        model.load_state_dict(weights)
    return task, model, opt, batches


def suggested_by_us(*start: Any) -> dict[str, Any]:
    return {"thalweg": ours(*begin(*start)), "thalweg, 100 steps": ours(*begin(*start), num_steps=PEER_STEPS)}


def suggested_by_peers(*start: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for module in range_peers.PEERS:
        found.update(range_peers.suggest(module, *begin(*start), PEER_STEPS))
    return found


def repeated(task: Task, optimizer: str, seed: int) -> dict[str, Any]:
    """Three repeats, each from newly drawn weights."""
    start = begin(task, optimizer, seed)
    return {"thalweg, 3 repeats": ours(*start, repeats=3, seed=1000 + 3 * seed, reinitialise=redraw(start[1]))}


def by_peers(task: Task, optimizer: str) -> Any:
    return [suggested_by_peers(task, optimizer, seed) for seed in SEEDS]


def by_us(task: Task, optimizer: str) -> Any:
    return [suggested_by_us(task, optimizer, seed) for seed in SEEDS]


def on_grid(task: Task, optimizer: str) -> Any:
    def one(lr: float, seed: int) -> float | None:
        loss = range_tasks.held_out(task, range_tasks.train(task, optimizer, seed, lr))
        return loss if math.isfinite(loss) else None

    return [[one(lr, seed) for seed in GRID_SEEDS] for lr in GRID]


def on_trained(task: Task, optimizer: str) -> Any:
    rates, steps = TRAINING
    found = []
    for seed in TRAINED_SEEDS:
        model = range_tasks.train(task, optimizer, seed, rates[optimizer], steps, anneal=True)
        start = task, optimizer, seed, model.state_dict()
        found.append({**suggested_by_us(*start), **suggested_by_peers(*start)})
    return found


def on_repeats(task: Task, optimizer: str) -> Any:
    return [repeated(task, optimizer, seed) for seed in SEEDS]


PARTS = {"peers": by_peers, "grid": on_grid, "ours": by_us, "trained": on_trained, "repeats": on_repeats}
LAST = "losses"  # needs the suggestions


def at_suggestions(task: Task, optimizer: str, case: dict[str, Any]) -> dict[str, list[float | None]]:
    """Method -> held-out loss after training at its own suggestion, for the seeds of the grid; None: no answer or no number."""

    def one(lr: Any, seed: int) -> float | None:
        if not isinstance(lr, float):
            return None
        loss = range_tasks.held_out(task, range_tasks.train(task, optimizer, seed, lr))
        return loss if math.isfinite(loss) else None

    methods = {**case["ours"][0], **case["repeats"][0], **case["peers"][0]}
    part = {name: next(p for p in ("ours", "repeats", "peers") if name in case[p][0]) for name in methods}
    return {name: [one(case[part[name]][seed].get(name), seed) for seed in GRID_SEEDS] for name in methods}


def conditions() -> dict[str, Any]:
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return {
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit.stdout.strip() or "unknown",
        "machine": platform.machine(),
        "threads": 1,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "packages": range_peers.versions(),
        "seeds": len(SEEDS),
        "grid_seeds": len(GRID_SEEDS),
        "trained_seeds": len(TRAINED_SEEDS),
        "grid": GRID,
        "training_steps": range_tasks.STEPS,
        "peer_steps": PEER_STEPS,
        "range": [range_peers.MIN_LR, range_peers.MAX_LR],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", type=Path, help="folder with the other packages")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--parts", nargs="+", choices=[*PARTS, LAST], default=[*PARTS, LAST])
    arguments = parser.parse_args()
    if arguments.peers:
        sys.path.append(str(arguments.peers))
    torch.set_num_threads(1)
    import matplotlib as mpl

    mpl.use("Agg")
    data = {"conditions": conditions(), "cpu_seconds": 0.0, "cases": {}}
    if arguments.out.exists():
        data = json.loads(arguments.out.read_text())
    for part in arguments.parts:
        for task in TASKS:
            for optimizer in OPTIMIZERS:
                case = data["cases"].setdefault(f"{task.name}, {optimizer}", {"relative": task.relative})
                if part in case:
                    continue
                begun = time.process_time()
                case[part] = at_suggestions(task, optimizer, case) if part == LAST else PARTS[part](task, optimizer)
                data["cpu_seconds"] += time.process_time() - begun
                arguments.out.write_text(
                    json.dumps(data, separators=(",", ":")).replace('"relative"', '\n"relative"') + "\n"
                )
                print(f"{part}: {task.name}, {optimizer}: {data['cpu_seconds']:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
