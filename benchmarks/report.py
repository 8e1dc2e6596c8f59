"""Write the README's tables from what is committed: benchmark results and the optimizer registry. No number is typed."""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from report_landscape import landscape_tables
from report_numbers import bold_ratio, duration
from report_range import range_tables
from report_targets import target_table

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"


def results_with(condition: str) -> list[tuple[Path, dict[str, Any]]]:
    """The committed results that have this condition."""
    read = [(path, json.loads(path.read_text())) for path in sorted(RESULTS.glob("*.json"))]
    return [(path, data) for path, data in read if condition in data["conditions"]]


def ratio_cell(row: dict[str, Any]) -> str:
    """The ratio of a row."""
    low, high = row["ratio_quartiles"]
    return bold_ratio(low, row["ratio"], high)


def cpu_tables() -> str:
    """One table per machine."""
    parts = []
    for path, data in results_with("cpu"):
        c = data["conditions"]
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
        compact = [row for row in data["rows"] if row.get("table") == "optimizers"]
        for row in data["rows"]:
            if row.get("table"):
                continue
            extra = f" ({row['bandwidth_share']:.0%} of copy bandwidth)" if "bandwidth_share" in row else ""
            if "points_per_second" in row:
                extra = f" ({row['points_per_second']:.3g} points/s)"
            lines.append(
                f"| {row['row']} | {row['case']} | {row['threads']} | {duration(row['ours_us'])}{extra} | {row['peer']} "
                f"| {duration(row['peer_us'])} | {ratio_cell(row)} |"
            )
        parts.append("\n".join(lines))
        if compact:
            parts.append("\n" + optimizer_rows(compact))
        if planes := [row for row in data["rows"] if row.get("table") == "landscape"]:
            parts.append("\n" + landscape_tables(planes))
    return "\n".join(parts) if parts else "not yet measured"


def optimizer_rows(rows: list[dict[str, Any]]) -> str:
    """All optimizers in one table: a line for each peer, a column for each case and number of threads."""
    columns = list(dict.fromkeys((row["case"], row["threads"]) for row in rows))
    found = {(row["row"], row["peer"], row["case"], row["threads"]): row for row in rows}
    plural = lambda n: f"{n} thread{'s' if n > 1 else ''}"  # noqa: E731
    lines = [
        "One step of every optimizer: how many times faster than the peer, in brackets our time and its share of copy "
        "bandwidth.\n",
        "| what | peer | " + " | ".join(f"{case}, {plural(threads)}" for case, threads in columns) + " |",
        "|---|---|" + "---:|" * len(columns),
    ]
    for what, peer in sorted(dict.fromkeys((row["row"], row["peer"]) for row in rows)):
        cells = [what, peer]
        for column in columns:
            row = found.get((what, peer, *column))
            cells.append("–" if row is None else speed(row))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def speed(row: dict[str, Any]) -> str:
    """The ratio, bold where thalweg is not slower, with our time and bandwidth."""
    ratio = f"{row['ratio']:.2f}"
    share = f", {row['bandwidth_share']:.0%}" if "bandwidth_share" in row else ""
    return f"{f'**{ratio}**' if row['ratio'] >= 1 else ratio} ({duration(row['ours_us'])}{share})"


SIGNS = {">=": "≥", "<=": "≤"}


def gpu_tables() -> str:
    """One part per GPU, or the plain statement that there is none."""
    parts = [
        gpu_conditions(path.name, data["conditions"]) + "\n\n" + gpu_table(data) for path, data in results_with("gpu")
    ]
    return "\n\n".join(parts) if parts else "Not yet measured on a GPU."


def gpu_state() -> str:
    """Where the CUDA side has run so far."""
    names = [data["conditions"]["gpu"] for _, data in results_with("gpu")]
    where = f"have run on {', '.join(names)}" if names else "have not yet run on a GPU"
    return f"The kernels are compiled by nvcc, tested in an emulated CUDA runtime (`make emulated-test`), and {where}."


