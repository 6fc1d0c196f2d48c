import re
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from mcp_taskruns.core.calls.request import path_arguments
from mcp_taskruns.core.format.compiler import ToolNames, compile_tools
from mcp_taskruns.core.format.runs import find_run_problems
from mcp_taskruns.core.format.spec import Capability, parse_capability
from mcp_taskruns.core.format.tool_schemas import MAX_RUNS
from mcp_taskruns.core.model.json_path import EACH
from mcp_taskruns.core.model.operation import ArgumentReference
from mcp_taskruns.core.model.run import (
    Lifecycle,
    ProgressFields,
    RunCall,
    RunCancel,
    RunCancelFirst,
    RunFields,
    RunStart,
    RunStatus,
    RunStream,
    Statuses,
)
from mcp_taskruns.core.model.tool import Tool
from mcp_taskruns.core.runs.results import WAIT_SCHEMA
from mcp_taskruns.engine.results import matches_schema
from mcp_taskruns.errors import CapabilityError
from mcp_taskruns.loading.loader import load_tools
from tests.core.documents import Json

RUNS: Json = {
    "read": {"operation": "get", "run_id_argument": "runId"},
    "stream": {
        "operation": "follow",
        "run_ids_argument": "ids",
        "when": {"$.type": "run", "$.kind": ["a", "b"]},
        "fields": {"id": "$.run_id", "started_at": ""},
        "new_events_arguments": {"start": "latest"},
        "connection_events": ["bye"],
    },
    "start": {
        "make": {
            "idempotency_key_argument": "$.body.key",
            "then": {"operation": "begin", "when": {"$.env": "cloud"}},
        },
        "begin": {},
    },
    "cancel": {
        "end": {
            "confirm_argument": "delete_output",
            "confirm_description": "Delete it too.",
            "confirm_effect": "deleted too",
        },
        "change": {
            "run_id_argument": "runId",
            "when": {"$.body.status": "off"},
            "first": {"operation": "halt", "when": {"$.body": {"status": "off"}}},
        },
    },
    "runs_in": {"list": "$.items[*]", "make": "$", "halt": "$"},
    "fields": {
        "id": "$.id",
        "status": "$.status",
        "stage": "$.stage",
        "progress": "$.progress",
        "result": "$.out",
        "error": ["$.failure", "$.code"],
        "started_at": "$.at",
    },
    "statuses": {"queued": ["wait", "ready"], "running": "on", "succeeded": "ok", "failed": "bad", "canceled": "off"},
    "poll_seconds": 2,
    "max_age_seconds": 1.5,
    "gone_after_cancel": True,
    "retention_seconds": 60,
    "status_hints": {"wait": "Call thing-begin."},
}

LIST = {"name": "ids", "in": "query", "type": "array"}
BODY = {"name": "body", "in": "body", "type": "object"}
STREAM = "Server-sent events, text/event-stream"

# name, method, path, inputs, description
OPERATIONS: list[tuple[str, str, str, list[Json], str]] = [
    ("get", "GET", "/runs/{runId}", [{"name": "runId", "in": "path", "type": "string", "description": "The run."}], ""),
    ("list", "GET", "/runs", [], ""),
    ("make", "POST", "/runs", [BODY], ""),
    ("begin", "POST", "/runs/{runId}/begin", [], ""),
    ("change", "PATCH", "/runs/{runId}", [BODY], ""),
    ("end", "DELETE", "/runs/{runId}", [], ""),
    ("follow", "GET", "/runs/events", [LIST, {"name": "start", "in": "query"}], STREAM),
    ("things", "GET", "/things", [], ""),
]
HALT: Json = {"name": "halt", "method": "POST", "path": "/runs/{runId}/halt"}
STEP_LOG: Json = {"name": "steplog", "method": "GET", "path": "/runs/{runId}/steps/{step}/log"}
"""Operations that no tool calls."""

STEPS: Json = {
    "operation": "halt",
    "items": "$.steps",
    "fields": {"name": "$.name", "status": "$.status"},
    "failed": "bad",
}
PARTS: Json = {"items": "$.parts", "name": "$.name", "status": "$.status", "failed": "bad"}


def document(runs: Json | None = RUNS, tag: str = "Thing") -> Json:
    """A capability of a provider of runs."""
    operations = [
        {"name": name, "method": method, "path": path, "inputParameters": deepcopy(given), "description": description}
        for name, method, path, given, description in OPERATIONS
    ]
    operations += [HALT, STEP_LOG]
    consumed = {"namespace": "n", "baseUri": "https://a.example", "resources": [{"operations": operations}]}
    tools = [{"name": name, "call": f"n.{name}", "label": f"{tag}: {name}"} for name, *_ in OPERATIONS]
    return {
        "naftiko": "1.0.0-alpha2",
        "info": {"tags": [tag]},
        "capability": {
            "consumes": [consumed | ({} if runs is None else {"runs": runs})],
            "exposes": [{"type": "mcp", "tools": tools}],
        },
    }


