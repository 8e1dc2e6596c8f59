"""The SQLite file of a journal: made, opened, read, its errors put into words. Knows no ledger and no run.

The file is in WAL mode with synchronous=NORMAL: a commit is a write without fsync, which a killed process cannot lose, and
even a power failure leaves an older but sound state. One process owns it (SQLite's exclusive locking: the system frees such
a lock when its process dies, so none is ever stale). Every record has a checksum that covers the run's identity, too.
"""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xxhash

from ._ledger import Array, Indices

FORMAT = 1
_REMEDY = "give this run another file"
_APPLICATION = 0x74686C77  # "thlw", in SQLite's own header
_TABLES = """
CREATE TABLE header (format INTEGER, identity TEXT, points INTEGER, columns INTEGER, checksum TEXT);
CREATE TABLE records (number INTEGER PRIMARY KEY, indices BLOB, sums BLOB, checksum TEXT);
CREATE TABLE told (number INTEGER PRIMARY KEY, told TEXT, checksum TEXT);
"""


class Header(NamedTuple):
    """Which run a journal belongs to."""

    identity: str  # JSON with sorted keys: all that the bits of a point depend on
    points: int
    columns: int  # running sums of a point

    @classmethod
    def of(cls, identity: Mapping[str, Any], points: int, columns: int) -> Header:
        """From the identity as a dictionary."""
        return cls(json.dumps(identity, sort_keys=True), points, columns)

    def check(self, who: str, what: object, expected: Header) -> None:
        """Refuse what belongs to another run, with every field that differs."""
        wanted, found = dict(expected._leaves()), dict(self._leaves())
        names = [n for n in {**wanted, **found} if wanted.get(n, "nothing") != found.get(n, "nothing")]
        if names:
            text = "; ".join(f"{n}: expected {wanted.get(n, 'nothing')}, got {found.get(n, 'nothing')}" for n in names)
            raise ValueError(f"{who}: {what} belongs to another run: {text}. Set these as they are there, or {_REMEDY}")

    def _leaves(self) -> Iterator[tuple[str, str]]:
        yield from _leaves({**json.loads(self.identity), "points": self.points, "columns": self.columns})


class Content(NamedTuple):
    """What a journal holds; a point may occur twice."""

    header: Header
    indices: Indices  # [n]
    sums: Array  # [n, columns]
    told: dict[str, Any]  # by the engine, empty before the first point

    @classmethod
    def empty(cls, header: Header) -> Content:
        """Of a new journal."""
        return cls(header, np.empty(0, np.int64), np.empty((0, header.columns)), {})


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """The leaves of nested dictionaries as JSON, by dotted name."""
    if isinstance(value, Mapping) and value:
        for key in sorted(value):
            yield from _leaves(value[key], f"{name}.{key}" if name else str(key))
    else:
        yield name, json.dumps(value)


def _checksum(*parts: str | bytes) -> str:
    digest = xxhash.xxh3_64()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return str(digest.hexdigest())


