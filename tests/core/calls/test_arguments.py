"""Validation of arguments against input schemas."""

import time
from pathlib import Path
from typing import Any

import pytest

from mcp_taskruns.core.calls import arguments as arguments_module
from mcp_taskruns.core.calls.arguments import (
    MAX_PROBLEM,
    MAX_VALUES,
    compile_validator,
    explain_problems,
    find_unusable_values,
)
from mcp_taskruns.core.model.schemas import find_endless_schema
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
    ({"zzz": 1, "taskRunId": "trn-1"}, ["zzz: unknown argument"]),
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


NAN = float("nan")
LONG_NAME = "n" * 2_000_000


def test_problem_with_a_name_of_2_mb_is_short() -> None:
    for arguments in ({LONG_NAME: 1}, {"taskRunId": "trn-1", "body": {"task": 1, "input": [], LONG_NAME: 1}}):
        problems = explain_problems(SCHEMA, arguments)
        assert problems
        assert max(map(len, problems)) <= MAX_PROBLEM
    (problem,) = find_unusable_values({LONG_NAME: NAN})
    assert len(problem) <= MAX_PROBLEM


def test_problem_in_a_value_of_2_mb_is_short() -> None:
    schema = {"properties": {"a": {"pattern": "^[0-9]$"}, "b": {"maxItems": 1}, "c": {"enum": ["x" * 2_000_000]}}}
    problems = explain_problems(schema, {"a": LONG_NAME, "b": [LONG_NAME] * 2, "c": 1})
    assert len(problems) == 3
    assert max(map(len, problems)) <= MAX_PROBLEM


def test_name_with_control_characters_stays_on_one_line() -> None:
    (problem,) = explain_problems({"additionalProperties": False}, {"a\x1b[2J\nb": 1})
    assert problem == "a [2J b: unknown argument"


