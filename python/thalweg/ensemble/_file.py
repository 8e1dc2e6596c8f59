"""One snapshot file: safetensors, checksummed to the last bit, published whole or not at all. Knows no policy.

Layout (a plain safetensors file): 8 bytes header length, JSON header, tensor bytes. The header's
`__metadata__` holds `thalweg_format`, the record of the snapshot (JSON), `xxh3` (JSON: tensor name -> XXH3-64
of its bytes, hexadecimal), `ties` (JSON: name -> name under which its tensor is stored) and `header_xxh3`,
the XXH3-64 of the first 8 + length bytes computed with its own 16 digits set to zero. So every byte of the
file is under a checksum.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import xxhash
from safetensors import SafetensorError

from ._snapshot import State

FORMAT = "1"
_ZERO = "0" * 16
_SEAL = re.compile(rb'"header_xxh3":"(.{16})"', re.DOTALL)
_MAX_HEADER = 100_000_000  # bytes; the limit of safetensors itself


class SnapshotError(ValueError):
    """A snapshot file is damaged, truncated or not a snapshot of thalweg; the text names the file and the tensor."""


def write(path: Path, temporary: Path, state: State, record: dict[str, Any]) -> None:
    """Write `state` to `temporary`, make it durable, and publish it as `path`; on any error `temporary` is removed."""
    stored, ties = _untie(state)
    metadata = {
        "thalweg_format": FORMAT,
        "record": json.dumps(record, sort_keys=True),
        "ties": json.dumps(ties, sort_keys=True),
        "xxh3": json.dumps({name: _digest(tensor) for name, tensor in stored.items()}, sort_keys=True),
        "header_xxh3": _ZERO,
    }
    try:
        safetensors.torch.save_file(stored, str(temporary), metadata=metadata)
        with open(temporary, "r+b") as file:
            header = _header_bytes(temporary, file)
            place = _seal_place(temporary, header)
            file.seek(place)
            file.write(xxhash.xxh3_64_hexdigest(header).encode())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except SafetensorError as error:
        temporary.unlink(missing_ok=True)
        raise OSError(f"snapshot {path}: cannot write: {error}") from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def read_record(path: Path) -> dict[str, Any]:
    """Return the record of the snapshot in `path` from its verified header, without reading its tensors."""
    with open(path, "rb") as file:
        record: dict[str, Any] = json.loads(_verified_metadata(path, file)["record"])
    return record


def read(path: Path) -> tuple[State, dict[str, Any]]:
    """Return state and record of `path` after every byte was verified.

    Raises:
        SnapshotError: The file is truncated, damaged or foreign.
    """
    with open(path, "rb") as file:
        metadata = _verified_metadata(path, file)
        file.seek(0)
        content = file.read()
    try:
        stored = safetensors.torch.load(content)
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise SnapshotError(f"snapshot {path}: damaged or truncated: {error}") from None
    expected: dict[str, str] = json.loads(metadata["xxh3"])
    for name, digest in expected.items():
        if name not in stored or _digest(stored[name]) != digest:
            raise SnapshotError(f"snapshot {path}: tensor {name!r} is damaged: its checksum does not match")
    for name, source in json.loads(metadata["ties"]).items():
        stored[name] = stored[source]
    record: dict[str, Any] = json.loads(metadata["record"])
    order: list[str] = record.pop("names")
    return {name: stored[name] for name in order}, record


def sync_directory(directory: Path) -> None:
    """Make renames and deletions in `directory` durable, where the system can."""
    if os.name != "posix":
        return
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _untie(state: State) -> tuple[State, dict[str, str]]:
    first: dict[int, str] = {}
    stored: State = {}
    ties: dict[str, str] = {}
    for name, tensor in state.items():
        source = first.setdefault(id(tensor), name)
        if source == name:
            stored[name] = tensor.contiguous()
        else:
            ties[name] = source
    return stored, ties


def _digest(tensor: torch.Tensor) -> str:
    if not tensor.numel():
        return str(xxhash.xxh3_64_hexdigest(b""))
    return str(xxhash.xxh3_64_hexdigest(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data))


def _header_bytes(path: Path, file: Any) -> bytes:
    start = file.read(8)
    length = int.from_bytes(start, "little")
    size = os.fstat(file.fileno()).st_size
    if len(start) < 8 or not 2 <= length <= min(size - 8, _MAX_HEADER):
        raise SnapshotError(f"snapshot {path}: damaged, truncated or not a safetensors file")
    return bytes(start + file.read(length))


def _seal_place(path: Path, header: bytes) -> int:
    match = _SEAL.search(header)
    if match is None:
        raise SnapshotError(f"snapshot {path}: no snapshot of thalweg: its header has no checksum, or it is damaged")
    return match.start(1)


def _verified_metadata(path: Path, file: Any) -> dict[str, str]:
    header = _header_bytes(path, file)
    place = _seal_place(path, header)
    found = header[place : place + 16]
    blank = header[:place] + _ZERO.encode() + header[place + 16 :]
    if xxhash.xxh3_64_hexdigest(blank).encode() != found:
        raise SnapshotError(f"snapshot {path}: the header is damaged: its checksum does not match")
    metadata: dict[str, str] = json.loads(header[8:])["__metadata__"]
    if metadata["thalweg_format"] != FORMAT:
        raise SnapshotError(
            f"snapshot {path}: format {metadata['thalweg_format']!r} is not known here (expected {FORMAT!r}); "
            "read it with the version of thalweg that wrote it"
        )
    return metadata
