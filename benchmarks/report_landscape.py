"""The README's tables of the landscape: one for each network and number of threads, ours and all others by speed."""

from __future__ import annotations

from typing import Any

from report_numbers import bold_ratio, duration

GRID = 51 * 51  # points of the plane of the landscape paper


def landscape_tables(rows: list[dict[str, Any]]) -> str:
    """All of them, and what was not measured."""
    parts = [
        "Landscape planes. Points per second, each at its own best settings, all by turns in one process; what a run "
        "of ours prepares is in every call. The error is the largest difference of a loss to its float64 value, relative. "
        "Ratios: how many times faster each tier of ours is.\n"
    ]
    measured = [row for row in rows if "absent" not in row]
    for case, threads in dict.fromkeys((row["case"], row["threads"]) for row in measured):
        parts.append(f"{case}, {_threads(threads)}:\n")
        parts.append(_table([row for row in measured if (row["case"], row["threads"]) == (case, threads)]) + "\n")
    if absent := [row for row in rows if "absent" in row]:
        parts.append("Not measured:\n")
        parts += [f"- {row['who']}, {row['case']}, {_threads(row['threads'])}: {row['absent']}" for row in absent]
    return "\n".join(parts).rstrip("\n")


def rate(value: float) -> str:
    """Points per second."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count > 1 else ''}"


def _table(rows: list[dict[str, Any]]) -> str:
    """One network and number of threads."""
    lines = [
        "| who | points/s | 51 × 51 takes | error | exact tier | rounding tier | |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    for row in rows:
        cells = [row["who"], rate(row["points_per_second"]), duration(row["point_us"] * GRID), f"{row['error']:.1e}"]
        cells += [bold_ratio(*row["ratios"][tier]) if row["ratios"] else "–" for tier in ("exact", "rounding")]
        lines.append(f"| {' | '.join([*cells, row['note']])} |")
    return "\n".join(lines)
