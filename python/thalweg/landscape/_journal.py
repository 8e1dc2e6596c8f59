"""Journals of a run: its ledger starts from what they hold and notes what it adds. Knows no model and no other process."""

from __future__ import annotations

import glob
import os
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from .. import _check
from ._journal_file import Content, Header, append, connect, contents, create, in_words, tell
from ._ledger import Array, Indices, Ledger

_COMMIT_SECONDS = 0.25  # a kill loses at most this much beside the points in work
_CHECKPOINT_SECONDS = 30.0  # from the -wal file into the file itself; the only fsync


class Journal:
    """An open journal that this process alone writes; created when there is none.

    Args:
        who: The function that the user called, for errors.
        path: The file.
        header: The run.
        wait: Seconds to wait for another process that reads it.

    Raises:
        ValueError: The file is damaged, is none of ours, or belongs to another run.
        RuntimeError: Another process works with it.
        OSError: It cannot be written.
    """

    def __init__(self, who: str, path: Path, header: Header, wait: float = 0.0) -> None:
        self.path, self.header, self._who = path, header, who
        if not path.exists():
            create(who, path, Content.empty(header))
        self._file = connect(who, path, wait=wait)
        try:
            self.content = contents(who, path, self._file)
            self.content.header.check(who, path, header)
        except BaseException:
            self._file.close()
            raise
        self._waiting: list[tuple[Indices, Array]] = []
        self._committed = self._checkpointed = time.monotonic()

    def add(self, indices: Indices, sums: Array) -> None:
        """Note the sums [n, columns] of points [n]; written at once, or with the next after a quarter of a second."""
        self._waiting.append((np.array(indices, np.int64), np.array(sums, np.float64)))
        if time.monotonic() - self._committed >= _COMMIT_SECONDS:
            self.commit()

    def tell(self, told: Mapping[str, Any]) -> None:
        """Write what the engine tells about the run."""
        with in_words(self._who, self.path):
            tell(self._file, self.header, told)

    def commit(self) -> None:
        """Write what was noted."""
        now = time.monotonic()
        with in_words(self._who, self.path):
            if self._waiting:
                indices, sums = zip(*self._waiting, strict=True)
                append(self._file, self.header, np.concatenate(indices), np.concatenate(sums))
                self._waiting.clear()
            if now - self._checkpointed >= _CHECKPOINT_SECONDS:
                self._file.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
                self._checkpointed = now
        self._committed = now

    def close(self) -> None:
        """Write what was noted, fold the -wal file into the file and let other processes have it."""
        try:
            self.commit()
        finally:
            self._file.close()


