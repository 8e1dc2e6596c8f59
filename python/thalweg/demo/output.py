"""The demo's output directory: all files appear at the end, or none do. Knows no experiment."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .. import _check


@contextmanager
def staged(who: str, path: str | os.PathLike[str], *, overwrite: bool = False) -> Iterator[tuple[Path, Path]]:
    """Yield (directory to write into now, `path`); its files move into `path` when the block ends without an error.

    The first is a hidden directory inside `path`, so that both are on one file system. After an error or Ctrl-C it is
    removed, and with it every directory that was created.

    Raises:
        FileExistsError: `path` is not empty and `overwrite` is false.
        OSError: `path` cannot be created or written.
    """
    target = Path(path).absolute()
    created = [directory for directory in (target, *target.parents) if not directory.exists()]
    folder: Path | None = None
    moved: list[Path] = []
    try:
        _check.output_directory(who, target, overwrite=overwrite)
        folder = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=target))
        yield folder, target
        for file in sorted(folder.iterdir()):
            place = target / file.name
            if not place.exists():
                moved.append(place)
            os.replace(file, place)
        folder.rmdir()
    except BaseException:
        for place in moved:
            place.unlink(missing_ok=True)
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        for directory in created:
            with contextlib.suppress(OSError):
                directory.rmdir()
        raise


def plain(value: Any) -> Any:
    """Return `value` in JSON's types: arrays as lists, NaN and infinity as None."""
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON."""
    path.write_text(json.dumps(plain(value), indent=1, allow_nan=False) + "\n", encoding="utf-8")