def capability(runs: Json | None = RUNS, tag: str = "Thing") -> Capability:
    return parse_capability(document(runs, tag), "thing.yaml")


def compiled(*args: Any, names: ToolNames = "prefixed") -> dict[str, Tool]:
    return {tool.name: tool for tool in compile_tools([capability(*args)], names=names)}


def lifecycle_of(tool: Tool) -> Lifecycle:
    assert tool.runs is not None
    return tool.runs


def test_lifecycle_is_compiled_from_all_keywords() -> None:
    tools = compiled()
    operations = {name: tools[f"thing-{name}"].operation for name, *_ in OPERATIONS}
    read = RunCall("thing-get", operations["get"], "runId")
    begin = RunCall("thing-begin", operations["begin"], "runId")
    shape = RunFields(
        ("id",),
        (("status",),),
        ("stage",),
        ProgressFields(("progress",)),
        ("out",),
        (("failure",), ("code",)),
        started_at=("at",),
    )
    stream = RunStream(
        operation=operations["follow"],
        run_ids_argument="ids",
        takes_many_runs=True,
        fields=RunFields(
            ("run_id",), (("status",),), ("stage",), ProgressFields(("progress",)), ("out",), (("failure",), ("code",))
        ),
        when=((("type",), ("run",)), (("kind",), ("a", "b"))),
        new_events_arguments={"start": "latest"},
        connection_events=frozenset({"bye"}),
    )
    halt = replace(
        operations["begin"],
        name="halt",
        path=("/runs/", ArgumentReference("runId"), "/halt"),
        accept=read.operation.accept,
    )
    assert lifecycle_of(tools["thing-get"]) == Lifecycle(
        provider="thing",
        read=read,
        fields=shape,
        statuses=Statuses(
            {
                ("wait",): RunStatus.QUEUED,
                ("ready",): RunStatus.QUEUED,
                ("on",): RunStatus.RUNNING,
                ("ok",): RunStatus.SUCCEEDED,
                ("bad",): RunStatus.FAILED,
                ("off",): RunStatus.CANCELED,
            }
        ),
        wait_tool="thing-wait-for-run",
        explain_tool="thing-explain-run",
        stream=stream,
        starts={
            "make": RunStart("thing-make", ("body", "key"), then=begin, then_when=((("env",), ("cloud",)),)),
            "begin": RunStart("thing-begin"),
        },
        cancels=(
            RunCancel(
                RunCall("thing-end", operations["end"], "runId"),
                confirm_argument="delete_output",
                confirm_effect="deleted too",
            ),
            RunCancel(
                RunCall("thing-change", operations["change"], "runId"),
                ((("body", "status"), ("off",)),),
                first=RunCancelFirst(halt, "runId", ((("body",), ({"status": "off"},)),)),
            ),
        ),
        runs_in={"get": (), "list": ("items", EACH), "make": (), "begin": (), "halt": ()},
        poll_seconds=2.0,
        max_age_seconds=1.5,
        gone_after_cancel=True,
        retention_seconds=60.0,
        status_hints={"wait": "Call thing-begin."},
    )


def test_lifecycle_has_defaults() -> None:
    least = {
        "read": {"operation": "get", "run_id_argument": "runId"},
        "fields": {"id": "$.id", "status": "$.s"},
        "statuses": {},
    }
    tools = compiled(least)
    assert lifecycle_of(tools["thing-get"]) == Lifecycle(
        provider="thing",
        read=RunCall("thing-get", tools["thing-get"].operation, "runId"),
        fields=RunFields(("id",), (("s",),)),
        statuses=Statuses(),
        wait_tool="thing-wait-for-run",
        explain_tool="thing-explain-run",
        runs_in={"get": ()},
    )


def test_run_of_the_read_operation_may_be_nested() -> None:
    assert lifecycle_of(compiled(RUNS | {"runs_in": {"get": "$.data"}})["thing-get"]).runs_in == {
        "get": ("data",),
        "make": (),
        "begin": (),
    }


def test_only_tools_of_runs_have_a_lifecycle() -> None:
    tools = compiled()
    about = {name for name, tool in tools.items() if tool.runs is not None}
    assert about == set(tools) - {"thing-things"}
    assert len({id(tools[name].runs) for name in about}) == 1


def test_without_runs_there_is_no_lifecycle_and_no_wait_tool() -> None:
    tools = compiled(None)
    assert [tool.name for tool in tools.values() if tool.runs or tool.is_wait_tool] == []
    assert len(tools) == len(OPERATIONS)


def test_adapter_without_runs_has_no_wait_tool() -> None:
    given = document()
    given["capability"]["consumes"].append({"namespace": "other", "resources": []})
    assert len(compile_tools([parse_capability(given, "f.yaml")])) == len(OPERATIONS) + 2


