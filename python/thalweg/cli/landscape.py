"""`thalweg landscape`: pictures and facts of saved landscapes; `landscape_run` makes them."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from .._files import write_whole
from ..landscape import Line, Points, Surface, Volume, load
from ..landscape._journal_file import is_journal
from . import landscape_options, landscape_run

_KINDS: dict[type, tuple[str, ...]] = {
    Surface: ("contour", "surface", "heatmap"),
    Line: ("line",),
    Volume: ("slices",),
}  # the first one is the default


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the actions of `landscape`."""
    parser = subparsers.add_parser("landscape", help="evaluate, draw or describe a loss landscape")
    actions = parser.add_subparsers(
        dest="action", required=True, metavar="ACTION", parser_class=landscape_options.AxisParser
    )
    landscape_options.add_parsers(actions)
    plot = actions.add_parser("plot", help="draw an .npz file")
    plot.add_argument("file", type=Path, help="a saved .npz")
    plot.add_argument("--out", type=Path, required=True, help=".png, .svg, .pdf, or .html for an interactive page")
    plot.add_argument(
        "--kind",
        choices=[kind for kinds in _KINDS.values() for kind in kinds],
        help="default: contour of a surface, slices of a volume",
    )
    plot.add_argument("--metric", default="loss", help="which metric (default: loss)")
    info = actions.add_parser("info", help="say what an .npz file or a journal holds")
    info.add_argument("file", type=Path, help="a saved .npz, or .sqlite of a run")
    info.add_argument("--json", action="store_true", help="machine-readable output")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Evaluate, join, draw or describe."""
    if args.action == "run":
        made = landscape_run.evaluate(args)
        return _info(_facts(made), args.json, args.out) if landscape_run.is_first() else 0
    if args.action == "merge":
        landscape_run.merge(args.files, args.out)
        return 0
    if args.action == "info" and is_journal(args.file):
        return _info(landscape_run.journal_facts(args.file), args.json)
    result = load(args.file)
    if args.action == "info":
        return _info(_facts(result), args.json)
    return _plot(args, result)


def _plot(args: argparse.Namespace, result: Points | Line | Surface | Volume) -> int:
    if isinstance(result, Points):
        raise ValueError(f"landscape plot: {args.file} holds single points; lines, surfaces and volumes are drawn")
    if args.metric not in result.values:
        raise ValueError(f"landscape plot: metric must be one of {', '.join(result.values)}, got {args.metric!r}")
    kinds = _KINDS[type(result)]
    kind = args.kind or kinds[0]
    if kind not in kinds:
        raise ValueError(f"landscape plot: {args.file} holds a {type(result).__name__.lower()}, not a {kind}")
    if args.out.suffix == ".html":
        if isinstance(result, Volume):
            raise ValueError("landscape plot: a volume is drawn as .png, .svg or .pdf, not as .html")
        if isinstance(result, Line):
            result.to_html(args.out)
        else:
            result.to_html(args.out, args.metric)
    else:
        drawn = getattr(result.plot, kind)(metric=args.metric)
        figure = (drawn[0] if isinstance(drawn, list) else drawn).figure
        kind_of_file = args.out.suffix.removeprefix(".") or "png"
        write_whole("landscape plot", args.out, lambda file: figure.savefig(file, format=kind_of_file))
    print(f"wrote {args.out}")
    return 0


def _facts(result: Points | Line | Surface | Volume) -> dict[str, Any]:
    shape = list(next(iter(result.values.values())).shape)
    finite = {name: v[np.isfinite(v)] for name, v in result.values.items()}
    ranges = {name: [float(v.min()), float(v.max())] if v.size else None for name, v in finite.items()}
    return {"kind": type(result).__name__.lower(), "shape": shape, "ranges": ranges, "metadata": result.metadata}


def _info(facts: dict[str, Any], as_json: bool, wrote: Path | None = None) -> int:
    if as_json:
        print(json.dumps(facts, indent=2))
        return 0
    if "shape" in facts:
        print(f"{facts['kind']} of shape {' x '.join(map(str, facts['shape']))}")
    else:
        print(f"{facts['kind']}: {facts['done']} of {facts['points']} points")
    for name, span in facts.get("ranges", {}).items():
        print(f"  {name}: {'no finite value' if span is None else f'{span[0]:.6g} … {span[1]:.6g}'}")
    for key, value in facts["metadata"].items():
        print(f"  {key}: {value}")
    if wrote is not None:
        print(f"wrote {wrote}")
    return 0
