"""The `thalweg` command: one file per subcommand, each with add_parser() and run()."""

from __future__ import annotations

from ._main import main as main