def changed(place: str, value: Any) -> Json:
    """Return `RUNS` with another value at a place, such as `stream.fields`; None removes the key."""
    runs = deepcopy(RUNS)
    *steps, key = place.split(".")
    part = runs
    for step in steps:
        part = part[step]
    if value is None:
        del part[key]
    else:
        part[key] = value
    return runs


NO_PATH = "is not a path such as `$.data.id` or `$[*].run`"


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("read", {"operation": "none", "run_id_argument": "runId"}, "read: no tool calls the operation `none`"),
        ("read.run_id_argument", "id", "read.run_id_argument: the tool get has no argument `id`"),
        ("read.run_id_argument", None, "read.run_id_argument: is missing"),
        ("fields", {}, "fields: needs the paths `id` and `status`"),
        ("fields.id", "", "fields: needs the paths `id` and `status`"),
        ("fields.status", "", "fields: needs the paths `id` and `status`"),
        ("fields.id", "$.a..b", f"fields.id: `$.a..b` {NO_PATH}"),
        ("fields.status", "$.a b", f"fields.status: `$.a b` {NO_PATH}"),
        ("fields.stage", "$.a[b]", f"fields.stage: `$.a[b]` {NO_PATH}"),
        ("fields.progress", "$*", f"fields.progress: `$*` {NO_PATH}"),
        ("fields.result", "out", "fields.result: `out` is not a path: paths start with `$`, write `$.out`"),
        ("fields.error", ["$.a", "$.a."], f"fields.error: `$.a.` {NO_PATH}"),
        ("fields.started_at", "$?", f"fields.started_at: `$?` {NO_PATH}"),
        ("statuses", {"queued": "on", "running": "on"}, "statuses.running: `on` is already queued"),
        ("stream.operation", "none", "stream: no tool calls the operation `none`"),
        ("stream.run_ids_argument", "runIds", "stream.run_ids_argument: the tool follow has no argument `runIds`"),
        ("stream.new_events_arguments", {"x": 1}, "stream.new_events_arguments: the tool follow has no argument `x`"),
        ("stream.when", {"$.a..b": 1}, f"stream.when: `$.a..b` {NO_PATH}"),
        ("stream.fields", {"status": "$?"}, f"stream.fields.status: `$?` {NO_PATH}"),
        ("start", {"none": {}}, "start.none: no tool calls the operation `none`"),
        (
            "start.make.idempotency_key_argument",
            "$.body.",
            f"start.make.idempotency_key_argument: `$.body.` {NO_PATH}",
        ),
        (
            "start.make.idempotency_key_argument",
            "$",
            "start.make.idempotency_key_argument: `$` must consist of names only",
        ),
        (
            "start.make.idempotency_key_argument",
            "$.body[*].key",
            "start.make.idempotency_key_argument: `$.body[*].key` must consist of names only",
        ),
        (
            "start.make.idempotency_key_argument",
            "$.body[0].key",
            "start.make.idempotency_key_argument: `$.body[0].key` must consist of names only",
        ),
        ("start.make.then", {"operation": "none"}, "start.make.then: no tool calls the operation `none`"),
        (
            "start.make.then",
            {"operation": "things"},
            "start.make.then.run_id_argument: the tool things has no argument `runId`",
        ),
        ("start.make.then.when", {"$?": 1}, f"start.make.then.when: `$?` {NO_PATH}"),
        ("cancel", {"none": {}}, "cancel.none: no tool calls the operation `none`"),
        ("cancel.end.run_id_argument", "id", "cancel.end.run_id_argument: the tool end has no argument `id`"),
        ("cancel.change.when", {"$?": 1}, f"cancel.change.when: `$?` {NO_PATH}"),
        ("cancel.change.first.operation", "none", "cancel.change.first: there is no operation `none`"),
        ("cancel.change.first.when", {"$?": 1}, f"cancel.change.first.when: `$?` {NO_PATH}"),
        (
            "cancel.change.first.run_id_argument",
            "id",
            "cancel.change.first.run_id_argument: the operation halt has no argument `id`",
        ),
        ("runs_in", {"list": "$?"}, f"runs_in.list: `$?` {NO_PATH}"),
        ("runs_in", {"none": "$"}, "runs_in.none: no tool calls the operation `none`"),
        ("fields.progress", {"done": "$.done"}, "fields.progress: needs `percent`, or `done` and `total`"),
        (
            "failures",
            [{"matches": "(", "meaning": "Odd."}],
            "failures.matches: is an invalid pattern: missing ), unterminated subpattern at position 0",
        ),
        (
            "status_hints",
            {"ready": "Wait.", "paused": "Resume it."},
            "status_hints: `paused` is not one of the provider's statuses in `statuses`",
        ),
        (
            "steps",
            STEPS,
            "steps.items: `$.steps` leads to one value: write `$.steps[*]` for the items of a list",
        ),
        (
            "steps",
            {**STEPS, "items": "$.steps[*]", "parts": PARTS},
            "steps.parts.items: `$.parts` leads to one value: write `$.parts[*]` for the items of a list",
        ),
        (
            "logs",
            [{"operation": "steplog", "of": "step"}],
            "logs.arguments: the operation steplog has `step` in its path, which no argument sets",
        ),
    ],
)
def test_reference_to_something_that_does_not_exist_is_rejected_with_its_place(
    place: str, value: Any, message: str
) -> None:
    with pytest.raises(CapabilityError) as caught:
        compiled(changed(place, value))
    assert str(caught.value) == f"thing.yaml: capability.consumes.runs.{message}"


