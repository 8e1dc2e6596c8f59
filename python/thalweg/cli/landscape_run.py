"""`thalweg landscape run` and `merge`: a landscape of the user's own model and data, alone or under torchrun."""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import os
import random
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm

from .. import landscape
from ..landscape import Line, Surface, Volume
from ._stop import stoppable


def evaluate(args: argparse.Namespace) -> Line | Surface | Volume:
    """The landscape that the arguments of `run` describe, alike in all processes; written by the first one.

    Raises:
        ValueError: An argument is not one that it can be.
    """
    _check_arguments(args)
    preview = None
    if args.preview is not None and is_first():
        from ..plot.landscape import Preview

        preview = Preview(args.preview, refined=args.refine is not None)
    ev, directions = _prepared(args)
    keep: dict[str, Any] = {"resume": args.resume, "share": int(os.environ.get("WORLD_SIZE", "1")) > 1}
    result: Line | Surface | Volume
    with stoppable(), _spoken():
        if args.y is None:
            result = ev.line(directions, args.x, **keep)
        elif args.z is None:
            result = ev.grid(directions, args.x, args.y, preview=preview, refine=args.refine, **keep)
        else:
            result = ev.volume(directions, args.x, args.y, args.z, preview=preview, **keep)
    if args.out is not None and is_first():
        result.save(args.out)
    if preview is not None and not isinstance(result, Line):
        preview.finish(result)
    return result


def _check_arguments(args: argparse.Namespace) -> None:
    def refuse(why: str) -> None:
        raise ValueError(f"landscape run: {why}")

    if args.out is not None and args.out.suffix != ".npz":
        refuse(f"--out must end in .npz, got {args.out.name!r}")
    if args.x is None:
        refuse("--x must be first:last:number, got 'none'; leave --y out for a line")
    if args.y is None and args.z is not None:
        refuse("--z needs --y: a volume has three axes")
    if args.refine is not None and (args.y is None or args.z is not None):
        refuse("--refine is for grids; give --y and no --z")
    if args.preview is not None and args.y is None:
        refuse("--preview is for grids and volumes; give --y")
    if args.preview is not None and args.preview.suffix not in (".png", ".svg", ".pdf"):
        refuse(f"--preview must end in .png, .svg or .pdf, got {args.preview.name!r}")


def _prepared(args: argparse.Namespace) -> tuple[landscape.Evaluator, landscape.Directions]:
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
        train_mode=args.train_mode,
        tier=args.tier,
        implementation=args.implementation,
        precision=args.precision,
        memory_budget=args.memory_budget,
    )
    number = 1 + (args.y is not None) + (args.z is not None)
    ignore = None if args.ignore == "none" else args.ignore
    directions = landscape.random_directions(
        model, number, norm=args.norm, seed=args.seed, ignore=ignore, style=args.style
    )
    return ev, directions


class _OnStandardError(logging.Handler):
    """What the library says, above the progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        """See logging."""
        tqdm.write(self.format(record), file=sys.stderr)


@contextmanager
def _spoken() -> Iterator[None]:
    """What a run says of its engine and its time is shown by the first process; the library itself is silent."""
    log = logging.getLogger("thalweg.landscape")
    handler, before = _OnStandardError(), (log.level, log.propagate)
    if is_first():
        log.addHandler(handler)
        log.setLevel(min(log.level or logging.INFO, logging.INFO))
        log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before[0])
        log.propagate = before[1]


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
