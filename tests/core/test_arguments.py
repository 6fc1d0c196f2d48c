"""Arguments against a tool's input schema."""

from typing import Any

import pytest

from mcp_taskruns.core.arguments import compile_check, explain_problems
from mcp_taskruns.errors import NotConfigured

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
        ["body.input: 5 is not valid under any of the given schemas"],
    ),
    (
        {"taskRunID": "trn-1"},
        ["taskRunId: is required", "taskRunID: is no argument of this tool; did you mean taskRunId?"],
    ),
    ({"taskRunId": "trn-1", "zzz": 1}, ["zzz: is no argument of this tool"]),
    ({"taskRunId": "trn-1", "task": "a/b"}, ["task: is no argument of this tool; put it into body"]),
]


def test_arguments_that_fit_pass() -> None:
    assert compile_check(SCHEMA)(FITTING)
    assert explain_problems(SCHEMA, FITTING) == []


@pytest.mark.parametrize(("arguments", "problems"), WRONG)
def test_arguments_that_do_not_fit_are_refused_with_the_argument_and_the_rule(
    arguments: Any, problems: list[str]
) -> None:
    assert not compile_check(SCHEMA)(arguments)
    assert explain_problems(SCHEMA, arguments) == problems


def test_at_most_five_problems_are_told() -> None:
    arguments = {"taskRunId": "trn-1"} | {f"unknown{number}x": 1 for number in range(9)}
    assert len(explain_problems(SCHEMA, arguments)) == 5


def test_defaults_of_the_schema_are_not_filled_in() -> None:
    arguments: dict[str, Any] = {}
    compile_check({"type": "object", "properties": {"limit": {"type": "integer", "default": 20}}})(arguments)
    assert arguments == {}


def test_formats_are_the_providers_to_check() -> None:
    schema = {"type": "object", "properties": {"id": {"type": "string", "format": "uuid"}}}
    assert compile_check(schema)({"id": "trn-1"})


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
def test_a_schema_that_is_not_valid_or_elsewhere_is_a_call_error(schema: dict[str, Any]) -> None:
    with pytest.raises(NotConfigured) as caught:
        compile_check(schema)
    assert caught.value.to_json() == {
        "kind": "config",
        "message": "this tool's input schema is not valid JSON Schema",
        "retryable": False,
        "hint": "The server's operator should run `mcp-taskruns check`.",
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
def test_a_schema_may_refer_to_its_own_parts(schema: dict[str, Any], arguments: Any, fits: bool) -> None:
    assert compile_check(schema)(arguments) is fits


def test_a_rule_of_a_later_draft_does_not_refuse_what_it_allows() -> None:
    schema = {"type": "object", "properties": {"pair": {"type": "array", "prefixItems": [{"type": "string"}]}}}
    assert compile_check(schema)({"pair": ["a", 1]})