STATUSES = "must be 'not started', 'queued', 'running', 'paused', 'succeeded', 'failed' or 'canceled'"


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("read", None, "read: is missing"),
        ("fields", None, "fields: is missing"),
        ("statuses", None, "statuses: is missing"),
        ("read.operation", None, "read.operation: is missing"),
        ("stream.run_ids_argument", None, "stream.run_ids_argument: is missing"),
        ("poll_seconds", "soon", "poll_seconds: must be a number"),
        ("poll_seconds", 0, "poll_seconds: must be greater than 0"),
        ("max_age_seconds", -1, "max_age_seconds: must be greater than or equal to 0"),
        ("statuses", {"cancelled": "off"}, f"statuses.cancelled: {STATUSES}"),
        ("statuses", {"unknown": "odd"}, f"statuses.unknown: {STATUSES}"),
        ("poll_second", 3, "unknown key `poll_second`; did you mean `poll_seconds`?"),
        ("read.run_id_argumnt", "x", "read: unknown key `run_id_argumnt`; did you mean `run_id_argument`?"),
        ("start.begin.wen", {}, "start.begin: unknown key `wen`"),
    ],
)
def test_runs_of_an_invalid_shape_are_rejected_with_their_place(place: str, value: Any, message: str) -> None:
    with pytest.raises(CapabilityError) as caught:
        capability(changed(place, value))
    text = str(caught.value).removeprefix("thing.yaml: capability.consumes[0].runs").lstrip(".: ")
    assert text == message


def test_logs_take_arguments_in_the_path_from_the_step() -> None:
    log = {"operation": "steplog", "of": "step", "arguments": {"step": "$.id"}}
    found = lifecycle_of(compiled(changed("logs", [log]))["thing-get"])
    assert [one.request.arguments for one in found.logs] == [{"step": ("id",)}]


@pytest.mark.parametrize(
    ("native", "hint"),
    [("on/true", "Unblock it."), ("on/false", None), ("off/true", "Ended."), ("off/false", "Ended."), ("off", None)],
)
def test_status_hint_of_several_fields_may_be_a_pattern(native: str, hint: str | None) -> None:
    described = {
        **changed("fields.status", ["$.status", "$.blocked"]),
        "statuses": {"running": ["on", "on/*"], "canceled": "off/*"},
        "status_hints": {"on/true": "Unblock it.", "off/*": "Ended."},
    }
    assert lifecycle_of(compiled(described)["thing-get"]).status_hint(native) == hint


def test_confirm_argument_needs_no_description() -> None:
    tool = compiled(changed("cancel.end.confirm_description", None))["thing-end"]
    assert tool.input_schema["properties"]["delete_output"] == {"type": "boolean"}


def test_runs_add_a_wait_tool() -> None:
    tools = compiled()
    wait, read = tools["thing-wait-for-run"], tools["thing-get"]
    assert [name for name, tool in tools.items() if tool.is_wait_tool] == ["thing-wait-for-run"]
    assert list(tools)[-2:] == ["thing-wait-for-run", "thing-explain-run"]
    assert (wait.declared_name, wait.prefix, wait.title) == ("wait-for-run", "thing", "Thing: wait for run")
    assert wait.operation == read.operation
    assert wait.output_schema == WAIT_SCHEMA
    description = {name: {"type": "string"} for name in ("id", "status")}
    assert read.output_schema == {"type": "object", "properties": description}
    hints = wait.hints
    assert (hints.read_only, hints.destructive, hints.idempotent, hints.open_world) == (True, False, True, True)
    assert wait.description == (
        "Waits for a Thing run to finish and returns its status, result or error: one call instead of repeated "
        "polling. For several runs pass an array of ids, with until all or any. A timeout is not an error and cancels "
        "nothing: the result then has timed_out."
    )


def test_wait_tool_title_falls_back_to_the_prefix() -> None:
    given = document()
    given["capability"]["exposes"][0]["tools"][0]["label"] = "Read a run"
    tools = compile_tools([parse_capability(given, "f.yaml")])
    assert [tool.title for tool in tools[-2:]] == ["thing: wait for run", "thing: explain run"]


