"""The listed tools, compared with the snapshots in `toolsnaps`.

A change of a name, a description or a schema changes what models read, so it must be visible in a diff.
`UPDATE_TOOLSNAPS=1 pytest tests/servers/mcp/test_toolsnaps.py` updates the snapshots.
"""

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from mcp_taskruns.core.model.tool import Tool
from mcp_taskruns.loading.catalog import build_catalog
from mcp_taskruns.loading.loader import load_tools
from mcp_taskruns.servers.mcp.wire import tool_to_wire
from mcp_taskruns.settings import Settings
from tests.toolsnaps import (
    check_description,
    check_hints,
    check_input_schema,
    check_named_tools,
    check_no_snapshot_is_left,
    check_snapshot,
)

SNAPS = Path(__file__).parent / "toolsnaps"
TOOLS = load_tools([])
BY_NAME = {tool.name: tool for tool in TOOLS}
LISTED = {tool.name: tool_to_wire(tool) for tool in TOOLS}
DEFAULT = list(build_catalog(TOOLS, Settings()).tools.values())
"""The tools that are listed whatever the environment."""

every_tool = pytest.mark.parametrize("name", LISTED)


@every_tool
def test_tool_matches_its_snapshot(name: str) -> None:
    check_snapshot(SNAPS / f"{name}.json", LISTED[name])


def test_each_snapshot_belongs_to_a_tool() -> None:
    check_no_snapshot_is_left(SNAPS, LISTED)


def test_number_of_tools_per_provider() -> None:
    assert Counter(tool.prefix for tool in DEFAULT) == {"render": 9, "inngest": 5, "posthog": 22, "runway": 4}


def test_four_tools_are_listed_only_with_a_key_for_inngest_v2() -> None:
    assert {tool.name for tool in TOOLS if tool not in DEFAULT} == {
        "inngest-get-function-run-trace",
        "inngest-list-event-runs",
        "inngest-list-function-runs",
        "inngest-retry-run",
    }


def test_names_are_unique_and_valid() -> None:
    assert [name for name in LISTED if not re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name)] == []
    assert len(LISTED) == len(TOOLS) == 44


@every_tool
def test_description_has_at_most_three_sentences(name: str) -> None:
    check_description(LISTED[name])


@every_tool
def test_description_refers_to_existing_tools_only(name: str) -> None:
    check_named_tools(LISTED[name], LISTED, ("render", "inngest", "posthog", "runway"))


@every_tool
def test_hints_are_complete_and_consistent(name: str) -> None:
    check_hints(LISTED[name])


def test_destructive_tools() -> None:
    destructive = {name for name, listed in LISTED.items() if listed["annotations"]["destructiveHint"]}
    assert destructive == {
        "inngest-cancel-function-run",
        "posthog-resume-task-run-cloud",
        "posthog-send-command-agent-server",
        "posthog-set-run-output",
        "posthog-update-task-run",
        "render-cancel-task-run",
        "runway-cancel-delete-task",
    }


def test_read_only_tools_only_read() -> None:
    changing = {tool.name for tool in TOOLS if tool.hints.read_only and tool.operation.method != "GET"}
    # These read by POST, with a path in the body.
    assert changing == {"posthog-download-artifact-through-backend", "posthog-generate-presigned-url-artifact"}
    # This GET creates a credential; the tools that retry a run read it first.
    assert {tool.name for tool in TOOLS if not tool.hints.read_only and tool.operation.method == "GET"} == {
        "inngest-retry-run",
        "posthog-get-sandbox-connection-token",
        "posthog-retry-run",
    }


@every_tool
def test_input_schema_is_a_plain_object_with_descriptions(name: str) -> None:
    check_input_schema(LISTED[name])


ABOUT_ONE_RUN = {
    "inngest-get-function-run-status",
    "inngest-cancel-function-run",
    "posthog-create-task-run",
    "posthog-retrieve-task-run",
    "posthog-update-task-run",
    "posthog-append-log-entries",
    "posthog-resume-task-run-cloud",
    "posthog-set-run-output",
    "posthog-start-task-run",
    "render-run-task",
    "render-retrieve-task-run",
    "render-cancel-task-run",
    "runway-retrieve-task-status-and-output",
    "runway-cancel-delete-task",
}


@every_tool
def test_only_tools_about_one_run_have_an_output_schema(name: str) -> None:
    schema = LISTED[name].get("outputSchema")
    assert (schema is not None) is (name in ABOUT_ONE_RUN or BY_NAME[name].derived is not None)
    if schema is not None:
        Draft202012Validator.check_schema(schema)
        assert schema["type"] == "object"
        assert not {"anyOf", "oneOf", "allOf", "additionalProperties"} & set(schema)
        assert ("required" in schema) is BY_NAME[name].is_wait_tool


def test_output_schema_accepts_an_unexpected_response_as_text() -> None:
    for name in ABOUT_ONE_RUN:
        Draft202012Validator(LISTED[name]["outputSchema"]).validate({"text": "[]"})


def test_every_provider_has_a_wait_tool_that_reads_a_run() -> None:
    reading = {
        "inngest": "inngest-get-function-run-status",
        "posthog": "posthog-retrieve-task-run",
        "render": "render-retrieve-task-run",
        "runway": "runway-retrieve-task-status-and-output",
    }
    waiting = {tool.prefix: tool for tool in TOOLS if tool.is_wait_tool}
    assert {prefix: tool.name for prefix, tool in waiting.items()} == {name: f"{name}-wait-for-run" for name in reading}
    assert {prefix: tool.operation for prefix, tool in waiting.items()} == {
        prefix: BY_NAME[name].operation for prefix, name in reading.items()
    }
    assert all(
        BY_NAME[name].input_schema["required"] == waiting[prefix].input_schema["required"]
        for prefix, name in reading.items()
    )


def test_size_of_the_list_of_tools() -> None:
    text = json.dumps([LISTED[tool.name] for tool in DEFAULT], separators=(",", ":"), ensure_ascii=False)
    assert len(text.encode()) < 48_000


def unprefixed(tool: Tool) -> str:
    return tool.name.removeprefix(f"{tool.prefix}-")


def test_names_differ_from_those_of_the_files_for_two_tools() -> None:
    renamed = {tool.declared_name: unprefixed(tool) for tool in TOOLS if unprefixed(tool) != tool.declared_name}
    assert renamed == {
        "api-managing-task-runs-each": "retrieve-task-run",
        "api-managing-task-runs-each-2": "stream-task-run",
    }
