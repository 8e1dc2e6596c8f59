"""A file that is there whole or not at all. Knows no format."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import IO


def write_whole(who: str, path: str | os.PathLike[str], write: Callable[[IO[bytes]], object]) -> Path:
    """Let `write` fill a temporary file beside `path`, make it durable and rename it to `path`.

    The file gets the permissions of any new file (the umask's). After an error nothing is left behind, and a file that
    stood at `path` is as it was.

    Raises:
        FileNotFoundError: The directory does not exist.
        OSError: The file cannot be written.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{who}: no directory {target.parent}; create it first")
    if target.is_dir():
        raise IsADirectoryError(f"{who}: {target} is a directory; give the path of a file")
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return target
