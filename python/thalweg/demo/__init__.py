"""The demo: a whole descent on real data, told in one report. `thalweg demo` on the command line."""

from __future__ import annotations

from .run import run_demo as run_demo

__all__ = ["run_demo"]
