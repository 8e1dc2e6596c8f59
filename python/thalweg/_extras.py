"""Optional packages: imported when needed, with an error that names the extra to install."""

from __future__ import annotations

import importlib
from typing import Any

_EXTRA_OF = {"matplotlib": "plot", "plotly": "plot", "sklearn": "demo", "scipy": "demo", "h5py": "hdf5"}


def require(module: str, who: str) -> Any:
    """Import `module` for the feature `who` and return it.

    Raises:
        ImportError: The package is not installed; the text names the extra of thalweg that brings it.
    """
    package = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ImportError as error:
        if error.name is not None and error.name.partition(".")[0] != package:
            raise
        extra = _EXTRA_OF[package]
        raise ImportError(f'{who} needs {package}; install it with: pip install "thalweg[{extra}]"') from error
