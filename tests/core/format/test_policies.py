"""Compilation of overlay keywords about requests and responses."""

from typing import Any

import pytest

from mcp_taskruns.core.format.compiler import compile_tools
from mcp_taskruns.core.format.spec import parse_capability
from mcp_taskruns.core.model.json_path import EACH
from mcp_taskruns.core.model.limits import Limits, Rate, RequestKind
from mcp_taskruns.core.model.operation import ErrorRule, EventFormat, LogFormat, Operation, Paging, Upload
from mcp_taskruns.core.model.tool import Tool
from mcp_taskruns.errors import CapabilityError
from mcp_taskruns.loading.loader import load_tools
from tests.core.documents import Json, capability, document, inputs, tool_of

PAGING: Json = {"offset_argument": "offset", "default_page_size": 50}
LOG: Json = {"time_path": "$.timestamp", "type_paths": "$.kind"}
UPLOAD: Json = {"files": "$.body.files[*]", "prepared": "$[*]", "form_field": "form"}


def operation_of(operation: Json | None = None, **consumed: Any) -> Operation:
    """The one operation of such a capability; of one with runs, the tool that waits calls it too."""
    (*_, tool) = compile_tools([capability(operation, **consumed)])
    return tool.operation


def test_operation_without_keywords_has_no_policies() -> None:
    plain = operation_of()
    assert (plain.errors, plain.limits, plain.redactions, plain.notes) == ((), Limits(), (), ())
    assert (plain.paging, plain.log, plain.upload) == (None, None, None)
    assert (plain.safe_to_retry, plain.timeout_s) == (None, None)


def test_error_rules_are_compiled_in_file_order() -> None:
    (first, second) = operation_of(
        errors={
            "second": {
                "status": [403, 404],
                "when": {"$.code": ["a", "b"], "$.error.type": "c"},
                "message_matches": "scope '(?P<scope>[^']+)'",
                "kind": "auth",
                "hint": "Give it {scope}.",
                "retryable": True,
            },
            "first": {"status": 429},
        }
    ).errors
    assert first.message_matches is not None
    assert first.message_matches.pattern == "scope '(?P<scope>[^']+)'"
    assert first == ErrorRule(
        status=frozenset({403, 404}),
        when=((("code",), ("a", "b")), (("error", "type"), ("c",))),
        message_matches=first.message_matches,
        kind="auth",
        hint="Give it {scope}.",
        retryable=True,
    )
    assert second == ErrorRule(status=frozenset({429}))


@pytest.mark.parametrize(
    ("operations", "of_first"), [([], True), ("op", True), (["other", "op"], True), ("other", False)]
)
def test_error_rule_applies_to_named_or_all_operations(operations: Any, of_first: bool) -> None:
    rule = {"hint": "Try another."} | ({"operations": operations} if operations else {})
    given = document(errors={"rule": rule})
    given["capability"]["consumes"][0]["resources"][0]["operations"].append({"name": "other"})
    (tool,) = compile_tools([parse_capability(given, "f.yaml")])
    assert bool(tool.operation.errors) is of_first


def test_error_rule_for_an_unknown_operation_is_rejected() -> None:
    with pytest.raises(CapabilityError, match=r"consumes\.errors\.rule\.operations: there is no operation `creattask`"):
        operation_of(errors={"rule": {"operations": "creattask", "hint": "x"}})


def test_concurrency_and_rate_limits_are_compiled() -> None:
    rates = [
        {"requests": 400, "per_seconds": 60, "applies_to": "reads"},
        {"requests": 30, "per_seconds": 60, "applies_to": "writes"},
        {"requests": 9, "per_seconds": 1},
    ]
    assert operation_of(max_concurrent_requests=5, rate_limits=rates).limits == Limits(
        5, (Rate(400, 60.0, READS), Rate(30, 60.0, WRITES), Rate(9, 1.0))
    )
    all_requests = {"requests": 1, "per_seconds": 0.5, "applies_to": "all"}
    assert operation_of(rate_limits=[all_requests]).limits == Limits(None, (Rate(1, 0.5),))


