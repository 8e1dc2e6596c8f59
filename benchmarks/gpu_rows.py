"""What a GPU row is: ours against peers, compared before it is timed; one failing row is a result, not the end."""

from __future__ import annotations

import gc
import importlib
import inspect
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from gpu_measure import Run, Session, quartiles
from gpu_targets import judge


class Absent(Exception):
    """This row, or this peer, does not exist here; the text says what is missing."""


@dataclass
class Side:
    """One of those who are compared. `per` is how many units (steps, points) one call does."""

    run: Run
    per: int = 1


@dataclass
class Contest:
    """What one row compares.

    `check` compares the results and raises AssertionError. `bytes` is what one call of ours has to move. `absent` are
    peers that are not here, with the reason. `more` goes into the results as it is.
    """

    ours: Side
    peers: dict[str, Side]
    check: Callable[[], None]
    bytes: int | None = None
    absent: dict[str, str] = field(default_factory=dict)
    more: dict[str, Any] = field(default_factory=dict)
    figures: Callable[[float], dict[str, float]] = lambda seconds: {}  # from seconds per unit of ours
    rounds: int | None = None  # of single calls, where these take seconds


@dataclass(frozen=True)
class Row:
    """A row's key (for its targets), its words in the table, and who builds it."""

    key: str
    what: str
    case: str
    build: Callable[[Session], Contest]


def need(module: str, name: str) -> Any:
    """`module.name`, or Absent with its name: a package that is not installed, a class of a later version."""
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        raise Absent(f"there is no {module}.{name} here") from None


def construct(cls: Any, *args: Any, **options: Any) -> Any:
    """`cls(*args, **options)`, or Absent with the name of the option that it does not have."""
    known = inspect.signature(cls).parameters
    if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in known.values()):
        for name in options:
            if name not in known:
                raise Absent(f"{cls.__module__}.{cls.__qualname__} takes no {name} in this version")
    return cls(*args, **options)


def build_peers(builders: Mapping[str, Callable[[], Side]]) -> tuple[dict[str, Side], dict[str, str]]:
    """Those peers that can be built here, and why the others cannot."""
    sides: dict[str, Side] = {}
    absent: dict[str, str] = {}
    for name, build in builders.items():
        try:
            sides[name] = build()
        except (Absent, ImportError, torch.OutOfMemoryError) as error:
            absent[name] = str(error) if isinstance(error, Absent) else first_line(error)
    return sides, absent


def first_line(error: BaseException) -> str:
    """An error in one line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def measured(session: Session, contest: Contest) -> list[dict[str, Any]]:
    """One result per peer, or one of ours alone; times in µs per unit."""
    sides = [contest.ours, *contest.peers.values()]
    times = session.by_turns([side.run for side in sides], contest.rounds)
    # A call that does many units waits for the device itself: it has no host time of its own.
    host = [session.host_seconds(side.run) if side.per == 1 else None for side in sides]
    launches = [session.launches(side.run) if side.per == 1 else None for side in sides]
    per_unit = [[t / side.per for t in rounds] for side, rounds in zip(sides, times, strict=True)]
    ours: dict[str, Any] = _figures("ours", per_unit[0], host[0], launches[0])
    ours |= {"rounds": len(times[0]), **contest.more, **contest.figures(quartiles(per_unit[0])[1])}
    if contest.bytes is not None:
        bandwidth = session.copy_bandwidth()
        ours |= {"bytes": contest.bytes, "copy_gb_s": bandwidth / 1e9}
        ours["bandwidth_share"] = contest.bytes / contest.ours.per / quartiles(per_unit[0])[1] / bandwidth
    results = []
    for at, name in enumerate(contest.peers, start=1):
        # Round by round: a device that changes its clock for a while slows all sides of a round.
        low, ratio, high = quartiles([b / a for a, b in zip(per_unit[0], per_unit[at], strict=True)])
        peer = {"peer": name, "ratio": ratio, "ratio_quartiles": [low, high]}
        results.append({**ours, **peer, **_figures("peer", per_unit[at], host[at], launches[at])})
    return results or [ours]


def _figures(who: str, seconds: list[float], host: float | None, launches: int | None) -> dict[str, Any]:
    low, median, high = quartiles(seconds)
    return {
        f"{who}_us": median * 1e6,
        f"{who}_quartiles_us": [low * 1e6, high * 1e6],
        f"{who}_host_us": None if host is None else host * 1e6,
        f"{who}_launches": "not counted" if launches is None else launches,
    }


def run_row(session: Session, row: Row) -> list[dict[str, Any]]:
    """The results of one row, whatever happens in it: every one has a `status`, and a `reason` unless it was measured."""
    about = {"key": row.key, "row": row.what, "case": row.case}
    contest: Contest | None = None
    try:
        contest = row.build(session)
        contest.check()
        session.synchronize()
        results = measured(session, contest)
        for at, result in enumerate(results):
            result["targets"] = judge(row.key, result, at == 0)
        if session.dry:  # went the same way, but its times say nothing
            results = [{"status": "checked", **{k: r[k] for k in ("peer",) if k in r}} for r in results]
        else:
            results = [{"status": "measured", **result} for result in results]
        results += [{"status": "absent", "peer": name, "reason": why} for name, why in contest.absent.items()]
    except Absent as error:
        results = [{"status": "absent", "reason": str(error)}]
    except torch.OutOfMemoryError as error:
        results = [{"status": "out of memory", "reason": first_line(error)}]
    except AssertionError as error:
        results = [{"status": "wrong result", "reason": " ".join(str(error).split())}]
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        results = [{"status": "failed", "reason": first_line(error)}]
    contest = None
    gc.collect()
    if session.cuda:
        try:
            torch.cuda.empty_cache()
        except RuntimeError as error:  # the device is lost; the rows that follow will say so
            print(f"after {row.what}, {row.case}: {first_line(error)}", file=sys.stderr)
    return [{**about, **result} for result in results]
