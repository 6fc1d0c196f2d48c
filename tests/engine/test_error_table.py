"""What the providers' errors are told as. The answers are as the providers give them: Render's API reference, its SDK
(render 1.5.0) and its CLI's local server (pkg/workflows/apiserver); Inngest's open-source server (pkg/api); PostHog's
source (posthog/exceptions, products/tasks/backend); Runway's OpenAPI document, SDK (runwayml 5.24.0) and documentation.
"""

import json
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest

from mcp_taskruns.core.calls.response import HttpResponse, read_response
from mcp_taskruns.errors import Kind, ProviderError
from mcp_taskruns.loading.loader import load_tools

TOOLS = {tool.name: tool for tool in load_tools(())}
NOW = 1_767_225_600.0
"""2026-01-01 00:00:00 UTC, when every answer is received."""

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
EVENTS = "text/event-stream"
HTML = "text/html"


@dataclass(frozen=True)
class Row:
    """An answer, and what it is told as: `hint` is a part of the hint that says what to do in this case."""

    id: str
    tool: str
    status: int
    body: Any
    kind: Kind
    hint: str
    retryable: bool = False
    after: float | None = None
    media_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()
    told: int | None = None

    def answer(self) -> HttpResponse:
        text = self.body if isinstance(self.body, str) else json.dumps(self.body)
        headers = {"content-type": self.media_type} | dict(self.headers)
        return HttpResponse(self.status, headers, text.encode(), NOW)


def drf(kind: str, code: str, detail: str, attr: str | None = None) -> dict[str, Any]:
    """drf-exceptions-hog: PostHog posthog/exceptions"""
    return {"type": kind, "code": code, "detail": detail, "attr": attr}


def message(text: str, **more: str) -> dict[str, str]:
    """Render API reference: errors"""
    return {"id": "err-1", "message": text, **more}


LIST, RUN, GET, CANCEL, STREAM = (
    "render-list-task-runs",
    "render-run-task",
    "render-retrieve-task-run",
    "render-cancel-task-run",
    "render-stream-realtime-events-sse",
)
RENDER = [
    Row("401 plain", GET, 401, "Unauthorized\n", "auth", "RENDER_API_KEY", media_type=TEXT),
    Row("401 json", LIST, 401, message("unauthorized"), "auth", "begin with rnd_"),
    Row("403", LIST, 403, message("forbidden"), "auth", "lack a permission"),
    Row("wrong slug", RUN, 404, message("task not found: my-workflow/nope"), "not_found", "render-list-tasks"),
    Row("run", GET, 404, message("task run not found"), "not_found", "render-list-task-runs"),
    Row("cancel unknown", CANCEL, 404, message("task run not found: trn-1"), "not_found", "render-list-task-runs"),
    Row("task", "render-retrieve-task", 404, message("task not found"), "not_found", "render-list-tasks lists"),
    Row("stream unknown", STREAM, 404, message("task run not found: trn-1"), "not_found", "(trn-...)"),
    Row("no input", RUN, 400, message("input must be an array or an object"), "validation", "Change the arguments"),
    Row("blank task", RUN, 400, message("task cannot be blank"), "validation", "Change the arguments"),
    Row("cursor", LIST, 400, message("invalid cursor", code="invalid_cursor"), "validation", "none for the first page"),
    Row("limit", LIST, 400, message("invalid limit", code="invalid_limit"), "validation", "Change the arguments"),
    Row("ended", CANCEL, 500, message("task run trn-1 is not active"), "conflict", "has ended already"),
    Row(
        "subtask",
        CANCEL,
        500,
        message("task run trn-2 is a subtask; cancel its root trn-1 instead"),
        "conflict",
        "Cancel the root run trn-1 instead",
    ),
    Row(
        "429 seconds",
        LIST,
        429,
        message("rate limit exceeded"),
        "rate_limited",
        "Wait",
        retryable=True,
        after=45,
        headers=(("ratelimit-limit", "400"), ("ratelimit-remaining", "0"), ("ratelimit-reset", "45")),
    ),
    Row(
        "429 epoch",
        CANCEL,
        429,
        message("rate limit exceeded"),
        "rate_limited",
        "Wait",
        retryable=True,
        after=12,
        headers=(("ratelimit-reset", "1767225612"),),
    ),
    Row("500", RUN, 500, message("internal server error"), "unavailable", "may have been carried out"),
    Row("500 read", LIST, 500, message("internal server error"), "unavailable", "try again later", retryable=True),
    Row(
        "503 page",
        GET,
        503,
        "<html><title>503 Service Unavailable</title></html>",
        "unavailable",
        "try again later",
        retryable=True,
        media_type=HTML,
    ),
]