def gpu_conditions(file: str, c: dict[str, Any]) -> str:
    """What a reader needs to judge the table below it."""
    asked = [f"{key} {value}" for key, value in c["nvidia_smi"].items() if key.startswith(("clocks", "power"))]
    return (
        f"{c['gpu']} ({c['gpus']} in the machine, {c['memory_gib']} GiB), driver {c['nvidia_smi'].get('driver_version', 'unknown')} "
        f"for CUDA {c['cuda_of_driver']}, built with CUDA {c['cuda_of_build']}; torch {c['torch']} with CUDA {c['cuda_of_torch']}, "
        f"Python {c['python']}; {c['host']}, {c['cores']} cores, {c['busy_share_before']:.0%} busy before; "
        f"{', '.join(asked) or 'clocks and power not known'}; measured {c['date']} at commit {c['commit']} "
        f"([JSON](benchmarks/results/{file})). Medians, ours and the peers by turns in one process; times on the device, the "
        "host's in brackets; launches are kernels of one call; a ratio above 1 means that thalweg is faster. Absolute targets are meant for an H200."
    )


def gpu_table(data: dict[str, Any]) -> str:
    """The rows of one GPU with their targets, then what was not measured and why."""
    lines = [
        "| what | case | thalweg | launches | peer | peer's time | launches | ratio | target |",
        "|---|---|---:|---:|---|---:|---:|---:|---|",
    ]
    missing = []
    for row in data["rows"]:
        if row["status"] != "measured":
            peer = f" against {row['peer']}" if "peer" in row else ""
            missing.append(f"- {row['row']}, {row['case']}{peer}: {row['status']} ({row.get('reason', 'time was up')})")
            continue
        extra = f", {row['bandwidth_share']:.0%} of copy bandwidth" if "bandwidth_share" in row else ""
        if "points_per_second" in row:
            plane = duration(row["projected_minutes"] * 60e6)
            extra = f", {row['points_per_second']:,.0f} points/s, 51 × 51 in {plane}"
        ours = [row["row"], row["case"], gpu_time(row, "ours") + extra, str(row["ours_launches"])]
        peer = ["–"] * 4  # where nobody else has it
        if "peer" in row:
            peer = [row["peer"], gpu_time(row, "peer"), str(row["peer_launches"]), ratio_cell(row)]
        lines.append(f"| {' | '.join([*ours, *peer, verdicts(row)])} |")
    return "\n".join(lines) + ("\n\nNot measured:\n\n" + "\n".join(missing) if missing else "")


def gpu_time(row: dict[str, Any], who: str) -> str:
    """Time on the device, and the host's per call where a call has one."""
    host = row[f"{who}_host_us"]
    return duration(row[f"{who}_us"]) + ("" if host is None else f" ({duration(host)})")


def verdicts(row: dict[str, Any]) -> str:
    """Each target of this row: met or missed, and what it was."""
    parts = []
    for target in row["targets"]:
        words = target["figure"].removeprefix("ours_").replace("us", "µs").replace("_", " ")
        met = "met" if target["met"] else f"**missed** ({target['value']:.3g})"
        parts.append(f"{words} {SIGNS[target['sign']]} {target['bound']:g}: {met}")
    return "; ".join(parts) or "–"


def optimizer_table() -> str:
    """The registry's optimizers: when to use each, its state, its source; the words are those of the docstrings."""
    import thalweg as tw

    classes = {c.core_name: c for c in vars(tw.optim).values() if hasattr(c, "core_name")}
    lines = ["| algorithm | when to use it | state | source |", "|---|---|---:|---|"]
    for name, info in tw._core.optimizers().items():
        doc = inspect.getdoc(classes[name]) or ""
        lines.append(f"| `{classes[name].__name__}` | {when(doc)} | {state_bytes(info)} | {sources(doc)} |")
    return "\n".join(lines)


