"""What the processes of a run tell each other through a torch.distributed.Store. Knows no order, no file and no model.

No call waits for another process: a key is read once it is known to be there.
"""

from __future__ import annotations

import json
import logging
import secrets
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

from ._journal_file import Content, Header
from ._ledger import Array, Indices

_log = logging.getLogger("thalweg")
_PIECE = 1 << 19  # bytes of a value; torch's TCPStore refuses 8 MiB
_READ = 64  # values in one answer


class Board:
    """The place of one process among those that share a run.

    Args:
        who: The function that the user called, for errors.
        store: A torch.distributed.Store for this run alone (torch's stubs lack a part of it).
        lease: Seconds without a sign of life after which a process counts as gone.
        header: The run; processes with another one are refused.

    Raises:
        ValueError: Another process has other settings.
        RuntimeError: The store is gone; this from every method.
    """

    def __init__(self, who: str, store: Any, lease: float, header: Header) -> None:
        self._who, self._store, self._lease, self._header = who, store, lease, header
        self.name = secrets.token_hex(6)
        self.round = 0  # blocks are numbered anew in each
        self._results = 0  # numbers below are read or in _late
        self._late: list[int] = []  # numbers that were given out before their values came
        self._signs: dict[str, tuple[int, float]] = {}  # by process: its heartbeat, and when that was new here
        self._gone: set[str] = set()
        self._closed = threading.Event()
        with self._told():
            first = store.compare_set("header", "", json.dumps(header)).decode()
        Header(*json.loads(first)).check(who, "the work of the other processes", header)
        with self._told():
            self.number = store.add("processes", 1) - 1
            store.set(f"process/{self.number}", self.name)
        self._thread = threading.Thread(target=self._beat, name="thalweg heartbeat", daemon=True)
        self._thread.start()

    # ---- claims -------------------------------------------------------------------------------------------

    def take(self, count: int) -> int:
        """The first of so many blocks that no other process gets in this round."""
        with self._told():
            return int(self._store.add(f"{self.round}/next", count)) - count

    def own(self, blocks: Sequence[int]) -> None:
        """Say that this process works at these blocks."""
        keys = [self._owner(block) for block in blocks]
        with self._told():
            if self._store.has_extended_api() and len(keys) > 1:
                self._store.multi_set(keys, [self.name] * len(keys))
            else:
                for key in keys:
                    self._store.set(key, self.name)

    def _owner(self, block: int) -> str:
        return f"{self.round}/owner/{block}"

    def take_over(self, block: int, living: bool) -> bool:
        """Become the owner of a block whose owner is gone, or with `living` of anybody's; one of several succeeds."""
        key = self._owner(block)
        with self._told():
            owner = self._store.get(key).decode() if self._store.check([key]) else ""
            if not living and not self.gone(owner or key):
                return False
            return str(self._store.compare_set(key, owner, self.name).decode()) == self.name

    # ---- results ------------------------------------------------------------------------------------------

    def publish(self, indices: Indices, sums: Array) -> None:
        """Give the sums [n, columns] of points [n] to all."""
        rows = max(1, _PIECE // (8 * (1 + self._header.columns)))
        with self._told():
            for start in range(0, len(indices), rows):
                part = indices[start : start + rows].tobytes() + sums[start : start + rows].tobytes()
                self._store.set(f"result/{self._store.add('results', 1) - 1}", part)

    def publish_once(self, name: str, content: Content) -> None:
        """The same for what several processes may have read in one file."""
        with self._told():
            first = self._store.compare_set(f"file/{name}", "", self.name).decode() == self.name
        if first:
            self.publish(content.indices, content.sums)

    def tell(self, told: Mapping[str, Any]) -> dict[str, Any]:
        """Give what is told about the run to all; returns all that was told, where the first word counts."""
        with self._told():
            while True:
                before = self._store.get("told").decode() if self._store.check(["told"]) else ""
                after = json.dumps({**told, **json.loads(before or "{}")}, sort_keys=True)
                if self._store.compare_set("told", before, after).decode() == after:
                    return dict(json.loads(after))

    def news(self) -> Iterator[tuple[Indices, Array]]:
        """What was published since the last call."""
        with self._told():
            end = self._store.add("results", 0)
            wanted = [*self._late, *range(self._results, end)]
            self._results, self._late = end, []
            for start in range(0, len(wanted), _READ):
                numbers = self._there(wanted[start : start + _READ])
                for value in self._values([f"result/{number}" for number in numbers]):
                    count = len(value) // (8 * (1 + self._header.columns))
                    sums = np.frombuffer(value, np.float64, offset=8 * count)
                    yield np.frombuffer(value, np.int64, count), sums.reshape(count, -1)

    def _there(self, numbers: Sequence[int]) -> Sequence[int]:
        """Those whose values have come; the others are asked for again."""
        if self._store.check([f"result/{number}" for number in numbers]):
            return numbers
        there = [number for number in numbers if self._store.check([f"result/{number}"])]
        self._late += sorted(set(numbers) - set(there))
        return there

    def _values(self, keys: list[str]) -> list[bytes]:
        if self._store.has_extended_api() and len(keys) > 1:
            return list(self._store.multi_get(keys))
        return [self._store.get(key) for key in keys]

    # ---- who is there -------------------------------------------------------------------------------------

    def processes(self) -> int:
        """How many have come so far."""
        with self._told():
            return int(self._store.add("processes", 0))

    def gone(self, process: str) -> bool:
        """Tell whether a process has failed, or gave no sign of life for the lease, seen from here."""
        with self._told():
            if process not in self._gone and self._store.check([f"failed/{process}"]):
                self._gone.add(process)
                why = self._store.get(f"failed/{process}").decode()
                _log.warning("%s: a process of this run failed and others take its points: %s", self._who, why)
            if process in self._gone:
                return True
            sign = self._store.add(f"sign/{process}", 0)
        now = time.monotonic()
        if self._signs.get(process, (-1, 0.0))[0] != sign:
            self._signs[process] = sign, now
        return now - self._signs[process][1] > self._lease

    def meet(self, rank: int, world: int, patience: float) -> None:
        """Wait until all ranks have come here or one has failed, but no longer than `patience` seconds."""
        with self._told():
            self._store.set(f"ready/{rank}", self.name)
            keys, end = [f"ready/{r}" for r in range(world)], time.monotonic() + patience
            while not self._store.check(keys) and not self._store.add("failures", 0) and time.monotonic() < end:
                time.sleep(0.01)

    def leave(self, error: BaseException | None, last: bool) -> None:
        """Say goodbye; `last`: when all others have, or are gone. After an error the others learn of it at once."""
        try:
            with self._told():
                if error is not None:
                    self._store.set(f"failed/{self.name}", f"{type(error).__name__}: {error}"[:500])
                    self._store.add("failures", 1)
                else:
                    self._store.set(f"left/{self.name}", "")
                while error is None and last and not self._all_left():
                    time.sleep(0.01)
        finally:
            self._closed.set()
            self._thread.join(self._lease)

    def _all_left(self) -> bool:
        return all(self._has_left(number) for number in range(self._store.add("processes", 0)))

    def _has_left(self, number: int) -> bool:
        key = f"process/{number}"
        if not self._store.check([key]):
            return self.gone(key)
        process = self._store.get(key).decode()
        return self._store.check([f"left/{process}"]) or self.gone(process)

    def _beat(self) -> None:
        """Signs of life, from a thread and a connection of its own."""
        with suppress(RuntimeError):  # the run itself will find out
            store = self._store
            with suppress(AttributeError, RuntimeError):
                store = store.clone()
            while not self._closed.wait(self._lease / 5):
                store.add(f"sign/{self.name}", 1)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # torch's DistNetworkError, DistStoreError …
            if str(error).startswith(self._who):
                raise
            raise RuntimeError(
                f"{self._who}: the store that the processes of this run share is gone, as the process or launcher that kept "
                f"it has ended ({(str(error).splitlines() or [''])[0]}); start again, with the same resume= to go on"
            ) from error