class JournaledLedger(Ledger):
    """A ledger that starts from what the journals of a run hold and notes in its own what it adds.

    Args:
        who: The function that the user called, for errors.
        order: [points] as `Ledger`.
        columns: As `Ledger`.
        path: The journal; what processes of the same run left beside it (`run.rank0.sqlite` …) is read, too.
        identity: All that the bits of a point depend on, JSON-able.
    """

    def __init__(
        self, who: str, order: Indices, columns: int, path: str | os.PathLike[str], identity: Mapping[str, Any]
    ) -> None:
        super().__init__(order, columns)
        header = Header.of(identity, len(self.order), columns)
        for place in family(Path(path)):
            if place != Path(path):
                keep(self, read(who, place, header))
        self.journal = Journal(who, Path(path), header)
        keep(self, self.journal.content)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the journal."""
        self.journal.close()

    def add(self, indices: Indices, sums: Array) -> None:
        """See Ledger; a kill after half a second loses nothing of it."""
        super().add(indices, sums)
        self.journal.add(indices, sums)

    def tell(self, told: Mapping[str, Any]) -> None:
        """See Ledger."""
        if told != self.told:
            super().tell(told)
            self.journal.tell(told)


def read(who: str, path: Path, header: Header | None = None) -> Content:
    """All that a journal holds with which no process works; checks that it is the run of `header`."""
    if not path.exists():
        raise FileNotFoundError(f"{who}: no journal {path}")
    with closing(connect(who, path, writing=False)) as file:
        content = contents(who, path, file)
    if header is not None:
        content.header.check(who, path, header)
    return content


def keep(ledger: Ledger, content: Content) -> None:
    """What a journal holds becomes done."""
    ledger.sums[content.indices] = content.sums
    ledger.done[content.indices] = True
    ledger.told = content.told or ledger.told


def rank_path(path: Path, rank: int) -> Path:
    """The journal of one of several processes: `run.sqlite` -> `run.rank0.sqlite`."""
    return path.with_name(f"{path.stem}.rank{rank}{path.suffix}")


def family(path: Path) -> list[Path]:
    """The journals of a run that are there, whatever number of processes it had before."""
    pattern = f"{glob.escape(path.stem)}.rank*{glob.escape(path.suffix)}"
    ranks = [
        p for p in path.parent.glob(pattern) if p.name[len(path.stem) + 5 : len(p.name) - len(path.suffix)].isdigit()
    ]
    return [*([path] if path.exists() else []), *sorted(ranks)]


def merge(paths: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str]) -> Path:
    """Join the journals that several processes wrote of one run into one, whole or not at all.

    `Evaluator.grid(..., resume=out)` goes on from it, and returns at once when it holds all points. Where two journals
    hold a point, the first one counts; a warning tells when they differ, which the exact tier excludes.

    Args:
        paths: Journals of one run.
        out: The new file; must not exist.

    Returns:
        The path of the new file.

    Raises:
        ValueError: A journal is damaged, is none, or belongs to another run than the first.
        FileNotFoundError: A journal, or the directory of `out`, does not exist.
        FileExistsError: `out` exists.
        RuntimeError: A process still works with one of them.

    Example:
        >>> import tempfile, torch, thalweg as tw
        >>> model, x = torch.nn.Linear(3, 2), torch.randn(20, 3)
        >>> ev = tw.landscape.Evaluator(model, "cross_entropy", (x, torch.zeros(20, dtype=torch.long)))
        >>> directions = tw.landscape.random_directions(model)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("a", "b"):
        ...         line = ev.line(directions, resume=f"{folder}/{name}.sqlite")
        ...     tw.landscape.merge([f"{folder}/a.sqlite", f"{folder}/b.sqlite"], f"{folder}/run.sqlite").name
        'run.sqlite'
    """
    who = "landscape.merge"
    if isinstance(paths, (str, os.PathLike)) or not isinstance(paths, Sequence) or not paths:
        raise TypeError(f"{who}: paths must be a list of journals, got {_check.describe(paths)}")
    whole: Content | None = None
    for path, content in _contents(who, [Path(p) for p in paths]):
        whole = content if whole is None else _joined(who, path, whole, content)
    assert whole is not None
    if not create(who, Path(out), whole):
        raise FileExistsError(f"{who}: {out} exists; choose another path, or delete it first")
    return Path(out)


def _contents(who: str, paths: Sequence[Path]) -> Iterator[tuple[Path, Content]]:
    header: Header | None = None
    for path in paths:
        content = read(who, path, header)
        header = content.header
        yield path, content


def _joined(who: str, path: Path, whole: Content, more: Content) -> Content:
    """The first journals and what another one has beside it."""
    known = np.full(whole.header.points, -1)
    known[whole.indices] = np.arange(len(whole.indices))
    places = known[more.indices]
    both = places >= 0
    differ = (whole.sums[places[both]].view(np.int64) != more.sums[both].view(np.int64)).any(1)
    if differ.any():
        warnings.warn(
            f"{who}: {path} has other values for {int(differ.sum())} of the points that the journals before it hold, too; "
            "theirs are kept. The model, the loss or a metric is not deterministic",
            stacklevel=4,
        )
    return Content(
        whole.header,
        np.concatenate([whole.indices, more.indices[~both]]),
        np.concatenate([whole.sums, more.sums[~both]]),
        whole.told or more.told,
    )
