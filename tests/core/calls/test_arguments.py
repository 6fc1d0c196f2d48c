"""Validation of arguments against input schemas."""

from pathlib import Path
from typing import Any

import pytest

from mcp_taskruns.core.calls.arguments import compile_validator, explain_problems
from mcp_taskruns.errors import NotConfigured
from mcp_taskruns.loading.loader import load_tools

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "taskRunId": {"type": "string", "minLength": 3},
        "limit": {"type": "integer", "minimum": 1, "maximum": 100},
        "start": {"type": "string", "enum": ["latest", "first"]},
        "body": {
            "type": "object",
            "required": ["task", "input"],
            "properties": {"task": {"type": "string"}, "input": {"anyOf": [{"type": "array"}, {"type": "object"}]}},
        },
    },
    "required": ["taskRunId"],
    "additionalProperties": False,
}
FITTING = {"taskRunId": "trn-1", "limit": 5, "start": "latest", "body": {"task": "a/b", "input": [1], "more": True}}

WRONG: list[tuple[Any, list[str]]] = [
    ({}, ["taskRunId: is required"]),
    ({"taskRunId": 5}, ["taskRunId: must be of type string"]),
    ({"taskRunId": "trn-1", "limit": "5"}, ["limit: must be of type integer"]),
    ({"taskRunId": "trn-1", "limit": 101}, ["limit: 101 is greater than the maximum of 100"]),
    ({"taskRunId": "trn-1", "limit": True}, ["limit: must be of type integer"]),
    ({"taskRunId": "trn-1", "start": "now"}, ["start: must be one of latest, first"]),
    ({"taskRunId": "trn-1", "body": {}}, ["body.task: is required", "body.input: is required"]),
    (
        {"taskRunId": "trn-1", "body": {"task": "a/b", "input": 5}},
        ["body.input: must be of type array or object"],
    ),
    (
        {"taskRunID": "trn-1"},
        ["taskRunId: is required", "taskRunID: unknown argument; did you mean taskRunId?"],
    ),
    ({"taskRunId": "trn-1", "zzz": 1}, ["zzz: unknown argument"]),
    ({"taskRunId": "trn-1", "task": "a/b"}, ["task: unknown argument; put it into body"]),
    ({"taskRunId": "trn-1", ".zzz": 1, "XZ": 1}, [".zzz: unknown argument", "XZ: unknown argument"]),
]


def test_valid_arguments_have_no_problems() -> None:
    assert compile_validator(SCHEMA)(FITTING)
    assert explain_problems(SCHEMA, FITTING) == []


@pytest.mark.parametrize(("arguments", "problems"), WRONG)
def test_invalid_arguments_are_explained_by_argument_and_rule(arguments: Any, problems: list[str]) -> None:
    assert not compile_validator(SCHEMA)(arguments)
    assert explain_problems(SCHEMA, arguments) == problems


def test_every_argument_is_unknown_to_a_schema_without_properties() -> None:
    schema = {"type": "object", "additionalProperties": False, "required": ["X-Key"]}
    assert explain_problems(schema, {"a": 1}) == ["a: unknown argument", "X-Key: is required"]


def test_at_most_five_problems_are_listed() -> None:
    arguments = {"taskRunId": "trn-1"} | {f"unknown{number}x": 1 for number in range(9)}
    assert len(explain_problems(SCHEMA, arguments)) == 5


def test_schema_defaults_are_not_filled_in() -> None:
    arguments: dict[str, Any] = {}
    compile_validator({"type": "object", "properties": {"limit": {"type": "integer", "default": 20}}})(arguments)
    assert arguments == {}