def test_wait_tool_accepts_an_array_of_ids_if_the_stream_does() -> None:
    wait = compiled()["thing-wait-for-run"]
    assert wait.input_schema == {
        "type": "object",
        "properties": {
            "runId": {
                "anyOf": [
                    {"type": "string"},
                    {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": MAX_RUNS},
                ],
                "description": "The run. Or an array of them.",
            },
            "until": {
                "type": "string",
                "enum": ["all", "any"],
                "description": "For several runs: wait for all (default) or any.",
            },
            "wait_seconds": {
                "type": "number",
                "minimum": 0,
                "description": "How long to wait, in seconds; default 45, unless configured otherwise.",
            },
        },
        "additionalProperties": False,
        "required": ["runId"],
    }


@pytest.mark.parametrize(
    "arguments",
    [
        {"runId": "a"},
        {"runId": ["a"]},
        {"runId": ["a", "b"], "until": "any", "wait_seconds": 0},
        {"runId": [str(number) for number in range(MAX_RUNS)]},
    ],
)
def test_wait_tool_schema_accepts_one_or_several_ids(arguments: Json) -> None:
    assert Draft202012Validator(dict(compiled()["thing-wait-for-run"].input_schema)).is_valid(arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"runId": []},
        {"runId": 5},
        {"runId": [5]},
        {"runId": ["a"] * (MAX_RUNS + 1)},
        {"runId": "a", "until": "some"},
        {"runId": "a", "wait_seconds": -1},
        {"runId": "a", "other": 1},
    ],
)
def test_wait_tool_schema_rejects_other_arguments(arguments: Json) -> None:
    assert not Draft202012Validator(dict(compiled()["thing-wait-for-run"].input_schema)).is_valid(arguments)


def test_run_id_without_description_gets_a_default() -> None:
    given = document()
    del given["capability"]["consumes"][0]["resources"][0]["operations"][0]["inputParameters"][0]["description"]
    wait = compile_tools([parse_capability(given, "f.yaml")])[-2]
    assert wait.input_schema["properties"]["runId"]["description"] == "Run id. Or an array of them."


@pytest.mark.parametrize(
    "runs",
    [
        pytest.param(changed("stream", None), id="no stream"),
        pytest.param(changed("stream", {"operation": "get", "run_ids_argument": "runId"}), id="a stream of one run"),
    ],
)
def test_wait_tool_for_single_runs_accepts_one_id(runs: Json) -> None:
    tools = compiled(runs)
    wait = tools["thing-wait-for-run"]
    read = tools["thing-get"].input_schema["properties"]
    description = {
        "type": "number",
        "minimum": 0,
        "description": "How long to wait, in seconds; default 45, unless configured otherwise.",
    }
    assert wait.input_schema["properties"] == {"runId": read["runId"], "wait_seconds": description}
    assert "several" not in wait.description
    stream = lifecycle_of(wait).stream
    assert stream is None or not stream.takes_many_runs


def test_stream_inherits_the_fields_of_runs() -> None:
    stream = lifecycle_of(compiled(changed("stream.fields", {}))["thing-get"]).stream
    assert stream is not None
    assert stream.fields == lifecycle_of(compiled()["thing-get"]).fields


def test_wait_tool_does_not_change_the_read_tool() -> None:
    assert compiled()["thing-get"].input_schema == compiled(None)["thing-get"].input_schema


@pytest.mark.parametrize("names", ["prefixed", "spec"])
def test_lifecycle_uses_listed_names(names: ToolNames) -> None:
    tools = compiled(names=names)
    found = lifecycle_of(next(tool for tool in tools.values() if tool.is_wait_tool))
    prefix = "thing-" if names == "prefixed" else ""
    then = found.starts["make"].then
    assert then is not None
    assert [found.wait_tool, found.read.tool, then.tool, *(start.tool for start in found.starts.values())] == [
        f"{prefix}{name}" for name in ("wait-for-run", "get", "begin", "make", "begin")
    ]
    assert [cancel.call.tool for cancel in found.cancels] == [f"{prefix}end", f"{prefix}change"]
    assert found.status_hints == {"wait": f"Call {prefix}begin."}


def test_wait_tools_of_several_providers_keep_their_prefixes() -> None:
    tools = compile_tools([capability(), capability(RUNS, "Other")], names="spec")
    assert [tool.name for tool in tools if tool.is_wait_tool] == ["thing-wait-for-run", "other-wait-for-run"]
    assert {tool.name: tool.runs.wait_tool for tool in tools if tool.runs and tool.is_wait_tool} == {
        "thing-wait-for-run": "thing-wait-for-run",
        "other-wait-for-run": "other-wait-for-run",
    }


