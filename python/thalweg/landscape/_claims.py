"""A run shared by processes: each claims blocks of the order from a common counter and hears of the others' sums."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import xxhash

from ._board import Board
from ._journal import Journal, family, keep, rank_path, read
from ._journal_file import Header
from ._ledger import Array, Indices, Ledger
from ._sharing import Meeting

_BLOCKS = 4096  # most blocks of a run: their owners are single keys of the store
_PUBLISH_SECONDS = 0.5
_HEAR_SECONDS = 2.0
_MEET_SECONDS = 30.0
_LOOK = 32  # blocks looked at in one turn of waiting


class SharedLedger(Ledger):
    """A ledger that processes share: each evaluates what it claims, and all have all sums in the end.

    A block of the order is claimed by one atomic addition. When nothing is left to claim, a process takes over the blocks
    of those that failed or fell silent, and after a long while those of anybody, since a point has the same bits
    whoever evaluates it: so no process waits for ever.

    Args:
        who: The function that the user called, for errors.
        order: [points] as `Ledger`, the same in all processes.
        columns: As `Ledger`.
        meeting: The processes.
        identity: All that the bits of a point depend on, JSON-able.
        path: The journal, or None. Each process writes its own (`run.rank0.sqlite` …) and reads all that it sees.
    """

    def __init__(
        self,
        who: str,
        order: Indices,
        columns: int,
        meeting: Meeting,
        identity: Mapping[str, Any],
        path: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__(order, columns)
        self._who, self._lease = who, meeting.lease
        header = Header.of(identity, len(self.order), columns)
        self._board = Board(who, meeting.store, meeting.lease, header)
        self._rank = self._board.number if meeting.rank is None else meeting.rank
        self.journal: Journal | None = None
        self._start, self._end, self._block = 0, 0, 1  # part of the order that is claimed, points of a block
        self._told: dict[str, Any] = {}  # by this process
        self._reached = 0  # blocks that were claimed, as far as known here
        self._hand: Indices = np.empty(0, np.int64)  # claimed, in order
        self._fresh: list[tuple[Indices, Array]] = []  # done here, not yet published
        self._published = self._heard = self._changed = self._given = time.monotonic()
        self._slowest = 0.0  # seconds from next to add
        try:
            if path is not None:
                self._read_journals(Path(path), header)
                if meeting.world is not None:
                    self._board.meet(self._rank, meeting.world, max(meeting.lease, _MEET_SECONDS))
            self._hear()
            self.told = self._board.tell(self.told)
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
            with suppress(*[] if error is None else [RuntimeError]):  # of the store, where there is a cause to tell
                try:
                    self._publish()
                finally:
                    self._board.leave(error, last=self._rank == 0)

    def next(self, size: int) -> Indices:
        """See Ledger; waits for what other processes work at, and is empty when all points are done."""
        if len(self.order) != self._end:
            self._next_round()
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
            if self.done[self.order].all():
                self.told = self._board.tell(self.told)
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

    def tell(self, told: Mapping[str, Any]) -> None:
        """See Ledger; of several processes the first one's word counts."""
        if not told.items() <= self.told.items() and told != self._told:
            self._told = dict(told)
            super().tell(self._board.tell(told))
            if self.journal is not None:
                self.journal.tell(self.told)

    # ---- claims -------------------------------------------------------------------------------------------

    def _next_round(self) -> None:
        """The order has grown, in all processes alike: what is new is claimed in blocks of its own."""
        self._board.round += 1
        self._start, self._end, self._reached = self._end, len(self.order), 0
        self._block = max(1, -(-(self._end - self._start) // _BLOCKS))

    def _claim(self, count: int) -> bool:
        """Take the next blocks, fewer towards the end, so that all finish together; False when none is left."""
        last = -(-(self._end - self._start) // self._block)
        if self._reached >= last:
            return False
        count = max(1, min(count, (last - self._reached) // (2 * self._board.processes())))
        start = self._board.take(count)
        blocks = range(start, min(start + count, last))
        self._hold([block for block in blocks if not self.done[self._members(block)].all()])
        self._reached = start + count
        return bool(len(blocks))

    def _take_over(self, count: int) -> bool:
        """Take blocks whose owners are gone; after a long silence of all, one of anybody's."""
        left = np.unique(np.flatnonzero(~self.done[self.order[self._start :]]) // self._block).tolist()
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
        return self.order[self._start :][block * self._block : (block + 1) * self._block]

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
            if content.told:
                self._board.tell(content.told)
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