def create(who: str, path: Path, content: Content) -> bool:
    """Make the file under another name and give it its own, so that nobody sees a part of it; False when one is there."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{who}: no directory {path.parent}; create it first")
    header = content.header
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with in_words(who, path), closing(sqlite3.connect(temporary, isolation_level=None)) as file:
            file.execute("PRAGMA journal_mode=MEMORY").fetchall()
            file.execute(f"PRAGMA application_id={_APPLICATION}")
            file.executescript(f"BEGIN; {_TABLES}")
            row = (FORMAT, *header, _checksum(*map(str, (FORMAT, *header))))
            file.execute("INSERT INTO header VALUES (?, ?, ?, ?, ?)", row)
            if len(content.indices):
                append(file, header, content.indices, content.sums)
            if content.told:
                tell(file, header, content.told)
            file.execute("COMMIT")
        return _rename(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _rename(temporary: Path, path: Path) -> bool:
    if not path.exists():  # what a deleted journal of this name left; SQLite would take it for the new one's
        for ending in ("-wal", "-shm", "-journal"):
            path.with_name(path.name + ending).unlink(missing_ok=True)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError:  # a file system without links
        if path.exists():
            return False
        os.replace(temporary, path)
    return True


def connect(who: str, path: Path, *, writing: bool = True, wait: float = 0.0) -> sqlite3.Connection:
    """An open connection that owns the file; waits so many seconds for another process to leave it."""
    if path.is_dir():
        raise IsADirectoryError(f"{who}: {path} is a directory; give the path of a file")
    if os.access(path, os.R_OK) and not is_journal(path):
        raise ValueError(
            f"{who}: {path} is not a journal of thalweg, or its beginning is damaged; give another path, or delete it to "
            "start anew"
        )
    with in_words(who, path):
        file = sqlite3.connect(path, timeout=wait, isolation_level=None)
        try:
            file.execute("PRAGMA locking_mode=EXCLUSIVE").fetchall()
            file.execute("BEGIN EXCLUSIVE")
            file.execute("COMMIT")
        except BaseException as error:
            file.close()
            if not writing and isinstance(error, sqlite3.OperationalError) and _alone(path):
                with suppress(sqlite3.Error):  # no lock can be had where nothing can be written, and none is needed
                    return sqlite3.connect(f"{path.absolute().as_uri()}?immutable=1", uri=True)
            raise
        if writing:
            file.execute("PRAGMA journal_mode=WAL").fetchall()
            file.execute("PRAGMA synchronous=NORMAL")
            file.execute("PRAGMA wal_autocheckpoint=0").fetchall()
            file.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()  # what a killed process left in the -wal file
    return file


def _alone(path: Path) -> bool:
    """Tell whether a file that this process cannot write is whole without a -wal file."""
    wal = path.with_name(path.name + "-wal")
    return not (wal.exists() and wal.stat().st_size) and not _writable(path)


def _writable(path: Path) -> bool:
    try:
        with path.open("r+b"):
            return os.access(path.parent, os.W_OK)
    except OSError:
        return False


def is_journal(path: str | os.PathLike[str]) -> bool:
    """Tell whether the file begins like a journal; it may still be damaged."""
    with suppress(OSError), Path(path).open("rb") as file:
        start = file.read(72)
        return start[:16] == b"SQLite format 3\0" and start[68:72] == _APPLICATION.to_bytes(4, "big")
    return False


def append(file: sqlite3.Connection, header: Header, indices: Indices, sums: Array) -> None:
    """One record: the sums [n, columns] of points [n]."""
    parts = indices.tobytes(), sums.tobytes()
    row = (*parts, _checksum(header.identity, *parts))
    file.execute("INSERT INTO records (indices, sums, checksum) VALUES (?, ?, ?)", row)


def tell(file: sqlite3.Connection, header: Header, told: Mapping[str, Any]) -> None:
    """What the engine tells about the run."""
    text = json.dumps(told, sort_keys=True)
    file.execute("INSERT OR REPLACE INTO told VALUES (1, ?, ?)", (text, _checksum(header.identity, text)))


def contents(who: str, path: Path, file: sqlite3.Connection) -> Content:
    """All records, each checked."""
    with in_words(who, path):
        rows = file.execute("SELECT format, identity, points, columns, checksum FROM header").fetchall()
        if len(rows) != 1 or rows[0][-1] != _checksum(*map(str, rows[0][:-1])):
            raise _damaged(who, path, "its header does not match its checksum")
        if rows[0][0] != FORMAT:
            raise ValueError(f"{who}: {path} has format {rows[0][0]}, expected {FORMAT}; use the thalweg that wrote it")
        if (found := file.execute("PRAGMA quick_check(1)").fetchall()) != [("ok",)]:
            raise _damaged(who, path, " ".join(str(found[0][0]).split()))
        header = Header(*rows[0][1:4])
        indices, sums = [np.empty(0, np.int64)], [np.empty(0)]
        for number, *parts, checksum in file.execute("SELECT number, indices, sums, checksum FROM records ORDER BY 1"):
            if not all(isinstance(p, bytes) for p in parts) or checksum != _checksum(header.identity, *parts):
                raise _damaged(who, path, f"record {number} does not match its checksum")
            indices.append(np.frombuffer(parts[0], np.int64))
            sums.append(np.frombuffer(parts[1], np.float64))
        told: dict[str, Any] = {}
        for text, checksum in file.execute("SELECT told, checksum FROM told"):
            if not isinstance(text, str) or checksum != _checksum(header.identity, text):
                raise _damaged(who, path, "what it tells of the run does not match its checksum")
            told = json.loads(text)
    return Content(header, np.concatenate(indices), np.concatenate(sums).reshape(-1, header.columns), told)


def _damaged(who: str, path: Path, why: str) -> ValueError:
    return ValueError(f"{who}: {path} is damaged: {why}; delete it to start anew")


@contextmanager
def in_words(who: str, path: Path) -> Iterator[None]:
    """SQLite's errors as ours."""
    try:
        yield
    except (sqlite3.Error, UnicodeError) as error:
        text = str(error)
        if "locked" in text:
            raise RuntimeError(
                f"{who}: another process works with {path}; wait for it or stop it, or {_REMEDY}"
            ) from None
        denied = any(word in text for word in ("readonly", "unable to", "disk"))
        if isinstance(error, sqlite3.OperationalError) and denied and not ("readonly" in text and _writable(path)):
            raise OSError(
                f"{who}: cannot write {path} ({text}); a journal needs a writable directory with free space"
            ) from None
        raise _damaged(who, path, text) from None