def test_wait_tool_whose_name_is_taken_is_numbered() -> None:
    given = document()
    given["capability"]["exposes"][0]["tools"][-1]["name"] = "wait-for-run"
    tools = {tool.name: tool for tool in compile_tools([parse_capability(given, "f.yaml")])}
    assert [name for name, tool in tools.items() if tool.is_wait_tool] == ["thing-wait-for-run-2"]
    assert lifecycle_of(tools["thing-get"]).wait_tool == "thing-wait-for-run-2"


def test_each_provider_has_its_own_lifecycle() -> None:
    capabilities = [capability(RUNS | {"poll_seconds": 1}, "One"), capability(None, "Two"), capability(RUNS, "Three")]
    tools = compile_tools(capabilities)
    assert {tool.prefix: tool.runs.poll_seconds for tool in tools if tool.runs} == {"one": 1.0, "three": 2.0}
    assert all(tool.name.startswith(tool.runs.provider) for tool in tools if tool.runs)


def seconds(description: str) -> Json:
    return {"type": "number", "minimum": 0, "description": description}


@pytest.mark.parametrize(
    ("name", "added"),
    [
        ("get", {}),
        ("list", {}),
        ("things", {}),
        ("change", {}),
        (
            "follow",
            {"wait_seconds": seconds("How long to follow, in seconds; default 45, unless configured otherwise.")},
        ),
        (
            "make",
            {
                "wait_seconds": seconds(
                    "Start the run too, if it can be started. Maximum seconds to wait, for example 45, for the run to "
                    "finish and return its result."
                )
            },
        ),
        (
            "begin",
            {
                "wait_seconds": seconds(
                    "Maximum seconds to wait, for example 45, for the run to finish and return its result."
                )
            },
        ),
        (
            "end",
            {
                "delete_output": {
                    "type": "boolean",
                    "description": "Delete it too.",
                }
            },
        ),
    ],
)
def test_run_tools_have_server_arguments(name: str, added: Json) -> None:
    tools, without = compiled(), compiled(None)
    properties = tools[f"thing-{name}"].input_schema["properties"]
    own = without[f"thing-{name}"].input_schema["properties"]
    if name == "follow":
        assert own.pop("wait_seconds") == added["wait_seconds"]  # a stream is followed whether or not of runs
    assert properties == {**added, **own}
    assert tools[f"thing-{name}"].input_schema.get("required") == without[f"thing-{name}"].input_schema.get("required")


def test_argument_of_the_provider_hides_one_of_the_server() -> None:
    given = document()
    operations = given["capability"]["consumes"][0]["resources"][0]["operations"]
    operations[3]["inputParameters"] = [{"name": "wait_seconds", "in": "query", "type": "string"}]
    (begin,) = [tool for tool in compile_tools([parse_capability(given, "f.yaml")]) if tool.name == "thing-begin"]
    assert begin.input_schema["properties"]["wait_seconds"] == {"type": "string"}


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "POST"])
def test_only_safe_methods_are_safe(method: str) -> None:
    given = document(None)
    given["capability"]["consumes"][0]["resources"][0]["operations"][0]["method"] = method
    tool = compile_tools([parse_capability(given, "f.yaml")])[0]
    assert tool.operation.is_safe is (method in ("GET", "HEAD", "OPTIONS"))


def test_operation_that_accepts_event_streams_is_a_stream() -> None:
    assert [name for name, tool in compiled().items() if tool.operation.is_stream] == ["thing-follow"]


def test_path_arguments_are_those_in_the_path_of_an_operation() -> None:
    tools = compiled()
    arguments = {"runId": "r", "body": {"runId": "x"}, "wait_seconds": 5}
    assert path_arguments(tools["thing-begin"].operation, arguments) == {"runId": "r"}
    assert path_arguments(tools["thing-make"].operation, arguments) == {}
    assert path_arguments(tools["thing-begin"].operation, {}) == {}


SHIPPED = load_tools([])


def shipped(prefix: str) -> Lifecycle:
    return next(tool.runs for tool in SHIPPED if tool.prefix == prefix and tool.runs is not None)