STATUS, STOP, JOBS = "inngest-get-function-run-status", "inngest-cancel-function-run", "inngest-list-jobs-steps-run"


def v1(status: int, text: str) -> dict[str, Any]:
    """Inngest pkg/api/apiv1: the status is in the body, which GETs send with 200: cache.go"""
    return {"error": text, "data": None, "status": status}


NO_RUN = "Unable to load function run: 01HXYZ8K3V5QWERTY6ABCDEFGH"
INNGEST = [
    Row("unknown in a 200", STATUS, 200, v1(500, NO_RUN), "not_found", "no such run", told=500),
    Row("unknown in text", STATUS, 200, v1(500, NO_RUN), "not_found", "no such run", media_type=TEXT, told=500),
    Row("jobs of unknown", JOBS, 200, v1(500, NO_RUN), "not_found", "no such run", told=500),
    Row("cancel unknown", STOP, 404, v1(404, NO_RUN), "not_found", "no such run"),
    Row("no ulid in a 200", STATUS, 200, v1(400, "Invalid run ID: nope"), "validation", "A run id is a ULID", told=400),
    Row("cancel no ulid", STOP, 400, v1(400, "Invalid run ID: nope"), "validation", "A run id is a ULID"),
    Row("401", STATUS, 401, "Authentication failed", "auth", "signkey-", media_type=TEXT),
    Row("401 cancel", STOP, 401, "Authentication failed", "auth", "INNGEST_SIGNING_KEY", media_type=TEXT),
    Row("route", STOP, 404, "404 page not found", "config", "INNGEST_API_BASE_URL", media_type=TEXT),
    Row("405", STOP, 405, "", "unsupported", "another tool", media_type=TEXT),
    Row("429", STATUS, 429, "", "rate_limited", "Wait", retryable=True, media_type=TEXT),
    Row("other 500", STATUS, 200, v1(500, "Unable to query"), "unavailable", "later", retryable=True, told=500),
    Row("502", JOBS, 502, "Bad Gateway", "unavailable", "later", retryable=True, media_type=TEXT),
]

KEY = "POSTHOG_API_KEY"
READ = "posthog-retrieve-task-run"
UPDATE, START, CREATE = "posthog-update-task-run", "posthog-start-task-run", "posthog-create-task-run"
COMMAND, RESUME, FOLLOW = (
    "posthog-send-command-agent-server",
    "posthog-resume-task-run-cloud",
    "posthog-stream-task-run",
)
PREPARE, FINALIZE, DOWNLOAD = (
    "posthog-prepare-direct-uploads-task-run",
    "posthog-finalize-direct-uploads-task-run",
    "posthog-download-artifact-through-backend",
)
NO_KEY = drf("authentication_error", "not_authenticated", "Authentication credentials were not provided.")
BAD_KEY = drf("authentication_error", "authentication_failed", "Personal API key found in request is invalid.")
GATE = {
    "type": "rate_limited",
    "code": "usage_limit_exceeded",
    "error": "You've reached your PostHog Code usage limit.",
    "attr": None,
}


def scope(name: str) -> dict[str, Any]:
    return drf("authentication_error", "permission_denied", f"API key missing required scope '{name}'")


def invalid(code: str, detail: str, attr: str) -> dict[str, Any]:
    return drf("validation_error", code, detail, attr)