def test_redactions_include_those_of_runs_in_the_response() -> None:
    runs = {
        "read": {"operation": "op", "run_id_argument": "id"},
        "fields": {"id": "$.id", "status": "$.s"},
        "statuses": {},
        "runs_in": {"op": "$.results[*]"},
        "redact": ["$.log_url", "$.state.token"],
    }
    secrets = operation_of({"redact": "$.token"}, path="/things/{id}", runs=runs).redactions
    assert secrets == (("token",), ("results", EACH, "log_url"), ("results", EACH, "state", "token"))
    del runs["runs_in"]
    assert operation_of(path="/things/{id}", runs=runs).redactions == (("log_url",), ("state", "token"))
    del runs["redact"]
    assert operation_of({"redact": ["$.a", "$.b[*].c"]}, path="/things/{id}", runs=runs).redactions == (
        ("a",),
        ("b", EACH, "c"),
    )


def test_operation_without_runs_in_its_response_has_no_redactions_of_runs() -> None:
    runs = {
        "read": {"operation": "get", "run_id_argument": "id"},
        "start": {"make": {}},
        "fields": {"id": "$.id", "status": "$.s"},
        "statuses": {},
        "redact": "$.token",
    }
    given = document(path="/things/{id}", runs=runs)
    given["capability"]["consumes"][0]["resources"][0]["operations"] = [
        {"name": name} for name in ("get", "make", "list")
    ]
    given["capability"]["exposes"][0]["tools"] = [
        {"name": name, "call": f"things.{name}"} for name in ("get", "make", "list")
    ]
    tools = compile_tools([parse_capability(given, "f.yaml")])
    assert {tool.declared_name: tool.operation.redactions for tool in tools if not tool.derived} == {
        "get": (("token",),),
        "make": (("token",),),
        "list": (),
    }


def test_notes_are_compiled_with_their_conditions() -> None:
    notes = [{"when": {"$.status": "skipped", "$.a.b": [1, None]}, "text": "NOT posted."}, {"text": "Always."}]
    assert operation_of({"notes": notes}).notes == (
        (((("status",), ("skipped",)), (("a", "b"), (1, None))), "NOT posted."),
        ((), "Always."),
    )


@pytest.mark.parametrize(
    ("declared", "paging"),
    [
        (
            {"offset_argument": "skip", "default_page_size": 50},
            Paging(
                items=(), page_size_argument="limit", default_page_size=50, max_page_size=50, offset_argument="skip"
            ),
        ),
        (
            {
                "cursor_argument": "after",
                "next_cursor": "$.cursor",
                "items": "$.data.items",
                "page_size_argument": "count",
                "default_page_size": 20,
                "max_page_size": 100,
            },
            Paging(
                items=("data", "items"),
                page_size_argument="count",
                default_page_size=20,
                max_page_size=100,
                cursor_argument="after",
                next_cursor=("cursor",),
            ),
        ),
        (
            PAGING | {"has_more": "$.meta.next", "total": "$.meta.count", "unfiltered_total": "$.all"},
            Paging(
                (),
                "limit",
                50,
                50,
                offset_argument="offset",
                has_more=("meta", "next"),
                total=("meta", "count"),
                unfiltered_total=("all",),
            ),
        ),
        # Names of headers are case-insensitive: RFC 9110 section 5.1.
        (
            PAGING
            | {
                "has_more": {"header": "X-Has-More"},
                "total": {"header": "x-total"},
                "unfiltered_total": {"header": "X-ALL"},
            },
            Paging(
                (),
                "limit",
                50,
                50,
                offset_argument="offset",
                has_more="x-has-more",
                total="x-total",
                unfiltered_total="x-all",
            ),
        ),
    ],
)
def test_paging_is_compiled(declared: Json, paging: Paging) -> None:
    assert operation_of({"paging": declared}).paging == paging


def test_log_format_has_paths_of_time_type_and_message() -> None:
    assert operation_of({"log": LOG}).log == LogFormat(("timestamp",), EventFormat((("kind",),)))
    declared = {"time_path": "$.at", "type_paths": ["$.a.b", "$.c"], "message_paths": "$.m"}
    assert operation_of({"log": declared}).log == LogFormat(("at",), EventFormat((("a", "b"), ("c",)), (("m",),)))
    assert operation_of({"log": {"time_path": "$.at"}}).log == LogFormat(("at",))


def test_event_format_has_paths_of_type_and_message() -> None:
    assert operation_of().events == EventFormat()
    declared = {"type_paths": ["$.a.b", "$.c"], "message_paths": "$.m"}
    assert operation_of({"events": declared}).events == EventFormat((("a", "b"), ("c",)), (("m",),))


