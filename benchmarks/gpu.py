"""All GPU rows: ours and the peers by turns in one process, results compared first; JSON with the conditions, a table.

`--dry-run` goes the same way with tiny sizes on whatever there is, so that this cannot rot where no GPU is.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gpu_ensemble
import gpu_landscape
import gpu_steps
import gpu_training
from gpu_conditions import conditions
from gpu_measure import Session
from gpu_rows import Row, run_row
from report import gpu_table
from run import result_file

GOOD = ("measured", "checked", "absent")  # an absent row says what is missing; that is no failure


def all_rows(quick: bool) -> list[Row]:
    """Every row, in the order of the table."""
    return [*gpu_steps.rows(), *gpu_training.rows(), *gpu_ensemble.rows(), *gpu_landscape.rows(quick)]


def write(path: Path, data: dict[str, Any]) -> None:
    """Replace the file at once: a run that is ended leaves what it had measured."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".part")
    draft.write_text(json.dumps(data, indent=1) + "\n")
    draft.replace(path)


def targets_for(facts: dict[str, Any], out: str | None) -> list[Path]:
    """The result file, and its copy in the folder OUT where that is set."""
    path = Path(out) if out else result_file(facts["gpu"])
    copy = os.environ.get("OUT")
    return [path, Path(copy) / path.name] if copy else [path]


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="GPU benchmarks of thalweg against torch and others")
    parser.add_argument("--quick", action="store_true", help="shorter measurements: ratios good to a few percent")
    parser.add_argument("--dry-run", action="store_true", help="tiny sizes, nothing written, also without a GPU")
    parser.add_argument("--only", default="", metavar="TEXT", help="rows whose key holds TEXT")
    parser.add_argument("--out", metavar="FILE", help="result file; default benchmarks/results/<gpu>.json")
    parser.add_argument(
        "--limit", type=float, default=1e9, metavar="SECONDS", help="begin no row after so many seconds"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the rows; 1 when a row failed, gave a wrong result, ran out of memory or was not reached, 2 without a GPU."""
    started = time.monotonic()
    options = arguments(argv)
    session = Session(options.dry_run, seconds=0.3 if options.quick else 1.0)
    if not (session.cuda or session.dry):
        print(
            "gpu: expected a CUDA device that torch and thalweg can use, found none; --dry-run needs none",
            file=sys.stderr,
        )
        return 2
    data: dict[str, Any] = {"conditions": {} if session.dry else conditions(), "rows": []}
    files = [] if session.dry else targets_for(data["conditions"], options.out)
    for row in all_rows(options.quick):
        if options.only not in row.key:
            continue
        if time.monotonic() - started > options.limit:
            results = [{"key": row.key, "row": row.what, "case": row.case, "status": "not reached"}]
        else:
            results = run_row(session, row)
        data["rows"] += results
        for result in results:
            print(line(result), flush=True)
        for file in files:
            write(file, data)
    if not session.dry:
        print("\n" + gpu_table(data))
        print("\n".join(f"wrote {file}" for file in files))
    bad = [result for result in data["rows"] if result["status"] not in GOOD]
    print(f"{len(data['rows'])} results, {len(bad)} of them not good, {time.monotonic() - started:.0f} s")
    return int(bool(bad) or not data["rows"])


def line(result: dict[str, Any]) -> str:
    """One result while the run goes on."""
    text = f"{result['status']}: {result['row']}, {result['case']}"
    if "peer" in result:
        text += f" against {result['peer']}"
    if "ratio" in result:
        text += f": {result['ratio']:.2f}x"
    return text + (f": {result['reason']}" if "reason" in result else "")


if __name__ == "__main__":
    sys.exit(main())
