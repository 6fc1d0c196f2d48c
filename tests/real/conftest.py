"""A real server for each module, and an MCP client of an mcp-taskruns that uses it."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder for the server's data. Its path is short because Ray has sockets in it."""
    with tempfile.TemporaryDirectory(prefix="real", ignore_cleanup_errors=True) as name:
        yield Path(name)
