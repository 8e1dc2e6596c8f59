"""`thalweg demo`: the whole story on real data, into a directory."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ._stop import stoppable

_DESCRIPTION = """\
Trains small convolutional nets on the handwritten digits that come with scikit-learn (nothing is downloaded), once with
the labels as they are and once with 20% of the training labels re-drawn. Range test, five schedules under one budget,
snapshot ensembles, loss landscapes, a saddle, the cost of a step. Writes report.html (self-contained, interactive),
results.json and PNG figures."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `demo`."""
    parser = subparsers.add_parser(
        "demo",
        help="the whole story on real data: report, numbers, figures",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help="directory to write to; absent or empty")
    parser.add_argument(
        "--seeds",
        type=int,
        metavar="N",
        help="paired repetitions of all runs (default: 6; fixed, so the numbers do not depend on the machine's speed; "
        "each takes about 16 s of one core)",
    )
    parser.add_argument("--full", action="store_true", help="10 repetitions instead of 6")
    parser.add_argument("--overwrite", action="store_true", help="write into a directory that is not empty")
    parser.add_argument("--quick", action="store_true", help=argparse.SUPPRESS)  # tiny, for tests
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the demo and say where the report is."""
    from ..demo import run_demo

    budget = "smoke" if args.quick else "full" if args.full else "default"
    with stoppable():
        results = run_demo(args.out, seeds=args.seeds, budget=budget, overwrite=args.overwrite)
    print(table(results))
    print(f"\n{results['timings']['total_seconds']:.0f} s. Open the report: {args.out / 'report.html'}")
    return 0


def table(results: dict[str, Any]) -> str:
    """Return a short table of the results: error and NLL on the test images, means over seeds."""
    from ..demo.config import SETTING_TITLES, SETTINGS
    from ..demo.runs import TITLES
    from ..demo.stats import mean_se

    width = max(map(len, TITLES.values())) + 2
    seeds = results["config"]["seeds"]
    lines = [
        f"test error and NLL, mean of {seeds} seed{'' if seeds == 1 else 's'}",
        " " * width + "".join(f"{SETTING_TITLES[setting]:>34}" for setting in SETTINGS),
    ]
    for method in results["methods"][SETTINGS[0]]:
        cells = []
        for setting in SETTINGS:
            values = results["methods"][setting][method]
            error, nll = mean_se(values["error"])[0], mean_se(values["nll"])[0]
            cells.append(f"{100 * error:>24.2f} %  {nll:.4f}")
        lines.append(f"{TITLES[method]:<{width}}" + "".join(f"{cell:>34}" for cell in cells))
    return "\n".join(lines)