@pytest.mark.parametrize(
    ("prefix", "starts", "cancels", "streams", "many"),
    [
        # render 1.5.0: start_task, cancel_task_run, stream_task_runs_events
        ("render", ["render-run-task"], ["render-cancel-task-run"], "render-stream-realtime-events-sse", True),
        ("inngest", [], ["inngest-cancel-function-run"], None, False),
        # PostHog products/tasks/backend/api.py: create, start, resume_in_cloud; partial_update and command cancel
        (
            "posthog",
            ["posthog-create-task-run", "posthog-start-task-run", "posthog-resume-task-run-cloud"],
            ["posthog-update-task-run", "posthog-send-command-agent-server"],
            "posthog-stream-task-run",
            False,
        ),
        ("runway", [], ["runway-cancel-delete-task"], None, False),
    ],
)
def test_builtin_lifecycles_have_the_tools_of_their_providers(
    prefix: str, starts: list[str], cancels: list[str], streams: str | None, many: bool
) -> None:
    found = shipped(prefix)
    by_operation = {tool.operation: tool.name for tool in SHIPPED if tool.prefix == prefix and not tool.derived}
    assert [start.tool for start in found.starts.values()] == starts
    assert [cancel.call.tool for cancel in found.cancels] == cancels
    assert (by_operation[found.stream.operation] if found.stream else None) == streams
    assert bool(found.stream and found.stream.takes_many_runs) is many
    assert found.wait_tool == f"{prefix}-wait-for-run"


def test_builtin_poll_intervals_are_those_of_the_providers() -> None:
    # Inngest caches for 3 s (pkg/api/apiv1/cache.go); Runway: "once every five seconds" (runwayml resources/tasks.py)
    intervals = {prefix: shipped(prefix).poll_seconds for prefix in ("render", "inngest", "posthog", "runway")}
    assert intervals == {"render": 5, "inngest": 3, "posthog": 5, "runway": 5}
    assert {prefix: shipped(prefix).max_age_seconds for prefix in intervals} == {
        "render": 0,
        "inngest": 3,
        "posthog": 0,
        "runway": 0,
    }


def test_only_runway_runs_are_gone_after_cancel() -> None:
    prefixes = ("render", "inngest", "posthog", "runway")
    assert [prefix for prefix in prefixes if shipped(prefix).gone_after_cancel] == ["runway"]
    assert [
        cancel.confirm_argument for prefix in prefixes for cancel in shipped(prefix).cancels if cancel.confirm_argument
    ] == ["delete_output"]


def test_only_render_has_an_idempotency_key_and_unstreamed_ends() -> None:
    keys = {
        start.tool: start.idempotency_key_argument
        for tool in SHIPPED
        if tool.runs
        for start in tool.runs.starts.values()
        if start.idempotency_key_argument
    }
    assert keys == {"render-run-task": ("body", "idempotencyKey")}


@pytest.mark.parametrize("names", ["prefixed", "spec"])
def test_status_hints_name_only_listed_tools(names: ToolNames) -> None:
    tools = load_tools([], names=names)
    listed = {tool.name for tool in tools}
    advised = {
        word
        for tool in tools
        if tool.runs
        for line in tool.runs.status_hints.values()
        for word in re.findall(r"[\w-]+", line)
    }
    assert {word for word in advised if word.count("-") > 1} <= listed
    assert advised & listed


TEXT = {"type": "string"}


def response(**properties: Any) -> Json:
    """Return the schema of a response with these members."""
    return {"type": "object", "properties": properties}


RUN = {"id": TEXT, "status": TEXT}
CANCELLED = {"run_id": TEXT, "status": TEXT, "cancelled": {"type": "boolean"}}


@pytest.mark.parametrize(
    ("name", "schema"),
    [
        ("get", response(**RUN)),
        ("make", response(**RUN)),
        ("begin", response(**RUN)),
        ("end", response(**CANCELLED)),
        # Its response is not declared, and it cancels only with some arguments.
        ("change", None),
        # Several runs, events, and what is about no run
        ("list", None),
        ("follow", None),
        ("things", None),
    ],
)
def test_output_schema_declares_id_and_status_of_a_run(name: str, schema: Json | None) -> None:
    assert compiled()[f"thing-{name}"].output_schema == schema


def test_output_schema_of_a_nested_run() -> None:
    tools = compiled(RUNS | {"runs_in": {"get": "$.data.run", "change": "$"}})
    assert tools["thing-get"].output_schema == response(
        data={"type": "object", "properties": {"run": {"type": "object", "properties": RUN}}}
    )
    assert tools["thing-change"].output_schema == response(**RUN)


def test_output_schema_follows_the_paths_of_the_fields() -> None:
    fields = {"id": "$.meta.id", "status": "$.meta.status"}
    assert compiled(RUNS | {"fields": fields})["thing-get"].output_schema == response(
        meta={"type": "object", "properties": RUN}
    )


@pytest.mark.parametrize("name", ["make", "begin"])
def test_result_of_a_start_that_waited_matches_the_output_schema(name: str) -> None:
    schema: Json = dict(compiled()[f"thing-{name}"].output_schema or {})
    waited = {"provider": "thing", "run_id": "r", "status": "succeeded", "terminal": True, "result": [1], "next": ""}
    assert matches_schema(schema, waited)
    assert Draft202012Validator(schema).is_valid(waited)