@pytest.mark.parametrize(
    ("format_", "value", "fits"),
    [
        # RFC 9562 section 4
        ("uuid", "17f20503-6c24-4c16-946b-35dbbce2af2f", True),
        ("uuid", "17F20503-6C24-4C16-946B-35DBBCE2AF2F", True),
        ("uuid", "17f205036c244c16946b35dbbce2af2f", False),
        ("uuid", "17f20503-6c24-4c16-946b-35dbbce2af2f\n", False),
        ("uuid", "trn-1", False),
        # RFC 3339 section 5.6; PostHog takes times without seconds
        ("date-time", "2026-01-31T09:00:00Z", True),
        ("date-time", "2026-01-31T09:00:00.123+02:00", True),
        ("date-time", "2026-01-31T09:00Z", True),
        ("date-time", "2026-01-31", False),
        ("date-time", "2026-01-31T09:00:00", True),
        ("date-time", "yesterday", False),
        ("date-time", "2026-01-31T09:00:00Z\n", False),
        ("date-time", "2026-01-31t09:00:00z", True),
        ("date-time", "2026-01-31 09:00:00-05:00", True),
        # The right form, but not a valid time
        ("date-time", "2026-13-01T09:00:00Z", False),
        ("date-time", "2026-02-30T09:00:00Z", False),
        ("date-time", "2026-01-31T25:00:00Z", False),
        ("date-time", "2026-01-31T09:61:00Z", False),
        # Other formats are annotations
        ("uri", "no address", True),
        ("email", "nobody", True),
        ("uuid", 5, True),
    ],
)
def test_uuid_and_date_time_formats_are_validated(format_: str, value: Any, fits: bool) -> None:
    schema = {"type": "object", "properties": {"id": {"format": format_}}}
    problems = explain_problems(schema, {"id": value})
    assert (problems == []) is fits
    if fits and format_ in {"uuid", "date-time"}:
        assert compile_validator(schema)({"id": value})
    if not fits:
        assert not compile_validator(schema)({"id": value})
        assert problems == [f"id: {value!r} is not a {format_!r}"]


@pytest.mark.parametrize(
    ("value", "problems"),
    [
        ({"x": 5}, ["x: must be of type string or array"]),
        ({"x": []}, ["x: [] should be non-empty"]),
        ({"x": [1]}, ["x[0]: must be of type string"]),
        ({"y": {}}, ["y: needs size or content"]),
        ({"y": {"size": 1}}, []),
    ],
)
def test_any_of_is_explained_by_the_schema_with_the_matching_type(value: Any, problems: list[str]) -> None:
    schema = {
        "type": "object",
        "properties": {
            "x": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]},
            "y": {"type": "object", "anyOf": [{"required": ["size"]}, {"required": ["content"]}]},
        },
    }
    assert explain_problems(schema, value) == problems


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "text"},
        {"properties": []},
        {"properties": {"a": 5}},
        {"properties": {"a": {"pattern": "("}}},
        {"required": 5},
        {"enum": 5},
        {"minimum": "a"},
        {"$ref": "#/nowhere"},
        {"$ref": "other.json"},
        {"$ref": "file:///etc/passwd"},
        {"$ref": "http://127.0.0.1:9/schema"},
        {"properties": {"a": {"$ref": "https://schemas.example/a.json"}}},
        {"items": {"$ref": "ftp://schemas.example/a.json"}},
    ],
    ids=str,
)
def test_invalid_or_remote_schema_raises_not_configured(schema: dict[str, Any]) -> None:
    with pytest.raises(NotConfigured) as caught:
        compile_validator(schema)
    assert caught.value.to_json() == {
        "kind": "config",
        "message": "this tool's input schema is not valid JSON Schema",
        "retryable": False,
        "hint": "Ask the operator of this server to run `mcp-taskruns check`.",
    }


@pytest.mark.parametrize(
    ("schema", "arguments", "fits"),
    [
        ({"$defs": {"b": {"type": "integer"}}, "properties": {"a": {"$ref": "#/$defs/b"}}}, {"a": 1}, True),
        ({"$defs": {"b": {"type": "integer"}}, "properties": {"a": {"$ref": "#/$defs/b"}}}, {"a": "x"}, False),
        ({"type": "object", "properties": {"a": {"$ref": "#"}}}, {"a": {"a": {}}}, True),
        ({"type": "object", "properties": {"a": {"$ref": "#"}}}, {"a": {"a": 5}}, False),
    ],
)
def test_local_references_are_resolved(schema: dict[str, Any], arguments: Any, fits: bool) -> None:
    assert compile_validator(schema)(arguments) is fits


def test_reference_to_an_existing_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text('{"type": "string"}')
    with pytest.raises(NotConfigured):
        compile_validator({"$ref": f"{tmp_path.as_uri()}/schema.json"})


def test_schema_of_an_earlier_draft_is_validated_as_draft_7() -> None:
    # Draft 4 has no `const`.
    schema = {"$schema": "http://json-schema.org/draft-04/schema#", "properties": {"a": {"const": 1}}}
    assert [compile_validator(schema)({"a": value}) for value in (1, 2)] == [True, False]


def test_keywords_of_later_drafts_do_not_refuse_valid_arguments() -> None:
    schema = {"type": "object", "properties": {"pair": {"type": "array", "prefixItems": [{"type": "string"}]}}}
    assert compile_validator(schema)({"pair": ["a", 1]})


