"""Write tests/unit/lr_range_rules.json: what other packages' finders suggest for given losses.

    python benchmarks/range_rules_golden.py --peers FOLDER

Each finder runs as installed on a model whose loss is a recorded curve, whatever the learning rate: its ramp, smoothing, stop
rule and suggestion are its own.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import range_peers
import range_tasks

OUT = Path(__file__).parents[1] / "tests" / "unit" / "lr_range_rules.json"
NAMES = {
    "pytorch-lr-finder": "lr_finder",
    "ignite": "ignite",
    "Lightning": "lightning",
    "fastai valley": "valley",
    "fastai slide": "slide",
    "fastai minimum/10": "minimum/10",
    "fastai steep": "steep",
}


class Replay(nn.Module):
    """A model whose output is the next loss of a curve; notes the learning rate of each step."""

    def __init__(self, losses: list[float]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.losses, self.lrs = losses, []
        self.optimizer = torch.optim.SGD([self.weight], lr=1e-3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        loss = self.losses[min(len(self.lrs), len(self.losses) - 1)]
        self.lrs.append(self.optimizer.param_groups[0]["lr"])
        return self.weight * 0 + loss


def curves() -> list[list[float]]:
    """Losses of real tests (digits, breast cancer, diabetes) and synthetic ones: noisy, flat, negative, blown up."""
    found = []
    for task in range_tasks.TASKS:
        for optimizer in range_tasks.OPTIMIZERS:
            found.append(recorded(task, optimizer))
    rng = np.random.default_rng(0)
    t = np.linspace(-7, 1, 110)
    for seed in range(20):
        middle, drop, offset = rng.uniform(-4, -1), rng.uniform(0.2, 2), rng.choice([2.3, 1.0, -1.0])
        loss = offset - drop / (1 + np.exp(-(t - middle) * 4)) + 0.2 * np.exp(np.minimum((t - middle - 1.5) * 6, 6))
        loss += rng.choice([0.01, 0.1]) * rng.standard_normal(len(t))
        if seed % 5 == 4:
            loss[int(np.argmax(t > middle + 1.5)) :] = np.nan
        found.append([float(f"{value:.5g}") for value in loss])
    return found


def recorded(task: range_tasks.Task, optimizer: str, steps: int = 110) -> list[float]:
    """The raw losses of one range test, on a ramp as all of the finders have it."""
    model, opt, batches = range_tasks.start(task, optimizer, 100, 1e-3)
    losses = []
    for lr, (x, y) in zip(np.geomspace(1e-7, 20, steps), range_tasks.endless(batches), strict=False):
        opt.param_groups[0]["lr"] = float(lr)
        opt.zero_grad()
        loss = task.loss(model(x), y)
        loss.backward()
        opt.step()
        losses.append(float(f"{loss.item():.5g}"))
    return losses


def answers(losses: list[float], steps: int = 100) -> dict[str, Any]:
    """Rule -> the rates at which it saw these losses, and its suggestion (None: an error or no answer)."""
    found = {}
    task = range_tasks.Task("replay", "digits", 1, nn.Identity, lambda output, target: output)
    for module in range_peers.PEERS:
        model = Replay(losses)
        batches = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.zeros(50, 1), torch.zeros(50)))
        for name, value in range_peers.suggest(module, task, model, model.optimizer, batches, steps).items():
            if name == "run":
                raise SystemExit(f"{module}: {value}")
            found[NAMES[name]] = {"lrs": model.lrs, "suggestion": value if isinstance(value, float) else None}
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", required=True)
    sys.path.append(parser.parse_args().peers)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    import matplotlib as mpl

    mpl.use("Agg")
    ramps: dict[str, list[float]] = {}
    cases = []
    for losses in curves():
        found = answers(losses)
        for rule, answer in found.items():
            ramps[rule] = max(ramps.get(rule, []), answer["lrs"], key=len)
        case = {
            rule: {"steps": len(answer["lrs"]), "suggestion": answer["suggestion"]} for rule, answer in found.items()
        }
        cases.append({"losses": losses, "answers": case})
    used = ramps["ignite"]  # it notes the rate of the next step beside each loss, and the rule is about what is noted
    ramps["ignite"] = [*used[1:], used[-1] * used[-1] / used[-2]]
    data = {"packages": range_peers.versions(), "num_steps": 100, "ramps": ramps, "cases": cases}
    OUT.write_text(json.dumps(data).replace('{"losses"', '\n{"losses"') + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
