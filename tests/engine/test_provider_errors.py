"""What every tool's errors are told as, and further answers beside those of the error table.

The answers are as the providers give them: Render's API reference, its SDK (render 1.5.0) and its CLI's local server
(pkg/workflows/apiserver); Inngest's open-source server (pkg/api); PostHog's source (posthog/exceptions,
products/tasks/backend); Runway's OpenAPI document, SDK (runwayml 5.24.0) and documentation.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import get_args

import pytest

from mcp_taskruns.core.calls.response import HttpResponse, read_response
from mcp_taskruns.core.model.operation import ErrorRule
from mcp_taskruns.core.model.tool import Tool
from mcp_taskruns.errors import Kind, ProviderError
from mcp_taskruns.loading.loader import load_tools
from tests.engine.test_error_table import (
    EVENTS,
    HTML,
    NO_RUN,
    NOW,
    ROWS,
    TEXT,
    TOOLS,
    Row,
    drf,
    invalid,
    issue,
    message,
    told,
    v1,
)

SPEC_NAMES = dict(zip(TOOLS, load_tools((), names="spec"), strict=True))
"""The same tools as they are listed with --tool-names spec, by the names that they have without."""

NGINX = "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>nginx</body>\r\n</html>"
GATEWAY_TIMEOUT = NGINX.replace("502 Bad Gateway", "504 Gateway Time-out")
GARBLED = "typecodedetailattr"
"""What is left of an error on PostHog's stream, whose only renderer writes the names of its members."""

FOLLOW = "posthog-stream-task-run"
READ = "posthog-retrieve-task-run"
UNAVAILABLE = "try again later"