def schedule_table() -> str:
    """Every constructor with the first sentence, the formula and the source of its docstring, by module."""
    import inspect

    from thalweg import schedules as tws

    others = {name: getattr(tws, name) for name in ("one_cycle", "from_callable", "Plateau", "Greedy")}
    lines = ["| constructor | what it is | formula | source |", "|---|---|---|---|"]
    families: dict[str, list[str]] = {}
    for name, made in {**tws.CONSTRUCTORS, **others}.items():
        doc = inspect.getdoc(made) or ""
        words, _, formula = doc.partition("\n")[0].rstrip(".").partition(": :math:")
        formula = (re.search(r":math:(`[^`]*`)", doc) or re.search(r"\.\. math:: ((?:.+\n)+)", doc) or [doc, ""])[1]
        formula = " ".join(formula.strip("`").split()).replace("|", r"\vert ")
        source = doc.partition("References:")[2]
        cells = [f"`{name}`", re.sub(r":math:(`[^`]*`)", r"$\1$", words), f"$`{formula}`$" if formula else "–"]
        source = re.sub(r"arXiv (\d{4}\.\d{4,5})", r"[arXiv \1](https://arxiv.org/abs/\1)", " ".join(source.split()))
        cells.append(source.rstrip(".") or "–")
        families.setdefault(made.__module__.rpartition(".")[2], []).append(f"| {' | '.join(cells)} |")
    for family in ("shapes", "decays", "piecewise", "restarts", "cycles", "one_cycle", "wsd", "warmup", "noise"):
        lines += families.pop(family)
    return "\n".join([*lines, *(line for rest in families.values() for line in rest)])


def section(doc: str, name: str) -> str:
    """The text of a docstring's section, in one line."""
    found = re.search(rf"^{name}:\n((?:[ ]+.*\n?|\n)+)", doc, flags=re.MULTILINE)
    if found is None:
        raise SystemExit(f"report: expected a section {name!r} in the docstring that begins with {doc[:60]!r}")
    return " ".join(found.group(1).split())


def when(doc: str) -> str:
    """The first clause of the section Use."""
    return re.split(r"[;:.](?: |$)", section(doc, "Use"), maxsplit=1)[0]


def state_bytes(info: dict[str, Any]) -> str:
    """Of the tensors that are kept for a float32 parameter; from the least to the most that its options make it keep."""
    counts = [4 * len(kept) for kept in info["variants"]]
    return f"{min(counts)}–{max(counts)}" if min(counts) < max(counts) else f"{counts[0]}"


def sources(doc: str) -> str:
    """Authors with arXiv number or year of every reference; the numbers are links."""
    parts = []
    # A reference begins with the authors' names and a colon.
    for reference in re.split(r"(?<=\.) (?=[A-Z][\w-]+(?:, [A-Z][\w-]+)*: )", section(doc, "References")):
        names = reference.split(":", 1)[0].split(", ")
        who = " & ".join(names) if len(names) <= 2 else f"{names[0]} et al."
        number, years = re.search(r"\d{4}\.\d{4,5}", reference), re.findall(r"\b(?:19|20)\d\d\b", reference)
        if number is None and not years:
            raise SystemExit(f"report: expected an arXiv number or a year in the reference {reference!r}")
        parts.append(f"{who} [{number[0]}](https://arxiv.org/abs/{number[0]})" if number else f"{who} {years[-1]}")
    return ", ".join(parts)


def target_tables() -> str:
    """One table per machine."""
    tables = [target_table(data["conditions"], data["rows"]) for _, data in results_with("cpu")]
    return "\n\n".join(tables) or "not yet measured"


SECTIONS = {
    "cpu": cpu_tables,
    "gpu": gpu_tables,
    "gpu-state": gpu_state,
    "optimizers": optimizer_table,
    "range-test": range_tables,
    "schedules": schedule_table,
}


MEASURED = {"targets": target_tables}  # sections of benchmarks/README.md


def render(text: str, sections: Mapping[str, Callable[[], str]] = SECTIONS) -> str:
    """A README with every generated section renewed."""
    for name, build in sections.items():
        pattern = rf"(<!-- generated: {name} -->\n).*?(<!-- end: {name} -->)"
        text, count = re.subn(pattern, lambda m, b=build: m.group(1) + b() + "\n" + m.group(2), text, flags=re.DOTALL)
        if count != 1:
            raise SystemExit(f"report: expected one section called {name}, found {count}")
    return text


def main() -> int:
    """Write, or with --check compare."""
    changed = False
    for readme, sections in ((ROOT / "README.md", SECTIONS), (Path(__file__).parent / "README.md", MEASURED)):
        before = readme.read_text()
        after = render(before, sections)
        changed |= before != after
        if "--check" not in sys.argv[1:]:
            readme.write_text(after)
    return int(changed and "--check" in sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
