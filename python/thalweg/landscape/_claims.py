"""A run shared by processes: each claims blocks of the order from a common counter and hears of the others' sums."""

from __future__ import annotations

import functools
import itertools
import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import torch.distributed as dist
import xxhash

from .. import _check
from ._board import PATIENCE, Board, prefixed
from ._journal import Journal, family, keep, rank_path, read
from ._journal_file import Header
from ._ledger import Array, Indices, Ledger

LEASE = 5.0  # seconds
_BLOCKS = 4096  # most blocks of a run: their owners are single keys of the store
_PUBLISH_SECONDS = 0.5
_HEAR_SECONDS = 2.0
_MEET_SECONDS = 30.0
_LOOK = 32  # blocks looked at in one turn of waiting


class Share(NamedTuple):
    """Where the processes of a run meet."""

    store: dist.Store
    rank: int | None = None  # None: the order in which they come
    world: int | None = None  # how many there are; None: as many as come


class SharedLedger(Ledger):
    """A ledger that processes share: each evaluates what it claims, and all have all sums in the end.

    A block of the order is claimed by one atomic addition. When nothing is left to claim, a process takes over the blocks
    of those that failed or fell silent, and after a long while those of anybody, since a point has the same bits
    whoever evaluates it: so no process waits for ever.

    Args:
        who: The function that the user called, for errors.
        order: [points] as `Ledger`, the same in all processes.
        columns: As `Ledger`.
        share: The processes; its store serves this run alone.
        identity: All that the bits of a point depend on, JSON-able.
        path: The journal, or None. Each process writes its own (`run.rank0.sqlite` …) and reads all that it sees.
        lease: Seconds without a sign of life after which a process counts as gone.
    """

    def __init__(
        self,
        who: str,
        order: Indices,
        columns: int,
        share: Share,
        identity: Mapping[str, Any],
        path: str | os.PathLike[str] | None = None,
        lease: float = LEASE,
    ) -> None:
        super().__init__(order, columns)
        self._who, self._lease = who, lease
        header = Header.of(identity, len(self.order), columns)
        self._board = Board(who, share.store, lease, header)
        self._rank = self._board.number if share.rank is None else share.rank
        self.journal: Journal | None = None
        self._block = max(1, -(-len(self.order) // _BLOCKS))
        self._exhausted = False  # no block is left to claim
        self._hand: Indices = np.empty(0, np.int64)  # claimed, in order
        self._fresh: list[tuple[Indices, Array]] = []  # done here, not yet published
        self._published = self._heard = self._changed = self._given = time.monotonic()
        self._slowest = 0.0  # seconds from next to add
        try:
            if path is not None:
                self._read_journals(Path(path), header)
                if share.world is not None:
                    self._board.meet(self._rank, share.world, max(lease, _MEET_SECONDS))
            self._hear()
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the journal and leave the others; the first process stays until they have left, as it may keep the store."""
        try:
            if self.journal is not None:
                self.journal.close()
        finally:
            try:
                if error is None:
                    self._publish()
                self._board.leave(error, last=self._rank == 0)
            except RuntimeError:
                if error is None:
                    raise

    def next(self, size: int) -> Indices:
        """See Ledger; waits for what other processes work at, and is empty when all points are done."""
        while True:
            self._hand = self._hand[~self.done[self._hand]]
            if len(self._hand):
                given, self._hand = self._hand[:size], self._hand[size:]
                self._given = time.monotonic()
                return given
            if self._claim(max(1, size // self._block)):
                continue
            self._publish()
            self._hear()
            if self.done.all():
                return self._hand
            if not self._take_over(max(1, size // self._block)):
                time.sleep(0.02)

    def add(self, indices: Indices, sums: Array) -> None:
        """See Ledger."""
        now = time.monotonic()
        self._slowest = max(self._slowest, now - self._given)
        super().add(indices, sums)
        if self.journal is not None:
            self.journal.add(indices, sums)
        self._fresh.append((np.array(indices, np.int64), np.array(sums, np.float64)))
        if now - self._published >= _PUBLISH_SECONDS:
            self._publish()
        if now - self._heard >= _HEAR_SECONDS:
            self._hear()

    # ---- claims -------------------------------------------------------------------------------------------

    def _claim(self, count: int) -> bool:
        """Take the next blocks; False when none is left."""
        if self._exhausted:
            return False
        last = -(-len(self.order) // self._block)
        start = self._board.take(count)
        blocks = range(start, min(start + count, last))
        self._hold([block for block in blocks if not self.done[self._members(block)].all()])
        self._exhausted = start + count >= last
        return bool(len(blocks))

    def _take_over(self, count: int) -> bool:
        """Take blocks whose owners are gone; after a long silence of all, one of anybody's."""
        left = np.unique(np.flatnonzero(~self.done[self.order]) // self._block).tolist()
        living = time.monotonic() - self._changed > max(2 * self._lease, 3 * self._slowest)
        found: list[int] = []
        for block in left[:_LOOK]:
            if len(found) < (1 if living else count) and self._board.take_over(block, living):
                found.append(block)
        self._add_to_hand(found)
        if found:
            self._changed = time.monotonic()
        return bool(found)

    def _hold(self, blocks: list[int]) -> None:
        self._board.own(blocks)
        self._add_to_hand(blocks)

    def _add_to_hand(self, blocks: list[int]) -> None:
        self._hand = np.concatenate([self._hand, *map(self._members, blocks)])

    def _members(self, block: int) -> Indices:
        return self.order[block * self._block : (block + 1) * self._block]

    # ---- what is known ------------------------------------------------------------------------------------

    def _read_journals(self, path: Path, header: Header) -> None:
        own = rank_path(path, self._rank)
        self.journal = Journal(self._who, own, header, wait=5.0)  # another process may just be reading it
        found = {own: self.journal.content}
        for place in family(path):
            if place != own:
                try:
                    found[place] = read(self._who, place, header)
                except (RuntimeError, FileNotFoundError):
                    continue  # its process works with it, and publishes what it holds
        for place, content in found.items():
            keep(self, content)
            if len(content.indices):
                digest = xxhash.xxh3_64_hexdigest(content.indices.tobytes() + content.sums.tobytes())
                self._board.publish_once(f"{place.name}/{digest}", content)

    def _publish(self) -> None:
        if self._fresh:
            indices, sums = zip(*self._fresh, strict=True)
            self._fresh.clear()
            self._board.publish(np.concatenate(indices), np.concatenate(sums))
        self._published = time.monotonic()

    def _hear(self) -> None:
        for indices, sums in self._board.news():
            new = ~self.done[indices]
            super().add(indices[new], sums[new])
            if new.any():
                self._changed = time.monotonic()
        self._heard = time.monotonic()


_runs = itertools.count()  # the processes of a program share their runs in the same order


def sharing(who: str, share: Any) -> Share:
    """What `share=True` or a store means here: the processes, with a part of the store for the next run.

    Raises:
        TypeError: Neither True nor a store.
        RuntimeError: True, and this process has no others that it knows of.
    """
    if isinstance(share, dist.Store):
        return Share(prefixed(share, next(_runs)))
    if share is not True:
        raise TypeError(
            f"{who}: share must be True (under torchrun or with a process group) or a torch.distributed.Store, got "
            f"{_check.describe(share)}"
        )
    if dist.is_available() and dist.is_initialized():
        store = dist.distributed_c10d._get_default_store()  # type: ignore[no-untyped-call]
        found = Share(store, dist.get_rank(), dist.get_world_size())
    elif {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        found = _rendezvous()
    else:
        raise RuntimeError(
            f"{who}: share=True needs processes to share with; start the program with torchrun --nproc-per-node N, "
            "initialise a process group, or pass a torch.distributed.Store"
        )
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return found._replace(store=prefixed(found.store, attempt, next(_runs)))


@functools.cache
def _rendezvous() -> Share:
    """The store of torchrun, or of rank 0; no collective and no process group."""
    store, rank, world = next(iter(dist.rendezvous("env://", timeout=PATIENCE)))  # type: ignore[attr-defined]
    return Share(store, rank, world)
