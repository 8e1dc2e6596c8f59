"""Puts the modules of another build (THALWEG_TEST_MODULES, say one with sanitizers) in the place of thalweg's own.

To be imported before thalweg, also by the test modules whose functions run in processes of their own.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path


def _load(folder: Path) -> None:
    """Load _core and _testing from `folder` before thalweg asks for them."""
    for name in ("_core", "_testing"):
        (path,) = folder.glob(f"{name}.*.so")
        spec = importlib.util.spec_from_file_location(f"thalweg.{name}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[f"thalweg.{name}"] = module
        spec.loader.exec_module(module)


if (_folder := os.environ.get("THALWEG_TEST_MODULES")) and "thalweg._core" not in sys.modules:
    _load(Path(_folder))

import thalweg  # noqa: E402

for _name in ("_core", "_testing"):  # an import that finds a loaded module does not set the package's attribute
    if f"thalweg.{_name}" in sys.modules:
        setattr(thalweg, _name, sys.modules[f"thalweg.{_name}"])