def test_builtin_output_schemas() -> None:
    # Where runs stand: render 1.5.0 TaskRun; inngest pkg/api/apiv1 (data); PostHog TaskRunDetailSerializer, and for
    # start the Task with its latest_run; Runway's Task
    assert {tool.name: tool.output_schema for tool in SHIPPED if tool.output_schema and not tool.derived} == {
        "render-run-task": response(**RUN),
        "render-retrieve-task-run": response(**RUN),
        "render-cancel-task-run": response(**CANCELLED),
        "inngest-get-function-run-status": response(
            data={"type": "object", "properties": {"run_id": TEXT, "status": TEXT}}
        ),
        "inngest-cancel-function-run": response(**CANCELLED),
        "posthog-create-task-run": response(**RUN),
        "posthog-start-task-run": response(latest_run={"type": "object", "properties": RUN}),
        "posthog-resume-task-run-cloud": response(**RUN),
        "posthog-retrieve-task-run": response(**RUN),
        "posthog-update-task-run": response(**RUN),
        "posthog-append-log-entries": response(**RUN),
        "posthog-set-run-output": response(**RUN),
        "runway-retrieve-task-status-and-output": response(**RUN),
        "runway-cancel-delete-task": response(**CANCELLED),
    }
    waiting = [tool.name for tool in SHIPPED if tool.is_wait_tool]
    assert waiting == [f"{prefix}-wait-for-run" for prefix in ("inngest", "posthog", "render", "runway")]
    assert all(tool.output_schema == WAIT_SCHEMA for tool in SHIPPED if tool.is_wait_tool)


@pytest.mark.parametrize("tool", [tool for tool in SHIPPED if tool.output_schema], ids=lambda tool: tool.name)
def test_output_schemas_forbid_nothing(tool: Tool) -> None:
    schema: Json = dict(tool.output_schema or {})
    Draft202012Validator.check_schema(schema)
    assert schema["type"] == "object"
    assert "additionalProperties" not in str(schema)
    assert not {"anyOf", "oneOf", "allOf", "not", "$ref"} & set(schema)
    if not tool.derived:
        assert "required" not in str(schema)
        assert Draft202012Validator(schema).is_valid({})
        assert Draft202012Validator(schema).is_valid({"text": "whatever", "newer": [1], "id": "run"})


DATA = response(data={"type": "object", "properties": {"run_id": TEXT, "status": TEXT}})


@pytest.mark.parametrize(
    ("schema", "value", "fits"),
    [
        (response(**RUN), {"id": "r", "status": "running", "output": {"a": [1]}, "newer": None}, True),
        (response(**RUN), {}, True),
        (response(**RUN), {"id": "r"}, True),
        (response(**RUN), {"id": 5, "status": "running"}, False),
        (response(**RUN), {"id": "r", "status": None}, False),
        (response(**RUN), [], False),
        (response(**RUN), "text", False),
        (response(**RUN), None, False),
        (response(**CANCELLED), {"run_id": "r", "status": "canceled", "cancelled": True}, True),
        (response(**CANCELLED), {"run_id": "r", "status": "canceled", "cancelled": "yes"}, False),
        (response(**CANCELLED), {"cancelled": 1}, False),
        (DATA, {"data": {"run_id": "r", "status": "Running"}, "metadata": {}}, True),
        (DATA, {"data": {}}, True),
        (DATA, {"data": {"run_id": None}}, False),
        (DATA, {"data": {"status": 5}}, False),
    ],
)
def test_matches_schema_agrees_with_jsonschema(schema: Json, value: Any, fits: bool) -> None:
    assert matches_schema(schema, value) is fits
    assert Draft202012Validator(schema).is_valid(value) is fits


@pytest.mark.parametrize("value", [None, "text", [], 5])
def test_other_value_does_not_match_an_object_schema(value: Any) -> None:
    assert not matches_schema(DATA, {"data": value})


def test_native_status_has_no_more_parts_than_paths() -> None:
    given = RUNS | {"fields": {"id": "$.id", "status": ["$.a", "$.b"]}, "statuses": {"failed": ["over/a/b"]}}
    with pytest.raises(CapabilityError, match="`over/a/b` has 3 parts, and there are 2 paths to the status"):
        compiled(given)


def test_problems_include_those_of_long_polls() -> None:
    long_poll = {"in": "query", "name": "wait", "max_seconds": 60}
    given = document(RUNS | {"read": {"operation": "get", "run_id_argument": "runId", "long_poll": long_poll}})
    capability = parse_capability(given, "f.yaml")
    tools = compile_tools([parse_capability(document(), "f.yaml")])
    assert list(find_run_problems(capability, tools)) == []


def test_run_request_names_the_argument_of_the_run_id() -> None:
    result = {"operation": "halt", "run_id_argument": "runId"}
    lifecycle = lifecycle_of(compiled(RUNS | {"result": result})["thing-get"])
    assert lifecycle.result is not None
    assert lifecycle.result.request.run_id_argument == "runId"
