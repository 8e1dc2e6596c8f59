"""The README's tables: of all optimizers from the registry and the docstrings, of their times from results."""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

import thalweg as tw

FOLDER = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(FOLDER))
try:
    report = importlib.import_module("report")
finally:
    sys.path.remove(str(FOLDER))

REGISTRY = tw._core.optimizers()


def optimizer_lines() -> dict[str, list[str]]:
    """Name of the class -> the other cells."""
    lines = report.optimizer_table().splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {name.strip("`"): rest for name, *rest in cells}


def test_every_optimizer_has_its_line() -> None:
    found = optimizer_lines()
    assert list(found) == [
        next(n for n, c in vars(tw.optim).items() if getattr(c, "core_name", None) == core) for core in REGISTRY
    ]
    for name, (when, state, source) in found.items():
        assert 10 < len(when) < 140, f"{name}: {when!r} does not say in a few words when to use it"
        assert re.fullmatch(r"\d+(–\d+)?", state), name
        assert re.search(r"\w\.? (\[\d{4}\.\d{4,5}\]\(https://arxiv\.org/abs/[\d.]+\)|\d{4})$", source), (name, source)


def test_cells_of_some_lines() -> None:
    found = optimizer_lines()
    assert [found[name][1] for name in ("SGD", "AdamW", "Lion", "Adan", "ASGD")] == ["0–4", "8–12", "4", "16", "4"]
    assert found["ASGD"][2] == "Polyak & Juditsky 1992, Bottou 2010"
    assert found["Lion"][2] == "Chen et al. [2302.06675](https://arxiv.org/abs/2302.06675)"
    assert found["RAdam"][0] == "Instead of Adam with a warm-up"


def test_a_docstring_without_its_section_is_named() -> None:
    with pytest.raises(SystemExit, match="expected a section 'Use' in the docstring that begins with 'Nothing"):
        report.when("Nothing to see.\n\nArgs:\n    params: Some.\n")
    with pytest.raises(SystemExit, match="expected an arXiv number or a year"):
        report.sources("References:\n    Somebody: A paper.\n")


def result(row: str, threads: int, ratio: float, **more: Any) -> dict[str, Any]:
    times = {"ours_us": 2000.0, "peer_us": 2000.0 * ratio, "ratio": ratio, "ratio_quartiles": [ratio, ratio]}
    return {"row": row, "case": "1 x 10 M", "threads": threads, "peer": "torch foreach", **times, **more}


def test_times_of_all_optimizers_stand_in_a_table_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    facts = {
        "cpu": "A CPU", "cores": 2, "isa": "avx2", "torch": "9.9", "python": "3.12", "date": "2001-02-03",
        "commit": "abc", "busy_share_before": 0.0,
    }  # fmt: skip
    rows = [
        result("AdamW step", 1, 1.5),
        result("Lion step", 1, 3.0, table="optimizers", bandwidth_share=0.9),
        result("Lion step", 2, 0.5, table="optimizers"),
        result("ASGD step", 2, 4.0, table="optimizers"),
    ]
    (tmp_path / "a-cpu.json").write_text(json.dumps({"conditions": facts, "rows": rows}))
    lines = report.cpu_tables().splitlines()
    assert sum(line.startswith("| Lion step") for line in lines) == 1
    assert "| what | peer | 1 x 10 M, 1 thread | 1 x 10 M, 2 threads |" in lines
    assert "| Lion step | torch foreach | **3.00** (2 ms, 90%) | 0.50 (2 ms) |" in lines
    assert "| ASGD step | torch foreach | – | **4.00** (2 ms) |" in lines
    assert sum(line.startswith("| AdamW step | 1 x 10 M | 1 | 2 ms |") for line in lines) == 1


def test_planes_stand_in_tables_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    plane = {"table": "landscape", "case": "MLP, 10,000 samples", "threads": 2, "note": "batch 9", "error": 3.14e-8}
    ours = {**plane, "who": "thalweg, exact tier", "points_per_second": 25.0, "point_us": 40_000.0, "ratios": {}}
    ratios = {"exact": [0.9, 0.99, 1.1], "rounding": [2.9, 3.0, 3.1]}
    loop = {**plane, "who": "a loop", "points_per_second": 1234.0, "point_us": 810.0, "ratios": ratios}
    gone = {"table": "landscape", "case": "MLP, 10,000 samples", "threads": 1, "who": "a package", "absent": "why"}
    facts = {
        "cpu": "A CPU", "cores": 2, "isa": "avx2", "torch": "9.9", "python": "3.12", "date": "2001-02-03",
        "commit": "abc", "busy_share_before": 0.0,
    }  # fmt: skip
    rows = [result("AdamW step", 1, 1.5), ours, loop, gone]
    (tmp_path / "a-cpu.json").write_text(json.dumps({"conditions": facts, "rows": rows}))
    lines = report.cpu_tables().splitlines()
    assert "MLP, 10,000 samples, 2 threads:" in lines
    assert "| thalweg, exact tier | 25 | 1.73 min | 3.1e-08 | – | – | batch 9 |" in lines
    assert "| a loop | 1,234 | 2.11 s | 3.1e-08 | 0.99 (0.90–1.10) | **3.00** (2.90–3.10) | batch 9 |" in lines
    assert "- a package, MLP, 10,000 samples, 1 thread: why" in lines
    assert sum("AdamW step" in line for line in lines) == 1