def test_upload_fields_have_default_names() -> None:
    assert operation_of({"upload": UPLOAD}).upload == Upload(
        files=("body", "files", EACH),
        content_field="content",
        encoding_field="content_encoding",
        size_field="size",
        name_field="name",
        media_type_field="content_type",
        prepared=(EACH,),
        form_field="form",
    )
    named = {
        "content_field": "c",
        "encoding_field": "e",
        "size_field": "s",
        "name_field": "n",
        "media_type_field": "m",
        "hint": "Go on.",
    }
    assert operation_of({"upload": UPLOAD | named}).upload == Upload(
        ("body", "files", EACH), "c", "e", "s", "n", "m", (EACH,), "form", "Go on."
    )


def test_timeout_and_retry_safety_are_compiled() -> None:
    declared = operation_of({"timeout_seconds": 610, "safe_to_retry": True, "method": "POST"})
    assert (declared.timeout_s, declared.safe_to_retry, declared.is_safe_to_retry) == (610.0, True, True)


NO_WAY_TO_PAGE = "paging: needs one of `cursor_argument`, `offset_argument` and `page_argument`, or `next_url` alone"
NO_PATH = "is not a path such as `$.data.id` or `$[*].run`"


@pytest.mark.parametrize(
    ("operation", "consumed", "message"),
    [
        ({"redact": "$.a..b"}, {}, f"redact: `$.a..b` {NO_PATH}"),
        ({"redact": ["$.a", "$?"]}, {}, f"redact: `$?` {NO_PATH}"),
        ({"redact": "token"}, {}, "redact: `token` is not a path: paths start with `$`, write `$.token`"),
        ({"redact": "[0]"}, {}, "redact: `[0]` is not a path: paths start with `$`, write `$[0]`"),
        ({"notes": [{"when": {"$.a b": 1}, "text": "x"}]}, {}, f"notes.when: `$.a b` {NO_PATH}"),
        ({"paging": {"default_page_size": 50}}, {}, NO_WAY_TO_PAGE),
        ({"paging": PAGING | {"cursor_argument": "c"}}, {}, NO_WAY_TO_PAGE),
        ({"paging": PAGING | {"page_argument": "p", "next_url": "$.next"}}, {}, NO_WAY_TO_PAGE),
        (
            {"paging": {"default_page_size": 1, "cursor_argument": "c", "next_cursor": {"response": "$*"}}},
            {},
            f"paging.next_cursor.response: `$*` {NO_PATH}",
        ),
        ({"paging": {"default_page_size": 1, "next_url": "$/next"}}, {}, f"paging.next_url: `$/next` {NO_PATH}"),
        (
            {"needs": [{"env": "A"}, {"env": "KEY", "matches": "sk-("}]},
            {},
            "needs.matches: missing ), unterminated subpattern at position 3",
        ),
        (
            {"paging": {"default_page_size": 1, "cursor_argument": "c"}},
            {},
            "paging.next_cursor: is missing: write the path to the cursor in an item",
        ),
        ({"paging": PAGING | {"items": "$.a[x]"}}, {}, f"paging.items: `$.a[x]` {NO_PATH}"),
        (
            {"paging": {"default_page_size": 1, "cursor_argument": "c", "next_cursor": "$*"}},
            {},
            f"paging.next_cursor: `$*` {NO_PATH}",
        ),
        ({"paging": PAGING | {"has_more": "$/next"}}, {}, f"paging.has_more: `$/next` {NO_PATH}"),
        ({"paging": PAGING | {"total": "$.a,b"}}, {}, f"paging.total: `$.a,b` {NO_PATH}"),
        ({"paging": PAGING | {"unfiltered_total": "$["}}, {}, f"paging.unfiltered_total: `$[` {NO_PATH}"),
        ({"events": {"message_paths": "$.a."}}, {}, f"events.message_paths: `$.a.` {NO_PATH}"),
        ({"log": {"time_path": "$.a."}}, {}, f"log.time_path: `$.a.` {NO_PATH}"),
        ({"log": LOG | {"type_paths": ["$.a", "$$"]}}, {}, f"log.type_paths: `$$` {NO_PATH}"),
        ({"upload": UPLOAD | {"files": "$.body[x]"}}, {}, f"upload.files: `$.body[x]` {NO_PATH}"),
        ({"upload": UPLOAD | {"prepared": "$?"}}, {}, f"upload.prepared: `$?` {NO_PATH}"),
        ({}, {"errors": {"rule": {"when": {"$.a..b": 1}}}}, f"errors.rule.when: `$.a..b` {NO_PATH}"),
        (
            {},
            {"errors": {"rule": {"message_matches": "("}}},
            "errors.rule.message_matches: missing ), unterminated subpattern at position 0",
        ),
        ({}, {"error_body": {"status": "$?", "message": "$"}}, f"error_body.status: `$?` {NO_PATH}"),
    ],
)
def test_invalid_path_or_pattern_is_rejected_with_its_place(operation: Json, consumed: Json, message: str) -> None:
    with pytest.raises(CapabilityError) as caught:
        tool_of(operation, **consumed)
    assert str(caught.value) == f"things-api.yaml: capability.consumes.{message}"


