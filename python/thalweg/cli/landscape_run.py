"""`thalweg landscape run` and `merge`: a landscape of the user's own model and data, alone or under torchrun."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from .. import landscape
from ..landscape import Line, Surface
from ..landscape._evaluation import BN_MODES
from ..landscape._norms import NORMS
from ..landscape.engines.tiers import TIERS
from ._stop import stoppable

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
            if joined and joined[-1] in ("--x", "--y") and re.match(r"-[\d.]", word):
                joined[-1] += f"={word}"
            else:
                joined.append(word)
        return super().parse_known_args(joined, namespace)


def add_parsers(actions: argparse._SubParsersAction[AxisParser]) -> None:
    """Add `run` and `merge`."""
    parser = actions.add_parser(
        "run",
        help="evaluate a model on a grid or a line",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    own = "module:callable"
    parser.add_argument("--model", required=True, metavar=own, help="called without arguments, gives the model")
    parser.add_argument("--data", required=True, metavar=own, help="gives (inputs, targets), a data set or a loader")
    parser.add_argument(
        "--loss", default="cross_entropy", help="a name such as mse, or module:callable (default: %(default)s)"
    )
    parser.add_argument("--x", type=_axis, default=(-1.0, 1.0, 51), metavar="FIRST:LAST:N", help="default: -1:1:51")
    parser.add_argument("--y", type=_axis, default=None, metavar="FIRST:LAST:N", help="absent or none: a line along x")
    parser.add_argument("--metrics", default="loss", help="names or module:callable, by commas (default: %(default)s)")
    parser.add_argument(
        "--norm", choices=NORMS, default="filter", help="of the random directions (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the directions, and of what model and data draw")
    parser.add_argument(
        "--ignore", default="bias_bn", help="parameters that stay: bias_bn (default), none, a regular expression"
    )
    parser.add_argument(
        "--bn", choices=BN_MODES, default="frozen", help="BatchNorm's statistics (default: %(default)s)"
    )
    parser.add_argument("--tier", choices=TIERS, default="exact", help="which bits are promised (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, metavar="N", help="samples per batch")
    parser.add_argument(
        "--threads", type=int, metavar="N", help="torch's threads in each process; the bits depend on them"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: where the model is")
    parser.add_argument("--resume", type=Path, metavar="RUN.sqlite", help="written along the way; goes on from it")
    parser.add_argument("--out", type=Path, metavar="SURFACE.npz", help="the result")
    parser.add_argument("--json", action="store_true", help="facts of the result as JSON")
    merge = actions.add_parser("merge", help="join the journals of one run that several processes wrote")
    merge.add_argument("files", nargs="+", type=Path, metavar="A.sqlite")
    merge.add_argument("--out", type=Path, required=True, metavar="RUN.sqlite", help="new file, for --resume")


def _axis(text: str) -> tuple[float, float, int] | None:
    if text == "none":
        return None
    try:
        first, last, number = text.split(":")
        return float(first), float(last), int(number)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected first:last:number such as -1:1:51, got {text!r}") from None


def evaluate(args: argparse.Namespace) -> Line | Surface:
    """The landscape that the arguments of `run` describe, alike in all processes; written by the first one.

    Raises:
        ValueError: An argument is not one that it can be.
    """
    if args.out is not None and args.out.suffix != ".npz":
        raise ValueError(f"landscape run: --out must end in .npz, got {args.out.name!r}")
    if args.x is None:
        raise ValueError("landscape run: --x must be first:last:number, got 'none'; leave --y out for a line")
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    random.seed(args.seed)
    np.random.seed(args.seed % 2**32)  # noqa: NPY002  # what the user's code may draw from
    model = _given("model", args.model)()
    if args.device is not None and isinstance(model, nn.Module):
        model = model.to(_device(args.device))
    loss = _given("loss", args.loss) if ":" in args.loss else args.loss
    ev = landscape.Evaluator(
        model,
        loss() if isinstance(loss, type) else loss,
        _given("data", args.data)(),
        metrics=[_given("metrics", name) if ":" in name else name for name in args.metrics.split(",")],
        batch_size=args.batch_size,
        bn=args.bn,
        tier=args.tier,
    )
    ignore = None if args.ignore == "none" else args.ignore
    number = 1 if args.y is None else 2
    directions = landscape.random_directions(model, number, norm=args.norm, seed=args.seed, ignore=ignore)
    keep = {"resume": args.resume, "share": int(os.environ.get("WORLD_SIZE", "1")) > 1}
    with stoppable():
        result = ev.line(directions, args.x, **keep) if args.y is None else ev.grid(directions, args.x, args.y, **keep)
    if args.out is not None and is_first():
        result.save(args.out)
    return result


def is_first() -> bool:
    """Whether this process speaks for all."""
    return os.environ.get("RANK", "0") == "0"


def merge(files: Sequence[Path], out: Path) -> None:
    """Join journals and say what they hold."""
    from ..landscape._journal import read

    content = read("landscape merge", landscape.merge(files, out))
    print(f"wrote {out}: {len(np.unique(content.indices))} of {content.header.points} points")


def journal_facts(path: Path) -> dict[str, Any]:
    """What `info` tells of a journal."""
    from ..landscape._journal import read

    content = read("landscape info", path)
    done = len(np.unique(content.indices))
    metadata = {**json.loads(content.header.identity), **content.told}
    return {"kind": "journal", "points": content.header.points, "done": done, "metadata": metadata}


def _device(kind: str) -> torch.device:
    """The device; among several CUDA devices that of this process."""
    if kind == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ValueError("landscape run: --device cuda, but torch finds no CUDA device; leave it out or use cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device


def _given(option: str, text: str) -> Any:
    """What `module:callable` names; the current directory counts as a place of modules."""
    module, _, path = text.partition(":")
    who = f"landscape run: --{option}"
    if not module or not path:
        raise ValueError(f"{who} must be module:callable such as nets:trained, got {text!r}")
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        value: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{who}: cannot import {module!r} ({error}); it must lie in the current directory or be installed"
        ) from None
    for name in path.split("."):
        if not hasattr(value, name):
            raise ValueError(f"{who}: module {module!r} has no {path!r}")
        value = getattr(value, name)
    if not callable(value):
        raise ValueError(f"{who}: {text} must be callable, got {type(value).__name__}")
    return value