TOOLS = {tool.name: tool.input_schema for tool in load_tools([])}
RUN = {"task_id": "11111111-1111-4111-8111-111111111111", "id": "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa"}
FILE = {"name": "a.md", "type": "output"}


@pytest.mark.parametrize(
    ("tool", "arguments", "problems"),
    [
        ("render-run-task", {"body": {"task": "a/b", "input": []}}, []),
        (
            "render-run-task",
            {"body": {"task": "a/b", "input": "[5]"}},
            ["body.input: must be of type array or object"],
        ),
        (
            "render-list-task-runs",
            {"limit": 0, "all_pages": "yes"},
            ["all_pages: must be of type boolean", "limit: 0 is less than the minimum of 1"],
        ),
        ("runway-retrieve-task-status-and-output", {"id": "task-1"}, ["id: 'task-1' is not a 'uuid'"]),
        ("posthog-retrieve-task-run", RUN | {"id": "run-1"}, ["id: 'run-1' is not a 'uuid'"]),
        ("posthog-retrieve-task-run", RUN | {"project_id": 12345}, []),
        ("posthog-retrieve-task-run", RUN | {"project_id": "12345"}, []),
        ("posthog-retrieve-task-run", RUN | {"project_id": True}, ["project_id: must be of type integer or string"]),
        # An invalid id is reported as such, not as "must be of type array".
        ("render-wait-for-run", {"taskRunId": ["trn-1", "trn-2"]}, []),
        ("render-wait-for-run", {"taskRunId": 5}, ["taskRunId: must be of type string or array"]),
        ("render-wait-for-run", {"taskRunId": []}, ["taskRunId: [] should be non-empty"]),
        ("render-wait-for-run", {"taskRunId": ["trn-1", 5]}, ["taskRunId[1]: must be of type string"]),
        ("posthog-prepare-direct-uploads-task-run", RUN | {"body": {"artifacts": [FILE | {"size": 1}]}}, []),
        ("posthog-prepare-direct-uploads-task-run", RUN | {"body": {"artifacts": [FILE | {"content": "a"}]}}, []),
        (
            "posthog-prepare-direct-uploads-task-run",
            RUN | {"body": {"artifacts": [FILE | {"size": 1}, FILE]}},
            ["body.artifacts[1]: needs size or content"],
        ),
        (
            "posthog-prepare-direct-uploads-task-run",
            RUN | {"body": {"artifacts": [{"name": "a.md", "content": 5}]}},
            ["body.artifacts[0].type: is required", "body.artifacts[0].content: must be of type string"],
        ),
        ("posthog-update-task-run", RUN | {"body": {"branch": None}}, []),
        ("posthog-update-task-run", RUN | {"body": {"branch": 5}}, ["body.branch: must be of type string or null"]),
        ("posthog-create-task-run", {"task_id": RUN["task_id"], "body": {"branch": "main"}}, []),
        (
            "posthog-send-command-agent-server",
            RUN | {"body": {"jsonrpc": "2.0", "method": "cancel", "id": []}},
            ["body.id: must be of type string or number or null"],
        ),
        (
            "posthog-get-filtered-task-run-session",
            RUN | {"after": "yesterday"},
            ["after: 'yesterday' is not a 'date-time'"],
        ),
        (
            "posthog-get-task-run-logs",
            RUN | {"since": "2026-01-31", "last": 0, "types": "tool_call"},
            [
                "last: 0 is less than the minimum of 1",
                "since: '2026-01-31' is not a 'date-time'",
                "types: must be of type array",
            ],
        ),
    ],
)
def test_problems_of_shipped_tools_name_argument_and_rule(tool: str, arguments: Any, problems: list[str]) -> None:
    assert compile_validator(TOOLS[tool])(arguments) is (problems == [])
    assert explain_problems(TOOLS[tool], arguments) == problems


@pytest.mark.parametrize(
    ("tool", "arguments", "place"),
    [
        # At most 10000 and 255 characters: PostHog products/tasks/backend/serializers.py
        ("posthog-relay-run-message-slack", RUN | {"body": {"text": "x" * 10_001}}, "body.text"),
        ("posthog-create-task-run", {"task_id": RUN["task_id"], "body": {"branch": "x" * 256}}, "body.branch"),
    ],
)
def test_too_long_text_is_explained_without_the_text(tool: str, arguments: Any, place: str) -> None:
    assert not compile_validator(TOOLS[tool])(arguments)
    (problem,) = explain_problems(TOOLS[tool], arguments)
    assert problem.startswith(f"{place}: ")
    assert "too long" in problem
    assert len(problem) < 300