FURTHER = [
    # Render
    Row("429 bare", "render-run-task", 429, message("rate limit exceeded"), "rate_limited", "Wait", retryable=True),
    Row(
        "429 reset soon",
        "render-run-task",
        429,
        message("rate limit exceeded"),
        "rate_limited",
        "Wait",
        retryable=True,
        after=0,
        headers=(("ratelimit-reset", "1767225599"),),
    ),
    Row(
        "429 garbage",
        "render-list-tasks",
        429,
        "Too Many Requests",
        "rate_limited",
        "Wait",
        retryable=True,
        media_type=TEXT,
        headers=(("ratelimit-reset", "soon"),),
    ),
    # The headers of limits come with every answer. Render API reference: Rate limiting
    Row(
        "run with limits",
        "render-retrieve-task-run",
        404,
        message("task run not found"),
        "not_found",
        "render-list-task-runs",
        headers=(("ratelimit-limit", "400"), ("ratelimit-remaining", "399"), ("ratelimit-reset", "45")),
    ),
    # What production answers to cancelling what has ended is not documented; render 1.5.0 calls it a ClientError: 4xx
    Row(
        "ended 409",
        "render-cancel-task-run",
        409,
        message("task run trn-1 is not active"),
        "conflict",
        "render-retrieve-task-run",
    ),
    Row(
        "owner",
        "render-list-task-runs",
        400,
        message("invalid owner", code="invalid_owner_id"),
        "validation",
        "Change the arguments",
    ),
    Row(
        "stream 401",
        "render-stream-realtime-events-sse",
        401,
        "Unauthorized",
        "auth",
        "RENDER_API_KEY",
        media_type=TEXT,
    ),
    Row(
        "503",
        "render-list-tasks",
        503,
        message("service unavailable"),
        "unavailable",
        UNAVAILABLE,
        retryable=True,
    ),
    # Inngest
    Row(
        "jobs, no ulid",
        "inngest-list-jobs-steps-run",
        200,
        v1(400, "Invalid run ID: x"),
        "validation",
        "ULID",
        told=400,
    ),
    Row(
        "jobs 401", "inngest-list-jobs-steps-run", 401, "Authentication failed", "auth", "sk-inn-api-", media_type=TEXT
    ),
    Row(
        "jobs of unknown in text",
        "inngest-list-jobs-steps-run",
        200,
        v1(500, NO_RUN),
        "not_found",
        "no such run",
        media_type=TEXT,
        told=500,
    ),
    Row("504", "inngest-get-function-run-status", 504, "", "timeout", "too long", retryable=True, media_type=TEXT),
    # PostHog: on the stream no error has words
    Row("stream 403", FOLLOW, 403, GARBLED, "auth", "POSTHOG_API_KEY", media_type=EVENTS),
    Row("stream 404", FOLLOW, 404, GARBLED, "not_found", "posthog-list-task-runs", media_type=EVENTS),
    Row(
        "stream 429",
        FOLLOW,
        429,
        GARBLED,
        "rate_limited",
        "Wait",
        retryable=True,
        after=7,
        media_type=EVENTS,
        headers=(("retry-after", "7"),),
    ),
    Row(
        "throttled write",
        "posthog-append-log-entries",
        429,
        drf("throttled_error", "throttled", "Request was throttled. Expected available in 1 second."),
        "rate_limited",
        "Wait",
        retryable=True,
        after=1,
        headers=(("retry-after", "1"),),
    ),
    Row(
        "no access",
        READ,
        403,
        drf("authentication_error", "permission_denied", "You don't have access to the project."),
        "auth",
        "may it do this?",
    ),
    Row(
        "resume github",
        "posthog-resume-task-run-cloud",
        400,
        invalid("github_authorization_required", "Link a GitHub account.", "pr_authorship_mode"),
        "auth",
        "Link GitHub",
    ),
    Row(
        "required",
        "posthog-relay-run-message-slack",
        400,
        invalid("required", "This field is required.", "text"),
        "validation",
        "Change the arguments",
    ),
    Row(
        "download 406",
        "posthog-download-artifact-through-backend",
        406,
        drf("invalid_request", "not_acceptable", "Could not satisfy the request Accept header."),
        "unsupported",
        "report it",
    ),
    Row(
        "download artifact",
        "posthog-download-artifact-through-backend",
        404,
        {"error": "Artifact not found on this run"},
        "not_found",
        "a storage_path from artifacts",
    ),
    Row(
        "500",
        READ,
        500,
        drf("server_error", "error", "A server error occurred."),
        "unavailable",
        UNAVAILABLE,
        retryable=True,
    ),
    Row("502 page", READ, 502, NGINX, "unavailable", UNAVAILABLE, retryable=True, media_type=HTML),
    Row("504 page", READ, 504, GATEWAY_TIMEOUT, "timeout", "took too long", retryable=True, media_type=HTML),
    # Runway
    Row(
        "400 bare",
        "runway-cancel-delete-task",
        400,
        {"error": "Bad request"},
        "validation",
        "Change the arguments",
    ),
    # The exact words are not documented; names of headers have no case (RFC 9110 section 5.1)
    Row(
        "version in lower case",
        "runway-cancel-delete-task",
        400,
        issue(["headers", "x-runway-version"], "Required"),
        "unsupported",
        "report it",
    ),
    Row("delete 405", "runway-cancel-delete-task", 405, {"error": "Method not allowed"}, "unsupported", "another tool"),
    Row(
        "delete 503",
        "runway-cancel-delete-task",
        503,
        "",
        "unavailable",
        "may have been carried out: read the current state",
        media_type=TEXT,
    ),
    Row(
        "429 garbage",
        "runway-retrieve-task-status-and-output",
        429,
        {"error": "Too many requests"},
        "rate_limited",
        "Wait",
        retryable=True,
        headers=(("retry-after", "a while"), ("retry-after-ms", "nan")),
    ),
]

ALL = [*ROWS, *FURTHER]


@pytest.mark.parametrize("row", FURTHER, ids=[f"{row.tool.partition('-')[0]} {row.id}" for row in FURTHER])
def test_an_error_is_told_as_what_it_is_and_with_what_to_do(row: Row) -> None:
    error = told(row)
    assert (error.kind, error.retryable, error.retry_after_s) == (row.kind, row.retryable, row.after)
    assert error.status == (row.told or row.status)
    assert row.hint in error.hint


def test_no_answer_is_in_the_tables_twice() -> None:
    answers = [(row.tool, row.status, str(row.body), row.headers, row.media_type) for row in ALL]
    assert len(set(answers)) == len(answers)


def test_every_hint_is_whole_sentences_with_no_hole_left() -> None:
    hints = {row.id: told(row).hint for row in ALL}
    assert [name for name, hint in hints.items() if not re.fullmatch(r"[A-Z][^{}]*[.?]", hint)] == []


def test_of_every_kind_that_providers_answer_with_there_is_a_row() -> None:
    assert {row.kind for row in ALL} == set(get_args(Kind))


RULES = {id(rule): (tool.prefix, rule) for tool in TOOLS.values() for rule in tool.operation.errors}


def without(rule: ErrorRule) -> dict[str, Tool]:
    """The tools as they were if their overlays did not have this rule."""
    return {
        name: replace(tool, operation=replace(operation, errors=tuple(one for one in operation.errors if one != rule)))
        for name, tool in TOOLS.items()
        for operation in [tool.operation]
    }