RUNS: Json = {
    "read": {"operation": "op", "run_id_argument": "id"},
    "fields": {"id": "$.id", "status": "$.s"},
    "statuses": {},
}


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ({"redact": "$.a..b"}, f"runs.redact: `$.a..b` {NO_PATH}"),
        ({"redact": "$.a", "runs_in": {"op": "$?"}}, f"runs.runs_in.op: `$?` {NO_PATH}"),
    ],
)
def test_invalid_path_of_secrets_in_runs_is_rejected_with_its_place(runs: Json, message: str) -> None:
    with pytest.raises(CapabilityError) as caught:
        tool_of(path="/things/{id}", runs=RUNS | runs)
    assert str(caught.value) == f"things-api.yaml: capability.consumes.{message}"


OPERATION = "resources[0].operations[0]"


@pytest.mark.parametrize(
    ("operation", "consumed", "message"),
    [
        ({"paging": {"offset_argument": "o"}}, {}, f"{OPERATION}.paging.default_page_size: is missing"),
        (
            {"paging": PAGING | {"default_page_size": 0}},
            {},
            f"{OPERATION}.paging.default_page_size: must be greater than 0",
        ),
        ({"paging": PAGING | {"max_page_size": 0}}, {}, f"{OPERATION}.paging.max_page_size: must be greater than 0"),
        ({"log": {}}, {}, f"{OPERATION}.log.time_path: is missing"),
        ({"log": 5}, {}, f"{OPERATION}.log: must be a mapping"),
        ({"upload": {}}, {}, f"{OPERATION}.upload.files: is missing"),
        ({"notes": [{}]}, {}, f"{OPERATION}.notes[0].text: is missing"),
        ({"timeout_seconds": 0}, {}, f"{OPERATION}.timeout_seconds: must be greater than 0"),
        ({}, {"max_concurrent_requests": 0}, "max_concurrent_requests: must be greater than 0"),
        ({}, {"rate_limits": [{"requests": 1}]}, "rate_limits[0].per_seconds: is missing"),
        (
            {},
            {"rate_limits": [{"requests": 0, "per_seconds": 1}]},
            "rate_limits[0].requests: must be greater than 0",
        ),
        (
            {},
            {"rate_limits": [{"requests": 1, "per_seconds": 1, "applies_to": "posts"}]},
            "rate_limits[0].applies_to: must be 'reads', 'writes' or 'all'",
        ),
        ({}, {"errors": {"rule": {"kind": "odd"}}}, "errors.rule.kind: must be 'auth', 'not_found', 'validation',"),
        ({}, {"errors": {"rule": {"status": "4xx"}}}, "errors.rule.status[0]: must be an integer"),
        ({"paging": PAGING | {"max_page_sise": 1}}, {}, f"{OPERATION}.paging: unknown key `max_page_sise`; did you"),
        ({"notes": [{"text": "x", "wen": {}}]}, {}, f"{OPERATION}.notes[0]: unknown key `wen`; did you mean `when`?"),
        ({}, {"errors": {"rule": {"kinds": "auth"}}}, "errors.rule: unknown key `kinds`; did you mean `kind`?"),
    ],
)
def test_invalid_keyword_is_rejected_with_its_place(operation: Json, consumed: Json, message: str) -> None:
    with pytest.raises(CapabilityError) as caught:
        capability(operation, **consumed)
    assert str(caught.value).startswith(f"things-api.yaml: capability.consumes[0].{message}")


ALL_PAGES = {"type": "boolean", "description": "Fetch the following pages too, as many as fit into a result."}
RAW = {"type": "boolean", "description": "Return complete entries as JSON lines instead of one line of text for each."}
LAST = {
    "type": "integer",
    "minimum": 1,
    "default": 100,
    "description": "How many entries at most.",
}
SINCE = {
    "type": "string",
    "format": "date-time",
    "description": "Only entries after this time.",
    "examples": ["2026-01-31T09:00:00Z"],
}
TYPES = {"type": "array", "items": {"type": "string"}, "description": "Only entries of these types."}


