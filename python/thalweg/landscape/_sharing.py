"""Where the processes that share a run meet: under torchrun, in a process group, or at a store of the caller."""

from __future__ import annotations

import functools
import itertools
import os
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import torch.distributed as dist

from .. import _check

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

_PATIENCE = timedelta(minutes=5)  # for the other processes to find the store


@dataclass(frozen=True)
class Share:
    """How processes share a run: `ev.grid(..., share=Share(lease=20))`; `share=True` is `Share()`.

    No collective is involved: processes claim points from counters of the store, and take over those of a process that
    failed or was killed. All call the same runs in the same order, and all get the whole result.

    Args:
        store: A `torch.distributed.Store` that outlives the processes; they may come and go. None: that of the process group, or of torchrun.
        lease: Seconds without a sign of life after which a process counts as gone.

    Raises:
        TypeError, ValueError: Not a store, or no positive lease.

    Example:
        >>> import torch, thalweg as tw
        >>> model, x = torch.nn.Linear(3, 2), torch.randn(20, 3)
        >>> ev = tw.landscape.Evaluator(model, "cross_entropy", (x, torch.zeros(20, dtype=torch.long)))
        >>> share = tw.landscape.Share(torch.distributed.HashStore(), lease=20)  # among processes: a TCPStore
        >>> ev.line(tw.landscape.random_directions(model), (-1, 1, 5), share=share).values["loss"].shape
        (5,)
    """

    store: Any = None
    lease: float = 5.0

    def __post_init__(self) -> None:
        _check.real("Share", "lease", self.lease, above=0)
        if self.store is not None and not _is_store(self.store):
            raise TypeError(
                f"Share: store must be a torch.distributed.Store or None, got {_check.describe(self.store)}"
            )


class Meeting(NamedTuple):
    """The processes of one run."""

    store: Store  # for this run alone
    rank: int | None = None  # None: the order in which they come
    world: int | None = None  # how many there are; None: as many as come
    lease: float = 5.0  # seconds


_runs = itertools.count()  # the processes of a program share their runs in the same order


def meeting(who: str, share: Any) -> Meeting | None:
    """The processes of the next run, None for one that is not shared.

    Raises:
        TypeError: `share` is neither a bool nor a Share nor a store.
        RuntimeError: This process has no others that it knows of.
    """
    if share is None or share is False:
        return None
    if share is not True and not isinstance(share, Share) and not _is_store(share):
        raise TypeError(
            f"{who}: share must be True (under torchrun or with a process group), a torch.distributed.Store or a Share, "
            f"got {_check.describe(share)}"
        )
    how = share if isinstance(share, Share) else Share(None if share is True else share)
    store, rank, world = (how.store, None, None) if how.store is not None else _found(who)
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    prefix = f"thalweg/landscape/{attempt}/{next(_runs)}"
    part: Store = dist.PrefixStore(prefix, store)  # type: ignore[attr-defined]
    return Meeting(part, rank, world, how.lease)


def _is_store(value: Any) -> bool:
    return dist.is_available() and isinstance(value, dist.Store)  # type: ignore[attr-defined]


def _found(who: str) -> tuple[Store, int, int]:
    if dist.is_available() and dist.is_initialized():
        return dist.distributed_c10d._get_default_store(), dist.get_rank(), dist.get_world_size()
    if {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        return _rendezvous()
    raise RuntimeError(
        f"{who}: share=True needs processes to share with; start the program with torchrun --nproc-per-node N, "
        "initialise a process group, or pass a torch.distributed.Store"
    )


@functools.cache
def _rendezvous() -> tuple[Store, int, int]:
    """The store of torchrun, or of rank 0; no collective and no process group."""
    store, rank, world = next(iter(dist.rendezvous("env://", timeout=_PATIENCE)))  # type: ignore[attr-defined]
    return store, rank, world
