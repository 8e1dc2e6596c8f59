"""The table of CPU targets in benchmarks/README.md: what each row should reach and what the committed results say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

Row = dict[str, Any]


class Target(NamedTuple):
    """A ratio to reach with every number of threads."""

    what: str
    bound: float
    ratio: Callable[[Row], float | None]  # of a row, or None where it is another row


def step(row: str, case: str, peer: str) -> Callable[[Row], float | None]:
    """Rows of one peer."""
    wanted = (None, row, case, peer)
    return lambda r: r["ratio"] if (r.get("table"), r.get("row"), r.get("case"), r.get("peer")) == wanted else None


def beginning(row: str) -> Callable[[Row], float | None]:
    """Rows of this name, whatever the case."""
    return lambda r: r["ratio"] if r.get("row") == row else None


def plane(net: str, who: str, tier: str) -> Callable[[Row], float | None]:
    """Rows of the landscape: how many times faster a tier of ours is."""

    def ratio(r: Row) -> float | None:
        mine = r.get("table") == "landscape" and r["case"].startswith(f"{net},") and r["who"] == who
        return r["ratios"][tier][1] if mine and r.get("ratios") else None

    return ratio


LOOP, LOADER = "hand-written loop", "loop over a DataLoader"
AROUND, CALLS = "schedule + clip + AdamW + EMA + zero", "torch's five calls"
RESNET, LARGE = "300 tensors, 5.2 M", "1 x 16 M"
TARGETS = [
    Target("AdamW, 1,000 × 8", 40, step("AdamW step", "1,000 x 8", "torch fused")),
    Target("AdamW, 160 × 64", 20, step("AdamW step", "160 x 64", "torch fused")),
    Target("AdamW, 400 × 1,000", 6, step("AdamW step", "400 x 1,000", "torch fused")),
    Target("AdamW, a ResNet-sized list", 1.35, step("AdamW step", RESNET, "torch fused")),
    Target("AdamW, 16 M", 1.05, step("AdamW step", LARGE, "torch fused")),
    Target("SGD, a ResNet-sized list", 1.35, step("SGD step", RESNET, "torch fused")),
    Target("SGD, 16 M", 1.05, step("SGD step", LARGE, "torch fused")),
    Target("everything around AdamW, 160 × 64", 30, step(AROUND, "160 x 64", CALLS)),
    Target("everything around AdamW, a ResNet-sized list", 1.8, step(AROUND, RESNET, CALLS)),
    Target("everything around AdamW, 16 M", 1.8, step(AROUND, LARGE, CALLS)),
    Target("scheduler.step(), 1 group", 3, step("scheduler.step()", "1 group, CosineAnnealingLR", "torch")),
    Target("scheduler.step(), 64 groups", 6, step("scheduler.step()", "64 groups, CosineAnnealingLR", "torch")),
    Target("values(1,000,000) of a cosine", 2, step("values(1,000,000) of a cosine", "1 thread", "NumPy")),
    *(Target(f"landscape, exact tier, {net}, the loop", 1, plane(net, LOOP, "exact")) for net in ("MLP", "LeNet-5", "ResNet-20")),
    Target("landscape, rounding tier, MLP, the loop", 2, plane("MLP", LOOP, "rounding")),
    Target("landscape, rounding tier, LeNet-5, the loop", 1.3, plane("LeNet-5", LOOP, "rounding")),
    Target("landscape, rounding tier, ResNet-20, the loop", 1.25, plane("ResNet-20", LOOP, "rounding")),
    Target("landscape, rounding tier, MLP, a DataLoader loop", 10, plane("MLP", LOADER, "rounding")),
    Target("landscape, two processes of one thread, one process", 1.7, beginning("landscape grid, two processes")),
]  # fmt: skip


def target_table(conditions: dict[str, Any], rows: list[Row]) -> str:
    """What was reached, by number of threads."""
    lines = [
        f"Ratios of the peer's time to ours, {conditions['cpu']}, commit {conditions['commit']}:\n",
        "| what | target | reached, by threads | |",
        "|---|---:|---:|---|",
    ]
    for target in TARGETS:
        found = [(row["threads"], ratio) for row in rows if (ratio := target.ratio(row)) is not None]
        cells = " / ".join(f"{ratio:.2f}" for _, ratio in sorted(found)) or "not measured"
        short = [threads for threads, ratio in found if ratio < target.bound]
        verdict = "met" if found and not short else "–" if not found else "short"
        if short and len(short) < len(found):
            verdict = f"short with {', '.join(f'{n} thread' + 's' * (n > 1) for n in sorted(short))}"
        lines.append(f"| {target.what} | ≥ {target.bound:g} | {cells} | {verdict} |")
    return "\n".join(lines)
