"""Write the README's tables from what is committed: benchmark results and the optimizer registry. No number is typed."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"


def duration(microseconds: float) -> str:
    """A time as people read it."""
    for unit, factor in (("s", 1e6), ("ms", 1e3)):
        if microseconds >= factor:
            return f"{microseconds / factor:.3g} {unit}"
    return f"{microseconds:.3g} µs"


def cpu_tables() -> str:
    """One table per machine."""
    parts = []
    for path in sorted(RESULTS.glob("*.json")):
        data: dict[str, Any] = json.loads(path.read_text())
        c = data["conditions"]
        if "cpu" not in c:
            continue
        parts.append(
            f"{c['cpu']}, {c['cores']} cores, {c['isa']}; torch {c['torch']}, Python {c['python']}; measured {c['date']} at "
            f"commit {c['commit']} with the cores {c['busy_share_before']:.0%} busy before "
            f"([JSON](benchmarks/results/{path.name})). Medians, ours and the peer by turns in one process; a ratio above "
            "1 means that thalweg is faster; in brackets the quartiles of the rounds.\n"
        )
        lines = [
            "| what | case | threads | thalweg | peer | peer's time | ratio |",
            "|---|---|---:|---:|---|---:|---:|",
        ]
        for row in data["rows"]:
            extra = f" ({row['bandwidth_share']:.0%} of copy bandwidth)" if "bandwidth_share" in row else ""
            if "points_per_second" in row:
                extra = f" ({row['points_per_second']:.3g} points/s)"
            ratio = f"**{row['ratio']:.2f}**" if row["ratio"] >= 1 else f"{row['ratio']:.2f}"
            low, high = row["ratio_quartiles"]
            lines.append(
                f"| {row['row']} | {row['case']} | {row['threads']} | {duration(row['ours_us'])}{extra} | {row['peer']} "
                f"| {duration(row['peer_us'])} | {ratio} ({low:.2f}–{high:.2f}) |"
            )
        parts.append("\n".join(lines))
    return "\n".join(parts) if parts else "not yet measured"


def gpu_tables() -> str:
    """GPU results, or the plain statement that there are none."""
    found = [p for p in RESULTS.glob("*.json") if "gpu" in json.loads(p.read_text())["conditions"]]
    return "\n".join(f"See {p.name}." for p in found) if found else "Not yet measured on a GPU."


def optimizer_table() -> str:
    """The registry with torch's names and the bytes of state per float32 parameter."""
    from thalweg import _core

    papers = {
        "sgd": ("SGD", "momentum, dampening, Nesterov, L2", "Sutskever et al. 2013"),
        "adam": ("Adam", "AMSGrad, L2", "1412.6980, 1904.09237"),
        "adamw": ("AdamW", "AMSGrad, decoupled decay", "1711.05101"),
    }
    lines = ["| class | options | source | state tensors |", "|---|---|---|---|"]
    for name, info in sorted(_core.optimizers().items()):
        title, options, paper = papers[name]
        lines.append(f"| `thalweg.optim.{title}` | {options} | {paper} | {', '.join(info['state_names'])} |")
    return "\n".join(lines)


SECTIONS = {"cpu": cpu_tables, "gpu": gpu_tables, "optimizers": optimizer_table}


def render(text: str) -> str:
    """The README with every generated section renewed."""
    for name, build in SECTIONS.items():
        pattern = rf"(<!-- generated: {name} -->\n).*?(<!-- end: {name} -->)"
        text, count = re.subn(pattern, lambda m, b=build: m.group(1) + b() + "\n" + m.group(2), text, flags=re.DOTALL)
        if count != 1:
            raise SystemExit(f"report: expected one section called {name} in README.md, found {count}")
    return text


def main() -> int:
    """Write, or with --check compare."""
    readme = ROOT / "README.md"
    before = readme.read_text()
    after = render(before)
    if "--check" in sys.argv[1:]:
        return int(before != after)
    readme.write_text(after)
    return 0


if __name__ == "__main__":
    sys.exit(main())
