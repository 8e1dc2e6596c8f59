"""The options of `thalweg landscape run` and `merge`. Knows what they may be and nothing of what they do."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any

from ..landscape._evaluation import BN_MODES
from ..landscape._norms import LI2018_NORMS, NORMS
from ..landscape.directions import STYLES
from ..landscape.engines.approximate import PRECISIONS
from ..landscape.engines.tiers import IMPLEMENTATIONS, TIERS

_DESCRIPTION = """\
Example, with a file nets.py in the current directory that has trained() -> model and digits() -> (inputs, targets):
  thalweg landscape run --model nets:trained --data nets:digits --metrics loss,accuracy --out surface.npz
Several processes, also after one was killed:
  torchrun --nproc-per-node 4 -m thalweg landscape run ... --resume run.sqlite --out surface.npz"""


class AxisParser(argparse.ArgumentParser):
    """Takes `--x -1:1:51`, which argparse would read as two options."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """See argparse."""
        joined: list[str] = []
        for word in sys.argv[1:] if args is None else args:
            if joined and joined[-1] in ("--x", "--y", "--z") and re.match(r"-[\d.]", word):
                joined[-1] += f"={word}"
            else:
                joined.append(word)
        return super().parse_known_args(joined, namespace)


def add_parsers(actions: argparse._SubParsersAction[AxisParser]) -> None:
    """Add `run` and `merge`."""
    parser = actions.add_parser(
        "run",
        help="evaluate a model on a line, a grid or a volume",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_what(parser)
    _add_where(parser)
    _add_how(parser)
    merge = actions.add_parser("merge", help="join the journals of one run that several processes wrote")
    merge.add_argument("files", nargs="+", type=Path, metavar="A.sqlite")
    merge.add_argument("--out", type=Path, required=True, metavar="RUN.sqlite", help="new file, for --resume")


def _add_what(parser: argparse.ArgumentParser) -> None:
    group, own = parser.add_argument_group("what is evaluated"), "module:callable"
    group.add_argument("--model", required=True, metavar=own, help="called without arguments, gives the model")
    group.add_argument("--data", required=True, metavar=own, help="gives (inputs, targets), a data set or a loader")
    group.add_argument(
        "--loss", default="cross_entropy", help="a name such as mse, or module:callable (default: %(default)s)"
    )
    group.add_argument("--metrics", default="loss", help="names or module:callable, by commas (default: %(default)s)")
    group.add_argument(
        "--bn", choices=BN_MODES, default="interpolate", help="BatchNorm's statistics (default: %(default)s)"
    )
    group.add_argument("--train-mode", action="store_true", help="with Dropout at work, the same at every point")


def _add_where(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("where")
    group.add_argument("--x", type=_axis, default=(-1.0, 1.0, 51), metavar="FIRST:LAST:N", help="default: -1:1:51")
    group.add_argument("--y", type=_axis, default=None, metavar="FIRST:LAST:N", help="absent or none: a line along x")
    group.add_argument("--z", type=_axis, default=None, metavar="FIRST:LAST:N", help="a volume, .npz of planes along z")
    group.add_argument("--refine", type=float, metavar="TOLERANCE", help="of a grid: only where the loss differs by more from what the points around say")  # fmt: skip
    group.add_argument(
        "--norm", choices=sorted({*NORMS, *LI2018_NORMS}), default="filter",
        help="of the random directions (default: %(default)s)",
    )  # fmt: skip
    group.add_argument("--style", choices=STYLES, default="paper", help="li2018: as that paper's code has it")
    group.add_argument("--seed", type=int, default=0, help="of the directions, and of what model and data draw")
    group.add_argument(
        "--ignore", default="bias_bn", help="parameters that stay: bias_bn (default), none, a regular expression"
    )


def _add_how(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how")
    group.add_argument(
        "--tier", choices=TIERS, default="exact",
        help="exact: the bits of plain torch (default); rounding: other roundings, faster; approximate: --precision",
    )  # fmt: skip
    group.add_argument("--precision", choices=PRECISIONS, help="of the approximate tier; its error is measured")
    group.add_argument(
        "--implementation", choices=IMPLEMENTATIONS, default="auto", help="of both tiers (default: the fastest)"
    )
    group.add_argument("--batch-size", type=_batch_size, metavar="N", help="samples per batch, or tune")
    group.add_argument("--memory-budget", type=_bytes, metavar="BYTES", help="for the data, such as 4G; larger data are read in every pass")  # fmt: skip
    group.add_argument(
        "--threads", type=int, metavar="N", help="torch's threads in each process; the bits depend on them"
    )
    group.add_argument("--device", choices=("cpu", "cuda"), help="default: where the model is")
    group.add_argument("--resume", type=Path, metavar="RUN.sqlite", help="written along the way; goes on from it")
    group.add_argument("--preview", type=Path, metavar="FILE.png", help="a picture so far, rewritten now and then")
    group.add_argument("--out", type=Path, metavar="SURFACE.npz", help="the result")
    group.add_argument("--json", action="store_true", help="facts of the result as JSON")


def _axis(text: str) -> tuple[float, float, int] | None:
    if text == "none":
        return None
    try:
        first, last, number = text.split(":")
        return float(first), float(last), int(number)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected first:last:number such as -1:1:51, got {text!r}") from None


def _batch_size(text: str) -> int | str:
    if text == "tune":
        return text
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number of samples or tune, got {text!r}") from None


def _bytes(text: str) -> int:
    """512M, 4G, 1.5GiB or a plain number of bytes; the units are powers of 1024."""
    found = re.fullmatch(r"(\d+(?:\.\d*)?)\s*([kmgt]?)(?:i?b)?", text.strip().lower())
    if found is None:
        raise argparse.ArgumentTypeError(f"expected bytes such as 512M or 4G, got {text!r}")
    return int(float(found[1]) * 1024 ** " kmgt".index(found[2] or " "))
