"""The tools as they are listed, compared with the files in `toolsnaps`.

A change of a name, a description or a schema changes what models read: it is made on purpose, and shown in the diff.
`UPDATE_TOOLSNAPS=1 pytest tests/test_toolsnaps.py` writes the files anew.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from mcp_taskruns.core.model.tool import Tool
from mcp_taskruns.loading.loader import load_tools
from mcp_taskruns.servers.mcp.server import list_tool

SNAPS = Path(__file__).parent / "toolsnaps"
TOOLS = load_tools([])
BY_NAME = {tool.name: tool for tool in TOOLS}
LISTED = {tool.name: list_tool(tool) for tool in TOOLS}

every_tool = pytest.mark.parametrize("name", LISTED)


def text_of(listed: Any) -> str:
    return json.dumps(listed, indent=2, ensure_ascii=False) + "\n"


@every_tool
def test_a_tool_is_listed_as_it_was(name: str) -> None:
    snap, text = SNAPS / f"{name}.json", text_of(LISTED[name])
    if os.environ.get("UPDATE_TOOLSNAPS") == "1":
        snap.write_text(text, encoding="utf-8")
    assert snap.is_file(), f"{name} is new: run UPDATE_TOOLSNAPS=1 pytest {Path(__file__).name}"
    assert text == snap.read_text(encoding="utf-8"), f"if meant: run UPDATE_TOOLSNAPS=1 pytest {Path(__file__).name}"


def test_no_snapshot_is_left_of_a_tool_that_is_gone() -> None:
    left = {path.stem for path in SNAPS.iterdir()} - set(LISTED)
    if os.environ.get("UPDATE_TOOLSNAPS") == "1":
        for name in left:
            (SNAPS / f"{name}.json").unlink()
        left = set()
    assert left == set(), f"if meant: run UPDATE_TOOLSNAPS=1 pytest {Path(__file__).name}"


def test_every_provider_has_all_its_tools() -> None:
    assert Counter(tool.prefix for tool in TOOLS) == {"render": 8, "inngest": 4, "posthog": 20, "runway": 3}


def test_names_are_distinct_and_every_client_takes_them() -> None:
    assert [name for name in LISTED if not re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name)] == []
    assert len(LISTED) == len(TOOLS) == 35


def sentences(text: str) -> list[str]:
    """Its sentences; a full stop of an abbreviation ends none."""
    return re.split(r"(?<=[.!?])\s+(?=[A-Z])", re.sub(r"\b(e\.g|i\.e|etc)\.", r"\1", text))


@every_tool
def test_a_description_is_three_sentences_at_most(name: str) -> None:
    description = LISTED[name]["description"]
    assert description == " ".join(description.split())
    assert description.endswith(".")
    assert len(description) <= 400
    assert len(sentences(description)) <= 3


@every_tool
def test_a_description_names_only_tools_that_there_are(name: str) -> None:
    named = re.findall(r"\b(?:render|inngest|posthog|runway)-[a-z-]+", LISTED[name]["description"])
    assert set(named) <= set(LISTED) - {name}


@every_tool
def test_all_hints_are_told_and_agree(name: str) -> None:
    hints = LISTED[name]["annotations"]
    assert {hint: type(value) for hint, value in hints.items()} == {
        "readOnlyHint": bool,
        "destructiveHint": bool,
        "idempotentHint": bool,
        "openWorldHint": bool,
    }
    assert hints["openWorldHint"] is True
    if hints["readOnlyHint"]:
        assert (hints["destructiveHint"], hints["idempotentHint"]) == (False, True)


def test_the_tools_that_end_or_delete_something_say_so() -> None:
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


def test_only_reads_are_called_read_only() -> None:
    changing = {tool.name for tool in TOOLS if tool.hints.read_only and tool.operation.method != "GET"}
    # Reads by POST: their path goes in the body.
    assert changing == {"posthog-download-artifact-through-backend", "posthog-generate-presigned-url-artifact"}
    # A GET that makes a credential
    assert {tool.name for tool in TOOLS if not tool.hints.read_only and tool.operation.method == "GET"} == {
        "posthog-get-sandbox-connection-token"
    }


@every_tool
def test_an_input_schema_is_a_plain_object(name: str) -> None:
    schema = LISTED[name]["inputSchema"]
    Draft202012Validator.check_schema(schema)
    assert set(schema) <= {"type", "properties", "required", "additionalProperties"}
    assert (schema["type"], schema["additionalProperties"]) == ("object", False)
    assert set(schema.get("required", [])) <= set(schema["properties"])


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
def test_only_a_tool_whose_answer_is_about_one_run_says_what_it_returns(name: str) -> None:
    schema = LISTED[name].get("outputSchema")
    assert (schema is not None) is (name in ABOUT_ONE_RUN or BY_NAME[name].is_wait_tool)
    if schema is not None:
        Draft202012Validator.check_schema(schema)
        assert schema["type"] == "object"
        assert not {"anyOf", "oneOf", "allOf", "additionalProperties"} & set(schema)
        assert ("required" in schema) is BY_NAME[name].is_wait_tool


def test_an_output_schema_takes_what_its_tool_returns_when_the_provider_has_changed() -> None:
    for name in ABOUT_ONE_RUN:
        Draft202012Validator(LISTED[name]["outputSchema"]).validate({"text": "[]"})


def test_every_provider_has_a_tool_that_waits_and_calls_what_reads_a_run() -> None:
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


@every_tool
def test_every_argument_is_described(name: str) -> None:
    properties = LISTED[name]["inputSchema"]["properties"]
    assert [argument for argument, schema in properties.items() if not schema.get("description")] == []


def parts(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        yield schema
        for value in schema.values():
            yield from parts(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from parts(value)


@every_tool
def test_every_array_says_what_is_in_it(name: str) -> None:
    arrays = [part for part in parts(LISTED[name]["inputSchema"]) if part.get("type") == "array"]
    assert [array for array in arrays if "items" not in array] == []


def test_the_list_of_tools_is_small() -> None:
    text = json.dumps(list(LISTED.values()), separators=(",", ":"), ensure_ascii=False)
    assert len(text.encode()) < 44_000


def unprefixed(tool: Tool) -> str:
    return tool.name.removeprefix(f"{tool.prefix}-")


def test_names_are_those_of_the_files_but_for_two() -> None:
    renamed = {tool.declared_name: unprefixed(tool) for tool in TOOLS if unprefixed(tool) != tool.declared_name}
    assert renamed == {
        "api-managing-task-runs-each": "retrieve-task-run",
        "api-managing-task-runs-each-2": "stream-task-run",
    }