@pytest.mark.parametrize(
    "schema",
    [
        {"items": {"type": "string"}},
        {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
        {"additionalProperties": False},
        {"additionalProperties": {"type": "string"}},
    ],
    ids=["items", "items of one of several schemas", "unknown names", "members"],
)
@pytest.mark.parametrize("wide", [[5] * 100_000, {f"m{number}": 5 for number in range(10_000)}], ids=["list", "object"])
def test_explaining_wide_arguments_does_little_work(schema: Any, wide: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    described: list[Any] = []
    describe = arguments_module._describe

    def record(error: Any) -> Any:
        described.append(error)
        return describe(error)

    monkeypatch.setattr(arguments_module, "_describe", record)
    problems = explain_problems({"properties": {"x": schema}}, {"x": wide})
    assert len(problems) <= 5
    assert len(described) <= 100


def test_problem_after_the_first_items_of_an_array_is_found() -> None:
    schema = {"properties": {"x": {"items": {"type": "integer"}}}}
    assert explain_problems(schema, {"x": [*range(5_000), "a"]}) == ["x[5000]: must be of type integer"]


@pytest.mark.parametrize(
    ("arguments", "problems"),
    [
        ({}, []),
        ({"a": [1, 1.5, {"b": [None, True, "NaN"]}]}, []),
        ({"a": NAN}, ["a: must be a finite number"]),
        ({"a": float("inf"), "b": float("-inf")}, ["a: must be a finite number", "b: must be a finite number"]),
        ({"a": [0, {"b": [1.5, NAN]}]}, ["a[1].b[1]: must be a finite number"]),
        ({"a": [NAN] * 1_000}, [f"a[{index}]: must be a finite number" for index in range(5)]),
        ({"a": [0] * MAX_VALUES}, ["the arguments contain more than 200,000 values"]),
        ({"a": [[]] * (MAX_VALUES - 1)}, []),
        ({"a": [[[]] * 1_000] * 1_000}, ["the arguments contain more than 200,000 values"]),
    ],
    ids=["empty", "finite", "NaN", "infinite", "nested", "many", "too many", "just not too many", "too many in all"],
)
def test_unusable_values_are_found_at_any_depth(arguments: Any, problems: list[str]) -> None:
    assert find_unusable_values(arguments) == problems


def nested(levels: int) -> Any:
    value: Any = 1
    for level in range(levels):
        value = [value] if level % 2 else {"a": value}
    return value


def test_arguments_nested_too_deeply_are_refused() -> None:
    assert find_unusable_values({"x": nested(100)}) == []
    (problem,) = find_unusable_values({"x": nested(101)})
    assert problem.endswith(": is nested more than 100 levels deep")
    assert len(find_unusable_values({"x": nested(100_000)})) == 1


# ECMA 262: without the flag m, `$` matches only at the end of the text. Python's `$` also matches before a last \n.
@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [
        ("^[ -~]*$", "text/plain", True),
        ("^[ -~]*$", "text/plain\n", False),
        ("^[ -~]*$", "text/plain\r\n", False),
        ("^(a|b$)", "b\n", False),
        (r"^a\\$", "a\\", True),
        (r"^a\\$", "a\\\n", False),
        (r"^\$\d+$", "$5", True),
        ("^[$a]+$", "a$", True),
        (r"^[\$a]+$", "a$", True),
        ("^[$a]+$", "x24", False),
        ("^[]$]+$", "]$", True),
        ("^[$a]+$", "a$\n", False),
    ],
)
def test_dollar_of_a_pattern_matches_only_at_the_end(pattern: str, text: str, fits: bool) -> None:
    schema = {"type": "object", "properties": {"x": {"type": "string", "pattern": pattern}}}
    assert compile_validator(schema)({"x": text}) is fits
    assert explain_problems(schema, {"x": text}) == ([] if fits else [f"x: {text!r} does not match {pattern!r}"])


def test_dollar_of_a_property_pattern_matches_only_at_the_end() -> None:
    schema = {"type": "object", "patternProperties": {"^x$": {}}, "additionalProperties": False}
    assert compile_validator(schema)({"x": 1})
    assert not compile_validator(schema)({"x\n": 1})
    assert len(explain_problems(schema, {"x\n": 1})) == 1


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_media_type_of_an_artifact_does_not_end_with_a_line_break(end: str) -> None:
    tool = TOOLS["posthog-upload-artifacts-task-run"]
    artifact = {"name": "a.md", "type": "plan", "content": "x", "content_type": f"text/plain{end}"}
    (problem,) = explain_problems(tool, RUN | {"body": {"artifacts": [artifact]}})
    assert problem.startswith("body.artifacts[0].content_type: ")


# Each takes at least minutes with Python's `re`.
HOSTILE_PATTERNS = [
    ("^(a|aa)+$", "a" * 100 + "!"),
    ("^(.*)*$", "a" * 5_000 + "\n\n"),
    (r"\s+$", " " * 1_000_000 + "x"),
    ("(?:a{1,30}){1,30}$", "a" * 300 + "!"),
]


def texts_with(pattern: str) -> dict[str, Any]:
    """Return a schema of a list of texts that match the pattern."""
    return {"type": "object", "properties": {"x": {"type": "array", "items": {"pattern": pattern}}}}


@pytest.mark.parametrize(("pattern", "text"), HOSTILE_PATTERNS)
def test_search_for_a_pattern_ends_after_a_while(pattern: str, text: str) -> None:
    problem = "the arguments take too long to check against the input schema: pass shorter ones"
    assert not compile_validator(texts_with(pattern))({"x": [text]})
    assert explain_problems(texts_with(pattern), {"x": [text]}) == [problem]
    properties = {"type": "object", "patternProperties": {pattern: {}}, "additionalProperties": False}
    assert explain_problems(properties, {text: 1}) == [problem]


def test_searches_of_one_call_end_together() -> None:
    times = iter(range(1_000))
    problems = explain_problems(texts_with("^a$"), {"x": ["a"] * 900}, lambda: next(times) / 1_000)
    assert problems == ["the arguments take too long to check against the input schema: pass shorter ones"]
    assert next(times) < 150


# Each takes 2^40 steps without a limit.
DOUBLED = {
    "anyOf": {"anyOf": [{"properties": {"a": {"$ref": "#/$defs/x"}}, "required": ["b"]}] * 2},
    "oneOf": {"oneOf": [{"properties": {"a": {"$ref": "#/$defs/x"}}}] * 2},
    "id": {"$id": "http://x/y", "anyOf": [{"properties": {"a": {"$ref": "http://x/y"}}, "required": ["b"]}] * 2},
    "two": {"allOf": [{"properties": {"a": {"$ref": "#/$defs/y"}}}] * 2},
}


@pytest.mark.parametrize("name", DOUBLED)
def test_check_against_a_recursive_schema_ends_after_a_while(name: str) -> None:
    schema = {"properties": {"x": {"$ref": "#/$defs/x"}}, "$defs": {"x": DOUBLED[name], "y": {"$ref": "#/$defs/x"}}}
    value: Any = {}
    for _ in range(40):
        value = {"a": value}
    problem = "the arguments take too long to check against the input schema: pass shorter ones"
    assert not compile_validator(schema, time.thread_time)({"x": value})
    assert explain_problems(schema, {"x": value}, time.thread_time) == [problem]


def test_recursive_schema_is_validated() -> None:
    schema = {
        "properties": {"x": {"$ref": "#/$defs/x"}},
        "$defs": {"x": {"items": {"$ref": "#/$defs/x"}, "maxItems": 2}},
    }
    assert compile_validator(schema, time.thread_time)({"x": [[], [[]]]})
    assert not compile_validator(schema, time.thread_time)({"x": [[], [[1, 2, 3]]]})
    assert explain_problems(schema, {"x": [[], [[1, 2, 3]]]}) == ["x[1][0]: [1, 2, 3] is too long"]


@pytest.mark.parametrize("values", [list(range(20_000)), [{"a": number} for number in range(20_000)]])
def test_items_are_compared_in_little_time(values: list[Any]) -> None:
    schema = {"properties": {"x": {"uniqueItems": True}, "y": {"pattern": "^a$"}}}
    assert explain_problems(schema, {"x": values}, time.thread_time) == []
    assert explain_problems(schema, {"x": [*values, values[0]]}, time.thread_time) == ["x: has items that are equal"]
    assert explain_problems({"uniqueItems": False}, [1, 1]) == []


def test_integer_beyond_a_double_is_explained() -> None:
    schema = {"properties": {"x": {"multipleOf": 0.01}}}
    assert not compile_validator(schema)({"x": 10**400})
    assert explain_problems(schema, {"x": 10**400}) == [
        "the arguments have a number that is too large for the input schema"
    ]


def test_text_in_the_format_of_a_pattern_is_not_compiled() -> None:
    assert compile_validator({"properties": {"x": {"format": "regex"}}})({"x": "("})


@pytest.mark.parametrize(("pattern", "text"), [("^(a+)+$", "a" * 50), ("^(?!b)[a-z]+$", "abc"), (r"^\p{L}+$", "äß漢")])
def test_patterns_of_ecma_262_are_supported(pattern: str, text: str) -> None:
    assert compile_validator(texts_with(pattern))({"x": [text]})
    assert len(explain_problems(texts_with(pattern), {"x": [text, f"{text}1"]})) == 1


def test_members_are_validated_by_the_patterns_of_their_names() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {}},
        "patternProperties": {"^x-": {"type": "string"}},
        "additionalProperties": {"type": "integer"},
    }
    assert compile_validator(schema)({"a": None, "x-1": "a", "n": 1})
    assert explain_problems(schema, {"x-1": 1, "n": "a"}) == [
        "n: must be of type integer",
        "['x-1']: must be of type string",
    ]
    closed = {**schema, "additionalProperties": False}
    assert explain_problems(closed, {"x-1": "a", "b": 1}) == ["b: unknown argument"]
    assert explain_problems({"patternProperties": {"^x": {}}, "pattern": "a"}, 5) == []
    assert explain_problems({"patternProperties": {"^x": {}}, "unevaluatedProperties": False}, {"x": 1}) == []
    assert explain_problems({"additionalProperties": True}, {"x": 1}) == []