POSTHOG = [
    Row("no key 401", READ, 401, NO_KEY, "auth", KEY),
    Row("no key 403", READ, 403, NO_KEY, "auth", "phc_..."),
    Row("bad key 401", READ, 401, BAD_KEY, "auth", "phx_..."),
    Row("bad key 403", UPDATE, 403, BAD_KEY, "auth", "POSTHOG_HOST"),
    Row("scope write", UPDATE, 403, scope("task:write"), "auth", f"in {KEY} the scope task:write"),
    Row("scope read", READ, 403, scope("task:read"), "auth", "the scope task:read"),
    Row("scope token", "posthog-get-sandbox-connection-token", 403, scope("task:write"), "auth", "scope task:write"),
    Row("stream 401", FOLLOW, 401, "typecodedetailattr", "auth", KEY, media_type=EVENTS),
    Row("stream 406", FOLLOW, 406, "typecodedetailattr", "unsupported", "report it", media_type=EVENTS),
    Row(
        "406",
        "posthog-get-task-run-logs",
        406,
        drf("invalid_request", "not_acceptable", "Could not satisfy the request Accept header."),
        "unsupported",
        "bug in this server",
    ),
    Row(
        "405",
        READ,
        405,
        drf("invalid_request", "method_not_allowed", 'Method "DELETE" not allowed.'),
        "unsupported",
        "another",
    ),
    Row(
        "415",
        CREATE,
        415,
        drf("invalid_request", "unsupported_media_type", "Unsupported media type"),
        "unsupported",
        "report it",
    ),
    Row("project", READ, 404, drf("invalid_request", "not_found", "Project not found."), "not_found", "project_id"),
    Row("task", CREATE, 404, drf("invalid_request", "not_found", "Task not found"), "not_found", "Check task_id"),
    Row(
        "list", "posthog-list-task-runs", 404, drf("invalid_request", "not_found", "Not found."), "not_found", "region"
    ),
    Row("run", READ, 404, drf("invalid_request", "not_found", "Not found."), "not_found", "posthog-list-task-runs"),
    Row(
        "throttled",
        READ,
        429,
        drf("throttled_error", "throttled", "Request was throttled. Expected available in 13 seconds."),
        "rate_limited",
        "Wait",
        retryable=True,
        after=13,
        headers=(("retry-after", "13"),),
    ),
    Row("gate create", CREATE, 429, GATE, "usage_limit", "calling again does not help"),
    Row("gate start", START, 429, GATE, "usage_limit", "calling again does not help"),
    Row("gate resume", RESUME, 429, GATE, "usage_limit", "somebody has to raise it"),
    Row("parse", CREATE, 400, drf("invalid_request", "parse_error", "JSON parse error"), "validation", "Change the"),
    Row("choice", CREATE, 400, invalid("invalid_choice", '"x" is not valid.', "environment"), "validation", "Change"),
    Row(
        "entries",
        "posthog-append-log-entries",
        400,
        invalid("invalid_input", "At least one log entry is required", "entries"),
        "validation",
        "Change",
    ),
    Row(
        "github",
        CREATE,
        400,
        invalid("github_authorization_required", "Link a GitHub account.", "pr_authorship_mode"),
        "auth",
        "pr_authorship_mode bot",
    ),
    Row("sandbox", CREATE, 400, {"detail": "Invalid sandbox_environment_id"}, "validation", "Change the arguments"),
    Row(
        "start local",
        START,
        400,
        {"error": "Only cloud runs can be started via this endpoint"},
        "conflict",
        "environment cloud",
    ),
    Row(
        "start again",
        START,
        400,
        {"error": "Only queued or not_started cloud runs can be started (current status: completed)"},
        "conflict",
        "posthog-wait-for-run",
    ),
    Row(
        "start ids",
        START,
        400,
        {"detail": "Some pending_user_artifact_ids are invalid for this run", "missing_artifact_ids": ["a1", "a2"]},
        "validation",
        "Not on this run: a1, a2.",
    ),
    Row("active", RESUME, 400, {"error": "Run is already active in cloud"}, "conflict", "posthog-wait-for-run"),
    Row(
        "workflow",
        RESUME,
        502,
        {"error": "Failed to start cloud workflow"},
        "unavailable",
        "whether it is queued",
    ),
    Row("no sandbox", COMMAND, 400, {"error": "No active sandbox for this task run"}, "conflict", START),
    Row(
        "agent gone",
        COMMAND,
        502,
        {"error": "Agent server is not reachable"},
        "unavailable",
        "sandbox may have ended",
    ),
    Row(
        "agent slow",
        COMMAND,
        504,
        {"error": "Agent server request timed out"},
        "timeout",
        "posthog-get-filtered-task-run-session",
    ),
    Row(
        "slack",
        "posthog-relay-run-message-slack",
        503,
        {"error": "Failed to queue Slack relay"},
        "unavailable",
        "Nothing was posted",
        retryable=True,
    ),
    Row(
        "artifact",
        "posthog-generate-presigned-url-artifact",
        404,
        {"error": "Artifact not found on this run"},
        "not_found",
        "a storage_path from artifacts",
    ),
    Row("content", DOWNLOAD, 404, {"error": "Artifact content not found"}, "not_found", "kept for 30 days"),
    Row("path", FINALIZE, 400, {"error": "Artifact storage path is invalid for this run"}, "validation", PREPARE),
    Row("not there", FINALIZE, 400, {"error": "Artifact upload not found in object storage"}, "conflict", PREPARE),
    Row(
        "output",
        "posthog-set-run-output",
        400,
        {"error": "Output validation error: 'summary' is a required property"},
        "validation",
        "json_schema",
    ),
    Row("503", READ, 503, "", "unavailable", "later", retryable=True, media_type=HTML),
]

