"""What packaging tests found out that a reader of the test log wants to see even when they pass."""

from __future__ import annotations

from typing import Any

import pytest

KERNELS = pytest.StashKey[str]()


@pytest.fixture
def show_kernels(request: pytest.FixtureRequest) -> Any:
    """Call it with a table: it is printed at the end of the test run."""
    return lambda table: request.config.stash.__setitem__(KERNELS, table)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the table of the kernels, if there is one."""
    if KERNELS in config.stash:
        terminalreporter.section("CUDA kernels")
        terminalreporter.write_line(config.stash[KERNELS])
