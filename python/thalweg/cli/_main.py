"""Parses the command line, runs a subcommand, turns errors into one line and an exit code (0, 1, 2)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from .. import _core
from . import demo, info, landscape, schedule

_COMMANDS = (demo, info, schedule, landscape)


def build_parser() -> argparse.ArgumentParser:
    """The parser of all subcommands."""
    parser = argparse.ArgumentParser(
        prog="thalweg",
        description="Schedules, fused optimizers, snapshot ensembles and loss landscapes.",
    )
    parser.add_argument("--version", action="version", version=f"thalweg {_core.__version__}")
    parser.add_argument("--debug", action="store_true", help="show the whole traceback of an error")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in _COMMANDS:
        command.add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns 0, 1 for an error, 2 for wrong usage (as argparse), 130 for Ctrl-C."""
    args = build_parser().parse_args(argv)
    try:
        return int(args.run(args))
    except KeyboardInterrupt:
        print("thalweg: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output is gone, e.g. `thalweg … | head`
        return 1
    except (OSError, ValueError, TypeError, RuntimeError, ImportError) as error:
        if args.debug:
            raise
        print(f"thalweg {args.command}: error: {error}", file=sys.stderr)
        return 1
