"""The README's tables of the range test's evidence, from results/lr_range_evidence.json."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path
from typing import Any

FILE = Path(__file__).parent / "results" / "lr_range_evidence.json"
SPREAD, LOSS = 0.05, 1.05  # targets: decades; ratio
PACKAGES = {"fastai": ("fastai valley", "fastai slide", "fastai minimum/10", "fastai steep")}
OURS = ("thalweg", "thalweg, 3 repeats", "thalweg, 100 steps")
OTHERS = (*PACKAGES["fastai"], "Lightning", "ignite", "pytorch-lr-finder")


def grid_losses(case: dict[str, Any]) -> list[float]:
    """Mean loss at each rate of the grid; a run that blew up counts as ten times the loss of the lowest rate."""
    worst = 10 * max(abs(loss) for loss in case["grid"][0])
    return [statistics.fmean(worst if v is None else min(v, worst) for v in row) for row in case["grid"]]


def cost(case: dict[str, Any], grid: list[float], lr: float) -> float:
    """Loss at `lr` over the best of the grid; for likelihoods, which have no zero, e to the difference in nats.

    Between the rates of the grid the logarithm of that is a straight line over the logarithm of the rate.
    """
    losses = grid_losses(case)
    best = min(losses)
    logs = [math.log(loss / best) if case["relative"] else loss - best for loss in losses]
    x = (math.log(lr) - math.log(grid[0])) / math.log(grid[1] / grid[0])
    x = min(max(x, 0.0), len(grid) - 1.0)
    i = min(int(x), len(grid) - 2)
    return logs[i] + (x - i) * (logs[i + 1] - logs[i])


def trained_at(case: dict[str, Any], method: str) -> float:
    """The same cost, measured: trained at each seed's own suggestion. A run that blew up counts as in the grid."""
    worst, best = 10 * max(abs(loss) for loss in case["grid"][0]), min(grid_losses(case))
    loss = statistics.fmean(worst if v is None else min(v, worst) for v in case["losses"][method])
    return loss / best if case["relative"] else math.exp(min(loss - best, 50.0))


def answers(rows: list[dict[str, Any]], method: str) -> list[float]:
    """The suggestions of a method; what is no number is no answer."""
    return [row[method] for row in rows if isinstance(row.get(method), float) and math.isfinite(row[method])]


def measured(case: dict[str, Any], grid: list[float], method: str) -> dict[str, Any]:
    """One method on one task and optimizer."""
    part = "repeats" if "repeats" in method else "ours" if method in OURS else "peers"
    found = answers(case[part], method)
    trained = len(answers(case["trained"], method)) if part != "repeats" else None
    return {
        "median": statistics.median(found),
        "spread": statistics.stdev(math.log10(lr) for lr in found),
        "loss": trained_at(case, method),
        "between": math.exp(min(statistics.fmean(cost(case, grid, lr) for lr in found), 50.0)),
        "none": len(case[part]) - len(found),
        "tests": len(case[part]),
        "trained": trained,
    }


def number(value: float) -> str:
    return f"{value:.2f}" if value < 100 else "> 100"


def methods_table(data: dict[str, Any]) -> list[str]:
    """One line per method: median and worst over the cases."""
    lines = [
        "| method | spread, decades: median (worst) | loss / best of the grid: median (worst) | no answer | answers on trained models |",
        "|---|---:|---:|---:|---:|",
    ]
    cases, grid = data["cases"].values(), data["conditions"]["grid"]
    models = sum(len(case["trained"]) for case in cases)
    for method in (*OURS, *OTHERS):
        rows = [measured(case, grid, method) for case in cases]
        spread, loss = [row["spread"] for row in rows], [row["loss"] for row in rows]
        none = f"{sum(row['none'] for row in rows)} of {sum(row['tests'] for row in rows)}"
        trained = "–" if rows[0]["trained"] is None else f"{sum(row['trained'] for row in rows)} of {models}"
        lines.append(
            f"| {method} | {statistics.median(spread):.3f} ({max(spread):.3f}) | {number(statistics.median(loss))} "
            f"({number(max(loss))}) | {none} | {trained} |"
        )
    return lines


def cases_table(data: dict[str, Any]) -> list[str]:
    """One line per task and optimizer, for ours; a missed target is bold."""
    lines = [
        "| task, optimizer | best rate of the grid | suggestion | spread | with 3 repeats | loss / best | interpolated | best other package: loss / best |",
        "|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    grid = data["conditions"]["grid"]
    for name, case in data["cases"].items():
        losses = grid_losses(case)
        one, three = measured(case, grid, "thalweg"), measured(case, grid, "thalweg, 3 repeats")
        others = {method: measured(case, grid, method)["loss"] for method in OTHERS}
        best = min(others, key=lambda method: others[method])
        spread = [f"{r['spread']:.3f}" if r["spread"] <= SPREAD else f"**{r['spread']:.3f}**" for r in (one, three)]
        loss = number(one["loss"]) if one["loss"] <= LOSS else f"**{number(one['loss'])}**"
        lines.append(
            f"| {name} | {grid[losses.index(min(losses))]:.1e} | {one['median']:.1e} | {spread[0]} | {spread[1]} | {loss} "
            f"| {number(one['between'])} | {best}: {number(others[best])} |"
        )
    return lines


def met(data: dict[str, Any]) -> str:
    """In how many cases each target is met."""
    grid, cases = data["conditions"]["grid"], data["cases"].values()
    one = [measured(case, grid, "thalweg") for case in cases]
    three = [measured(case, grid, "thalweg, 3 repeats") for case in cases]
    return (
        f"Of {len(one)} cases the spread is at most {SPREAD:g} decades in {sum(r['spread'] <= SPREAD for r in one)}, with three "
        f"repeats in {sum(r['spread'] <= SPREAD for r in three)}; the loss is at most {LOSS:g} times the best in "
        f"{sum(r['loss'] <= LOSS for r in one)} ({sum(r['between'] <= LOSS for r in one)} interpolated)."
    )


def range_tables() -> str:
    """The section of the README."""
    if not FILE.exists():
        return "Not yet measured."
    data = json.loads(FILE.read_text())
    c = data["conditions"]
    packages = ", ".join(f"{name} {version}" for name, version in c["packages"].items())
    text = (
        f"Digits, breast cancer and diabetes of scikit-learn, {c['seeds']} seeds (weights and order of the batches), torch "
        f"{c['torch']}, one thread, {c['date']} ([JSON](benchmarks/results/{FILE.name})). {packages}, each as installed with its own "
        f"ramp, stop rule and suggestion, {c['peer_steps']} steps from {c['range'][0]:g} to {c['range'][1]:g}; thalweg has 200 where "
        "nothing is said. Spread: standard deviation of log10 of the suggestion. Loss: held-out, after "
        f"{c['training_steps']} steps at the suggestion, mean over the first {c['grid_seeds']} seeds, against the best of a grid of "
        f"{len(c['grid'])} constant rates with the same seeds (interpolated: all {c['seeds']} suggestions on that grid instead); for "
        "the Gaussian NLL, which has no zero, e to the difference in nats. Trained models are at rest: no answer is right there. "
        f"Bold in the second table: the targets, {SPREAD:g} decades and {LOSS:g}, are missed."
    )
    return "\n".join([text, "", *methods_table(data), "", *cases_table(data), "", met(data)])


if __name__ == "__main__":
    print(range_tables())
