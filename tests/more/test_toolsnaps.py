"""The listed tools of the built-in files that are loaded on request, compared with the snapshots in `toolsnaps`.

`UPDATE_TOOLSNAPS=1 pytest tests/more/test_toolsnaps.py` updates the snapshots.
"""

import re
from collections import Counter
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from mcp_taskruns.loading.check import check_files
from mcp_taskruns.loading.files import files_on_request, orphan_overlays, overlay_of, paths_to_load
from mcp_taskruns.loading.loader import load_tools
from mcp_taskruns.servers.mcp.wire import tool_to_wire
from tests.toolsnaps import (
    check_description,
    check_hints,
    check_input_schema,
    check_named_tools,
    check_no_snapshot_is_left,
    check_snapshot,
)

SNAPS = Path(__file__).parent / "toolsnaps"
FILES = {path.stem: path for path in files_on_request()}
TOOLS = {file: load_tools([path]) for file, path in FILES.items()}
LISTED = {file: {tool.name: tool_to_wire(tool) for tool in tools} for file, tools in TOOLS.items()}

every_file = pytest.mark.parametrize("file", FILES)
every_tool = pytest.mark.parametrize(("file", "name"), [(file, name) for file in FILES for name in LISTED[file]])


@every_tool
def test_tool_matches_its_snapshot(file: str, name: str) -> None:
    check_snapshot(SNAPS / file / f"{name}.json", LISTED[file][name])


@every_file
def test_each_snapshot_belongs_to_a_tool(file: str) -> None:
    check_no_snapshot_is_left(SNAPS / file, LISTED[file])


def test_each_folder_of_snapshots_belongs_to_a_file() -> None:
    assert {path.name for path in SNAPS.iterdir()} == set(FILES)


@every_tool
def test_description_has_at_most_three_sentences(file: str, name: str) -> None:
    check_description(LISTED[file][name])


@every_tool
def test_description_refers_to_existing_tools_only(file: str, name: str) -> None:
    check_named_tools(LISTED[file][name], LISTED[file], {tool.prefix for tool in TOOLS[file]})


@every_tool
def test_hints_are_complete_and_consistent(file: str, name: str) -> None:
    check_hints(LISTED[file][name])


@every_tool
def test_input_schema_is_a_plain_object_with_descriptions(file: str, name: str) -> None:
    check_input_schema(LISTED[file][name])


@every_tool
def test_output_schema_requires_nothing_of_a_response(file: str, name: str) -> None:
    schema = LISTED[file][name].get("outputSchema")
    if schema is None or name.endswith("-wait-for-run"):
        return
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate({"text": "[]"})


@every_file
def test_provider_has_a_tool_that_waits(file: str) -> None:
    assert [tool.name for tool in TOOLS[file] if tool.is_wait_tool] != []


@every_file
def test_file_has_an_overlay_and_no_findings(file: str) -> None:
    assert overlay_of(FILES[file]).is_file()
    assert check_files([FILES[file]]).findings == ()


def test_all_files_together_have_no_findings() -> None:
    assert orphan_overlays([path.parent for path in FILES.values()]) == []
    assert check_files(paths_to_load((), ["all"])).findings == ()


def test_names_are_valid_and_the_same_when_all_files_are_loaded() -> None:
    names = [tool.name for tool in load_tools(paths_to_load((), ["all"]))]
    assert [name for name in names if not re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name)] == []
    renamed = Counter(name for listed in LISTED.values() for name in listed) - Counter(names)
    assert not renamed, "descriptions name these tools: give files of one provider prefixes of their own"
    assert len(names) == len(set(names))
