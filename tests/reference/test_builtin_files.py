"""The built-in capability files are the published ones."""

from pathlib import Path

import pytest

from mcp_taskruns.loading.files import builtin_capabilities
from tests.reference.data import CAPABILITIES

SCHEMA_COMMENT = "# yaml-language-server: "


@pytest.mark.parametrize("path", CAPABILITIES, ids=lambda path: path.name)
def test_builtin_file_is_the_published_file_with_a_schema_comment(path: Path) -> None:
    comment, _, text = (builtin_capabilities() / path.name).read_text(encoding="utf-8").partition("\n")
    assert comment.startswith(SCHEMA_COMMENT)
    assert text == path.read_text(encoding="utf-8")
