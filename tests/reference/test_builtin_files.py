"""The built-in capability files are the published ones."""

from pathlib import Path

import pytest

from mcp_taskruns.loading.files import builtin_capabilities
from tests.reference.data import CAPABILITIES


@pytest.mark.parametrize("path", CAPABILITIES, ids=lambda path: path.name)
def test_builtin_file_is_the_published_file(path: Path) -> None:
    assert (builtin_capabilities() / path.name).read_bytes() == path.read_bytes()