@pytest.mark.parametrize(
    ("prefix", "rule"), RULES.values(), ids=[f"{prefix} {rule.hint[:40]}" for prefix, rule in RULES.values()]
)
def test_without_any_rule_of_an_overlay_an_answer_would_be_told_otherwise(prefix: str, rule: ErrorRule) -> None:
    rows = [row for row in ALL if row.tool.startswith(f"{prefix}-")]
    assert [row.id for row in rows if told(row, without(rule)).to_json() != told(row).to_json()]


def named_in(hint: str, names: Iterator[str]) -> set[str]:
    """Which of these names of tools stand in a hint, as words of their own."""
    return {name for name in names if re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", hint)}


def test_a_hint_names_the_same_tools_however_they_are_listed() -> None:
    names = {prefixed: tool.name for prefixed, tool in SPEC_NAMES.items()}
    told_of = [
        (named_in(told(row).hint, iter(names)), named_in(told(row, SPEC_NAMES).hint, iter(names.values())))
        for row in ALL
    ]
    assert [pair for pair in told_of if {names[name] for name in pair[0]} != pair[1]] == []
    assert {"render-list-tasks", "posthog-wait-for-run"} <= set().union(*(prefixed for prefixed, _ in told_of))
    assert "list-tasks" in set().union(*(listed for _, listed in told_of))


CREDENTIAL = {
    "render": "RENDER_API_KEY",
    "inngest": "INNGEST_SIGNING_KEY",
    "posthog": "POSTHOG_API_KEY",
    "runway": "RUNWAYML_API_SECRET",
}


def wordless(tool: Tool, status: int) -> Iterator[ProviderError]:
    """What a tool makes of a status whose body says nothing, or nothing that is known."""
    for media_type, body in (
        (None, ""),
        (TEXT, "no"),
        (HTML, NGINX),
        (EVENTS, GARBLED),
        ("application/json", "{}"),
        ("application/json", '{"error":"no","message":"no","detail":"no"}'),
        ("application/json", "[" * 50),
    ):
        headers = {} if media_type is None else {"content-type": media_type}
        with pytest.raises(ProviderError) as caught:
            read_response(HttpResponse(status, headers, body.encode(), NOW), tool.operation)
        yield caught.value


@pytest.mark.parametrize("tool", TOOLS.values(), ids=TOOLS)
@pytest.mark.parametrize(
    ("status", "kind", "retryable"),
    [
        (400, "validation", False),
        (401, "auth", False),
        (403, "auth", False),
        (404, "not_found", False),
        (405, "unsupported", False),
        (406, "unsupported", False),
        (409, "conflict", False),
        (415, "unsupported", False),
        (429, "rate_limited", True),
        (500, "unavailable", True),
        (502, "unavailable", True),
        (503, "unavailable", True),
        (504, "timeout", True),
    ],
)
def test_of_an_error_without_words_every_tool_says_what_its_status_does(
    tool: Tool, status: int, kind: Kind, retryable: bool
) -> None:
    # After a 5xx nobody knows what became of a write, and to send it again may do it twice
    retryable = retryable and (status < 500 or tool.operation.is_safe_to_retry)
    # What may have been carried out is not said to be worth another try, unless that is like the first
    is_open = status >= 500 and not tool.operation.is_safe_to_retry
    for error in wordless(tool, status):
        assert (error.kind, error.status, error.retryable) == (kind, status, retryable and not is_open)
        assert error.hint
        assert ("may have been carried out: read the current state" in error.hint) is is_open
        if kind == "auth":
            assert CREDENTIAL[tool.prefix] in error.hint
        if status in (406, 415):
            assert "report it" in error.hint


@pytest.mark.parametrize("tool", TOOLS.values(), ids=TOOLS)
@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_every_tool_names_the_variable_of_an_address_that_only_redirects(tool: Tool, status: int) -> None:
    for error in wordless(tool, status):
        assert (error.kind, error.retryable) == ("unsupported", False)
        assert tool.operation.base.variables[0] in error.hint


@pytest.mark.parametrize("tool", TOOLS.values(), ids=TOOLS)
def test_the_words_of_one_provider_mean_nothing_at_another(tool: Tool) -> None:
    others = [row for row in ALL if not row.tool.startswith(tool.prefix) and row.status == 400 and row.told is None]
    assert len(others) > 5
    for row in others:
        with pytest.raises(ProviderError) as caught:
            read_response(row.answer(), tool.operation)
        assert (row.id, caught.value.kind) == (row.id, "validation")
