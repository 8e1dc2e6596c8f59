"""Where snapshots live: in memory or in a directory of files. Knows no optimizer and no schedule."""

from __future__ import annotations

import os
import re
import secrets
import warnings
import weakref
from pathlib import Path
from typing import Any, Protocol

import torch

from .. import _check
from . import _file
from ._snapshot import Snapshot, State

_NAME = re.compile(r"snapshot-(\d{8,})\.safetensors")
_HIDDEN = ".thalweg"  # lock and unfinished files; beside the snapshots, so that a rename publishes them


class Store(Protocol):
    """What SnapshotCollector asks of a store; steps identify members and putting a step again replaces it."""

    def begin(self, run: str) -> None:
        """Get ready to write members of the run called `run`; raise now rather than hours later."""

    def put(self, snapshot: Snapshot, state: State) -> Snapshot:
        """Keep one member; the returned snapshot knows how to load it."""

    @property
    def snapshots(self) -> list[Snapshot]:
        """Members of this run, oldest first."""

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs to have the same members."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the members of `state_dict` over."""

    def close(self) -> None:
        """Give up the right to write."""


class Memory:
    """Keep snapshots as copies in CPU memory.

    Args:
        keep_last: Keep only this many, the newest; None keeps all.

    Example:
        >>> import thalweg as tw
        >>> tw.ensemble.Memory(keep_last=3)
        Memory(keep_last=3)
    """

    def __init__(self, keep_last: int | None = None) -> None:
        self.keep_last = None if keep_last is None else _check.integer("Memory", "keep_last", keep_last, 1)
        self._members: dict[int, tuple[Snapshot, State]] = {}

    def __repr__(self) -> str:
        return f"Memory(keep_last={self.keep_last})"

    def begin(self, run: str) -> None:
        """Memory needs no preparation."""

    def put(self, snapshot: Snapshot, state: State) -> Snapshot:
        """Keep `state`, which the caller must not write to afterwards."""
        kept = Snapshot(snapshot.step, snapshot.cycle, snapshot.lr, snapshot.healthy, load=lambda: dict(state))
        self._members[kept.step] = (kept, state)
        for step in sorted(self._members)[: -self.keep_last] if self.keep_last else ():
            del self._members[step]
        return kept

    @property
    def snapshots(self) -> list[Snapshot]:
        """Members, oldest first."""
        return [self._members[step][0] for step in sorted(self._members)]

    def state_dict(self) -> dict[str, Any]:
        """Return all members with their weights: memory dies with the process, so the checkpoint has them."""
        return {"members": [{**s.to_dict(), "state": dict(s.state)} for s in self.snapshots]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Replace the members by those of `state`."""
        self._members = {}
        for member in state["members"]:
            place = {name: member[name] for name in ("step", "cycle", "lr", "healthy")}
            self.put(Snapshot(**place), {name: tensor.clone() for name, tensor in member["state"].items()})

    def close(self) -> None:
        """Memory has nothing to give up."""


class Disk:
    """Keep snapshots as checksummed safetensors files `snapshot-<step>.safetensors` in one directory.

    A file is written under another name, made durable (fsync) and renamed, so a reader meets a whole file or
    none. Every byte is under a checksum that is verified at loading; nothing is ever unpickled. One process
    writes at a time (an advisory lock, freed by the system when the process dies); in a torch.distributed run
    rank 0 writes and the others only take note. Any safetensors reader can open the files.

    Args:
        path: Directory; created when a collector starts to write.
        keep_last: Keep only the newest `keep_last` members of the run; an older one is deleted only after its
            successor is durable. Files of other runs are never deleted. None keeps all.

    Example:
        >>> import tempfile, torch, thalweg as tw
        >>> model = torch.nn.Linear(2, 1)
        >>> opt = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> with tempfile.TemporaryDirectory() as path:
        ...     snaps = tw.ensemble.SnapshotCollector(model, opt, store=tw.ensemble.Disk(path), when="manual")
        ...     member = snaps.take()
        ...     snaps.close()
        ...     sorted(tw.ensemble.Disk(path).load()[0].state)
        ['bias', 'weight']
    """

    def __init__(self, path: str | os.PathLike[str], keep_last: int | None = None) -> None:
        if not isinstance(path, (str, os.PathLike)):
            raise TypeError(f"Disk: path must be a path of a directory, got {_check.describe(path)}")
        self.path = Path(path)
        self.keep_last = None if keep_last is None else _check.integer("Disk", "keep_last", keep_last, 1)
        if self.path.exists() and not self.path.is_dir():
            raise NotADirectoryError(f"Disk: {self.path} exists and is not a directory; choose another path")
        self._run: str | None = None
        self._members: dict[int, Snapshot] = {}
        self._release: Any = None
        self._writes = _rank() == 0

    def __repr__(self) -> str:
        return f"Disk({str(self.path)!r}, keep_last={self.keep_last})"

    def begin(self, run: str) -> None:
        """Create and lock the directory, sweep unfinished files of dead writers, refuse the files of another run.

        Raises:
            FileExistsError: The directory holds snapshots of another run.
            BlockingIOError: Another process, or another collector of this one, writes here.
            OSError: The directory cannot be created or written.
        """
        self._run = run
        if self._release is not None or not self._writes:
            return
        _check.output_directory("Disk", self.path, overwrite=True)
        self._lock()
        try:
            self._refuse_foreign(run)
        except BaseException:
            self.close()
            raise

    def _lock(self) -> None:
        hidden = self.path / _HIDDEN
        hidden.mkdir(exist_ok=True)
        file = open(hidden / "lock", "ab")  # noqa: SIM115 - held until close()
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:  # no advisory locks on this system
            pass
        except BlockingIOError:
            file.close()
            raise BlockingIOError(
                f"Disk: another collector writes into {self.path}; close() it or choose another directory"
            ) from None
        except OSError:  # a file system without locks
            pass
        self._release = weakref.finalize(self, file.close)
        for stale in hidden.iterdir():  # with the lock held every unfinished file is a dead writer's
            if stale.name != "lock":
                stale.unlink(missing_ok=True)

    def _refuse_foreign(self, run: str) -> None:
        for step, path in self._files():
            if step in self._members:
                continue
            try:
                owner = _file.read_record(path).get("run")
            except _file.SnapshotError:
                owner = None
            if owner != run:
                raise FileExistsError(
                    f"Disk: {self.path} holds snapshots of another run ({path.name}); choose another directory, or "
                    "load_state_dict() the collector's state of that run to go on with it"
                )

    def _files(self) -> list[tuple[int, Path]]:
        if not self.path.is_dir():
            return []
        found = [(match, entry) for entry in self.path.iterdir() if (match := _NAME.fullmatch(entry.name))]
        return sorted((int(match.group(1)), entry) for match, entry in found)

    def file_of(self, step: int) -> Path:
        """Return the file name of the member taken after `step` steps."""
        return self.path / f"snapshot-{step:08d}.safetensors"

    def put(self, snapshot: Snapshot, state: State) -> Snapshot:
        """Write one member durably; afterwards delete what `keep_last` no longer keeps."""
        if self._run is None:
            self.begin(secrets.token_hex(8))
        path = self.file_of(snapshot.step)
        if self._writes:
            temporary = self.path / _HIDDEN / f"{path.name}.{secrets.token_hex(4)}"
            record = {**snapshot.to_dict(), "run": self._run, "names": list(state)}
            record["lr"] = float(snapshot.lr).hex()  # JSON has no NaN
            _file.write(path, temporary, state, record)
        self._members[snapshot.step] = self._at(path, snapshot.to_dict())
        self._delete_old()
        return self._members[snapshot.step]

    def _delete_old(self) -> None:
        old = sorted(self._members)[: -self.keep_last] if self.keep_last else []
        for step in old:
            del self._members[step]
            if self._writes:
                self.file_of(step).unlink(missing_ok=True)
        if old and self._writes:
            _file.sync_directory(self.path)

    def _at(self, path: Path, place: dict[str, Any]) -> Snapshot:
        return Snapshot(**place, load=lambda: _file.read(path)[0])

    @property
    def snapshots(self) -> list[Snapshot]:
        """Members that this run has written, oldest first."""
        return [self._members[step] for step in sorted(self._members)]

    def load(self, *, skip_damaged: bool = False) -> list[Snapshot]:
        """Return the snapshots in the directory, whoever wrote them, oldest first, each one verified.

        Args:
            skip_damaged: Leave damaged files out with a warning instead of raising.

        Raises:
            SnapshotError: A file is damaged, truncated or foreign, and `skip_damaged` is False.
            FileNotFoundError: The directory does not exist.
        """
        if not self.path.is_dir():
            raise FileNotFoundError(f"Disk: no directory {self.path}")
        members = []
        for _, path in self._files():
            try:
                record = _file.read(path)[1]
            except _file.SnapshotError as error:
                if not skip_damaged:
                    raise
                warnings.warn(f"{error}; left out", stacklevel=2)
                continue
            place = {name: record[name] for name in ("step", "cycle", "healthy")}
            members.append(self._at(path, {**place, "lr": float.fromhex(record["lr"])}))
        return members

    def state_dict(self) -> dict[str, Any]:
        """Return the list of members, without weights: those are in the files."""
        return {"members": [member.to_dict() for member in self.snapshots]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the members listed in `state`; files that are gone are left out with a warning.

        `keep_last` may have deleted a listed file after the state was saved, so a missing one is no error by
        itself.

        Raises:
            FileNotFoundError: None of the listed files is in the directory.
            SnapshotError: A listed file is damaged; delete it to go on without that member.
        """
        listed = [dict(place) for place in state["members"]]
        found = [place for place in listed if self.file_of(place["step"]).exists()]
        if listed and not found:
            raise FileNotFoundError(
                f"Disk: {self.path} holds none of the {len(listed)} listed snapshots; give the run's path"
            )
        if len(found) < len(listed):
            gone = sorted({place["step"] for place in listed} - {place["step"] for place in found})
            warnings.warn(f"Disk: {self.path} no longer holds the snapshots of steps {gone}; left out", stacklevel=3)
        for place in found:
            _file.read(self.file_of(place["step"]))
        self._members = {place["step"]: self._at(self.file_of(place["step"]), place) for place in found}

    def close(self) -> None:
        """Let another process write here."""
        if self._release is not None:
            self._release()
            self._release = None


def _rank() -> int:
    distributed = torch.distributed
    return distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else 0