@pytest.mark.parametrize(
    ("operation", "added"),
    [
        ({}, {}),
        ({"upload": UPLOAD, "redact": "$.a", "notes": [{"text": "x"}]}, {}),
        ({"paging": PAGING}, {"all_pages": ALL_PAGES}),
        ({"log": LOG}, {"last": LAST, "since": SINCE, "types": TYPES, "raw": RAW}),
        # The provider chooses among the entries of a log that it sends page by page.
        ({"log": LOG, "paging": PAGING}, {"all_pages": ALL_PAGES, "raw": RAW}),
    ],
)
def test_paging_and_log_add_arguments(operation: Json, added: Json) -> None:
    tool = tool_of(operation)
    assert tool.input_schema["properties"] == added
    assert tool.server_arguments == frozenset(added)
    assert "required" not in tool.input_schema


@pytest.mark.parametrize("name", ["all_pages", "last", "since", "types", "raw"])
def test_argument_of_the_provider_hides_one_of_the_server(name: str) -> None:
    operation = {"log": LOG} | ({"paging": PAGING} if name == "all_pages" else {})
    tool = tool_of(inputs({"name": name, "in": "query", "type": "string", "description": "Theirs."}, **operation))
    assert tool.input_schema["properties"][name] == {"type": "string", "description": "Theirs."}
    assert name not in tool.server_arguments
    assert name in {parameter.argument for parameter in tool.operation.parameters}


READS = frozenset({RequestKind.READ})
WRITES = frozenset({RequestKind.WRITE})

SHIPPED = {tool.name: tool for tool in load_tools([])}


def own_of(tools: dict[str, Tool]) -> dict[str, set[str]]:
    """Return the server arguments of keywords by tool."""
    refined = {"all_pages", "last", "since", "types", "raw"}
    return {
        name: set(tool.server_arguments & refined)
        for name, tool in tools.items()
        if tool.server_arguments & refined and not tool.derived
    }


def test_builtin_paging_and_log_tools_have_their_arguments() -> None:
    assert own_of(SHIPPED) == {
        "inngest-list-event-runs": {"all_pages"},
        "inngest-list-function-runs": {"all_pages"},
        "render-list-task-runs": {"all_pages"},
        "render-list-tasks": {"all_pages"},
        "posthog-list-task-runs": {"all_pages"},
        "posthog-get-filtered-task-run-session": {"all_pages", "raw"},
        "posthog-get-task-run-logs": {"last", "since", "types", "raw"},
    }
    assert all(
        name in tool.input_schema["properties"] and name not in {item.argument for item in tool.operation.parameters}
        for tool in SHIPPED.values()
        for name in tool.server_arguments
    )


def test_builtin_rate_limits_are_those_of_the_providers() -> None:
    # Render API reference: Rate limiting; posthog.com/docs/api: Rate limiting. Inngest and Runway publish none.
    render = Limits(None, (Rate(400, 60.0, READS), Rate(30, 60.0, WRITES)))
    posthog = Limits(None, (Rate(480, 60.0), Rate(4800, 3600.0)))
    shipped = {"render": render, "posthog": posthog, "inngest": Limits(), "runway": Limits()}
    assert {(tool.prefix, tool.operation.limits) for tool in SHIPPED.values()} == set(shipped.items())


def test_builtin_redactions_are_those_of_the_providers() -> None:
    # PostHog products/tasks/mcp/tools.yaml; connection_token mints a JWT for 24 hours: api.py
    in_a_run = [("log_url",), ("state", "sandbox_connect_token"), ("state", "sandbox_url")]

    def places(*at: Any) -> set[Any]:
        return {(*at, *place) for place in in_a_run}

    assert {name: set(tool.operation.redactions) for name, tool in SHIPPED.items() if tool.operation.redactions} == {
        "posthog-list-task-runs": places("results", EACH),
        "posthog-create-task-run": places(),
        "posthog-retrieve-task-run": places(),
        "posthog-wait-for-run": places(),
        "posthog-explain-run": places(),
        "posthog-retry-run": places(),
        "posthog-update-task-run": places(),
        "posthog-append-log-entries": places(),
        "posthog-resume-task-run-cloud": places(),
        "posthog-set-run-output": places(),
        "posthog-start-task-run": places("latest_run"),
        "posthog-get-sandbox-connection-token": {("token",)},
    }