ENDLESS: dict[str, dict[str, Any]] = {
    "allOf": {"$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}]}}, "$ref": "#/$defs/a"},
    "two schemas": {
        "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/b"}]}, "b": {"not": {"$ref": "#/$defs/a"}}},
        "properties": {"x": {"$ref": "#/$defs/a"}},
    },
    "root": {"allOf": [{"$ref": "#"}]},
    "itself": {"properties": {"x": {"items": {"$ref": "#/properties/x/items"}}}},
    "index": {"allOf": [{"if": {"$ref": "#/allOf/0"}}]},
    "dependent schemas": {"dependentSchemas": {"x~/": {"$ref": "#/dependentSchemas/x~0~1"}}},
    "doubled": {
        "$defs": {str(n): {"allOf": [{"$ref": f"#/$defs/{n + 1}"}] * 2} for n in range(40)},
        "$ref": "#/$defs/0",
    },
    "chain": {"$defs": {str(n): {"$ref": f"#/$defs/{n + 1}"} for n in range(2_000)}, "$ref": "#/$defs/0"},
}


@pytest.mark.parametrize("name", ENDLESS)
def test_schema_that_applies_itself_raises_not_configured(name: str) -> None:
    assert find_endless_schema(ENDLESS[name]) is not None
    with pytest.raises(NotConfigured):
        compile_validator(ENDLESS[name])


@pytest.mark.parametrize(
    "schema",
    [
        {"$defs": {"a": {"properties": {"x": {"$ref": "#/$defs/a"}}}}, "$ref": "#/$defs/a"},
        {"$defs": {"a": {"type": "string"}}, "properties": {"x": {"$ref": "#/$defs/a"}, "y": {"$ref": "#/$defs/a"}}},
        {"anyOf": [True, {"$ref": "#/anyOf/9"}, {"$ref": "#/x/y"}, {"$ref": "#anchor"}, {"$ref": 5}]},
    ],
)
def test_schema_that_refers_to_itself_for_a_part_of_the_value_is_not_endless(schema: dict[str, Any]) -> None:
    assert find_endless_schema(schema) is None


def test_arguments_too_deep_for_a_recursive_schema_are_explained() -> None:
    schema = {"$defs": {"a": {"items": {"anyOf": [{"allOf": [{"$ref": "#/$defs/a"}]}]}}}, "$ref": "#/$defs/a"}
    value: Any = []
    for _ in range(5_000):
        value = [value]
    assert not compile_validator(schema)(value)
    assert explain_problems(schema, value) == ["the arguments are nested too deeply for the input schema"]