TASK, DELETE = "runway-retrieve-task-status-and-output", "runway-cancel-delete-task"


def issue(path: list[str], text: str) -> dict[str, Any]:
    """Runway's OpenAPI document: {error, issues: [{code, path, message}], docUrl}"""
    return {"error": "Validation of request failed", "issues": [{"code": "invalid", "path": path, "message": text}]}


RUNWAY = [
    Row("version", TASK, 400, issue(["headers", "X-Runway-Version"], "Required"), "unsupported", "report it"),
    Row("uuid", TASK, 400, issue(["params", "id"], "Invalid uuid"), "validation", "Change the arguments"),
    Row("401", TASK, 401, {"error": "Unauthorized"}, "auth", "RUNWAYML_API_SECRET"),
    Row("401 delete", DELETE, 401, {"error": "Unauthorized"}, "auth", "key_..."),
    Row("404", TASK, 404, {"error": "Task not found"}, "not_found", "was deleted or cancelled"),
    Row("404 delete", DELETE, 404, {"error": "Task not found"}, "not_found", "after which it cannot be fetched"),
    Row("405", TASK, 405, {"error": "Method not allowed"}, "unsupported", "another tool"),
    Row("429", TASK, 429, {"error": "Too many requests"}, "rate_limited", "Wait", retryable=True),
    Row(
        "429 after",
        TASK,
        429,
        {"error": "Too many requests"},
        "rate_limited",
        "Wait",
        retryable=True,
        after=2,
        headers=(("retry-after", "2"),),
    ),
    Row(
        "429 after ms",
        DELETE,
        429,
        {"error": "Too many requests"},
        "rate_limited",
        "Wait",
        retryable=True,
        after=0.25,
        headers=(("retry-after-ms", "250"), ("retry-after", "1")),
    ),
    Row("502", TASK, 502, {"error": "Bad gateway"}, "unavailable", "later", retryable=True),
    Row(
        "503 date",
        TASK,
        503,
        {"error": "Overloaded"},
        "unavailable",
        "later",
        retryable=True,
        after=30,
        headers=(("retry-after", "Thu, 01 Jan 2026 00:00:30 GMT"),),
    ),
    Row("504", TASK, 504, {"error": "Gateway timeout"}, "timeout", "too long", retryable=True),
]

PROVIDERS = {"render": RENDER, "inngest": INNGEST, "posthog": POSTHOG, "runway": RUNWAY}
ROWS = [row for rows in PROVIDERS.values() for row in rows]


def told(row: Row, tools: Any = TOOLS) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        read_response(row.answer(), tools[row.tool].operation)
    return caught.value


@pytest.mark.parametrize("row", ROWS, ids=[f"{row.tool.partition('-')[0]} {row.id}" for row in ROWS])
def test_an_error_is_told_as_what_it_is_and_with_what_to_do(row: Row) -> None:
    error = told(row)
    assert (error.kind, error.retryable, error.retry_after_s) == (row.kind, row.retryable, row.after)
    assert error.status == (row.told or row.status)
    assert row.hint in error.hint


def test_the_table_is_of_real_size_and_each_answer_in_it_is_another() -> None:
    assert len(ROWS) >= 60
    assert min(len(rows) for rows in PROVIDERS.values()) >= 10
    assert all(row.tool.startswith(f"{name}-") for name, rows in PROVIDERS.items() for row in rows)
    seen = Counter((row.tool, row.status, str(row.body), row.headers, row.media_type) for row in ROWS)
    assert [answer for answer, count in seen.items() if count > 1] == []


def test_what_does_not_pass_is_never_said_to() -> None:
    lasting = {"auth", "not_found", "validation", "conflict", "usage_limit", "unsupported"}
    assert [row.id for row in ROWS if told(row).kind in lasting and told(row).retryable] == []


def test_a_message_has_the_providers_words() -> None:
    for row in ROWS:
        if isinstance(row.body, dict):
            words = next(row.body[key] for key in ("message", "detail", "error") if row.body.get(key))
            assert words in told(row).message


@pytest.mark.parametrize("names", ["prefixed", "spec"])
def test_a_hint_names_tools_as_they_are_listed(names: Any) -> None:
    listed = {tool.name for tool in load_tools((), names=names)}
    tools = {shown.name: spec for shown, spec in zip(load_tools(()), load_tools((), names=names), strict=True)}
    prefixes = "|".join(PROVIDERS)
    named = [name for row in ROWS for name in re.findall(rf"\b(?:{prefixes})-[a-z-]+[a-z]", told(row, tools).hint)]
    assert len(named) > 3
    assert set(named) <= listed
